//! What can go wrong below the cache, by what the caller should do about it.
//!
//! The cache and the generic store turn these into API `Status`es in one place.

use super::Revision;

/// Result of a storage operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failed storage operation.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// The key is not there. For an update or delete: read again and decide anew.
    #[error("key not found: {key}")]
    NotFound {
        /// The key asked for.
        key: String,
    },

    /// A create found the key taken.
    #[error("key exists: {key}")]
    Exists {
        /// The key asked for.
        key: String,
    },

    /// The key was modified since the caller read it: read again and retry, or tell the client.
    #[error("key {key} was modified at revision {current}")]
    Conflict {
        /// The key asked for.
        key: String,
        /// Its present modification revision.
        current: Revision,
    },

    /// The revision is older than the history kept.
    #[error("revision {requested} has been compacted, the oldest kept is after {compacted}")]
    Compacted {
        /// What the caller asked for.
        requested: Revision,
        /// History up to here is gone.
        compacted: Revision,
    },

    /// The revision has not happened yet.
    #[error("revision {requested} is in the future, the current one is {current}")]
    Future {
        /// What the caller asked for.
        requested: Revision,
        /// The newest revision.
        current: Revision,
    },

    /// The value or the request is larger than the engine takes.
    #[error("value is too large: {0}")]
    TooLarge(String),

    /// Another process holds the data directory.
    #[error("data directory {0} is in use by another process")]
    Locked(String),

    /// The engine cannot be reached or did not answer in time; retry later. Whether a write took
    /// effect is unknown.
    #[error("storage is unavailable: {0}")]
    Unavailable(String),

    /// The data on disk makes no sense; an operator must look.
    #[error("storage is corrupt: {0}")]
    Corrupt(String),

    /// The engine was shut down.
    #[error("storage is closed")]
    Closed,
}
