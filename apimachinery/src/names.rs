//! Names and keys: the format checks that upstream keeps in `util/validation`.
//!
//! Each function returns upstream's messages, empty when the value is fine. The checks are written
//! by hand rather than with regular expressions: they run on every write.

use std::fmt::Write;

pub const LABEL_MAX: usize = 63;
pub const SUBDOMAIN_MAX: usize = 253;

const DNS1123_LABEL: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const DNS1123_SUBDOMAIN: &str = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const DNS1123_SUBDOMAIN_UNDERSCORE: &str = r"_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?(\._?[a-z0-9]([-_a-z0-9]*[a-z0-9])?)*";
const DNS1035_LABEL: &str = "[a-z]([-a-z0-9]*[a-z0-9])?";
const WILDCARD_SUBDOMAIN: &str = r"\*\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const LABEL_KEY: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
const LABEL_VALUE: &str = "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?";

/// The same as [`max_len_error`] in the words of the newer checks.
pub fn max_bytes_error(length: usize) -> String {
    format!("must be no more than {length} bytes")
}

/// Messages about one value.
pub type Messages = Vec<String>;

pub fn max_len_error(length: usize) -> String {
    format!("must be no more than {length} characters")
}

pub fn inclusive_range_error(low: i64, high: i64) -> String {
    format!("must be between {low} and {high}, inclusive")
}

/// `message (e.g. 'a',  or 'b', regex used for validation is '…')`, with upstream's odd spacing.
pub fn regex_error(message: &str, format: &str, examples: &[&str]) -> String {
    let mut out = message.to_owned();
    out.push_str(" (");
    for (i, example) in examples.iter().enumerate() {
        out.push_str(if i == 0 { "e.g. " } else { " or " });
        write!(out, "'{example}', ").expect("writing to a String");
    }
    write!(out, "regex used for validation is '{format}')").expect("writing to a String");
    out
}

fn lower_alnum(b: u8) -> bool {
    b.is_ascii_lowercase() || b.is_ascii_digit()
}

fn bounded(value: &str, inner: impl Fn(u8) -> bool, edge: impl Fn(u8) -> bool) -> bool {
    let bytes = value.as_bytes();
    match (bytes.first(), bytes.last()) {
        (Some(&first), Some(&last)) => edge(first) && edge(last) && bytes.iter().all(|&b| inner(b) || edge(b)),
        _ => false,
    }
}

fn is_label(value: &str) -> bool {
    bounded(value, |b| b == b'-', lower_alnum)
}

fn is_subdomain(value: &str) -> bool {
    value.split('.').all(is_label)
}

fn qualified_char(value: &str) -> bool {
    bounded(value, |b| matches!(b, b'-' | b'_' | b'.'), |b| b.is_ascii_alphanumeric())
}

/// A DNS label per RFC 1123.
pub fn dns1123_label(value: &str) -> Messages {
    let mut errors = Messages::new();
    if value.len() > LABEL_MAX {
        errors.push(max_len_error(LABEL_MAX));
    }
    if !is_label(value) {
        if is_subdomain(value) {
            errors.push("must not contain dots".into());
        } else {
            errors.push(regex_error(
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character",
                DNS1123_LABEL,
                &["my-name", "123-abc"],
            ));
        }
    }
    errors
}

/// A DNS subdomain per RFC 1123.
pub fn dns1123_subdomain(value: &str) -> Messages {
    let mut errors = Messages::new();
    if value.len() > SUBDOMAIN_MAX {
        errors.push(max_len_error(SUBDOMAIN_MAX));
    }
    if !is_subdomain(value) {
        errors.push(regex_error(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character",
            DNS1123_SUBDOMAIN,
            &["example.com"],
        ));
    }
    errors
}

/// The same, where labels may also hold and start with an underscore (DNS search paths).
pub fn dns1123_subdomain_with_underscore(value: &str) -> Messages {
    let mut errors = Messages::new();
    if value.len() > SUBDOMAIN_MAX {
        errors.push(max_len_error(SUBDOMAIN_MAX));
    }
    let label = |l: &str| bounded(l.strip_prefix('_').unwrap_or(l), |b| matches!(b, b'-' | b'_'), lower_alnum);
    if !value.split('.').all(label) {
        errors.push(regex_error(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', and must start and end with an alphanumeric character",
            DNS1123_SUBDOMAIN_UNDERSCORE,
            &["example.com"],
        ));
    }
    errors
}

/// A DNS label per RFC 1035: starts with a letter.
pub fn dns1035_label(value: &str) -> Messages {
    let mut errors = Messages::new();
    if value.len() > LABEL_MAX {
        errors.push(max_len_error(LABEL_MAX));
    }
    if !(is_label(value) && value.as_bytes()[0].is_ascii_lowercase()) {
        errors.push(regex_error(
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character",
            DNS1035_LABEL,
            &["my-name", "abc-123"],
        ));
    }
    errors
}

/// `*.` and a subdomain.
pub fn wildcard_dns1123_subdomain(value: &str) -> Messages {
    let mut errors = Messages::new();
    if value.len() > SUBDOMAIN_MAX {
        errors.push(max_len_error(SUBDOMAIN_MAX));
    }
    if !value.strip_prefix("*.").is_some_and(is_subdomain) {
        errors.push(regex_error(
            "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character",
            WILDCARD_SUBDOMAIN,
            &["*.example.com"],
        ));
    }
    errors
}

/// A label key or other qualified name: `[prefix/]name`.
pub fn qualified_name(value: &str) -> Messages {
    const MESSAGE: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
    const EXAMPLES: &[&str] = &["MyName", "my.name", "123-abc"];
    let mut errors = Messages::new();
    let parts: Vec<&str> = value.split('/').collect();
    let name = match parts[..] {
        [name] => name,
        [prefix, name] => {
            if prefix.is_empty() {
                errors.push("prefix part must be non-empty".into());
            } else {
                let wrong = dns1123_subdomain(prefix).into_iter();
                // The label's own check counts bytes, as its newer words say.
                let wrong =
                    wrong.map(|m| if m == max_len_error(SUBDOMAIN_MAX) { max_bytes_error(SUBDOMAIN_MAX) } else { m });
                errors.extend(wrong.map(|m| format!("prefix part {m}")));
            }
            name
        }
        _ => {
            return vec![format!(
                "a valid label key {} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')",
                regex_error(MESSAGE, LABEL_KEY, EXAMPLES)
            )];
        }
    };
    if name.is_empty() {
        errors.push("name part must be non-empty".into());
    } else if name.len() > LABEL_MAX {
        errors.push(format!("name part {}", max_bytes_error(LABEL_MAX)));
    }
    if !qualified_char(name) {
        errors.push(format!("name part {}", regex_error(MESSAGE, LABEL_KEY, EXAMPLES)));
    }
    errors
}

/// A label value.
pub fn label_value(value: &str) -> Messages {
    let mut errors = Messages::new();
    if value.len() > LABEL_MAX {
        errors.push(max_bytes_error(LABEL_MAX));
    }
    if !value.is_empty() && !qualified_char(value) {
        errors.push(regex_error(
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character",
            LABEL_VALUE,
            &["MyValue", "my_value", "12345"],
        ));
    }
    errors
}

/// A C identifier.
pub fn c_identifier(value: &str) -> Messages {
    let head = value.as_bytes().first().is_some_and(|b| b.is_ascii_alphabetic() || *b == b'_');
    if head && value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return Messages::new();
    }
    vec![regex_error(
        "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric characters or '_'",
        "[A-Za-z_][A-Za-z0-9_]*",
        &["my_name", "MY_NAME", "MyName"],
    )]
}

/// A port number: 1 to 65535.
pub fn port_num(port: i64) -> Messages {
    in_range(port, 1, 65535)
}

pub fn in_range(value: i64, low: i64, high: i64) -> Messages {
    if (low..=high).contains(&value) { Messages::new() } else { vec![inclusive_range_error(low, high)] }
}

/// A uid or gid.
pub fn user_id(id: i64) -> Messages {
    in_range(id, 0, i64::from(i32::MAX))
}

/// A port's name.
pub fn port_name(port: &str) -> Messages {
    let mut errors = Messages::new();
    if port.len() > 15 {
        errors.push(max_len_error(15));
    }
    if port.is_empty() || !port.bytes().all(|b| lower_alnum(b) || b == b'-') {
        errors.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".into());
    }
    if !port.bytes().any(|b| b.is_ascii_lowercase()) {
        errors.push("must contain at least one letter (a-z)".into());
    }
    if port.contains("--") {
        errors.push("must not contain consecutive hyphens".into());
    }
    if port.starts_with('-') || port.ends_with('-') {
        errors.push("must not begin or end with a hyphen".into());
    }
    errors
}

/// `"25%"`.
pub fn percent(value: &str) -> Messages {
    let digits = value.strip_suffix('%').unwrap_or_default();
    if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
        return Messages::new();
    }
    vec![regex_error(
        "a valid percent string must be a numeric string followed by an ending '%'",
        "[0-9]+%",
        &["1%", "93%"],
    )]
}

pub fn http_header_name(value: &str) -> Messages {
    if !value.is_empty() && value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        return Messages::new();
    }
    vec![regex_error(
        "a valid HTTP header must consist of alphanumeric characters or '-'",
        "[-A-Za-z0-9]+",
        &["X-Header-Name"],
    )]
}

/// An environment variable's name, the strict form.
pub fn env_var_name(value: &str) -> Messages {
    let mut errors = Messages::new();
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    let head = value.as_bytes().first().is_some_and(|b| inner(*b) && !b.is_ascii_digit());
    if !head || !value.bytes().all(inner) {
        errors.push(regex_error(
            "a valid environment variable name must consist of alphabetic characters, digits, '_', '-', or '.', and must not start with a digit",
            "[-._a-zA-Z][-._a-zA-Z0-9]*",
            &["my.env-name", "MY_ENV.NAME", "MyEnvName1"],
        ));
    }
    errors.extend(dot_dot(value));
    errors
}

/// An environment variable's name as 1.36 accepts it: printable ASCII without `=`.
pub fn relaxed_env_var_name(value: &str) -> Messages {
    let mut errors = Messages::new();
    if value.is_empty() {
        errors.push("environment variable name must be non-empty".into());
    }
    if value.chars().any(|c| !matches!(c, ' '..='~') || c == '=') {
        errors.push(
            "a valid environment variable name must consist only of printable ASCII characters other than '='".into(),
        );
    }
    errors
}

/// A key of a ConfigMap or Secret.
pub fn config_map_key(value: &str) -> Messages {
    let mut errors = Messages::new();
    if value.len() > SUBDOMAIN_MAX {
        errors.push(max_len_error(SUBDOMAIN_MAX));
    }
    if value.is_empty() || !value.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_')) {
        errors.push(regex_error(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
            "[-._a-zA-Z0-9]+",
            &["key.name", "KEY_NAME", "key-name"],
        ));
    }
    errors.extend(dot_dot(value));
    errors
}

fn dot_dot(value: &str) -> Option<String> {
    match value {
        "." => Some("must not be '.'".into()),
        ".." => Some("must not be '..'".into()),
        _ if value.starts_with("..") => Some("must not start with '..'".into()),
        _ => None,
    }
}

/// A name that is one segment of a URL path.
pub fn path_segment(name: &str) -> Messages {
    if name == "." || name == ".." {
        return vec![format!("may not be '{name}'")];
    }
    path_segment_prefix(name)
}

/// The same for a `generateName`.
pub fn path_segment_prefix(name: &str) -> Messages {
    ["/", "%"].iter().filter(|c| name.contains(**c)).map(|c| format!("may not contain '{c}'")).collect()
}

/// A `generateName` stands for a longer name, so a trailing dash is judged as if it, and the
/// character before it, were one letter (upstream cuts both).
pub fn mask_trailing_dash(name: &str) -> std::borrow::Cow<'_, str> {
    match name.strip_suffix('-') {
        Some(head) if !head.is_empty() => {
            let mut chars = head.chars();
            chars.next_back();
            format!("{}a", chars.as_str()).into()
        }
        _ => name.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Check = fn(&str) -> Messages;

    #[test]
    fn accepts_and_rejects() {
        let long = "a".repeat(64);
        let cases: &[(Check, &[&str], &[&str])] = &[
            (dns1123_label, &["a", "a-1", "1a"], &["", "-a", "a-", "A", "a.b", &long, "a_b"]),
            (dns1123_subdomain, &["a", "a.b", "1.2"], &["", ".", "a..b", "a.", "A.b", "a_b"]),
            (dns1035_label, &["a", "a-1"], &["", "1a", "a-"]),
            (wildcard_dns1123_subdomain, &["*.a.b"], &["*a.b", "*", "a.b", "*."]),
            (qualified_name, &["a", "A_b.c", "x.io/a"], &["", "/a", "x/", "a/b/c", "_a", "X.io/a"]),
            (label_value, &["", "a", "A_1.b"], &["_", "a-", "a b"]),
            (port_name, &["http", "a1-b"], &["", "1", "a--b", "-a", "A", "abcdefghijklmnop"]),
            (percent, &["1%"], &["%", "1", "a%"]),
            (env_var_name, &["A", "a.b", "_"], &["", "1a", "a=b", "..", "..a"]),
            (relaxed_env_var_name, &["1", "a b", ":"], &["", "a=b", "é"]),
            (config_map_key, &["a", "A.b_c", ".a"], &["", ".", "..", "..a", "a b"]),
            (path_segment, &["a", "a:b"], &[".", "..", "a/b", "a%"]),
        ];
        for (check, good, bad) in cases {
            for value in *good {
                assert!(check(value).is_empty(), "{value}: {:?}", check(value));
            }
            for value in *bad {
                assert!(!check(value).is_empty(), "{value}");
            }
        }
    }

    #[test]
    fn messages() {
        assert_eq!(
            dns1123_label("-"),
            [
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
            ]
        );
        assert_eq!(dns1123_label("a.b"), ["must not contain dots"]);
        assert_eq!(mask_trailing_dash("ab-"), "aa");
    }
}
