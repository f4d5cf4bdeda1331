//! Volumes, claims and storage classes.

use apimachinery::field::Path;
use apimachinery::gotext::quote;
use apimachinery::quantity::Quantity;
use serde_json::Value;

use super::{deprecated_label, node_selector_term};
use crate::read::Read;

const BETA_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

pub(super) fn volume(volume: &Value, out: &mut Vec<String>) {
    let spec = &volume["spec"];
    for (annotation, field) in [
        (BETA_CLASS, ("1.8", "storageClassName")),
        ("volume.beta.kubernetes.io/mount-options", ("1.31", "mountOptions")),
    ] {
        if volume["metadata"]["annotations"].get(annotation).is_some() {
            let (since, field) = field;
            out.push(format!(
                "metadata.annotations[{annotation}]: deprecated since v{since}; use \"{field}\" attribute instead"
            ));
        }
    }
    if spec.text("persistentVolumeReclaimPolicy") == "Recycle" {
        out.push("spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning.".to_owned());
    }
    for (i, term) in spec["nodeAffinity"]["required"].list("nodeSelectorTerms").iter().enumerate() {
        let path = Path::new("spec").children(&["nodeAffinity", "required", "nodeSelectorTerms"]).index(i);
        node_selector_term(term, false, &path, out);
    }
    for (kind, shown, since, until) in [
        ("cephfs", "cephfs", "1.28", "1.31"),
        ("photonPersistentDisk", "photonPersistentDisk", "1.11", "1.16"),
        ("scaleIO", "scaleIO", "1.16", "1.22"),
        ("storageos", "storageOS", "1.22", "1.25"),
        ("glusterfs", "glusterfs", "1.25", "1.26"),
        ("rbd", "rbd", "1.28", "1.31"),
    ] {
        if spec.set(kind).is_some() {
            out.push(format!("spec.{shown}: deprecated in v{since}, non-functional in v{until}+"));
        }
    }
}

pub(super) fn claim(claim: &Value, out: &mut Vec<String>) {
    if claim["metadata"]["annotations"].get(BETA_CLASS).is_some() {
        out.push(format!(
            "metadata.annotations[{BETA_CLASS}]: deprecated since v1.8; use \"storageClassName\" attribute instead"
        ));
    }
    claim_spec(&claim["spec"], &Path::new("spec"), out);
}

pub(super) fn claim_spec(spec: &Value, path: &Path, out: &mut Vec<String>) {
    for list in ["requests", "limits"] {
        fractional(&spec["resources"][list]["storage"], || path.children(&["resources", list]).key("storage"), out);
    }
}

/// Bytes that are not whole.
pub(super) fn fractional(value: &Value, path: impl FnOnce() -> Path, out: &mut Vec<String>) {
    let Some(amount) = value.as_str().and_then(|text| Quantity::parse(text).ok()) else { return };
    if amount.milli_value() % 1000 != 0 {
        let shown = quote(&amount.to_string());
        out.push(format!("{}: fractional byte value {shown} is invalid, must be an integer", path()));
    }
}

pub(super) fn class(class: &Value, out: &mut Vec<String>) {
    for (i, term) in class.list("allowedTopologies").iter().enumerate() {
        for (j, expression) in term.list("matchLabelExpressions").iter().enumerate() {
            if let Some(message) = deprecated_label(expression.text("key")) {
                let path = Path::new("allowedTopologies").index(i).child("matchLabelExpressions").index(j);
                out.push(format!("{}: {message}", path.child("key")));
            }
        }
    }
}

pub(super) fn capacity(capacity: &Value, out: &mut Vec<String>) {
    let (topology, path) = (&capacity["nodeTopology"], Path::new("nodeTopology"));
    node_selector_term(topology, false, &path, out);
    for (label, _) in topology.entries("matchLabels") {
        if let Some(message) = deprecated_label(label) {
            out.push(format!("{}: {message}", path.child("matchLabels").child(label.clone())));
        }
    }
}

pub(super) fn driver(new: &Value, old: Option<&Value>, out: &mut Vec<String>) {
    let (spec, requests) = (&new["spec"], "tokenRequests");
    let asks = !spec.list(requests).is_empty() && old.is_none_or(|old| old["spec"][requests] != spec[requests]);
    if asks && spec.set("serviceAccountTokenInSecrets").is_none() {
        out.push("spec.serviceAccountTokenInSecrets is unset; if supported by this CSI driver, set to true to prevent possible logging of tokens in volume attributes".to_owned());
    }
}
