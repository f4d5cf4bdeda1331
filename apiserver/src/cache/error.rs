//! What can go wrong reading or writing through the cache, by what to tell the client.

use crate::storage::{self, Revision};

/// Result of a cache operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failed cache operation. Whoever answers requests turns it into an API `Status`.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// No such object: 404.
    #[error("key not found: {key}")]
    NotFound {
        /// Storage key.
        key: String,
    },

    /// The object exists already: 409 AlreadyExists.
    #[error("key exists: {key}")]
    Exists {
        /// Storage key.
        key: String,
    },

    /// The object was modified since it was read: 409 Conflict, or read again and retry.
    #[error("key {key} was modified at revision {current}")]
    Conflict {
        /// Storage key.
        key: String,
        /// Its present resource version.
        current: Revision,
    },

    /// The requested resource version is older than the history kept: 410 Expired. For a watch the
    /// text is upstream's `too old resource version: {requested} ({oldest})`.
    #[error("too old resource version: {requested} ({oldest})")]
    TooOld {
        /// What the client asked for.
        requested: Revision,
        /// Watches and lists of this one and of older ones cannot be served.
        oldest: Revision,
    },

    /// The requested resource version has not happened yet and did not within the wait: 504 Timeout
    /// with cause `ResourceVersionTooLarge` and a retry after one second.
    #[error("Too large resource version: {requested}, current: {current}")]
    TooLarge {
        /// What the client asked for.
        requested: Revision,
        /// The newest resource version here.
        current: Revision,
    },

    /// A stored value cannot be read: 500.
    #[error("stored object {key} cannot be decoded: {why}")]
    Corrupt {
        /// Storage key.
        key: String,
        /// Why.
        why: String,
    },

    /// A value cannot be encrypted or decrypted: 500.
    #[error("{0}")]
    Transform(String),

    /// The value is larger than the store takes: 413.
    #[error("object is too large for the store: {0}")]
    ObjectTooLarge(String),

    /// Storage does not answer: 503, or 500 when a write's outcome is unknown.
    #[error("storage is unavailable: {0}")]
    Unavailable(String),
}

impl From<storage::Error> for Error {
    fn from(error: storage::Error) -> Error {
        use storage::Error as E;
        match error {
            E::NotFound { key } => Error::NotFound { key },
            E::Exists { key } => Error::Exists { key },
            E::Conflict { key, current } => Error::Conflict { key, current },
            E::Compacted { requested, compacted } => Error::TooOld { requested, oldest: compacted },
            E::Future { requested, current } => Error::TooLarge { requested, current },
            E::TooLarge(why) => Error::ObjectTooLarge(why),
            E::Locked(_) | E::Unavailable(_) | E::Corrupt(_) | E::Closed => Error::Unavailable(error.to_string()),
        }
    }
}
