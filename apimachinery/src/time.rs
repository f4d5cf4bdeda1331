//! Kubernetes' times: `Time` (RFC 3339, whole seconds) and `MicroTime` (six digits), in UTC.
//!
//! Nothing here reads a clock: "now" is a [`Timestamp`] passed in.

pub use jiff::Timestamp;
use jiff::tz::TimeZone;

/// `2026-01-02T03:04:05Z`, truncated to the second.
pub fn format(time: Timestamp) -> String {
    let t = TimeZone::UTC.to_datetime(floor_second(time));
    if t.year() < 0 {
        // Of which nobody has one.
        let (month, day, hour, minute, second) = (t.month(), t.day(), t.hour(), t.minute(), t.second());
        return format!("{:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z", t.year());
    }
    // Every write has some of these, which the machinery of format! would make cost as much as the rest of it.
    let mut text = *b"0000-00-00T00:00:00Z";
    let mut put = |places: std::ops::Range<usize>, mut number: i16| {
        for digit in text[places].iter_mut().rev() {
            *digit += (number % 10) as u8;
            number /= 10;
        }
    };
    put(0..4, t.year());
    for (start, number) in [(5, t.month()), (8, t.day()), (11, t.hour()), (14, t.minute()), (17, t.second())] {
        put(start..start + 2, number.into());
    }
    text.iter().map(|byte| char::from(*byte)).collect()
}

/// `2026-01-02T03:04:05.000006Z`, truncated to the microsecond.
pub fn format_micro(time: Timestamp) -> String {
    let micros = time.as_nanosecond().rem_euclid(1_000_000_000) / 1000;
    let mut out = format(time);
    out.truncate(out.len() - 1);
    out.push_str(&format!(".{micros:06}Z"));
    out
}

fn floor_second(time: Timestamp) -> Timestamp {
    // Both parts are negative before 1970.
    let seconds = time.as_second() - i64::from(time.subsec_nanosecond() < 0);
    Timestamp::from_second(seconds).unwrap_or(Timestamp::MIN)
}

/// Reads RFC 3339. The error has the text of Go's `time.Parse`.
pub fn parse(text: &str) -> Result<Timestamp, ParseError> {
    scan(text, RFC3339).ok_or_else(|| ParseError::new(text, RFC3339))
}

/// Reads a `MicroTime`; Go takes any number of fraction digits on reading a layout without them.
pub fn parse_micro(text: &str) -> Result<Timestamp, ParseError> {
    scan(text, RFC3339_MICRO).ok_or_else(|| ParseError::new(text, RFC3339_MICRO))
}

/// A `Time` string in the form the server gives it back.
pub fn canonical(text: &str) -> Result<String, ParseError> {
    let time = parse(text)?;
    // With neither fraction nor offset there is no other way to write it.
    Ok(if text.len() == CANONICAL { text.to_owned() } else { format(time) })
}

/// A `MicroTime` string in the form the server gives it back.
pub fn canonical_micro(text: &str) -> Result<String, ParseError> {
    Ok(format_micro(parse_micro(text)?))
}

/// How Go's `time` package quotes: bytes that are not printable ASCII one by one, unlike `%q`.
fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            ' '..='\u{7f}' => out.push(c),
            _ => {
                let mut buffer = [0; 4];
                out.extend(c.encode_utf8(&mut buffer).bytes().map(|byte| format!("\\x{byte:02x}")));
            }
        }
    }
    out.push('"');
    out
}

/// The length of a `Time`.
const CANONICAL: usize = "2006-01-02T15:04:05Z".len();

const RFC3339: &str = "2006-01-02T15:04:05Z07:00";
const RFC3339_MICRO: &str = "2006-01-02T15:04:05.000000Z07:00";

/// Text that is not a time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ParseError(String);

impl ParseError {
    /// Go names the part of the layout at which it stopped; the parts are fixed width.
    fn new(text: &str, layout: &'static str) -> Self {
        const PARTS: &[(usize, usize, &str)] = &[
            (0, 4, "2006"),
            (4, 5, "-"),
            (5, 7, "01"),
            (7, 8, "-"),
            (8, 10, "02"),
            (10, 11, "T"),
            (11, 13, "15"),
            (13, 14, ":"),
            (14, 16, "04"),
            (16, 17, ":"),
            (17, 19, "05"),
        ];
        let bytes = text.as_bytes();
        for (start, end, part) in PARTS {
            let ok = bytes.get(*start..*end).is_some_and(|got| {
                if part.len() == 1 { got == part.as_bytes() } else { got.iter().all(u8::is_ascii_digit) }
            });
            if !ok {
                let rest = text.get(*start..).unwrap_or("");
                return Self::at(text, layout, rest, part);
            }
        }
        let number = |range: std::ops::Range<usize>| text[range].parse::<u32>().unwrap_or(0);
        let bounds = [
            ("month", number(5..7), 1, 12),
            ("day", number(8..10), 1, 31),
            ("hour", number(11..13), 0, 23),
            ("minute", number(14..16), 0, 59),
            ("second", number(17..19), 0, 59),
        ];
        for (name, value, low, high) in bounds {
            if value < low || value > high {
                return Self(format!("parsing time {}: {name} out of range", quote(text)));
            }
        }
        let mut rest = &text[19..];
        if rest.starts_with('.') {
            let digits = rest[1..].bytes().take_while(u8::is_ascii_digit).count();
            if digits > 0 {
                rest = &rest[1 + digits..];
            }
        }
        if let Some(extra) = rest.strip_prefix('Z').filter(|extra| !extra.is_empty()) {
            return Self(format!("parsing time {}: extra text: {}", quote(text), quote(extra)));
        }
        if rest.is_empty() || !rest.starts_with(['Z', '+', '-']) {
            return Self::at(text, layout, rest, "Z07:00");
        }
        Self(format!("parsing time {}: day out of range", quote(text)))
    }

    fn at(text: &str, layout: &str, rest: &str, part: &str) -> Self {
        Self(format!(
            "parsing time {} as {}: cannot parse {} as {}",
            quote(text),
            quote(layout),
            quote(rest),
            quote(part)
        ))
    }
}

fn scan(text: &str, layout: &str) -> Option<Timestamp> {
    let b = text.as_bytes();
    let digits = |from: usize, to: usize| -> Option<i32> {
        let part = b.get(from..to)?;
        part.iter().all(u8::is_ascii_digit).then(|| part.iter().fold(0, |n, d| n * 10 + i32::from(d - b'0')))
    };
    let at = |i: usize, c: u8| (b.get(i) == Some(&c)).then_some(());
    let year = digits(0, 4)?;
    at(4, b'-')?;
    let month = digits(5, 7)?;
    at(7, b'-')?;
    let day = digits(8, 10)?;
    at(10, b'T')?;
    let hour = digits(11, 13)?;
    at(13, b':')?;
    let minute = digits(14, 16)?;
    at(16, b':')?;
    let second = digits(17, 19)?;
    let mut i = 19;
    let mut nanos = 0i32;
    if matches!(b.get(i), Some(b'.' | b',')) {
        let start = i + 1;
        let end = start + b[start..].iter().take_while(|d| d.is_ascii_digit()).count();
        if end == start || (layout == RFC3339_MICRO && end - start != 6) {
            return None;
        }
        for k in 0..9 {
            nanos = nanos * 10 + b.get(start + k).filter(|_| start + k < end).map_or(0, |d| i32::from(d - b'0'));
        }
        i = end;
    } else if layout == RFC3339_MICRO {
        return None;
    }
    let offset = match b.get(i)? {
        b'Z' => {
            i += 1;
            0
        }
        sign @ (b'+' | b'-') => {
            let hours = digits(i + 1, i + 3)?;
            at(i + 3, b':')?;
            let minutes = digits(i + 4, i + 6)?;
            if hours > 24 || minutes > 60 {
                return None;
            }
            i += 6;
            let seconds = hours * 3600 + minutes * 60;
            if *sign == b'-' { -seconds } else { seconds }
        }
        _ => return None,
    };
    if i != b.len() {
        return None;
    }
    let civil = jiff::civil::DateTime::new(
        i16::try_from(year).ok()?,
        i8::try_from(month).ok()?,
        i8::try_from(day).ok()?,
        i8::try_from(hour).ok()?,
        i8::try_from(minute).ok()?,
        i8::try_from(second).ok()?,
        nanos,
    )
    .ok()?;
    let utc = TimeZone::UTC.to_timestamp(civil).ok()?;
    utc.checked_sub(jiff::SignedDuration::from_secs(i64::from(offset))).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_times() {
        for (input, expected) in [
            ("2020-01-02T03:04:05Z", "2020-01-02T03:04:05Z"),
            ("2020-01-02T03:04:05.999Z", "2020-01-02T03:04:05Z"),
            ("2020-01-02T03:04:05+01:00", "2020-01-02T02:04:05Z"),
            ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
        ] {
            assert_eq!(canonical(input).unwrap(), expected);
        }
        assert_eq!(canonical_micro("2020-01-02T03:04:05.000006Z").unwrap(), "2020-01-02T03:04:05.000006Z");
    }

    #[test]
    fn errors_as_go() {
        for (input, expected) in [
            ("x", "parsing time \"x\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"x\" as \"2006\""),
            ("2020-01-02", "parsing time \"2020-01-02\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"\" as \"T\""),
            ("2020-13-02T00:00:00Z", "parsing time \"2020-13-02T00:00:00Z\": month out of range"),
            ("2020-02-31T00:00:00Z", "parsing time \"2020-02-31T00:00:00Z\": day out of range"),
            (
                "2020-02-01T00:00:00",
                "parsing time \"2020-02-01T00:00:00\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"\" as \"Z07:00\"",
            ),
        ] {
            assert_eq!(parse(input).unwrap_err().to_string(), expected);
        }
    }
}
