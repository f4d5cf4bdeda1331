//! Mending fjall's journal after a crash of the machine.
//!
//! fjall drops an unfinished batch at the end of its journal by itself. But blocks of one write can
//! reach the disk in any order: the end of the last batch may be there while its middle is zeros.
//! Then the checksum fails and fjall refuses to open. Such a batch was never synced, so never
//! acknowledged, and can go, if it is the last one. Damage anywhere else is real, and stays fatal.

use std::fs::{self, OpenOptions};
use std::path::Path;

use crate::storage::{Error, Result};

/// Truncates the newest journal in `path` at the start of its last batch. False if there is none.
pub(super) fn drop_torn_batch(path: &Path) -> Result<bool> {
    let io = |e: std::io::Error| Error::Unavailable(format!("journal: {e}"));
    let mut newest = None;
    for file in fs::read_dir(path).map_err(io)? {
        let file = file.map_err(io)?.path();
        let id = file.file_name().and_then(|name| name.to_str()?.strip_suffix(".jnl")?.parse::<u64>().ok());
        if let Some(id) = id
            && newest.as_ref().is_none_or(|(newest, _)| id > *newest)
        {
            newest = Some((id, file));
        }
    }
    let Some((_, file)) = newest else {
        return Ok(false);
    };
    let bytes = fs::read(&file).map_err(io)?;
    let Some(start) = last_batch(&bytes) else {
        return Ok(false);
    };
    let journal = OpenOptions::new().write(true).open(&file).map_err(io)?;
    journal.set_len(start as u64).map_err(io)?;
    journal.sync_all().map_err(io)?;
    Ok(true)
}

/// Offset of the last batch in a journal.
///
/// fjall's layout: a batch is a start (tag 1, item count u32, sequence number u64), items (tag 2,
/// type u8, compression u8, keyspace u64, key length u16, value length u32, length on disk u32, key,
/// value) and an end (tag 3, checksum u64, magic of four bytes); a clear (tag 4, keyspace u64)
/// counts as an item. All numbers are little endian.
fn last_batch(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    let mut last = None;
    while let Some(tag) = bytes.get(at) {
        let length = match tag {
            1 => {
                last = Some(at);
                13
            }
            2 => {
                let Some(head) = bytes.get(at..at + 21) else { break };
                let key = u16::from_le_bytes([head[11], head[12]]) as usize;
                let value = u32::from_le_bytes([head[17], head[18], head[19], head[20]]) as usize;
                21 + key + value
            }
            3 => 13,
            4 => 9,
            _ => break,
        };
        at += length;
    }
    last
}
