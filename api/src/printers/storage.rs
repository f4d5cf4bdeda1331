//! storage.k8s.io: StorageClass, VolumeAttributesClass, VolumeAttachment, CSIDriver, CSINode.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::{self, at, count, flag, list, opt_text, text};
use super::{AGE, Column, NAME};

pub(super) const CLASS_COLUMNS: &[Column] = &[
    NAME,
    Column::string("Provisioner").of("io.k8s.api.storage.v1.StorageClass", "provisioner"),
    Column::string("ReclaimPolicy").of("io.k8s.api.storage.v1.StorageClass", "reclaimPolicy"),
    Column::string("VolumeBindingMode").of("io.k8s.api.storage.v1.StorageClass", "volumeBindingMode"),
    Column::string("AllowVolumeExpansion").of("io.k8s.api.storage.v1.StorageClass", "allowVolumeExpansion"),
    AGE,
];
pub(super) const ATTRIBUTES_CLASS_COLUMNS: &[Column] =
    &[NAME, Column::string("DriverName").of("io.k8s.api.storage.v1.VolumeAttributesClass", "driverName"), AGE];
pub(super) const ATTACHMENT_COLUMNS: &[Column] = &[
    NAME,
    Column::string("Attacher").of("io.k8s.api.storage.v1.VolumeAttachmentSpec", "attacher").name_format(),
    Column::string("PV").of("io.k8s.api.storage.v1.VolumeAttachmentSource", "persistentVolumeName"),
    Column::string("Node").of("io.k8s.api.storage.v1.VolumeAttachmentSpec", "nodeName"),
    Column::boolean("Attached").of("io.k8s.api.storage.v1.VolumeAttachmentStatus", "attached"),
    AGE,
];
pub(super) const NODE_COLUMNS: &[Column] = &[
    NAME,
    Column::integer("Drivers").about("Drivers indicates the number of CSI drivers registered on the node"),
    AGE,
];
pub(super) const DRIVER_COLUMNS: &[Column] = &[
    NAME,
    Column::boolean("AttachRequired").of("io.k8s.api.storage.v1.CSIDriverSpec", "attachRequired"),
    Column::boolean("PodInfoOnMount").of("io.k8s.api.storage.v1.CSIDriverSpec", "podInfoOnMount"),
    Column::boolean("StorageCapacity").of("io.k8s.api.storage.v1.CSIDriverSpec", "storageCapacity"),
    Column::string("TokenRequests").of("io.k8s.api.storage.v1.CSIDriverSpec", "tokenRequests"),
    Column::boolean("RequiresRepublish").of("io.k8s.api.storage.v1.CSIDriverSpec", "requiresRepublish"),
    Column::string("Modes").of("io.k8s.api.storage.v1.CSIDriverSpec", "volumeLifecycleModes"),
    AGE,
];
pub(super) fn class_row(class: &Value, now: Timestamp) -> Vec<Value> {
    let annotation = |key| text(class, &["metadata", "annotations", key]) == "true";
    let default = annotation("storageclass.kubernetes.io/is-default-class")
        || annotation("storageclass.beta.kubernetes.io/is-default-class");
    let suffix = if default { " (default)" } else { "" };
    vec![
        json!(format!("{}{suffix}", cells::name(class))),
        json!(text(class, &["provisioner"])),
        json!(opt_text(class, &["reclaimPolicy"]).unwrap_or("Delete")),
        json!(opt_text(class, &["volumeBindingMode"]).unwrap_or("Immediate")),
        json!(flag(class, &["allowVolumeExpansion"])),
        cells::age(class, now),
    ]
}

pub(super) fn attributes_class_row(class: &Value, now: Timestamp) -> Vec<Value> {
    vec![json!(cells::name(class)), json!(text(class, &["driverName"])), cells::age(class, now)]
}

pub(super) fn attachment_row(attachment: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        json!(cells::name(attachment)),
        json!(text(attachment, &["spec", "attacher"])),
        json!(text(attachment, &["spec", "source", "persistentVolumeName"])),
        json!(text(attachment, &["spec", "nodeName"])),
        json!(flag(attachment, &["status", "attached"])),
        cells::age(attachment, now),
    ]
}

pub(super) fn node_row(node: &Value, now: Timestamp) -> Vec<Value> {
    vec![json!(cells::name(node)), json!(count(node, &["spec", "drivers"])), cells::age(node, now)]
}

pub(super) fn driver_row(driver: &Value, now: Timestamp) -> Vec<Value> {
    let set = |field| flag(driver, &["spec", field]);
    let attach = at(driver, &["spec", "attachRequired"]).and_then(Value::as_bool).unwrap_or(true);
    let tokens = at(driver, &["spec", "tokenRequests"]).map_or_else(
        || "<unset>".to_owned(),
        |_| {
            let requests = list(driver, &["spec", "tokenRequests"]);
            requests.iter().map(|request| text(request, &["audience"])).collect::<Vec<_>>().join(",")
        },
    );
    let modes: Vec<&str> = list(driver, &["spec", "volumeLifecycleModes"]).iter().filter_map(Value::as_str).collect();
    let modes = modes.join(",");
    vec![
        json!(cells::name(driver)),
        json!(attach),
        json!(set("podInfoOnMount")),
        json!(set("storageCapacity")),
        json!(tokens),
        json!(set("requiresRepublish")),
        json!(cells::or(&modes, "<none>")),
        cells::age(driver, now),
    ]
}
