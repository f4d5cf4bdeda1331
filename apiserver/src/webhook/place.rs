//! Where a webhook is: a URL, or a Service that is looked up for each call.

use apimachinery::object::ObjectExt as _;
use serde_json::Value;
use url::Url;

use crate::server::Server;

/// One place to send a request to.
#[derive(Clone, Debug)]
pub struct Hop {
    pub url: Url,
    /// As messages show it.
    pub shown: String,
    /// Namespace, name and port of the Service that the URL stands for.
    service: Option<(String, String, u16)>,
}

impl Hop {
    /// Reads a `clientConfig`; the webhook is told after how many seconds nobody waits any longer.
    ///
    /// # Errors
    /// In upstream's words.
    pub fn first(config: &Value, seconds: u64) -> Result<Self, String> {
        let (text, service) = if let Some(text) = config.str_at(&["url"]) {
            (text.to_string(), None)
        } else {
            let Some(service) = config.get("service").filter(|service| service.is_object()) else {
                return Err("webhook configuration must have either service or URL".to_string());
            };
            let text = |field: &str| service.str_at(&[field]).unwrap_or_default();
            let (namespace, name) = (text("namespace"), text("name"));
            let port = service.i64_at(&["port"]).and_then(|port| u16::try_from(port).ok()).unwrap_or(443);
            let slash = if text("path").starts_with('/') { "" } else { "/" };
            let url = format!("https://{name}.{namespace}.svc:{port}{slash}{}", text("path"));
            (url, Some((namespace.to_string(), name.to_string(), port)))
        };
        let separator = if text.contains('?') { '&' } else { '?' };
        let shown = format!("{text}{separator}timeout={seconds}s");
        let url = Url::parse(&shown).map_err(|error| format!("Unparsable URL: {error}"))?;
        Ok(Hop { url, shown, service })
    }

    /// Where an answer points.
    ///
    /// # Errors
    /// When that is nowhere.
    pub fn next(&self, location: &str) -> Result<Self, String> {
        let url = self
            .url
            .join(location)
            .map_err(|error| format!("failed to parse Location header {location:?}: {error}"))?;
        let same =
            url.host_str() == self.url.host_str() && url.port_or_known_default() == self.url.port_or_known_default();
        Ok(Hop { url, shown: location.to_string(), service: self.service.clone().filter(|_| same) })
    }

    /// Host and port to connect to.
    ///
    /// # Errors
    /// When the Service has nobody behind it.
    pub fn dial(&self, server: &Server) -> Result<(String, u16), String> {
        match &self.service {
            Some((namespace, name, port)) => crate::services::resolve(server, namespace, name, *port),
            None => Ok((self.host(), self.port())),
        }
    }

    /// Whom the certificate must name.
    pub fn host(&self) -> String {
        self.url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_string()
    }

    /// The port of the URL.
    pub fn port(&self) -> u16 {
        self.url.port_or_known_default().unwrap_or(443)
    }

    /// As the request's first line and its Host header have it.
    pub fn target(&self) -> (String, String) {
        let path = &self.url[url::Position::BeforePath..url::Position::AfterQuery];
        (path.to_string(), self.url[url::Position::BeforeHost..url::Position::AfterPort].to_string())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn places_and_where_they_point() {
        let hop = |config: Value| Hop::first(&config, 5);
        let service = json!({"service": {"namespace": "n", "name": "s", "path": "check?a=b"}});
        let at = hop(service).expect("a service");
        assert_eq!(at.shown, "https://s.n.svc:443/check?a=b&timeout=5s");
        assert_eq!(at.service, Some(("n".to_string(), "s".to_string(), 443)));
        let elsewhere = at.next("https://other:8443/x").expect("a URL");
        assert_eq!((elsewhere.host().as_str(), elsewhere.port(), elsewhere.service), ("other", 8443, None));
        assert_eq!(at.next("/y").expect("a path").url.as_str(), "https://s.n.svc/y");
        assert_eq!(hop(json!({})).expect_err("nothing"), "webhook configuration must have either service or URL");
        let ip = hop(json!({"url": "https://[::1]:8443/z"})).expect("an address");
        assert_eq!((ip.host().as_str(), ip.target().1.as_str()), ("::1", "[::1]:8443"));
    }
}
