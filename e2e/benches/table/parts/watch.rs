//! Events to many watchers: how long after its writer sent it an event is read by each of them.

use std::time::Duration;

use crate::fan_out::fan_out;
use crate::figures::{WATCH_P50, WATCH_P99};
use crate::subject::{ControlPlane, Subject};
use crate::table::Table;

const WATCHERS: usize = 1_000;
const EVENTS_PER_SECOND: u32 = 100;
const WATCH_FOR: Duration = Duration::from_secs(8);

pub async fn run(subject: &Subject, table: &mut Table) -> anyhow::Result<()> {
    let plane = ControlPlane::api(subject, &[]).await?;
    let delays = fan_out(&plane.endpoint, WATCHERS, EVENTS_PER_SECOND, WATCH_FOR).await?;
    let at = |share: f64| delays[((delays.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    table.set(subject.kind, WATCH_P50, at(0.50));
    table.set(subject.kind, WATCH_P99, at(0.99));
    plane.stop().await
}
