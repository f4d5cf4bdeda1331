//! Fields of features that are off by default in 1.36: dropped from what is written unless the stored object
//! already uses the feature (upstream's `dropDisabledFields` of each strategy).

use api::Resource;
use apimachinery::object::ObjectExt as _;
use component_base::featuregate::FeatureGates;
use serde_json::Value;

use crate::config::features;

/// One feature's fields: paths in which `*` stands for every item of a list or value of a map.
struct Feature {
    group: &'static str,
    kind: &'static str,
    paths: &'static [&'static str],
}

const FEATURES: [Feature; 8] = [
    // DynamicKubeletConfig, which is no more
    Feature { group: "", kind: "Node", paths: &["/spec/configSource"] },
    Feature { group: "", kind: "Node", paths: &["/status/config"] },
    // CoordinatedLeaderElection
    Feature { group: "coordination.k8s.io", kind: "Lease", paths: &["/spec/strategy", "/spec/preferredHolder"] },
    // MaxUnavailableStatefulSet
    Feature { group: "apps", kind: "StatefulSet", paths: &["/spec/updateStrategy/rollingUpdate/maxUnavailable"] },
    // VolumeLimitScaling
    Feature { group: "storage.k8s.io", kind: "CSIDriver", paths: &["/spec/preventPodSchedulingIfMissing"] },
    // DRANodeAllocatableResources
    Feature {
        group: "resource.k8s.io",
        kind: "ResourceSlice",
        paths: &["/spec/devices/*/nodeAllocatableResourceMappings"],
    },
    // DRAListTypeAttributes
    Feature {
        group: "resource.k8s.io",
        kind: "ResourceSlice",
        paths: &[
            "/spec/devices/*/attributes/*/bools",
            "/spec/devices/*/attributes/*/ints",
            "/spec/devices/*/attributes/*/strings",
            "/spec/devices/*/attributes/*/versions",
        ],
    },
    // DRANodeAllocatableResources
    Feature { group: "", kind: "Pod", paths: &["/status/nodeAllocatableResourceClaimStatuses"] },
];

/// Features of pods, in every kind that has a pod's spec, by gate. A gate that nobody declared is off.
const POD_FEATURES: [(&str, &[&str]); 4] = [
    (features::CLUSTER_TRUST_BUNDLE_PROJECTION, &["/volumes/*/projected/sources/*/clusterTrustBundle"]),
    (features::POD_CERTIFICATE_REQUEST, &["/volumes/*/projected/sources/*/podCertificate"]),
    ("GenericWorkload", &["/schedulingGroup"]),
    (
        "ContainerStopSignals",
        &[
            "/containers/*/lifecycle/stopSignal",
            "/initContainers/*/lifecycle/stopSignal",
            "/ephemeralContainers/*/lifecycle/stopSignal",
        ],
    ),
];

/// Drops what is off from `new`; `old` is the stored object, if there is one.
pub fn drop(gates: &FeatureGates, resource: &Resource, new: &mut Value, old: Option<&Value>) {
    if resource.custom {
        return;
    }
    let (group, kind) = (resource.group.as_ref(), resource.kind.as_ref());
    for feature in FEATURES.iter().filter(|feature| feature.group == group && feature.kind == kind) {
        feature_of(feature.paths, new, old);
    }
    if let Some(path) = super::mirrored::pod_spec(resource) {
        let old = old.and_then(|old| old.at(path));
        let Some(spec) = path.iter().try_fold(new, |value, name| value.get_mut(*name)) else { return };
        lifecycles(spec, old);
        for (_, paths) in POD_FEATURES.iter().filter(|(gate, _)| !gates.enabled(gate)) {
            feature_of(paths, spec, old);
        }
    }
}

fn feature_of(paths: &[&str], new: &mut Value, old: Option<&Value>) {
    if old.is_some_and(|old| paths.iter().any(|path| uses(old, path))) {
        return;
    }
    for path in paths {
        remove(new, path);
    }
}

fn split(path: &str) -> (&str, Option<&str>) {
    let path = path.trim_start_matches('/');
    path.find('/').map_or((path, None), |at| (&path[..at], Some(&path[at..])))
}

fn uses(value: &Value, path: &str) -> bool {
    let (step, rest) = split(path);
    let inside = |value: &Value| rest.map_or(!value.is_null(), |rest| uses(value, rest));
    match (step, value) {
        ("*", Value::Array(items)) => items.iter().any(inside),
        ("*", Value::Object(map)) => map.values().any(inside),
        (step, Value::Object(map)) => map.get(step).is_some_and(inside),
        _ => false,
    }
}

fn remove(value: &mut Value, path: &str) {
    let (step, rest) = split(path);
    match (step, value, rest) {
        ("*", Value::Array(items), Some(rest)) => items.iter_mut().for_each(|item| remove(item, rest)),
        ("*", Value::Object(map), Some(rest)) => map.values_mut().for_each(|value| remove(value, rest)),
        (step, Value::Object(map), Some(rest)) => {
            if let Some(value) = map.get_mut(step) {
                remove(value, rest);
            }
        }
        (step, Value::Object(map), None) => {
            map.remove(step);
        }
        _ => {}
    }
}

/// A lifecycle that holds nothing but a signal, which is off, goes as a whole.
fn lifecycles(spec: &mut Value, old: Option<&Value>) {
    const LISTS: [&str; 3] = ["containers", "initContainers", "ephemeralContainers"];
    let signal = |container: &Value| container.at(&["lifecycle", "stopSignal"]).is_some_and(|signal| !signal.is_null());
    if old.is_some_and(|old| LISTS.iter().any(|list| old.list_at(&[list]).iter().any(signal))) {
        return;
    }
    for list in LISTS {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            let only = container.at(&["lifecycle"]).and_then(Value::as_object).is_some_and(|map| map.len() == 1);
            if only && signal(container) {
                container.as_object_mut().map(|map| map.remove("lifecycle"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn drops_what_was_not_there() {
        let table = api::table();
        let check = |group: &str, version: &str, plural: &str, new: Value, old: Option<Value>, want: Value| {
            let resource = table.find_resource(group, version, plural).unwrap();
            let mut new = new;
            drop(&features::defaults(), resource, &mut new, old.as_ref());
            assert_eq!(new, want, "{plural}");
        };
        let set = json!({"spec": {"updateStrategy": {"rollingUpdate": {"maxUnavailable": 2, "partition": 1}}}});
        let without = json!({"spec": {"updateStrategy": {"rollingUpdate": {"partition": 1}}}});
        check("apps", "v1", "statefulsets", set.clone(), None, without);
        check("apps", "v1", "statefulsets", set.clone(), Some(set.clone()), set);
        let slice = json!({"spec": {"devices": [{"name": "d", "attributes": {"a": {"ints": [1]}, "b": {"int": 1}}}]}});
        let without = json!({"spec": {"devices": [{"name": "d", "attributes": {"a": {}, "b": {"int": 1}}}]}});
        check("resource.k8s.io", "v1", "resourceslices", slice, None, without);
        let pod = json!({"spec": {"schedulingGroup": {"podGroupName": "g"}, "containers": [{"name": "c", "lifecycle": {"stopSignal": "SIGTERM"}}]}});
        check("", "v1", "pods", pod, None, json!({"spec": {"containers": [{"name": "c"}]}}));
    }
}
