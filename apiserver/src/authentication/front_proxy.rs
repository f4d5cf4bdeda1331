//! The front proxy: who shows its certificate may say on whose behalf a request comes.
//!
//! The headers count for nothing without a certificate of the proxy's own authority, under an allowed
//! name; and they never travel on.

use component_base::serving::Peer;
use component_base::tls::ClientAuthority;
use http::HeaderMap;

use crate::config::RequestHeader;
use crate::request::UserInfo;

/// The authenticator.
pub struct FrontProxy {
    /// `--requestheader-client-ca-file`.
    pub authority: ClientAuthority,
    pub names: RequestHeader,
}

fn values(headers: &HeaderMap, name: &str) -> Vec<String> {
    headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect()
}

impl FrontProxy {
    /// The user that the proxy names; `None` when nobody is named, or not by the proxy.
    pub fn authenticate(&self, headers: &HeaderMap, peer: Option<&Peer>) -> Option<UserInfo> {
        let first = |names: &[String]| {
            names.iter().find_map(|name| headers.get(name.to_ascii_lowercase())).and_then(|value| value.to_str().ok())
        };
        let user = first(&self.names.username_headers).filter(|user| !user.is_empty())?;
        // An ordinary client that sends such headers is what its own certificate says.
        peer.filter(|peer| self.vouches(peer))?;
        Some(self.read(headers, user))
    }

    /// Whether the peer is the front proxy.
    pub fn vouches(&self, peer: &Peer) -> bool {
        if peer.certificates().is_empty() {
            return false;
        }
        let Ok(identity) = self.authority.verify(peer.certificates()) else { return false };
        let allowed = self.names.allowed_names.is_empty() || self.names.allowed_names.contains(&identity.common_name);
        if !allowed {
            tracing::info!(name = identity.common_name, "a front proxy of this name is not allowed");
        }
        allowed
    }

    fn read(&self, headers: &HeaderMap, user: &str) -> UserInfo {
        let mut info = UserInfo { name: user.to_string(), ..UserInfo::default() };
        info.uid = self
            .names
            .uid_headers
            .iter()
            .flat_map(|name| values(headers, &name.to_ascii_lowercase()))
            .find(|uid| !uid.is_empty())
            .unwrap_or_default();
        for name in &self.names.group_headers {
            info.groups.extend(values(headers, &name.to_ascii_lowercase()));
        }
        for prefix in &self.names.extra_headers_prefixes {
            let prefix = prefix.to_ascii_lowercase();
            for (name, value) in headers {
                let Some(key) = name.as_str().strip_prefix(&prefix) else { continue };
                let key = crate::request::query::unescape(key, false).unwrap_or_else(|| key.to_string());
                info.extra.entry(key).or_default().push(String::from_utf8_lossy(value.as_bytes()).into_owned());
            }
        }
        info.authenticated();
        info
    }

    /// Takes the headers away, so that nobody behind believes them.
    pub fn strip(&self, headers: &mut HeaderMap) {
        let names = &self.names;
        let ours = |header: &str| {
            let plain = names.username_headers.iter().chain(&names.uid_headers).chain(&names.group_headers);
            plain.into_iter().any(|name| name.eq_ignore_ascii_case(header))
                || names.extra_headers_prefixes.iter().any(|prefix| header.starts_with(&prefix.to_ascii_lowercase()))
        };
        let found: Vec<http::HeaderName> = headers.keys().filter(|name| ours(name.as_str())).cloned().collect();
        for name in found {
            headers.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy() -> FrontProxy {
        let profile = component_base::pki::Profile::server("proxy", &["proxy"]);
        let pem = component_base::pki::self_signed(&profile).unwrap().cert_pem;
        let list = |name: &str| vec![name.to_string()];
        let names = RequestHeader {
            username_headers: list("X-Remote-User"),
            group_headers: list("X-Remote-Group"),
            extra_headers_prefixes: list("X-Remote-Extra-"),
            ..RequestHeader::default()
        };
        FrontProxy { authority: ClientAuthority::from_pem(pem.as_bytes()).unwrap(), names }
    }

    fn smuggled() -> HeaderMap {
        let mut headers = HeaderMap::new();
        let pairs = [
            ("x-remote-user", "root"),
            ("x-remote-group", "system:masters"),
            ("x-remote-extra-acme.com%2fa", "b"),
            ("accept", "*/*"),
        ];
        for (name, value) in pairs {
            headers.append(name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn headers_count_for_nothing_alone() {
        assert_eq!(proxy().authenticate(&smuggled(), None), None);
        let user = proxy().read(&smuggled(), "root");
        assert_eq!(user.extra["acme.com/a"], ["b"]);
    }

    #[test]
    fn headers_are_taken_away() {
        let mut headers = smuggled();
        proxy().strip(&mut headers);
        assert_eq!(headers.keys().map(|name| name.as_str()).collect::<Vec<_>>(), ["accept"]);
    }
}
