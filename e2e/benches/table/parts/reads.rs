//! GET of one object, and what it costs the server.

use std::time::Instant;

use serde_json::json;

use super::LOAD_FOR;
use crate::figures::{GET, GET_CPU};
use crate::load::{Ask, Connection, rate};
use crate::subject::{ControlPlane, Endpoint, Subject};
use crate::table::Table;

const CLIENTS: usize = 64;

pub async fn run(subject: &Subject, table: &mut Table) -> anyhow::Result<()> {
    let plane = ControlPlane::api(subject, &[]).await?;
    let mut connection = Connection::open(&plane.endpoint).await?;
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "read"}, "data": {"key": "value"}});
    connection.send(&Ask::post("/api/v1/namespaces/default/configmaps", &map)).await?;
    let (per_second, cpu) = get(&plane, &plane.endpoint, "/api/v1/namespaces/default/configmaps/read").await?;
    table.set(subject.kind, GET, per_second);
    table.set(subject.kind, GET_CPU, cpu);
    plane.stop().await
}

/// Requests per second for `path`, and the server's processor time for each in microseconds.
pub async fn get(plane: &ControlPlane, endpoint: &Endpoint, path: &str) -> anyhow::Result<(f64, f64)> {
    let (before, started) = (plane.cpu(), Instant::now());
    let per_second = rate(endpoint, CLIENTS, LOAD_FOR, |_, _| Ask::get(path)).await?;
    let requests = per_second * started.elapsed().as_secs_f64();
    Ok((per_second, (plane.cpu() - before).as_secs_f64() * 1e6 / requests))
}
