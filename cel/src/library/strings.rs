//! cel-go's `strings` extension, version 2. Positions count code points.

use super::{Functions, format_string, int, text};
use crate::cost::Cost;
use crate::error::Error;
use crate::types::Type;
use crate::value::{Result, Value};

/// Declares it.
pub fn declare(f: &mut Functions) {
    use Type::{Int, String};
    let texts = Type::list(String);
    f.member("charAt", "string_char_at_int", &[String, Int], String, Cost::Default, |args| {
        let chars: Vec<char> = text(&args[0])?.chars().collect();
        let at = int(&args[1])?;
        match usize::try_from(at) {
            Ok(i) if i < chars.len() => Ok(Value::text(chars[i].to_string())),
            Ok(i) if i == chars.len() => Ok(Value::str("")),
            _ => Err(out_of_range(at)),
        }
    });
    f.member("indexOf", "string_index_of_string", &[String, String], Int, Cost::Elements, |args| {
        index_of(text(&args[0])?, text(&args[1])?, 0)
    });
    f.member("indexOf", "string_index_of_string_int", &[String, String, Int], Int, Cost::Elements, |args| {
        index_of(text(&args[0])?, text(&args[1])?, int(&args[2])?)
    });
    f.member("lastIndexOf", "string_last_index_of_string", &[String, String], Int, Cost::Elements, |args| {
        let (whole, part) = (text(&args[0])?, text(&args[1])?);
        let length = whole.chars().count();
        if part.is_empty() {
            return Ok(Value::Int(length as i64));
        }
        if whole.len() < part.len() {
            return Ok(Value::Int(-1));
        }
        last_index_of(whole, part, length as i64 - 1)
    });
    f.member("lastIndexOf", "string_last_index_of_string_int", &[String, String, Int], Int, Cost::Elements, |args| {
        last_index_of(text(&args[0])?, text(&args[1])?, int(&args[2])?)
    });
    f.member("lowerAscii", "string_lower_ascii", &[String], String, Cost::Traverse, |args| {
        Ok(Value::text(text(&args[0])?.to_ascii_lowercase()))
    });
    f.member("replace", "string_replace_string_string", &[String, String, String], String, Cost::Replace, |args| {
        Ok(Value::text(text(&args[0])?.replace(text(&args[1])?, text(&args[2])?)))
    });
    let args = [String, String, String, Int];
    f.member("replace", "string_replace_string_string_int", &args, String, Cost::Replace, |args| {
        let (whole, from, to) = (text(&args[0])?, text(&args[1])?, text(&args[2])?);
        Ok(Value::text(match usize::try_from(int(&args[3])?) {
            Ok(count) => whole.replacen(from, to, count),
            Err(_) => whole.replace(from, to),
        }))
    });
    f.member("split", "string_split_string", &[String, String], texts.clone(), Cost::Split, |args| {
        split(text(&args[0])?, text(&args[1])?, -1)
    });
    f.member("split", "string_split_string_int", &[String, String, Int], texts.clone(), Cost::Split, |args| {
        split(text(&args[0])?, text(&args[1])?, int(&args[2])?)
    });
    f.member("substring", "string_substring_int", &[String, Int], String, Cost::Traverse, |args| {
        let whole = text(&args[0])?;
        substring(whole, int(&args[1])?, whole.chars().count() as i64, false)
    });
    f.member("substring", "string_substring_int_int", &[String, Int, Int], String, Cost::Traverse, |args| {
        substring(text(&args[0])?, int(&args[1])?, int(&args[2])?, true)
    });
    f.member("trim", "string_trim", &[String], String, Cost::Traverse, |args| Ok(Value::text(text(&args[0])?.trim())));
    f.member("upperAscii", "string_upper_ascii", &[String], String, Cost::Traverse, |args| {
        Ok(Value::text(text(&args[0])?.to_ascii_uppercase()))
    });
    f.member("format", "string_format", &[String, Type::list(Type::Dyn)], String, Cost::Format, |args| {
        match (&args[0], &args[1]) {
            (Value::String(format), Value::List(list)) => {
                let values = list.iter().collect::<std::result::Result<Vec<_>, _>>()?;
                format_string::format(format, &values).map(Value::text)
            }
            _ => Err(Error::no_such_overload()),
        }
    });
    f.global("strings.quote", "strings_quote", &[String], String, Cost::Quote, |args| {
        Ok(Value::text(quote(text(&args[0])?)))
    });
    f.member("join", "list_join", std::slice::from_ref(&texts), String, Cost::Join, |args| join(&args[0], ""));
    f.member("join", "list_join_string", &[texts, String], String, Cost::Join, |args| join(&args[0], text(&args[1])?));
}

fn out_of_range(at: i64) -> Error {
    Error::new(format!("index out of range: {at}"))
}

fn index_of<'a>(whole: &str, part: &str, from: i64) -> Result<'a> {
    if part.is_empty() {
        return Ok(Value::Int(from));
    }
    let start = usize::try_from(from).map_err(|_| out_of_range(from))?;
    let Some((at, _)) = whole.char_indices().nth(start) else { return Ok(Value::Int(-1)) };
    Ok(Value::Int(match whole[at..].find(part) {
        Some(found) => from + whole[at..at + found].chars().count() as i64,
        None => -1,
    }))
}

fn last_index_of<'a>(whole: &str, part: &str, from: i64) -> Result<'a> {
    if part.is_empty() {
        return Ok(Value::Int(from));
    }
    let start = usize::try_from(from).map_err(|_| out_of_range(from))?;
    let (whole, part): (Vec<char>, Vec<char>) = (whole.chars().collect(), part.chars().collect());
    if start >= whole.len() || part.len() > whole.len() {
        return Ok(Value::Int(-1));
    }
    let start = start.min(whole.len() - part.len());
    let found = (0..=start).rev().find(|at| whole[*at..].starts_with(&part));
    Ok(Value::Int(found.map_or(-1, |at| at as i64)))
}

/// Go's `strings.SplitN`: at most `limit` pieces; all of them when it is negative.
fn split<'a>(whole: &str, separator: &str, limit: i64) -> Result<'a> {
    if limit == 0 {
        return Ok(Value::list(Vec::new()));
    }
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    if separator.is_empty() {
        let mut pieces: Vec<Value<'a>> = Vec::new();
        let mut rest = whole;
        while let Some(c) = rest.chars().next() {
            if pieces.len() + 1 == limit {
                break;
            }
            pieces.push(Value::text(&rest[..c.len_utf8()]));
            rest = &rest[c.len_utf8()..];
        }
        if !rest.is_empty() {
            pieces.push(Value::text(rest));
        }
        return Ok(Value::list(pieces));
    }
    Ok(Value::texts(whole.splitn(limit, separator)))
}

fn substring<'a>(whole: &str, start: i64, end: i64, range: bool) -> Result<'a> {
    let length = whole.chars().count();
    if range && start > end {
        return Err(Error::new(format!("invalid substring range. start: {start}, end: {end}")));
    }
    let place = |at: i64| usize::try_from(at).ok().filter(|at| *at <= length).ok_or_else(|| out_of_range(at));
    let (start, end) = (place(start)?, place(end)?);
    Ok(Value::text(whole.chars().skip(start).take(end - start).collect::<String>()))
}

fn join<'a>(list: &Value<'a>, separator: &str) -> Result<'a> {
    let Value::List(list) = list else { return Err(Error::no_such_overload()) };
    let mut out = String::new();
    for (at, item) in list.iter().enumerate() {
        if at > 0 {
            out.push_str(separator);
        }
        let item = item?;
        match item.as_str() {
            Some(text) => out.push_str(text),
            None => return Err(Error::new(format!("join: invalid input: {item}"))),
        }
    }
    Ok(Value::text(out))
}

fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
