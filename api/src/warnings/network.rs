//! Services, endpoints, ingresses, network policies and nodes.

use apimachinery::field::Path;
use apimachinery::gotext::quote;
use serde_json::Value;

use super::address::{cidr, ip};
use crate::read::Read;

pub(super) fn service(service: &Value, out: &mut Vec<String>) {
    const HINTS: &str = "service.kubernetes.io/topology-aware-hints";
    let (spec, path) = (&service["spec"], || Path::new("spec"));
    if service["metadata"]["annotations"].get(HINTS).is_some() {
        out.push(format!("annotation {HINTS} is deprecated, please use service.kubernetes.io/topology-mode instead"));
    }
    let (kind, address) = (spec.text("type"), spec.text("clusterIP"));
    let headless = kind == "ClusterIP" && address == "None";
    if !matches!(address, "" | "None") {
        for (i, value) in spec.texts("clusterIPs").enumerate() {
            ip(value, || path().child("clusterIPs").index(i), out);
        }
    }
    let balancer = spec.text("loadBalancerIP");
    let external = !spec.list("externalIPs").is_empty();
    let mut say = |cond: bool, text: &str| {
        if cond {
            out.push(text.to_owned());
        }
    };
    say(headless && !balancer.is_empty(), "spec.loadBalancerIP is ignored for headless services");
    say(headless && external, "spec.externalIPs is ignored for headless services");
    say(headless && spec.text("sessionAffinity") != "None", "spec.SessionAffinity is ignored for headless services");
    for (i, value) in spec.texts("externalIPs").enumerate() {
        ip(value, || path().child("externalIPs").index(i), out);
    }
    if external && !headless && kind != "ExternalName" {
        out.push("spec.externalIPs is deprecated and may no longer be implemented in some clusters".to_owned());
    }
    if !balancer.is_empty() {
        ip(balancer, || path().child("loadBalancerIP"), out);
    }
    for (i, value) in spec.texts("loadBalancerSourceRanges").enumerate() {
        cidr(value, || path().child("loadBalancerSourceRanges").index(i), out);
    }
    if kind == "ExternalName" && external {
        out.push("spec.externalIPs is ignored when spec.type is \"ExternalName\"".to_owned());
    }
    if kind != "ExternalName" && !spec.text("externalName").is_empty() {
        out.push("spec.externalName is ignored when spec.type is not \"ExternalName\"".to_owned());
    }
    if spec.text("trafficDistribution") == "PreferClose" {
        out.push("spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"".to_owned());
    }
}

/// The status of Services and Ingresses.
pub(super) fn load_balancer(object: &Value, out: &mut Vec<String>) {
    for (i, ingress) in object["status"]["loadBalancer"].list("ingress").iter().enumerate() {
        if !ingress.text("ip").is_empty() {
            let path = || Path::new("status").children(&["loadBalancer", "ingress"]).index(i);
            ip(ingress.text("ip"), path, out);
        }
    }
}

pub(super) fn pod_status(pod: &Value, out: &mut Vec<String>) {
    for list in ["podIPs", "hostIPs"] {
        for (i, entry) in pod["status"].list(list).iter().enumerate() {
            ip(entry.text("ip"), || Path::new("status").child(list).index(i).child("ip"), out);
        }
    }
}

pub(super) fn endpoints(endpoints: &Value, out: &mut Vec<String>) {
    const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
    if endpoints["metadata"]["labels"].text(MANAGED_BY) == "endpoint-controller" {
        return;
    }
    for (i, subset) in endpoints.list("subsets").iter().enumerate() {
        for list in ["addresses", "notReadyAddresses"] {
            for (j, address) in subset.list(list).iter().enumerate() {
                let path = || Path::new("subsets").index(i).child(list).index(j).child("ip");
                ip(address.text("ip"), path, out);
            }
        }
    }
}

pub(super) fn endpoint_slice(slice: &Value, old: Option<&Value>, out: &mut Vec<String>) {
    if old.is_none() && slice.text("addressType") == "FQDN" {
        out.push("spec.addressType: FQDN endpoints are deprecated".to_owned());
    }
    let manager = slice["metadata"]["labels"].text("endpointslice.kubernetes.io/managed-by");
    if matches!(manager, "endpointslice-controller.k8s.io" | "endpointslicemirroring-controller.k8s.io") {
        return;
    }
    for (i, endpoint) in slice.list("endpoints").iter().enumerate() {
        for (j, value) in endpoint.texts("addresses").enumerate() {
            ip(value, || Path::new("endpoints").index(i).child("addresses").index(j), out);
        }
    }
}

pub(super) fn ingress(ingress: &Value, out: &mut Vec<String>) {
    const CLASS: &str = "kubernetes.io/ingress.class";
    if ingress["metadata"]["annotations"].get(CLASS).is_some() && ingress["spec"].set("ingressClassName").is_none() {
        out.push(format!("annotation {} is deprecated, please use 'spec.ingressClassName' instead", quote(CLASS)));
    }
}

pub(super) fn network_policy(policy: &Value, out: &mut Vec<String>) {
    for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
        for (i, rule) in policy["spec"].list(direction).iter().enumerate() {
            for (j, peer) in rule.list(peers).iter().enumerate() {
                let Some(block) = peer.set("ipBlock") else { continue };
                let path = || Path::new("spec").child(direction).index(i).child(peers).index(j).child("ipBlock");
                cidr(block.text("cidr"), || path().child("cidr"), out);
                for (k, except) in block.texts("except").enumerate() {
                    cidr(except, || path().child("except").index(k), out);
                }
            }
        }
    }
}

pub(super) fn node(node: &Value, out: &mut Vec<String>) {
    let spec = &node["spec"];
    if spec.set("configSource").is_some() {
        out.push("spec.configSource: the feature is removed".to_owned());
    }
    if !spec.text("externalID").is_empty() {
        out.push("spec.externalID: this field is deprecated, and is unused by Kubernetes".to_owned());
    }
    for (i, value) in spec.texts("podCIDRs").enumerate() {
        cidr(value, || Path::new("spec").child("podCIDRs").index(i), out);
    }
}
