//! Claims: their number and size, in all and by storage class.

use std::collections::BTreeSet;

use apimachinery::object::ObjectExt as _;
use serde_json::Value;

use super::{Scope, one};
use crate::amounts::{ResourceList, list};

const SUFFIX: &str = ".storageclass.storage.k8s.io/";
const COUNTED: [&str; 2] = ["persistentvolumeclaims", "requests.storage"];

pub(super) fn counts(name: &str) -> bool {
    name == "count/persistentvolumeclaims"
        || COUNTED.contains(&name)
        || name.split_once(SUFFIX).is_some_and(|(_, rest)| COUNTED.contains(&rest))
}

fn class(claim: &Value) -> &str {
    claim
        .annotation("volume.beta.kubernetes.io/storage-class")
        .or_else(|| claim.str_at(&["spec", "storageClassName"]))
        .unwrap_or_default()
}

fn attribute_classes(claim: &Value) -> BTreeSet<&str> {
    [
        claim.str_at(&["spec", "volumeAttributesClassName"]),
        claim.str_at(&["status", "currentVolumeAttributesClassName"]),
        claim.str_at(&["status", "modifyVolumeStatus", "targetVolumeAttributesClassName"]),
    ]
    .into_iter()
    .flatten()
    .filter(|name| !name.is_empty())
    .collect()
}

pub(super) fn in_scope(scope: &Scope, claim: &Value) -> bool {
    scope.name == "VolumeAttributesClass" && scope.accepts(&attribute_classes(claim))
}

pub(super) fn status_matters(old: &Value, new: &Value) -> bool {
    let allocated = |claim: &Value| list(claim, &["status", "allocatedResources"]).remove("storage");
    allocated(old) != allocated(new) || attribute_classes(old) != attribute_classes(new)
}

pub(super) fn usage(claim: &Value) -> ResourceList {
    let class = class(claim);
    let mut result = ResourceList::from([
        ("count/persistentvolumeclaims".to_string(), one()),
        ("persistentvolumeclaims".to_string(), one()),
    ]);
    if !class.is_empty() {
        result.insert(format!("{class}{SUFFIX}persistentvolumeclaims"), one());
    }
    if let Some(mut size) = list(claim, &["spec", "resources", "requests"]).remove("storage") {
        // A claim that is growing counts with what it is growing to.
        if let Some(allocated) = list(claim, &["status", "allocatedResources"]).remove("storage")
            && allocated > size
        {
            size = allocated;
        }
        size.round_up(0);
        if !class.is_empty() {
            result.insert(format!("{class}{SUFFIX}requests.storage"), size.clone());
        }
        result.insert("requests.storage".to_string(), size);
    }
    result
}
