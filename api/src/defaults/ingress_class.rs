//! IngressClass: parameters are cluster-scoped unless they say otherwise.

use serde_json::Value;

use super::set::{at, if_nil};

pub(super) fn set(class: &mut Value) {
    if let Some(parameters) = at(class, &["spec", "parameters"]) {
        if_nil(parameters, "scope", "Cluster");
    }
}
