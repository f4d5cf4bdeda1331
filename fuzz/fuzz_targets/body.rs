//! Request bodies as kube-apiserver reads them: the first byte chooses encoding and kind, the rest is
//! the body. Decoding ends in an object or a 400.
#![no_main]

use apimachinery::gvk::GroupVersionKind;
use apiserver::codec::body::{Expected, decode};
use apiserver::request::accept::Encoding;
use apiserver::request::options::FieldValidation;
use libfuzzer_sys::fuzz_target;

const KINDS: [(&str, &str, &str); 4] = [
    ("", "v1", "Pod"),
    ("", "v1", "Secret"),
    ("apps", "v1", "Deployment"),
    ("apiextensions.k8s.io", "v1", "CustomResourceDefinition"),
];

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, body)) = bytes.split_first() else { return };
    let encoding = [Encoding::Json, Encoding::Yaml, Encoding::Protobuf][usize::from(choice % 3)];
    let (group, version, kind) = KINDS[usize::from(choice / 3) % KINDS.len()];
    let schema = api::table().find_kind(group, version, kind).expect("the table has these kinds");
    let expected = Expected { kind: GroupVersionKind::new(group, version, kind), schema };
    if let Err(status) = decode(body, encoding, &expected, FieldValidation::Strict) {
        assert_eq!(status.code, 400);
    }
});
