//! Objects of many kinds, each with one value changed, and all that Kubernetes 1.36 says of them.
//!
//! `golden.txt` has a line of `apiVersion`, resource and object, and under it lines of a JSON pointer, the value
//! put there (`-`: none) and the errors.

use serde_json::{Value, json};

use crate::table;

fn with(object: &Value, pointer: &str, value: &str) -> Value {
    let mut object = object.clone();
    let (parent, last) = pointer.rsplit_once('/').expect("pointers begin with a slash");
    let last = last.replace("~1", "/").replace("~0", "~");
    match object.pointer_mut(parent).expect("the parent is there") {
        Value::Object(map) if value == "-" => {
            map.remove(&last);
        }
        Value::Object(map) => {
            map.insert(last, serde_json::from_str(value).expect("JSON"));
        }
        Value::Array(list) if value == "-" => {
            list.remove(last.parse().expect("an index"));
        }
        Value::Array(list) => {
            list[last.parse::<usize>().expect("an index")] = serde_json::from_str(value).expect("JSON");
        }
        other => panic!("{pointer} of {other}"),
    }
    object
}

fn check(api_version: &str, plural: &str, object: &Value) -> String {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let resource = table().find_resource(group, version, plural).expect("built in");
    let mut object = object.clone();
    if object["metadata"].is_null() {
        object["metadata"] = json!({});
    }
    if resource.namespaced
        && let Some(metadata) = object["metadata"].as_object_mut()
    {
        metadata.entry("namespace").or_insert(json!("default"));
    }
    crate::canonicalize(resource.type_ref().expect("built in"), &mut object);
    crate::defaults::apply(resource, &mut object);
    super::create(resource, resource, &object).to_aggregate()
}

#[test]
fn mutants() {
    let mut base = (String::new(), String::new(), Value::Null);
    let mut wrong = Vec::new();
    for line in include_str!("golden.txt").lines() {
        let parts: Vec<&str> = line.splitn(3, '\t').collect();
        let [first, second, third] = parts.as_slice() else { panic!("{line}") };
        if !first.starts_with('/') {
            base = (first.to_string(), second.to_string(), serde_json::from_str(third).expect("JSON"));
            continue;
        }
        let got = check(&base.0, &base.1, &with(&base.2, first, second));
        if got != *third {
            wrong.push(format!("{} {first}\t{second}\n  want {third}\n  got  {got}", base.2["kind"]));
        }
    }
    assert!(wrong.is_empty(), "{} wrong\n{}", wrong.len(), wrong.join("\n"));
}
