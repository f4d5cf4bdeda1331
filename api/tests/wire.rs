//! Upstream's recorded answers against the table: what its decoder refuses, ours refuses in the same
//! words, and every object it returned is in Go's form already and survives protobuf.
//!
//! Reads `../shared/wire`; compares, and is silent without it.

use std::collections::HashMap;
use std::path::PathBuf;

use api::{canonicalize, check_fields, protobuf, table};
use apimachinery::schema::TypeRef;
use serde_json::Value;

fn lines(name: &str) -> Option<Vec<Value>> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let named = std::env::var_os("KEELSON_SHARED").map(PathBuf::from);
    let found = named.into_iter().chain([root.join("../shared"), root.join("../../shared")]).find(|path| path.is_dir());
    let Some(shared) = found else {
        println!("skipped: needs ../shared");
        return None;
    };
    let text = std::fs::read_to_string(shared.join("wire").join(name)).expect("recorded requests");
    Some(text.lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect())
}

fn type_of(object: &Value) -> Option<TypeRef<'static>> {
    let api_version = object["apiVersion"].as_str()?;
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    table().find_kind(group, version, object["kind"].as_str()?)
}

/// The recording masks what changes from run to run; a masked time is none that can be read.
fn unmask(value: &mut Value, name: &str) {
    match value {
        Value::Object(map) => map.iter_mut().for_each(|(name, value)| unmask(value, name)),
        Value::Array(items) => items.iter_mut().for_each(|item| unmask(item, name)),
        Value::String(text) if text.starts_with('<') && name == "nodePort" => *value = Value::from(30000),
        Value::String(text) if text == "<time>" => {
            let micro = ["eventTime", "acquireTime", "renewTime", "lastObservedTime"].contains(&name);
            *text = if micro { "2026-01-01T00:00:00.000000Z" } else { "2026-01-01T00:00:00Z" }.to_owned();
        }
        _ => {}
    }
}

#[test]
fn refusals_are_upstreams() {
    let (Some(cases), Some(answers)) = (lines("cases.jsonl"), lines("answers.jsonl")) else { return };
    let answers: HashMap<&str, &Value> =
        answers.iter().filter_map(|answer| Some((answer["id"].as_str()?, answer))).collect();
    let (mut compared, mut wrong) = (0, Vec::new());
    for case in &cases {
        let id = case["id"].as_str().unwrap_or_default();
        // Mutants are whole objects of one kind, posted with strict validation.
        let Some(answer) = answers.get(id).filter(|_| id.starts_with("mutant/")) else { continue };
        let Some(body) = case["body"].as_str().and_then(|body| serde_json::from_str::<Value>(body).ok()) else {
            continue;
        };
        let Some(ty) = type_of(&body) else { continue };
        let message = answer["body"]["message"].as_str().unwrap_or_default();
        let refused = message.split_once(" cannot be handled as a ").and_then(|(_, rest)| rest.split_once(": "));
        let found = check_fields(ty, &body);
        let ours = match &found.type_error {
            Some(error) => Some(error.clone()),
            None if found.unknown.is_empty() => None,
            None => Some(format!("strict decoding error: {}", found.strict_errors().join(", "))),
        };
        compared += 1;
        let same = match (refused.map(|(_, text)| text), &ours) {
            (Some("<decode error>"), Some(_)) => found.type_error.is_some(),
            // The recording masks the times in the text, the layout's own too.
            (Some(theirs), Some(ours)) if theirs.contains("<time>") => ours.starts_with("parsing time "),
            (theirs, ours) => theirs == ours.as_deref(),
        };
        if !same {
            wrong.push(format!("{id}: upstream {message:?}, ours {ours:?}"));
        }
    }
    assert!(compared > 2000, "only {compared} mutants were compared");
    assert!(wrong.is_empty(), "{} of {compared}:\n{}", wrong.len(), wrong[..wrong.len().min(30)].join("\n"));
}

#[test]
fn answers_are_in_gos_form() {
    let Some(answers) = lines("answers.jsonl") else { return };
    let (mut compared, mut wrong) = (0, Vec::new());
    for answer in answers {
        let id = answer["id"].as_str().unwrap_or_default().to_owned();
        let mut object = answer["body"].clone();
        let Some(ty) = type_of(&object) else { continue };
        unmask(&mut object, "");
        compared += 1;
        let found = check_fields(ty, &object);
        if !found.unknown.is_empty() || found.type_error.is_some() {
            wrong.push(format!("{id}: {found:?}"));
            continue;
        }
        let mut canonical = object.clone();
        canonicalize(ty, &mut canonical);
        if canonical != object {
            wrong.push(format!("{id}: {}", difference("", &object, &canonical)));
            continue;
        }
        // Tables are JSON only.
        if !api::table::has_protobuf(ty) {
            continue;
        }
        drop_what_protobuf_drops(&mut object);
        match protobuf::encode_object(&object).and_then(|bytes| protobuf::decode_object(&bytes)) {
            Ok(back) if back == object => {}
            Ok(back) => wrong.push(format!("{id}: protobuf: {}", difference("", &object, &back))),
            Err(error) => wrong.push(format!("{id}: protobuf: {error}")),
        }
    }
    assert!(compared > 3000, "only {compared} objects were compared");
    assert!(wrong.is_empty(), "{} of {compared}:\n{}", wrong.len(), wrong[..wrong.len().min(40)].join("\n"));
}

/// Objects inside objects have no kind in protobuf (upstream's conversion puts it back), and a list
/// without items is no list.
fn drop_what_protobuf_drops(object: &mut Value) {
    if let Some(templates) = object.pointer_mut("/spec/volumeClaimTemplates").and_then(Value::as_array_mut) {
        for template in templates.iter_mut().filter_map(Value::as_object_mut) {
            template.retain(|name, _| name != "apiVersion" && name != "kind");
        }
    }
    if object["items"].as_array().is_some_and(Vec::is_empty) {
        object["items"] = Value::Null;
    }
}

/// The first place where two trees differ.
fn difference(path: &str, wanted: &Value, got: &Value) -> String {
    match (wanted, got) {
        (Value::Object(a), Value::Object(b)) => {
            a.keys().chain(b.keys()).find(|key| a.get(*key) != b.get(*key)).map_or_else(String::new, |key| {
                let none = Value::String("nothing".to_owned());
                difference(&format!("{path}.{key}"), a.get(key).unwrap_or(&none), b.get(key).unwrap_or(&none))
            })
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            let index = (0..a.len()).find(|index| a[*index] != b[*index]).unwrap_or(0);
            difference(&format!("{path}[{index}]"), &a[index], &b[index])
        }
        _ => format!("{path}: wanted {wanted}, got {got}"),
    }
}
