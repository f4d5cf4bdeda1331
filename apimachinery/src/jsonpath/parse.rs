//! Template text to nodes.

use super::{Error, Node, Slice};

/// Actions nest only through unions and filters; deeper nesting than this is an attack.
const MAX_DEPTH: usize = 64;

pub(super) fn parse(template: &str) -> Result<Vec<Node>, Error> {
    let mut nodes = Vec::new();
    let mut rest = template;
    while let Some(open) = rest.find('{') {
        if open > 0 {
            nodes.push(Node::Text(rest[..open].to_owned()));
        }
        let mut action = Action { text: &rest[open + 1..], position: 0, depth: 0 };
        nodes.push(Node::List(action.steps(true)?));
        rest = &action.text[action.position..];
    }
    if !rest.is_empty() {
        nodes.push(Node::Text(rest.to_owned()));
    }
    Ok(nodes)
}

/// A cursor inside braces.
struct Action<'a> {
    text: &'a str,
    position: usize,
    depth: usize,
}

impl<'a> Action<'a> {
    /// The steps of an expression that stands alone: part of a union or a filter.
    fn alone(text: &str, depth: usize) -> Result<Vec<Node>, Error> {
        if depth > MAX_DEPTH {
            return Err(Error::new("expression is nested too deeply"));
        }
        Action { text, position: 0, depth }.steps(false)
    }

    fn rest(&self) -> &'a str {
        &self.text[self.position..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.position += c.len_utf8();
        Some(c)
    }

    /// Everything up to the closing brace, or to the end of an expression that stands alone.
    fn steps(&mut self, braced: bool) -> Result<Vec<Node>, Error> {
        let mut steps = Vec::new();
        loop {
            if self.rest().starts_with('}') && braced {
                self.position += 1;
                return Ok(steps);
            }
            if self.rest().is_empty() && !braced {
                return Ok(steps);
            }
            if self.rest().starts_with("[?(") {
                steps.push(self.filter()?);
                continue;
            }
            if self.rest().starts_with("..") {
                if steps.last() == Some(&Node::Recursive) {
                    return Err(Error::new("invalid multiple recursive descent"));
                }
                self.position += 2;
                steps.push(Node::Recursive);
                if self.peek().is_some_and(is_alphanumeric) {
                    steps.push(self.field());
                }
                continue;
            }
            match self.peek() {
                None | Some('\r' | '\n') => return Err(Error::new("unclosed action")),
                // The current object and the root are where a walk starts anyway.
                Some(' ' | '@' | '$') => {
                    self.next();
                }
                Some('[') => self.array(&mut steps)?,
                Some(quote @ ('"' | '\'')) => steps.push(Node::Text(self.quoted(quote)?)),
                Some('.') => {
                    self.next();
                    steps.push(self.field());
                }
                Some(c) if c == '+' || c == '-' || c.is_numeric() => steps.push(self.number()?),
                Some(c) if is_alphanumeric(c) => steps.push(self.identifier()),
                Some(c) => {
                    let code = u32::from(c);
                    return Err(Error::new(format!("unrecognized character in action: U+{code:04X} '{c}'")));
                }
            }
        }
    }

    fn identifier(&mut self) -> Node {
        let length = self.rest().find(is_terminator).unwrap_or(self.rest().len());
        let word = &self.rest()[..length];
        self.position += length;
        match word {
            "true" => Node::Bool(true),
            "false" => Node::Bool(false),
            _ => Node::Identifier(word.to_owned()),
        }
    }

    /// A field name up to a terminator; a backslash takes the next character literally.
    fn field(&mut self) -> Node {
        let mut name = String::new();
        while let Some(c) = self.peek() {
            if c == '\\' {
                self.next();
                if let Some(escaped) = self.next()
                    && escaped != '\\'
                {
                    name.push(escaped);
                }
            } else if is_terminator(c) {
                break;
            } else {
                name.push(c);
                self.next();
            }
        }
        if name == "*" { Node::Wildcard } else { Node::Field(name) }
    }

    fn number(&mut self) -> Result<Node, Error> {
        let start = self.position;
        if matches!(self.peek(), Some('+' | '-')) {
            self.next();
        }
        while self.peek().is_some_and(|c| c == '.' || c.is_numeric()) {
            self.next();
        }
        let text = &self.text[start..self.position];
        if let Ok(int) = text.parse() {
            return Ok(Node::Int(int));
        }
        text.parse().map(Node::Float).map_err(|_| Error::new(format!("cannot parse number {text}")))
    }

    fn quoted(&mut self, quote: char) -> Result<String, Error> {
        let start = self.position;
        self.next();
        let mut previous = quote;
        loop {
            match self.next() {
                None | Some('\n') => return Err(Error::new("unterminated quoted string")),
                Some(c) if c == quote && previous != '\\' => break,
                Some(c) => previous = c,
            }
        }
        let text = &self.text[start..self.position];
        unquote(&text[1..text.len() - 1], quote)
            .ok_or_else(|| Error::new(format!("unquote string {text} error invalid syntax")))
    }

    fn array(&mut self, steps: &mut Vec<Node>) -> Result<(), Error> {
        let rest = self.rest();
        let close = rest.find([']', '\n']).filter(|&end| rest[end..].starts_with(']'));
        let Some(close) = close else { return Err(Error::new("unterminated array")) };
        let text = &rest[1..close];
        self.position += close + 1;
        let text = if text == "*" { ":" } else { text };

        if text.contains(',') {
            let members =
                text.split(',').map(|member| Action::alone(&format!("[{}]", member.trim_matches(' ')), self.depth + 1));
            steps.push(Node::Union(members.collect::<Result<_, _>>()?));
            return Ok(());
        }
        let key = text.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\'')).filter(|key| !key.contains('\''));
        if let Some(key) = key {
            steps.extend(Action::alone(&format!(".{key}"), self.depth + 1)?);
            return Ok(());
        }
        steps.push(Node::Array(slice(text)?));
        Ok(())
    }

    fn filter(&mut self) -> Result<Node, Error> {
        self.position += "[?(".len();
        let start = self.position;
        // The first quote opens a string; the parenthesis that ends the filter is outside of it.
        let mut quote = None;
        let mut closed = false;
        let mut previous = '\0';
        loop {
            let Some(c) = self.next().filter(|&c| c != '\n') else { return Err(Error::new("unterminated filter")) };
            match (c, quote) {
                ('"' | '\'', None) => quote = Some(c),
                (c, Some(open)) if c == open && previous != '\\' => closed = true,
                (')', _) if quote.is_some() == closed => break,
                _ => {}
            }
            previous = c;
        }
        let text = &self.text[start..self.position - 1];
        if self.next() != Some(']') {
            return Err(Error::new("unclosed array expect ]"));
        }
        let is_operator = |c: char| matches!(c, '!' | '<' | '>' | '=');
        let split = text.find(is_operator).filter(|&at| at > 0).and_then(|at| {
            let operator = &text[at..];
            // The operator takes all it can but leaves at least one character on the right.
            let length = operator.find(|c| !is_operator(c)).unwrap_or(operator.len() - 1);
            (length > 0 && at + length < text.len()).then(|| (&text[..at], &operator[..length], &operator[length..]))
        });
        match split {
            Some((left, operator, right)) => Ok(Node::Filter {
                left: Action::alone(left, self.depth + 1)?,
                right: Action::alone(right, self.depth + 1)?,
                operator: operator.to_owned(),
            }),
            None => Ok(Node::Filter {
                left: Action::alone(text, self.depth + 1)?,
                right: Vec::new(),
                operator: "exists".into(),
            }),
        }
    }
}

fn slice(text: &str) -> Result<Slice, Error> {
    let invalid = || Error::new(format!("invalid array index {text}"));
    let parts: Vec<&str> = text.split(':').collect();
    let digits_only = |part: &&str| part.strip_prefix('-').unwrap_or(part).chars().all(|c| c.is_ascii_digit());
    if parts.len() > 3 || !parts.iter().all(digits_only) {
        return Err(invalid());
    }
    let number = |part: Option<&&str>| match part {
        None | Some(&"") => Ok(None),
        Some(digits) => {
            digits.parse().map(Some).map_err(|_| Error::new(format!("array index {digits} is not a number")))
        }
    };
    let start = number(parts.first())?;
    let end_derived = parts.len() == 1;
    let end = if end_derived { Some(start.unwrap_or(0) + 1) } else { number(parts.get(1))? };
    Ok(Slice { start, end, end_derived, step: number(parts.get(2))? })
}

/// Go's escapes inside a quoted string.
fn unquote(text: &str, quote: char) -> Option<String> {
    let mut out = Vec::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            continue;
        }
        let decoded = match chars.next()? {
            'a' => '\u{7}',
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\u{b}',
            '\\' => '\\',
            'x' => {
                out.push(u8::try_from(hex(&mut chars, 2)?).ok()?);
                continue;
            }
            'u' => char::from_u32(hex(&mut chars, 4)?)?,
            'U' => char::from_u32(hex(&mut chars, 8)?)?,
            c if c == quote => c,
            _ => return None,
        };
        out.extend_from_slice(decoded.encode_utf8(&mut [0; 4]).as_bytes());
    }
    Some(String::from_utf8_lossy(&out).into_owned())
}

fn hex(chars: &mut std::str::Chars<'_>, digits: usize) -> Option<u32> {
    let code: String = chars.by_ref().take(digits).collect();
    if code.len() == digits { u32::from_str_radix(&code, 16).ok() } else { None }
}

fn is_alphanumeric(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

fn is_terminator(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n' | '.' | ',' | '[' | ']' | '$' | '@' | '{' | '}')
}
