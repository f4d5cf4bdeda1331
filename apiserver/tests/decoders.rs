//! Nothing a client can send panics a decoder, whatever it is answered. The fuzz targets go
//! deeper into the same functions; these runs keep the property from being lost unseen.

use apimachinery::gvk::GroupVersionKind;
use apiserver::codec::body::{Expected, decode};
use apiserver::request::accept::Encoding;
use apiserver::request::options::{DeleteOptions, FieldValidation, ListOptions, WriteKind, WriteOptions};
use apiserver::request::{Query, RequestInfo};
use proptest::prelude::*;
use serde_json::json;

fn kinds() -> Vec<Expected<'static>> {
    [
        ("", "v1", "Pod"),
        ("", "v1", "Secret"),
        ("apps", "v1", "Deployment"),
        ("apiextensions.k8s.io", "v1", "CustomResourceDefinition"),
    ]
    .into_iter()
    .map(|(group, version, kind)| Expected {
        kind: GroupVersionKind::new(group, version, kind),
        schema: api::table().find_kind(group, version, kind).expect("the table has these kinds"),
        empty: true,
    })
    .collect()
}

/// A valid document with some bytes replaced, dropped or doubled: deeper than noise gets.
fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "x", "labels": {"a": "b"}, "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {
            "containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80}],
                "resources": {"limits": {"cpu": "500m", "memory": "1Gi"}}}],
            "terminationGracePeriodSeconds": 30,
            "tolerations": [{"operator": "Exists"}],
        },
    })
    .to_string()
    .into_bytes();
    (prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3u8), 0..6)).prop_map(move |edits| {
        let mut bytes = pod.clone();
        for (at, byte, how) in edits {
            let at = at.index(bytes.len());
            match how {
                0 => bytes[at] = byte,
                1 => {
                    bytes.remove(at);
                }
                _ => bytes.insert(at, byte),
            }
        }
        bytes
    })
}

fn try_all(bytes: &[u8]) {
    for expected in kinds() {
        for encoding in [Encoding::Json, Encoding::Yaml, Encoding::Protobuf, Encoding::Cbor] {
            for validation in [FieldValidation::Strict, FieldValidation::Warn] {
                if let Err(status) = decode(bytes, encoding, &expected, validation) {
                    assert_eq!(status.code, 400, "{}", status.message);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn noise(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        try_all(&bytes);
        let mut enveloped = b"k8s\0".to_vec();
        enveloped.extend_from_slice(&bytes);
        try_all(&enveloped);
    }

    #[test]
    fn damaged_documents(bytes in mutated()) {
        try_all(&bytes);
    }

    #[test]
    fn paths_and_queries(path in "(/[a-z0-9%./:-]{0,12}){0,9}", query in "([a-zA-Z]{1,20}=[a-zA-Z0-9%=,!()+ -]{0,20}&?){0,6}") {
        let query = Query::parse(&query);
        for method in ["GET", "PUT", "DELETE", "BREW"] {
            let method = method.parse().expect("a valid token");
            let _info = RequestInfo::new(&method, &path, &query);
        }
        for watch in [false, true] {
            if let Ok(options) = ListOptions::parse(&query, watch) {
                let _labels = apimachinery::labels::Selector::parse(&options.label_selector);
                let _fields = apimachinery::fields::Selector::parse(&options.field_selector);
            }
        }
        let _delete = DeleteOptions::parse(&query, None);
        let _write = WriteOptions::parse(&query, WriteKind::Apply);
    }
}
