//! Names and resolvers of pods: host name, `/etc/hosts`, `resolv.conf`. Pure but for reading the
//! node's own files.

use k8s_openapi::api::core::v1::{HostAlias, Pod};
use proto::cri::DnsConfig;

use crate::pod::PodExt;

/// What the node's configuration says about DNS.
#[derive(Clone, Debug, Default)]
pub struct DnsSettings {
    /// Addresses of the cluster's DNS service.
    pub cluster_dns: Vec<String>,
    /// `cluster.local`.
    pub cluster_domain: String,
    /// The resolver file for pods that use the node's; empty means none.
    pub resolv_conf: String,
}

const MAX_SERVERS: usize = 3;
const MAX_SEARCHES: usize = 32;
const MAX_SEARCH_CHARS: usize = 2048;

/// Host name and domain of a pod.
pub fn hostname_and_domain(pod: &Pod, cluster_domain: &str) -> (String, String) {
    let spec = pod.pod_spec();
    if let Some(name) = &spec.hostname_override {
        return (truncate(name), String::new());
    }
    let name = spec.hostname.as_deref().filter(|h| !h.is_empty()).unwrap_or_else(|| pod.pod_name());
    let domain = match spec.subdomain.as_deref().filter(|s| !s.is_empty()) {
        Some(subdomain) => format!("{subdomain}.{}.svc.{cluster_domain}", pod.pod_namespace()),
        None => String::new(),
    };
    (truncate(name), domain)
}

/// The name the kernel gets: the full one where asked for.
pub fn kernel_hostname(pod: &Pod, cluster_domain: &str) -> String {
    let (name, domain) = hostname_and_domain(pod, cluster_domain);
    if pod.pod_spec().set_hostname_as_fqdn == Some(true) && !domain.is_empty() {
        return format!("{name}.{domain}");
    }
    name
}

/// Host names hold 63 characters and end in neither `-` nor `.`.
fn truncate(name: &str) -> String {
    match name.get(..63) {
        Some(head) if name.len() > 63 => head.trim_end_matches(['-', '.']).to_owned(),
        _ => name.to_owned(),
    }
}

/// `/etc/hosts` of a pod with its own network.
pub fn managed_hosts(ips: &[String], name: &str, domain: &str, aliases: &[HostAlias]) -> String {
    let mut out = String::from(
        "# Kubernetes-managed hosts file.\n\
         127.0.0.1\tlocalhost\n\
         ::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::0\tip6-localnet\n\
         fe00::0\tip6-mcastprefix\n\
         fe00::1\tip6-allnodes\n\
         fe00::2\tip6-allrouters\n",
    );
    for ip in ips {
        if domain.is_empty() {
            out.push_str(&format!("{ip}\t{name}\n"));
        } else {
            out.push_str(&format!("{ip}\t{name}.{domain}\t{name}\n"));
        }
    }
    out + &alias_lines(aliases)
}

/// `/etc/hosts` of a pod in the node's network: the node's file and the aliases.
pub fn host_network_hosts(node_file: &str, aliases: &[HostAlias]) -> String {
    format!("# Kubernetes-managed hosts file (host network).\n{node_file}{}", alias_lines(aliases))
}

fn alias_lines(aliases: &[HostAlias]) -> String {
    if aliases.is_empty() {
        return String::new();
    }
    let mut out = String::from("\n# Entries added by HostAliases.\n");
    for alias in aliases {
        let names = alias.hostnames.as_deref().unwrap_or_default().join("\t");
        out.push_str(&format!("{}\t{names}\n", alias.ip));
    }
    out
}

/// The resolver of a pod by its DNS policy and config.
pub fn pod_dns(pod: &Pod, settings: &DnsSettings) -> DnsConfig {
    let host = || match std::fs::read_to_string(&settings.resolv_conf) {
        Ok(text) if !settings.resolv_conf.is_empty() => parse_resolv_conf(&text),
        _ => DnsConfig::default(),
    };
    let mut config = match pod.pod_spec().dns_policy.as_deref().unwrap_or("ClusterFirst") {
        "None" => DnsConfig::default(),
        policy @ ("ClusterFirst" | "ClusterFirstWithHostNet")
            if !settings.cluster_dns.is_empty() && (policy != "ClusterFirst" || !pod.host_network()) =>
        {
            let domain = &settings.cluster_domain;
            let mut searches = Vec::new();
            if !domain.is_empty() {
                searches.push(format!("{}.svc.{domain}", pod.pod_namespace()));
                searches.push(format!("svc.{domain}"));
                searches.push(domain.clone());
            }
            extend_unique(&mut searches, host().searches);
            DnsConfig { servers: settings.cluster_dns.clone(), searches, options: vec!["ndots:5".into()] }
        }
        _ if settings.resolv_conf.is_empty() => {
            DnsConfig { servers: vec!["127.0.0.1".into()], searches: vec![".".into()], options: Vec::new() }
        }
        _ => host(),
    };
    if let Some(extra) = &pod.pod_spec().dns_config {
        extend_unique(&mut config.servers, extra.nameservers.clone().unwrap_or_default());
        extend_unique(&mut config.searches, extra.searches.clone().unwrap_or_default());
        for option in extra.options.iter().flatten() {
            let name = option.name.clone().unwrap_or_default();
            config.options.retain(|o| o.split(':').next() != Some(name.as_str()));
            config.options.push(match option.value.as_deref().filter(|v| !v.is_empty()) {
                Some(value) => format!("{name}:{value}"),
                None => name,
            });
        }
    }
    config.servers.truncate(MAX_SERVERS);
    config.searches.truncate(MAX_SEARCHES);
    while config.searches.join(" ").len() > MAX_SEARCH_CHARS {
        config.searches.pop();
    }
    config
}

fn extend_unique(list: &mut Vec<String>, more: Vec<String>) {
    for item in more {
        if !list.contains(&item) {
            list.push(item);
        }
    }
}

/// Reads a resolver file; the last `search` and `options` lines win.
pub fn parse_resolv_conf(text: &str) -> DnsConfig {
    let mut config = DnsConfig::default();
    for line in text.lines() {
        let line = line.trim();
        if line.starts_with('#') || line.starts_with(';') {
            continue;
        }
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => config.servers.extend(words.next().map(str::to_owned)),
            Some("search") => {
                config.searches =
                    words.map(|s| if s == "." { s } else { s.trim_end_matches('.') }.to_owned()).collect();
            }
            Some("options") => extend_unique(&mut config.options, words.map(str::to_owned).collect()),
            _ => {}
        }
    }
    config
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(spec: serde_json::Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "web", "namespace": "prod"}, "spec": spec})).unwrap()
    }

    #[test]
    fn hostnames() {
        let of = |spec| hostname_and_domain(&pod(spec), "cluster.local");
        assert_eq!(of(json!({"containers": []})), ("web".into(), String::new()));
        assert_eq!(
            of(json!({"containers": [], "hostname": "a", "subdomain": "b"})),
            ("a".into(), "b.prod.svc.cluster.local".into())
        );
        let long = format!("{}-x", "a".repeat(62));
        assert_eq!(of(json!({"containers": [], "hostname": long})).0, "a".repeat(62));
    }

    #[test]
    fn hosts_files() {
        let aliases = vec![HostAlias { ip: "1.2.3.4".into(), hostnames: Some(vec!["a".into(), "b".into()]) }];
        let text = managed_hosts(&["10.0.0.1".into()], "web", "sub.prod.svc.cluster.local", &aliases);
        assert!(text.ends_with(
            "fe00::2\tip6-allrouters\n10.0.0.1\tweb.sub.prod.svc.cluster.local\tweb\n\n# Entries added by HostAliases.\n1.2.3.4\ta\tb\n"
        ));
        assert_eq!(
            host_network_hosts("127.0.0.1 localhost\n", &[]),
            "# Kubernetes-managed hosts file (host network).\n127.0.0.1 localhost\n"
        );
    }

    #[test]
    fn resolvers() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("resolv.conf");
        std::fs::write(&file, "# x\nnameserver 9.9.9.9\nsearch corp. lan\noptions rotate\n").unwrap();
        let settings = DnsSettings {
            cluster_dns: vec!["10.96.0.10".into()],
            cluster_domain: "cluster.local".into(),
            resolv_conf: file.to_str().unwrap().into(),
        };
        let config = pod_dns(&pod(json!({"containers": []})), &settings);
        assert_eq!(config.servers, ["10.96.0.10"]);
        assert_eq!(config.searches, ["prod.svc.cluster.local", "svc.cluster.local", "cluster.local", "corp", "lan"]);
        assert_eq!(config.options, ["ndots:5"]);
        let config = pod_dns(&pod(json!({"containers": [], "dnsPolicy": "Default"})), &settings);
        assert_eq!((config.servers, config.options), (vec!["9.9.9.9".to_owned()], vec!["rotate".to_owned()]));
        let config = pod_dns(
            &pod(json!({"containers": [], "dnsPolicy": "None", "dnsConfig":
            {"nameservers": ["1.1.1.1"], "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}]}})),
            &settings,
        );
        assert_eq!(
            (config.servers, config.options),
            (vec!["1.1.1.1".to_owned()], vec!["ndots:2".to_owned(), "edns0".to_owned()])
        );
    }

    #[test]
    fn who_is_asked_by_policy_and_network() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("resolv.conf");
        std::fs::write(&file, "nameserver 9.9.9.9\n").unwrap();
        let none = (vec!["127.0.0.1"], vec!["."]);
        let node = (vec!["9.9.9.9"], vec![]);
        let cluster = (vec!["10.96.0.10"], vec!["prod.svc.cluster.local", "svc.cluster.local", "cluster.local"]);
        for (policy, host_network, with_cluster, with_file, want) in [
            ("ClusterFirst", false, true, true, &cluster),
            ("ClusterFirst", false, false, true, &node),
            ("ClusterFirst", true, true, true, &node),
            ("ClusterFirst", true, true, false, &none),
            ("ClusterFirst", false, false, false, &none),
            ("ClusterFirstWithHostNet", true, true, true, &cluster),
            ("ClusterFirstWithHostNet", false, true, true, &cluster),
            ("Default", false, true, true, &node),
            ("Default", false, true, false, &none),
            ("None", false, true, true, &(vec![], vec![])),
        ] {
            let settings = DnsSettings {
                cluster_dns: if with_cluster { vec!["10.96.0.10".into()] } else { Vec::new() },
                cluster_domain: "cluster.local".into(),
                resolv_conf: if with_file { file.to_str().unwrap().into() } else { String::new() },
            };
            let spec = json!({"containers": [], "dnsPolicy": policy, "hostNetwork": host_network});
            let config = pod_dns(&pod(spec), &settings);
            let found: (Vec<&str>, Vec<&str>) = (
                config.servers.iter().map(String::as_str).collect(),
                config.searches.iter().map(String::as_str).collect(),
            );
            assert_eq!(&found, want, "{policy} {host_network} {with_cluster} {with_file}");
        }
    }
}
