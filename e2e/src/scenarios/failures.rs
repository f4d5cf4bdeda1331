//! Processes die at the worst moments; the cluster reaches the state that it was asked for.

use std::collections::BTreeMap;

use anyhow::ensure;
use serde_json::Value;

use crate::cluster::{Cluster, eventually};
use crate::machine;

/// What must not change while a node's processes die: each container's id and its restarts.
fn containers(list: &Value) -> BTreeMap<String, (String, i64)> {
    let mut found = BTreeMap::new();
    for pod in list["items"].as_array().into_iter().flatten() {
        for status in pod["status"]["containerStatuses"].as_array().into_iter().flatten() {
            let name = format!("{}/{}", pod["metadata"]["name"], status["name"]);
            let id = status["containerID"].as_str().unwrap_or_default().to_owned();
            found.insert(name, (id, status["restartCount"].as_i64().unwrap_or(-1)));
        }
    }
    found
}

async fn all_ready(cluster: &Cluster) -> anyhow::Result<()> {
    eventually("Ready nodes and pods", async || {
        let nodes = cluster.get("nodes").await?;
        for node in nodes["items"].as_array().into_iter().flatten() {
            ensure!(crate::cluster::is_ready(node), "{} is not Ready", node["metadata"]["name"]);
        }
        let pods = cluster.get("pods").await?;
        for pod in pods["items"].as_array().into_iter().flatten() {
            ensure!(crate::cluster::is_ready(pod), "{} is not Ready", pod["metadata"]["name"]);
        }
        Ok(())
    })
    .await
}

pub async fn node_processes_disturb_no_pod(cluster: &Cluster) -> anyhow::Result<()> {
    all_ready(cluster).await?;
    let before = containers(&cluster.get("pods").await?);
    for process in machine::processes()?.iter().filter(|name| name.starts_with("node-")) {
        machine::kill_and_return(process).await?;
    }
    // Something new must be able to start on every node before the old is looked at.
    cluster.kubectl("rollout restart deployment/sample-deployment-nginx").await?;
    cluster.kubectl("rollout status deployment/sample-deployment-nginx --timeout=90s").await?;
    all_ready(cluster).await?;
    let after = containers(&cluster.get("pods").await?);
    for (name, state) in before.iter().filter(|(name, _)| !name.contains("sample-deployment-nginx")) {
        ensure!(after.get(name) == Some(state), "{name} was disturbed: {state:?} became {:?}", after.get(name));
    }
    Ok(())
}

pub async fn any_process_killed_mid_rollout(cluster: &Cluster) -> anyhow::Result<()> {
    for process in machine::processes()? {
        let marker = format!("e2e-{process}");
        cluster.kubectl(&format!("create configmap {marker}")).await?;
        cluster.kubectl("rollout restart deployment/hostnames").await?;
        machine::kill_and_return(&process).await?;
        eventually("the rollout's end", async || {
            cluster.kubectl("rollout status deployment/hostnames --timeout=60s").await
        })
        .await?;
        cluster.settled("app=hostnames", 3).await?;
        // What was acknowledged before the kill is still there.
        cluster.kubectl(&format!("delete configmap {marker}")).await?;
    }
    all_ready(cluster).await
}
