//! The atomic parts of an object: those that an apply configuration owns or leaves as a whole.

use super::compare::{Atom, atom};
use super::{PathElement, child_type};
use crate::schema::{ListKind, TypeRef};
use serde_json::Value;

/// The paths of all atomic maps, structs and lists in a value, outermost first.
pub fn atomics(value: &Value, ty: TypeRef<'_>) -> Vec<String> {
    let mut found = Vec::new();
    visit(value, ty, &mut String::new(), &mut found);
    found
}

fn visit(value: &Value, ty: TypeRef<'_>, path: &mut String, found: &mut Vec<String>) {
    let length = path.len();
    match (value, atom(ty, Some(value))) {
        (Value::Object(map), Atom::Map { atomic }) => {
            if atomic {
                found.push(path.clone());
            }
            for (name, value) in map {
                let element = PathElement::field(name);
                if let Some(inner) = child_type(ty, &element) {
                    path.push_str(&element.display());
                    visit(value, inner, path, found);
                    path.truncate(length);
                }
            }
        }
        (Value::Array(items), Atom::List(kind)) => {
            if *kind == ListKind::Atomic {
                found.push(path.clone());
            }
            for (at, item) in items.iter().enumerate() {
                let element = PathElement::Index(at as i64);
                if let Some(inner) = child_type(ty, &element) {
                    path.push_str(&format!("[{at}]"));
                    visit(item, inner, path, found);
                    path.truncate(length);
                }
            }
        }
        _ => {}
    }
}
