//! Events to many watchers: how long after its writer sent it an event is read by each of them.

use std::time::Duration;

use crate::fan_out::fan_out;
use crate::figures::{WATCH_P50, WATCH_P99};
use crate::subject::{ControlPlane, Subject};
use crate::table::Table;

const WATCHERS: usize = 1_000;
const EVENTS_PER_SECOND: u32 = 100;
const WATCH_FOR: Duration = Duration::from_secs(6);

pub async fn run(subject: &Subject, table: &mut Table) -> anyhow::Result<()> {
    let plane = ControlPlane::api(subject, &[]).await?;
    let seen = fan_out(&plane.endpoint, WATCHERS, EVENTS_PER_SECOND, WATCH_FOR).await?;
    table.set(subject.kind, WATCH_P50, seen.quantile(0.50));
    table.set(subject.kind, WATCH_P99, seen.quantile(0.99));
    let whose = subject.kind.name();
    if seen.cut_off > 0 {
        table.note(format!("watch, {whose}: the server cut off {} of {WATCHERS} watchers", seen.cut_off));
    }
    if seen.missing > 0 {
        let all = seen.delays.len();
        table.note(format!("watch, {whose}: {} of {all} events were still on their way in the end", seen.missing));
    }
    if seen.rate < f64::from(EVENTS_PER_SECOND) * 0.95 {
        table.note(format!("watch, {whose}: only {:.0} events a second could be written", seen.rate));
    }
    plane.stop().await
}
