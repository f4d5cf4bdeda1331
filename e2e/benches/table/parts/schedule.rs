//! Scheduling: pods that wait when the scheduler starts, until the last one has a node.
//!
//! The rate is taken from the first binding to the last, so that a program's start is not part of it.

use std::time::Duration;

use anyhow::{Context, bail};

use super::{fill, make_nodes};
use crate::figures::{SCHEDULE_DEFAULT, SCHEDULE_RAISED, SCHEDULE_SERVER};
use crate::load::{Arrivals, Ask, Connection, METADATA_LIST, arrivals};
use crate::subject::{ControlPlane, Kind, Limits, Subject};
use crate::table::Table;

const NODES: usize = 100;
const PODS: usize = 1_000;
/// Longest wait for a batch; upstream's default limits take half of it.
const PATIENCE: Duration = Duration::from_secs(60);
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
        fill(&plane.endpoint, "server", PODS).await?;
        plane.end(API_SERVER).await?;
        // Its sockets open after its scheduler: some of the pods are bound before anybody can watch, and the rate
        // is of the rest.
        plane.start_server().await?;
        let bound = bound(&plane, created + PODS).await?;
        table.set(subject.kind, SCHEDULE_SERVER, rate(bound.await?)?);
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

fn rate(arrivals: Arrivals) -> anyhow::Result<f64> {
    let (Some(first), Some(last)) = (arrivals.times.first(), arrivals.times.last()) else {
        bail!("nothing was scheduled");
    };
    Ok((arrivals.times.len() - 1) as f64 / (*last - *first).as_secs_f64())
}
