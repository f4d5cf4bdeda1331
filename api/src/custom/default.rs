//! Defaults, and nulls where they have no place.

use serde_json::{Map, Value, json};

use super::{Node, meta, prune};

/// Sets defaults of missing fields, and of nulls where the schema is not `nullable`.
pub fn apply(value: &mut Value, node: &Node) {
    if !node.has_defaults {
        return;
    }
    match value {
        Value::Object(map) => {
            for (name, property) in &node.properties {
                let Some(default) = &property.default else { continue };
                if map.get(&**name).is_none_or(|value| property.is_null_wrong(value)) {
                    map.insert(name.to_string(), (**default).clone());
                }
            }
            for (name, value) in map.iter_mut() {
                if let Some(property) = node.property(name) {
                    apply(value, property);
                } else if let Some(additional) = node.additional() {
                    replace_null(value, additional);
                    apply(value, additional);
                }
            }
        }
        Value::Array(items) => {
            let Some(item) = &node.items else { return };
            for value in items {
                replace_null(value, item);
                apply(value, item);
            }
        }
        _ => {}
    }
}

fn replace_null(value: &mut Value, node: &Node) {
    if node.is_null_wrong(value)
        && let Some(default) = &node.default
    {
        *value = (**default).clone();
    }
}

/// Drops null members that are neither `nullable` nor have a default.
pub fn prune_nulls(value: &mut Value, node: Option<&Node>) {
    match value {
        Value::Object(map) => map.retain(|name, value| {
            let member = node.and_then(|node| node.member(name));
            if member.is_some_and(|node| node.is_null_wrong(value) && node.default.is_none()) {
                return false;
            }
            prune_nulls(value, member);
            true
        }),
        Value::Array(items) => {
            let item = node.and_then(|node| node.items.as_deref());
            items.iter_mut().for_each(|value| prune_nulls(value, item));
        }
        _ => {}
    }
}

/// A default seen as part of the whole object it will stand in.
#[derive(Clone, Debug)]
pub enum Step {
    Child(Box<str>),
    Index,
}

/// The object in which only `value` is set, at the end of the steps. `None` at the root, where
/// only objects have a place.
pub fn surround(steps: &[Step], value: Value) -> Option<Value> {
    let whole = steps.iter().rev().fold(value, |inner, step| match step {
        Step::Child(name) => {
            let mut map = Map::new();
            map.insert(name.to_string(), inner);
            Value::Object(map)
        }
        Step::Index => json!([inner]),
    });
    whole.is_object().then_some(whole)
}

fn focus<'a>(steps: &[Step], whole: &'a mut Value) -> Option<&'a mut Value> {
    steps.iter().try_fold(whole, |at, step| match step {
        Step::Child(name) => at.get_mut(&**name),
        Step::Index => at.get_mut(0),
    })
}

/// Prunes the defaults themselves: what upstream does before it serves with them.
pub fn prune_defaults(root: &mut Node) {
    if !root.has_defaults {
        return;
    }
    let whole = root.clone();
    prune_below(root, &whole, &mut Vec::new());
}

fn prune_below(node: &mut Node, root: &Node, steps: &mut Vec<Step>) {
    if let Some(default) = &node.default
        && let Some(mut whole) = surround(steps, (**default).clone())
    {
        // What cannot be coerced was refused when the definition was created.
        let _ = meta::coerce(&mut whole, root, true, meta::Options { drop_invalid: true, report: false });
        prune::prune(&mut whole, root, true, false);
        node.default = focus(steps, &mut whole).map(|value| Box::new(value.take()));
    }
    if let super::Additional::Schema(additional) = &mut node.additional {
        steps.push(Step::Child("*".into()));
        prune_below(additional, root, steps);
        steps.pop();
    }
    if let Some(items) = &mut node.items {
        steps.push(Step::Index);
        prune_below(items, root, steps);
        steps.pop();
    }
    for (name, property) in &mut node.properties {
        steps.push(Step::Child(name.clone()));
        prune_below(property, root, steps);
        steps.pop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_and_nulls() {
        let node = Node::compile(&json!({"type": "object", "properties": {
            "a": {"type": "string", "default": "A"},
            "b": {"type": "string", "default": "B", "nullable": true},
            "c": {"type": "object", "default": {}, "properties": {"d": {"type": "integer", "default": 1}}},
            "list": {"type": "array", "items": {"type": "object", "properties": {"e": {"type": "string", "default": "E"}}}},
            "map": {"type": "object", "additionalProperties": {"type": "string", "default": "M"}},
            "n": {"type": "string"},
        }}));
        for (given, expected) in [
            (json!({}), json!({"a": "A", "b": "B", "c": {"d": 1}})),
            (
                json!({"a": null, "b": null, "c": null, "n": null, "list": [{}, {"e": "x"}], "map": {"x": null, "y": "z"}}),
                json!({"a": "A", "b": null, "c": {"d": 1}, "list": [{"e": "E"}, {"e": "x"}], "map": {"x": "M", "y": "z"}}),
            ),
        ] {
            let mut value = given;
            prune_nulls(&mut value, Some(&node));
            apply(&mut value, &node);
            assert_eq!(value, expected);
        }
    }

    #[test]
    fn defaults_are_pruned_themselves() {
        let mut node = Node::compile(&json!({"type": "object", "properties": {
            "spec": {"type": "object", "default": {"a": "x", "unknown": 1}, "properties": {"a": {"type": "string"}}},
        }}));
        prune_defaults(&mut node);
        assert_eq!(node.property("spec").and_then(|n| n.default.as_deref()), Some(&json!({"a": "x"})));
    }
}
