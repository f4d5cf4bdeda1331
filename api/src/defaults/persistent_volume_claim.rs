//! PersistentVolumeClaim, also as a template of a StatefulSet.

use serde_json::Value;

use super::resource_list::{round, round_resources};
use super::set::{Tree, at, child, if_nil, if_zero};

pub(super) fn set(claim: &mut Value) {
    if let Some(claim) = claim.as_object_mut() {
        template(claim);
    }
    if let Some(status) = at(claim, &["status"]) {
        round(status, "capacity");
        round(status, "allocatedResources");
    }
}

/// A claim within another object.
pub(super) fn template(claim: &mut Tree) {
    if let Some(status) = child(claim, "status") {
        if_zero(status, "phase", "Pending");
    }
    if let Some(spec) = child(claim, "spec") {
        if_nil(spec, "volumeMode", "Filesystem");
        round_resources(spec, "resources");
    }
}
