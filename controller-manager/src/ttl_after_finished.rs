//! Deletes Jobs some time after they have finished.
//!
//! Reads and deletes jobs. Upstream: `pkg/controller/ttlafterfinished`.

use std::sync::Arc;
use std::time::Duration;

use client::informer::{Event, Store};
use client::resources::JOBS;
use client::workqueue::WorkQueue;
use client::{Client, DeleteOptions, ObjectKey, Propagation, Timestamp};
use component_base::clock::SharedClock;
use futures::future::BoxFuture;

use crate::context::Context;
use crate::types::Job;
use crate::worker::{self, Requeue};

pub const NAME: &str = "ttl-after-finished-controller";

/// What is due for a Job.
#[derive(Debug, PartialEq, Eq)]
enum Decision {
    Nothing,
    Wait(Duration),
    Delete,
}

/// Pure: how long a Job may stay yet.
fn decide(job: &Job, now: Timestamp) -> Decision {
    let (Some(ttl), false) = (job.spec.ttl_seconds_after_finished, job.metadata.is_deleting()) else {
        return Decision::Nothing;
    };
    let Some(finished) = job.finished_condition().and_then(|condition| condition.last_transition_time) else {
        return Decision::Nothing;
    };
    let elapsed = Duration::try_from(now.duration_since(finished)).unwrap_or_default();
    match Duration::from_secs(ttl.max(0) as u64).saturating_sub(elapsed) {
        Duration::ZERO => Decision::Delete,
        left => Decision::Wait(left),
    }
}

pub fn start(context: &Arc<Context>) -> BoxFuture<'static, ()> {
    let jobs = context.informers.of::<Job>(&JOBS);
    let queue: WorkQueue<ObjectKey> = WorkQueue::new();
    {
        let queue = queue.clone();
        jobs.on_event(move |event| {
            let job = event.object();
            if !matches!(event, Event::Deleted(_)) && job.spec.ttl_seconds_after_finished.is_some() && job.is_finished()
            {
                queue.add(job.metadata.key());
            }
        });
    }
    let (client, clock) = (context.client(NAME), context.clock.clone());
    let workers = context.config.concurrent_ttl_after_finished_syncs;
    let followed = [jobs.synced()];
    let store = jobs.store();
    worker::start(NAME, queue, workers, &context.shutdown, followed, move |key| {
        let (client, clock, store) = (client.clone(), clock.clone(), store.clone());
        async move { reconcile(&client, &clock, &store, &key).await }
    })
}

async fn reconcile(client: &Client, clock: &SharedClock, jobs: &Store<Job>, key: &ObjectKey) -> worker::Result {
    let Some(job) = jobs.get(key) else { return Ok(Requeue::Never) };
    match decide(&job, clock.now()) {
        Decision::Nothing => return Ok(Requeue::Never),
        Decision::Wait(left) => return Ok(Requeue::After(left)),
        Decision::Delete => {}
    }
    // The time to live may have been raised since: the server is asked before anything is deleted.
    let fresh: Job = match client.get(&JOBS, key.ns(), &key.name).await {
        Ok(fresh) => fresh,
        Err(error) if error.is_not_found() => return Ok(Requeue::Never),
        Err(error) => return Err(error.into()),
    };
    match decide(&fresh, clock.now()) {
        Decision::Nothing => Ok(Requeue::Never),
        Decision::Wait(left) => Ok(Requeue::After(left)),
        Decision::Delete => {
            let options = DeleteOptions::uid(&fresh.metadata.uid).propagation(Propagation::Foreground);
            match client.delete(&JOBS, key.ns(), &key.name, &options).await {
                Err(error) if !error.is_not_found() => Err(error.into()),
                _ => Ok(Requeue::Never),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn decisions() {
        let now: Timestamp = "2024-01-01T00:01:00Z".parse().unwrap();
        let finished = json!([{"type": "Failed", "status": "True", "lastTransitionTime": "2024-01-01T00:00:00Z"}]);
        for (ttl, conditions, deleting, expected) in [
            (json!(30), &finished, false, Decision::Delete),
            (json!(60), &finished, false, Decision::Delete),
            (json!(90), &finished, false, Decision::Wait(Duration::from_secs(30))),
            (json!(null), &finished, false, Decision::Nothing),
            (json!(30), &finished, true, Decision::Nothing),
            (json!(30), &json!([]), false, Decision::Nothing),
        ] {
            let deleted = deleting.then_some("2024-01-01T00:00:30Z");
            let job: Job = serde_json::from_value(json!({
                "metadata": {"deletionTimestamp": deleted},
                "spec": {"ttlSecondsAfterFinished": ttl},
                "status": {"conditions": conditions},
            }))
            .unwrap();
            assert_eq!(decide(&job, now), expected, "{ttl} {deleting}");
        }
    }
}
