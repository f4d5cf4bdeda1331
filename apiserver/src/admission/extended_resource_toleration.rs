//! ExtendedResourceToleration: who asks for a special resource tolerates the taint of its nodes.

use std::collections::BTreeSet;
use std::sync::Arc;

use api::amounts::list;
use apimachinery::object::ObjectExt as _;
use apimachinery::status::Status;
use async_trait::async_trait;
use serde_json::{Value, json};

use super::{Attributes, Operation, Plugin};
use crate::server::Server;

pub const NAME: &str = "ExtendedResourceToleration";

pub struct ExtendedResourceToleration;

/// Whether a resource is of somebody else's making: of a domain that is not Kubernetes'.
pub fn is_extended(name: &str) -> bool {
    name.contains('/') && !name.contains("kubernetes.io/") && !name.starts_with("requests.")
}

#[async_trait]
impl Plugin for ExtendedResourceToleration {
    async fn mutate(
        &self,
        _: &Arc<Server>,
        attributes: &Attributes<'_>,
        object: &mut Value,
        _: Option<&Value>,
    ) -> Result<(), Status> {
        if !attributes.is_core("pods") || !matches!(attributes.operation, Operation::Create | Operation::Update) {
            return Ok(());
        }
        let mut wanted = BTreeSet::new();
        for field in ["containers", "initContainers"] {
            for container in object.list_at(&["spec", field]) {
                wanted.extend(list(container, &["resources", "requests"]).into_keys().filter(|name| is_extended(name)));
            }
        }
        let mut tolerations = object.list_at(&["spec", "tolerations"]).to_vec();
        for name in wanted {
            let toleration = json!({"key": name, "operator": "Exists"});
            let covered = |have: &Value| {
                have.get("key") == toleration.get("key")
                    && have.get("operator") == toleration.get("operator")
                    && have.str_at(&["effect"]).unwrap_or_default().is_empty()
            };
            if !tolerations.iter().any(covered) {
                tolerations.push(toleration);
            }
        }
        if !tolerations.is_empty() {
            object.set_at(&["spec", "tolerations"], json!(tolerations));
        }
        Ok(())
    }
}
