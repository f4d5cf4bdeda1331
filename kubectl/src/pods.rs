//! Pods behind other objects: `logs deploy/x`, `exec svc/y` and their default containers.

use std::time::Duration;

use serde_json::Value;

use crate::codec;
use crate::error::{Error, Result};
use crate::factory::Factory;
use crate::mapper::{self, Mapping};
use crate::resource::{Info, info_of};
use crate::rest::{self, Call};
use crate::streams::Streams;

/// The label selector of the pods an object owns or serves.
///
/// # Errors
/// When the kind has no pods.
pub fn selector(mapping: &Mapping, object: &Value) -> Result<String> {
    let pairs = |path: &[&str]| {
        codec::pairs(object, path)
            .into_iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect::<Vec<_>>()
            .join(",")
    };
    match (mapping.group.as_str(), mapping.kind.as_str()) {
        ("apps", "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet") | ("batch", "Job") => {
            let selector = codec::at(object, &["spec", "selector"]);
            api::printers::cells::selector(selector)
                .ok_or_else(|| Error::message(format!("invalid label selector on {}", mapping.kind_name())))
        }
        ("", "ReplicationController") => Ok(pairs(&["spec", "selector"])),
        ("", "Service") => {
            let selector = pairs(&["spec", "selector"]);
            if selector.is_empty() {
                let name = codec::text(object, &["metadata", "name"]);
                return Err(Error::message(format!("invalid service '{name}': Service is defined without a selector")));
            }
            Ok(selector)
        }
        _ => Err(Error::message(format!(
            "selector for {}/{}, Kind={} not implemented",
            mapping.group, mapping.version, mapping.kind
        ))),
    }
}

/// Lists pods by selector, those in the best state first.
///
/// # Errors
/// What the API or the transport said.
pub async fn list(factory: &Factory, namespace: &str, selector: &str) -> Result<Vec<Info>> {
    let mapping = mapper::resolve(factory, "pods").await?;
    let call = Call::get(rest::path(&mapping, namespace, "", "")).query("labelSelector", selector);
    let answer = factory.rest().await?.value(call).await?;
    let mut pods: Vec<Info> = codec::flatten(answer).into_iter().map(|pod| info_of(mapping.clone(), pod)).collect();
    pods.sort_by_key(|pod| rank(&pod.object));
    Ok(pods)
}

/// Assigned before unassigned, running before pending, ready before not; then the younger.
fn rank(pod: &Value) -> (bool, u8, bool, std::cmp::Reverse<String>) {
    let phase = match codec::text(pod, &["status", "phase"]) {
        "Running" => 0,
        "Unknown" => 1,
        "Pending" => 2,
        _ => 3,
    };
    let ready = codec::list(pod, &["status", "conditions"])
        .iter()
        .any(|condition| condition["type"] == "Ready" && condition["status"] == "True");
    let created = codec::text(pod, &["metadata", "creationTimestamp"]).to_owned();
    (codec::text(pod, &["spec", "nodeName"]).is_empty(), phase, !ready, std::cmp::Reverse(created))
}

/// The pod an object stands for: itself, or the first of its pods.
///
/// # Errors
/// When there is none before `patience` is over.
pub async fn one(factory: &Factory, streams: &Streams, info: Info, patience: Duration, tell: bool) -> Result<Info> {
    if info.mapping.kind == "Pod" && info.mapping.group.is_empty() {
        return Ok(info);
    }
    let selector = selector(&info.mapping, &info.object)?;
    let deadline = tokio::time::Instant::now() + patience;
    loop {
        let mut pods = list(factory, &info.namespace, &selector).await?;
        if !pods.is_empty() {
            if pods.len() > 1 && tell {
                streams.err.line(&format!("Found {} pods, using pod/{}", pods.len(), pods[0].name));
            }
            return Ok(pods.remove(0));
        }
        if tokio::time::Instant::now() >= deadline {
            return Err(Error::message("timed out waiting for the condition"));
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Names of a pod's containers: init, ordinary, ephemeral.
pub fn containers(pod: &Value) -> (Vec<&str>, Vec<&str>, Vec<&str>) {
    let names = |field| codec::list(pod, &["spec", field]).iter().map(|c| codec::text(c, &["name"])).collect();
    (names("initContainers"), names("containers"), names("ephemeralContainers"))
}

/// The container meant when none is named; with several, says which it took.
///
/// # Errors
/// When the pod has no containers.
pub fn default_container(streams: &Streams, pod: &Value, quiet: bool) -> Result<String> {
    let (init, ordinary, ephemeral) = containers(pod);
    let annotated = codec::text(pod, &["metadata", "annotations", "kubectl.kubernetes.io/default-container"]);
    if !annotated.is_empty() {
        if init.iter().chain(&ordinary).chain(&ephemeral).any(|name| *name == annotated) {
            return Ok(annotated.to_owned());
        }
        streams.err.line(&format!(
            "Default container name {annotated:?} not found in pod {}",
            codec::text(pod, &["metadata", "name"])
        ));
    }
    let Some(first) = ordinary.first() else {
        return Err(Error::message(format!("no containers found in pod {}", codec::text(pod, &["metadata", "name"]))));
    };
    if ordinary.len() + init.len() + ephemeral.len() > 1 && !quiet {
        let all: Vec<String> = ordinary
            .iter()
            .map(|name| (*name).to_owned())
            .chain(ephemeral.iter().map(|name| format!("{name} (ephem)")))
            .chain(init.iter().map(|name| format!("{name} (init)")))
            .collect();
        streams.err.line(&format!("Defaulted container {first:?} out of: {}", all.join(", ")));
    }
    Ok((*first).to_owned())
}
