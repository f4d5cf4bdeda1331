//! From global flags and kubeconfig to a connection, a default namespace and the served resources.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use http::{HeaderName, HeaderValue};
use kube::config::{KubeConfigOptions, Kubeconfig};
use tokio::sync::OnceCell;

use crate::discovery::{self, Discovery};
use crate::error::{Error, Result};
use crate::flags::{Flag, Parsed};
use crate::mapper::Mapper;
use crate::rest::Rest;
use crate::streams::Output;

/// Flags every command takes.
pub const GLOBAL_FLAGS: &[Flag] = &[
    Flag::string("as", "Username to impersonate for the operation. User could be a regular user or a service account in a namespace."),
    Flag::array("as-group", "Group to impersonate for the operation, this flag can be repeated to specify multiple groups."),
    Flag::string("as-uid", "UID to impersonate for the operation."),
    Flag::array("as-user-extra", "User extras to impersonate for the operation, this flag can be repeated to specify multiple values for the same key."),
    Flag::string("cache-dir", "Default cache directory"),
    Flag::string("certificate-authority", "Path to a cert file for the certificate authority"),
    Flag::string("client-certificate", "Path to a client certificate file for TLS"),
    Flag::string("client-key", "Path to a client key file for TLS"),
    Flag::string("cluster", "The name of the kubeconfig cluster to use"),
    Flag::string("context", "The name of the kubeconfig context to use"),
    Flag::bool("disable-compression", "If true, opt-out of response compression for all requests to the server"),
    Flag::bool("insecure-skip-tls-verify", "If true, the server's certificate will not be checked for validity. This will make your HTTPS connections insecure"),
    Flag::string("kubeconfig", "Path to the kubeconfig file to use for CLI requests."),
    Flag::string("kuberc", "Path to the kuberc file to use for preferences."),
    Flag::duration("log-flush-frequency", "5s", "Maximum number of seconds between log flushes"),
    Flag::bool("match-server-version", "Require server version to match client version"),
    Flag::string("namespace", "If present, the namespace scope for this CLI request").short('n'),
    Flag::string("password", "Password for basic authentication to the API server"),
    Flag::string("profile", "Name of profile to capture. One of (none|cpu|heap|goroutine|threadcreate|block|mutex|trace)").default("none"),
    Flag::string("profile-output", "Name of the file to write the profile to").default("profile.pprof"),
    Flag::string("request-timeout", "The length of time to wait before giving up on a single server request. Non-zero values should contain a corresponding time unit (e.g. 1s, 2m, 3h). A value of zero means don't timeout requests.").default("0"),
    Flag::string("server", "The address and port of the Kubernetes API server").short('s'),
    Flag::string("tls-server-name", "Server name to use for server certificate validation. If it is not provided, the hostname used to contact the server is used"),
    Flag::string("token", "Bearer token for authentication to the API server"),
    Flag::string("user", "The name of the kubeconfig user to use"),
    Flag::string("username", "Username for basic authentication to the API server"),
    Flag::int("v", "0", "number for the log level verbosity").short('v'),
    Flag::string("vmodule", "comma-separated list of pattern=N settings for file-filtered logging (only works for the default text log format)"),
    Flag::bool("warnings-as-errors", "Treat warnings received from the server as errors and exit with a non-zero exit code"),
];

/// Makes and keeps what several parts of a command share.
pub struct Factory {
    flags: Parsed,
    err: Output,
    rest: OnceCell<Rc<Rest>>,
    /// A connection given from outside: tests run commands against an in-process service.
    given: Option<kube::Client>,
    mapper: OnceCell<Rc<Mapper>>,
    fresh: OnceCell<Rc<Mapper>>,
}

/// What a kubeconfig resolves to, before a connection is made.
struct Resolved {
    config: Kubeconfig,
    context: Option<String>,
    namespace: Option<String>,
}

impl Factory {
    /// A factory over parsed flags.
    pub fn new(flags: Parsed, err: Output, given: Option<kube::Client>) -> Self {
        Factory { flags, err, rest: OnceCell::new(), given, mapper: OnceCell::new(), fresh: OnceCell::new() }
    }

    /// The files a kubeconfig is merged from, in precedence order.
    pub fn kubeconfig_paths(&self) -> Vec<PathBuf> {
        let flag = self.flags.str("kubeconfig");
        if !flag.is_empty() {
            return vec![PathBuf::from(flag)];
        }
        match std::env::var_os("KUBECONFIG").filter(|value| !value.is_empty()) {
            Some(list) => std::env::split_paths(&list).filter(|path| !path.as_os_str().is_empty()).collect(),
            None => home().map(|home| home.join(".kube/config")).into_iter().collect(),
        }
    }

    fn resolve(&self) -> Result<Resolved> {
        let explicit = self.flags.changed("kubeconfig");
        let mut merged: Option<Kubeconfig> = None;
        for path in self.kubeconfig_paths() {
            if !path.exists() {
                if explicit {
                    return Err(Error::message(format!("stat {}: no such file or directory", path.display())));
                }
                continue;
            }
            let text = std::fs::read_to_string(&path).map_err(|error| {
                Error::message(format!("error loading config file {:?}: {error}", path.display().to_string()))
            })?;
            if text.trim().is_empty() {
                continue;
            }
            let read = Kubeconfig::read_from(&path).map_err(|error| {
                Error::message(format!("error loading config file {:?}: {}", path.display().to_string(), chain(&error)))
            })?;
            merged = Some(match merged {
                Some(first) => first.merge(read).map_err(|error| Error::message(chain(&error)))?,
                None => read,
            });
        }
        let config = merged.unwrap_or_default();
        let wanted = self.flags.str("context");
        let context = if wanted.is_empty() {
            config.current_context.clone().filter(|name| !name.is_empty())
        } else {
            Some(wanted.to_owned())
        };
        let mut namespace = None;
        if let Some(name) = &context {
            let found =
                config.contexts.iter().find(|context| &context.name == name).and_then(|named| named.context.as_ref());
            match found {
                Some(found) => namespace = found.namespace.clone().filter(|namespace| !namespace.is_empty()),
                None if wanted.is_empty() => {}
                None => {
                    return Err(Error::Plain(format!(
                        "Error in configuration: context was not found for specified context: {name}"
                    )));
                }
            }
        }
        Ok(Resolved { config, context, namespace })
    }

    /// The namespace commands act in, and whether a flag named it.
    ///
    /// # Errors
    /// When the kubeconfig cannot be read.
    pub fn namespace(&self) -> Result<(String, bool)> {
        let flag = self.flags.str("namespace");
        if !flag.is_empty() {
            return Ok((flag.to_owned(), true));
        }
        if self.given.is_some() {
            return Ok(("default".into(), false));
        }
        let resolved = self.resolve()?;
        if let Some(namespace) = resolved.namespace {
            return Ok((namespace, false));
        }
        let in_cluster = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";
        if resolved.config.contexts.is_empty()
            && std::env::var_os("KUBERNETES_SERVICE_HOST").is_some()
            && let Ok(namespace) = std::fs::read_to_string(in_cluster)
        {
            return Ok((namespace.trim().to_owned(), false));
        }
        Ok(("default".into(), false))
    }

    /// The connection.
    ///
    /// # Errors
    /// When the kubeconfig is unusable.
    pub async fn rest(&self) -> Result<Rc<Rest>> {
        self.rest.get_or_try_init(|| async { Ok(Rc::new(self.connect().await?)) }).await.cloned()
    }

    async fn connect(&self) -> Result<Rest> {
        let verbosity = self.flags.int("v");
        let timeout = self.request_timeout()?;
        if let Some(client) = &self.given {
            return Ok(Rest::new(client.clone(), "http://in-process", timeout, self.err.clone(), verbosity));
        }
        let mut config = self.config().await?;
        config.read_timeout = None;
        config.write_timeout = None;
        config.default_retry = false;
        let server = config.cluster_url.to_string();
        let client = kube::Client::try_from(config).map_err(|error| Error::message(chain(&error)))?;
        Ok(Rest::new(client, &server, timeout, self.err.clone(), verbosity))
    }

    fn request_timeout(&self) -> Result<Option<std::time::Duration>> {
        let text = self.flags.str("request-timeout");
        // A bare number counts seconds here, unlike in other duration flags.
        let text = if text.parse::<u64>().is_ok() { format!("{text}s") } else { text.to_owned() };
        let seconds = crate::flags::duration(&text).map_err(|_| {
            Error::message("Invalid timeout value. Timeout must be a single integer in seconds, or an integer followed by a corresponding time unit (e.g. 1s | 2m | 3h)")
        })?;
        Ok(seconds.positive())
    }

    async fn config(&self) -> Result<kube::Config> {
        let flag = |name: &str| Some(self.flags.str(name).to_owned()).filter(|value| !value.is_empty());
        let resolved = self.resolve()?;
        let mut source = resolved.config;
        let named = |name: &Option<String>| {
            name.as_ref()
                .and_then(|name| source.contexts.iter().find(|c| &c.name == name))
                .and_then(|c| c.context.clone())
        };
        let context = named(&resolved.context);
        let mut cluster_name = flag("cluster").or_else(|| context.as_ref().map(|c| c.cluster.clone()));
        let user_name = flag("user").or_else(|| context.as_ref().and_then(|c| c.user.clone()));
        if let Some(name) = &cluster_name
            && !source.clusters.iter().any(|cluster| &cluster.name == name)
        {
            if flag("cluster").is_some() && flag("server").is_none() {
                return Err(Error::message(format!("no server found for cluster {name:?}")));
            }
            cluster_name = None;
        }
        if let Some(name) = flag("user")
            && !source.auth_infos.iter().any(|user| user.name == name)
        {
            return Err(Error::message(format!("auth info {name:?} does not exist")));
        }
        if cluster_name.is_none() && flag("server").is_none() && std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() {
            return kube::Config::incluster().map_err(|error| Error::message(chain(&error)));
        }
        // A synthetic context holds what flags override, so that one loader serves every case.
        const SYNTHETIC: &str = "keelson-flags";
        let mut cluster = cluster_name
            .as_ref()
            .and_then(|name| source.clusters.iter().find(|cluster| &cluster.name == name))
            .and_then(|named| named.cluster.clone())
            .unwrap_or_default();
        if let Some(server) = flag("server") {
            cluster.server = Some(with_scheme(&server));
        }
        let server = cluster.server.get_or_insert_with(|| "http://localhost:8080".into());
        *server = with_scheme(server);
        if let Some(path) = flag("certificate-authority") {
            cluster.certificate_authority = Some(path);
            cluster.certificate_authority_data = None;
        }
        if self.flags.changed("insecure-skip-tls-verify") {
            let skip = self.flags.bool("insecure-skip-tls-verify");
            cluster.insecure_skip_tls_verify = Some(skip);
            if skip {
                cluster.certificate_authority = None;
                cluster.certificate_authority_data = None;
            }
        }
        if let Some(name) = flag("tls-server-name") {
            cluster.tls_server_name = Some(name);
        }
        let mut user = user_name
            .as_ref()
            .and_then(|name| source.auth_infos.iter().find(|user| &user.name == name))
            .and_then(|named| named.auth_info.clone())
            .unwrap_or_default();
        if let Some(token) = flag("token") {
            user.token = Some(token.into());
            user.token_file = None;
            user.exec = None;
        }
        if let Some(path) = flag("client-certificate") {
            user.client_certificate = Some(path);
            user.client_certificate_data = None;
        }
        if let Some(path) = flag("client-key") {
            user.client_key = Some(path);
            user.client_key_data = None;
        }
        if let Some(name) = flag("username") {
            user.username = Some(name);
        }
        if let Some(password) = flag("password") {
            user.password = Some(password.into());
        }
        let impersonate = flag("as").or_else(|| user.impersonate.take());
        let mut groups = self.flags.list("as-group");
        if groups.is_empty() {
            groups = user.impersonate_groups.take().unwrap_or_default();
        }
        let uid = flag("as-uid").or_else(|| user.impersonate_uid.take());
        let extras = self.flags.list("as-user-extra");
        if impersonate.is_none() && (!groups.is_empty() || uid.is_some()) {
            return Err(Error::message(
                "requesting uid, groups or user-extra for <nil> without impersonating a user"
                    .replace("<nil>", "<unknown>"),
            ));
        }
        user.impersonate = None;
        user.impersonate_groups = None;
        source.clusters =
            vec![kube::config::NamedCluster { name: SYNTHETIC.into(), cluster: Some(cluster), ..Default::default() }];
        source.auth_infos =
            vec![kube::config::NamedAuthInfo { name: SYNTHETIC.into(), auth_info: Some(user), ..Default::default() }];
        source.contexts = vec![kube::config::NamedContext {
            name: SYNTHETIC.into(),
            context: Some(kube::config::Context {
                cluster: SYNTHETIC.into(),
                user: Some(SYNTHETIC.into()),
                ..Default::default()
            }),
            ..Default::default()
        }];
        source.current_context = Some(SYNTHETIC.into());
        let mut config = kube::Config::from_custom_kubeconfig(source, &KubeConfigOptions::default())
            .await
            .map_err(|error| Error::message(chain(&error)))?;
        let mut header = |name: &str, value: &str| -> Result<()> {
            let name = HeaderName::try_from(name).map_err(|error| Error::message(error.to_string()))?;
            let value = HeaderValue::try_from(value).map_err(|error| Error::message(error.to_string()))?;
            config.headers.push((name, value));
            Ok(())
        };
        if let Some(user) = impersonate {
            header("impersonate-user", &user)?;
            for group in groups {
                header("impersonate-group", &group)?;
            }
            if let Some(uid) = uid {
                header("impersonate-uid", &uid)?;
            }
            for extra in extras {
                let Some((key, value)) = extra.split_once('=') else {
                    return Err(Error::message(format!("--as-user-extra must be in form of key=value, got {extra:?}")));
                };
                header(&format!("impersonate-extra-{key}"), value)?;
            }
        }
        Ok(config)
    }

    /// Where discovery answers are kept for this server.
    fn cache_dir(&self, host: &str) -> Option<PathBuf> {
        if self.given.is_some() {
            return None;
        }
        let flag = self.flags.str("cache-dir");
        let root = if !flag.is_empty() {
            PathBuf::from(flag)
        } else if let Some(dir) = std::env::var_os("KUBECACHEDIR") {
            PathBuf::from(dir)
        } else {
            home()?.join(".kube/cache")
        };
        let safe: String = host
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '_' | '/' | '.') { c } else { '_' })
            .collect();
        Some(root.join("discovery").join(safe))
    }

    /// The served resources, from the cache on disk when it is young enough.
    ///
    /// # Errors
    /// When they cannot be fetched.
    pub async fn mapper(&self) -> Result<Rc<Mapper>> {
        if let Some(fresh) = self.fresh.get() {
            return Ok(fresh.clone());
        }
        self.mapper
            .get_or_try_init(|| async {
                let rest = self.rest().await?;
                let cache = self.cache_dir(&rest.host);
                let found = match cache.as_deref().and_then(discovery::cache::read) {
                    Some(cached) => cached,
                    None => return self.fetch(&rest, cache.as_deref()).await,
                };
                Ok(Rc::new(Mapper::new(found, true)))
            })
            .await
            .cloned()
    }

    /// The served resources as the server tells them now.
    ///
    /// # Errors
    /// When they cannot be fetched.
    pub async fn fresh_mapper(&self) -> Result<Rc<Mapper>> {
        self.fresh
            .get_or_try_init(|| async {
                let rest = self.rest().await?;
                let cache = self.cache_dir(&rest.host);
                self.fetch(&rest, cache.as_deref()).await
            })
            .await
            .cloned()
    }

    async fn fetch(&self, rest: &Rest, cache: Option<&Path>) -> Result<Rc<Mapper>> {
        let found: Discovery = discovery::fetch(rest).await?;
        if let Some(dir) = cache {
            discovery::cache::write(dir, &found);
        }
        Ok(Rc::new(Mapper::new(found, false)))
    }

    /// Where server warnings and notes go.
    pub fn err(&self) -> &Output {
        &self.err
    }
}

/// The user's home directory.
pub fn home() -> Option<PathBuf> {
    std::env::var_os("HOME").filter(|home| !home.is_empty()).map(PathBuf::from)
}

fn with_scheme(server: &str) -> String {
    if server.contains("://") { server.to_owned() } else { format!("http://{server}") }
}

/// An error with its causes, joined by colons.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}
