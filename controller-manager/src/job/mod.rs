//! Runs pods until enough of them have succeeded.
//!
//! Reads jobs and pods; creates, deletes, adopts and releases pods; writes `jobs/status`. Every pod has a
//! finalizer until it is counted, so that no end of a pod is missed (KEP-2307): the uids of ended pods are
//! stored in the status, then the finalizers go, then the uids become numbers. `assess` decides, `pods` acts,
//! `policy` knows the failure and success policies. Upstream: `pkg/controller/job`.

mod assess;
mod backoff;
mod indexes;
mod memory;
mod pods;
mod policy;
#[cfg(test)]
mod tests;
mod watch;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::labels::Selector;
use client::events::Recorder;
use client::informer::Store;
use client::resources::{JOBS, PODS};
use client::workqueue::{Limits, WorkQueue};
use client::{Client, ObjectKey, Timestamp};
use component_base::clock::SharedClock;
use futures::future::BoxFuture;
use parking_lot::Mutex;

use self::assess::{
    COMPLETE, Decision, SUCCESS_CRITERIA_MET, SUSPENDED, Sync, count_released, ensure_condition, is_tracked,
    new_condition,
};
use self::backoff::Record;
use self::memory::{Removals, Written};
use self::watch::{BY_NAMESPACE, Watch, resolve};
use crate::context::{Context, synced};
use crate::expectations::Expectations;
use crate::ownership::Claimer;
use crate::pod_control;
use crate::types::{JOB_TRACKING, Job, Pod, whole_seconds};
use crate::worker::{self, Error, Requeue};

pub const NAME: &str = "job-controller";

/// Back-off of failed reconciles; upstream's numbers.
const API_BACKOFF: Duration = Duration::from_secs(1);
const MAX_API_BACKOFF: Duration = Duration::from_secs(60);
/// A cache that is behind is looked at again after this long, should its event be lost.
const BEHIND: Duration = Duration::from_secs(1);

struct JobController {
    client: Client,
    clock: SharedClock,
    recorder: Recorder,
    jobs: Store<Job>,
    pods: Store<Pod>,
    expectations: Arc<Expectations>,
    removals: Arc<Removals>,
    written: Written,
    backoffs: Mutex<HashMap<ObjectKey, Record>>,
}

pub fn start(context: &Arc<Context>) -> BoxFuture<'static, ()> {
    let pods = context.informers.of::<Pod>(&PODS);
    let jobs = context.informers.of::<Job>(&JOBS);
    pod_control::index_by_controller(&pods);
    jobs.add_index(BY_NAMESPACE, |job| vec![job.metadata.namespace.clone()]);
    let queue = || {
        let limits = Limits { base: API_BACKOFF, max: MAX_API_BACKOFF, ..Limits::default() };
        WorkQueue::<ObjectKey>::with(limits, context.clock.clone())
    };
    let (queue, orphans) = (queue(), queue());
    let expectations = Arc::new(Expectations::new(context.clock.clone()));
    let removals = Arc::new(Removals::default());
    let watch = Watch {
        jobs: jobs.store(),
        pods: pods.store(),
        queue: queue.clone(),
        orphans: orphans.clone(),
        expectations: expectations.clone(),
        removals: removals.clone(),
    };
    watch.clone().jobs(&jobs);
    watch.pods(&pods);
    let controller = Arc::new(JobController {
        client: context.client(NAME),
        clock: context.clock.clone(),
        recorder: context.recorder(NAME),
        jobs: jobs.store(),
        pods: pods.store(),
        expectations,
        removals,
        written: Written::default(),
        backoffs: Mutex::default(),
    });
    let workers = context.config.concurrent_job_syncs;
    let shutdown = context.shutdown.clone();
    Box::pin(async move {
        let informers = async {
            pods.wait_synced().await;
            jobs.wait_synced().await;
        };
        if !synced(&shutdown, informers).await {
            return;
        }
        let releaser = controller.clone();
        let release = worker::run(NAME, orphans, workers, shutdown.clone(), move |key| {
            let controller = releaser.clone();
            async move { controller.release_orphan(&key).await }
        });
        let reconcile = worker::run(NAME, queue, workers, shutdown, move |key| {
            let controller = controller.clone();
            async move { controller.reconcile(&key).await }
        });
        futures::join!(reconcile, release);
    })
}

impl JobController {
    async fn reconcile(&self, key: &ObjectKey) -> worker::Result {
        let Some(job) = self.jobs.get(key) else {
            self.forget(key);
            return Ok(Requeue::Never);
        };
        if let Some(manager) = job.external_manager() {
            tracing::debug!(controller = NAME, key = %key, manager, "the job is managed by another controller");
            return Ok(Requeue::Never);
        }
        if job.is_finished() {
            self.forget(key);
            return Ok(Requeue::Never);
        }
        if self.written.is_newer_than(&job.metadata) {
            return Ok(Requeue::After(BEHIND));
        }
        if !matches!(job.spec.completion_mode.as_deref(), None | Some("NonIndexed" | "Indexed")) {
            let note = "Skipped Job sync because completion mode is unknown";
            self.recorder.event(&job.reference(), "Warning", "UnknownCompletionMode", note);
            return Ok(Requeue::Never);
        }
        // Asked before the pods are read: a pod that arrives in between only delays, never doubles.
        let satisfied = self.expectations.satisfied(key);
        let pods = self.claim(&job).await?;
        let now = self.clock.now();
        let record = self.backoffs.lock().get(key).cloned().unwrap_or_default();
        let mut sync = Sync::of((*job).clone(), pods, self.removals.of(key), &record, now);
        let mut wait = sync.deadline;
        let mut changed = false;
        let mut outcome = Ok(());
        let mut active = sync.active.len() as i64;
        if sync.finished.is_some() {
            let deleted = self.end_pods(&sync).await;
            if deleted.count != active || !satisfied {
                // Some pods may run on: the Job has not ended yet.
                sync.finished = None;
            }
            active -= deleted.count;
            sync.terminating += deleted.count;
            sync.ready -= deleted.ready;
            outcome = deleted.failure.map_or(Ok(()), Err);
        } else {
            let managed = satisfied && !sync.job.metadata.is_deleting();
            if managed {
                match sync.decide(now) {
                    Decision::Nothing => {}
                    Decision::Wait(delay) => wait = Some(wait.map_or(delay, |wait| wait.min(delay))),
                    Decision::Create(indexes) => {
                        let (created, result) = self.create_pods(&sync, &indexes).await;
                        active += created;
                        outcome = result;
                    }
                    Decision::Delete(pods) => {
                        let deleted = self.delete_pods(&sync.job, pods).await;
                        active -= deleted.count;
                        sync.terminating += deleted.count;
                        sync.ready -= deleted.ready;
                        outcome = deleted.failure.map_or(Ok(()), Err);
                    }
                }
            }
            let enough = sync.job.spec.completions.map_or(sync.succeeded > 0, |wanted| sync.succeeded >= wanted);
            if enough && active == 0 {
                let message = "Reached expected number of succeeded pods";
                sync.finished = Some(new_condition(SUCCESS_CRITERIA_MET, "True", "CompletionsReached", message, now));
            } else if managed {
                changed = self.note_suspension(&mut sync.job, now);
            }
        }
        let status = &mut sync.job.status;
        changed |=
            (active, Some(sync.ready), Some(sync.terminating)) != (status.active, status.ready, status.terminating);
        (status.active, status.ready, status.terminating) = (active, Some(sync.ready), Some(sync.terminating));
        self.track(sync, changed).await?;
        outcome?;
        Ok(wait.map_or(Requeue::Never, Requeue::After))
    }

    /// The Job's pods after adoption and release.
    async fn claim(&self, job: &Job) -> Result<Vec<Arc<Pod>>, Error> {
        let selector = Selector::from_label_selector(Some(&job.spec.selector))
            .map_err(|error| Error::Other(format!("couldn't convert Job selector: {error}")))?;
        let mut claimer = Claimer::new(&self.client, &JOBS, &job.metadata, &PODS).with_finalizer(JOB_TRACKING);
        let mut owned = Vec::new();
        for pod in pod_control::owned_and_orphans(&self.pods, &job.metadata) {
            if !claimer.settle(&pod.metadata, selector.matches(&pod.metadata.labels)).await? {
                continue;
            }
            let adopted = pod.metadata.controller().is_none();
            if adopted && !is_tracked(&pod) {
                // The cache does not show yet what adoption has put on it.
                let mut pod = (*pod).clone();
                pod.metadata.finalizers.push(JOB_TRACKING.to_string());
                owned.push(Arc::new(pod));
            } else {
                owned.push(pod);
            }
        }
        Ok(owned)
    }

    /// Says that the Job was suspended or goes on; true when that is news.
    fn note_suspension(&self, job: &mut Job, now: Timestamp) -> bool {
        let suspended = job.is_suspended();
        let (status, reason, message) =
            if suspended { ("True", "JobSuspended", "Job suspended") } else { ("False", "JobResumed", "Job resumed") };
        let condition = new_condition(SUSPENDED, status, reason, message, now);
        if !ensure_condition(&mut job.status.conditions, condition) {
            return false;
        }
        let event = if suspended { "Suspended" } else { "Resumed" };
        self.recorder.event(&job.reference(), "Normal", event, message);
        // The time a Job was suspended is no time that it ran (KEP-5440).
        job.status.start_time = (!suspended).then(|| whole_seconds(now));
        true
    }

    /// Counts what has ended, in three steps of which each may be the last before a crash.
    async fn track(&self, mut sync: Sync, changed: bool) -> Result<(), Error> {
        let mut tally = sync.tally(self.clock.now());
        let key = sync.job.metadata.key();
        if changed || tally.changed {
            self.write_status(&mut sync.job).await?;
            self.backoffs.lock().insert(key, sync.backoff.clone());
        }
        let mut changed = false;
        if !tally.release.is_empty() {
            let (released, result) = self.release_pods(&sync.job, &tally.release).await;
            for uid in &released {
                tally.tracked.remove(uid);
            }
            changed = count_released(&mut sync.job, &tally.tracked);
            if let Err(error) = result {
                if changed {
                    self.write_status(&mut sync.job).await?;
                }
                return Err(error);
            }
        }
        let finished = !tally.full && sync.finish();
        if changed || finished {
            self.write_status(&mut sync.job).await?;
        }
        if finished {
            self.note_end(&sync);
        }
        Ok(())
    }

    fn note_end(&self, sync: &Sync) {
        let Some(end) = &sync.finished else { return };
        let job = &sync.job;
        let regarding = job.reference();
        if end.kind != COMPLETE {
            self.recorder.event(&regarding, "Warning", &end.reason, &end.message);
            return;
        }
        if job.spec.completions.is_some_and(|wanted| job.status.succeeded > wanted) {
            let note = "Too many succeeded pods running after completion count reached";
            self.recorder.event(&regarding, "Warning", "TooManySucceededPods", note);
        }
        self.recorder.event(&regarding, "Normal", "Completed", "Job completed");
    }

    /// Stores the status; `job` becomes what is stored.
    async fn write_status(&self, job: &mut Job) -> Result<(), Error> {
        let key = job.metadata.key();
        let desired = job.clone().typed();
        let mut stored: Job = self.client.update_status(&JOBS, key.ns(), &key.name, &desired).await?;
        self.written.note(&stored.metadata);
        stored.status.uncounted_terminated_pods.get_or_insert_default();
        *job = stored;
        Ok(())
    }

    fn forget(&self, key: &ObjectKey) {
        self.expectations.delete(key);
        self.removals.forget(key);
        self.written.forget(key);
        self.backoffs.lock().remove(key);
    }

    /// Takes the finalizer off a pod that no unfinished Job will count.
    async fn release_orphan(&self, key: &ObjectKey) -> worker::Result {
        let Some(pod) = self.pods.get(key) else { return Ok(Requeue::Never) };
        if let Some(owner) = pod.metadata.controller() {
            if owner.kind != "Job" || owner.api_version != JOBS.api_version() {
                return Ok(Requeue::Never);
            }
            let job = resolve(&self.jobs, &key.namespace, owner);
            if job.is_some_and(|job| job.external_manager().is_some() || !job.is_finished()) {
                return Ok(Requeue::Never);
            }
        }
        pods::release(&self.client, &pod).await?;
        Ok(Requeue::Never)
    }
}
