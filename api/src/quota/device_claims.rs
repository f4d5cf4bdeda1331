//! Claims of devices: their number, and how many devices of a class they may be given; the latter under the
//! names of extended resources as well (KEP-5004).

use std::collections::{BTreeMap, BTreeSet};

use apimachinery::object::ObjectExt as _;
use apimachinery::quantity::{Format, Quantity};
use jiff::Timestamp;
use serde_json::Value;

use super::{one, pods};
use crate::amounts::ResourceList;

const COUNT: &str = "count/resourceclaims.resource.k8s.io";
const SUFFIX: &str = ".deviceclass.resource.k8s.io/devices";

/// What a claim of all devices is given at most.
const MOST: i64 = 32;

const REQUESTS: &str = "requests.";
/// Every class is an extended resource of this name, whether or not it names another.
const IMPLICIT: &str = "requests.deviceclass.resource.kubernetes.io/";
/// Says of a claim that the scheduler made it, for a pod's extended resources.
const MADE_FOR_POD: &str = "resource.kubernetes.io/extended-resource-claim";

/// What has to be known to count claims under the names of extended resources.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Devices {
    /// By device class, the extended resource that it names.
    named: BTreeMap<String, String>,
    classes: BTreeSet<String>,
    /// The namespace's pods by name. Only those matter that a claim was made for.
    pods: BTreeMap<String, Value>,
    /// The namespace's claims that were made for pods.
    claims: Vec<Value>,
}

impl Devices {
    /// From all device classes, and a namespace's pods and claims.
    pub fn new(classes: &[Value], pods: Vec<Value>, claims: &[Value]) -> Self {
        let named = classes.iter().filter_map(|class| {
            let resource = class.str_at(&["spec", "extendedResourceName"]).filter(|name| !name.is_empty())?;
            Some((class.name().to_string(), resource.to_string()))
        });
        Self {
            named: named.collect(),
            classes: classes.iter().map(|class| class.name().to_string()).collect(),
            pods: pods.into_iter().map(|pod| (pod.name().to_string(), pod)).collect(),
            claims: claims.iter().filter(|claim| maker(claim).is_some()).cloned().collect(),
        }
    }

    pub(super) fn counts(&self, name: &str) -> bool {
        if name == COUNT || name.ends_with(SUFFIX) {
            return true;
        }
        if let Some(class) = name.strip_prefix(IMPLICIT) {
            return self.classes.contains(class);
        }
        pods::is_extended(name)
            && name.strip_prefix(REQUESTS).is_some_and(|name| self.named.values().any(|resource| resource == name))
    }

    /// What the pod that a claim was made for uses by itself: the same devices are not charged twice.
    fn charged_to_pod(&self, claim: &Value, now: Timestamp) -> Option<ResourceList> {
        let maker = maker(claim)?;
        let pod = self.pods.get(maker.str_at(&["name"])?)?;
        let uid = maker.str_at(&["uid"]).unwrap_or_default();
        if pod.uid() != uid {
            return None;
        }
        match pod.get("status").and_then(|status| status.get("extendedResourceClaimStatus")) {
            Some(status) if !status.is_null() => {
                if status.str_at(&["resourceClaimName"]) != Some(claim.name()) {
                    return None;
                }
            }
            // The pod does not say which claim is its own: the first one that was made.
            _ => {
                let age = |claim: &Value| {
                    let created = claim.str_at(&["metadata", "creationTimestamp"]).unwrap_or_default();
                    (created.to_string(), claim.name().to_string())
                };
                let own = age(claim);
                let others = self.claims.iter().filter(|other| {
                    self::maker(other).is_some_and(|maker| maker.str_at(&["uid"]).unwrap_or_default() == uid)
                });
                if others.into_iter().any(|other| age(other) < own) {
                    return None;
                }
            }
        }
        Some(pods::usage(pod, now))
    }

    /// The same devices by the names of extended resources.
    fn add_extended(&self, claim: &Value, used: &mut ResourceList, now: Timestamp) {
        let mut extended = ResourceList::new();
        for (name, amount) in used.iter() {
            let Some(class) = name.strip_suffix(SUFFIX).filter(|class| !class.is_empty()) else { continue };
            extended.insert(format!("{IMPLICIT}{class}"), amount.clone());
            if let Some(resource) = self.named.get(class) {
                extended.insert(format!("{REQUESTS}{resource}"), amount.clone());
            }
        }
        let charged = self.charged_to_pod(claim, now).unwrap_or_default();
        for (name, mut amount) in extended {
            if let Some(other) = charged.get(&name) {
                amount.sub(other);
            }
            if amount.sign() > 0 {
                used.insert(name, amount);
            }
        }
    }

    pub(super) fn usage(&self, claim: &Value, now: Timestamp) -> ResourceList {
        let mut used = usage(claim);
        self.add_extended(claim, &mut used, now);
        used
    }
}

/// The pod that a claim was made for, as its owner; `None` for claims of users.
fn maker(claim: &Value) -> Option<&Value> {
    let made = claim.str_at(&["metadata", "annotations", MADE_FOR_POD]) == Some("true");
    let owner = claim.controller_ref().filter(|_| made)?;
    let is_pod = owner.str_at(&["kind"]) == Some("Pod") && owner.str_at(&["apiVersion"]) == Some("v1");
    is_pod.then_some(owner)
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

fn usage(claim: &Value) -> ResourceList {
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
        let mut most = BTreeMap::new();
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
        let counts = |name: &str| Devices::default().counts(name);
        assert!(counts("gpu.deviceclass.resource.k8s.io/devices") && counts(COUNT) && !counts("requests.cpu"));
    }

    fn claim(name: &str, created: &str, made: bool, count: i64) -> Value {
        let mut claim = json!({"metadata": {"name": name, "creationTimestamp": created, "ownerReferences":
            [{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u", "controller": true}]},
            "spec": {"devices": {"requests": [{"name": "a", "exactly":
                {"deviceClassName": "gpu", "allocationMode": "ExactCount", "count": count}}]}}});
        if made {
            claim["metadata"]["annotations"] = json!({MADE_FOR_POD: "true"});
        }
        claim
    }

    #[test]
    fn devices_are_counted_as_extended_resources_once() {
        let classes = [
            json!({"metadata": {"name": "gpu"}, "spec": {"extendedResourceName": "example.com/gpu"}}),
            json!({"metadata": {"name": "nic"}, "spec": {}}),
        ];
        let pod = |status: Value| {
            json!({"metadata": {"name": "p", "uid": "u"}, "spec": {"containers": [
                {"resources": {"requests": {"example.com/gpu": "2"}}}]}, "status": status})
        };
        let shown = |devices: &Devices, claim: &Value| -> Vec<String> {
            let used = devices.usage(claim, Timestamp::UNIX_EPOCH);
            used.iter().filter(|(name, _)| name.starts_with(REQUESTS)).map(|(n, a)| format!("{n}={a}")).collect()
        };
        let (implicit, named) = ("requests.deviceclass.resource.kubernetes.io/gpu", "requests.example.com/gpu");
        let both = |count: i64| vec![format!("{implicit}={count}"), format!("{named}={count}")];

        let first = claim("a", "2026-01-01T00:00:00Z", true, 2);
        let second = claim("b", "2026-01-01T00:00:00Z", true, 2);
        let claims = [first.clone(), second.clone()];
        let devices = Devices::new(&classes, vec![pod(json!({}))], &claims);
        assert_eq!(shown(&devices, &claim("c", "2025-01-01T00:00:00Z", false, 3)), both(3), "a user's own");
        assert_eq!(shown(&devices, &first), [format!("{implicit}=2")], "the pod was charged for it");
        assert_eq!(shown(&devices, &second), both(2), "one claim of a pod only");
        let more = claim("a", "2026-01-01T00:00:00Z", true, 5);
        assert_eq!(shown(&devices, &more), [format!("{implicit}=5"), format!("{named}=3")]);

        let said = pod(json!({"extendedResourceClaimStatus": {"resourceClaimName": "b"}}));
        let devices = Devices::new(&classes, vec![said], &claims);
        assert_eq!(shown(&devices, &first), both(2));
        assert_eq!(shown(&devices, &second), [format!("{implicit}=2")]);
        let gone = Devices::new(&classes, Vec::new(), &claims);
        assert_eq!(shown(&gone, &first), both(2));

        for (name, want) in [
            (named, true),
            (implicit, true),
            ("requests.deviceclass.resource.kubernetes.io/fpga", false),
            ("requests.example.com/fpga", false),
            ("requests.cpu", false),
        ] {
            assert_eq!(devices.counts(name), want, "{name}");
        }
    }
}
