//! What pods were granted of this node: whether a pod is taken at all, and what its containers may use
//! while its spec asks for more than that (in-place resize, KEP-1287).
//!
//! Everything else in the kubelet works with the granted size of a pod. Grants survive a restart in one
//! small file, because the spec in the API may by then ask for something that was never granted; what a
//! running container was last set to is kept beside them, since older runtimes do not say.

pub mod admit;
mod record;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use component_base::clock::SharedClock;
use k8s_openapi::api::core::v1::{Pod, PodCondition, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use parking_lot::Mutex;
use serde_json::json;

use crate::api::{Events, pod_reference};
use crate::pod::{PodExt, Uid};
use crate::resources::{self, Qos, qos_class};
pub use admit::{Marks, NodeView, Rejection};
use record::Record;

/// A wish that was not granted.
pub const PENDING: &str = "PodResizePending";
/// A grant that the containers do not have yet.
pub const IN_PROGRESS: &str = "PodResizeInProgress";
const FILE: &str = "keelson_pod_allocations";

struct Entry {
    record: Record,
    /// As its source has it now; `None` while only the file knows the pod.
    desired: Option<Arc<Pod>>,
    /// `desired` with what was granted in place of what is asked for.
    granted: Option<Arc<Pod>>,
    pending: Option<PodCondition>,
    in_progress: Option<PodCondition>,
}

type Poke = Box<dyn Fn(&str) + Send + Sync>;

/// The grants of all pods on the node.
pub struct Allocations {
    file: PathBuf,
    events: Arc<dyn Events>,
    clock: SharedClock,
    node: Mutex<NodeView>,
    entries: Mutex<HashMap<Uid, Entry>>,
    poke: OnceLock<Poke>,
}

/// An event that is owed once no lock is held.
struct News {
    pod: Arc<Pod>,
    kind: &'static str,
    reason: &'static str,
    text: String,
}

impl Allocations {
    /// Reads what an earlier kubelet granted, from below `directory`.
    pub fn load(directory: &Path, node: NodeView, events: Arc<dyn Events>, clock: SharedClock) -> Self {
        let file = directory.join(FILE);
        let entries = record::load(&file)
            .into_iter()
            .map(|(uid, record)| {
                let entry = Entry { record, desired: None, granted: None, pending: None, in_progress: None };
                (uid, entry)
            })
            .collect();
        Self { file, events, clock, node: Mutex::new(node), entries: Mutex::new(entries), poke: OnceLock::new() }
    }

    /// Who is told that a pod's grant has changed. Once.
    pub fn on_grant(&self, poke: impl Fn(&str) + Send + Sync + 'static) {
        let _ = self.poke.set(Box::new(poke));
    }

    /// Takes notice of labels and taints of the node.
    pub fn mark(&self, marks: Marks) {
        self.node.lock().marks = Some(marks);
    }

    /// Whether the pod may run here. One that was taken before, by an earlier kubelet too, still may.
    pub fn admit(&self, pod: &Arc<Pod>) -> Result<(), Rejection> {
        let node = self.node.lock().clone();
        let mut entries = self.entries.lock();
        if let Some(entry) = entries.get_mut(pod.uid()) {
            if entry.desired.is_none() {
                entry.desired = Some(pod.clone());
                entry.granted = Some(entry.record.apply(pod));
                backfill(entry, pod);
            }
            return Ok(());
        }
        {
            let others: Vec<Arc<Pod>> = entries.values().filter_map(|e| e.granted.clone()).collect();
            let others: Vec<&Pod> = others.iter().map(AsRef::as_ref).collect();
            admit::admit(pod, &others, &node)?;
        }
        let entry = Entry {
            record: Record::of(pod),
            desired: Some(pod.clone()),
            granted: Some(pod.clone()),
            pending: None,
            in_progress: None,
        };
        entries.insert(pod.uid().to_owned(), entry);
        self.save(&entries);
        Ok(())
    }

    /// The pod at its granted size. Grants what its spec newly asks for if that fits.
    pub fn resolve(&self, pod: &Arc<Pod>) -> Arc<Pod> {
        let mut news = Vec::new();
        let granted = {
            let mut entries = self.entries.lock();
            let Some(entry) = entries.get_mut(pod.uid()) else { return pod.clone() };
            let known = entry.desired.as_ref().is_some_and(|known| Arc::ptr_eq(known, pod));
            if !known {
                entry.desired = Some(pod.clone());
                entry.granted = Some(entry.record.apply(pod));
            }
            if entry.record.same_as(pod) {
                entry.pending = None;
            } else if !known || entry.pending.is_none() {
                self.grant_pending(&mut entries, &mut news, Some(pod.uid()));
            }
            entries.get(pod.uid()).and_then(|e| e.granted.clone())
        };
        self.tell(news);
        granted.unwrap_or_else(|| pod.clone())
    }

    /// Tries again what could not be granted; the pods whose turn came are poked.
    pub fn retry(&self) {
        let mut news = Vec::new();
        let granted = self.grant_pending(&mut self.entries.lock(), &mut news, None);
        self.tell(news);
        if let Some(poke) = self.poke.get() {
            granted.iter().for_each(|uid| poke(uid));
        }
    }

    /// The pod has ended and holds nothing any more. What it held may be what others waited for.
    pub fn release(&self, uid: &str) {
        let waiting = {
            let mut entries = self.entries.lock();
            if entries.remove(uid).is_some() {
                self.save(&entries);
            }
            entries.values().any(|e| e.pending.is_some())
        };
        if waiting {
            self.retry();
        }
    }

    /// Forgets pods that an earlier kubelet knew and nobody wants any more.
    pub fn retain(&self, wanted: impl Fn(&str) -> bool) {
        let mut entries = self.entries.lock();
        let before = entries.len();
        entries.retain(|uid, entry| entry.desired.is_some() || wanted(uid));
        if entries.len() != before {
            self.save(&entries);
        }
    }

    /// What the containers of a pod were last set to, by name.
    pub fn actuated(&self, uid: &str) -> BTreeMap<String, ResourceRequirements> {
        self.entries.lock().get(uid).map(|e| e.record.actuated.clone()).unwrap_or_default()
    }

    /// What the pod as a whole was last set to, for one with resources of its own.
    pub fn actuated_pod(&self, uid: &str) -> Option<ResourceRequirements> {
        self.entries.lock().get(uid)?.record.actuated_pod.clone()
    }

    /// Notes what a container was set to.
    pub fn set_actuated(&self, uid: &str, container: &str, resources: ResourceRequirements) {
        self.change(uid, |record| {
            record.actuated.insert(container.to_owned(), resources);
        });
    }

    /// Notes what the pod as a whole was set to.
    pub fn set_actuated_pod(&self, uid: &str, resources: Option<ResourceRequirements>) {
        self.change(uid, |record| record.actuated_pod = resources);
    }

    fn change(&self, uid: &str, change: impl FnOnce(&mut Record)) {
        let mut entries = self.entries.lock();
        let Some(entry) = entries.get_mut(uid) else { return };
        let before = entry.record.clone();
        change(&mut entry.record);
        if entry.record != before {
            self.save(&entries);
        }
    }

    /// The conditions that speak of a resize.
    pub fn conditions(&self, uid: &str) -> Vec<PodCondition> {
        let entries = self.entries.lock();
        let Some(entry) = entries.get(uid) else { return Vec::new() };
        entry.pending.iter().chain(&entry.in_progress).cloned().collect()
    }

    /// Notes whether containers still lack what was granted; says so when they no longer do.
    pub fn progressed(&self, pod: &Arc<Pod>, behind: bool) {
        let mut news = Vec::new();
        {
            let mut entries = self.entries.lock();
            let Some(entry) = entries.get_mut(pod.uid()) else { return };
            let now = Time(self.clock.now());
            match (behind, &entry.in_progress) {
                (true, None) => {
                    let generation = pod.metadata.generation;
                    entry.in_progress = Some(condition(IN_PROGRESS, None, "", "", generation, now));
                }
                (false, Some(done)) => {
                    let text = message("completed", pod, done.observed_generation, "");
                    news.push(News { pod: pod.clone(), kind: "Normal", reason: "ResizeCompleted", text });
                    entry.in_progress = None;
                }
                _ => {}
            }
        }
        self.tell(news);
    }

    /// Notes why a grant could not be carried out; it is tried again.
    pub fn failed(&self, pod: &Arc<Pod>, error: &str) {
        let mut news = Vec::new();
        {
            let mut entries = self.entries.lock();
            let Some(entry) = entries.get_mut(pod.uid()) else { return };
            let old = entry.in_progress.take();
            let generation = old.as_ref().map_or(pod.metadata.generation, |c| c.observed_generation);
            let said = old.as_ref().is_some_and(|c| c.message.as_deref() == Some(error));
            let new = condition(IN_PROGRESS, old.as_ref(), "Error", error, generation, Time(self.clock.now()));
            entry.in_progress = Some(if said { old.unwrap_or(new) } else { new });
            if !said {
                let text = message("error", pod, generation, error);
                news.push(News { pod: pod.clone(), kind: "Warning", reason: "ResizeError", text });
            }
        }
        self.tell(news);
    }

    /// Grants what fits, in upstream's order; returns the pods that got something. `fresh` has just
    /// asked: it is weighed even though it is not marked as waiting.
    fn grant_pending(&self, entries: &mut HashMap<Uid, Entry>, news: &mut Vec<News>, fresh: Option<&str>) -> Vec<Uid> {
        let node = self.node.lock().clone();
        let mut waiting: Vec<(Rank, Uid)> = entries
            .iter()
            .filter(|(uid, e)| e.pending.is_some() || fresh == Some(uid.as_str()))
            .filter_map(|(uid, e)| Some((rank(e)?, uid.clone())))
            .collect();
        waiting.sort();
        let mut granted = Vec::new();
        for (_, uid) in waiting {
            let others: Vec<Arc<Pod>> =
                entries.iter().filter(|(other, _)| **other != uid).filter_map(|(_, e)| e.granted.clone()).collect();
            let others: Vec<&Pod> = others.iter().map(AsRef::as_ref).collect();
            let Some(entry) = entries.get_mut(&uid) else { continue };
            let Some(pod) = entry.desired.clone() else { continue };
            let generation = pod.metadata.generation;
            let now = Time(self.clock.now());
            match admit::fits(&pod, &others, &node) {
                Ok(()) => {
                    entry.record.grant(&pod);
                    entry.granted = Some(pod.clone());
                    entry.pending = None;
                    entry.in_progress = Some(condition(IN_PROGRESS, None, "", "", generation, now));
                    let text = message("started", &pod, generation, "");
                    news.push(News { pod, kind: "Normal", reason: "ResizeStarted", text });
                    granted.push(uid);
                }
                Err(rejection) => {
                    let old = entry.pending.take();
                    let news_worthy = old.as_ref().is_none_or(|c| c.observed_generation != generation);
                    let new = condition(PENDING, old.as_ref(), "Deferred", &rejection.message, generation, now);
                    let same = old.as_ref().is_some_and(|c| c.message == new.message && !news_worthy);
                    entry.pending = Some(if same { old.unwrap_or(new) } else { new });
                    if news_worthy {
                        let text = message("Deferred", &pod, generation, &rejection.message);
                        news.push(News { pod, kind: "Warning", reason: "ResizeDeferred", text });
                    }
                }
            }
        }
        if !granted.is_empty() {
            self.save(entries);
        }
        granted
    }

    fn tell(&self, news: Vec<News>) {
        for News { pod, kind, reason, text } in news {
            self.events.event(&pod_reference(&pod, None), kind, reason, &text);
        }
    }

    fn save(&self, entries: &HashMap<Uid, Entry>) {
        if let Err(error) = record::save(&self.file, entries.iter().map(|(uid, e)| (uid, &e.record))) {
            tracing::warn!(%error, path = %self.file.display(), "failed to save what pods were granted");
        }
    }
}

/// What the API says of a resize that an earlier kubelet was about.
fn backfill(entry: &mut Entry, pod: &Pod) {
    for shown in pod.status.iter().flat_map(|s| s.conditions.iter().flatten()) {
        match shown.type_.as_str() {
            PENDING => entry.pending = Some(shown.clone()),
            IN_PROGRESS => entry.in_progress = Some(shown.clone()),
            _ => {}
        }
    }
}

/// Who comes first: those that give something back, higher priorities, Guaranteed pods, and then those
/// that have waited longest.
type Rank = (bool, i64, bool, Option<jiff::Timestamp>);

fn rank(entry: &Entry) -> Option<Rank> {
    let (desired, granted) = (entry.desired.as_ref()?, entry.granted.as_ref()?);
    let more = resources::pod_cpu_request(desired) > resources::pod_cpu_request(granted)
        || resources::pod_memory_request(desired) > resources::pod_memory_request(granted);
    let priority = i64::from(desired.pod_spec().priority.unwrap_or(0));
    let since = entry.pending.as_ref().and_then(|c| c.last_transition_time.as_ref()).map(|t| t.0);
    // One that has only just asked has waited shortest.
    let since = since.unwrap_or(jiff::Timestamp::MAX);
    Some((more, -priority, qos_class(desired) != Qos::Guaranteed, Some(since)))
}

fn condition(
    kind: &str,
    old: Option<&PodCondition>,
    reason: &str,
    message: &str,
    generation: Option<i64>,
    now: Time,
) -> PodCondition {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let since = old.filter(|c| c.reason.as_deref().unwrap_or_default() == reason);
    PodCondition {
        type_: kind.to_owned(),
        status: "True".to_owned(),
        reason: some(reason),
        message: some(message),
        observed_generation: generation,
        last_transition_time: since.and_then(|c| c.last_transition_time.clone()).or(Some(now.clone())),
        last_probe_time: Some(now),
    }
}

/// What events about a resize say: upstream's JSON summary of the sizes asked for.
fn message(what: &str, pod: &Pod, generation: Option<i64>, error: &str) -> String {
    let of = |containers: &[k8s_openapi::api::core::v1::Container]| -> Vec<String> {
        let each = containers.iter().map(|c| {
            let resources = json!(c.resources.clone().unwrap_or_default());
            format!(r#"{{"name":{},"resources":{resources}}}"#, json!(c.name))
        });
        each.collect()
    };
    let mut parts = Vec::new();
    for (name, list) in [("initContainers", pod.init_containers()), ("containers", &pod.pod_spec().containers)] {
        if !list.is_empty() {
            parts.push(format!(r#""{name}":[{}]"#, of(list).join(",")));
        }
    }
    parts.push(format!(r#""generation":{}"#, generation.unwrap_or(0)));
    if !error.is_empty() {
        parts.push(format!(r#""error":{}"#, json!(error)));
    }
    format!("Pod resize {what}: {{{}}}", parts.join(","))
}
