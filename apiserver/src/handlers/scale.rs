//! The scale subresource: `autoscaling/v1 Scale` over the replicas of another kind.

use std::sync::Arc;

use apimachinery::labels::Selector;
use apimachinery::object::ObjectExt as _;
use apimachinery::status::Status;
use apimachinery::{field, json, patch};
use axum::body::Body;
use http::header::CONTENT_TYPE;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::store::{self, Update};
use super::subresources::{answer, decode, plain};
use super::{get, method_not_allowed};
use crate::codec::{body, canonical};
use crate::registry::Served;
use crate::registry::custom::{Scale, nested};
use crate::request::accept::media_type;
use crate::request::options::{WriteKind, WriteOptions};
use crate::response::Response;
use crate::server::walk::Context;

const KIND: (&str, &str, &str) = ("autoscaling", "v1", "Scale");

/// The Scale of an object.
fn of(served: &Served, object: &Value) -> Result<Value, Status> {
    let Some(custom) = served.custom() else { return Ok(of_paths(object)) };
    let bad = |error: String| Status::failure(500, "", error);
    let Some(paths) = &custom.version().scale else { return Ok(of_paths(object)) };
    let number = |path: &str| nested(object, path, "int64", Value::as_i64).map_err(bad);
    let mut plain = object.clone();
    let replicas = number(&paths.spec_replicas_path)?;
    plain.set_at(&["spec"], json!({"replicas": replicas.unwrap_or_default()}));
    plain.set_at(&["status"], json!({"replicas": number(&paths.status_replicas_path)?.unwrap_or_default()}));
    let mut scale = of_paths(&plain);
    if let Some(path) = &paths.label_selector_path {
        let selector = nested(object, path, "string", |value| value.as_str().map(str::to_owned)).map_err(bad)?;
        if let Some(selector) = selector.filter(|selector| !selector.is_empty()) {
            scale["status"]["selector"] = selector.into();
        }
    }
    Ok(scale)
}

/// The replicas of a custom object; `None` when there are none to change.
fn custom_replicas(served: &Served, object: &Value) -> Option<i64> {
    let paths = served.custom()?.version().scale.as_ref()?;
    nested(object, &paths.spec_replicas_path, "int64", Value::as_i64).ok().flatten()
}

/// The Scale of an object whose replicas are where those of built-in kinds are.
fn of_paths(object: &Value) -> Value {
    let mut metadata = json!({
        "creationTimestamp": object.creation_timestamp(),
        "name": object.name(),
        "namespace": object.namespace(),
        "resourceVersion": object.resource_version(),
        "uid": object.uid(),
    });
    if let Some(map) = metadata.as_object_mut() {
        map.retain(|_, value| !value.is_null() && value.as_str() != Some(""));
    }
    let replicas = object.i64_at(&["spec", "replicas"]).unwrap_or_default();
    let mut spec = json!({});
    if replicas != 0 {
        spec["replicas"] = replicas.into();
    }
    let mut status = json!({"replicas": object.i64_at(&["status", "replicas"]).unwrap_or_default()});
    if let Some(selector) = selector(object) {
        status["selector"] = selector.into();
    }
    json!({
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": metadata,
        "spec": spec,
        "status": status,
    })
}

/// The selector as text; ReplicationControllers have a plain map.
fn selector(object: &Value) -> Option<String> {
    let selector = object.at(&["spec", "selector"])?;
    let is_label_selector = selector.get("matchLabels").is_some_and(Value::is_object)
        || selector.get("matchExpressions").is_some_and(Value::is_array);
    let text = if is_label_selector {
        Selector::from_label_selector(Some(selector)).ok()?.to_string()
    } else {
        Selector::from_map(selector.as_object()?).to_string()
    };
    (!text.is_empty()).then_some(text)
}

/// Reads or changes a Scale.
///
/// # Errors
/// As the object's own handlers; 422 for replicas below zero.
pub async fn handle(cx: &mut Context, served: &Arc<Served>, body: Body) -> Result<Response, Status> {
    let name = cx.info.name.clone();
    if cx.method == Method::GET {
        plain(cx)?;
        let entry = get::read(cx, served, &cx.info.namespace, &name).await?;
        let object = served.from_storage(served.read(&entry).await?);
        if let Some(paths) = served.custom().and_then(|custom| custom.version().scale.as_ref())
            && custom_replicas(served, &object).is_none()
        {
            return Err(Status::internal(format!(
                "the spec replicas field {:?} does not exist",
                paths.spec_replicas_path
            )));
        }
        return answer(cx, StatusCode::OK, &of(served, &object)?);
    }
    let bytes = body::read(body).await?;
    let content_type =
        cx.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).map(media_type).unwrap_or_default();
    let (options, wanted) = match cx.method {
        Method::PUT => {
            let options = WriteOptions::parse(&cx.query, WriteKind::Update)?;
            let scale = decode(cx, KIND, &bytes, &options)?;
            (options, Wanted::Scale(scale))
        }
        Method::PATCH => {
            let options = WriteOptions::parse(&cx.query, WriteKind::Patch)?;
            let tree =
                json::parse(&bytes).map_err(|error| Status::bad_request(format!("error decoding patch: {error}")))?;
            let wanted = match content_type.as_str() {
                "application/json-patch+json" => Wanted::Json(tree),
                // A Scale has no lists, so strategic merge is merge.
                "application/merge-patch+json" | "application/strategic-merge-patch+json" => Wanted::Merge(tree),
                _ => {
                    return Err(Status::unsupported_media_type(&[
                        "application/json-patch+json",
                        "application/merge-patch+json",
                        "application/strategic-merge-patch+json",
                        "application/apply-patch+yaml",
                    ]));
                }
            };
            (options, wanted)
        }
        _ => return Err(method_not_allowed()),
    };
    let target = served.clone();
    let change_name = name.clone();
    let derived = !matches!(wanted, Wanted::Scale(_));
    let update = Update {
        subresource: "scale",
        name: &name,
        options: &options,
        manager: Some(cx.field_manager(&options.field_manager)),
        derived,
    };
    let change = move |_: &mut Context, current: Option<&Value>| {
        let current = current.ok_or_else(|| Status::not_found(&target.group_resource(), &change_name))?;
        let scale = wanted.apply(of(&target, current)?)?;
        let mut errors = field::ErrorList::new();
        let replicas = scale.i64_at(&["spec", "replicas"]).unwrap_or_default();
        if replicas < 0 {
            errors.push(field::invalid(
                &field::Path::new("spec").child("replicas"),
                replicas,
                "must be greater than or equal to 0",
            ));
        }
        if !errors.is_empty() {
            return Err(Status::invalid(
                &apimachinery::gvk::GroupKind::new("autoscaling", "Scale"),
                scale.name(),
                &errors,
            ));
        }
        if scale.name() != change_name {
            return Err(Status::bad_request(format!(
                "the name of the object ({}) does not match the name on the URL ({change_name})",
                scale.name()
            )));
        }
        let mut new = current.clone();
        match target.custom().and_then(|custom| custom.version().scale.as_ref()) {
            Some(paths) => new.set_at(&Scale::keys(&paths.spec_replicas_path), replicas.into()),
            None => new.set_at(&["spec", "replicas"], replicas.into()),
        }
        new.set_resource_version(scale.resource_version());
        Ok(new)
    };
    let written = store::update(cx, served, &update, false, &change).await?;
    answer(cx, StatusCode::OK, &of(served, &written.object(served).await?)?)
}

enum Wanted {
    Scale(Value),
    Json(Value),
    Merge(Value),
}

impl Wanted {
    fn apply(&self, mut scale: Value) -> Result<Value, Status> {
        match self {
            Wanted::Scale(scale) => return Ok(scale.clone()),
            Wanted::Json(operations) => patch::json::apply(&mut scale, operations)
                .map_err(|error| Status::failure(422, "Invalid", error.to_string()))?,
            Wanted::Merge(tree) => patch::merge::apply(&mut scale, tree.clone()),
        }
        let ty =
            api::table().find_kind(KIND.0, KIND.1, KIND.2).ok_or_else(|| Status::internal("the table lacks Scale"))?;
        canonical::canonicalize(ty, &mut scale).map_err(|error| Status::bad_request(error.0))?;
        Ok(scale)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_replicas_and_selector() {
        let object = json!({
            "metadata": {"name": "x", "namespace": "d", "resourceVersion": "4", "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "x"}}},
            "status": {"replicas": 2},
        });
        let scale = of_paths(&object);
        assert_eq!(scale["spec"], json!({"replicas": 3}));
        assert_eq!(scale["status"], json!({"replicas": 2, "selector": "app=x"}));
        assert_eq!(scale["metadata"]["resourceVersion"], "4");
    }
}
