//! The scheduling queue: pods to try now, pods to try after a back-off, and pods that wait for the
//! cluster to change.
//!
//! A pod that did not fit waits for a kind of change that one of the plugins refusing it named
//! (queueing hints, KEP-4247); as a safety net it is tried again after five minutes anyway.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::framework::events::{ClusterEvent, EventKind, Hint};
use crate::framework::pod_info::PodInfo;
use crate::framework::profile::Profile;
use crate::framework::{Diagnosis, QueueSort};

mod nominated;
#[cfg(test)]
mod tests;

pub use nominated::NominatedPods;

/// A pod waits at most this long for a change before it is tried anyway.
pub const MAX_IN_UNSCHEDULABLE: Duration = Duration::from_secs(5 * 60);

/// A pod in the queue.
#[derive(Clone, Debug)]
pub struct QueuedPod {
    /// The pod.
    pub info: Arc<PodInfo>,
    /// When it entered the queue, or was refused last.
    pub since: Duration,
    /// How often it was tried.
    pub attempts: u32,
    /// When it entered the queue first.
    pub first: Duration,
    /// Plugins that refused it last time.
    pub unschedulable_plugins: BTreeSet<&'static str>,
    /// Order of arrival, for pods that compare equal.
    sequence: u64,
    /// The last try failed for a reason of ours.
    failed: bool,
}

/// Back-off times: doubling from `initial` to `max` with every try.
#[derive(Clone, Copy, Debug)]
pub struct BackOff {
    /// After the first try.
    pub initial: Duration,
    /// At most.
    pub max: Duration,
}

impl Default for BackOff {
    fn default() -> Self {
        Self { initial: Duration::from_secs(1), max: Duration::from_secs(10) }
    }
}

impl BackOff {
    fn after(&self, attempts: u32) -> Duration {
        let factor = 1_u32.checked_shl(attempts.saturating_sub(1)).unwrap_or(u32::MAX);
        self.initial.checked_mul(factor).map_or(self.max, |time| time.min(self.max))
    }
}

/// Where a pod is.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    Active,
    BackingOff(Duration),
    Unschedulable,
    /// Refused by PreEnqueue.
    Gated,
}

type Interested = Vec<(&'static str, Option<Hint>)>;

/// Pods that wait.
pub struct SchedulingQueue {
    profiles: HashMap<String, Arc<Profile>>,
    interests: HashMap<String, HashMap<EventKind, Interested>>,
    sort: Option<Arc<dyn QueueSort>>,
    back_off: BackOff,
    /// Sorted.
    active: VecDeque<QueuedPod>,
    backing_off: BTreeMap<(Duration, u64), QueuedPod>,
    unschedulable: HashMap<String, QueuedPod>,
    gated: HashMap<String, QueuedPod>,
    /// By UID, with the pod as it was put there.
    places: HashMap<String, (Place, Arc<PodInfo>, Duration, u64)>,
    nominated: NominatedPods,
    sequence: u64,
}

impl std::fmt::Debug for SchedulingQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SchedulingQueue").field("lengths", &self.lengths()).finish_non_exhaustive()
    }
}

/// How many pods are where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Lengths {
    pub active: usize,
    pub backoff: usize,
    pub unschedulable: usize,
    pub gated: usize,
}

impl SchedulingQueue {
    /// A queue for pods of these profiles. All profiles order pods the same way.
    pub fn new(profiles: &[Arc<Profile>], back_off: BackOff) -> Self {
        let mut interests: HashMap<String, HashMap<EventKind, Interested>> = HashMap::new();
        for profile in profiles {
            let by_kind = interests.entry(profile.scheduler_name.clone()).or_default();
            for (plugin, list) in &profile.interests {
                for interest in list {
                    by_kind.entry(interest.kind).or_default().push((plugin, interest.hint.clone()));
                }
            }
        }
        Self {
            profiles: profiles.iter().map(|p| (p.scheduler_name.clone(), p.clone())).collect(),
            interests,
            sort: profiles.first().and_then(|p| p.queue_sort.clone()),
            back_off,
            active: VecDeque::new(),
            backing_off: BTreeMap::new(),
            unschedulable: HashMap::new(),
            gated: HashMap::new(),
            places: HashMap::new(),
            nominated: NominatedPods::default(),
            sequence: 0,
        }
    }

    /// How many pods are where.
    pub fn lengths(&self) -> Lengths {
        Lengths {
            active: self.active.len(),
            backoff: self.backing_off.len(),
            unschedulable: self.unschedulable.len(),
            gated: self.gated.len(),
        }
    }

    /// Pods expected on nodes.
    pub fn nominated(&self) -> &NominatedPods {
        &self.nominated
    }

    /// Pods expected on nodes, to be changed.
    pub fn nominated_mut(&mut self) -> &mut NominatedPods {
        &mut self.nominated
    }

    /// Takes a pod in, or takes note of its change.
    pub fn add_or_update(&mut self, old: Option<Arc<PodInfo>>, info: Arc<PodInfo>, now: Duration) {
        if !info.pod.status.nominated_node_name.is_empty() {
            self.nominated.set(&info, &info.pod.status.nominated_node_name);
        } else if let Some(node) = self.nominated.node_of(info.uid()) {
            // Our own nomination may not be in the object yet.
            self.nominated.set(&info, &node);
        }
        let Some((place, ..)) = self.places.get(info.uid()) else {
            self.sequence += 1;
            let pod = QueuedPod {
                info,
                since: now,
                attempts: 0,
                first: now,
                unschedulable_plugins: BTreeSet::new(),
                sequence: self.sequence,
                failed: false,
            };
            self.enqueue(pod);
            return;
        };
        let place = *place;
        let Some(mut pod) = self.take(info.uid()) else { return };
        let changed = old
            .as_ref()
            .is_none_or(|old| old.pod.spec != info.pod.spec || old.pod.metadata.labels != info.pod.metadata.labels);
        pod.info = info.clone();
        match place {
            Place::Active => self.put_active(pod),
            Place::BackingOff(until) => self.put_backing_off(pod, until),
            Place::Gated => self.enqueue(pod),
            Place::Unschedulable => {
                let event = ClusterEvent::pod(EventKind::UnscheduledPodUpdate, old, Some(info));
                if changed && self.helps(&pod, &event) {
                    self.wake(pod, now);
                } else {
                    self.put_unschedulable(pod);
                }
            }
        }
    }

    /// Whether the pod waits here.
    pub fn contains(&self, uid: &str) -> bool {
        self.places.contains_key(uid)
    }

    /// Forgets a pod; whether room was being kept for it.
    pub fn remove(&mut self, uid: &str) -> bool {
        self.take(uid);
        self.nominated.remove(uid)
    }

    /// The next pods to try: one, or several of one signature that follow one another.
    pub fn pop_batch(&mut self, max: usize, now: Duration) -> Vec<QueuedPod> {
        self.flush(now);
        let mut batch: Vec<QueuedPod> = Vec::new();
        if self.active.is_empty() {
            // Nothing better to do: a pod need not sit out its back-off, unless something is broken.
            let next = self.backing_off.iter().find(|(_, pod)| !pod.failed).map(|(key, _)| *key);
            if let Some(pod) = next.and_then(|key| self.backing_off.remove(&key)) {
                self.places.remove(pod.info.uid());
                batch.push(pod);
            }
        } else {
            while batch.len() < max {
                let Some(next) = self.active.front() else { break };
                let fits = batch.first().is_none_or(|first| {
                    first.info.signature() == next.info.signature()
                        && first.info.priority() == next.info.priority()
                        // A pod with room kept for it is looked at by itself.
                        && self.nominated.node_of(next.info.uid()).is_none()
                        && self.nominated.node_of(first.info.uid()).is_none()
                });
                if !fits {
                    break;
                }
                if let Some(pod) = self.active.pop_front() {
                    self.places.remove(pod.info.uid());
                    batch.push(pod);
                }
            }
        }
        for pod in &mut batch {
            pod.attempts += 1;
        }
        batch
    }

    /// A pod that fits nowhere waits for a change.
    pub fn add_unschedulable(&mut self, mut pod: QueuedPod, diagnosis: &Diagnosis, now: Duration) {
        pod.unschedulable_plugins =
            diagnosis.unschedulable_plugins.iter().chain(&diagnosis.pending_plugins).copied().collect();
        pod.since = now;
        pod.failed = false;
        if pod.unschedulable_plugins.is_empty() {
            // Nobody said what it waits for.
            self.retry_after_error(pod, now);
        } else {
            self.put_unschedulable(pod);
        }
    }

    /// A pod whose try failed for a reason of ours is tried again after a back-off.
    pub fn retry_after_error(&mut self, mut pod: QueuedPod, now: Duration) {
        pod.since = now;
        pod.failed = true;
        pod.unschedulable_plugins.clear();
        let until = now + self.back_off.after(pod.attempts);
        self.put_backing_off(pod, until);
    }

    /// The cluster changed: pods that this may help are tried again.
    pub fn on_event(&mut self, event: &ClusterEvent, now: Duration) {
        if self.unschedulable.is_empty() {
            return;
        }
        let helped: Vec<String> =
            self.unschedulable.iter().filter(|(_, pod)| self.helps(pod, event)).map(|(uid, _)| uid.clone()).collect();
        for uid in helped {
            if let Some(pod) = self.take(&uid) {
                self.wake(pod, now);
            }
        }
    }

    /// When [`SchedulingQueue::flush`] has something to do next.
    pub fn next_wake_up(&self) -> Option<Duration> {
        let back_off = self.backing_off.keys().next().map(|(until, _)| *until);
        let stuck = self.unschedulable.values().map(|pod| pod.since + MAX_IN_UNSCHEDULABLE).min();
        [back_off, stuck].into_iter().flatten().min()
    }

    /// Whether a pod can be popped now.
    pub fn has_work(&mut self, now: Duration) -> bool {
        self.flush(now);
        !self.active.is_empty() || self.backing_off.values().any(|pod| !pod.failed)
    }

    /// Moves pods whose time has come.
    pub fn flush(&mut self, now: Duration) {
        while let Some(entry) = self.backing_off.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let pod = entry.remove();
            self.places.remove(pod.info.uid());
            self.put_active(pod);
        }
        if self.unschedulable.is_empty() {
            return;
        }
        let stuck: Vec<String> = self
            .unschedulable
            .iter()
            .filter(|(_, pod)| now >= pod.since + MAX_IN_UNSCHEDULABLE)
            .map(|(uid, _)| uid.clone())
            .collect();
        for uid in stuck {
            if let Some(pod) = self.take(&uid) {
                self.wake(pod, now);
            }
        }
    }

    fn helps(&self, pod: &QueuedPod, event: &ClusterEvent) -> bool {
        if event.kind == EventKind::WildCard {
            return true;
        }
        let Some(by_kind) = self.interests.get(&pod.info.pod.spec.scheduler_name) else { return false };
        by_kind.get(&event.kind).is_some_and(|interested| {
            interested.iter().any(|(plugin, hint)| {
                pod.unschedulable_plugins.contains(plugin) && hint.as_ref().is_none_or(|hint| hint(&pod.info, event))
            })
        })
    }

    fn wake(&mut self, pod: QueuedPod, now: Duration) {
        let until = pod.since + self.back_off.after(pod.attempts);
        if until > now { self.put_backing_off(pod, until) } else { self.enqueue(pod) }
    }

    fn enqueue(&mut self, mut pod: QueuedPod) {
        let verdict = self
            .profiles
            .get(&pod.info.pod.spec.scheduler_name)
            .map_or(Ok(()), |profile| profile.run_pre_enqueue(&pod.info));
        match verdict {
            Ok(()) => self.put_active(pod),
            Err(status) => {
                pod.unschedulable_plugins = BTreeSet::from([status.plugin]);
                self.remember(&pod, Place::Gated);
                self.gated.insert(pod.info.uid().to_owned(), pod);
            }
        }
    }

    fn put_active(&mut self, pod: QueuedPod) {
        let at = self.active.partition_point(|other| self.compare(other, &pod) == Ordering::Less);
        self.remember(&pod, Place::Active);
        self.active.insert(at, pod);
    }

    fn put_backing_off(&mut self, pod: QueuedPod, until: Duration) {
        self.remember(&pod, Place::BackingOff(until));
        self.backing_off.insert((until, pod.sequence), pod);
    }

    fn put_unschedulable(&mut self, pod: QueuedPod) {
        self.remember(&pod, Place::Unschedulable);
        self.unschedulable.insert(pod.info.uid().to_owned(), pod);
    }

    fn remember(&mut self, pod: &QueuedPod, place: Place) {
        self.places.insert(pod.info.uid().to_owned(), (place, pod.info.clone(), pod.since, pod.sequence));
    }

    fn take(&mut self, uid: &str) -> Option<QueuedPod> {
        let (place, info, since, sequence) = self.places.remove(uid)?;
        match place {
            Place::Unschedulable => self.unschedulable.remove(uid),
            Place::Gated => self.gated.remove(uid),
            Place::BackingOff(until) => self.backing_off.remove(&(until, sequence)),
            Place::Active => {
                let at = self.active.partition_point(|other| {
                    self.compare_keys((&other.info, other.since, other.sequence), (&info, since, sequence))
                        == Ordering::Less
                });
                self.active.remove(at)
            }
        }
    }

    fn compare(&self, a: &QueuedPod, b: &QueuedPod) -> Ordering {
        self.compare_keys((&a.info, a.since, a.sequence), (&b.info, b.since, b.sequence))
    }

    fn compare_keys(&self, a: (&PodInfo, Duration, u64), b: (&PodInfo, Duration, u64)) -> Ordering {
        let sorted = self.sort.as_ref().map_or(Ordering::Equal, |sort| sort.compare((a.0, a.1), (b.0, b.1)));
        sorted.then(a.2.cmp(&b.2))
    }
}
