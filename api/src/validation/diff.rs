//! What changed in something that must not: appended to the message, for people.

use serde_json::Value;
use similar::TextDiff;

/// The lines of two objects' JSON that differ, with three lines around each.
pub(super) fn of(old: &Value, new: &Value) -> String {
    let text = |value: &Value| serde_json::to_string_pretty(value).unwrap_or_default().replace("  ", " ");
    let (old, new) = (text(old), text(new));
    TextDiff::from_lines(&old, &new).unified_diff().context_radius(3).missing_newline_hint(false).to_string()
}
