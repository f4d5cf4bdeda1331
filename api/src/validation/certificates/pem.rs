//! PEM as Go's `encoding/pem` reads it: whatever is around the blocks is passed over.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// One block.
pub(crate) struct Block {
    /// `CERTIFICATE`, `CERTIFICATE REQUEST`, …
    pub label: String,
    /// Whether `Key: value` lines came before the data.
    pub headers: bool,
    pub bytes: Vec<u8>,
}

/// The blocks of a text, in order; what is not a whole block is passed over.
pub(crate) fn blocks(text: &str) -> impl Iterator<Item = Block> {
    let mut rest = text;
    std::iter::from_fn(move || {
        loop {
            let (block, after) = next(rest)?;
            rest = after;
            if block.is_some() {
                return block;
            }
        }
    })
}

/// The next thing that begins like a block, and what comes after it.
fn next(text: &str) -> Option<(Option<Block>, &str)> {
    const BEGIN: &str = "-----BEGIN ";
    let start = if text.starts_with(BEGIN) { 0 } else { text.find("\n-----BEGIN ")? + 1 };
    let after_begin = &text[start + BEGIN.len()..];
    let (line, body) = after_begin.split_once('\n').unwrap_or((after_begin, ""));
    let Some(label) = line.trim_end().strip_suffix("-----") else { return Some((None, after_begin)) };
    let (mut data, mut headers) = (body, false);
    while let Some((line, tail)) = data.split_once('\n').filter(|(line, _)| line.contains(':')) {
        let _ = line;
        (data, headers) = (tail, true);
    }
    let end = format!("-----END {label}-----");
    let Some(at) = data.find(&end).filter(|at| *at == 0 || data[..*at].ends_with('\n')) else {
        return Some((None, after_begin));
    };
    let tail = &data[at + end.len()..];
    let after = tail.split_once('\n').map_or("", |(_, after)| after);
    let encoded: String = data[..at].chars().filter(|c| !matches!(c, '\n' | '\r' | ' ' | '\t')).collect();
    let bytes = STANDARD.decode(encoded).ok();
    Some((bytes.map(|bytes| Block { label: label.to_owned(), headers, bytes }), after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_blocks() {
        let text =
            "noise\n-----BEGIN A-----\nYWI=\n-----END A-----\nmore\n-----BEGIN B-----\nK: v\n\nYw==\n-----END B-----";
        let found: Vec<(String, bool, Vec<u8>)> = blocks(text).map(|b| (b.label, b.headers, b.bytes)).collect();
        assert_eq!(found, [("A".into(), false, b"ab".to_vec()), ("B".into(), true, b"c".to_vec())]);
        for broken in [
            "",
            "-----BEGIN A-----",
            "-----BEGIN A-----\nYWI=\n-----END B-----",
            "-----BEGIN A-----\n!\n-----END A-----",
        ] {
            assert_eq!(blocks(broken).count(), 0, "{broken}");
        }
    }
}
