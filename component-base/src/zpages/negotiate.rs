//! In which form a page is wanted: upstream's negotiation, with what it refuses.

use apimachinery::status::Status;
use apimachinery::{json, yaml};
use http::header::ACCEPT;
use http::{HeaderMap, StatusCode};
use serde_json::Value;

use super::GROUP;
use crate::accept::{Clause, parse, wants_pretty};

const TEXT: &str = "text/plain";
const VERSIONS: [&str; 2] = ["v1alpha1", "v1beta1"];

/// What is sent.
pub struct Answer {
    pub code: StatusCode,
    pub media_type: String,
    pub body: Vec<u8>,
    pub warning: Option<String>,
}

impl Answer {
    pub fn ok(media_type: &str, body: Vec<u8>) -> Self {
        Self { code: StatusCode::OK, media_type: media_type.to_string(), body, warning: None }
    }
}

/// How objects are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    Json,
    Yaml,
}

impl Encoding {
    const ALL: [Encoding; 2] = [Encoding::Json, Encoding::Yaml];

    pub fn media_type(self) -> &'static str {
        match self {
            Encoding::Json => "application/json",
            Encoding::Yaml => "application/yaml",
        }
    }

    /// An object as it is sent.
    pub fn write(self, object: &Value, pretty: bool) -> Vec<u8> {
        let mut out = match self {
            Encoding::Yaml => return yaml::emit(object).into_bytes(),
            Encoding::Json if pretty => json::to_vec_pretty(object),
            Encoding::Json => json::to_vec(object),
        };
        out.push(b'\n');
        out
    }
}

/// The form that was agreed on.
#[derive(Debug, PartialEq, Eq)]
pub enum Form {
    Text,
    Structured { version: &'static str, encoding: Encoding, pretty: bool },
}

/// What a clause asks for beside a media type.
#[derive(Default)]
struct Wanted<'a> {
    kind: &'a str,
    group: &'a str,
    version: &'a str,
    /// Anything of these was said at all.
    convert: bool,
    pretty: bool,
}

/// Agrees on a form of the page of this kind.
///
/// # Errors
/// The answer 406, in a form of an object if the client takes that.
pub fn negotiate(headers: &HeaderMap, pretty: Option<&str>, kind: &str) -> Result<Form, Answer> {
    let header = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if header.trim().is_empty() {
        return Ok(Form::Text);
    }
    let pretty = wants_pretty(headers, pretty);
    let clauses = parse(header);
    for clause in &clauses {
        let Some(wanted) = wanted(clause) else { continue };
        for encoding in Encoding::ALL {
            let version = VERSIONS.into_iter().find(|version| *version == wanted.version);
            if clause.fits(encoding.media_type())
                && let Some(version) = version.filter(|_| wanted.kind == kind && wanted.group == GROUP)
            {
                return Ok(Form::Structured { version, encoding, pretty: pretty || wanted.pretty });
            }
        }
        if clause.fits(TEXT) && !wanted.convert {
            return Ok(Form::Text);
        }
    }
    Err(refusal(&clauses, pretty))
}

fn wanted<'a>(clause: &Clause<'a>) -> Option<Wanted<'a>> {
    let mut wanted = Wanted::default();
    for (name, value) in &clause.parameters {
        match *name {
            "as" => (wanted.kind, wanted.convert) = (value, true),
            "g" => (wanted.group, wanted.convert) = (value, true),
            "v" => (wanted.version, wanted.convert) = (value, true),
            "stream" | "sv" if !value.is_empty() => return None,
            "pretty" => wanted.pretty = *value == "1",
            _ => {}
        }
    }
    Some(wanted)
}

/// The error, in the best form for plain objects; without one, as indented JSON.
fn refusal(clauses: &[Clause<'_>], pretty: bool) -> Answer {
    let status = Status::not_acceptable(&["application/json", "application/yaml", TEXT]).to_value();
    let plain = clauses.iter().find_map(|clause| {
        let wanted = wanted(clause).filter(|wanted| !wanted.convert)?;
        let encoding = Encoding::ALL.into_iter().find(|encoding| clause.fits(encoding.media_type()))?;
        Some((encoding, pretty || wanted.pretty))
    });
    let (media_type, body) = match plain {
        Some((encoding, pretty)) => (encoding.media_type(), encoding.write(&status, pretty)),
        None => ("application/json", json::to_vec_pretty(&status)),
    };
    Answer { code: StatusCode::NOT_ACCEPTABLE, ..Answer::ok(media_type, body) }
}
