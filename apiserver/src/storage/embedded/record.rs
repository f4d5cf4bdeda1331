//! What the embedded engine writes to disk.
//!
//! Three keyspaces: `log` maps a revision (eight bytes, big endian, so that order is numeric) to a
//! [`Record`] that says what happened to which key; `values` maps a revision to the bytes written;
//! `meta` holds a few counters. Keeping values out of the log lets a start read the whole history
//! without reading a single object.

use crate::storage::{Error, Result, Revision};

/// Format of the log's records. A reader refuses what it does not know.
const FORMAT: u8 = 1;
const TOMBSTONE: u8 = 1;

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub key: String,
    /// Whether this deleted the key.
    pub tombstone: bool,
    /// The revision that created the key (for a delete, the key that went).
    pub create_revision: Revision,
    /// When it was written, in milliseconds since 1970: what compaction by age goes by.
    pub written_at: u64,
    /// When the key expires, likewise; zero for never.
    pub expires_at: u64,
}

impl Record {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(26 + self.key.len());
        out.push(FORMAT);
        out.push(if self.tombstone { TOMBSTONE } else { 0 });
        out.extend_from_slice(&self.create_revision.to_be_bytes());
        out.extend_from_slice(&self.written_at.to_be_bytes());
        out.extend_from_slice(&self.expires_at.to_be_bytes());
        out.extend_from_slice(self.key.as_bytes());
        out
    }

    pub fn decode(bytes: &[u8]) -> Result<Record> {
        let corrupt = || Error::Corrupt("a log record cannot be read".to_owned());
        let (head, key) = bytes.split_at_checked(26).ok_or_else(corrupt)?;
        if head[0] != FORMAT {
            return Err(Error::Corrupt(format!("log format {} is not known", head[0])));
        }
        let number = |at: usize| number(&head[at..at + 8]).ok_or_else(corrupt);
        Ok(Record {
            key: String::from_utf8(key.to_vec()).map_err(|_| corrupt())?,
            tombstone: head[1] & TOMBSTONE != 0,
            create_revision: number(2)?,
            written_at: number(10)?,
            expires_at: number(18)?,
        })
    }
}

/// A big-endian number, as revisions are stored.
pub(super) fn number(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips() {
        for tombstone in [false, true] {
            let record = Record {
                key: "/registry/pods/a/b".to_owned(),
                tombstone,
                create_revision: 7,
                written_at: 8,
                expires_at: u64::MAX,
            };
            assert_eq!(Record::decode(&record.encode()), Ok(record));
        }
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        assert!(Record::decode(b"").is_err());
        assert!(Record::decode(&[9; 40]).is_err());
        let mut bytes = vec![1; 26];
        bytes.push(0xff);
        assert!(Record::decode(&bytes).is_err());
    }
}
