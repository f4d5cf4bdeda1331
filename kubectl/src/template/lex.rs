//! Template text to tokens.

use serde_json::Value;

use super::Error;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    /// `.name`
    Field(String),
    /// `.`
    Dot,
    /// `$name`
    Variable(String),
    Word(String),
    Literal(Value),
    Pipe,
    Comma,
    Declare,
    Assign,
    Open,
    /// `)`, and whether a field follows without a space.
    Close,
    Space,
}

/// Text and actions in order.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Piece {
    Text(String),
    Action(Vec<Token>),
}

/// Splits at `{{` and `}}`; `{{-` and `-}}` eat the white space beside them.
pub(super) fn pieces(template: &str) -> Result<Vec<Piece>, Error> {
    let mut pieces = Vec::new();
    let mut rest = template;
    let mut trim_start = false;
    loop {
        let (mut text, after) = match rest.find("{{") {
            Some(open) => (&rest[..open], Some(&rest[open + 2..])),
            None => (rest, None),
        };
        if trim_start {
            text = text.trim_start();
        }
        let Some(mut action) = after else {
            if !text.is_empty() {
                pieces.push(Piece::Text(text.to_owned()));
            }
            return Ok(pieces);
        };
        if let Some(trimmed) = action.strip_prefix('-').filter(|rest| rest.starts_with([' ', '\t', '\n', '\r'])) {
            text = text.trim_end();
            action = trimmed;
        }
        if !text.is_empty() {
            pieces.push(Piece::Text(text.to_owned()));
        }
        let comment = action.trim_start();
        if comment.starts_with("/*") {
            let end = comment.find("*/").ok_or_else(|| Error::new("template: output:1: unclosed comment"))?;
            let after = &comment[end + 2..];
            let close = after
                .find("}}")
                .ok_or_else(|| Error::new("template: output:1: comment ends before closing delimiter"))?;
            trim_start = after[..close].trim_end().ends_with('-');
            rest = &after[close + 2..];
            continue;
        }
        let (tokens, after, trims) = tokens(action)?;
        pieces.push(Piece::Action(tokens));
        trim_start = trims;
        rest = after;
    }
}

fn tokens(action: &str) -> Result<(Vec<Token>, &str, bool), Error> {
    let mut tokens = Vec::new();
    let mut rest = action;
    let bad = |text: &str| Error::new(format!("template: output:1: {text}"));
    loop {
        if let Some(after) = rest.strip_prefix("}}") {
            return Ok((tokens, after, false));
        }
        if let Some(after) = rest.strip_prefix(" -}}").or_else(|| rest.strip_prefix("\n-}}")) {
            return Ok((tokens, after, true));
        }
        let Some(c) = rest.chars().next() else { return Err(bad("unclosed action")) };
        let word = |text: &str| text.find(|c: char| !(c == '_' || c.is_alphanumeric())).unwrap_or(text.len());
        let (token, length) = match c {
            ' ' | '\t' | '\r' | '\n' => {
                let length = rest.find(|c: char| !c.is_whitespace()).unwrap_or(rest.len());
                // Leave the last space for the trim marker.
                let length = if rest[length..].starts_with("-}}") && length > 1 { length - 1 } else { length };
                (Token::Space, length)
            }
            '|' => (Token::Pipe, 1),
            ',' => (Token::Comma, 1),
            '(' => (Token::Open, 1),
            ')' => (Token::Close, 1),
            ':' if rest.starts_with(":=") => (Token::Declare, 2),
            '=' => (Token::Assign, 1),
            '.' => match word(&rest[1..]) {
                0 => (Token::Dot, 1),
                length => (Token::Field(rest[1..=length].to_owned()), length + 1),
            },
            '$' => {
                let length = word(&rest[1..]);
                (Token::Variable(rest[1..=length].to_owned()), length + 1)
            }
            '"' => {
                let end = string_end(rest).ok_or_else(|| bad("unterminated quoted string"))?;
                let text = serde_json::from_str::<String>(&rest[..=end]).ok().or_else(|| unescape(&rest[1..end]));
                let text = text.ok_or_else(|| bad("invalid syntax"))?;
                (Token::Literal(Value::String(text)), end + 1)
            }
            '`' => {
                let end = rest[1..].find('`').ok_or_else(|| bad("unterminated raw quoted string"))?;
                (Token::Literal(Value::String(rest[1..=end].to_owned())), end + 2)
            }
            '\'' => {
                let end = rest[1..].find('\'').ok_or_else(|| bad("unterminated character constant"))? + 1;
                let text = unescape(&rest[1..end]).ok_or_else(|| bad("malformed character constant"))?;
                let code = text.chars().next().map_or(0, u32::from);
                (Token::Literal(Value::from(code)), end + 1)
            }
            c if c.is_ascii_digit()
                || ((c == '-' || c == '+') && rest[1..].starts_with(|c: char| c.is_ascii_digit())) =>
            {
                let length = rest[1..]
                    .find(|c: char| !(c.is_ascii_alphanumeric() || c == '.' || c == '_'))
                    .map_or(rest.len(), |at| at + 1);
                let text = &rest[..length];
                let number = match text.parse::<i64>() {
                    Ok(int) => Value::from(int),
                    Err(_) => text
                        .parse::<f64>()
                        .map(Value::from)
                        .map_err(|_| bad(&format!("bad number syntax: {text:?}")))?,
                };
                (Token::Literal(number), length)
            }
            c if c == '_' || c.is_alphabetic() => {
                let length = word(rest);
                let token = match &rest[..length] {
                    "true" => Token::Literal(Value::Bool(true)),
                    "false" => Token::Literal(Value::Bool(false)),
                    word => Token::Word(word.to_owned()),
                };
                (token, length)
            }
            c => return Err(bad(&format!("unexpected {c:?} in command"))),
        };
        tokens.push(token);
        rest = &rest[length..];
    }
}

fn string_end(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.char_indices().skip(1).find_map(|(index, c)| {
        let end = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        end.then_some(index)
    })
}

/// Go's escapes that JSON lacks.
fn unescape(text: &str) -> Option<String> {
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        out.push(match chars.next()? {
            'a' => '\u{7}',
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\u{b}',
            'x' => {
                let code: String = chars.by_ref().take(2).collect();
                char::from(u8::from_str_radix(&code, 16).ok()?)
            }
            c @ ('\\' | '\'' | '"') => c,
            _ => return None,
        });
    }
    Some(out)
}
