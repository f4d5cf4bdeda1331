//! ResourceClaim and ResourceClaimTemplate: how many devices are asked for.

use serde_json::Value;

use super::set::{Tree, at, child, if_zero, items, text};

pub(super) fn set(kind: &str, object: &mut Value) {
    let spec = match kind {
        "ResourceClaim" => at(object, &["spec"]),
        "ResourceClaimTemplate" => at(object, &["spec", "spec"]),
        _ => None,
    };
    let Some(devices) = spec.and_then(|s| child(s, "devices")) else { return };
    for request in items(devices, "requests") {
        if let Some(exact) = child(request, "exactly") {
            amount(exact);
        }
        items(request, "firstAvailable").for_each(amount);
    }
}

fn amount(request: &mut Tree) {
    if_zero(request, "allocationMode", "ExactCount");
    if text(request, "allocationMode") == "ExactCount" {
        if_zero(request, "count", 1);
    }
}
