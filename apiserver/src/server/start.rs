//! Starting and stopping: parts made from the configuration, sockets, loops, drain.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use component_base::clock::RealClock;
use component_base::featuregate::FeatureGates;
use component_base::health::Checks;
use component_base::jwt;
use component_base::pki::{self, Profile};
use component_base::serving;
use component_base::tls::{self, ClientAuthority, ServingCert, SniCerts};
use component_base::zpages::{self, ZPages};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::impersonation::Tracker;
use super::lifecycle::Lifecycle;
use super::reload::{self, Sockets};
use super::{Metrics, Server, in_process};
use crate::admission::Chain;
use crate::aggregator::{self, Aggregator};
use crate::audit::{self, Audit};
use crate::authentication::configuration::Anonymous;
use crate::authentication::front_proxy::FrontProxy;
use crate::authentication::{self, Authenticator, Verified, oidc, service_account, token_file};
use crate::authorization::node::Node;
use crate::authorization::rbac::Rbac;
use crate::authorization::{AlwaysAllow, AlwaysDeny, Authorizer, Masters, Union, webhook};
use crate::bootstrap::identity::Identity;
use crate::cache::{Cache, RingLimits};
use crate::config::{AuthorizationMode, Config, StorageBackend, features};
use crate::encryption::{self, Encryption};
use crate::flowcontrol::FlowControl;
use crate::proxy::KubeletClient;
use crate::registry::Registry;
use crate::remote;
use crate::request::UserInfo;
use crate::services::Allocators;
use crate::storage::{self, Storage};
use crate::{bootstrap, extensions};

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("storage")]
    Storage(#[from] storage::Error),
    #[error("reading {path}")]
    Read { path: String, source: std::io::Error },
    #[error("listening on {address}")]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error("TLS")]
    Tls(#[from] tls::Error),
    #[error("certificates")]
    Pki(#[from] pki::Error),
    #[error("token keys")]
    Keys(#[from] jwt::Error),
    #[error("{0}")]
    TokenFile(String),
    #[error("kubelet client")]
    Kubelet(#[from] crate::proxy::Error),
    #[error("{0}")]
    Config(String),
}

/// A started server.
pub struct Handle {
    /// Where it listens; the first address when there are several.
    pub addr: SocketAddr,
    /// Its parts, for those in the same process.
    pub server: Arc<Server>,
    /// The serving certificate in PEM, for clients that have to trust a self-made one.
    pub serving_cert_pem: Option<String>,
    storage: Arc<dyn Storage>,
    tasks: Vec<JoinHandle<()>>,
}

impl Handle {
    /// A router for clients in this process that acts as a member of `system:masters`.
    pub fn admin_router(&self) -> Router {
        self.router(UserInfo::new("system:admin", &[crate::request::user::MASTERS]))
    }

    /// A router for clients in this process that acts as this user.
    pub fn router(&self, user: UserInfo) -> Router {
        in_process::router(self.server.clone(), user)
    }

    /// Gives out routers by identity.
    pub fn identities(&self) -> in_process::Identities {
        in_process::Identities::new(self.server.clone())
    }

    /// Completes when the server has stopped and drained, after its token was cancelled.
    pub async fn stopped(self) {
        for task in self.tasks {
            if let Err(error) = task.await {
                tracing::error!(%error, "a server task failed");
            }
        }
        if let Some(audit) = &self.server.audit {
            audit.finish().await;
        }
        self.storage.close().await;
    }
}

impl Server {
    /// Opens the store, binds the sockets and serves until `shutdown`.
    ///
    /// # Errors
    /// What keeps it from starting. Once this returns the server answers.
    pub async fn start(config: Config, shutdown: CancellationToken) -> Result<Handle, Error> {
        let storage = open(&config).await?;
        Self::start_on(config, storage, shutdown).await
    }

    /// As [`Server::start`], on a store that is open already.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub async fn start_on(
        config: Config,
        storage: Arc<dyn Storage>,
        shutdown: CancellationToken,
    ) -> Result<Handle, Error> {
        let server = build(config, storage.clone(), shutdown).await?;
        load(&server).await;
        extensions::start(&server).await;
        let (sockets, pem) = serving_config(&server)?;
        reload::start(&server, Some(sockets.clone()));
        let mut addresses = vec![SocketAddr::new(server.config.bind_address, server.config.secure_port)];
        addresses.extend(server.config.extra_bind.iter().copied());
        let mut tasks = Vec::new();
        let mut bound = Vec::new();
        let service = in_process::public(server.clone());
        for address in addresses {
            let listen = |source| Error::Listen { address, source };
            let listener = TcpListener::bind(address).await.map_err(listen)?;
            bound.push(listener.local_addr().map_err(listen)?);
            let options = serving::Options {
                http2_max_streams: server.config.http2_max_streams,
                drained: Some(server.lifecycle.drained.clone()),
                ..serving::Options::default()
            };
            let stop = server.lifecycle.deaf();
            let tls = serving::Encrypted::Live(sockets.live.clone());
            tasks.push(tokio::spawn(serving::serve(listener, tls, service.clone(), options, stop)));
        }
        tasks.push(tokio::spawn(server.lifecycle.clone().run(true)));
        let addr = bound[0];
        // Set once, here: nobody else writes it.
        let _ = server.bound_port.set(addr.port());
        bootstrap::start(&server).await;
        tasks.push(tokio::spawn(bootstrap::run(server.clone())));
        tasks.push(tokio::spawn(aggregator::run(server.clone())));
        server.aggregator.registered().await;
        tasks.push(tokio::spawn(bootstrap::flow_control::run(server.clone())));
        tracing::info!(%addr, "Serving securely");
        Ok(Handle { addr, server, serving_cert_pem: pem, storage, tasks })
    }

    /// A server without sockets, for tests and tools: only routers reach it.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub async fn start_in_process(
        config: Config,
        storage: Arc<dyn Storage>,
        shutdown: CancellationToken,
    ) -> Result<Handle, Error> {
        let server = build(config, storage.clone(), shutdown).await?;
        load(&server).await;
        extensions::start(&server).await;
        reload::start(&server, None);
        bootstrap::start(&server).await;
        let tasks = vec![
            tokio::spawn(server.lifecycle.clone().run(true)),
            tokio::spawn(bootstrap::run(server.clone())),
            tokio::spawn(aggregator::run(server.clone())),
            tokio::spawn(bootstrap::flow_control::run(server.clone())),
        ];
        server.aggregator.registered().await;
        let addr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
        Ok(Handle { addr, server, serving_cert_pem: None, storage, tasks })
    }
}

/// Loads every resource's cache. From here on each remembers events, so that a watch can begin at any
/// resource version of this server's lifetime, and the token check finds the accounts.
async fn load(server: &Server) {
    if let Err(error) = server.cache.load_all().await {
        // Each loads again when it is used; until then its users see the error.
        tracing::error!(%error, "some resources could not be loaded");
    }
    server.rbac.start(&server.registry, &server.shutdown).await;
    if let Some(node) = &server.node {
        node.start(&server.registry, &server.shutdown).await;
    }
    server.flow_control.start(&server.registry, &server.shutdown).await;
}

async fn open(config: &Config) -> Result<Arc<dyn Storage>, Error> {
    Ok(match &config.storage {
        StorageBackend::Embedded { data_dir } => {
            let options = storage::embedded::Options {
                history: config.compaction_interval.max(Duration::from_secs(60)),
                ..storage::embedded::Options::new(data_dir)
            };
            Arc::new(storage::embedded::Embedded::open(options)?)
        }
        StorageBackend::Etcd { servers, ca_file, cert_file, key_file } => {
            let mut options = storage::etcd::Options::new(servers.clone());
            options.ca_file.clone_from(ca_file);
            options.cert_file.clone_from(cert_file);
            options.key_file.clone_from(key_file);
            options.prefix = format!("{}/", config.etcd_prefix.trim_end_matches('/'));
            options.compaction = Some(config.compaction_interval).filter(|interval| !interval.is_zero());
            Arc::new(storage::etcd::Etcd::connect(options).await?)
        }
    })
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|source| Error::Read { path: path.display().to_string(), source })
}

/// Encryption at rest, if the configuration has a file of it.
async fn encryption(
    config: &Config,
    metrics: &Metrics,
    identity: Option<&Identity>,
    clock: &component_base::clock::SharedClock,
) -> Result<Option<Arc<Encryption>>, Error> {
    let Some((path, reload)) = &config.encryption else { return Ok(None) };
    let id = identity.map_or("", Identity::id);
    let counted = Arc::new(encryption::Metrics::new(&metrics.registry, clock.clone(), id));
    let loaded = Encryption::load(path, *reload, clock.clone(), Some(counted)).await;
    loaded.map(Some).map_err(Error::Config)
}

/// What the server tells of itself; of addresses, those that it found out.
fn zpages(config: &Config, gates: &FeatureGates, clock: &component_base::clock::SharedClock) -> ZPages {
    let flags = config.flags.clone().map(|mut flags| {
        let address = config.advertised().to_string();
        flags.insert("external-hostname".to_string(), config.external_hostname.clone().unwrap_or(address.clone()));
        flags.insert("advertise-address".to_string(), address);
        flags
    });
    let paths = ["/healthz", "/livez", "/metrics", "/readyz", zpages::STATUSZ, "/version"];
    ZPages::new("apiserver", clock.clone(), |gate| gates.enabled(gate), flags, paths)
}

async fn build(config: Config, storage: Arc<dyn Storage>, initiated: CancellationToken) -> Result<Arc<Server>, Error> {
    let lifecycle = Lifecycle::new(&config, initiated);
    let shutdown = lifecycle.drained.clone();
    let clock = RealClock::shared();
    let metrics = Metrics::new();
    let gates = features::gates(&config);
    let identity = Identity::new(&gates).map_err(|error| Error::Config(format!("hostname: {error}")))?;
    let encryption = encryption(&config, &metrics, identity.as_ref(), &clock).await?;
    let cache = Cache::complete(storage.clone(), RingLimits::default(), metrics.cache.clone(), encryption.clone());
    let registry = Registry::new(&config, &cache);
    let tokens = token_issuer(&config, clock.clone())?;
    let client_ca = config.client_ca_file.as_deref().map(ClientAuthority::from_file).transpose()?;
    let static_tokens = match &config.token_auth_file {
        Some(path) => {
            let text = String::from_utf8_lossy(&read(path)?).into_owned();
            Some(ArcSwap::from_pointee(token_file::Tokens::parse(&text).map_err(Error::TokenFile)?))
        }
        None => None,
    };
    let authenticator = Authenticator {
        verified: Verified::new(clock.clone()),
        client_ca,
        front_proxy: match &config.request_header.client_ca_file {
            Some(path) => {
                Some(FrontProxy { authority: ClientAuthority::from_file(path)?, names: config.request_header.clone() })
            }
            None => None,
        },
        tokens: static_tokens,
        service_accounts: tokens.clone(),
        bootstrap_secrets: config.bootstrap_token_auth.then(OnceLock::new),
        clock: clock.clone(),
        issuers: config
            .authentication
            .issuers
            .iter()
            .map(|options| {
                let bad = |error| Error::Config(format!("issuer {}: {error}", options.url));
                oidc::Issuer::new(options.clone(), clock.clone()).map(Arc::new).map_err(bad)
            })
            .collect::<Result<Vec<_>, _>>()
            .map(ArcSwap::from_pointee)?,
        webhook: token_webhook(&config, &clock)?,
        audiences: audiences(&config),
        anonymous: anonymous(&config),
    };
    let rbac = Rbac::default();
    let node = config.authorization_modes.contains(&AuthorizationMode::Node).then(|| Arc::new(Node::new(&gates)));
    let seats = |limit: usize| (limit > 0).then(|| Arc::new(Semaphore::new(limit)));
    let checks = |endpoint| {
        let checks = Checks::new(endpoint);
        bootstrap::checks(&checks, endpoint);
        checks
    };
    let aggregator = Aggregator::new(&config.front_proxy, &metrics.registry)?;
    let inflight = config.max_mutating_requests_inflight + config.max_requests_inflight;
    if !config.priority_and_fairness {
        metrics.flow.limit_in_flight(config.max_requests_inflight, config.max_mutating_requests_inflight);
    }
    let flow_control = FlowControl::new(inflight, metrics.flow.clone(), clock.clone());
    let audit = audit(&config, &metrics, &clock, &shutdown)?;
    let server = Arc::new(Server {
        audit,
        impersonation: Tracker::new(
            gates.enabled(features::CONSTRAINED_IMPERSONATION),
            metrics.impersonation.clone(),
            clock.clone(),
        ),
        zpages: zpages(&config, &gates, &clock),
        features: gates,
        identity,
        authorizer: Union::new(authorizers(&config.authorization_modes, &rbac, &node, &clock)?),
        refresh: tokio::sync::Notify::new(),
        rbac,
        node,
        admission: Chain::new(&config),
        decoded: crate::admission::lookup::Decoded::default(),
        metrics,
        aggregator,
        webhooks: crate::admission::webhook::Configurations::default(),
        policies: crate::admission::policy::Policies::default(),
        livez: checks("livez"),
        readyz: checks("readyz"),
        healthz: checks("healthz"),
        flow_control,
        mutating_seats: seats(config.max_mutating_requests_inflight),
        reading_seats: seats(config.max_requests_inflight),
        allocators: Allocators::new(&config),
        kubelet: KubeletClient::new(&config.kubelet)?,
        documents: crate::endpoints::Documents::default(),
        bootstrapped: std::sync::atomic::AtomicBool::new(false),
        bound_port: OnceLock::new(),
        clock,
        cache,
        registry,
        authenticator,
        tokens: tokens.clone(),
        lifecycle,
        shutdown,
        config,
    });
    crate::admission::manifests::start(&server).map_err(Error::Config)?;
    api::validation::allow_privileged(server.config.allow_privileged);
    if let Some(encryption) = encryption {
        encryption.follow(server.shutdown.clone());
        if encryption.has_health() {
            for checks in [&server.livez, &server.readyz, &server.healthz] {
                let encryption = encryption.clone();
                checks.add(encryption::HEALTH, move || encryption.health());
            }
        }
    }
    bootstrap::live_checks(&server, &storage);
    aggregator::checks(&server);
    bootstrap::last_checks(&server);
    let weak = Arc::downgrade(&server);
    let find: crate::authentication::Secrets = Arc::new(move |namespace, name| {
        let server = weak.upgrade()?;
        crate::admission::lookup::get(&server, "", "secrets", namespace, name).map(|entry| entry.tree())
    });
    if let Some(secrets) = &server.authenticator.bootstrap_secrets {
        // Set once, here: the authenticator was made for this server.
        let _ = secrets.set(find.clone());
    }
    if let Some(tokens) = tokens {
        let weak = Arc::downgrade(&server);
        let lookup: service_account::Lookup = Arc::new(move |plural, namespace, name| {
            let server = weak.upgrade()?;
            let served = server.registry.any_version("", plural)?;
            let entry = served.cache.as_ref()?.cached(&served.key(namespace, name))?;
            Some(entry.uid().to_string())
        });
        // Set once, here: the tokens were made for this server.
        let _ = tokens.lookup.set(lookup);
        let _ = tokens.secrets.set(find);
        let _ = tokens.note.set(note_use(&server));
    }
    Ok(server)
}

/// Labels the Secret of a token that was used, in the background: who shows the token does not wait for it.
fn note_use(server: &Arc<Server>) -> service_account::Note {
    let weak = Arc::downgrade(server);
    Arc::new(move |namespace, name, day| {
        let Some(server) = weak.upgrade() else { return };
        let path = format!("/api/v1/namespaces/{namespace}/secrets/{name}");
        let patch = serde_json::json!({"metadata": {"labels": {service_account::LEGACY_LAST_USED: day}}});
        tokio::spawn(async move {
            if let Err(status) = in_process::merge_patch(&server, &path, &patch).await {
                tracing::error!(path, error = %status.message, "the use of a token could not be noted");
            }
        });
    })
}

/// Nobody in particular may ask where the file says; without a word in it, by the flag.
fn anonymous(config: &Config) -> Anonymous {
    let always = config.authorization_modes.contains(&AuthorizationMode::AlwaysAllow);
    match &config.authentication.anonymous {
        Some(anonymous) => anonymous.clone(),
        None => Anonymous { enabled: config.anonymous_auth && !always, paths: Vec::new() },
    }
}

/// The audit policy and its backends, if there are any.
fn audit(
    config: &Config,
    metrics: &Metrics,
    clock: &component_base::clock::SharedClock,
    shutdown: &CancellationToken,
) -> Result<Option<Arc<Audit>>, Error> {
    let Some(path) = &config.audit_policy_file else { return Ok(None) };
    let text = std::fs::read_to_string(path).map_err(|error| {
        Error::Config(format!("loading audit policy file: failed to read file path {:?}: {error}", path.display()))
    })?;
    let policy = audit::policy::Policy::parse(&text)
        .map_err(|error| Error::Config(format!("loading audit policy file: {error}: from file {}", path.display())))?;
    let webhook = match &config.audit_webhook {
        Some(options) => {
            let remote = remote::Kubeconfig::new(Some(&options.kubeconfig))
                .map_err(|error| Error::Config(format!("initializing audit webhook: {error}")))?;
            let remote: Arc<dyn remote::Remote> = Arc::new(remote);
            Some((options, remote))
        }
        None => None,
    };
    let backend =
        audit::Backend::start(config.audit_log.as_ref(), webhook, &metrics.audit, shutdown).map_err(Error::Config)?;
    Ok(Some(Arc::new(Audit::new(policy, backend, metrics.audit.clone(), clock.clone()))))
}

/// What this server's tokens are for.
fn audiences(config: &Config) -> Vec<String> {
    if config.api_audiences.is_empty() { config.service_account_issuers.clone() } else { config.api_audiences.clone() }
}

fn token_webhook(
    config: &Config,
    clock: &component_base::clock::SharedClock,
) -> Result<Option<authentication::webhook::Webhook>, Error> {
    let Some(options) = &config.token_webhook else { return Ok(None) };
    let bad = |error: String| Error::Config(format!("token webhook: {error}"));
    let remote = remote::Kubeconfig::new(Some(&options.kubeconfig)).map_err(|error| bad(error.to_string()))?;
    let webhook = authentication::webhook::Webhook::new(options, Arc::new(remote), audiences(config), clock.clone());
    webhook.map(Some).map_err(bad)
}

/// The authorizers of these modes, in order.
///
/// # Errors
/// Webhooks that cannot be made.
pub(super) fn authorizers(
    modes: &[AuthorizationMode],
    rbac: &Rbac,
    node: &Option<Arc<Node>>,
    clock: &component_base::clock::SharedClock,
) -> Result<Vec<Box<dyn Authorizer>>, Error> {
    let mut list: Vec<Box<dyn Authorizer>> = vec![Box::new(Masters)];
    for mode in modes {
        list.push(match mode {
            AuthorizationMode::AlwaysAllow => Box::new(AlwaysAllow),
            AuthorizationMode::AlwaysDeny => Box::new(AlwaysDeny),
            AuthorizationMode::Node => match node {
                Some(node) => Box::new(node.clone()),
                None => continue,
            },
            AuthorizationMode::Rbac => Box::new(rbac.clone()),
            AuthorizationMode::Webhook(options) => {
                let bad = |error: String| Error::Config(format!("authorizer {}: {error}", options.name));
                let remote = remote::Kubeconfig::new(options.kubeconfig.as_deref())
                    .map_err(|error| bad(format!("reading its kubeconfig: {error}")))?;
                let webhook = webhook::Webhook::new((**options).clone(), Arc::new(remote), clock.clone());
                Box::new(webhook.map_err(bad)?)
            }
        });
    }
    Ok(list)
}

fn token_issuer(
    config: &Config,
    clock: component_base::clock::SharedClock,
) -> Result<Option<Arc<service_account::Tokens>>, Error> {
    let signer = match &config.service_account_signing_key_file {
        Some(path) => Some(jwt::PrivateKey::from_pem(&read(path)?)?),
        None => None,
    };
    let mut keys = Vec::new();
    for path in &config.service_account_key_files {
        keys.extend(jwt::PublicKey::from_pem(&read(path)?)?);
    }
    if let Some(signer) = &signer {
        let own = signer.public();
        if keys.iter().all(|key| key.id != own.id) {
            keys.push(own);
        }
    }
    if keys.is_empty() {
        return Ok(None);
    }
    if config.service_account_issuers.is_empty() {
        return Err(Error::Config(
            "service-account-issuer is a required flag, --service-account-signing-key-file and --service-account-issuer are required flags".to_string(),
        ));
    }
    let audiences = audiences(config);
    let max = config.service_account_max_token_expiration.as_secs();
    Ok(Some(Arc::new(service_account::Tokens {
        issuers: config.service_account_issuers.clone(),
        audiences,
        signer,
        keys,
        max_expiration_seconds: i64::try_from(max).unwrap_or(i64::MAX),
        extend_expiration: config.service_account_extend_token_expiration,
        clock,
        lookup: OnceLock::new(),
        secrets: OnceLock::new(),
        note: OnceLock::new(),
    })))
}

type Serving = (Sockets, Option<String>);

/// The TLS configuration, with a certificate made on the spot when none is given.
fn serving_config(server: &Arc<Server>) -> Result<Serving, Error> {
    let config = &server.config;
    let (cert, pem) = match &config.tls_files {
        Some((cert, key)) => {
            let serving = ServingCert::from_files(cert, key)?;
            (serving, None)
        }
        None => {
            let (cert, key) = (config.cert_dir.join("apiserver.crt"), config.cert_dir.join("apiserver.key"));
            if !cert.exists() || !key.exists() {
                let mut names = vec![
                    "kubernetes.default.svc".to_string(),
                    "kubernetes.default".to_string(),
                    "kubernetes".to_string(),
                    "localhost".to_string(),
                    "127.0.0.1".to_string(),
                    server.advertise_address().to_string(),
                ];
                names.extend(server.allocators.ips.first().map(|address| address.to_string()));
                names.extend(config.external_hostname.clone());
                names.extend(config.extra_bind.iter().map(|address| address.ip().to_string()));
                names.sort();
                names.dedup();
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                let profile = Profile::server("kube-apiserver", &names);
                pki::self_signed(&profile)?.write(&config.cert_dir, "apiserver")?;
            }
            let pem = String::from_utf8_lossy(&read(&cert)?).into_owned();
            (ServingCert::from_files(&cert, &key)?, Some(pem))
        }
    };
    let named = config.sni_files.iter().map(|(cert, key, names)| {
        let names: Vec<String> = names.clone();
        Ok((names, ServingCert::from_files(cert, key)?))
    });
    let certificates = SniCerts::new(cert, named.collect::<Result<_, tls::Error>>()?)?;
    let live = tls::server_config(certificates.clone(), reload::client_auth(server))?;
    Ok((Sockets { certificates, live: Arc::new(ArcSwap::new(live)) }, pem))
}

/// The address this machine would use to reach others.
pub fn outgoing_address() -> IpAddr {
    let probe = || -> std::io::Result<IpAddr> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        // Nothing is sent: connecting a datagram socket only picks the route.
        socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9))?;
        Ok(socket.local_addr()?.ip())
    };
    probe().ok().filter(|address| !address.is_unspecified()).unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}
