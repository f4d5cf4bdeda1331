//! What the cache must know about a resource: where it is stored and what can be selected.

use std::collections::HashSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::Value;

use super::entry::Labels;
use crate::storage::Durability;

/// First bytes of a value that upstream wrote as protobuf.
pub const PROTOBUF_PREFIX: &[u8] = b"k8s\0";

/// Takes one selectable field's value out of an object; missing values are the empty string (or
/// the field's own default).
pub type Extract = Arc<dyn Fn(&Value) -> String + Send + Sync>;

/// Turns a value that somebody else stored (upstream's protobuf, its JSON, an older version) into JSON as this server
/// stores it.
pub type Decode = Arc<dyn Fn(&[u8]) -> Result<Read, String> + Send + Sync>;

/// A stored value as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// In the version that is stored, with every default.
    pub json: Bytes,
    /// It was stored in another version or without a default: writing it changes what is stored, though it changes
    /// nothing in the object.
    pub stale: bool,
}

/// A field that field selectors may name.
#[derive(Clone)]
pub struct SelectableField {
    /// Name in selectors, such as `spec.nodeName`.
    pub label: String,
    /// How to take its value from an object.
    pub extract: Extract,
    /// Whether lists and watches by this field are common enough for an index.
    pub indexed: bool,
}

impl SelectableField {
    /// A field read at a dotted path (`spec.nodeName`), as a string; absent is empty.
    pub fn at_path(path: &str) -> SelectableField {
        let parts: Vec<String> = path.split('.').map(str::to_owned).collect();
        SelectableField {
            label: path.to_owned(),
            indexed: false,
            extract: Arc::new(move |object| {
                let mut at = object;
                for part in &parts {
                    match at.get(part) {
                        Some(next) => at = next,
                        None => return String::new(),
                    }
                }
                match at {
                    Value::String(s) => s.clone(),
                    Value::Null => String::new(),
                    other => other.to_string(),
                }
            }),
        }
    }

    /// The same field, with an index over its values.
    pub fn indexed(mut self) -> SelectableField {
        self.indexed = true;
        self
    }
}

impl std::fmt::Debug for SelectableField {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.label)
    }
}

/// A resource as the cache sees it. Cheap: a CustomResourceDefinition makes one at run time.
pub struct ResourceSpec {
    /// API group, empty for the core group.
    pub group: String,
    /// Plural name.
    pub resource: String,
    /// Key prefix with a slash at its end, such as `/registry/pods/`.
    pub prefix: String,
    /// Whether keys are `prefix/namespace/name` rather than `prefix/name`.
    pub namespaced: bool,
    /// Selectable fields besides `metadata.name` and `metadata.namespace`.
    pub fields: Vec<SelectableField>,
    /// Whether to index by owner uid.
    pub index_owners: bool,
    /// How hard acknowledged writes of this resource must hold.
    pub durability: Durability,
    /// The version in which this server stores objects, such as `apps/v1`; empty for those that it always reads.
    pub version: String,
    /// How to read values that it did not store.
    pub decode: Option<Decode>,
    labels: Mutex<LabelPool>,
}

impl std::fmt::Debug for ResourceSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResourceSpec")
            .field("group", &self.group)
            .field("resource", &self.resource)
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

#[derive(Default)]
struct LabelPool {
    sets: HashSet<Labels, ahash::RandomState>,
    sweep_at: usize,
}

impl ResourceSpec {
    /// A resource with no selectable fields of its own, stored under `prefix` (a missing slash at
    /// its end is added). Set the public fields for the rest.
    pub fn new(group: &str, resource: &str, prefix: &str, namespaced: bool) -> ResourceSpec {
        let mut prefix = prefix.to_owned();
        if !prefix.ends_with('/') {
            prefix.push('/');
        }
        ResourceSpec {
            group: group.to_owned(),
            resource: resource.to_owned(),
            prefix,
            namespaced,
            fields: Vec::new(),
            index_owners: false,
            durability: Durability::Synced,
            version: String::new(),
            decode: None,
            labels: Mutex::default(),
        }
    }

    /// The storage key of an object.
    pub fn key(&self, namespace: &str, name: &str) -> String {
        if self.namespaced { format!("{}{namespace}/{name}", self.prefix) } else { format!("{}{name}", self.prefix) }
    }

    /// The key prefix of a namespace, or of the whole resource when `None` (or not namespaced).
    pub fn namespace_prefix(&self, namespace: Option<&str>) -> String {
        match namespace {
            Some(namespace) if self.namespaced && !namespace.is_empty() => {
                format!("{}{namespace}/", self.prefix)
            }
            _ => self.prefix.clone(),
        }
    }

    /// Namespace (empty if cluster-scoped) and name in a storage key of this resource.
    pub fn split_key<'a>(&self, key: &'a str) -> (&'a str, &'a str) {
        let rest = key.strip_prefix(self.prefix.as_str()).unwrap_or(key);
        if !self.namespaced {
            return ("", rest);
        }
        rest.split_once('/').unwrap_or(("", rest))
    }

    pub(super) fn field_index(&self, label: &str) -> Option<usize> {
        self.fields.iter().position(|f| f.label == label)
    }

    /// Whether a value was stored by this server, in the version in which it stores now. Members are sorted then, where
    /// Go begins with the kind, and the version is the first but for a few that sort before it.
    fn is_own(&self, stored: &[u8]) -> bool {
        const VERSION: &[u8] = b"{\"apiVersion\":\"";
        if self.version.is_empty() {
            return stored.first() == Some(&b'{');
        }
        match stored.strip_prefix(VERSION) {
            Some(rest) => rest.strip_prefix(self.version.as_bytes()).is_some_and(|rest| rest.starts_with(b"\"")),
            None => {
                let named = || memchr::memmem::find(stored, format!(",\"apiVersion\":\"{}\"", self.version).as_bytes());
                stored.starts_with(b"{\"a") && named().is_some()
            }
        }
    }

    pub(super) fn read(&self, stored: &Bytes) -> Result<Read, String> {
        if self.is_own(stored) {
            return Ok(Read { json: stored.clone(), stale: false });
        }
        let Some(decode) = &self.decode else {
            return Err("the stored value is not JSON".to_owned());
        };
        // These bytes are somebody else's. What they do to the decoder must not take down whoever
        // feeds the cache, and every other resource with it.
        std::panic::catch_unwind(AssertUnwindSafe(|| decode(stored)))
            .unwrap_or_else(|_| Err("the decoder panicked".to_owned()))
    }

    /// The shared copy of a label set. `labels` must be sorted by key, as serde_json's maps are.
    pub(super) fn intern_labels(&self, labels: Vec<(Box<str>, Box<str>)>) -> Labels {
        let labels: Labels = labels.into();
        let mut pool = self.labels.lock();
        if let Some(shared) = pool.sets.get(&labels) {
            return shared.clone();
        }
        if pool.sets.len() >= pool.sweep_at {
            // Sets nobody holds any more go; sweeping at twice the survivors keeps the cost
            // proportional to what was added.
            pool.sets.retain(|set| Arc::strong_count(set) > 1);
            pool.sweep_at = 64.max(pool.sets.len() * 2);
        }
        pool.sets.insert(labels.clone());
        labels
    }
}

/// Options for a create beyond the resource's own.
#[derive(Clone, Copy, Debug, Default)]
pub struct CreateOptions {
    /// Time to live (Events).
    pub ttl: Option<Duration>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_stored_is_told_by_how_it_begins() {
        let mut spec = ResourceSpec::new("apps", "deployments", "/d/", true);
        spec.version = "apps/v1".to_owned();
        for (stored, own) in [
            (r#"{"apiVersion":"apps/v1","kind":"Deployment","metadata":{}}"#, true),
            (r#"{"action":"x","apiVersion":"apps/v1","kind":"Deployment","metadata":{}}"#, true),
            (r#"{"kind":"Deployment","apiVersion":"apps/v1","metadata":{}}"#, false),
            (r#"{"apiVersion":"apps/v1beta1","kind":"Deployment","metadata":{}}"#, false),
            (r#"{"action":"x","apiVersion":"apps/v1beta1","kind":"Deployment","metadata":{}}"#, false),
            (r#"{ "apiVersion": "apps/v1" }"#, false),
            ("k8s\0", false),
        ] {
            assert_eq!(spec.is_own(stored.as_bytes()), own, "{stored}");
        }
    }
}
