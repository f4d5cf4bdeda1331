//! Questions about a set in its wire form, for writers that would otherwise read every manager's
//! set only to find that nothing of it changes.
//!
//! Both answers err on the side of work: an element whose text another writer may have escaped
//! differently counts as shared and as not contained.

use super::{PathElement, Set};
use serde_json::{Map, Value};

/// Whether FieldsV1 `fields` and `other` have a path in common.
pub fn intersects(fields: &Value, other: &Set) -> bool {
    let Value::Object(map) = fields else { return false };
    other.members.iter().any(|member| below(map, member).is_none_or(|found| found.is_some_and(is_member)))
        || other.children.iter().any(|(element, child)| {
            below(map, element).is_none_or(|found| found.is_some_and(|fields| intersects(fields, child)))
        })
}

/// Whether FieldsV1 `fields` has every path of `other`.
pub fn contains(fields: &Value, other: &Set) -> bool {
    let Value::Object(map) = fields else { return other.is_empty() };
    other.members.iter().all(|member| below(map, member).flatten().is_some_and(is_member))
        && other
            .children
            .iter()
            .filter(|(_, child)| !child.is_empty())
            .all(|(element, child)| below(map, element).flatten().is_some_and(|fields| contains(fields, child)))
}

/// What stands below an element; the outer `None` when its text does not settle that.
fn below<'v>(map: &'v Map<String, Value>, element: &PathElement) -> Option<Option<&'v Value>> {
    if let PathElement::Field(name) = element {
        let mut key = String::with_capacity(name.len() + 2);
        key.push_str("f:");
        key.push_str(name);
        return Some(map.get(&key));
    }
    let key = element.to_string();
    match map.get(&key) {
        Some(found) => Some(Some(found)),
        // Go escapes these inside JSON, and floats have more than one text.
        None if key.contains(['<', '>', '&', '.', '\u{2028}', '\u{2029}']) => None,
        None => Some(None),
    }
}

fn is_member(fields: &Value) -> bool {
    fields.as_object().is_some_and(|map| map.is_empty() || map.contains_key("."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn agrees_with_the_sets() {
        let fields = json!({
            "f:metadata": {"f:labels": {".": {}, "f:app": {}}, "f:finalizers": {"v:\"x\"": {}}},
            "f:spec": {"f:ports": {"k:{\"port\":80}": {".": {}, "f:name": {}}}, "f:replicas": {}},
        });
        let set = Set::from_fields_v1(&fields).unwrap();
        for other in [
            json!({"f:spec": {"f:replicas": {}}}),
            json!({"f:spec": {"f:other": {}}}),
            json!({"f:spec": {}}),
            json!({"f:metadata": {"f:labels": {"f:app": {}}}}),
            json!({"f:metadata": {"f:labels": {".": {}, "f:b": {}}}}),
            json!({"f:spec": {"f:ports": {"k:{\"port\":80}": {}}}}),
            json!({"f:spec": {"f:ports": {"k:{\"port\":81}": {}}}}),
            json!({"f:metadata": {"f:finalizers": {"v:\"x\"": {}}}}),
            json!({"f:metadata": {"f:finalizers": {"v:\"y\"": {}}}}),
            json!({}),
        ] {
            let other_set = Set::from_fields_v1(&other).unwrap();
            assert_eq!(intersects(&fields, &other_set), !set.intersection(&other_set).is_empty(), "{other}");
            assert_eq!(contains(&fields, &other_set), set.contains(&other_set), "{other}");
        }
        let exotic = Set::from_fields_v1(&json!({"f:x": {"v:\"<\"": {}}})).unwrap();
        let other = json!({"f:x": {"v:\"\\u003c\"": {}}});
        assert!(intersects(&other, &exotic) && !contains(&other, &exotic));
    }
}
