//! Where an item ends, and whether it is well-formed. Keeps its own stack: no item, however deep, can exhaust the thread's.

use super::head::{BREAK, Head, Major, Reader};
use super::{Error, MAX_DEPTH, MAX_ELEMENTS, MAX_PAIRS};

/// An array or a map whose end has not been reached.
struct Open {
    major: Major,
    /// Items to come; `None` until a break.
    left: Option<u64>,
    /// Items so far, of an indefinite one.
    read: u64,
    depth: usize,
}

/// Checks that `bytes` is one item and nothing else.
pub(super) fn check(bytes: &[u8]) -> Result<(), Error> {
    if bytes.is_empty() {
        return Err(Error::Empty);
    }
    let mut reader = Reader::new(bytes);
    skip(&mut reader)?;
    match bytes.len() - reader.at {
        0 => Ok(()),
        count => Err(Error::Extraneous { count, at: reader.at }),
    }
}

/// How long the first item of a sequence is.
///
/// # Errors
/// When it is not well-formed.
pub fn item_length(bytes: &[u8]) -> Result<usize, Error> {
    let mut reader = Reader::new(bytes);
    skip(&mut reader)?;
    Ok(reader.at)
}

/// Reads over one item.
pub(super) fn skip(reader: &mut Reader<'_>) -> Result<(), Error> {
    let mut open: Vec<Open> = Vec::new();
    loop {
        let depth = open.last().map_or(0, |open| open.depth);
        open.extend(item(reader, depth)?);
        loop {
            let Some(last) = open.last_mut() else { return Ok(()) };
            match &mut last.left {
                Some(0) => {}
                Some(left) => {
                    *left -= 1;
                    break;
                }
                None => match reader.peek() {
                    None => return Err(Error::Truncated),
                    Some(BREAK) if last.major == Major::Map && last.read % 2 == 1 => return Err(Error::Break),
                    Some(BREAK) => reader.at += 1,
                    Some(_) => {
                        last.read += 1;
                        match last.major {
                            Major::Array if last.read > MAX_ELEMENTS => return Err(Error::Elements),
                            Major::Map if last.read / 2 > MAX_PAIRS => return Err(Error::Pairs),
                            _ => break,
                        }
                    }
                },
            }
            open.pop();
        }
    }
}

/// Reads over an item up to its first element; answers what is open then.
fn item(reader: &mut Reader<'_>, mut depth: usize) -> Result<Option<Open>, Error> {
    let mut head = reader.head()?;
    let mut tags = 0;
    while head.major == Major::Tag {
        if matches!(head.argument, 2 | 3) && reader.peek().is_some() {
            return Err(Error::Unacceptable { of: head.major.name(), what: "bignum".to_string() });
        }
        tags += 1;
        // The first tag does not count.
        depth += usize::from(tags > 1);
        if depth > MAX_DEPTH {
            return Err(Error::Depth);
        }
        head = reader.head()?;
    }
    match head.major {
        Major::Bytes | Major::Text if head.is_indefinite() => chunks(reader, head.major)?,
        Major::Bytes | Major::Text => string(reader, head)?,
        Major::Array | Major::Map => return open(head, depth + 1).map(Some),
        _ => {}
    }
    Ok(None)
}

fn open(head: Head, depth: usize) -> Result<Open, Error> {
    if depth > MAX_DEPTH {
        return Err(Error::Depth);
    }
    let (major, length) = (head.major, head.argument);
    if head.is_indefinite() {
        return Ok(Open { major, left: None, read: 0, depth });
    }
    if i64::try_from(length).is_err() {
        return Err(Error::Length { of: major.name(), length });
    }
    match major {
        Major::Array if length > MAX_ELEMENTS => Err(Error::Elements),
        Major::Map if length > MAX_PAIRS => Err(Error::Pairs),
        Major::Map => Ok(Open { major, left: Some(length * 2), read: 0, depth }),
        _ => Ok(Open { major, left: Some(length), read: 0, depth }),
    }
}

fn string(reader: &mut Reader<'_>, head: Head) -> Result<(), Error> {
    if i64::try_from(head.argument).is_err() {
        return Err(Error::StringLength { of: head.major.name(), length: head.argument });
    }
    reader.take(head.argument).map(drop)
}

fn chunks(reader: &mut Reader<'_>, major: Major) -> Result<(), Error> {
    loop {
        let next = reader.peek().ok_or(Error::Truncated)?;
        if reader.at_break() {
            return Ok(());
        }
        if Major::of(next) != major {
            return Err(Error::Chunk { found: Major::of(next).name(), of: major.name() });
        }
        let head = reader.head()?;
        if head.is_indefinite() {
            return Err(Error::ChunkOfChunks(major.name()));
        }
        string(reader, head)?;
    }
}
