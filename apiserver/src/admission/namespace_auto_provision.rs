//! NamespaceAutoProvision: a namespace that something is created in is created first.
//! NamespaceExists: nothing happens in a namespace that is not there.

use std::sync::Arc;

use apimachinery::gvk::GroupResource;
use apimachinery::status::Status;
use async_trait::async_trait;
use http::Method;
use serde_json::{Value, json};

use super::{Attributes, Operation, Plugin, lookup};
use crate::server::{Server, in_process};

pub const NAME: &str = "NamespaceAutoProvision";
pub const EXISTS: &str = "NamespaceExists";

pub struct NamespaceAutoProvision;
pub struct NamespaceExists;

#[async_trait]
impl Plugin for NamespaceAutoProvision {
    async fn mutate(
        &self,
        server: &Arc<Server>,
        attributes: &Attributes<'_>,
        _: &mut Value,
        _: Option<&Value>,
    ) -> Result<(), Status> {
        let namespace = &attributes.namespace;
        if attributes.dry_run
            || attributes.operation != Operation::Create
            || namespace.is_empty()
            || attributes.is_core("namespaces")
            || lookup::get(server, "", "namespaces", "", namespace).is_some()
        {
            return Ok(());
        }
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
        match in_process::request(server, Method::POST, "/api/v1/namespaces", Some(&object)).await {
            Err(status) if !status.is_already_exists() => Err(attributes.forbidden(status.message)),
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl Plugin for NamespaceExists {
    async fn validate(
        &self,
        server: &Arc<Server>,
        attributes: &Attributes<'_>,
        _: &Value,
        _: Option<&Value>,
    ) -> Result<(), Status> {
        let namespace = &attributes.namespace;
        if namespace.is_empty()
            || attributes.is_core("namespaces")
            || lookup::get(server, "", "namespaces", "", namespace).is_some()
        {
            return Ok(());
        }
        Err(Status::not_found(&GroupResource::new("", "namespaces"), namespace))
    }
}
