//! PATCH: JSON patch, merge patch, strategic merge patch and server-side apply.

use std::sync::Arc;

use apimachinery::field;
use apimachinery::gvk::GroupKind;
use apimachinery::json;
use apimachinery::object::ObjectExt as _;
use apimachinery::patch;
use apimachinery::status::{Status, reason};
use axum::body::Body;
use http::header::CONTENT_TYPE;
use serde_json::Value;

use super::store::{self, Update};
use super::{format, update};
use crate::codec::{body, canonical};
use crate::registry::{Served, checks};
use crate::request::accept::{Allowed, ROUTE_OBJECT, media_type};
use crate::request::options::{FieldValidation, WriteKind, WriteOptions};
use crate::response::Response;
use crate::server::walk::Context;

/// The patch formats, by their media types in upstream's order.
const TYPES: [&str; 4] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];

/// Those of custom resources.
const CUSTOM_TYPES: [&str; 3] =
    ["application/json-patch+json", "application/merge-patch+json", "application/apply-patch+yaml"];

/// A patch whose format is known and whose text was read.
enum Patch {
    Json(Value),
    Merge(Value),
    Strategic(Value),
    Apply(Value),
}

/// Patches an object; an apply may create it.
///
/// # Errors
/// 415 for other formats, 400 and 422 for patches that do not parse or fit.
pub async fn handle(cx: &mut Context, served: &Arc<Served>, body: Body) -> Result<Response, Status> {
    let (patch, options, kind) = read(cx, served, body).await?;
    let format = format(cx, &ROUTE_OBJECT, Allowed::Transforms)?;
    let name = cx.info.name.clone();
    let subresource = cx.info.subresource.clone();
    let manager = cx.field_manager(&options.field_manager);
    let applies = kind == WriteKind::Apply;
    let update = Update {
        subresource: &subresource,
        name: &name,
        options: &options,
        manager: (!applies).then(|| manager.clone()),
        derived: true,
    };
    let target = served.clone();
    let change_options = options.clone();
    let change_name = name.clone();
    let change_subresource = subresource.clone();
    let change = move |cx: &mut Context, current: Option<&Value>| {
        let mut new = match &patch {
            Patch::Apply(config) => {
                let mut new = store::apply(
                    cx,
                    &target,
                    &change_subresource,
                    &manager,
                    current,
                    config,
                    change_options.force.unwrap_or_default(),
                )?;
                settle(cx, &target, &mut new, &change_options, false)?;
                new
            }
            _ => {
                let Some(current) = current else {
                    return Err(Status::not_found(&target.group_resource(), &change_name));
                };
                let mut new = current.clone();
                apply(&patch, &target, &mut new)?;
                settle(cx, &target, &mut new, &change_options, matches!(patch, Patch::Strategic(_)))?;
                new
            }
        };
        if current.is_none() && !new.uid().is_empty() {
            return Err(Status::conflict(
                &target.group_resource(),
                &change_name,
                format!(
                    "uid mismatch: the provided object specified uid {}, and no existing object was found",
                    new.uid()
                ),
            ));
        }
        store::place(cx, &target, &mut new)?;
        if new.name().is_empty() && applies {
            new.set_name(&change_name);
        }
        update::name_matches(&mut new, &change_name)?;
        Ok(new)
    };
    let written = store::update(cx, served, &update, applies, &change).await?;
    update::answer(cx, served, written, format).await
}

/// Reads the patch in the format the Content-Type names.
async fn read(cx: &Context, served: &Served, body: Body) -> Result<(Patch, WriteOptions, WriteKind), Status> {
    let content_type =
        cx.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).map(media_type).unwrap_or_default();
    // Custom resources know no strategic merge.
    let known: &[&str] = if served.custom().is_some() { &CUSTOM_TYPES } else { &TYPES };
    let Some(at) = TYPES.iter().position(|name| *name == content_type && known.contains(name)) else {
        return Err(Status::unsupported_media_type(known));
    };
    let bytes = body::read(body).await?;
    let kind = if at == 3 { WriteKind::Apply } else { WriteKind::Patch };
    let options = WriteOptions::parse(&cx.query, kind)?;
    let tree = |strict: bool| -> Result<Value, Status> {
        let decoded = json::decode(&bytes, None)
            .map_err(|error| Status::bad_request(format!("error decoding patch: {error}")))?;
        if strict && !decoded.strict.is_empty() && options.field_validation == FieldValidation::Strict {
            return Err(strict_patch_error(&decoded.strict));
        }
        Ok(decoded.value)
    };
    let patch = match at {
        0 => Patch::Json(tree(true)?),
        1 => {
            let value = tree(true)?;
            if !value.is_object() {
                return Err(Status::bad_request(format!(
                    "error decoding patch: json: cannot unmarshal {} into Go value of type map[string]interface {{}}",
                    go_kind(&value)
                )));
            }
            Patch::Merge(value)
        }
        2 => {
            let decoded = json::decode(&bytes, None).map_err(|error| Status::bad_request(error.to_string()))?;
            if !decoded.value.is_object() {
                return Err(Status::bad_request(format!(
                    "json: cannot unmarshal {} into Go value of type map[string]interface {{}}",
                    go_kind(&decoded.value)
                )));
            }
            if !decoded.strict.is_empty() && options.field_validation == FieldValidation::Strict {
                return Err(strict_patch_error(&decoded.strict));
            }
            Patch::Strategic(decoded.value)
        }
        _ => {
            let text = String::from_utf8_lossy(&bytes);
            let decoded = apimachinery::yaml::decode(&text)
                .map_err(|error| Status::bad_request(format!("error decoding YAML: {error}")))?;
            if !decoded.value.is_object() {
                return Err(Status::bad_request(format!(
                    "error decoding YAML: error unmarshaling JSON: while decoding JSON: json: cannot unmarshal {} into Go value of type map[string]interface {{}}",
                    go_kind(&decoded.value)
                )));
            }
            if let (Some(error), FieldValidation::Strict) = (&decoded.strict, options.field_validation) {
                return Err(Status::bad_request(format!("error strict decoding YAML: {error}")));
            }
            Patch::Apply(decoded.value)
        }
    };
    Ok((patch, options, kind))
}

fn go_kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn strict_patch_error(errors: &[String]) -> Status {
    let mut list = field::ErrorList::new();
    list.push(field::invalid(&field::Path::new("patch"), "", format!("strict decoding error: {}", errors.join(", "))));
    Status::invalid(&GroupKind::default(), "", &list)
}

/// Applies a patch that is no server-side apply.
fn apply(patch: &Patch, served: &Served, object: &mut Value) -> Result<(), Status> {
    match patch {
        Patch::Json(operations) => patch::json::apply(object, operations).map_err(|error| match error {
            patch::json::Error::Malformed(text) => Status::bad_request(text),
            patch::json::Error::TooManyOperations(_) => Status::request_entity_too_large(error),
            patch::json::Error::Failed(_) | patch::json::Error::TestFailed(_) => {
                let mut status = Status::failure(422, reason::INVALID, unprocessable(&error.to_string()));
                status.details = Some(Box::default());
                status
            }
        }),
        Patch::Merge(value) => {
            patch::merge::apply(object, value.clone());
            Ok(())
        }
        Patch::Strategic(value) => patch::strategic::apply(object, value.clone(), served.schema()).map_err(|error| {
            match &error {
                patch::strategic::Error::Conflict { .. } => Status::conflict(&served.group_resource(), "", error),
                // Upstream knows these as errors of the request; the rest are its own.
                patch::strategic::Error::Invalid(_)
                | patch::strategic::Error::PrimitiveList
                | patch::strategic::Error::RetainKeys
                | patch::strategic::Error::SetElementOrder => Status::bad_request(error.to_string()),
                patch::strategic::Error::ListOfLists => Status::internal(error),
            }
        }),
        Patch::Apply(_) => Ok(()),
    }
}

/// `NewGenericServerResponse` of 422 has a text of its own and hides the reason.
fn unprocessable(_error: &str) -> String {
    "the server rejected our request due to an error in our request".to_string()
}

/// Decodes what a patch made: unknown fields, types, canonical form, defaults.
fn settle(
    cx: &mut Context,
    served: &Served,
    object: &mut Value,
    options: &WriteOptions,
    strategic: bool,
) -> Result<(), Status> {
    if let Some(custom) = served.custom() {
        let warnings = custom.settle_patched(served, object, options.field_validation)?;
        cx.warnings.extend(warnings);
        return Ok(());
    }
    let text = object.to_string();
    let invalid = |error: String| {
        let mut list = field::ErrorList::new();
        let bad: field::BadValue = if strategic { field::BadValue::Raw(text.clone()) } else { text.as_str().into() };
        list.push(field::invalid(&field::Path::new("patch"), bad, error));
        Status::invalid(&GroupKind::default(), "", &list)
    };
    let decoded = json::decode(text.as_bytes(), Some(served.schema())).map_err(|error| invalid(error.to_string()))?;
    if !decoded.strict.is_empty() {
        match options.field_validation {
            FieldValidation::Strict => {
                return Err(invalid(format!("strict decoding error: {}", decoded.strict.join(", "))));
            }
            FieldValidation::Warn => cx.warnings.extend(decoded.strict),
            FieldValidation::Ignore => {}
        }
    }
    *object = decoded.value;
    if !object.is_object() {
        return Err(invalid("json: cannot unmarshal into Go value".to_string()));
    }
    canonical::canonicalize(served.schema(), object).map_err(|error| invalid(error.0))?;
    if object.api_version() != served.api_version() || object.kind() != served.resource.kind {
        let (api_version, kind) = (object.api_version().to_string(), object.kind().to_string());
        return Err(invalid(format!(
            "no kind {kind:?} is registered for version {api_version:?} in scheme \"pkg/api/legacyscheme/scheme.go:30\""
        )));
    }
    checks::default(&served.resource, object, &cx.server);
    Ok(())
}
