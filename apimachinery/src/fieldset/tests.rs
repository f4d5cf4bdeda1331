use super::*;
use crate::schema::{Field, ListKind, ListType, MapType, ObjectType, Schema, StringType, TypeId};

pub(crate) fn sample() -> (Schema, TypeId) {
    let mut s = Schema::new();
    let string = s.add(Type::String(StringType::default()));
    let int = s.add(Type::Int32);
    let labels = s.add(Type::Map(MapType { value: string, atomic: false, marked: false }));
    let port = s.add(Type::Object(ObjectType::new(
        "t.Port",
        vec![Field::new("port", int), Field::new("protocol", string), Field::new("name", string)],
    )));
    let ports = s.add(Type::List(ListType {
        item: port,
        kind: ListKind::Map(["port".into(), "protocol".into()].into()),
        wrapped: false,
        marked: false,
    }));
    let set = s.add(Type::List(ListType { item: string, kind: ListKind::Set, wrapped: false, marked: false }));
    let list = s.add(Type::List(ListType { item: string, kind: ListKind::Atomic, wrapped: false, marked: false }));
    let omit = |name: &'static str, ty| Field { omitempty: true, ..Field::new(name, ty) };
    let spec = s.add(Type::Object(ObjectType::new(
        "t.Spec",
        vec![
            omit("ports", ports),
            omit("finalizers", set),
            omit("args", list),
            omit("replicas", int),
            Field::new("required", string),
        ],
    )));
    let meta = s.add(Type::Object(ObjectType::new("t.Meta", vec![omit("labels", labels), omit("name", string)])));
    let root = s.add(Type::Object(ObjectType::new(
        "t.Root",
        vec![omit("spec", spec), omit("metadata", meta), omit("apiVersion", string), omit("kind", string)],
    )));
    (s, root)
}

#[test]
fn fields_v1_round_trip() {
    for fields in [
        json!({}),
        json!({"f:spec": {"f:ports": {"k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:name": {}}}}}),
        json!({"f:metadata": {"f:labels": {".": {}, "f:app": {}}, "f:finalizers": {"v:\"x\"": {}}}, "f:x": {"i:3": {}}}),
    ] {
        assert_eq!(Set::from_fields_v1(&fields).unwrap().to_fields_v1(), fields);
    }
    assert!(Set::from_fields_v1(&json!({"x": {}})).is_err());
    assert!(Set::from_fields_v1(&json!([])).is_err());
    assert!(Set::from_fields_v1(&json!({"z:odd": {}})).unwrap().is_empty());
}

#[test]
fn set_algebra() {
    let a = Set::of_fields(&[&["a"], &["a", "b"], &["c", "d"]]);
    let b = Set::of_fields(&[&["a"], &["c", "d"]]);
    assert_eq!(a.clone().difference(&b), Set::of_fields(&[&["a", "b"]]));
    assert_eq!(a.clone().recursive_difference(&b), Set::new());
    assert_eq!(a.intersection(&b), b);
    assert_eq!(b.clone().union(a.clone()), a);
    assert!(a.contains(&b) && !b.contains(&a) && b.contains(&Set::new()));
    assert!(a.has(&[PathElement::field("c"), PathElement::field("d")]));
}

#[test]
fn a_new_object_owns_what_go_would_not_have_had() {
    let (s, root) = sample();
    let ty = s.type_ref(root);
    assert_eq!(*zero(ty), json!({"metadata": {}, "spec": {"required": ""}}));
    let object = json!({"metadata": {"name": "x", "labels": {"a": "1"}},
        "spec": {"required": "", "args": ["x"], "ports": [{"port": 80, "protocol": "TCP"}], "finalizers": ["f"]}});
    assert_eq!(
        compare(zero(ty), &object, ty).added.to_fields_v1(),
        json!({
            "f:metadata": {"f:labels": {".": {}, "f:a": {}}, "f:name": {}},
            "f:spec": {"f:args": {}, "f:finalizers": {".": {}, "v:\"f\"": {}},
                "f:ports": {".": {}, "k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}, "f:protocol": {}}}},
        })
    );
    assert_eq!(
        of(&object, ty).to_fields_v1(),
        json!({
            "f:metadata": {"f:labels": {"f:a": {}}, "f:name": {}},
            "f:spec": {"f:args": {}, "f:required": {}, "f:finalizers": {"v:\"f\"": {}},
                "f:ports": {"k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}, "f:protocol": {}}}},
        })
    );
}

#[test]
fn differences() {
    let (s, root) = sample();
    let old = json!({"metadata": {"labels": {"a": "1", "b": "2"}}, "spec": {"ports": [{"port": 80, "protocol": "TCP", "name": "x"}], "args": ["a"]}});
    let new = json!({"metadata": {"labels": {"a": "2", "c": "3"}}, "spec": {"ports": [{"port": 80, "protocol": "TCP"}, {"port": 81, "protocol": "TCP"}], "args": ["b"]}});
    let got = compare(&old, &new, s.type_ref(root));
    assert_eq!(got.modified.to_fields_v1(), json!({"f:metadata": {"f:labels": {"f:a": {}}}, "f:spec": {"f:args": {}}}));
    assert_eq!(
        got.removed.to_fields_v1(),
        json!({"f:metadata": {"f:labels": {"f:b": {}}}, "f:spec": {"f:ports": {"k:{\"port\":80,\"protocol\":\"TCP\"}": {"f:name": {}}}}})
    );
    assert_eq!(
        got.added.to_fields_v1(),
        json!({"f:metadata": {"f:labels": {"f:c": {}}}, "f:spec": {"f:ports": {"k:{\"port\":81,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}, "f:protocol": {}}}}})
    );
    assert!(compare(&new, &new, s.type_ref(root)).is_same());
}

#[test]
fn merges_and_removes() {
    let (s, root) = sample();
    let ty = s.type_ref(root);
    let live = json!({"metadata": {"labels": {"a": "1"}}, "spec": {"finalizers": ["x", "y"], "ports": [{"port": 1, "protocol": "TCP"}, {"port": 2, "protocol": "TCP", "name": "two"}]}});
    let config = json!({"metadata": {"labels": {"b": "2"}}, "spec": {"finalizers": ["z"], "ports": [{"port": 2, "protocol": "TCP"}, {"port": 3, "protocol": "TCP"}]}});
    let merged = merge(&live, &config, ty).unwrap();
    assert_eq!(
        merged,
        json!({"metadata": {"labels": {"a": "1", "b": "2"}}, "spec": {"finalizers": ["x", "y", "z"],
            "ports": [{"port": 1, "protocol": "TCP"}, {"port": 2, "protocol": "TCP", "name": "two"}, {"port": 3, "protocol": "TCP"}]}})
    );
    let gone = Set::from_fields_v1(&json!({"f:metadata": {"f:labels": {"f:a": {}, "f:b": {}}}, "f:spec": {"f:ports": {"k:{\"port\":2,\"protocol\":\"TCP\"}": {"f:name": {}}}}})).unwrap();
    assert_eq!(
        remove(&merged, &gone, ty),
        json!({"metadata": {"labels": {}}, "spec": {"finalizers": ["x", "y", "z"],
            "ports": [{"port": 1, "protocol": "TCP"}, {"port": 2, "protocol": "TCP"}, {"port": 3, "protocol": "TCP"}]}})
    );
    let twice = json!({"spec": {"ports": [{"port": 1, "protocol": "TCP"}, {"port": 1, "protocol": "TCP"}]}});
    assert_eq!(
        merge(&live, &twice, ty).unwrap_err().to_string(),
        ".spec.ports: duplicate entries for key [port=1,protocol=\"TCP\"]"
    );
}
