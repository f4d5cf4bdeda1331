//! DefaultTolerationSeconds: pods stay five minutes on a node that stopped answering.

use std::sync::Arc;

use apimachinery::object::ObjectExt as _;
use apimachinery::status::Status;
use async_trait::async_trait;
use serde_json::{Value, json};

use super::{Attributes, Name, Operation, Plugin};
use crate::server::Server;

pub const NAME: &str = "DefaultTolerationSeconds";

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";

pub struct DefaultTolerationSeconds;

#[async_trait]
impl Plugin for DefaultTolerationSeconds {
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
        // On updates too: who replaces a pod's tolerations does not take these away.
        if !matches!(attributes.operation, Operation::Create | Operation::Update) || !attributes.is_core("pods") {
            return Ok(());
        }
        let mut tolerations = object.list_at(&["spec", "tolerations"]).to_vec();
        let before = tolerations.len();
        for (key, seconds) in [
            (NOT_READY, server.config.default_not_ready_toleration_seconds),
            (UNREACHABLE, server.config.default_unreachable_toleration_seconds),
        ] {
            let tolerated = tolerations[..before].iter().any(|toleration| {
                let text = |name: &str| toleration.str_at(&[name]).unwrap_or_default().to_string();
                let (have, effect) = (text("key"), text("effect"));
                (have == key || have.is_empty()) && (effect == "NoExecute" || effect.is_empty())
            });
            if !tolerated {
                tolerations.push(json!({
                    "effect": "NoExecute", "key": key, "operator": "Exists", "tolerationSeconds": seconds,
                }));
            }
        }
        if tolerations.len() > before {
            object.set_at(&["spec", "tolerations"], tolerations.into());
        }
        Ok(())
    }
}
