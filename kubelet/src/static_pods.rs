//! Static pods: manifests in a directory, run without the API and mirrored into it.
//!
//! The directory is watched; a change is picked up at once. A mirror pod shows the status and is made
//! again if somebody deletes it; deleting it does not stop the pod.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use client::{Client, resources};
use component_base::clock::SharedClock;
use k8s_openapi::api::core::v1::{Pod, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::api::Api;
use crate::pod::{CONFIG_HASH, CONFIG_MIRROR, CONFIG_SEEN, CONFIG_SOURCE, PodExt, Uid, static_pod_uid};
use crate::sys::Watcher;
use crate::workers::Workers;

/// Pause before a mirror is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Follows one directory.
pub struct StaticPods {
    directory: PathBuf,
    node_name: String,
    api: Arc<dyn Api>,
    client: Client,
    workers: Arc<Workers>,
    clock: SharedClock,
    /// Static pods by namespace and name, as wanted.
    pods: Mutex<HashMap<(String, String), Arc<Pod>>>,
    mirrors: Mutex<HashMap<(String, String), Arc<Pod>>>,
    changed: Notify,
}

impl StaticPods {
    pub fn new(
        directory: PathBuf,
        node_name: String,
        api: Arc<dyn Api>,
        client: Client,
        workers: Arc<Workers>,
        clock: SharedClock,
    ) -> Self {
        let (pods, mirrors) = (Mutex::default(), Mutex::default());
        Self { directory, node_name, api, client, workers, clock, pods, mirrors, changed: Notify::new() }
    }

    /// A mirror pod appeared, changed or (`None`) went.
    pub fn mirror(&self, namespace: &str, name: &str, mirror: Option<Arc<Pod>>) {
        let key = (namespace.to_owned(), name.to_owned());
        match &mirror {
            Some(pod) => self.mirrors.lock().insert(key.clone(), pod.clone()),
            None => self.mirrors.lock().remove(&key),
        };
        if let Some(pod) = self.pods.lock().get(&key) {
            self.workers.update(pod.clone(), mirror);
        }
        self.changed.notify_one();
    }

    /// Reads the directory once; called before the first clean-up, so that nothing static looks orphaned.
    pub fn load(&self) {
        let mut wanted: HashMap<(String, String), Arc<Pod>> = HashMap::new();
        for path in manifests(&self.directory) {
            match read(&path, &self.node_name, &self.clock) {
                Ok(pod) => {
                    let key = (pod.pod_namespace().to_owned(), pod.pod_name().to_owned());
                    wanted.insert(key, Arc::new(pod));
                }
                Err(error) => tracing::warn!(path = %path.display(), %error, "cannot use static pod manifest"),
            }
        }
        let mut pods = self.pods.lock();
        let mirrors = self.mirrors.lock();
        for (key, old) in pods.iter() {
            if wanted.get(key).is_none_or(|new| new.uid() != old.uid()) {
                self.workers.remove(old.uid());
            }
        }
        for (key, pod) in &wanted {
            let unchanged = pods.get(key).is_some_and(|old| old.uid() == pod.uid());
            if !unchanged {
                self.workers.update(pod.clone(), mirrors.get(key).cloned());
            }
        }
        // A pod that stays keeps the object it had, with the time it was first seen.
        for (key, pod) in &mut wanted {
            if let Some(old) = pods.get(key).filter(|old| old.uid() == pod.uid()) {
                *pod = old.clone();
            }
        }
        *pods = wanted;
    }

    /// Runs until shutdown.
    pub async fn run(self: Arc<Self>, period: Duration, shutdown: CancellationToken) {
        let watcher = Watcher::new(&self.directory).ok();
        loop {
            self.load();
            let behind = self.keep_mirrors().await;
            let change = async {
                match &watcher {
                    Some(watcher) => watcher.changed().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = change => {}
                () = self.changed.notified() => {}
                () = self.clock.sleep(if behind { RETRY } else { period }) => {}
                () = shutdown.cancelled() => return,
            }
        }
    }

    /// Makes missing mirrors and removes stale ones; says whether something did not work.
    async fn keep_mirrors(&self) -> bool {
        let pods = self.pods.lock().clone();
        let mirrors = self.mirrors.lock().clone();
        let mut behind = false;
        for (key, mirror) in &mirrors {
            let hash = mirror.annotation(CONFIG_MIRROR);
            let stale = pods.get(key).is_none_or(|pod| pod.annotation(CONFIG_HASH) != hash);
            if stale || mirror.is_deleted() {
                let deleted = self.api.delete_pod(&key.0, &key.1, mirror.uid()).await;
                behind |= deleted.is_err_and(|error| !error.is_not_found());
            }
        }
        for (key, pod) in pods.iter().filter(|(key, _)| !mirrors.contains_key(*key)) {
            if let Err(error) = self.make_mirror(pod).await {
                tracing::debug!(pod = %format!("{}/{}", key.0, key.1), %error, "failed to create mirror pod");
                behind = true;
            }
        }
        behind
    }

    async fn make_mirror(&self, pod: &Pod) -> Result<(), String> {
        let node: Value = self.client.get(&resources::NODES, None, &self.node_name).await.map_err(|e| e.chain())?;
        let uid = node["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
        let mut mirror = pod.clone();
        let hash = pod.annotation(CONFIG_HASH).unwrap_or_default().to_owned();
        mirror.metadata.annotations.get_or_insert_default().insert(CONFIG_MIRROR.into(), hash);
        mirror.metadata.uid = None;
        mirror.metadata.owner_references = Some(vec![OwnerReference {
            api_version: "v1".into(),
            kind: "Node".into(),
            name: self.node_name.clone(),
            uid,
            controller: Some(true),
            ..Default::default()
        }]);
        self.api.create_pod(&mirror).await.map(|_| ()).map_err(|e| e.to_string())
    }

    /// Uids of the static pods, for those who must not take them for orphans.
    pub fn uids(&self) -> Vec<Uid> {
        self.pods.lock().values().map(|pod| pod.uid().to_owned()).collect()
    }
}

/// Files of a directory, in order; hidden ones are not manifests. A file stands for itself.
fn manifests(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.to_owned()];
    }
    let mut out: Vec<PathBuf> = std::fs::read_dir(path)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|e| !e.file_name().to_string_lossy().starts_with('.') && e.path().is_file())
        .map(|e| e.path())
        .collect();
    out.sort();
    out
}

fn read(path: &Path, node_name: &str, clock: &SharedClock) -> Result<Pod, String> {
    let text = std::fs::read_to_string(path).map_err(|e| e.to_string())?;
    let value = apimachinery::yaml::parse(&text).map_err(|e| e.to_string())?;
    if value["kind"] != "Pod" || value["apiVersion"] != "v1" {
        return Err("not a v1 Pod".into());
    }
    let mut pod: Pod = serde_json::from_value(value).map_err(|e| e.to_string())?;
    complete(&mut pod, node_name, &path.to_string_lossy(), text.as_bytes(), clock);
    Ok(pod)
}

/// What the API server would fill in, as far as the kubelet reads it, and what marks a static pod.
fn complete(pod: &mut Pod, node_name: &str, path: &str, manifest: &[u8], clock: &SharedClock) {
    let uid = static_pod_uid(node_name, path, manifest);
    let metadata = ObjectMeta {
        name: Some(format!("{}-{}", pod.metadata.name.clone().unwrap_or_default(), node_name.to_lowercase())),
        namespace: pod.metadata.namespace.clone().filter(|n| !n.is_empty()).or(Some("default".into())),
        uid: Some(uid.clone()),
        labels: pod.metadata.labels.clone(),
        annotations: pod.metadata.annotations.clone(),
        ..Default::default()
    };
    pod.metadata = metadata;
    let annotations: &mut BTreeMap<String, String> = pod.metadata.annotations.get_or_insert_default();
    annotations.insert(CONFIG_SOURCE.into(), "file".into());
    annotations.insert(CONFIG_HASH.into(), uid);
    annotations.insert(CONFIG_SEEN.into(), clock.now().to_string());
    let spec = pod.spec.get_or_insert_default();
    spec.node_name = Some(node_name.to_owned());
    spec.enable_service_links.get_or_insert(true);
    spec.restart_policy.get_or_insert_with(|| "Always".into());
    spec.termination_grace_period_seconds.get_or_insert(30);
    spec.dns_policy.get_or_insert_with(|| "ClusterFirst".into());
    // Static pods stay on their node whatever befalls it.
    spec.tolerations.get_or_insert_default().push(Toleration {
        operator: Some("Exists".into()),
        effect: Some("NoExecute".into()),
        ..Default::default()
    });
    let containers = spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten());
    for container in containers {
        container.termination_message_path.get_or_insert_with(|| "/dev/termination-log".into());
        container.termination_message_policy.get_or_insert_with(|| "File".into());
        let image = container.image.as_deref().unwrap_or_default();
        let latest = image.ends_with(":latest") || !image.rsplit('/').next().unwrap_or(image).contains([':', '@']);
        container.image_pull_policy.get_or_insert_with(|| if latest { "Always" } else { "IfNotPresent" }.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use component_base::clock::RealClock;

    #[test]
    fn manifests_become_static_pods() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("web.yaml");
        let text =
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: web\nspec:\n  containers:\n  - name: c\n    image: nginx\n";
        std::fs::write(&path, text).unwrap();
        std::fs::write(directory.path().join(".hidden"), "x").unwrap();
        assert_eq!(manifests(directory.path()), std::slice::from_ref(&path));
        let clock = RealClock::shared();
        let pod = read(&path, "Node", &clock).unwrap();
        assert_eq!((pod.pod_namespace(), pod.pod_name()), ("default", "web-node"));
        assert!(pod.is_static() && !pod.is_mirror());
        assert_eq!(pod.pod_spec().containers[0].image_pull_policy.as_deref(), Some("Always"));
        assert_eq!(read(&path, "Node", &clock).unwrap().uid(), pod.uid());
        std::fs::write(&path, text.replace("nginx", "nginx:1")).unwrap();
        assert_ne!(read(&path, "Node", &clock).unwrap().uid(), pod.uid());
        std::fs::write(&path, "apiVersion: v1\nkind: Service\n").unwrap();
        assert!(read(&path, "Node", &clock).is_err());
    }
}
