//! Times and durations as Go, and so CEL, writes them.

use std::fmt;

use jiff::civil::{Date, DateTime};
use jiff::tz::{Offset, TimeZone};

use crate::error::Error;

/// The years 1 to 9999, in seconds since 1970.
const MIN_SECONDS: i64 = -62_135_596_800;
const MAX_SECONDS: i64 = 253_402_300_799;
const BILLION: i64 = 1_000_000_000;

/// A point in time, with the offset in which it was written (and is shown).
#[derive(Clone, Copy, Debug)]
pub struct Timestamp {
    seconds: i64,
    nanos: i32,
    /// Seconds east of UTC.
    offset: i32,
}

impl PartialEq for Timestamp {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Timestamp {}

impl PartialOrd for Timestamp {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Timestamp {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.seconds, self.nanos).cmp(&(other.seconds, other.nanos))
    }
}

fn overflow() -> Error {
    Error::new("timestamp overflow")
}

impl Timestamp {
    /// Seconds and nanoseconds since 1970.
    ///
    /// # Errors
    /// Outside of the years 1 to 9999.
    pub fn new(seconds: i64, nanos: i32) -> Result<Self, Error> {
        if !(MIN_SECONDS..=MAX_SECONDS).contains(&seconds) {
            return Err(overflow());
        }
        Ok(Timestamp { seconds, nanos, offset: 0 })
    }

    /// Seconds since 1970.
    pub fn seconds(&self) -> i64 {
        self.seconds
    }

    pub(super) fn is_zero(&self) -> bool {
        self.seconds == MIN_SECONDS && self.nanos == 0
    }

    /// Later by a duration in nanoseconds.
    ///
    /// # Errors
    /// When the result is out of range.
    pub(crate) fn add(&self, duration: i64) -> Result<Self, Error> {
        let total = i128::from(self.seconds) * i128::from(BILLION) + i128::from(self.nanos) + i128::from(duration);
        let seconds = i64::try_from(total.div_euclid(i128::from(BILLION))).map_err(|_| overflow())?;
        let nanos = i32::try_from(total.rem_euclid(i128::from(BILLION))).unwrap_or(0);
        Ok(Timestamp { offset: self.offset, ..Timestamp::new(seconds, nanos)? })
    }

    /// The time between two points, in nanoseconds.
    ///
    /// # Errors
    /// When it does not fit.
    pub(crate) fn since(&self, other: &Timestamp) -> Result<i64, Error> {
        let total = |t: &Timestamp| i128::from(t.seconds) * i128::from(BILLION) + i128::from(t.nanos);
        i64::try_from(total(self) - total(other)).map_err(|_| Error::new("integer overflow"))
    }

    /// The clock on the wall: in a time zone by name, at an offset such as `-08:00`, or in UTC.
    ///
    /// # Errors
    /// When there is no such time zone.
    pub(crate) fn civil(&self, zone: Option<&str>) -> Result<DateTime, Error> {
        let at = jiff::Timestamp::new(self.seconds, self.nanos).map_err(|_| overflow())?;
        Ok(match zone {
            None => Offset::from_seconds(self.offset).unwrap_or(Offset::UTC).to_datetime(at),
            Some(zone) => match zone.split_once(':') {
                None if zone.is_empty() || zone == "UTC" => Offset::UTC.to_datetime(at),
                None => {
                    let zone = TimeZone::get(zone).map_err(|_| Error::new(format!("unknown time zone {zone}")))?;
                    zone.to_datetime(at)
                }
                Some((hours, minutes)) => {
                    let number = |text: &str| {
                        text.parse::<i32>()
                            .map_err(|_| Error::new(format!("strconv.Atoi: parsing {text:?}: invalid syntax")))
                    };
                    let (hours_east, minutes) = (number(hours)?, number(minutes)?);
                    let minutes = if hours.starts_with('-') { -minutes } else { minutes };
                    let seconds = hours_east.saturating_mul(60).saturating_add(minutes).saturating_mul(60);
                    Offset::from_seconds(seconds).map_err(|_| overflow())?.to_datetime(at)
                }
            },
        })
    }
}

/// RFC 3339, with as many digits of the second as are needed.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ok(clock) = self.civil(None) else { return Err(fmt::Error) };
        write!(
            f,
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}",
            clock.year(),
            clock.month(),
            clock.day(),
            clock.hour(),
            clock.minute(),
            clock.second()
        )?;
        if self.nanos != 0 {
            let digits = format!("{:09}", self.nanos);
            write!(f, ".{}", digits.trim_end_matches('0'))?;
        }
        if self.offset == 0 {
            return f.write_str("Z");
        }
        let sign = if self.offset < 0 { '-' } else { '+' };
        let minutes = self.offset.abs() / 60;
        write!(f, "{sign}{:02}:{:02}", minutes / 60, minutes % 60)
    }
}

/// RFC 3339 as Go's `time.Parse` reads it.
pub(crate) fn parse(text: &str) -> Option<Timestamp> {
    let bytes = text.as_bytes();
    let number = |from: usize, length: usize| -> Option<i32> {
        let digits = bytes.get(from..from + length)?;
        digits.iter().all(u8::is_ascii_digit).then(|| std::str::from_utf8(digits).ok()?.parse().ok())?
    };
    let is = |at: usize, c: u8| bytes.get(at) == Some(&c);
    if !(is(4, b'-') && is(7, b'-') && is(10, b'T') && is(13, b':') && is(16, b':')) {
        return None;
    }
    let small = |n: i32| i8::try_from(n).ok();
    let date = Date::new(i16::try_from(number(0, 4)?).ok()?, small(number(5, 2)?)?, small(number(8, 2)?)?).ok()?;
    let (hour, minute, second) = (number(11, 2)?, number(14, 2)?, number(17, 2)?);
    let mut at = 19;
    let mut nanos = 0;
    if is(at, b'.') || is(at, b',') {
        let digits = bytes[at + 1..].iter().take_while(|b| b.is_ascii_digit()).count();
        if digits == 0 {
            return None;
        }
        let text = format!("{:0<9}", &text[at + 1..at + 1 + digits.min(9)]);
        nanos = text.parse().ok()?;
        at += 1 + digits;
    }
    let offset = match bytes.get(at)? {
        b'Z' => {
            at += 1;
            0
        }
        sign @ (b'+' | b'-') if is(at + 3, b':') => {
            let (hours, minutes) = (number(at + 1, 2)?, number(at + 4, 2)?);
            if hours > 24 || minutes > 59 {
                return None;
            }
            at += 6;
            (hours * 60 + minutes) * 60 * if *sign == b'-' { -1 } else { 1 }
        }
        _ => return None,
    };
    if at != bytes.len() {
        return None;
    }
    let clock = date.to_datetime(jiff::civil::Time::new(small(hour)?, small(minute)?, small(second)?, 0).ok()?);
    let seconds = clock.to_zoned(TimeZone::UTC).ok()?.timestamp().as_second() - i64::from(offset);
    let mut time = Timestamp::new(seconds, nanos).ok()?;
    time.offset = offset;
    Some(time)
}

/// A date alone: midnight in UTC.
pub(crate) fn parse_date(text: &str) -> Option<Timestamp> {
    (text.len() == 10).then(|| parse(&format!("{text}T00:00:00Z")))?
}

/// OpenAPI's `date-time`, which may also lack the offset.
pub(crate) fn parse_date_time(text: &str) -> Option<Timestamp> {
    parse(text)
        .or_else(|| parse(&format!("{text}Z")))
        .or_else(|| parse_date(text))
        .or_else(|| parse(&text.replacen('t', "T", 1)))
}

/// Whether text is a date.
pub(crate) fn is_date(text: &str) -> bool {
    parse_date(text).is_some()
}

/// Whether text is an OpenAPI `date-time`.
pub(crate) fn is_date_time(text: &str) -> bool {
    parse_date_time(text).is_some()
}

/// OpenAPI's `duration`: Go's, or a number with a unit in words, such as `3 weeks`.
pub(crate) fn parse_strfmt_duration(text: &str) -> Option<i64> {
    if let Ok(nanos) = apimachinery::duration::parse(text) {
        return Some(nanos);
    }
    let (negative, body) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let mut rest = body.trim();
    let mut total = 0i128;
    let mut found = false;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(|b| b.is_ascii_digit()).count();
        let number: i128 = rest.get(..digits)?.parse().ok()?;
        let after = rest[digits..].trim_start();
        let length = after.bytes().take_while(u8::is_ascii_alphabetic).count();
        let unit: i128 = match after.get(..length)?.to_ascii_lowercase().as_str() {
            "ns" | "nano" => 1,
            "us" | "micro" => 1_000,
            "ms" | "milli" => 1_000_000,
            "s" | "sec" | "secs" | "second" | "seconds" => 1_000_000_000,
            "m" | "min" | "mins" | "minute" | "minutes" => 60_000_000_000,
            "h" | "hr" | "hrs" | "hour" | "hours" => 3_600_000_000_000,
            "d" | "day" | "days" => 86_400_000_000_000,
            "w" | "wk" | "week" | "weeks" => 604_800_000_000_000,
            _ => return None,
        };
        total += number.checked_mul(unit)?;
        found = true;
        rest = after[length..].trim_start();
    }
    found.then(|| i64::try_from(if negative { -total } else { total }).ok())?
}

/// A duration in seconds, as CEL turns it into text: `1.5s`.
pub(crate) fn seconds(nanos: i64) -> String {
    let seconds = (nanos / BILLION) as f64 + (nanos % BILLION) as f64 / 1e9;
    format!("{seconds}s")
}
