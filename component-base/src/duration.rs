//! Go's duration syntax (`1m30s`, `1.5h`, `300ms`), as flags and config files of upstream write it.
//!
//! Values in and out are `std::time::Duration`; negative durations are kept apart as an error
//! because no Keelson setting means anything below zero.

use std::time::Duration;

/// Why a text is not a Go duration. The text equals Go's `time.ParseDuration`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("time: invalid duration \"{0}\"")]
    Invalid(String),
    #[error("time: missing unit in duration \"{0}\"")]
    MissingUnit(String),
    #[error("time: unknown unit \"{1}\" in duration \"{0}\"")]
    UnknownUnit(String, String),
    #[error("duration \"{0}\" must not be negative")]
    Negative(String),
}

/// Parses Go's `time.ParseDuration` syntax.
pub fn parse(text: &str) -> Result<Duration, Error> {
    let invalid = || Error::Invalid(text.to_string());
    let mut rest = text;
    let mut negative = false;
    if let Some(stripped) = rest.strip_prefix('-') {
        negative = true;
        rest = stripped;
    } else if let Some(stripped) = rest.strip_prefix('+') {
        rest = stripped;
    }
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut nanos: f64 = 0.0;
    let mut whole: u128 = 0;
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let number = &rest[..number_end];
        if number.is_empty() || number == "." || number.matches('.').count() > 1 {
            return Err(invalid());
        }
        rest = &rest[number_end..];
        let unit_end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = &rest[..unit_end];
        if unit.is_empty() {
            return Err(Error::MissingUnit(text.to_string()));
        }
        let scale: u128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            other => return Err(Error::UnknownUnit(text.to_string(), other.to_string())),
        };
        let (int, fraction) = number.split_once('.').unwrap_or((number, ""));
        if !int.is_empty() {
            let int: u128 = int.parse().map_err(|_| invalid())?;
            whole = int.checked_mul(scale).and_then(|v| whole.checked_add(v)).ok_or_else(invalid)?;
        }
        if !fraction.is_empty() {
            let fraction: f64 = format!("0.{fraction}").parse().map_err(|_| invalid())?;
            nanos += fraction * scale as f64;
        }
        rest = &rest[unit_end..];
    }
    let total = whole + nanos.round() as u128;
    if total > i64::MAX as u128 {
        return Err(invalid());
    }
    if negative && total > 0 {
        return Err(Error::Negative(text.to_string()));
    }
    Ok(Duration::from_nanos(total as u64))
}

/// Writes a duration as Go's `Duration.String` does (`1m0s`, `1.5s`, `20ms`, `0s`).
pub fn format(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    if nanos == 0 {
        return "0s".to_string();
    }
    let with_fraction = |value: u128, unit: u128, suffix: &str| {
        let int = value / unit;
        let fraction = value % unit;
        if fraction == 0 {
            return format!("{int}{suffix}");
        }
        let width = unit.ilog10() as usize;
        let digits = format!("{fraction:0width$}");
        format!("{int}.{}{suffix}", digits.trim_end_matches('0'))
    };
    if nanos < 1_000 {
        return format!("{nanos}ns");
    }
    if nanos < 1_000_000 {
        return with_fraction(nanos, 1_000, "µs");
    }
    if nanos < 1_000_000_000 {
        return with_fraction(nanos, 1_000_000, "ms");
    }
    let seconds = nanos / 1_000_000_000;
    let hours = seconds / 3600;
    let minutes = seconds % 3600 / 60;
    let rest = with_fraction(nanos % 60_000_000_000, 1_000_000_000, "s");
    if hours > 0 {
        format!("{hours}h{minutes}m{rest}")
    } else if minutes > 0 {
        format!("{minutes}m{rest}")
    } else {
        rest
    }
}

/// Serde form of Go's `metav1.Duration`: a string such as `"10s"`; use with `#[serde(with = "…")]`.
pub mod serde_text {
    use serde::{Deserialize, Deserializer, Serializer};
    use std::time::Duration;

    pub fn serialize<S: Serializer>(value: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&super::format(*value))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(from)?;
        super::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_and_formats_as_go_does() {
        for (text, nanos, back) in [
            ("0", 0u64, "0s"),
            ("5s", 5_000_000_000, "5s"),
            ("1m0s", 60_000_000_000, "1m0s"),
            ("90s", 90_000_000_000, "1m30s"),
            ("1.5h", 5_400_000_000_000, "1h30m0s"),
            ("100ms", 100_000_000, "100ms"),
            ("1.5ms", 1_500_000, "1.5ms"),
            ("1s500ms", 1_500_000_000, "1.5s"),
            ("10us", 10_000, "10µs"),
            (".5s", 500_000_000, "500ms"),
        ] {
            let parsed = parse(text).expect(text);
            assert_eq!(parsed, Duration::from_nanos(nanos), "{text}");
            assert_eq!(format(parsed), back, "{text}");
        }
    }

    #[test]
    fn refuses_what_go_refuses() {
        assert_eq!(parse("5").unwrap_err().to_string(), "time: missing unit in duration \"5\"");
        assert_eq!(parse("5x").unwrap_err().to_string(), "time: unknown unit \"x\" in duration \"5x\"");
        assert_eq!(parse("").unwrap_err().to_string(), "time: invalid duration \"\"");
        assert!(matches!(parse("-5s"), Err(Error::Negative(_))));
    }
}
