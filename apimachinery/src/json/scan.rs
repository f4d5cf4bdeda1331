//! The lexical half of the JSON decoder: bytes to strings, numbers and punctuation, with the
//! messages of Go's `encoding/json` scanner.

use super::Error;
use crate::gotext::quote;
use serde_json::{Number, Value};

/// What is neither a string nor a container.
pub(super) enum Scalar<'a> {
    Null,
    Bool(bool),
    Number(&'a str),
}

pub(super) struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Scanner<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(super) fn error_here(&self, message: &str) -> Error {
        Error { message: message.to_owned(), offset: self.at }
    }

    /// What is wrong with the byte at the current position.
    fn invalid(&self, context: &str) -> Error {
        let message = match self.bytes.get(self.at) {
            None => "unexpected end of JSON input".to_owned(),
            Some(byte) => format!("invalid character {} {context}", show(*byte)),
        };
        Error { message, offset: self.at }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    /// Positions after the first byte of `{`, `[` and `"`, and on it for every other value.
    pub(super) fn value_start(&mut self) -> Result<u8, Error> {
        self.space();
        match self.peek() {
            Some(open @ (b'{' | b'[' | b'"')) => {
                self.at += 1;
                Ok(open)
            }
            Some(other @ (b'-' | b'0'..=b'9' | b't' | b'f' | b'n')) => Ok(other),
            _ => Err(self.invalid("looking for beginning of value")),
        }
    }

    /// After `{`: the first key with its colon, or `None` at `}`.
    pub(super) fn first_key(&mut self) -> Result<Option<String>, Error> {
        self.space();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(None);
        }
        self.key().map(Some)
    }

    /// After a value of an object: the next key, or `None` at `}`.
    pub(super) fn next_key(&mut self) -> Result<Option<String>, Error> {
        self.space();
        match self.peek() {
            Some(b'}') => {
                self.at += 1;
                Ok(None)
            }
            Some(b',') => {
                self.at += 1;
                self.space();
                self.key().map(Some)
            }
            _ => Err(self.invalid("after object key:value pair")),
        }
    }

    fn key(&mut self) -> Result<String, Error> {
        if self.peek() != Some(b'"') {
            return Err(self.invalid("looking for beginning of object key string"));
        }
        self.at += 1;
        let key = self.string()?;
        self.space();
        if self.peek() != Some(b':') {
            return Err(self.invalid("after object key"));
        }
        self.at += 1;
        Ok(key)
    }

    /// After `[`: consumes `]` if it follows.
    pub(super) fn array_is_empty(&mut self) -> Result<bool, Error> {
        self.space();
        let empty = self.peek() == Some(b']');
        self.at += usize::from(empty);
        Ok(empty)
    }

    /// After an item: whether another follows.
    pub(super) fn next_item(&mut self) -> Result<bool, Error> {
        self.space();
        match self.peek() {
            Some(b',') => {
                self.at += 1;
                Ok(true)
            }
            Some(b']') => {
                self.at += 1;
                Ok(false)
            }
            _ => Err(self.invalid("after array element")),
        }
    }

    /// Only white space may follow the document.
    pub(super) fn end(&mut self) -> Result<(), Error> {
        self.space();
        if self.at < self.bytes.len() { Err(self.invalid("after top-level value")) } else { Ok(()) }
    }

    /// The rest of a string, after its opening quote.
    pub(super) fn string(&mut self) -> Result<String, Error> {
        let start = self.at;
        // Most strings hold neither escapes nor control characters: find the end and copy once.
        loop {
            match self.peek() {
                Some(b'"') => {
                    let text = String::from_utf8_lossy(&self.bytes[start..self.at]).into_owned();
                    self.at += 1;
                    return Ok(text);
                }
                Some(b'\\') => break,
                Some(byte) if byte >= 0x20 => self.at += 1,
                _ => return Err(self.invalid("in string literal")),
            }
        }
        let mut out = self.bytes[start..self.at].to_vec();
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(match String::from_utf8(out) {
                        Ok(text) => text,
                        Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
                    });
                }
                Some(b'\\') => {
                    self.at += 1;
                    self.escape(&mut out)?;
                }
                Some(byte) if byte >= 0x20 => {
                    out.push(byte);
                    self.at += 1;
                }
                _ => return Err(self.invalid("in string literal")),
            }
        }
    }

    fn escape(&mut self, out: &mut Vec<u8>) -> Result<(), Error> {
        let byte = match self.peek() {
            Some(byte @ (b'"' | b'\\' | b'/')) => byte,
            Some(b'b') => 0x08,
            Some(b'f') => 0x0c,
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'u') => {
                self.at += 1;
                let c = self.unicode()?;
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                return Ok(());
            }
            _ => return Err(self.invalid("in string escape code")),
        };
        out.push(byte);
        self.at += 1;
        Ok(())
    }

    fn unicode(&mut self) -> Result<char, Error> {
        let first = self.hex4()?;
        if let Some(c) = char::from_u32(first) {
            return Ok(c);
        }
        // A surrogate: it counts only together with the other half.
        if (0xd800..0xdc00).contains(&first) && self.bytes[self.at..].starts_with(b"\\u") {
            let back = self.at;
            self.at += 2;
            let second = self.hex4()?;
            if (0xdc00..0xe000).contains(&second) {
                let code = 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00);
                return Ok(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            self.at = back;
        }
        Ok(char::REPLACEMENT_CHARACTER)
    }

    fn hex4(&mut self) -> Result<u32, Error> {
        let mut code = 0;
        for _ in 0..4 {
            let digit = self.peek().and_then(|b| char::from(b).to_digit(16));
            code = code * 16 + digit.ok_or_else(|| self.invalid("in \\u hexadecimal character escape"))?;
            self.at += 1;
        }
        Ok(code)
    }

    /// A number, as it is written, `true`, `false` or `null`.
    pub(super) fn scalar(&mut self) -> Result<Scalar<'a>, Error> {
        match self.peek() {
            Some(b't') => self.literal("true", Scalar::Bool(true)),
            Some(b'f') => self.literal("false", Scalar::Bool(false)),
            Some(b'n') => self.literal("null", Scalar::Null),
            _ => self.number().map(Scalar::Number),
        }
    }

    fn literal(&mut self, word: &str, value: Scalar<'a>) -> Result<Scalar<'a>, Error> {
        for expected in word.bytes() {
            if self.peek() != Some(expected) {
                return Err(self.invalid(&format!("in literal {word} (expecting {})", show(expected))));
            }
            self.at += 1;
        }
        Ok(value)
    }

    fn digits(&mut self) -> usize {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        self.at - start
    }

    fn number(&mut self) -> Result<&'a str, Error> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.peek() {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => {
                self.digits();
            }
            _ => return Err(self.invalid("in numeric literal")),
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            if self.digits() == 0 {
                return Err(self.invalid("after decimal point in numeric literal"));
            }
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            if self.digits() == 0 {
                return Err(self.invalid("in exponent of numeric literal"));
            }
        }
        Ok(std::str::from_utf8(&self.bytes[start..self.at]).expect("digits and signs are ASCII"))
    }
}

/// A number as Go reads it where anything may stand: 64 bits of an integer if it is written as one and fits, else a
/// float. `None` for what is too large for that.
pub(crate) fn number(text: &str) -> Option<Value> {
    match text.parse::<i64>() {
        Ok(integer) => Some(integer.into()),
        Err(_) => {
            let float: f64 = text.parse().expect("the scanner saw a number");
            Number::from_f64(float).map(Value::Number)
        }
    }
}

/// Go's `quoteChar`.
fn show(byte: u8) -> String {
    match byte {
        b'\'' => r"'\''".to_owned(),
        b'"' => "'\"'".to_owned(),
        _ => {
            let quoted = quote(&char::from(byte).to_string());
            format!("'{}'", &quoted[1..quoted.len() - 1])
        }
    }
}
