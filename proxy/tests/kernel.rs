//! The iptables backend against the real kernel, in a network namespace of its own: real
//! connections to service addresses must reach real listeners.
//!
//! Needs root and iptables; prints one line and passes where either is missing.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use proxy::backend::iptables::command::{Flavour, Iptables, Programs};
use proxy::backend::iptables::{IptablesBackend, Settings, cleanup};
use proxy::backend::{Backend, Scope, View};
use proxy::endpoints::{EndpointsChangeTracker, LABEL_SERVICE_NAME};
use proxy::local_detector::LocalTrafficDetector;
use proxy::node_port_addresses::NodePortAddresses;
use proxy::objects::{EndpointSlice, Service};
use proxy::services::ServiceChangeTracker;
use proxy::types::{EndpointsMap, IpFamily, ServicePortMap};
use serde_json::{Value, json};

/// A network namespace that goes away with the test.
struct Namespace(String);

impl Namespace {
    fn new() -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            println!("skipped: needs root");
            return None;
        }
        let name = format!("sp-kernel-{}", std::process::id());
        match Command::new("ip").args(["netns", "add", &name]).status() {
            Ok(status) if status.success() => Some(Self(name)),
            _ => {
                println!("skipped: cannot make a network namespace");
                None
            }
        }
    }

    /// Moves this thread, and what it starts from now on, into the namespace.
    fn enter(&self) {
        let file = File::open(format!("/run/netns/{}", self.0)).expect("it was just made");
        setns(file, CloneFlags::CLONE_NEWNET).expect("root may enter it");
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().expect("ip runs");
    assert!(status.success(), "ip {arguments}");
}

/// Answers every connection with its own address.
fn listen(address: &str) {
    let listener = TcpListener::bind(address).expect("the address is ours");
    let name = address.to_owned();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.write_all(name.as_bytes());
        }
    });
}

/// Who answers at `address`.
fn ask(address: &str) -> Result<String, ErrorKind> {
    let address = address.parse().expect("an address");
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(3)).map_err(|e| e.kind())?;
    let mut text = String::new();
    stream.read_to_string(&mut text).map_err(|e| e.kind())?;
    Ok(text)
}

fn ask_often(address: &str) -> BTreeSet<String> {
    (0..40).map(|_| ask(address).unwrap_or_else(|error| panic!("{address}: {error}"))).collect()
}

struct Proxy {
    backend: IptablesBackend<Programs>,
    services: ServiceChangeTracker,
    endpoints: EndpointsChangeTracker,
    service_map: ServicePortMap,
    endpoints_map: EndpointsMap,
}

impl Proxy {
    fn service(&mut self, name: &str, spec: Value) {
        let service: Service = serde_json::from_value(json!({
            "metadata": {"namespace": "ns", "name": name}, "spec": spec}))
        .expect("a service");
        self.services.update(None, Some(&service));
    }

    fn endpoints(&mut self, service: &str, addresses: &[&str]) {
        let endpoints: Vec<Value> = addresses.iter().map(|a| json!({"addresses": [a]})).collect();
        let slice: EndpointSlice = serde_json::from_value(json!({
            "metadata": {"namespace": "ns", "name": service, "labels": {LABEL_SERVICE_NAME: service}},
            "addressType": "IPv4", "endpoints": endpoints, "ports": [{"name": "p", "port": 8080}]}))
        .expect("a slice");
        self.endpoints.update(&Arc::new(slice), false);
    }

    fn sync(&mut self, full: bool) {
        let mut changed = self.services.apply(&mut self.service_map);
        changed.extend(self.endpoints.apply(&mut self.endpoints_map).updated);
        let view = View { services: &self.service_map, endpoints: &self.endpoints_map, zone: "" };
        let scope = if full { Scope::Full } else { Scope::Changed(&changed) };
        self.backend.sync(view, scope).expect("the kernel takes the rules");
    }
}

fn cluster_ip(ip: &str, extra: Value) -> Value {
    let mut spec = json!({"type": "NodePort", "clusterIP": ip, "clusterIPs": [ip],
        "ports": [{"name": "p", "port": 80}]});
    spec.as_object_mut().expect("an object").extend(extra.as_object().expect("an object").clone());
    spec
}

#[test]
fn connections_reach_endpoints() {
    let Some(namespace) = Namespace::new() else { return };
    // On a thread of its own, because entering a namespace is for good.
    let result = std::thread::scope(|scope| {
        scope
            .spawn(|| {
                namespace.enter();
                run();
            })
            .join()
    });
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}

fn run() {
    let programs = Programs::new(IpFamily::V4, Flavour::Default);
    if let Err(error) = programs.present() {
        println!("skipped: needs iptables ({error})");
        return;
    }
    for arguments in [
        "link set lo up",
        "addr add 10.180.0.1/32 dev lo",
        "addr add 10.180.0.2/32 dev lo",
        "link add eth0 type veth peer name peer0",
        "link set peer0 up",
        "link set eth0 up",
        "addr add 192.168.0.2/24 dev eth0",
        "route add default via 192.168.0.1",
    ] {
        ip(arguments);
    }
    listen("10.180.0.1:8080");
    listen("10.180.0.2:8080");
    let before = programs.save("nat").expect("saves");

    let settings = Settings {
        family: IpFamily::V4,
        masquerade_all: false,
        masquerade_mark: 1 << 14,
        localhost_node_ports: true,
        local_detector: LocalTrafficDetector::Cidr("10.180.0.0/16".parse().expect("a range")),
        node_port_addresses: NodePortAddresses::new(IpFamily::V4, &[]),
        node_addresses: vec![],
        node_name: "node".to_owned(),
        node_ip: "192.168.0.2".parse().ok(),
        conntrack_tcp_liberal: false,
        random_fully: programs.has_random_fully(),
    };
    let mut proxy = Proxy {
        backend: IptablesBackend::new(programs.clone(), settings),
        services: ServiceChangeTracker::new(IpFamily::V4),
        endpoints: EndpointsChangeTracker::new(IpFamily::V4, "node"),
        service_map: ServicePortMap::new(),
        endpoints_map: EndpointsMap::new(),
    };
    let both = BTreeSet::from(["10.180.0.1:8080".to_owned(), "10.180.0.2:8080".to_owned()]);

    // cluster address and node port
    proxy.service("a", cluster_ip("172.30.0.41", json!({"ports": [{"name": "p", "port": 80, "nodePort": 30080}]})));
    proxy.endpoints("a", &["10.180.0.1", "10.180.0.2"]);
    proxy.sync(true);
    assert_eq!(ask_often("172.30.0.41:80"), both);
    assert_eq!(ask_often("192.168.0.2:30080"), both);

    // an endpoint leaves, then the last: refused at once
    proxy.endpoints("a", &["10.180.0.2"]);
    proxy.sync(false);
    assert_eq!(ask_often("172.30.0.41:80"), BTreeSet::from(["10.180.0.2:8080".to_owned()]));
    proxy.endpoints("a", &[]);
    proxy.sync(false);
    assert_eq!(ask("172.30.0.41:80"), Err(ErrorKind::ConnectionRefused));
    assert_eq!(ask("192.168.0.2:30080"), Err(ErrorKind::ConnectionRefused));

    // a client keeps its endpoint under session affinity
    proxy.service("sticky", cluster_ip("172.30.0.42", json!({"sessionAffinity": "ClientIP"})));
    proxy.endpoints("sticky", &["10.180.0.1", "10.180.0.2"]);
    proxy.sync(false);
    assert_eq!(ask_often("172.30.0.42:80").len(), 1);

    // somebody flushes; the next full sync repairs
    assert!(!proxy.backend.damaged());
    for table in ["nat", "filter", "mangle"] {
        for action in ["-F", "-X"] {
            let status = Command::new("iptables").args(["-t", table, action]).status().expect("iptables runs");
            assert!(status.success());
        }
    }
    assert!(proxy.backend.damaged());
    proxy.sync(true);
    assert!(!proxy.backend.damaged());
    assert_eq!(ask_often("172.30.0.42:80").len(), 1);

    // a second full sync changes nothing but counters
    let rules = |text: String| -> Vec<String> {
        text.lines().filter(|line| line.starts_with('-')).map(str::to_owned).collect()
    };
    let first = rules(programs.save("nat").expect("saves"));
    proxy.sync(true);
    assert_eq!(first, rules(programs.save("nat").expect("saves")));

    cleanup::cleanup(&programs).expect("cleans up");
    for table in ["nat", "filter", "mangle"] {
        assert!(!programs.save(table).expect("saves").contains("KUBE-"), "{table}");
    }
    assert_eq!(rules(before), rules(programs.save("nat").expect("saves")));
}
