//! Request bodies: bounded reading, decoding under the schema, and the errors upstream answers.

use api::{cbor, conversion};
use apimachinery::gotext;
use apimachinery::gvk::{GroupVersion, GroupVersionKind};
use apimachinery::json;
use apimachinery::object::ObjectExt as _;
use apimachinery::schema::TypeRef;
use apimachinery::status::Status;
use axum::body::{Body, HttpBody as _};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use serde_json::Value;

use super::canonical;
use crate::request::accept::Encoding;
use crate::request::options::FieldValidation;

/// Upstream's `MaxRequestBodyBytes`.
pub const LIMIT: usize = 3 * 1024 * 1024;

/// How much of a body that is too long is still read, and thrown away: over HTTP/2 a client that is cut
/// off in the middle of sending never gets to see the answer.
const DRAIN: usize = 64 * 1024 * 1024;

/// Reads a whole body.
///
/// # Errors
/// 413 beyond three megabytes, 400 when the client stops in the middle.
pub async fn read(mut body: Body) -> Result<Bytes, Status> {
    let mut read = BytesMut::new();
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Status::bad_request(format!("error reading the body: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        length += data.len();
        if length <= LIMIT {
            if read.is_empty() && body.is_end_stream() {
                return Ok(data);
            }
            read.extend_from_slice(&data);
        } else if length > DRAIN {
            break;
        } else {
            read = BytesMut::new();
        }
    }
    if length > LIMIT {
        return Err(Status::request_entity_too_large(format!("limit is {LIMIT}")));
    }
    Ok(read.freeze())
}

/// The beginning of a body as upstream shows it: text where it looks like an object, bytes elsewhere.
pub fn summary(bytes: &[u8]) -> String {
    const SHOWN: usize = 30;
    let head = &bytes[..bytes.len().min(SHOWN)];
    let shown = match bytes.first() {
        None => return "<empty>".to_string(),
        Some(b'{') => String::from_utf8_lossy(head).into_owned(),
        Some(_) => head.iter().map(|byte| format!("{byte:02x}")).collect(),
    };
    if bytes.len() > SHOWN { format!("{shown} ...") } else { shown }
}

/// What a body must be.
#[derive(Clone, Debug)]
pub struct Expected<'a> {
    /// Group, version and kind.
    pub kind: GroupVersionKind,
    /// Its type.
    pub schema: TypeRef<'a>,
    /// Lists and maps that were given and are empty stay in the object, for the store to take out.
    pub empty: bool,
}

/// A decoded body, and what strict validation has against it.
#[derive(Clone, Debug)]
pub struct Decoded {
    pub object: Value,
    pub warnings: Vec<String>,
}

/// Why a body was not decoded.
#[derive(Clone, Debug)]
pub struct Misread {
    /// What is wrong with it.
    pub error: String,
    about: About,
}

/// How far a body was understood.
#[derive(Clone, Debug)]
enum About {
    /// Not at all; it may be shown how it begins.
    Unrecognized(Option<String>),
    /// As an object of this version and kind.
    Known(String, String),
    /// Wholly: it is of another version than is served here.
    Version,
}

impl Misread {
    /// The 400 that names what was wanted instead.
    fn status(&self, wanted: &GroupVersionKind) -> Status {
        let (error, kind) = (&self.error, &wanted.kind);
        match &self.about {
            About::Version => Status::bad_request(error),
            About::Known(api_version, kind) => cannot_be_handled(api_version, kind, wanted, error),
            About::Unrecognized(beginning) => {
                let beginning = beginning.as_ref().map(|text| format!(" ({text})")).unwrap_or_default();
                Status::bad_request(format!(
                    "the object provided is unrecognized (must be of type {kind}): {error}{beginning}"
                ))
            }
        }
    }
}

/// Decodes an object: parses, checks that it is what was expected, prunes unknown fields, and
/// makes it canonical.
///
/// # Errors
/// 400 in upstream's words.
pub fn decode(
    bytes: &[u8],
    encoding: Encoding,
    expected: &Expected<'_>,
    validation: FieldValidation,
) -> Result<Decoded, Status> {
    read_as(bytes, encoding, expected, validation).map_err(|misread| misread.status(&expected.kind))
}

/// Why a message cannot be read as the kind that it claims to be, if the server has that.
fn broken(api_version: &str, kind: &str, raw: &[u8]) -> Option<api::protobuf::Error> {
    let version = GroupVersion::parse(api_version).ok()?;
    let schema = api::table().find_kind(&version.group, &version.version, kind)?;
    api::protobuf::decode(schema, raw).err()
}

/// As [`decode`], for callers that say what is wrong in their own way.
///
/// # Errors
/// [`Misread`].
pub fn read_as(
    bytes: &[u8],
    encoding: Encoding,
    expected: &Expected<'_>,
    validation: FieldValidation,
) -> Result<Decoded, Misread> {
    let wanted = &expected.kind;
    let unrecognized = |error: String| Misread { error, about: About::Unrecognized(Some(summary(bytes))) };
    let misfit = |api_version: &str, kind: &str, error: &str| Misread {
        error: error.to_owned(),
        about: About::Known(api_version.to_owned(), kind.to_owned()),
    };
    let other = |api_version: &str, kind: &str, mismatch: Mismatch| match mismatch {
        Mismatch::Kind(error) => misfit(api_version, kind, &error),
        Mismatch::Version(error) => Misread { error, about: About::Version },
    };
    // JSON is checked while it is read, the others are not.
    let mut checked = None;
    let (mut object, mut strict) = match encoding {
        Encoding::Protobuf => {
            let (api_version, kind, raw) =
                super::protobuf::open(bytes).map_err(|error| unrecognized(error.to_string()))?;
            let cannot = |error: String| misfit(&api_version, &kind, &error);
            check_kind(&api_version, &kind, wanted).map_err(|mismatch| match broken(&api_version, &kind, raw) {
                // A message is read as what it says it is before that is compared with what was expected.
                Some(error) if matches!(mismatch, Mismatch::Kind(_)) => cannot(error.to_string()),
                _ => other(&api_version, &kind, mismatch),
            })?;
            let mut object = api::protobuf::decode(expected.schema, raw).map_err(|error| cannot(error.to_string()))?;
            object.set_api_version(&wanted.api_version());
            object.set_kind(&wanted.kind);
            (object, Vec::new())
        }
        Encoding::Cbor => {
            let (api_version, kind) = cbor::interpret(bytes)
                .map_err(|error| unrecognized(format!("unable to determine group/version/kind: {error}")))?;
            // What is no version counts as none.
            let api_version = GroupVersion::parse(&api_version).map_or_else(|_| String::new(), |_| api_version);
            let cannot = |error: String| misfit(&api_version, &kind, &error);
            check_kind(&api_version, &kind, wanted).map_err(|mismatch| other(&api_version, &kind, mismatch))?;
            let decoded = cbor::decode(bytes, Some(expected.schema)).map_err(|error| cannot(error.to_string()))?;
            (decoded.value, decoded.unknown.map(|error| error.to_string()).into_iter().collect())
        }
        Encoding::Json => {
            let parsed = json::decode(bytes, Some(expected.schema))
                .map_err(|error| unrecognized(format!("couldn't get version/kind; json parse error: {error}")))?;
            checked = Some(parsed.type_error);
            (parsed.value, parsed.strict)
        }
        Encoding::Yaml => {
            let text = String::from_utf8_lossy(bytes);
            let parsed = apimachinery::yaml::decode(&text).map_err(|error| unrecognized(error.to_string()))?;
            // As upstream: YAML becomes JSON, and JSON is read under the type.
            let as_json = json::to_vec(&parsed.value);
            let typed = json::decode(&as_json, Some(expected.schema))
                .map_err(|error| Misread { error: error.to_string(), about: About::Unrecognized(None) })?;
            let mut strict: Vec<String> = parsed.strict.into_iter().collect();
            strict.extend(typed.strict);
            checked = Some(typed.type_error);
            (typed.value, strict)
        }
    };
    if encoding != Encoding::Protobuf {
        if object.is_null() {
            object = serde_json::json!({});
        }
        interpret(&object).map_err(|error| unrecognized(error.to_string()))?;
        let (api_version, kind) = (object.api_version().to_string(), object.kind().to_string());
        if let Some(mismatch) = other_kind(&api_version, &kind, wanted, bytes) {
            return Err(other(&api_version, &kind, mismatch));
        }
        let named = if kind.is_empty() { wanted.kind.clone() } else { kind.clone() };
        let version = if api_version.is_empty() { wanted.api_version() } else { api_version.clone() };
        object.set_api_version(&wanted.api_version());
        object.set_kind(&wanted.kind);
        let wrong = checked.unwrap_or_else(|| api::check_fields(expected.schema, &object).type_error);
        if let Some(error) = wrong {
            return Err(misfit(&version, &named, &error));
        }
        if expected.empty {
            api::canonical::canonicalize_decoded(expected.schema, &mut object);
        } else {
            canonical::written(expected.schema, &mut object);
        }
        if !strict.is_empty() && validation == FieldValidation::Strict {
            let error = format!("strict decoding error: {}", strict.join(", "));
            return Err(misfit(&version, &named, &error));
        }
    }
    if validation != FieldValidation::Warn {
        strict.clear();
    }
    let warnings = strict.iter().flat_map(|error| yaml_warnings(error)).collect();
    Ok(Decoded { object, warnings })
}

/// What upstream says of a body that does not tell its version and kind in the form it should.
///
/// # Errors
/// For what is no object, or calls itself something that is no text.
pub fn interpret(object: &Value) -> Result<(), String> {
    if !object.is_object() {
        return Err(format!(
            "couldn't get version/kind; json parse error: json: cannot unmarshal {} into Go value of type struct {{ APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \"json:\\\"kind,omitempty\\\"\" }}",
            gotext::json_kind(object)
        ));
    }
    for name in ["apiVersion", "kind"] {
        let value = &object[name];
        if !matches!(value, Value::String(_) | Value::Null) {
            return Err(format!(
                "couldn't get version/kind; json parse error: json: cannot unmarshal {} into Go struct field .{name} of type string",
                gotext::json_kind(value)
            ));
        }
    }
    GroupVersion::parse(object.api_version()).map(|_| ()).map_err(|error| error.to_string())
}

/// What a body is instead of what is wanted.
#[derive(Clone, Debug)]
pub enum Mismatch {
    /// Something that does not become it, or is not even known.
    Kind(String),
    /// The same in another version.
    Version(String),
}

impl Mismatch {
    /// The text alone.
    pub fn text(self) -> String {
        match self {
            Self::Kind(text) | Self::Version(text) => text,
        }
    }
}

/// What is wrong with a body of another kind than is wanted: what is wrong with it as what it says it is,
/// which upstream looks at first, or that it is not wanted. `None` if it is of that kind.
pub fn other_kind(api_version: &str, kind: &str, wanted: &GroupVersionKind, text: &[u8]) -> Option<Mismatch> {
    let mismatch = check_kind(api_version, kind, wanted).err()?;
    let own = GroupVersion::parse(api_version)
        .ok()
        .and_then(|version| api::table().find_kind(&version.group, &version.version, kind))
        .and_then(|ty| json::decode(text, Some(ty)).ok()?.type_error);
    Some(own.map_or(mismatch, Mismatch::Kind))
}

/// A strict error as warnings: YAML's come several to a text, behind a prefix.
pub fn yaml_warnings(error: &str) -> Vec<String> {
    const PREFIX: &str = "yaml: unmarshal errors:\n";
    let long = error.strip_prefix("error converting YAML to JSON: ").unwrap_or(error);
    match long.strip_prefix(PREFIX) {
        Some(lines) => lines.split('\n').map(|line| line.trim().to_string()).collect(),
        None => vec![error.to_string()],
    }
}

fn cannot_be_handled(api_version: &str, kind: &str, wanted: &GroupVersionKind, error: &str) -> Status {
    let version = api_version.rsplit('/').next().unwrap_or(api_version);
    let version = if version.is_empty() { &wanted.version } else { version };
    let kind = if kind.is_empty() { &wanted.kind } else { kind };
    Status::bad_request(format!("{kind} in version {version:?} cannot be handled as a {}: {error}", wanted.kind))
}

/// Groups with a registry of kinds of their own, and how upstream's messages call it.
const SCHEMES: [(&str, &str); 2] = [
    ("apiextensions.k8s.io", "k8s.io/apiextensions-apiserver/pkg/apiserver/apiserver.go:55"),
    ("apiregistration.k8s.io", "k8s.io/kube-aggregator/pkg/apiserver/scheme/scheme.go:28"),
];
const SCHEME: &str = "pkg/api/legacyscheme/scheme.go:30";

/// Kinds that every registry knows.
const COMMON: [&str; 12] = [
    "APIGroup",
    "APIGroupList",
    "APIResourceList",
    "APIVersions",
    "CreateOptions",
    "DeleteOptions",
    "GetOptions",
    "ListOptions",
    "PatchOptions",
    "Status",
    "UpdateOptions",
    "WatchEvent",
];

/// How upstream calls the package of a group's kinds.
fn package(group: &str) -> &str {
    match group {
        "" | "events.k8s.io" => "core",
        _ => group.split('.').next().unwrap_or_default(),
    }
}

/// Whether the type an object claims is one that may be sent here.
fn check_kind(api_version: &str, kind: &str, wanted: &GroupVersionKind) -> Result<(), Mismatch> {
    let version = if api_version.is_empty() {
        GroupVersion::new(wanted.group.clone(), wanted.version.clone())
    } else {
        GroupVersion::parse(api_version).map_err(|error| Mismatch::Kind(error.to_string()))?
    };
    let kind = if kind.is_empty() { wanted.kind.as_str() } else { kind };
    if version.group == wanted.group && version.version == wanted.version && kind == wanted.kind {
        return Ok(());
    }
    let scheme_of = |group: &str| SCHEMES.iter().find(|(own, _)| *own == group).map_or(SCHEME, |(_, scheme)| scheme);
    let scheme = scheme_of(&wanted.group);
    let in_scheme = COMMON.contains(&kind) || scheme_of(&version.group) == scheme;
    let is_list_elsewhere = kind == "List" && !version.group.is_empty();
    if !in_scheme || is_list_elsewhere || api::table().find_kind(&version.group, &version.version, kind).is_none() {
        return Err(Mismatch::Kind(format!(
            "no kind {kind:?} is registered for version {:?} in scheme \"{scheme}\"",
            version.to_string()
        )));
    }
    if kind != wanted.kind || !conversion::is_same_kind(&version.group, &wanted.group, kind) {
        return Err(Mismatch::Kind(format!(
            "converting ({}.{kind}) to ({}.{}): unknown conversion",
            version.version,
            package(&wanted.group),
            wanted.kind
        )));
    }
    Err(Mismatch::Version(format!(
        "the API version in the data ({version}) does not match the expected API version ({})",
        wanted.group_version()
    )))
}
