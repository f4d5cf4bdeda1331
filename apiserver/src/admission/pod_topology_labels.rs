//! PodTopologyLabels: a pod carries the zone and the region of its node.

use std::sync::Arc;

use apimachinery::object::ObjectExt as _;
use apimachinery::status::Status;
use async_trait::async_trait;
use serde_json::Value;

use super::{Attributes, Name, Operation, Plugin, lookup};
use crate::server::Server;

pub const NAME: &str = "PodTopologyLabels";

const LABELS: [&str; 2] = ["topology.kubernetes.io/zone", "topology.kubernetes.io/region"];

pub struct PodTopologyLabels;

/// The labels that pods of a node carry.
pub fn of_node(server: &Server, node: &str) -> Vec<(&'static str, String)> {
    let Some(node) = lookup::get(server, "", "nodes", "", node) else { return Vec::new() };
    LABELS.into_iter().filter_map(|key| Some((key, node.label(key)?.to_string()))).collect()
}

#[async_trait]
impl Plugin for PodTopologyLabels {
    fn resources(&self) -> &'static [Name] {
        &[("", "pods")]
    }

    async fn mutate(
        &self,
        server: &Arc<Server>,
        attributes: &Attributes<'_>,
        object: &mut Value,
        _: Option<&Value>,
    ) -> Result<(), Status> {
        if attributes.operation != Operation::Create || !attributes.is_core("pods") {
            return Ok(());
        }
        let Some(node) = object.str_at(&["spec", "nodeName"]).filter(|node| !node.is_empty()) else { return Ok(()) };
        for (key, value) in of_node(server, node) {
            object.set_label(key, &value);
        }
        Ok(())
    }
}
