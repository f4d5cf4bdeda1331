//! What all requests that are passed on to somebody else have in common: headers that belong to one connection stay
//! behind, credentials end here, and both connections are joined when both sides change the protocol.

use axum::body::Body;
use http::header::{AUTHORIZATION, CONNECTION, HOST, HeaderName, UPGRADE};
use http::{HeaderMap, HeaderValue, StatusCode};
use hyper_util::rt::TokioIo;

use crate::response::Response;
use crate::server::walk::Context;

/// Headers that belong to one connection.
const HOP_BY_HOP: [&str; 8] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
];

/// Whether a request asks for another protocol.
pub fn wants_upgrade(headers: &HeaderMap) -> bool {
    headers.contains_key(UPGRADE)
        && headers
            .get_all(CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .any(|value| value.split(',').any(|part| part.trim().eq_ignore_ascii_case("upgrade")))
}

/// Takes out what belongs to one connection, and what its `Connection` header names.
pub fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}

/// A request's headers as they travel on: without those of its connection, and without credentials. The other side is
/// told who asks, if anything, not how we know.
pub fn forwarded(headers: &HeaderMap, upgrade: bool) -> HeaderMap {
    let mut out = headers.clone();
    let protocol = out.get(UPGRADE).cloned();
    strip(&mut out);
    let impersonation: Vec<HeaderName> =
        out.keys().filter(|name| name.as_str().starts_with("impersonate-")).cloned().collect();
    for name in [UPGRADE, HOST, AUTHORIZATION].into_iter().chain(impersonation) {
        out.remove(name);
    }
    if upgrade && let Some(protocol) = protocol {
        out.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        out.insert(UPGRADE, protocol);
    }
    out
}

/// Joins both connections once both sides have changed the protocol; `None` where the client's cannot, as in HTTP/2.
pub fn join(cx: &mut Context, mut answer: http::Response<hyper::body::Incoming>) -> Option<Response> {
    let client = cx.extensions.remove::<hyper::upgrade::OnUpgrade>()?;
    let server = hyper::upgrade::on(&mut answer);
    let shutdown = cx.server.shutdown.clone();
    tokio::spawn(async move {
        let (client, server) = match tokio::try_join!(client, server) {
            Ok(both) => both,
            Err(error) => {
                tracing::debug!(%error, "an upgrade did not happen");
                return;
            }
        };
        let (mut client, mut server) = (TokioIo::new(client), TokioIo::new(server));
        tokio::select! {
            _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
            () = shutdown.cancelled() => {}
        }
    });
    let (parts, _) = answer.into_parts();
    let mut reply = Response::new(Body::empty());
    *reply.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *reply.headers_mut() = parts.headers;
    Some(reply)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn connection_headers_and_credentials_stay_behind() {
        let asked = headers(&[
            ("connection", "close, X-Private"),
            ("x-private", "1"),
            ("te", "trailers"),
            ("accept", "application/json"),
            ("authorization", "Bearer x"),
            ("impersonate-user", "root"),
            ("host", "here"),
            ("upgrade", "SPDY/3.1"),
        ]);
        assert_eq!(forwarded(&asked, false), headers(&[("accept", "application/json")]));
        let mut answered = asked;
        strip(&mut answered);
        assert!(!answered.contains_key("x-private") && !answered.contains_key("te") && answered.contains_key("accept"));
    }

    #[test]
    fn an_upgrade_is_asked_for_again() {
        let asked = headers(&[("connection", "keep-alive, Upgrade"), ("upgrade", "websocket"), ("accept", "a/b")]);
        assert!(wants_upgrade(&asked));
        let want = headers(&[("connection", "Upgrade"), ("upgrade", "websocket"), ("accept", "a/b")]);
        assert_eq!(forwarded(&asked, true), want);
        assert!(!wants_upgrade(&headers(&[("connection", "Upgrade")])));
        assert!(!wants_upgrade(&headers(&[("upgrade", "websocket"), ("connection", "close")])));
    }
}
