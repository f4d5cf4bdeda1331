//! What the flags of a component are set to.

use serde_json::{Value, json};

use super::{Pages, delimiter, heading};

/// For people.
pub fn text(pages: &Pages) -> String {
    let delimiter = delimiter(pages);
    let mut out = heading(pages.component, "flagz");
    for (name, value) in pages.flags.iter().flatten() {
        out += &format!("{name}{delimiter}{value}\n");
    }
    out
}

/// For programs, but for what every object has.
pub fn object(pages: &Pages) -> Value {
    match &pages.flags {
        Some(flags) if !flags.is_empty() => json!({"flags": flags}),
        _ => json!({}),
    }
}
