//! Requests that end at a kubelet, a pod or a service: logs, exec, attach, port-forward, proxy.
//!
//! The server checks who asks and for what, finds the node, and then only moves bytes: an upgrade
//! (WebSocket, SPDY) is passed on as it came, and both connections are joined.

pub(crate) mod hop;
mod rewrite;
mod target;
mod transport;

use std::sync::Arc;

use apimachinery::object::ObjectExt as _;
use apimachinery::status::Status;
use axum::body::Body;
use http::header::{HOST, HeaderName};
use http::{HeaderMap, Method, Request, StatusCode, Uri};
use serde_json::Value;

use crate::cache::Freshness;
use crate::handlers::get;
use crate::registry::Served;
use crate::response::{Response, websocket};
use crate::server::walk::Context;
use hop::{forwarded, wants_upgrade};
pub(crate) use target::Target;
pub use transport::{Error, KubeletClient};

/// The pod of a request, and where its kubelet listens.
async fn pod_and_kubelet(cx: &Context, served: &Served) -> Result<(Value, target::Target), Status> {
    let (namespace, name) = (&cx.info.namespace, &cx.info.name);
    let pod = get::read_at(served, namespace, name, Freshness::Consistent).await?.tree();
    let node = pod.str_at(&["spec", "nodeName"]).unwrap_or_default().to_string();
    if node.is_empty() {
        return Err(Status::bad_request(format!("pod {name} does not have a host assigned")));
    }
    let target = target::kubelet_of_pod(&cx.server, &node).await?;
    Ok((pod, target))
}

/// The container asked for, or the only one there is.
fn container(cx: &Context, pod: &Value) -> Result<String, Status> {
    let names = |list: &str| -> Vec<String> {
        pod.list_at(&["spec", list])
            .iter()
            .filter_map(|container| container.str_at(&["name"]))
            .map(str::to_string)
            .collect()
    };
    let (containers, inits, ephemeral) = (names("containers"), names("initContainers"), names("ephemeralContainers"));
    let wanted = cx.query.get("container").unwrap_or_default();
    let name = &cx.info.name;
    if wanted.is_empty() {
        if let [only] = containers.as_slice() {
            return Ok(only.clone());
        }
        if let Some(default) = pod.annotation("kubectl.kubernetes.io/default-container")
            && containers.iter().any(|have| have == default)
        {
            return Ok(default.to_string());
        }
        let mut text =
            format!("a container name must be specified for pod {name}, choose one of: [{}]", containers.join(" "));
        if !inits.is_empty() {
            text.push_str(&format!(" or one of the init containers: [{}]", inits.join(" ")));
        }
        return Err(Status::bad_request(text));
    }
    if [&containers, &inits, &ephemeral].iter().any(|list| list.iter().any(|have| have == wanted)) {
        return Ok(wanted.to_string());
    }
    Err(Status::bad_request(format!("container {wanted} is not valid for pod {name}")))
}

/// Parameters of a query that a kubelet understands under the same name.
fn passed_on(cx: &Context, names: &[&str]) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    for (name, value) in cx.query.pairs() {
        if names.contains(&name.as_str()) {
            query.append_pair(name, value);
        }
    }
    query.finish()
}

/// `pods/log`: the container's log from its kubelet, as it comes.
///
/// # Errors
/// 400 for containers that do not exist or have not started.
pub async fn log(cx: &mut Context, served: &Arc<Served>) -> Result<Response, Status> {
    check_log_options(cx)?;
    let (namespace, name) = (cx.info.namespace.clone(), cx.info.name.clone());
    let pod = get::read_at(served, &namespace, &name, Freshness::Consistent).await?.tree();
    let container = container(cx, &pod)?;
    let node = pod.str_at(&["spec", "nodeName"]).unwrap_or_default().to_string();
    if node.is_empty() {
        // Not scheduled: nothing was logged yet.
        let mut nothing = Response::new(Body::empty());
        *nothing.status_mut() = StatusCode::NO_CONTENT;
        return Ok(nothing);
    }
    let target = target::kubelet_of_pod(&cx.server, &node).await?;
    let mut query = passed_on(
        cx,
        &["follow", "previous", "sinceSeconds", "sinceTime", "timestamps", "tailLines", "limitBytes", "stream"],
    );
    if !query.is_empty() {
        query.insert(0, '?');
    }
    let path = format!("/containerLogs/{namespace}/{name}/{container}{query}");
    let request = request(Method::GET, &target, &path, HeaderMap::new(), Body::empty())?;
    let answer = cx.server.kubelet.send(&target, request).await?;
    if answer.status() != StatusCode::OK {
        return Err(kubelet_error(answer).await);
    }
    let (parts, body) = answer.into_parts();
    if websocket::is_wanted(&cx.headers) {
        return Ok(websocket::log(cx, Body::new(body)));
    }
    let mut answer = Response::new(Body::new(body));
    let content_type =
        parts.headers.get(http::header::CONTENT_TYPE).cloned().unwrap_or(http::HeaderValue::from_static("text/plain"));
    answer.headers_mut().insert(http::header::CONTENT_TYPE, content_type);
    Ok(answer)
}

fn check_log_options(cx: &Context) -> Result<(), Status> {
    use apimachinery::field::{self, Path};
    let mut errors = field::ErrorList::new();
    let number = |name: &'static str| cx.query.integer(name).map_err(Status::bad_request);
    if let Some(lines) = number("tailLines")?
        && lines < 0
    {
        errors.push(field::invalid(&Path::new("tailLines"), lines, "must be greater than or equal to 0"));
    }
    if let Some(bytes) = number("limitBytes")?
        && bytes < 1
    {
        errors.push(field::invalid(&Path::new("limitBytes"), bytes, "must be greater than 0"));
    }
    let since = number("sinceSeconds")?;
    if since.is_some() && cx.query.has("sinceTime") {
        errors.push(field::forbidden(&Path::nil(), "at most one of `sinceTime` or `sinceSeconds` may be specified"));
    } else if let Some(seconds) = since
        && seconds < 1
    {
        errors.push(field::invalid(&Path::new("sinceSeconds"), seconds, "must be greater than 0"));
    }
    if errors.is_empty() {
        return Ok(());
    }
    Err(Status::invalid(&apimachinery::gvk::GroupKind::new("", "PodLogOptions"), &cx.info.name, &errors))
}

fn request(
    method: Method,
    target: &target::Target,
    path: &str,
    headers: HeaderMap,
    body: Body,
) -> Result<Request<Body>, Status> {
    let uri: Uri = path.parse().map_err(|error| Status::bad_request(format!("bad path {path:?}: {error}")))?;
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    let host = http::HeaderValue::from_str(&target.authority())
        .map_err(|error| Status::internal(format!("bad host: {error}")))?;
    request.headers_mut().insert(HOST, host);
    Ok(request)
}

/// What a kubelet said instead of doing what was asked.
async fn kubelet_error(answer: http::Response<hyper::body::Incoming>) -> Status {
    use http_body_util::BodyExt as _;
    let code = answer.status().as_u16();
    let body = http_body_util::Limited::new(answer.into_body(), 64 * 1024)
        .collect()
        .await
        .map(|body| body.to_bytes())
        .unwrap_or_default();
    if let Some(status) = serde_json::from_slice::<Value>(&body).ok().and_then(|value| Status::from_value(&value)) {
        return status;
    }
    let text = String::from_utf8_lossy(&body).trim().to_string();
    match code {
        400 => Status::bad_request(text),
        404 => Status::failure(404, apimachinery::status::reason::NOT_FOUND, text),
        403 => Status::failure(403, apimachinery::status::reason::FORBIDDEN, text),
        401 => Status::failure(401, apimachinery::status::reason::UNAUTHORIZED, text),
        _ => Status::internal(text),
    }
}

/// `pods/exec`, `pods/attach`, `pods/portforward`.
///
/// # Errors
/// 400 for containers that do not exist and for requests that are no upgrade.
pub async fn stream(cx: &mut Context, served: &Arc<Served>, body: Body) -> Result<Response, Status> {
    let (pod, target) = pod_and_kubelet(cx, served).await?;
    let (namespace, name) = (cx.info.namespace.clone(), cx.info.name.clone());
    let phase = pod.str_at(&["status", "phase"]).unwrap_or_default();
    let path = match cx.info.subresource.as_str() {
        "portforward" => {
            if matches!(phase, "Succeeded" | "Failed") {
                return Err(Status::bad_request(format!(
                    "cannot port-forward to a completed pod; current phase is {phase}"
                )));
            }
            let query = passed_on(cx, &["ports"]);
            let query = query.replace("ports=", "port=");
            format!("/portForward/{namespace}/{name}?{query}")
        }
        verb => {
            if matches!(phase, "Succeeded" | "Failed") {
                return Err(Status::bad_request(format!(
                    "cannot exec into a container in a completed pod; current phase is {phase}"
                )));
            }
            let container = container(cx, &pod)?;
            let mut query = url::form_urlencoded::Serializer::new(String::new());
            let mut any = false;
            for (ours, theirs) in [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")] {
                // With a terminal there is one output.
                if cx.query.flag(ours) && !(ours == "stderr" && cx.query.flag("tty")) {
                    query.append_pair(theirs, "1");
                    any |= ours != "tty";
                }
            }
            if !any {
                return Err(Status::bad_request("you must specify at least 1 of stdin, stdout, stderr"));
            }
            if verb == "exec" {
                if !cx.query.has("command") {
                    return Err(Status::bad_request("you must specify at least 1 command for the container"));
                }
                for command in cx.query.all("command") {
                    query.append_pair("command", command);
                }
            }
            format!("/{verb}/{namespace}/{name}/{container}?{}", query.finish())
        }
    };
    if !wants_upgrade(&cx.headers) {
        return Err(Status::bad_request("Upgrade request required"));
    }
    forward(cx, &target, &path, body).await
}

/// `nodes/proxy`, `pods/proxy`, `services/proxy`.
///
/// # Errors
/// 404 for what does not exist, 503 when nobody answers there.
pub async fn proxy(cx: &mut Context, served: &Arc<Served>, body: Body) -> Result<Response, Status> {
    let target = match served.resource.plural.as_ref() {
        "nodes" => target::node(&cx.server, &cx.info.name).await?,
        "pods" => target::pod(cx, served).await?,
        "services" => target::service(cx, served).await?,
        _ => return Err(crate::handlers::method_not_allowed()),
    };
    let marker = "/proxy";
    let raw = cx.uri.path().to_string();
    let raw = raw.as_str();
    let rest = raw
        .find(&format!("/{}{marker}", raw_name(raw)))
        .map(|at| &raw[at + raw_name(raw).len() + 1 + marker.len()..])
        .unwrap_or_default();
    if rest.is_empty() && !wants_upgrade(&cx.headers) && matches!(cx.method, Method::GET | Method::HEAD) {
        return moved(cx);
    }
    let prefix = raw[..raw.len() - rest.len()].to_string();
    let mut path = if rest.is_empty() { "/".to_string() } else { rest.to_string() };
    if let Some(query) = cx.uri.query() {
        path.push('?');
        path.push_str(query);
    }
    let host = cx.headers.get(HOST).and_then(|value| value.to_str().ok()).map(str::to_string);
    let route = rewrite::Route {
        prefix,
        upstream: target.authority(),
        host: host.or_else(|| cx.uri.authority().map(ToString::to_string)).unwrap_or_default(),
        scheme: "https",
    };
    for (name, value) in [
        ("x-forwarded-host", &route.host),
        ("x-forwarded-uri", &raw.to_string()),
        ("x-forwarded-proto", &"https".into()),
    ] {
        if let Ok(value) = http::HeaderValue::from_str(value) {
            cx.headers.insert(HeaderName::from_static(name), value);
        }
    }
    let reply = forward(cx, &target, &path, body).await?;
    if reply.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Ok(reply);
    }
    let (parts, body) = reply.into_parts();
    Ok(rewrite::answer(parts, body, &route).await)
}

/// Leads to the root of the endpoint: relative links of its page would miss the proxy otherwise.
fn moved(cx: &Context) -> Result<Response, Status> {
    let query = cx.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let location = http::HeaderValue::from_str(&format!("{}/{query}", cx.uri.path()))
        .map_err(|error| Status::bad_request(error.to_string()))?;
    let mut reply = Response::new(Body::empty());
    *reply.status_mut() = StatusCode::MOVED_PERMANENTLY;
    reply.headers_mut().insert(http::header::LOCATION, location);
    Ok(reply)
}

/// The segment of a path that stands before its first `proxy`.
fn raw_name(path: &str) -> &str {
    let mut previous = "";
    for part in path.split('/') {
        if part == "proxy" {
            return previous;
        }
        previous = part;
    }
    previous
}

/// Sends a request on and gives the answer back; joins the connections when both sides upgrade.
async fn forward(cx: &mut Context, target: &target::Target, path: &str, body: Body) -> Result<Response, Status> {
    let upgrade = wants_upgrade(&cx.headers);
    let mut headers = forwarded(&cx.headers, upgrade);
    if let Some(peer) = &cx.peer
        && let Ok(value) = http::HeaderValue::from_str(&peer.address().ip().to_string())
    {
        headers.append(HeaderName::from_static("x-forwarded-for"), value);
    }
    let request = request(cx.method.clone(), target, path, headers, body)?;
    let answer = cx.server.kubelet.send(target, request).await?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        let (mut parts, body) = answer.into_parts();
        hop::strip(&mut parts.headers);
        return Ok(Response::from_parts(parts, Body::new(body)));
    }
    hop::join(cx, answer).ok_or_else(|| Status::bad_request("this connection cannot be upgraded; use HTTP/1.1"))
}
