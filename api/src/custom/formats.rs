//! `format`: go-openapi's string formats as Kubernetes keeps them, and numbers' widths.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use regex::Regex;

use super::Kind;

/// Formats of strings that are checked, dashes left out as upstream compares them.
const STRINGS: [&str; 25] = [
    "bsonobjectid",
    "uri",
    "email",
    "hostname",
    "ipv4",
    "ipv6",
    "cidr",
    "mac",
    "uuid",
    "uuid3",
    "uuid4",
    "uuid5",
    "isbn",
    "isbn10",
    "isbn13",
    "creditcard",
    "ssn",
    "hexcolor",
    "rgbcolor",
    "byte",
    "password",
    "date",
    "duration",
    "datetime",
    "k8sshortname",
];

/// The format if it means anything for the type; unknown ones are ignored, upstream's rule.
pub fn supported(format: &str, kind: Kind) -> &str {
    let known = match kind {
        Kind::Any | Kind::String => {
            let normal = normalize(format);
            STRINGS.contains(&normal.as_str()) || normal == "k8slongname"
        }
        Kind::Integer => matches!(format, "int32" | "int64"),
        Kind::Number => matches!(format, "float" | "double"),
        _ => false,
    };
    if known { format } else { "" }
}

/// Whether a format means anything for a `type` as it is written.
pub fn is_recognized(format: &str, kind: &str) -> bool {
    match kind {
        "" | "string" => is_of_strings(format),
        "integer" => matches!(format, "int32" | "int64"),
        "number" => matches!(format, "float" | "double"),
        _ => false,
    }
}

fn normalize(format: &str) -> String {
    format.replace('-', "")
}

/// Whether a format is one of strings.
pub fn is_of_strings(format: &str) -> bool {
    let normal = normalize(format);
    STRINGS.contains(&normal.as_str()) || normal == "k8slongname"
}

fn regex(pattern: &str) -> Regex {
    Regex::new(pattern).expect("the patterns here are constants and valid")
}

macro_rules! matches_regex {
    ($text:expr, $pattern:expr) => {{
        static REGEX: LazyLock<Regex> = LazyLock::new(|| regex($pattern));
        REGEX.is_match($text)
    }};
}

/// Whether a text is of a format of strings.
pub fn is_valid(format: &str, text: &str) -> bool {
    match normalize(format).as_str() {
        "bsonobjectid" => text.len() == 24 && text.bytes().all(|b| b.is_ascii_hexdigit()),
        "uri" => is_request_uri(text),
        "email" => is_email(text),
        "hostname" => is_hostname(text),
        "ipv4" => text.contains('.') && sloppy_ip(text).is_some(),
        "ipv6" => text.contains(':') && text.parse::<Ipv6Addr>().is_ok(),
        "cidr" => is_cidr(text),
        "mac" => is_mac(text),
        "uuid" => matches_regex!(text, r"(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}$"),
        "uuid3" => matches_regex!(text, r"(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?3[0-9a-f]{3}-?[0-9a-f]{4}-?[0-9a-f]{12}$"),
        "uuid4" => {
            matches_regex!(text, r"(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?4[0-9a-f]{3}-?[89ab][0-9a-f]{3}-?[0-9a-f]{12}$")
        }
        "uuid5" => {
            matches_regex!(text, r"(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?5[0-9a-f]{3}-?[89ab][0-9a-f]{3}-?[0-9a-f]{12}$")
        }
        "isbn" => is_isbn10(text) || is_isbn13(text),
        "isbn10" => is_isbn10(text),
        "isbn13" => is_isbn13(text),
        "creditcard" => is_credit_card(text),
        "ssn" => matches_regex!(text, r"^[0-9]{3}[- ]?[0-9]{2}[- ]?[0-9]{4}$"),
        "hexcolor" => matches_regex!(text, r"^#?([0-9a-fA-F]{3}|[0-9a-fA-F]{6})$"),
        "rgbcolor" => is_rgb(text),
        "byte" => is_base64(text),
        "date" => is_date(text),
        "duration" => is_duration(text),
        "datetime" => is_date_time(text),
        "k8sshortname" => text.len() <= 63 && is_label(text),
        "k8slongname" => text.len() <= 253 && text.split('.').all(is_label),
        _ => true,
    }
}

fn is_label(text: &str) -> bool {
    matches_regex!(text, r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
}

/// `url.ParseRequestURI`: an absolute URI or an absolute path.
fn is_request_uri(text: &str) -> bool {
    if text.is_empty() || text.bytes().any(|b| b < 0x20 || b == 0x7f) {
        return false;
    }
    let escapes_are_right = |text: &str| {
        let bytes = text.as_bytes();
        (0..bytes.len()).all(|at| {
            bytes[at] != b'%' || bytes.get(at + 1..at + 3).is_some_and(|two| two.iter().all(u8::is_ascii_hexdigit))
        })
    };
    if text.starts_with('/') {
        let path = text.split('?').next().unwrap_or_default();
        if let Some(rest) = text.strip_prefix("//")
            && !text.starts_with("///")
        {
            let authority = rest.split('/').next().unwrap_or_default();
            return is_authority(authority) && escapes_are_right(path);
        }
        return escapes_are_right(path);
    }
    let Some((scheme, rest)) = text.split_once(':') else { return text == "*" };
    let scheme_is_right = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'));
    if !scheme_is_right {
        return false;
    }
    if let Some(rest) = rest.strip_prefix("//") {
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let path = rest[end..].split('?').next().unwrap_or_default();
        return is_authority(&rest[..end]) && escapes_are_right(path);
    }
    // Opaque parts are fine with a scheme.
    rest.starts_with('/') || !rest.is_empty() || escapes_are_right(rest)
}

fn is_authority(authority: &str) -> bool {
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    if let Some(rest) = host.strip_prefix('[') {
        let Some((_, port)) = rest.split_once(']') else { return false };
        return port.is_empty() || port.strip_prefix(':').is_some_and(|port| port.bytes().all(|b| b.is_ascii_digit()));
    }
    let (name, port) = host.split_once(':').unwrap_or((host, ""));
    port.bytes().all(|b| b.is_ascii_digit())
        && !name.bytes().any(|b| matches!(b, b' ' | b'<' | b'>' | b'"' | b'{' | b'}' | b'|' | b'\\' | b'^' | b'`'))
}

/// `mail.ParseAddress`, for what people write.
fn is_email(text: &str) -> bool {
    let text = text.trim();
    let address = match (text.rfind('<'), text.strip_suffix('>')) {
        (Some(at), Some(_)) => &text[at + 1..text.len() - 1],
        (None, None) => text,
        _ => return false,
    };
    let Some((local, domain)) = address.rsplit_once('@') else { return false };
    let is_atom = |part: &str| {
        !part.is_empty()
            && part.split('.').all(|atom| {
                !atom.is_empty()
                    && atom
                        .chars()
                        .all(|c| c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c) || !c.is_ascii())
            })
    };
    let quoted = local.len() >= 2 && local.starts_with('"') && local.ends_with('"');
    let literal = domain.starts_with('[') && domain.ends_with(']');
    (quoted || is_atom(local)) && (literal || is_atom(domain))
}

fn is_hostname(text: &str) -> bool {
    text.len() <= 255
        && text.split('.').all(|part| part.len() <= 63)
        && matches_regex!(
            text,
            r"^([a-zA-Z0-9\p{S}\p{L}]((-?[a-zA-Z0-9\p{S}\p{L}]{0,62})?)|([a-zA-Z0-9\p{S}\p{L}](([a-zA-Z0-9\-\p{S}\p{L}]{0,61}[a-zA-Z0-9\p{S}\p{L}])?)(\.)){1,}([a-zA-Z\p{L}]){2,63})$"
        )
}

/// An address whose IPv4 octets may have leading zeros.
fn sloppy_ip(text: &str) -> Option<IpAddr> {
    if let Ok(ip) = text.parse() {
        return Some(ip);
    }
    let octets: Vec<&str> = text.split('.').collect();
    if octets.len() != 4 {
        return None;
    }
    let mut out = [0u8; 4];
    for (slot, octet) in out.iter_mut().zip(octets) {
        if octet.is_empty() || octet.len() > 3 || !octet.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        *slot = octet.parse().ok()?;
    }
    Some(out.into())
}

fn is_cidr(text: &str) -> bool {
    let Some((address, length)) = text.split_once('/') else { return false };
    let Some(ip) = sloppy_ip(address) else { return false };
    let max = if ip.is_ipv4() { 32 } else { 128 };
    let digits = !length.is_empty() && length.bytes().all(|b| b.is_ascii_digit());
    digits && length.parse::<u16>().is_ok_and(|length| length <= max)
}

/// `net.ParseMAC`: 6, 8 or 20 octets in one of three spellings.
fn is_mac(text: &str) -> bool {
    let hex = |part: &str, width: usize| part.len() == width && part.bytes().all(|b| b.is_ascii_hexdigit());
    for separator in [':', '-'] {
        let parts: Vec<&str> = text.split(separator).collect();
        if matches!(parts.len(), 6 | 8 | 20) && parts.iter().all(|part| hex(part, 2)) {
            return true;
        }
    }
    let parts: Vec<&str> = text.split('.').collect();
    matches!(parts.len(), 3 | 4 | 10) && parts.iter().all(|part| hex(part, 4))
}

fn digits(text: &str) -> Vec<u32> {
    text.chars().filter(|c| !matches!(c, ' ' | '-')).filter_map(|c| c.to_digit(10)).collect()
}

fn is_isbn10(text: &str) -> bool {
    let text: String = text.chars().filter(|c| !matches!(c, ' ' | '-')).collect();
    let bytes = text.as_bytes();
    if bytes.len() != 10 || !bytes[..9].iter().all(u8::is_ascii_digit) {
        return false;
    }
    let last = match bytes[9] {
        b'X' => 10,
        digit @ b'0'..=b'9' => u32::from(digit - b'0'),
        _ => return false,
    };
    let sum: u32 = bytes[..9].iter().zip(1u32..).map(|(digit, weight)| weight * u32::from(digit - b'0')).sum();
    (sum + 10 * last).is_multiple_of(11)
}

fn is_isbn13(text: &str) -> bool {
    let plain: String = text.chars().filter(|c| !matches!(c, ' ' | '-')).collect();
    if plain.len() != 13 || !plain.bytes().all(|b| b.is_ascii_digit()) {
        return false;
    }
    let sum: u32 =
        digits(&plain).iter().enumerate().map(|(at, digit)| if at % 2 == 0 { *digit } else { 3 * digit }).sum();
    sum.is_multiple_of(10)
}

fn is_credit_card(text: &str) -> bool {
    let plain: String = text.chars().filter(char::is_ascii_digit).collect();
    let shape = matches_regex!(
        &plain,
        r"^(?:4[0-9]{12}(?:[0-9]{3})?|5[1-5][0-9]{14}|(222[1-9]|22[3-9][0-9]|2[3-6][0-9]{2}|27[01][0-9]|2720)[0-9]{12}|6(?:011|5[0-9][0-9])[0-9]{12}|3[47][0-9]{13}|3(?:0[0-5]|[68][0-9])[0-9]{11}|(?:2131|1800|35[0-9]{3})[0-9]{11}|6[27][0-9]{14})$"
    );
    let sum: u32 = digits(&plain)
        .iter()
        .rev()
        .enumerate()
        .map(|(at, digit)| match at % 2 {
            0 => *digit,
            _ if digit * 2 > 9 => digit * 2 - 9,
            _ => digit * 2,
        })
        .sum();
    shape && sum.is_multiple_of(10)
}

fn is_rgb(text: &str) -> bool {
    matches_regex!(
        text,
        r"^rgb\(\s*(0|[1-9][0-9]?|1[0-9]{2}|2[0-4][0-9]|25[0-5])\s*,\s*(0|[1-9][0-9]?|1[0-9]{2}|2[0-4][0-9]|25[0-5])\s*,\s*(0|[1-9][0-9]?|1[0-9]{2}|2[0-4][0-9]|25[0-5])\s*\)$"
    )
}

fn is_base64(text: &str) -> bool {
    !text.is_empty() && text.len().is_multiple_of(4) && STANDARD.decode(text).is_ok()
}

fn is_date(text: &str) -> bool {
    matches_regex!(text, r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$") && text.parse::<jiff::civil::Date>().is_ok()
}

fn is_date_time(text: &str) -> bool {
    static TIME: LazyLock<Regex> =
        LazyLock::new(|| regex(r"^([0-9]{2}):([0-9]{2}):([0-9]{2})(.[0-9]+)?(z|([+-][0-9]{2}:[0-9]{2}))$"));
    let lower = text.to_lowercase();
    let mut parts = lower.split('t');
    let (Some(date), Some(time)) = (parts.next(), parts.next()) else { return false };
    is_date(date)
        && TIME.captures(time).is_some_and(|found| &found[1] <= "23" && &found[2] <= "59" && &found[3] <= "59")
}

/// `time.ParseDuration`, or go-openapi's looser words: `3 weeks`.
fn is_duration(text: &str) -> bool {
    static WORDS: LazyLock<Regex> = LazyLock::new(|| regex(r"([0-9]+)\s*([A-Za-zµ]+)"));
    const UNITS: [&[&str]; 8] = [
        &["ns", "nano"],
        &["us", "µs", "micro"],
        &["ms", "milli"],
        &["s", "sec"],
        &["m", "min"],
        &["h", "hr", "hour"],
        &["d", "day"],
        &["w", "wk", "week"],
    ];
    if apimachinery::duration::parse(text).is_ok() {
        return true;
    }
    WORDS.captures_iter(text).any(|found| {
        let unit = found[2].to_lowercase();
        UNITS.iter().any(|names| {
            names
                .iter()
                .enumerate()
                .any(|(at, name)| (at + 1 == names.len() && unit.starts_with(name)) || unit.eq_ignore_ascii_case(name))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_of_strings() {
        for (format, text, valid) in [
            ("date-time", "2026-01-02T03:04:05Z", true),
            ("date-time", "2026-01-02T03:04:05.5+01:00", true),
            ("date-time", "2026-01-02", false),
            ("date", "2026-02-30", false),
            ("date", "2026-02-28", true),
            ("ipv4", "10.0.0.1", true),
            ("ipv4", "10.0.0.256", false),
            ("ipv4", "010.000.000.001", true),
            ("ipv6", "::1", true),
            ("ipv6", "10.0.0.1", false),
            ("cidr", "10.0.0.0/8", true),
            ("cidr", "10.0.0.0", false),
            ("mac", "00:11:22:33:44:55", true),
            ("uuid", "a987fbc9-4bed-3078-cf07-9141ba07c9f3", true),
            ("uuid4", "a987fbc9-4bed-3078-cf07-9141ba07c9f3", false),
            ("hostname", "a.example.com", true),
            ("hostname", "-a", false),
            ("email", "a@example.com", true),
            ("email", "a", false),
            ("uri", "http://example.com/x", true),
            ("uri", "/x", true),
            ("uri", "x", false),
            ("byte", "YWI=", true),
            ("byte", "YWI", false),
            ("duration", "1h30m", true),
            ("duration", "3 weeks", true),
            ("duration", "x", false),
            ("isbn10", "0321751043", true),
            ("isbn13", "978-0321751041", true),
            ("hexcolor", "#FFFFFF", true),
            ("rgbcolor", "rgb(255,255,259)", false),
            ("creditcard", "4111-1111-1111-1111", true),
            ("creditcard", "4111-1111-1111-1112", false),
            ("ssn", "111-11-1111", true),
            ("k8s-short-name", "a-b", true),
            ("k8s-long-name", "a.b", true),
            ("password", "", true),
        ] {
            assert_eq!(is_valid(format, text), valid, "{format} {text}");
        }
        assert_eq!(supported("nonsense", Kind::String), "");
        assert_eq!(supported("int32", Kind::Integer), "int32");
        assert_eq!(supported("date-time", Kind::Integer), "");
    }
}
