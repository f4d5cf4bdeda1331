//! What travels with our own writes, until etcd's watch brings them back.
//!
//! A write's attachment (what the cache took from the object's tree) cannot go through etcd. But the
//! very bytes come back over the watch, usually within a millisecond, and attachments are a function
//! of the bytes: so equal key and equal value get it, and the cache need not decode what this server
//! wrote itself. A missing attachment costs a decode, never correctness.

use ahash::AHashMap;
use bytes::Bytes;
use parking_lot::Mutex;
use smallvec::SmallVec;

use crate::storage::Attachment;

/// Writes remembered at most; more in flight than this are decoded.
const LARGEST: usize = 4096;

/// What was sent under one key, with what came along.
type Sent = SmallVec<[(Bytes, Attachment); 1]>;

#[derive(Default)]
pub(super) struct Pending(Mutex<AHashMap<String, Sent>>);

impl Pending {
    /// Remembers a write that is about to be sent.
    pub fn expect(&self, key: &str, value: &Bytes, attachment: &Attachment) {
        let mut pending = self.0.lock();
        if pending.len() < LARGEST {
            pending.entry(key.to_owned()).or_default().push((value.clone(), attachment.clone()));
        }
    }

    /// Takes what belongs to a change that arrived, or to a write that failed.
    pub fn take(&self, key: &str, value: &[u8]) -> Option<Attachment> {
        let mut pending = self.0.lock();
        let writes = pending.get_mut(key)?;
        let at = writes.iter().position(|(expected, _)| expected == value)?;
        let (_, attachment) = writes.remove(at);
        if writes.is_empty() {
            pending.remove(key);
        }
        Some(attachment)
    }

    /// Forgets everything: what was to come will not.
    pub fn clear(&self) {
        self.0.lock().clear();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn gives_each_write_its_own() {
        let pending = Pending::default();
        let attachment = |number: u32| -> Attachment { Arc::new(number) };
        let number = |taken: Option<Attachment>| taken.map(|a| *a.downcast_ref::<u32>().unwrap());
        let (one, two) = (Bytes::from_static(b"1"), Bytes::from_static(b"2"));
        pending.expect("a", &one, &attachment(1));
        pending.expect("a", &two, &attachment(2));
        assert_eq!(number(pending.take("b", b"1")), None);
        assert_eq!(number(pending.take("a", b"3")), None);
        assert_eq!(number(pending.take("a", b"2")), Some(2));
        assert_eq!(number(pending.take("a", b"2")), None);
        assert_eq!(number(pending.take("a", b"1")), Some(1));
        assert!(pending.0.lock().is_empty());
    }
}
