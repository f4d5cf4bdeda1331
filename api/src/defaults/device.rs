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
        } else if request.contains_key("deviceClassName") && items(request, "firstAvailable").next().is_none() {
            // v1beta1 says these of the request itself, unless it lists alternatives.
            amount(request);
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn one_device_in_every_version() {
        for (request, expected) in [
            (json!({"exactly": {}}), json!({"exactly": {"allocationMode": "ExactCount", "count": 1}})),
            (
                json!({"deviceClassName": "c"}),
                json!({"deviceClassName": "c", "allocationMode": "ExactCount", "count": 1}),
            ),
            (
                json!({"deviceClassName": "", "firstAvailable": [{"allocationMode": "All"}]}),
                json!({"deviceClassName": "", "firstAvailable": [{"allocationMode": "All"}]}),
            ),
        ] {
            let mut claim = json!({"spec": {"devices": {"requests": [request]}}});
            set("ResourceClaim", &mut claim);
            assert_eq!(claim["spec"]["devices"]["requests"][0], expected);
        }
    }
}
