//! Putting one object over another, and taking parts away: the values of server-side apply.

use super::compare::{Atom, atom, item_element};
use super::{PathElement, Set, child_type};
use crate::schema::{ListKind, TypeRef};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, HashSet};

/// A configuration that cannot be merged; the text is upstream's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message}")]
pub struct Error {
    pub path: String,
    pub message: String,
}

impl Error {
    fn new(message: String) -> Self {
        Self { path: String::new(), message }
    }

    fn below(mut self, element: &PathElement) -> Self {
        self.path.insert_str(0, &element.display());
        self
    }
}

/// `live` with all that `config` says. Nothing is removed; lists keep the order of `config` where
/// it has one.
pub fn merge(live: &Value, config: &Value, ty: TypeRef<'_>) -> Result<Value, Error> {
    Ok(node(Some(live), Some(config), ty)?.unwrap_or(Value::Null))
}

fn node(live: Option<&Value>, config: Option<&Value>, ty: TypeRef<'_>) -> Result<Option<Value>, Error> {
    let shape = match config {
        Some(config) => atom(ty, Some(config)),
        None => atom(ty, live),
    };
    let leaf = || config.or(live).cloned();
    match shape {
        Atom::Scalar | Atom::Map { atomic: true } | Atom::List(ListKind::Atomic) => Ok(leaf()),
        Atom::Map { .. } => {
            let (old, new) = (live.and_then(Value::as_object), config.and_then(Value::as_object));
            if old.is_none_or(Map::is_empty) && new.is_none_or(Map::is_empty) {
                return Ok(leaf());
            }
            let mut out = Map::new();
            let fresh = new.into_iter().flatten().filter(|(k, _)| old.is_none_or(|o| !o.contains_key(*k)));
            for key in old.into_iter().flatten().chain(fresh).map(|(k, _)| k) {
                let element = PathElement::field(key);
                let (o, n) = (old.and_then(|m| m.get(key)), new.and_then(|m| m.get(key)));
                let merged = match child_type(ty, &element) {
                    Some(inner) => node(o, n, inner).map_err(|e| e.below(&element))?,
                    None => n.or(o).cloned(),
                };
                if let Some(value) = merged {
                    out.insert(key.clone(), value);
                }
            }
            Ok((!out.is_empty()).then_some(Value::Object(out)))
        }
        Atom::List(kind) => {
            let (old, new) = (live.and_then(Value::as_array), config.and_then(Value::as_array));
            let (old, new) = (old.map_or(&[][..], Vec::as_slice), new.map_or(&[][..], Vec::as_slice));
            let Some(inner) = ty.item().filter(|_| !(old.is_empty() && new.is_empty())) else { return Ok(leaf()) };
            let out = list(old, new, kind, inner)?;
            Ok((!out.is_empty()).then_some(Value::Array(out)))
        }
    }
}

type Index<'v> = (Vec<PathElement>, BTreeMap<PathElement, Option<&'v Value>>);

/// The elements in order and their values; a repeated one has none.
fn index<'v>(items: &'v [Value], kind: &ListKind, ty: TypeRef<'_>, duplicates: bool) -> Result<Index<'v>, Error> {
    let mut order = Vec::with_capacity(items.len());
    let mut values = BTreeMap::new();
    for (i, item) in items.iter().enumerate() {
        let element = item_element(item, kind, ty).map_err(|m| Error::new(format!("element {i}: {m}")))?;
        let known = values.contains_key(&element);
        if known && !duplicates {
            return Err(Error::new(format!("duplicate entries for key {}", element.display())));
        }
        values.insert(element.clone(), (!known).then_some(item));
        order.push(element);
    }
    Ok((order, values))
}

/// Shared items keep the order of `new`; items only in `old` stay where they were among them.
fn list(old: &[Value], new: &[Value], kind: &ListKind, ty: TypeRef<'_>) -> Result<Vec<Value>, Error> {
    let (right, in_right) = index(new, kind, ty, false)?;
    let (left, in_left) = index(old, kind, ty, true)?;
    let mut shared = right.iter().filter(|e| in_left.contains_key(*e));
    let mut next_shared = shared.next();
    let mut merged: HashSet<String> = HashSet::new();
    let mut out = Vec::with_capacity(left.len().max(right.len()));
    let mut push = |element: &PathElement, l: Option<&Value>, r: Option<&Value>| -> Result<(), Error> {
        if l.is_some() || r.is_some() {
            out.extend(node(l, r, ty).map_err(|e| e.below(element))?);
        }
        Ok(())
    };
    let (mut l, mut r) = (0, 0);
    while l < left.len() || r < right.len() {
        if let (Some(mine), Some(theirs)) = (left.get(l), right.get(r)) {
            if mine == theirs {
                merged.insert(mine.to_string());
                push(mine, in_left[mine], in_right[mine])?;
                l += 1;
                r += 1;
                next_shared = shared.next();
                continue;
            }
            if in_right.contains_key(mine) && next_shared.is_some_and(|next| next != mine) {
                l += 1;
                continue;
            }
        }
        if let Some(mine) = left.get(l) {
            if !in_right.contains_key(mine) {
                push(mine, Some(&old[l]), None)?;
                l += 1;
                continue;
            }
            if merged.contains(&mine.to_string()) {
                l += 1;
            }
        }
        if let Some(theirs) = right.get(r) {
            merged.insert(theirs.to_string());
            push(theirs, in_left.get(theirs).copied().flatten(), in_right[theirs])?;
            r += 1;
            if next_shared == Some(theirs) {
                next_shared = shared.next();
            }
        }
    }
    Ok(out)
}

/// The object without the fields and items of the set.
pub fn remove(value: &Value, set: &Set, ty: TypeRef<'_>) -> Value {
    strip(value, set, ty).unwrap_or(Value::Null)
}

fn strip(value: &Value, set: &Set, ty: TypeRef<'_>) -> Option<Value> {
    match (atom(ty, Some(value)), value) {
        (Atom::Scalar, _) => Some(value.clone()),
        (Atom::Map { atomic: false }, Value::Object(map)) if !map.is_empty() => {
            let mut out = Map::new();
            let mut matched = false;
            for (key, value) in map {
                let element = PathElement::field(key);
                if set.members.contains(&element) {
                    continue;
                }
                let kept = match (set.children.get(&element).filter(|s| !s.is_empty()), child_type(ty, &element)) {
                    (Some(below), Some(inner)) => {
                        matched = true;
                        stripped(value, below, inner)
                    }
                    _ => value.clone(),
                };
                out.insert(key.clone(), kept);
            }
            (!out.is_empty() || matched).then_some(Value::Object(out))
        }
        (Atom::List(kind), Value::Array(items)) if *kind != ListKind::Atomic && !items.is_empty() => {
            let inner = ty.item()?;
            let mut out = Vec::with_capacity(items.len());
            let mut matched = false;
            for item in items {
                let Ok(element) = item_element(item, kind, inner) else {
                    out.push(item.clone());
                    continue;
                };
                if set.members.contains(&element) {
                    continue;
                }
                match set.children.get(&element).filter(|s| !s.is_empty()) {
                    Some(below) => {
                        matched = true;
                        out.push(stripped(item, below, inner));
                    }
                    None => out.push(item.clone()),
                }
            }
            (!out.is_empty() || matched).then_some(Value::Array(out))
        }
        _ => None,
    }
}

/// What is left of a container from which everything was taken is an empty container.
fn stripped(value: &Value, set: &Set, ty: TypeRef<'_>) -> Value {
    strip(value, set, ty).unwrap_or_else(|| match value {
        Value::Object(_) => json!({}),
        Value::Array(_) => json!([]),
        _ => Value::Null,
    })
}
