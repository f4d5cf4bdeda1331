//! `x-kubernetes-list-type`: sets and maps hold nothing twice.

use std::collections::HashMap;

use apimachinery::field::{self, ErrorList, FieldError, Path};
use serde_json::{Map, Value, json};

use super::{ListType, Node};

/// Duplicates in sets and associative lists anywhere in an object.
pub fn validate(path: &Path, value: &Value, node: &Node, errors: &mut ErrorList) {
    match value {
        Value::Object(map) => {
            if let Some(additional) = node.additional() {
                for (name, value) in map {
                    validate(&path.key(name.clone()), value, additional, errors);
                }
            }
            for (name, value) in map {
                if let Some(property) = node.property(name) {
                    validate(&path.child(name.clone()), value, property, errors);
                }
            }
        }
        Value::Array(items) => {
            match node.list_type {
                ListType::Set => {
                    for index in repeated(items) {
                        errors.push(field::duplicate(&path.index(index), &items[index]));
                    }
                }
                ListType::Map => errors.extend(map_keys(path, node, items)),
                ListType::Unset | ListType::Atomic => {}
            }
            if let Some(item) = &node.items {
                for (index, value) in items.iter().enumerate() {
                    validate(&path.index(index), value, item, errors);
                }
            }
        }
        _ => {}
    }
}

/// Indexes of the second of several equal values.
fn repeated(items: &[Value]) -> Vec<usize> {
    let mut seen: HashMap<String, usize> = HashMap::new();
    let mut second = Vec::new();
    for (index, value) in items.iter().enumerate() {
        let times = seen.entry(value.to_string()).or_default();
        *times += 1;
        if *times == 2 {
            second.push(index);
        }
    }
    second
}

fn map_keys(path: &Path, node: &Node, items: &[Value]) -> Vec<FieldError> {
    if let Some((index, value)) = items.iter().enumerate().find(|(_, value)| !value.is_object() && !value.is_null()) {
        let error = field::invalid(&path.index(index), value, "must be an object for an array of list-type map");
        return vec![error];
    }
    let keys: Vec<Value> = items
        .iter()
        .map(|item| {
            let mut key = Map::new();
            for name in &node.list_map_keys {
                if let Some(value) = item.get(&**name) {
                    key.insert(name.to_string(), value.clone());
                }
            }
            json!(key)
        })
        .collect();
    repeated(&keys).into_iter().map(|index| field::duplicate(&path.index(index), &keys[index])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duplicates_are_named_once() {
        let node = Node::compile(&json!({"type": "object", "properties": {
            "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
            "map": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["a", "b"],
                    "items": {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "integer"}}}},
        }}));
        let mut errors = ErrorList::new();
        let object = json!({"set": ["x", "y", "x", "x"], "map": [{"a": "1", "b": 1}, {"a": "1"}, {"a": "1", "b": 1}]});
        validate(&Path::nil(), &object, &node, &mut errors);
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["map[2]: Duplicate value: {\"a\":\"1\",\"b\":1}", "set[2]: Duplicate value: \"x\""]);
    }
}
