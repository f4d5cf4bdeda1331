//! What `keelson up` asks the API about nodes: their pod ranges, and whether they are Ready.

use std::collections::BTreeMap;
use std::path::Path;

use client::resources::NODES;
use client::{Client, ObjectMeta, WatchEvent, WatchParams};
use serde::Deserialize;

use crate::state::NodeName;

/// The API server's answer, or its silence.
pub type Error = client::Error;

/// The little of a Node that matters here.
#[derive(Clone, Debug, Default, Deserialize)]
struct Node {
    metadata: ObjectMeta,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    #[serde(rename = "podCIDR", default)]
    pod_cidr: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Status {
    #[serde(default)]
    conditions: Vec<Condition>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

impl Node {
    fn is_ready(&self) -> bool {
        self.status.conditions.iter().any(|condition| condition.kind == "Ready" && condition.status == "True")
    }
}

/// A client for the cluster of a kubeconfig.
pub async fn client(kubeconfig: &Path, context: &str) -> Result<Client, Error> {
    Client::from_kubeconfig(Some(kubeconfig), Some(context)).await
}

/// Whether the API server says that it is ready.
pub async fn is_ready(client: &Client) -> bool {
    client.get_raw("/readyz").await.is_ok()
}

/// Waits until every node has a pod range.
pub async fn pod_cidrs(client: &Client, names: &[NodeName]) -> Result<Vec<(NodeName, String)>, Error> {
    let nodes = until(client, names, |node| !node.spec.pod_cidr.is_empty()).await?;
    Ok(names.iter().map(|name| (name.clone(), nodes[&name.name].spec.pod_cidr.clone())).collect())
}

/// Waits until every node is Ready.
pub async fn ready(client: &Client, names: &[NodeName]) -> Result<(), Error> {
    until(client, names, Node::is_ready).await?;
    Ok(())
}

/// Watches until each of the named nodes is there and `good`.
async fn until(
    client: &Client,
    names: &[NodeName],
    good: impl Fn(&Node) -> bool,
) -> Result<BTreeMap<String, Node>, Error> {
    // Revision zero: the watch begins with whatever is there.
    let params = WatchParams { resource_version: "0".to_owned(), ..WatchParams::default() };
    loop {
        let mut nodes: BTreeMap<String, Node> = BTreeMap::new();
        let mut events = client.watch::<Node>(&NODES, None, &params).await?;
        while let Some(event) = events.next().await {
            match event? {
                WatchEvent::Added(node) | WatchEvent::Modified(node) => {
                    nodes.insert(node.metadata.name.clone(), node);
                }
                WatchEvent::Deleted(node) => {
                    nodes.remove(&node.metadata.name);
                }
                WatchEvent::Bookmark { .. } => {}
            }
            if names.iter().all(|name| nodes.get(&name.name).is_some_and(&good)) {
                return Ok(nodes);
            }
        }
        // The server ended the watch, as it does after a while: the next one begins anew.
    }
}
