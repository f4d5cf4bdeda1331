//! EndpointSlice.

use serde_json::Value;

use super::set::{if_nil, items};

pub(super) fn set(slice: &mut Value) {
    let Some(slice) = slice.as_object_mut() else { return };
    for port in items(slice, "ports") {
        if_nil(port, "name", "");
        if_nil(port, "protocol", "TCP");
    }
}
