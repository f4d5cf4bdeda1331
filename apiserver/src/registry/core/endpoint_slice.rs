//! EndpointSlices: what only the first version could say of an endpoint is dropped.

use std::collections::BTreeSet;

use apimachinery::names;
use apimachinery::object::ObjectExt as _;
use serde_json::Value;

use crate::registry::hooks::{HookContext, Hooks};

/// The label by which the first version named the node.
const HOSTNAME: &str = "kubernetes.io/hostname";
const TOPOLOGY: &str = "deprecatedTopology";

pub struct EndpointSlice;

impl Hooks for EndpointSlice {
    fn prepare_create(&self, _: &HookContext<'_>, object: &mut Value) {
        drop_topology(object, &BTreeSet::new());
    }

    fn prepare_update(&self, _: &HookContext<'_>, new: &mut Value, old: &Value) {
        if new.get("endpoints") != old.get("endpoints") {
            let known = old.list_at(&["endpoints"]).iter().filter_map(node_of).map(str::to_owned).collect();
            drop_topology(new, &known);
        }
    }
}

fn node_of(endpoint: &Value) -> Option<&str> {
    endpoint.get(TOPOLOGY)?.get(HOSTNAME)?.as_str()
}

/// Takes the topology out; a node that was known by it keeps its name.
fn drop_topology(slice: &mut Value, known: &BTreeSet<String>) {
    let endpoints = slice.get_mut("endpoints").and_then(Value::as_array_mut);
    for endpoint in endpoints.into_iter().flatten().filter_map(Value::as_object_mut) {
        let Some(topology) = endpoint.remove(TOPOLOGY) else { continue };
        let Some(node) = topology.get(HOSTNAME).and_then(Value::as_str) else { continue };
        let unnamed = endpoint.get("nodeName").is_none_or(Value::is_null);
        if unnamed && known.contains(node) && names::dns1123_subdomain(node).is_empty() {
            endpoint.insert("nodeName".into(), node.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn topology() {
        let known: BTreeSet<String> = ["a".to_string(), "b".to_string(), "B_".to_string()].into();
        let check = |endpoint: Value, want: Value| {
            let mut slice = json!({"endpoints": [endpoint]});
            drop_topology(&mut slice, &known);
            assert_eq!(slice, json!({"endpoints": [want]}));
        };
        check(json!({TOPOLOGY: {"x": "y"}}), json!({}));
        check(json!({TOPOLOGY: {HOSTNAME: "a"}}), json!({"nodeName": "a"}));
        check(json!({TOPOLOGY: {HOSTNAME: "new"}}), json!({}));
        check(json!({TOPOLOGY: {HOSTNAME: "B_"}}), json!({}));
        check(json!({TOPOLOGY: {HOSTNAME: "a"}, "nodeName": "n"}), json!({"nodeName": "n"}));
    }
}
