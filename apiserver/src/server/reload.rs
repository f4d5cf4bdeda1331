//! What a server takes over from its files while it runs: authorities, certificates, tokens, and the
//! configurations of authentication and authorization.
//!
//! A file that cannot be read or is wrong changes nothing, is logged, and counted where upstream counts.

use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use component_base::files::Watch;
use component_base::tls::{self, ClientAuth, ClientAuthority, SniCerts};
use rustls::ServerConfig;

use super::{Server, start};
use crate::admission::manifests;
use crate::authentication::{configuration as authentication, oidc, token_file};
use crate::authorization::configuration as authorization;
use crate::config::{AuthorizationMode, Config};

/// The TLS configuration of the sockets, and the certificates in it.
#[derive(Clone)]
pub struct Sockets {
    pub certificates: SniCerts,
    pub live: Arc<ArcSwap<ServerConfig>>,
}

/// How clients are asked for certificates: with the names of those who may have signed them.
pub fn client_auth(server: &Server) -> ClientAuth {
    let authenticator = &server.authenticator;
    let proxies = authenticator.front_proxy.iter().map(|proxy| &proxy.authority);
    let hints: Vec<_> = authenticator.client_ca.iter().chain(proxies).flat_map(ClientAuthority::hints).collect();
    if hints.is_empty() { ClientAuth::None } else { ClientAuth::Request { hints } }
}

/// Does `act` whenever one of the files changed, until the server ends.
fn follow(
    server: &Arc<Server>,
    what: &'static str,
    paths: Vec<PathBuf>,
    act: impl Fn(&Arc<Server>) -> Result<(), String> + Send + 'static,
) {
    if paths.is_empty() {
        return;
    }
    let (weak, shutdown) = (Arc::downgrade(server), server.shutdown.clone());
    // Watched from here on, so that nothing falls between starting and watching.
    let mut watch = Watch::new(&paths);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = watch.changed() => {}
                () = shutdown.cancelled() => return,
            }
            let Some(server) = weak.upgrade() else { return };
            match act(&server) {
                Ok(()) => tracing::info!(what, "read again"),
                Err(error) => tracing::error!(what, error, "cannot be read again"),
            }
        }
    });
}

fn read(path: &std::path::Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

/// Begins to follow everything.
pub fn start(server: &Arc<Server>, sockets: Option<Sockets>) {
    let config = &server.config;
    if let Some(sockets) = &sockets {
        sockets.certificates.each().for_each(|certificate| drop(tokio::spawn(certificate.clone().watch())));
    }
    let authorities = config.client_ca_file.iter().chain(&config.request_header.client_ca_file).cloned().collect();
    follow(server, "client authorities", authorities, move |server| {
        take_authorities(server)?;
        if let Some(sockets) = &sockets {
            let config = tls::server_config(sockets.certificates.clone(), client_auth(server));
            sockets.live.store(config.map_err(|error| error.to_string())?);
        }
        // Others learn of it from the ConfigMap.
        server.refresh.notify_one();
        Ok(())
    });
    follow(server, "static tokens", config.token_auth_file.iter().cloned().collect(), |server| {
        let (Some(path), Some(tokens)) = (&server.config.token_auth_file, &server.authenticator.tokens) else {
            return Ok(());
        };
        tokens.store(Arc::new(token_file::Tokens::parse(&read(path)?)?));
        Ok(())
    });
    follow(server, "client certificates", client_certificates(config), |server| {
        server.kubelet.reload().map_err(|error| error.to_string())?;
        server.aggregator.reload().map_err(|error| error.to_string())
    });
    let path = config.authentication_config_file.iter().cloned().collect();
    follow(server, "authentication configuration", path, |server| {
        let Some(path) = &server.config.authentication_config_file else { return Ok(()) };
        let outcome = read(path).and_then(|text| take_authentication(server, &text).map(|()| text));
        server.metrics.authentication_reloads.observe(outcome)
    });
    let path = config.authorization_config_file.iter().cloned().collect();
    follow(server, "authorization configuration", path, |server| {
        let Some(path) = &server.config.authorization_config_file else { return Ok(()) };
        let outcome = read(path).and_then(|text| take_authorization(server, &text).map(|()| text));
        server.metrics.authorization_reloads.observe(outcome)
    });
    for (plugin, folder) in &config.admission.manifests {
        let plugin = plugin.clone();
        follow(server, "manifests of admission", vec![folder.clone()], move |server| {
            manifests::reload(server, &plugin)
        });
    }
    for (path, reloads) in [
        (&config.authentication_config_file, &server.metrics.authentication_reloads),
        (&config.authorization_config_file, &server.metrics.authorization_reloads),
    ] {
        if let Some(text) = path.as_deref().and_then(|path| read(path).ok()) {
            reloads.in_use(&text);
        }
    }
}

fn client_certificates(config: &Config) -> Vec<PathBuf> {
    let kubelet = &config.kubelet;
    let kubelet = kubelet.client_certificate.iter().chain(&kubelet.client_key).chain(&kubelet.certificate_authority);
    let proxy = config.front_proxy.client_certificate.iter().chain(&config.front_proxy.client_key);
    kubelet.chain(proxy).cloned().collect()
}

fn take_authorities(server: &Server) -> Result<(), String> {
    let (config, authenticator) = (&server.config, &server.authenticator);
    let proxy = authenticator.front_proxy.as_ref().map(|proxy| &proxy.authority);
    for (path, authority) in
        [(&config.client_ca_file, authenticator.client_ca.as_ref()), (&config.request_header.client_ca_file, proxy)]
    {
        if let (Some(path), Some(authority)) = (path, authority) {
            authority.replace(read(path)?.as_bytes()).map_err(|error| format!("{}: {error}", path.display()))?;
        }
    }
    // Whom an authority vouched for that is gone must not be believed for a moment longer.
    authenticator.verified.forget();
    Ok(())
}

fn take_authentication(server: &Server, text: &str) -> Result<(), String> {
    let settings = authentication::parse(text)?;
    authentication::check_issuers(&settings, &server.config.service_account_issuers)?;
    if settings.anonymous != server.config.authentication.anonymous {
        return Err("anonymous: Forbidden: changed from initial configuration file".to_string());
    }
    let issuers = settings
        .issuers
        .into_iter()
        .map(|options| oidc::Issuer::new(options, server.clock.clone()).map(Arc::new))
        .collect::<Result<Vec<_>, _>>()?;
    server.authenticator.issuers.store(Arc::new(issuers));
    Ok(())
}

fn take_authorization(server: &Server, text: &str) -> Result<(), String> {
    let modes = authorization::parse(text)?;
    let had = |mode: &AuthorizationMode| server.config.authorization_modes.contains(mode);
    for mode in &modes {
        let name = match mode {
            AuthorizationMode::Node if !had(mode) => "Node",
            AuthorizationMode::Rbac if !had(mode) => "RBAC",
            _ => continue,
        };
        return Err(format!("authorizer type {name} is not allowed if it was not enabled at initial server startup"));
    }
    let list = start::authorizers(&modes, &server.rbac, &server.node, &server.clock);
    server.authorizer.replace(list.map_err(|error| error.to_string())?);
    Ok(())
}
