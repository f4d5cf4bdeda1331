//! Schedules of five fields, as upstream's parser (robfig/cron's standard one) reads them.

use std::time::Duration;

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Span, Timestamp, Zoned};

use crate::gotext::quote;

/// When something is to happen.
#[derive(Debug, Clone)]
pub struct Schedule {
    when: When,
    /// The zone that the schedule itself names.
    zone: Option<TimeZone>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum When {
    Fields {
        minute: Set,
        hour: Set,
        day: Set,
        month: Set,
        weekday: Set,
    },
    /// `@every 1h30m`: whole seconds.
    Every(Duration),
}

/// Values of a field, a bit for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Set {
    bits: u64,
    /// Written as `*`: days of the month and of the week both count unless one of them is.
    any: bool,
}

impl Set {
    fn has(self, value: i8) -> bool {
        u32::try_from(value).is_ok_and(|value| self.bits >> value & 1 == 1)
    }
}

type Bounds = (i64, i64, &'static [&'static str]);

const MINUTE: Bounds = (0, 59, &[]);
const HOUR: Bounds = (0, 23, &[]);
const DAY: Bounds = (1, 31, &[]);
const MONTH: Bounds = (1, 12, &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]);
const WEEKDAY: Bounds = (0, 6, &["sun", "mon", "tue", "wed", "thu", "fri", "sat"]);
const FIELDS: [Bounds; 5] = [MINUTE, HOUR, DAY, MONTH, WEEKDAY];

/// A schedule that matches no day within so many years matches none; upstream's number.
const YEARS: i16 = 5;

impl Schedule {
    /// Reads a schedule: five fields or a name such as `@hourly`, after an optional `TZ=Zone`.
    ///
    /// # Errors
    /// What is wrong with it, in upstream's words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (mut text, mut zone) = (text, None);
        if let Some(rest) = text.strip_prefix("TZ=").or_else(|| text.strip_prefix("CRON_TZ=")) {
            let (name, rest) = rest
                .split_once(' ')
                .ok_or("invalid schedule format: runtime error: slice bounds out of range [:-1]")?;
            zone = match name {
                "" | "UTC" => Some(TimeZone::UTC),
                "Local" => None,
                name => Some(
                    TimeZone::get(name)
                        .map_err(|_| format!("provided bad location {name}: unknown time zone {name}"))?,
                ),
            };
            text = rest.trim();
        }
        let when = if text.starts_with('@') { descriptor(text)? } else { fields(text)? };
        Ok(Self { when, zone })
    }

    /// The same in another zone, unless it names one itself.
    pub fn in_zone(mut self, zone: TimeZone) -> Self {
        self.zone.get_or_insert(zone);
        self
    }

    /// The first time after this one; `None` when there is none within five years.
    ///
    /// Without a zone of its own the schedule is one of UTC.
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        match &self.when {
            When::Every(every) => {
                let whole = Timestamp::from_second(after.as_second()).ok()?;
                whole.checked_add(SignedDuration::try_from(*every).ok()?).ok()
            }
            When::Fields { .. } => {
                let zone = self.zone.clone().unwrap_or(TimeZone::UTC);
                self.walk(after.to_zoned(zone))
            }
        }
    }

    /// Goes from field to field, as upstream does: hours and minutes by time that passes, so that what a
    /// change of the clock leaves out does not happen, and what it repeats happens again.
    fn walk(&self, after: Zoned) -> Option<Timestamp> {
        let When::Fields { minute, hour, day, month, weekday } = self.when else { return None };
        // Times are whole minutes, and later than `after`.
        let mut at =
            after.with().second(0).subsec_nanosecond(0).build().ok()?.checked_add(Span::new().minutes(1)).ok()?;
        let limit = at.year().checked_add(YEARS)?;
        'wrap: loop {
            if at.year() > limit {
                return None;
            }
            while !month.has(at.month()) {
                let first = Date::new(at.year(), at.month(), 1).ok()?;
                at = begin(first.checked_add(Span::new().months(1)).ok()?, at.time_zone())?;
                if at.month() == 1 {
                    continue 'wrap;
                }
            }
            let fits = |at: &Zoned| {
                let (by_month, by_week) = (day.has(at.day()), weekday.has(at.weekday().to_sunday_zero_offset()));
                if day.any || weekday.any { by_month && by_week } else { by_month || by_week }
            };
            while !fits(&at) {
                at = begin(at.date().checked_add(Span::new().days(1)).ok()?, at.time_zone())?;
                if at.day() == 1 {
                    continue 'wrap;
                }
            }
            while !hour.has(at.hour()) {
                at = at.with().minute(0).build().ok()?.checked_add(Span::new().hours(1)).ok()?;
                if at.hour() == 0 {
                    continue 'wrap;
                }
            }
            while !minute.has(at.minute()) {
                at = at.checked_add(Span::new().minutes(1)).ok()?;
                if at.minute() == 0 {
                    continue 'wrap;
                }
            }
            return Some(at.timestamp());
        }
    }
}

/// The first moment of a day.
fn begin(date: Date, zone: &TimeZone) -> Option<Zoned> {
    DateTime::from_parts(date, jiff::civil::Time::midnight()).to_zoned(zone.clone()).ok()
}

fn fields(text: &str) -> Result<When, String> {
    let fields: Vec<&str> = text.split_whitespace().collect();
    if fields.len() != FIELDS.len() {
        return Err(format!("expected exactly 5 fields, found {}: [{}]", fields.len(), fields.join(" ")));
    }
    let mut sets = [Set { bits: 0, any: false }; FIELDS.len()];
    for ((text, bounds), set) in fields.iter().zip(FIELDS).zip(&mut sets) {
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let more = range(part, bounds)?;
            set.bits |= more.bits;
            set.any |= more.any;
        }
    }
    let [minute, hour, day, month, weekday] = sets;
    Ok(When::Fields { minute, hour, day, month, weekday })
}

fn descriptor(text: &str) -> Result<When, String> {
    let standard = match text {
        "@yearly" | "@annually" => "0 0 1 1 *",
        "@monthly" => "0 0 1 * *",
        "@weekly" => "0 0 * * 0",
        "@daily" | "@midnight" => "0 0 * * *",
        "@hourly" => "0 * * * *",
        _ => {
            let Some(duration) = text.strip_prefix("@every ") else {
                return Err(format!("unrecognized descriptor: {text}"));
            };
            let nanos =
                crate::duration::parse(duration).map_err(|e| format!("failed to parse duration {text}: {e}"))?;
            // Whole seconds, and never less than one.
            let seconds = Duration::from_nanos(nanos.max(0).unsigned_abs()).as_secs();
            return Ok(When::Every(Duration::from_secs(seconds.max(1))));
        }
    };
    fields(standard)
}

fn range(text: &str, (min, max, names): Bounds) -> Result<Set, String> {
    let value = |text: &str| {
        let lower = text.to_lowercase();
        let named = names.iter().zip(min..).find(|(name, _)| **name == lower);
        named.map_or_else(|| number(text), |(_, value)| Ok(value))
    };
    let parts: Vec<&str> = text.split('/').collect();
    let limits: Vec<&str> = parts[0].split('-').collect();
    let mut any = false;
    let (start, mut end) = match limits[..] {
        ["*" | "?", ..] => {
            any = true;
            (min, max)
        }
        [one] => {
            let value = value(one)?;
            (value, value)
        }
        [low, high] => (value(low)?, value(high)?),
        _ => return Err(format!("too many hyphens: {text}")),
    };
    let step = match parts[..] {
        [_] => 1,
        [_, step] => {
            let step = number(step)?;
            // `N/step` is `N-max/step`.
            if limits.len() == 1 {
                end = max;
            }
            any &= step <= 1;
            step
        }
        _ => return Err(format!("too many slashes: {text}")),
    };
    if start < min {
        return Err(format!("beginning of range ({start}) below minimum ({min}): {text}"));
    }
    if end > max {
        return Err(format!("end of range ({end}) above maximum ({max}): {text}"));
    }
    if start > end {
        return Err(format!("beginning of range ({start}) beyond end of range ({end}): {text}"));
    }
    if step == 0 {
        return Err(format!("step of range should be a positive number: {text}"));
    }
    let step = usize::try_from(step).unwrap_or(usize::MAX);
    let bits = (start..=end).step_by(step).fold(0, |bits, value| bits | 1u64 << value);
    Ok(Set { bits, any })
}

fn number(text: &str) -> Result<i64, String> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let problem = if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        "invalid syntax"
    } else {
        match text.parse::<i64>() {
            Ok(number) if number < 0 => return Err(format!("negative number ({number}) not allowed: {text}")),
            Ok(number) => return Ok(number),
            Err(_) => "value out of range",
        }
    };
    Err(format!("failed to parse int from {text}: strconv.Atoi: parsing {}: {problem}", quote(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(schedule: &str, after: &str, expected: &str) {
        let next = Schedule::parse(schedule).unwrap().next(after.parse().unwrap());
        let expected = (!expected.is_empty()).then(|| expected.parse().unwrap());
        assert_eq!(next, expected, "{schedule} after {after}");
    }

    #[test]
    fn next_times() {
        for (schedule, after, expected) in [
            ("* * * * *", "2024-01-01T00:00:00Z", "2024-01-01T00:01:00Z"),
            ("* * * * *", "2024-01-01T00:00:59.5Z", "2024-01-01T00:01:00Z"),
            ("*/15 * * * *", "2024-01-01T00:45:00Z", "2024-01-01T01:00:00Z"),
            ("5 */2 * * *", "2024-01-01T22:06:00Z", "2024-01-02T00:05:00Z"),
            ("0 0 31 * *", "2024-01-31T00:00:00Z", "2024-03-31T00:00:00Z"),
            ("0 0 29 feb *", "2024-03-01T00:00:00Z", "2028-02-29T00:00:00Z"),
            ("0 0 31 2 *", "2024-03-01T00:00:00Z", ""),
            ("30 8 * * mon-fri", "2024-01-05T08:30:00Z", "2024-01-08T08:30:00Z"),
            // Either day will do when neither is `*`; 2024-01-07 is a Sunday.
            ("0 0 13 * sun", "2024-01-01T00:00:00Z", "2024-01-07T00:00:00Z"),
            ("0 0 13 * *", "2024-01-01T00:00:00Z", "2024-01-13T00:00:00Z"),
            ("0 0 */2 * sun", "2024-01-01T00:00:00Z", "2024-01-03T00:00:00Z"),
            ("10/20 * * * *", "2024-01-01T00:31:00Z", "2024-01-01T00:50:00Z"),
            ("@hourly", "2024-01-01T00:00:01Z", "2024-01-01T01:00:00Z"),
            ("@yearly", "2024-01-01T00:00:00Z", "2025-01-01T00:00:00Z"),
            ("@every 1h30m", "2024-01-01T00:00:00.25Z", "2024-01-01T01:30:00Z"),
            ("@every 10ms", "2024-01-01T00:00:00Z", "2024-01-01T00:00:01Z"),
            ("TZ=Europe/Berlin 0 9 * * *", "2024-07-01T00:00:00Z", "2024-07-01T07:00:00Z"),
            // The hour from two to three does not exist on this day.
            ("TZ=Europe/Berlin 30 2 * * *", "2024-03-31T00:00:00Z", "2024-04-01T00:30:00Z"),
            // It exists twice on this one.
            ("TZ=Europe/Berlin 30 2 * * *", "2024-10-27T00:00:00Z", "2024-10-27T00:30:00Z"),
            ("TZ=Europe/Berlin 30 2 * * *", "2024-10-27T00:30:00Z", "2024-10-27T01:30:00Z"),
        ] {
            check(schedule, after, expected);
        }
    }

    #[test]
    fn the_zone_of_the_schedule_counts_first() {
        let tokyo = || TimeZone::get("Asia/Tokyo").unwrap();
        let next = |text: &str| {
            Schedule::parse(text).unwrap().in_zone(tokyo()).next("2024-01-01T00:00:00Z".parse().unwrap()).unwrap()
        };
        assert_eq!(next("0 12 * * *").to_string(), "2024-01-01T03:00:00Z");
        assert_eq!(next("TZ=UTC 0 12 * * *").to_string(), "2024-01-01T12:00:00Z");
    }

    #[test]
    fn errors() {
        for (schedule, error) in [
            ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("5-1 * * * *", "beginning of range (5) beyond end of range (1): 5-1"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("x * * * *", "failed to parse int from x: strconv.Atoi: parsing \"x\": invalid syntax"),
            ("@never", "unrecognized descriptor: @never"),
            ("@every 5", "failed to parse duration @every 5: time: missing unit in duration \"5\""),
            ("TZ=Nowhere * * * * *", "provided bad location Nowhere: unknown time zone Nowhere"),
        ] {
            assert_eq!(Schedule::parse(schedule).unwrap_err(), error);
        }
    }
}
