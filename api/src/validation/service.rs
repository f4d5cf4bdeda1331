//! Service: ports, addresses, families, traffic policies.

use std::collections::BTreeSet;

use apimachinery::field::{self, BadValue, ErrorList, Path};
use apimachinery::gotext::quote;
use apimachinery::names;
use serde_json::Value;

use super::checks::{
    dns1123_label, dns1123_subdomain, labels, legacy_cidr, legacy_ip, name_is_label, one_of, port_num,
    port_num_or_name, qualified_name, sloppy_ip,
};
use super::object_meta;
use crate::read::Read;

const FAMILIES: &[&str] = &["IPv4", "IPv6"];
const HINTS: &str = "service.kubernetes.io/topology-aware-hints";
const MODE: &str = "service.kubernetes.io/topology-mode";
const SOURCE_RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";

pub(super) fn create(service: &Value, errors: &mut ErrorList) {
    object_meta::create(service, true, name_is_label, errors);
    validate(service, None, errors);
}

pub(super) fn update(new: &Value, old: &Value, errors: &mut ErrorList) {
    object_meta::update(new, old, errors);
    cluster_ips_update(&new["spec"], &old["spec"], errors);
    families_update(&new["spec"], &old["spec"], errors);
    load_balancer_class(&new["spec"], Some(&old["spec"]), errors);
    let (after, before) = (&new["spec"], &old["spec"]);
    let port = "healthCheckNodePort";
    if needs_health_check(before) && needs_health_check(after) && after.num(port) != before.num(port) {
        errors.push(field::forbidden(&Path::new("spec").child(port), "field is immutable"));
    }
    validate(new, Some(old), errors);
}

/// `status.loadBalancer`.
pub(super) fn update_status(new: &Value, old: &Value, errors: &mut ErrorList) {
    object_meta::update(new, old, errors);
    let path = Path::new("status").child("loadBalancer").child("ingress");
    let (ingress, before) =
        (new["status"]["loadBalancer"].list("ingress"), old["status"]["loadBalancer"].list("ingress"));
    if new["spec"].text("type") != "LoadBalancer" && !ingress.is_empty() && ingress != before {
        errors.push(field::forbidden(&path, "may only be used when `spec.type` is 'LoadBalancer'"));
        return;
    }
    let known: Vec<&str> = before.iter().map(|i| i.text("ip")).collect();
    for (i, ingress) in ingress.iter().enumerate() {
        let path = path.index(i);
        if !ingress.text("ip").is_empty() {
            legacy_ip(ingress.text("ip"), &known, &path.child("ip"), errors);
        }
        match (ingress.text("ip").is_empty(), ingress.set("ipMode").and_then(Value::as_str)) {
            (false, None) => errors.push(field::required(&path.child("ipMode"), "must be specified when `ip` is set")),
            (true, Some(_)) => {
                errors.push(field::forbidden(&path.child("ipMode"), "may not be specified when `ip` is not set"));
            }
            (false, Some(mode)) if !["Proxy", "VIP"].contains(&mode) => {
                errors.push(field::not_supported(&path.child("ipMode"), mode, &["Proxy", "VIP"]));
            }
            _ => {}
        }
        let name = ingress.text("hostname");
        if !name.is_empty() {
            for message in names::dns1123_subdomain(name) {
                errors.push(field::invalid(&path.child("hostname"), name, message));
            }
            if sloppy_ip(name).is_some() {
                let message = "must be a DNS name, not an IP address";
                errors.push(field::invalid(&path.child("hostname"), name, message));
            }
        }
    }
}

fn is_headless(spec: &Value) -> bool {
    matches!(spec.list("clusterIPs"), [only] if only == "None")
}

fn needs_health_check(spec: &Value) -> bool {
    spec.text("type") == "LoadBalancer" && spec.text("externalTrafficPolicy") == "Local"
}

fn externally_accessible(spec: &Value) -> bool {
    match spec.text("type") {
        "LoadBalancer" | "NodePort" => true,
        "ClusterIP" => !spec.list("externalIPs").is_empty(),
        _ => false,
    }
}

/// Strings of a list as Go writes them: a list that is not set is `null`.
fn shown(spec: &Value, name: &str) -> Value {
    spec[name].clone()
}

fn validate(service: &Value, old: Option<&Value>, errors: &mut ErrorList) {
    let (spec, path) = (&service["spec"], Path::new("spec"));
    let annotations = &service["metadata"]["annotations"];
    if let (Some(mode), Some(hints)) = (annotations.set(MODE), annotations.set(HINTS))
        && mode != hints
    {
        let path = Path::new("metadata").child("annotations").key(MODE);
        errors.push(field::invalid(&path, mode, format!("must match annotations[{HINTS}] when both are specified")));
    }
    let kind = spec.text("type");
    let headless = is_headless(spec);
    if spec.list("ports").is_empty() && !headless && kind != "ExternalName" {
        errors.push(field::required(&path.child("ports"), ""));
    }
    match kind {
        "LoadBalancer" | "NodePort" if headless => {
            let message = format!("may not be set to 'None' for {kind} services");
            errors.push(field::invalid(&path.child("clusterIPs").index(0), "None", message));
        }
        "ExternalName" => external_name(spec, &path, errors),
        _ => {}
    }
    ports(spec, headless, &path.child("ports"), errors);
    labels(&spec["selector"], &path.child("selector"), errors);
    session_affinity(spec, &path, errors);
    cluster_ips(spec, old, &path, errors);
    let known: Vec<&str> = old.map(|o| o["spec"].texts("externalIPs").collect()).unwrap_or_default();
    for (i, ip) in spec.texts("externalIPs").enumerate() {
        let path = path.child("externalIPs").index(i);
        let before = errors.len();
        legacy_ip(ip, &known, &path, errors);
        if errors.len() == before {
            endpoint_ip(ip, &path, errors);
        }
    }
    one_of(kind, &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"], &path.child("type"), errors);
    node_ports(spec, &path.child("ports"), errors);
    source_ranges(service, old, &path, errors);
    let allocate = spec.set("allocateLoadBalancerNodePorts");
    if allocate.is_some() && kind != "LoadBalancer" {
        let path = path.child("allocateLoadBalancerNodePorts");
        errors.push(field::forbidden(&path, "may only be used when `type` is 'LoadBalancer'"));
    }
    if allocate.is_none() && kind == "LoadBalancer" {
        errors.push(field::required(&Path::new("allocateLoadBalancerNodePorts"), ""));
    }
    load_balancer_class(spec, None, errors);
    traffic(spec, &path, errors);
}

fn external_name(spec: &Value, path: &Path, errors: &mut ErrorList) {
    for name in ["clusterIPs", "ipFamilies"] {
        if !spec.list(name).is_empty() {
            errors.push(field::forbidden(&path.child(name), "may not be set for ExternalName services"));
        }
    }
    if spec.set("ipFamilyPolicy").is_some() {
        errors.push(field::forbidden(&path.child("ipFamilyPolicy"), "may not be set for ExternalName services"));
    }
    let name = spec.text("externalName");
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.is_empty() {
        errors.push(field::required(&path.child("externalName"), ""));
    } else {
        dns1123_subdomain(name, &path.child("externalName"), errors);
    }
}

fn ports(spec: &Value, headless: bool, path: &Path, errors: &mut ErrorList) {
    let _ = headless;
    let list = spec.list("ports");
    let mut seen = BTreeSet::new();
    for (i, port) in list.iter().enumerate() {
        let path = path.index(i);
        let name = port.text("name");
        if !name.is_empty() {
            dns1123_label(name, &path.child("name"), errors);
            if !seen.insert(name) {
                errors.push(field::duplicate(&path.child("name"), name));
            }
        } else if list.len() > 1 {
            errors.push(field::required(&path.child("name"), ""));
        }
        port_num(port.num("port"), &path.child("port"), errors);
        one_of(port.text("protocol"), &["SCTP", "TCP", "UDP"], &path.child("protocol"), errors);
        port_num_or_name(&port["targetPort"], &path.child("targetPort"), errors);
        if let Some(protocol) = port.set("appProtocol").and_then(Value::as_str) {
            qualified_name(protocol, &path.child("appProtocol"), errors);
        }
    }
}

fn session_affinity(spec: &Value, path: &Path, errors: &mut ErrorList) {
    let affinity = spec.text("sessionAffinity");
    one_of(affinity, &["ClientIP", "None"], &path.child("sessionAffinity"), errors);
    let path = path.child("sessionAffinityConfig");
    let config = spec.set("sessionAffinityConfig");
    match affinity {
        "ClientIP" => {
            const WHEN: &str = "when session affinity type is ClientIP";
            let client = config.and_then(|c| c.set("clientIP"));
            let at = path.child("clientIP");
            match (config, client, client.and_then(|c| c.int("timeoutSeconds"))) {
                (None, ..) => errors.push(field::required(&path, WHEN)),
                (_, None, _) => errors.push(field::required(&at, WHEN)),
                (_, _, None) => errors.push(field::required(&at.child("timeoutSeconds"), WHEN)),
                (_, _, Some(seconds)) if !(1..=86400).contains(&seconds) => {
                    let message = "must be greater than 0 and less than 86400";
                    errors.push(field::invalid(&at.child("timeoutSeconds"), seconds, message));
                }
                _ => {}
            }
        }
        "None" if config.is_some() => {
            errors.push(field::forbidden(&path, "must not be set when session affinity is None"));
        }
        _ => {}
    }
}

pub(super) fn cluster_ips(spec: &Value, old: Option<&Value>, path: &Path, errors: &mut ErrorList) {
    if spec.text("type") == "ExternalName" {
        return;
    }
    let at = path.child("clusterIPs");
    let ips: Vec<&str> = spec.texts("clusterIPs").collect();
    let first = spec.text("clusterIP");
    if first.is_empty() {
        if !ips.is_empty() {
            let message = "must be empty when `clusterIP` is not specified";
            errors.push(field::invalid(&at, shown(spec, "clusterIPs"), message));
        }
    } else if ips.is_empty() {
        errors.push(field::required(&at, ""));
    } else if ips[0] != first {
        errors.push(field::invalid(&at, shown(spec, "clusterIPs"), "first value must match `clusterIP`"));
    }
    let mut seen = BTreeSet::new();
    for (i, family) in spec.texts("ipFamilies").enumerate() {
        let path = path.child("ipFamilies").index(i);
        if !FAMILIES.contains(&family) {
            errors.push(field::not_supported(&path, family, FAMILIES));
        }
        if !seen.insert(family) {
            errors.push(field::duplicate(&path, family));
        }
    }
    const POLICIES: &[&str] = &["PreferDualStack", "RequireDualStack", "SingleStack"];
    if let Some(policy) = spec.set("ipFamilyPolicy").and_then(Value::as_str).filter(|p| !POLICIES.contains(p)) {
        errors.push(field::not_supported(&path.child("ipFamilyPolicy"), policy, POLICIES));
    }
    let known: Vec<&str> = old.map(|o| o["spec"].texts("clusterIPs").collect()).unwrap_or_default();
    let mut invalid = false;
    for (i, ip) in ips.iter().enumerate() {
        if i == 0 && *ip == "None" {
            if ips.len() > 1 {
                invalid = true;
                let message = "'None' must be the first and only value";
                errors.push(field::invalid(&at, shown(spec, "clusterIPs"), message));
            }
            continue;
        }
        let before = errors.len();
        legacy_ip(ip, &known, &at.index(i), errors);
        invalid |= errors.len() > before;
    }
    if ips.len() > 2 {
        errors.push(field::invalid(&at, shown(spec, "clusterIPs"), "may only hold up to 2 values"));
    }
    if invalid {
        return;
    }
    let is_v6 = |ip: &str| ip.contains(':');
    if ips.len() > 1 && (ips.iter().all(|ip| is_v6(ip)) || !ips.iter().any(|ip| is_v6(ip))) {
        let message = "may specify no more than one IP for each IP family";
        errors.push(field::invalid(&at, shown(spec, "clusterIPs"), message));
    }
    if !is_headless(spec) {
        for (i, (ip, family)) in ips.iter().zip(spec.texts("ipFamilies")).enumerate() {
            let expected = match family {
                "IPv4" if is_v6(ip) => "IPv4",
                "IPv6" if !is_v6(ip) => "IPv6",
                _ => continue,
            };
            let message = format!("expected an {expected} value as indicated by `ipFamilies[{i}]`");
            errors.push(field::invalid(&at.index(i), *ip, message));
        }
    }
}

/// Addresses that reach something beyond the host and its link.
pub(super) fn endpoint_ip(text: &str, path: &Path, errors: &mut ErrorList) {
    let Some(ip) = sloppy_ip(text) else { return };
    let unicast_link_local = match ip {
        std::net::IpAddr::V4(v4) => v4.is_link_local(),
        std::net::IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    let multicast_link_local = match ip {
        std::net::IpAddr::V4(v4) => v4.octets()[..3] == [224, 0, 0],
        std::net::IpAddr::V6(v6) => v6.segments()[0] & 0xff0f == 0xff02,
    };
    let mut wrong = |message: &str| errors.push(field::invalid(path, text, message));
    if ip.is_unspecified() {
        wrong(&format!("may not be unspecified ({text})"));
    }
    if ip.is_loopback() {
        wrong("may not be in the loopback range (127.0.0.0/8, ::1/128)");
    }
    if unicast_link_local {
        wrong("may not be in the link-local range (169.254.0.0/16, fe80::/10)");
    }
    if multicast_link_local {
        wrong("may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)");
    }
}

fn node_ports(spec: &Value, path: &Path, errors: &mut ErrorList) {
    let list = spec.list("ports");
    if spec.text("type") == "ClusterIP" {
        for (i, _) in list.iter().enumerate().filter(|(_, p)| p.num("nodePort") != 0) {
            let message = "may not be used when `type` is 'ClusterIP'";
            errors.push(field::forbidden(&path.index(i).child("nodePort"), message));
        }
    }
    let mut used = BTreeSet::new();
    for (i, port) in list.iter().enumerate().filter(|(_, p)| p.num("nodePort") != 0) {
        if !used.insert((port.text("protocol"), port.num("nodePort"))) {
            errors.push(field::duplicate(&path.index(i).child("nodePort"), port.num("nodePort")));
        }
    }
    let mut used = BTreeSet::new();
    for (i, port) in list.iter().enumerate() {
        if !used.insert((port.text("protocol"), port.num("port"))) {
            // The internal struct with only what makes a port unique.
            let shown = format!(
                "{{\"Name\":\"\",\"Protocol\":{},\"AppProtocol\":null,\"Port\":{},\"TargetPort\":0,\"NodePort\":0}}",
                quote(port.text("protocol")),
                port.num("port")
            );
            errors.push(field::duplicate(&path.index(i), BadValue::Raw(shown)));
        }
    }
}

fn source_ranges(service: &Value, old: Option<&Value>, path: &Path, errors: &mut ErrorList) {
    let spec = &service["spec"];
    let balancer = spec.text("type") == "LoadBalancer";
    const ONLY: &str = "may only be used when `type` is 'LoadBalancer'";
    if !spec.list("loadBalancerSourceRanges").is_empty() {
        let path = path.child("LoadBalancerSourceRanges");
        if !balancer {
            errors.push(field::forbidden(&path, ONLY));
        }
        let known: Vec<&str> =
            old.map(|o| o["spec"].texts("loadBalancerSourceRanges").map(str::trim).collect()).unwrap_or_default();
        for (i, range) in spec.texts("loadBalancerSourceRanges").enumerate() {
            legacy_cidr(range.trim(), &known, &path.index(i), errors);
        }
        return;
    }
    let annotation =
        |s: &Value| s["metadata"]["annotations"].set(SOURCE_RANGES).and_then(Value::as_str).map(str::to_owned);
    let Some(text) = annotation(service) else { return };
    let path = Path::new("metadata").child("annotations").key(SOURCE_RANGES);
    if !balancer {
        errors.push(field::forbidden(&path, ONLY));
    }
    if old.and_then(annotation).as_ref() != Some(&text) && !text.trim().is_empty() {
        for range in text.trim().split(',') {
            legacy_cidr(range.trim(), &[], &path, errors);
        }
    }
}

fn load_balancer_class(spec: &Value, old: Option<&Value>, errors: &mut ErrorList) {
    let path = Path::new("spec").child("loadBalancerClass");
    let balancer = |s: &Value| s.text("type") == "LoadBalancer";
    if let Some(old) = old
        && balancer(old)
        && balancer(spec)
        && old.set("loadBalancerClass") != spec.set("loadBalancerClass")
    {
        errors.push(field::invalid(&path, &spec["loadBalancerClass"], "may not change once set"));
    }
    if let Some(class) = spec.set("loadBalancerClass").and_then(Value::as_str) {
        if balancer(spec) {
            qualified_name(class, &path, errors);
        } else {
            errors.push(field::forbidden(&path, "may only be used when `type` is 'LoadBalancer'"));
        }
    }
}

fn traffic(spec: &Value, path: &Path, errors: &mut ErrorList) {
    let at = path.child("externalTrafficPolicy");
    let policy = spec.text("externalTrafficPolicy");
    if externally_accessible(spec) {
        one_of(policy, &["Cluster", "Local"], &at, errors);
    } else if !policy.is_empty() {
        errors.push(field::invalid(&at, policy, "may only be set for externally-accessible services"));
    }
    let at = path.child("healthCheckNodePort");
    let port = spec.num("healthCheckNodePort");
    match (needs_health_check(spec), port) {
        (false, 0) => {}
        (false, port) => {
            let message = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
            errors.push(field::invalid(&at, port, message));
        }
        (true, 0) => errors.push(field::required(&at, "")),
        (true, port) => port_num(port, &at, errors),
    }
    let at = path.child("internalTrafficPolicy");
    match spec.set("internalTrafficPolicy").and_then(Value::as_str) {
        None if matches!(spec.text("type"), "NodePort" | "LoadBalancer" | "ClusterIP") => {
            errors.push(field::required(&at, ""));
        }
        Some(policy) if !["Cluster", "Local"].contains(&policy) => {
            errors.push(field::not_supported(&at, policy, &["Cluster", "Local"]));
        }
        _ => {}
    }
    const DISTRIBUTIONS: &[&str] = &["PreferClose", "PreferSameZone", "PreferSameNode"];
    let distribution = spec.set("trafficDistribution").and_then(Value::as_str);
    if let Some(given) = distribution.filter(|d| !DISTRIBUTIONS.contains(d)) {
        errors.push(field::not_supported(&path.child("trafficDistribution"), given, DISTRIBUTIONS));
    }
}

fn cluster_ips_update(new: &Value, old: &Value, errors: &mut ErrorList) {
    let external = |s: &Value| s.text("type") == "ExternalName";
    if external(new) || external(old) || (is_headless(new) && is_headless(old)) {
        return;
    }
    let path = Path::new("spec").child("clusterIPs");
    let (after, before): (Vec<&str>, Vec<&str>) =
        (new.texts("clusterIPs").collect(), old.texts("clusterIPs").collect());
    let mut wrong = |i: usize, message: &str| {
        errors.push(field::invalid(&path.index(i), shown(new, "clusterIPs"), message));
    };
    if before.len() == after.len() {
        for (i, _) in before.iter().zip(&after).enumerate().filter(|(_, (b, a))| b != a) {
            wrong(i, "may not change once set");
        }
        return;
    }
    if after.is_empty() {
        wrong(0, "primary clusterIP can not be unset");
    }
    if let (Some(b), Some(a)) = (before.first(), after.first())
        && a != b
    {
        wrong(0, "may not change once set");
    }
    if before.len() > after.len() && after.len() == 1 && new.text("ipFamilyPolicy") != "SingleStack" {
        let path = Path::new("spec").child("ipFamilyPolicy");
        let message = "must be set to 'SingleStack' when releasing the secondary clusterIP";
        errors.push(field::invalid(&path, &new["ipFamilyPolicy"], message));
    }
}

fn families_update(new: &Value, old: &Value, errors: &mut ErrorList) {
    let external = |s: &Value| s.text("type") == "ExternalName";
    if external(new) || external(old) || is_headless(new) != is_headless(old) || is_headless(new) {
        return;
    }
    let path = Path::new("spec").child("ipFamilies").index(0);
    let (after, before): (Vec<&str>, Vec<&str>) =
        (new.texts("ipFamilies").collect(), old.texts("ipFamilies").collect());
    if before.len() == after.len() {
        for _ in before.iter().zip(&after).filter(|(b, a)| b != a) {
            errors.push(field::invalid(&path, shown(new, "ipFamilies"), "may not change once set"));
        }
        return;
    }
    let changed = matches!((before.first(), after.first()), (Some(b), Some(a)) if b != a);
    if before.len() > after.len() {
        if new.list("clusterIPs").is_empty() {
            errors.push(field::invalid(&path, shown(new, "ipFamilies"), "primary ipFamily can not be unset"));
        }
        if changed {
            errors.push(field::invalid(&path, shown(new, "clusterIPs"), "may not change once set"));
        }
        if after.len() == 1 && new.text("ipFamilyPolicy") != "SingleStack" {
            let path = Path::new("spec").child("ipFamilyPolicy");
            let message = "must be set to 'SingleStack' when releasing the secondary ipFamily";
            errors.push(field::invalid(&path, &new["ipFamilyPolicy"], message));
        }
    } else if changed {
        errors.push(field::invalid(&path, shown(new, "clusterIPs"), "may not change once set"));
    }
}
