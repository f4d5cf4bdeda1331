//! From one version of a custom resource to another: by name only, or by a webhook.
//!
//! A webhook gets `ConversionReview`s and answers converted objects, of which identity and most
//! metadata are not its to change (upstream's `webhook_converter.go`).

use apimachinery::field::{ErrorList, Path};
use apimachinery::gotext;
use apimachinery::object::ObjectExt as _;
use apimachinery::status::Status;
use async_trait::async_trait;
use serde_json::{Value, json};

use super::{Definition, decode};

/// Sends a `ConversionReview` and answers what came back.
#[async_trait]
pub trait Reviewer: Send + Sync {
    /// Sends one review.
    ///
    /// # Errors
    /// Why there is no answer.
    async fn review(&self, definition: &Definition, review: &Value) -> Result<Value, String>;
}

/// The strategy `None`: only `apiVersion` changes, and what the other version does not know goes.
pub fn rename(definition: &Definition, mut object: Value, to: usize) -> Value {
    object.set_api_version(&definition.api_version(to));
    if let Err(error) = decode::settle_converted(definition, to, &mut object) {
        tracing::warn!(definition = definition.name, %error, "a converted object does not fit its schema");
    }
    object
}

/// Converts objects, none of which is of version `to` yet, by the definition's webhook.
///
/// # Errors
/// 500 in upstream's words.
pub async fn convert(definition: &Definition, objects: Vec<Value>, to: usize) -> Result<Vec<Value>, Status> {
    let from = objects.first().map(|object| definition.version_of(object).unwrap_or(to)).unwrap_or(to);
    let subject = format!("{}, Kind={}", definition.api_version(from), definition.kind);
    let failed = |error: String| Status::failure(500, "", error);
    let mut converted = call(definition, &objects, to)
        .await
        .map_err(|error| failed(format!("conversion webhook for {subject} failed: {error}")))?;
    if converted.len() != objects.len() {
        return Err(failed(format!(
            "conversion webhook for {subject} returned {} objects, expected {}",
            converted.len(),
            objects.len()
        )));
    }
    for (index, (original, new)) in objects.iter().zip(&mut converted).enumerate() {
        check(definition, original, new, to, index)
            .map_err(|error| failed(format!("conversion webhook for {subject} returned invalid {error}")))?;
        decode::settle_converted(definition, to, new).map_err(failed)?;
    }
    Ok(converted)
}

async fn call(definition: &Definition, objects: &[Value], to: usize) -> Result<Vec<Value>, String> {
    let webhook = definition.webhook.as_ref().ok_or("there is no webhook")?;
    let known = |version: &&String| matches!(version.as_str(), "v1" | "v1beta1");
    let version = webhook.review_versions.iter().find(known).ok_or("no supported conversion review versions")?;
    let uid = uuid::Uuid::new_v4().to_string();
    let review = json!({
        "kind": "ConversionReview",
        "apiVersion": format!("apiextensions.k8s.io/{version}"),
        "request": {"uid": uid, "desiredAPIVersion": definition.api_version(to), "objects": objects},
    });
    let answer = webhook.reviewer.review(definition, &review).await?;
    if version == "v1" {
        let expected = "apiextensions.k8s.io/v1, Kind=ConversionReview";
        let got = format!("{}, Kind={}", answer.api_version(), answer.kind());
        if got != expected {
            return Err(format!("expected webhook response of {expected}, got {got}"));
        }
    }
    let response = answer.get("response").filter(|response| !response.is_null()).ok_or("no response provided")?;
    let got = response.str_at(&["uid"]).unwrap_or_default();
    if version == "v1" && got != uid {
        return Err(format!("expected response.uid={uid:?}, got {got:?}"));
    }
    let status = response.str_at(&["result", "status"]).unwrap_or_default();
    if status != "Success" {
        let message = response.str_at(&["result", "message"]).unwrap_or_default();
        return Err(match message {
            "" => format!("response.result.status was '{status}', not 'Success'"),
            message => message.to_string(),
        });
    }
    Ok(response.list_at(&["convertedObjects"]).to_vec())
}

/// Checks one converted object and gives it back what webhooks may not change.
fn check(definition: &Definition, original: &Value, new: &mut Value, to: usize, index: usize) -> Result<(), String> {
    let at = format!("object at index {index}");
    let expected = definition.api_version(to);
    if new.api_version() != expected {
        return Err(format!("{at}: invalid groupVersion (expected {expected}, received {})", new.api_version()));
    }
    if new.kind() != original.kind() {
        return Err(format!("{at}: invalid kind (expected {}, received {})", original.kind(), new.kind()));
    }
    for (what, old, new) in [
        ("name", original.name(), new.name()),
        ("namespace", original.namespace(), new.namespace()),
        ("UID", original.uid(), new.uid()),
    ] {
        if old != new {
            return Err(format!("object: must have the same {what}: {old} != {new}"));
        }
    }
    restore_metadata(original, new).map_err(|error| format!("metadata: {error}"))
}

fn restore_metadata(original: &Value, new: &mut Value) -> Result<(), String> {
    let Some(map) = new.as_object_mut() else { return Err("missing metadata in converted object".to_string()) };
    let returned = match map.get("metadata") {
        None => return Err("missing metadata in converted object".to_string()),
        Some(Value::Object(returned)) => returned.clone(),
        Some(other) => {
            return Err(format!("invalid metadata of type {} in converted object", gotext::type_of(other, "<nil>")));
        }
    };
    let mut metadata = original.get("metadata").and_then(Value::as_object).cloned().unwrap_or_default();
    for field in ["labels", "annotations"] {
        let value = match returned.get(field) {
            None | Some(Value::Null) => {
                metadata.remove(field);
                continue;
            }
            Some(Value::Object(value)) => value,
            Some(other) => {
                return Err(format!(
                    "invalid metadata.{field} of type {} in converted object",
                    gotext::type_of(other, "<nil>")
                ));
            }
        };
        if let Some((key, value)) = value.iter().find(|(_, value)| !value.is_string()) {
            return Err(format!(
                "metadata.{field}[{key}] must be a string, but is {} in converted object",
                gotext::type_of(value, "<nil>")
            ));
        }
        if metadata.get(field).and_then(Value::as_object) != Some(value) {
            let mut errors = ErrorList::new();
            if field == "labels" {
                api::validation::labels(value, &Path::new("metadata").child("labels"), &mut errors);
            } else {
                api::validation::annotations(value, &Path::new("metadata").child("annotation"), &mut errors);
            }
            if !errors.is_empty() {
                return Err(errors.to_aggregate());
            }
        }
        metadata.insert(field.to_string(), Value::Object(value.clone()));
    }
    map.insert("metadata".to_string(), Value::Object(metadata));
    Ok(())
}
