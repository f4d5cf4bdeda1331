//! The walk of a request: one list of stages, in the order in which they happen.
//!
//! TLS has happened (`component_base::serving`; headers and URLs beyond 64 KiB end there), and routing, decoding, admission, storing and
//! encoding are the handlers' part (`handlers`).

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::random;
use apimachinery::status::Status;
use axum::body::Body;
use component_base::serving::{MAX_HEAD, Peer, head_length};
use futures::FutureExt as _;
use http::{HeaderName, HeaderValue, Request, StatusCode};
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::recording::{attempted, record, refuse};
use super::{Server, impersonation};
use crate::authentication::{Outcome, bearer, blank_before_token, subprotocol};
use crate::authorization::{Attributes, Decision};
use crate::config::features;
use crate::flowcontrol::{Counted, Load, Seat};
use crate::request::accept::{self, Allowed, Format};
use crate::request::notes::{Annotations, Warnings};
use crate::request::user::APISERVER;
use crate::request::{Latencies, Layer, Query, RequestInfo, UserInfo};
use crate::response::{self, Response, websocket};
use crate::{aggregator, endpoints, handlers};

/// Names a request in logs, here and at the client.
const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");

/// Where the request belongs, for those who look into who waits for whom.
const FLOW_SCHEMA: HeaderName = HeaderName::from_static("x-kubernetes-pf-flowschema-uid");
const PRIORITY_LEVEL: HeaderName = HeaderName::from_static("x-kubernetes-pf-prioritylevel-uid");

/// A user given to a request that never was on a socket.
#[derive(Clone, Debug)]
pub struct InProcessUser(pub Arc<UserInfo>);

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
    /// When the request came.
    pub received: jiff::Timestamp,
    pub info: Arc<RequestInfo>,
    /// The resource that the request is about, once it was found.
    pub served: Option<Arc<crate::registry::Served>>,
    /// How long the client would have the request take at most.
    pub timeout: Option<Duration>,
    pub user: Arc<UserInfo>,
    /// Become Warning headers of the answer.
    pub warnings: Warnings,
    /// Go into the audit log.
    pub annotations: Annotations,
    /// Where the request's time goes.
    pub latencies: Arc<Latencies>,
    /// Uids of the FlowSchema and the priority level the request belongs to.
    pub flow: Option<(Arc<str>, Arc<str>)>,
    /// The texts in which members of kept text came ([`crate::cache::raw`]), if that is known.
    pub texts: Option<Vec<String>>,
    /// Those that they have.
    pub stored_texts: Vec<String>,
    /// What is recorded of the request.
    pub record: Option<Box<crate::audit::Record>>,
    /// What was converted to tell who owns which fields.
    pub conversions: handlers::managers::Conversions,
}

impl Context {
    /// How errors, and answers without a shape of their own, are written.
    pub fn plain_format(&self) -> Format {
        // Who takes nothing but a transformed object gets indented JSON, whatever it asked for.
        self.negotiated_plain().unwrap_or_else(|_| Format { pretty: true, ..Format::default() })
    }

    fn negotiated_plain(&self) -> Result<Format, Status> {
        accept::negotiate(&self.headers, &self.query, Allowed::Plain, self.cbor())
    }

    /// Whether CBOR is served.
    pub fn cbor(&self) -> bool {
        self.server.features.enabled(features::CBOR_SERVING_AND_STORAGE)
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
    if let Err(panic) = &outcome
        && let Some(mut record) = cx.record.take()
    {
        record.annotate_all(cx.annotations.take());
        Box::pin(record.panicked(panic_text(&**panic))).await;
    }
    let mut answer = match outcome {
        Ok(Ok(answer)) => answer,
        Ok(Err(status)) => {
            if status.code >= 500 {
                tracing::warn!(path = cx.path, audit_id = cx.audit_id, code = status.code, error = %status.message, "request failed");
            }
            let answer = response::status(&status, cx.plain_format());
            // Upstream records errors where it writes what was negotiated, which this was not.
            if cx.negotiated_plain().is_ok() { answer } else { response::unrecorded(answer) }
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
        answer = Box::pin(record.finish(answer, lasts(&cx))).await;
    }
    if !lasts(&cx) {
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
    match deadline(cx) {
        Ok(Some(limit)) => within(limit, Box::pin(identified(cx, body))).await,
        Ok(None) => Box::pin(identified(cx, body)).await,
        // Nobody in particular asked for an impossible time: it is recorded, as upstream does.
        Err(status) => Ok(refuse(cx, &status, "").await),
    }
}

/// The stages that need to know, or find out, who asks.
async fn identified(cx: &mut Context, body: Body) -> Result<Response, Status> {
    if let Some(refusal) = authenticate(cx).await {
        return Ok(refusal);
    }
    if let Some(refusal) = record(cx).await {
        return Ok(refusal);
    }
    if let Err(status) = impersonate(cx).await {
        return Ok(filtered(cx, &status));
    }
    let _turn = match wait_turn(cx).await {
        Ok(turn) => turn,
        Err(refusal) => return Ok(refusal),
    };
    if let Err(status) = authorize(cx).await {
        return Ok(filtered(cx, &status));
    }
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
        .map_or_else(random::uid, str::to_string);
    let raw_path = parts.uri.path();
    let path = crate::request::query::unescape(raw_path, false).unwrap_or_else(|| raw_path.to_string());
    let query = Query::parse(parts.uri.query().unwrap_or_default());
    let received = server.clock.now();
    let cx = Context {
        received,
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
        info: Arc::default(),
        served: None,
        timeout: None,
        user: Arc::default(),
        warnings: Warnings::default(),
        annotations: Annotations::default(),
        latencies: Arc::default(),
        flow: None,
        texts: None,
        stored_texts: Vec::new(),
        record: None,
        conversions: handlers::managers::Conversions::default(),
    };
    (cx, body)
}

/// Verb, resource, namespace and name.
fn request_info(cx: &mut Context) -> Result<(), Status> {
    let info = RequestInfo::new(&cx.method, &cx.path, &cx.query)
        .map_err(|error| Status::internal(format!("failed to create RequestInfo: {error}")))?;
    cx.info = Arc::new(info);
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
            let mut answer = response::text(StatusCode::TOO_MANY_REQUESTS, text);
            answer.headers_mut().insert(http::header::RETRY_AFTER, HeaderValue::from_static("5"));
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
        return Some(refuse(cx, &Status::unauthorized("Unauthorized"), &attempted(cx)).await);
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
        && let Some((user, _)) = Box::pin(authenticator.ask(token, None)).await
    {
        outcome = Outcome::User(Arc::new(user));
    }
    if let Some(proxy) = &authenticator.front_proxy {
        proxy.strip(&mut cx.headers);
    }
    let user = match &outcome {
        Outcome::User(user) => Some(user.name.as_str()),
        Outcome::Unauthorized => None,
    };
    let took = server.clock.monotonic() - begun;
    server.metrics.auth.authenticated(user, took);
    cx.latencies.add(Layer::Authentication, took);
    match outcome {
        Outcome::User(user) => {
            cx.user = user;
            None
        }
        Outcome::Unauthorized => Some(refuse(cx, &Status::unauthorized("Unauthorized"), &attempted(cx)).await),
    }
}

/// The answer of a filter that lets a request go no further: upstream's say so to browsers, too.
fn filtered(cx: &Context, status: &Status) -> Response {
    let answer = response::nosniff(response::status(status, cx.plain_format()));
    if cx.negotiated_plain().is_ok() { answer } else { response::unrecorded(answer) }
}

/// Who the request is done as, when that is somebody else than who asks.
async fn impersonate(cx: &mut Context) -> Result<(), Status> {
    let Some(wanted) = impersonation::wanted(&mut cx.headers)? else { return Ok(()) };
    let request = Attributes::of(&cx.user, &cx.info, &cx.query);
    let timing = cx.latencies.begin(Layer::Impersonation);
    let found = Box::pin(cx.server.impersonation.impersonate(&cx.server.authorizer, &request, &wanted)).await?;
    drop(timing);
    tracing::debug!(from = cx.user.name, to = found.user.name, "impersonating");
    if let Some(record) = &mut cx.record {
        record.impersonated(&found);
    }
    cx.user = Arc::new(found.user);
    Ok(())
}

/// May they.
async fn authorize(cx: &mut Context) -> Result<(), Status> {
    let attributes = Attributes::of(&cx.user, &cx.info, &cx.query);
    let begun = cx.server.clock.monotonic();
    let decision = cx.server.authorizer.decide(&attributes).await;
    let allowed = matches!(decision, Decision::Allow(_));
    let took = cx.server.clock.monotonic() - begun;
    cx.server.metrics.auth.authorized(allowed, took);
    cx.latencies.add(Layer::Authorization, took);
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

/// Whether the request ends when its client wants it to.
fn lasts(cx: &Context) -> bool {
    matches!(cx.info.verb.as_str(), "watch" | "proxy")
        || matches!(cx.info.subresource.as_str(), "log" | "exec" | "attach" | "portforward" | "proxy")
}

/// What a request counts as; `None` for those that last.
fn in_flight(cx: &Context) -> Option<Kind> {
    let mutating = !matches!(cx.info.verb.as_str(), "get" | "list");
    (!lasts(cx)).then_some(if mutating { Kind::Mutating } else { Kind::Reading })
}

/// Waits for the request's turn: by priority and fairness, or by `--max-requests-inflight` alone. Long-running
/// requests do not count; a watch counts until it has begun.
async fn wait_turn(cx: &mut Context) -> Result<Turn, Response> {
    if (lasts(cx) && cx.info.verb != "watch")
        || cx.extensions.get::<InProcessUser>().is_some_and(|user| user.0.name == APISERVER)
    {
        return Ok(Turn::Free);
    }
    if !cx.server.config.priority_and_fairness {
        return limit_in_flight(cx).ok_or_else(|| too_many_requests(1));
    }
    // A quarter of the request's time may pass in a queue, as upstream has it.
    let patience = cx.server.config.request_timeout / 4;
    let load = load(cx);
    match cx.server.flow_control.admit(&cx.user, &cx.info, load, patience).await {
        Ok(None) => Ok(Turn::Free),
        Ok(Some(admitted)) => {
            cx.latencies.add(Layer::QueueWait, admitted.waited);
            cx.flow = Some((admitted.schema_uid, admitted.level_uid));
            Ok(Turn::Flow(admitted.seat, admitted.counted))
        }
        Err(refused) => {
            tracing::debug!(path = cx.path, user = cx.user.name, why = ?refused.why, "no seat");
            cx.latencies.add(Layer::QueueWait, refused.waited);
            cx.flow = Some((refused.schema_uid, refused.level_uid));
            Err(too_many_requests(refused.retry_after))
        }
    }
}

/// What lets a request go on; dropping it lets another.
enum Turn {
    Free,
    Flow(#[allow(dead_code, reason = "held")] Seat, #[allow(dead_code, reason = "held")] Counted),
    Permit(
        #[allow(dead_code, reason = "held")] tokio::sync::OwnedSemaphorePermit,
        #[allow(dead_code, reason = "held")] Counted,
    ),
}

/// What is known of the work that a request makes.
fn load(cx: &Context) -> Load {
    let info = &cx.info;
    let begins_with_list = || {
        let version = cx.query.get("resourceVersion").unwrap_or_default();
        matches!(version, "" | "0") || cx.query.get("sendInitialEvents") == Some("true")
    };
    match info.verb.as_str() {
        "list" => list_load(cx),
        "watch" if begins_with_list() => list_load(cx),
        // Tokens are issued without any event.
        "create" if info.resource == "serviceaccounts" && info.subresource == "token" => Load::Plain,
        "create" | "update" | "patch" | "delete" => {
            Load::Change { watches: cx.server.flow_control.watches().interested(info) }
        }
        _ => Load::Plain,
    }
}

fn list_load(cx: &Context) -> Load {
    let info = &cx.info;
    if !info.name.is_empty() {
        return Load::Plain;
    }
    let served = cx.server.registry.find(&info.group, &info.version, &info.resource);
    let Some(cache) = served.as_ref().and_then(|served| served.cache.as_ref()) else { return Load::Plain };
    let (objects, bytes) = cache.size();
    let limit = cx.query.get("limit").and_then(|limit| limit.parse().ok()).unwrap_or(0);
    Load::List { objects: objects as u64, bytes: bytes as u64, limit }
}

/// `None` when there is no room.
fn limit_in_flight(cx: &Context) -> Option<Turn> {
    let Some(kind) = in_flight(cx).filter(|_| !cx.user.in_group(crate::request::user::MASTERS)) else {
        return Some(Turn::Free);
    };
    let seats = if kind == Kind::Mutating { &cx.server.mutating_seats } else { &cx.server.reading_seats };
    let Some(seats) = seats else { return Some(Turn::Free) };
    let permit = seats.clone().try_acquire_owned().ok()?;
    Some(Turn::Permit(permit, cx.server.metrics.flow.executes(kind == Kind::Mutating)))
}

/// Upstream's filter answers in plain text here. `retry_after` is in seconds.
fn too_many_requests(retry_after: i64) -> Response {
    let text = "Too many requests, please try again later.\n";
    let mut answer = response::text(StatusCode::TOO_MANY_REQUESTS, text);
    answer.headers_mut().insert(http::header::RETRY_AFTER, HeaderValue::from(retry_after));
    answer
}

/// What Go's server answers by itself, before any handler: a request that is not HTTP as it understands it.
fn malformed(cx: &Context) -> Option<Response> {
    let over_http1 = cx.peer.is_some() && cx.version == http::Version::HTTP_11;
    let (code, text) = if over_http1 && head_length(&cx.method, &cx.uri, &cx.headers) > MAX_HEAD {
        (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "431 Request Header Fields Too Large")
    } else if over_http1 && !cx.headers.contains_key(http::header::HOST) {
        (StatusCode::BAD_REQUEST, "400 Bad Request: missing required Host header")
    } else if cx.method == http::Method::CONNECT {
        return None;
    } else if cx.uri.path().is_empty() || crate::request::query::unescape(cx.uri.path(), false).is_none() {
        (StatusCode::BAD_REQUEST, "400 Bad Request")
    } else {
        return None;
    };
    let mut answer = response::bytes(code, "text/plain; charset=utf-8", text);
    answer.headers_mut().insert(http::header::CONNECTION, HeaderValue::from_static("close"));
    Some(answer)
}

/// To an extension server, to the resource's handler, or to what serves plain paths.
///
/// What is on the heap here and in what it calls would be part of every request's own state, which is as large as the
/// largest of all ways that it may go, and is moved when the request begins.
async fn route(cx: &mut Context, body: Body) -> Result<Response, Status> {
    // Authorization looks past doubled slashes; routes do not.
    if cx.path.starts_with("//") || cx.method == http::Method::CONNECT {
        return Ok(response::page_not_found());
    }
    if let Some(remote) = cx.server.aggregator.remote(&cx.path) {
        return Ok(response::unrecorded(Box::pin(aggregator::forward::forward(cx, &remote, body)).await));
    }
    match cx.info.is_resource {
        true => handlers::dispatch(cx, body).await,
        false => Box::pin(endpoints::dispatch(cx, body)).await,
    }
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

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    if let Some(text) = panic.downcast_ref::<&str>() {
        text
    } else {
        panic.downcast_ref::<String>().map_or("panic without a text", String::as_str)
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
