//! Node: what is there can be allocated.

use serde_json::Value;

use super::resource_list::round;
use super::set::{at, if_nil};

pub(super) fn set(node: &mut Value) {
    let Some(status) = at(node, &["status"]) else { return };
    if let Some(capacity) = status.get("capacity").filter(|c| c.is_object()).cloned() {
        if_nil(status, "allocatable", capacity);
    }
    round(status, "capacity");
    round(status, "allocatable");
}
