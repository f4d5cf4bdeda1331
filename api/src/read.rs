//! Reading canonical trees: what is absent reads as Go's zero value.
//!
//! Together with indexing (`&pod["spec"]` is `null` where there is no spec) this makes rules read
//! like upstream's without copying anything.

use serde_json::{Map, Value};

pub(crate) trait Read {
    /// The value of a field that is set.
    fn set(&self, name: &str) -> Option<&Value>;
    /// The text of a field, empty if it is not set.
    fn text(&self, name: &str) -> &str;
    /// The number of a field, 0 if it is not set.
    fn num(&self, name: &str) -> i64;
    /// The number of a field that is set.
    fn int(&self, name: &str) -> Option<i64>;
    /// Whether a field is true.
    fn flag(&self, name: &str) -> bool;
    /// The items of a list, none if it is not set.
    fn list(&self, name: &str) -> &[Value];
    /// The entries of a map, none if it is not set.
    fn entries(&self, name: &str) -> impl Iterator<Item = (&String, &Value)>;
    /// The map, if it is set.
    fn map(&self, name: &str) -> Option<&Map<String, Value>>;
    /// The texts of a list of strings.
    fn texts(&self, name: &str) -> impl Iterator<Item = &str>;
}

impl Read for Value {
    fn set(&self, name: &str) -> Option<&Value> {
        self.get(name).filter(|v| !v.is_null())
    }
    fn text(&self, name: &str) -> &str {
        self[name].as_str().unwrap_or_default()
    }
    fn num(&self, name: &str) -> i64 {
        self[name].as_i64().unwrap_or_default()
    }
    fn int(&self, name: &str) -> Option<i64> {
        self[name].as_i64()
    }
    fn flag(&self, name: &str) -> bool {
        self[name].as_bool().unwrap_or_default()
    }
    fn list(&self, name: &str) -> &[Value] {
        self[name].as_array().map_or(&[], Vec::as_slice)
    }
    fn entries(&self, name: &str) -> impl Iterator<Item = (&String, &Value)> {
        self[name].as_object().into_iter().flatten()
    }
    fn map(&self, name: &str) -> Option<&Map<String, Value>> {
        self[name].as_object()
    }
    fn texts(&self, name: &str) -> impl Iterator<Item = &str> {
        self.list(name).iter().map(|v| v.as_str().unwrap_or_default())
    }
}
