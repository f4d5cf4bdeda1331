//! NamespaceLifecycle: nothing is created in a namespace that is missing or going away, and the
//! cluster's own namespaces stay.

use std::sync::Arc;

use apimachinery::gvk::GroupResource;
use apimachinery::object::ObjectExt as _;
use apimachinery::status::{Cause, Status};
use async_trait::async_trait;
use serde_json::Value;

use super::{Attributes, Operation, Plugin};
use crate::cache::Freshness;
use crate::server::Server;

pub const NAME: &str = "NamespaceLifecycle";

/// Namespaces that cannot be deleted.
const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

pub struct NamespaceLifecycle;

#[async_trait]
impl Plugin for NamespaceLifecycle {
    async fn mutate(
        &self,
        server: &Arc<Server>,
        attributes: &Attributes<'_>,
        _: &mut Value,
        _: Option<&Value>,
    ) -> Result<(), Status> {
        let resource = &attributes.served.resource;
        if attributes.operation == Operation::Delete
            && attributes.is_core("namespaces")
            && IMMORTAL.contains(&attributes.name.as_str())
        {
            return Err(attributes.forbidden("this namespace may not be deleted"));
        }
        if attributes.operation != Operation::Create
            || !resource.namespaced
            || attributes.namespace.is_empty()
            || resource.group == "authorization.k8s.io"
        {
            return Ok(());
        }
        let Some(namespaces) = server.registry.any_version("", "namespaces") else { return Ok(()) };
        let name = &attributes.namespace;
        let missing = || Status::not_found(&GroupResource::new("", "namespaces"), name);
        let cache = namespaces.cache.as_ref().expect("namespaces are stored");
        let key = namespaces.key("", name);
        let read = async |freshness| cache.get(&key, freshness).await.map_err(crate::handlers::errors::of_read);
        // What is cached is nearly always true; only a refusal must not rest on something old.
        let entry = match read(Freshness::Any).await? {
            Some(entry) => entry,
            None => read(Freshness::Consistent).await?.ok_or_else(missing)?,
        };
        // The bytes tell whether it is worth decoding.
        if !entry_is_terminating(&entry) {
            return Ok(());
        }
        let mut status = attributes
            .forbidden(format!("unable to create new content in namespace {name} because it is being terminated"));
        if let Some(details) = &mut status.details {
            details.causes.push(Cause::new(
                "NamespaceTerminating",
                format!("namespace {name} is being terminated"),
                "metadata.namespace",
            ));
        }
        Err(status)
    }
}

fn entry_is_terminating(entry: &crate::cache::Entry) -> bool {
    entry.field("status.phase") == Some("Terminating")
        || (memchr::memmem::find(entry.json(), b"\"deletionTimestamp\"").is_some()
            && entry.tree().deletion_timestamp().is_some())
}
