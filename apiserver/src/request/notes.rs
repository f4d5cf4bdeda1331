//! What is said about a request beside its answer: warnings for the client, annotations for the audit log.

use std::collections::BTreeMap;

use parking_lot::Mutex;

/// Become Warning headers of the answer, in this order.
#[derive(Debug, Default)]
pub struct Warnings(Mutex<Vec<String>>);

impl Warnings {
    /// Adds one.
    pub fn push(&self, warning: String) {
        self.0.lock().push(warning);
    }

    /// Adds some.
    pub fn extend(&self, warnings: impl IntoIterator<Item = String>) {
        self.0.lock().extend(warnings);
    }

    /// Moves some here.
    pub fn append(&self, warnings: &mut Vec<String>) {
        self.0.lock().append(warnings);
    }

    /// How many there are: what is to be kept by [`Warnings::truncate`].
    pub fn mark(&self) -> usize {
        self.0.lock().len()
    }

    /// Forgets all but the first.
    pub fn truncate(&self, keep: usize) {
        self.0.lock().truncate(keep);
    }

    /// All of them.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock())
    }
}

/// An annotation for the audit log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Annotation {
    pub value: String,
    /// It tells what is in the request, so it is only for logs that tell that too.
    pub detailed: bool,
}

/// Annotations by key; the first of a key stays.
#[derive(Debug, Default)]
pub struct Annotations(Mutex<BTreeMap<String, Annotation>>);

impl Annotations {
    /// Adds one, unless there is one of this key.
    pub fn add(&self, key: &str, annotation: Annotation) {
        let mut all = self.0.lock();
        match all.get(key) {
            Some(have) if have.value != annotation.value => {
                tracing::warn!(key, "an audit annotation is set already; the new value is dropped");
            }
            Some(_) => {}
            None => {
                all.insert(key.to_string(), annotation);
            }
        }
    }

    /// Moves all to where another request, or the whole one, keeps its own.
    pub fn move_to(&self, other: &Annotations) {
        for (key, annotation) in self.take() {
            other.add(&key, annotation);
        }
    }

    /// All of them.
    pub fn take(&self) -> BTreeMap<String, Annotation> {
        std::mem::take(&mut self.0.lock())
    }
}
