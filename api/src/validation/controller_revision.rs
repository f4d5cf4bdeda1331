//! ControllerRevision.

use apimachinery::field::{self, ErrorList, Path};
use serde_json::Value;

use super::checks::{immutable, name_is_subdomain, non_negative};
use super::object_meta;
use crate::read::Read;

pub(super) fn create(revision: &Value, errors: &mut ErrorList) {
    object_meta::create(revision, true, name_is_subdomain, errors);
    non_negative(revision.num("revision"), &Path::new("revision"), errors);
    let message = match &revision["data"] {
        Value::Null => "data is mandatory",
        Value::Object(_) => return,
        _ => "data must be a valid JSON object",
    };
    errors.push(field::required(&Path::new("data"), message));
}

pub(super) fn update(new: &Value, old: &Value, errors: &mut ErrorList) {
    object_meta::update(new, old, errors);
    object_meta::create(new, true, name_is_subdomain, errors);
    non_negative(new.num("revision"), &Path::new("revision"), errors);
    immutable(&new["data"], &old["data"], &Path::new("data"), errors);
}
