//! Watchers that note how long an event took from its writer to them.

use std::time::{Duration, Instant};

use anyhow::Context;
use futures::future::try_join_all;
use serde_json::json;

use crate::load::{Ask, Connection, Stream};
use crate::subject::Endpoint;

const WATCHED: &str = "/api/v1/namespaces/default/configmaps";
/// In front of the time of sending, in each event.
const MARK: &[u8] = br#""sent":""#;
/// Digits of that time: microseconds, of the same length for a day to come.
const DIGITS: usize = 12;
/// How long the last events may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Delays from the sending of a write to its arrival, over all watchers, sorted.
pub async fn fan_out(
    endpoint: &Endpoint,
    watchers: usize,
    per_second: u32,
    time: Duration,
) -> anyhow::Result<Vec<Duration>> {
    let started = Instant::now();
    let events = (time.as_secs_f64() * f64::from(per_second)) as usize;
    let mut streams = Vec::new();
    // From now on: what was there before is not sent.
    let list = Connection::open(endpoint).await?.get_json(&format!("{WATCHED}?limit=1")).await?;
    let version = list["metadata"]["resourceVersion"].as_str().context("a list has a version")?.to_owned();
    for _ in 0..watchers {
        let connection = Connection::open(endpoint).await?;
        streams.push(connection.watch(&Ask::get(format!("{WATCHED}?watch=true&resourceVersion={version}"))).await?);
    }
    let end = tokio::time::Instant::now() + time + PATIENCE;
    let write = async {
        let mut writer = Connection::open(endpoint).await?;
        let mut ticks = tokio::time::interval(Duration::from_secs(1) / per_second);
        for number in 0..events {
            ticks.tick().await;
            let map = json!({
                "apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {"name": format!("watched-{number}")},
                "data": {"sent": format!("{:0DIGITS$}", started.elapsed().as_micros())},
            });
            writer.count(&Ask::post(WATCHED, &map)).await?;
        }
        Ok::<_, anyhow::Error>(())
    };
    // Each watcher is a task of its own, so that an event wakes those it came for and nobody else.
    let local = tokio::task::LocalSet::new();
    let readers: Vec<_> =
        streams.into_iter().map(|stream| local.spawn_local(delays(stream, started, events, end))).collect();
    local
        .run_until(async move {
            write.await?;
            let mut all = Vec::with_capacity(watchers * events);
            for delays in try_join_all(readers).await? {
                all.extend(delays?);
            }
            all.sort_unstable();
            Ok(all)
        })
        .await
}

/// Reads until every event has come.
async fn delays(
    mut stream: Stream,
    started: Instant,
    events: usize,
    end: tokio::time::Instant,
) -> anyhow::Result<Vec<Duration>> {
    let mut delays = Vec::with_capacity(events);
    let read = async {
        while delays.len() < events {
            let bytes = stream.more().await?;
            let arrived = started.elapsed();
            let mut used = bytes.len().saturating_sub(MARK.len() + DIGITS - 1);
            for at in memchr::memmem::find_iter(bytes, MARK) {
                let from = at + MARK.len();
                let Some(digits) = bytes.get(from..from + DIGITS) else { break };
                let sent = std::str::from_utf8(digits)?.parse().context("an event without a time")?;
                delays.push(arrived.saturating_sub(Duration::from_micros(sent)));
                used = used.max(from + DIGITS);
            }
            stream.used(used);
        }
        Ok::<_, anyhow::Error>(())
    };
    tokio::time::timeout_at(end, read).await.context("events are missing")??;
    Ok(delays)
}
