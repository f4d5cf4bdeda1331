//! Subresources: status and its likes are updates of the object; the others have handlers of
//! their own.

use std::sync::Arc;

use apimachinery::gvk::GroupVersionKind;
use apimachinery::object::ObjectExt as _;
use apimachinery::status::Status;
use axum::body::Body;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::store::{self, Update};
use super::{connect, eviction, format, get, method_not_allowed, patch, scale, token, unknown_resource, update};
use crate::admission::review::{RequestOptions, Review};
use crate::admission::{Attributes, Operation};
use crate::codec::body::{self, Expected};
use crate::registry::Served;
use crate::request::accept::{self, Allowed, Route};
use crate::request::options::{WriteKind, WriteOptions};
use crate::response::{self, Response};
use crate::server::walk::Context;

/// Hands a request about a subresource to its handler.
///
/// # Errors
/// 404 and 405 as upstream's routes give them, and what handlers answer.
pub async fn dispatch(cx: &mut Context, served: &Arc<Served>, body: Body) -> Result<Response, Status> {
    let info = cx.info.clone();
    let name = info.subresource.as_str();
    let Some(subresource) = served.resource.subresource(name) else {
        if served.custom().is_some() {
            return Err(Status::not_found(&served.group_resource(), &info.name));
        }
        return Err(unknown_resource());
    };
    if info.parts.len() > 3 && name != "proxy" {
        return Err(unknown_resource());
    }
    let verb = match cx.method {
        Method::GET => "get",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::POST => "create",
        Method::DELETE => "delete",
        // Whatever the server behind may be asked.
        Method::HEAD | Method::OPTIONS if name == "proxy" => "get",
        _ => return Err(method_not_allowed()),
    };
    if !subresource.verbs.iter().any(|known| known == verb) {
        if served.custom().is_some() {
            return Err(Status::method_not_supported(&served.group_resource(), verb));
        }
        return Err(method_not_allowed());
    }
    match (served.resource.plural.as_ref(), name) {
        (_, "scale") => scale::handle(cx, served, body).await,
        ("serviceaccounts", "token") => token::handle(cx, served, body).await,
        ("pods", "binding") => binding(cx, served, body).await,
        ("pods", "eviction") => eviction::handle(cx, served, body).await,
        ("pods", "log") => crate::proxy::log(cx, served).await,
        ("pods", "exec" | "attach" | "portforward") => {
            connect::admit(cx, served).await?;
            crate::proxy::stream(cx, served, body).await
        }
        (_, "proxy") => {
            connect::admit(cx, served).await?;
            crate::proxy::proxy(cx, served, body).await.map(response::unrecorded)
        }
        _ => match cx.method {
            Method::GET => get::handle(cx, served).await,
            Method::PUT => update::handle(cx, served, body).await,
            Method::PATCH => patch::handle(cx, served, body).await,
            _ => Err(method_not_allowed()),
        },
    }
}

/// Decodes a body of a subresource's own kind.
///
/// # Errors
/// As [`body::decode`].
pub fn decode(
    cx: &mut Context,
    kind: (&str, &str, &str),
    bytes: &[u8],
    options: &WriteOptions,
) -> Result<Value, Status> {
    let (group, version, kind) = kind;
    let schema = api::table()
        .find_kind(group, version, kind)
        .ok_or_else(|| Status::internal(format!("the table lacks {kind}")))?;
    let expected = Expected { kind: GroupVersionKind::new(group, version, kind), schema, empty: false };
    let encoding = accept::body_encoding(&cx.headers, cx.cbor())?;
    let decoded = body::decode(bytes, encoding, &expected, options.field_validation)?;
    cx.warnings.extend(decoded.warnings);
    Ok(decoded.object)
}

/// What a binding or an eviction answers.
pub fn created(cx: &Context) -> Response {
    let mut status = Status::success(None);
    status.code = 201;
    response::status(&status, cx.plain_format())
}

/// `POST pods/x/binding` (and `POST bindings`): assigns a pod to a node, once.
async fn binding(cx: &mut Context, served: &Arc<Served>, body: Body) -> Result<Response, Status> {
    let bytes = body::read(body).await?;
    let options = WriteOptions::parse(&cx.query, WriteKind::Create)?;
    let binding = decode(cx, ("", "v1", "Binding"), &bytes, &options)?;
    cx.about(&binding);
    let name = cx.info.name.clone();
    bind(cx, served, &name, &binding, &options).await
}

/// Checks where a Binding leads.
fn check_target(binding: &Value) -> Result<(), Status> {
    let mut errors = apimachinery::field::ErrorList::new();
    let target = apimachinery::field::Path::new("target");
    let kind = binding.str_at(&["target", "kind"]).unwrap_or_default();
    if !kind.is_empty() && kind != "Node" {
        errors.push(apimachinery::field::not_supported(&target.child("kind"), kind, &["Node", "<empty>"]));
    }
    if binding.str_at(&["target", "name"]).unwrap_or_default().is_empty() {
        errors.push(apimachinery::field::required(&target.child("name"), ""));
    }
    if !errors.is_empty() {
        // Upstream hands the bare errors on, which its server counts as its own.
        return Err(Status::failure(500, "", errors.to_aggregate().to_string()));
    }
    Ok(())
}

/// Assigns a pod to the node that a Binding names.
///
/// # Errors
/// 404 without such a pod, 409 when it is assigned or being deleted.
pub async fn bind(
    cx: &mut Context,
    pods: &Arc<Served>,
    name: &str,
    binding: &Value,
    options: &WriteOptions,
) -> Result<Response, Status> {
    let mut binding = binding.clone();
    let attributes = Attributes {
        operation: Operation::Create,
        served: pods,
        subresource: "binding",
        namespace: cx.info.namespace.clone(),
        name: name.to_string(),
        base: String::new(),
        user: &cx.user,
        dry_run: options.dry_run,
        warnings: parking_lot::Mutex::default(),
        review: Review::of(RequestOptions::Write("CreateOptions", options)),
    };
    cx.server.admission.mutate(cx, &attributes, &mut binding, None).await?;
    if binding.name() != name {
        return Err(Status::bad_request("name in URL does not match name in Binding object"));
    }
    check_target(&binding)?;
    cx.server.admission.validate(cx, &attributes, &binding, None).await?;
    if name.is_empty() {
        return Err(Status::bad_request("Name parameter required."));
    }
    let node = binding.str_at(&["target", "name"]).unwrap_or_default().to_string();
    let uid = binding.uid().to_string();
    let annotations = binding.annotations().cloned().unwrap_or_default();
    let mut labels = binding.labels().cloned().unwrap_or_default();
    for (key, value) in crate::admission::pod_topology_labels::of_node(&cx.server, &node) {
        labels.insert(key.to_string(), value.into());
    }
    let group_resource = pods.group_resource();
    let pod = name.to_string();
    let update = Update { subresource: "binding", name, options, manager: None, derived: true };
    let change = move |cx: &mut Context, current: Option<&Value>| {
        let current = current.ok_or_else(|| Status::not_found(&group_resource, &pod))?;
        let conflict =
            |error: String| Status::conflict(&apimachinery::gvk::GroupResource::new("", "pods/binding"), &pod, error);
        if !uid.is_empty() && uid != current.uid() {
            return Err(conflict(format!(
                "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
                current.uid()
            )));
        }
        if current.deletion_timestamp().is_some() {
            return Err(conflict(format!("pod {pod} is being deleted, cannot be assigned to a host")));
        }
        let assigned = current.str_at(&["spec", "nodeName"]).unwrap_or_default();
        if !assigned.is_empty() {
            return Err(conflict(format!("pod {pod} is already assigned to node {assigned:?}")));
        }
        if !current.list_at(&["spec", "schedulingGates"]).is_empty() {
            return Err(conflict(format!("pod {pod} has non-empty .spec.schedulingGates")));
        }
        let mut new = current.clone();
        new.set_at(&["spec", "nodeName"], node.clone().into());
        for (key, value) in &annotations {
            new.set_annotation(key, value.as_str().unwrap_or_default());
        }
        for (key, value) in &labels {
            new.set_label(key, value.as_str().unwrap_or_default());
        }
        let mut conditions: Vec<Value> = new.list_at(&["status", "conditions"]).to_vec();
        let scheduled = json!({
            "type": "PodScheduled",
            "status": "True",
            "lastProbeTime": null,
            "lastTransitionTime": cx.server.timestamp(),
        });
        match conditions.iter_mut().find(|condition| condition.str_at(&["type"]) == Some("PodScheduled")) {
            Some(condition) => *condition = scheduled,
            None => conditions.push(scheduled),
        }
        new.set_at(&["status", "conditions"], conditions.into());
        Ok(new)
    };
    store::update(cx, pods, &update, false, &change).await?;
    Ok(created(cx))
}

/// The shape of a subresource's answer.
///
/// # Errors
/// 406.
pub fn plain(cx: &Context) -> Result<accept::Format, Status> {
    // A Scale is made of an object that is stored, and has columns as that has.
    let allowed = if cx.info.subresource == "scale" { Allowed::Transforms } else { Allowed::Metadata };
    format(cx, Route::Object, allowed)
}

/// A tree of a kind of its own as the answer.
///
/// # Errors
/// When it has no form that the client takes.
pub fn answer(cx: &Context, code: StatusCode, object: &Value) -> Result<Response, Status> {
    let format = plain(cx)?;
    let whole = accept::Format { transform: None, ..format };
    let (content_type, body) = match format.transform {
        Some(accept::Transform::PartialObjectMetadata(version)) => {
            let metadata = object.get("metadata").cloned().unwrap_or_else(|| serde_json::json!({}));
            response::encode::value(&response::encode::metadata_only(metadata, version), whole)?
        }
        _ => response::encode::value(object, whole)?,
    };
    Ok(response::bytes(code, content_type, body))
}
