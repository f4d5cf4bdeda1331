//! Scheduling: pods that wait when the scheduler starts, until the last one has a node.
//!
//! The rate is taken from the first binding to the last, so that a program's start is not part of it. Where the scheduler
//! runs already, because it is in the same process as everything else, the nodes are closed while the pods are made.

use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::json;

use super::{FILLERS, default_account, fill, make_nodes, merge_patch, node_name};
use crate::figures::{SCHEDULE_DEFAULT, SCHEDULE_RAISED, SCHEDULE_SERVER};
use crate::load::{self, Arrivals, Ask, Connection, METADATA_LIST, arrivals};
use crate::subject::{ControlPlane, Endpoint, Kind, Limits, Subject};
use crate::table::Table;

const NODES: usize = 100;
const PODS: usize = 1_000;
/// Longest wait for a batch; upstream's default limits take half of it.
const PATIENCE: Duration = Duration::from_secs(60);
/// A pod that found no node is not looked at again before its back-off is over: a second, after the first failure.
const BACK_OFF: Duration = Duration::from_secs(3);
/// How long every pod may take to be found without a node.
const TRIED: Duration = Duration::from_secs(20);
const API_SERVER: &str = "kube-apiserver";

pub async fn run(subject: &Subject, table: &mut Table) -> anyhow::Result<()> {
    let mut plane = ControlPlane::api(subject, &[]).await?;
    make_nodes(&plane.endpoint, NODES).await?;
    let batches = [("default", SCHEDULE_DEFAULT, Limits::Default), ("raised", SCHEDULE_RAISED, Limits::Raised)];
    let mut created = 0;
    for (prefix, what, limits) in batches {
        fill(&plane.endpoint, prefix, PODS).await?;
        created += PODS;
        let bound = bound(&plane, created).await?;
        plane.start_scheduler(limits)?;
        table.set(subject.kind, what, rate(bound.await?)?);
        plane.end("kube-scheduler").await?;
    }
    if subject.kind == Kind::Keelson {
        plane.end(API_SERVER).await?;
        plane.start_server().await?;
        default_account(&plane.endpoint).await?;
        close_nodes(&plane.endpoint, true).await?;
        fill(&plane.endpoint, "server", PODS).await?;
        tried(&plane.endpoint).await?;
        tokio::time::sleep(BACK_OFF).await;
        let bound = bound(&plane, created + PODS).await?;
        // Read from the beginning: what arrives while the nodes open counts from then.
        let (bound, opened) = futures::join!(bound, close_nodes(&plane.endpoint, false));
        opened?;
        table.set(subject.kind, SCHEDULE_SERVER, rate(bound?)?);
    }
    plane.stop().await
}

/// Begins to watch for pods that get a node: those of the last batch that have none yet.
async fn bound(
    plane: &ControlPlane,
    created: usize,
) -> anyhow::Result<impl Future<Output = anyhow::Result<Arrivals>> + use<>> {
    const BOUND: &str = "/api/v1/pods?fieldSelector=spec.nodeName!%3D";
    let mut connection = Connection::open(&plane.endpoint).await?;
    let list = connection.send(&Ask::get(BOUND).accept(METADATA_LIST)).await?;
    let list: serde_json::Value = serde_json::from_slice(&list)?;
    let before = list["items"].as_array().map_or(0, Vec::len);
    let version = list["metadata"]["resourceVersion"].as_str().context("a list has a version")?;
    let path = format!("{BOUND}&watch=true&resourceVersion={version}");
    arrivals(&plane.endpoint, &path, created.saturating_sub(before), PATIENCE).await
}

/// Taints every node, so that no pod fits, or takes the taint away. Unlike a cordon, no controller has a say in that.
async fn close_nodes(endpoint: &Endpoint, closed: bool) -> anyhow::Result<()> {
    let taints = json!([{"key": "bench", "value": "closed", "effect": "NoSchedule"}]);
    let patch = json!({"spec": {"taints": closed.then_some(taints)}});
    let ask = |number| merge_patch(format!("/api/v1/nodes/{}", node_name(number)), &patch);
    load::each(endpoint, FILLERS.min(NODES), NODES, ask).await?;
    Ok(())
}

/// Waits until each pod of a batch is known not to fit anywhere.
async fn tried(endpoint: &Endpoint) -> anyhow::Result<()> {
    let mut connection = Connection::open(endpoint).await?;
    let until = tokio::time::Instant::now() + TRIED;
    loop {
        let waiting = connection.get("/api/v1/pods?fieldSelector=spec.nodeName%3D").await?;
        let tried = memchr::memmem::find_iter(&waiting, br#""reason":"Unschedulable""#).count();
        if tried >= PODS || tokio::time::Instant::now() > until {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn rate(arrivals: Arrivals) -> anyhow::Result<f64> {
    let (Some(first), Some(last)) = (arrivals.times.first(), arrivals.times.last()) else {
        bail!("nothing was scheduled");
    };
    Ok((arrivals.times.len() - 1) as f64 / (*last - *first).as_secs_f64())
}
