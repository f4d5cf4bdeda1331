//! The line of a request: path, query, and the selectors inside the query.
#![no_main]

use apiserver::request::options::{DeleteOptions, ListOptions};
use apiserver::request::{Query, RequestInfo};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let (path, query) = text.split_once('?').unwrap_or((text, ""));
    let query = Query::parse(query);
    let _info = RequestInfo::new(&http::Method::GET, path, &query);
    let _delete = DeleteOptions::parse(&query, None);
    if let Ok(options) = ListOptions::parse(&query, true) {
        let _labels = apimachinery::labels::Selector::parse(&options.label_selector);
        let _fields = apimachinery::fields::Selector::parse(&options.field_selector);
    }
});
