//! PodTolerationRestriction: a namespace's default tolerations are added, and its list bounds them.

use std::sync::Arc;

use apimachinery::object::ObjectExt as _;
use apimachinery::status::Status;
use async_trait::async_trait;
use serde_json::{Value, json};

use super::runtime_class::{includes, merge};
use super::{Attributes, Operation, Plugin, lookup};
use crate::server::Server;

pub const NAME: &str = "PodTolerationRestriction";

const DEFAULTS: &str = "scheduler.alpha.kubernetes.io/defaultTolerations";
const ALLOWED: &str = "scheduler.alpha.kubernetes.io/tolerationsWhitelist";

pub struct PodTolerationRestriction;

/// `podtolerationrestriction` configuration.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    pub default: Vec<Value>,
    pub whitelist: Vec<Value>,
}

fn concerns(attributes: &Attributes<'_>) -> bool {
    attributes.is_core("pods") && matches!(attributes.operation, Operation::Create | Operation::Update)
}

/// The list in an annotation of the namespace; `None` when there is none.
fn annotated(server: &Server, attributes: &Attributes<'_>, key: &str) -> Result<Option<Vec<Value>>, Status> {
    let namespace = lookup::get(server, "", "namespaces", "", &attributes.namespace).map(|entry| entry.tree());
    let Some(text) = namespace.as_ref().and_then(|namespace| namespace.annotation(key)) else { return Ok(None) };
    if text.is_empty() {
        return Ok(Some(Vec::new()));
    }
    serde_json::from_str(text).map(Some).map_err(|error| attributes.forbidden(error))
}

fn is_best_effort(pod: &Value) -> bool {
    ["containers", "initContainers"].into_iter().flat_map(|field| pod.list_at(&["spec", field])).all(|container| {
        ["requests", "limits"].into_iter().all(|half| {
            let amounts = api::amounts::list(container, &["resources", half]);
            !amounts.keys().any(|name| matches!(name.as_str(), "cpu" | "memory"))
        })
    })
}

#[async_trait]
impl Plugin for PodTolerationRestriction {
    async fn mutate(
        &self,
        server: &Arc<Server>,
        attributes: &Attributes<'_>,
        object: &mut Value,
        _: Option<&Value>,
    ) -> Result<(), Status> {
        if !concerns(attributes) {
            return Ok(());
        }
        let mut more = Vec::new();
        if attributes.operation == Operation::Create {
            more = match annotated(server, attributes, DEFAULTS)? {
                Some(list) => list,
                None => server.config.admission.pod_toleration_restriction.default.clone(),
            };
        }
        if !is_best_effort(object) {
            more.push(
                json!({"key": "node.kubernetes.io/memory-pressure", "operator": "Exists", "effect": "NoSchedule"}),
            );
        }
        if !more.is_empty() {
            let merged = merge(object.list_at(&["spec", "tolerations"]), &more);
            object.set_at(&["spec", "tolerations"], json!(merged));
        }
        Ok(())
    }

    async fn validate(
        &self,
        server: &Arc<Server>,
        attributes: &Attributes<'_>,
        object: &Value,
        _: Option<&Value>,
    ) -> Result<(), Status> {
        let tolerations = object.list_at(&["spec", "tolerations"]);
        if !concerns(attributes) || tolerations.is_empty() {
            return Ok(());
        }
        let (allowed, scope) = match annotated(server, attributes, ALLOWED)? {
            Some(list) => (list, "namespace"),
            None => (server.config.admission.pod_toleration_restriction.whitelist.clone(), "cluster"),
        };
        let within = tolerations.iter().all(|own| allowed.iter().any(|wide| includes(wide, own)));
        if allowed.is_empty() || within {
            return Ok(());
        }
        Err(Status::internal(format!(
            "pod tolerations (possibly merged with namespace default tolerations) conflict with its {scope} whitelist"
        )))
    }
}
