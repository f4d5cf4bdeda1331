//! One object as the cache holds it: bytes, and the few facts that reads filter by.
//!
//! An entry never holds a decoded object. Ten thousand pods of 3 KiB must cost little more than
//! their bytes, so what selectors and indexes need is taken out when the entry is made (from the
//! tree on the write path, from the bytes once when loading), label sets are shared between
//! objects that have the same ones, and other encodings are made on first use.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::Value;
use smallvec::SmallVec;

use super::spec::{Read, ResourceSpec};
use super::splice::{self, Slot};
use super::{Error, Result};
use crate::storage::Revision;

/// An object's labels, sorted by key.
pub type Labels = Arc<[(Box<str>, Box<str>)]>;

/// Derived encodings of one thing, each made once and kept.
///
/// Keys are chosen by the caller (media type, version, form): the cache only promises that equal
/// keys give equal bytes and that the maker runs once per key.
#[derive(Default)]
pub struct Encodings(Mutex<SmallVec<[(u32, Bytes); 1]>>);

impl Encodings {
    /// The bytes kept under `key`, made by `make` if there are none.
    pub fn get_or_make(&self, key: u32, make: impl FnOnce() -> Bytes) -> Bytes {
        // The lock is held while making, so that a thousand watchers wait for one encoding instead
        // of making a thousand.
        let mut made = self.0.lock();
        if let Some((_, bytes)) = made.iter().find(|(k, _)| *k == key) {
            return bytes.clone();
        }
        let bytes = make();
        made.push((key, bytes.clone()));
        bytes
    }

    /// The bytes kept under `key`.
    pub fn get(&self, key: u32) -> Option<Bytes> {
        self.0.lock().iter().find(|(k, _)| *k == key).map(|(_, bytes)| bytes.clone())
    }

    /// Keeps bytes under `key` unless there are some.
    pub fn put(&self, key: u32, bytes: Bytes) {
        self.get_or_make(key, || bytes);
    }

    /// As [`Encodings::get_or_make`], for makers that can fail; failures are not kept.
    pub fn try_get_or_make<E>(&self, key: u32, make: impl FnOnce() -> Result<Bytes, E>) -> Result<Bytes, E> {
        let mut made = self.0.lock();
        if let Some((_, bytes)) = made.iter().find(|(k, _)| *k == key) {
            return Ok(bytes.clone());
        }
        let bytes = make()?;
        made.push((key, bytes.clone()));
        Ok(bytes)
    }

    /// Forgets everything made so far.
    pub fn clear(&self) {
        let mut made = self.0.lock();
        if !made.is_empty() {
            *made = SmallVec::new();
        }
    }

    /// Total size in bytes of what is kept.
    pub fn size(&self) -> usize {
        self.0.lock().iter().map(|(_, bytes)| bytes.len()).sum()
    }
}

/// The facts taken out of an object's tree.
#[derive(Clone, Debug)]
pub struct Facts {
    /// `metadata.uid`, empty if unset.
    pub uid: Box<str>,
    /// `metadata.labels`.
    pub labels: Labels,
    /// Values of the resource's selectable fields, in the order of [`ResourceSpec::fields`].
    pub fields: Box<[Box<str>]>,
    /// Uids of `metadata.ownerReferences`.
    pub owners: Box<[Box<str>]>,
}

impl Facts {
    /// Takes the facts of `object`.
    pub fn of(spec: &ResourceSpec, object: &Value) -> Facts {
        let metadata = object.get("metadata");
        let labels: Vec<(Box<str>, Box<str>)> = metadata
            .and_then(|m| m.get("labels"))
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
            .map(|(k, v)| (k.as_str().into(), v.as_str().unwrap_or_default().into()))
            .collect();
        let owners = metadata
            .and_then(|m| m.get("ownerReferences"))
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(|o| o.get("uid")?.as_str())
            .map(Box::from)
            .collect();
        Facts {
            uid: metadata.and_then(|m| m.get("uid")).and_then(Value::as_str).unwrap_or_default().into(),
            labels: spec.intern_labels(labels),
            fields: spec.fields.iter().map(|f| (f.extract)(object).into_boxed_str()).collect(),
            owners,
        }
    }
}

/// One object at one revision. Immutable; always behind an [`Arc`].
pub struct Entry {
    spec: Arc<ResourceSpec>,
    key: Arc<str>,
    revision: Revision,
    create_revision: Revision,
    json: Bytes,
    facts: Facts,
    stale: bool,
    /// Other encodings of this object: protobuf, CBOR, table cells.
    pub encodings: Encodings,
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}", self.key, self.revision)
    }
}

impl Entry {
    /// An entry from stored bytes, decoding them once for the facts.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if the bytes are no object with metadata, or the decode hook of the
    /// resource refuses them.
    pub fn decode(
        spec: &Arc<ResourceSpec>,
        key: Arc<str>,
        revision: Revision,
        create_revision: Revision,
        stored: &Bytes,
    ) -> Result<Arc<Entry>> {
        let corrupt = |why: String| Error::Corrupt { key: key.to_string(), why };
        let Read { json, stale } = spec.read(stored).map_err(corrupt)?;
        let tree: Value = serde_json::from_slice(&json).map_err(|e| corrupt(e.to_string()))?;
        let slot = Slot::find(&json).ok_or_else(|| corrupt("no metadata".to_owned()))?;
        Ok(Entry::assemble(
            spec,
            key.clone(),
            revision,
            create_revision,
            slot.fill(&json, revision),
            Facts::of(spec, &tree),
            stale,
        ))
    }

    /// An entry of an object that no store holds: its JSON says no version.
    pub fn unstored(spec: &Arc<ResourceSpec>, name: &str, object: &Value) -> Arc<Entry> {
        let json = Bytes::from(object.to_string());
        Entry::assemble(spec, spec.key("", name).into(), 0, 0, json, Facts::of(spec, object), false)
    }

    pub(super) fn assemble(
        spec: &Arc<ResourceSpec>,
        key: Arc<str>,
        revision: Revision,
        create_revision: Revision,
        json: Bytes,
        facts: Facts,
        stale: bool,
    ) -> Arc<Entry> {
        Arc::new(Entry {
            spec: spec.clone(),
            key,
            revision,
            create_revision,
            json,
            facts,
            stale,
            encodings: Encodings::default(),
        })
    }

    /// The same object under another revision, as a delete event shows it.
    pub(super) fn at_revision(&self, revision: Revision, create_revision: Revision) -> Arc<Entry> {
        let json = splice::set_resource_version(&self.json, revision)
            .expect("an entry's JSON was spliced before, so it has metadata");
        Entry::assemble(&self.spec, self.key.clone(), revision, create_revision, json, self.facts.clone(), self.stale)
    }

    /// The storage key, such as `/registry/pods/default/web`.
    pub fn key(&self) -> &Arc<str> {
        &self.key
    }

    /// The resource version.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The revision that created the object.
    pub fn create_revision(&self) -> Revision {
        self.create_revision
    }

    /// The object as JSON, in the storage version, with `metadata.resourceVersion` in place.
    pub fn json(&self) -> &Bytes {
        &self.json
    }

    /// The object's tree. For write paths only: read paths send [`Entry::json`].
    pub fn tree(&self) -> Value {
        serde_json::from_slice(&self.json).expect("an entry's JSON was decoded when it was made")
    }

    /// Namespace, empty for a cluster-scoped object.
    pub fn namespace(&self) -> &str {
        self.spec.split_key(&self.key).0
    }

    /// Name.
    pub fn name(&self) -> &str {
        self.spec.split_key(&self.key).1
    }

    /// `metadata.uid`.
    pub fn uid(&self) -> &str {
        &self.facts.uid
    }

    /// Labels, sorted by key.
    pub fn labels(&self) -> &[(Box<str>, Box<str>)] {
        &self.facts.labels
    }

    /// The value of one label.
    pub fn label(&self, key: &str) -> Option<&str> {
        let labels = &self.facts.labels;
        let at = labels.binary_search_by(|(k, _)| (**k).cmp(key)).ok()?;
        Some(&labels[at].1)
    }

    /// The value of a selectable field; `metadata.name` and `metadata.namespace` work for every
    /// resource. `None` if the resource has no such field.
    pub fn field(&self, label: &str) -> Option<&str> {
        match label {
            "metadata.name" => Some(self.name()),
            "metadata.namespace" => Some(self.namespace()),
            _ => Some(&self.facts.fields[self.spec.field_index(label)?]),
        }
    }

    /// Whether the object is stored in another way than it would be now ([`Read::stale`]).
    pub(super) fn is_stale(&self) -> bool {
        self.stale
    }

    pub(super) fn field_at(&self, index: usize) -> &str {
        &self.facts.fields[index]
    }

    /// Uids of the owners.
    pub fn owners(&self) -> &[Box<str>] {
        &self.facts.owners
    }

    /// What kind of object this is.
    pub fn spec(&self) -> &Arc<ResourceSpec> {
        &self.spec
    }

    /// Bytes of memory this entry keeps alive, roughly.
    pub fn size(&self) -> usize {
        self.json.len() + self.encodings.size() + 256
    }
}
