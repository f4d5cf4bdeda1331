//! Container logs in CRI's format: one line per write, `<RFC 3339 nano> <stdout|stderr> <F|P> <text>`.
//!
//! The runtime writes them; the kubelet reads them for `logs` and for termination messages, and
//! rotates them.

mod reader;
pub mod rotate;

use std::io::{Read, Seek, SeekFrom};

use jiff::Timestamp;

pub use reader::{Options, stream};

/// Which of the two outputs a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    Stdout,
    Stderr,
}

/// One write of a container.
#[derive(Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// As written, so that it is given back unchanged.
    pub timestamp: &'a str,
    pub output: Output,
    /// The rest of the line follows in another record: no newline after this one.
    pub partial: bool,
    pub text: &'a [u8],
}

/// Reads one record, without its newline. `None` when it is not in the format.
pub fn parse(record: &[u8]) -> Option<Line<'_>> {
    let mut parts = record.splitn(4, |b| *b == b' ');
    let timestamp = std::str::from_utf8(parts.next()?).ok()?;
    timestamp.parse::<Timestamp>().ok()?;
    let output = match parts.next()? {
        b"stdout" => Output::Stdout,
        b"stderr" => Output::Stderr,
        _ => return None,
    };
    // Tags are separated by colons; the first says whether the line is whole.
    let partial = match parts.next()?.split(|b| *b == b':').next()? {
        b"F" => false,
        b"P" => true,
        _ => return None,
    };
    Some(Line { timestamp, output, partial, text: parts.next().unwrap_or_default() })
}

/// The offset at which the last `lines` records start.
pub fn tail_offset(file: &mut std::fs::File, lines: u64) -> std::io::Result<u64> {
    const BLOCK: u64 = 4096;
    let length = file.metadata()?.len();
    if lines == 0 {
        return Ok(length);
    }
    let mut seen = 0;
    let mut right = length;
    let mut buffer = vec![0; BLOCK as usize];
    while right > 0 {
        let left = right.saturating_sub(BLOCK);
        file.seek(SeekFrom::Start(left))?;
        let block = &mut buffer[..(right - left) as usize];
        file.read_exact(block)?;
        for (index, byte) in block.iter().enumerate().rev() {
            let position = left + index as u64;
            // A newline that ends the file ends the last record, it does not start another.
            if *byte == b'\n' && position + 1 < length {
                seen += 1;
                if seen == lines {
                    return Ok(position + 1);
                }
            }
        }
        right = left;
    }
    Ok(0)
}

/// The texts of the last records of a log, at most `max_bytes` from the end; empty when unreadable.
pub fn last_lines(path: &str, lines: usize, max_bytes: usize) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = std::fs::File::open(path)?;
        let start = tail_offset(&mut file, lines as u64)?;
        file.seek(SeekFrom::Start(start))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = match read() {
        Ok(bytes) => bytes,
        Err(error) => return format!("Error on reading termination message from logs: {error}"),
    };
    let mut text = Vec::new();
    for line in bytes.split(|b| *b == b'\n').filter_map(parse) {
        text.extend_from_slice(line.text);
        if !line.partial {
            text.push(b'\n');
        }
    }
    let from = text.len().saturating_sub(max_bytes);
    String::from_utf8_lossy(&text[from..]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn records() {
        let line = parse(b"2026-10-06T00:17:09.669794202Z stdout F hello world").unwrap();
        assert_eq!((line.output, line.partial, line.text), (Output::Stdout, false, &b"hello world"[..]));
        let line = parse(b"2026-10-06T00:17:09.669794202+02:00 stderr P:x part").unwrap();
        assert_eq!((line.output, line.partial, line.text), (Output::Stderr, true, &b"part"[..]));
        assert_eq!(parse(b"2026-10-06T00:17:09Z stdout F ").unwrap().text, b"");
        for bad in [
            &b"hello"[..],
            b"2026-10-06T00:17:09Z stdlog F x",
            b"yesterday stdout F x",
            b"2026-10-06T00:17:09Z stdout Q x",
            b"",
        ] {
            assert_eq!(parse(bad), None, "{}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn tails() {
        let mut file = tempfile::tempfile().unwrap();
        for i in 0..1000 {
            writeln!(file, "2026-10-06T00:17:09Z stdout F line {i:04}").unwrap();
        }
        let length = 38;
        let total = file.metadata().unwrap().len();
        assert_eq!(total % 1000, 0);
        let length = total / 1000 + length - 38;
        for lines in [0, 1, 2, 500, 999] {
            assert_eq!(tail_offset(&mut file, lines).unwrap(), total - lines * length, "{lines}");
        }
        assert_eq!(tail_offset(&mut file, 1000).unwrap(), 0);
        assert_eq!(tail_offset(&mut file, 5000).unwrap(), 0);
    }

    #[test]
    fn last_lines_join_partial_records() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        write!(file, "2026-10-06T00:17:09Z stdout P one \n2026-10-06T00:17:09Z stdout F two\n2026-10-06T00:17:09Z stderr F three\n").unwrap();
        let path = file.path().to_str().unwrap();
        assert_eq!(last_lines(path, 80, 2048), "one two\nthree\n");
        assert_eq!(last_lines(path, 1, 2048), "three\n");
        assert_eq!(last_lines(path, 80, 4), "ree\n");
    }
}
