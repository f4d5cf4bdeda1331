//! StorageObjectInUseProtection: volumes, claims and attribute classes stay while they are in use;
//! their controllers take the finalizer away.

use std::sync::Arc;

use apimachinery::object::ObjectExt as _;
use apimachinery::status::Status;
use async_trait::async_trait;
use serde_json::Value;

use super::{Attributes, Name, Operation, Plugin};
use crate::server::Server;

pub const NAME: &str = "StorageObjectInUseProtection";

pub struct StorageObjectInUseProtection;

#[async_trait]
impl Plugin for StorageObjectInUseProtection {
    fn resources(&self) -> &'static [Name] {
        &[("", "persistentvolumes"), ("", "persistentvolumeclaims"), ("storage.k8s.io", "volumeattributesclasses")]
    }

    async fn mutate(
        &self,
        _: &Arc<Server>,
        attributes: &Attributes<'_>,
        object: &mut Value,
        _: Option<&Value>,
    ) -> Result<(), Status> {
        let resource = &attributes.served.resource;
        let finalizer = match (resource.group.as_ref(), resource.plural.as_ref()) {
            ("", "persistentvolumes") => "kubernetes.io/pv-protection",
            ("", "persistentvolumeclaims") => "kubernetes.io/pvc-protection",
            ("storage.k8s.io", "volumeattributesclasses") => "kubernetes.io/vac-protection",
            _ => return Ok(()),
        };
        if attributes.operation != Operation::Create || !attributes.subresource.is_empty() {
            return Ok(());
        }
        let mut finalizers: Vec<String> = object.finalizers().map(str::to_string).collect();
        if !finalizers.iter().any(|have| have == finalizer) {
            finalizers.push(finalizer.to_string());
            object.set_finalizers(finalizers);
        }
        Ok(())
    }
}
