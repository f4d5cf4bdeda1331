//! The walk of a request: one list of stages, in the order in which they happen.
//!
//! TLS has happened (`component_base::serving`; headers and URLs beyond 64 KiB end there), and routing, decoding, admission, storing and
//! encoding are the handlers' part (`handlers`).

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::status::Status;
use axum::body::Body;
use component_base::serving::Peer;
use futures::FutureExt as _;
use http::{HeaderName, HeaderValue, Request, StatusCode};
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::{Server, impersonation};
use crate::authentication::{Outcome, bearer, blank_before_token, subprotocol};
use crate::authorization::{Attributes, Decision};
use crate::request::accept::{self, Allowed, Format};
use crate::request::notes::{Annotations, Warnings};
use crate::request::user::APISERVER;
use crate::request::{Query, RequestInfo, UserInfo};
use crate::response::{self, Response, websocket};
use crate::{aggregator, endpoints, handlers};

/// Names a request in logs, here and at the client.
const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");

/// Where the request belongs, for those who look into who waits for whom.
const FLOW_SCHEMA: HeaderName = HeaderName::from_static("x-kubernetes-pf-flowschema-uid");
const PRIORITY_LEVEL: HeaderName = HeaderName::from_static("x-kubernetes-pf-prioritylevel-uid");

/// A user given to a request that never was on a socket.
#[derive(Clone, Debug)]
pub struct InProcessUser(pub UserInfo);

/// What is known about a request; grows along the walk.
pub struct Context {
    pub server: Arc<Server>,
    pub method: http::Method,
    pub uri: http::Uri,
    /// The path, unescaped.
    pub path: String,
    pub query: Query,
    pub headers: http::HeaderMap,
    pub version: http::Version,
    pub extensions: http::Extensions,
    pub peer: Option<Peer>,
    pub audit_id: String,
    pub info: RequestInfo,
    /// The resource that the request is about, once it was found.
    pub served: Option<Arc<crate::registry::Served>>,
    /// How long the client would have the request take at most.
    pub timeout: Option<Duration>,
    pub user: UserInfo,
    /// Become Warning headers of the answer.
    pub warnings: Warnings,
    /// Go into the audit log.
    pub annotations: Annotations,
    /// Uids of the FlowSchema and the priority level the request belongs to.
    pub flow: Option<(Arc<str>, Arc<str>)>,
    /// The text in which a member of kept text came ([`crate::cache::raw`]).
    pub text: Option<String>,
    /// What is recorded of the request.
    pub record: Option<crate::audit::Record>,
}

impl Context {
    /// How errors, and answers without a shape of their own, are written.
    pub fn plain_format(&self) -> Format {
        accept::negotiate(&self.headers, &self.query, Allowed::Transforms)
            .map(|format| Format { transform: None, ..format })
            .unwrap_or_default()
    }

    /// Notes which object the request brings, for the audit log.
    pub fn about(&mut self, object: &serde_json::Value) {
        if let Some(record) = &mut self.record {
            record.about(object);
        }
    }

    /// The first part of the User-Agent: who owns the fields of a writer that names no manager.
    pub fn field_manager(&self, named: &str) -> String {
        if !named.is_empty() {
            return named.to_string();
        }
        let agent =
            self.headers.get(http::header::USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let manager = apimachinery::managed::manager_from_user_agent(agent);
        if manager.is_empty() { "unknown".to_string() } else { manager }
    }
}

/// Answers one request.
pub async fn walk(server: Arc<Server>, request: Request<Body>) -> Response {
    let started = server.clock.monotonic();
    let (mut cx, body) = begin(server.clone(), request);
    let outcome = AssertUnwindSafe(stages(&mut cx, body)).catch_unwind().await;
    if outcome.is_err()
        && let Some(record) = cx.record.take()
    {
        record.panicked();
    }
    let mut answer = match outcome {
        Ok(Ok(answer)) => answer,
        Ok(Err(status)) => {
            if status.code >= 500 {
                tracing::warn!(path = cx.path, audit_id = cx.audit_id, code = status.code, error = %status.message, "request failed");
            }
            response::status(&status, cx.plain_format())
        }
        Err(panic) => {
            tracing::error!(path = cx.path, audit_id = cx.audit_id, panic = panic_text(&*panic), "a handler panicked");
            let text = format!(
                "This request caused apiserver to panic. Look in the logs for details (audit id {}).",
                cx.audit_id
            );
            response::status(&Status::internal(text), Format::default())
        }
    };
    if let Some(mut record) = cx.record.take() {
        record.annotate_all(cx.annotations.take());
        answer = record.finish(answer, cx.info.verb == "watch").await;
    }
    let connection = matches!(cx.info.subresource.as_str(), "log" | "exec" | "attach" | "portforward" | "proxy");
    if cx.info.verb != "watch" && !connection {
        answer = response::compress::compress(&cx.headers, answer);
    }
    finish(&cx, &mut answer);
    server.metrics.requests.observe(&cx, answer, server.clock.monotonic() - started)
}

/// The stages, each of which may answer early.
async fn stages(cx: &mut Context, body: Body) -> Result<Response, Status> {
    if let Some(refusal) = malformed(cx) {
        return Ok(refusal);
    }
    request_info(cx)?;
    let _in_flight = match enter(cx) {
        Ok(counted) => counted,
        Err(refusal) => return Ok(*refusal),
    };
    match deadline(cx)? {
        Some(limit) => within(limit, identified(cx, body)).await,
        None => identified(cx, body).await,
    }
}

/// The stages that need to know, or find out, who asks.
async fn identified(cx: &mut Context, body: Body) -> Result<Response, Status> {
    if let Some(refusal) = authenticate(cx).await {
        return Ok(refusal);
    }
    let body = record(cx, body).await;
    impersonate(cx).await?;
    let _turn = match wait_turn(cx).await {
        Ok(turn) => turn,
        Err(refusal) => return Ok(refusal),
    };
    authorize(cx).await?;
    let server = cx.server.clone();
    let _running = in_flight(cx).map(|kind| match kind {
        Kind::Mutating => server.metrics.mutating.enter(),
        Kind::Reading => server.metrics.reading.enter(),
    });
    route(cx, body).await
}

/// Request id, URL and headers taken apart.
fn begin(server: Arc<Server>, request: Request<Body>) -> (Context, Body) {
    let (parts, body) = request.into_parts();
    let audit_id = parts
        .headers
        .get(&AUDIT_ID)
        .and_then(|value| value.to_str().ok())
        .filter(|value| !value.is_empty() && value.len() <= 64)
        .map_or_else(|| uuid::Uuid::new_v4().to_string(), str::to_string);
    let raw_path = parts.uri.path();
    let path = crate::request::query::unescape(raw_path, false).unwrap_or_else(|| raw_path.to_string());
    let query = Query::parse(parts.uri.query().unwrap_or_default());
    let cx = Context {
        server,
        method: parts.method,
        path,
        query,
        peer: parts.extensions.get::<Peer>().cloned(),
        headers: parts.headers,
        version: parts.version,
        uri: parts.uri,
        extensions: parts.extensions,
        audit_id,
        info: RequestInfo::default(),
        served: None,
        timeout: None,
        user: UserInfo::default(),
        warnings: Warnings::default(),
        annotations: Annotations::default(),
        flow: None,
        text: None,
        record: None,
    };
    (cx, body)
}

/// Verb, resource, namespace and name.
fn request_info(cx: &mut Context) -> Result<(), Status> {
    cx.info = RequestInfo::new(&cx.method, &cx.path, &cx.query)
        .map_err(|error| Status::internal(format!("failed to create RequestInfo: {error}")))?;
    Ok(())
}

/// Where requests are answered whatever the server is about to do.
const ALWAYS: [&str; 4] = ["/readyz", "/livez", "/healthz", "/metrics"];

/// Counts the request, so that the server does not end before it; while the server ends, refuses it if that
/// is wanted. Now and then it is the last one on its connection.
fn enter(cx: &Context) -> Result<Option<TaskTrackerToken>, Box<Response>> {
    let Some(peer) = &cx.peer else { return Ok(None) };
    let (lifecycle, chance) = (&cx.server.lifecycle, cx.server.config.goaway_chance);
    if chance > 0.0 && cx.version == http::Version::HTTP_2 && rand::random::<f64>() < chance {
        peer.leave();
    }
    if lifecycle.send_retry_after && lifecycle.closing.is_cancelled() {
        let agent = cx.headers.get(http::header::USER_AGENT).and_then(|agent| agent.to_str().ok());
        let own = agent.is_some_and(|agent| agent.starts_with("kube-apiserver/"));
        if !own && !ALWAYS.iter().any(|path| cx.path.starts_with(path)) {
            peer.leave();
            let text = "The apiserver is shutting down, please try again later.\n";
            let mut answer = response::bytes(StatusCode::TOO_MANY_REQUESTS, "text/plain; charset=utf-8", text);
            answer.headers_mut().insert(http::header::RETRY_AFTER, HeaderValue::from_static("5"));
            answer.headers_mut().insert("x-content-type-options", HeaderValue::from_static("nosniff"));
            return Err(Box::new(answer));
        }
    }
    Ok(in_flight(cx).map(|_| lifecycle.request()))
}

/// How long a request that ends by itself may take: `--request-timeout`, or less with `?timeout=`.
fn deadline(cx: &mut Context) -> Result<Option<Duration>, Status> {
    if in_flight(cx).is_none() {
        return Ok(None);
    }
    let longest = cx.server.config.request_timeout;
    let Some(text) = cx.query.get("timeout").filter(|text| !text.is_empty()) else { return Ok(Some(longest)) };
    match component_base::duration::parse(text) {
        Ok(timeout) => cx.timeout = (!timeout.is_zero()).then_some(timeout),
        // No time at all is no error of the request.
        Err(component_base::duration::Error::Negative(_)) => {}
        Err(error) => {
            return Err(Status::bad_request(format!("invalid timeout specified in the request URL - {error}")));
        }
    }
    Ok(Some(cx.timeout.map_or(longest, |timeout| timeout.min(longest))))
}

/// Who is asking. A bad credential ends the walk with upstream's 401.
async fn authenticate(cx: &mut Context) -> Option<Response> {
    if let Some(InProcessUser(user)) = cx.extensions.get::<InProcessUser>() {
        cx.user = user.clone();
        return None;
    }
    if websocket::is_wanted(&cx.headers)
        && let Err(error) = subprotocol::take_token(&mut cx.headers)
    {
        tracing::debug!(%error, "unable to authenticate the request");
        return Some(response::status(&Status::unauthorized("Unauthorized"), cx.plain_format()));
    }
    let server = cx.server.clone();
    let authenticator = &server.authenticator;
    let begun = server.clock.monotonic();
    let mut outcome = authenticator.authenticate(&cx.path, &cx.headers, cx.peer.as_ref());
    if blank_before_token(&cx.headers) {
        let text = "the provided Authorization header contains extra space before the bearer token, and is ignored";
        cx.warnings.push(text.to_string());
    }
    if outcome == Outcome::Unauthorized
        && let Some(token) = bearer(&cx.headers)
        && let Some((user, _)) = authenticator.ask(token, None).await
    {
        outcome = Outcome::User(user);
    }
    if let Some(proxy) = &authenticator.front_proxy {
        proxy.strip(&mut cx.headers);
    }
    let user = match &outcome {
        Outcome::User(user) => Some(user.name.as_str()),
        Outcome::Unauthorized => None,
    };
    server.metrics.auth.authenticated(user, server.clock.monotonic() - begun);
    match outcome {
        Outcome::User(user) => {
            cx.user = user;
            None
        }
        Outcome::Unauthorized => Some(response::status(&Status::unauthorized("Unauthorized"), cx.plain_format())),
    }
}

/// Begins the audit record, if the policy wants one.
async fn record(cx: &mut Context, body: Body) -> Body {
    let Some(audit) = &cx.server.audit else { return body };
    let attributes = Attributes::of(&cx.user, &cx.info, &cx.query);
    let agent = cx.headers.get(http::header::USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
    let uri = cx.uri.path_and_query().map_or(cx.path.as_str(), |uri| uri.as_str());
    let source = cx.peer.as_ref().map(|peer| peer.address().ip().to_string());
    let facts = crate::audit::Facts { audit_id: &cx.audit_id, uri, agent, source };
    cx.record = audit.begin(&attributes, &facts);
    match &mut cx.record {
        Some(record) if record.wants_request() => record.request_body(body).await,
        _ => body,
    }
}

/// Who the request is done as, when that is somebody else than who asks.
async fn impersonate(cx: &mut Context) -> Result<(), Status> {
    let Some(wanted) = impersonation::wanted(&mut cx.headers)? else { return Ok(()) };
    let request = Attributes::of(&cx.user, &cx.info, &cx.query);
    let user = impersonation::impersonate(&cx.server.authorizer, &request, &wanted).await?;
    tracing::debug!(from = cx.user.name, to = user.name, "impersonating");
    if let Some(record) = &mut cx.record {
        record.impersonated(&user);
    }
    cx.user = user;
    Ok(())
}

/// May they.
async fn authorize(cx: &mut Context) -> Result<(), Status> {
    let attributes = Attributes::of(&cx.user, &cx.info, &cx.query);
    let begun = cx.server.clock.monotonic();
    let decision = cx.server.authorizer.decide(&attributes).await;
    let allowed = matches!(decision, Decision::Allow(_));
    cx.server.metrics.auth.authorized(allowed, cx.server.clock.monotonic() - begun);
    if let Some(record) = &mut cx.record {
        let (word, reason) = match &decision {
            Decision::Allow(reason) => ("allow", reason),
            Decision::Deny(reason) | Decision::NoOpinion(reason) => ("forbid", reason),
        };
        record.annotate("authorization.k8s.io/decision", word);
        record.annotate("authorization.k8s.io/reason", reason);
    }
    match decision {
        Decision::Allow(_) => Ok(()),
        Decision::Deny(reason) | Decision::NoOpinion(reason) => Err(attributes.forbidden(&reason)),
    }
}

/// The two kinds of requests whose number is bounded.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Mutating,
    Reading,
}

/// What a request counts as; `None` for those that last.
fn in_flight(cx: &Context) -> Option<Kind> {
    let long_running = cx.info.verb == "watch"
        || cx.info.verb == "proxy"
        || matches!(cx.info.subresource.as_str(), "log" | "exec" | "attach" | "portforward" | "proxy");
    let mutating = !matches!(cx.info.verb.as_str(), "get" | "list");
    (!long_running).then_some(if mutating { Kind::Mutating } else { Kind::Reading })
}

/// Waits for the request's turn: by priority and fairness, or by `--max-requests-inflight` alone. Long-running
/// requests do not count; a watch counts until it has begun.
async fn wait_turn(cx: &mut Context) -> Result<Turn, Response> {
    let long_running = cx.info.verb == "proxy"
        || matches!(cx.info.subresource.as_str(), "log" | "exec" | "attach" | "portforward" | "proxy");
    if long_running || cx.extensions.get::<InProcessUser>().is_some_and(|user| user.0.name == APISERVER) {
        return Ok(Turn::Free);
    }
    if !cx.server.config.priority_and_fairness {
        return limit_in_flight(cx).ok_or_else(too_many_requests);
    }
    // A quarter of the request's time may pass in a queue, as upstream has it.
    let patience = cx.server.config.request_timeout / 4;
    let width = width(cx);
    match cx.server.flow_control.admit(&cx.user, &cx.info, width, patience).await {
        Ok(None) => Ok(Turn::Free),
        Ok(Some(admitted)) => {
            cx.flow = Some((admitted.schema_uid, admitted.level_uid));
            Ok(Turn::Flow(admitted.seat, admitted.running))
        }
        Err(refused) => {
            tracing::debug!(path = cx.path, user = cx.user.name, why = ?refused.why, "no seat");
            cx.flow = Some((refused.schema_uid, refused.level_uid));
            Err(too_many_requests())
        }
    }
}

/// What lets a request go on; dropping it lets another.
enum Turn {
    Free,
    Flow(
        #[allow(dead_code, reason = "held")] Option<crate::flowcontrol::Seat>,
        #[allow(dead_code, reason = "held")] crate::flowcontrol::Running,
    ),
    Permit(#[allow(dead_code, reason = "held")] tokio::sync::OwnedSemaphorePermit),
}

/// Lists are as wide as what they read.
fn width(cx: &Context) -> u32 {
    if cx.info.verb != "list" {
        return 1;
    }
    let served = cx.server.registry.find(&cx.info.group, &cx.info.version, &cx.info.resource);
    let cache = served.as_ref().and_then(|served| served.cache.as_ref());
    let objects = cache.map_or(0, |cache| cache.size().0);
    let limit = cx.query.get("limit").and_then(|limit| limit.parse().ok()).unwrap_or(0);
    crate::flowcontrol::width("list", objects, limit)
}

/// `None` when there is no room.
fn limit_in_flight(cx: &Context) -> Option<Turn> {
    let Some(kind) = in_flight(cx).filter(|_| !cx.user.in_group(crate::request::user::MASTERS)) else {
        return Some(Turn::Free);
    };
    let seats = if kind == Kind::Mutating { &cx.server.mutating_seats } else { &cx.server.reading_seats };
    let Some(seats) = seats else { return Some(Turn::Free) };
    seats.clone().try_acquire_owned().ok().map(Turn::Permit)
}

/// Upstream's filter answers in plain text here.
fn too_many_requests() -> Response {
    let text = "Too many requests, please try again later.\n";
    let mut answer = response::bytes(StatusCode::TOO_MANY_REQUESTS, "text/plain; charset=utf-8", text);
    answer.headers_mut().insert(http::header::RETRY_AFTER, HeaderValue::from_static("1"));
    answer.headers_mut().insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    answer
}

/// What Go's server answers by itself, before any handler: a request that is not HTTP as it understands it.
fn malformed(cx: &Context) -> Option<Response> {
    let text =
        if cx.peer.is_some() && cx.version == http::Version::HTTP_11 && !cx.headers.contains_key(http::header::HOST) {
            "400 Bad Request: missing required Host header"
        } else if cx.method == http::Method::CONNECT {
            return None;
        } else if cx.uri.path().is_empty() || crate::request::query::unescape(cx.uri.path(), false).is_none() {
            "400 Bad Request"
        } else {
            return None;
        };
    let mut answer = response::bytes(StatusCode::BAD_REQUEST, "text/plain; charset=utf-8", text);
    answer.headers_mut().insert(http::header::CONNECTION, HeaderValue::from_static("close"));
    Some(answer)
}

/// To an extension server, to the resource's handler, or to what serves plain paths.
async fn route(cx: &mut Context, body: Body) -> Result<Response, Status> {
    // Authorization looks past doubled slashes; routes do not.
    if cx.path.starts_with("//") || cx.method == http::Method::CONNECT {
        return Ok(response::page_not_found());
    }
    if let Some(remote) = cx.server.aggregator.remote(&cx.path) {
        return Ok(aggregator::forward::forward(cx, &remote, body).await);
    }
    if cx.info.is_resource { handlers::dispatch(cx, body).await } else { endpoints::dispatch(cx, body).await }
}

/// Headers that every answer carries.
fn finish(cx: &Context, answer: &mut Response) {
    response::add_warnings(answer, &cx.warnings.take());
    let headers = answer.headers_mut();
    if let Ok(value) = HeaderValue::from_str(&cx.audit_id) {
        headers.insert(AUDIT_ID, value);
    }
    if let Some((schema, level)) = &cx.flow {
        for (name, uid) in [(FLOW_SCHEMA, schema), (PRIORITY_LEVEL, level)] {
            if let Ok(value) = HeaderValue::from_str(uid) {
                headers.insert(name, value);
            }
        }
    }
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        return;
    }
    // Over HTTP/2 a server says farewell by itself.
    if cx.version < http::Version::HTTP_2 && cx.server.lifecycle.initiated.is_cancelled() {
        answer.headers_mut().insert(http::header::CONNECTION, HeaderValue::from_static("close"));
    }
    answer.headers_mut().entry(http::header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-cache, private"));
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    if let Some(text) = panic.downcast_ref::<&str>() {
        (*text).to_string()
    } else if let Some(text) = panic.downcast_ref::<String>() {
        text.clone()
    } else {
        "panic without a text".to_string()
    }
}

/// Bounds the time of a request that is no watch and no stream.
///
/// # Errors
/// 504 when the time is over.
pub async fn within<T>(limit: Duration, work: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    match tokio::time::timeout(limit, work).await {
        Ok(result) => result,
        Err(_) => Err(Status::timeout("request did not complete within the allotted timeout", 0)),
    }
}
