//! Applying a strategic merge patch, to an object or to another patch.

use super::order::{self, Positions, identity};
use super::{
    DELETE_PRIMITIVES, DIRECTIVE, Elements, Error, Meta, RETAIN_KEYS, Result, SET_ORDER, Tree, TypeRef, Value, as_list,
    element_kind, go_map, go_value, invalid, lookup, lookup_slice, no_merge_key, same_type, strip_directive,
};
use serde_json::Map;

/// Applies `patch` to an object of the given type.
pub fn apply(document: &mut Value, patch: Value, ty: TypeRef<'_>) -> Result<()> {
    let Value::Object(patch) = patch else { return invalid("invalid JSON document".into()) };
    let original = match document.take() {
        Value::Object(map) => map,
        other => {
            *document = other;
            return invalid("invalid JSON document".into());
        }
    };
    *document = Value::Object(merge_map(original, patch, ty, Options { onto_patch: false })?);
    Ok(())
}

/// The patch as applying it leaves it upstream: what newly comes to an object loses its nulls, and messages show it so.
pub fn without_nulls(original: &Value, mut patch: Value, ty: TypeRef<'_>) -> Value {
    if let (Value::Object(original), Value::Object(patch)) = (original, &mut patch) {
        lose_nulls(original, patch, ty);
    }
    patch
}

fn lose_nulls(original: &Tree, patch: &mut Tree, ty: TypeRef<'_>) {
    if patch.contains_key(DIRECTIVE) {
        return;
    }
    for (key, value) in patch.iter_mut().filter(|(key, _)| !key.starts_with('$')) {
        match (original.get(key), value) {
            (Some(Value::Object(old)), Value::Object(new)) => {
                if let Some(meta) = lookup(ty, key).ok().filter(|meta| !meta.replace) {
                    lose_nulls(old, new, meta.ty);
                }
            }
            (Some(Value::Array(old)), Value::Array(new)) => {
                let Some(meta) = lookup_slice(ty, key).ok().filter(|meta| meta.merge) else { continue };
                for item in new.iter_mut().filter_map(Value::as_object_mut) {
                    let same = |old: &&Value| old.get(meta.merge_key) == item.get(meta.merge_key);
                    if let Some(Value::Object(old)) = old.iter().find(same) {
                        lose_nulls(old, item, meta.ty);
                    }
                }
            }
            (_, value) => discard_nulls(value),
        }
    }
}

/// What the patch is applied to.
#[derive(Clone, Copy)]
pub(super) struct Options {
    /// Another patch: directives and nulls are kept for later rather than carried out.
    pub onto_patch: bool,
}

pub(super) fn merge_map(mut original: Tree, mut patch: Tree, ty: TypeRef<'_>, options: Options) -> Result<Tree> {
    if let Some(directive) = patch.get(DIRECTIVE) {
        return match directive.as_str() {
            Some("replace") => {
                patch.remove(DIRECTIVE);
                Ok(patch)
            }
            Some("delete") => Ok(Map::new()),
            _ => bad_directive(directive, &patch),
        };
    }
    retain_keys(&mut original, &mut patch, options)?;
    set_orders(&mut original, &mut patch, ty, options)?;
    for (key, value) in patch {
        let mut key = key;
        let mut deletes = false;
        if key.starts_with(DELETE_PRIMITIVES) {
            if options.onto_patch {
                original.insert(key, value);
                continue;
            }
            key = strip_directive(&key, DELETE_PRIMITIVES).ok_or(Error::PrimitiveList)?.to_owned();
            deletes = true;
        }
        merge_field(&mut original, key, value, deletes, ty, options)?;
    }
    Ok(original)
}

fn bad_directive<T>(directive: &Value, map: &Tree) -> Result<T> {
    let shown = if directive.is_null() { "%!s(<nil>)".to_owned() } else { go_text(directive) };
    invalid(format!("unknown patch type: {shown} in map: {}", go_map(map)))
}

/// Go's `%s`, which is for strings.
fn go_text(value: &Value) -> String {
    match value {
        // Only by itself is nothing no string.
        Value::Null => "<nil>".to_owned(),
        Value::Bool(value) => format!("%!s(bool={value})"),
        Value::Number(number) if number.is_f64() => format!("%!s(float64={})", go_value(value)),
        Value::Number(number) => format!("%!s(int64={number})"),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(go_text).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let fields: Vec<String> = map.iter().map(|(key, value)| format!("{key}:{}", go_text(value))).collect();
            format!("map[{}]", fields.join(" "))
        }
    }
}

fn merge_field(
    original: &mut Tree,
    key: String,
    mut value: Value,
    deletes: bool,
    ty: TypeRef<'_>,
    options: Options,
) -> Result<()> {
    if value.is_null() {
        original.remove(&key);
        if !options.onto_patch {
            return Ok(());
        }
    }
    let comparable = original.get(&key).is_some_and(|old| same_type(old, &value));
    if !comparable {
        if !deletes {
            if !options.onto_patch {
                discard_nulls(&mut value);
            }
            place(original, key, value);
        }
        return Ok(());
    }
    let old = original.get_mut(&key).map(Value::take);
    let merged = match (old, value) {
        (Some(Value::Object(old)), Value::Object(new)) => {
            let meta = lookup(ty, &key)?;
            Value::Object(if meta.replace { new } else { merge_map(old, new, meta.ty, options)? })
        }
        (Some(Value::Array(old)), Value::Array(new)) => {
            Value::Array(merge_list(old, new, &lookup_slice(ty, &key)?, deletes, options)?)
        }
        (_, value) => {
            place(original, key, value);
            return Ok(());
        }
    };
    original.insert(key, merged);
    Ok(())
}

/// Puts a new value where it belongs, without the directives in it.
fn place(original: &mut Tree, key: String, value: Value) {
    match without_directives(value) {
        Some(value) => original.insert(key, value),
        None => original.remove(&key),
    };
}

fn without_directives(value: Value) -> Option<Value> {
    match value {
        Value::Object(map) if map.contains_key(DIRECTIVE) => None,
        Value::Object(map) => {
            let kept = map.into_iter().filter_map(|(k, v)| Some((k, without_directives(v)?)));
            Some(Value::Object(kept.collect()))
        }
        Value::Array(items) => Some(Value::Array(items.into_iter().filter_map(without_directives).collect())),
        other => Some(other),
    }
}

fn discard_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, v| !v.is_null());
            map.values_mut().for_each(discard_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(discard_nulls),
        _ => {}
    }
}

/// `$retainKeys`: fields not named are cleared, so that one member of a union replaces another.
fn retain_keys(original: &mut Tree, patch: &mut Tree, options: Options) -> Result<()> {
    let Some(retain) = patch.remove(RETAIN_KEYS) else { return Ok(()) };
    if options.onto_patch {
        match original.get(RETAIN_KEYS) {
            Some(existing) if *existing != retain => {
                return invalid(format!(
                    "{} and {} are not deep equal: this may happen when calculating the 3-way diff patch",
                    go_value(existing),
                    go_value(&retain)
                ));
            }
            Some(_) => {}
            None => {
                original.insert(RETAIN_KEYS.into(), retain);
            }
        }
        return Ok(());
    }
    let Value::Array(keys) = retain else { return Err(Error::RetainKeys) };
    let retained = |key: &str| keys.iter().any(|k| k == key);
    let directive = |key: &str| key.starts_with(DELETE_PRIMITIVES) || key.starts_with(SET_ORDER);
    if patch.iter().any(|(key, value)| !value.is_null() && !directive(key) && !retained(key)) {
        return Err(Error::RetainKeys);
    }
    original.retain(|key, _| retained(key));
    Ok(())
}

/// `$setElementOrder/list` and the list it orders are merged together and taken out of the patch.
fn set_orders(original: &mut Tree, patch: &mut Tree, ty: TypeRef<'_>, options: Options) -> Result<()> {
    let keys: Vec<String> = patch.keys().filter(|k| k.starts_with(SET_ORDER)).cloned().collect();
    for key in keys {
        let Some(order) = patch.remove(&key) else { continue };
        if options.onto_patch {
            match original.get(&key) {
                Some(existing) if *existing != order => return Err(Error::SetElementOrder),
                Some(_) => {}
                None => {
                    original.insert(key.clone(), order.clone());
                }
            }
        }
        let order = as_list(&order)?;
        let field = strip_directive(&key, SET_ORDER).ok_or(Error::SetElementOrder)?;
        let old = original.get(field).map(as_list).transpose()?.cloned();
        let new = patch.get(field).map(as_list).transpose()?.cloned();
        let meta = lookup_slice(ty, field)?;
        order::check_directive(new.as_deref().unwrap_or_default(), order, meta.merge_key)?;
        let server = old.clone().unwrap_or_default();
        let merged = match (old, new) {
            (Some(old), None) => old,
            (None, Some(new)) => match without_directives(Value::Array(new)) {
                Some(Value::Array(items)) => items,
                _ => continue,
            },
            (Some(old), Some(new)) => merge_list(old, new, &meta, false, options)?,
            (None, None) => continue,
        };
        let elements = match (server.as_slice(), patch.get(field).and_then(Value::as_array).map(Vec::as_slice)) {
            (old, Some(new)) => element_kind(&[old, new])?,
            (old, None) => element_kind(&[old])?,
        };
        let by = if meta.merge_key.is_empty() { Elements::Scalars } else { Elements::Maps };
        let (patched, server_only) = order::partition(merged, order, meta.merge_key, by)?;
        let woven = order::weave(patched, server_only, order, &server, meta.merge_key, elements)?;
        original.insert(field.to_owned(), Value::Array(woven));
        patch.remove(field);
    }
    Ok(())
}

fn merge_list(
    original: Vec<Value>,
    patch: Vec<Value>,
    meta: &Meta<'_>,
    deletes: bool,
    options: Options,
) -> Result<Vec<Value>> {
    if !meta.merge && !deletes {
        return Ok(patch);
    }
    if original.is_empty() && patch.is_empty() {
        return Ok(original);
    }
    let elements = element_kind(&[&original, &patch])?;
    let key = meta.merge_key;
    let (original, patch, merged) = match elements {
        Elements::Scalars if deletes && !options.onto_patch => {
            return Ok(original.into_iter().filter(|item| !patch.contains(item)).collect());
        }
        Elements::Scalars => {
            let mut merged: Vec<Value> = Vec::with_capacity(original.len() + patch.len());
            for item in original.iter().chain(&patch) {
                if !merged.contains(item) {
                    merged.push(item.clone());
                }
            }
            (original, patch, merged)
        }
        Elements::Maps => {
            if key.is_empty() {
                let kind = if meta.ty.object().is_some() { "struct" } else { "map" };
                return invalid(format!("cannot merge lists without merge key for {kind}"));
            }
            let (original, patch) = special_elements(original, patch, key)?;
            let merged = merge_elements(original.clone(), patch.clone(), meta, options)?;
            (original, patch, merged)
        }
    };
    let by = if key.is_empty() { Elements::Scalars } else { Elements::Maps };
    let (patched, server_only) = order::partition(merged, &patch, key, by)?;
    order::weave(patched, server_only, &patch, &original, key, elements)
}

/// Carries out `$patch` directives among the elements of a list.
fn special_elements(mut original: Vec<Value>, patch: Vec<Value>, key: &str) -> Result<(Vec<Value>, Vec<Value>)> {
    let mut plain = Vec::with_capacity(patch.len());
    let mut replace = false;
    for item in patch {
        let Value::Object(map) = &item else { continue };
        let Some(directive) = map.get(DIRECTIVE) else {
            plain.push(item);
            continue;
        };
        match directive.as_str() {
            Some("delete") => {
                let Some(value) = map.get(key) else { return no_merge_key(map, key) };
                original.retain(|old| old.get(key) != Some(value));
            }
            Some("replace") => replace = true,
            Some("merge") => return invalid("merging lists cannot yet be specified in the patch".into()),
            _ => return bad_directive(directive, map),
        }
    }
    Ok(if replace { (plain, Vec::new()) } else { (original, plain) })
}

fn merge_elements(
    mut original: Vec<Value>,
    patch: Vec<Value>,
    meta: &Meta<'_>,
    options: Options,
) -> Result<Vec<Value>> {
    let key = meta.merge_key;
    let known = Positions::new(&original, key, Elements::Maps);
    let first_new = original.len();
    for item in patch {
        let Value::Object(map) = item else { continue };
        let Some(value) = map.get(key) else { return no_merge_key(&map, key) };
        // Elements the patch itself added before are found as well.
        let found = known.of(&Value::Object(map.clone()), key, Elements::Maps).or_else(|| {
            let added = original[first_new..].iter().position(|old| identity(old, key, Elements::Maps) == value);
            added.map(|i| i + first_new)
        });
        match found {
            Some(i) => {
                let Value::Object(old) = original[i].take() else { continue };
                original[i] = Value::Object(merge_map(old, map, meta.ty, options)?);
            }
            None => original.push(Value::Object(map)),
        }
    }
    Ok(original)
}
