//! Sets that were written under an older schema: where a list, map or struct has become atomic
//! since, what was owned inside of it becomes ownership of the whole.

use super::{Path, PathElement, Set, child_type, is_deduced};
use crate::schema::{ListKind, Type, TypeRef};

/// The set under today's schema; `None` when nothing is different.
pub fn reconcile(set: &Set, ty: TypeRef<'_>) -> Option<Set> {
    let mut whole = Set::new();
    walk(set, ty, false, &mut Vec::new(), &mut whole);
    if whole.is_empty() {
        return None;
    }
    Some(set.clone().recursive_difference(&whole).union(whole))
}

fn walk(set: &Set, ty: TypeRef<'_>, leaf: bool, path: &mut Path, whole: &mut Set) {
    let atomic = match ty.ty() {
        _ if is_deduced(ty) => return,
        Type::Object(object) => object.atomic,
        Type::Map(map) => map.atomic,
        Type::List(list) => list.kind == ListKind::Atomic,
        _ => return,
    };
    if atomic {
        if !leaf && !set.is_empty() {
            whole.insert(path);
        }
        return;
    }
    for (element, child) in &set.children {
        descend(element, child, false, ty, path, whole);
    }
    let nothing = Set::new();
    for element in set.members.iter().filter(|member| !set.children.contains_key(member)) {
        descend(element, &nothing, true, ty, path, whole);
    }
}

fn descend(element: &PathElement, set: &Set, leaf: bool, ty: TypeRef<'_>, path: &mut Path, whole: &mut Set) {
    if let Some(inner) = child_type(ty, element) {
        path.push(element.clone());
        walk(set, inner, leaf, path, whole);
        path.pop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fieldset::tests::sample;
    use serde_json::json;

    #[test]
    fn what_became_atomic_is_owned_as_a_whole() {
        let (schema, root) = sample();
        let ty = schema.type_ref(root);
        let read = |fields| Set::from_fields_v1(&fields).unwrap();
        let old = read(json!({"f:spec": {"f:args": {"v:\"x\"": {}}, "f:ports": {"k:{\"port\":1}": {"f:name": {}}}}}));
        assert_eq!(
            reconcile(&old, ty).unwrap().to_fields_v1(),
            json!({"f:spec": {"f:args": {}, "f:ports": {"k:{\"port\":1}": {"f:name": {}}}}})
        );
        assert_eq!(reconcile(&read(json!({"f:spec": {"f:args": {}, "f:replicas": {}}})), ty), None);
    }
}
