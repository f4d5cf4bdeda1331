//! Reading and writing the parts every object has, on the tree itself.
//!
//! Objects in the pipeline are `serde_json::Value` trees (DESIGN: a built-in kind is a CRD whose
//! schema ships with the server). [`ObjectExt`] gives typed access to metadata and to paths
//! without decoding anything.

use serde_json::{Map, Value};
use std::fmt;

/// The tree that is an object.
pub type Object = Value;

/// Namespace and name; the namespace is empty for cluster-scoped objects.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    pub namespace: String,
    pub name: String,
}

impl ObjectKey {
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    /// Reads `namespace/name` or `name`.
    pub fn parse(text: &str) -> Self {
        match text.split_once('/') {
            Some((namespace, name)) => Self::new(namespace, name),
            None => Self::new("", text),
        }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() { f.write_str(&self.name) } else { write!(f, "{}/{}", self.namespace, self.name) }
    }
}

/// Typed access to a tree. Readers give empty strings for what is absent or of another type;
/// writers create the objects on the way.
pub trait ObjectExt {
    fn at(&self, path: &[&str]) -> Option<&Value>;
    /// The value at the path; objects on the way, and an object at its end, are created.
    fn at_mut_or_create(&mut self, path: &[&str]) -> &mut Value;
    fn set_at(&mut self, path: &[&str], value: Value);
    /// Removes and returns what is at the path; creates nothing.
    fn remove_at(&mut self, path: &[&str]) -> Option<Value>;

    fn str_at(&self, path: &[&str]) -> Option<&str> {
        self.at(path)?.as_str()
    }
    fn i64_at(&self, path: &[&str]) -> Option<i64> {
        self.at(path)?.as_i64()
    }
    fn bool_at(&self, path: &[&str]) -> Option<bool> {
        self.at(path)?.as_bool()
    }
    /// The list at the path, empty if absent.
    fn list_at(&self, path: &[&str]) -> &[Value] {
        self.at(path).and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }
    fn map_at(&self, path: &[&str]) -> Option<&Map<String, Value>> {
        self.at(path)?.as_object()
    }

    fn api_version(&self) -> &str {
        self.str_at(&["apiVersion"]).unwrap_or("")
    }
    fn kind(&self) -> &str {
        self.str_at(&["kind"]).unwrap_or("")
    }
    fn name(&self) -> &str {
        self.str_at(&["metadata", "name"]).unwrap_or("")
    }
    fn generate_name(&self) -> &str {
        self.str_at(&["metadata", "generateName"]).unwrap_or("")
    }
    fn namespace(&self) -> &str {
        self.str_at(&["metadata", "namespace"]).unwrap_or("")
    }
    fn uid(&self) -> &str {
        self.str_at(&["metadata", "uid"]).unwrap_or("")
    }
    fn resource_version(&self) -> &str {
        self.str_at(&["metadata", "resourceVersion"]).unwrap_or("")
    }
    fn generation(&self) -> i64 {
        self.i64_at(&["metadata", "generation"]).unwrap_or(0)
    }
    fn creation_timestamp(&self) -> Option<&str> {
        self.str_at(&["metadata", "creationTimestamp"])
    }
    fn deletion_timestamp(&self) -> Option<&str> {
        self.str_at(&["metadata", "deletionTimestamp"])
    }
    fn deletion_grace_period_seconds(&self) -> Option<i64> {
        self.i64_at(&["metadata", "deletionGracePeriodSeconds"])
    }
    fn labels(&self) -> Option<&Map<String, Value>> {
        self.map_at(&["metadata", "labels"])
    }
    fn label(&self, key: &str) -> Option<&str> {
        self.labels()?.get(key)?.as_str()
    }
    fn annotations(&self) -> Option<&Map<String, Value>> {
        self.map_at(&["metadata", "annotations"])
    }
    fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations()?.get(key)?.as_str()
    }
    fn finalizers(&self) -> impl Iterator<Item = &str> {
        self.list_at(&["metadata", "finalizers"]).iter().filter_map(Value::as_str)
    }
    fn owner_references(&self) -> &[Value] {
        self.list_at(&["metadata", "ownerReferences"])
    }
    /// The owner reference with `controller: true`.
    fn controller_ref(&self) -> Option<&Value> {
        self.owner_references().iter().find(|r| r.get("controller") == Some(&Value::Bool(true)))
    }
    fn key(&self) -> ObjectKey {
        ObjectKey::new(self.namespace(), self.name())
    }

    fn set_api_version(&mut self, value: &str) {
        self.set_at(&["apiVersion"], value.into());
    }
    fn set_kind(&mut self, value: &str) {
        self.set_at(&["kind"], value.into());
    }
    fn set_name(&mut self, value: &str) {
        self.set_at(&["metadata", "name"], value.into());
    }
    fn set_namespace(&mut self, value: &str) {
        self.set_at(&["metadata", "namespace"], value.into());
    }
    fn set_uid(&mut self, value: &str) {
        self.set_at(&["metadata", "uid"], value.into());
    }
    fn set_resource_version(&mut self, value: &str) {
        self.set_at(&["metadata", "resourceVersion"], value.into());
    }
    fn set_generation(&mut self, value: i64) {
        self.set_at(&["metadata", "generation"], value.into());
    }
    fn set_creation_timestamp(&mut self, value: &str) {
        self.set_at(&["metadata", "creationTimestamp"], value.into());
    }
    fn set_deletion_timestamp(&mut self, value: &str) {
        self.set_at(&["metadata", "deletionTimestamp"], value.into());
    }
    fn set_label(&mut self, key: &str, value: &str) {
        self.set_at(&["metadata", "labels", key], value.into());
    }
    fn set_annotation(&mut self, key: &str, value: &str) {
        self.set_at(&["metadata", "annotations", key], value.into());
    }
    /// An empty list removes the field.
    fn set_finalizers(&mut self, values: Vec<String>) {
        if values.is_empty() {
            self.remove_at(&["metadata", "finalizers"]);
        } else {
            self.set_at(&["metadata", "finalizers"], values.into());
        }
    }
}

impl ObjectExt for Value {
    fn at(&self, path: &[&str]) -> Option<&Value> {
        let mut value = self;
        for name in path {
            value = value.as_object()?.get(*name)?;
        }
        Some(value)
    }

    fn at_mut_or_create(&mut self, path: &[&str]) -> &mut Value {
        let mut value = self;
        for name in path {
            if !value.is_object() {
                *value = Value::Object(Map::new());
            }
            let map = value.as_object_mut().expect("was made an object above");
            if !map.contains_key(*name) {
                map.insert((*name).to_owned(), Value::Object(Map::new()));
            }
            value = map.get_mut(*name).expect("was inserted above");
        }
        value
    }

    fn set_at(&mut self, path: &[&str], value: Value) {
        *self.at_mut_or_create(path) = value;
    }

    fn remove_at(&mut self, path: &[&str]) -> Option<Value> {
        let (last, parents) = path.split_last()?;
        let mut value = self;
        for name in parents {
            value = value.as_object_mut()?.get_mut(*name)?;
        }
        value.as_object_mut()?.remove(*last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn reads_and_writes() {
        let mut pod = json!({"metadata": {"name": "a", "namespace": "n", "finalizers": ["f"],
            "ownerReferences": [{"uid": "1"}, {"uid": "2", "controller": true}]}, "spec": {"n": 3}});
        assert_eq!((pod.name(), pod.key().to_string().as_str()), ("a", "n/a"));
        assert_eq!(pod.finalizers().collect::<Vec<_>>(), ["f"]);
        assert_eq!(pod.controller_ref().unwrap()["uid"], "2");
        assert_eq!(pod.i64_at(&["spec", "n"]), Some(3));
        assert_eq!(pod.at(&["spec", "n", "x"]), None);
        pod.set_label("app", "web");
        assert_eq!(pod.label("app"), Some("web"));
        pod.set_finalizers(vec![]);
        assert_eq!(pod.at(&["metadata", "finalizers"]), None);
        assert_eq!(pod.remove_at(&["spec", "n"]), Some(json!(3)));
        assert_eq!(pod["spec"], json!({}));
        assert_eq!(ObjectKey::parse("x"), ObjectKey::new("", "x"));
    }
}
