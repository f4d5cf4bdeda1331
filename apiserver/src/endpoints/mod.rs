//! Paths that are no resources: discovery, OpenAPI, version, health, metrics, token issuer.

pub mod discovery;
pub mod gnostic;
pub mod issuer;
pub mod openapi;
pub mod order;

use apimachinery::gvk::GroupResource;
use apimachinery::status::Status;
use axum::body::Body;
use bytes::Bytes;
use http::header::{ETAG, IF_NONE_MATCH};
use http::{HeaderValue, Method, StatusCode};
use serde_json::json;

use crate::request::accept;
use crate::response::{self, Response};
use crate::server::walk::Context;

/// Documents that depend only on what is served; made on first use.
#[derive(Default)]
pub struct Documents {
    pub discovery: discovery::Documents,
    pub openapi: openapi::Documents,
}

/// Answers a request for a plain path.
///
/// # Errors
/// 404 and 405 in upstream's form.
pub async fn dispatch(cx: &mut Context, _body: Body) -> Result<Response, Status> {
    let path = cx.path.clone();
    if let Some(page) = cx.server.zpages.answer(&path, &cx.headers, cx.query.get("pretty")) {
        return Ok(response::unrecorded(page));
    }
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let found = match parts.as_slice() {
        [""] => {
            let paths = root_paths(cx);
            let answer = response::json(StatusCode::OK, &json!({"paths": paths}), cx.plain_format().pretty);
            Some(response::unrecorded(answer))
        }
        ["version"] => {
            let answer = || response::unrecorded(response::json(StatusCode::OK, &api::version(), true));
            return only_get(cx, |cx| accept::route_produces(&cx.headers, &[accept::JSON]).map(|()| answer()));
        }
        // These two have no routes below them, not even an empty one.
        ["livez" | "readyz" | "healthz" | "metrics"] if path.ends_with('/') => None,
        ["openapi", "v2" | "v3", ..] if path.ends_with('/') && path != "/openapi/v3/" => None,
        [endpoint @ ("livez" | "readyz" | "healthz"), rest @ ..] => health(cx, endpoint, rest),
        ["metrics"] => Some(metrics(cx)),
        ["debug", "api_priority_and_fairness", dump] if cx.server.config.priority_and_fairness => match *dump {
            "dump_priority_levels" => {
                Some(response::text(StatusCode::OK, cx.server.flow_control.dump_priority_levels()))
            }
            "dump_queues" => Some(response::text(StatusCode::OK, cx.server.flow_control.dump_queues())),
            "dump_requests" => {
                let details = cx.query.get("includeRequestDetails").is_some_and(|text| !text.is_empty());
                Some(response::text(StatusCode::OK, cx.server.flow_control.dump_requests(details)))
            }
            _ => None,
        },
        [".well-known", "openid-configuration"] => {
            let answer = |cx: &mut Context| issuer::configuration(cx).unwrap_or_else(response::page_not_found);
            return only_get(cx, |cx| Ok(response::unrecorded(answer(cx))));
        }
        ["openid", "v1", "jwks"] => {
            return only_get(cx, |cx| match issuer::keys(cx) {
                None => Ok(response::page_not_found()),
                Some(answer) => {
                    accept::route_produces(&cx.headers, &[issuer::KEYS]).map(|()| response::unrecorded(answer))
                }
            });
        }
        // What upstream's aggregator serves, it serves to every method.
        ["openapi", "v2"] => return openapi::v2(cx).map(response::unrecorded),
        ["openapi", "v3", rest @ ..] => {
            return openapi::v3(cx, &rest.join("/")).await.map(response::unrecorded);
        }
        ["api"] => return only_get(cx, discovery::legacy),
        ["api", version] => return only_get(cx, |cx| discovery::resources(cx, "", version)),
        ["apis"] => return discovery::groups(cx),
        ["apis", group] => return discovery::group(cx, group),
        ["apis", group, _] if !discovery::knows(cx, group) => None,
        ["apis", group, version] => return only_get(cx, |cx| discovery::resources(cx, group, version)),
        _ => None,
    };
    Ok(found.unwrap_or_else(response::page_not_found))
}

fn only_get(
    cx: &mut Context,
    answer: impl FnOnce(&mut Context) -> Result<Response, Status>,
) -> Result<Response, Status> {
    if cx.method == Method::HEAD {
        let mut answer = response::json(
            StatusCode::METHOD_NOT_ALLOWED,
            &Status::generic(405, "", &GroupResource::default(), "", "").to_value(),
            false,
        );
        *answer.body_mut() = Body::empty();
        return Ok(answer);
    }
    if cx.method != Method::GET {
        return Err(Status::generic(405, "", &GroupResource::default(), "", ""));
    }
    answer(cx)
}

/// What `GET /` lists.
fn root_paths(cx: &Context) -> Vec<String> {
    let mut paths: Vec<String> = [
        "/.well-known/openid-configuration",
        "/api",
        "/apis",
        "/apis/",
        "/healthz",
        "/livez",
        "/metrics",
        "/openapi/v2",
        "/openapi/v3",
        "/openapi/v3/",
        "/openid/v1/jwks",
        "/readyz",
        "/version",
    ]
    .map(String::from)
    .to_vec();
    for served in cx.server.registry.rows() {
        let resource = &served.resource;
        if resource.group.is_empty() {
            paths.push(format!("/api/{}", resource.version));
        } else {
            paths.push(format!("/apis/{}", resource.group));
            paths.push(format!("/apis/{}/{}", resource.group, resource.version));
        }
    }
    paths.extend(cx.server.zpages.served().map(str::to_string));
    for checks in [&cx.server.healthz, &cx.server.livez, &cx.server.readyz] {
        paths.extend(checks.paths());
    }
    paths.sort();
    paths.dedup();
    paths
}

fn health(cx: &Context, endpoint: &str, rest: &[&str]) -> Option<Response> {
    let checks = match endpoint {
        "livez" => &cx.server.livez,
        "readyz" => &cx.server.readyz,
        _ => &cx.server.healthz,
    };
    if rest.is_empty() {
        let (code, body) = checks.run(cx.uri.query().unwrap_or_default());
        return Some(response::text(code, body));
    }
    Some(match checks.run_one(&rest.join("/"))? {
        (code @ StatusCode::OK, body) => response::bytes(code, "text/plain; charset=utf-8", body),
        (code, body) => response::text(code, body),
    })
}

fn metrics(cx: &Context) -> Response {
    response::bytes(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", cx.server.metrics.text(&cx.server))
}

/// A document that changes rarely: with an ETag, and 304 for those who have it.
pub fn cached(cx: &Context, content_type: &'static str, body: Bytes, etag: &str) -> Response {
    let quoted = format!("\"{etag}\"");
    let known = cx
        .headers
        .get(IF_NONE_MATCH)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.split(',').any(|tag| tag.trim() == quoted));
    let mut answer = if known {
        let mut answer = Response::new(Body::empty());
        *answer.status_mut() = StatusCode::NOT_MODIFIED;
        answer
    } else {
        response::bytes(StatusCode::OK, content_type, body)
    };
    if let Ok(value) = HeaderValue::from_str(&quoted) {
        answer.headers_mut().insert(ETAG, value);
    }
    answer
}

/// The route check of discovery documents.
///
/// # Errors
/// 406.
pub fn produces(cx: &Context) -> Result<(), Status> {
    accept::route_produces(&cx.headers, &accept::Route::Object.types(false))
}
