//! The quality of service class of a pod.

use apimachinery::quantity::Quantity;
use serde_json::{Map, Value};

use crate::read::Read;

/// `Guaranteed`, `Burstable` or `BestEffort`, by the requests and limits for CPU and memory.
pub fn class(pod: &Value) -> &'static str {
    let spec = &pod["spec"];
    let positive = |list: Option<&Map<String, Value>>, name: &str| -> Option<Quantity> {
        let quantity = Quantity::parse(list?.get(name)?.as_str()?).ok()?;
        (quantity.sign() > 0).then_some(quantity)
    };
    // Resources of the pod as a whole go before those of its containers.
    let whole = spec.set("resources");
    let containers = spec.list("containers").iter().chain(spec.list("initContainers"));
    let all: Vec<&Value> = match whole {
        Some(resources) => vec![resources],
        None => containers.map(|container| &container["resources"]).collect(),
    };
    let (mut any, mut guaranteed) = (false, !all.is_empty());
    for resources in all {
        for name in ["cpu", "memory"] {
            let (request, limit) = (positive(resources.map("requests"), name), positive(resources.map("limits"), name));
            any |= request.is_some() || limit.is_some();
            guaranteed &= match (&request, &limit) {
                (None, Some(_)) => true,
                (Some(request), Some(limit)) => request == limit,
                _ => false,
            };
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn classes() {
        let check = |resources: Value, want: &str| {
            let pod = json!({"spec": {"containers": [{"name": "c", "resources": resources}]}});
            assert_eq!(class(&pod), want, "{pod}");
        };
        check(json!({}), "BestEffort");
        check(json!({"requests": {"cpu": "1"}}), "Burstable");
        check(json!({"limits": {"cpu": "1", "memory": "1Gi"}}), "Guaranteed");
        let same = json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m", "memory": "1Gi"}});
        check(same, "Guaranteed");
        check(json!({"limits": {"cpu": "2", "memory": "1Gi"}, "requests": {"cpu": "1", "memory": "1Gi"}}), "Burstable");
        let whole = json!({"spec": {"resources": {"requests": {"cpu": "1"}}, "containers": [{"name": "c"}]}});
        assert_eq!(class(&whole), "Burstable");
        let one_of_two = json!({"limits": {"cpu": "1", "memory": "1Gi"}});
        let pod = json!({"spec": {"containers": [{"name": "a", "resources": one_of_two}, {"name": "b"}]}});
        assert_eq!(class(&pod), "Burstable");
    }
}
