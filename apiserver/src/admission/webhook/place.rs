//! Where a webhook is: a URL, or a Service that is looked up for each call.

use apimachinery::object::ObjectExt as _;
use serde_json::Value;

use crate::server::Server;

/// Where to connect, and as whom the webhook must prove itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub host: String,
    pub port: u16,
    /// Whom the certificate must name; also the Host of the request.
    pub name: String,
    /// Path and query.
    pub path: String,
    /// As messages show it.
    pub url: String,
}

/// Finds a webhook by its `clientConfig`.
///
/// # Errors
/// In upstream's words.
pub fn find(server: &Server, config: &Value) -> Result<Place, String> {
    if let Some(text) = config.str_at(&["url"]) {
        let url = url::Url::parse(text).map_err(|error| format!("Unparsable URL: {error}"))?;
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_string();
        let path = url.query().map_or_else(|| url.path().to_string(), |query| format!("{}?{query}", url.path()));
        let port = url.port_or_known_default().unwrap_or(443);
        return Ok(Place { name: host.clone(), host, port, path, url: text.to_string() });
    }
    let Some(service) = config.get("service").filter(|service| service.is_object()) else {
        return Err("webhook configuration must have either service or URL".to_string());
    };
    let text = |field: &str| service.str_at(&[field]).unwrap_or_default();
    let (namespace, name) = (text("namespace"), text("name"));
    let port = service.i64_at(&["port"]).and_then(|port| u16::try_from(port).ok()).unwrap_or(443);
    let path = if text("path").starts_with('/') { text("path").to_string() } else { format!("/{}", text("path")) };
    let dns = format!("{name}.{namespace}.svc");
    let url = format!("https://{dns}:{port}{path}");
    let (host, to) =
        crate::services::resolve(server, namespace, name, port).map_err(|error| format!("Post {url:?}: {error}"))?;
    Ok(Place { host, port: to, name: dns, path, url })
}
