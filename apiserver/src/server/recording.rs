//! What the walk records of a request for the audit log.

use apimachinery::gotext;
use apimachinery::status::Status;
use http::StatusCode;

use super::walk::Context;
use crate::authorization::{Attributes, sanitize};
use crate::response::{self, Response};

/// Begins the audit record, if the policy wants one. A request whose first event is lost is not served, if
/// the backend is that strict.
pub(super) async fn record(cx: &mut Context) -> Option<Response> {
    let record = begin_record(cx)?;
    if !Box::pin(record.received()).await {
        let uri = cx.uri.path_and_query().map_or("/", |uri| uri.as_str());
        let text = format!("Internal Server Error: {}: failed to store audit event\n", gotext::quote(uri));
        return Some(response::text(StatusCode::INTERNAL_SERVER_ERROR, sanitize(&text)));
    }
    cx.record = Some(record);
    None
}

fn begin_record(cx: &Context) -> Option<Box<crate::audit::Record>> {
    let audit = cx.server.audit.as_ref()?;
    let attributes = Attributes::of(&cx.user, &cx.info, &cx.query);
    let uri = cx.uri.path_and_query().map_or(cx.path.as_str(), |uri| uri.as_str());
    let peer = cx.peer.as_ref().map(|peer| peer.address().ip());
    let facts = crate::audit::Facts {
        audit_id: &cx.audit_id,
        uri,
        headers: &cx.headers,
        peer,
        received: cx.received,
        latencies: &cx.latencies,
    };
    audit.begin(&attributes, &facts).map(Box::new)
}

/// Answers a request that has no user, and records it.
pub(super) async fn refuse(cx: &Context, status: &Status, why: &str) -> Response {
    let answer = response::status(status, cx.plain_format());
    match begin_record(cx) {
        Some(record) => Box::pin(record.refused(why, answer)).await,
        None => answer,
    }
}

/// Which credentials a request came with, for the audit log.
pub(super) fn attempted(cx: &Context) -> String {
    let header = cx.headers.get(http::header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let scheme = |name: &str| {
        let start = header.trim().split(' ').next().unwrap_or_default();
        start.eq_ignore_ascii_case(name) && header.trim().contains(' ')
    };
    let mut methods = Vec::new();
    for (name, used) in [
        ("basic", scheme("basic")),
        ("bearer", scheme("bearer")),
        ("access_token", cx.query.get("access_token").is_some_and(|token| !token.trim().is_empty())),
        ("x509", cx.peer.as_ref().is_some_and(|peer| !peer.certificates().is_empty())),
    ] {
        if used {
            methods.push(name);
        }
    }
    if methods.is_empty() {
        return "Authentication failed, no credentials provided".to_string();
    }
    format!("Authentication failed, attempted: {}", methods.join(", "))
}
