//! Makes a Job whenever a CronJob's schedule says so, and clears away those that ended long ago.
//!
//! Reads cronjobs and jobs; creates and deletes jobs; writes `cronjobs/status`. A Job's name is made of the time it
//! was scheduled for, so that a run is made once whatever happens. Upstream: `pkg/controller/cronjob`.

mod schedule;

use std::collections::HashSet;
use std::sync::Arc;

use apimachinery::cron::Schedule;
use client::events::{Recorder, Reference};
use client::informer::{Event, Store};
use client::resources::{CRON_JOBS, JOBS};
use client::workqueue::WorkQueue;
use client::{Client, DeleteOptions, ObjectKey, OwnerReference, Propagation, Timestamp};
use component_base::clock::SharedClock;
use futures::future::BoxFuture;
use jiff::tz::TimeZone;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use crate::context::Context;
use crate::ownership::controller_reference;
use crate::types::{CronJob, Job};
use crate::worker::{self, Error, Requeue};

pub const NAME: &str = "cronjob-controller";

/// Where a Job's scheduled time stands.
const SCHEDULED: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";
const BY_NAMESPACE: &str = "namespace";

struct CronJobController {
    client: Client,
    clock: SharedClock,
    recorder: Recorder,
    cron_jobs: Store<CronJob>,
    jobs: Store<Job>,
}

/// The CronJob a controller reference means, if it is still that one.
fn resolve(cron_jobs: &Store<CronJob>, namespace: &str, owner: &OwnerReference) -> Option<Arc<CronJob>> {
    if owner.kind != "CronJob" {
        return None;
    }
    cron_jobs.get_named(namespace, &owner.name).filter(|job| job.metadata.uid == owner.uid)
}

pub fn start(context: &Arc<Context>) -> BoxFuture<'static, ()> {
    let jobs = context.informers.of::<Job>(&JOBS);
    let cron_jobs = context.informers.of::<CronJob>(&CRON_JOBS);
    jobs.add_index(BY_NAMESPACE, |job| vec![job.metadata.namespace.clone()]);
    let queue: WorkQueue<ObjectKey> = WorkQueue::new();
    {
        let (queue, clock) = (queue.clone(), context.clock.clone());
        cron_jobs.on_event(move |event| {
            let key = event.object().metadata.key();
            match event {
                // What the new schedule would have begun before it was there is no run that was missed.
                Event::Modified { old, new } if timing(old) != timing(new) => {
                    let schedule = Schedule::parse(&new.spec.schedule);
                    let wait = match (schedule, zone(new)) {
                        (Ok(schedule), Ok(zone)) => schedule::until_next(new, clock.now(), &schedule.in_zone(zone)),
                        _ => None,
                    };
                    queue.add_after(key, wait.unwrap_or_default());
                }
                _ => queue.add(key),
            }
        });
    }
    {
        let (queue, cron_jobs) = (queue.clone(), cron_jobs.store());
        let enqueue = move |job: &Job| {
            let owner = job.metadata.controller();
            if let Some(owner) = owner.and_then(|owner| resolve(&cron_jobs, &job.metadata.namespace, owner)) {
                queue.add(owner.metadata.key());
            }
        };
        jobs.on_event(move |event| {
            if let Event::Modified { old, new } = event
                && old.metadata.controller() != new.metadata.controller()
            {
                enqueue(old);
            }
            enqueue(event.object());
        });
    }
    let controller = Arc::new(CronJobController {
        client: context.client(NAME),
        clock: context.clock.clone(),
        recorder: context.recorder(NAME),
        cron_jobs: cron_jobs.store(),
        jobs: jobs.store(),
    });
    let workers = context.config.concurrent_cron_job_syncs;
    let followed = [jobs.synced(), cron_jobs.synced()];
    worker::start(NAME, queue, workers, &context.shutdown, followed, move |key| {
        let controller = controller.clone();
        async move { controller.reconcile(&key).await }
    })
}

/// What says when a CronJob runs.
fn timing(job: &CronJob) -> (&str, Option<&str>) {
    (&job.spec.schedule, job.spec.time_zone.as_deref())
}

/// The zone of a CronJob: the component's own unless it names one.
fn zone(job: &CronJob) -> Result<TimeZone, String> {
    match job.spec.time_zone.as_deref() {
        None => Ok(TimeZone::system()),
        Some("" | "UTC") => Ok(TimeZone::UTC),
        Some(name) => TimeZone::get(name).map_err(|_| format!("unknown time zone {name}")),
    }
}

/// The name of the Job of a run.
fn job_name(job: &CronJob, scheduled: Timestamp) -> String {
    format!("{}-{}", job.metadata.name, scheduled.as_second().div_euclid(60))
}

/// The Job of a run.
fn from_template(job: &CronJob, scheduled: Timestamp, zone: &TimeZone) -> Value {
    let template = &job.spec.job_template;
    let mut made = json!({
        "apiVersion": JOBS.api_version(),
        "kind": JOBS.kind,
        "metadata": {
            "name": job_name(job, scheduled),
            "ownerReferences": [controller_reference(&CRON_JOBS, &job.metadata)],
        },
        "spec": template["spec"],
    });
    for field in ["labels", "annotations"] {
        if template["metadata"][field].is_object() {
            made["metadata"][field] = template["metadata"][field].clone();
        }
    }
    // As RFC 3339 has it, with the offset of the zone.
    let local = scheduled.to_zoned(zone.clone());
    let offset = if local.offset().is_zero() { "Z".to_string() } else { local.strftime("%:z").to_string() };
    made["metadata"]["annotations"][SCHEDULED] = format!("{}{offset}", local.strftime("%Y-%m-%dT%H:%M:%S")).into();
    made
}

/// Those of the finished Jobs that the history has no room for, oldest first. Pure.
fn surplus(jobs: &[Arc<Job>], limit: Option<i64>, wanted: impl Fn(&Job) -> bool) -> Vec<Arc<Job>> {
    let Some(limit) = limit else { return Vec::new() };
    let mut finished: Vec<&Arc<Job>> = jobs.iter().filter(|job| wanted(job)).collect();
    finished.sort_by_key(|job| (job.status.start_time.is_none(), job.status.start_time, job.metadata.name.clone()));
    let excess = finished.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
    finished.into_iter().take(excess).cloned().collect()
}

impl CronJobController {
    async fn reconcile(&self, key: &ObjectKey) -> worker::Result {
        let Some(cached) = self.cron_jobs.get(key) else { return Ok(Requeue::Never) };
        let mut jobs = self.jobs.by_index(BY_NAMESPACE, &key.namespace);
        jobs.retain(|job| job.metadata.controller().is_some_and(|owner| owner.uid == cached.metadata.uid));
        let mut job = (*cached).clone();
        self.clear(&mut job, &jobs).await;
        let outcome = self.sync(&mut job, &jobs).await;
        if job.status != cached.status {
            let desired = job.typed();
            self.client.update_status::<IgnoredAny>(&CRON_JOBS, key.ns(), &key.name, &desired).await?;
        }
        outcome
    }

    fn event(&self, job: &CronJob, kind: &str, reason: &str, note: &str) {
        self.recorder.event(&job.reference(), kind, reason, note);
    }

    /// Deletes finished Jobs beyond the history's limits.
    async fn clear(&self, job: &mut CronJob, jobs: &[Arc<Job>]) {
        let ended_as = |kind: &'static str| {
            move |job: &Job| job.finished_condition().is_some_and(|condition| condition.kind == kind)
        };
        let mut old = surplus(jobs, job.spec.successful_jobs_history_limit, ended_as("Complete"));
        old.extend(surplus(jobs, job.spec.failed_jobs_history_limit, ended_as("Failed")));
        for old in old {
            self.delete(job, &old).await;
        }
    }

    /// Deletes a Job; false when that failed.
    async fn delete(&self, owner: &mut CronJob, job: &Job) -> bool {
        let (namespace, name) = (Some(job.metadata.namespace.as_str()), &job.metadata.name);
        let options = DeleteOptions::default().propagation(Propagation::Background);
        if let Err(error) = self.client.delete(&JOBS, namespace, name, &options).await {
            self.event(owner, "Warning", "FailedDelete", &format!("Deleted job: {error}"));
            return false;
        }
        owner.remove_active(&job.metadata.uid);
        self.event(owner, "Normal", "SuccessfulDelete", &format!("Deleted job {name}"));
        true
    }

    /// Brings the list of active Jobs up to date.
    async fn note_jobs(&self, job: &mut CronJob, jobs: &[Arc<Job>]) -> Result<(), Error> {
        for child in jobs {
            let (name, uid) = (&child.metadata.name, &child.metadata.uid);
            let active = job.is_active(uid);
            let Some(end) = child.finished_condition() else {
                if active {
                    continue;
                }
                // The cache may be behind the status that lists it.
                let fresh: CronJob =
                    self.client.get(&CRON_JOBS, Some(&job.metadata.namespace), &job.metadata.name).await?;
                if fresh.is_active(uid) {
                    *job = fresh;
                    continue;
                }
                let note = format!("Saw a job that the controller did not create or forgot: {name}");
                self.event(job, "Warning", "UnexpectedJob", &note);
                continue;
            };
            if active {
                job.remove_active(uid);
                let note = format!("Saw completed job: {name}, condition: {}", end.kind);
                self.event(job, "Normal", "SawCompletedJob", &note);
            }
            if child.is_succeeded() {
                job.status.last_successful_time = job.status.last_successful_time.max(child.status.completion_time);
            }
        }
        let known: HashSet<&str> = jobs.iter().map(|job| job.metadata.uid.as_str()).collect();
        for active in job.status.active.clone() {
            if known.contains(active.uid.as_str()) {
                continue;
            }
            match self.client.get::<IgnoredAny>(&JOBS, Some(&active.namespace), &active.name).await {
                Ok(_) => {}
                Err(error) if error.is_not_found() => {
                    self.event(job, "Normal", "MissingJob", &format!("Active job went missing: {}", active.name));
                    job.remove_active(&active.uid);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    async fn sync(&self, job: &mut CronJob, jobs: &[Arc<Job>]) -> worker::Result {
        let now = self.clock.now();
        self.note_jobs(job, jobs).await?;
        if job.metadata.is_deleting() {
            return Ok(Requeue::Never);
        }
        let zone = match zone(job) {
            Ok(zone) => zone,
            Err(error) => {
                let name = job.spec.time_zone.clone().unwrap_or_default();
                self.event(job, "Warning", "UnknownTimeZone", &format!("invalid timeZone: {name:?}: {error}"));
                return Ok(Requeue::Never);
            }
        };
        if job.spec.suspend == Some(true) {
            return Ok(Requeue::Never);
        }
        let text = job.spec.schedule.clone();
        if text.contains("TZ") {
            let note = format!(
                "CRON_TZ or TZ used in schedule {text:?} is not officially supported, see https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details"
            );
            self.event(job, "Warning", "UnsupportedSchedule", &note);
        }
        let schedule = match Schedule::parse(&text) {
            Ok(schedule) => schedule.in_zone(zone.clone()),
            Err(error) => {
                let note = format!("unparseable schedule: {text:?} : {error}");
                self.event(job, "Warning", "UnparseableSchedule", &note);
                return Ok(Requeue::Never);
            }
        };
        let missed = match schedule::missed(job, now, &schedule, true) {
            Ok(missed) => missed,
            Err(error) => {
                self.event(job, "Warning", "InvalidSchedule", &format!("invalid schedule: {text} : {error}"));
                return Ok(Requeue::Never);
            }
        };
        if let Some(scheduled) = missed.latest {
            if missed.is_many() {
                let note =
                    "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew";
                self.event(job, "Warning", "TooManyMissedTimes", note);
            }
            self.run(job, scheduled, now, &zone).await?;
        }
        // Worked out anew, because a run has changed the status.
        Ok(schedule::until_next(job, now, &schedule).map_or(Requeue::Never, Requeue::After))
    }

    /// Begins a run, unless it was begun before, comes too late, or may not run beside another.
    async fn run(&self, job: &mut CronJob, scheduled: Timestamp, now: Timestamp, zone: &TimeZone) -> Result<(), Error> {
        let late = now.as_second() - scheduled.as_second();
        if job.spec.starting_deadline_seconds.is_some_and(|deadline| late > deadline) {
            let time = scheduled.strftime("%a, %d %b %Y %H:%M:%S +0000");
            let note = format!("Missed scheduled time to start a job: {time}");
            self.event(job, "Warning", "MissSchedule", &note);
            return Ok(());
        }
        let name = job_name(job, scheduled);
        let begun = job.status.active.iter().any(|active| active.name == name);
        if begun || job.status.last_schedule_time == Some(scheduled) {
            return Ok(());
        }
        match job.spec.concurrency_policy.as_str() {
            "Forbid" if !job.status.active.is_empty() => {
                let note = "Not starting job because prior execution is running and concurrency policy is Forbid";
                self.event(job, "Normal", "JobAlreadyActive", note);
                return Ok(());
            }
            "Replace" => self.end_active(job).await?,
            _ => {}
        }
        let namespace = job.metadata.namespace.clone();
        let made = from_template(job, scheduled, zone);
        let made: Job = match self.client.create(&JOBS, Some(&namespace), &made).await {
            Ok(made) => {
                let made: Job = made;
                self.event(job, "Normal", "SuccessfulCreate", &format!("Created job {}", made.metadata.name));
                made
            }
            Err(error) if error.is_already_exists() => {
                // Made before a crash, perhaps, and not noted in the status.
                let found: Job = self.client.get(&JOBS, Some(&namespace), &name).await?;
                let ours = found.metadata.controller().is_some_and(|owner| owner.uid == job.metadata.uid);
                if !ours || job.is_active(&found.metadata.uid) {
                    return Ok(());
                }
                found
            }
            Err(error) => {
                if !error.is_namespace_terminating() {
                    self.event(job, "Warning", "FailedCreate", &format!("Error creating job: {error}"));
                }
                return Err(error.into());
            }
        };
        job.status.active.push(Reference::of(&JOBS, &made.metadata));
        job.status.last_schedule_time = Some(scheduled);
        Ok(())
    }

    /// Deletes the Jobs that still run, for another to take their place.
    async fn end_active(&self, job: &mut CronJob) -> Result<(), Error> {
        for active in job.status.active.clone() {
            let running: Job = match self.client.get(&JOBS, Some(&active.namespace), &active.name).await {
                Ok(running) => running,
                Err(error) => {
                    self.event(job, "Warning", "FailedGet", &format!("Get job: {error}"));
                    return Err(error.into());
                }
            };
            if !self.delete(job, &running).await {
                return Err(Error::Other(format!("could not replace job {}", running.metadata.key())));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cron_job() -> CronJob {
        serde_json::from_value(json!({
            "metadata": {"name": "tick", "namespace": "ns", "uid": "u"},
            "spec": {"schedule": "* * * * *", "jobTemplate": {
                "metadata": {"labels": {"a": "b"}, "annotations": {"c": "d"}},
                "spec": {"template": {"spec": {}}},
            }},
        }))
        .unwrap()
    }

    #[test]
    fn the_job_of_a_run() {
        let scheduled: Timestamp = "2024-07-01T00:00:00Z".parse().unwrap();
        let berlin = TimeZone::get("Europe/Berlin").unwrap();
        let made = from_template(&cron_job(), scheduled, &berlin);
        assert_eq!(made["metadata"]["name"], "tick-28663200");
        assert_eq!(made["metadata"]["labels"], json!({"a": "b"}));
        assert_eq!(made["metadata"]["annotations"], json!({"c": "d", SCHEDULED: "2024-07-01T02:00:00+02:00"}));
        assert_eq!(made["metadata"]["ownerReferences"][0]["kind"], "CronJob");
        assert_eq!(made["spec"], json!({"template": {"spec": {}}}));
        let made = from_template(&cron_job(), scheduled, &TimeZone::UTC);
        assert_eq!(made["metadata"]["annotations"][SCHEDULED], "2024-07-01T00:00:00Z");
    }

    #[test]
    fn the_oldest_go_first() {
        let job = |name: &str, start: Option<&str>| {
            Arc::new(
                serde_json::from_value::<Job>(json!({
                    "metadata": {"name": name},
                    "status": {"startTime": start, "conditions": [{"type": "Complete", "status": "True"}]},
                }))
                .unwrap(),
            )
        };
        let jobs = [
            job("c", Some("2024-01-03T00:00:00Z")),
            job("a", Some("2024-01-01T00:00:00Z")),
            job("n", None),
            job("b", Some("2024-01-01T00:00:00Z")),
        ];
        let names = |limit: Option<i64>| -> Vec<String> {
            surplus(&jobs, limit, Job::is_succeeded).iter().map(|job| job.metadata.name.clone()).collect()
        };
        assert_eq!(names(Some(1)), ["a", "b", "c"]);
        assert_eq!(names(Some(4)), Vec::<String>::new());
        assert_eq!(names(None), Vec::<String>::new());
        assert_eq!(names(Some(0)).len(), 4);
    }

    #[test]
    fn zones() {
        let zone_of = |name: Option<&str>| {
            zone(&CronJob {
                spec: crate::types::CronJobSpec { time_zone: name.map(String::from), ..Default::default() },
                ..cron_job()
            })
        };
        assert_eq!(zone_of(Some("Etc/UTC")).unwrap().iana_name(), Some("Etc/UTC"));
        assert_eq!(zone_of(Some("Mars/Crater")).unwrap_err(), "unknown time zone Mars/Crater");
    }
}
