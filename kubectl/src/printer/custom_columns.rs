//! `-o custom-columns=NAME:.metadata.name,IP:.status.podIP`.

use apimachinery::jsonpath::{self, JsonPath};
use serde_json::Value;

use super::tabwriter::TabWriter;
use crate::codec;
use crate::error::{Error, Result};

/// Columns, each a header and a path.
pub struct CustomColumns {
    columns: Vec<(String, JsonPath)>,
    no_headers: bool,
    printed: bool,
    writer: TabWriter,
}

impl CustomColumns {
    /// From `HEADER:path,HEADER:path`.
    ///
    /// # Errors
    /// When a part has no path or a malformed one.
    pub fn parse(spec: &str, no_headers: bool) -> Result<Self> {
        let mut pairs = Vec::new();
        for part in spec.split(',') {
            let Some((header, path)) = part.split_once(':') else {
                return Err(Error::message(format!(
                    "unexpected custom-columns spec: {part}, expected <header>:<json-path-expr>"
                )));
            };
            pairs.push((header.to_owned(), path.to_owned()));
        }
        Self::new(pairs, no_headers)
    }

    /// From two lines: headers, and the paths below them.
    ///
    /// # Errors
    /// When the lines do not fit together.
    pub fn parse_file(text: &str, no_headers: bool) -> Result<Self> {
        let mut lines = text.lines();
        let missing = || {
            Error::message(
                "invalid template, missing header line. Expected format is one line of space separated headers, one line of space separated column specs.",
            )
        };
        let headers = lines.next().ok_or_else(missing)?;
        let specs = lines.next().ok_or_else(|| Error::message("invalid template, missing spec line. Expected format is one line of space separated headers, one line of space separated column specs."))?;
        let headers: Vec<&str> = headers.split_whitespace().collect();
        let specs: Vec<&str> = specs.split_whitespace().collect();
        if headers.len() != specs.len() {
            return Err(Error::message(format!(
                "number of headers ({}) and field specifications ({}) don't match",
                headers.len(),
                specs.len()
            )));
        }
        Self::new(
            headers.into_iter().map(str::to_owned).zip(specs.into_iter().map(str::to_owned)).collect(),
            no_headers,
        )
    }

    fn new(pairs: Vec<(String, String)>, no_headers: bool) -> Result<Self> {
        let mut columns = Vec::new();
        for (header, path) in pairs {
            let expression = jsonpath::relaxed(&path).map_err(|error| Error::message(error.to_string()))?;
            let parsed = JsonPath::parse(&expression).map_err(|error| Error::message(error.to_string()))?;
            columns.push((header, parsed.allow_missing_keys(true)));
        }
        Ok(CustomColumns { columns, no_headers, printed: false, writer: TabWriter::table() })
    }

    /// The lines of an object or of a list's members.
    ///
    /// # Errors
    /// When a path fails on one.
    pub fn print(&mut self, object: &Value) -> Result<String> {
        if !self.no_headers && !self.printed {
            let headers: Vec<&str> = self.columns.iter().map(|(header, _)| header.as_str()).collect();
            self.writer.push(&(headers.join("\t") + "\n"));
            self.printed = true;
        }
        for item in codec::flatten(object.clone()) {
            let mut cells = Vec::new();
            for (_, path) in &self.columns {
                let found = path.find(&item).map_err(|error| Error::message(error.to_string()))?;
                let values: Vec<String> = found
                    .iter()
                    .flatten()
                    .filter(|value| !value.is_null())
                    .map(|value| super::go_value::plain(value))
                    .collect();
                let none = found.iter().all(Vec::is_empty);
                cells.push(if none || values.is_empty() { "<none>".to_owned() } else { values.join(",") });
            }
            self.writer.push(&(cells.join("\t") + "\n"));
        }
        Ok(self.writer.flush())
    }
}
