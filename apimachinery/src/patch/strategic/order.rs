//! The order of merged lists: what the patch says first, then what the server had.

use super::{DIRECTIVE, Elements, Result, Tree, Value, as_tree, go_value, invalid, no_merge_key};
use std::collections::HashMap;

/// What identifies an element: its merge key's value, or itself.
pub(super) fn identity<'a>(item: &'a Value, merge_key: &str, elements: Elements) -> &'a Value {
    match (elements, item) {
        (Elements::Maps, Value::Object(map)) => map.get(merge_key).unwrap_or(&Value::Null),
        (Elements::Maps, _) => &Value::Null,
        (Elements::Scalars, item) => item,
    }
}

/// First position of each identity in a list.
pub(super) struct Positions(HashMap<String, usize>);

impl Positions {
    pub(super) fn new(list: &[Value], merge_key: &str, elements: Elements) -> Self {
        let mut positions = HashMap::with_capacity(list.len());
        for (i, item) in list.iter().enumerate() {
            positions.entry(identity(item, merge_key, elements).to_string()).or_insert(i);
        }
        Self(positions)
    }

    pub(super) fn of(&self, item: &Value, merge_key: &str, elements: Elements) -> Option<usize> {
        self.0.get(&identity(item, merge_key, elements).to_string()).copied()
    }
}

/// Elements named in `by`, and the others.
pub(super) fn partition(
    list: Vec<Value>,
    by: &[Value],
    merge_key: &str,
    elements: Elements,
) -> Result<(Vec<Value>, Vec<Value>)> {
    let positions = Positions::new(by, merge_key, elements);
    if elements == Elements::Maps {
        check_keys(merge_key, &list)?;
        for (i, item) in by.iter().enumerate() {
            if !item.is_object() {
                return invalid(format!("value for key {i} is not a map"));
            }
        }
    }
    Ok(list.into_iter().partition(|item| positions.of(item, merge_key, elements).is_some()))
}

pub(super) fn check_keys(merge_key: &str, list: &[Value]) -> Result<()> {
    for item in list {
        let map = as_tree(item)?;
        if !map.contains_key(merge_key) {
            return no_merge_key(map, merge_key);
        }
    }
    Ok(())
}

/// Sorts as `order` has them; deletions go last.
pub(super) fn sort(list: Vec<Value>, order: &[Value], merge_key: &str, elements: Elements) -> Result<Vec<Value>> {
    let (mut keep, delete) = if elements == Elements::Maps {
        check_keys(merge_key, &list)?;
        check_keys(merge_key, order)?;
        list.into_iter().partition(|item| !is_deletion(item))
    } else {
        (list, Vec::new())
    };
    let positions = Positions::new(order, merge_key, elements);
    keep.sort_by_key(|item| positions.of(item, merge_key, elements).unwrap_or(usize::MAX));
    keep.extend(delete);
    Ok(keep)
}

pub(super) fn is_deletion(item: &Value) -> bool {
    item.get(DIRECTIVE).is_some_and(|d| d == "delete")
}

/// Weaves the patch's elements and the server's into one list, keeping both orders; a server
/// element goes first only where the server had it first.
pub(super) fn weave(
    patch: Vec<Value>,
    server_only: Vec<Value>,
    patch_order: &[Value],
    server_order: &[Value],
    merge_key: &str,
    elements: Elements,
) -> Result<Vec<Value>> {
    let patch = sort(patch, patch_order, merge_key, elements)?;
    let server = sort(server_only, server_order, merge_key, elements)?;
    let positions = Positions::new(server_order, merge_key, elements);
    let at = |item: &Value| positions.of(item, merge_key, elements);
    let mut out = Vec::with_capacity(patch.len() + server.len());
    let (mut left, mut right) = (server.into_iter().peekable(), patch.into_iter().peekable());
    loop {
        let server_first = match (left.peek(), right.peek()) {
            (None, None) => return Ok(out),
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (Some(l), Some(r)) => matches!((at(l), at(r)), (Some(l), Some(r)) if l < r),
        };
        out.extend(if server_first { left.next() } else { right.next() });
    }
}

/// The patch must not contradict its own order directive.
pub(super) fn check_directive(patch: &[Value], order: &[Value], merge_key: &str) -> Result<()> {
    if order.is_empty() || patch.is_empty() {
        return Ok(());
    }
    let elements = if merge_key.is_empty() { Elements::Scalars } else { Elements::Maps };
    let mut wanted = patch.iter().filter(|item| merge_key.is_empty() || !is_deletion(item)).peekable();
    if elements == Elements::Maps {
        patch.iter().try_for_each(|item| as_tree(item).map(drop))?;
    }
    let mut order_left = order.iter();
    while let Some(item) = wanted.peek() {
        if item.get(DIRECTIVE).is_some() {
            wanted.next();
            continue;
        }
        let Some(next) = order_left.next() else { break };
        if elements == Elements::Maps {
            for map in [as_tree(item)?, as_tree(next)?] {
                check_key(map, merge_key)?;
            }
        }
        if identity(item, merge_key, elements) == identity(next, merge_key, elements) {
            wanted.next();
        }
    }
    if wanted.peek().is_some() {
        return invalid(format!(
            "The order in patch list:\n{}\n doesn't match $setElementOrder list:\n{}\n",
            go_value(&Value::from(patch)),
            go_value(&Value::from(order))
        ));
    }
    Ok(())
}

fn check_key(map: &Tree, merge_key: &str) -> Result<()> {
    if map.contains_key(merge_key) { Ok(()) } else { no_merge_key(map, merge_key) }
}
