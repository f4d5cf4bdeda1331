//! What a proxied answer needs to work under the path it was asked for by: links of HTML pages and
//! redirects lead back through the proxy.

use std::io::{Read as _, Write as _};

use axum::body::Body;
use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use http::{HeaderValue, Uri, response};
use http_body_util::{BodyExt as _, Limited};

use crate::response::Response;

/// Pages larger than this are passed on as they are; nobody writes them by hand.
const LARGEST_PAGE: usize = 16 << 20;

/// Elements with attributes that hold addresses.
const ATTRIBUTES: &[(&str, &[&str])] = &[
    ("a", &["href"]),
    ("applet", &["codebase"]),
    ("area", &["href"]),
    ("audio", &["src"]),
    ("base", &["href"]),
    ("blockquote", &["cite"]),
    ("body", &["background"]),
    ("button", &["formaction"]),
    ("command", &["icon"]),
    ("del", &["cite"]),
    ("embed", &["src"]),
    ("form", &["action"]),
    ("frame", &["longdesc", "src"]),
    ("head", &["profile"]),
    ("html", &["manifest"]),
    ("iframe", &["longdesc", "src"]),
    ("img", &["longdesc", "src", "usemap"]),
    ("input", &["src", "usemap", "formaction"]),
    ("ins", &["cite"]),
    ("link", &["href"]),
    ("object", &["classid", "codebase", "data", "usemap"]),
    ("q", &["cite"]),
    ("script", &["src"]),
    ("source", &["src"]),
    ("video", &["poster", "src"]),
];

/// Where the answer comes from, and how the client got there.
#[derive(Clone, Debug)]
pub(super) struct Route {
    /// The path up to and with `/proxy`.
    pub prefix: String,
    /// `host:port` that was dialled.
    pub upstream: String,
    /// The host that the client asked, and how.
    pub host: String,
    pub scheme: &'static str,
}

impl Route {
    /// The address as the client has to write it; `None` when it is right already.
    fn rewrite(&self, address: &str) -> Option<String> {
        let uri: Uri = address.trim().parse().ok()?;
        let other = uri.authority().is_some_and(|a| a.as_str() != self.upstream && a.as_str() != self.host);
        let path = uri.path();
        // Relative addresses stay relative. (`Uri` reads neither them nor an empty one.)
        if other || !path.starts_with('/') || (uri.authority().is_none() && address.starts_with("//")) {
            return None;
        }
        let origin = match uri.authority() {
            Some(_) => format!("{}://{}", self.scheme, self.host),
            None => String::new(),
        };
        let fragment = address.split_once('#').map(|(_, rest)| format!("#{rest}")).unwrap_or_default();
        let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
        let prefix = if path.starts_with(self.prefix.as_str()) { "" } else { self.prefix.as_str() };
        let new = format!("{origin}{prefix}{path}{query}{fragment}");
        (new != address).then_some(new)
    }
}

/// The answer as the client is to see it.
pub(super) async fn answer(mut parts: response::Parts, body: Body, route: &Route) -> Response {
    // Whom pages of the endpoint may talk to is not the endpoint's to say under this address.
    let cors: Vec<_> =
        parts.headers.keys().filter(|name| name.as_str().starts_with("access-control-")).cloned().collect();
    cors.iter().for_each(|name| {
        parts.headers.remove(name);
    });
    if let Some(location) = parts.headers.get(LOCATION) {
        let new = location.to_str().ok().and_then(|text| route.rewrite(text));
        if let Some(value) = new.and_then(|text| HeaderValue::from_str(&text).ok()) {
            parts.headers.insert(LOCATION, value);
        }
        return Response::from_parts(parts, body);
    }
    let kind = parts.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    let encoding = parts.headers.get(CONTENT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let gzip = encoding.eq_ignore_ascii_case("gzip");
    let length = parts.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    let page = kind.eq_ignore_ascii_case("text/html") && (gzip || encoding.is_empty());
    if !page || length.is_some_and(|length| length > LARGEST_PAGE) {
        return Response::from_parts(parts, body);
    }
    let Ok(page) = Limited::new(body, LARGEST_PAGE).collect().await else {
        parts.status = http::StatusCode::BAD_GATEWAY;
        parts.headers.remove(CONTENT_LENGTH);
        return Response::from_parts(parts, Body::empty());
    };
    let page = page.to_bytes();
    let new = if gzip { compressed(&page, route) } else { Some(html(&page, route)) };
    let new = new.map_or(page, Bytes::from);
    if parts.headers.contains_key(CONTENT_LENGTH) {
        parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(new.len()));
    }
    Response::from_parts(parts, Body::from(new))
}

fn compressed(page: &[u8], route: &Route) -> Option<Vec<u8>> {
    let mut plain = Vec::new();
    let limit = u64::try_from(LARGEST_PAGE).unwrap_or(u64::MAX);
    flate2::read::GzDecoder::new(page).take(limit).read_to_end(&mut plain).ok()?;
    if plain.len() >= LARGEST_PAGE {
        return None;
    }
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(&html(&plain, route)).ok()?;
    out.finish().ok()
}

/// The page with its addresses rewritten; everything else byte for byte.
fn html(page: &[u8], route: &Route) -> Vec<u8> {
    let mut out = Vec::with_capacity(page.len() + page.len() / 8);
    let mut at = 0;
    while let Some(found) = page.get(at..).and_then(|rest| rest.iter().position(|byte| *byte == b'<')) {
        let start = at + found;
        out.extend_from_slice(&page[at..start]);
        if page[start..].starts_with(b"<!--") {
            at = find(page, start, b"-->").map_or(page.len(), |end| end + 3);
            out.extend_from_slice(&page[start..at]);
            continue;
        }
        let name_end =
            page[start + 1..].iter().position(|b| !b.is_ascii_alphanumeric()).map_or(page.len(), |n| start + 1 + n);
        let name = page[start + 1..name_end].to_ascii_lowercase();
        if name.is_empty() {
            out.push(b'<');
            at = start + 1;
            continue;
        }
        let attributes = ATTRIBUTES.iter().find(|(element, _)| element.as_bytes() == name).map(|(_, list)| *list);
        out.extend_from_slice(&page[start..name_end]);
        at = tag(page, name_end, attributes.unwrap_or_default(), route, &mut out);
        if name == b"script" || name == b"style" {
            // What follows is no markup.
            let end = [b'<', b'/'].iter().chain(&name).copied().collect::<Vec<u8>>();
            let next = find_ignoring_case(page, at, &end).unwrap_or(page.len());
            out.extend_from_slice(&page[at..next]);
            at = next;
        }
    }
    out.extend_from_slice(page.get(at..).unwrap_or_default());
    out
}

/// Copies the attributes of a tag from `at` on, up to and with its `>`; returns where it ends.
fn tag(page: &[u8], mut at: usize, attributes: &[&str], route: &Route, out: &mut Vec<u8>) -> usize {
    while at < page.len() {
        let byte = page[at];
        if byte == b'>' {
            out.push(byte);
            return at + 1;
        }
        if byte.is_ascii_whitespace() || byte == b'/' {
            out.push(byte);
            at += 1;
            continue;
        }
        let is_name = |b: &u8| !(b.is_ascii_whitespace() || matches!(b, b'=' | b'>' | b'/'));
        let end = page[at..].iter().position(|b| !is_name(b)).map_or(page.len(), |n| at + n).max(at + 1);
        let name = String::from_utf8_lossy(&page[at..end]).to_ascii_lowercase();
        out.extend_from_slice(&page[at..end]);
        at = end;
        let skip =
            |from: usize| page[from..].iter().position(|b| !b.is_ascii_whitespace()).map_or(page.len(), |n| from + n);
        let equals = skip(at);
        if page.get(equals) != Some(&b'=') {
            continue;
        }
        let value = skip(equals + 1);
        out.extend_from_slice(&page[at..value]);
        let (begin, close) = match page.get(value) {
            Some(quote @ (b'"' | b'\'')) => {
                let close = page[value + 1..].iter().position(|b| b == quote).map_or(page.len(), |n| value + 1 + n);
                out.push(*quote);
                (value + 1, close)
            }
            _ => {
                let close = page[value..].iter().position(|b| b.is_ascii_whitespace() || *b == b'>');
                (value, close.map_or(page.len(), |n| value + n))
            }
        };
        let old = &page[begin..close];
        let new = match attributes.contains(&name.as_str()) {
            true => std::str::from_utf8(old).ok().and_then(|text| route.rewrite(text)),
            false => None,
        };
        match new {
            Some(new) => out.extend_from_slice(new.as_bytes()),
            None => out.extend_from_slice(old),
        }
        at = close;
        if begin != value && close < page.len() {
            out.push(page[close]);
            at = close + 1;
        }
    }
    at
}

fn find(page: &[u8], from: usize, what: &[u8]) -> Option<usize> {
    page[from..].windows(what.len()).position(|window| window == what).map(|at| from + at)
}

fn find_ignoring_case(page: &[u8], from: usize, what: &[u8]) -> Option<usize> {
    page[from..].windows(what.len()).position(|window| window.eq_ignore_ascii_case(what)).map(|at| from + at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route() -> Route {
        Route {
            prefix: "/api/v1/namespaces/n/pods/p:80/proxy".into(),
            upstream: "10.0.0.1:80".into(),
            host: "cluster:6443".into(),
            scheme: "https",
        }
    }

    #[test]
    fn addresses_of_the_endpoint_lead_through_the_proxy() {
        let prefix = route().prefix;
        for (old, new) in [
            ("/a?b=c#d", Some(format!("{prefix}/a?b=c#d"))),
            ("/a/", Some(format!("{prefix}/a/"))),
            ("a/b", None),
            ("#top", None),
            ("", None),
            ("http://elsewhere/a", None),
            ("http://10.0.0.1:80/a", Some(format!("https://cluster:6443{prefix}/a"))),
            ("mailto:someone", None),
        ] {
            assert_eq!(route().rewrite(old), new, "{old}");
        }
        assert_eq!(route().rewrite(&format!("{prefix}/a")), None);
    }

    #[test]
    fn pages_change_in_their_links_only() {
        let prefix = route().prefix;
        for (old, new) in [
            ("<a href=\"/x\">/y</a>", format!("<a href=\"{prefix}/x\">/y</a>")),
            ("<A class='c' HREF='/x' id=i>", format!("<A class='c' HREF='{prefix}/x' id=i>")),
            ("<img src=/x alt=\"/y\">", format!("<img src={prefix}/x alt=\"/y\">")),
            ("<p href=\"/x\">1 < 2</p>", "<p href=\"/x\">1 < 2</p>".to_owned()),
            ("<!-- <a href=\"/x\"> -->", "<!-- <a href=\"/x\"> -->".to_owned()),
            ("<script>if (a<b) '<a href=\"/x\">'</script>", "<script>if (a<b) '<a href=\"/x\">'</script>".to_owned()),
            ("<a href=\"/x", format!("<a href=\"{prefix}/x")),
            ("<a href", "<a href".to_owned()),
            ("text <", "text <".to_owned()),
        ] {
            assert_eq!(String::from_utf8(html(old.as_bytes(), &route())).unwrap(), new);
        }
    }

    #[tokio::test]
    async fn compressed_pages_stay_compressed() {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(b"<a href='/x'>").unwrap();
        let reply = http::Response::builder()
            .header(CONTENT_TYPE, "text/html; charset=utf-8")
            .header(CONTENT_ENCODING, "gzip")
            .header("access-control-allow-origin", "*");
        let (parts, ()) = reply.body(()).unwrap().into_parts();
        let reply = answer(parts, Body::from(encoder.finish().unwrap()), &route()).await;
        assert!(!reply.headers().contains_key("access-control-allow-origin"));
        let body = reply.into_body().collect().await.unwrap().to_bytes();
        let mut text = String::new();
        flate2::read::GzDecoder::new(&body[..]).read_to_string(&mut text).unwrap();
        assert_eq!(text, format!("<a href='{}/x'>", route().prefix));
    }
}
