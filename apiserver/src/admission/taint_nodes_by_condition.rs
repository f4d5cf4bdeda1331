//! TaintNodesByCondition: a new node takes no pods until it was seen ready.

use std::sync::Arc;

use apimachinery::object::ObjectExt as _;
use apimachinery::status::Status;
use async_trait::async_trait;
use serde_json::{Value, json};

use super::{Attributes, Name, Operation, Plugin};
use crate::server::Server;

pub const NAME: &str = "TaintNodesByCondition";

const NOT_READY: &str = "node.kubernetes.io/not-ready";

pub struct TaintNodesByCondition;

#[async_trait]
impl Plugin for TaintNodesByCondition {
    fn resources(&self) -> &'static [Name] {
        &[("", "nodes")]
    }

    async fn mutate(
        &self,
        _: &Arc<Server>,
        attributes: &Attributes<'_>,
        object: &mut Value,
        _: Option<&Value>,
    ) -> Result<(), Status> {
        if attributes.operation != Operation::Create || !attributes.is_core("nodes") {
            return Ok(());
        }
        let taints = object.list_at(&["spec", "taints"]);
        if taints
            .iter()
            .any(|taint| taint.str_at(&["key"]) == Some(NOT_READY) && taint.str_at(&["effect"]) == Some("NoSchedule"))
        {
            return Ok(());
        }
        let mut taints = taints.to_vec();
        taints.push(json!({"effect": "NoSchedule", "key": NOT_READY}));
        object.set_at(&["spec", "taints"], taints.into());
        Ok(())
    }
}
