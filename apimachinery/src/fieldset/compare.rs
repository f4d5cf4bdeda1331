//! What an object mentions, and what differs between two.

use super::{PathElement, Set, child_type, is_deduced};
use crate::schema::{ListKind, Type, TypeRef};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// How two objects differ.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Comparison {
    pub removed: Set,
    pub modified: Set,
    pub added: Set,
    /// An item of a list cannot be told from others: such an object fits no type, and nobody owns its fields.
    pub unidentified: bool,
}

impl Comparison {
    /// Without the paths of `reset` and all below them.
    pub fn without(self, reset: &Set) -> Self {
        if reset.is_empty() {
            return self;
        }
        Self {
            removed: self.removed.recursive_difference(reset),
            modified: self.modified.recursive_difference(reset),
            added: self.added.recursive_difference(reset),
            unidentified: self.unidentified,
        }
    }

    pub fn is_same(&self) -> bool {
        self.removed.is_empty() && self.modified.is_empty() && self.added.is_empty()
    }
}

/// How a value is looked at under its type.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Atom<'a> {
    Scalar,
    Map { atomic: bool },
    List(&'a ListKind),
}

pub(super) fn atom<'a>(ty: TypeRef<'a>, value: Option<&Value>) -> Atom<'a> {
    if is_deduced(ty) {
        return match value {
            // Of what a null is nobody can tell: it is looked at as what comes first, a map.
            Some(Value::Object(_) | Value::Null) => Atom::Map { atomic: false },
            Some(Value::Array(_)) => Atom::List(&ListKind::Atomic),
            _ => Atom::Scalar,
        };
    }
    match ty.ty() {
        Type::Object(object) => Atom::Map { atomic: object.atomic },
        Type::Map(map) => Atom::Map { atomic: map.atomic },
        Type::List(list) => Atom::List(&list.kind),
        _ => Atom::Scalar,
    }
}

/// What identifies an item of a set or an associative list.
pub(super) fn item_element(item: &Value, kind: &ListKind, ty: TypeRef<'_>) -> Result<PathElement, String> {
    match (kind, item) {
        (ListKind::Atomic, _) => Err("invalid indexing of non-associative list".into()),
        (ListKind::Set, Value::Object(_)) => {
            Err("associative list without keys has an element that's a map type".into())
        }
        (ListKind::Set, Value::Array(_)) => Err("not supported: associative list with lists as elements".into()),
        (ListKind::Set, Value::Null) => {
            Err("associative list without keys has an element that's an explicit null".into())
        }
        (ListKind::Set, value) => Ok(PathElement::Value(settled(value))),
        (ListKind::Map(_), Value::Null) => Err("associative list with keys may not have a null element".into()),
        (ListKind::Map(names), Value::Object(map)) => {
            let mut keys: Vec<(String, Value)> = Vec::with_capacity(names.len());
            for name in names {
                let value = map.get(name.as_ref()).map(settled).or_else(|| key_default(name, ty));
                if let Some(value) = value {
                    keys.push((name.to_string(), value));
                }
            }
            if keys.is_empty() {
                let names: Vec<String> = names.iter().map(|n| crate::gotext::quote(n)).collect();
                return Err(format!(
                    "associative list with keys has an element that omits all key fields [{}] (and doesn't have default values for any key fields)",
                    names.join(" ")
                ));
            }
            keys.sort_by(|a, b| a.0.cmp(&b.0));
            Ok(PathElement::Key(keys.into()))
        }
        (ListKind::Map(_), _) => Err("associative list with keys may not have non-map elements".into()),
    }
}

/// A part of a name, in which 1.0 is 1.
fn settled(value: &Value) -> Value {
    let mut value = value.clone();
    crate::json::settle(&mut value);
    value
}

/// What a key field is when it is not there: its default, or what Go would write for it.
fn key_default(name: &str, ty: TypeRef<'_>) -> Option<Value> {
    let found = ty.field(name)?;
    if let Some(default) = found.field.default() {
        return Some(default.clone());
    }
    // A CustomResourceDefinition's field has no Go form, and no default but the one it names.
    let go = ty.object().is_some_and(|object| !object.name.is_empty());
    if !go || found.field.omitempty || found.field.pointer {
        return None;
    }
    match found.ty.ty() {
        Type::String(_) => Some(Value::from("")),
        Type::Int32 | Type::Int64 => Some(Value::from(0)),
        Type::Bool => Some(Value::Bool(false)),
        _ => None,
    }
}

/// What changed from `old` to `new`. Items that cannot be told apart by their keys are compared
/// together; items without keys are passed over.
pub fn compare(old: &Value, new: &Value, ty: TypeRef<'_>) -> Comparison {
    let mut out = Comparison::default();
    node(Some(old), Some(new), ty, &mut out);
    out
}

enum Mark {
    None,
    Added,
    Removed,
    Modified,
}

fn node(old: Option<&Value>, new: Option<&Value>, ty: TypeRef<'_>, out: &mut Comparison) -> Mark {
    let (old_atom, new_atom) = (atom(ty, old), atom(ty, new));
    let leaf = if new.is_none() {
        inside(old_atom, old, new, ty, out)
    } else if old.is_none() || old_atom == new_atom {
        inside(new_atom, old, new, ty, out)
    } else {
        // Either may own it as a whole.
        let was = inside(old_atom, old, new, ty, out);
        inside(new_atom, old, new, ty, out) || was
    };
    match (old, new) {
        (None, _) => Mark::Added,
        (_, None) => Mark::Removed,
        (Some(old), Some(new)) if leaf && !crate::json::is_equal(old, new) => Mark::Modified,
        _ => Mark::None,
    }
}

/// Descends; true if the value is owned as a whole.
fn inside(atom: Atom<'_>, old: Option<&Value>, new: Option<&Value>, ty: TypeRef<'_>, out: &mut Comparison) -> bool {
    match atom {
        Atom::Scalar | Atom::Map { atomic: true } | Atom::List(ListKind::Atomic) => true,
        Atom::Map { .. } => {
            let (old, new) = (old.and_then(Value::as_object), new.and_then(Value::as_object));
            if old.is_none_or(Map::is_empty) && new.is_none_or(Map::is_empty) {
                return true;
            }
            let fresh = new.into_iter().flatten().filter(|(k, _)| old.is_none_or(|o| !o.contains_key(*k)));
            for key in old.into_iter().flatten().chain(fresh).map(|(k, _)| k) {
                let element = PathElement::field(key);
                let Some(inner) = child_type(ty, &element) else { continue };
                let (o, n) = (old.and_then(|m| m.get(key)), new.and_then(|m| m.get(key)));
                // Equal subtrees, the common case of an update, are not walked.
                if o != n {
                    child(element, o, n, inner, out);
                }
            }
            false
        }
        Atom::List(kind) => {
            let (old, new) = (old.and_then(Value::as_array), new.and_then(Value::as_array));
            if old.is_none_or(Vec::is_empty) && new.is_none_or(Vec::is_empty) {
                return true;
            }
            if let Some(inner) = ty.item() {
                items(kind, old.map_or(&[], Vec::as_slice), new.map_or(&[], Vec::as_slice), inner, out);
            }
            false
        }
    }
}

fn child(element: PathElement, old: Option<&Value>, new: Option<&Value>, ty: TypeRef<'_>, out: &mut Comparison) {
    // What only one of them has has nothing in it to be compared: all of a new object, as a rule.
    if let (Some(value), None) | (None, Some(value)) = (old, new) {
        let mut below = Set::new();
        let identified = everything(value, ty, &mut below);
        out.unidentified |= new.is_some() && !identified;
        let set = if new.is_some() { &mut out.added } else { &mut out.removed };
        set.attach(&element, below);
        set.members.insert(element);
        return;
    }
    let mut inner = Comparison::default();
    let mark = node(old, new, ty, &mut inner);
    out.unidentified |= inner.unidentified;
    out.added.attach(&element, inner.added);
    out.removed.attach(&element, inner.removed);
    out.modified.attach(&element, inner.modified);
    match mark {
        Mark::None => {}
        Mark::Added => {
            out.added.members.insert(element);
        }
        Mark::Removed => {
            out.removed.members.insert(element);
        }
        Mark::Modified => {
            out.modified.members.insert(element);
        }
    }
}

fn items(kind: &ListKind, old: &[Value], new: &[Value], ty: TypeRef<'_>, out: &mut Comparison) {
    let mut known: BTreeMap<PathElement, (Vec<&Value>, Vec<&Value>)> = BTreeMap::new();
    for item in old {
        if let Ok(element) = item_element(item, kind, ty) {
            known.entry(element).or_default().0.push(item);
        }
    }
    for item in new {
        match item_element(item, kind, ty) {
            Ok(element) => known.entry(element).or_default().1.push(item),
            Err(_) => out.unidentified = true,
        }
    }
    for (element, (old, new)) in known {
        match (old.as_slice(), new.as_slice()) {
            ([], []) => {}
            (o @ ([] | [_]), n @ ([] | [_])) => {
                let (o, n) = (o.first().copied(), n.first().copied());
                if o != n {
                    child(element, o, n, ty, out);
                }
            }
            ([_, _, ..], [_, _, ..]) => {
                if old != new {
                    out.modified.members.insert(element);
                }
            }
            ([_, _, ..], n) => {
                if let Some(n) = n.first() {
                    child(element.clone(), None, Some(n), ty, out);
                }
                out.removed.members.insert(element);
            }
            (o, _) => {
                if let Some(o) = o.first() {
                    child(element.clone(), Some(o), None, ty, out);
                }
                out.added.members.insert(element);
            }
        }
    }
}

/// Fills the set below a value with all that is in it; false if an item of a list cannot be told from others.
fn everything(value: &Value, ty: TypeRef<'_>, set: &mut Set) -> bool {
    match (atom(ty, Some(value)), value) {
        (Atom::Map { atomic: false }, Value::Object(map)) => {
            let mut identified = true;
            for (key, value) in map {
                let element = PathElement::field(key);
                let Some(inner) = child_type(ty, &element) else { continue };
                let mut below = Set::new();
                identified &= everything(value, inner, &mut below);
                set.attach(&element, below);
                set.members.insert(element);
            }
            identified
        }
        (Atom::List(kind), Value::Array(items)) if *kind != ListKind::Atomic => {
            let Some(inner) = ty.item() else { return true };
            let mut identified = true;
            // Items of the same keys are owned together, and as a whole.
            let mut known: BTreeMap<PathElement, Option<&Value>> = BTreeMap::new();
            for item in items {
                match item_element(item, kind, inner) {
                    Ok(element) => {
                        known.entry(element).and_modify(|only| *only = None).or_insert(Some(item));
                    }
                    Err(_) => identified = false,
                }
            }
            for (element, only) in known {
                if let Some(item) = only {
                    let mut below = Set::new();
                    identified &= everything(item, inner, &mut below);
                    set.attach(&element, below);
                }
                set.members.insert(element);
            }
            identified
        }
        _ => true,
    }
}

/// Every leaf and item an object mentions.
pub fn of(value: &Value, ty: TypeRef<'_>) -> Set {
    let mut set = Set::new();
    mention(value, ty, &mut set);
    set
}

/// Fills the set below a value; true if the value itself belongs in its parent's set.
fn mention(value: &Value, ty: TypeRef<'_>, set: &mut Set) -> bool {
    match atom(ty, Some(value)) {
        Atom::Scalar | Atom::Map { atomic: true } | Atom::List(ListKind::Atomic) => true,
        Atom::Map { .. } => {
            for (key, value) in value.as_object().into_iter().flatten() {
                let element = PathElement::field(key);
                let Some(inner) = child_type(ty, &element) else { continue };
                let mut below = Set::new();
                let leaf = mention(value, inner, &mut below);
                let empty = value.is_null() || value.as_object().is_some_and(Map::is_empty);
                if leaf || empty || ty.field(key).is_none() {
                    set.members.insert(element.clone());
                }
                set.attach(&element, below);
            }
            false
        }
        Atom::List(kind) => {
            let Some(inner) = ty.item() else { return false };
            let mut seen: BTreeMap<PathElement, Vec<&Value>> = BTreeMap::new();
            for item in value.as_array().into_iter().flatten() {
                if let Ok(element) = item_element(item, kind, inner) {
                    seen.entry(element).or_default().push(item);
                }
            }
            for (element, items) in seen {
                if let [item] = items[..] {
                    let mut below = Set::new();
                    mention(item, inner, &mut below);
                    set.attach(&element, below);
                }
                set.members.insert(element);
            }
            false
        }
    }
}

/// The object Go has before anything is set: what a new object is compared with. Structs that are
/// not pointers are there, and so are fields that are written even when empty.
pub fn zero(ty: TypeRef<'_>) -> &Value {
    static OPEN: LazyLock<Value> = LazyLock::new(|| Value::Object(Map::new()));
    ty.object().map_or(&OPEN, |object| object.zero.get_or_make(|| zero_of(ty)))
}

fn zero_of(ty: TypeRef<'_>) -> Value {
    let mut map = Map::new();
    for field in ty.fields() {
        let inner = ty.at(field.ty);
        if field.omitzero || (field.pointer && field.omitempty) {
            continue;
        }
        let value = match inner.ty() {
            _ if field.pointer => Value::Null,
            Type::Object(_) => zero_of(inner),
            Type::Time | Type::MicroTime => Value::Null,
            _ if field.omitempty => continue,
            Type::String(_) => Value::from(""),
            Type::Int32 | Type::Int64 | Type::Double | Type::IntOrString => Value::from(0),
            Type::Bool => Value::Bool(false),
            Type::Quantity => Value::from("0"),
            Type::Duration => Value::from("0s"),
            _ => Value::Null,
        };
        map.insert(field.name.to_string(), value);
    }
    Value::Object(map)
}
