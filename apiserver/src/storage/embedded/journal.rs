//! Mending fjall's journal after a crash of the machine.
//!
//! Only the end of the newest journal can be unfinished: everything before it was synced. fjall
//! drops a cut-off batch by itself, but stumbles over two other shapes that a crash leaves, because
//! the blocks of one write reach the disk in any order and the file is allocated ahead: a batch that
//! breaks off into zeros in the middle of a length (its debug builds assert on that), and a batch
//! whose end is there while its middle is not (it refuses to open). Neither was synced, so neither
//! was acknowledged, and both can go. Damage anywhere but in the last batch is real, and stays fatal.
//!
//! fjall's layout, all numbers little endian: a batch is a start (tag 1, item count u32, sequence
//! number u64), items (tag 2, type u8, compression u8, keyspace u64, key length u16, value length
//! u32, length on disk u32, key, value), or clears (tag 4, keyspace u64) that count as items, and an
//! end (tag 3, checksum u64, magic).

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use crate::storage::{Error, Result};

const MAGIC: &[u8; 4] = b"FJL\x03";

/// Cuts off what follows the last batch that looks complete.
pub(super) fn trim(path: &Path) -> Result<()> {
    let Some(file) = newest(path)? else { return Ok(()) };
    let (shape, length) = read(&file)?;
    // Zeros are what was allocated ahead.
    if shape.garbage {
        tracing::warn!(kept = shape.end, length, "cutting an unfinished write off the journal");
        cut(&file, shape.end)?;
    }
    Ok(())
}

/// Cuts off the last batch. False if there is none.
pub(super) fn drop_torn_batch(path: &Path) -> Result<bool> {
    let Some(file) = newest(path)? else { return Ok(false) };
    let (shape, _) = read(&file)?;
    match shape.last {
        Some(start) => cut(&file, start).map(|()| true),
        None => Ok(false),
    }
}

/// What a journal looks like.
#[derive(Debug, Default, PartialEq, Eq)]
struct Shape {
    /// Where the last complete batch starts.
    last: Option<u64>,
    /// Where it ends.
    end: u64,
    /// Whether something other than zeros follows.
    garbage: bool,
}

fn io(error: io::Error) -> Error {
    Error::Unavailable(format!("journal: {error}"))
}

fn newest(path: &Path) -> Result<Option<PathBuf>> {
    let files = match fs::read_dir(path) {
        Ok(files) => files,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(io(e)),
    };
    let mut newest = None;
    for file in files {
        let file = file.map_err(io)?.path();
        let name = file.file_name().and_then(|name| name.to_str()?.strip_suffix(".jnl"));
        if let Some(id) = name.and_then(|id| id.parse::<u64>().ok())
            && newest.as_ref().is_none_or(|(newest, _)| id > *newest)
        {
            newest = Some((id, file));
        }
    }
    Ok(newest.map(|(_, file)| file))
}

fn cut(file: &Path, at: u64) -> Result<()> {
    let journal = OpenOptions::new().write(true).open(file).map_err(io)?;
    journal.set_len(at).map_err(io)?;
    journal.sync_all().map_err(io)
}

fn read(file: &Path) -> Result<(Shape, u64)> {
    let file = File::open(file).map_err(io)?;
    let length = file.metadata().map_err(io)?.len();
    Ok((shape(BufReader::with_capacity(1 << 16, file), length).map_err(io)?, length))
}

/// Reads a journal's batches, without the bytes in them.
fn shape(journal: impl Read + io::Seek, length: u64) -> io::Result<Shape> {
    let mut journal = Cursor { inner: journal, at: 0, length };
    let mut shape = Shape::default();
    loop {
        let start = journal.at;
        match journal.batch() {
            Ok(true) => (shape.last, shape.end) = (Some(start), journal.at),
            Ok(false) => break,
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => break,
            Err(e) => return Err(e),
        }
    }
    journal.inner.seek(io::SeekFrom::Start(shape.end))?;
    let mut buffer = [0; 4096];
    loop {
        match journal.inner.read(&mut buffer)? {
            0 => return Ok(shape),
            read if buffer[..read].iter().any(|byte| *byte != 0) => {
                shape.garbage = true;
                return Ok(shape);
            }
            // A start writes nothing else behind zeros it has not reached: a page of them is enough.
            read if read == buffer.len() => return Ok(shape),
            _ => {}
        }
    }
}

struct Cursor<R> {
    inner: R,
    at: u64,
    length: u64,
}

impl<R: Read + io::Seek> Cursor<R> {
    fn take<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.inner.read_exact(&mut bytes)?;
        self.at += N as u64;
        Ok(bytes)
    }

    fn skip(&mut self, count: u64) -> io::Result<()> {
        self.at += count;
        if self.at > self.length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        io::copy(&mut self.inner.by_ref().take(count), &mut io::sink()).map(|_| ())
    }

    /// Passes over one batch; false if there is no complete one here.
    fn batch(&mut self) -> io::Result<bool> {
        if self.take()? != [1] {
            return Ok(false);
        }
        let items = u32::from_le_bytes(self.take()?);
        let _sequence: [u8; 8] = self.take()?;
        for _ in 0..items {
            match self.take()? {
                [2] => {
                    let [kind, compression] = self.take()?;
                    let _keyspace: [u8; 8] = self.take()?;
                    let key = u16::from_le_bytes(self.take()?);
                    let value = u32::from_le_bytes(self.take()?);
                    let on_disk = u32::from_le_bytes(self.take()?);
                    if kind > 3 || compression > 1 || (compression == 0 && value != on_disk) {
                        return Ok(false);
                    }
                    self.skip(u64::from(key) + u64::from(on_disk))?;
                }
                [4] => self.skip(8)?,
                _ => return Ok(false),
            }
        }
        if self.take()? != [3] {
            return Ok(false);
        }
        let _checksum: [u8; 8] = self.take()?;
        Ok(self.take()? == *MAGIC)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(values: &[&[u8]]) -> Vec<u8> {
        let mut out = vec![1];
        out.extend((values.len() as u32).to_le_bytes());
        out.extend(7u64.to_le_bytes());
        for value in values {
            out.extend([2, 0, 0]);
            out.extend(1u64.to_le_bytes());
            out.extend(3u16.to_le_bytes());
            out.extend((value.len() as u32).to_le_bytes());
            out.extend((value.len() as u32).to_le_bytes());
            out.extend(b"key");
            out.extend(*value);
        }
        out.push(3);
        out.extend(9u64.to_le_bytes());
        out.extend(MAGIC);
        out
    }

    fn of(bytes: &[u8]) -> Shape {
        shape(io::Cursor::new(bytes), bytes.len() as u64).unwrap()
    }

    #[test]
    fn finds_the_last_complete_batch() {
        let (one, two) = (batch(&[b"a", b"bc"]), batch(&[b"def"]));
        let both = [one.as_slice(), two.as_slice()].concat();
        let (first, end) = (one.len() as u64, both.len() as u64);
        assert_eq!(of(&both), Shape { last: Some(first), end, garbage: false });
        assert!(!of(&[both.as_slice(), &[0; 9000]].concat()).garbage);
        assert_eq!(of(&[]), Shape::default());
        for cut in one.len() + 1..both.len() {
            let expected = Shape { last: Some(0), end: first, garbage: true };
            assert_eq!(of(&both[..cut]), expected, "{cut}");
        }
    }
}
