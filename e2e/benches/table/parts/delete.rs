//! Deleting a whole collection with one request.

use std::time::Instant;

use super::{POD_COLLECTION, fill};
use crate::figures::DELETE_COLLECTION;
use crate::load::{Ask, Connection};
use crate::subject::{ControlPlane, Subject};
use crate::table::Table;

const PODS: usize = 5_000;

pub async fn run(subject: &Subject, table: &mut Table) -> anyhow::Result<()> {
    let plane = ControlPlane::api(subject, &[]).await?;
    fill(&plane.endpoint, "deleted", PODS).await?;
    let mut connection = Connection::open(&plane.endpoint).await?;
    let ask = Ask { method: "DELETE", ..Ask::get(format!("{POD_COLLECTION}?gracePeriodSeconds=0")) };
    let started = Instant::now();
    connection.count(&ask).await?;
    table.set(subject.kind, DELETE_COLLECTION, started.elapsed().as_secs_f64());
    plane.stop().await
}
