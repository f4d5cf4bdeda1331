//! `pattern`: Go's regular expressions, compiled on first use.

use std::sync::OnceLock;

use regex::Regex;

/// A regular expression of a schema. Compiled when a value is first held against it: most schemas
/// of a cluster never see one.
#[derive(Clone, Debug)]
pub struct Pattern {
    text: Box<str>,
    compiled: OnceLock<Result<Regex, Box<str>>>,
}

impl Pattern {
    /// A pattern as it was written.
    pub fn new(text: &str) -> Pattern {
        Pattern { text: text.into(), compiled: OnceLock::new() }
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it matches somewhere in the text.
    ///
    /// # Errors
    /// Why the pattern itself is wrong.
    pub fn is_match(&self, value: &str) -> Result<bool, &str> {
        match self.compiled.get_or_init(|| compile(&self.text).map_err(Into::into)) {
            Ok(regex) => Ok(regex.is_match(value)),
            Err(error) => Err(error),
        }
    }
}

/// Compiles Go's syntax. The engines share their syntax but for a few escapes.
///
/// # Errors
/// Why it is no regular expression.
pub fn compile(pattern: &str) -> Result<Regex, String> {
    let translated = translate(pattern);
    regex::RegexBuilder::new(&translated).size_limit(8 << 20).build().map_err(|error| {
        let text = error.to_string();
        let reason = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
        format!("error parsing regexp: {}", go_reason(reason, pattern))
    })
}

/// What Go says of a pattern, and the part of it that it shows.
fn go_reason(reason: &str, pattern: &str) -> String {
    let from = |at: Option<usize>| at.map_or(pattern, |at| &pattern[at..]);
    let (said, shown) = if reason.starts_with("unclosed group") {
        ("missing closing )", pattern)
    } else if reason.starts_with("unopened group") {
        ("unexpected )", pattern)
    } else if reason.starts_with("unclosed character class") {
        ("missing closing ]", from(pattern.rfind('[')))
    } else if reason.starts_with("repetition operator missing expression") {
        let at = pattern.find(['*', '+', '?']);
        ("missing argument to repetition operator", at.map_or(pattern, |at| &pattern[at..=at]))
    } else if reason.starts_with("look-around") {
        let at = ["(?=", "(?!", "(?<=", "(?<!"].iter().find_map(|look| Some((pattern.find(look)?, look.len())));
        ("invalid or unsupported Perl syntax", at.map_or(pattern, |(at, length)| &pattern[at..at + length]))
    } else if reason.starts_with("unrecognized escape sequence") || reason.starts_with("backreferences") {
        let at = pattern.find('\\');
        let end = at.and_then(|at| pattern[at + 1..].chars().next().map(|c| at + 1 + c.len_utf8()));
        ("invalid escape sequence", at.zip(end).map_or(pattern, |(at, end)| &pattern[at..end]))
    } else {
        (reason, pattern)
    };
    format!("{said}: `{shown}`")
}

/// `\Z` does not exist in Go either; `\C` and octal escapes are too rare to matter. What differs:
/// Perl classes are ASCII only in Go, and `\z` and `\A` are the same in both.
fn translate(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len() + 8);
    let mut chars = pattern.chars().peekable();
    let mut class = 0usize;
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('d') => out.push_str(if class > 0 { "0-9" } else { "[0-9]" }),
                Some('w') => out.push_str(if class > 0 { "0-9A-Za-z_" } else { "[0-9A-Za-z_]" }),
                Some('s') => out.push_str(if class > 0 { r"\t\n\x0C\r " } else { r"[\t\n\x0C\r ]" }),
                Some('D') => out.push_str("[^0-9]"),
                Some('W') => out.push_str("[^0-9A-Za-z_]"),
                Some('S') => out.push_str(r"[^\t\n\x0C\r ]"),
                Some('b') => out.push_str(r"(?-u:\b)"),
                Some('Q') => {
                    let mut quoted = String::new();
                    while let Some(c) = chars.next() {
                        if c == '\\' && chars.peek() == Some(&'E') {
                            chars.next();
                            break;
                        }
                        quoted.push(c);
                    }
                    out.push_str(&regex::escape(&quoted));
                }
                Some(other) => {
                    out.push('\\');
                    // Go lets any punctuation be escaped; this engine knows fewer, and refuses some.
                    if other.is_ascii_punctuation()
                        && matches!(
                            other,
                            '<' | '>' | '/' | '"' | '\'' | '`' | ',' | ';' | '=' | '@' | '_' | '!' | '%' | ':'
                        )
                    {
                        out.pop();
                    }
                    out.push(other);
                }
                None => out.push('\\'),
            },
            '[' if class > 0 => {
                // Inside a class Go takes it literally, unless it begins a named class.
                if chars.peek() == Some(&':') {
                    out.push('[');
                    for c in chars.by_ref() {
                        out.push(c);
                        if c == ']' {
                            break;
                        }
                    }
                } else {
                    out.push_str("\\[");
                }
            }
            '[' => {
                class = 1;
                out.push('[');
                if chars.peek() == Some(&'^') {
                    chars.next();
                    out.push('^');
                }
                if chars.peek() == Some(&']') {
                    chars.next();
                    out.push_str("\\]");
                }
            }
            ']' if class > 0 => {
                class = 0;
                out.push(']');
            }
            // Set operations of this engine that Go does not have.
            '&' | '~' if class > 0 => {
                out.push('\\');
                out.push(c);
            }
            '-' if class > 0 && chars.peek() == Some(&'-') => out.push_str("\\-"),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_of_go() {
        for (pattern, text, matches) in [
            (r"^\d+$", "12", true),
            (r"^\d+$", "١٢", false),
            (r"^[\w.-]+$", "a-b.c_1", true),
            (r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", "a-b", true),
            (r"^\Qa.b\E$", "a.b", true),
            (r"^\Qa.b\E$", "axb", false),
            (r"^[[:alpha:]]+$", "abc", true),
            (r"^[a[b]+$", "[", true),
            (r"^https?:\/\/", "http://x", true),
            (r"^[a&&b]$", "&", true),
        ] {
            assert_eq!(Pattern::new(pattern).is_match(text), Ok(matches), "{pattern} {text}");
        }
        assert_eq!(compile("(").err().as_deref(), Some("error parsing regexp: missing closing ): `(`"));
        let lookahead = compile("a(?=b)").err();
        assert_eq!(lookahead.as_deref(), Some("error parsing regexp: invalid or unsupported Perl syntax: `(?=`"));
    }
}
