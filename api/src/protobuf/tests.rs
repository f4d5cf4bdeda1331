use std::path::PathBuf;

use serde_json::{Value, json};

use super::*;
use crate::{canonicalize, table};

/// `../shared`, beside the repository or beside its parent.
fn shared() -> Option<PathBuf> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let named = std::env::var_os("KEELSON_SHARED").map(PathBuf::from);
    named.into_iter().chain([root.join("../shared"), root.join("../../shared")]).find(|path| path.is_dir())
}

#[test]
fn golden_objects_are_byte_exact() {
    let Some(shared) = shared() else {
        println!("skipped: needs ../shared");
        return;
    };
    let mut kinds = 0;
    let mut wrong: Vec<String> = Vec::new();
    for entry in std::fs::read_dir(shared.join("spec/golden/HEAD")).expect("golden objects") {
        let path = entry.expect("readable").path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        kinds += 1;
        let name = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default().to_owned();
        let json: Value = serde_json::from_slice(&std::fs::read(&path).expect("json")).expect("json");
        let golden = std::fs::read(path.with_extension("pb")).expect("pb");
        let yaml = std::fs::read_to_string(path.with_extension("yaml")).expect("yaml");
        match apimachinery::yaml::parse(&yaml) {
            Ok(tree) if tree == json => {}
            Ok(_) => wrong.push(format!("{name}: YAML gives another tree")),
            Err(error) => wrong.push(format!("{name}: YAML: {error:?}")),
        }
        if let Err(error) = round_trip(&json, &golden) {
            wrong.push(format!("{name}: {error}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {kinds}:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(kinds, 185);
}

/// JSON → protobuf and protobuf → JSON, both equal to upstream's; the golden tree is canonical already.
fn round_trip(json: &Value, golden: &[u8]) -> Result<(), String> {
    let envelope = unwrap(golden).map_err(|error| format!("unwrap: {error}"))?;
    let (group, version) = envelope.api_version.split_once('/').unwrap_or(("", envelope.api_version));
    // A WatchEvent names no type; everything else does.
    let ty = match envelope.kind {
        "" => table().named("meta/v1.WatchEvent"),
        kind => table().find_kind(group, version, kind),
    };
    let ty = ty.ok_or("not in the table")?;
    let mut tree = decode(ty, envelope.raw).map_err(|error| format!("decode: {error}"))?;
    for (field, text) in [("apiVersion", envelope.api_version), ("kind", envelope.kind)] {
        if !text.is_empty() {
            tree[field] = json!(text);
        }
    }
    if tree != *json {
        return Err(format!("decoded tree differs: {}", difference("", json, &tree)));
    }
    let message = encode(ty, json).map_err(|error| format!("encode: {error}"))?;
    if wrap(envelope.api_version, envelope.kind, &message) != golden {
        return Err("encoded bytes differ".to_owned());
    }
    let mut canonical = json.clone();
    canonicalize(ty, &mut canonical);
    if canonical != *json {
        return Err(format!("canonical form differs: {}", difference("", json, &canonical)));
    }
    Ok(())
}

/// The first place where two trees differ.
fn difference(path: &str, wanted: &Value, got: &Value) -> String {
    match (wanted, got) {
        (Value::Object(a), Value::Object(b)) => {
            for key in a.keys().chain(b.keys()) {
                let (x, y) = (a.get(key).unwrap_or(&Value::Null), b.get(key).unwrap_or(&Value::Null));
                if x != y || a.contains_key(key) != b.contains_key(key) {
                    return difference(&format!("{path}.{key}"), x, y);
                }
            }
            format!("{path}: equal")
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            let index = (0..a.len()).find(|index| a[*index] != b[*index]).unwrap_or(0);
            difference(&format!("{path}[{index}]"), &a[index], &b[index])
        }
        _ => format!("{path}: wanted {wanted}, got {got}"),
    }
}

#[test]
fn minimal_objects_are_filled_as_go_fills_them() {
    let pod =
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {"containers": [{"name": "c"}]}});
    let bytes = encode_object(&pod).expect("encodes");
    let back = decode_object(&bytes).expect("decodes");
    assert_eq!(
        back,
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {"containers": [{"name": "c", "resources": {}}]}, "status": {}})
    );
    assert_eq!(encode_object(&back).expect("encodes"), bytes);
}

#[test]
fn lists_are_made_of_encoded_items() {
    let item = |name: &str| json!({"metadata": {"name": name}, "data": {"k": "v"}});
    let list = json!({"apiVersion": "v1", "kind": "ConfigMapList", "metadata": {"resourceVersion": "7"}, "items": [item("a"), item("b")]});
    let ty = table().find_kind("", "v1", "ConfigMap").expect("built in");
    let mut writer = ListWriter::new(&list["metadata"], 0).expect("metadata encodes");
    for name in ["a", "b"] {
        writer.push(&encode(ty, &item(name)).expect("encodes"));
    }
    assert_eq!(writer.finish("v1", "ConfigMapList"), encode_object(&list).expect("encodes"));
}

#[test]
fn watch_frames_come_apart_again() {
    let object =
        encode_object(&json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}})).expect("encodes");
    let mut stream = watch_frame("ADDED", &object);
    stream.extend(watch_frame("DELETED", &object));
    assert_eq!(watch_frame_object(&stream[..3]), Ok(None));
    assert_eq!(watch_frame_object(&stream[..20]), Ok(None));
    let (event, first, rest) = watch_frame_object(&stream).expect("sound").expect("whole");
    assert_eq!((event, first), ("ADDED", object.as_slice()));
    let (event, second, rest) = watch_frame_object(rest).expect("sound").expect("whole");
    assert_eq!((event, second, rest), ("DELETED", object.as_slice(), &[][..]));
}

#[test]
fn bad_bytes_are_errors() {
    for (bytes, error) in [
        (&b"x"[..], Error::NoMagic),
        (b"k8s\0\x0a\x05ab", Error::UnexpectedEnd),
        (b"k8s\0\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", Error::Overflow),
        (b"k8s\0\x08\x01", Error::WrongWireType { wire: 0, field: "TypeMeta".to_owned() }),
        (b"k8s\0\x00\x01", Error::IllegalTag { number: 0, wire: 0 }),
        (
            b"k8s\0\x0a\x07\x0a\x02v1\x12\x01X",
            Error::UnknownKind { api_version: "v1".to_owned(), kind: "X".to_owned() },
        ),
        // metadata as a varint
        (
            b"k8s\0\x0a\x09\x0a\x02v1\x12\x03Pod\x12\x02\x08\x01",
            Error::WrongWireType { wire: 0, field: "ObjectMeta".to_owned() },
        ),
    ] {
        assert_eq!(decode_object(bytes), Err(error));
    }
}

#[test]
fn nesting_is_bounded() {
    let ty = table().named("apiextensions/v1.JSONSchemaProps").expect("built in");
    // `not` within `not`, far beyond the bound: field 28 of JSONSchemaProps.
    let mut message: Vec<u8> = Vec::new();
    for _ in 0..400 {
        let mut outer = wire::Writer::with_capacity(message.len() + 8);
        outer.bytes_field(28, &message);
        message = outer.finish();
    }
    assert!(matches!(decode(ty, &message), Err(Error::TooDeep)));
    // Lists of lists: every level is an object of its own.
    let mut list = encode_object(&json!({"apiVersion": "v1", "kind": "List", "items": []})).expect("encodes");
    for _ in 0..400 {
        let mut outer = wire::Writer::with_capacity(list.len() + 16);
        outer.bytes_field(1, &list);
        let mut items = wire::Writer::with_capacity(list.len() + 16);
        items.bytes_field(2, &outer.finish());
        list = wrap("v1", "List", &items.finish());
    }
    assert!(matches!(decode_object(&list), Err(Error::TooDeep)));
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_an_answer(bytes: Vec<u8>) {
        let mut enveloped = MAGIC.to_vec();
        enveloped.extend(&bytes);
        drop(decode_object(&enveloped));
        for (_, ty) in table().types().take(40) {
            drop(decode(ty, &bytes));
        }
    }

    #[test]
    fn what_decodes_encodes_to_itself(labels in proptest::collection::btree_map(".*", ".*", 0..5), replicas: i32, paused: bool, uid in ".*") {
        let mut tree = json!({"metadata": {"name": "a", "labels": labels, "uid": uid}, "spec": {"replicas": replicas, "paused": paused}});
        let ty = table().find_kind("apps", "v1", "Deployment").expect("built in");
        canonicalize(ty, &mut tree);
        let bytes = encode(ty, &tree).expect("encodes");
        let back = decode(ty, &bytes).expect("decodes");
        proptest::prop_assert_eq!(&back, &tree);
        proptest::prop_assert_eq!(encode(ty, &back).expect("encodes"), bytes);
    }
}

/// Found by fuzzing: Go makes an empty list of it, not a nil one.
#[test]
fn an_entry_without_a_value_has_an_empty_list() {
    let ty = table().find_kind("authentication.k8s.io", "v1", "SelfSubjectReview").expect("built in");
    // status { userInfo { extra { key: "k" } } }
    let bytes = b"\x12\x07\x0a\x05\x22\x03\x0a\x01k";
    let tree = decode(ty, bytes).expect("decodes");
    assert_eq!(tree["status"]["userInfo"]["extra"], json!({"k": []}));
    let again = decode(ty, &encode(ty, &tree).expect("encodes")).expect("decodes");
    assert_eq!(again, tree);
}

/// Golden bytes with random damage: never a panic, and what still decodes is stable.
#[test]
fn damaged_objects_are_an_error_or_stable() {
    let Some(shared) = shared() else {
        println!("skipped: needs ../shared");
        return;
    };
    // Xorshift with a fixed seed: the same damage in every run.
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = |bound: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % bound.max(1) as u64) as usize
    };
    let mut decoded = 0;
    for entry in std::fs::read_dir(shared.join("spec/golden/HEAD")).expect("golden objects") {
        let path = entry.expect("readable").path();
        if path.extension().is_none_or(|extension| extension != "pb") {
            continue;
        }
        let golden = std::fs::read(&path).expect("pb");
        for _ in 0..40 {
            let mut bytes = golden.clone();
            for _ in 0..=next(3) {
                match next(3) {
                    0 => {
                        let at = 4 + next(bytes.len() - 4);
                        bytes[at] = next(256) as u8;
                    }
                    1 => bytes.truncate(5 + next(bytes.len() - 5)),
                    _ => {
                        let at = 4 + next(bytes.len() - 4);
                        bytes.insert(at, next(256) as u8);
                    }
                }
            }
            let Ok(tree) = decode_object(&bytes) else { continue };
            decoded += 1;
            let Ok(encoded) = encode_object(&tree) else { continue };
            assert_eq!(decode_object(&encoded).as_ref(), Ok(&tree), "{}", path.display());
        }
    }
    assert!(decoded > 100, "the damage left only {decoded} objects readable");
}
