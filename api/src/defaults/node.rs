//! Node: what is there can be allocated.

use serde_json::Value;

use super::resource_list::round;
use super::set::{at, if_zero};

pub(super) fn set(node: &mut Value) {
    let Some(status) = at(node, &["status"]) else { return };
    // A list that is there and empty is lost on the way to the store, and defaulted when it is read back.
    if let Some(capacity) = status.get("capacity").filter(|c| c.is_object()).cloned() {
        if_zero(status, "allocatable", capacity);
    }
    round(status, "capacity");
    round(status, "allocatable");
}
