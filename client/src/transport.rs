//! [`Client`]: a cheap handle that sends requests over TCP (by `kube`) or into a tower service.
//!
//! Adds the user agent, client-side rate limit and the retries that upstream's client makes: an
//! answer 429 or 5xx that carries `Retry-After` is tried again, up to ten times.

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use component_base::clock::{RealClock, SharedClock};
use component_base::files::Watch;
use futures::future::BoxFuture;
use http::{HeaderValue, Request, Response, header};
use http_body::Body as _;
use http_body_util::{BodyExt as _, Full, combinators::UnsyncBoxBody};
use kube::config::{KubeConfigOptions, Kubeconfig};

use crate::error::{Error, Result, Status};
use crate::ratelimit::TokenBucket;
use crate::token::ServiceAccountToken;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The body of an answer.
pub type ResponseBody = UnsyncBoxBody<Bytes, BoxError>;

type Send_ =
    dyn Fn(Request<Bytes>) -> BoxFuture<'static, std::result::Result<Response<ResponseBody>, BoxError>> + Send + Sync;

/// A handle to the API. Clones are cheap and share connections and rate limit.
#[derive(Clone)]
pub struct Client {
    send: Arc<Send_>,
    limiter: Option<Arc<TokenBucket>>,
    user_agent: HeaderValue,
    default_namespace: Arc<str>,
    kube: Option<kube::Client>,
    root_ca: Option<Arc<str>>,
    config: Option<Arc<kube::Config>>,
    token: Option<Arc<ServiceAccountToken>>,
    accounts: Option<Arc<Accounts>>,
    clock: SharedClock,
}

/// Gives in-process clients the identity of a service account: namespace and name.
type Accounts = dyn Fn(&str, &str) -> Client + Send + Sync;

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("user_agent", &self.user_agent).finish_non_exhaustive()
    }
}

impl Client {
    /// From a kubeconfig file. Without a path: `$KUBECONFIG`, then `~/.kube/config`. Without a
    /// context: the file's current one. Must be called inside a tokio runtime.
    pub async fn from_kubeconfig(path: Option<&Path>, context: Option<&str>) -> Result<Self> {
        let kubeconfig = match path {
            Some(path) => Kubeconfig::read_from(path),
            None => Kubeconfig::read(),
        }
        .map_err(|error| Error::Config(chain(&error)))?;
        let options = KubeConfigOptions { context: context.map(String::from), ..KubeConfigOptions::default() };
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options)
            .await
            .map_err(|error| Error::Config(chain(&error)))?;
        Self::from_config(config)
    }

    /// From a kubeconfig file whose credentials may change while the client is used: the file itself, and
    /// the files that it names, are followed. What is in flight goes on; what comes next uses the new ones.
    ///
    /// `server` replaces the file's (`--master`). `identity` is a file with a certificate and its key, used
    /// instead of the kubeconfig's once it is there.
    pub async fn following_kubeconfig(path: &Path, server: Option<&str>, identity: Option<&Path>) -> Result<Self> {
        let source = Source {
            path: path.to_path_buf(),
            server: server.map(String::from),
            identity: identity.map(Path::to_path_buf),
        };
        let mut client = Self::from_config(source.config().await?)?;
        let Some(kube) = client.kube.clone() else { return Ok(client) };
        let live = Arc::new(ArcSwap::from_pointee(kube));
        let sender = live.clone();
        client.send = Arc::new(move |request| send_with(&sender.load(), request));
        let mut watch = Watch::new(&source.files());
        let live = Arc::downgrade(&live);
        tokio::spawn(async move {
            loop {
                watch.changed().await;
                // Nobody uses it any more.
                let Some(live) = live.upgrade() else { return };
                match source.config().await.and_then(Self::from_config) {
                    Ok(fresh) => {
                        if let Some(kube) = fresh.kube {
                            live.store(Arc::new(kube));
                            tracing::info!(path = %source.path.display(), "credentials were read again");
                        }
                    }
                    Err(error) => {
                        let path = source.path.display();
                        tracing::error!(%path, error = error.chain(), "credentials cannot be read again");
                    }
                }
                watch = Watch::new(&source.files());
            }
        });
        Ok(client)
    }

    /// From a kubeconfig file, but to another server when one is named (`--master`). With a server
    /// and no file: that server, without credentials.
    pub async fn from_kubeconfig_with_server(path: Option<&Path>, server: Option<&str>) -> Result<Self> {
        let Some(server) = server else {
            return Self::from_kubeconfig(path, None).await;
        };
        let url: http::Uri = server.parse().map_err(|error| Error::Config(format!("server {server}: {error}")))?;
        let mut config = match path {
            None => kube::Config::new(url.clone()),
            Some(path) => {
                let kubeconfig = Kubeconfig::read_from(path).map_err(|error| Error::Config(chain(&error)))?;
                kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
                    .await
                    .map_err(|error| Error::Config(chain(&error)))?
            }
        };
        config.cluster_url = url;
        Self::from_config(config)
    }

    /// For a component of this name, as its flags say: with a kubeconfig, which is followed; without, inside the
    /// cluster, unless a server is named.
    pub async fn for_component(name: &str, kubeconfig: Option<&Path>, server: Option<&str>) -> Result<Self> {
        let client = match kubeconfig {
            None if server.is_none() => Self::in_cluster()?,
            None => Self::from_kubeconfig_with_server(None, server).await?,
            Some(path) => Self::following_kubeconfig(path, server, None).await?,
        };
        Ok(client.with_user_agent(&component_base::version::user_agent(name)))
    }

    /// From the environment of a pod: service-account token and cluster address.
    pub fn in_cluster() -> Result<Self> {
        let config = kube::Config::incluster().map_err(|error| Error::Config(chain(&error)))?;
        Self::from_config(config)
    }

    /// From a configuration of `kube`, for callers that override parts of it.
    pub fn from_config(mut config: kube::Config) -> Result<Self> {
        component_base::tls::install_default_provider();
        // This client retries by itself.
        config.default_retry = false;
        // A watch may be silent for minutes.
        config.read_timeout = None;
        let namespace = config.default_namespace.clone();
        let root_ca = config.root_cert.as_ref().map(component_base::tls::certificates_to_pem);
        let kept = Arc::new(config.clone());
        let kube = kube::Client::try_from(config).map_err(|error| Error::Config(chain(&error)))?;
        let sender = kube.clone();
        let mut client = Self::from_sender(Arc::new(move |request| send_with(&sender, request)));
        client.default_namespace = namespace.into();
        client.kube = Some(kube);
        client.root_ca = root_ca.map(Arc::from);
        client.config = Some(kept);
        Ok(client)
    }

    /// Straight into a tower service, such as an axum router: no socket, no serialization of HTTP.
    pub fn from_service<S, B>(service: S) -> Self
    where
        S: tower::Service<Request<Full<Bytes>>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Error: Into<BoxError> + Send,
        S::Future: Send + 'static,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let send = move |request: Request<Bytes>| -> BoxFuture<'static, _> {
            let mut service = service.clone();
            Box::pin(async move {
                std::future::poll_fn(|context| service.poll_ready(context)).await.map_err(Into::into)?;
                let response = service.call(request.map(Full::new)).await.map_err(Into::into)?;
                Ok(response.map(|body| body.map_err(Into::into).boxed_unsync()))
            })
        };
        Self::from_sender(Arc::new(send))
    }

    fn from_sender(send: Arc<Send_>) -> Self {
        Self {
            send,
            limiter: None,
            user_agent: HeaderValue::from_static("keelson"),
            default_namespace: "default".into(),
            kube: None,
            root_ca: None,
            config: None,
            token: None,
            accounts: None,
            clock: RealClock::shared(),
        }
    }

    /// The same connections under another user agent.
    pub fn with_user_agent(&self, agent: &str) -> Self {
        let mut client = self.clone();
        if let Ok(agent) = HeaderValue::from_str(agent) {
            client.user_agent = agent;
        }
        client
    }

    /// For in-process clients, whose identity is not made of credentials: how to get the client of a
    /// service account, by namespace and name.
    pub fn with_accounts(&self, accounts: impl Fn(&str, &str) -> Client + Send + Sync + 'static) -> Self {
        Self { accounts: Some(Arc::new(accounts)), ..self.clone() }
    }

    /// The same server, as a service account whose tokens this client asks for and renews. An
    /// in-process client without [`Client::with_accounts`] stays who it is.
    pub fn as_service_account(&self, namespace: &str, name: &str) -> Result<Self> {
        if let Some(accounts) = &self.accounts {
            return Ok(accounts(namespace, name));
        }
        let Some(config) = &self.config else { return Ok(self.clone()) };
        let mut config = kube::Config::clone(config);
        // A client certificate would win over the token.
        config.auth_info = kube::config::AuthInfo::default();
        let mut client = Self::from_config(config)?;
        client.user_agent = self.user_agent.clone();
        client.default_namespace = self.default_namespace.clone();
        client.token = Some(Arc::new(ServiceAccountToken::new(self.clone(), namespace, name)));
        Ok(client)
    }

    /// The same connections, with a rate limit of its own (`--kube-api-qps`, `--kube-api-burst`).
    /// A `qps` of zero or less lifts the limit. Watches are not counted, as upstream does not.
    pub fn with_rate_limit(&self, qps: f64, burst: u32) -> Self {
        let mut client = self.clone();
        client.limiter = (qps > 0.0).then(|| Arc::new(TokenBucket::new(qps, burst, client.clock.clone())));
        client
    }

    /// The namespace of the kubeconfig's context, or `default`.
    pub fn default_namespace(&self) -> &str {
        &self.default_namespace
    }

    /// The authorities the server is verified with, in PEM; `None` in-process.
    pub fn root_ca(&self) -> Option<&str> {
        self.root_ca.as_deref()
    }

    /// The client underneath, for what needs its connection (exec, attach, port-forward); `None`
    /// in-process.
    pub fn kube(&self) -> Option<&kube::Client> {
        self.kube.as_ref()
    }

    pub(crate) fn clock(&self) -> &SharedClock {
        &self.clock
    }

    /// Sends a request and hands back whatever came, failures included.
    pub async fn send(&self, request: Request<Bytes>) -> Result<Response<ResponseBody>> {
        let is_watch = request.uri().query().is_some_and(|query| query.contains("watch=true"));
        if let (Some(limiter), false) = (&self.limiter, is_watch) {
            limiter.wait().await;
        }
        let (mut parts, body) = request.into_parts();
        if let Some(token) = &self.token {
            let bearer = Box::pin(token.bearer()).await?;
            parts.headers.insert(header::AUTHORIZATION, bearer);
        }
        parts.headers.entry(header::USER_AGENT).or_insert_with(|| self.user_agent.clone());
        let mut retries = 0;
        loop {
            let attempt = Request::from_parts(parts.clone(), body.clone());
            let response = (self.send)(attempt).await.map_err(Error::Transport)?;
            let status = response.status();
            let retry = (status.as_u16() == 429 || status.is_server_error())
                .then(|| response.headers().get(header::RETRY_AFTER))
                .flatten()
                .and_then(|value| value.to_str().ok())
                .and_then(|text| text.parse::<u64>().ok());
            match retry {
                Some(seconds) if retries < 10 => {
                    retries += 1;
                    self.clock.sleep(Duration::from_secs(seconds)).await;
                }
                _ => return Ok(response),
            }
        }
    }

    /// Sends a request; a failure becomes [`Error::Api`].
    pub async fn send_ok(&self, request: Request<Bytes>) -> Result<Response<ResponseBody>> {
        let response = self.send(request).await?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = collect(response.into_body()).await?;
        Err(Error::Api(Box::new(Status::from_answer(status.as_u16(), &body))))
    }

    /// Sends a request and reads the whole answer; a failure becomes [`Error::Api`].
    pub async fn request(&self, request: Request<Bytes>) -> Result<Bytes> {
        collect(self.send_ok(request).await?.into_body()).await
    }

    /// GETs a path, such as `/version`.
    pub async fn get_raw(&self, path: &str) -> Result<Bytes> {
        self.request(Request::get(path).header(header::ACCEPT, "application/json, */*").body(Bytes::new())?).await
    }
}

fn send_with(
    kube: &kube::Client,
    request: Request<Bytes>,
) -> BoxFuture<'static, std::result::Result<Response<ResponseBody>, BoxError>> {
    let kube = kube.clone();
    Box::pin(async move {
        let response =
            kube.send(request.map(kube::client::Body::from)).await.map_err(|error| Box::new(error) as BoxError)?;
        Ok(response.map(|body| body.map_err(|error| Box::new(error) as BoxError).boxed_unsync()))
    })
}

/// Where a client's credentials come from.
struct Source {
    path: PathBuf,
    server: Option<String>,
    identity: Option<PathBuf>,
}

impl Source {
    async fn config(&self) -> Result<kube::Config> {
        let bad = |error: &dyn std::error::Error| Error::Config(chain(error));
        let mut kubeconfig = Kubeconfig::read_from(&self.path).map_err(|error| bad(&error))?;
        if let Some(identity) = self.identity.as_ref().filter(|identity| identity.exists()) {
            let identity = identity.display().to_string();
            for user in kubeconfig.auth_infos.iter_mut().filter_map(|user| user.auth_info.as_mut()) {
                user.client_certificate_data = None;
                user.client_key_data = None;
                user.client_certificate = Some(identity.clone());
                user.client_key = Some(identity.clone());
            }
        }
        let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
            .await
            .map_err(|error| bad(&error))?;
        if let Some(server) = &self.server {
            config.cluster_url = server.parse().map_err(|error| Error::Config(format!("server {server}: {error}")))?;
        }
        Ok(config)
    }

    /// The file, and those that it names now.
    fn files(&self) -> Vec<PathBuf> {
        let mut files = vec![self.path.clone()];
        files.extend(self.identity.clone());
        if let Ok(kubeconfig) = Kubeconfig::read_from(&self.path) {
            let users = kubeconfig.auth_infos.into_iter().filter_map(|user| user.auth_info);
            files
                .extend(users.flat_map(|user| [user.client_certificate, user.client_key]).flatten().map(PathBuf::from));
            let clusters = kubeconfig.clusters.into_iter().filter_map(|cluster| cluster.cluster);
            files.extend(clusters.filter_map(|cluster| cluster.certificate_authority).map(PathBuf::from));
        }
        files
    }
}

pub(crate) async fn collect(mut body: ResponseBody) -> Result<Bytes> {
    // Most answers come in one frame, which needs no copy.
    let mut first = Bytes::new();
    let mut rest: Option<Vec<u8>> = None;
    while let Some(frame) = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        let Ok(data) = frame.map_err(Error::Transport)?.into_data() else {
            continue;
        };
        if let Some(rest) = &mut rest {
            rest.extend_from_slice(&data);
        } else if first.is_empty() {
            first = data;
        } else {
            let mut joined = Vec::with_capacity(first.len() + data.len());
            joined.extend_from_slice(&first);
            joined.extend_from_slice(&data);
            rest = Some(joined);
        }
    }
    Ok(rest.map_or(first, Bytes::from))
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text += &format!(": {inner}");
        source = inner.source();
    }
    text
}
