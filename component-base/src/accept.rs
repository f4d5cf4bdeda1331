//! The Accept header, read as upstream's `goautoneg` does, and whether somebody reads the answer.

use http::HeaderMap;
use http::header::USER_AGENT;

use crate::featuregate::parse_bool;

/// One of the forms that a client takes.
pub struct Clause<'a> {
    /// Before the slash, or `*`.
    pub kind: &'a str,
    /// After it, or `*`.
    pub subtype: &'a str,
    /// How well it is liked, 1 at most.
    pub q: f64,
    /// Everything but `q`, in order.
    pub parameters: Vec<(&'a str, &'a str)>,
}

impl Clause<'_> {
    /// Whether this media type is meant.
    pub fn fits(&self, media_type: &str) -> bool {
        let (kind, subtype) = media_type.split_once('/').unwrap_or((media_type, ""));
        (self.kind == kind && (self.subtype == subtype || self.subtype == "*"))
            || (self.kind == "*" && self.subtype == "*")
    }
}

/// The clauses of an Accept header, that which is liked best first.
pub fn parse(header: &str) -> Vec<Clause<'_>> {
    let mut clauses: Vec<Clause<'_>> = header
        .split(',')
        .filter_map(|part| {
            let mut pieces = part.trim().split(';').map(str::trim);
            let media = pieces.next()?;
            let (kind, subtype) = if media == "*" { ("*", "*") } else { media.split_once('/')? };
            let mut clause = Clause { kind: kind.trim(), subtype: subtype.trim(), q: 1.0, parameters: Vec::new() };
            for piece in pieces {
                let (name, value) = piece.split_once('=').unwrap_or((piece, ""));
                // Quotes are part of a value, upstream either.
                let (name, value) = (name.trim(), value.trim());
                if name == "q" {
                    clause.q = value.parse().unwrap_or(1.0);
                } else {
                    clause.parameters.push((name, value));
                }
            }
            Some(clause)
        })
        .collect();
    clauses.sort_by(|a, b| {
        b.q.total_cmp(&a.q)
            .then((a.kind == "*").cmp(&(b.kind == "*")))
            .then((a.subtype == "*").cmp(&(b.subtype == "*")))
    });
    clauses
}

/// Whether an answer is to be indented: `pretty` as the query has it, else for programs that people look at.
pub fn wants_pretty(headers: &HeaderMap, pretty: Option<&str>) -> bool {
    match pretty {
        Some(value) if !value.is_empty() => parse_bool(value) == Some(true),
        _ => {
            let agent = headers.get(USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
            ["curl", "Wget", "Mozilla/5.0"].iter().any(|prefix| agent.starts_with(prefix))
        }
    }
}
