//! Endpoints: subsets are repacked before storing, so that equal sets of addresses look equal.

use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

use crate::registry::hooks::{HookContext, Hooks};

pub struct Endpoints;

impl Hooks for Endpoints {
    fn prepare_create(&self, _: &HookContext<'_>, object: &mut Value) {
        repack(object);
    }

    fn prepare_update(&self, _: &HookContext<'_>, new: &mut Value, _: &Value) {
        repack(new);
    }
}

/// Addresses with the same ports share a subset, sorted; as upstream's `RepackSubsets`, for the
/// common case that subsets are well formed. Others are left for validation to name.
fn repack(object: &mut Value) {
    let Some(subsets) = object.get("subsets").and_then(Value::as_array) else { return };
    // Ports (as text, for order) → address (as text) → ready and not ready.
    let mut packed: BTreeMap<String, (Value, Vec<Value>, Vec<Value>)> = BTreeMap::new();
    for subset in subsets {
        let list = |name: &str| subset.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
        let mut ports = list("ports");
        if ports.is_empty() || (list("addresses").is_empty() && list("notReadyAddresses").is_empty()) {
            return;
        }
        ports.sort_by_key(ToString::to_string);
        ports.dedup();
        let ports = Value::Array(ports);
        let entry = packed.entry(ports.to_string()).or_insert_with(|| (ports, Vec::new(), Vec::new()));
        entry.1.extend(list("addresses"));
        entry.2.extend(list("notReadyAddresses"));
    }
    let subsets = packed
        .into_values()
        .map(|(ports, mut ready, mut not_ready)| {
            let key = |address: &Value| {
                let text =
                    |pointer: &str| address.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_string();
                (text("/ip"), text("/targetRef/uid"))
            };
            ready.sort_by_key(key);
            ready.dedup();
            not_ready.sort_by_key(key);
            not_ready.dedup();
            // An address that is ready somewhere is ready.
            not_ready.retain(|address| !ready.iter().any(|other| key(other) == key(address)));
            let mut subset = Map::new();
            if !ready.is_empty() {
                subset.insert("addresses".into(), ready.into());
            }
            if !not_ready.is_empty() {
                subset.insert("notReadyAddresses".into(), not_ready.into());
            }
            subset.insert("ports".into(), ports);
            Value::Object(subset)
        })
        .collect::<Vec<_>>();
    object["subsets"] = json!(subsets);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packs_equal_ports_together() {
        let mut object = json!({"subsets": [
            {"addresses": [{"ip": "10.0.0.2"}], "ports": [{"port": 80, "protocol": "TCP"}]},
            {"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 80, "protocol": "TCP"}]},
        ]});
        repack(&mut object);
        assert_eq!(
            object["subsets"],
            json!([{"addresses": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}], "ports": [{"port": 80, "protocol": "TCP"}]}])
        );
    }
}
