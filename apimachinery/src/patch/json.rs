//! JSON patch (RFC 6902) as upstream's library carries it out, on texts: a `test` of `1.0` fails where there is `1`.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::Value;
use serde_json::value::RawValue;

use super::lazy::{self, Document, Item, Node};

/// As many operations as upstream's apiserver accepts in one patch.
pub const MAX_OPERATIONS: usize = 10_000;

/// As many bytes as the `copy` operations of a patch may add, as many as a request may bring.
const MAX_COPIED: usize = 3 * 1024 * 1024;

/// A patch that is malformed or does not fit the document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not a list of operations: the request is bad.
    #[error("{0}")]
    Malformed(String),
    #[error("The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {0}")]
    TooManyOperations(usize),
    /// An operation cannot be carried out on this document.
    #[error("{0}")]
    Failed(String),
    /// A `test` operation found another value.
    #[error("testing value {0} failed: test failed")]
    TestFailed(String),
}

fn failed<T>(message: String) -> Result<T, Error> {
    Err(Error::Failed(message))
}

/// Applies every operation to a tree, or leaves it as it was.
pub fn apply(document: &mut Value, patch: &Value) -> Result<(), Error> {
    let patched = apply_text(&crate::gotext::json(document), &crate::gotext::json(patch))?;
    *document = crate::json::parse(patched.as_bytes()).map_err(|error| Error::Failed(error.message))?;
    Ok(())
}

/// Applies every operation to a text; answers the text that comes of it.
pub fn apply_text(document: &str, patch: &str) -> Result<String, Error> {
    let operations = operations(patch)?;
    if operations.len() > MAX_OPERATIONS {
        return Err(Error::TooManyOperations(operations.len()));
    }
    let mut root = Node::Raw(Cow::Borrowed(document));
    root.open();
    let mut copied = 0;
    for operation in &operations {
        step(&mut root, operation, &mut copied)?;
    }
    let mut out = String::with_capacity(document.len());
    root.write(&mut out);
    Ok(out)
}

/// Members of an operation; `None` is `null`.
type Operation<'a> = BTreeMap<Cow<'a, str>, Option<&'a RawValue>>;

fn operations<'p>(patch: &'p str) -> Result<Vec<Operation<'p>>, Error> {
    let wrong = |text: &str, wanted: &str| {
        let found = match text.trim_start().as_bytes().first() {
            Some(b'{') => "object",
            Some(b'[') => "array",
            Some(b'"') => "string",
            Some(b't' | b'f') => "bool",
            _ => "number",
        };
        Error::Malformed(format!("json: cannot unmarshal {found} into Go value of type jsonpatch.{wanted}"))
    };
    if patch.trim() == "null" {
        return Ok(Vec::new());
    }
    let items: Vec<&'p RawValue> = serde_json::from_str(patch).map_err(|_| wrong(patch, "Patch"))?;
    let operation = |item: &'p RawValue| match item.get() {
        "null" => Ok(Operation::new()),
        text => serde_json::from_str(text).map_err(|_| wrong(text, "Operation")),
    };
    items.into_iter().map(operation).collect()
}

fn text(operation: &Operation<'_>, name: &str) -> Option<String> {
    let raw = operation.get(name).copied().flatten()?;
    let value = crate::json::parse(raw.get().as_bytes()).ok()?;
    value.as_str().map(str::to_owned)
}

/// A member that is given as `null` differs from one that is not given only in that it was given.
fn value<'a>(operation: &Operation<'a>) -> Item<'a> {
    operation.get("value").copied().flatten().and_then(|raw| lazy::item(Cow::Borrowed(raw.get())))
}

fn step<'a>(root: &mut Node<'a>, operation: &Operation<'a>, copied: &mut usize) -> Result<(), Error> {
    let op = text(operation, "op").unwrap_or_else(|| "unknown".to_owned());
    if !matches!(op.as_str(), "add" | "remove" | "replace" | "move" | "test" | "copy") {
        return failed(format!("Unexpected kind: {op}"));
    }
    let member = |name: &str| match text(operation, name) {
        Some(text) => Ok(text),
        None => failed(format!("{op} operation failed to decode {name}: missing value")),
    };
    let missing = |what: &str, path: &str| {
        Error::Failed(format!("{op} operation does not apply: doc is missing {what}: {path}: missing value"))
    };
    match op.as_str() {
        "add" => {
            let path = member("path")?;
            let (container, key) = find(root, &path).ok_or_else(|| missing("path", &format!("\"{path}\"")))?;
            container
                .add(&key, value(operation))
                .or_else(|why| failed(format!("error in add for path: '{path}': {why}")))
        }
        "remove" => {
            let path = member("path")?;
            let (mut container, key) = find(root, &path).ok_or_else(|| missing("path", &format!("\"{path}\"")))?;
            container.remove(&key).map(drop).or_else(|why| failed(format!("error in remove for path: '{path}': {why}")))
        }
        "replace" => replace(root, &member("path")?, value(operation), &missing),
        "move" => {
            let from = member("from")?;
            let (mut container, key) = find(root, &from).ok_or_else(|| missing("from path", &from))?;
            let wrong = |why: String| Error::Failed(format!("error in move for path: '{key}': {why}"));
            let moved = container.get(&key).map_err(&wrong)?.cloned().flatten();
            container.remove(&key).map_err(wrong)?;
            let path = member("path")?;
            let (container, key) = find(root, &path).ok_or_else(|| missing("destination path", &path))?;
            container.add(&key, moved).or_else(|why| failed(format!("error in move for path: '{path}': {why}")))
        }
        "copy" => {
            let from = member("from")?;
            let (container, key) = find(root, &from).ok_or_else(|| missing("from path", &from))?;
            let wrong = |why: String| Error::Failed(format!("error in copy for from: '{from}': {why}"));
            let copy = container.get(&key).map_err(wrong)?.cloned().flatten().map(|node| {
                let mut text = String::new();
                node.write(&mut text);
                text
            });
            let path = member("path")?;
            let (container, key) = find(root, &path).ok_or_else(|| missing("destination path", &path))?;
            *copied += copy.as_ref().map_or(0, String::len);
            if *copied > MAX_COPIED {
                return failed(format!(
                    "Unable to complete the copy, the accumulated size increase of copy is {copied}, exceeding the limit {MAX_COPIED}"
                ));
            }
            container
                .add(&key, copy.map(|text| Node::Raw(Cow::Owned(text))))
                .or_else(|why| failed(format!("error while adding value during copy: {why}")))
        }
        _ => test(root, &member("path")?, value(operation)),
    }
}

fn replace<'a>(
    root: &mut Node<'a>,
    path: &str,
    value: Item<'a>,
    missing: &dyn Fn(&str, &str) -> Error,
) -> Result<(), Error> {
    if path.is_empty() {
        let mut value = value;
        if let Some(value) = &mut value {
            value.open();
        }
        return match value {
            Some(value @ (Node::Document(_) | Node::List(_))) => {
                *root = value;
                Ok(())
            }
            _ => failed("replace operation value must be object or array".to_owned()),
        };
    }
    let (container, key) = find(root, path).ok_or_else(|| missing("path", path))?;
    container.get(&key).map_err(|_| missing("key", path))?;
    container.set(&key, value).or_else(|why| failed(format!("error in remove for path: '{path}': {why}")))
}

fn test<'a>(root: &mut Node<'a>, path: &str, mut value: Item<'a>) -> Result<(), Error> {
    let wrong = || Error::TestFailed(path.to_owned());
    let mut place;
    let found = if path.is_empty() {
        Some(root)
    } else {
        let (container, key) = match find(root, path) {
            Some(found) => found,
            None => return failed(format!("test operation does not apply: is missing path: {path}: missing value")),
        };
        match container.get(&key) {
            // A member that is not there is as good as null.
            Ok(found) => {
                place = found.cloned().flatten();
                place.as_mut()
            }
            Err(why) => return failed(format!("error in test for path: '{path}': {why}")),
        }
    };
    match (found, &mut value) {
        (None, None) => Ok(()),
        (Some(found), Some(value)) => found.is_equal(value).then_some(()).ok_or_else(wrong),
        _ => Err(wrong()),
    }
}

/// An object or a list into which a path leads.
enum Container<'n, 'a> {
    Document(&'n mut Document<'a>),
    List(&'n mut Vec<Item<'a>>),
}

/// The container of what a path names, and the name in it.
fn find<'n, 'a>(root: &'n mut Node<'a>, path: &str) -> Option<(Container<'n, 'a>, String)> {
    let mut parts = path.split('/').skip(1).map(|part| part.replace("~1", "/").replace("~0", "~"));
    let mut key = parts.next()?;
    let mut at = root;
    for next in parts {
        let child = match container(at)? {
            Container::Document(document) => document.get_mut(&key)?,
            Container::List(items) => {
                let index = index(&key, items.len()).ok()?;
                items.get_mut(index)?
            }
        };
        at = child.as_mut()?;
        key = next;
    }
    Some((container(at)?, key))
}

fn container<'n, 'a>(node: &'n mut Node<'a>) -> Option<Container<'n, 'a>> {
    node.open();
    match node {
        Node::Raw(_) => None,
        Node::Document(document) => Some(Container::Document(document)),
        Node::List(items) => Some(Container::List(items)),
    }
}

fn atoi(key: &str) -> Result<i64, String> {
    key.parse().map_err(|_| format!("strconv.Atoi: parsing {}: invalid syntax", crate::gotext::quote(key)))
}

/// The position of an item in a list of some length; negative ones count from the end.
fn index(key: &str, length: usize) -> Result<usize, String> {
    let given = atoi(key)?;
    let length = i64::try_from(length).unwrap_or(i64::MAX);
    let at = if given < 0 { given + length } else { given };
    usize::try_from(at)
        .ok()
        .filter(|_| at < length)
        .ok_or_else(|| format!("Unable to access invalid index: {given}: invalid index referenced"))
}

impl<'a> Container<'_, 'a> {
    /// An object has every member: those that it lacks are nothing.
    fn get(&self, key: &str) -> Result<Option<&Item<'a>>, String> {
        match self {
            Container::Document(document) => Ok(document.get(key)),
            Container::List(items) => index(key, items.len()).map(|index| Some(&items[index])),
        }
    }

    fn set(self, key: &str, value: Item<'a>) -> Result<(), String> {
        match self {
            Container::Document(document) => drop(document.insert(key.to_owned(), value)),
            Container::List(items) => {
                let index = index(key, items.len())?;
                items[index] = value;
            }
        }
        Ok(())
    }

    fn add(self, key: &str, value: Item<'a>) -> Result<(), String> {
        match self {
            Container::Document(document) => drop(document.insert(key.to_owned(), value)),
            Container::List(items) if key == "-" => items.push(value),
            Container::List(items) => {
                atoi(key).map_err(|why| format!("value was not a proper array index: '{key}': {why}"))?;
                // Counted in the list as it will be.
                let index = index(key, items.len() + 1)?;
                items.insert(index, value);
            }
        }
        Ok(())
    }

    fn remove(&mut self, key: &str) -> Result<Item<'a>, String> {
        match self {
            Container::Document(document) => {
                document.remove(key).ok_or_else(|| format!("Unable to remove nonexistent key: {key}: missing value"))
            }
            Container::List(items) => {
                let index = index(key, items.len())?;
                Ok(items.remove(index))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn patched(document: Value, patch: Value) -> Result<Value, Error> {
        let mut document = document;
        apply(&mut document, &patch).map(|()| document)
    }

    #[test]
    fn operations() {
        for (document, patch, expected) in [
            (json!({}), json!([{"op": "add", "path": "/a", "value": 1}]), json!({"a": 1})),
            (json!({"a": [1, 3]}), json!([{"op": "add", "path": "/a/1", "value": 2}]), json!({"a": [1, 2, 3]})),
            (json!({"a": [1]}), json!([{"op": "add", "path": "/a/-", "value": 2}]), json!({"a": [1, 2]})),
            (json!({"a": [1]}), json!([{"op": "add", "path": "/a/-1", "value": 2}]), json!({"a": [1, 2]})),
            (json!({"a": [1, 2]}), json!([{"op": "remove", "path": "/a/-1"}]), json!({"a": [1]})),
            (
                json!({"a/b": {"~": 1}}),
                json!([{"op": "replace", "path": "/a~1b/~0", "value": 2}]),
                json!({"a/b": {"~": 2}}),
            ),
            (json!({"a": 1}), json!([{"op": "replace", "path": "", "value": {"b": 1}}]), json!({"b": 1})),
            // An object has every member.
            (json!({"a": 1}), json!([{"op": "replace", "path": "/b", "value": 2}]), json!({"a": 1, "b": 2})),
            (json!({"a": 1}), json!([{"op": "test", "path": "/b", "value": null}]), json!({"a": 1})),
            (json!({"a": 1}), json!([{"op": "add", "path": "/b"}]), json!({"a": 1, "b": null})),
            (json!({"a": 1}), json!([{"op": "move", "from": "/a", "path": "/b"}]), json!({"b": 1})),
            (json!({"a": 1}), json!([{"op": "copy", "from": "/a", "path": "/b"}]), json!({"a": 1, "b": 1})),
            (json!({"a": 1}), json!([{"op": "test", "path": "/a", "value": 1}]), json!({"a": 1})),
            (
                json!({"a": [{"b": 1}]}),
                json!([{"op": "test", "path": "", "value": {"a": [{"b": 1}]}}]),
                json!({"a": [{"b": 1}]}),
            ),
        ] {
            assert_eq!(patched(document, patch).unwrap(), expected);
        }
    }

    #[test]
    fn texts_are_kept_and_compared() {
        let document = r#"{"z":1,"a":{"y":1.0,"b":"\u003c"},"n":null}"#;
        for (patch, expected) in [
            (r#"[{"op":"test","path":"/z","value":1}]"#, true),
            (r#"[{"op":"test","path":"/z","value":1.0}]"#, false),
            (r#"[{"op":"test","path":"/a/y","value":1.0}]"#, true),
            (r#"[{"op":"test","path":"/a","value":{"b": "\u003c", "y": 1.0}}]"#, true),
            (r#"[{"op":"test","path":"/a/b","value":"<"}]"#, false),
            (r#"[{"op":"test","path":"/n","value":null}]"#, true),
            (r#"[{"op":"test","path":"/z"}]"#, false),
        ] {
            assert_eq!(apply_text(document, patch).is_ok(), expected, "{patch}");
        }
        let patch = r#"[{"op":"add","path":"/q","value":{"x": 1e2}},{"op":"test","path":"/q/x","value":1e2}]"#;
        let patched = apply_text(document, patch).unwrap();
        assert_eq!(patched, r#"{"a":{"y":1.0,"b":"\u003c"},"n":null,"q":{"x":1e2},"z":1}"#);
    }

    #[test]
    fn failures_change_nothing() {
        let mut document = json!({"a": 1});
        for patch in [
            json!([{"op": "add", "path": "/b", "value": 1}, {"op": "test", "path": "/a", "value": 2}]),
            json!([{"op": "remove", "path": "/x"}]),
            json!([{"op": "replace", "path": "", "value": 1}]),
            json!([{"op": "add", "path": "", "value": {}}]),
            json!([{"op": "add", "path": "/x/y", "value": 1}]),
            json!([{"op": "jump", "path": "/a"}]),
            json!([{"path": "/a"}]),
            json!([1]),
            json!({}),
        ] {
            assert!(apply(&mut document, &patch).is_err(), "{patch}");
            assert_eq!(document, json!({"a": 1}));
        }
        let many = Value::from(vec![json!({"op": "test", "path": "/a", "value": 1}); MAX_OPERATIONS + 1]);
        assert_eq!(apply(&mut document, &many), Err(Error::TooManyOperations(MAX_OPERATIONS + 1)));
        // What doubles does not do so for long.
        let mut doubling = vec![json!({"op": "add", "path": "/a", "value": {"b": "c"}})];
        doubling.extend((0..64).map(|i| json!({"op": "copy", "from": "/a", "path": format!("/a/{i}")})));
        assert!(matches!(apply(&mut document, &Value::from(doubling)), Err(Error::Failed(_))));
    }
}
