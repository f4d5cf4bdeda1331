//! A request's line and what it accepts: method, path, query, the selectors and the token inside the query, and, after a
//! line feed, the Accept header.
#![no_main]

use apiserver::cache::ContinueToken;
use apiserver::request::accept::{self, Allowed};
use apiserver::request::options::{DeleteOptions, ListOptions, WriteKind, WriteOptions};
use apiserver::request::{Query, RequestInfo, query};
use http::{HeaderMap, HeaderValue, Method};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let (line, header) = text.split_once('\n').unwrap_or((text, ""));
    let (path, raw) = line.split_once('?').unwrap_or((line, ""));
    let query = Query::parse(raw);
    let path = query::unescape(path, false).unwrap_or_else(|| path.to_owned());
    for method in [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
        let _info = RequestInfo::new(&method, &path, &query);
    }
    let _delete = DeleteOptions::parse(&query, None);
    for kind in [WriteKind::Create, WriteKind::Update, WriteKind::Patch, WriteKind::Apply] {
        let _write = WriteOptions::parse(&query, kind);
    }
    for watch in [false, true] {
        let Ok(options) = ListOptions::parse(&query, watch) else { continue };
        if let Ok(selector) = apimachinery::labels::Selector::parse(&options.label_selector) {
            // What is written of a selector means the same.
            let written = selector.to_string();
            let again = apimachinery::labels::Selector::parse(&written).expect("a written selector parses");
            assert_eq!(again.to_string(), written);
        }
        let _fields = apimachinery::fields::Selector::parse(&options.field_selector);
    }
    if let Some(token) = query.get("continue")
        && let Ok(token) = ContinueToken::decode(token, "/registry/pods/")
    {
        assert!(token.start.starts_with("/registry/pods/"));
        assert_eq!(ContinueToken::decode(&token.encode("/registry/pods/"), "/registry/pods/"), Ok(token));
    }
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_str(header) {
        headers.insert(http::header::ACCEPT, value.clone());
        headers.insert(http::header::CONTENT_TYPE, value);
    }
    for allowed in [Allowed::Plain, Allowed::Transforms, Allowed::Metadata, Allowed::Watch] {
        let _format = accept::negotiate(&headers, &query, allowed, true);
    }
    let _encoding = accept::body_encoding(&headers, true);
});
