//! Requests passed on to an extension server, with the identity of their user in the headers that the
//! front-proxy certificate vouches for.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::header::{HeaderName, LOCATION};
use http::{HeaderMap, HeaderValue, Request, StatusCode, Version};

use super::resolve;
use super::routes::ApiService;
use crate::proxy::hop::{self, wants_upgrade};
use crate::request::UserInfo;
use crate::response::{self, Response};
use crate::server::walk::Context;

/// Discovery is cheap and every client waits for it.
const DISCOVERY_TIMEOUT: Duration = Duration::from_secs(5);

const USER: HeaderName = HeaderName::from_static("x-remote-user");
const UID: HeaderName = HeaderName::from_static("x-remote-uid");
const GROUP: HeaderName = HeaderName::from_static("x-remote-group");
const EXTRA: &str = "x-remote-extra-";

/// A failure on the way, as upstream's proxy words it: plain text.
fn failure(code: StatusCode, text: &str) -> Response {
    response::text(code, format!("{text}\n"))
}

/// Replaces whatever a client claimed about the user by what this server knows.
pub fn identify(headers: &mut HeaderMap, user: &UserInfo) {
    let claimed: Vec<HeaderName> = headers.keys().filter(|name| name.as_str().starts_with(EXTRA)).cloned().collect();
    for name in [USER, UID, GROUP].into_iter().chain(claimed) {
        headers.remove(name);
    }
    let mut put = |name: HeaderName, text: &str| {
        // Names hold any UTF-8; what no header can carry is left out, and the other side then refuses.
        if let Ok(value) = HeaderValue::from_bytes(text.as_bytes()) {
            headers.append(name, value);
        }
    };
    put(USER, &user.name);
    if !user.uid.is_empty() {
        put(UID, &user.uid);
    }
    for group in &user.groups {
        put(GROUP, group);
    }
    for (key, values) in &user.extra {
        let Ok(name) = HeaderName::try_from(format!("{EXTRA}{}", escaped(key))) else { continue };
        for value in values {
            put(name.clone(), value);
        }
    }
}

/// A key of extra as part of a header's name: everything that no token may hold is percent-encoded.
fn escaped(key: &str) -> String {
    let mut out = String::with_capacity(key.len());
    for byte in key.bytes() {
        let legal = byte.is_ascii_alphanumeric() || b"!#$&'*+-.^_`|~".contains(&byte);
        if legal {
            out.push(char::from(byte));
        } else {
            write!(out, "%{byte:02X}").expect("writing to a String cannot fail");
        }
    }
    out
}

/// Passes a request on and gives the answer back as it comes.
pub async fn forward(cx: &mut Context, remote: &Arc<ApiService>, body: Body) -> Response {
    if !remote.available {
        return failure(StatusCode::SERVICE_UNAVAILABLE, "service unavailable");
    }
    let Some(service) = &remote.service else { return response::page_not_found() };
    let link = match &remote.link {
        Some(Ok(link)) => link,
        Some(Err(error)) => return failure(StatusCode::INTERNAL_SERVER_ERROR, error),
        None => return failure(StatusCode::NOT_FOUND, ""),
    };
    let authority = match resolve::resolve(&cx.server, service).await {
        Ok(authority) => authority,
        Err(error) => {
            tracing::error!(namespace = service.namespace, service = service.name, %error, "resolving a service");
            return failure(StatusCode::SERVICE_UNAVAILABLE, "service unavailable");
        }
    };
    let path = cx.uri.path_and_query().map_or("/", |path| path.as_str());
    let Ok(uri) = http::Uri::builder().scheme("https").authority(authority.as_str()).path_and_query(path).build()
    else {
        return failure(StatusCode::SERVICE_UNAVAILABLE, "service unavailable");
    };
    let upgrade = wants_upgrade(&cx.headers);
    let mut request = Request::new(body);
    *request.method_mut() = cx.method.clone();
    *request.uri_mut() = uri;
    *request.version_mut() = Version::HTTP_11;
    *request.headers_mut() = headers(cx, &authority, upgrade);
    let sent = async { if upgrade { link.upgrade(request).await } else { link.send(request).await } };
    // `/apis/<group>/<version>`
    let discovery = !cx.info.is_resource && cx.path.trim_matches('/').split('/').count() == 3;
    let answered = if discovery {
        match tokio::time::timeout(DISCOVERY_TIMEOUT, sent).await {
            Ok(answered) => answered,
            Err(_) => Err("context deadline exceeded".to_string()),
        }
    } else {
        sent.await
    };
    let mut answer = match answered {
        Ok(answer) => answer,
        Err(error) if upgrade => return failure(StatusCode::SERVICE_UNAVAILABLE, &error),
        Err(error) => {
            let text = format!("error trying to reach service: {error}");
            return failure(StatusCode::SERVICE_UNAVAILABLE, &text);
        }
    };
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        let refused = "request connection cannot be hijacked: an upgrade needs HTTP/1.1";
        return hop::join(cx, answer).unwrap_or_else(|| failure(StatusCode::SERVICE_UNAVAILABLE, refused));
    }
    if upgrade && !answer.status().is_client_error() && !answer.status().is_server_error() {
        let text = format!("invalid upgrade response: status code {}", answer.status().as_u16());
        return failure(StatusCode::SERVICE_UNAVAILABLE, &text);
    }
    if cx.server.config.front_proxy.reject_redirects
        && answer.status().is_redirection()
        && answer.headers().contains_key(LOCATION)
    {
        let mut refused =
            Response::new(Body::from("the backend attempted to redirect this request, which is not permitted"));
        *refused.status_mut() = StatusCode::BAD_GATEWAY;
        return refused;
    }
    hop::strip(answer.headers_mut());
    let (parts, body) = answer.into_parts();
    let mut reply = Response::new(Body::new(body));
    *reply.status_mut() = parts.status;
    *reply.headers_mut() = parts.headers;
    reply
}

fn headers(cx: &Context, authority: &str, upgrade: bool) -> HeaderMap {
    let mut headers = hop::forwarded(&cx.headers, upgrade);
    identify(&mut headers, &cx.user);
    if let Some(peer) = &cx.peer {
        let own = peer.address().ip().to_string();
        let before: Vec<&str> =
            headers.get_all("x-forwarded-for").iter().filter_map(|value| value.to_str().ok()).collect();
        let all = before.into_iter().chain([own.as_str()]).collect::<Vec<_>>().join(", ");
        if let Ok(value) = HeaderValue::from_str(&all) {
            headers.insert(HeaderName::from_static("x-forwarded-for"), value);
        }
    }
    let forwarded = [
        (HeaderName::from_static("x-forwarded-uri"), cx.uri.path()),
        (HeaderName::from_static("x-forwarded-host"), authority),
        (HeaderName::from_static("x-forwarded-proto"), "https"),
        (HeaderName::from_static("audit-id"), cx.audit_id.as_str()),
    ];
    for (name, text) in forwarded {
        if let Ok(value) = HeaderValue::from_str(text) {
            headers.insert(name, value);
        }
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identity_replaces_what_was_claimed() {
        let mut headers = HeaderMap::new();
        headers.insert("x-remote-user", HeaderValue::from_static("root"));
        headers.insert("x-remote-extra-scope", HeaderValue::from_static("all"));
        let mut user = UserInfo::new("alice", &["dev"]);
        user.extra.insert("authentication.kubernetes.io/pod name".to_string(), vec!["a".to_string()]);
        identify(&mut headers, &user);
        let all = |name: &str| -> Vec<&str> {
            headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect()
        };
        assert_eq!(all("x-remote-user"), ["alice"]);
        assert_eq!(all("x-remote-group"), ["dev", "system:authenticated"]);
        assert!(all("x-remote-extra-scope").is_empty() && all("x-remote-uid").is_empty());
        assert_eq!(all("x-remote-extra-authentication.kubernetes.io%2fpod%20name"), ["a"]);
    }
}
