//! Tables computed by the server, laid out for people.

use serde_json::{Value, json};

use super::tabwriter::TabWriter;
use crate::codec;

/// How a table is shown.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Without the first line.
    pub no_headers: bool,
    /// With columns of lower priority.
    pub wide: bool,
    /// With a namespace column.
    pub with_namespace: bool,
    /// Names prefixed by `kind.group/`.
    pub kind: Option<String>,
    /// With a column of all labels.
    pub show_labels: bool,
    /// With a column for each of these labels.
    pub label_columns: Vec<String>,
}

/// Prints tables one after the other; the header comes once while columns stay the same.
#[derive(Debug, Default)]
pub struct TablePrinter {
    options: Options,
    last_columns: Vec<Value>,
    printed_headers: bool,
}

impl TablePrinter {
    /// A printer with options.
    pub fn new(options: Options) -> Self {
        TablePrinter { options, ..Self::default() }
    }

    /// Adds a table to the writer. `event` is the watch event it came with.
    pub fn print(&mut self, table: &Value, event: Option<&str>, writer: &mut TabWriter) {
        let given = codec::list(table, &["columnDefinitions"]);
        let mut no_headers =
            self.options.no_headers || (self.printed_headers && (given.is_empty() || given == self.last_columns));
        if !given.is_empty() && given != self.last_columns {
            self.last_columns = given.to_vec();
            self.printed_headers = false;
            no_headers = self.options.no_headers;
        }
        let rows = codec::list(table, &["rows"]);
        if rows.is_empty() {
            return;
        }
        self.printed_headers = true;
        let columns = self.last_columns.clone();
        let visible = |index: usize| self.options.wide || codec::int(&columns[index], &["priority"]).unwrap_or(0) == 0;
        if !no_headers {
            let mut header: Vec<String> = Vec::new();
            if event.is_some() {
                header.push("EVENT".into());
            }
            if self.options.with_namespace {
                header.push("NAMESPACE".into());
            }
            header.extend(
                (0..columns.len())
                    .filter(|index| visible(*index))
                    .map(|i| codec::text(&columns[i], &["name"]).to_uppercase()),
            );
            header.extend(
                self.options.label_columns.iter().map(|label| label.rsplit('/').next().unwrap_or(label).to_uppercase()),
            );
            if self.options.show_labels {
                header.push("LABELS".into());
            }
            writer.push(&(header.join("\t") + "\n"));
        }
        let name_column = columns.iter().position(|column| column["format"] == "name" && column["type"] == "string");
        for row in rows {
            let mut line: Vec<String> = Vec::new();
            if let Some(event) = event {
                line.push(match event {
                    "ADDED" => "ADDED   ".into(),
                    "DELETED" => "DELETED ".into(),
                    "ERROR" => "ERROR   ".into(),
                    other => other.to_owned(),
                });
            }
            if self.options.with_namespace {
                line.push(codec::text(row, &["object", "metadata", "namespace"]).to_owned());
            }
            let cells = codec::list(row, &["cells"]);
            for (index, cell) in cells.iter().enumerate().take(columns.len()) {
                if !visible(index) {
                    continue;
                }
                let mut text = cell_text(cell);
                if Some(index) == name_column
                    && let Some(kind) = &self.options.kind
                {
                    text = format!("{kind}/{text}");
                }
                line.push(text);
            }
            let labels = codec::at(row, &["object", "metadata", "labels"]);
            for label in &self.options.label_columns {
                let value = labels.and_then(|labels| labels.get(label)).and_then(Value::as_str);
                line.push(value.unwrap_or("").to_owned());
            }
            if self.options.show_labels {
                let pairs: Vec<String> = codec::pairs(row, &["object", "metadata", "labels"])
                    .into_iter()
                    .map(|(key, value)| format!("{key}={value}"))
                    .collect();
                line.push(if pairs.is_empty() { "<none>".into() } else { pairs.join(",") });
            }
            writer.push(&(line.join("\t") + "\n"));
        }
    }
}

/// A cell on one line, terminal escapes made visible.
fn cell_text(cell: &Value) -> String {
    let text = match cell {
        Value::Null => return String::new(),
        Value::String(text) => match text.find(['\u{c}', '\n', '\r']) {
            Some(end) => format!("{}...", &text[..end]),
            None => text.clone(),
        },
        other => apimachinery::jsonpath::to_text(other),
    };
    text.replace('\u{1b}', "^[").replace('\t', " ")
}

/// A table made on this side, for objects the server did not print: name and age.
pub fn from_objects(objects: &[Value], now: jiff::Timestamp) -> Value {
    let rows: Vec<Value> = objects
        .iter()
        .map(|object| json!({"cells": api::printers::cells::name_and_age(object, now), "object": object}))
        .collect();
    json!({
        "kind": "Table",
        "columnDefinitions": [
            {"name": "Name", "type": "string", "format": "name", "priority": 0},
            {"name": "Age", "type": "string", "format": "", "priority": 0},
        ],
        "rows": rows,
    })
}
