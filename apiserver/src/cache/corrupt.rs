//! Stored objects that cannot be read: found, and removed as bytes.

use super::resource::ResourceCache;
use super::{Error, Result};
use crate::storage::Revision;

/// A stored value that is no object any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Corruption {
    /// Of the write that left it.
    pub revision: Revision,
    /// Whether decryption failed; else what it yields is no object.
    pub transform: bool,
    pub why: String,
}

impl ResourceCache {
    /// What is wrong with what is stored under `key`; `None` if nothing is, or if nothing is there.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn corruption(&self, key: &str) -> Result<Option<Corruption>> {
        let Some(stored) = self.storage.get(key, None).await? else { return Ok(None) };
        if let Some(work) = self.stored.prepare(&stored.value) {
            work.await;
        }
        let revision = stored.mod_revision;
        match self.decode(stored) {
            Ok(_) => Ok(None),
            Err(Error::Transform(why)) => Ok(Some(Corruption { revision, transform: true, why })),
            Err(Error::Corrupt { why, .. }) => Ok(Some(Corruption { revision, transform: false, why })),
            Err(error) => Err(error),
        }
    }

    /// Removes what is stored under `key`, provided that it is what was found corrupt.
    ///
    /// # Errors
    /// [`Error::NotFound`] and [`Error::Conflict`] when it is not any more.
    pub async fn discard(&self, key: &str, found: &Corruption) -> Result<()> {
        self.storage.delete(key, found.revision, None).await?;
        Ok(())
    }
}
