//! Positions within an expression and the way cel-go prints an error at one of them.

use std::fmt;

/// A text position: `line` counts from 1, `column` from 0, in code points. Line -1 is "nowhere".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Location {
    /// Line, from 1; -1 when the error belongs to no place.
    pub line: i64,
    /// Column, from 0; -1 when the error belongs to no place.
    pub column: i64,
}

impl Location {
    /// The place of errors that have none.
    pub const NOWHERE: Location = Location { line: -1, column: -1 };
}

/// What is wrong with an expression, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issue {
    /// Where.
    pub location: Location,
    /// What, in cel-go's words.
    pub message: String,
}

/// The text of an expression with the starts of its lines.
#[derive(Clone, Debug)]
pub struct Source {
    chars: Vec<char>,
    /// The offset at which each line begins.
    lines: Vec<usize>,
}

/// The name that Kubernetes gives every expression in an error.
const DESCRIPTION: &str = "<input>";
/// Lines longer than this are not repeated in an error.
const MAX_SNIPPET_LENGTH: usize = 16_384;
/// Errors beyond this number are only counted.
const MAX_REPORTED: usize = 100;

impl Source {
    /// Takes the text apart into code points.
    pub fn new(text: &str) -> Self {
        let chars: Vec<char> = text.chars().collect();
        let mut lines = vec![0];
        lines.extend(chars.iter().enumerate().filter(|(_, c)| **c == '\n').map(|(at, _)| at + 1));
        Source { chars, lines }
    }

    /// The code points.
    pub fn chars(&self) -> &[char] {
        &self.chars
    }

    /// The line and column of an offset in code points.
    pub fn location(&self, offset: usize) -> Location {
        let line = self.lines.partition_point(|start| *start <= offset);
        let start = self.lines.get(line.saturating_sub(1)).copied().unwrap_or(0);
        Location { line: as_i64(line), column: as_i64(offset - start) }
    }

    fn line(&self, line: i64) -> Option<String> {
        let index = usize::try_from(line).ok()?.checked_sub(1)?;
        let start = *self.lines.get(index)?;
        let end = self.lines.get(index + 1).map_or(self.chars.len(), |next| next - 1);
        Some(self.chars[start..end].iter().collect())
    }

    fn show(&self, issue: &Issue, out: &mut String) {
        let Location { line, column } = issue.location;
        if self.chars.is_empty() {
            // Nothing has no first column, and nothing to be shown.
            out.push_str(&format!("ERROR: {DESCRIPTION}:{line}:0: {}", issue.message));
            return;
        }
        out.push_str(&format!("ERROR: {DESCRIPTION}:{line}:{}: {}", column + 1, issue.message));
        let Some(snippet) = self.line(line).filter(|snippet| snippet.len() <= MAX_SNIPPET_LENGTH) else { return };
        let snippet = snippet.replace('\t', " ");
        out.push_str("\n | ");
        out.push_str(&snippet);
        out.push_str("\n | ");
        let mut chars = snippet.chars();
        for c in chars.by_ref().take(usize::try_from(column).unwrap_or(0)) {
            out.push(if c.len_utf8() > 1 { '\u{ff0e}' } else { '.' });
        }
        out.push(if chars.next().is_some_and(|c| c.len_utf8() > 1) { '\u{ff3e}' } else { '^' });
    }
}

/// All that is wrong with one expression. Its `Display` is what upstream puts into a Status.
#[derive(Clone, Debug)]
pub struct Issues {
    source: Source,
    issues: Vec<Issue>,
}

impl Issues {
    /// Gathers the issues of one source, in the order of their places.
    pub(crate) fn new(source: Source, mut issues: Vec<Issue>) -> Self {
        issues.sort_by_key(|issue| issue.location);
        Issues { source, issues }
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &Issue> {
        self.issues.iter()
    }
}

impl fmt::Display for Issues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = String::new();
        for (at, issue) in self.issues.iter().take(MAX_REPORTED).enumerate() {
            if at > 0 {
                out.push('\n');
            }
            self.source.show(issue, &mut out);
        }
        if self.issues.len() > MAX_REPORTED {
            out.push_str(&format!("\n{} more errors were truncated", self.issues.len() - MAX_REPORTED));
        }
        f.write_str(&out)
    }
}

impl std::error::Error for Issues {}

fn as_i64(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
