//! PersistentVolume.

use serde_json::Value;

use super::resource_list::round;
use super::set::{at, child, if_nil, if_zero};

pub(super) fn set(volume: &mut Value) {
    if let Some(status) = at(volume, &["status"]) {
        if_zero(status, "phase", "Pending");
    }
    let Some(spec) = at(volume, &["spec"]) else { return };
    if_zero(spec, "persistentVolumeReclaimPolicy", "Retain");
    if_nil(spec, "volumeMode", "Filesystem");
    round(spec, "capacity");
    if let Some(path) = child(spec, "hostPath") {
        if_nil(path, "type", "");
    }
    if let Some(rbd) = child(spec, "rbd") {
        if_zero(rbd, "pool", "rbd");
        if_zero(rbd, "user", "admin");
        if_zero(rbd, "keyring", "/etc/ceph/keyring");
    }
    if let Some(iscsi) = child(spec, "iscsi") {
        if_zero(iscsi, "iscsiInterface", "default");
    }
    if let Some(scale) = child(spec, "scaleIO") {
        if_zero(scale, "storageMode", "ThinProvisioned");
        if_zero(scale, "fsType", "xfs");
    }
    if let Some(disk) = child(spec, "azureDisk") {
        if_nil(disk, "cachingMode", "ReadWrite");
        if_nil(disk, "kind", "Shared");
        if_nil(disk, "fsType", "ext4");
        if_nil(disk, "readOnly", false);
    }
}
