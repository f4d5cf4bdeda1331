//! kube-apiserver's command line: every name that upstream 1.36 takes (`cmd/kube-apiserver/app/options`).
//!
//! Those whose subject this server has are read; the others parse, so that what kubeadm, kind and
//! k3s write is accepted, and are logged once as having no effect.

mod audit;
mod declared;

use std::path::PathBuf;
use std::time::Duration;

use component_base::flags::Parsed;
pub use declared::flag_set;
use declared::has_no_effect;

use super::{AuthorizationMode, Config, Error, FrontProxy, RequestHeader, StorageBackend, features};
use crate::authentication::{configuration as authentication, oidc};
use crate::authorization::configuration;
use crate::authorization::webhook::{FailurePolicy, Options};

/// What tells servers of different versions about each other.
const PEER_FLAGS: [&str; 3] = ["peer-ca-file", "peer-advertise-ip", "peer-advertise-port"];

impl Config {
    /// Reads a command line (without the program's name).
    ///
    /// # Errors
    /// Unknown flags (naming the nearest known one), bad values, and combinations that cannot work.
    pub fn from_args<I, S>(args: I) -> Result<(Self, Parsed), Error>
    where
        I: IntoIterator<Item = S>,
        S: Into<String>,
    {
        let parsed = flag_set().parse(args)?;
        Ok((Self::from_flags(&parsed)?, parsed))
    }

    /// Reads parsed flags.
    ///
    /// # Errors
    /// As [`Config::from_args`].
    pub fn from_flags(flags: &Parsed) -> Result<Self, Error> {
        let path = |name: &str| flags.nonempty(name).map(PathBuf::from);
        let mut config = Self {
            bind_address: value(flags, "bind-address")?,
            secure_port: port(flags, "secure-port")?,
            flags: Some(flags.shown()),
            peer_advertise: flags.nonempty("peer-advertise-ip").zip(flags.nonempty("peer-advertise-port")),
            external_hostname: flags.nonempty("external-hostname"),
            cert_dir: PathBuf::from(flags.string("cert-dir")),
            client_ca_file: path("client-ca-file"),
            token_auth_file: path("token-auth-file"),
            anonymous_auth: flags.bool("anonymous-auth"),
            etcd_prefix: flags.string("etcd-prefix"),
            compaction_interval: flags.duration("etcd-compaction-interval"),
            event_ttl: flags.duration("event-ttl"),
            encryption: path("encryption-provider-config")
                .map(|path| (path, flags.bool("encryption-provider-config-automatic-reload"))),
            enable_admission_plugins: flags.strings("enable-admission-plugins"),
            disable_admission_plugins: flags.strings("disable-admission-plugins"),
            service_account_issuers: flags.strings("service-account-issuer"),
            service_account_signing_key_file: path("service-account-signing-key-file"),
            service_account_key_files: flags
                .strings("service-account-key-file")
                .into_iter()
                .map(PathBuf::from)
                .collect(),
            service_account_jwks_uri: flags.nonempty("service-account-jwks-uri"),
            service_account_max_token_expiration: flags.duration("service-account-max-token-expiration"),
            service_account_extend_token_expiration: flags.bool("service-account-extend-token-expiration"),
            api_audiences: flags.strings("api-audiences"),
            reconcile_endpoints: flags.string("endpoint-reconciler-type") != "none",
            allow_privileged: flags.bool("allow-privileged"),
            request_timeout: flags.duration("request-timeout"),
            enable_garbage_collector: flags.bool("enable-garbage-collector"),
            shutdown_delay: flags.duration("shutdown-delay-duration"),
            shutdown_watch_grace: flags.duration("shutdown-watch-termination-grace-period"),
            shutdown_send_retry_after: flags.bool("shutdown-send-retry-after"),
            goaway_chance: flags.float("goaway-chance"),
            default_not_ready_toleration_seconds: flags.int("default-not-ready-toleration-seconds"),
            default_unreachable_toleration_seconds: flags.int("default-unreachable-toleration-seconds"),
            max_requests_inflight: count(flags, "max-requests-inflight")?,
            max_mutating_requests_inflight: count(flags, "max-mutating-requests-inflight")?,
            bootstrap_token_auth: flags.bool("enable-bootstrap-token-auth"),
            audit_policy_file: path("audit-policy-file"),
            audit_log: audit::log(flags)?,
            audit_webhook: audit::webhook(flags)?,
            priority_and_fairness: flags.bool("enable-priority-and-fairness"),
            min_request_timeout: Duration::from_secs(count(flags, "min-request-timeout")? as u64),
            ..Self::default()
        };
        if let Some(text) = flags.nonempty("advertise-address") {
            config.advertise_address = Some(parse("advertise-address", &text)?);
        }
        config.tls_files = match (path("tls-cert-file"), path("tls-private-key-file")) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            _ => {
                return Err(Error::Combination(
                    "--tls-cert-file and --tls-private-key-file must be given together".to_string(),
                ));
            }
        };
        for (flag, list) in [
            ("enable-admission-plugins", &config.enable_admission_plugins),
            ("disable-admission-plugins", &config.disable_admission_plugins),
        ] {
            if let Some(unknown) = list.iter().find(|name| !crate::admission::chain::is_known(name)) {
                return Err(Error::Combination(format!("{flag} plugin {unknown:?} is unknown")));
            }
        }
        if let Some(both) =
            config.enable_admission_plugins.iter().find(|name| config.disable_admission_plugins.contains(name))
        {
            return Err(Error::Combination(format!(
                "{both:?} in enable-admission-plugins and disable-admission-plugins overlapped"
            )));
        }
        if let Some(path) = path("admission-control-config-file") {
            config.admission = crate::admission::configuration::load(&path)
                .map_err(|error| Error::Combination(format!("failed to read plugin config: {error}")))?;
        }
        if !(0.0..=0.02).contains(&config.goaway_chance) {
            return Err(Error::Combination("--goaway-chance can not be less than 0 or greater than 0.02".to_string()));
        }
        if config.encryption.is_none() && flags.bool("encryption-provider-config-automatic-reload") {
            return Err(Error::Combination(
                "--encryption-provider-config-automatic-reload must be set with --encryption-provider-config"
                    .to_string(),
            ));
        }
        config.sni_files = sni(flags)?;
        config.token_webhook = path("authentication-token-webhook-config-file").map(|kubeconfig| {
            crate::authentication::webhook::Options {
                kubeconfig,
                version: flags.string("authentication-token-webhook-version"),
                ttl: flags.duration("authentication-token-webhook-cache-ttl"),
            }
        });
        config.authentication_config_file = path("authentication-config");
        config.authorization_config_file = path("authorization-config");
        let image_policy = crate::admission::image_policy::NAME;
        if config.admission.image_policy.is_none() && crate::admission::chain::is_on(&config, image_policy) {
            return Err(Error::Combination(format!(
                "couldn't init admission plugin {image_policy:?}: no config specified"
            )));
        }
        config.authentication = authentication(flags)?;
        authentication::check_issuers(&config.authentication, &config.service_account_issuers)
            .map_err(Error::Combination)?;
        config.authorization_modes = authorizers(flags)?;
        config.storage = storage(flags)?;
        config.runtime_config = switches(flags, "runtime-config")?;
        config.feature_gates = switches(flags, "feature-gates")?;
        let gate = features::UNKNOWN_VERSION_INTEROPERABILITY_PROXY;
        if !features::gates(&config).enabled(gate)
            && let Some(name) = PEER_FLAGS.iter().find(|name| flags.nonempty(name).is_some())
        {
            return Err(Error::Combination(format!("--{name} requires {gate} feature to be turned on")));
        }
        if let Some(text) = flags.nonempty("service-cluster-ip-range") {
            config.service_cluster_ip_ranges = text
                .split(',')
                .map(|range| parse("service-cluster-ip-range", range.trim()))
                .collect::<Result<_, _>>()?;
        }
        config.service_node_port_range = port_range(&flags.string("service-node-port-range"))?;
        config.request_header = RequestHeader {
            client_ca_file: path("requestheader-client-ca-file"),
            allowed_names: flags.strings("requestheader-allowed-names"),
            username_headers: flags.strings("requestheader-username-headers"),
            uid_headers: flags.strings("requestheader-uid-headers"),
            group_headers: flags.strings("requestheader-group-headers"),
            extra_headers_prefixes: flags.strings("requestheader-extra-headers-prefix"),
        };
        config.front_proxy = FrontProxy {
            client_certificate: path("proxy-client-cert-file"),
            client_key: path("proxy-client-key-file"),
            aggregator_routing: flags.bool("enable-aggregator-routing"),
            reject_redirects: flags.bool("aggregator-reject-forwarding-redirect"),
        };
        config.kubelet.certificate_authority = path("kubelet-certificate-authority");
        config.kubelet.client_certificate = path("kubelet-client-certificate");
        config.kubelet.client_key = path("kubelet-client-key");
        config.kubelet.preferred_address_types = flags.strings("kubelet-preferred-address-types");
        config.kubelet.timeout = flags.duration("kubelet-timeout");
        match flags.int("http2-max-streams-per-connection") {
            0 => {}
            streams => config.http2_max_streams = u32::try_from(streams).unwrap_or(u32::MAX),
        }
        for name in flags.set_flags() {
            if has_no_effect(name) {
                tracing::info!(flag = name.as_str(), "flag accepted; it has no effect here yet");
            }
        }
        Ok(config)
    }
}

fn parse<T: std::str::FromStr>(name: &'static str, text: &str) -> Result<T, Error>
where
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|error: T::Err| Error::Value { name, value: text.to_string(), reason: error.to_string() })
}

fn value<T: std::str::FromStr>(flags: &Parsed, name: &'static str) -> Result<T, Error>
where
    T::Err: std::fmt::Display,
{
    parse(name, &flags.string(name))
}

fn port(flags: &Parsed, name: &'static str) -> Result<u16, Error> {
    let number = flags.int(name);
    u16::try_from(number).map_err(|_| Error::Value {
        name,
        value: number.to_string(),
        reason: "must be a valid port between 0 and 65535, inclusive".to_string(),
    })
}

fn count(flags: &Parsed, name: &'static str) -> Result<usize, Error> {
    let number = flags.int(name);
    usize::try_from(number).map_err(|_| Error::Value {
        name,
        value: number.to_string(),
        reason: "can not be negative value".to_string(),
    })
}

/// `cert,key` or `cert,key:name,name`.
fn sni(flags: &Parsed) -> Result<Vec<(PathBuf, PathBuf, Vec<String>)>, Error> {
    let one = |text: &String| {
        let (files, names) = text.split_once(':').unwrap_or((text, ""));
        let bad = || Error::Value {
            name: "tls-sni-cert-key",
            value: text.clone(),
            reason: "expected comma separated certificate and key file paths".to_string(),
        };
        let (cert, key) = files.split_once(',').ok_or_else(bad)?;
        if cert.trim().is_empty() || key.trim().is_empty() || key.contains(',') {
            return Err(bad());
        }
        let names = names.split(',').map(str::trim).filter(|name| !name.is_empty()).map(String::from).collect();
        Ok((PathBuf::from(cert.trim()), PathBuf::from(key.trim()), names))
    };
    flags.strings("tls-sni-cert-key").iter().map(one).collect()
}

/// Other issuers and nobody: by file, or by the older flags.
fn authentication(flags: &Parsed) -> Result<authentication::Settings, Error> {
    let is_set = |prefix: &str| flags.set_flags().iter().any(|name| name.starts_with(prefix));
    let issuer = flags.string("oidc-issuer-url");
    if let Some(path) = flags.nonempty("authentication-config") {
        let bad = |error: String| {
            Error::Combination(format!("failed to load AuthenticationConfiguration from file {path}: {error}"))
        };
        if is_set("oidc-") {
            return Err(Error::Combination(
                "authentication-config file and oidc-* flags are mutually exclusive".to_string(),
            ));
        }
        let text = std::fs::read_to_string(&path).map_err(|error| bad(error.to_string()))?;
        let settings = authentication::parse(&text).map_err(bad)?;
        if settings.anonymous.is_some() && is_set("anonymous-auth") {
            return Err(Error::Combination(
                "--anonymous-auth flag cannot be set when anonymous field is configured in authentication configuration file".to_string(),
            ));
        }
        return Ok(settings);
    }
    let client = flags.string("oidc-client-id");
    if issuer.is_empty() != client.is_empty() {
        return Err(Error::Combination(
            "oidc-issuer-url and oidc-client-id must be specified together when any oidc-* flags are set".to_string(),
        ));
    }
    if issuer.is_empty() {
        return Ok(authentication::Settings::default());
    }
    authentication::check_url(&issuer).map_err(|reason| Error::Value {
        name: "oidc-issuer-url",
        value: issuer.clone(),
        reason,
    })?;
    let authority = match flags.nonempty("oidc-ca-file") {
        Some(path) => std::fs::read_to_string(&path).map_err(|error| Error::Value {
            name: "oidc-ca-file",
            value: path,
            reason: error.to_string(),
        })?,
        None => String::new(),
    };
    let name = flags.string("oidc-username-claim");
    let prefix = match flags.string("oidc-username-prefix").as_str() {
        "-" => String::new(),
        "" if name == "email" => String::new(),
        "" => format!("{issuer}#"),
        given => given.to_string(),
    };
    let groups = flags.nonempty("oidc-groups-claim");
    let required = flags.map("oidc-required-claim").into_iter();
    Ok(authentication::Settings {
        issuers: vec![oidc::Options {
            url: issuer,
            discovery_url: String::new(),
            authority,
            audiences: vec![client],
            username: oidc::Mapping::Claim { name, prefix },
            groups: groups.map(|name| oidc::Mapping::Claim { name, prefix: flags.string("oidc-groups-prefix") }),
            uid: None,
            extra: Vec::new(),
            claim_rules: required.map(|(claim, value)| oidc::ClaimRule::Equals { claim, value }).collect(),
            user_rules: Vec::new(),
        }],
        anonymous: None,
    })
}

/// The authorizers: by file, or by the older flags.
fn authorizers(flags: &Parsed) -> Result<Vec<AuthorizationMode>, Error> {
    let older = |name: &String| name == "authorization-mode" || name.starts_with("authorization-webhook-");
    if let Some(path) = flags.nonempty("authorization-config") {
        if flags.set_flags().iter().any(older) {
            return Err(Error::Combination(
                "--authorization-config can not be specified when --authorization-mode or --authorization-webhook-* flags are defined".to_string(),
            ));
        }
        let text = std::fs::read_to_string(&path).map_err(|error| {
            Error::Combination(format!("failed to load AuthorizationConfiguration from file {path}: {error}"))
        })?;
        return configuration::parse(&text).map_err(|error| {
            Error::Combination(format!("failed to load AuthorizationConfiguration from file {path}: {error}"))
        });
    }
    flags
        .strings("authorization-mode")
        .iter()
        .map(|name| {
            Ok(match name.as_str() {
                "AlwaysAllow" => AuthorizationMode::AlwaysAllow,
                "AlwaysDeny" => AuthorizationMode::AlwaysDeny,
                "Node" => AuthorizationMode::Node,
                "RBAC" => AuthorizationMode::Rbac,
                "Webhook" => AuthorizationMode::Webhook(Box::new(webhook(flags)?)),
                other => {
                    return Err(Error::Combination(format!("authorization-mode {other:?} is not a valid mode")));
                }
            })
        })
        .collect()
}

fn webhook(flags: &Parsed) -> Result<Options, Error> {
    let Some(file) = flags.nonempty("authorization-webhook-config-file") else {
        return Err(Error::Combination(
            "authorization-mode Webhook's authorization config file not passed".to_string(),
        ));
    };
    Ok(Options {
        name: "default".to_string(),
        kubeconfig: Some(PathBuf::from(file)),
        timeout: Duration::from_secs(30),
        authorized_ttl: flags.duration("authorization-webhook-cache-authorized-ttl"),
        unauthorized_ttl: flags.duration("authorization-webhook-cache-unauthorized-ttl"),
        version: flags.string("authorization-webhook-version"),
        failure: FailurePolicy::NoOpinion,
        conditions: Vec::new(),
    })
}

fn storage(flags: &Parsed) -> Result<StorageBackend, Error> {
    match flags.string("storage-backend").as_str() {
        "embedded" => match flags.nonempty("data-dir") {
            Some(dir) => Ok(StorageBackend::Embedded { data_dir: PathBuf::from(dir) }),
            None => Err(Error::Combination("--storage-backend=embedded needs --data-dir".to_string())),
        },
        "" | "etcd3" => {
            let servers = flags.strings("etcd-servers");
            if servers.is_empty() {
                return Err(Error::Combination("--etcd-servers must be specified".to_string()));
            }
            let path = |name: &str| flags.nonempty(name).map(PathBuf::from);
            Ok(StorageBackend::Etcd {
                servers,
                ca_file: path("etcd-cafile"),
                cert_file: path("etcd-certfile"),
                key_file: path("etcd-keyfile"),
            })
        }
        other => Err(Error::Combination(format!(
            "--storage-backend invalid, allowed values: etcd3, embedded. If not specified, it will default to 'etcd3': {other:?}"
        ))),
    }
}

fn switches(flags: &Parsed, name: &'static str) -> Result<Vec<(String, bool)>, Error> {
    flags
        .map(name)
        .into_iter()
        .map(|(key, text)| match text.as_str() {
            "" | "true" | "1" | "True" | "TRUE" | "t" | "T" => Ok((key, true)),
            "false" | "0" | "False" | "FALSE" | "f" | "F" => Ok((key, false)),
            _ => {
                Err(Error::Value { name, value: format!("{key}={text}"), reason: "must be true or false".to_string() })
            }
        })
        .collect()
}

fn port_range(text: &str) -> Result<(u16, u16), Error> {
    let bad = |reason: &str| Error::Value {
        name: "service-node-port-range",
        value: text.to_string(),
        reason: reason.to_string(),
    };
    let number = |text: &str| text.trim().parse::<u16>().map_err(|error| bad(&error.to_string()));
    if let Some((base, size)) = text.split_once('+') {
        let (base, size) = (number(base)?, number(size)?);
        return Ok((base, base.checked_add(size).ok_or_else(|| bad("range exceeds 65535"))?));
    }
    let (low, high) = match text.split_once('-') {
        Some((low, high)) => (number(low)?, number(high)?),
        None => (number(text)?, number(text)?),
    };
    if low > high {
        return Err(bad("the start is above the end"));
    }
    Ok((low, high))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_kubeadm_writes() {
        let args = "--advertise-address=10.0.0.2 --allow-privileged=true --authorization-mode=Node,RBAC \
            --client-ca-file=/etc/kubernetes/pki/ca.crt --enable-admission-plugins=NodeRestriction \
            --enable-bootstrap-token-auth=true --etcd-cafile=/etc/kubernetes/pki/etcd/ca.crt \
            --etcd-certfile=/a.crt --etcd-keyfile=/a.key --etcd-servers=https://127.0.0.1:2379 \
            --kubelet-client-certificate=/k.crt --kubelet-client-key=/k.key \
            --kubelet-preferred-address-types=InternalIP,ExternalIP,Hostname --proxy-client-cert-file=/p.crt \
            --proxy-client-key-file=/p.key --requestheader-allowed-names=front-proxy-client \
            --requestheader-client-ca-file=/f.crt --requestheader-extra-headers-prefix=X-Remote-Extra- \
            --requestheader-group-headers=X-Remote-Group --requestheader-username-headers=X-Remote-User \
            --runtime-config= --secure-port=6443 \
            --service-account-issuer=https://kubernetes.default.svc.cluster.local \
            --service-account-key-file=/sa.pub --service-account-signing-key-file=/sa.key \
            --service-cluster-ip-range=10.96.0.0/16 --tls-cert-file=/t.crt --tls-private-key-file=/t.key";
        let (config, _) = Config::from_args(args.split_whitespace()).unwrap();
        assert_eq!(config.authorization_modes, [AuthorizationMode::Node, AuthorizationMode::Rbac]);
        assert_eq!(config.service_cluster_ip_ranges[0].to_string(), "10.96.0.0/16");
        assert!(matches!(config.storage, StorageBackend::Etcd { ref servers, .. } if servers.len() == 1));
    }

    #[test]
    fn refuses_what_cannot_work() {
        let check = |args: &str| Config::from_args(args.split_whitespace()).map(|_| ()).unwrap_err().to_string();
        assert_eq!(check("--secure-prt=1"), "unknown flag: --secure-prt; did you mean --secure-port?");
        assert_eq!(check(""), "--etcd-servers must be specified");
        assert_eq!(check("--storage-backend=embedded"), "--storage-backend=embedded needs --data-dir");
        assert!(check("--storage-backend=embedded --data-dir=/x --secure-port=70000").contains("valid port"));
        assert!(check("--storage-backend=embedded --data-dir=/x --service-node-port-range=5-1").contains("start"));
    }
}
