//! What cluster DNS can be told, by flags.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use component_base::flags::{FlagSet, Parsed};
use hickory_proto::rr::Name;

/// Where cluster DNS answers by kubeadm's convention: the tenth address of the service range.
const ADDRESS: &str = "10.96.0.10";

/// How names of pods by address (`1-2-3-4.NAMESPACE.pod.ZONE`) are answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PodRecords {
    /// Not at all.
    Disabled,
    /// With the address in the name, whoever has it: kubeadm's choice, for the sake of what kube-dns did.
    #[default]
    Insecure,
    /// Only where a pod of the namespace has the address; costs a copy of every pod.
    Verified,
}

/// Everything it can be told.
#[derive(Clone, Debug)]
pub struct Config {
    /// Path of a kubeconfig; in-cluster without.
    pub kubeconfig: Option<PathBuf>,
    /// Where names are answered. Each is an address of this machine: answers come from where was asked.
    pub bind_addresses: Vec<IpAddr>,
    pub port: u16,
    /// Port of `/health`; `None` switches it off, here and below.
    pub health_port: Option<u16>,
    /// Port of `/ready`.
    pub ready_port: Option<u16>,
    /// Port of `/metrics`, and of the other two as well.
    pub metrics_port: Option<u16>,
    /// The zone of the cluster.
    pub cluster_domain: Name,
    pub pods: PodRecords,
    /// How long answers of the cluster's zone may be kept, in seconds.
    pub ttl: u32,
    /// Who is asked for all other names.
    pub resolv_conf: PathBuf,
    /// Who is asked for the names of some domains.
    pub stub_domains: BTreeMap<Name, Vec<SocketAddr>>,
}

/// A flag that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Flags(#[from] component_base::flags::Error),
    #[error("invalid value {value:?} for --{flag}: {reason}")]
    Invalid { flag: &'static str, value: String, reason: String },
}

fn invalid(flag: &'static str, value: impl ToString, reason: impl ToString) -> Error {
    Error::Invalid { flag, value: value.to_string(), reason: reason.to_string() }
}

/// The flags.
pub fn flags() -> FlagSet {
    let mut f = FlagSet::new(
        "keelson-dns",
        "Cluster DNS for the pods of one node: answers the names of Services and pods from memory and asks the node's resolvers for all others.",
    );
    f.string("kubeconfig", "", "Path to kubeconfig file with authorization information; in-cluster without.");
    f.strings("bind-addresses", &[ADDRESS], "Addresses of this node to answer at.");
    f.int("port", 53, "The port to answer at, over UDP and TCP.");
    f.int("health-port", 8080, "The port of /health. Use 0 to disable.");
    f.int("ready-port", 8181, "The port of /ready. Use 0 to disable.");
    f.int("metrics-port", 9153, "The port of /metrics, and of /health and /ready too. Use 0 to disable.");
    f.string("cluster-domain", "cluster.local", "The domain of the cluster.");
    f.string(
        "pods",
        "insecure",
        "How names of pods by address are answered: 'disabled', 'insecure' (without a look at the pods) or 'verified'.",
    );
    f.int("ttl", 30, "Seconds for which answers of the cluster's domain may be kept.");
    f.string("resolv-conf", "/etc/resolv.conf", "Resolver configuration file that says who is asked for other names.");
    f.array(
        "stub-domain",
        "DOMAIN=ADDRESS[:PORT][,ADDRESS[:PORT]...]: who is asked for the names of a domain. May be repeated.",
    );
    f.common();
    f
}

impl Config {
    /// From arguments (without the program's name).
    ///
    /// # Errors
    /// The first that is unknown or cannot be used.
    pub fn from_args<I, S>(args: I) -> Result<Self, Error>
    where
        I: IntoIterator<Item = S>,
        S: Into<String>,
    {
        Self::from_flags(&flags().parse(args)?)
    }

    /// From parsed flags.
    ///
    /// # Errors
    /// The first that cannot be used.
    pub fn from_flags(p: &Parsed) -> Result<Self, Error> {
        let port = |flag: &'static str| match u16::try_from(p.int(flag)) {
            Ok(port) => Ok((port != 0).then_some(port)),
            Err(_) => Err(invalid(flag, p.int(flag), "must be a port")),
        };
        let addresses = p.strings("bind-addresses");
        let bind_addresses =
            addresses.iter().map(|text| address("bind-addresses", text)).collect::<Result<Vec<_>, _>>()?;
        if bind_addresses.is_empty() {
            return Err(invalid("bind-addresses", "", "must name an address"));
        }
        let domain = p.string("cluster-domain");
        let cluster_domain = name("cluster-domain", &domain)?;
        if cluster_domain.is_root() {
            return Err(invalid("cluster-domain", domain, "must not be the root"));
        }
        Ok(Self {
            kubeconfig: p.nonempty("kubeconfig").map(PathBuf::from),
            bind_addresses,
            port: port("port")?.ok_or_else(|| invalid("port", 0, "must be a port"))?,
            health_port: port("health-port")?,
            ready_port: port("ready-port")?,
            metrics_port: port("metrics-port")?,
            cluster_domain,
            pods: match p.string("pods").as_str() {
                "disabled" => PodRecords::Disabled,
                "insecure" => PodRecords::Insecure,
                "verified" => PodRecords::Verified,
                other => return Err(invalid("pods", other, "must be 'disabled', 'insecure' or 'verified'")),
            },
            // The bound of CoreDNS.
            ttl: match u32::try_from(p.int("ttl")) {
                Ok(ttl) if ttl <= 3600 => ttl,
                _ => return Err(invalid("ttl", p.int("ttl"), "must be in range [0, 3600]")),
            },
            resolv_conf: p.string("resolv-conf").into(),
            stub_domains: stub_domains(&p.strings("stub-domain"))?,
        })
    }
}

fn name(flag: &'static str, text: &str) -> Result<Name, Error> {
    let mut name = Name::from_ascii(text).map_err(|error| invalid(flag, text, error))?;
    name.set_fqdn(true);
    Ok(name.to_lowercase())
}

fn address(flag: &'static str, text: &str) -> Result<IpAddr, Error> {
    text.trim().parse().map_err(|_| invalid(flag, text, "must be an IP address"))
}

fn stub_domains(values: &[String]) -> Result<BTreeMap<Name, Vec<SocketAddr>>, Error> {
    const FLAG: &str = "stub-domain";
    let mut domains = BTreeMap::new();
    for value in values {
        let Some((domain, servers)) = value.split_once('=') else {
            return Err(invalid(FLAG, value, "must be DOMAIN=ADDRESS"));
        };
        let server = |text: &str| match text.trim().parse::<SocketAddr>() {
            Ok(server) => Ok(server),
            Err(_) => Ok::<_, Error>(SocketAddr::new(address(FLAG, text)?, 53)),
        };
        let servers = servers.split(',').map(server).collect::<Result<Vec<_>, _>>()?;
        domains.entry(name(FLAG, domain)?).or_insert_with(Vec::new).extend(servers);
    }
    Ok(domains)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_kubeadms() {
        let config = Config::from_args(Vec::<String>::new()).expect("nothing is needed");
        assert_eq!(config.bind_addresses, [ADDRESS.parse::<IpAddr>().unwrap()]);
        assert_eq!((config.port, config.ttl, config.pods), (53, 30, PodRecords::Insecure));
        assert_eq!((config.health_port, config.ready_port, config.metrics_port), (Some(8080), Some(8181), Some(9153)));
        assert_eq!(config.cluster_domain.to_ascii(), "cluster.local.");
    }

    #[test]
    fn stub_domains_may_have_several_servers() {
        let config = Config::from_args([
            "--stub-domain=Acme.local=1.2.3.4,[fd00::1]:5353",
            "--stub-domain=acme.local.=1.2.3.5:54",
            "--metrics-port=0",
        ])
        .expect("good flags");
        let servers: Vec<String> =
            config.stub_domains[&Name::from_ascii("acme.local.").unwrap()].iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["1.2.3.4:53", "[fd00::1]:5353", "1.2.3.5:54"]);
        assert_eq!(config.metrics_port, None);
    }

    #[test]
    fn bad_flags_are_named() {
        for (arg, want) in [
            ("--ttl=3601", "--ttl: must be in range [0, 3600]"),
            ("--pods=all", "invalid value \"all\" for --pods"),
            ("--port=0", "--port: must be a port"),
            ("--port=65536", "--port: must be a port"),
            ("--bind-addresses=localhost", "must be an IP address"),
            ("--cluster-domain=.", "must not be the root"),
            ("--stub-domain=acme.local", "must be DOMAIN=ADDRESS"),
            ("--stub-domain=acme.local=dns.example", "must be an IP address"),
            ("--bind-adress=::1", "did you mean --bind-addresses?"),
        ] {
            let error = Config::from_args([arg]).expect_err(arg).to_string();
            assert!(error.contains(want), "{arg}: {error}");
        }
    }
}
