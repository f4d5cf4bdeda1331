//! Kinds without a describer: every field, with names split into words.

use serde_json::{Map, Value};

use super::writer::Writer;
use crate::printer::go_value;

const SKIP: &[&str] =
    &[".metadata.annotations", ".metadata.labels", ".metadata.managedFields", ".metadata.name", ".metadata.namespace"];

pub fn describe(w: &mut Writer, object: &Value) {
    w.head(object);
    if let Value::Object(map) = object {
        content(w, 0, map, "");
    }
}

fn content(w: &mut Writer, level: usize, map: &Map<String, Value>, prefix: &str) {
    for (field, value) in map {
        let path = format!("{prefix}.{field}");
        if SKIP.contains(&path.as_str()) {
            continue;
        }
        let label = label_for(field);
        match value {
            Value::Object(inner) => {
                w.line(level, &format!("{label}:"));
                content(w, level + 1, inner, &path);
            }
            Value::Array(items) => {
                w.line(level, &format!("{label}:"));
                for item in items {
                    match item {
                        Value::Object(inner) => content(w, level + 1, inner, &path),
                        other => w.line(level + 1, &go_value::plain(other)),
                    }
                }
            }
            other => w.line(level, &format!("{label}:\t{}", go_value::plain(other))),
        }
    }
}

/// `creationTimestamp` becomes `Creation Timestamp`, `apiVersion` `API Version`.
pub fn label_for(field: &str) -> String {
    if field.chars().any(|c| !c.is_alphabetic() && c != '-') {
        return field.to_owned();
    }
    let parts = split_camel(field);
    let mut merged: Vec<String> = Vec::new();
    let mut index = 0;
    while index < parts.len() {
        let part = &parts[index];
        let next = parts.get(index + 1);
        let upper = part.chars().all(|c| !c.is_alphabetic() || c.is_uppercase());
        match next {
            Some(next) if part.len() >= 2 && upper && next.starts_with(char::is_uppercase) => {
                merged.push(format!("{part}{next}"));
                index += 2;
            }
            _ => {
                merged.push(part.clone());
                index += 1;
            }
        }
    }
    let words = merged.into_iter().map(|part| {
        let upper = part.to_uppercase();
        if matches!(upper.as_str(), "API" | "URL" | "UID" | "GUID") {
            return upper;
        }
        if part == part.to_lowercase() {
            let mut chars = part.chars();
            return chars
                .next()
                .map_or_else(String::new, |first| first.to_uppercase().collect::<String>() + chars.as_str());
        }
        part
    });
    words.collect::<Vec<_>>().join(" ")
}

/// Splits at changes of case: `podIPs` into `pod`, `I`, `Ps` as upstream's library does, runs of
/// capitals keeping their last letter for the word that follows.
fn split_camel(text: &str) -> Vec<String> {
    let class = |c: char| {
        if c.is_lowercase() {
            1
        } else if c.is_uppercase() {
            2
        } else {
            3
        }
    };
    let mut runs: Vec<Vec<char>> = Vec::new();
    let mut last = 0;
    for c in text.chars() {
        let this = class(c);
        match runs.last_mut() {
            Some(run) if this == last => run.push(c),
            _ => runs.push(vec![c]),
        }
        last = this;
    }
    for index in 0..runs.len().saturating_sub(1) {
        if runs[index][0].is_uppercase()
            && runs[index + 1][0].is_lowercase()
            && let Some(moved) = runs[index].pop()
        {
            runs[index + 1].insert(0, moved);
        }
    }
    runs.into_iter().filter(|run| !run.is_empty()).map(|run| run.into_iter().collect()).collect()
}
