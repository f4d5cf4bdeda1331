//! Keeps the last status of every pod and sends what changed, one patch in flight per pod.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use component_base::clock::SharedClock;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::patch;
use crate::api::{Api, Error};
use crate::pod::{PodExt, Uid};

/// Pauses between attempts for one pod.
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(10);

struct Entry {
    /// Where the status goes: for a static pod, its mirror. `None` while there is nowhere.
    target: Option<Target>,
    status: PodStatus,
    /// What the API has, as far as is known.
    sent: PodStatus,
    /// The version of the object that `sent` is of: what is older says nothing new.
    version: u64,
    sending: bool,
    /// True while the API lacks something.
    behind: watch::Sender<bool>,
}

#[derive(Clone, PartialEq)]
struct Target {
    namespace: String,
    name: String,
    uid: String,
}

impl Target {
    fn of(pod: &Pod) -> Self {
        Self { namespace: pod.pod_namespace().into(), name: pod.pod_name().into(), uid: pod.uid().into() }
    }
}

/// The manager; a cheap handle.
#[derive(Clone)]
pub struct Manager {
    inner: Arc<Inner>,
}

struct Inner {
    api: Arc<dyn Api>,
    clock: SharedClock,
    entries: Mutex<HashMap<Uid, Entry>>,
}

impl Manager {
    pub fn new(api: Arc<dyn Api>, clock: SharedClock) -> Self {
        Self { inner: Arc::new(Inner { api, clock, entries: Mutex::default() }) }
    }

    /// The status last generated for a pod.
    pub fn get(&self, uid: &str) -> Option<PodStatus> {
        Some(self.inner.entries.lock().get(uid)?.status.clone())
    }

    /// Takes a new status of `pod`, to be written to `target`: the pod itself, or its mirror.
    pub fn set(&self, pod: &Pod, target: Option<&Pod>, status: PodStatus) {
        let uid = pod.uid().to_owned();
        let mut entries = self.inner.entries.lock();
        let entry = entries.entry(uid.clone()).or_insert_with(|| Entry {
            target: None,
            status: PodStatus::default(),
            sent: PodStatus::default(),
            version: 0,
            sending: false,
            behind: watch::channel(false).0,
        });
        let wanted = target.map(Target::of);
        if entry.target != wanted {
            entry.target = wanted;
            entry.sent = target.and_then(|p| p.status.clone()).unwrap_or_default();
            entry.version = target.map_or(0, version);
        }
        entry.status = status;
        self.send(&uid, entry);
    }

    /// Takes notice of what the API shows: others write statuses too.
    pub fn observe(&self, uid: &str, shown: &Pod) {
        let mut entries = self.inner.entries.lock();
        let Some(entry) = entries.get_mut(uid) else { return };
        // While a patch is on its way the answer to it is newer than anything seen meanwhile.
        let ours = entry.target.as_ref().is_some_and(|t| t.uid == shown.uid());
        if !entry.sending && ours && version(shown) > entry.version {
            entry.version = version(shown);
            entry.sent = shown.status.clone().unwrap_or_default();
            self.send(uid, entry);
        }
    }

    /// Waits until the API has the last status of a pod, or the pod is gone.
    pub async fn flush(&self, uid: &str) {
        let receiver = self.inner.entries.lock().get(uid).map(|e| e.behind.subscribe());
        if let Some(mut receiver) = receiver {
            // An error means that the entry was dropped: nothing is left to wait for.
            let _ = receiver.wait_for(|behind| !behind).await;
        }
    }

    /// Forgets a pod.
    pub fn remove(&self, uid: &str) {
        self.inner.entries.lock().remove(uid);
    }

    fn send(&self, uid: &str, entry: &mut Entry) {
        let needed = match &entry.target {
            Some(target) => patch(&target.uid, &entry.sent, &entry.status).is_some(),
            None => false,
        };
        entry.behind.send_if_modified(|behind| std::mem::replace(behind, needed) != needed);
        if needed && !entry.sending {
            entry.sending = true;
            tokio::spawn(self.clone().deliver(uid.to_owned()));
        }
    }

    /// Sends until there is nothing left to send.
    async fn deliver(self, uid: Uid) {
        let mut pause = RETRY_FIRST;
        loop {
            let (target, body, status) = {
                let mut entries = self.inner.entries.lock();
                let Some(entry) = entries.get_mut(&uid) else { return };
                let target = entry.target.clone();
                let body = target.as_ref().and_then(|t| patch(&t.uid, &entry.sent, &entry.status));
                match (target, body) {
                    (Some(target), Some(body)) => (target, body, entry.status.clone()),
                    _ => {
                        entry.sending = false;
                        entry.behind.send_replace(false);
                        return;
                    }
                }
            };
            match self.inner.api.patch_pod_status(&target.namespace, &target.name, body).await {
                Ok(answer) => {
                    pause = RETRY_FIRST;
                    if let Some(entry) = self.inner.entries.lock().get_mut(&uid)
                        && entry.target.as_ref() == Some(&target)
                    {
                        entry.sent = status;
                        entry.version = version(&answer).max(entry.version);
                    }
                }
                // Gone, or another pod of this name: nobody is interested any more.
                Err(Error::NotFound(_) | Error::Conflict(_)) => {
                    if let Some(entry) = self.inner.entries.lock().get_mut(&uid) {
                        entry.target = None;
                    }
                }
                Err(Error::Other(error)) => {
                    tracing::warn!(pod = %format!("{}/{}", target.namespace, target.name), %error, "failed to patch pod status");
                    self.inner.clock.sleep(pause).await;
                    pause = (pause * 2).min(RETRY_MAX);
                }
            }
        }
    }
}

/// Resource versions grow and can be compared (KEP-5504); one that is missing is older than all.
fn version(pod: &Pod) -> u64 {
    pod.metadata.resource_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or(0)
}
