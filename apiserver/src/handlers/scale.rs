//! The scale subresource: `autoscaling/v1 Scale` over the replicas of another kind.

use std::sync::Arc;

use apimachinery::field;
use apimachinery::gvk::{GroupKind, GroupResource};
use apimachinery::labels::Selector;
use apimachinery::managed::{self, ScaleFields};
use apimachinery::object::ObjectExt as _;
use apimachinery::status::{Status, reason};
use axum::body::Body;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::managers::Owner;
use super::patch::{Patch, Shape};
use super::store::{self, Update};
use super::subresources::{decode, plain};
use super::{get, method_not_allowed, table_options, update};
use crate::admission::Attributes;
use crate::codec::body;
use crate::registry::Served;
use crate::registry::custom::{Scale, nested};
use crate::request::accept::Transform;
use crate::request::options::{WriteKind, WriteOptions};
use crate::response::{self, Response, encode};
use crate::server::walk::Context;

const KIND: (&str, &str, &str) = ("autoscaling", "v1", "Scale");

/// Where a Scale, and every built-in resource with one, has its replicas.
const REPLICAS: [&str; 2] = ["spec", "replicas"];

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

/// Where a resource has its replicas.
fn replicas_at(served: &Served) -> Vec<&str> {
    let paths = served.custom().and_then(|custom| custom.version().scale.as_ref());
    paths.map_or_else(|| REPLICAS.to_vec(), |paths| Scale::keys(&paths.spec_replicas_path))
}

/// Lets plugins change an update of a Scale: that, not the resource behind it, is what they see, with who owns the
/// replicas.
///
/// # Errors
/// Their refusal.
pub async fn mutate(cx: &Context, attributes: &Attributes<'_>, new: &mut Value, old: &Value) -> Result<(), Status> {
    let served = attributes.served;
    let fields = ScaleFields { replicas: paths_of_versions(cx, served) };
    let show = |object: &Value| with_owners(&fields, of(served, &served.from_storage(object.clone()))?, object);
    let mut scale = show(new)?;
    let before = scale.i64_at(&REPLICAS);
    cx.server.admission.mutate(cx, attributes, &mut scale, Some(&show(old)?)).await?;
    let after = scale.i64_at(&REPLICAS);
    if after != before {
        new.set_at(&replicas_at(served), after.unwrap_or_default().into());
    }
    Ok(())
}

/// Lets plugins judge an update of a Scale.
///
/// # Errors
/// Their refusal.
pub async fn validate(cx: &Context, attributes: &Attributes<'_>, new: &Value, old: &Value) -> Result<(), Status> {
    let served = attributes.served;
    let show = |object: &Value| of(served, &served.from_storage(object.clone()));
    cx.server.admission.validate(cx, attributes, &show(new)?, Some(&show(old)?)).await
}

/// A Scale in the form that the client takes.
fn answer(cx: &Context, served: &Served, scale: &Value) -> Result<Response, Status> {
    let format = plain(cx)?;
    let table = table_options(cx)?;
    let (content_type, body) = match format.transform {
        Some(Transform::Table(version)) => encode::value(&table.of_scale(served, scale, version), format)?,
        _ => encode::tree(served, scale, format, &table)?,
    };
    Ok(response::bytes(StatusCode::OK, content_type, body))
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
        return answer(cx, served, &of(served, &object)?);
    }
    let (options, wanted) = match cx.method {
        Method::PUT => {
            plain(cx)?;
            let bytes = body::read(body).await?;
            let options = WriteOptions::parse(&cx.query, WriteKind::Update)?;
            let mut scale = decode(cx, KIND, &bytes, &options)?;
            cx.about(&scale);
            store::place(cx, served, &mut scale)?;
            update::name_matches(&mut scale, &name)?;
            (options.clone(), Wanted::Scale(scale))
        }
        Method::PATCH => {
            let patch = Patch::of_request(cx, body).await?;
            (patch.options.clone(), Wanted::Patch(patch))
        }
        _ => return Err(method_not_allowed()),
    };
    let target = served.clone();
    let manager = cx.field_manager(&options.field_manager);
    let derived = matches!(wanted, Wanted::Patch(_));
    let update = Update { subresource: "scale", name: &name, options: &options, manager: None, derived };
    let change_name = name.clone();
    let change = move |cx: &mut Context, current: Option<&Value>| {
        let current = current.ok_or_else(|| Status::not_found(&target.group_resource(), &change_name))?;
        changed(cx, &target, current, &wanted, &manager)
    };
    let written = store::update(cx, served, &update, false, &change).await?;
    answer(cx, served, &of(served, &written.object(served).await?)?)
}

/// Where each version of a kind has its replicas, if it has a scale.
fn paths_of_versions(cx: &Context, served: &Served) -> Vec<(String, Option<Vec<String>>)> {
    let names = |served: &Served| Some(replicas_at(served).iter().map(|name| (*name).to_string()).collect());
    if served.custom().is_none() {
        return vec![(served.api_version(), names(served))];
    }
    let rows = cx.server.registry.versions(&served.resource.group, &served.resource.plural);
    let has_scale = |row: &Served| row.custom().is_some_and(|custom| custom.version().scale.is_some());
    rows.iter().map(|row| (row.api_version(), has_scale(row).then(|| names(row)).flatten())).collect()
}

fn unreadable(error: managed::DecodeError) -> Status {
    Status::failure(500, reason::UNKNOWN, error.to_string())
}

/// A Scale with those who own the replicas of the object that it is of.
fn with_owners(fields: &ScaleFields, mut scale: Value, of: &Value) -> Result<Value, Status> {
    if let Some(entries) = fields.to_scale(of.at(managed::PATH)).map_err(unreadable)? {
        scale.set_at(managed::PATH, entries);
    }
    Ok(scale)
}

enum Wanted {
    Scale(Value),
    Patch(Patch),
}

/// The resource after its Scale became what the client wants.
fn changed(
    cx: &mut Context,
    served: &Served,
    current: &Value,
    wanted: &Wanted,
    manager: &str,
) -> Result<Value, Status> {
    let name = current.name().to_string();
    let version = served.api_version();
    let replicas_at = replicas_at(served);
    let fields = ScaleFields { replicas: paths_of_versions(cx, served) };
    let old = with_owners(&fields, of(served, current)?, current)?;
    let ty = api::table().find_kind(KIND.0, KIND.1, KIND.2).ok_or_else(|| Status::internal("the table lacks Scale"))?;
    let owner = || Owner::of_kind(("autoscaling/v1", "Scale", ty), "scale", manager);
    let mut scale = match wanted {
        Wanted::Scale(scale) => {
            let mut scale = scale.clone();
            store::same_uid(served, scale.uid(), current)?;
            owner().track(cx, Some(&old), &mut scale);
            scale
        }
        Wanted::Patch(patch) => {
            let shape = Shape {
                api_version: "autoscaling/v1".to_string(),
                kind: "Scale",
                schema: ty,
                defaults: None,
                custom: None,
                group_resource: served.group_resource(),
                texts: &[],
                owner: owner(),
            };
            let mut scale = patch.apply(cx, &shape, Some(&old), &name)?;
            store::place(cx, served, &mut scale)?;
            update::name_matches(&mut scale, &name)?;
            scale
        }
    };
    let replicas = scale.i64_at(&REPLICAS).unwrap_or_default();
    // Of custom kinds the object itself is checked, at the path that their definition names.
    if replicas < 0 && served.custom().is_none() {
        let mut errors = field::ErrorList::new();
        let path = field::Path::new("spec").child("replicas");
        errors.push(field::invalid(&path, replicas, "must be greater than or equal to 0"));
        return Err(Status::invalid(&GroupKind::new("autoscaling", "Scale"), &name, &errors));
    }
    let uid = scale.uid();
    if !uid.is_empty() && uid != current.uid() {
        let resource =
            GroupResource::new(served.resource.group.to_string(), format!("{}/scale", served.resource.plural));
        let error = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {}", current.uid());
        return Err(Status::conflict(&resource, &name, error));
    }
    let mut new = current.clone();
    new.set_at(&replicas_at, replicas.into());
    if served.custom().is_none() || !scale.resource_version().is_empty() {
        new.set_resource_version(scale.resource_version());
    }
    let entries = scale.remove_at(managed::PATH);
    match fields.to_parent(current.at(managed::PATH), entries.as_ref(), &version).map_err(unreadable)? {
        Some(entries) => new.set_at(managed::PATH, entries),
        None => {
            new.remove_at(managed::PATH);
        }
    }
    Ok(new)
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
