//! CSIDriver, CSINode, CSIStorageCapacity and VolumeAttachment.

use std::collections::BTreeSet;

use apimachinery::field::{self, ErrorList, Path};
use apimachinery::names;
use serde_json::Value;

use super::checks::{
    immutable, immutable_struct, label_selector, messages, name_is_subdomain, non_negative, non_negative_quantity,
    qualified_name, semantically_equal,
};
use super::object_meta;
use super::pod::volume_sources::csi_driver_name;
use crate::read::Read;

pub(super) fn driver(driver: &Value, errors: &mut ErrorList) {
    object_meta::create(driver, false, name_is_subdomain, errors);
    driver_spec(&driver["spec"], errors);
}

pub(super) fn driver_update(new: &Value, old: &Value, errors: &mut ErrorList) {
    object_meta::update(new, old, errors);
    let (new, old, path) = (&new["spec"], &old["spec"], Path::new("spec"));
    driver_spec(new, errors);
    immutable(&new["attachRequired"], &old["attachRequired"], &path.child("attachedRequired"), errors);
    let modes = "volumeLifecycleModes";
    immutable(&new[modes], &old[modes], &path.child(modes), errors);
}

fn driver_spec(spec: &Value, errors: &mut ErrorList) {
    const POLICIES: [&str; 3] = ["File", "None", "ReadWriteOnceWithFSType"];
    let path = Path::new("spec");
    for (name, shown) in [
        ("attachRequired", "attachedRequired"),
        ("podInfoOnMount", "podInfoOnMount"),
        ("storageCapacity", "storageCapacity"),
    ] {
        if spec.set(name).is_none() {
            errors.push(field::required(&path.child(shown), ""));
        }
    }
    if let Some(policy) = spec.set("fsGroupPolicy").and_then(Value::as_str)
        && !POLICIES.contains(&policy)
    {
        errors.push(field::not_supported(&path.child("fsGroupPolicy"), policy, &POLICIES));
    }
    token_requests(spec.list("tokenRequests"), &path.child("tokenRequests"), errors);
    for mode in spec.texts("volumeLifecycleModes").filter(|mode| !matches!(*mode, "Persistent" | "Ephemeral")) {
        let path = path.child("volumeLifecycleModes");
        errors.push(field::not_supported(&path, mode, &["Persistent", "Ephemeral"]));
    }
    if spec.set("seLinuxMount").is_none() {
        errors.push(field::required(&path.child("seLinuxMount"), ""));
    }
    if let Some(period) = spec.int("nodeAllocatableUpdatePeriodSeconds").filter(|p| *p < 10) {
        let message = "must be greater than or equal to 10 seconds";
        errors.push(field::invalid(&path.child("nodeAllocatableUpdatePeriodSeconds"), period, message));
    }
    if let Some(value) = spec.set("serviceAccountTokenInSecrets")
        && spec.list("tokenRequests").is_empty()
    {
        let message = "serviceAccountTokenInSecrets is set but no tokenRequests are specified";
        errors.push(field::invalid(&path.child("serviceAccountTokenInSecrets"), value, message));
    }
}

fn token_requests(requests: &[Value], path: &Path, errors: &mut ErrorList) {
    let mut audiences = BTreeSet::new();
    for (i, request) in requests.iter().enumerate() {
        let path = path.index(i);
        if !audiences.insert(request.text("audience")) {
            errors.push(field::duplicate(&path.child("audience"), request.text("audience")));
            continue;
        }
        let Some(seconds) = request.int("expirationSeconds") else { continue };
        let path = path.child("expirationSeconds");
        if seconds < 600 {
            errors.push(field::invalid(&path, seconds, "may not specify a duration less than 10 minutes"));
        }
        if seconds > 1 << 32 {
            errors.push(field::invalid(&path, seconds, "may not specify a duration larger than 2^32 seconds"));
        }
    }
}

pub(super) fn node(node: &Value, errors: &mut ErrorList) {
    const LONGEST_ID: usize = 256;
    object_meta::create(node, false, name_is_subdomain, errors);
    let mut drivers = BTreeSet::new();
    for (i, driver) in node["spec"].list("drivers").iter().enumerate() {
        let path = Path::new("spec").child("drivers").index(i);
        let (name, id) = (driver.text("name"), driver.text("nodeID"));
        csi_driver_name(name, &path.child("name"), errors);
        if id.is_empty() {
            errors.push(field::required(&path.child("nodeID"), ""));
        }
        if id.len() > LONGEST_ID {
            let message = format!("must be {LONGEST_ID} characters or less");
            errors.push(field::invalid(&path.child("nodeID"), id, message));
        }
        non_negative(driver["allocatable"].num("count"), &path.child("allocatable").child("count"), errors);
        if !drivers.insert(name) {
            errors.push(field::duplicate(&path.child("name"), name));
        }
        let mut keys = BTreeSet::new();
        for key in driver.texts("topologyKeys") {
            if key.is_empty() {
                errors.push(field::required(&path, ""));
            }
            if !keys.insert(key) {
                errors.push(field::duplicate(&path, key));
            }
            qualified_name(key, &path, errors);
        }
    }
}

pub(super) fn node_update(new: &Value, old: &Value, errors: &mut ErrorList) {
    node(new, errors);
    for before in old["spec"].list("drivers") {
        for now in new["spec"].list("drivers").iter().filter(|d| d.text("name") == before.text("name")) {
            if ["nodeID", "topologyKeys"].iter().any(|f| !semantically_equal(&now[*f], &before[*f])) {
                let path = Path::new("spec").child("drivers");
                errors.push(field::invalid(&path, now, "field is immutable"));
            }
        }
    }
}

pub(super) fn capacity(capacity: &Value, errors: &mut ErrorList) {
    object_meta::create(capacity, true, name_is_subdomain, errors);
    label_selector(&capacity["nodeTopology"], &Path::new("nodeTopology"), errors);
    let class = capacity.text("storageClassName");
    messages(names::dns1123_subdomain(class), class, &Path::new("storageClassName"), errors);
    if let Some(amount) = capacity.set("capacity") {
        non_negative_quantity(amount, &Path::new("capacity"), errors);
    }
}

pub(super) fn capacity_update(new: &Value, old: &Value, errors: &mut ErrorList) {
    capacity(new, errors);
    object_meta::update(new, old, errors);
    let topology = "nodeTopology";
    immutable_struct("*LabelSelector", &new[topology], &old[topology], &Path::new(topology), errors);
    immutable(&new["storageClassName"], &old["storageClassName"], &Path::new("storageClassName"), errors);
}

pub(super) fn attachment(attachment: &Value, errors: &mut ErrorList) {
    object_meta::create(attachment, false, name_is_subdomain, errors);
    let (spec, path) = (&attachment["spec"], Path::new("spec"));
    csi_driver_name(spec.text("attacher"), &path.child("attacher"), errors);
    let (source, at) = (&spec["source"], path.child("source"));
    let volume = source.set("persistentVolumeName").and_then(Value::as_str);
    let message = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
    match (source.set("inlineVolumeSpec"), volume) {
        (None, None) => errors.push(field::required(&at, message)),
        (Some(_), Some(_)) => errors.push(field::forbidden(&at, message)),
        (None, Some("")) => {
            let path = at.child("persistentVolumeName");
            errors.push(field::required(&path, "must specify non empty persistentVolumeName"));
        }
        (Some(inline), None) => {
            super::persistent_volume::spec(inline, "", true, &at.child("inlineVolumeSpec"), errors);
        }
        _ => {}
    }
    let node = spec.text("nodeName");
    messages(names::dns1123_subdomain(node), node, &path.child("nodeName"), errors);
    status(&attachment["status"], errors);
    if let Some(name) = volume {
        messages(names::dns1123_subdomain(name), name, &Path::new("spec.source.persistentVolumeName"), errors);
    }
}

fn status(status: &Value, errors: &mut ErrorList) {
    const MOST_METADATA: usize = 256 * 1024;
    let path = Path::new("status");
    let metadata = status.entries("attachmentMetadata");
    let size: usize = metadata.map(|(k, v)| k.len() + v.as_str().map_or(0, str::len)).sum();
    if size > MOST_METADATA {
        errors.push(field::too_long(&path.child("attachmentMetadata"), MOST_METADATA));
    }
    for name in ["attachError", "detachError"] {
        let (error, path) = (&status[name], path.child(name));
        if error.text("message").len() > 1024 {
            // Upstream names the other limit.
            errors.push(field::too_long(&path.child("message"), MOST_METADATA));
        }
        if let Some(code) = error.int("errorCode").filter(|code| *code < 0) {
            let message = names::inclusive_range_error(0, i64::from(i32::MAX));
            errors.push(field::invalid(&path.child("errorCode"), code, message));
        }
    }
}

pub(super) fn attachment_update(new: &Value, old: &Value, errors: &mut ErrorList) {
    attachment(new, errors);
    immutable(&new["spec"], &old["spec"], &Path::new("spec"), errors);
}
