//! Which Jobs and pods an event concerns.

use std::sync::Arc;
use std::time::Duration;

use apimachinery::labels::Selector;
use client::informer::{Event, Informer, Store};
use client::workqueue::WorkQueue;
use client::{ObjectKey, OwnerReference};

use super::assess::is_tracked;
use super::memory::Removals;
use crate::expectations::Expectations;
use crate::pod_control;
use crate::types::{Job, Pod};

/// Jobs by namespace.
pub const BY_NAMESPACE: &str = "namespace";

/// Pods of a Job often change together; what they do within this time is one reconcile.
const BATCH: Duration = Duration::from_millis(100);

/// Where events go.
#[derive(Clone)]
pub struct Watch {
    pub jobs: Store<Job>,
    pub pods: Store<Pod>,
    pub queue: WorkQueue<ObjectKey>,
    /// Pods that may have a finalizer and no Job to take it off.
    pub orphans: WorkQueue<ObjectKey>,
    pub expectations: Arc<Expectations>,
    pub removals: Arc<Removals>,
}

/// The Job a controller reference means, if it is still that one.
pub fn resolve(jobs: &Store<Job>, namespace: &str, owner: &OwnerReference) -> Option<Arc<Job>> {
    if owner.kind != "Job" {
        return None;
    }
    jobs.get_named(namespace, &owner.name).filter(|job| job.metadata.uid == owner.uid)
}

impl Watch {
    pub fn jobs(self, informer: &Informer<Job>) {
        informer.on_event(move |event| {
            let job = event.object();
            let key = job.metadata.key();
            match event {
                Event::Added(_) => self.queue.add(key),
                Event::Deleted(_) => {
                    self.leave_pods(job);
                    self.queue.add(key);
                }
                Event::Modified { old, new } => {
                    if new.is_finished() {
                        self.leave_pods(new);
                    }
                    let spec_changed = old.metadata.generation != new.metadata.generation;
                    self.queue.add_after(key, if spec_changed { Duration::ZERO } else { BATCH });
                }
            }
        });
    }

    /// The Job needs its pods no longer: whatever has the finalizer loses it.
    fn leave_pods(&self, job: &Job) {
        let Ok(selector) = Selector::from_label_selector(Some(&job.spec.selector)) else { return };
        for pod in pod_control::owned_and_orphans(&self.pods, &job.metadata) {
            if is_tracked(&pod) && selector.matches(&pod.metadata.labels) {
                self.orphans.add(pod.metadata.key());
            }
        }
    }

    pub fn pods(self, informer: &Informer<Pod>) {
        informer.on_event(move |event| match event {
            Event::Added(pod) if pod.metadata.is_deleting() => self.leaving(pod, false),
            Event::Added(pod) => match pod.metadata.controller() {
                Some(owner) => {
                    if let Some(job) = resolve(&self.jobs, &pod.metadata.namespace, owner) {
                        let key = job.metadata.key();
                        self.expectations.creation_observed(&key);
                        self.queue.add_after(key, BATCH);
                    }
                }
                None => self.unowned(pod),
            },
            Event::Modified { new, .. } if new.metadata.is_deleting() => self.leaving(new, false),
            Event::Modified { old, new } => {
                let (before, after) = (old.metadata.controller(), new.metadata.controller());
                if before != after
                    && let Some(owner) = before
                {
                    self.changed(owner, new);
                }
                match after {
                    Some(owner) => self.changed(owner, new),
                    None if before.is_some() || old.metadata.labels != new.metadata.labels => self.unowned(new),
                    None if is_tracked(new) => self.orphans.add(new.metadata.key()),
                    None => {}
                }
            }
            Event::Deleted(pod) => self.leaving(pod, true),
        });
    }

    fn changed(&self, owner: &OwnerReference, pod: &Pod) {
        let Some(job) = resolve(&self.jobs, &pod.metadata.namespace, owner) else { return };
        let key = job.metadata.key();
        if !is_tracked(pod) {
            self.removals.observed(&key, &pod.metadata.uid);
        }
        self.queue.add_after(key, BATCH);
    }

    /// A pod without a controller: some Job may adopt it.
    fn unowned(&self, pod: &Pod) {
        if is_tracked(pod) {
            self.orphans.add(pod.metadata.key());
        }
        for job in self.jobs.by_index(BY_NAMESPACE, &pod.metadata.namespace) {
            let selects = Selector::from_label_selector(Some(&job.spec.selector))
                .is_ok_and(|selector| !selector.is_empty() && selector.matches(&pod.metadata.labels));
            if selects {
                self.queue.add_after(job.metadata.key(), BATCH);
            }
        }
    }

    /// A pod is being deleted, or is gone.
    fn leaving(&self, pod: &Pod, gone: bool) {
        let orphaned = || {
            if is_tracked(pod) && !gone {
                self.orphans.add(pod.metadata.key());
            }
        };
        let Some(owner) = pod.metadata.controller() else { return orphaned() };
        let job = resolve(&self.jobs, &pod.metadata.namespace, owner).filter(|job| !job.is_finished());
        let Some(job) = job else { return orphaned() };
        let key = job.metadata.key();
        self.expectations.deletion_observed(&key, &pod.metadata.uid);
        if gone || !is_tracked(pod) {
            self.removals.observed(&key, &pod.metadata.uid);
        }
        self.queue.add_after(key, BATCH);
    }
}
