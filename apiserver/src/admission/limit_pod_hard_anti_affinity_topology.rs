//! LimitPodHardAntiAffinityTopology: a pod may keep others off its node, not off its zone.

use std::sync::Arc;

use apimachinery::object::ObjectExt as _;
use apimachinery::status::Status;
use async_trait::async_trait;
use serde_json::Value;

use super::{Attributes, Operation, Plugin};
use crate::server::Server;

pub const NAME: &str = "LimitPodHardAntiAffinityTopology";

const HOST_NAME: &str = "kubernetes.io/hostname";

pub struct LimitPodHardAntiAffinityTopology;

#[async_trait]
impl Plugin for LimitPodHardAntiAffinityTopology {
    async fn validate(
        &self,
        _: &Arc<Server>,
        attributes: &Attributes<'_>,
        object: &Value,
        _: Option<&Value>,
    ) -> Result<(), Status> {
        if !attributes.is_core("pods") || !matches!(attributes.operation, Operation::Create | Operation::Update) {
            return Ok(());
        }
        let terms =
            object.list_at(&["spec", "affinity", "podAntiAffinity", "requiredDuringSchedulingIgnoredDuringExecution"]);
        for key in terms.iter().map(|term| term.str_at(&["topologyKey"]).unwrap_or_default()) {
            if key != HOST_NAME {
                return Err(attributes.forbidden(format!(
                    "affinity.PodAntiAffinity.RequiredDuringScheduling has TopologyKey {key} but only key {HOST_NAME} is allowed"
                )));
            }
        }
        Ok(())
    }
}
