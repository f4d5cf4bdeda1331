//! What people type.

use anyhow::{Context, ensure};

use crate::cluster::{Cluster, eventually, finish};

pub async fn output_formats(cluster: &Cluster) -> anyhow::Result<()> {
    let wide = cluster.kubectl("get pods -A -o wide").await?;
    let header = wide.lines().next().unwrap_or_default();
    for column in ["NAMESPACE", "NAME", "READY", "STATUS", "RESTARTS", "AGE", "IP", "NODE"] {
        ensure!(header.contains(column), "no column {column}: {header}");
    }
    let names = cluster.kubectl("get pods -o name").await?;
    ensure!(names.lines().all(|line| line.starts_with("pod/")), "{names}");
    let yaml = cluster.kubectl("get pod sample-java -o yaml").await?;
    ensure!(yaml.starts_with("apiVersion: v1\nkind: Pod\nmetadata:\n"), "{yaml}");
    let selected = cluster.kubectl("get pods -l app=hostnames -o name").await?;
    ensure!(selected.lines().count() == 3, "{selected}");
    let path = cluster.kubectl("get pod sample-java -o jsonpath={.spec.containers[*].name}").await?;
    ensure!(path == "server", "{path}");
    Ok(())
}

pub async fn logs_and_exec(cluster: &Cluster) -> anyhow::Result<()> {
    let logs = cluster.kubectl("logs deployment/hostnames").await?;
    ensure!(logs.contains("serving hostnames-"), "{logs}");
    let answer = cluster.kubectl_with("exec -i hello-pod -c hello-busybox -- tr a-z A-Z", "through the pipe\n").await?;
    ensure!(answer == "THROUGH THE PIPE\n", "{answer:?}");
    let mut exit = cluster.command("exec hello-pod -c hello-busybox -- sh -c");
    let error = finish(exit.arg("exit 7"), None).await.err().context("the command's exit code is lost")?;
    ensure!(error.to_string().contains('7'), "{error}");
    Ok(())
}

pub async fn describe_explain_and_discovery(cluster: &Cluster) -> anyhow::Result<()> {
    let pod = cluster.kubectl("describe pod sample-java").await?;
    for part in ["Name:", "Namespace:", "Init Containers:", "Conditions:", "Volumes:", "Events:"] {
        ensure!(pod.contains(part), "describe lacks {part}: {pod}");
    }
    let field = cluster.kubectl("explain deployment.spec.replicas").await?;
    ensure!(field.contains("KIND:") && field.contains("FIELD: replicas"), "{field}");
    let resources = cluster.kubectl("api-resources").await?;
    for resource in ["pods", "deployments", "endpointslices", "leases", "customresourcedefinitions"] {
        ensure!(resources.lines().any(|line| line.starts_with(resource)), "no {resource}: {resources}");
    }
    let statuses = cluster.kubectl("get componentstatuses --no-headers").await?;
    for component in ["controller-manager", "etcd-0", "scheduler"] {
        let healthy = |line: &str| line.split_whitespace().take(3).eq([component, "Healthy", "ok"]);
        ensure!(statuses.lines().any(healthy), "{component} is not well: {statuses}");
    }
    let version = cluster.kubectl("version -o json").await?;
    let version: serde_json::Value = serde_json::from_str(&version)?;
    ensure!(version["serverVersion"]["minor"] == "36", "{version}");
    Ok(())
}

pub async fn create_scale_delete(cluster: &Cluster) -> anyhow::Result<()> {
    let manifest = r#"
apiVersion: apps/v1
kind: Deployment
metadata:
  name: e2e-scaled
spec:
  replicas: 1
  selector:
    matchLabels: {app: e2e-scaled}
  template:
    metadata:
      labels: {app: e2e-scaled}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
        - {name: shell, image: "busybox:1.37", command: [sleep, "100000"]}
"#;
    cluster.kubectl_with("create -f -", manifest).await?;
    cluster.settled("app=e2e-scaled", 1).await?;
    cluster.kubectl("scale deployment/e2e-scaled --replicas=2").await?;
    cluster.settled("app=e2e-scaled", 2).await?;
    cluster.kubectl("delete deployment e2e-scaled").await?;
    // The ReplicaSet and its pods go with their owner.
    eventually("empty label", async || {
        let left = cluster.kubectl("get replicasets,pods -l app=e2e-scaled -o name").await?;
        ensure!(left.is_empty(), "{left}");
        Ok(())
    })
    .await
}

pub async fn removed_version(cluster: &Cluster) -> anyhow::Result<()> {
    let manifest = "apiVersion: extensions/v1beta1\nkind: Ingress\nmetadata: {name: sample-ingress}\n";
    let error = cluster.kubectl_with("apply -f -", manifest).await.err().context("an Ingress of 2015 is accepted")?;
    ensure!(format!("{error:#}").contains("extensions/v1beta1"), "{error:#}");
    Ok(())
}
