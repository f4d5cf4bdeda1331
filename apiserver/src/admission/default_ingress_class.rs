//! DefaultIngressClass: an ingress that names no class gets the default one.

use std::sync::Arc;

use apimachinery::object::ObjectExt as _;
use apimachinery::status::Status;
use async_trait::async_trait;
use serde_json::Value;

use super::default_storage_class::newest_default;
use super::{Attributes, Name, Operation, Plugin, lookup};
use crate::server::Server;

pub const NAME: &str = "DefaultIngressClass";

/// The older way to name a class.
const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";
const DEFAULT: &str = "ingressclass.kubernetes.io/is-default-class";

pub struct DefaultIngressClass;

#[async_trait]
impl Plugin for DefaultIngressClass {
    fn resources(&self) -> &'static [Name] {
        &[("networking.k8s.io", "ingresses")]
    }

    async fn mutate(
        &self,
        server: &Arc<Server>,
        attributes: &Attributes<'_>,
        object: &mut Value,
        _: Option<&Value>,
    ) -> Result<(), Status> {
        let resource = &attributes.served.resource;
        let concerns = attributes.operation == Operation::Create
            && resource.group == "networking.k8s.io"
            && resource.plural == "ingresses"
            && attributes.subresource.is_empty();
        let named = object.annotation(CLASS_ANNOTATION).is_some()
            || object.at(&["spec", "ingressClassName"]).is_some_and(|name| !name.is_null());
        if !concerns || named {
            return Ok(());
        }
        let classes = lookup::list(server, "networking.k8s.io", "ingressclasses", None).await?;
        if let Some(class) = newest_default(classes, &[DEFAULT]) {
            object.set_at(&["spec", "ingressClassName"], class.name().into());
        }
        Ok(())
    }
}
