//! Clients that others wrote: kube-rs, Python's `kubernetes` and JavaScript's `@kubernetes/client-node`
//! list, create, patch and watch without a workaround.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use serde_json::json;
use tokio::process::Command;

use crate::cluster::{Cluster, finish};

/// A watch that shows nothing for this long shows nothing.
const SOON: Duration = Duration::from_secs(20);

pub async fn kube_rs(cluster: &Cluster) -> anyhow::Result<()> {
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), "default");
    ensure!(!pods.list(&ListParams::default().labels("app=hostnames")).await?.items.is_empty());

    let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), "default");
    let before = maps.list_metadata(&ListParams::default()).await?.metadata.resource_version.context("a revision")?;
    let mut events = maps.watch(&WatchParams::default().fields("metadata.name=e2e-kube-rs"), &before).await?.boxed();

    let map: ConfigMap = serde_json::from_value(json!({"metadata": {"name": "e2e-kube-rs"}, "data": {"a": "1"}}))?;
    maps.create(&PostParams::default(), &map).await?;
    let patch = Patch::Merge(json!({"data": {"a": null, "b": "2"}}));
    let patched = maps.patch("e2e-kube-rs", &PatchParams::default(), &patch).await?;
    ensure!(patched.data == Some([("b".to_owned(), "2".to_owned())].into()), "{:?}", patched.data);
    let again = maps.create(&PostParams::default(), &map).await;
    ensure!(matches!(again, Err(kube::Error::Api(ref status)) if status.reason == "AlreadyExists"), "{again:?}");
    maps.delete("e2e-kube-rs", &DeleteParams::default()).await?;

    let mut seen = Vec::new();
    while seen.last() != Some(&"deleted") {
        let event = tokio::time::timeout(SOON, events.try_next()).await.context("no event")??;
        match event.context("the watch ended")? {
            WatchEvent::Added(_) => seen.push("added"),
            WatchEvent::Modified(_) => seen.push("modified"),
            WatchEvent::Deleted(_) => seen.push("deleted"),
            WatchEvent::Bookmark(_) => {}
            WatchEvent::Error(error) => anyhow::bail!("{error:?}"),
        }
    }
    ensure!(seen == ["added", "modified", "deleted"], "{seen:?}");
    Ok(())
}

pub async fn python(cluster: &Cluster) -> anyhow::Result<()> {
    let python = python_with(&["kubernetes", "kopf"]).await?;
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/python_client.py");
    let mut command = Command::new(python);
    let printed = finish(command.arg(program).env("KUBECONFIG", &cluster.kubeconfig), None).await?;
    ensure!(printed.trim_end().ends_with("all as expected"), "{printed}");
    Ok(())
}

pub async fn javascript(cluster: &Cluster) -> anyhow::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/javascript");
    if !folder.join("node_modules/@kubernetes/client-node").exists() {
        tokio::fs::create_dir_all(&folder).await?;
        let mut npm = Command::new("npm");
        npm.args(["install", "--no-audit", "--no-fund", "--prefix"]).arg(&folder).arg("@kubernetes/client-node@1");
        finish(&mut npm, None).await.context("npm install")?;
    }
    // Modules are looked for beside the program.
    let program = folder.join("javascript_client.mjs");
    tokio::fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/clients/javascript_client.mjs"), &program).await?;
    let mut command = Command::new("node");
    let printed = finish(command.arg(program).env("KUBECONFIG", &cluster.kubeconfig), None).await?;
    ensure!(printed.trim_end().ends_with("all as expected"), "{printed}");
    Ok(())
}

/// A Python that has some packages, in an environment of its own under `target`.
pub(super) async fn python_with(packages: &[&str]) -> anyhow::Result<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/python");
    let python = folder.join("bin/python3");
    let has_packages = |python: &Path| {
        let mut command = Command::new(python);
        command.args(["-c", &format!("import {}", packages.join(", "))]);
        command
    };
    if !python.exists() || finish(&mut has_packages(&python), None).await.is_err() {
        finish(Command::new("python3").arg("-m").arg("venv").arg(&folder), None).await?;
        finish(Command::new(&python).args(["-m", "pip", "install", "--quiet"]).args(packages), None).await?;
    }
    Ok(python)
}
