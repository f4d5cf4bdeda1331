//! PATCH: JSON patch, merge patch, strategic merge patch and server-side apply.
//!
//! A patch is text until the object it changes has been read: a bad one on an object that does not exist is
//! a 404. It is read again on every attempt, because a lost race starts over from the object as it is then.

use std::sync::{Arc, OnceLock};

use apimachinery::field;
use apimachinery::gotext;
use apimachinery::gvk::{GroupKind, GroupResource, GroupVersionKind};
use apimachinery::json;
use apimachinery::managed;
use apimachinery::object::ObjectExt as _;
use apimachinery::patch;
use apimachinery::schema::{Field, ListKind, ListType, ObjectType, Schema, StringType, Type, TypeId, TypeRef};
use apimachinery::status::{Status, reason};
use axum::body::Body;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use serde_json::{Map, Value};

use super::managers::Owner;
use super::store::{self, Update};
use super::{format, update};
use crate::cache::raw::{self, Place};
use crate::codec::body;
use crate::registry::custom::Custom;
use crate::registry::{Served, checks};
use crate::request::accept::{Allowed, Route};
use crate::request::options::{FieldValidation, WriteKind, WriteOptions};
use crate::response::Response;
use crate::server::walk::Context;

/// A patch's format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Json,
    Merge,
    Strategic,
    ApplyYaml,
    ApplyCbor,
}

impl Format {
    /// Whether it is a configuration for server-side apply.
    fn applies(self) -> bool {
        matches!(self, Format::ApplyYaml | Format::ApplyCbor)
    }
}

/// The patch formats with their media types, in upstream's order; the last behind its gate.
const FORMATS: [(&str, Format); 5] = [
    ("application/json-patch+json", Format::Json),
    ("application/merge-patch+json", Format::Merge),
    ("application/strategic-merge-patch+json", Format::Strategic),
    ("application/apply-patch+yaml", Format::ApplyYaml),
    ("application/apply-patch+cbor", Format::ApplyCbor),
];

/// The formats of custom resources.
const CUSTOM_TYPES: [&str; 4] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/apply-patch+yaml",
    "application/apply-patch+cbor",
];

/// A patch as it was sent, and its options.
#[derive(Clone)]
pub struct Patch {
    format: Format,
    bytes: Bytes,
    pub options: WriteOptions,
}

/// What a patch is applied to: the type of the object as the endpoint shows it.
pub struct Shape<'a> {
    pub api_version: String,
    pub kind: &'a str,
    pub schema: TypeRef<'a>,
    /// Whose defaults what was patched gets; `None` for kinds without defaults.
    pub defaults: Option<&'a api::Resource>,
    /// Decodes and defaults custom objects instead.
    pub custom: Option<(&'a Custom, &'a Served)>,
    pub group_resource: GroupResource,
    /// Where its members of kept text are.
    pub texts: &'static [Place],
    /// Who comes to own what.
    pub owner: Owner<'a>,
}

/// Patches an object; an apply may create it.
///
/// # Errors
/// 415 for other formats, 400 and 422 for patches that do not parse or fit.
pub async fn handle(cx: &mut Context, served: &Arc<Served>, body: Body) -> Result<Response, Status> {
    let known = Patch::format(cx)?;
    if known == Format::Strategic && served.custom().is_some() {
        // Custom resources know no strategic merge.
        return Err(Status::unsupported_media_type(&CUSTOM_TYPES[..CUSTOM_TYPES.len() - usize::from(!cx.cbor())]));
    }
    let format = format(cx, Route::Object, Allowed::Transforms)?;
    let patch = Patch::read(cx, known, body).await?;
    let name = cx.info.name.clone();
    let subresource = cx.info.subresource.clone();
    let options = patch.options.clone();
    let applies = patch.applies();
    // The patch books ownership itself, before names and namespaces are looked at.
    let update = Update { subresource: &subresource, name: &name, options: &options, manager: None, derived: true };
    let target = served.clone();
    let manager = cx.field_manager(&options.field_manager);
    let change_name = name.clone();
    let change_subresource = subresource.clone();
    let change = move |cx: &mut Context, current: Option<&Value>| {
        let shape = Shape {
            api_version: target.api_version(),
            kind: &target.resource.kind,
            schema: target.schema(),
            defaults: Some(&target.resource),
            custom: target.custom().map(|custom| (custom, &*target)),
            group_resource: target.group_resource(),
            texts: raw::places(&target.storage.group, &target.storage.plural),
            owner: Owner::of(&target, &change_subresource, &manager),
        };
        let mut new = patch.apply(cx, &shape, current, &change_name)?;
        if current.is_none() && !new.uid().is_empty() {
            return Err(Status::conflict(
                &shape.group_resource,
                &change_name,
                format!(
                    "uid mismatch: the provided object specified uid {}, and no existing object was found",
                    new.uid()
                ),
            ));
        }
        store::place(cx, &target, &mut new)?;
        update::name_matches(&mut new, &change_name)?;
        Ok(new)
    };
    let written = store::update(cx, served, &update, applies, &change).await?;
    update::answer(cx, served, written, format).await
}

impl Patch {
    /// The format that the Content-Type names.
    ///
    /// # Errors
    /// 415.
    fn format(cx: &Context) -> Result<Format, Status> {
        let header = cx.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        // As upstream compares: nothing trimmed, nothing lowered.
        let media = header.split_once(';').map_or(header, |(media, _)| media);
        let served = |format: &Format| *format != Format::ApplyCbor || cx.cbor();
        let known = FORMATS.iter().find(|(known, _)| *known == media).map(|(_, format)| *format).filter(served);
        // Upstream's router refuses it before any handler sees it.
        known.ok_or_else(|| {
            let mut status = Status::failure(415, reason::UNSUPPORTED_MEDIA_TYPE, "415: Unsupported Media Type");
            status.details = Some(Box::default());
            status
        })
    }

    async fn read(cx: &mut Context, format: Format, body: Body) -> Result<Self, Status> {
        let bytes = body::read(body).await?;
        let kind = if format.applies() { WriteKind::Apply } else { WriteKind::Patch };
        let options = WriteOptions::parse(&cx.query, kind)?;
        let patch = Self { format, bytes, options };
        if let Some(record) = &mut cx.record {
            record.patch(&patch.bytes, || patch.configuration().ok().map(|(tree, _)| tree));
        }
        Ok(patch)
    }

    /// Reads the patch of a subresource with a kind of its own.
    ///
    /// # Errors
    /// 415, 413 and what is wrong with the options.
    pub async fn of_request(cx: &mut Context, body: Body) -> Result<Self, Status> {
        let format = Self::format(cx)?;
        super::subresources::plain(cx)?;
        Self::read(cx, format, body).await
    }

    /// Whether this is a server-side apply.
    pub fn applies(&self) -> bool {
        self.format.applies()
    }

    /// The patched object: decoded, defaulted, and with its fields' owners booked.
    ///
    /// # Errors
    /// 404 without an object to patch, 400, 409 and 422 for patches that do not parse, fit or may not.
    pub fn apply(
        &self,
        cx: &mut Context,
        shape: &Shape<'_>,
        current: Option<&Value>,
        name: &str,
    ) -> Result<Value, Status> {
        if self.applies() {
            return self.apply_configuration(cx, shape, current);
        }
        let Some(current) = current else { return Err(Status::not_found(&shape.group_resource, name)) };
        let mut new = if self.format == Format::Strategic {
            let mut new = current.clone();
            let strict = self.strategic(&mut new, shape)?;
            self.convert(cx, shape, current, &mut new, strict)?;
            // They were a tree in between.
            cx.texts = Some(Vec::new());
            new
        } else {
            // What these do not touch keeps its text, and what they bring has its own.
            let current = match shape.custom {
                Some(_) => gotext::json(current),
                None => gotext::json_of(shape.schema, current),
            };
            let stored: Vec<String> = cx.stored_texts.iter().map(|text| raw::compact(text)).collect();
            let kept = raw::keep(current.into_bytes(), shape.texts, &stored);
            let current = String::from_utf8(kept).expect("texts in a text");
            let (text, strict) = match self.format {
                Format::Json => self.json(&current)?,
                _ => self.merge(&current)?,
            };
            if !shape.texts.is_empty() {
                cx.texts = Some(raw::texts(text.as_bytes(), shape.texts));
            }
            self.settle(cx, shape, &text, strict)?
        };
        if shape.custom.is_some() {
            shape.owner.track(cx, Some(current), &mut new);
            return Ok(new);
        }
        // Nobody owns what is not written.
        let empty = api::canonical::take_empty(shape.schema, &mut new);
        shape.owner.track(cx, Some(current), &mut new);
        api::canonical::put_empty(&mut new, &empty);
        Ok(new)
    }

    /// Carries out a JSON patch; answers the text that it makes, and strict errors.
    fn json(&self, current: &str) -> Result<(String, Vec<String>), Status> {
        let decoded = self.decode(Some(operations()))?;
        let strict = decoded.strict.into_iter().map(|error| format!("json patch {error}")).collect();
        let text = String::from_utf8_lossy(&self.bytes);
        let patched = patch::json::apply_text(current, &text).map_err(|error| match error {
            patch::json::Error::Malformed(text) => Status::bad_request(text),
            patch::json::Error::TooManyOperations(_) => Status::request_entity_too_large(error),
            patch::json::Error::Failed(_) | patch::json::Error::TestFailed(_) => unprocessable(),
        })?;
        Ok((patched, strict))
    }

    /// As [`Patch::json`], for merge patches.
    fn merge(&self, current: &str) -> Result<(String, Vec<String>), Status> {
        let decoded = self.decode(None)?;
        if decoded.value.is_null() {
            return Err(Status::bad_request("Invalid JSON Patch"));
        }
        must_be_object(&decoded.value)
            .map_err(|error| Status::bad_request(format!("error decoding patch: {error}")))?;
        let text = String::from_utf8_lossy(&self.bytes);
        let merged = patch::merge::apply_text(current, &text);
        Ok((merged.ok_or_else(|| Status::bad_request("Invalid JSON Patch"))?, decoded.strict))
    }

    /// Patches strategically; answers strict errors.
    fn strategic(&self, object: &mut Value, shape: &Shape<'_>) -> Result<Vec<String>, Status> {
        let mut decoded = json::decode(&self.bytes, None).map_err(|error| Status::bad_request(error.to_string()))?;
        if let Some(error) = decoded.type_error {
            return Err(Status::bad_request(error));
        }
        if decoded.value.is_null() {
            decoded.value = Value::Object(Map::new());
        }
        must_be_object(&decoded.value).map_err(Status::bad_request)?;
        patch::strategic::apply(object, decoded.value, shape.schema).map_err(|error| match &error {
            patch::strategic::Error::Conflict { .. } => Status::conflict(&shape.group_resource, "", error),
            patch::strategic::Error::PrimitiveList
            | patch::strategic::Error::RetainKeys
            | patch::strategic::Error::SetElementOrder => Status::bad_request(error.to_string()),
            patch::strategic::Error::ListOfLists => unprocessable(),
            // Upstream knows no better of what its library found.
            patch::strategic::Error::Invalid(text) if text == "invalid JSON document" => {
                Status::bad_request(text.as_str())
            }
            patch::strategic::Error::Invalid(text) => Status::failure(500, reason::UNKNOWN, text.as_str()),
        })?;
        Ok(decoded.strict)
    }

    fn decode(&self, ty: Option<TypeRef<'_>>) -> Result<json::Decoded, Status> {
        let wrong = |error: &str| Status::bad_request(format!("error decoding patch: {error}"));
        let mut decoded = json::decode(&self.bytes, ty).map_err(|error| wrong(&error.message))?;
        if self.options.field_validation == FieldValidation::Ignore {
            // Then nobody reads it but the library.
            decoded.strict.clear();
            return Ok(decoded);
        }
        decoded.type_error.as_deref().map_or(Ok(()), |error| Err(wrong(error)))?;
        Ok(decoded)
    }

    /// The configuration to apply, and what strict reading has against it.
    fn configuration(&self) -> Result<(Value, Option<String>), Status> {
        if self.format == Format::ApplyCbor {
            // Upstream takes the words of its YAML reader for this one, too.
            let wrong = |error: String| Status::bad_request(format!("error decoding YAML: {error}"));
            let decoded = api::cbor::decode(&self.bytes, None).map_err(|error| wrong(error.to_string()))?;
            return match decoded.value {
                Value::Null => Ok((Value::Object(Map::new()), None)),
                config @ Value::Object(_) => Ok((config, None)),
                other => Err(wrong(format!(
                    "cbor: cannot unmarshal {} into Go value of type map[string]interface {{}}",
                    api::cbor::type_name(&other)
                ))),
            };
        }
        let decoded = apimachinery::yaml::decode(&String::from_utf8_lossy(&self.bytes)).map_err(|error| {
            Status::bad_request(format!("error decoding YAML: error converting YAML to JSON: {error}"))
        })?;
        let config = match decoded.value {
            Value::Null => Value::Object(Map::new()),
            config => config,
        };
        must_be_object(&config).map_err(|error| {
            Status::bad_request(format!("error decoding YAML: error unmarshaling JSON: while decoding JSON: {error}"))
        })?;
        Ok((config, decoded.strict))
    }

    fn apply_configuration(
        &self,
        cx: &mut Context,
        shape: &Shape<'_>,
        current: Option<&Value>,
    ) -> Result<Value, Status> {
        let (config, repeated) = self.configuration()?;
        let force = self.options.force.unwrap_or_default();
        let mut new = shape.owner.apply(cx, current, &config, force)?;
        // An apply that changes nothing of the object leaves it as it is.
        let unchanged = current.is_some_and(|current| managed::equal_but_for_managed(current, &new));
        if !unchanged {
            cx.texts = Some(Vec::new());
        }
        if let Some((custom, served)) = shape.custom {
            if !unchanged {
                // The configuration fitted its type; what goes all the same, from where unknown fields are kept, goes
                // silently.
                let text = gotext::json(&new);
                custom.settle_patched(served, &text, &mut new, FieldValidation::Ignore, Vec::new())?;
            }
            self.complain_of_repeated(cx, repeated)?;
            return Ok(new);
        }
        // The configuration fits its schema, which says no more of numbers than that they are some.
        api::converter::convert(shape.schema, &mut new).map_err(|error| {
            // Without a group there is nothing before the slash.
            let slash = if shape.api_version.contains('/') { "" } else { "/" };
            let kind = format!("{slash}{}, Kind={}", shape.api_version, shape.kind);
            let name = format!("{}/{}; {kind}", config.namespace(), config.name());
            let why = format!("unable to convert unstructured object to {kind}: {error}");
            let text = format!("failed to convert new object ({name}) to proper version: {why}");
            Status::failure(500, reason::UNKNOWN, text)
        })?;
        self.complain_of_repeated(cx, repeated)?;
        api::canonical::canonicalize_decoded(shape.schema, &mut new);
        if let Some(resource) = shape.defaults {
            checks::default(resource, &mut new, &cx.server);
        }
        Ok(new)
    }

    /// Refuses a configuration that says something twice, or tells of it: when everything else is well.
    fn complain_of_repeated(&self, cx: &mut Context, repeated: Option<String>) -> Result<(), Status> {
        let Some(error) = repeated else { return Ok(()) };
        match self.options.field_validation {
            FieldValidation::Strict => {
                Err(Status::bad_request(format!("error strict decoding YAML: error converting YAML to JSON: {error}")))
            }
            FieldValidation::Warn => {
                cx.warnings.extend(body::yaml_warnings(&error));
                Ok(())
            }
            FieldValidation::Ignore => Ok(()),
        }
    }

    /// Decodes what a patch made: unknown fields, types, canonical form, defaults.
    fn settle(
        &self,
        cx: &mut Context,
        shape: &Shape<'_>,
        text: &str,
        mut strict: Vec<String>,
    ) -> Result<Value, Status> {
        if let Some((custom, served)) = shape.custom {
            let (object, warnings) = custom.read_patched(served, text, self.options.field_validation, strict)?;
            cx.warnings.extend(warnings);
            return Ok(object);
        }
        let invalid = |error: String| invalid_patch(text, error);
        let decoded = json::decode(text.as_bytes(), Some(shape.schema)).map_err(|error| invalid(error.to_string()))?;
        let mut object = decoded.value;
        body::interpret(&object).map_err(&invalid)?;
        if object.api_version().is_empty() && (object.kind().is_empty() || object.kind() == shape.kind) {
            // Without a version it is read as upstream's internal one, which has none of the fields.
            let fields = object.as_object().into_iter().flatten().map(|(name, _)| name);
            let fields = fields.filter(|name| !matches!(name.as_str(), "apiVersion" | "kind"));
            strict.extend(fields.map(|name| format!("unknown field {}", apimachinery::gotext::quote(name))));
            self.complain(cx, strict, invalid)?;
            object = serde_json::json!({});
            object.set_api_version(&shape.api_version);
            object.set_kind(shape.kind);
            return Ok(object);
        }
        if object.kind().is_empty() && object.api_version() == shape.api_version {
            // The version alone says enough; the kind alone does not.
            object.set_kind(shape.kind);
        }
        if object.api_version() != shape.api_version || object.kind() != shape.kind {
            let wanted = apimachinery::gvk::GroupVersion::parse(&shape.api_version).unwrap_or_default();
            let wanted = GroupVersionKind::new(wanted.group, wanted.version, shape.kind);
            let error = body::other_kind(object.api_version(), object.kind(), &wanted, text.as_bytes());
            return Err(invalid(error.map_or_else(|| "Object 'Kind' is missing".to_string(), body::Mismatch::text)));
        }
        if let Some(error) = decoded.type_error {
            return Err(invalid(error));
        }
        api::canonical::canonicalize_decoded(shape.schema, &mut object);
        strict.extend(decoded.strict);
        self.complain(cx, strict, invalid)?;
        if let Some(resource) = shape.defaults {
            checks::default(resource, &mut object, &cx.server);
        }
        Ok(object)
    }

    /// Gives what a strategic patch made its types: it is not text that is read, upstream either.
    fn convert(
        &self,
        cx: &mut Context,
        shape: &Shape<'_>,
        current: &Value,
        object: &mut Value,
        mut strict: Vec<String>,
    ) -> Result<(), Status> {
        // The patch as messages show it, which is made when there is one.
        let invalid = |error: String| {
            let patch = json::decode(&self.bytes, None).map(|decoded| decoded.value).unwrap_or_default();
            let patch = patch::strategic::without_nulls(current, patch, shape.schema);
            invalid_patch(&patch::go_value(&patch), error)
        };
        strict.extend(api::converter::convert(shape.schema, object).map_err(invalid)?);
        // The result is what the endpoint serves, whatever it calls itself.
        object.set_api_version(&shape.api_version);
        object.set_kind(shape.kind);
        api::canonical::canonicalize_decoded(shape.schema, object);
        self.complain(cx, strict, invalid)?;
        if let Some(resource) = shape.defaults {
            checks::default(resource, object, &cx.server);
        }
        Ok(())
    }

    /// Refuses strict errors, or tells of them, or does neither.
    fn complain(
        &self,
        cx: &mut Context,
        strict: Vec<String>,
        invalid: impl Fn(String) -> Status,
    ) -> Result<(), Status> {
        match self.options.field_validation {
            FieldValidation::Strict if !strict.is_empty() => {
                return Err(invalid(format!("strict decoding error: {}", strict.join(", "))));
            }
            FieldValidation::Warn => cx.warnings.extend(strict),
            FieldValidation::Strict | FieldValidation::Ignore => {}
        }
        Ok(())
    }
}

/// 422 for what a patch made, or for the patch, as it is shown.
pub fn invalid_patch(shown: &str, error: String) -> Status {
    let mut list = field::ErrorList::new();
    list.push(field::invalid(&field::Path::new("patch"), shown, error));
    Status::invalid(&GroupKind::default(), "", &list)
}

/// The type of the operations of a JSON patch, as upstream reads it first.
fn operations() -> TypeRef<'static> {
    static SCHEMA: OnceLock<(Schema, TypeId)> = OnceLock::new();
    let (schema, id) = SCHEMA.get_or_init(|| {
        let mut schema = Schema::new();
        let text = schema.add(Type::String(StringType::default()));
        let any = schema.add(Type::Object(ObjectType { preserve_unknown: true, ..ObjectType::default() }));
        let fields =
            vec![Field::new("op", text), Field::new("path", text), Field::new("from", text), Field::new("value", any)];
        let item = schema.add(Type::Object(ObjectType::new("handlers.jsonPatchOp", fields)));
        let list = schema.add(Type::List(ListType { item, kind: ListKind::Atomic, wrapped: false, marked: false }));
        (schema, list)
    });
    schema.type_ref(*id)
}

/// What `NewGenericServerResponse` of 422 makes of any error: a text of its own.
fn unprocessable() -> Status {
    let text = "the server rejected our request due to an error in our request";
    let mut status = Status::failure(422, reason::INVALID, text);
    status.details = Some(Box::default());
    status
}

fn must_be_object(value: &Value) -> Result<(), String> {
    if value.is_object() {
        return Ok(());
    }
    let found = gotext::json_kind(value);
    Err(format!("json: cannot unmarshal {found} into Go value of type map[string]interface {{}}"))
}
