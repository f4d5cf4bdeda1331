//! Claims of devices: their number, and how many devices of a class they may be given.

use apimachinery::object::ObjectExt as _;
use apimachinery::quantity::{Format, Quantity};
use serde_json::Value;

use super::one;
use crate::amounts::ResourceList;

const COUNT: &str = "count/resourceclaims.resource.k8s.io";
const SUFFIX: &str = ".deviceclass.resource.k8s.io/devices";

/// What a claim of all devices is given at most.
const MOST: i64 = 32;

pub(super) fn counts(name: &str) -> bool {
    name == COUNT || name.ends_with(SUFFIX)
}

/// The name of a request's class in a quota, and how many devices it may take.
fn request(request: &Value) -> (String, i64) {
    let class = request.str_at(&["deviceClassName"]).unwrap_or_default();
    let devices = match request.str_at(&["allocationMode"]) {
        Some("ExactCount") => request.i64_at(&["count"]).unwrap_or_default(),
        Some("All") => MOST,
        _ => 0,
    };
    (format!("{class}{SUFFIX}"), devices)
}

pub(super) fn usage(claim: &Value) -> ResourceList {
    let mut result = ResourceList::from([(COUNT.to_string(), one())]);
    let mut add = |name: String, devices: i64| {
        let devices = Quantity::new(devices, Format::DecimalSI);
        result.entry(name).or_insert_with(|| Quantity::new(0, Format::DecimalSI)).add(&devices);
    };
    for wanted in claim.list_at(&["spec", "devices", "requests"]) {
        let alternatives = wanted.list_at(&["firstAvailable"]);
        if alternatives.is_empty() {
            if let Some(exactly) = wanted.get("exactly").filter(|exactly| exactly.is_object()) {
                let (name, devices) = request(exactly);
                add(name, devices);
            }
            continue;
        }
        // Nobody knows which it will be: of each class the most that any of them takes.
        let mut most = std::collections::BTreeMap::new();
        for (name, devices) in alternatives.iter().map(request) {
            let have: &mut i64 = most.entry(name).or_default();
            *have = (*have).max(devices);
        }
        most.into_iter().filter(|(_, devices)| *devices > 0).for_each(|(name, devices)| add(name, devices));
    }
    result
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn devices_are_counted_by_class() {
        let exactly =
            |class: &str, count: i64| json!({"deviceClassName": class, "allocationMode": "ExactCount", "count": count});
        let claim = json!({"spec": {"devices": {"requests": [
            {"name": "a", "exactly": exactly("gpu", 2)},
            {"name": "b", "exactly": {"deviceClassName": "nic", "allocationMode": "All"}},
            {"name": "c", "firstAvailable": [exactly("gpu", 1), exactly("gpu", 4), exactly("fpga", 1)]},
        ]}}});
        let used: Vec<String> = usage(&claim).iter().map(|(name, amount)| format!("{name}={amount}")).collect();
        assert_eq!(
            used,
            [
                "count/resourceclaims.resource.k8s.io=1",
                "fpga.deviceclass.resource.k8s.io/devices=1",
                "gpu.deviceclass.resource.k8s.io/devices=6",
                "nic.deviceclass.resource.k8s.io/devices=32",
            ]
        );
        assert!(counts("gpu.deviceclass.resource.k8s.io/devices") && counts(COUNT) && !counts("requests.cpu"));
    }
}
