//! What a Job and its pods amount to, and what should be done about it. Pure.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use client::Timestamp;

use super::backoff::{self, Record};
use super::indexes::{Indexes, index_of, indexes_of};
use super::policy::{self, Verdict};
use crate::pod_control;
use crate::types::{Condition, JOB_TRACKING, Job, Pod, condition, whole_seconds};

pub const SUCCESS_CRITERIA_MET: &str = "SuccessCriteriaMet";
pub const FAILURE_TARGET: &str = "FailureTarget";
pub const COMPLETE: &str = "Complete";
pub const FAILED: &str = "Failed";
pub const SUSPENDED: &str = "Suspended";

/// How often an index has failed, on the pod that stands for it.
pub const INDEX_FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
/// How often it has failed in a way that a policy ignores.
pub const INDEX_IGNORED_FAILURES: &str = "batch.kubernetes.io/job-index-ignored-failure-count";

/// How many pods one reconcile creates or deletes at most; upstream's number.
const BURST: usize = 500;
/// How many pods may be in no counter at once; upstream's number.
const MAX_UNCOUNTED: usize = 500;

/// One look at a Job.
pub struct Sync {
    /// As it is stored; its status is changed as the reconcile goes on.
    pub job: Job,
    pub pods: Vec<Arc<Pod>>,
    pub active: Vec<Arc<Pod>>,
    pub succeeded: i64,
    pub failed: i64,
    pub ready: i64,
    pub terminating: i64,
    /// Indexes that are in the status as succeeded.
    pub known_indexes: Indexes,
    pub succeeded_indexes: Indexes,
    /// Only with a back-off limit per index.
    pub failed_indexes: Option<Indexes>,
    pub backoff: Record,
    /// Why the Job ends: `SuccessCriteriaMet`, `FailureTarget`, or `Failed` when that was known before.
    pub finished: Option<Condition>,
    /// When the Job's deadline comes.
    pub deadline: Option<Duration>,
    /// The last failed pod of each index that awaits another; its finalizer stays until there is one, because
    /// it knows how often its index has failed.
    pub replaced: BTreeMap<i64, Arc<Pod>>,
    /// Pods that lose their finalizer although the cache does not show it yet.
    released: HashSet<String>,
    uncounted_succeeded: HashSet<String>,
    uncounted_failed: HashSet<String>,
}

/// What a look at the pods leads to.
#[derive(Debug, PartialEq)]
pub enum Decision {
    Nothing,
    Delete(Vec<Arc<Pod>>),
    /// Failed pods are replaced later.
    Wait(Duration),
    /// A pod for each; with its index in an Indexed Job.
    Create(Vec<Option<i64>>),
}

pub fn is_tracked(pod: &Pod) -> bool {
    pod.metadata.finalizers.iter().any(|finalizer| finalizer == JOB_TRACKING)
}

/// Whether a pod counts as failed: also while it is being deleted, unless only failed pods are replaced.
pub fn is_failed(job: &Job, pod: &Pod) -> bool {
    match pod.status.phase.as_str() {
        "Failed" => true,
        "Succeeded" => false,
        _ => pod.metadata.is_deleting() && !job.replaces_only_failed(),
    }
}

/// A condition made now.
pub fn new_condition(kind: &str, status: &str, reason: &str, message: &str, now: Timestamp) -> Condition {
    let now = Some(whole_seconds(now));
    Condition {
        kind: kind.into(),
        status: status.into(),
        reason: reason.into(),
        message: message.into(),
        last_probe_time: now,
        last_transition_time: now,
        ..Condition::default()
    }
}

/// Puts a condition among others; false when it was there, or is not there and false.
pub fn ensure_condition(conditions: &mut Vec<Condition>, new: Condition) -> bool {
    match conditions.iter_mut().find(|condition| condition.kind == new.kind) {
        Some(old) => {
            let changed = (&old.status, &old.reason, &old.message) != (&new.status, &new.reason, &new.message);
            if changed {
                *old = new;
            }
            changed
        }
        None if new.status == "False" => false,
        None => {
            conditions.push(new);
            true
        }
    }
}

fn failure_target(reason: &str, message: &str, now: Timestamp) -> Condition {
    new_condition(FAILURE_TARGET, "True", reason, message, now)
}

fn count_annotation(pod: &Pod, key: &str) -> i64 {
    pod.metadata
        .annotation(key)
        .and_then(|text| text.parse::<i32>().ok())
        .filter(|count| *count >= 0)
        .unwrap_or(0)
        .into()
}

fn all_index_failures(pod: &Pod) -> i64 {
    count_annotation(pod, INDEX_FAILURES) + count_annotation(pod, INDEX_IGNORED_FAILURES)
}

/// The failure counts that the pod which replaces another carries.
pub fn inherited_failures(job: &Job, replaced: Option<&Pod>) -> (i64, i64) {
    let Some(pod) = replaced else { return (0, 0) };
    let (failures, ignored) = (count_annotation(pod, INDEX_FAILURES), count_annotation(pod, INDEX_IGNORED_FAILURES));
    if policy::judge(job.spec.pod_failure_policy.as_ref(), pod).counts() {
        (failures + 1, ignored)
    } else {
        (failures, ignored + 1)
    }
}

impl Sync {
    /// Looks at a Job that is not finished and its pods.
    pub fn of(job: Job, pods: Vec<Arc<Pod>>, released: HashSet<String>, backoff: &Record, now: Timestamp) -> Self {
        let uncounted = job.status.uncounted_terminated_pods.clone().unwrap_or_default();
        let active: Vec<_> = pods.iter().filter(|pod| pod.is_active()).cloned().collect();
        let ready = active.iter().filter(|pod| pod.is_ready()).count() as i64;
        let terminating = pods.iter().filter(|pod| pod.metadata.is_deleting() && !pod.is_finished()).count() as i64;
        let mut sync = Self {
            ready,
            terminating,
            active,
            succeeded: 0,
            failed: 0,
            known_indexes: Indexes::default(),
            succeeded_indexes: Indexes::default(),
            failed_indexes: None,
            backoff: Record::default(),
            finished: None,
            deadline: None,
            replaced: BTreeMap::new(),
            released,
            uncounted_succeeded: uncounted.succeeded.iter().cloned().collect(),
            uncounted_failed: uncounted.failed.iter().cloned().collect(),
            job,
            pods,
        };
        sync.job.status.uncounted_terminated_pods = Some(uncounted);
        if sync.job.status.start_time.is_none() && !sync.job.is_suspended() {
            sync.job.status.start_time = Some(whole_seconds(now));
        }
        let succeeded = sync.new_pods(&sync.uncounted_succeeded, |pod| pod.status.phase == "Succeeded");
        let failed = sync.new_pods(&sync.uncounted_failed, |pod| is_failed(&sync.job, pod));
        let policy = sync.job.spec.pod_failure_policy.as_ref();
        let counted = failed.iter().filter(|pod| policy::judge(policy, pod).counts()).count();
        sync.succeeded = sync.job.status.succeeded + (succeeded.len() + sync.uncounted_succeeded.len()) as i64;
        sync.failed = sync.job.status.failed + (counted + sync.uncounted_failed.len()) as i64;
        sync.backoff = backoff.after(&succeeded, &failed);
        sync.conclude(now);
        if sync.job.is_indexed() {
            sync.look_at_indexes(now);
        }
        sync
    }

    fn completions(&self) -> i64 {
        self.job.spec.completions.unwrap_or(0)
    }

    /// A pod's index, when the Job has such an index.
    fn valid_index(&self, pod: &Pod) -> Option<i64> {
        index_of(pod).filter(|index| *index < self.completions())
    }

    /// Whether a pod is still to be counted.
    fn is_pending(&self, pod: &Pod) -> bool {
        is_tracked(pod) && !self.released.contains(&pod.metadata.uid)
    }

    /// Pods that are in no counter and not on their way into one.
    fn new_pods(&self, uncounted: &HashSet<String>, filter: impl Fn(&Pod) -> bool) -> Vec<Arc<Pod>> {
        let indexed = self.job.is_indexed();
        let is_new = |pod: &&Arc<Pod>| {
            self.is_pending(pod)
                && !uncounted.contains(&pod.metadata.uid)
                && (!indexed || self.valid_index(pod).is_some())
                && filter(pod)
        };
        self.pods.iter().filter(is_new).cloned().collect()
    }

    /// Decides whether the Job as a whole ends.
    fn conclude(&mut self, now: Timestamp) {
        let (spec, status) = (&self.job.spec, &self.job.status);
        let holds = |kind: &str| condition(&status.conditions, kind).filter(|condition| condition.is_true());
        let failed = || self.pods.iter().map(|pod| &**pod).filter(|pod| is_failed(&self.job, pod));
        let limit = spec.backoff_limit.unwrap_or(i64::from(i32::MAX));
        self.finished = if let Some(met) = holds(SUCCESS_CRITERIA_MET) {
            Some(met.clone())
        } else if let Some(target) = holds(FAILURE_TARGET) {
            Some(new_condition(FAILED, "True", &target.reason, &target.message, now))
        } else if let Some(message) = policy::fails_job(&self.job, failed()) {
            Some(failure_target("PodFailurePolicy", &message, now))
        } else if self.failed > limit || self.restarts_exceed(limit) {
            Some(failure_target("BackoffLimitExceeded", "Job has reached the specified backoff limit", now))
        } else {
            None
        };
        let (None, Some(seconds), Some(start), false) =
            (&self.finished, spec.active_deadline_seconds, status.start_time, self.job.is_suspended())
        else {
            return;
        };
        let elapsed = Duration::try_from(now.duration_since(start)).unwrap_or_default();
        let left = Duration::from_secs(seconds.max(0) as u64).saturating_sub(elapsed);
        if left.is_zero() {
            let message = "Job was active longer than specified deadline";
            self.finished = Some(failure_target("DeadlineExceeded", message, now));
        } else {
            self.deadline = Some(left);
        }
    }

    /// Whether pods that restart in place have done so too often.
    fn restarts_exceed(&self, limit: i64) -> bool {
        if self.job.spec.template["spec"]["restartPolicy"] != "OnFailure" {
            return false;
        }
        let restarts: i64 = self
            .pods
            .iter()
            .filter(|pod| matches!(pod.status.phase.as_str(), "Running" | "Pending"))
            .flat_map(|pod| pod.status.init_container_statuses.iter().chain(&pod.status.container_statuses))
            .map(|status| status.restart_count)
            .sum();
        if limit == 0 { restarts > 0 } else { restarts >= limit }
    }

    fn look_at_indexes(&mut self, now: Timestamp) {
        let completions = self.completions();
        self.known_indexes = Indexes::parse(&self.job.status.completed_indexes, completions);
        let tracked: Vec<(i64, &Arc<Pod>)> = self
            .pods
            .iter()
            .filter(|pod| is_tracked(pod))
            .filter_map(|pod| Some((self.valid_index(pod)?, pod)))
            .collect();
        let succeeded = tracked.iter().filter(|(_, pod)| pod.status.phase == "Succeeded").map(|(index, _)| *index);
        self.succeeded_indexes = self.known_indexes.with(succeeded);
        self.succeeded = self.succeeded_indexes.total();
        if let Some(limit) = self.job.spec.backoff_limit_per_index {
            let before = Indexes::parse(self.job.status.failed_indexes.as_deref().unwrap_or_default(), completions);
            let failed =
                before.with(tracked.iter().filter(|(_, pod)| self.index_failed(pod, limit)).map(|(index, _)| *index));
            if self.finished.is_none() {
                let total = failed.total();
                if self.job.spec.max_failed_indexes.is_some_and(|max| total > max) {
                    let message = "Job has exceeded the specified maximal number of failed indexes";
                    self.finished = Some(failure_target("MaxFailedIndexesExceeded", message, now));
                } else if total > 0 && total + self.succeeded >= completions {
                    self.finished = Some(failure_target("FailedIndexes", "Job has failed indexes", now));
                }
            }
            self.replaced = self.awaiting_replacement(&failed);
            self.failed_indexes = Some(failed);
        }
        if self.finished.is_none()
            && let Some(message) =
                policy::succeeded(self.job.spec.success_policy.as_ref(), completions, &self.succeeded_indexes)
        {
            self.finished = Some(new_condition(SUCCESS_CRITERIA_MET, "True", "SuccessPolicy", &message, now));
        }
    }

    /// Whether this pod's failure is the last its index is allowed.
    fn index_failed(&self, pod: &Pod, limit: i64) -> bool {
        is_failed(&self.job, pod)
            && match policy::judge(self.job.spec.pod_failure_policy.as_ref(), pod) {
                Verdict::FailIndex => true,
                Verdict::Ignore => false,
                _ => count_annotation(pod, INDEX_FAILURES) >= limit,
            }
    }

    fn awaiting_replacement(&self, failed: &Indexes) -> BTreeMap<i64, Arc<Pod>> {
        let active = indexes_of(self.active.iter().map(|pod| &**pod));
        let mut replaced: BTreeMap<i64, Arc<Pod>> = BTreeMap::new();
        for pod in self.new_pods(&HashSet::new(), |pod| is_failed(&self.job, pod)) {
            let Some(index) = self.valid_index(&pod) else { continue };
            if self.succeeded_indexes.contains(index) || failed.contains(index) || active.contains(&index) {
                continue;
            }
            let rank = |pod: &Pod| (all_index_failures(pod), backoff::finished_at(pod));
            let later = replaced.get(&index).is_none_or(|known| {
                let (known, pod) = (rank(known), rank(&pod));
                known.0 <= pod.0 && known.1 <= pod.1
            });
            if later {
                replaced.insert(index, pod);
            }
        }
        replaced
    }

    /// What to do about the number of pods.
    pub fn decide(&self, now: Timestamp) -> Decision {
        let active = self.active.len() as i64;
        let delete = |pods: Vec<Arc<Pod>>| if pods.is_empty() { Decision::Nothing } else { Decision::Delete(pods) };
        if self.job.is_suspended() {
            return delete(self.surplus(self.active.len(), now));
        }
        let parallelism = self.job.spec.parallelism.unwrap_or(1);
        let wanted = match self.job.spec.completions {
            // A work queue: once one pod has succeeded no more are begun.
            None if self.succeeded > 0 => active,
            None => parallelism,
            Some(completions) => (completions - self.succeeded).min(parallelism).max(0),
        };
        let mut surplus = self.surplus((active - wanted).max(0) as usize, now);
        surplus.truncate(BURST);
        if !surplus.is_empty() {
            return delete(surplus);
        }
        let leaving = if self.job.replaces_only_failed() { self.terminating } else { 0 };
        let missing = (wanted - leaving - active).max(0) as usize;
        if missing == 0 {
            return Decision::Nothing;
        }
        let per_index = self.job.spec.backoff_limit_per_index.is_some();
        let wait = self.backoff.remaining(now);
        if !per_index && !wait.is_zero() {
            return Decision::Wait(wait);
        }
        let missing = missing.min(BURST);
        if !self.job.is_indexed() {
            return Decision::Create(vec![None; missing]);
        }
        let indexes = self.pending_indexes(missing);
        if !per_index {
            return Decision::Create(indexes.into_iter().map(Some).collect());
        }
        let waits: Vec<(i64, Duration)> =
            indexes.into_iter().map(|index| (index, self.index_wait(index, now))).collect();
        let due: Vec<Option<i64>> =
            waits.iter().filter(|(_, wait)| wait.is_zero()).map(|(index, _)| Some(*index)).collect();
        match waits.iter().map(|(_, wait)| *wait).min() {
            Some(wait) if due.is_empty() => Decision::Wait(wait),
            _ if due.is_empty() => Decision::Nothing,
            _ => Decision::Create(due),
        }
    }

    fn index_wait(&self, index: i64, now: Timestamp) -> Duration {
        let Some(pod) = self.replaced.get(&index) else { return Duration::ZERO };
        backoff::remaining(all_index_failures(pod) as u32 + 1, backoff::finished_at(pod), now)
    }

    /// The first indexes that have no pod and need one.
    fn pending_indexes(&self, count: usize) -> Vec<i64> {
        let mut taken: BTreeSet<i64> = indexes_of(self.active.iter().map(|pod| &**pod));
        if self.job.replaces_only_failed() {
            let leaving = self.pods.iter().filter(|pod| pod.metadata.is_deleting() && !pod.is_finished());
            taken.extend(indexes_of(leaving.map(|pod| &**pod)));
        }
        let mut taken = self.succeeded_indexes.with(taken);
        if let Some(failed) = &self.failed_indexes {
            taken = taken.union(failed);
        }
        taken.first_missing(count, self.completions())
    }

    /// Active pods to delete, at least so many: those whose index is another's, or is none, in any case.
    fn surplus(&self, at_least: usize, now: Timestamp) -> Vec<Arc<Pod>> {
        let order = |a: &Arc<Pod>, b: &Arc<Pod>| pod_control::deletion_order((a, 0), (b, 0), now);
        let (mut remove, mut left) = (Vec::new(), Vec::new());
        if self.job.is_indexed() {
            let mut by_index: BTreeMap<i64, Vec<Arc<Pod>>> = BTreeMap::new();
            for pod in &self.active {
                match self.valid_index(pod) {
                    Some(index) => by_index.entry(index).or_default().push(pod.clone()),
                    None => remove.push(pod.clone()),
                }
            }
            for mut pods in by_index.into_values() {
                pods.sort_by(order);
                left.extend(pods.pop());
                remove.append(&mut pods);
            }
        } else {
            left.clone_from(&self.active);
        }
        if remove.len() < at_least {
            left.sort_by(order);
            remove.extend(left.into_iter().take(at_least - remove.len()));
        }
        remove
    }

    /// Enters the pods that have ended into the status: into the list of those not yet counted, or, in an
    /// Indexed Job, among the indexes. Their finalizers may go once that is stored (KEP-2307).
    pub fn tally(&mut self, now: Timestamp) -> Tally {
        let indexed = self.job.is_indexed();
        if indexed {
            self.pods.sort_by_key(|pod| index_of(pod));
        }
        let tracked: HashSet<String> =
            self.pods.iter().filter(|pod| self.is_pending(pod)).map(|pod| pod.metadata.uid.clone()).collect();
        let mut tally = Tally { changed: count_released(&mut self.job, &tracked), tracked, ..Tally::default() };
        let mut uncounted = self.job.status.uncounted_terminated_pods.take().unwrap_or_default();
        let mut new_indexes = Vec::new();
        let fails = self.finished.as_ref().is_some_and(|condition| condition.kind != SUCCESS_CRITERIA_MET);
        for pod in &self.pods {
            let failed = is_failed(&self.job, pod);
            if !self.is_pending(pod) || !self.may_release(pod, failed) {
                continue;
            }
            tally.release.push(pod.clone());
            let uid = &pod.metadata.uid;
            let index = self.valid_index(pod);
            if pod.status.phase == "Succeeded" && !self.uncounted_failed.contains(uid) {
                if indexed {
                    new_indexes.extend(index.filter(|index| !self.known_indexes.contains(*index)));
                } else if !self.uncounted_succeeded.contains(uid) {
                    tally.changed = true;
                    uncounted.succeeded.push(uid.clone());
                }
            } else if (failed || fails)
                && !self.uncounted_failed.contains(uid)
                && (!indexed || index.is_some())
                && policy::judge(self.job.spec.pod_failure_policy.as_ref(), pod).counts()
            {
                tally.changed = true;
                uncounted.failed.push(uid.clone());
            }
            if new_indexes.len() + uncounted.succeeded.len() + uncounted.failed.len() >= MAX_UNCOUNTED {
                // The rest waits for the next reconcile, so that the status stays small.
                tally.full = true;
                break;
            }
        }
        self.job.status.uncounted_terminated_pods = Some(uncounted);
        if indexed {
            tally.changed |= !new_indexes.is_empty();
            self.succeeded_indexes = self.succeeded_indexes.with(new_indexes);
            let status = &mut self.job.status;
            let completed = self.succeeded_indexes.to_string();
            let failed = self.failed_indexes.as_ref().map(Indexes::to_string);
            tally.changed |= completed != status.completed_indexes || failed != status.failed_indexes;
            status.succeeded = self.succeeded_indexes.total();
            status.completed_indexes = completed;
            status.failed_indexes = failed;
        }
        tally.changed |= self.announce(now);
        tally
    }

    /// Whether a pod needs its finalizer no longer, once it is in the status.
    fn may_release(&self, pod: &Pod, failed: bool) -> bool {
        if self.job.metadata.is_deleting() || self.finished.is_some() || pod.status.phase == "Succeeded" {
            return true;
        }
        let awaits = index_of(pod)
            .and_then(|index| self.replaced.get(&index))
            .is_some_and(|replaced| replaced.metadata.uid == pod.metadata.uid);
        failed && !awaits
    }

    /// Says in the status that the Job will end; [`Sync::finished`] becomes the condition it ends with.
    fn announce(&mut self, now: Timestamp) -> bool {
        let Some(finished) = self.finished.take() else { return false };
        let conditions = &mut self.job.status.conditions;
        let known = condition(conditions, &finished.kind).is_some_and(Condition::is_true);
        let end = match finished.kind.as_str() {
            FAILURE_TARGET => FAILED,
            SUCCESS_CRITERIA_MET => COMPLETE,
            _ => {
                self.finished = Some(finished);
                return false;
            }
        };
        self.finished = Some(new_condition(end, "True", &finished.reason, &finished.message, now));
        if !known {
            conditions.push(finished);
        }
        !known
    }

    /// Ends the Job in its status when nothing is left to count or to wait for.
    pub fn finish(&mut self) -> bool {
        let Some(finished) = &self.finished else { return false };
        let status = &mut self.job.status;
        let uncounted =
            status.uncounted_terminated_pods.as_ref().map_or(0, |pods| pods.succeeded.len() + pods.failed.len());
        if uncounted > 0 || self.terminating > 0 {
            return false;
        }
        if finished.kind == COMPLETE {
            status.completion_time = finished.last_transition_time;
        }
        ensure_condition(&mut status.conditions, finished.clone());
        true
    }
}

/// What [`Sync::tally`] found.
#[derive(Debug, Default)]
pub struct Tally {
    /// Whether the status must be stored before finalizers go.
    pub changed: bool,
    /// Pods whose finalizer may go then.
    pub release: Vec<Arc<Pod>>,
    /// Uids of pods with the finalizer.
    pub tracked: HashSet<String>,
    /// More pods have ended than one status may hold.
    pub full: bool,
}

/// Moves pods whose finalizer has gone from the list of the uncounted to the counters.
pub fn count_released(job: &mut Job, tracked: &HashSet<String>) -> bool {
    let status = &mut job.status;
    let Some(uncounted) = &mut status.uncounted_terminated_pods else { return false };
    let mut changed = false;
    for (list, counter) in
        [(&mut uncounted.succeeded, &mut status.succeeded), (&mut uncounted.failed, &mut status.failed)]
    {
        let before = list.len();
        list.retain(|uid| tracked.contains(uid));
        *counter += (before - list.len()) as i64;
        changed |= before != list.len();
    }
    changed
}
