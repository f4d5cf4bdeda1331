//! NetworkPolicy.

use serde_json::{Value, json};

use super::set::{at, if_nil, if_zero, is_zero, items};

pub(super) fn set(policy: &mut Value) {
    let Some(spec) = at(policy, &["spec"]) else { return };
    let types = if is_zero(spec.get("egress")) { json!(["Ingress"]) } else { json!(["Ingress", "Egress"]) };
    if_zero(spec, "policyTypes", types);
    for direction in ["ingress", "egress"] {
        for rule in items(spec, direction) {
            items(rule, "ports").for_each(|port| if_nil(port, "protocol", "TCP"));
        }
    }
}
