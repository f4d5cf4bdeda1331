//! Amounts of resources that pods and claims ask for: what limits and quotas are about.

use std::collections::BTreeMap;

use apimachinery::object::ObjectExt as _;
use apimachinery::quantity::Quantity;
use serde_json::Value;

/// Amounts by resource name.
pub type ResourceList = BTreeMap<String, Quantity>;

/// Reads a resource list; what is no quantity is left out (validation refuses it elsewhere).
pub fn list(object: &Value, path: &[&str]) -> ResourceList {
    let amounts = object.map_at(path).into_iter().flatten();
    amounts.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.parse().ok()?))).collect()
}

/// Adds amounts to others.
pub fn add(sum: &mut ResourceList, more: &ResourceList) {
    for (name, amount) in more {
        match sum.get_mut(name) {
            Some(have) => have.add(amount),
            None => {
                sum.insert(name.clone(), amount.clone());
            }
        }
    }
}

/// The larger amount of each resource.
pub fn max(have: &mut ResourceList, other: &ResourceList) {
    for (name, amount) in other {
        match have.get_mut(name) {
            Some(known) if *known >= *amount => {}
            _ => {
                have.insert(name.clone(), amount.clone());
            }
        }
    }
}

/// Which half of a container's resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    Requests,
    Limits,
}

impl Half {
    fn field(self) -> &'static str {
        match self {
            Half::Requests => "requests",
            Half::Limits => "limits",
        }
    }
}

/// Resources that a pod as a whole may ask for.
pub fn is_pod_level(name: &str) -> bool {
    matches!(name, "cpu" | "memory") || name.starts_with("hugepages-")
}

/// How a pod's amounts are counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// With what the runtime class adds.
    pub overhead: bool,
    /// A container that is being resized counts with the larger of what it has and what it wants.
    pub statuses: bool,
}

fn of_container(pod: &Value, container: &Value, statuses: &[&str], half: Half, options: Options) -> ResourceList {
    let mut amounts = list(container, &["resources", half.field()]);
    if !options.statuses {
        return amounts;
    }
    let reported = statuses
        .iter()
        .flat_map(|field| pod.list_at(&["status", field]))
        .find(|status| status.get("name") == container.get("name"));
    if let Some(status) = reported {
        max(&mut amounts, &list(status, &["resources", half.field()]));
        if half == Half::Requests {
            max(&mut amounts, &list(status, &["allocatedResources"]));
        }
    }
    amounts
}

/// What a pod asks for: the sum of its containers, or of its start if that needs more; sidecars count
/// in both. What the pod asks for as a whole replaces the sum.
pub fn of_pod(pod: &Value, half: Half, options: Options) -> ResourceList {
    let field = half.field();
    let mut total = ResourceList::new();
    for container in pod.list_at(&["spec", "containers"]) {
        add(&mut total, &of_container(pod, container, &["containerStatuses"], half, options));
    }
    let (mut sidecars, mut start) = (ResourceList::new(), ResourceList::new());
    for container in pod.list_at(&["spec", "initContainers"]) {
        if container.str_at(&["restartPolicy"]) == Some("Always") {
            let own = of_container(pod, container, &["initContainerStatuses"], half, options);
            add(&mut total, &own);
            add(&mut sidecars, &own);
            max(&mut start, &sidecars);
        } else {
            let mut now = list(container, &["resources", field]);
            add(&mut now, &sidecars);
            max(&mut start, &now);
        }
    }
    max(&mut total, &start);
    for (name, amount) in list(pod, &["spec", "resources", field]) {
        if is_pod_level(&name) {
            total.insert(name, amount);
        }
    }
    if options.overhead {
        let overhead = list(pod, &["spec", "overhead"]);
        match half {
            Half::Requests => add(&mut total, &overhead),
            // A limit that is absent is none: overhead makes no limit.
            Half::Limits => {
                for (name, amount) in overhead {
                    if let Some(have) = total.get_mut(&name) {
                        have.add(&amount);
                    }
                }
            }
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pod_needs_its_sum_or_its_start() {
        let cpu = |amount: &str| json!({"requests": {"cpu": amount}, "limits": {"cpu": amount}});
        let shown =
            |pod: &Value| of_pod(pod, Half::Requests, Options { overhead: true, statuses: true })["cpu"].to_string();
        let mut pod = json!({"spec": {
            "containers": [{"resources": cpu("100m")}, {"resources": cpu("200m")}],
            "initContainers": [{"resources": cpu("250m")}],
        }});
        assert_eq!(shown(&pod), "300m");
        pod["spec"]["initContainers"] = json!([
            {"restartPolicy": "Always", "resources": cpu("100m")}, {"resources": cpu("500m")},
        ]);
        assert_eq!(shown(&pod), "600m");
        pod["spec"]["overhead"] = json!({"cpu": "50m"});
        assert_eq!(shown(&pod), "650m");
        pod["spec"]["resources"] = cpu("1");
        assert_eq!(shown(&pod), "1050m");
        pod["spec"]["resources"] = json!({"requests": {"example.com/gpu": "1"}});
        assert_eq!(shown(&pod), "650m");
        pod["spec"]["containers"][0]["name"] = "a".into();
        pod["status"] = json!({"containerStatuses": [{"name": "a", "allocatedResources": {"cpu": "700m"}}]});
        assert_eq!(shown(&pod), "1050m", "700m + 200m + the sidecar's 100m + 50m");
    }
}
