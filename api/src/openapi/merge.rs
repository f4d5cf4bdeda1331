//! Parts of Swagger documents of other servers, put into this server's.
//!
//! Paths that are there already stay. A definition or parameter of a name that means something else here
//! gets another name (`_v2`, `_v3`, …), and the part's references with it.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

type Members = BTreeMap<String, Vec<u8>>;

/// Adds the paths, definitions and parameters of `part`.
pub(super) fn merge(part: &[u8], paths: &mut Members, definitions: &mut Members, parameters: &mut Members) {
    let Ok(mut part) = serde_json::from_slice::<Value>(part) else { return };
    let mut renamed: HashMap<String, String> = HashMap::new();
    for (section, known) in [("definitions", &*definitions), ("parameters", &*parameters)] {
        let Some(members) = part.get(section).and_then(Value::as_object) else { continue };
        for (name, value) in members {
            let same = |json: &Vec<u8>| {
                serde_json::from_slice::<Value>(json).is_ok_and(|known| without_kinds(&known) == without_kinds(value))
            };
            let free = |name: &String| known.get(name).is_none_or(same);
            if free(name) {
                continue;
            }
            let other = (2..).map(|count| format!("{name}_v{count}")).find(free).expect("there is always a next name");
            renamed.insert(format!("#/{section}/{name}"), format!("#/{section}/{other}"));
        }
    }
    if !renamed.is_empty() {
        rename(&mut part, &renamed);
    }
    for (section, known) in [("definitions", definitions), ("parameters", parameters), ("paths", paths)] {
        let Some(Value::Object(members)) = part.get_mut(section).map(Value::take) else { continue };
        for (name, value) in members {
            let name = match renamed.get(&format!("#/{section}/{name}")) {
                Some(other) => other.rsplit('/').next().unwrap_or_default().to_owned(),
                None => name,
            };
            known.entry(name).or_insert_with(|| value.to_string().into_bytes());
        }
    }
}

/// Which kinds a type stands for differs between servers that share it.
fn without_kinds(definition: &Value) -> Value {
    let mut definition = definition.clone();
    if let Some(map) = definition.as_object_mut() {
        map.remove("x-kubernetes-group-version-kind");
    }
    definition
}

fn rename(value: &mut Value, renamed: &HashMap<String, String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                match value {
                    Value::String(reference) if key == "$ref" => {
                        if let Some(other) = renamed.get(reference) {
                            reference.clone_from(other);
                        }
                    }
                    _ => rename(value, renamed),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| rename(item, renamed)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn clashing_names_are_changed() {
        let members = |value: Value| -> Members {
            let map = value.as_object().cloned().unwrap_or_default();
            map.into_iter().map(|(name, value)| (name, value.to_string().into_bytes())).collect()
        };
        let kinds = json!([{"group": "", "version": "v1", "kind": "Status"}]);
        let mut definitions = members(json!({
            "Status": {"type": "object", "x-kubernetes-group-version-kind": kinds},
            "Thing": {"type": "string"},
        }));
        let (mut paths, mut parameters) = (members(json!({"/version/": {"get": 1}})), Members::new());
        let part = json!({
            "paths": {"/apis/a/v1/": {"$ref": "#/definitions/Thing"}, "/version/": {"get": 2}},
            "definitions": {"Thing": {"type": "integer"}, "Status": {"type": "object"}, "New": {}},
            "parameters": {"pretty": {"name": "pretty"}},
        });
        merge(part.to_string().as_bytes(), &mut paths, &mut definitions, &mut parameters);
        let text = |members: &Members, name: &str| String::from_utf8_lossy(&members[name]).into_owned();
        assert_eq!(definitions.keys().collect::<Vec<_>>(), ["New", "Status", "Thing", "Thing_v2"]);
        assert!(text(&definitions, "Status").contains("version-kind"), "this server's own stays");
        assert_eq!(text(&paths, "/apis/a/v1/"), r##"{"$ref":"#/definitions/Thing_v2"}"##);
        assert_eq!(text(&paths, "/version/"), r#"{"get":1}"#);
        assert!(parameters.contains_key("pretty"));
    }
}
