//! Where packets end, service by service. The expectations are upstream's behaviour
//! (`pkg/proxy/iptables/proxier_test.go`).

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::{Value, json};

use super::cleanup::cleanup;
use super::{IptablesBackend, Settings, chains};
use crate::backend::{Backend, Scope, View};
use crate::endpoints::{EndpointsChangeTracker, LABEL_SERVICE_NAME};
use crate::local_detector::LocalTrafficDetector;
use crate::node_port_addresses::NodePortAddresses;
use crate::objects::{EndpointSlice, Service};
use crate::services::ServiceChangeTracker;
use crate::tracer::{FakeIptables, Packet, Ruleset};
use crate::types::{EndpointsMap, IpFamily, ServicePortMap};

const NODE: &str = "192.168.0.2";
const OUTSIDE: &str = "203.0.113.1";
const POD: &str = "10.0.0.2";

struct Proxy {
    kernel: Arc<Mutex<Ruleset>>,
    backend: IptablesBackend<FakeIptables>,
    services: ServiceChangeTracker,
    endpoints: EndpointsChangeTracker,
    service_map: ServicePortMap,
    endpoints_map: EndpointsMap,
    zone: String,
}

fn settings(family: IpFamily) -> Settings {
    Settings {
        family,
        masquerade_all: false,
        masquerade_mark: 1 << 14,
        localhost_node_ports: family == IpFamily::V4,
        local_detector: LocalTrafficDetector::Cidr(
            if family == IpFamily::V4 { "10.0.0.0/8" } else { "fd00:10::/64" }.parse().unwrap(),
        ),
        node_port_addresses: NodePortAddresses::new(family, &[]),
        node_addresses: vec![NODE.parse().unwrap(), "127.0.0.1".parse().unwrap()],
        node_name: "node".to_owned(),
        node_ip: Some(NODE.parse().unwrap()),
        conntrack_tcp_liberal: false,
        random_fully: true,
    }
}

impl Proxy {
    fn new() -> Self {
        Self::with(settings(IpFamily::V4))
    }

    fn with(settings: Settings) -> Self {
        let kernel = Arc::new(Mutex::new(Ruleset::new(&[NODE, "fd00::2"])));
        Self {
            services: ServiceChangeTracker::new(settings.family),
            endpoints: EndpointsChangeTracker::new(settings.family, "node"),
            backend: IptablesBackend::new(FakeIptables(kernel.clone()), settings),
            kernel,
            service_map: ServicePortMap::new(),
            endpoints_map: EndpointsMap::new(),
            zone: String::new(),
        }
    }

    /// A service `ns/name` given by its spec; `status` may hold ingress addresses.
    fn service(&mut self, name: &str, spec: Value, ingress: &[&str]) -> &mut Self {
        let ingress: Vec<Value> = ingress.iter().map(|ip| json!({"ip": ip})).collect();
        let service: Service = serde_json::from_value(json!({
            "metadata": {"namespace": "ns", "name": name}, "spec": spec,
            "status": {"loadBalancer": {"ingress": ingress}}}))
        .unwrap();
        self.services.update(None, Some(&service));
        self
    }

    fn remove_service(&mut self, name: &str) -> &mut Self {
        let old: Vec<_> = self.service_map.keys().filter(|k| k.service.name == name).cloned().collect();
        let port = &self.service_map[&old[0]];
        let service: Service = serde_json::from_value(json!({
            "metadata": {"namespace": "ns", "name": name},
            "spec": {"type": "ClusterIP", "clusterIP": port.cluster_ip.to_string(),
                "ports": old.iter().map(|o| json!({"name": o.port, "port": self.service_map[o].port})).collect::<Vec<_>>()}}))
        .unwrap();
        self.services.update(Some(&service), None);
        self
    }

    fn endpoints(&mut self, service: &str, endpoints: Value) -> &mut Self {
        self.slice(service, endpoints, json!([{"name": "p80", "port": 80, "protocol": "TCP"}]))
    }

    fn slice(&mut self, service: &str, endpoints: Value, ports: Value) -> &mut Self {
        let slice: EndpointSlice = serde_json::from_value(json!({
            "metadata": {"namespace": "ns", "name": format!("{service}-1"), "labels": {LABEL_SERVICE_NAME: service}},
            "addressType": "IPv4", "endpoints": endpoints, "ports": ports}))
        .unwrap();
        self.endpoints.update(&Arc::new(slice), false);
        self
    }

    fn sync(&mut self, full: bool) -> &mut Self {
        let mut changed = self.services.apply(&mut self.service_map);
        changed.extend(self.endpoints.apply(&mut self.endpoints_map).updated);
        let view = View { services: &self.service_map, endpoints: &self.endpoints_map, zone: &self.zone };
        let scope = if full { Scope::Full } else { Scope::Changed(&changed) };
        self.backend.sync(view, scope).expect("sync");
        self
    }

    fn trace(&self, source: &str, destination: &str, port: u16) -> BTreeSet<String> {
        self.trace_protocol("tcp", source, destination, port)
    }

    fn trace_protocol(&self, protocol: &'static str, source: &str, destination: &str, port: u16) -> BTreeSet<String> {
        let ruleset = self.kernel.lock();
        let source = source.parse().unwrap();
        ruleset.trace(&Packet {
            protocol,
            source,
            destination: destination.parse().unwrap(),
            port,
            from_host: ruleset.local_addresses.contains(&source) || source.is_loopback(),
        })
    }

    #[track_caller]
    fn check(&self, source: &str, destination: &str, port: u16, expected: &[&str]) {
        let expected: BTreeSet<String> = expected.iter().map(ToString::to_string).collect();
        assert_eq!(self.trace(source, destination, port), expected, "{source} → {destination}:{port}");
    }
}

fn cluster_ip(ip: &str) -> Value {
    json!({"type": "ClusterIP", "clusterIP": ip, "clusterIPs": [ip],
           "ports": [{"name": "p80", "port": 80, "protocol": "TCP"}]})
}

fn ready(addresses: &[&str]) -> Value {
    addresses.iter().map(|a| json!({"addresses": [a]})).collect()
}

fn on(node: &str, address: &str) -> Value {
    json!({"addresses": [address], "nodeName": node})
}

fn load_balancer(extra: Value) -> Value {
    let mut spec = json!({"type": "LoadBalancer", "clusterIP": "172.30.0.41", "clusterIPs": ["172.30.0.41"],
        "ports": [{"name": "p80", "port": 80, "nodePort": 3001, "protocol": "TCP"}]});
    spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    spec
}

#[test]
fn cluster_ip_spreads_over_all_endpoints() {
    let mut p = Proxy::new();
    p.service("a", cluster_ip("172.30.0.41"), &[])
        .endpoints("a", ready(&["10.180.0.1", "10.180.0.2", "10.180.0.3"]))
        .sync(true);
    let all = ["10.180.0.1:80", "10.180.0.2:80", "10.180.0.3:80"];
    p.check(POD, "172.30.0.41", 80, &all);
    // from the node and from outside the answer must come back through us
    let masq = ["10.180.0.1:80 masq", "10.180.0.2:80 masq", "10.180.0.3:80 masq"];
    p.check(NODE, "172.30.0.41", 80, &masq);
    p.check(OUTSIDE, "172.30.0.41", 80, &masq);
    // an endpoint reaching itself is masqueraded, reaching others it is not
    p.check("10.180.0.1", "172.30.0.41", 80, &["10.180.0.1:80 masq", "10.180.0.2:80", "10.180.0.3:80"]);
    // another port or address is none of our business
    p.check(POD, "172.30.0.41", 81, &["ACCEPT"]);
    p.check(POD, "172.30.0.42", 80, &["ACCEPT"]);
}

#[test]
fn probabilities_are_fair() {
    let mut p = Proxy::new();
    p.service("a", cluster_ip("172.30.0.41"), &[])
        .endpoints("a", ready(&["10.180.0.1", "10.180.0.2", "10.180.0.3"]))
        .sync(true);
    let kernel = p.kernel.lock();
    let chain = &kernel.tables["nat"][&chains::ServiceChains::new("ns/a:p80", "tcp").cluster];
    let probabilities: Vec<&str> =
        chain.iter().filter_map(|r| r.windows(2).find(|w| w[0] == "--probability").map(|w| w[1].as_str())).collect();
    assert_eq!(probabilities, ["0.3333333333", "0.5000000000"]);
}

#[test]
fn several_ports_and_protocols() {
    let mut p = Proxy::new();
    p.service(
        "a",
        json!({"type": "ClusterIP", "clusterIP": "172.30.0.41", "clusterIPs": ["172.30.0.41"], "ports": [
            {"name": "http", "port": 80, "protocol": "TCP"}, {"name": "dns", "port": 53, "protocol": "UDP"},
            {"name": "dns-tcp", "port": 53, "protocol": "TCP"}, {"name": "s", "port": 99, "protocol": "SCTP"}]}),
        &[],
    )
    .slice(
        "a",
        ready(&["10.180.0.1"]),
        json!([
        {"name": "http", "port": 8080, "protocol": "TCP"}, {"name": "dns", "port": 5353, "protocol": "UDP"},
        {"name": "dns-tcp", "port": 5354, "protocol": "TCP"}, {"name": "s", "port": 990, "protocol": "SCTP"}]),
    )
    .sync(true);
    for (protocol, port, end) in [
        ("tcp", 80, "10.180.0.1:8080"),
        ("udp", 53, "10.180.0.1:5353"),
        ("tcp", 53, "10.180.0.1:5354"),
        ("sctp", 99, "10.180.0.1:990"),
        ("udp", 80, "ACCEPT"),
    ] {
        assert_eq!(
            p.trace_protocol(protocol, POD, "172.30.0.41", port),
            BTreeSet::from([end.to_owned()]),
            "{protocol} {port}"
        );
    }
}

#[test]
fn no_endpoints_are_rejected_everywhere() {
    let mut p = Proxy::new();
    p.service("a", load_balancer(json!({"externalIPs": ["192.168.99.11"]})), &["1.2.3.4"]).sync(true);
    for destination in ["172.30.0.41", "192.168.99.11", "1.2.3.4"] {
        p.check(OUTSIDE, destination, 80, &["REJECT"]);
    }
    p.check(OUTSIDE, NODE, 3001, &["REJECT"]);
    // not ready counts as none
    p.endpoints("a", json!([{"addresses": ["10.180.0.1"], "conditions": {"ready": false}}])).sync(false);
    p.check(POD, "172.30.0.41", 80, &["REJECT"]);
    p.endpoints("a", ready(&["10.180.0.1"])).sync(false);
    p.check(POD, "172.30.0.41", 80, &["10.180.0.1:80"]);
    p.check(OUTSIDE, NODE, 3001, &["10.180.0.1:80 masq"]);
}

#[test]
fn node_ports_on_every_local_address() {
    let mut p = Proxy::new();
    p.service("a", load_balancer(json!({"type": "NodePort"})), &[]).endpoints("a", ready(&["10.180.0.1"])).sync(true);
    for (source, destination) in [(OUTSIDE, NODE), (POD, NODE), (NODE, NODE), ("127.0.0.1", "127.0.0.1")] {
        p.check(source, destination, 3001, &["10.180.0.1:80 masq"]);
    }
    p.check(OUTSIDE, "192.168.0.3", 3001, &["ACCEPT"]);
    p.check(OUTSIDE, NODE, 80, &["ACCEPT"]);
}

#[test]
fn node_port_addresses_limit_where_they_answer() {
    let mut s = settings(IpFamily::V4);
    s.node_port_addresses = NodePortAddresses::new(IpFamily::V4, &["192.168.0.0/24".parse().unwrap()]);
    s.localhost_node_ports = false;
    s.node_addresses.push("192.168.5.5".parse().unwrap());
    let mut p = Proxy::with(s);
    p.kernel.lock().local_addresses.insert("192.168.5.5".parse().unwrap());
    p.service("a", load_balancer(json!({"type": "NodePort"})), &[]).endpoints("a", ready(&["10.180.0.1"])).sync(true);
    p.check(OUTSIDE, NODE, 3001, &["10.180.0.1:80 masq"]);
    p.check(OUTSIDE, "192.168.5.5", 3001, &["ACCEPT"]);
    p.check("127.0.0.1", "127.0.0.1", 3001, &["ACCEPT"]);
}

#[test]
fn localhost_node_ports_can_be_switched_off() {
    let mut s = settings(IpFamily::V4);
    s.localhost_node_ports = false;
    let mut p = Proxy::with(s);
    p.service("a", load_balancer(json!({"type": "NodePort"})), &[]).endpoints("a", ready(&["10.180.0.1"])).sync(true);
    p.check("127.0.0.1", "127.0.0.1", 3001, &["ACCEPT"]);
    p.check(OUTSIDE, NODE, 3001, &["10.180.0.1:80 masq"]);
}

#[test]
fn external_and_load_balancer_addresses() {
    let mut p = Proxy::new();
    p.service("a", load_balancer(json!({"externalIPs": ["192.168.99.11"]})), &["1.2.3.4", "5.6.7.8"])
        .endpoints("a", ready(&["10.180.0.1"]))
        .sync(true);
    for destination in ["192.168.99.11", "1.2.3.4", "5.6.7.8"] {
        p.check(OUTSIDE, destination, 80, &["10.180.0.1:80 masq"]);
        p.check(POD, destination, 80, &["10.180.0.1:80 masq"]);
    }
}

#[test]
fn source_ranges_guard_load_balancer_addresses_only() {
    let mut p = Proxy::new();
    p.service(
        "a",
        load_balancer(json!({"loadBalancerSourceRanges": ["203.0.113.0/25", "192.168.0.0/24"]})),
        &["1.2.3.4"],
    )
    .endpoints("a", ready(&["10.180.0.1"]))
    .sync(true);
    p.check("203.0.113.1", "1.2.3.4", 80, &["10.180.0.1:80 masq"]);
    p.check("203.0.113.130", "1.2.3.4", 80, &["DROP"]);
    p.check(POD, "1.2.3.4", 80, &["DROP"]);
    p.check(NODE, "1.2.3.4", 80, &["10.180.0.1:80 masq"]);
    // the node's address is in a range, so the address itself may come back as a source
    p.check("1.2.3.4", "1.2.3.4", 80, &["10.180.0.1:80 masq"]);
    p.check("203.0.113.130", NODE, 3001, &["10.180.0.1:80 masq"]);
    p.check(POD, "172.30.0.41", 80, &["10.180.0.1:80"]);
}

#[test]
fn external_policy_local_keeps_the_source_and_the_node() {
    let spec = load_balancer(json!({"externalTrafficPolicy": "Local", "healthCheckNodePort": 30000}));
    let mut p = Proxy::new();
    p.service("a", spec, &["1.2.3.4"])
        .endpoints("a", json!([on("node", "10.180.0.1"), on("other", "10.180.1.1")]))
        .sync(true);
    for (destination, port) in [("1.2.3.4", 80), (NODE, 3001)] {
        p.check(OUTSIDE, destination, port, &["10.180.0.1:80"]);
        p.check(POD, destination, port, &["10.180.0.1:80", "10.180.1.1:80"]);
        p.check(NODE, destination, port, &["10.180.0.1:80 masq", "10.180.1.1:80 masq"]);
    }
    p.check(POD, "172.30.0.41", 80, &["10.180.0.1:80", "10.180.1.1:80"]);
    // no local endpoint any more: outside traffic is dropped, inside traffic goes on
    p.endpoints("a", json!([on("other", "10.180.1.1")])).sync(false);
    for (destination, port) in [("1.2.3.4", 80), (NODE, 3001)] {
        p.check(OUTSIDE, destination, port, &["DROP"]);
        p.check(POD, destination, port, &["10.180.1.1:80"]);
    }
}

#[test]
fn internal_policy_local_drops_without_a_local_endpoint() {
    let mut spec = cluster_ip("172.30.0.41");
    spec["internalTrafficPolicy"] = json!("Local");
    let mut p = Proxy::new();
    p.service("a", spec, &[]).endpoints("a", json!([on("node", "10.180.0.1"), on("other", "10.180.1.1")])).sync(true);
    p.check(POD, "172.30.0.41", 80, &["10.180.0.1:80"]);
    p.endpoints("a", json!([on("other", "10.180.1.1")])).sync(false);
    p.check(POD, "172.30.0.41", 80, &["DROP"]);
    p.endpoints("a", json!([])).sync(false);
    p.check(POD, "172.30.0.41", 80, &["REJECT"]);
}

#[test]
fn terminating_endpoints_serve_until_others_are_ready() {
    let draining =
        json!({"addresses": ["10.180.0.1"], "conditions": {"ready": false, "serving": true, "terminating": true}});
    let mut p = Proxy::new();
    p.service("a", cluster_ip("172.30.0.41"), &[]).endpoints("a", json!([draining])).sync(true);
    p.check(POD, "172.30.0.41", 80, &["10.180.0.1:80"]);
    p.endpoints("a", json!([draining, {"addresses": ["10.180.0.2"]}])).sync(false);
    p.check(POD, "172.30.0.41", 80, &["10.180.0.2:80"]);
}

#[test]
fn topology_hints_keep_traffic_in_the_zone() {
    let hinted = |ip: &str, zone: &str| json!({"addresses": [ip], "hints": {"forZones": [{"name": zone}]}});
    let mut p = Proxy::new();
    p.zone = "z1".to_owned();
    p.service("a", cluster_ip("172.30.0.41"), &[])
        .endpoints("a", json!([hinted("10.180.0.1", "z1"), hinted("10.180.0.2", "z2")]))
        .sync(true);
    p.check(POD, "172.30.0.41", 80, &["10.180.0.1:80"]);
    p.zone = "z3".to_owned();
    p.sync(true);
    p.check(POD, "172.30.0.41", 80, &["10.180.0.1:80", "10.180.0.2:80"]);
}

#[test]
fn session_affinity_remembers_before_it_spreads() {
    let mut spec = cluster_ip("172.30.0.41");
    spec["sessionAffinity"] = json!("ClientIP");
    spec["sessionAffinityConfig"] = json!({"clientIP": {"timeoutSeconds": 77}});
    let mut p = Proxy::new();
    p.service("a", spec, &[]).endpoints("a", ready(&["10.180.0.1", "10.180.0.2"])).sync(true);
    p.check(POD, "172.30.0.41", 80, &["10.180.0.1:80", "10.180.0.2:80"]);
    let kernel = p.kernel.lock();
    let nat = &kernel.tables["nat"];
    let rules: Vec<String> =
        nat[&chains::ServiceChains::new("ns/a:p80", "tcp").cluster].iter().map(|r| r.join(" ")).collect();
    let remembered: Vec<usize> =
        (0..rules.len()).filter(|i| rules[*i].contains("--rcheck --seconds 77 --reap")).collect();
    let spread: Vec<usize> =
        (0..rules.len()).filter(|i| rules[*i].contains("-> 10.180") && !rules[*i].contains("--rcheck")).collect();
    assert_eq!((remembered.len(), spread.len()), (2, 2));
    assert!(remembered.iter().max() < spread.iter().min());
    let sets = nat.values().flatten().filter(|r| r.contains(&"--set".to_owned())).count();
    assert_eq!(sets, 2);
}

#[test]
fn masquerade_all() {
    let mut s = settings(IpFamily::V4);
    s.masquerade_all = true;
    let mut p = Proxy::with(s);
    p.service("a", cluster_ip("172.30.0.41"), &[]).endpoints("a", ready(&["10.180.0.1"])).sync(true);
    p.check(POD, "172.30.0.41", 80, &["10.180.0.1:80 masq"]);
}

#[test]
fn ipv6() {
    let mut p = Proxy::with(settings(IpFamily::V6));
    p.service(
        "a",
        load_balancer(json!({"clusterIP": "fd00:172:30::41", "clusterIPs": ["fd00:172:30::41"]})),
        &["2001:db8::1"],
    );
    let slice: EndpointSlice = serde_json::from_value(json!({
        "metadata": {"namespace": "ns", "name": "a-1", "labels": {LABEL_SERVICE_NAME: "a"}},
        "addressType": "IPv6", "endpoints": ready(&["fd00:10::5"]), "ports": [{"name": "p80", "port": 80}]}))
    .unwrap();
    p.endpoints.update(&Arc::new(slice), false);
    p.sync(true);
    p.check("fd00:10::9", "fd00:172:30::41", 80, &["[fd00:10::5]:80"]);
    p.check("2001:db8:1::9", "2001:db8::1", 80, &["[fd00:10::5]:80 masq"]);
    p.check("2001:db8:1::9", "fd00::2", 3001, &["[fd00:10::5]:80 masq"]);
    // node ports never answer on ::1
    p.check("::1", "::1", 3001, &["ACCEPT"]);
}

#[test]
fn foreign_traffic_to_loopback_is_blocked() {
    let mut p = Proxy::new();
    p.sync(true);
    p.check(OUTSIDE, NODE, 22, &["ACCEPT"]);
    let mut ruleset = p.kernel.lock().clone();
    ruleset.local_addresses.insert("127.0.0.1".parse().unwrap());
    let packet = Packet {
        protocol: "tcp",
        source: OUTSIDE.parse().unwrap(),
        destination: "127.0.0.1".parse().unwrap(),
        port: 22,
        from_host: false,
    };
    assert_eq!(ruleset.trace(&packet), BTreeSet::from(["DROP".to_owned()]));
}

/// However the state came about, partial syncs must leave what one full sync leaves.
#[test]
fn partial_syncs_equal_a_full_one() {
    let mut p = Proxy::new();
    p.sync(true);
    p.service("a", cluster_ip("172.30.0.41"), &[]).sync(false);
    p.service("b", load_balancer(json!({"clusterIP": "172.30.0.42", "clusterIPs": ["172.30.0.42"]})), &["1.2.3.4"])
        .sync(false);
    p.endpoints("a", ready(&["10.180.0.1", "10.180.0.2"])).sync(false);
    p.endpoints("b", ready(&["10.180.0.3"])).sync(false);
    p.endpoints("a", ready(&["10.180.0.2", "10.180.0.4"])).sync(false);
    p.service("c", cluster_ip("172.30.0.43"), &[]).endpoints("c", ready(&["10.180.0.9"])).sync(false);
    p.remove_service("c").sync(false);
    let partial = p.kernel.lock().clone();
    p.sync(true);
    assert_eq!(partial, *p.kernel.lock());
    p.check(POD, "172.30.0.43", 80, &["ACCEPT"]);

    let mut fresh = Proxy::new();
    fresh
        .service("a", cluster_ip("172.30.0.41"), &[])
        .service("b", load_balancer(json!({"clusterIP": "172.30.0.42", "clusterIPs": ["172.30.0.42"]})), &["1.2.3.4"])
        .endpoints("a", ready(&["10.180.0.2", "10.180.0.4"]))
        .endpoints("b", ready(&["10.180.0.3"]))
        .sync(true);
    assert_eq!(partial, *fresh.kernel.lock());
}

#[test]
fn a_partial_sync_writes_only_what_changed() {
    let mut p = Proxy::new();
    p.service("a", cluster_ip("172.30.0.41"), &[]).endpoints("a", ready(&["10.180.0.1"]));
    p.service("b", cluster_ip("172.30.0.42"), &[]).endpoints("b", ready(&["10.180.0.2"]));
    p.sync(true);
    p.endpoints("b", ready(&["10.180.0.3"]));
    let mut changed = p.services.apply(&mut p.service_map);
    changed.extend(p.endpoints.apply(&mut p.endpoints_map).updated);
    let view = View { services: &p.service_map, endpoints: &p.endpoints_map, zone: "" };
    let generated = super::rules::generate(&p.backend.settings, view, Scope::Changed(&changed));
    let text = p.backend.restore_text(&generated, Scope::Changed(&changed)).unwrap();
    assert!(!text.contains("10.180.0.1"), "{text}");
    assert!(text.contains("10.180.0.3:80"), "{text}");
    assert!(text.contains("-X KUBE-SEP-"), "{text}");
}

#[test]
fn a_restarted_proxy_removes_what_went_away_meanwhile() {
    let mut old = Proxy::new();
    old.service("gone", cluster_ip("172.30.0.50"), &[]).endpoints("gone", ready(&["10.180.0.8"])).sync(true);
    let mut new = Proxy::new();
    new.kernel = old.kernel.clone();
    new.backend = IptablesBackend::new(FakeIptables(old.kernel.clone()), settings(IpFamily::V4));
    new.service("a", cluster_ip("172.30.0.41"), &[]).endpoints("a", ready(&["10.180.0.1"])).sync(true);
    let kernel = new.kernel.lock();
    assert!(!kernel.save("nat").contains("10.180.0.8"));
    assert_eq!(kernel.tables["nat"].keys().filter(|c| c.starts_with("KUBE-SEP-")).count(), 1);
    // the jumps are not doubled
    let jumps = kernel.tables["filter"]["INPUT"].len();
    assert_eq!(jumps, 4);
}

#[test]
fn jumps_are_in_upstreams_order() {
    let mut p = Proxy::new();
    p.sync(true);
    let kernel = p.kernel.lock();
    let targets = |table: &str, chain: &str| {
        kernel.tables[table][chain].iter().map(|r| r.last().unwrap().clone()).collect::<Vec<_>>()
    };
    assert_eq!(
        targets("filter", "INPUT"),
        ["KUBE-FIREWALL", "KUBE-PROXY-FIREWALL", "KUBE-NODEPORTS", "KUBE-EXTERNAL-SERVICES"]
    );
    assert_eq!(
        targets("filter", "FORWARD"),
        ["KUBE-PROXY-FIREWALL", "KUBE-FORWARD", "KUBE-SERVICES", "KUBE-EXTERNAL-SERVICES"]
    );
    assert_eq!(targets("filter", "OUTPUT"), ["KUBE-FIREWALL", "KUBE-PROXY-FIREWALL", "KUBE-SERVICES"]);
    assert_eq!(targets("nat", "PREROUTING"), ["KUBE-SERVICES"]);
}

#[test]
fn a_flushed_table_is_noticed() {
    let mut p = Proxy::new();
    p.sync(true);
    assert!(!p.backend.damaged());
    p.kernel.lock().tables.get_mut("nat").unwrap().remove(chains::KUBE_PROXY_CANARY);
    assert!(p.backend.damaged());
    p.sync(true);
    assert!(!p.backend.damaged());
}

#[test]
fn cleanup_leaves_nothing_of_ours() {
    let mut p = Proxy::new();
    let before = p.kernel.lock().clone();
    p.kernel.lock().restore("*filter\n:DOCKER - [0:0]\n-A INPUT -j DOCKER\n-A DOCKER -j ACCEPT\nCOMMIT\n").unwrap();
    let foreign = p.kernel.lock().clone();
    assert_ne!(before, foreign);
    p.service("b", load_balancer(json!({"loadBalancerSourceRanges": ["10.0.0.0/24"]})), &["1.2.3.4"])
        .endpoints("b", ready(&["10.180.0.3"]))
        .sync(true);
    cleanup(&FakeIptables(p.kernel.clone())).expect("cleanup");
    assert_eq!(*p.kernel.lock(), foreign);
    // twice is fine
    cleanup(&FakeIptables(p.kernel.clone())).expect("cleanup");
    // the chain shared with a kubelet stays
    p.sync(true);
    p.kernel.lock().restore("*mangle\n:KUBE-KUBELET-CANARY - [0:0]\nCOMMIT\n").unwrap();
    cleanup(&FakeIptables(p.kernel.clone())).expect("cleanup");
    assert!(p.kernel.lock().tables["filter"].contains_key(chains::KUBE_FIREWALL));
}

#[test]
fn large_clusters_drop_comments_but_not_rules() {
    let mut p = Proxy::new();
    let many: Vec<String> = (0..1100).map(|i| format!("10.180.{}.{}", i / 250, i % 250 + 1)).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    p.service("a", cluster_ip("172.30.0.41"), &[]).endpoints("a", ready(&many)).sync(true);
    assert!(!p.kernel.lock().save("nat").contains("->"));
    assert_eq!(p.trace(POD, "172.30.0.41", 80).len(), 1100);
}
