//! Who sent a request: client certificates, then bearer tokens, then nobody.
//!
//! The order is upstream's (`kubeapiserver/authenticator`): a certificate that verifies decides, a
//! token that is known decides, a credential that is there but bad is a 401, and no credential at
//! all is `system:anonymous` where anonymous requests are allowed.

pub mod bootstrap_token;
pub mod configuration;
pub mod front_proxy;
pub mod oidc;
pub mod service_account;
pub mod token_file;

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use component_base::clock::SharedClock;
use component_base::serving::Peer;
use component_base::tls::ClientAuthority;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use parking_lot::RwLock;

use crate::request::UserInfo;

/// What authentication made of a request's credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Somebody; `system:anonymous` included.
    User(UserInfo),
    /// 401: there was a credential and it is bad, or there was none and one is needed.
    Unauthorized,
}

/// How long a verified certificate is believed without verifying it again. Signatures cost more
/// than most requests do; revocation by a new `--client-ca-file` waits this long.
const BELIEVED: Duration = Duration::from_secs(10);

/// Certificates believed at a time.
const MAX_BELIEVED: usize = 4096;

/// Chains that were verified lately, by their bytes, and who they are.
pub struct Verified {
    clock: SharedClock,
    chains: RwLock<HashMap<Vec<u8>, (UserInfo, Duration), ahash::RandomState>>,
}

impl Verified {
    /// Believes nobody yet.
    pub fn new(clock: SharedClock) -> Self {
        Self { clock, chains: RwLock::default() }
    }

    fn get(&self, chain: &[u8]) -> Option<UserInfo> {
        let chains = self.chains.read();
        let (user, until) = chains.get(chain)?;
        (self.clock.monotonic() < *until).then(|| user.clone())
    }

    fn put(&self, chain: Vec<u8>, user: &UserInfo) {
        let now = self.clock.monotonic();
        let mut chains = self.chains.write();
        if chains.len() >= MAX_BELIEVED {
            chains.retain(|_, (_, until)| now < *until);
        }
        if chains.len() < MAX_BELIEVED {
            chains.insert(chain, (user.clone(), now + BELIEVED));
        }
    }
}

/// The authenticators of this server.
pub struct Authenticator {
    /// Certificates verified lately.
    pub verified: Verified,
    /// Judges client certificates (`--client-ca-file`).
    pub client_ca: Option<ClientAuthority>,
    /// Says on whose behalf it asks (`--requestheader-*`).
    pub front_proxy: Option<front_proxy::FrontProxy>,
    /// Static tokens (`--token-auth-file`).
    pub tokens: Option<token_file::Tokens>,
    /// Tokens this server issued.
    pub service_accounts: Option<Arc<service_account::Tokens>>,
    /// Finds Secrets, with `--enable-bootstrap-token-auth`; set once the store is there.
    pub bootstrap_secrets: Option<OnceLock<Secrets>>,
    pub clock: SharedClock,
    /// Issuers whose tokens are accepted beside this server's own.
    pub issuers: Vec<oidc::Issuer>,
    /// Requests without credentials: whether, and where.
    pub anonymous: configuration::Anonymous,
}

/// Finds a Secret: namespace and name.
pub type Secrets = Arc<dyn Fn(&str, &str) -> Option<serde_json::Value> + Send + Sync>;

impl Authenticator {
    /// Judges a request's credentials.
    pub fn authenticate(&self, path: &str, headers: &HeaderMap, peer: Option<&Peer>) -> Outcome {
        if let Some(user) = self.front_proxy.as_ref().and_then(|proxy| proxy.authenticate(headers, peer)) {
            return Outcome::User(user);
        }
        let mut refused = false;
        if let (Some(peer), Some(authority)) = (peer, &self.client_ca)
            && !peer.certificates().is_empty()
        {
            let chain: Vec<u8> =
                peer.certificates().iter().flat_map(|certificate| certificate.iter().copied()).collect();
            if let Some(user) = self.verified.get(&chain) {
                return Outcome::User(user);
            }
            match authority.verify(peer.certificates()) {
                Ok(identity) if !identity.common_name.is_empty() => {
                    let mut user =
                        UserInfo { name: identity.common_name, groups: identity.organizations, ..UserInfo::default() };
                    user.extra
                        .insert("authentication.kubernetes.io/credential-id".to_string(), vec![identity.credential_id]);
                    user.authenticated();
                    self.verified.put(chain, &user);
                    return Outcome::User(user);
                }
                // Upstream's x509 authenticator passes a nameless subject on to the others.
                Ok(_) => {}
                Err(error) => {
                    tracing::info!(%error, peer = %peer.address(), "client certificate refused");
                    refused = true;
                }
            }
        }
        if let Some(token) = bearer(headers) {
            return match self.token(token, None) {
                Some((user, _)) => Outcome::User(user),
                None => Outcome::Unauthorized,
            };
        }
        let anonymous = &self.anonymous;
        let welcome =
            anonymous.enabled && (anonymous.paths.is_empty() || anonymous.paths.iter().any(|allowed| allowed == path));
        if refused || !welcome {
            return Outcome::Unauthorized;
        }
        Outcome::User(UserInfo::anonymous())
    }

    /// After a refusal: reads an issuer's keys if the token is by one that is not known. Whether asking
    /// again makes sense.
    pub async fn learn(&self, token: &str) -> bool {
        match self.issuers.iter().find(|issuer| issuer.concerns(token)) {
            Some(issuer) => issuer.user(token) == Err(oidc::Refused::UnknownKey) && issuer.learn().await,
            None => false,
        }
    }

    /// The user a bearer token stands for, and the audiences it is good for.
    ///
    /// `audiences` are those asked for; `None` means this server's own.
    pub fn token(&self, token: &str, audiences: Option<&[String]>) -> Option<(UserInfo, Vec<String>)> {
        if let Some(tokens) = &self.tokens
            && let Some(mut user) = tokens.get(token)
        {
            user.authenticated();
            return Some((user, Vec::new()));
        }
        if let Some((id, half)) = bootstrap_token::split(token) {
            let find = self.bootstrap_secrets.as_ref()?.get()?;
            let secret = find("kube-system", &bootstrap_token::secret_name(id))?;
            let mut user = bootstrap_token::user(&secret, id, half, self.clock.now())?;
            user.authenticated();
            return Some((user, Vec::new()));
        }
        if let Some(issuer) = self.issuers.iter().find(|issuer| issuer.concerns(token)) {
            return match issuer.user(token) {
                Ok(mut user) => {
                    user.authenticated();
                    Some((user, Vec::new()))
                }
                Err(error) => {
                    tracing::info!(?error, "bearer token refused");
                    None
                }
            };
        }
        let issuer = self.service_accounts.as_ref()?;
        match issuer.verify(token, audiences) {
            Ok((mut user, audiences)) => {
                user.authenticated();
                Some((user, audiences))
            }
            Err(error) => {
                tracing::info!(%error, "bearer token refused");
                None
            }
        }
    }
}

/// The token that a request carries.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let header = headers.get(AUTHORIZATION)?.to_str().ok()?.trim();
    let (scheme, token) = header.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authenticator() -> Authenticator {
        Authenticator {
            verified: Verified::new(component_base::clock::RealClock::shared()),
            client_ca: None,
            front_proxy: None,
            tokens: Some(token_file::Tokens::parse("secret,alice,1,\"dev,ops\"\n").unwrap()),
            service_accounts: None,
            bootstrap_secrets: None,
            clock: component_base::clock::RealClock::shared(),
            issuers: Vec::new(),
            anonymous: configuration::Anonymous { enabled: true, paths: vec!["/livez".into()] },
        }
    }

    #[test]
    fn tokens_and_nobody() {
        let authenticator = authenticator();
        let mut headers = HeaderMap::new();
        let Outcome::User(user) = authenticator.authenticate("/livez", &headers, None) else {
            panic!("anonymous is somebody")
        };
        assert_eq!(user, UserInfo::anonymous());
        assert_eq!(authenticator.authenticate("/api", &headers, None), Outcome::Unauthorized);
        headers.insert(AUTHORIZATION, "Bearer secret".parse().unwrap());
        let Outcome::User(user) = authenticator.authenticate("/api", &headers, None) else {
            panic!("the token is known")
        };
        assert_eq!(user.name, "alice");
        assert_eq!(user.groups, ["dev", "ops", "system:authenticated"]);
        headers.insert(AUTHORIZATION, "Bearer wrong".parse().unwrap());
        assert_eq!(authenticator.authenticate("/livez", &headers, None), Outcome::Unauthorized);
    }
}
