//! The claims of a StatefulSet's pods: their names, and who owns them under the retention policy.

use client::resources::STATEFUL_SETS;
use client::{ObjectMeta, OwnerReference};
use serde_json::{Value, json};

use super::plan::ordinal;
use crate::ownership::controller_reference;
use crate::types::{Pod, RetentionPolicy, StatefulSet};

pub(super) fn claim_name(template: &Value, set: &StatefulSet, ordinal: i64) -> String {
    format!("{}-{}-{ordinal}", template["metadata"]["name"].as_str().unwrap_or_default(), set.metadata.name)
}

/// The claim of one template for the pod of this ordinal, ready to be created.
pub(super) fn claim(template: &Value, set: &StatefulSet, ordinal: i64) -> Value {
    let mut claim = template.clone();
    claim["apiVersion"] = json!("v1");
    claim["kind"] = json!("PersistentVolumeClaim");
    claim["metadata"]["name"] = json!(claim_name(template, set, ordinal));
    claim["metadata"]["namespace"] = json!(set.metadata.namespace);
    if let Some(labels) = set.spec.selector["matchLabels"].as_object() {
        for (key, value) in labels {
            claim["metadata"]["labels"][key] = value.clone();
        }
    }
    if let Some(claim) = claim.as_object_mut() {
        claim.remove("status");
    }
    claim
}

/// Puts the claims into a pod's volumes, in place of volumes of the same names.
pub(super) fn mount(pod: &mut Value, set: &StatefulSet, ordinal: i64) {
    let names: Vec<&str> =
        set.spec.volume_claim_templates.iter().filter_map(|template| template["metadata"]["name"].as_str()).collect();
    let mut volumes: Vec<Value> = set
        .spec
        .volume_claim_templates
        .iter()
        .map(|template| {
            json!({
                "name": template["metadata"]["name"],
                "persistentVolumeClaim": { "claimName": claim_name(template, set, ordinal) },
            })
        })
        .collect();
    let others = pod["spec"]["volumes"].as_array().into_iter().flatten();
    volumes.extend(others.filter(|volume| !names.contains(&volume["name"].as_str().unwrap_or_default())).cloned());
    if !volumes.is_empty() {
        pod["spec"]["volumes"] = json!(volumes);
    }
}

/// The owners a claim should have, if others than it has. A claim that belongs to another set or pod
/// of the same name, or to another controller, is left to them.
pub(super) fn owners(claim: &ObjectMeta, set: &StatefulSet, pod: &Pod) -> Option<Vec<OwnerReference>> {
    let is_set = |owner: &OwnerReference| {
        owner.kind == "StatefulSet" && owner.api_version == "apps/v1" && owner.name == set.metadata.name
    };
    let is_pod =
        |owner: &OwnerReference| owner.kind == "Pod" && owner.api_version == "v1" && owner.name == pod.metadata.name;
    let stale = claim.owner_references.iter().any(|owner| {
        (is_set(owner) && owner.uid != set.metadata.uid) || (is_pod(owner) && owner.uid != pod.metadata.uid)
    });
    if stale {
        return None;
    }
    let retain = RetentionPolicy { when_deleted: "Retain".into(), when_scaled: "Retain".into() };
    let policy = set.spec.persistent_volume_claim_retention_policy.as_ref().unwrap_or(&retain);
    let (on_delete, on_scale) = (policy.when_deleted == "Delete", policy.when_scaled == "Delete");
    let mut wanted: Vec<OwnerReference> =
        claim.owner_references.iter().filter(|owner| !is_set(owner) && !is_pod(owner)).cloned().collect();
    let foreign = wanted.iter().any(|owner| owner.controller == Some(true));
    if !(foreign && (on_delete || on_scale)) {
        let scaled_down = !set.ordinals().contains(&ordinal(pod));
        if on_delete && !(on_scale && scaled_down) {
            wanted.push(controller_reference(&STATEFUL_SETS, &set.metadata));
        }
        if on_scale && scaled_down {
            wanted.push(controller_reference(&client::resources::PODS, &pod.metadata));
        }
    }
    (wanted != *claim.owner_references).then_some(wanted)
}
