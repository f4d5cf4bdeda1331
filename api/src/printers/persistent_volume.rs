//! PersistentVolumes and their claims.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::{self, at, list, opt_text, quantity, text};
use super::{AGE, Column, NAME};

pub(super) const COLUMNS: &[Column] = &[
    NAME,
    Column::string("Capacity").of("io.k8s.api.core.v1.PersistentVolumeSpec", "capacity"),
    Column::string("Access Modes").of("io.k8s.api.core.v1.PersistentVolumeSpec", "accessModes"),
    Column::string("Reclaim Policy").of("io.k8s.api.core.v1.PersistentVolumeSpec", "persistentVolumeReclaimPolicy"),
    Column::string("Status").of("io.k8s.api.core.v1.PersistentVolumeStatus", "phase"),
    Column::string("Claim").of("io.k8s.api.core.v1.PersistentVolumeSpec", "claimRef"),
    Column::string("StorageClass").about("StorageClass of the pv"),
    Column::string("VolumeAttributesClass").about("VolumeAttributesClass of the pv"),
    Column::string("Reason").of("io.k8s.api.core.v1.PersistentVolumeStatus", "reason"),
    AGE,
    Column::string("VolumeMode").of("io.k8s.api.core.v1.PersistentVolumeSpec", "volumeMode").wide(),
];
pub(super) const CLAIM_COLUMNS: &[Column] = &[
    NAME,
    Column::string("Status").of("io.k8s.api.core.v1.PersistentVolumeClaimStatus", "phase"),
    Column::string("Volume").of("io.k8s.api.core.v1.PersistentVolumeClaimSpec", "volumeName"),
    Column::string("Capacity").of("io.k8s.api.core.v1.PersistentVolumeClaimStatus", "capacity"),
    Column::string("Access Modes").of("io.k8s.api.core.v1.PersistentVolumeClaimStatus", "accessModes"),
    Column::string("StorageClass").about("StorageClass of the pvc"),
    Column::string("VolumeAttributesClass").about("VolumeAttributesClass of the pvc"),
    AGE,
    Column::string("VolumeMode").of("io.k8s.api.core.v1.PersistentVolumeClaimSpec", "volumeMode").wide(),
];
/// Where the storage class was named before it became a field; it still wins.
const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

pub(super) fn row(volume: &Value, now: Timestamp) -> Vec<Value> {
    let claim = at(volume, &["spec", "claimRef"])
        .map_or_else(String::new, |claim| format!("{}/{}", text(claim, &["namespace"]), text(claim, &["name"])));
    vec![
        json!(cells::name(volume)),
        json!(quantity(volume, &["spec", "capacity", "storage"])),
        json!(access_modes(list(volume, &["spec", "accessModes"]))),
        json!(text(volume, &["spec", "persistentVolumeReclaimPolicy"])),
        json!(phase(volume)),
        json!(claim),
        json!(class(volume)),
        json!(opt_text(volume, &["spec", "volumeAttributesClassName"]).unwrap_or("<unset>")),
        json!(text(volume, &["status", "reason"])),
        cells::age(volume, now),
        json!(opt_text(volume, &["spec", "volumeMode"]).unwrap_or("<unset>")),
    ]
}

pub(super) fn claim_row(claim: &Value, now: Timestamp) -> Vec<Value> {
    let volume = text(claim, &["spec", "volumeName"]);
    let (capacity, modes) = if volume.is_empty() {
        Default::default()
    } else {
        (quantity(claim, &["status", "capacity", "storage"]), access_modes(list(claim, &["status", "accessModes"])))
    };
    vec![
        json!(cells::name(claim)),
        json!(phase(claim)),
        json!(volume),
        json!(capacity),
        json!(modes),
        json!(class(claim)),
        json!(opt_text(claim, &["spec", "volumeAttributesClassName"]).unwrap_or("<unset>")),
        cells::age(claim, now),
        json!(opt_text(claim, &["spec", "volumeMode"]).unwrap_or("<unset>")),
    ]
}

fn phase(object: &Value) -> &str {
    if cells::deleting(object) { "Terminating" } else { text(object, &["status", "phase"]) }
}

/// The storage class of a volume or claim, "" when none.
pub fn class(object: &Value) -> &str {
    opt_text(object, &["metadata", "annotations", CLASS_ANNOTATION])
        .unwrap_or_else(|| text(object, &["spec", "storageClassName"]))
}

/// Access modes abbreviated, each once, in upstream's order.
pub fn access_modes(modes: &[Value]) -> String {
    [("ReadWriteOnce", "RWO"), ("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOncePod", "RWOP")]
        .into_iter()
        .filter(|(mode, _)| modes.iter().any(|m| m.as_str() == Some(mode)))
        .map(|(_, short)| short)
        .collect::<Vec<_>>()
        .join(",")
}
