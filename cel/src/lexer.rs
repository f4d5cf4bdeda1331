//! The tokens of an expression.

use crate::source::{Issue, Source};

/// The kinds of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind {
    /// A symbol or a word with a meaning of its own (`in`, `true`, `false`, `null`).
    Symbol(&'static str),
    /// A name.
    Ident,
    /// A name in back quotes.
    EscapedIdent,
    /// A signed number without its sign.
    Int,
    /// A number that ends in `u`.
    Uint,
    /// A number with a fraction or an exponent.
    Float,
    /// A text, with its quotes and prefix.
    String,
    /// Bytes, with their quotes and prefix.
    Bytes,
    /// The end.
    End,
}

/// A token: where it starts and ends, in code points.
#[derive(Clone, Copy, Debug)]
pub struct Token {
    /// What it is.
    pub kind: TokenKind,
    /// Where it starts.
    pub start: usize,
    /// Where it ends (the offset after it).
    pub end: usize,
}

/// Longest first, so that `<=` is not read as `<`.
const SYMBOLS: [&str; 26] = [
    "==", "!=", "<=", ">=", "&&", "||", "<", ">", "[", "]", "{", "}", "(", ")", ".", ",", "-", "!", "?", ":", "+", "*",
    "/", "%", "=", "&",
];

/// Reads all tokens. What is none is recorded and skipped, as upstream's lexer does.
pub fn tokens(source: &Source, issues: &mut Vec<Issue>) -> Vec<Token> {
    let mut lexer = Lexer { chars: source.chars(), at: 0 };
    let mut tokens = Vec::new();
    loop {
        lexer.skip_blanks();
        let start = lexer.at;
        match lexer.next() {
            Ok(kind) => {
                tokens.push(Token { kind, start, end: lexer.at });
                if kind == TokenKind::End {
                    return tokens;
                }
            }
            Err(length) => {
                let end = (start + length).min(lexer.chars.len());
                let text: String = lexer.chars[start..end].iter().collect();
                let text = text.replace('\n', "\\n").replace('\t', "\\t").replace('\r', "\\r");
                issues.push(Issue {
                    location: source.location(start),
                    message: format!("Syntax error: token recognition error at: '{text}'"),
                });
                lexer.at = end;
            }
        }
    }
}

struct Lexer<'a> {
    chars: &'a [char],
    at: usize,
}

impl Lexer<'_> {
    fn peek(&self, ahead: usize) -> char {
        self.chars.get(self.at + ahead).copied().unwrap_or('\0')
    }

    fn skip_blanks(&mut self) {
        loop {
            match self.peek(0) {
                ' ' | '\t' | '\r' | '\n' | '\u{c}' => self.at += 1,
                '/' if self.peek(1) == '/' => {
                    while self.at < self.chars.len() && self.peek(0) != '\n' {
                        self.at += 1;
                    }
                }
                _ => return,
            }
        }
    }

    /// The next token, or the length of what is none.
    fn next(&mut self) -> Result<TokenKind, usize> {
        if self.at >= self.chars.len() {
            return Ok(TokenKind::End);
        }
        let c = self.peek(0);
        if c.is_ascii_digit() || (c == '.' && self.peek(1).is_ascii_digit()) {
            return Ok(self.number());
        }
        if let Some(kind) = self.text()? {
            return Ok(kind);
        }
        if c == '_' || c.is_ascii_alphabetic() {
            let start = self.at;
            while self.peek(0) == '_' || self.peek(0).is_ascii_alphanumeric() {
                self.at += 1;
            }
            let word: String = self.chars[start..self.at].iter().collect();
            return Ok(match word.as_str() {
                "in" => TokenKind::Symbol("in"),
                "true" => TokenKind::Symbol("true"),
                "false" => TokenKind::Symbol("false"),
                "null" => TokenKind::Symbol("null"),
                _ => TokenKind::Ident,
            });
        }
        if c == '`' {
            return self.escaped_ident();
        }
        for symbol in SYMBOLS {
            if symbol.chars().enumerate().all(|(i, s)| self.peek(i) == s) {
                if matches!(symbol, "=" | "&") {
                    // Only the doubled form is a token; upstream's lexer reports what it had to give up.
                    return Err(if self.at + 1 < self.chars.len() { 2 } else { 1 });
                }
                self.at += symbol.len();
                return Ok(TokenKind::Symbol(symbol));
            }
        }
        Err(if c == '|' && self.at + 1 < self.chars.len() { 2 } else { 1 })
    }

    fn digits(&mut self) {
        while self.peek(0).is_ascii_digit() {
            self.at += 1;
        }
    }

    fn number(&mut self) -> TokenKind {
        if self.peek(0) == '0' && self.peek(1) == 'x' && self.peek(2).is_ascii_hexdigit() {
            self.at += 2;
            while self.peek(0).is_ascii_hexdigit() {
                self.at += 1;
            }
            return self.int_or_uint();
        }
        self.digits();
        let mut float = false;
        if self.peek(0) == '.' && self.peek(1).is_ascii_digit() {
            float = true;
            self.at += 1;
            self.digits();
        }
        if matches!(self.peek(0), 'e' | 'E') {
            let sign = usize::from(matches!(self.peek(1), '+' | '-'));
            if self.peek(1 + sign).is_ascii_digit() {
                float = true;
                self.at += 1 + sign;
                self.digits();
            }
        }
        if float { TokenKind::Float } else { self.int_or_uint() }
    }

    fn int_or_uint(&mut self) -> TokenKind {
        if matches!(self.peek(0), 'u' | 'U') {
            self.at += 1;
            return TokenKind::Uint;
        }
        TokenKind::Int
    }

    /// A text or bytes literal, if one starts here.
    fn text(&mut self) -> Result<Option<TokenKind>, usize> {
        let mut prefix = 0;
        let mut bytes = false;
        let mut raw = false;
        if matches!(self.peek(0), 'b' | 'B') {
            bytes = true;
            prefix += 1;
        }
        if matches!(self.peek(prefix), 'r' | 'R') {
            raw = true;
            prefix += 1;
        }
        let quote = self.peek(prefix);
        if quote != '"' && quote != '\'' {
            return Ok(None);
        }
        let start = self.at;
        let triple = self.peek(prefix + 1) == quote && self.peek(prefix + 2) == quote;
        self.at += prefix + if triple { 3 } else { 1 };
        loop {
            if self.at >= self.chars.len() {
                let length = self.at - start;
                self.at = start;
                return if prefix > 0 { Ok(None) } else { Err(length) };
            }
            let c = self.peek(0);
            if triple {
                if c == quote && self.peek(1) == quote && self.peek(2) == quote {
                    self.at += 3;
                    break;
                }
            } else if c == quote {
                self.at += 1;
                break;
            } else if c == '\n' || c == '\r' {
                let length = self.at + 1 - start;
                self.at = start;
                return Err(length);
            }
            if c == '\\' && !raw {
                match self.escape() {
                    Some(length) => self.at += length,
                    None => {
                        let length = self.at + 2 - start;
                        self.at = start;
                        return Err(length);
                    }
                }
            } else {
                self.at += 1;
            }
        }
        Ok(Some(if bytes { TokenKind::Bytes } else { TokenKind::String }))
    }

    /// The length of the escape sequence here, if it is one.
    fn escape(&self) -> Option<usize> {
        let hex =
            |from: usize, n: usize| (from..from + n).all(|i| self.peek(i).is_ascii_hexdigit()).then_some(from + n);
        match self.peek(1) {
            'a' | 'b' | 'f' | 'n' | 'r' | 't' | 'v' | '"' | '\'' | '\\' | '?' | '`' => Some(2),
            'x' | 'X' => hex(2, 2),
            'u' => hex(2, 4),
            'U' => hex(2, 8),
            '0'..='3' => (2..4).all(|i| matches!(self.peek(i), '0'..='7')).then_some(4),
            _ => None,
        }
    }

    fn escaped_ident(&mut self) -> Result<TokenKind, usize> {
        let mut length = 1;
        while matches!(self.peek(length), '_' | '.' | '-' | '/' | ' ') || self.peek(length).is_ascii_alphanumeric() {
            length += 1;
        }
        if length > 1 && self.peek(length) == '`' {
            self.at += length + 1;
            return Ok(TokenKind::EscapedIdent);
        }
        Err(length)
    }
}

/// The static form of a symbol, so that it can be compared with a token's.
pub fn symbol(symbol: &str) -> &'static str {
    SYMBOLS.iter().copied().find(|s| *s == symbol).unwrap_or("")
}
