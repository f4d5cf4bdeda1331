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
pub mod subprotocol;
pub mod token_file;
pub mod webhook;

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
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
    User(Arc<UserInfo>),
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
    chains: RwLock<HashMap<Vec<u8>, Believed, ahash::RandomState>>,
}

/// Somebody, and until when this is believed.
type Believed = (Arc<UserInfo>, Duration);

impl Verified {
    /// Believes nobody yet.
    pub fn new(clock: SharedClock) -> Self {
        Self { clock, chains: RwLock::default() }
    }

    /// Believes nobody any more: an authority changed.
    pub fn forget(&self) {
        self.chains.write().clear();
    }

    fn get(&self, chain: &[u8]) -> Option<Arc<UserInfo>> {
        let chains = self.chains.read();
        let (user, until) = chains.get(chain)?;
        (self.clock.monotonic() < *until).then(|| user.clone())
    }

    fn put(&self, chain: Vec<u8>, user: &Arc<UserInfo>) {
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
    pub tokens: Option<ArcSwap<token_file::Tokens>>,
    /// Tokens this server issued.
    pub service_accounts: Option<Arc<service_account::Tokens>>,
    /// Finds Secrets, with `--enable-bootstrap-token-auth`; set once the store is there.
    pub bootstrap_secrets: Option<OnceLock<Secrets>>,
    pub clock: SharedClock,
    /// Issuers whose tokens are accepted beside this server's own.
    pub issuers: ArcSwap<Vec<Arc<oidc::Issuer>>>,
    /// Knows tokens that nobody here knows.
    pub webhook: Option<webhook::Webhook>,
    /// What this server's tokens are for (`--api-audiences`).
    pub audiences: Vec<String>,
    /// Requests without credentials: whether, and where.
    pub anonymous: configuration::Anonymous,
}

/// Finds a Secret: namespace and name.
pub type Secrets = Arc<dyn Fn(&str, &str) -> Option<serde_json::Value> + Send + Sync>;

impl Authenticator {
    /// Judges a request's credentials.
    pub fn authenticate(&self, path: &str, headers: &HeaderMap, peer: Option<&Peer>) -> Outcome {
        if let Some(user) = self.front_proxy.as_ref().and_then(|proxy| proxy.authenticate(headers, peer)) {
            return Outcome::User(Arc::new(user));
        }
        let mut refused = false;
        if let (Some(peer), Some(authority)) = (peer, &self.client_ca)
            && !peer.certificates().is_empty()
        {
            let chain: Cow<'_, [u8]> = match peer.certificates() {
                [only] => Cow::Borrowed(only),
                several => {
                    let slices: Vec<&[u8]> = several.iter().map(|certificate| &**certificate).collect();
                    Cow::Owned(slices.concat())
                }
            };
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
                    let user = Arc::new(user);
                    self.verified.put(chain.into_owned(), &user);
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
                Some((user, _)) => Outcome::User(Arc::new(user)),
                None => Outcome::Unauthorized,
            };
        }
        // A certificate that says nothing to anybody is a bad credential, not none.
        if let (Some(proxy), Some(peer)) = (&self.front_proxy, peer)
            && !peer.certificates().is_empty()
        {
            refused |= !proxy.vouches(peer);
        }
        let anonymous = &self.anonymous;
        let welcome =
            anonymous.enabled && (anonymous.paths.is_empty() || anonymous.paths.iter().any(|allowed| allowed == path));
        if refused || !welcome {
            return Outcome::Unauthorized;
        }
        Outcome::User(Arc::new(UserInfo::anonymous()))
    }

    fn issuer(&self, token: &str) -> Option<Arc<oidc::Issuer>> {
        self.issuers.load().iter().find(|issuer| issuer.concerns(token)).cloned()
    }

    /// As [`Authenticator::token`], and asks those who have to be asked: an issuer for keys that are not
    /// known, and the webhook.
    pub async fn ask(&self, token: &str, audiences: Option<&[String]>) -> Option<(UserInfo, Vec<String>)> {
        if let Some(known) = self.token(token, audiences) {
            return Some(known);
        }
        if let Some(issuer) = self.issuer(token)
            && issuer.user(token) == Err(oidc::Refused::UnknownKey)
            && issuer.learn().await
            && let Some(known) = self.token(token, audiences)
        {
            return Some(known);
        }
        let verdict = self.webhook.as_ref()?.user(token, audiences).await?;
        let (mut user, audiences) = (verdict.0.clone(), verdict.1.clone());
        user.authenticated();
        Some((user, audiences))
    }

    /// What an authenticator that knows nothing of audiences says of them: its tokens are for this server.
    fn agnostic(&self, wanted: Option<&[String]>) -> Option<Vec<String>> {
        let wanted = wanted.unwrap_or(&self.audiences);
        let good: Vec<String> = wanted.iter().filter(|wanted| self.audiences.contains(wanted)).cloned().collect();
        (wanted.is_empty() || !good.is_empty()).then_some(good)
    }

    /// The user a bearer token stands for, and the audiences it is good for.
    ///
    /// `audiences` are those asked for; `None` means this server's own.
    pub fn token(&self, token: &str, audiences: Option<&[String]>) -> Option<(UserInfo, Vec<String>)> {
        if let Some(mut user) = self.tokens.as_ref().and_then(|tokens| tokens.load().get(token)) {
            user.authenticated();
            return Some((user, self.agnostic(audiences)?));
        }
        if let Some((id, half)) = bootstrap_token::split(token) {
            let find = self.bootstrap_secrets.as_ref()?.get()?;
            let secret = find("kube-system", &bootstrap_token::secret_name(id))?;
            let mut user = bootstrap_token::user(&secret, id, half, self.clock.now())?;
            user.authenticated();
            return Some((user, self.agnostic(audiences)?));
        }
        if let Some(issuer) = self.issuer(token) {
            return match issuer.user(token) {
                Ok(mut user) => {
                    user.authenticated();
                    Some((user, self.agnostic(audiences)?))
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
    let (_, token) = credentials(headers)?;
    Some(token).filter(|token| !token.is_empty())
}

/// Whether more than one blank stands before the token: such a header is ignored, with a warning.
pub fn blank_before_token(headers: &HeaderMap) -> bool {
    credentials(headers).is_some_and(|(header, token)| token.is_empty() && header.matches(' ').count() > 1)
}

/// The Authorization header, and its second word if the first is `Bearer`. Further words count for nothing.
fn credentials(headers: &HeaderMap) -> Option<(&str, &str)> {
    let header = headers.get(AUTHORIZATION)?.to_str().ok()?.trim();
    let mut parts = header.splitn(3, ' ');
    let (scheme, token) = (parts.next()?, parts.next()?);
    scheme.eq_ignore_ascii_case("bearer").then_some((header, token))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authenticator() -> Authenticator {
        Authenticator {
            verified: Verified::new(component_base::clock::RealClock::shared()),
            client_ca: None,
            front_proxy: None,
            tokens: Some(ArcSwap::from_pointee(token_file::Tokens::parse("secret,alice,1,\"dev,ops\"\n").unwrap())),
            service_accounts: None,
            bootstrap_secrets: None,
            clock: component_base::clock::RealClock::shared(),
            issuers: ArcSwap::default(),
            webhook: None,
            audiences: vec!["api".into()],
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
        assert_eq!(*user, UserInfo::anonymous());
        assert_eq!(authenticator.authenticate("/api", &headers, None), Outcome::Unauthorized);
        headers.insert(AUTHORIZATION, "Bearer secret".parse().unwrap());
        let Outcome::User(user) = authenticator.authenticate("/api", &headers, None) else {
            panic!("the token is known")
        };
        assert_eq!(user.name, "alice");
        assert_eq!(user.groups, ["dev", "ops", "system:authenticated"]);
        let audience = |name: &str| authenticator.token("secret", Some(&[name.to_string()])).map(|(_, good)| good);
        assert_eq!(audience("api"), Some(vec!["api".to_string()]));
        assert_eq!(audience("other"), None, "a static token is for this server only");
        for (header, token) in [
            ("bearer  x", None),
            ("Bearer x y", Some("x")),
            ("  BEARER x ", Some("x")),
            ("Basic x", None),
            ("Bearer", None),
        ] {
            let headers = HeaderMap::from_iter([(AUTHORIZATION, header.parse().unwrap())]);
            assert_eq!(bearer(&headers), token, "{header}");
            assert_eq!(blank_before_token(&headers), header == "bearer  x", "{header}");
        }
        headers.insert(AUTHORIZATION, "Bearer wrong".parse().unwrap());
        assert_eq!(authenticator.authenticate("/livez", &headers, None), Outcome::Unauthorized);
    }
}
