//! Watchers that note how long an event took from its writer to them.
//!
//! Each event says when it was sent and which one it is, and each watcher checks that none is left out, comes twice or
//! out of order: a server that loses one is told apart from one that is late.

use std::cell::Cell;
use std::pin::pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use futures::future::join_all;
use serde_json::json;
use tokio::sync::Notify;

use crate::load::{Ask, Connection, Stream};
use crate::subject::Endpoint;

const WATCHED: &str = "/api/v1/namespaces/default/configmaps";
/// In front of what an event says of itself.
const MARK: &[u8] = br#""sent":""#;
/// Digits of the time of sending, in microseconds: of the same length for a day to come.
const TIME_DIGITS: usize = 12;
/// Digits of its number.
const NUMBER_DIGITS: usize = 6;
const DIGITS: usize = TIME_DIGITS + NUMBER_DIGITS;
/// How long nothing at all may come before what is missing is taken for lost.
const SILENCE: Duration = Duration::from_secs(15);
/// How much longer than the load everything may take. A machine that has other things to do needs several times as
/// long, and still loses nothing.
const LONGEST: Duration = Duration::from_secs(60);

/// What the watchers saw.
#[derive(Debug, Default)]
pub struct FanOut {
    /// Delays from the sending of a write to its arrival, over all watchers, sorted. What had not come when the time
    /// was up counts with the time it had waited.
    pub delays: Vec<Duration>,
    /// Events that had not come when the time was up, of all watchers.
    pub missing: usize,
    /// Watchers that the server cut off.
    pub cut_off: usize,
    /// Events written per second.
    pub rate: f64,
}

impl FanOut {
    /// The delay that this share of the events did not exceed, in milliseconds.
    pub fn quantile(&self, share: f64) -> f64 {
        let last = self.delays.len().saturating_sub(1) as f64;
        self.delays.get((last * share) as usize).map_or(f64::NAN, |delay| delay.as_secs_f64() * 1e3)
    }
}

/// What watchers and writer share.
struct Course {
    started: Instant,
    events: usize,
    /// When something last came, to anybody.
    heard: Cell<Instant>,
    /// When each event was sent.
    sent: Cell<Vec<Duration>>,
    /// When to give up, whatever comes.
    end: Instant,
    /// Given up.
    over: Notify,
}

/// Ends the watchers when there is nothing to wait for any more. One timer for all of them: one for each read would cost
/// as much as the read.
async fn give_up(course: Rc<Course>) {
    loop {
        let until = course.end.min(course.heard.get() + SILENCE);
        if Instant::now() >= until {
            return course.over.notify_waiters();
        }
        tokio::time::sleep_until(until.into()).await;
    }
}

/// Watches a collection with `watchers` connections while events are written into it.
///
/// # Errors
/// When the server loses, repeats or reorders events, and when it does not answer at all.
pub async fn fan_out(endpoint: &Endpoint, watchers: usize, per_second: u32, time: Duration) -> anyhow::Result<FanOut> {
    let events = (time.as_secs_f64() * f64::from(per_second)) as usize;
    let mut streams = Vec::new();
    // From now on: what was there before is not sent.
    let list = Connection::open(endpoint).await?.get_json(&format!("{WATCHED}?limit=1")).await?;
    let version = list["metadata"]["resourceVersion"].as_str().context("a list has a version")?.to_owned();
    for _ in 0..watchers {
        let connection = Connection::open(endpoint).await?;
        streams.push(connection.watch(&Ask::get(format!("{WATCHED}?watch=true&resourceVersion={version}"))).await?);
    }
    let started = Instant::now();
    let course = Rc::new(Course {
        started,
        events,
        heard: Cell::new(started),
        sent: Cell::default(),
        end: started + time + LONGEST,
        over: Notify::new(),
    });
    // Each watcher is a task of its own, so that an event wakes those it came for and nobody else.
    let local = tokio::task::LocalSet::new();
    let readers: Vec<_> = streams.into_iter().map(|stream| local.spawn_local(delays(stream, course.clone()))).collect();
    local.spawn_local(give_up(course.clone()));
    local
        .run_until(async move {
            let rate = write(endpoint, per_second, &course).await?;
            let mut seen = FanOut { rate, ..FanOut::default() };
            let sent = course.sent.take();
            for reader in join_all(readers).await {
                let mut reader = reader??;
                seen.cut_off += usize::from(reader.cut_off);
                let missing = &sent[reader.delays.len().min(sent.len())..];
                if !reader.cut_off {
                    seen.missing += missing.len();
                    reader.delays.extend(missing.iter().map(|sent| reader.ended.saturating_sub(*sent)));
                }
                seen.delays.append(&mut reader.delays);
            }
            seen.delays.sort_unstable();
            Ok(seen)
        })
        .await
}

/// Writes the events, each at its time or as soon after it as the server lets; answers how many per second.
async fn write(endpoint: &Endpoint, per_second: u32, course: &Course) -> anyhow::Result<f64> {
    let mut writer = Connection::open(endpoint).await?;
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / per_second);
    let mut sent = Vec::with_capacity(course.events);
    for number in 0..course.events {
        ticks.tick().await;
        if Instant::now() > course.end {
            bail!("only {number} of {} events could be written in time", course.events);
        }
        let now = course.started.elapsed();
        let map = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": format!("watched-{number}")},
            "data": {"sent": format!("{:0TIME_DIGITS$}{number:0NUMBER_DIGITS$}", now.as_micros())},
        });
        writer.count(&Ask::post(WATCHED, &map)).await?;
        sent.push(now);
        course.heard.set(Instant::now());
    }
    course.sent.set(sent);
    Ok(course.events as f64 / course.started.elapsed().as_secs_f64())
}

/// What one watcher saw.
struct Seen {
    delays: Vec<Duration>,
    cut_off: bool,
    /// When it stopped, counted as the delays are.
    ended: Duration,
}

/// Reads until every event has come, the server ends the watch, or there is no more to wait for.
async fn delays(mut stream: Stream, course: Rc<Course>) -> anyhow::Result<Seen> {
    let mut delays = Vec::with_capacity(course.events);
    let mut cut_off = false;
    let mut over = pin!(course.over.notified());
    while delays.len() < course.events {
        let read = tokio::select! {
            biased;
            read = stream.more() => read,
            () = over.as_mut() => break,
        };
        let Ok(bytes) = read else {
            cut_off = true;
            break;
        };
        let arrived = course.started.elapsed();
        course.heard.set(course.started + arrived);
        let mut used = bytes.len().saturating_sub(MARK.len() + DIGITS - 1);
        for at in memchr::memmem::find_iter(bytes, MARK) {
            let from = at + MARK.len();
            let Some(digits) = bytes.get(from..from + DIGITS) else { break };
            let (sent, number) = std::str::from_utf8(digits)?.split_at(TIME_DIGITS);
            let (sent, number): (u64, usize) = (sent.parse()?, number.parse()?);
            if number != delays.len() {
                bail!("a watcher got event {number} where {} was next", delays.len());
            }
            delays.push(arrived.saturating_sub(Duration::from_micros(sent)));
            used = used.max(from + DIGITS);
        }
        stream.used(used);
    }
    Ok(Seen { delays, cut_off, ended: course.started.elapsed() })
}
