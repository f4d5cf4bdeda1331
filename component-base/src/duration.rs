//! Go's duration syntax (`1m30s`, `1.5h`, `300ms`), as flags and config files of upstream write it.
//!
//! Values in and out are `std::time::Duration`; negative durations are kept apart as an error
//! because no Keelson setting means anything below zero.

use std::time::Duration;

use apimachinery::duration as go;

/// Why a text cannot be a setting.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It is no duration.
    #[error(transparent)]
    Go(#[from] go::Error),
    /// It is one below zero.
    #[error("duration \"{0}\" must not be negative")]
    Negative(String),
}

/// Parses Go's `time.ParseDuration` syntax.
///
/// # Errors
/// When it is no duration, or a negative one.
pub fn parse(text: &str) -> Result<Duration, Error> {
    let nanos = u64::try_from(go::parse(text)?).map_err(|_| Error::Negative(text.to_owned()))?;
    Ok(Duration::from_nanos(nanos))
}

/// Writes a duration as Go's `Duration.String` does (`1m0s`, `1.5s`, `20ms`, `0s`); the longest that Go has for longer
/// ones.
pub fn format(duration: Duration) -> String {
    go::format(i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX))
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
    fn settings_are_not_negative() {
        assert_eq!(parse("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(format(Duration::from_millis(1500)), "1.5s");
        assert_eq!(parse("5").unwrap_err().to_string(), "time: missing unit in duration \"5\"");
        assert_eq!(parse("-5s").unwrap_err().to_string(), "duration \"-5s\" must not be negative");
        assert_eq!(format(Duration::MAX), "2562047h47m16.854775807s");
    }
}
