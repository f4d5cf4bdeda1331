//! APIService.

use serde_json::Value;

use super::set::{at, if_nil};

pub(super) fn set(service: &mut Value) {
    if let Some(reference) = at(service, &["spec", "service"]) {
        if_nil(reference, "port", 443);
    }
}
