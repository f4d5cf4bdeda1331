//! Sets of field paths: who owns what (KEP-555, structured-merge-diff v6).
//!
//! A [`Set`] is a trie of [`PathElement`]s; its wire form is `FieldsV1`. [`compare`] finds what
//! changed between two objects under a schema, [`of`] all that an object mentions, [`merge`] what
//! applying one object over another gives, [`remove`] an object without some of its parts.

mod atomics;
mod compare;
mod element;
mod merge;
pub mod raw;
mod reconcile;
mod validate;

pub use atomics::atomics;
pub use compare::{Comparison, compare, of, zero};
pub use element::{PathElement, path_text};
pub use merge::{Error as MergeError, merge, remove};
pub use reconcile::reconcile;
pub use validate::validate;

use crate::schema::{Schema, Type, TypeId, TypeRef};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

/// A path from the root of an object.
pub type Path = Vec<PathElement>;

/// A set of paths. A path may be a member although its children are too, and the other way round.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set {
    pub members: BTreeSet<PathElement>,
    pub children: BTreeMap<PathElement, Set>,
}

/// FieldsV1 that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("FieldsV1 must be an object")]
    NotAnObject,
    #[error("{0}")]
    Element(String),
}

impl Set {
    pub fn new() -> Self {
        Self::default()
    }

    /// A set of field names only, such as `[["metadata", "name"], ["status"]]`.
    pub fn of_fields(paths: &[&[&str]]) -> Self {
        let mut set = Self::new();
        for path in paths {
            set.insert(&path.iter().map(|name| PathElement::field(name)).collect::<Path>());
        }
        set
    }

    pub fn is_empty(&self) -> bool {
        self.members.is_empty() && self.children.values().all(Self::is_empty)
    }

    /// The empty path is no path.
    pub fn insert(&mut self, path: &[PathElement]) {
        match path {
            [] => {}
            [last] => {
                self.members.insert(last.clone());
            }
            [first, rest @ ..] => self.children.entry(first.clone()).or_default().insert(rest),
        }
    }

    pub fn has(&self, path: &[PathElement]) -> bool {
        match path {
            [] => false,
            [last] => self.members.contains(last),
            [first, rest @ ..] => self.children.get(first).is_some_and(|c| c.has(rest)),
        }
    }

    /// Adds a child unless there is nothing in it.
    pub(super) fn attach(&mut self, element: &PathElement, child: Self) {
        if !child.is_empty() {
            self.children.insert(element.clone(), child);
        }
    }

    pub fn union(mut self, mut other: Self) -> Self {
        if self.is_empty() {
            return other;
        }
        self.members.append(&mut other.members);
        for (element, child) in other.children {
            let mine = self.children.remove(&element).unwrap_or_default();
            self.children.insert(element, mine.union(child));
        }
        self
    }

    pub fn intersection(&self, other: &Self) -> Self {
        let mut out = Self { members: &self.members & &other.members, children: BTreeMap::new() };
        for (element, child) in &self.children {
            if let Some(theirs) = other.children.get(element) {
                out.attach(element, child.intersection(theirs));
            }
        }
        out
    }

    /// Paths that are here and not there; a member there says nothing about its children.
    pub fn difference(mut self, other: &Self) -> Self {
        self.lose(other, false);
        self
    }

    /// Paths that are here and neither there nor below a member there.
    pub fn recursive_difference(mut self, other: &Self) -> Self {
        self.lose(other, true);
        self
    }

    fn lose(&mut self, other: &Self, below: bool) {
        self.members.retain(|member| !other.members.contains(member));
        self.children.retain(|element, child| {
            if below && other.members.contains(element) {
                return false;
            }
            if let Some(theirs) = other.children.get(element) {
                child.lose(theirs, below);
            }
            !child.is_empty()
        });
    }

    /// Whether every path that is there is here as well.
    pub fn contains(&self, other: &Self) -> bool {
        let below = |(element, theirs): (&PathElement, &Self)| match self.children.get(element) {
            Some(child) => child.contains(theirs),
            None => theirs.is_empty(),
        };
        other.members.is_subset(&self.members) && other.children.iter().all(below)
    }

    /// Makes every struct field on the way to a member a member too.
    pub(crate) fn with_named_fields(&self, ty: TypeRef<'_>) -> Self {
        let mut out = Self { members: self.members.clone(), children: BTreeMap::new() };
        for (element, child) in &self.children {
            if let PathElement::Field(name) = element
                && ty.field(name).is_some()
            {
                out.members.insert(element.clone());
            }
            let child = match child_type(ty, element) {
                Some(inner) => child.with_named_fields(inner),
                None => child.clone(),
            };
            out.attach(element, child);
        }
        out
    }

    /// Every path: members of a level before what is below it.
    pub fn paths(&self) -> Vec<Path> {
        let mut out = Vec::new();
        self.collect(&mut Vec::new(), &mut out);
        out
    }

    fn collect(&self, prefix: &mut Path, out: &mut Vec<Path>) {
        for member in &self.members {
            let mut path = prefix.clone();
            path.push(member.clone());
            out.push(path);
        }
        for (element, child) in &self.children {
            prefix.push(element.clone());
            child.collect(prefix, out);
            prefix.pop();
        }
    }

    /// The wire form.
    pub fn to_fields_v1(&self) -> Value {
        Value::Object(self.emit(false))
    }

    fn emit(&self, self_too: bool) -> Map<String, Value> {
        let mut out = Map::new();
        if self_too {
            out.insert(".".into(), json!({}));
        }
        for member in self.members.iter().filter(|m| !self.children.contains_key(m)) {
            out.insert(member.key(), json!({}));
        }
        for (element, child) in &self.children {
            out.insert(element.key(), Value::Object(child.emit(self.members.contains(element))));
        }
        out
    }

    /// Reads the wire form; keys of an unknown kind are passed over, as upstream does.
    pub fn from_fields_v1(fields: &Value) -> Result<Self, DecodeError> {
        let Value::Object(map) = fields else { return Err(DecodeError::NotAnObject) };
        Ok(Self::read(map)?.0)
    }

    /// The set below a key, and whether the key itself is a member.
    fn read(map: &Map<String, Value>) -> Result<(Self, bool), DecodeError> {
        let mut set = Self::new();
        let mut member = false;
        for (key, value) in map {
            if key == "." {
                member = true;
                continue;
            }
            let Some(element) = PathElement::parse(key).map_err(DecodeError::Element)? else { continue };
            let Value::Object(inner) = value else { return Err(DecodeError::NotAnObject) };
            let (child, is_member) = Self::read(inner)?;
            if is_member {
                set.members.insert(element.clone());
            }
            set.attach(&element, child);
        }
        let nothing_below = set.members.is_empty() && set.children.is_empty();
        Ok((set, member || nothing_below))
    }
}

/// The type of what a schema allows without declaring it.
static DEDUCED: LazyLock<(Schema, TypeId)> = LazyLock::new(|| {
    let mut schema = Schema::new();
    let id = schema.add(Type::Json);
    (schema, id)
});

/// Whether the schema leaves open what a value is: then maps are granular, lists atomic, and what is below
/// is as open.
pub(crate) fn is_deduced(ty: TypeRef<'_>) -> bool {
    match ty.ty() {
        Type::Json | Type::SchemaOrBool(_) | Type::SchemaOrArray(_) | Type::SchemaOrStringArray(_) => true,
        // A struct without fields is published as an object of any content.
        Type::Object(object) => object.fields.is_empty() && !object.atomic,
        _ => false,
    }
}

/// The type below an element; `None` where the schema says nothing (untyped values).
pub(crate) fn child_type<'a>(ty: TypeRef<'a>, element: &PathElement) -> Option<TypeRef<'a>> {
    match element {
        PathElement::Field(_) if is_deduced(ty) => Some(ty),
        PathElement::Field(name) => ty.child(name).or_else(|| {
            let open = ty.object().is_some_and(|object| object.preserve_unknown);
            open.then(|| DEDUCED.0.type_ref(DEDUCED.1))
        }),
        _ => ty.item(),
    }
}

#[cfg(test)]
pub(crate) mod tests;
