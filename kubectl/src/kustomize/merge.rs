//! Strategic merge patches as kyaml applies them, which is not as the API server does: new items of
//! a list come first, lists without a merge strategy are replaced, and only `$patch` is a directive.

use apimachinery::schema::{ListKind, TypeRef};
use serde_json::{Map, Value};

use super::fieldspec::{require, scalar_text};
use super::{Error, Result};
use crate::codec;

const DIRECTIVE: &str = "$patch";

/// What a patch wants done with a map or a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Directive {
    Merge,
    Replace,
    Delete,
}

/// What merges a list: nothing, its items themselves, or fields of its items.
type Keys = Option<Vec<String>>;

/// A value's type, and how it merges if it is a list.
#[derive(Clone, Default)]
struct Schema<'a> {
    ty: Option<TypeRef<'a>>,
    keys: Keys,
}

impl<'a> Schema<'a> {
    fn plain(ty: Option<TypeRef<'a>>) -> Self {
        Schema { ty, keys: None }
    }

    fn field(&self, name: &str) -> Schema<'a> {
        let Some(ty) = self.ty else { return Schema::default() };
        let Some(found) = ty.field(name) else { return Schema::plain(ty.child(name)) };
        let keys = found.field.patch_merge.then(|| match (found.ty.list_kind(), found.field.patch_merge_key()) {
            (Some(ListKind::Map(keys)), Some(_)) => keys.iter().map(|key| key.clone().into_owned()).collect(),
            (_, Some(key)) => vec![key.to_owned()],
            (_, None) => Vec::new(),
        });
        Schema { ty: Some(found.ty), keys }
    }

    fn item(&self) -> Schema<'a> {
        Schema::plain(self.ty.and_then(TypeRef::item))
    }
}

/// Versions that kustomize still knows and the API no longer serves.
const MOVED: &[(&str, &str, &str, &str)] =
    &[("batch", "v1beta1", "CronJob", "v1"), ("policy", "v1beta1", "PodDisruptionBudget", "v1")];

fn schema_of(object: &Value) -> Schema<'static> {
    let api_version = codec::text(object, &["apiVersion"]);
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let kind = codec::text(object, &["kind"]);
    let moved = MOVED.iter().find(|(g, v, k, _)| (*g, *v, *k) == (group, version, kind)).map(|moved| moved.3);
    Schema::plain(api::table().find_kind(group, moved.unwrap_or(version), kind))
}

/// The object with a patch applied; None when the patch deletes it.
///
/// # Errors
/// When the two hold different kinds of nodes in one place, or a directive is unknown.
pub fn merge(object: &Value, patch: &Value) -> Result<Option<Value>> {
    walk(Some(object), Some(patch), &schema_of(object))
}

fn node_kind(value: Option<&Value>) -> Option<&'static str> {
    value.filter(|value| !value.is_null()).map(super::fieldspec::kind)
}

/// What two values make; None removes the field.
fn walk(old: Option<&Value>, new: Option<&Value>, schema: &Schema<'_>) -> Result<Option<Value>> {
    let Some(kind) = node_kind(old).or(node_kind(new)) else {
        return Ok(None);
    };
    for value in [old, new].into_iter().flatten() {
        require(value, kind)?;
    }
    match kind {
        "MappingNode" => walk_map(old, new, schema),
        "SequenceNode" => match &schema.keys {
            Some(keys) => walk_list(old, new, keys, &schema.item()),
            None => Ok(non_null(new.or(old))),
        },
        _ => Ok(non_null(new.or(old))),
    }
}

fn non_null(value: Option<&Value>) -> Option<Value> {
    value.filter(|value| !value.is_null()).cloned()
}

fn walk_map(old: Option<&Value>, new: Option<&Value>, schema: &Schema<'_>) -> Result<Option<Value>> {
    if old.is_some_and(|old| !old.is_null()) && new.is_some_and(Value::is_null) {
        return Ok(None);
    }
    let mut patch = new.and_then(Value::as_object).cloned();
    let directive = match &mut patch {
        Some(map) => map_directive(map)?,
        None => Directive::Merge,
    };
    let base = match (directive, old.and_then(Value::as_object)) {
        (Directive::Delete, _) => return Ok(None),
        (Directive::Merge, Some(old)) => old.clone(),
        // What is added or put instead is merged with itself, so that its own directives are followed.
        (Directive::Replace, _) | (Directive::Merge, None) => patch.clone().unwrap_or_default(),
    };
    let mut out = Map::new();
    let empty = Map::new();
    let patch = patch.as_ref().unwrap_or(&empty);
    let names = base.keys().chain(patch.keys().filter(|name| !base.contains_key(*name)));
    for name in names {
        if let Some(value) = walk(base.get(name), patch.get(name), &schema.field(name))? {
            out.insert(name.clone(), value);
        }
    }
    Ok(Some(Value::Object(out)))
}

fn directive(text: &str) -> Result<Directive> {
    match text {
        "merge" => Ok(Directive::Merge),
        "replace" => Ok(Directive::Replace),
        "delete" => Ok(Directive::Delete),
        other => Err(Error::new(format!("unknown patch strategy '{other}'"))),
    }
}

/// Takes the directive out of a map.
fn map_directive(map: &mut Map<String, Value>) -> Result<Directive> {
    match map.remove(DIRECTIVE) {
        Some(value) => directive(&scalar_text(&value)),
        None => Ok(Directive::Merge),
    }
}

/// Takes the directive out of a list: an item that holds nothing else.
fn list_directive(items: &mut Vec<Value>) -> Result<Directive> {
    let alone = |item: &Value| item.as_object().is_some_and(|map| map.len() == 1 && map.contains_key(DIRECTIVE));
    let Some(at) = items.iter().position(|item| item.get(DIRECTIVE).is_some()) else { return Ok(Directive::Merge) };
    if !alone(&items[at]) {
        return Ok(Directive::Merge);
    }
    let item = items.remove(at);
    directive(&scalar_text(&item[DIRECTIVE]))
}

fn walk_list(old: Option<&Value>, new: Option<&Value>, keys: &[String], schema: &Schema<'_>) -> Result<Option<Value>> {
    if old.is_some_and(|old| !old.is_null()) && new.is_some_and(Value::is_null) {
        return Ok(None);
    }
    let mut patch = new.and_then(Value::as_array).cloned();
    let directive = match &mut patch {
        Some(items) => list_directive(items)?,
        None => Directive::Merge,
    };
    let base = match (directive, old.and_then(Value::as_array)) {
        (Directive::Delete, _) => return Ok(None),
        (Directive::Merge, Some(old)) => old.clone(),
        (Directive::Replace, _) | (Directive::Merge, None) => patch.clone().unwrap_or_default(),
    };
    let patch = patch.unwrap_or_default();
    let merged = if keys.is_empty() { scalars(base, patch) } else { objects(base, &patch, keys, schema)? };
    Ok(Some(Value::Array(merged)))
}

/// A list whose items are their own keys: the patch's come first.
fn scalars(base: Vec<Value>, patch: Vec<Value>) -> Vec<Value> {
    let mut merged: Vec<Value> = Vec::new();
    for item in patch.into_iter().chain(base) {
        if !merged.iter().any(|known| scalar_text(known) == scalar_text(&item)) {
            merged.push(item);
        }
    }
    merged
}

/// The values of an item's key fields, "" where it has none.
fn values_of(item: &Value, keys: &[String]) -> Vec<String> {
    keys.iter().map(|key| item.get(key).map(scalar_text).unwrap_or_default()).collect()
}

/// Whether the item has these values in these fields; an empty value only asks for the field.
fn has(item: &Value, keys: &[String], values: &[String]) -> bool {
    keys.iter().zip(values).all(|(key, value)| match item.get(key) {
        Some(found) => value.is_empty() || scalar_text(found) == *value,
        None => false,
    })
}

/// Two identities that agree where both say something, and agree somewhere, are one.
fn unify(a: &[String], b: &[String]) -> Option<Vec<String>> {
    let mut common = false;
    let mut out = Vec::new();
    for (x, y) in a.iter().zip(b) {
        if x == y {
            common = true;
        } else if !x.is_empty() && !y.is_empty() {
            return None;
        }
        out.push(if x.is_empty() { y.clone() } else { x.clone() });
    }
    common.then_some(out)
}

/// Identities of the items, the patch's first.
fn identities(base: &[Value], patch: &[Value], keys: &[String]) -> Vec<Vec<String>> {
    let mut found: Vec<Vec<String>> = Vec::new();
    for item in patch.iter().chain(base) {
        let values = values_of(item, keys);
        if !found.contains(&values) {
            found.push(values);
        }
    }
    if keys.len() > 1 {
        for i in 0..found.len() {
            for j in 0..found.len() {
                if let Some(values) = unify(&found[i], &found[j]) {
                    found[i].clone_from(&values);
                    found[j] = values;
                }
            }
        }
    }
    found
}

/// The keys that any identity has a value for, with this one's values; all of them when none has.
fn used(all: &[Vec<String>], values: &[String], keys: &[String]) -> (Vec<String>, Vec<String>) {
    let valid: Vec<bool> = (0..keys.len()).map(|at| all.iter().any(|values| !values[at].is_empty())).collect();
    if !valid.contains(&true) {
        return (keys.to_vec(), values.to_vec());
    }
    let keep = |texts: &[String]| {
        texts.iter().zip(&valid).filter(|(_, valid)| **valid).map(|(text, _)| text.clone()).collect::<Vec<_>>()
    };
    (keep(keys), keep(values))
}

/// Puts an item where one of its identity is, or at the end.
fn put(list: &mut Vec<Value>, item: Value, keys: &[String], values: &[String]) {
    match list.iter().position(|known| has(known, keys, values)) {
        Some(at) => list[at] = item,
        None => list.push(item),
    }
}

fn objects(mut base: Vec<Value>, patch: &[Value], keys: &[String], schema: &Schema<'_>) -> Result<Vec<Value>> {
    let all = identities(&base, patch, keys);
    let mut added: Vec<Value> = Vec::new();
    let mut last_keys = keys.to_vec();
    for values in &all {
        let (keys, values) = used(&all, values, keys);
        let (own_keys, own_values): (Vec<String>, Vec<String>) =
            keys.iter().cloned().zip(values.iter().cloned()).filter(|(_, value)| !value.is_empty()).unzip();
        let find = |list: &[Value]| list.iter().position(|item| has(item, &own_keys, &own_values));
        let (old, new) = (find(&base), find(patch));
        let merged = walk(old.map(|at| &base[at]), new.map(|at| &patch[at]), schema)?;
        last_keys.clone_from(&keys);
        match merged {
            Some(Value::Object(mut map)) if !map.is_empty() => {
                for (key, value) in keys.iter().zip(&values) {
                    if !value.is_empty() && !map.contains_key(key) {
                        map.insert(key.clone(), Value::String(value.clone()));
                    }
                }
                let replaced = new.is_some_and(|at| patch[at].get(DIRECTIVE).is_some_and(|text| text == "replace"));
                if let Some(at) = old
                    && !replaced
                {
                    base[at] = Value::Object(map.clone());
                }
                put(&mut added, Value::Object(map), &keys, &values);
            }
            _ => base.retain(|item| !has(item, &keys, &values)),
        }
    }
    // What was there follows what the patch brought; merged items stand where the patch has them.
    for item in base {
        let values: Vec<String> = last_keys.iter().filter_map(|key| item.get(key).map(scalar_text)).collect();
        if last_keys.len() > 1 {
            added.retain(|known| !has(known, &last_keys, &values));
        }
        if values.is_empty() {
            added.push(item);
        } else {
            put(&mut added, item, &last_keys, &values);
        }
    }
    Ok(added)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::merge;

    fn pod(spec: Value) -> Value {
        json!({"apiVersion": "v1", "kind": "Pod", "spec": spec})
    }

    fn merged(old: Value, new: Value) -> Value {
        merge(&pod(old), &pod(new)).expect("merges").expect("is left")["spec"].clone()
    }

    #[test]
    fn new_items_come_first_and_known_ones_merge() {
        assert_eq!(
            merged(
                json!({"containers": [{"name": "a", "image": "1", "tty": true}, {"name": "b"}]}),
                json!({"containers": [{"name": "c"}, {"name": "a", "image": "2", "tty": null}]})
            ),
            json!({"containers": [{"name": "c"}, {"name": "a", "image": "2"}, {"name": "b"}]})
        );
    }

    #[test]
    fn lists_without_a_strategy_are_replaced() {
        assert_eq!(
            merged(json!({"tolerations": [{"key": "a"}]}), json!({"tolerations": [{"key": "b"}]})),
            json!({"tolerations": [{"key": "b"}]})
        );
    }

    #[test]
    fn directives() {
        assert_eq!(
            merged(
                json!({"containers": [{"name": "a"}, {"name": "b"}]}),
                json!({"containers": [{"name": "a", "$patch": "delete"}]})
            ),
            json!({"containers": [{"name": "b"}]})
        );
        assert_eq!(
            merged(
                json!({"containers": [{"name": "a"}, {"name": "b"}]}),
                json!({"containers": [{"$patch": "replace"}, {"name": "c"}]})
            ),
            json!({"containers": [{"name": "c"}]})
        );
        assert_eq!(
            merged(
                json!({"securityContext": {"runAsUser": 1}}),
                json!({"securityContext": {"$patch": "replace", "runAsGroup": 2}})
            ),
            json!({"securityContext": {"runAsGroup": 2}})
        );
        let gone = merge(&pod(json!({})), &json!({"apiVersion": "v1", "kind": "Pod", "$patch": "delete"}));
        assert_eq!(gone, Ok(None));
        let error = merge(&pod(json!({})), &pod(json!({"securityContext": {"$patch": "x"}})));
        assert_eq!(error.expect_err("an unknown directive").0, "unknown patch strategy 'x'");
    }

    #[test]
    fn ports_are_told_apart_by_protocol() {
        assert_eq!(
            merged(
                json!({"containers": [{"name": "a", "ports": [{"containerPort": 80, "protocol": "TCP", "name": "x"}]}]}),
                json!({"containers": [{"name": "a", "ports": [{"containerPort": 80, "protocol": "UDP"}]}]})
            ),
            json!({"containers": [{"name": "a", "ports": [
                {"containerPort": 80, "protocol": "UDP"}, {"containerPort": 80, "protocol": "TCP", "name": "x"}]}]})
        );
    }
}
