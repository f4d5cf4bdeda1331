//! Pruning: fields that the schema does not know go, and are reported.

use std::fmt::Write as _;

use serde_json::Value;

use super::{Additional, Node};

/// What every object and embedded resource has although its schema need not say so.
const META: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// Where the walk is, and what was unknown on the way.
struct Walk {
    path: String,
    unknown: Option<Vec<String>>,
}

impl Walk {
    fn key(&mut self, name: &str) -> usize {
        let mark = self.path.len();
        if self.unknown.is_some() {
            if mark > 0 {
                self.path.push('.');
            }
            self.path.push_str(name);
        }
        mark
    }

    fn index(&mut self, index: usize) -> usize {
        let mark = self.path.len();
        if self.unknown.is_some() {
            write!(self.path, "[{index}]").expect("writing to a string does not fail");
        }
        mark
    }

    fn record(&mut self, name: &str) {
        let mark = self.key(name);
        if let Some(unknown) = &mut self.unknown {
            unknown.push(self.path.clone());
        }
        self.path.truncate(mark);
    }
}

/// Drops unknown fields of a whole object (`root`) or of a part of one; answers their paths,
/// sorted, when they are asked for.
pub fn prune(value: &mut Value, node: &Node, root: bool, report: bool) -> Vec<String> {
    let mut walk = Walk { path: String::new(), unknown: report.then(Vec::new) };
    inside(value, Some(node), root || node.embedded, &mut walk);
    let mut unknown = walk.unknown.unwrap_or_default();
    unknown.sort();
    unknown
}

/// The schema of a member; `Some(None)` where there is none and everything below goes.
fn member<'a>(node: &'a Node, name: &str) -> Option<Option<&'a Node>> {
    if let Some(node) = node.property(name) {
        return Some(Some(node));
    }
    match &node.additional {
        Additional::Unset => None,
        Additional::Allowed(_) => Some(None),
        Additional::Schema(node) => Some(Some(node)),
    }
}

fn inside(value: &mut Value, node: Option<&Node>, embedded: bool, walk: &mut Walk) {
    if let Some(node) = node.filter(|node| node.preserve_unknown) {
        return preserved(value, node, embedded, walk);
    }
    match value {
        Value::Object(map) => {
            let Some(node) = node else {
                for name in map.keys() {
                    walk.record(name);
                }
                map.clear();
                return;
            };
            map.retain(|name, value| {
                if embedded && META.contains(&name.as_str()) {
                    return true;
                }
                match member(node, name) {
                    Some(node) => {
                        let mark = walk.key(name);
                        inside(value, node, node.is_some_and(|node| node.embedded), walk);
                        walk.path.truncate(mark);
                        true
                    }
                    None => {
                        if !META.contains(&name.as_str()) || !walk.path.is_empty() {
                            walk.record(name);
                        }
                        false
                    }
                }
            });
        }
        Value::Array(items) => {
            let item = node.and_then(|node| node.items.as_deref());
            for (index, value) in items.iter_mut().enumerate() {
                let mark = walk.index(index);
                inside(value, item, item.is_some_and(|node| node.embedded), walk);
                walk.path.truncate(mark);
            }
        }
        _ => {}
    }
}

/// Keeps unknown fields, and prunes below the known ones.
fn preserved(value: &mut Value, node: &Node, embedded: bool, walk: &mut Walk) {
    match value {
        Value::Object(map) => {
            for (name, value) in map.iter_mut() {
                if embedded && META.contains(&name.as_str()) {
                    continue;
                }
                if let Some(node) = member(node, name) {
                    let mark = walk.key(name);
                    inside(value, node, node.is_some_and(|node| node.embedded), walk);
                    walk.path.truncate(mark);
                }
            }
        }
        Value::Array(items) => {
            let Some(item) = node.items.as_deref() else { return };
            for (index, value) in items.iter_mut().enumerate() {
                let mark = walk.index(index);
                preserved(value, item, item.embedded, walk);
                walk.path.truncate(mark);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(schema: Value, mut object: Value, expected: Value, unknown: &[&str]) {
        let node = Node::compile(&schema);
        assert_eq!(prune(&mut object, &node, true, true), unknown);
        assert_eq!(object, expected);
    }

    #[test]
    fn prunes_what_is_unknown() {
        let schema = json!({"type": "object", "properties": {
            "spec": {"type": "object", "properties": {
                "a": {"type": "string"},
                "list": {"type": "array", "items": {"type": "object", "properties": {"b": {"type": "string"}}}},
                "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"c": {"type": "string"}}}},
                "any": {"type": "object", "x-kubernetes-preserve-unknown-fields": true,
                        "properties": {"known": {"type": "object"}}},
                "pod": {"type": "object", "x-kubernetes-embedded-resource": true, "properties": {"spec": {"type": "object"}}},
            }},
        }});
        check(
            schema,
            json!({"apiVersion": "a/v1", "kind": "K", "metadata": {"name": "x", "foo": 1}, "top": 1, "spec": {
                "a": "1", "b": "2", "list": [{"b": "1", "x": 1}, {"y": 2}], "map": {"k": {"c": "1", "d": 1}},
                "any": {"free": {"x": 1}, "known": {"x": 1}},
                "pod": {"apiVersion": "v1", "kind": "Pod", "metadata": {"x": 1}, "spec": {"x": 1}, "z": 1}}}),
            json!({"apiVersion": "a/v1", "kind": "K", "metadata": {"name": "x", "foo": 1}, "spec": {
                "a": "1", "list": [{"b": "1"}, {}], "map": {"k": {"c": "1"}},
                "any": {"free": {"x": 1}, "known": {}},
                "pod": {"apiVersion": "v1", "kind": "Pod", "metadata": {"x": 1}, "spec": {}}}}),
            &[
                "spec.any.known.x",
                "spec.b",
                "spec.list[0].x",
                "spec.list[1].y",
                "spec.map.k.d",
                "spec.pod.spec.x",
                "spec.pod.z",
                "top",
            ],
        );
    }
}
