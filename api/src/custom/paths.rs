//! Paths of `selectableFields` and of rules' `fieldPath`: `.spec.a['b.c'].d`.

/// The steps of a path; `arrays` allows `['name']` beside `.name`.
///
/// # Errors
/// In upstream's words.
pub fn steps(text: &str, arrays: bool) -> Result<Vec<String>, String> {
    let tokens = tokens(text);
    let mut tokens = tokens.iter();
    let mut steps = Vec::new();
    let end = || "unexpected end of JSON path".to_owned();
    while let Some(token) = tokens.next() {
        match token.as_str() {
            "[" => {
                if !arrays {
                    return Err("array notation is not allowed".to_owned());
                }
                let quoted = tokens.next().ok_or_else(end)?;
                let inner = quoted.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\''));
                let inner = inner.ok_or_else(|| format!("expected single quoted string but got {quoted}"))?;
                steps.push(unescape(inner)?);
                match tokens.next() {
                    None => return Err(end()),
                    Some(close) if close != "]" => return Err(format!("expected ] but got {close}")),
                    Some(_) => {}
                }
            }
            "." => steps.push(tokens.next().ok_or_else(end)?.clone()),
            other => return Err(format!("expected [ or . but got: {other}")),
        }
    }
    Ok(steps)
}

fn unescape(text: &str) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        out.push(match chars.next() {
            Some('a') => '\u{7}',
            Some('b') => '\u{8}',
            Some('f') => '\u{c}',
            Some('n') => '\n',
            Some('r') => '\r',
            Some('t') => '\t',
            Some('v') => '\u{b}',
            Some(same @ ('\'' | '\\')) => same,
            Some(other) => return Err(format!("invalid string literal: invalid escape char \\{other}")),
            None => '\\',
        });
    }
    Ok(out)
}

fn tokens(text: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '.' | '[' | ']' => 1,
            '\'' => {
                let bytes = rest.as_bytes();
                let closing = (1..bytes.len()).find(|at| bytes[*at] == b'\'' && bytes[at - 1] != b'\\');
                closing.map_or(rest.len(), |at| at + 1)
            }
            _ => rest.find(['.', '[', ']']).unwrap_or(rest.len()),
        };
        tokens.push(rest[..length].to_owned());
        rest = &rest[length..];
    }
    tokens
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_of_paths() {
        assert_eq!(steps(".spec['a.b'].c", true), Ok(vec!["spec".into(), "a.b".into(), "c".into()]));
        assert_eq!(steps("spec", true), Err("expected [ or . but got: spec".into()));
        assert_eq!(steps(".spec['a.b']", false), Err("array notation is not allowed".into()));
        assert_eq!(steps(".spec.", true), Err("unexpected end of JSON path".into()));
    }
}
