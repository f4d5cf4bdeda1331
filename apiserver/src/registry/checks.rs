//! Defaults and validation of `api`, called from one place.

use api::Resource;
use apimachinery::field::ErrorList;
use serde_json::Value;

/// Fills in what a client left out.
pub fn default(resource: &Resource, object: &mut Value) {
    api::defaults::apply(resource, object);
}

/// What is wrong with a new object.
pub fn create(_resource: &Resource, _object: &Value) -> ErrorList {
    ErrorList::new()
}

/// What is wrong with a changed object.
pub fn update(_resource: &Resource, _subresource: &str, _new: &Value, _old: &Value) -> ErrorList {
    ErrorList::new()
}

/// What a user should know although the object is stored.
pub fn warnings(_resource: &Resource, _new: &Value, _old: Option<&Value>) -> Vec<String> {
    Vec::new()
}
