//! Any bytes as CBOR: decoding ends in a tree or an error, without a type and under several; and what is written of
//! a tree reads as that tree.
#![no_main]

use api::cbor;
use libfuzzer_sys::fuzz_target;

const KINDS: [(&str, &str, &str); 4] = [
    ("", "v1", "Pod"),
    ("", "v1", "Secret"),
    ("apps", "v1", "Deployment"),
    ("apiextensions.k8s.io", "v1", "CustomResourceDefinition"),
];

fuzz_target!(|bytes: &[u8]| {
    let _ = cbor::interpret(bytes);
    let _ = cbor::item_length(bytes);
    for (group, version, kind) in KINDS {
        let ty = api::table().find_kind(group, version, kind).expect("the table has these kinds");
        let _ = cbor::decode(bytes, Some(ty));
    }
    let Ok(decoded) = cbor::decode(bytes, None) else { return };
    let written = cbor::encode(&decoded.value, None);
    assert_eq!(cbor::decode(&written, None).map(|again| again.value), Ok(decoded.value));
});
