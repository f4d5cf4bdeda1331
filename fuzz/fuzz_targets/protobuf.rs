//! Any bytes behind the `k8s\0` envelope: decoding ends in a tree or an error, and what was decoded
//! encodes to bytes that decode to the same tree.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(tree) = api::protobuf::decode_object(bytes) else { return };
    let Ok(encoded) = api::protobuf::encode_object(&tree) else { return };
    assert_eq!(api::protobuf::decode_object(&encoded).as_ref(), Ok(&tree));
});
