//! Making and deleting a Job's pods, and taking the finalizer off them.

use std::sync::Arc;

use apimachinery::random::MAX_GENERATED_NAME_LENGTH;
use bytes::Bytes;
use client::resources::{JOBS, PODS};
use client::{Client, DeleteOptions, Patch};
use http::Method;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use super::JobController;
use super::assess::{INDEX_FAILURES, INDEX_IGNORED_FAILURES, Sync, inherited_failures, is_tracked};
use super::indexes::COMPLETION_INDEX;
use crate::ownership::controller_reference;
use crate::pod_control;
use crate::types::{JOB_TRACKING, Job, MetadataOnly, Pod};
use crate::worker::Error;

/// The variable in which containers find their pod's index.
const INDEX_VARIABLE: &str = "JOB_COMPLETION_INDEX";

/// Pods that were asked to end.
#[derive(Default)]
pub(super) struct Deleted {
    pub count: i64,
    /// How many of them were ready.
    pub ready: i64,
    pub failure: Option<Error>,
}

/// The prefix of the names of an index's pods.
fn indexed_prefix(job: &str, index: i64) -> String {
    let suffix = format!("-{index}-");
    let room = MAX_GENERATED_NAME_LENGTH.saturating_sub(suffix.len());
    format!("{}{suffix}", &job[..job.len().min(room)])
}

/// The pod of a Job's template: for an index, if it has indexes, in place of a pod that failed, if there is one.
pub(super) fn from_template(job: &Job, index: Option<i64>, replaced: Option<&Pod>) -> Value {
    let owner = controller_reference(&JOBS, &job.metadata);
    let prefix = match index {
        Some(index) => indexed_prefix(&job.metadata.name, index),
        None => pod_control::name_prefix(&job.metadata.name),
    };
    let mut pod = pod_control::from_template(&job.spec.template, &prefix, &owner);
    match &mut pod["metadata"]["finalizers"] {
        Value::Array(finalizers) if finalizers.iter().any(|finalizer| finalizer == JOB_TRACKING) => {}
        Value::Array(finalizers) => finalizers.push(json!(JOB_TRACKING)),
        other => *other = json!([JOB_TRACKING]),
    }
    let Some(index) = index else { return pod };
    pod["metadata"]["labels"][COMPLETION_INDEX] = index.to_string().into();
    pod["metadata"]["annotations"][COMPLETION_INDEX] = index.to_string().into();
    if job.spec.backoff_limit_per_index.is_some() {
        let (failures, ignored) = inherited_failures(job, replaced);
        let annotations = &mut pod["metadata"]["annotations"];
        annotations[INDEX_FAILURES] = failures.to_string().into();
        if ignored > 0 {
            annotations[INDEX_IGNORED_FAILURES] = ignored.to_string().into();
        }
    }
    pod["spec"]["hostname"] = format!("{}-{index}", job.metadata.name).into();
    let path = format!("metadata.labels['{COMPLETION_INDEX}']");
    for list in ["initContainers", "containers"] {
        for container in pod["spec"][list].as_array_mut().into_iter().flatten() {
            let variable = json!({ "name": INDEX_VARIABLE, "valueFrom": { "fieldRef": { "fieldPath": path } } });
            match &mut container["env"] {
                Value::Array(all) if all.iter().any(|known| known["name"] == INDEX_VARIABLE) => {}
                Value::Array(all) => all.push(variable),
                other => *other = json!([variable]),
            }
        }
        if pod["spec"][list].is_null()
            && let Some(spec) = pod["spec"].as_object_mut()
        {
            spec.remove(list);
        }
    }
    pod
}

/// Takes the finalizer off a pod; a pod that is gone has none.
pub(super) async fn release(client: &Client, pod: &Pod) -> Result<(), Error> {
    if !is_tracked(pod) {
        return Ok(());
    }
    let patch = json!({ "metadata": { "$deleteFromPrimitiveList/finalizers": [JOB_TRACKING] } });
    let key = pod.metadata.key();
    match client.patch::<IgnoredAny>(&PODS, key.ns(), &key.name, None, &Patch::Strategic(patch)).await {
        Ok(_) => Ok(()),
        Err(error) if error.is_not_found() => Ok(()),
        Err(error) => Err(error.into()),
    }
}

impl JobController {
    /// Creates a pod for each; answers how many there are and what went wrong first.
    pub(super) async fn create_pods(&self, sync: &Sync, indexes: &[Option<i64>]) -> (i64, Result<(), Error>) {
        let job = &sync.job;
        let key = job.metadata.key();
        tracing::debug!(controller = super::NAME, key = %key, creating = indexes.len(), "Too few pods running");
        self.expectations.expect_creations(&key, indexes.len());
        let path = PODS.path(Some(&key.namespace), None, None);
        let regarding = job.reference();
        // Pods without an index are all the same bytes.
        let same = job.spec.completion_mode.as_deref() != Some("Indexed");
        let shared = same.then(|| from_template(job, None, None).to_string());
        let mut created = 0;
        let mut failure = None;
        let mut rest = indexes.iter();
        for batch in pod_control::slow_start(indexes.len()) {
            let mut requests = tokio::task::JoinSet::new();
            for index in rest.by_ref().take(batch) {
                let replaced = index.and_then(|index| sync.replaced.get(&index));
                let body = match &shared {
                    Some(shared) => Bytes::from(shared.clone()),
                    None => Bytes::from(from_template(job, *index, replaced.map(|pod| &**pod)).to_string()),
                };
                let (client, path) = (self.client.clone(), path.clone());
                requests.spawn(async move {
                    client.json::<MetadataOnly>(Method::POST, &path, "application/json", "application/json", body).await
                });
            }
            let before = created;
            while let Some(joined) = requests.join_next().await {
                match joined {
                    Ok(Ok(pod)) => {
                        created += 1;
                        let note = format!("Created pod: {}", pod.metadata.name);
                        self.recorder.event(&regarding, "Normal", "SuccessfulCreate", &note);
                    }
                    // Nothing can be created where the namespace goes; nothing needs to be.
                    Ok(Err(error)) if error.is_namespace_terminating() => {}
                    Ok(Err(error)) => {
                        self.recorder.event(&regarding, "Warning", "FailedCreate", &format!("Error creating: {error}"));
                        failure = Some(Error::Api(error));
                    }
                    Err(panicked) => failure = Some(Error::Other(panicked.to_string())),
                }
            }
            if created - before < batch {
                break;
            }
        }
        self.expectations.creations_observed(&key, indexes.len() - created);
        (created as i64, failure.map_or(Ok(()), Err))
    }

    /// Deletes pods of a Job that goes on: they are counted nowhere, so the finalizer goes first.
    pub(super) async fn delete_pods(&self, job: &Job, pods: Vec<Arc<Pod>>) -> Deleted {
        self.expectations.expect_deletions(&job.metadata.key(), pods.iter().map(|pod| pod.metadata.uid.clone()));
        self.delete_all(job, pods, true).await
    }

    /// Deletes the active pods of a Job that ends; they are counted as failed then.
    pub(super) async fn end_pods(&self, sync: &Sync) -> Deleted {
        self.delete_all(&sync.job, sync.active.clone(), false).await
    }

    async fn delete_all(&self, job: &Job, pods: Vec<Arc<Pod>>, uncounted: bool) -> Deleted {
        let key = job.metadata.key();
        let regarding = job.reference();
        let mut requests = tokio::task::JoinSet::new();
        for pod in pods {
            let client = self.client.clone();
            requests.spawn(async move {
                let result = async {
                    if uncounted {
                        release(&client, &pod).await?;
                    }
                    let (namespace, name) = (Some(pod.metadata.namespace.as_str()), &pod.metadata.name);
                    Ok::<_, Error>(client.delete(&PODS, namespace, name, &DeleteOptions::default()).await?)
                }
                .await;
                (pod, result)
            });
        }
        let mut deleted = Deleted::default();
        while let Some(joined) = requests.join_next().await {
            let (pod, result) = match joined {
                Ok(joined) => joined,
                Err(panicked) => {
                    deleted.failure = Some(Error::Other(panicked.to_string()));
                    continue;
                }
            };
            deleted.ready += i64::from(pod.is_ready());
            match result {
                Ok(()) => {
                    let note = format!("Deleted pod: {}", pod.metadata.name);
                    self.recorder.event(&regarding, "Normal", "SuccessfulDelete", &note);
                }
                Err(error) => {
                    self.expectations.deletion_observed(&key, &pod.metadata.uid);
                    if error.api().is_none_or(|error| !error.is_not_found()) {
                        let note = format!("Error deleting: {}", error);
                        self.recorder.event(&regarding, "Warning", "FailedDelete", &note);
                        deleted.failure = Some(error);
                        continue;
                    }
                }
            }
            deleted.count += 1;
        }
        deleted
    }

    /// Takes the finalizer off pods that are in the status; answers those it is off now.
    pub(super) async fn release_pods(&self, job: &Job, pods: &[Arc<Pod>]) -> (Vec<String>, Result<(), Error>) {
        let key = job.metadata.key();
        self.removals.expect(&key, pods.iter().map(|pod| pod.metadata.uid.clone()));
        let mut requests = tokio::task::JoinSet::new();
        for pod in pods {
            let (client, pod) = (self.client.clone(), pod.clone());
            requests.spawn(async move {
                let result = release(&client, &pod).await;
                (pod, result)
            });
        }
        let mut released = Vec::new();
        let mut failure = None;
        while let Some(joined) = requests.join_next().await {
            match joined {
                Ok((pod, Ok(()))) => released.push(pod.metadata.uid.clone()),
                Ok((pod, Err(error))) => {
                    self.removals.observed(&key, &pod.metadata.uid);
                    failure = Some(error);
                }
                Err(panicked) => failure = Some(Error::Other(panicked.to_string())),
            }
        }
        (released, failure.map_or(Ok(()), Err))
    }
}
