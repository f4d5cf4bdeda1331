//! Base64 as Go's decoder reads it: line ends are passed over, the last bits may be anything, and an
//! error names the byte where the reader stopped.

use base64::Engine as _;
use base64::alphabet::STANDARD as ALPHABET;
use base64::engine::general_purpose::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &ALPHABET,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireCanonical),
);

/// The bytes of Base64.
///
/// # Errors
/// The index at which Go gives up.
pub fn decode(text: &str) -> Result<Vec<u8>, usize> {
    if let Ok(bytes) = STANDARD.decode(text) {
        return Ok(bytes);
    }
    scan(text.as_bytes())?;
    let joined: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
    // What the scan accepts, this does.
    LENIENT.decode(&joined).map_err(|_| text.len())
}

/// Walks quantum by quantum as `encoding/base64` does.
fn scan(src: &[u8]) -> Result<(), usize> {
    let newline = |at: usize| matches!(src.get(at), Some(b'\r' | b'\n'));
    let mut at = 0;
    loop {
        let mut digits = 0;
        while digits < 4 {
            let Some(&byte) = src.get(at) else {
                return if digits == 0 { Ok(()) } else { Err(at - digits) };
            };
            at += 1;
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'+' | b'/' => digits += 1,
                b'\r' | b'\n' => {}
                b'=' => return padding(src, at, digits, newline),
                _ => return Err(at - 1),
            }
        }
    }
}

/// The first `=` was read; nothing may follow what completes it.
fn padding(src: &[u8], mut at: usize, digits: usize, newline: impl Fn(usize) -> bool) -> Result<(), usize> {
    if digits < 2 {
        return Err(at - 1);
    }
    if digits == 2 {
        while newline(at) {
            at += 1;
        }
        match src.get(at) {
            None => return Err(src.len()),
            Some(b'=') => at += 1,
            Some(_) => return Err(at - 1),
        }
    }
    while newline(at) {
        at += 1;
    }
    if at < src.len() { Err(at) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_go_reads_it() {
        for (text, expected) in [
            ("", Ok(&b""[..])),
            ("YWJj", Ok(b"abc")),
            ("YW\nJj\r\n", Ok(b"abc")),
            ("YQ==", Ok(b"a")),
            ("YR==", Ok(b"a")),
            ("!", Err(0)),
            ("YWI", Err(0)),
            ("YWJjYW", Err(4)),
            ("YWJj=", Err(4)),
            ("YWJ!", Err(3)),
            ("c2VjcmU= y", Err(8)),
            ("YQ=", Err(3)),
            ("YQ=x", Err(2)),
            ("YQ==YQ==", Err(4)),
        ] {
            assert_eq!(decode(text).as_deref().map_err(|at| *at), expected, "{text:?}");
        }
    }
}
