//! When a CronJob runs next, and which run it has missed. Pure.

use std::time::Duration;

use apimachinery::cron::Schedule;
use client::Timestamp;

use crate::types::CronJob;

/// A run is looked for this long after its time, so that clocks that differ a little do not miss it.
const DELTA: Duration = Duration::from_millis(100);

/// So many missed runs are reported; upstream's number.
const MANY: i64 = 100;

/// The latest run that should have begun.
#[derive(Debug, PartialEq, Eq)]
pub struct Missed {
    /// From when on runs were looked for.
    pub earliest: Timestamp,
    pub latest: Option<Timestamp>,
    /// How many there were, roughly.
    pub count: i64,
}

impl Missed {
    pub fn is_many(&self) -> bool {
        self.count > MANY
    }
}

/// Looks for runs between the last one and now. With `deadline`, those beyond the starting deadline do not count.
///
/// # Errors
/// A schedule whose times are less than a second apart.
pub fn missed(job: &CronJob, now: Timestamp, schedule: &Schedule, deadline: bool) -> Result<Missed, String> {
    let mut earliest = job.status.last_schedule_time.or(job.metadata.creation_timestamp).unwrap_or(now);
    if let Some(seconds) = job.spec.starting_deadline_seconds.filter(|_| deadline)
        && let Ok(latest) = now.checked_sub(Duration::from_secs(seconds.max(0) as u64))
    {
        earliest = earliest.max(latest);
    }
    let none = |count| Missed { earliest, latest: None, count };
    let Some(first) = schedule.next(earliest).filter(|first| *first <= now) else { return Ok(none(0)) };
    let second = match schedule.next(first) {
        Some(second) if second <= now => second,
        _ => return Ok(Missed { earliest, latest: Some(first), count: 0 }),
    };
    let between = second.as_second() - first.as_second();
    if between < 1 {
        return Err("time difference between two schedules is less than 1 second".to_string());
    }
    // A schedule need not be regular, so the last of many runs is searched for near where a regular one has it.
    let count = (now.as_second() - first.as_second()) / between + 1;
    let mut at = first.checked_add(jiff::SignedDuration::from_secs((count - 2) * between)).unwrap_or(first);
    let mut latest = None;
    while let Some(next) = schedule.next(at).filter(|next| *next <= now) {
        latest = Some(next);
        at = next;
    }
    Ok(Missed { earliest, latest, count })
}

/// How long until the next run is to be looked for; `None` when there is none.
pub fn until_next(job: &CronJob, now: Timestamp, schedule: &Schedule) -> Option<Duration> {
    let from = match missed(job, now, schedule, false) {
        Err(_) => now,
        Ok(Missed { latest: Some(latest), .. }) => latest,
        Ok(Missed { earliest, count: 0, .. }) => earliest,
        Ok(_) => now,
    };
    let next = schedule.next(from)?;
    Some(Duration::try_from(next.duration_since(now)).unwrap_or_default() + DELTA)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        format!("2024-01-01T{text}Z").parse().unwrap()
    }

    fn job(created: &str, last: Option<&str>, deadline: Option<i64>) -> CronJob {
        let mut job = CronJob::default();
        job.metadata.creation_timestamp = Some(at(created));
        job.status.last_schedule_time = last.map(at);
        job.spec.starting_deadline_seconds = deadline;
        job
    }

    #[test]
    fn runs_that_were_missed() {
        let hourly = Schedule::parse("0 * * * *").unwrap();
        for (job, now, latest, count) in [
            (job("10:30:00", None, None), "10:59:00", None, 0),
            (job("10:30:00", None, None), "11:00:00", Some("11:00:00"), 0),
            (job("10:30:00", None, None), "13:10:00", Some("13:00:00"), 3),
            (job("02:30:00", Some("11:00:00"), None), "11:10:00", None, 0),
            (job("02:30:00", Some("11:00:00"), None), "12:10:00", Some("12:00:00"), 0),
            (job("02:30:00", None, Some(60)), "12:10:00", None, 0),
            (job("02:30:00", None, Some(700)), "12:10:00", Some("12:00:00"), 0),
        ] {
            let found = missed(&job, at(now), &hourly, true).unwrap();
            assert_eq!((found.latest, found.count), (latest.map(at), count), "{now}");
        }
        let minutely = Schedule::parse("* * * * *").unwrap();
        assert!(missed(&job("00:00:00", None, None), at("12:00:00"), &minutely, true).unwrap().is_many());
    }

    #[test]
    fn the_next_look() {
        let hourly = Schedule::parse("0 * * * *").unwrap();
        for (job, now, seconds) in [
            (job("10:30:00", None, None), "10:59:00", 60),
            (job("10:30:00", Some("11:00:00"), None), "11:10:00", 3000),
            (job("10:30:00", None, None), "11:10:00", 3000),
        ] {
            let wait = until_next(&job, at(now), &hourly).unwrap();
            assert_eq!(wait, Duration::from_secs(seconds) + DELTA);
        }
        let never = Schedule::parse("0 0 31 2 *").unwrap();
        assert_eq!(until_next(&job("10:30:00", None, None), at("11:00:00"), &never), None);
    }
}
