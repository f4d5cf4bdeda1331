//! StatefulSet.

use apimachinery::field::{self, BadValue, ErrorList, Path};
use apimachinery::gotext::quote;
use serde_json::{Value, json};

use super::checks::{
    annotations, dns1123_label, label_selector, labels, name_is_label, non_negative, non_negatives, parsed_selector,
    selector_is_empty, selector_text, semantically_equal,
};
use super::workload::{
    available_are_ready, collision_count, int_or_percent, int_or_percent_value, not_more_than_100_percent,
    selects_template, status_counts,
};
use super::{object_meta, persistent_volume_claim, pod};
use crate::read::Read;

pub(super) fn create(set: &Value, errors: &mut ErrorList) {
    object_meta::create(set, true, name_is_label, errors);
    spec(&set["spec"], true, true, errors);
}

fn spec(spec: &Value, new: bool, check_template: bool, errors: &mut ErrorList) {
    let path = Path::new("spec");
    let at = path.child("podManagementPolicy");
    match spec.text("podManagementPolicy") {
        "" => errors.push(field::required(&at, "")),
        "OrderedReady" | "Parallel" => {}
        other => errors.push(field::invalid(&at, other, "must be 'OrderedReady' or 'Parallel'")),
    }
    strategy(&spec["updateStrategy"], &path.child("updateStrategy"), errors);
    if let Some(policy) = spec.set("persistentVolumeClaimRetentionPolicy") {
        for name in ["whenDeleted", "whenScaled"] {
            if !matches!(policy.text(name), "Retain" | "Delete") {
                let path = path.child("persistentVolumeClaimRetentionPolicy").child(name);
                errors.push(field::not_supported(&path, policy.text(name), &["Retain", "Delete"]));
            }
        }
    }
    if new {
        for (i, claim) in spec.list("volumeClaimTemplates").iter().enumerate() {
            let path = path.child("volumeClaimTemplates").index(i).child("spec");
            persistent_volume_claim::spec(&claim["spec"], &path, errors);
        }
    }
    non_negatives(spec, &["replicas", "minReadySeconds"], &path, errors);
    if let Some(ordinals) = spec.set("ordinals") {
        non_negative(ordinals.num("start"), &path.child("ordinals.start"), errors);
    }
    if new && !spec.text("serviceName").is_empty() {
        dns1123_label(spec.text("serviceName"), &path.child("serviceName"), errors);
    }
    let (selector, at) = (&spec["selector"], path.child("selector"));
    if selector.is_null() {
        errors.push(field::required(&at, ""));
    } else {
        label_selector(selector, &at, errors);
        if selector_is_empty(selector) {
            errors.push(field::invalid(&at, selector_text(selector), "empty selector is invalid for statefulset"));
        }
    }
    let at = path.child("template");
    match parsed_selector(selector) {
        None => errors.push(field::invalid(&path.child("selector"), selector_text(selector), "")),
        Some(parsed) => {
            let template = with_claim_volumes(spec);
            selects_template(&parsed, &template, &at, errors);
            if check_template {
                pod::template(&template, &at, errors);
            }
            let meta = &template["metadata"];
            labels(&meta["labels"], &at.child("labels"), errors);
            annotations(&meta["annotations"], &at.child("annotations"), errors);
        }
    }
    pod::always_running(&spec["template"], "StatefulSet", &at, errors);
}

/// The template as its pods will be: with a volume for each claim template, and without the
/// names that the set gives.
fn with_claim_volumes(spec: &Value) -> Value {
    let mut template = spec["template"].clone();
    // Claims of one name are one volume.
    let mut claims: Vec<&str> = Vec::new();
    for claim in spec.list("volumeClaimTemplates") {
        let name = claim["metadata"].text("name");
        if !claims.contains(&name) {
            claims.push(name);
        }
    }
    let Some(pod) = template.get_mut("spec").and_then(Value::as_object_mut) else { return template };
    pod.remove("subdomain");
    pod.remove("hostname");
    if !claims.is_empty() {
        let mut volumes: Vec<Value> =
            claims.iter().map(|name| json!({"name": name, "persistentVolumeClaim": {"claimName": name}})).collect();
        let own = spec["template"]["spec"].list("volumes").iter();
        volumes.extend(own.filter(|v| !claims.contains(&v.text("name"))).cloned());
        pod.insert("volumes".into(), Value::Array(volumes));
    }
    template
}

fn strategy(strategy: &Value, path: &Path, errors: &mut ErrorList) {
    let rolling = strategy.set("rollingUpdate");
    let shown = || {
        rolling.map_or("null".to_owned(), |r| {
            format!("{{\"Partition\":{},\"MaxUnavailable\":{}}}", r.num("partition"), r["maxUnavailable"])
        })
    };
    match strategy.text("type") {
        "" => errors.push(field::required(path, "")),
        "OnDelete" => {
            if rolling.is_some() {
                let message = "only allowed for updateStrategy 'RollingUpdate'";
                errors.push(field::invalid(&path.child("rollingUpdate"), BadValue::Raw(shown()), message));
            }
        }
        "RollingUpdate" => {
            let Some(rolling) = rolling else { return };
            let path = path.child("rollingUpdate");
            non_negative(rolling.num("partition"), &path.child("partition"), errors);
            if let Some(unavailable) = rolling.set("maxUnavailable") {
                let path = path.child("maxUnavailable");
                int_or_percent(unavailable, &path, errors);
                if int_or_percent_value(unavailable) == 0 {
                    errors.push(field::invalid(&path, unavailable, "cannot be 0"));
                }
                not_more_than_100_percent(unavailable, &path, errors);
            }
        }
        other => {
            let shown = format!("{{\"Type\":{},\"RollingUpdate\":{}}}", quote(other), shown());
            errors.push(field::invalid(path, BadValue::Raw(shown), "must be 'RollingUpdate' or 'OnDelete'"));
        }
    }
}

const CHANGEABLE: &[&str] = &[
    "replicas",
    "template",
    "updateStrategy",
    "minReadySeconds",
    "ordinals",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
];

pub(super) fn update(new: &Value, old: &Value, errors: &mut ErrorList) {
    object_meta::update(new, old, errors);
    let mut before = ErrorList::new();
    spec(&old["spec"], false, true, &mut before);
    spec(&new["spec"], false, before.is_empty(), errors);
    let fixed = |set: &Value| {
        let mut spec = set["spec"].clone();
        if let Some(map) = spec.as_object_mut() {
            map.retain(|name, _| !CHANGEABLE.contains(&name.as_str()));
        }
        spec
    };
    if !semantically_equal(&fixed(new), &fixed(old)) {
        let message = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";
        errors.push(field::forbidden(&Path::new("spec"), message));
    }
}

pub(super) fn update_status(new: &Value, old: &Value, errors: &mut ErrorList) {
    let (status, path) = (&new["status"], Path::new("status"));
    const COUNTS: &[&str] = &[
        "replicas",
        "readyReplicas",
        "currentReplicas",
        "updatedReplicas",
        "availableReplicas",
        "observedGeneration",
        "collisionCount",
    ];
    non_negatives(status, COUNTS, &path, errors);
    let counts = ["readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas"];
    status_counts(status, &counts, &path, errors);
    available_are_ready(status, "status.readyReplicas", &path, errors);
    object_meta::update(new, old, errors);
    collision_count(status, &old["status"], &path, errors);
}
