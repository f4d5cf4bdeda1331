//! Quotas of devices by the name of an extended resource: pods that ask for it and claims of the class behind it count
//! together (KEP-5004), nothing exceeds the limit, and what goes is counted no longer.

use anyhow::{bail, ensure};
use serde_json::json;

use crate::cluster::{Cluster, eventually};

const NAMESPACE: &str = "e2e-quota";
const LIMIT: &str = "requests.example.com/gpu";

const QUOTA: &str = r#"
apiVersion: v1
kind: ResourceQuota
metadata: {name: gpus}
spec: {hard: {"requests.example.com/gpu": "3"}}
"#;

const CLASS: &str = r#"
apiVersion: resource.k8s.io/v1
kind: DeviceClass
metadata: {name: e2e-gpu}
spec: {extendedResourceName: example.com/gpu}
"#;

async fn pod(cluster: &Cluster, name: &str, gpus: u32) -> anyhow::Result<()> {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [{
            "name": "c", "image": "busybox:1.37", "resources": {"limits": {"example.com/gpu": gpus.to_string()}},
        }]},
    });
    cluster.kubectl_with(&format!("create -n {NAMESPACE} -f -"), &pod.to_string()).await.map(drop)
}

async fn claim(cluster: &Cluster, name: &str, count: u32) -> anyhow::Result<()> {
    let exactly = json!({"deviceClassName": "e2e-gpu", "allocationMode": "ExactCount", "count": count});
    let claim = json!({
        "apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim", "metadata": {"name": name},
        "spec": {"devices": {"requests": [{"name": "gpu", "exactly": exactly}]}},
    });
    cluster.kubectl_with(&format!("create -n {NAMESPACE} -f -"), &claim.to_string()).await.map(drop)
}

/// Waits until the quota says that so much is used.
async fn used(cluster: &Cluster, amount: &str) -> anyhow::Result<()> {
    eventually(&format!("use of {amount}"), async || {
        let quota = cluster.get(&format!("resourcequota gpus -n {NAMESPACE}")).await?;
        let shown = &quota["status"]["used"][LIMIT];
        ensure!(shown == amount, "{shown}");
        Ok(())
    })
    .await
}

/// The refusal of something that must not be.
fn refused(outcome: anyhow::Result<()>, wants: u32, has: u32) -> anyhow::Result<()> {
    let Err(error) = outcome else { bail!("{wants} more than {has} of 3 were let through") };
    let text = format!("{error:#}");
    let told = format!("exceeded quota: gpus, requested: {LIMIT}={wants}, used: {LIMIT}={has}, limited: {LIMIT}=3");
    ensure!(text.contains(&told), "{text}");
    Ok(())
}

pub async fn extended_resources_are_counted(cluster: &Cluster) -> anyhow::Result<()> {
    cluster.kubectl(&format!("create namespace {NAMESPACE}")).await?;
    cluster.kubectl_with("apply -f -", CLASS).await?;
    cluster.kubectl_with(&format!("apply -n {NAMESPACE} -f -"), QUOTA).await?;
    used(cluster, "0").await?;
    // No node has such a device: that a pod waits for one does not matter to the quota.
    pod(cluster, "two", 2).await?;
    used(cluster, "2").await?;
    refused(pod(cluster, "more", 2).await, 2, 2)?;
    claim(cluster, "one", 1).await?;
    used(cluster, "3").await?;
    refused(claim(cluster, "another", 1).await, 1, 3)?;
    refused(pod(cluster, "more", 1).await, 1, 3)?;
    cluster.kubectl(&format!("delete -n {NAMESPACE} pod two")).await?;
    used(cluster, "1").await?;
    pod(cluster, "more", 2).await?;
    cluster.kubectl(&format!("delete -n {NAMESPACE} resourceclaim one")).await?;
    used(cluster, "2").await?;
    cluster.kubectl("delete deviceclass e2e-gpu").await?;
    cluster.kubectl(&format!("delete namespace {NAMESPACE} --wait=false")).await?;
    Ok(())
}
