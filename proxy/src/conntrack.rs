//! Forgets UDP flows whose endpoint is gone.
//!
//! A UDP flow has no end, so the kernel keeps translating a client's packets to an endpoint that no
//! longer exists for as long as the client keeps sending. After endpoints of a UDP port changed, the
//! flows to that service which do not lead to a serving endpoint are deleted; then the client's next
//! packet meets the rules again. Runs the `conntrack` program.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};

use crate::backend::Error;
use crate::backend::iptables::command::run;
use crate::types::{EndpointsMap, IpFamily, Protocol, ServicePortMap};

/// A tracked flow: what the client sent, and who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Flow {
    /// Client.
    pub source: SocketAddr,
    /// Where the client sent to.
    pub destination: SocketAddr,
    /// Who answers: the endpoint.
    pub reply_source: SocketAddr,
}

/// Reads the lines of `conntrack -L`.
pub fn parse(text: &str) -> Vec<Flow> {
    text.lines().filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<Flow> {
    // src, dst, sport and dport come twice: the original direction, then the reply's.
    let values = |key: &str| -> Vec<&str> {
        line.split_whitespace().filter_map(|word| word.strip_prefix(key)?.strip_prefix('=')).collect()
    };
    let address = |ips: &[&str], ports: &[&str], at: usize| -> Option<SocketAddr> {
        Some(SocketAddr::new(ips.get(at)?.parse::<IpAddr>().ok()?, ports.get(at)?.parse().ok()?))
    };
    let (src, dst, sport, dport) = (values("src"), values("dst"), values("sport"), values("dport"));
    Some(Flow {
        source: address(&src, &sport, 0)?,
        destination: address(&dst, &dport, 0)?,
        reply_source: address(&src, &sport, 1)?,
    })
}

/// Those of `flows` that go to a UDP service, but not to one of its serving endpoints. A service
/// without serving endpoints is left alone: new packets would fare no better.
pub fn stale(flows: &[Flow], services: &ServicePortMap, endpoints: &EndpointsMap) -> Vec<Flow> {
    let mut by_address: HashMap<SocketAddr, HashSet<SocketAddr>> = HashMap::new();
    let mut by_node_port: HashMap<u16, HashSet<SocketAddr>> = HashMap::new();
    for (name, port) in services {
        if port.protocol != Protocol::Udp {
            continue;
        }
        let serving: HashSet<SocketAddr> = endpoints
            .get(name)
            .into_iter()
            .flatten()
            .filter(|e| e.serving)
            .map(|e| SocketAddr::new(e.ip, e.port))
            .collect();
        if serving.is_empty() {
            continue;
        }
        for ip in std::iter::once(&port.cluster_ip).chain(&port.load_balancer_vips).chain(&port.external_ips) {
            by_address.insert(SocketAddr::new(*ip, port.port), serving.clone());
        }
        if port.node_port != 0 {
            by_node_port.insert(port.node_port, serving);
        }
    }
    flows
        .iter()
        .filter(|flow| {
            let leads_elsewhere =
                |serving: Option<&HashSet<SocketAddr>>| serving.is_some_and(|s| !s.contains(&flow.reply_source));
            leads_elsewhere(by_address.get(&flow.destination))
                || leads_elsewhere(by_node_port.get(&flow.destination.port()))
        })
        .copied()
        .collect()
}

/// Deletes the stale flows of one family; returns how many.
pub fn clean(family: IpFamily, services: &ServicePortMap, endpoints: &EndpointsMap) -> Result<usize, Error> {
    if !services.values().any(|port| port.protocol == Protocol::Udp) {
        return Ok(0);
    }
    let family = match family {
        IpFamily::V4 => "ipv4",
        IpFamily::V6 => "ipv6",
    };
    let listed = run("conntrack", &["-L", "-p", "udp", "-f", family], None)?;
    let stale = stale(&parse(&listed), services, endpoints);
    for flow in &stale {
        let result = run(
            "conntrack",
            &[
                "-D",
                "-p",
                "udp",
                "-f",
                family,
                "--orig-src",
                &flow.source.ip().to_string(),
                "--orig-dst",
                &flow.destination.ip().to_string(),
                "--orig-port-src",
                &flow.source.port().to_string(),
                "--orig-port-dst",
                &flow.destination.port().to_string(),
            ],
            None,
        );
        match result {
            // It may have ended by itself between the two calls.
            Err(Error::Failed { message, .. }) if message.contains("0 flow entries") => {}
            other => {
                other?;
            }
        }
    }
    Ok(stale.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Endpoint, NamespacedName, ServicePort, ServicePortName};

    const LINES: &str = "\
udp      17 29 src=10.0.0.9 dst=172.30.0.10 sport=4000 dport=53 [UNREPLIED] src=10.180.0.1 dst=10.0.0.9 sport=5353 dport=4000 mark=0 use=1
udp      17 100 src=10.0.0.9 dst=172.30.0.10 sport=4001 dport=53 src=10.180.0.2 dst=10.0.0.9 sport=5353 dport=4001 [ASSURED] mark=0 use=1
udp      17 29 src=10.0.0.9 dst=8.8.8.8 sport=4002 dport=53 src=8.8.8.8 dst=10.0.0.9 sport=53 dport=4002 mark=0 use=1
udp      17 29 src=10.0.0.9 dst=192.168.0.2 sport=4003 dport=30053 src=10.180.0.1 dst=10.0.0.9 sport=5353 dport=4003 mark=0 use=1
udp      17 29 src=fd00::9 dst=fd00::10 sport=1 dport=2 src=fd00::1 dst=fd00::9 sport=3 dport=1 mark=0 use=1
conntrack v1.4.7 (conntrack-tools): 5 flow entries have been shown.
";

    #[test]
    fn deletes_only_flows_to_endpoints_that_are_gone() {
        let name = ServicePortName {
            service: NamespacedName { namespace: "kube-system".into(), name: "dns".into() },
            port: "dns".into(),
            protocol: Protocol::Udp,
        };
        let port = ServicePort {
            cluster_ip: "172.30.0.10".parse().unwrap(),
            port: 53,
            protocol: Protocol::Udp,
            node_port: 30053,
            external_ips: vec![],
            load_balancer_vips: vec![],
            load_balancer_source_ranges: vec![],
            sticky_seconds: None,
            external_policy_local: false,
            internal_policy_local: false,
            health_check_node_port: 0,
        };
        let endpoint = |ip: &str, serving| Endpoint {
            ip: ip.parse().unwrap(),
            port: 5353,
            is_local: false,
            ready: serving,
            serving,
            terminating: !serving,
            zone_hints: Default::default(),
            node_hints: Default::default(),
        };
        let flows = parse(LINES);
        assert_eq!(flows.len(), 5);
        let services = ServicePortMap::from([(name.clone(), port)]);
        let ports = |endpoints: Vec<Endpoint>| {
            let endpoints = EndpointsMap::from([(name.clone(), endpoints)]);
            stale(&flows, &services, &endpoints).iter().map(|f| f.source.port()).collect::<Vec<_>>()
        };
        assert_eq!(ports(vec![endpoint("10.180.0.2", true)]), [4000, 4003]);
        assert_eq!(ports(vec![endpoint("10.180.0.1", false), endpoint("10.180.0.2", true)]), [4000, 4003]);
        assert_eq!(ports(vec![endpoint("10.180.0.1", true), endpoint("10.180.0.2", true)]), Vec::<u16>::new());
        assert_eq!(ports(vec![]), Vec::<u16>::new());
    }
}
