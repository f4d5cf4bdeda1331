//! Upstream's flags, and what they say over the file that they name.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use component_base::flags::{FlagSet, Kind, Parsed};
use component_base::{logging, zpages};

use super::{Config, Error, LeaderElection, SECURE_PORT, Serving, invalid};

/// The flags of upstream's kube-scheduler.
pub fn flags() -> FlagSet {
    let mut f = FlagSet::new(
        "kube-scheduler",
        "The Kubernetes scheduler is a control plane process which assigns Pods to Nodes.",
    );
    let l = LeaderElection::default();
    f.string("config", "", "The path to the configuration file.");
    f.string("kubeconfig", "", "Path to kubeconfig file with authorization and master location information.");
    f.string("master", "", "The address of the Kubernetes API server (overrides any value in kubeconfig)");
    f.string("authentication-kubeconfig", "", "kubeconfig file pointing at the 'core' kubernetes server with enough rights to create tokenreviews.authentication.k8s.io.");
    f.string("authorization-kubeconfig", "", "kubeconfig file pointing at the 'core' kubernetes server with enough rights to create subjectaccessreviews.authorization.k8s.io.");
    f.strings(
        "authorization-always-allow-paths",
        &["/healthz", "/readyz", "/livez"],
        "A list of HTTP paths to skip during authorization.",
    );
    f.string("bind-address", "0.0.0.0", "The IP address on which to listen for the --secure-port port.");
    f.int(
        "secure-port",
        i64::from(SECURE_PORT),
        "The port on which to serve HTTPS with authentication and authorization. If 0, don't serve HTTPS at all.",
    );
    f.string("tls-cert-file", "", "File containing the default x509 Certificate for HTTPS.");
    f.string("tls-private-key-file", "", "File containing the default x509 private key matching --tls-cert-file.");
    f.string("client-ca-file", "", "If set, any request presenting a client certificate signed by one of the authorities in the client-ca-file is authenticated with an identity corresponding to the CommonName of the client certificate.");
    f.bool("leader-elect", true, "Start a leader election client and gain leadership before executing the main loop.");
    f.duration("leader-elect-lease-duration", l.lease_duration, "The duration that non-leader candidates will wait after observing a leadership renewal until attempting to acquire leadership.");
    f.duration(
        "leader-elect-renew-deadline",
        l.renew_deadline,
        "The interval between attempts by the acting master to renew a leadership slot before it stops leading.",
    );
    f.duration(
        "leader-elect-retry-period",
        l.retry_period,
        "The duration the clients should wait between attempting acquisition and renewal of a leadership.",
    );
    f.string(
        "leader-elect-resource-lock",
        "leases",
        "The type of resource object that is used for locking during leader election. Supported options are 'leases'.",
    );
    f.string(
        "leader-elect-resource-name",
        &l.name,
        "The name of resource object that is used for locking during leader election.",
    );
    f.string(
        "leader-elect-resource-namespace",
        &l.namespace,
        "The namespace of resource object that is used for locking during leader election.",
    );
    f.float("kube-api-qps", 50.0, "QPS to use while talking with kubernetes apiserver. Without it there is no limit.");
    f.int("kube-api-burst", 100, "burst to use while talking with kubernetes apiserver.");
    f.string("kube-api-content-type", "", "content type of requests sent to apiserver.");
    f.accepted(
        Kind::Bool,
        &[
            "authentication-tolerate-lookup-failure",
            "authentication-skip-lookup",
            "contention-profiling=true",
            "profiling=true",
            "permit-address-sharing",
            "permit-port-sharing",
        ],
    );
    f.accepted(
        Kind::String,
        &[
            "cert-dir",
            "requestheader-client-ca-file",
            "show-hidden-metrics-for-version",
            "tls-min-version",
            "write-config-to",
            "allow-metric-labels-manifest",
            "tls-sni-cert-key",
            "pod-max-in-unschedulable-pods-duration=5m0s",
        ],
    );
    f.accepted(
        Kind::Strings,
        &[
            "requestheader-allowed-names",
            "requestheader-extra-headers-prefix=x-remote-extra-",
            "requestheader-group-headers=x-remote-group",
            "requestheader-username-headers=x-remote-user",
            "requestheader-uid-headers",
            "tls-cipher-suites",
            "disabled-metrics",
            "tls-curve-preferences",
        ],
    );
    f.accepted(Kind::Strings, &["allow-metric-labels"]);
    f.accepted(Kind::Int, &["http2-max-streams-per-connection"]);
    f.accepted(
        Kind::Duration,
        &[
            "authentication-token-webhook-cache-ttl=10s",
            "authorization-webhook-cache-authorized-ttl=10s",
            "authorization-webhook-cache-unauthorized-ttl=10s",
        ],
    );
    f.common();
    f
}

impl Config {
    /// From arguments (without the program's name).
    pub fn from_args<I, S>(args: I) -> Result<Self, Error>
    where
        I: IntoIterator<Item = S>,
        S: Into<String>,
    {
        Self::from_flags(&flags().parse(args)?)
    }

    /// From parsed flags, and the file they name: what the file says of leader election and of the
    /// connection can be overridden by flags, as upstream does.
    pub fn from_flags(p: &Parsed) -> Result<Self, Error> {
        let mut config = match p.nonempty("config") {
            Some(path) => Self::from_file(Path::new(&path))?,
            None => Self::default(),
        };
        if let Some(path) = p.nonempty("kubeconfig") {
            config.kubeconfig = Some(PathBuf::from(path));
        }
        config.master = p.nonempty("master");
        if p.changed("kube-api-qps") || p.changed("kube-api-burst") {
            config.client_rate = Some((p.float("kube-api-qps"), u32::try_from(p.int("kube-api-burst")).unwrap_or(100)));
        }
        config.override_leader_election(p)?;
        let port = u16::try_from(p.int("secure-port")).map_err(|_| invalid("--secure-port", "must be a port"))?;
        config.serving = (port != 0)
            .then(|| -> Result<Serving, Error> {
                Ok(Serving {
                    bind_address: p
                        .string("bind-address")
                        .parse()
                        .map_err(|_| invalid("--bind-address", "must be an IP address"))?,
                    port,
                    certificate: p.nonempty("tls-cert-file").map(PathBuf::from),
                    key: p.nonempty("tls-private-key-file").map(PathBuf::from),
                    client_ca: p.nonempty("client-ca-file").map(PathBuf::from),
                    authorization_kubeconfig: p
                        .nonempty("authorization-kubeconfig")
                        .or_else(|| p.nonempty("authentication-kubeconfig"))
                        .map(PathBuf::from),
                    always_allow: p.strings("authorization-always-allow-paths"),
                    zpages: zpages::Settings::from_flags(p, &BTreeMap::new()),
                })
            })
            .transpose()?;
        config.logging = logging::Options::from_flags(p);
        config.validate()?;
        Ok(config)
    }

    fn override_leader_election(&mut self, p: &Parsed) -> Result<(), Error> {
        if p.changed("leader-elect") {
            self.leader_election = p.bool("leader-elect").then(|| self.leader_election.clone().unwrap_or_default());
        }
        if p.string("leader-elect-resource-lock") != "leases" {
            return Err(invalid("leaderElection.resourceLock", "resourceLock value must be \"leases\""));
        }
        let Some(election) = &mut self.leader_election else { return Ok(()) };
        for (name, field) in [
            ("leader-elect-lease-duration", &mut election.lease_duration),
            ("leader-elect-renew-deadline", &mut election.renew_deadline),
            ("leader-elect-retry-period", &mut election.retry_period),
        ] {
            if p.changed(name) {
                *field = p.duration(name);
            }
        }
        for (name, field) in [
            ("leader-elect-resource-name", &mut election.name),
            ("leader-elect-resource-namespace", &mut election.namespace),
        ] {
            if p.changed(name) {
                *field = p.string(name);
            }
        }
        Ok(())
    }
}
