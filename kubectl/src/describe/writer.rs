//! Lines with levels and aligned columns, and the pieces most descriptions share.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::Value;

use crate::codec;
use crate::printer::tabwriter::TabWriter;

/// Longer annotations go on lines of their own.
const MAX_ANNOTATION: usize = 140;

/// Annotations that would only repeat the object.
const HIDDEN: &[&str] = &["kubectl.kubernetes.io/last-applied-configuration"];

/// Collects a description.
pub struct Writer {
    tabs: TabWriter,
    raw: String,
    out: String,
    now: Timestamp,
}

impl Writer {
    pub fn new(now: Timestamp) -> Self {
        Writer { tabs: TabWriter::new(0, 2), raw: String::new(), out: String::new(), now }
    }

    /// A line, indented by two spaces for each level.
    pub fn line(&mut self, level: usize, text: &str) {
        self.text(&format!("{}{text}\n", "  ".repeat(level)));
    }

    /// Text as it is.
    pub fn text(&mut self, text: &str) {
        self.raw.push_str(&text.replace('\u{1b}', "^["));
    }

    /// `Title:` and a value.
    pub fn field(&mut self, title: &str, value: impl std::fmt::Display) {
        self.line(0, &format!("{title}:\t{value}"));
    }

    /// Aligns what was written so far on its own.
    pub fn flush(&mut self) {
        self.tabs.push(&std::mem::take(&mut self.raw));
        self.out.push_str(&self.tabs.flush());
    }

    pub fn finish(mut self) -> String {
        self.flush();
        self.out
    }

    /// The text with its tabs in place.
    pub fn finish_unaligned(self) -> String {
        self.raw
    }

    /// Time since an instant, for people.
    pub fn since(&self, object: &Value, path: &[&str]) -> String {
        api::printers::cells::since(object, path, self.now)
    }

    /// `Labels:` and the like: pairs, one to a line.
    pub fn labels(&mut self, title: &str, object: &Value, path: &[&str]) {
        self.labels_indented("", title, object, path);
    }

    pub fn labels_indented(&mut self, indent: &str, title: &str, object: &Value, path: &[&str]) {
        let pairs = codec::pairs(object, path);
        self.text(&format!("{indent}{title}:\t"));
        if pairs.is_empty() {
            self.text("<none>\n");
        }
        for (index, (key, value)) in pairs.into_iter().enumerate() {
            if index > 0 {
                self.text(&format!("{indent}\t"));
            }
            self.text(&format!("{key}={value}\n"));
        }
    }

    pub fn annotations(&mut self, title: &str, object: &Value, path: &[&str]) {
        let pairs: Vec<_> = codec::pairs(object, path).into_iter().filter(|(key, _)| !HIDDEN.contains(key)).collect();
        self.text(&format!("{title}:\t"));
        if pairs.is_empty() {
            self.text("<none>\n");
        }
        for (index, (key, value)) in pairs.into_iter().enumerate() {
            if index > 0 {
                self.text("\t");
            }
            let value = value.strip_suffix('\n').unwrap_or(value);
            if value.len() + key.len() + 2 > MAX_ANNOTATION || value.contains('\n') {
                self.text(&format!("{key}:\n"));
                for line in value.split('\n') {
                    self.text(&format!("\t  {}\n", shorten(line, MAX_ANNOTATION - 2)));
                }
            } else {
                self.text(&format!("{key}: {value}\n"));
            }
        }
    }

    /// Name, namespace, labels and annotations: how most descriptions begin.
    pub fn head(&mut self, object: &Value) {
        self.field("Name", codec::text(object, &["metadata", "name"]));
        self.field("Namespace", codec::text(object, &["metadata", "namespace"]));
        self.metadata(object);
    }

    pub fn metadata(&mut self, object: &Value) {
        self.labels("Labels", object, &["metadata", "labels"]);
        self.annotations("Annotations", object, &["metadata", "annotations"]);
    }

    pub fn controlled_by(&mut self, object: &Value) {
        let owner =
            codec::list(object, &["metadata", "ownerReferences"]).iter().find(|owner| owner["controller"] == true);
        if let Some(owner) = owner {
            self.field("Controlled By", format!("{}/{}", codec::text(owner, &["kind"]), codec::text(owner, &["name"])));
        }
    }
}

fn shorten(text: &str, max: usize) -> String {
    if text.len() <= max {
        return text.to_owned();
    }
    let end = (0..=max).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    format!("{}...", &text[..end])
}

/// An instant as `Sat, 21 Nov 2026 06:55:00 +0000`, in the local zone.
pub fn rfc1123(object: &Value, path: &[&str]) -> String {
    let time = codec::text(object, path).parse::<Timestamp>();
    // Go's zero time, where there is none.
    let Ok(time) = time else { return "Mon, 01 Jan 0001 00:00:00 +0000".into() };
    time.to_zoned(TimeZone::system()).strftime("%a, %d %b %Y %H:%M:%S %z").to_string()
}

/// `a`, or `b` when it is empty.
pub fn or<'a>(a: &'a str, b: &'a str) -> &'a str {
    if a.is_empty() { b } else { a }
}

/// A port or count that may be a number or a text.
pub fn int_or_string(value: Option<&Value>) -> String {
    match value {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => String::new(),
    }
}

/// A list of texts joined.
pub fn joined(object: &Value, path: &[&str], separator: &str) -> String {
    codec::list(object, path).iter().filter_map(Value::as_str).collect::<Vec<_>>().join(separator)
}
