//! What a literal's text means.

use crate::ast::Literal;
use crate::lexer::TokenKind;

/// The value of a number.
pub fn number(kind: TokenKind, text: &str, negative: bool) -> Result<Literal, &'static str> {
    let sign = if negative { "-" } else { "" };
    match kind {
        TokenKind::Uint => {
            let text = &text[..text.len() - 1];
            let (digits, radix) = radix(text);
            u64::from_str_radix(digits, radix).map(Literal::Uint).map_err(|_| "invalid uint literal")
        }
        TokenKind::Float => match format!("{sign}{text}").parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(Literal::Double(number)),
            _ => Err("invalid double literal"),
        },
        _ => {
            let (digits, radix) = radix(text);
            i64::from_str_radix(&format!("{sign}{digits}"), radix).map(Literal::Int).map_err(|_| "invalid int literal")
        }
    }
}

fn radix(text: &str) -> (&str, u32) {
    match text.strip_prefix("0x") {
        Some(digits) => (digits, 16),
        None => (text, 10),
    }
}

/// The text that a string literal spells.
pub fn string(text: &str) -> Result<String, &'static str> {
    let mut out = String::new();
    unescape(text, |piece| match piece {
        Piece::Char(c) | Piece::Code(c) => {
            out.push(c);
            Ok(())
        }
        Piece::Byte(byte) => {
            out.push(char::from(byte));
            Ok(())
        }
        Piece::Number(code) => match char::from_u32(code) {
            Some(c) => {
                out.push(c);
                Ok(())
            }
            None => Err("invalid unicode code point"),
        },
    })?;
    Ok(out)
}

/// The bytes that a bytes literal spells.
pub fn bytes(text: &str) -> Result<Vec<u8>, &'static str> {
    let mut out = Vec::new();
    unescape(&text[1..], |piece| {
        match piece {
            Piece::Char(c) | Piece::Code(c) => out.extend(c.encode_utf8(&mut [0; 4]).as_bytes()),
            Piece::Byte(byte) => out.push(byte),
            Piece::Number(_) => return Err("unable to unescape string"),
        }
        Ok(())
    })?;
    Ok(out)
}

/// A piece of a literal.
enum Piece {
    /// A character as it stands.
    Char(char),
    /// A character that a short escape such as `\n` means.
    Code(char),
    /// What `\x41` and `\101` mean: a byte, or the character of that number.
    Byte(u8),
    /// What `\u` and `\U` mean.
    Number(u32),
}

fn unescape(text: &str, mut each: impl FnMut(Piece) -> Result<(), &'static str>) -> Result<(), &'static str> {
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let (raw, text) = match text.strip_prefix(['r', 'R']) {
        Some(rest) => (true, rest),
        None => (false, text.as_str()),
    };
    let quotes = if text.starts_with("\"\"\"") || text.starts_with("'''") { 3 } else { 1 };
    let body = text.get(quotes..text.len().saturating_sub(quotes)).ok_or("unable to unescape string")?;
    let mut chars = body.chars();
    while let Some(c) = chars.next() {
        if raw || c != '\\' {
            each(Piece::Char(c))?;
            continue;
        }
        let Some(c) = chars.next() else {
            return Err("unable to unescape string, found '\\' as last character");
        };
        let piece = match c {
            'a' => Piece::Code('\u{7}'),
            'b' => Piece::Code('\u{8}'),
            'f' => Piece::Code('\u{c}'),
            'n' => Piece::Code('\n'),
            'r' => Piece::Code('\r'),
            't' => Piece::Code('\t'),
            'v' => Piece::Code('\u{b}'),
            '\\' | '\'' | '"' | '`' | '?' => Piece::Code(c),
            'x' | 'X' => Piece::Byte(u8::try_from(take(&mut chars, 2, 16)?).unwrap_or(0)),
            'u' => Piece::Number(take(&mut chars, 4, 16)?),
            'U' => Piece::Number(take(&mut chars, 8, 16)?),
            '0'..='3' => {
                let high = c.to_digit(8).unwrap_or(0);
                Piece::Byte(u8::try_from(high * 64 + take(&mut chars, 2, 8)?).unwrap_or(0))
            }
            _ => return Err("unable to unescape string"),
        };
        each(piece)?;
    }
    Ok(())
}

fn take(chars: &mut std::str::Chars<'_>, n: usize, radix: u32) -> Result<u32, &'static str> {
    let digits: String = chars.by_ref().take(n).collect();
    if digits.len() < n {
        return Err("unable to unescape string");
    }
    u32::from_str_radix(&digits, radix).map_err(|_| "unable to unescape string")
}
