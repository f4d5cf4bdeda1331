use serde_json::{Value, json};

use super::*;
use crate::table;

fn bytes(hex: &str) -> Vec<u8> {
    let digits: String = hex.split_whitespace().collect();
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

fn any(hex: &str) -> Result<Value, String> {
    decode(&bytes(hex), None).map(|decoded| decoded.value).map_err(|error| error.to_string())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn reads_any_item() {
    for (input, want) in [
        ("00", json!(0)),
        ("1864", json!(100)),
        ("1b7fffffffffffffff", json!(i64::MAX)),
        ("3b7fffffffffffffff", json!(i64::MIN)),
        ("3903e7", json!(-1000)),
        ("f97bff", json!(65504.0)),
        ("f90001", json!(5.960_464_477_539_063e-8)),
        ("f90400", json!(0.000_061_035_156_25)),
        ("f9c400", json!(-4.0)),
        ("fa47c35000", json!(100_000.0)),
        ("fb3ff199999999999a", json!(1.1)),
        ("f4", json!(false)),
        ("f5", json!(true)),
        ("f6", Value::Null),
        ("6161", json!("a")),
        ("4161", json!("a")),
        ("41ff", json!("\u{fffd}")),
        ("d64401020304", json!("AQIDBA==")),
        ("d54401020304", json!("AQIDBA")),
        ("d74401020304", json!("01020304")),
        ("d6 82 4101 d7 4102", json!(["AQ==", "02"])),
        ("5f 4161 4162 ff", json!("ab")),
        ("7f 6161 6162 ff", json!("ab")),
        ("9f 01 82 02 03 ff", json!([1, [2, 3]])),
        ("bf 4161 01 6162 9f ff ff", json!({"a": 1, "b": []})),
        ("d9d9f7 d9d9f7 a1 4161 f6", json!({"a": null})),
        ("c074323031332d30332d32315432303a30343a30305a", json!("2013-03-21T20:04:00Z")),
        ("c11a514b67b0", json!("2013-03-21T20:04:00Z")),
        ("c1fb41d452d9ec200000", json!("2013-03-21T20:04:00.5Z")),
        ("d9ffff 01", json!(1)),
    ] {
        assert_eq!(any(input), Ok(want), "{input}");
    }
}

#[test]
fn refuses_in_the_words_of_upstream() {
    for (input, want) in [
        ("", "EOF"),
        ("18", "unexpected EOF"),
        ("62 61", "unexpected EOF"),
        ("a1 4161", "unexpected EOF"),
        ("9f 01", "unexpected EOF"),
        ("1c", "cbor: invalid additional information 28 for type positive integer"),
        ("1f", "cbor: invalid additional information 31 for type positive integer"),
        ("f815", "cbor: invalid simple value 21 for type primitives"),
        ("ff", "cbor: unexpected \"break\" code"),
        ("bf 4161 ff", "cbor: unexpected \"break\" code"),
        ("5f 6161 ff", "cbor: wrong element type UTF-8 text string for indefinite-length byte string"),
        ("5f 5f ff ff", "cbor: indefinite-length byte string chunk is not definite-length"),
        ("01 02", "cbor: 1 bytes of extraneous data starting at index 1"),
        ("5bffffffffffffffff", "cbor: byte string length 18446744073709551615 is too large, causing integer overflow"),
        ("9bffffffffffffffff", "cbor: array length 18446744073709551615 is too large, it would cause integer overflow"),
        ("9b0000000080000000", "cbor: exceeded max number of elements 2147483647 for CBOR array"),
        ("ba00200001", "cbor: exceeded max number of key-value pairs 2097152 for CBOR map"),
        ("f97e00", "cbor: data item of cbor type primitives is not accepted by protocol: floating-point NaN"),
        ("fa7f800000", "cbor: data item of cbor type primitives is not accepted by protocol: floating-point infinity"),
        (
            "f7",
            "cbor: data item of cbor type primitives is not accepted by protocol: simple value 23 is not recognized",
        ),
        ("c2 41 01", "cbor: data item of cbor type tag is not accepted by protocol: bignum"),
        ("c0 01", "cbor: tag number 0 must be followed by text string, got positive integer"),
        ("61ff", "cbor: invalid UTF-8 string"),
        ("a2 4161 01 6161 02", "cbor: found duplicate map key \"a\" at map element index 1"),
        ("a1 01 01", "cbor: cannot unmarshal positive integer into Go value of type string"),
        (
            "1b8000000000000000",
            "cbor: cannot unmarshal positive integer into Go value of type int64 (9223372036854775808 overflows Go's int64)",
        ),
        (
            "3bffffffffffffffff",
            "cbor: cannot unmarshal negative integer into Go value of type int64 (-18446744073709551616 overflows Go's int64)",
        ),
    ] {
        assert_eq!(any(input), Err(want.to_string()), "{input}");
    }
}

#[test]
fn depth_is_bounded() {
    let nested = |depth: usize| [vec![0x81; depth], vec![0x01]].concat();
    let error = |depth: usize| decode(&nested(depth), None).map(drop);
    assert_eq!(error(500), Ok(()));
    assert_eq!(error(501), Err(Error::Depth));
    assert_eq!(error(1_000_000), Err(Error::Depth));
    let tags = [bytes("d901ff").repeat(20_000), vec![0x01]].concat();
    assert_eq!(decode(&tags, None), Err(Error::Depth));
}

#[test]
fn reads_under_a_type() {
    let secret = table().find_kind("", "v1", "Secret").unwrap();
    let pod = table().find_kind("", "v1", "Pod").unwrap();
    let check = |ty, input: &Value| {
        let mut out = Vec::new();
        append(&mut out, input, None);
        decode(&out, Some(ty)).map(|decoded| (decoded.value, decoded.unknown.map(|error| error.to_string())))
    };
    assert_eq!(check(secret, &json!({"data": {"a": "YWI="}})), Ok((json!({"data": {"a": "YWI="}}), None)));
    assert_eq!(check(secret, &json!({"data": {"a": "!"}})), Err(Error::Base64(0)));
    assert_eq!(check(secret, &json!({"data": {"a": [1, 2]}})), Ok((json!({"data": {"a": "AQI="}}), None)));
    assert_eq!(
        check(pod, &json!({"spec": {"hostNetwork": true, "nope": 1}, "zz": 1})),
        Ok((
            json!({"spec": {"hostNetwork": true}}),
            Some("cbor: found unknown field at map element index 0".to_string())
        )),
        "a name of the outer map says more than one inside"
    );
    for (input, want) in [
        (
            json!([]),
            "cbor: cannot unmarshal array into Go value of type v1.Pod (cannot decode CBOR array to struct without toarray option)",
        ),
        (
            json!({"spec": "x"}),
            "cbor: cannot unmarshal byte string into Go struct field v1.Pod.spec of type v1.PodSpec",
        ),
        (
            json!({"spec": {"containers": [{"ports": [{"containerPort": 4_294_967_296i64}]}]}}),
            "cbor: cannot unmarshal positive integer into Go struct field v1.Pod.spec of type int32 (4294967296 overflows int32)",
        ),
        (
            json!({"spec": {"hostNetwork": 1}}),
            "cbor: cannot unmarshal positive integer into Go struct field v1.Pod.spec of type bool",
        ),
        (
            json!({"spec": {"priority": 1.5}}),
            "cbor: cannot unmarshal primitives into Go struct field v1.Pod.spec of type int32",
        ),
        (
            json!({"metadata": {"creationTimestamp": 5}}),
            "cbor: cannot unmarshal positive integer into Go struct field v1.Pod.metadata of type string",
        ),
    ] {
        assert_eq!(check(pod, &input).map_err(|error| error.to_string()), Err(want.to_string()), "{input}");
    }
    let of = |input: &Value| {
        let mut out = Vec::new();
        append(&mut out, input, None);
        interpret(&out).map_err(|error| error.to_string())
    };
    assert_eq!(of(&json!({"apiVersion": "v1", "kind": "Pod", "x": []})), Ok(("v1".into(), "Pod".into())));
    assert_eq!(
        of(&json!({"kind": 1})),
        Err("cbor: cannot unmarshal positive integer into Go struct field v1.TypeMeta.kind of type string".into())
    );
    assert_eq!(interpret(&bytes("a2 4161 01 4161 02")), Err(Error::Duplicate { key: "a".into(), index: 1 }));
}

#[test]
fn writes_the_deterministic_form() {
    for (value, want) in [
        (
            json!({"kind": "A", "apiVersion": "v1", "b": null}),
            "d9d9f7 a3 4162 f6 446b696e64 4141 4a61706956657273696f6e 427631",
        ),
        (
            json!([0, 23, 24, 255, 256, 65536, 4_294_967_296u64]),
            "d9d9f7 87 00 17 1818 18ff 190100 1a00010000 1b0000000100000000",
        ),
        (json!([-1, -25, i64::MIN]), "d9d9f7 83 20 3818 3b7fffffffffffffff"),
        (
            json!([0.5, 65504.0, 5.960_464_477_539_063e-8, 1.1, 100_000.5, -0.0]),
            "d9d9f7 86 f93800 f97bff f90001 fb3ff199999999999a fa47c35040 f98000",
        ),
        (json!([true, false, ""]), "d9d9f7 83 f5 f4 40"),
    ] {
        assert_eq!(hex(&encode(&value, None)), want.replace(' ', ""), "{value}");
    }
    let secret = table().find_kind("", "v1", "Secret").unwrap();
    assert_eq!(hex(&encode(&json!({"data": {"a": "AQI="}}), Some(secret))), "d9d9f7a14464617461a14161d6420102");
    // Limits of schemas are floats in Go, whatever they look like.
    let schema = table().find_kind("apiextensions.k8s.io", "v1", "CustomResourceDefinition").unwrap();
    let schema = schema.walk(&["spec", "versions"]).and_then(|list| list.item()).unwrap();
    let schema = schema.walk(&["schema", "openAPIV3Schema"]).unwrap();
    assert_eq!(
        hex(&encode(&json!({"maximum": 1, "maxLength": 1}), Some(schema))),
        "d9d9f7a2476d6178696d756df93c00496d61784c656e67746801"
    );
}

#[test]
fn shows_items_to_people() {
    for (input, want) in [
        ("d9d9f7 a1 446b696e64 05", "55799({'kind': 5})"),
        ("a0", "{}"),
        ("83 20 6161 41ff", "[-1, \"a\", h'ff']"),
        ("9f f4 f93e00 ff", "[_ false, 1.5]"),
    ] {
        assert_eq!(diagnose(&bytes(input)), want, "{input}");
    }
    assert_eq!(
        interpret(&bytes("f7")).unwrap_err().to_string(),
        "cbor: data item of cbor type primitives is not accepted by protocol: simple value 23 is not recognized"
    );
}

#[test]
fn what_is_written_is_read() {
    for (group, kind, object) in [
        (
            "",
            "Secret",
            json!({"data": {"a": "AQI=", "b": ""}, "kind": "Secret", "metadata": {"creationTimestamp": null}}),
        ),
        (
            "",
            "Pod",
            json!({"spec": {"containers": [{"resources": {"limits": {"cpu": "1"}}, "livenessProbe": {"httpGet": {"port": 1}}}]}}),
        ),
    ] {
        let ty = table().find_kind(group, "v1", kind).unwrap();
        let decoded = decode(&encode(&object, Some(ty)), Some(ty)).unwrap();
        assert_eq!(decoded, Decoded { value: object.clone(), unknown: None });
        assert_eq!(decode(&encode(&object, Some(ty)), None).unwrap().value, object);
    }
}
