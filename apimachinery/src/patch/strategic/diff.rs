//! Making strategic merge patches: two-way for edits, three-way for `kubectl apply`.

use super::apply::{Options as MergeOptions, merge_map};
use super::order::{identity, sort};
use super::{
    DELETE_PRIMITIVES, DIRECTIVE, Elements, Error, Meta, RETAIN_KEYS, Result, SET_ORDER, Tree, TypeRef, Value, as_tree,
    element_kind, go_value, invalid, lookup, lookup_slice, no_merge_key, same_type,
};
use serde_json::{Map, json};

#[derive(Clone, Copy, Default)]
struct Options {
    ignore_additions: bool,
    ignore_deletions: bool,
    set_order: bool,
    retain_keys: bool,
}

fn object(value: &Value) -> Result<&Tree> {
    match value {
        Value::Object(map) => Ok(map),
        _ => invalid("invalid JSON document".into()),
    }
}

/// The patch that turns `original` into `modified`.
pub fn two_way(original: &Value, modified: &Value, ty: TypeRef<'_>) -> Result<Value> {
    let options = Options { set_order: true, ..Options::default() };
    Ok(Value::Object(diff_maps(object(original)?, object(modified)?, ty, options)?))
}

/// The patch that brings `current` to `modified`: additions and changes against `current`,
/// deletions of what `original` had. Unless `overwrite`, a change by someone else is a conflict.
pub fn three_way(
    original: &Value,
    modified: &Value,
    current: &Value,
    ty: TypeRef<'_>,
    overwrite: bool,
) -> Result<Value> {
    let (original, modified, current) = (object(original)?, object(modified)?, object(current)?);
    let delta_options = Options { ignore_deletions: true, set_order: true, ..Options::default() };
    let delta = diff_maps(current, modified, ty, delta_options)?;
    let deletion_options = Options { ignore_additions: true, set_order: true, ..Options::default() };
    let deletions = diff_maps(original, modified, ty, deletion_options)?;
    let patch = merge_map(deletions, delta, ty, MergeOptions { onto_patch: true })?;
    if !overwrite {
        let changed = diff_maps(original, current, ty, Options::default())?;
        if maps_conflict(&patch, &changed, ty)? {
            return Err(Error::Conflict {
                patch: crate::yaml::emit(&Value::Object(patch)),
                changed: crate::yaml::emit(&Value::Object(changed)),
            });
        }
    }
    Ok(Value::Object(patch))
}

fn diff_maps(original: &Tree, modified: &Tree, ty: TypeRef<'_>, options: Options) -> Result<Tree> {
    let mut patch = Map::new();
    for (key, new) in modified {
        let Some(old) = original.get(key) else {
            if !options.ignore_additions {
                patch.insert(key.clone(), new.clone());
            }
            continue;
        };
        if key == DIRECTIVE {
            if !(old.is_string() && new.is_string()) {
                return invalid(format!("invalid value for special key: {DIRECTIVE}"));
            }
            if old != new {
                patch.insert(key.clone(), new.clone());
            }
            continue;
        }
        match (old, new) {
            _ if !same_type(old, new) && !options.ignore_additions => {
                patch.insert(key.clone(), new.clone());
            }
            (Value::Object(old), Value::Object(new)) => diff_map_field(key, old, new, &mut patch, ty, options)?,
            (Value::Array(old), Value::Array(new)) => diff_list_field(key, old, new, &mut patch, ty, options)?,
            _ if old != new && !options.ignore_additions => {
                patch.insert(key.clone(), new.clone());
            }
            _ => {}
        }
    }
    if !options.ignore_deletions {
        for key in original.keys().filter(|key| !modified.contains_key(*key)) {
            patch.insert(key.clone(), Value::Null);
        }
    }
    if options.retain_keys {
        let keys: Vec<&String> = modified.iter().filter(|(_, v)| !v.is_null()).map(|(k, _)| k).collect();
        let dropped = original.iter().any(|(k, v)| !v.is_null() && !modified.contains_key(k));
        if !keys.is_empty() && (!patch.is_empty() || dropped) {
            patch.insert(RETAIN_KEYS.into(), json!(keys));
        }
    }
    Ok(patch)
}

fn diff_map_field(
    key: &str,
    old: &Tree,
    new: &Tree,
    patch: &mut Tree,
    ty: TypeRef<'_>,
    options: Options,
) -> Result<()> {
    // A field without a description is no obstacle while it does not change.
    let meta = match lookup(ty, key) {
        Err(_) if old == new => return Ok(()),
        other => other?,
    };
    if meta.replace {
        if !options.ignore_additions {
            patch.insert(key.to_owned(), Value::Object(new.clone()));
        }
        return Ok(());
    }
    let inner = diff_maps(old, new, meta.ty, Options { retain_keys: meta.retain_keys, ..options })?;
    if !inner.is_empty() {
        patch.insert(key.to_owned(), Value::Object(inner));
    }
    Ok(())
}

fn diff_list_field(
    key: &str,
    old: &[Value],
    new: &[Value],
    patch: &mut Tree,
    ty: TypeRef<'_>,
    options: Options,
) -> Result<()> {
    let meta = match lookup_slice(ty, key) {
        Err(_) if old == new => return Ok(()),
        other => other?,
    };
    if !meta.merge {
        if old != new && !options.ignore_additions {
            patch.insert(key.to_owned(), Value::from(new));
        }
        return Ok(());
    }
    let diff = diff_lists(old, new, &meta, Options { retain_keys: meta.retain_keys, ..options })?;
    for (name, list) in [
        (key.to_owned(), diff.add),
        (format!("{DELETE_PRIMITIVES}/{key}"), diff.delete),
        (format!("{SET_ORDER}/{key}"), diff.order),
    ] {
        if !list.is_empty() {
            patch.insert(name, Value::Array(list));
        }
    }
    Ok(())
}

#[derive(Default)]
struct ListDiff {
    add: Vec<Value>,
    delete: Vec<Value>,
    order: Vec<Value>,
}

fn diff_lists(old: &[Value], new: &[Value], meta: &Meta<'_>, options: Options) -> Result<ListDiff> {
    if old.is_empty() {
        let add = if options.ignore_additions { Vec::new() } else { new.to_vec() };
        return Ok(ListDiff { add, ..ListDiff::default() });
    }
    let key = meta.merge_key;
    let mut diff = ListDiff::default();
    match element_kind(&[old, new])? {
        Elements::Maps => {
            let (changed, deleted) = diff_elements(old, new, meta, options)?;
            diff.add = sort(changed, new, key, Elements::Maps)?;
            let same = |(a, b): (&Value, &Value)| identity(a, key, Elements::Maps) == identity(b, key, Elements::Maps);
            let order_same = old.len() == new.len() && old.iter().zip(new).all(same);
            diff.add.extend(deleted);
            let changes = !diff.add.is_empty();
            if options.set_order
                && ((!options.ignore_additions && (changes || !order_same)) || (!options.ignore_deletions && changes))
            {
                diff.order = new.iter().map(|item| json!({key: identity(item, key, Elements::Maps)})).collect();
            }
        }
        Elements::Scalars => {
            let (added, deleted) = diff_scalars(old, new, options);
            diff.add = sort(added, new, key, Elements::Scalars)?;
            if options.set_order
                && ((!options.ignore_deletions && !deleted.is_empty()) || (!options.ignore_additions && old != new))
            {
                diff.order = new.to_vec();
            }
            diff.delete = deleted;
        }
    }
    Ok(diff)
}

fn sorted_by(list: &[Value], key: impl Fn(&Value) -> String) -> Vec<(String, &Value)> {
    let mut sorted: Vec<(String, &Value)> = list.iter().map(|item| (key(item), item)).collect();
    sorted.sort_by(|a, b| a.0.cmp(&b.0));
    sorted
}

fn diff_scalars(old: &[Value], new: &[Value], options: Options) -> (Vec<Value>, Vec<Value>) {
    let (old, new) = (sorted_by(old, go_value), sorted_by(new, go_value));
    let (mut added, mut deleted): (Vec<Value>, Vec<Value>) = Default::default();
    let (mut i, mut j) = (0, 0);
    while i < old.len() || j < new.len() {
        match (old.get(i), new.get(j)) {
            (Some(a), Some(b)) if a.0 == b.0 => {
                i += 1;
                j += 1;
            }
            (Some(a), b) if b.is_none_or(|b| a.0 < b.0) => {
                if !options.ignore_deletions && !deleted.contains(a.1) {
                    deleted.push(a.1.clone());
                }
                i += 1;
            }
            (_, Some(b)) => {
                if !options.ignore_additions {
                    added.push(b.1.clone());
                }
                j += 1;
            }
            (_, None) => i += 1,
        }
    }
    (added, deleted)
}

fn diff_elements(old: &[Value], new: &[Value], meta: &Meta<'_>, options: Options) -> Result<(Vec<Value>, Vec<Value>)> {
    let key = meta.merge_key;
    for item in old.iter().chain(new) {
        let map = as_tree(item)?;
        if !map.contains_key(key) {
            return no_merge_key(map, key);
        }
    }
    let text = |item: &Value| go_value(identity(item, key, Elements::Maps));
    let (old, new) = (sorted_by(old, text), sorted_by(new, text));
    let (mut changed, mut deleted) = (Vec::new(), Vec::new());
    let (mut i, mut j) = (0, 0);
    while i < old.len() || j < new.len() {
        match (old.get(i), new.get(j)) {
            (Some(a), Some(b)) if a.0 == b.0 => {
                let mut patch = diff_maps(as_tree(a.1)?, as_tree(b.1)?, meta.ty, options)?;
                if !patch.is_empty() {
                    patch.insert(key.to_owned(), identity(b.1, key, Elements::Maps).clone());
                    changed.push(Value::Object(patch));
                }
                i += 1;
                j += 1;
            }
            (Some(a), b) if b.is_none_or(|b| a.0 < b.0) => {
                if !options.ignore_deletions {
                    deleted.push(json!({key: identity(a.1, key, Elements::Maps), DIRECTIVE: "delete"}));
                }
                i += 1;
            }
            (_, Some(b)) => {
                if !options.ignore_additions {
                    changed.push(b.1.clone());
                }
                j += 1;
            }
            (_, None) => i += 1,
        }
    }
    Ok((changed, deleted))
}

fn values_conflict(left: &Value, right: &Value, meta: Option<&Meta<'_>>) -> Result<bool> {
    match (left, right) {
        (Value::Object(a), Value::Object(b)) => {
            if a.get(DIRECTIVE) != b.get(DIRECTIVE) {
                return Ok(true);
            }
            match meta {
                Some(meta) if meta.replace => Ok(false),
                Some(meta) => maps_conflict(a, b, meta.ty),
                None => Ok(a != b),
            }
        }
        (Value::Array(a), Value::Array(b)) => match meta {
            Some(meta) => lists_conflict(a, b, meta),
            None => Ok(a != b),
        },
        _ => Ok(left != right),
    }
}

fn maps_conflict(left: &Tree, right: &Tree, ty: TypeRef<'_>) -> Result<bool> {
    for (key, a) in left.iter().filter(|(key, _)| *key != DIRECTIVE && *key != RETAIN_KEYS) {
        let Some(b) = right.get(key) else { continue };
        let meta = match a {
            // The order of elements conflicts with nothing.
            Value::Array(_) if key.starts_with('$') => None,
            Value::Array(_) => Some(lookup_slice(ty, key)?),
            Value::Object(_) => Some(lookup(ty, key)?),
            _ => None,
        };
        if values_conflict(a, b, meta.as_ref())? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn lists_conflict(left: &[Value], right: &[Value], meta: &Meta<'_>) -> Result<bool> {
    let elements = element_kind(&[left, right])?;
    if meta.merge {
        if elements == Elements::Scalars {
            return Ok(false);
        }
        for a in left {
            let map = as_tree(a)?;
            if !map.contains_key(meta.merge_key) {
                return no_merge_key(map, meta.merge_key);
            }
            let other = right.iter().find(|b| b.get(meta.merge_key) == a.get(meta.merge_key));
            if let Some(b) = other
                && values_conflict(a, b, Some(&Meta { replace: false, ..*meta }))?
            {
                return Ok(true);
            }
        }
        return Ok(false);
    }
    if left.len() != right.len() {
        return Ok(true);
    }
    if elements == Elements::Scalars {
        let (a, b) = (sorted_by(left, go_value), sorted_by(right, go_value));
        return Ok(a.iter().zip(&b).any(|(a, b)| a.1 != b.1));
    }
    for (a, b) in left.iter().zip(right) {
        if values_conflict(a, b, Some(&Meta { replace: false, merge: false, ..*meta }))? {
            return Ok(true);
        }
    }
    Ok(false)
}
