//! Bodies, patched objects and stored objects of custom resources, brought into form: metadata as
//! Go would read it, unknown fields pruned, nulls without a place dropped, defaults set.

use api::cbor;
use api::custom::{Node, default, meta, prune};
use apimachinery::field::Path;
use apimachinery::gvk::GroupVersion;
use apimachinery::object::ObjectExt as _;
use apimachinery::status::Status;
use apimachinery::{json, yaml};
use serde_json::{Map, Value};

use super::{Custom, Definition};
use crate::codec::body;
use crate::handlers::patch::invalid_patch;
use crate::registry::Served;
use crate::request::accept::Encoding;
use crate::request::notes::Warnings;
use crate::request::options::FieldValidation;

/// What upstream's `unstructuredSchemaCoercer` does, without defaults. Answers unknown fields.
fn coerce(
    definition: &Definition,
    at: Option<usize>,
    object: &mut Value,
    options: meta::Options,
) -> Result<Vec<String>, String> {
    let Some(map) = object.as_object_mut() else { return Ok(Vec::new()) };
    let mut unknown = meta::settle(map, &Path::nil(), options)?;
    let node = at.and_then(|at| definition.node(at));
    let kept: Vec<(&str, Value)> = ["apiVersion", "kind", "metadata"]
        .into_iter()
        .filter_map(|name| map.get(name).map(|value| (name, value.clone())))
        .collect();
    if !definition.preserve_unknown {
        let empty = Node::default();
        unknown.extend(prune::prune(object, node.unwrap_or(&empty), true, options.report));
        default::prune_nulls(object, node);
    }
    if let Some(node) = node {
        unknown.extend(meta::coerce(object, node, false, options).map_err(|error| error.to_string())?);
    }
    if let Some(map) = object.as_object_mut() {
        // Metadata follows rules of its own, whatever the schema says of it.
        for (name, value) in kept {
            map.insert(name.to_string(), value);
        }
    }
    Ok(unknown)
}

/// What somebody sent, of whatever version it says it is of: of a version that does not exist nothing but metadata
/// is known. Other kinds (options of a deletion) come by as well, and have metadata only.
fn coerce_sent(definition: &Definition, object: &mut Value, options: meta::Options) -> Result<Vec<String>, String> {
    let group = GroupVersion::parse(object.api_version()).map(|version| version.group);
    if object.kind() == definition.kind && group.is_ok_and(|group| group == definition.group) {
        let at = definition.version_of(object);
        return coerce(definition, at, object, options);
    }
    match object.as_object_mut() {
        Some(map) => meta::settle(map, &Path::nil(), options),
        None => Ok(Vec::new()),
    }
}

/// A stored object of version `at`, as upstream reads it from etcd: malformed metadata is dropped,
/// and defaults that came with a later schema are set.
pub(super) fn settle_stored(definition: &Definition, at: usize, mut object: Value) -> Value {
    let options = meta::Options { drop_invalid: true, report: false };
    if let Err(error) = coerce(definition, Some(at), &mut object, options) {
        tracing::warn!(definition = definition.name, %error, "a stored object does not fit its schema");
    }
    if object.generation() == 0 {
        object.set_generation(1);
    }
    if let Some(node) = definition.node(at) {
        default::apply(&mut object, node);
    }
    object
}

/// What a review made of an object: only metadata is looked at, and defaults are set.
pub(super) fn settle_reviewed(node: Option<&Node>, object: &mut Value) -> Result<(), String> {
    if let Some(map) = object.as_object_mut() {
        meta::settle(map, &Path::nil(), meta::Options::default())?;
    }
    if let Some(node) = node {
        default::apply(object, node);
    }
    Ok(())
}

/// A converted object of version `at`.
///
/// # Errors
/// When its metadata or embedded resources are malformed.
pub(super) fn settle_converted(definition: &Definition, at: usize, object: &mut Value) -> Result<(), String> {
    coerce(definition, Some(at), object, meta::Options::default()).map(drop)
}

impl Custom {
    /// Decodes a body. What is to be told about it is told even if the body is of another version.
    ///
    /// # Errors
    /// 400 in upstream's words; 415 for encodings that custom resources do not have.
    pub fn decode(
        &self,
        served: &Served,
        bytes: &[u8],
        encoding: Encoding,
        validation: FieldValidation,
        warnings: &Warnings,
    ) -> Result<Value, Status> {
        let kind = &self.definition.kind;
        let unrecognized = |error: String| {
            let summary = crate::codec::body::summary(bytes);
            Status::bad_request(format!(
                "the object provided is unrecognized (must be of type {kind}): {error} ({summary})"
            ))
        };
        let mut misfit = None;
        let (mut object, mut strict) = match encoding {
            Encoding::Json => {
                let decoded = json::decode(bytes, None)
                    .map_err(|error| unrecognized(format!("couldn't get version/kind; json parse error: {error}")))?;
                misfit = decoded.type_error;
                (decoded.value, decoded.strict)
            }
            Encoding::Yaml => {
                let decoded =
                    yaml::decode(&String::from_utf8_lossy(bytes)).map_err(|error| unrecognized(error.to_string()))?;
                (decoded.value, decoded.strict.into_iter().map(|error| error.to_string()).collect())
            }
            Encoding::Cbor => {
                let decoded = cbor::decode(bytes, None).map_err(|error| match cbor::interpret(bytes) {
                    Ok((version, own)) => {
                        let version = version.rsplit('/').next().filter(|version| !version.is_empty());
                        let version = version.unwrap_or(&self.version().name);
                        let own = if own.is_empty() { kind } else { &own };
                        Status::bad_request(format!(
                            "{own} in version {version:?} cannot be handled as a {kind}: {error}"
                        ))
                    }
                    Err(error) => unrecognized(format!("unable to determine group/version/kind: {error}")),
                })?;
                let object = if decoded.value.is_null() { Value::Object(Map::new()) } else { decoded.value };
                let wrong = |error| unrecognized(format!("unable to determine group/version/kind: {error}"));
                let (api_version, own) = match object.is_object() {
                    true => (object.api_version().to_string(), object.kind().to_string()),
                    false => cbor::interpret(bytes).map_err(wrong)?,
                };
                if own.is_empty() {
                    return Err(unrecognized(format!("Object 'Kind' is missing in '{}'", cbor::diagnose(bytes))));
                }
                if api_version.is_empty() {
                    let shown = cbor::diagnose(bytes);
                    return Err(Status::bad_request(format!(
                        "{own} in version \"\" cannot be handled as a {kind}: Object 'apiVersion' is missing in '{shown}'"
                    )));
                }
                (object, Vec::new())
            }
            Encoding::Protobuf => {
                return Err(unrecognized(format!(
                    "object {} does not implement the protobuf marshalling interface and cannot be encoded to a protobuf message",
                    served.go_name(false)
                )));
            }
        };
        body::interpret(&object).map_err(unrecognized)?;
        let (api_version, own_kind) = (object.api_version().to_string(), object.kind().to_string());
        let shown_kind = if own_kind.is_empty() { kind.clone() } else { own_kind.clone() };
        let version = match GroupVersion::parse(&api_version) {
            Ok(version) if !version.version.is_empty() => version.version,
            _ => self.version().name.clone(),
        };
        let cannot = |error: String| {
            Status::bad_request(format!("{shown_kind} in version {version:?} cannot be handled as a {kind}: {error}"))
        };
        if own_kind.is_empty() {
            let text = String::from_utf8_lossy(bytes);
            return Err(unrecognized(format!("Object 'Kind' is missing in '{text}'")));
        }
        misfit.map_or(Ok(()), |error| Err(cannot(error)))?;
        let expected = self.definition.api_version(self.at);
        let same = api_version == expected && own_kind == *kind;
        // Upstream does not look for unknown fields in CBOR.
        let report = validation != FieldValidation::Ignore && encoding != Encoding::Cbor;
        let options = meta::Options { drop_invalid: false, report };
        strict.extend(unknown(coerce_sent(&self.definition, &mut object, options).map_err(cannot)?));
        if validation == FieldValidation::Strict && !strict.is_empty() {
            return Err(cannot(format!("strict decoding error: {}", strict.join(", "))));
        }
        if validation == FieldValidation::Warn {
            warnings.extend(strict);
        }
        if api_version != expected {
            return Err(Status::bad_request(format!(
                "the API version in the data ({api_version}) does not match the expected API version ({expected})"
            )));
        }
        if let Some(node) = self.node().filter(|_| same) {
            default::apply(&mut object, node);
        }
        Ok(object)
    }

    /// Reads the text that a patch made, with what strict reading had against the patch; answers warnings.
    ///
    /// # Errors
    /// 422 as upstream answers patches whose result does not decode.
    pub fn read_patched(
        &self,
        served: &Served,
        text: &str,
        validation: FieldValidation,
        mut strict: Vec<String>,
    ) -> Result<(Value, Vec<String>), Status> {
        let decoded = json::decode(text.as_bytes(), None).map_err(|error| invalid_patch(text, error.message))?;
        let mut object = decoded.value;
        body::interpret(&object).map_err(|error| invalid_patch(text, error))?;
        if let Some(error) = decoded.type_error {
            return Err(invalid_patch(text, error));
        }
        strict.extend(decoded.strict);
        let warnings = self.settle_patched(served, text, &mut object, validation, strict)?;
        Ok((object, warnings))
    }

    /// Brings what a patch made, which messages show as `text`, into form; answers warnings.
    ///
    /// # Errors
    /// As [`Custom::read_patched`].
    pub fn settle_patched(
        &self,
        _served: &Served,
        text: &str,
        object: &mut Value,
        validation: FieldValidation,
        mut strict: Vec<String>,
    ) -> Result<Vec<String>, Status> {
        let invalid = |error: String| invalid_patch(text, error);
        if object.kind().is_empty() {
            return Err(invalid(format!("Object 'Kind' is missing in '{text}'")));
        }
        let report = validation != FieldValidation::Ignore;
        let same = object.kind() == self.definition.kind && self.definition.version_of(object) == Some(self.at);
        let options = meta::Options { drop_invalid: false, report };
        strict.extend(unknown(coerce_sent(&self.definition, object, options).map_err(invalid)?));
        if let Some(node) = self.node().filter(|_| same) {
            default::apply(object, node);
        }
        match validation {
            FieldValidation::Strict if !strict.is_empty() => {
                Err(invalid(format!("strict decoding error: {}", strict.join(", "))))
            }
            FieldValidation::Warn => Ok(strict),
            _ => Ok(Vec::new()),
        }
    }
}

fn unknown(paths: Vec<String>) -> impl Iterator<Item = String> {
    paths.into_iter().map(|path| format!("unknown field \"{path}\""))
}
