//! What turns objects into what is stored and back, and how several of them share a resource.

use bytes::Bytes;
use futures::future::BoxFuture;

use super::metrics::{Direction, Metrics};

/// Why a value could not be encrypted or decrypted, in upstream's words.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{message}")]
pub struct Error {
    pub message: String,
    /// The gRPC status name of a failed call, for metrics; upstream says `unknown-non-grpc` otherwise.
    pub code: &'static str,
}

impl Error {
    /// A failure in this process.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), code: "unknown-non-grpc" }
    }
}

/// Where a value is stored: authenticated along with it, so that nobody can move it to another key.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The whole storage key.
    pub key: &'a str,
    /// `secrets` or `deployments.apps`, for metrics.
    pub resource: &'a str,
}

/// One way of storing values.
pub trait Transformer: Send + Sync {
    /// What was stored as `data`, and whether it is stale: to be written again although nothing changed.
    ///
    /// # Errors
    /// When it cannot be decrypted or was tampered with.
    #[expect(clippy::wrong_self_convention, reason = "the name tells the direction of the data, as its twin's does")]
    fn from_storage(&self, data: Bytes, place: Place<'_>) -> Result<(Bytes, bool), Error>;

    /// What to store.
    ///
    /// # Errors
    /// When there is no key to write with.
    fn to_storage(&self, data: &Bytes, place: Place<'_>) -> Result<Bytes, Error>;

    /// Work that [`Transformer::from_storage`] would otherwise block for: asking for a key.
    fn prepare(&self, data: &Bytes) -> Option<BoxFuture<'static, ()>> {
        let _ = data;
        None
    }
}

/// Stores values as they are, and refuses to take encrypted ones for plain ones.
pub struct Identity;

/// What every encrypted value begins with.
pub const ENCRYPTED: &[u8] = b"k8s:enc:";

impl Transformer for Identity {
    fn from_storage(&self, data: Bytes, _: Place<'_>) -> Result<(Bytes, bool), Error> {
        if data.starts_with(ENCRYPTED) {
            return Err(Error::new("identity transformer tried to read encrypted data"));
        }
        Ok((data, false))
    }

    fn to_storage(&self, data: &Bytes, _: Place<'_>) -> Result<Bytes, Error> {
        Ok(data.clone())
    }
}

/// Several ways, told apart by what the stored value begins with. The first one writes, all of them read.
pub struct Prefixed {
    list: Vec<(Bytes, Box<dyn Transformer>)>,
    /// Said when no prefix fits.
    unknown: &'static str,
    metrics: Option<std::sync::Arc<Metrics>>,
}

impl Prefixed {
    /// At least one transformer each with its prefix; an empty prefix fits everything.
    pub fn new(
        list: Vec<(String, Box<dyn Transformer>)>,
        unknown: &'static str,
        metrics: Option<std::sync::Arc<Metrics>>,
    ) -> Self {
        let list = list.into_iter().map(|(prefix, transformer)| (Bytes::from(prefix), transformer)).collect();
        Self { list, unknown, metrics }
    }

    fn record<T>(&self, place: Place<'_>, direction: Direction, prefix: &[u8], result: &Result<T, Error>) {
        if let Some(metrics) = &self.metrics {
            let prefix = std::str::from_utf8(prefix).unwrap_or_default();
            metrics.transformed(place.resource, direction, prefix, result.as_ref().err().map(|error| error.code));
        }
    }
}

impl Transformer for Prefixed {
    fn from_storage(&self, data: Bytes, place: Place<'_>) -> Result<(Bytes, bool), Error> {
        let mut errors: Vec<Error> = Vec::new();
        for (index, (prefix, transformer)) in self.list.iter().enumerate() {
            if !data.starts_with(prefix) {
                continue;
            }
            let result = transformer.from_storage(data.slice(prefix.len()..), place);
            // Identity before the others means "write plainly": that it cannot read is no failure.
            if prefix.is_empty() && result.is_err() {
                continue;
            }
            self.record(place, Direction::From, if prefix.is_empty() { b"identity" } else { prefix }, &result);
            match result {
                Ok((data, stale)) => return Ok((data, stale || index != 0)),
                // The same provider may be there twice, with other keys.
                Err(error) => errors.push(error),
            }
        }
        match errors.len() {
            0 => {
                let unknown = Err::<(Bytes, bool), _>(Error::new(self.unknown));
                self.record(place, Direction::From, b"unknown", &unknown);
                unknown
            }
            1 => Err(errors.remove(0)),
            _ => {
                let mut texts: Vec<&str> = Vec::new();
                for error in &errors {
                    if !texts.contains(&error.message.as_str()) {
                        texts.push(&error.message);
                    }
                }
                let text = if texts.len() == 1 { texts[0].to_string() } else { format!("[{}]", texts.join(", ")) };
                Err(Error { message: text, code: errors[0].code })
            }
        }
    }

    fn to_storage(&self, data: &Bytes, place: Place<'_>) -> Result<Bytes, Error> {
        let (prefix, transformer) = self.list.first().ok_or_else(|| Error::new(self.unknown))?;
        let result = transformer.to_storage(data, place);
        self.record(place, Direction::To, prefix, &result);
        let result = result?;
        if prefix.is_empty() {
            return Ok(result);
        }
        let mut out = Vec::with_capacity(prefix.len() + result.len());
        out.extend_from_slice(prefix);
        out.extend_from_slice(&result);
        Ok(out.into())
    }

    fn prepare(&self, data: &Bytes) -> Option<BoxFuture<'static, ()>> {
        let mut fitting = self.list.iter().filter(|(prefix, _)| data.starts_with(prefix));
        fitting.find_map(|(prefix, transformer)| transformer.prepare(&data.slice(prefix.len()..)))
    }
}
