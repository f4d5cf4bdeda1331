//! The parts of the benchmark: each starts what it needs, measures its rows, and ends what it started.

mod authorization;
mod cluster;
mod definitions;
mod delete;
mod lists;
mod memory;
mod pods;
mod reads;
mod replicas;
mod schedule;
mod start;
mod watch;
mod writes;

use std::time::Duration;

use serde_json::{Value, json};

use crate::load::{self, Ask, Connection};
use crate::subject::{Endpoint, Subject};
use crate::table::Table;

/// Long enough for a steady state, short enough for the whole table to take minutes.
const LOAD_FOR: Duration = Duration::from_secs(3);
/// After a start, until memory is read: caches are filled and start-up's garbage is gone.
const SETTLED: Duration = Duration::from_secs(5);
/// The load of the rows about many pods.
const PODS: usize = 10_000;
/// Connections that fill a server.
const FILLERS: usize = 64;
const POD_COLLECTION: &str = "/api/v1/namespaces/default/pods";

/// Runs the part of this name.
pub async fn run(part: &str, subject: &Subject, table: &mut Table) -> anyhow::Result<()> {
    match part {
        "start" => start::run(subject, table).await,
        "cluster" => cluster::run(subject, table).await,
        "memory" => memory::run(subject, table).await,
        "writes" => writes::run(subject, table).await,
        "pods" => pods::run(subject, table).await,
        "reads" => reads::run(subject, table).await,
        "lists" => lists::run(subject, table).await,
        "watch" => watch::run(subject, table).await,
        "delete" => delete::run(subject, table).await,
        "schedule" => schedule::run(subject, table).await,
        "replicas" => replicas::run(subject, table).await,
        "definitions" => definitions::run(subject, table).await,
        "authorization" => authorization::run(subject, table).await,
        other => unreachable!("no part is called {other}"),
    }
}

/// A pod as people write them: some 3 KiB once the server has defaulted it.
fn pod(name: &str, node: Option<&str>) -> Value {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name,
            "labels": {"app": "bench", "tier": "web"},
            "annotations": {"example.com/owner": "bench"},
        },
        "spec": {
            "containers": [{
                "name": "main", "image": "nginx:1.27", "ports": [{"containerPort": 80}],
                "env": [
                    {"name": "A", "value": "1"},
                    {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                ],
                "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "128Mi"}},
                "readinessProbe": {"httpGet": {"path": "/", "port": 80}},
            }],
        },
    });
    if let Some(node) = node {
        pod["spec"]["nodeName"] = node.into();
    }
    pod
}

/// Creates `count` pods, and gives how long that took.
async fn fill(endpoint: &Endpoint, prefix: &str, count: usize) -> anyhow::Result<Duration> {
    load::each(endpoint, FILLERS, count, |number| Ask::post(POD_COLLECTION, &pod(&format!("{prefix}-{number}"), None)))
        .await
}

/// Makes nodes that no kubelet stands behind: large, Ready, without a taint.
async fn make_nodes(endpoint: &Endpoint, count: usize) -> anyhow::Result<()> {
    let mut connection = Connection::open(endpoint).await?;
    for number in 0..count {
        let name = node_name(number);
        let size = json!({"cpu": "64", "memory": "256Gi", "pods": "500", "ephemeral-storage": "1Ti"});
        let node = json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {
                "name": name,
                "labels": {
                    "kubernetes.io/hostname": name,
                    "topology.kubernetes.io/zone": format!("zone-{}", number % 3),
                },
            },
        });
        connection.send(&Ask::post("/api/v1/nodes", &node)).await?;
        let status = json!({"status": {
            "capacity": size, "allocatable": size,
            "conditions": [{
                "type": "Ready", "status": "True", "reason": "KubeletReady", "message": "simulated",
                "lastHeartbeatTime": "2026-01-01T00:00:00Z", "lastTransitionTime": "2026-01-01T00:00:00Z",
            }],
        }});
        let path = format!("/api/v1/nodes/{name}");
        connection.send(&merge_patch(format!("{path}/status"), &status)).await?;
        // Every new node is tainted as not ready until a controller, which need not run here, sees that it is.
        connection.send(&merge_patch(path, &json!({"spec": {"taints": null}}))).await?;
    }
    Ok(())
}

/// The name of the node of this number.
fn node_name(number: usize) -> String {
    format!("simulated-{number}")
}

fn merge_patch(path: String, patch: &Value) -> Ask {
    Ask { method: "PATCH", content_type: "application/merge-patch+json", ..Ask::post(path, patch) }
}

/// Waits until a controller has made the default ServiceAccount, without which no pod is let in.
async fn default_account(endpoint: &Endpoint) -> anyhow::Result<()> {
    let mut connection = Connection::open(endpoint).await?;
    let until = std::time::Instant::now() + Duration::from_secs(60);
    while let Err(error) = connection.get("/api/v1/namespaces/default/serviceaccounts/default").await {
        if std::time::Instant::now() > until {
            return Err(error);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
