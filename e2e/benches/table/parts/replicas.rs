//! A Deployment of many replicas, until each of them is a Pod object.

use std::time::Duration;

use serde_json::json;

use super::default_account;
use crate::figures::{REPLICAS_DEFAULT, REPLICAS_RAISED, REPLICAS_SERVER};
use crate::load::{Ask, Connection, arrivals};
use crate::subject::{ControlPlane, Kind, Limits, Subject};
use crate::table::Table;

const REPLICAS: usize = 3_000;
/// How long a control plane settles after its start.
const STARTED: Duration = Duration::from_secs(2);
/// What is not done by then is extrapolated: upstream's default limits take minutes, at an even pace.
const PATIENCE: Duration = Duration::from_secs(15);

pub async fn run(subject: &Subject, table: &mut Table) -> anyhow::Result<()> {
    for (what, limits) in [(REPLICAS_DEFAULT, Limits::Default), (REPLICAS_RAISED, Limits::Raised)] {
        let mut plane = ControlPlane::prepare(subject).await?;
        plane.start_api(&[]).await?;
        plane.start_controllers(limits)?;
        table.set(subject.kind, what, deployment(&plane).await?);
        plane.stop().await?;
    }
    if subject.kind == Kind::Keelson {
        let plane = ControlPlane::whole(subject, Limits::Default).await?;
        // What a start does besides is not what is measured.
        tokio::time::sleep(STARTED).await;
        table.set(subject.kind, REPLICAS_SERVER, deployment(&plane).await?);
        plane.stop().await?;
    }
    Ok(())
}

/// Seconds from the creation of a Deployment to its last pod.
async fn deployment(plane: &ControlPlane) -> anyhow::Result<f64> {
    default_account(&plane.endpoint).await?;
    // Nobody schedules these: it is the controllers that are measured.
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "many"},
        "spec": {
            "replicas": REPLICAS,
            "selector": {"matchLabels": {"app": "many"}},
            "template": {
                "metadata": {"labels": {"app": "many"}},
                "spec": {"schedulerName": "nobody", "containers": [{"name": "main", "image": "nginx:1.27"}]},
            },
        },
    });
    let path = "/api/v1/namespaces/default/pods?watch=true";
    let pods = arrivals(&plane.endpoint, path, REPLICAS, PATIENCE).await?;
    let mut connection = Connection::open(&plane.endpoint).await?;
    connection.send(&Ask::post("/apis/apps/v1/namespaces/default/deployments", &deployment)).await?;
    let times = pods.await?.times;
    anyhow::ensure!(times.len() > 1, "hardly a pod was created");
    let (first, last) = (times[0].as_secs_f64(), times[times.len() - 1].as_secs_f64());
    Ok(first + (last - first) * (REPLICAS - 1) as f64 / (times.len() - 1) as f64)
}
