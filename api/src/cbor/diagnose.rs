//! Diagnostic notation (RFC 8949, 8): an item as people read it, in messages.

use std::fmt::Write as _;

use super::head::{Major, Reader};

/// As deep as messages show an item.
const DEPTH: usize = 100;

/// A well-formed item in diagnostic notation; byte strings that are text are shown as such.
pub fn diagnose(bytes: &[u8]) -> String {
    let mut out = String::new();
    let _ = item(&mut Reader::new(bytes), &mut out, 0);
    out
}

/// `None` at the end of what can be shown.
fn item(reader: &mut Reader<'_>, out: &mut String, depth: usize) -> Option<()> {
    let head = reader.head().ok().filter(|_| depth < DEPTH)?;
    let argument = head.argument;
    match head.major {
        Major::Positive => write!(out, "{argument}").ok(),
        Major::Negative => write!(out, "-{}", u128::from(argument) + 1).ok(),
        Major::Bytes | Major::Text if head.is_indefinite() => {
            out.push_str("(_ ");
            elements(reader, out, None, |reader, out| item(reader, out, depth + 1))?;
            out.push(')');
            Some(())
        }
        Major::Bytes => {
            let bytes = reader.take(argument).ok()?;
            match std::str::from_utf8(bytes) {
                Ok(text) => quoted(out, text, '\''),
                Err(_) => {
                    out.push_str("h'");
                    bytes.iter().try_for_each(|byte| write!(out, "{byte:02x}")).ok()?;
                    out.push('\'');
                }
            }
            Some(())
        }
        Major::Text => {
            let text = String::from_utf8_lossy(reader.take(argument).ok()?).into_owned();
            quoted(out, &text, '"');
            Some(())
        }
        Major::Array | Major::Map => {
            let (open, close) = if head.major == Major::Array { ('[', ']') } else { ('{', '}') };
            out.push(open);
            if head.is_indefinite() {
                out.push_str("_ ");
            }
            let length = (!head.is_indefinite()).then_some(argument);
            elements(reader, out, length, |reader, out| {
                item(reader, out, depth + 1)?;
                if head.major == Major::Map {
                    out.push_str(": ");
                    item(reader, out, depth + 1)?;
                }
                Some(())
            })?;
            out.push(close);
            Some(())
        }
        Major::Tag => {
            write!(out, "{argument}(").ok()?;
            item(reader, out, depth + 1)?;
            out.push(')');
            Some(())
        }
        Major::Primitive => match (head.float(), argument) {
            (Some(float), _) => write!(out, "{float:?}").ok(),
            (None, 20) => write!(out, "false").ok(),
            (None, 21) => write!(out, "true").ok(),
            (None, 22) => write!(out, "null").ok(),
            (None, 23) => write!(out, "undefined").ok(),
            (None, simple) => write!(out, "simple({simple})").ok(),
        },
    }
}

fn elements(
    reader: &mut Reader<'_>,
    out: &mut String,
    length: Option<u64>,
    mut show: impl FnMut(&mut Reader<'_>, &mut String) -> Option<()>,
) -> Option<()> {
    let mut index = 0;
    loop {
        let done = match length {
            Some(length) => index >= length,
            None => reader.at_break(),
        };
        if done {
            return Some(());
        }
        if index > 0 {
            out.push_str(", ");
        }
        show(reader, out)?;
        index += 1;
    }
}

fn quoted(out: &mut String, text: &str, mark: char) {
    out.push(mark);
    for c in text.chars() {
        if c == mark || c == '\\' {
            out.push('\\');
        }
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c => out.push(c),
        }
    }
    out.push(mark);
}
