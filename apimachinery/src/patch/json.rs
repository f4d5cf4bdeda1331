//! JSON patch (RFC 6902).

use serde_json::Value;

/// As many operations as upstream's apiserver accepts in one patch.
pub const MAX_OPERATIONS: usize = 10_000;

/// Lists are not grown beyond this by `copy`, whose repeated use doubles a document.
const MAX_NODES: usize = 1_000_000;

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

/// Applies every operation, or leaves the document as it was.
pub fn apply(document: &mut Value, patch: &Value) -> Result<(), Error> {
    let Value::Array(operations) = patch else {
        let found = kind_name(patch);
        return Err(Error::Malformed(format!("json: cannot unmarshal {found} into Go value of type jsonpatch.Patch")));
    };
    if operations.len() > MAX_OPERATIONS {
        return Err(Error::TooManyOperations(operations.len()));
    }
    let mut work = document.clone();
    for operation in operations {
        step(&mut work, operation)?;
    }
    *document = work;
    Ok(())
}

fn kind_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn step(document: &mut Value, operation: &Value) -> Result<(), Error> {
    let Value::Object(fields) = operation else {
        let found = kind_name(operation);
        return Err(Error::Malformed(format!(
            "json: cannot unmarshal {found} into Go value of type jsonpatch.Operation"
        )));
    };
    let text = |name: &str| fields.get(name).and_then(Value::as_str);
    let op = text("op").unwrap_or("unknown");
    let failed = |message: String| Error::Failed(message);
    let path = || text("path").ok_or_else(|| failed(format!("{op} operation failed to decode path: missing value")));
    let from = || text("from").ok_or_else(|| failed(format!("{op} operation failed to decode from: missing value")));
    // `value: null` is a value; a missing one counts as null for `add`, as upstream.
    let value = || fields.get("value").cloned().unwrap_or(Value::Null);
    match op {
        "add" => add(document, path()?, value(), "add"),
        "remove" => remove(document, path()?, "remove").map(drop),
        "replace" => {
            let path = path()?;
            if get(document, path).is_none() {
                return Err(failed(format!(
                    "replace operation does not apply: doc is missing key: {path}: missing value"
                )));
            }
            set(document, path, value());
            Ok(())
        }
        "move" => {
            let value = remove(document, from()?, "move")?;
            add(document, path()?, value, "move")
        }
        "copy" => {
            let from = from()?;
            let value = get(document, from).cloned().ok_or_else(|| {
                failed(format!("copy operation does not apply: doc is missing from path: {from}: missing value"))
            })?;
            add(document, path()?, value, "copy")?;
            if count(document) > MAX_NODES {
                return Err(failed("copy operation does not apply: the document grows too large".into()));
            }
            Ok(())
        }
        "test" => {
            let path = path()?;
            if get(document, path).unwrap_or(&Value::Null) == &value() {
                Ok(())
            } else {
                Err(Error::TestFailed(path.to_owned()))
            }
        }
        other => Err(failed(format!("Unexpected kind: {other}"))),
    }
}

fn count(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(count).sum::<usize>(),
        Value::Object(map) => 1 + map.values().map(count).sum::<usize>(),
        _ => 1,
    }
}

fn tokens(path: &str) -> impl Iterator<Item = String> + '_ {
    path.split('/').skip(1).map(|t| t.replace("~1", "/").replace("~0", "~"))
}

/// A position in a list: negative counts from the end, as upstream allows.
fn position(token: &str, len: usize) -> Option<usize> {
    let index: i64 = token.parse().ok()?;
    let index = if index < 0 { index + i64::try_from(len).ok()? } else { index };
    usize::try_from(index).ok()
}

fn get<'a>(document: &'a Value, path: &str) -> Option<&'a Value> {
    tokens(path).try_fold(document, |value, token| match value {
        Value::Object(map) => map.get(&token),
        Value::Array(items) => items.get(position(&token, items.len())?),
        _ => None,
    })
}

fn get_mut<'a>(document: &'a mut Value, path: &[String]) -> Option<&'a mut Value> {
    path.iter().try_fold(document, |value, token| match value {
        Value::Object(map) => map.get_mut(token),
        Value::Array(items) => {
            let at = position(token, items.len())?;
            items.get_mut(at)
        }
        _ => None,
    })
}

fn set(document: &mut Value, path: &str, value: Value) {
    let path: Vec<String> = tokens(path).collect();
    if let Some(place) = get_mut(document, &path) {
        *place = value;
    }
}

fn add(document: &mut Value, path: &str, value: Value, op: &str) -> Result<(), Error> {
    let path_tokens: Vec<String> = tokens(path).collect();
    let Some((last, parents)) = path_tokens.split_last() else {
        *document = value;
        return Ok(());
    };
    let missing =
        || Error::Failed(format!("{op} operation does not apply: doc is missing path: \"{path}\": missing value"));
    match get_mut(document, parents).ok_or_else(missing)? {
        Value::Object(map) => {
            map.insert(last.clone(), value);
        }
        Value::Array(items) if last == "-" => items.push(value),
        Value::Array(items) => {
            let bad = || {
                Error::Failed(format!(
                    "{op} operation does not apply: error in add for path: '{path}': Unable to access invalid index: {last}: invalid index referenced"
                ))
            };
            // A negative index inserts before the element it names, counted in the longer list.
            let at = position(last, items.len() + usize::from(last.starts_with('-'))).ok_or_else(bad)?;
            if at > items.len() {
                return Err(bad());
            }
            items.insert(at, value);
        }
        _ => return Err(missing()),
    }
    Ok(())
}

fn remove(document: &mut Value, path: &str, op: &str) -> Result<Value, Error> {
    let path_tokens: Vec<String> = tokens(path).collect();
    let missing =
        || Error::Failed(format!("{op} operation does not apply: doc is missing path: \"{path}\": missing value"));
    let Some((last, parents)) = path_tokens.split_last() else { return Err(missing()) };
    match get_mut(document, parents).ok_or_else(missing)? {
        Value::Object(map) => map.remove(last).ok_or_else(|| {
            Error::Failed(format!(
                "error in remove for path: '{path}': Unable to remove nonexistent key: {last}: missing value"
            ))
        }),
        Value::Array(items) => {
            let at = position(last, items.len()).filter(|at| *at < items.len()).ok_or_else(|| {
                Error::Failed(format!("error in remove for path: '{path}': Unable to access invalid index: {last}: invalid index referenced"))
            })?;
            Ok(items.remove(at))
        }
        _ => Err(missing()),
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
            (json!({"a": [1, 2]}), json!([{"op": "remove", "path": "/a/-1"}]), json!({"a": [1]})),
            (
                json!({"a/b": {"~": 1}}),
                json!([{"op": "replace", "path": "/a~1b/~0", "value": 2}]),
                json!({"a/b": {"~": 2}}),
            ),
            (json!({"a": 1}), json!([{"op": "move", "from": "/a", "path": "/b"}]), json!({"b": 1})),
            (json!({"a": 1}), json!([{"op": "copy", "from": "/a", "path": "/b"}]), json!({"a": 1, "b": 1})),
            (json!({"a": 1}), json!([{"op": "test", "path": "/a", "value": 1}]), json!({"a": 1})),
        ] {
            assert_eq!(patched(document, patch).unwrap(), expected);
        }
    }

    #[test]
    fn failures_change_nothing() {
        let mut document = json!({"a": 1});
        for patch in [
            json!([{"op": "add", "path": "/b", "value": 1}, {"op": "test", "path": "/a", "value": 2}]),
            json!([{"op": "remove", "path": "/x"}]),
            json!([{"op": "replace", "path": "/x", "value": 1}]),
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
    }
}
