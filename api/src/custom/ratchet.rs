//! Which part of the old object a part of the new one replaces (KEP-4008, validation ratcheting).

use std::collections::HashMap;

use serde_json::Value;

use super::{ListType, Node};

/// A value, what it replaces, and their schema.
#[derive(Clone, Copy)]
pub struct Correlated<'a> {
    pub old: &'a Value,
    pub new: &'a Value,
    pub node: &'a Node,
}

impl<'a> Correlated<'a> {
    /// The member of this name, when both objects have it and the schema knows it.
    pub fn key(&self, name: &str) -> Option<Correlated<'a>> {
        let old = self.old.as_object()?.get(name)?;
        let new = self.new.as_object()?.get(name)?;
        Some(Correlated { old, new, node: self.node.member(name)? })
    }

    /// The item at this place of the new list. Only associative lists tell which old item that was.
    pub fn index(&self, index: usize) -> Option<Correlated<'a>> {
        let new = self.new.as_array()?.get(index)?;
        if self.node.list_type != ListType::Map {
            return None;
        }
        let item = self.node.items.as_deref()?;
        let key = self.map_key(new)?;
        let old = self.old.as_array()?.iter().find(|old| self.map_key(old).as_ref() == Some(&key))?;
        (!old.is_null()).then_some(Correlated { old, new, node: item })
    }

    fn map_key(&self, item: &'a Value) -> Option<Vec<Option<&'a Value>>> {
        let item = item.as_object()?;
        let item_node = self.node.items.as_deref();
        let of =
            |name: &str| item.get(name).or_else(|| item_node.and_then(|node| node.property(name)?.default.as_deref()));
        Some(self.node.list_map_keys.iter().map(|name| of(name)).collect())
    }

    /// Whether nothing changed here: items of associative lists may have changed places.
    pub fn is_unchanged(&self) -> bool {
        match (self.old, self.new) {
            (Value::Array(old), Value::Array(new)) => {
                if old.len() != new.len() {
                    return false;
                }
                if self.node.list_type != ListType::Map {
                    return old == new;
                }
                let mut by_key: HashMap<String, &Value> = HashMap::with_capacity(old.len());
                for item in old {
                    let Some(key) = self.map_key(item) else { return old == new };
                    by_key.insert(format!("{key:?}"), item);
                }
                new.iter().all(|item| {
                    let old = self.map_key(item).and_then(|key| by_key.get(&format!("{key:?}")).copied());
                    match (old, self.node.items.as_deref()) {
                        (Some(old), Some(node)) => Correlated { old, new: item, node }.is_unchanged(),
                        _ => false,
                    }
                })
            }
            (Value::Object(old), Value::Object(new)) => {
                old.len() == new.len()
                    && new.keys().all(|name| self.key(name).is_some_and(|child| child.is_unchanged()))
            }
            (old, new) => old == new,
        }
    }
}
