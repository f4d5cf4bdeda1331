//! PersistentVolumeClaimResize: a claim grows only when it is bound and its class allows it.

use std::sync::Arc;

use api::amounts::list;
use apimachinery::object::ObjectExt as _;
use apimachinery::status::Status;
use async_trait::async_trait;
use serde_json::Value;

use super::default_storage_class::CLASS_ANNOTATION;
use super::{Attributes, Name, Operation, Plugin, lookup};
use crate::server::Server;

pub const NAME: &str = "PersistentVolumeClaimResize";

pub struct PersistentVolumeClaimResize;

fn class(claim: &Value) -> &str {
    claim.annotation(CLASS_ANNOTATION).or_else(|| claim.str_at(&["spec", "storageClassName"])).unwrap_or_default()
}

#[async_trait]
impl Plugin for PersistentVolumeClaimResize {
    fn resources(&self) -> &'static [Name] {
        &[("", "persistentvolumeclaims")]
    }

    async fn validate(
        &self,
        server: &Arc<Server>,
        attributes: &Attributes<'_>,
        object: &Value,
        old: Option<&Value>,
    ) -> Result<(), Status> {
        let concerns = attributes.operation == Operation::Update && attributes.is_core("persistentvolumeclaims");
        let Some(old) = old.filter(|_| concerns) else { return Ok(()) };
        let size = |claim: &Value| list(claim, &["spec", "resources", "requests"]).remove("storage");
        let grows = match (size(object), size(old)) {
            (Some(new), Some(old)) => new > old,
            (Some(new), None) => !new.is_zero(),
            (None, _) => false,
        };
        if !grows {
            return Ok(());
        }
        if old.str_at(&["status", "phase"]) != Some("Bound") {
            return Err(attributes.forbidden("Only bound persistent volume claims can be expanded"));
        }
        let allowed = !class(object).is_empty()
            && class(object) == class(old)
            && lookup::get(server, "storage.k8s.io", "storageclasses", "", class(object))
                .is_some_and(|class| class.tree().bool_at(&["allowVolumeExpansion"]) == Some(true));
        if allowed {
            return Ok(());
        }
        Err(attributes.forbidden(
            "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize",
        ))
    }
}
