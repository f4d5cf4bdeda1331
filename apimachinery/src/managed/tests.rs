use super::*;
use crate::fieldset::tests::sample;
use serde_json::json;

const NOW: &str = "2026-01-01T00:00:00Z";

struct World {
    schema: crate::schema::Schema,
    root: crate::schema::TypeId,
    none: Filter,
}

impl World {
    fn new() -> Self {
        let (schema, root) = sample();
        Self { schema, root, none: Filter::all() }
    }

    fn request<'a>(&'a self, manager: &'a str, at: &str) -> Request<'a> {
        Request {
            manager,
            api_version: "t/v1",
            kind: "Root",
            subresource: "",
            ty: self.schema.type_ref(self.root),
            reset: &self.none,
            versions: &OneVersion,
            now: crate::time::parse(at).unwrap(),
        }
    }
}

/// `manager operation seconds` of every entry, and its fields.
fn owners(object: &Value) -> Vec<(String, Value)> {
    let list = object.list_at(&["metadata", "managedFields"]);
    list.iter()
        .map(|e| {
            let text = |name: &str| e[name].as_str().unwrap_or("-").to_owned();
            (format!("{} {} {}", text("manager"), text("operation"), text("time")), e["fieldsV1"].clone())
        })
        .collect()
}

#[test]
fn create_and_updates() {
    let world = World::new();
    let mut first =
        json!({"metadata": {"name": "x", "uid": "1", "labels": {"a": "1"}}, "spec": {"required": "", "replicas": 1}});
    update(None, &mut first, &world.request("one", NOW));
    let spec = json!({"f:replicas": {}});
    assert_eq!(
        owners(&first),
        [(format!("one Update {NOW}"), json!({"f:metadata": {"f:labels": {".": {}, "f:a": {}}}, "f:spec": spec}))]
    );
    // Nothing changes: nothing is written.
    let mut same = first.clone();
    update(Some(&first), &mut same, &world.request("two", "2026-01-01T00:00:05Z"));
    assert_eq!(same, first);
    // Another takes a field over.
    let mut second = first.clone();
    second.set_at(&["spec", "replicas"], json!(2));
    update(Some(&first), &mut second, &world.request("two", "2026-01-01T00:00:05Z"));
    assert_eq!(
        owners(&second),
        [
            (format!("one Update {NOW}"), json!({"f:metadata": {"f:labels": {".": {}, "f:a": {}}}})),
            ("two Update 2026-01-01T00:00:05Z".into(), json!({"f:spec": {"f:replicas": {}}})),
        ]
    );
    // A client may send managedFields back empty to start over.
    let mut reset = second.clone();
    reset.set_at(&["metadata", "managedFields"], json!([{}]));
    update(Some(&second), &mut reset, &world.request("three", NOW));
    assert!(owners(&reset).is_empty());
    // A subresource cannot.
    let mut status = second.clone();
    status.set_at(&["metadata", "managedFields"], json!([]));
    update(Some(&second), &mut status, &Request { subresource: "status", ..world.request("three", NOW) });
    assert_eq!(owners(&status), owners(&second));
}

#[test]
fn reset_fields_belong_to_nobody() {
    let world = World::new();
    let reset = Filter::without(&[&["spec"]]);
    let mut object = json!({"metadata": {"labels": {"a": "1"}}, "spec": {"required": "", "replicas": 1}});
    update(None, &mut object, &Request { reset: &reset, ..world.request("one", NOW) });
    assert_eq!(owners(&object)[0].1, json!({"f:metadata": {"f:labels": {".": {}, "f:a": {}}}}));
}

#[test]
fn many_updaters_are_folded() {
    let world = World::new();
    let mut object = json!({"metadata": {"name": "x"}, "spec": {"required": ""}});
    for i in 0..12 {
        let old = object.clone();
        object.set_label(&format!("l{i:02}"), "x");
        let at = format!("2026-01-01T00:00:{i:02}Z");
        let manager = format!("m{i:02}");
        update((i > 0).then_some(&old), &mut object, &world.request(&manager, &at));
    }
    let owners = owners(&object);
    assert_eq!(owners.len(), 10);
    assert_eq!(owners[0].0, "ancient-changes Update 2026-01-01T00:00:02Z");
    assert_eq!(owners[0].1, json!({"f:metadata": {"f:labels": {".": {}, "f:l00": {}, "f:l01": {}, "f:l02": {}}}}));
}

#[test]
fn apply_owns_conflicts_and_removes() {
    let world = World::new();
    let config = json!({"apiVersion": "t/v1", "kind": "Root", "metadata": {"name": "x", "labels": {"a": "1", "b": "2"}}, "spec": {"replicas": 1}});
    let live = apply(None, &config, false, &world.request("one", NOW)).unwrap();
    assert_eq!(
        owners(&live),
        [(
            format!("one Apply {NOW}"),
            json!({"f:metadata": {"f:labels": {"f:a": {}, "f:b": {}}}, "f:spec": {"f:replicas": {}}})
        )]
    );
    // Applying the same again changes nothing, not even the time.
    assert_eq!(apply(Some(&live), &config, false, &world.request("one", "2027-01-01T00:00:00Z")).unwrap(), live);

    let other = json!({"apiVersion": "t/v1", "kind": "Root", "metadata": {"name": "x", "labels": {"a": "9"}}, "spec": {"replicas": 1}});
    let ApplyError::Conflict(status) = apply(Some(&live), &other, false, &world.request("two", NOW)).unwrap_err()
    else {
        panic!("not a conflict")
    };
    assert_eq!(status.message, "Apply failed with 1 conflict: conflict with \"one\": .metadata.labels.a");
    assert_eq!(status.details.unwrap().causes[0].reason, "FieldManagerConflict");
    let forced = apply(Some(&live), &other, true, &world.request("two", NOW)).unwrap();
    assert_eq!(forced.label("a"), Some("9"));
    assert_eq!(
        owners(&forced),
        [
            (
                format!("one Apply {NOW}"),
                json!({"f:metadata": {"f:labels": {"f:b": {}}}, "f:spec": {"f:replicas": {}}})
            ),
            (
                format!("two Apply {NOW}"),
                json!({"f:metadata": {"f:labels": {"f:a": {}}}, "f:spec": {"f:replicas": {}}})
            ),
        ]
    );
    // One stops applying b (its alone: goes) and replicas (shared: stays).
    let less = json!({"apiVersion": "t/v1", "kind": "Root", "metadata": {"name": "x"}});
    let pruned = apply(Some(&forced), &less, false, &world.request("one", NOW)).unwrap();
    assert_eq!(
        (pruned.label("b"), pruned.label("a"), pruned.i64_at(&["spec", "replicas"])),
        (None, Some("9"), Some(1))
    );
    assert_eq!(owners(&pruned).len(), 1);
}

#[test]
fn applying_over_an_untracked_object() {
    let world = World::new();
    let live = json!({"apiVersion": "t/v1", "kind": "Root", "metadata": {"name": "x", "uid": "1", "labels": {"a": "1"}}, "spec": {"required": ""}});
    let config = json!({"apiVersion": "t/v1", "kind": "Root", "metadata": {"name": "x", "labels": {"a": "2"}}});
    let ApplyError::Conflict(status) = apply(Some(&live), &config, false, &world.request("one", NOW)).unwrap_err()
    else {
        panic!("not a conflict")
    };
    assert_eq!(
        status.message,
        "Apply failed with 1 conflict: conflict with \"before-first-apply\" using t/v1: .metadata.labels.a"
    );
    let mut bad = config.clone();
    bad.set_at(&["metadata", "managedFields"], json!([]));
    assert!(matches!(apply(Some(&live), &bad, false, &world.request("one", NOW)), Err(ApplyError::BadRequest(_))));
    bad.set_api_version("t/v2");
    assert!(matches!(apply(Some(&live), &bad, false, &world.request("one", NOW)), Err(ApplyError::BadRequest(_))));
}

#[test]
fn managers() {
    assert_eq!(manager_from_user_agent("kubectl/v1.36 (linux/amd64)"), "kubectl");
    assert_eq!(manager_from_user_agent(""), "");
    let mut new = json!({"metadata": {"managedFields": [{"manager": "a", "time": "2"}]}});
    let old = json!({"metadata": {"managedFields": [{"manager": "a", "time": "1"}]}});
    keep_times_if_equal(&old, &mut new);
    assert_eq!(new, old);
}
