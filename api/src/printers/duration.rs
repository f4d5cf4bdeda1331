//! Ages as people read them: `45s`, `3m20s`, `5h12m`, `3d4h`, `2y30d`.
//!
//! Counterpart of apimachinery's `util/duration`: the unit grows with the value and the second unit
//! disappears once it stops mattering.

use jiff::Timestamp;

/// The span from `from` to `to` in nanoseconds.
pub fn between(from: Timestamp, to: Timestamp) -> i128 {
    to.as_nanosecond() - from.as_nanosecond()
}

/// Formats a span given in nanoseconds. Up to two seconds in the future count as now, because
/// clocks differ; further than that it is `<invalid>`.
pub fn human(nanoseconds: i128) -> String {
    // Integer division truncates toward zero, as Go's conversions do.
    let seconds = nanoseconds / 1_000_000_000;
    if seconds < -1 {
        return "<invalid>".into();
    }
    if seconds < 0 {
        return "0s".into();
    }
    if seconds < 120 {
        return format!("{seconds}s");
    }
    let minutes = seconds / 60;
    if minutes < 10 {
        return pair(minutes, "m", seconds % 60, "s");
    }
    if minutes < 180 {
        return format!("{minutes}m");
    }
    let hours = seconds / 3600;
    if hours < 8 {
        return pair(hours, "h", minutes % 60, "m");
    }
    if hours < 48 {
        return format!("{hours}h");
    }
    if hours < 24 * 8 {
        return pair(hours / 24, "d", hours % 24, "h");
    }
    let days = hours / 24;
    if hours < 24 * 365 * 2 {
        return format!("{days}d");
    }
    if hours < 24 * 365 * 8 {
        return pair(days / 365, "y", days % 365, "d");
    }
    format!("{}y", days / 365)
}

fn pair(large: i128, large_unit: &str, small: i128, small_unit: &str) -> String {
    if small == 0 { format!("{large}{large_unit}") } else { format!("{large}{large_unit}{small}{small_unit}") }
}

#[cfg(test)]
mod tests {
    use super::human;

    #[test]
    fn grows_units() {
        const S: i128 = 1_000_000_000;
        const H: i128 = 3600 * S;
        for (input, expected) in [
            (-5 * S, "<invalid>"),
            (-S, "0s"),
            (0, "0s"),
            (119 * S + 999_999_999, "119s"),
            (120 * S, "2m"),
            (200 * S, "3m20s"),
            (599 * S, "9m59s"),
            (600 * S, "10m"),
            (3 * H - S, "179m"),
            (3 * H, "3h"),
            (5 * H + 720 * S, "5h12m"),
            (8 * H, "8h"),
            (47 * H, "47h"),
            (48 * H, "2d"),
            (76 * H, "3d4h"),
            (8 * 24 * H, "8d"),
            (729 * 24 * H, "729d"),
            (730 * 24 * H, "2y"),
            (760 * 24 * H, "2y30d"),
            (2920 * 24 * H, "8y"),
        ] {
            assert_eq!(human(input), expected, "{input}");
        }
    }
}
