//! CSIDrivers: where tokens travel in a place that drivers log.

use apimachinery::object::ObjectExt as _;
use serde_json::Value;

use super::hooks::Hooks;

pub struct CsiDriver;

impl Hooks for CsiDriver {
    fn warnings(&self, new: &Value, _: Option<&Value>) -> Vec<String> {
        let tokens = !new.list_at(&["spec", "tokenRequests"]).is_empty();
        if tokens && new.at(&["spec", "serviceAccountTokenInSecrets"]).is_none_or(Value::is_null) {
            return vec![
                "spec.serviceAccountTokenInSecrets is unset; if supported by this CSI driver, set to true to prevent possible logging of tokens in volume attributes".to_string(),
            ];
        }
        Vec::new()
    }
}
