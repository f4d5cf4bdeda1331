//! Decoding conversions, defaults, validation and warnings of `api`, called from one place.

use api::Resource;
use apimachinery::field::ErrorList;
use serde_json::Value;

use super::Served;
use crate::server::Server;

/// What a decoded object of a served version becomes before anybody looks at it: fields that
/// mirror each other are filled in, then defaults.
pub fn default(resource: &Resource, object: &mut Value, server: &Server) {
    super::mirrored::fill(resource, object);
    api::defaults::apply(resource, object);
    if resource.group == "resource.k8s.io" {
        super::devices::time_added(object, server);
    }
}

/// What is wrong with a new object.
pub fn create(served: &Served, object: &Value) -> ErrorList {
    match served.custom() {
        Some(custom) => custom.validate_create(object),
        None => api::validation::create(&served.resource, &served.storage, object),
    }
}

/// What is wrong with a changed object; what is wrong but was so before is forgiven, and told.
pub fn update(served: &Served, subresource: &str, new: &Value, old: &Value, forgiven: &mut Vec<String>) -> ErrorList {
    if let Some(custom) = served.custom() {
        return custom.validate_update(subresource, new, old, forgiven);
    }
    let (request, resource) = (&served.resource, &served.storage);
    match subresource {
        "" | "scale" => api::validation::update(request, resource, new, old),
        // A binding was checked as what it is; the pod changes only where it may.
        "binding" => ErrorList::new(),
        _ => api::validation::update_subresource(resource, subresource, new, old),
    }
}

/// What the user should know although the object is stored.
pub fn warnings(resource: &Resource, subresource: &str, new: &Value, old: Option<&Value>) -> Vec<String> {
    api::warnings::of(resource, subresource, new, old)
}

/// What everybody who asks for a resource should know.
pub fn deprecation(resource: &Resource) -> Option<&'static str> {
    match (resource.group.as_ref(), resource.plural.as_ref()) {
        ("", "endpoints") => Some("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"),
        ("", "componentstatuses") => Some("v1 ComponentStatus is deprecated in v1.19+"),
        _ => None,
    }
}
