//! Content negotiation: which encoding, and which shape, an answer takes.
//!
//! Follows upstream's `endpoints/handlers/negotiation`: JSON is the default, clauses are tried by
//! weight, and `as`, `g`, `v` ask for a Table or for PartialObjectMetadata.

use apimachinery::status::{Status, reason};
use component_base::accept::{Clause, parse, wants_pretty};
use http::HeaderMap;
use http::header::{ACCEPT, CONTENT_TYPE};

use super::Query;

/// An encoding of objects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Encoding {
    #[default]
    Json,
    Yaml,
    Protobuf,
    /// Served behind the gate `CBORServingAndStorage` (KEP-4222).
    Cbor,
}

/// JSON's media type.
pub const JSON: &str = "application/json";
/// YAML's media type.
pub const YAML: &str = "application/yaml";
/// The media type of Kubernetes' protobuf envelope.
pub const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
/// CBOR's media type (RFC 8949).
pub const CBOR: &str = "application/cbor";
/// The media type of CBOR items one after the other (RFC 8742), which is what a watch is.
pub const CBOR_SEQUENCE: &str = "application/cbor-seq";

/// What objects are read and written as, in upstream's order; the last behind its gate.
const OBJECT_TYPES: [&str; 4] = [JSON, YAML, PROTOBUF, CBOR];
/// What watches are written as; the last behind its gate.
const STREAM_TYPES: [&str; 3] =
    ["application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch", CBOR_SEQUENCE];

/// What objects are read and written as.
pub fn object_types(cbor: bool) -> &'static [&'static str] {
    &OBJECT_TYPES[..OBJECT_TYPES.len() - usize::from(!cbor)]
}

fn stream_types(cbor: bool) -> &'static [&'static str] {
    &STREAM_TYPES[..STREAM_TYPES.len() - usize::from(!cbor)]
}

impl Encoding {
    const ALL: [Encoding; 4] = [Encoding::Json, Encoding::Yaml, Encoding::Protobuf, Encoding::Cbor];

    /// Those that are served.
    fn all(cbor: bool) -> &'static [Encoding] {
        &Self::ALL[..Self::ALL.len() - usize::from(!cbor)]
    }

    /// The media type.
    pub fn media_type(self) -> &'static str {
        match self {
            Encoding::Json => JSON,
            Encoding::Yaml => YAML,
            Encoding::Protobuf => PROTOBUF,
            Encoding::Cbor => CBOR,
        }
    }
}

/// The shape asked for instead of the object's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transform {
    /// `meta.k8s.io` Table, with its version (`v1` or `v1beta1`).
    Table(&'static str),
    /// Metadata only; of a single object.
    PartialObjectMetadata(&'static str),
    /// Metadata only; of a list.
    PartialObjectMetadataList(&'static str),
}

/// What an answer looks like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Format {
    pub encoding: Encoding,
    /// Indented JSON.
    pub pretty: bool,
    /// Set when the client did not ask for the plain object.
    pub transform: Option<Transform>,
    /// `;stream=watch` was part of the clause.
    pub stream: bool,
}

/// What an endpoint can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allowed {
    /// Plain objects only.
    Plain,
    /// Objects of a resource, which can become Tables and metadata.
    Transforms,
    /// Objects that nothing stores, such as reviews: they have metadata and no columns.
    Metadata,
    /// Events of a watch; plain or transformed.
    Watch,
}

/// Which of these media types an Accept header likes best; without a header, the first.
pub fn first_of(header: &str, types: &[&str]) -> Option<usize> {
    if header.is_empty() {
        return Some(0);
    }
    let fits = |clause: &Clause<'_>, name: &str| {
        let (kind, subtype) = name.split_once('/').expect("media types have a slash");
        matches!(clause.kind, have if have == kind || have == "*")
            && matches!(clause.subtype, have if have == subtype || have == "*")
    };
    parse(header).iter().find_map(|clause| types.iter().position(|name| fits(clause, name)))
}

/// Chooses the format of an answer.
///
/// # Errors
/// 406 with the media types that would do. Before the handler's own negotiation upstream's router
/// checks that some clause names a type the route produces at all, with a text of its own.
pub fn negotiate(headers: &HeaderMap, query: &Query, allowed: Allowed, cbor: bool) -> Result<Format, Status> {
    let header = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut format = choose(header, allowed, cbor)?;
    if !format.pretty {
        format.pretty = wants_pretty(headers, query.get("pretty"));
    }
    Ok(format)
}

fn choose(header: &str, allowed: Allowed, cbor: bool) -> Result<Format, Status> {
    if header.is_empty() {
        return Ok(Format::default());
    }
    let clauses = parse(header);
    for clause in &clauses {
        for &encoding in Encoding::all(cbor) {
            if clause.fits(encoding.media_type())
                && let Some(format) = accept(encoding, &clause.parameters, allowed)
            {
                // What is liked best decides, even if it cannot be written as a stream.
                if allowed == Allowed::Watch && encoding == Encoding::Yaml {
                    return Err(Status::not_acceptable(stream_types(cbor)));
                }
                return Ok(format);
            }
        }
    }
    // Upstream asks for an object's form first, and then for a stream's.
    if allowed == Allowed::Watch && choose(header, Allowed::Transforms, cbor).is_ok() {
        return Err(Status::not_acceptable(stream_types(cbor)));
    }
    Err(Status::not_acceptable(object_types(cbor)))
}

fn accept(encoding: Encoding, parameters: &[(&str, &str)], allowed: Allowed) -> Option<Format> {
    let mut format = Format { encoding, ..Format::default() };
    let (mut kind, mut group, mut version, mut convert) = ("", "", "", false);
    for (name, value) in parameters {
        match *name {
            "as" => (kind, convert) = (value, true),
            "g" => (group, convert) = (value, true),
            "v" => (version, convert) = (value, true),
            "stream" => {
                if *value != "watch" || encoding == Encoding::Yaml {
                    return None;
                }
                format.stream = true;
            }
            "sv" if !value.is_empty() => return None,
            "pretty" => format.pretty = *value == "1",
            _ => {}
        }
    }
    if convert {
        if allowed == Allowed::Plain || group != "meta.k8s.io" {
            return None;
        }
        let version = match version {
            "v1" => "v1",
            "v1beta1" => "v1beta1",
            _ => return None,
        };
        format.transform = Some(match kind {
            // Table rows hold raw JSON, so upstream writes Tables as nothing else.
            "Table" if matches!(encoding, Encoding::Json | Encoding::Yaml) && allowed != Allowed::Metadata => {
                Transform::Table(version)
            }
            "PartialObjectMetadata" => Transform::PartialObjectMetadata(version),
            "PartialObjectMetadataList" => Transform::PartialObjectMetadataList(version),
            _ => return None,
        });
    }
    Some(format)
}

/// The check that upstream's router makes before any handler runs.
///
/// # Errors
/// 406 when no clause of Accept names a type that the route can produce.
pub fn route_produces(headers: &HeaderMap, produces: &[&str]) -> Result<(), Status> {
    let Some(header) = headers.get(ACCEPT).and_then(|value| value.to_str().ok()) else {
        return Ok(());
    };
    let acceptable = header.is_empty()
        || header.split(',').any(|part| {
            let media = part.split(';').next().unwrap_or_default().trim();
            media == "*/*" || produces.iter().any(|have| *have == "*/*" || have.split(';').next() == Some(media))
        });
    if acceptable {
        return Ok(());
    }
    let mut status = Status::failure(
        406,
        reason::NOT_ACCEPTABLE,
        format!("406: Not Acceptable\n\nAvailable representations: {}", produces.join(", ")),
    );
    status.details = Some(Box::default());
    Err(status)
}

/// A kind of route, by what it produces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Reads one object, or changes it.
    Object,
    /// Lists or watches.
    List,
}

impl Route {
    /// The media types, in upstream's order.
    pub fn types(self, cbor: bool) -> Vec<&'static str> {
        match self {
            Route::Object => object_types(cbor).to_vec(),
            Route::List => [object_types(cbor), stream_types(cbor)].concat(),
        }
    }
}

/// How a request's body is encoded.
///
/// # Errors
/// 415 with the types understood.
pub fn body_encoding(headers: &HeaderMap, cbor: bool) -> Result<Encoding, Status> {
    let header = headers.get(CONTENT_TYPE).map(|value| value.to_str().unwrap_or("invalid")).unwrap_or_default();
    if header.is_empty() {
        return Ok(Encoding::Json);
    }
    let media = media_type(header);
    let mut served = Encoding::all(cbor).iter().copied();
    served
        .find(|encoding| media == encoding.media_type())
        .ok_or_else(|| Status::unsupported_media_type(object_types(cbor)))
}

/// A Content-Type without its parameters, in lower case.
pub fn media_type(header: &str) -> String {
    header.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(header: &str, allowed: Allowed) -> Option<(Encoding, Option<Transform>)> {
        choose(header, allowed, false).ok().map(|format| (format.encoding, format.transform))
    }

    #[test]
    fn chooses_as_upstream_does() {
        use Allowed::*;
        use Encoding::*;
        let table = Some(Transform::Table("v1"));
        for (header, allowed, want) in [
            ("", Plain, Some((Json, None))),
            ("*/*", Plain, Some((Json, None))),
            ("application/yaml", Plain, Some((Yaml, None))),
            ("application/xml", Plain, None),
            ("application/xml;q=0.9, application/json;q=0.1", Plain, Some((Json, None))),
            ("application/vnd.kubernetes.protobuf,application/json", Transforms, Some((Protobuf, None))),
            ("application/json;as=Table;v=v1;g=meta.k8s.io,application/json", Transforms, Some((Json, table))),
            ("application/json;as=Table;v=v1;g=meta.k8s.io,application/json", Plain, Some((Json, None))),
            ("application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io", Transforms, None),
            ("application/json;as=Nope;v=v1;g=meta.k8s.io", Transforms, None),
            ("application/json;as=Table;v=v1;g=meta.k8s.io", Metadata, None),
            ("application/json;as=Table;v=v1;g=meta.k8s.io,application/json", Metadata, Some((Json, None))),
            (
                "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
                Metadata,
                Some((Json, Some(Transform::PartialObjectMetadata("v1")))),
            ),
            ("application/yaml", Watch, None),
            ("application/json;stream=watch", Watch, Some((Json, None))),
        ] {
            assert_eq!(check(header, allowed), want, "{header} {allowed:?}");
        }
    }

    #[test]
    fn the_best_of_some_types() {
        let of = |header: &str| first_of(header, &["application/json", "application/x+protobuf"]);
        assert_eq!(of(""), Some(0));
        assert_eq!(of("application/x+protobuf, */*"), Some(1));
        assert_eq!(of("application/x+protobuf;q=0.5, application/json"), Some(0));
        assert_eq!(of("text/plain"), None);
    }

    #[test]
    fn refuses_with_the_list() {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, "application/xml".parse().unwrap());
        let status = route_produces(&headers, &Route::Object.types(false)).unwrap_err();
        assert_eq!(
            status.message,
            "406: Not Acceptable\n\nAvailable representations: application/json, application/yaml, application/vnd.kubernetes.protobuf"
        );
        headers.insert(CONTENT_TYPE, "text/plain".parse().unwrap());
        assert_eq!(body_encoding(&headers, false).unwrap_err().code, 415);
        headers.insert(CONTENT_TYPE, "application/JSON; charset=utf-8".parse().unwrap());
        assert_eq!(body_encoding(&headers, false), Ok(Encoding::Json));
    }

    #[test]
    fn cbor_is_behind_its_gate() {
        let of = |header: &str, allowed, cbor| choose(header, allowed, cbor).map(|format| format.encoding);
        assert_eq!(of(CBOR, Allowed::Transforms, true), Ok(Encoding::Cbor));
        assert_eq!(of(CBOR, Allowed::Watch, true), Ok(Encoding::Cbor));
        assert_eq!(of("application/*", Allowed::Plain, true), Ok(Encoding::Json));
        let refused = of(CBOR, Allowed::Transforms, false).unwrap_err();
        assert_eq!(
            refused.message,
            "only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf"
        );
        assert_eq!(of(CBOR_SEQUENCE, Allowed::Watch, true).unwrap_err().code, 406, "as upstream has it");
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, CBOR.parse().unwrap());
        assert_eq!(body_encoding(&headers, true), Ok(Encoding::Cbor));
        assert_eq!(body_encoding(&headers, false).unwrap_err().code, 415);
        assert_eq!(Route::List.types(true).len(), 7);
        assert_eq!(Route::List.types(false).len(), 5);
    }
}
