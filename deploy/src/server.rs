//! `keelson server`: the control plane in one process. The controllers and the scheduler call straight into
//! the API server's router; there is no socket between the parts.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::grants;
use crate::kubeconfig::{self, Access};
use crate::pki::{FRONT_PROXY, Pki};
use crate::state::private_dir;

/// Names of the `kubernetes` Service: pods reach the API server by them.
pub const SERVICE_NAMES: [&str; 4] =
    ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"];
/// Issuer of ServiceAccount tokens, by kubeadm's convention.
const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// Where the API server keeps its objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Store {
    /// In its own data folder.
    Embedded,
    /// In an etcd.
    Etcd,
}

impl std::fmt::Display for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Store::Embedded => "embedded",
            Store::Etcd => "etcd",
        })
    }
}

/// What is turned on and off of what Keelson has, as upstream's flags of these names do.
#[derive(Args, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Switches {
    /// Feature gates of all components: NAME=true,...
    #[arg(long, value_delimiter = ',', value_parser = switch)]
    pub feature_gates: Vec<(String, bool)>,
    /// Groups, versions and resources of the API that are served or not: GROUP/VERSION[/RESOURCE]=true,...
    #[arg(long, value_delimiter = ',', value_parser = switch)]
    pub runtime_config: Vec<(String, bool)>,
    /// Controllers: '*' is those that are on by default, NAME another one, -NAME none
    #[arg(long, value_delimiter = ',', default_value = "*")]
    pub controllers: Vec<String>,
}

impl Default for Switches {
    fn default() -> Self {
        Self { feature_gates: Vec::new(), runtime_config: Vec::new(), controllers: vec!["*".to_owned()] }
    }
}

impl Switches {
    /// As arguments, those that are not the default.
    pub fn arguments(&self) -> Vec<String> {
        let mut arguments = Vec::new();
        for (flag, switches) in [("feature-gates", &self.feature_gates), ("runtime-config", &self.runtime_config)] {
            let text: Vec<String> = switches.iter().map(|(name, on)| format!("{name}={on}")).collect();
            if !text.is_empty() {
                arguments.push(format!("--{flag}={}", text.join(",")));
            }
        }
        if self.controllers != ["*"] {
            arguments.push(format!("--controllers={}", self.controllers.join(",")));
        }
        arguments
    }
}

fn switch(text: &str) -> Result<(String, bool), String> {
    let (name, on) = text.split_once('=').ok_or_else(|| format!("{text:?} is not NAME=true or NAME=false"))?;
    let on = component_base::featuregate::parse_bool(on).ok_or_else(|| format!("{on:?} is neither true nor false"))?;
    Ok((name.to_owned(), on))
}

/// The flags of `keelson server`.
#[derive(Args, Clone, Debug)]
pub struct ServerFlags {
    /// Folder of the store, of certificates that are not given, and of admin.kubeconfig
    #[arg(long)]
    pub data_dir: PathBuf,
    /// Port of the API
    #[arg(long, default_value_t = 6443)]
    pub secure_port: u16,
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1")]
    pub bind_address: IpAddr,
    /// Address that pods reach the API server at
    #[arg(long)]
    pub advertise_address: Option<IpAddr>,
    /// Folder of the certificates, by kubeadm's names; made where missing [default: DIR/pki]
    #[arg(long)]
    pub pki_dir: Option<PathBuf>,
    /// Where objects are kept
    #[arg(long, value_enum, default_value_t = Store::Embedded)]
    pub store: Store,
    /// URLs of the etcd, with --store etcd
    #[arg(long, value_delimiter = ',', default_value = "http://127.0.0.1:2379")]
    pub etcd_servers: Vec<String>,
    /// Addresses of Services
    #[arg(long, default_value = "10.96.0.0/16")]
    pub service_cluster_ip_range: ipnet::IpNet,
    /// Addresses of pods; every node gets a part of them [default: nodes get none]
    #[arg(long)]
    pub cluster_cidr: Option<ipnet::IpNet>,
    /// Address of the cluster DNS that runs on the nodes; its Service and its rights are made [default: there is none]
    #[arg(long)]
    pub cluster_dns: Option<IpAddr>,
    #[command(flatten)]
    pub switches: Switches,
    /// Address at which the controller manager (10257) and the scheduler (10259) serve health and metrics
    /// [default: they do not, so that several servers fit on a machine]
    #[arg(long)]
    pub component_bind_address: Option<IpAddr>,
    /// Verbosity of the log
    #[arg(short = 'v', long = "v", default_value_t = 0)]
    pub verbosity: i64,
}

impl ServerFlags {
    fn pki_dir(&self) -> PathBuf {
        self.pki_dir.clone().unwrap_or_else(|| self.data_dir.join("pki"))
    }

    /// What the API server's certificate is for.
    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = ["localhost", "127.0.0.1"].map(String::from).to_vec();
        names.extend(SERVICE_NAMES.map(String::from));
        names.extend(self.service_cluster_ip_range.hosts().next().map(|address| address.to_string()));
        names.extend(self.advertise_address.map(|address| address.to_string()));
        if !self.bind_address.is_unspecified() {
            names.push(self.bind_address.to_string());
        }
        names.sort();
        names.dedup();
        names
    }

    fn apiserver(&self, pki: &Pki) -> apiserver::Config {
        use apiserver::config::{AuthorizationMode, FrontProxy, KubeletClient, RequestHeader, StorageBackend};
        let defaults = apiserver::Config::default();
        apiserver::Config {
            bind_address: self.bind_address,
            secure_port: self.secure_port,
            advertise_address: self.advertise_address,
            tls_files: Some((pki.path("apiserver.crt"), pki.path("apiserver.key"))),
            client_ca_file: Some(pki.path("ca.crt")),
            request_header: RequestHeader {
                client_ca_file: Some(pki.path("front-proxy-ca.crt")),
                allowed_names: vec![FRONT_PROXY.to_owned()],
                username_headers: vec!["X-Remote-User".to_owned()],
                uid_headers: vec!["X-Remote-Uid".to_owned()],
                group_headers: vec!["X-Remote-Group".to_owned()],
                extra_headers_prefixes: vec!["X-Remote-Extra-".to_owned()],
            },
            front_proxy: FrontProxy {
                client_certificate: Some(pki.path("front-proxy-client.crt")),
                client_key: Some(pki.path("front-proxy-client.key")),
                // No kube-proxy runs where this server does: cluster IPs lead nowhere from here.
                aggregator_routing: true,
                ..FrontProxy::default()
            },
            authorization_modes: vec![AuthorizationMode::Node, AuthorizationMode::Rbac],
            bootstrap_token_auth: true,
            enable_admission_plugins: vec!["NodeRestriction".to_owned()],
            storage: match self.store {
                Store::Embedded => StorageBackend::Embedded { data_dir: self.data_dir.join("store") },
                Store::Etcd => StorageBackend::Etcd {
                    servers: self.etcd_servers.clone(),
                    ca_file: None,
                    cert_file: None,
                    key_file: None,
                },
            },
            service_account_issuers: vec![ISSUER.to_owned()],
            service_account_signing_key_file: Some(pki.path("sa.key")),
            service_account_key_files: vec![pki.path("sa.pub")],
            service_cluster_ip_ranges: vec![self.service_cluster_ip_range],
            allow_privileged: true,
            feature_gates: self.switches.feature_gates.clone(),
            runtime_config: self.switches.runtime_config.clone(),
            kubelet: KubeletClient {
                certificate_authority: Some(pki.path("ca.crt")),
                client_certificate: Some(pki.path("apiserver-kubelet-client.crt")),
                client_key: Some(pki.path("apiserver-kubelet-client.key")),
                // Node names of a local cluster are in no DNS.
                preferred_address_types: ["InternalIP", "ExternalIP", "Hostname"].map(String::from).to_vec(),
                ..defaults.kubelet
            },
            ..defaults
        }
    }

    fn controllers(&self, pki: &Pki) -> controller_manager::Config {
        let gates = self.switches.feature_gates.iter().filter(|(_, on)| *on);
        controller_manager::Config {
            controllers: self.switches.controllers.clone(),
            gates: gates.map(|(name, _)| name.clone()).collect(),
            // One process, one of each: there is nobody to elect.
            leader_elect: false,
            serving: self.component_bind_address.map(|address| controller_manager::config::Serving {
                bind_address: address,
                client_ca_file: Some(pki.path("ca.crt")),
                ..controller_manager::config::Serving::default()
            }),
            // Nothing stands between the controllers and the server that a limit would protect.
            kube_api_qps: 0.0,
            allocate_node_cidrs: self.cluster_cidr.is_some(),
            cluster_cidr: self.cluster_cidr.iter().map(ToString::to_string).collect(),
            service_cluster_ip_range: vec![self.service_cluster_ip_range.to_string()],
            root_ca: Some(pki.ca_pem().to_owned()),
            service_account_private_key_file: Some(pki.path("sa.key")),
            use_service_account_credentials: true,
            cluster_signing: Some(pki.ca_pair().clone()),
            ..controller_manager::Config::default()
        }
    }

    fn scheduler(&self, pki: &Pki) -> scheduler::Config {
        scheduler::Config {
            leader_election: None,
            serving: self.component_bind_address.map(|address| scheduler::config::Serving {
                bind_address: address,
                client_ca: Some(pki.path("ca.crt")),
                ..scheduler::config::Serving::default()
            }),
            ..scheduler::Config::default()
        }
    }
}

/// Runs the control plane until `shutdown`, or until a part of it fails.
pub async fn run(flags: ServerFlags, shutdown: CancellationToken) -> anyhow::Result<()> {
    component_base::tls::install_default_provider();
    private_dir(&flags.data_dir)?;
    let pki = Pki::open(&flags.pki_dir(), &flags.names())?;
    let handle = apiserver::Server::start(flags.apiserver(&pki), shutdown.clone()).await?;
    let host =
        if flags.bind_address.is_unspecified() { "127.0.0.1".to_owned() } else { flags.bind_address.to_string() };
    write_admin(&flags.data_dir, &pki, &format!("https://{host}:{}", handle.addr.port()))?;
    let identities = handle.identities();
    let client = |user: &str| client::Client::from_service(identities.user(user));
    grants::create(&client::Client::from_service(handle.admin_router()), flags.cluster_dns).await;
    let accounts = identities.clone();
    let controllers = client("system:kube-controller-manager")
        .with_accounts(move |namespace, name| client::Client::from_service(accounts.service_account(namespace, name)));
    let controllers = controller_manager::run(flags.controllers(&pki), controllers, shutdown.clone());
    let scheduler = scheduler::run(flags.scheduler(&pki), client("system:kube-scheduler"), shutdown.clone());
    // Whoever ends first, by a failure or because it was asked to, takes the others with it.
    let ended = tokio::select! {
        result = controllers => result.context("controller manager"),
        result = scheduler => result.context("scheduler"),
        () = shutdown.cancelled() => Ok(()),
    };
    shutdown.cancel();
    handle.stopped().await;
    ended
}

/// What a user of this server needs, where upstream's tools look for it.
fn write_admin(dir: &Path, pki: &Pki, server: &str) -> anyhow::Result<()> {
    let admin = pki.client("admin")?;
    let access = Access { server, ca_pem: pki.ca_pem(), certificate_pem: &admin.cert_pem, key_pem: &admin.key_pem };
    Ok(kubeconfig::write(&dir.join("admin.kubeconfig"), &kubeconfig::document(&access))?)
}
