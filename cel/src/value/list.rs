//! Lists.

use std::sync::Arc;

use serde_json::Value as Json;

use super::{Result, Value};
use crate::decl::{DeclKind, DeclType, ListKind};
use crate::error::Error;

/// A list.
#[derive(Clone, Debug)]
pub enum List<'a> {
    /// An array of JSON and what its schema says of it.
    Json(&'a [Json], Option<&'a DeclType>),
    /// Values.
    Values(Arc<Vec<Value<'a>>>),
    /// Values of a list whose order does not matter.
    Associative(Arc<Vec<Value<'a>>>, &'a ListKind),
}

impl<'a> List<'a> {
    /// How many items there are.
    pub fn len(&self) -> usize {
        match self {
            List::Json(items, _) => items.len(),
            List::Values(items) | List::Associative(items, _) => items.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// An item.
    ///
    /// # Errors
    /// When there is none at this place, or it is not what its schema says.
    pub fn get(&self, at: usize) -> Result<'a> {
        match self {
            List::Json(items, decl) => {
                let item = items.get(at).ok_or_else(|| out_of_bounds(at))?;
                Value::from_json(item, element(*decl))
            }
            List::Values(items) | List::Associative(items, _) => {
                items.get(at).cloned().ok_or_else(|| out_of_bounds(at))
            }
        }
    }

    /// All items.
    pub fn iter(&self) -> impl Iterator<Item = Result<'a>> + '_ {
        (0..self.len()).map(|at| self.get(at))
    }

    /// How items of this list are told apart.
    pub(crate) fn kind(&self) -> Option<&'a ListKind> {
        match self {
            List::Json(_, Some(DeclType { kind: DeclKind::List(_, kind), .. })) if *kind != ListKind::Atomic => {
                Some(kind)
            }
            List::Associative(_, kind) => Some(kind),
            _ => None,
        }
    }

    /// This list with another after it. Sets and maps of objects merge instead.
    pub(crate) fn add(self, other: &List<'a>) -> std::result::Result<List<'a>, Error> {
        let kind = self.kind();
        let mut items = self.into_vec()?;
        match kind {
            None | Some(ListKind::Atomic) => {
                items.reserve(other.len());
                for item in other.iter() {
                    items.push(item?);
                }
                Ok(List::Values(Arc::new(items)))
            }
            Some(kind @ ListKind::Set) => {
                for item in other.iter() {
                    let item = item?;
                    if !items.iter().any(|own| own.equals(&item)) {
                        items.push(item);
                    }
                }
                Ok(List::Associative(Arc::new(items), kind))
            }
            Some(kind @ ListKind::Map(keys)) => {
                for item in other.iter() {
                    let item = item?;
                    match items.iter().position(|own| same_keys(own, &item, keys)) {
                        Some(at) => items[at] = item,
                        None => items.push(item),
                    }
                }
                Ok(List::Associative(Arc::new(items), kind))
            }
        }
    }

    /// The values themselves, without copying when nobody else has them.
    pub(crate) fn into_vec(self) -> std::result::Result<Vec<Value<'a>>, Error> {
        match self {
            List::Json(..) => self.iter().collect(),
            List::Values(items) | List::Associative(items, _) => {
                Ok(Arc::try_unwrap(items).unwrap_or_else(|shared| (*shared).clone()))
            }
        }
    }

    /// Whether an item equals the value.
    pub(crate) fn contains(&self, value: &Value<'a>) -> std::result::Result<bool, Error> {
        if let (List::Json(items, None), Some(text)) = (self, value.as_str()) {
            return Ok(items.iter().any(|item| item.as_str() == Some(text)));
        }
        for item in self.iter() {
            if item?.equals(value) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Equality: item by item, or without regard to order.
    pub(crate) fn equals(&self, other: &List<'a>) -> bool {
        if self.len() != other.len() {
            return false;
        }
        let items = |list: &List<'a>| list.iter().collect::<std::result::Result<Vec<_>, _>>();
        match self.kind().or(other.kind()) {
            None | Some(ListKind::Atomic) => self.iter().zip(other.iter()).all(|pair| match pair {
                (Ok(a), Ok(b)) => a.equals(&b),
                _ => false,
            }),
            Some(ListKind::Set) => match (items(self), items(other)) {
                (Ok(a), Ok(b)) => b.iter().all(|b| a.iter().any(|a| a.equals(b))),
                _ => false,
            },
            Some(ListKind::Map(keys)) => match (items(self), items(other)) {
                (Ok(a), Ok(b)) => {
                    b.iter().all(|b| a.iter().rfind(|a| same_keys(a, b, keys)).is_some_and(|a| a.equals(b)))
                }
                _ => false,
            },
        }
    }
}

/// Whether two objects agree in all keys of their list.
fn same_keys<'a>(a: &Value<'a>, b: &Value<'a>, keys: &[String]) -> bool {
    keys.iter().all(|key| match (a.get(key), b.get(key)) {
        (Ok(Some(a)), Ok(Some(b))) => a.equals(&b),
        (Ok(None), Ok(None)) => true,
        _ => false,
    })
}

fn element(decl: Option<&DeclType>) -> Option<&DeclType> {
    match decl.map(|decl| &decl.kind) {
        Some(DeclKind::List(of, _)) => Some(of),
        _ => None,
    }
}

fn out_of_bounds(at: usize) -> Error {
    Error::new(format!("index out of bounds: {at}"))
}
