use super::*;
use crate::schema::{Field, FieldExtra, ListKind, ListType, MapType, ObjectType, Schema, StringType, TypeId};
use serde_json::json;

/// A little Deployment: containers by name, ports by containerPort, finalizers merged, args not,
/// volumes and strategy with retainKeys.
fn schema() -> (Schema, TypeId) {
    let mut s = Schema::new();
    let string = s.add(Type::String(StringType::default()));
    let int = s.add(Type::Int32);
    let list = |s: &mut Schema, item| {
        s.add(Type::List(ListType { item, kind: ListKind::Atomic, wrapped: false, marked: false }))
    };
    let strings = list(&mut s, string);
    let labels = s.add(Type::Map(MapType { value: string, atomic: false, marked: false }));
    let merged = |name: &'static str, ty, key: Option<&'static str>| Field {
        patch_merge: true,
        extra: key.map(|k| Box::new(FieldExtra { default: None, patch_merge_key: Some(k.into()) })),
        ..Field::new(name, ty)
    };
    let port = s.add(Type::Object(ObjectType::new(
        "t.Port",
        vec![Field::new("containerPort", int), Field::new("name", string)],
    )));
    let ports = list(&mut s, port);
    let container = s.add(Type::Object(ObjectType::new(
        "t.Container",
        vec![
            Field::new("name", string),
            Field::new("image", string),
            Field::new("args", strings),
            merged("ports", ports, Some("containerPort")),
        ],
    )));
    let containers = list(&mut s, container);
    let rolling = s.add(Type::Object(ObjectType::new("t.Rolling", vec![Field::new("maxSurge", int)])));
    let strategy = s.add(Type::Object(ObjectType::new(
        "t.Strategy",
        vec![Field::new("type", string), Field::new("rollingUpdate", rolling)],
    )));
    let spec = s.add(Type::Object(ObjectType::new(
        "t.Spec",
        vec![
            merged("containers", containers, Some("name")),
            merged("finalizers", strings, None),
            Field::new("labels", labels),
            Field { patch_retain_keys: true, ..Field::new("strategy", strategy) },
        ],
    )));
    (s, spec)
}

fn applied(document: Value, patch: Value) -> std::result::Result<Value, String> {
    let (s, spec) = schema();
    let mut document = document;
    apply(&mut document, patch, s.type_ref(spec)).map(|()| document).map_err(|e| e.to_string())
}

#[test]
fn applies() {
    let two = json!({"containers": [{"name": "a", "image": "1", "args": ["x"]}, {"name": "b"}]});
    for (document, patch, expected) in [
        (
            two.clone(),
            json!({"containers": [{"name": "a", "image": "2", "args": ["y"]}]}),
            json!({"containers": [{"name": "a", "image": "2", "args": ["y"]}, {"name": "b"}]}),
        ),
        (
            two.clone(),
            json!({"containers": [{"name": "c"}]}),
            json!({"containers": [{"name": "c"}, {"name": "a", "image": "1", "args": ["x"]}, {"name": "b"}]}),
        ),
        (
            two.clone(),
            json!({"containers": [{"name": "a", "$patch": "delete"}]}),
            json!({"containers": [{"name": "b"}]}),
        ),
        (
            two.clone(),
            json!({"containers": [{"name": "z"}, {"$patch": "replace"}]}),
            json!({"containers": [{"name": "z"}]}),
        ),
        (
            two.clone(),
            json!({"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}),
            json!({"containers": [{"name": "b"}, {"name": "a", "image": "1", "args": ["x"]}]}),
        ),
        (json!({"finalizers": ["a", "b"]}), json!({"finalizers": ["c", "a"]}), json!({"finalizers": ["c", "a", "b"]})),
        (
            json!({"finalizers": ["a", "b"]}),
            json!({"$deleteFromPrimitiveList/finalizers": ["a"]}),
            json!({"finalizers": ["b"]}),
        ),
        (
            json!({"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}),
            json!({"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}),
            json!({"strategy": {"type": "Recreate"}}),
        ),
        (
            json!({"labels": {"a": "1", "b": "2"}}),
            json!({"labels": {"a": null, "c": "3"}}),
            json!({"labels": {"b": "2", "c": "3"}}),
        ),
        (
            json!({"labels": {"a": "1"}}),
            json!({"labels": {"$patch": "replace", "b": "2"}}),
            json!({"labels": {"b": "2"}}),
        ),
        (json!({"labels": {"a": "1"}}), json!({"labels": null}), json!({})),
        (json!({}), json!({"labels": {"a": null, "b": "1"}}), json!({"labels": {"b": "1"}})),
    ] {
        assert_eq!(applied(document, patch.clone()), Ok(expected), "{patch}");
    }
}

#[test]
fn errors_as_upstream() {
    for (document, patch, expected) in [
        (
            json!({"containers": [{"name": "a"}]}),
            json!({"containers": [{"image": "x"}]}),
            "map: map[image:x] does not contain declared merge key: name",
        ),
        (
            json!({"labels": {"a": "1"}}),
            json!({"labels": {"$patch": "x"}}),
            "unknown patch type: x in map: map[$patch:x]",
        ),
        (json!({"x": {}}), json!({"x": {"y": 1}}), "unable to find api field in struct Spec for the json field \"x\""),
        (
            json!({"finalizers": ["a"]}),
            json!({"$deleteFromPrimitiveList": ["a"]}),
            "invalid patch format of primitive list",
        ),
        (
            json!({"strategy": {"type": "a"}}),
            json!({"strategy": {"$retainKeys": ["rollingUpdate"], "type": "b"}}),
            "invalid patch format of retainKeys",
        ),
        (json!({"finalizers": ["a"]}), json!({"finalizers": [1]}), "list element types are not identical: [[a] [1]]"),
    ] {
        assert_eq!(applied(document, patch.clone()).unwrap_err(), expected, "{patch}");
    }
}

#[test]
fn two_way_patches() {
    let (s, spec) = schema();
    for (from, to, expected) in [
        (
            json!({"containers": [{"name": "a", "image": "1"}, {"name": "b"}]}),
            json!({"containers": [{"name": "a", "image": "2"}]}),
            json!({"containers": [{"name": "a", "image": "2"}, {"name": "b", "$patch": "delete"}], "$setElementOrder/containers": [{"name": "a"}]}),
        ),
        (
            json!({"finalizers": ["a", "b"]}),
            json!({"finalizers": ["b", "c"]}),
            json!({"finalizers": ["c"], "$deleteFromPrimitiveList/finalizers": ["a"], "$setElementOrder/finalizers": ["b", "c"]}),
        ),
        (
            json!({"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}),
            json!({"strategy": {"type": "Recreate"}}),
            json!({"strategy": {"type": "Recreate", "rollingUpdate": null, "$retainKeys": ["type"]}}),
        ),
        (json!({"labels": {"a": "1"}}), json!({"labels": {"a": "1"}}), json!({})),
    ] {
        let patch = two_way(&from, &to, s.type_ref(spec)).unwrap();
        assert_eq!(patch, expected);
        assert_eq!(applied(from, patch), Ok(to));
    }
}

#[test]
fn three_way_patches() {
    let (s, spec) = schema();
    let original = json!({"labels": {"a": "1", "b": "2"}, "containers": [{"name": "a", "image": "1"}]});
    let modified = json!({"labels": {"a": "1"}, "containers": [{"name": "a", "image": "2"}]});
    let current = json!({"labels": {"a": "1", "b": "2", "x": "y"}, "containers": [{"name": "a", "image": "1", "args": ["z"]}, {"name": "side"}]});
    let patch = three_way(&original, &modified, &current, s.type_ref(spec), true).unwrap();
    assert_eq!(
        patch,
        json!({"labels": {"b": null}, "containers": [{"name": "a", "image": "2"}], "$setElementOrder/containers": [{"name": "a"}]})
    );
    assert_eq!(
        applied(current.clone(), patch),
        Ok(
            json!({"labels": {"a": "1", "x": "y"}, "containers": [{"name": "a", "image": "2", "args": ["z"]}, {"name": "side"}]})
        )
    );
    let changed = json!({"labels": {"a": "1"}, "containers": [{"name": "a", "image": "3"}]});
    assert!(matches!(three_way(&original, &modified, &changed, s.type_ref(spec), false), Err(Error::Conflict { .. })));
}
