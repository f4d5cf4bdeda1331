//! Kubernetes' URLs, with the parser of Go's `net/url`: what one accepts the other does.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use apimachinery::gotext::quote;

use super::{Functions, text};
use crate::cost::Cost;
use crate::error::Error;
use crate::types::Type;
use crate::value::{Map, MapBuilder, Value};

/// A URL.
#[derive(Clone, Debug, Default)]
pub struct Url {
    scheme: String,
    opaque: String,
    user: Option<String>,
    host: String,
    /// As it was written.
    path: String,
    query: Option<String>,
    fragment: Option<String>,
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.scheme.is_empty() {
            write!(f, "{}:", self.scheme)?;
        }
        if !self.opaque.is_empty() {
            f.write_str(&self.opaque)?;
        } else {
            if !self.scheme.is_empty() || !self.host.is_empty() || self.user.is_some() {
                if !self.host.is_empty() || !self.path.is_empty() || self.user.is_some() {
                    f.write_str("//")?;
                }
                if let Some(user) = &self.user {
                    write!(f, "{user}@")?;
                }
                f.write_str(&self.host)?;
            }
            f.write_str(&self.path)?;
        }
        if let Some(query) = &self.query {
            write!(f, "?{query}")?;
        }
        match &self.fragment {
            Some(fragment) => write!(f, "#{fragment}"),
            None => Ok(()),
        }
    }
}

impl Url {
    fn hostname(&self) -> &str {
        let host = self.host.as_str();
        match host.strip_prefix('[').and_then(|host| host.split_once(']')) {
            Some((host, _)) => host,
            None => self.split_port().0,
        }
    }

    fn split_port(&self) -> (&str, &str) {
        match self.host.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !port.contains(']') => (host, port),
            _ => (&self.host, ""),
        }
    }

    /// The decoded query: what cannot be decoded is left out.
    fn query(&self) -> BTreeMap<String, Vec<String>> {
        let mut out: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for pair in self.query.as_deref().unwrap_or_default().split('&') {
            if pair.is_empty() || pair.contains(';') {
                continue;
            }
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            if let (Some(key), Some(value)) = (decode(key, true), decode(value, true)) {
                out.entry(key).or_default().push(value);
            }
        }
        out
    }
}

/// Reads a URL as a server reads the target of a request: absolute, or a path.
///
/// # Errors
/// Go's message.
pub fn parse_request_uri(raw: &str) -> Result<(), String> {
    parse(raw, true).map(|_| ())
}

fn parse(raw: &str, via_request: bool) -> Result<Url, String> {
    let (rest, fragment) = match raw.split_once('#') {
        Some((rest, fragment)) if !via_request => (rest, Some(fragment.to_owned())),
        _ => (raw, None),
    };
    let failed = |why: String| format!("parse {}: {why}", quote(rest));
    let mut url = parse_parts(rest, via_request).map_err(failed)?;
    if let Some(fragment) = fragment {
        if let Some(bad) = bad_escape(&fragment) {
            return Err(format!("parse {}: invalid URL escape {}", quote(raw), quote(&bad)));
        }
        url.fragment = Some(fragment);
    }
    Ok(url)
}

fn parse_parts(raw: &str, via_request: bool) -> Result<Url, String> {
    if raw.bytes().any(|b| b < b' ' || b == 0x7f) {
        return Err("net/url: invalid control character in URL".into());
    }
    if raw.is_empty() && via_request {
        return Err("empty url".into());
    }
    let mut url = Url::default();
    if raw == "*" {
        url.path = "*".into();
        return Ok(url);
    }
    let (scheme, rest) = scheme(raw)?;
    url.scheme = scheme.to_ascii_lowercase();
    let (mut rest, query) = match rest.split_once('?') {
        Some((rest, query)) => (rest, Some(query.to_owned())),
        None => (rest, None),
    };
    url.query = query;
    if !rest.starts_with('/') {
        if !url.scheme.is_empty() {
            url.opaque = rest.into();
            return Ok(url);
        }
        if via_request {
            return Err("invalid URI for request".into());
        }
        let first = rest.split('/').next().unwrap_or_default();
        if first.contains(':') {
            return Err("first path segment in URL cannot contain colon".into());
        }
    }
    if (!url.scheme.is_empty() || (!via_request && !rest.starts_with("///"))) && rest.starts_with("//") {
        let after = &rest[2..];
        let end = after.find('/').unwrap_or(after.len());
        let authority = &after[..end];
        rest = &after[end..];
        let host = match authority.rsplit_once('@') {
            Some((user, host)) => {
                let valid = |c: char| c.is_ascii_alphanumeric() || "-._:~!$&'()*+,;=%@".contains(c);
                if !user.chars().all(valid) {
                    return Err("net/url: invalid userinfo".into());
                }
                if let Some(bad) = bad_escape(user) {
                    return Err(format!("invalid URL escape {}", quote(&bad)));
                }
                url.user = Some(user.into());
                host
            }
            None => authority,
        };
        url.host = parse_host(host)?;
    }
    if let Some(bad) = bad_escape(rest) {
        return Err(format!("invalid URL escape {}", quote(&bad)));
    }
    url.path = escaped_path(rest);
    Ok(url)
}

fn scheme(raw: &str) -> Result<(&str, &str), String> {
    for (at, c) in raw.char_indices() {
        match c {
            'a'..='z' | 'A'..='Z' => {}
            '0'..='9' | '+' | '-' | '.' if at == 0 => return Ok(("", raw)),
            '0'..='9' | '+' | '-' | '.' => {}
            ':' if at == 0 => return Err("missing protocol scheme".into()),
            ':' => return Ok((&raw[..at], &raw[at + 1..])),
            _ => return Ok(("", raw)),
        }
    }
    Ok(("", raw))
}

fn parse_host(host: &str) -> Result<String, String> {
    let valid_port = |port: &str| {
        port.is_empty() || port.strip_prefix(':').is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_digit()))
    };
    if let Some(start) = host.find('[').filter(|at| *at == 0) {
        let Some(end) = host.rfind(']') else { return Err("missing ']' in host".into()) };
        let port = &host[end + 1..];
        if !valid_port(port) {
            return Err(format!("invalid port {} after host", quote(port)));
        }
        let address = &host[start + 1..end];
        let bare = address.split("%25").next().unwrap_or(address);
        if bare.parse::<std::net::Ipv6Addr>().is_err() {
            return Err("invalid host: ".to_owned() + &super::ip::go_parse_error(bare));
        }
    } else if let Some(at) = host.find(':') {
        let port = &host[host.rfind(':').unwrap_or(at)..];
        if !valid_port(port) {
            return Err(format!("invalid port {} after host", quote(port)));
        }
    }
    for (at, c) in host.char_indices() {
        if c.is_ascii() && !(c.is_ascii_alphanumeric() || "-_.~!$&'()*+,;=:[]<>\"%".contains(c)) {
            let mut end = at + 1;
            while !host.is_char_boundary(end) {
                end += 1;
            }
            return Err(format!("invalid character {} in host name", quote(&host[at..end])));
        }
    }
    if let Some(bad) = bad_escape(host) {
        return Err(format!("invalid URL escape {}", quote(&bad)));
    }
    // A percent sign may only hide what no host name otherwise holds.
    let hidden = host.match_indices('%').find_map(|(at, _)| {
        let code = u8::from_str_radix(host.get(at + 1..at + 3)?, 16).ok()?;
        (code < 0x80 && &host[at..at + 3] != "%25").then(|| host[at..at + 3].to_owned())
    });
    match hidden {
        Some(bad) => Err(format!("invalid URL escape {}", quote(&bad))),
        None => decode(host, false).ok_or_else(|| format!("invalid URL escape {}", quote(host))),
    }
}

/// The first percent sign without two hexadecimal digits.
fn bad_escape(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let at = (0..bytes.len()).find(|at| {
        bytes[*at] == b'%' && !bytes.get(at + 1..at + 3).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    })?;
    let mut end = (at + 3).min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    Some(text[at..end].to_owned())
}

fn decode(text: &str, plus: bool) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'%' => {
                out.push(u8::from_str_radix(text.get(at + 1..at + 3)?, 16).ok()?);
                at += 2;
            }
            b'+' if plus => out.push(b' '),
            b => out.push(b),
        }
        at += 1;
    }
    Some(String::from_utf8_lossy(&out).into_owned())
}

/// The path as Go writes it: what needs no escape and has none stays.
fn escaped_path(path: &str) -> String {
    let valid = |b: u8| b.is_ascii_alphanumeric() || b"-_.~!$&'()*+,;=:@[]/%".contains(&b);
    if path.bytes().all(valid) {
        return path.to_owned();
    }
    let decoded = decode(path, false).unwrap_or_else(|| path.to_owned());
    let mut out = String::with_capacity(decoded.len());
    for b in decoded.bytes() {
        if b.is_ascii_alphanumeric() || b"-_.~$&+,/:;=@".contains(&b) {
            out.push(char::from(b));
        } else {
            out.push_str(&format!("%{b:02X}"));
        }
    }
    out
}

/// Declares them.
pub fn declare(f: &mut Functions) {
    let url = Type::named("kubernetes.URL");
    let one = std::slice::from_ref(&url);
    f.global("url", "string_to_url", &[Type::String], url.clone(), Cost::TraverseFirst, |args| {
        let raw = text(&args[0])?;
        let failed = |e: String| Error::new(format!("URL parse error during conversion from string: {e}"));
        parse(raw, true).map_err(failed)?;
        Ok(Value::Url(Arc::new(parse(raw, false).map_err(failed)?)))
    });
    f.member("getScheme", "url_get_scheme", one, Type::String, Cost::Nominal, |args| {
        Ok(Value::text(of(&args[0])?.scheme.as_str()))
    });
    f.member("getHost", "url_get_host", one, Type::String, Cost::Nominal, |args| {
        Ok(Value::text(of(&args[0])?.host.as_str()))
    });
    f.member("getHostname", "url_get_hostname", one, Type::String, Cost::Nominal, |args| {
        Ok(Value::text(of(&args[0])?.hostname()))
    });
    f.member("getPort", "url_get_port", one, Type::String, Cost::Nominal, |args| {
        Ok(Value::text(of(&args[0])?.split_port().1))
    });
    f.member("getEscapedPath", "url_get_escaped_path", one, Type::String, Cost::Nominal, |args| {
        Ok(Value::text(of(&args[0])?.path.as_str()))
    });
    let query = Type::map(Type::String, Type::list(Type::String));
    f.member("getQuery", "url_get_query", one, query, Cost::Nominal, |args| {
        let mut map = MapBuilder::default();
        for (key, values) in of(&args[0])?.query() {
            map.set(Value::text(key), Value::texts(values))?;
        }
        Ok(Value::Map(Map::new(map)))
    });
    f.global("isURL", "is_url_string", &[Type::String], Type::Bool, Cost::Default, |args| {
        Ok(Value::Bool(parse(text(&args[0])?, true).is_ok()))
    });
}

fn of<'v>(value: &'v Value<'_>) -> Result<&'v Url, Error> {
    match value {
        Value::Url(url) => Ok(url),
        _ => Err(Error::no_such_overload()),
    }
}
