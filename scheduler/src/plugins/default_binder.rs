//! Binds a pod by creating its Binding.

use std::sync::Arc;

use async_trait::async_trait;
use client::{Client, resources};
use serde_json::{Value, json};

use super::Handle;
use crate::framework::pod_info::PodInfo;
use crate::framework::{Bind, Plugin, Status, Verdict};

/// The plugin's name.
pub const NAME: &str = "DefaultBinder";

struct DefaultBinder {
    client: Client,
}

#[async_trait]
impl Bind for DefaultBinder {
    async fn bind(&self, pod: &PodInfo, node: &str) -> Verdict {
        let binding = json!({
            "apiVersion": "v1",
            "kind": "Binding",
            // The UID keeps us from binding another pod of the same name.
            "metadata": {"namespace": pod.namespace(), "name": pod.name(), "uid": pod.uid()},
            "target": {"kind": "Node", "name": node},
        });
        let answer: Result<Value, _> =
            self.client.create_sub(&resources::PODS, Some(pod.namespace()), pod.name(), "binding", &binding).await;
        match answer {
            Ok(_) => Ok(()),
            Err(error) => Err(Status::error(error.to_string())),
        }
    }
}

/// Builds it. Without a client it binds nothing.
pub fn new(_: &Value, handle: &Handle) -> Result<Plugin, String> {
    Ok(Plugin {
        name: NAME,
        bind: handle.client.clone().map(|client| Arc::new(DefaultBinder { client }) as Arc<dyn Bind>),
        ..Plugin::default()
    })
}
