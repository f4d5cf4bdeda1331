//! Service.

use serde_json::{Value, json};

use super::set::{at, child, if_nil, if_zero, is_zero, items, text};

pub(super) fn set(service: &mut Value) {
    if let Some(spec) = at(service, &["spec"]) {
        if_zero(spec, "sessionAffinity", "None");
        match text(spec, "sessionAffinity") {
            "None" => {
                spec.remove("sessionAffinityConfig");
            }
            "ClientIP" => {
                let timeout = spec.get("sessionAffinityConfig").and_then(|c| c.get("clientIP")?.get("timeoutSeconds"));
                if timeout.is_none_or(Value::is_null) {
                    spec.insert("sessionAffinityConfig".into(), json!({"clientIP": {"timeoutSeconds": 10800}}));
                }
            }
            _ => {}
        }
        if_zero(spec, "type", "ClusterIP");
        for port in items(spec, "ports") {
            if_zero(port, "protocol", "TCP");
            if is_zero(port.get("targetPort"))
                && let Some(number) = port.get("port").cloned()
            {
                port.insert("targetPort".into(), number);
            }
        }
        let kind = text(spec, "type").to_owned();
        let external = matches!(kind.as_str(), "NodePort" | "LoadBalancer")
            || (kind == "ClusterIP" && !is_zero(spec.get("externalIPs")));
        if external {
            if_zero(spec, "externalTrafficPolicy", "Cluster");
        }
        if matches!(kind.as_str(), "NodePort" | "LoadBalancer" | "ClusterIP") {
            if_nil(spec, "internalTrafficPolicy", "Cluster");
        }
        if kind == "LoadBalancer" {
            if_nil(spec, "allocateLoadBalancerNodePorts", true);
        } else {
            return;
        }
    }
    if let Some(balancer) = at(service, &["status"]).and_then(|s| child(s, "loadBalancer")) {
        for ingress in items(balancer, "ingress").filter(|i| !is_zero(i.get("ip"))) {
            if_nil(ingress, "ipMode", "VIP");
        }
    }
}
