//! Services: their number, and the load balancers and node ports they take.

use apimachinery::object::ObjectExt as _;
use apimachinery::quantity::{Format, Quantity};
use serde_json::Value;

use super::one;
use crate::amounts::ResourceList;

const COUNTED: [&str; 4] = ["count/services", "services", "services.nodeports", "services.loadbalancers"];

pub(super) fn counts(name: &str) -> bool {
    COUNTED.contains(&name)
}

pub(super) fn usage(service: &Value) -> ResourceList {
    let ports = service.list_at(&["spec", "ports"]);
    let kind = service.str_at(&["spec", "type"]).unwrap_or_default();
    let node_ports = match kind {
        "LoadBalancer" if service.bool_at(&["spec", "allocateLoadBalancerNodePorts"]) == Some(false) => {
            ports.iter().filter(|port| port.i64_at(&["nodePort"]).unwrap_or_default() != 0).count()
        }
        "NodePort" | "LoadBalancer" => ports.len(),
        _ => 0,
    };
    let number = |count: usize| Quantity::new(i64::try_from(count).unwrap_or(i64::MAX), Format::DecimalSI);
    ResourceList::from([
        ("count/services".to_string(), one()),
        ("services".to_string(), one()),
        ("services.nodeports".to_string(), number(node_ports)),
        ("services.loadbalancers".to_string(), number(usize::from(kind == "LoadBalancer"))),
    ])
}
