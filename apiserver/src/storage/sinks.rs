//! Who gets which change: sinks by key prefix.

use std::sync::{Arc, Weak};

use ahash::AHashMap;
use parking_lot::RwLock;

use super::{Change, Error, Revision, Sink};

/// The sinks attached to one source of changes. They are held weakly: dropping the [`Attached`]
/// that [`Sinks::attach`] answers detaches.
#[derive(Default)]
pub(super) struct Sinks(RwLock<AHashMap<String, Vec<Weak<Attached>>>>);

pub(super) struct Attached {
    sink: Arc<dyn Sink>,
    /// Changes up to here are not for it.
    after: Revision,
}

impl Sinks {
    /// Attaches `sink` to changes of `prefix` (which ends with a slash) after `after`.
    pub fn attach(&self, prefix: &str, after: Revision, sink: Arc<dyn Sink>) -> Arc<Attached> {
        let attached = Arc::new(Attached { sink, after });
        let mut sinks = self.0.write();
        let list = sinks.entry(prefix.to_owned()).or_default();
        list.retain(|attached| attached.strong_count() > 0);
        list.push(Arc::downgrade(&attached));
        attached
    }

    /// Hands changes to every sink whose prefix they have, keeping order.
    pub fn deliver(&self, changes: &[Change]) {
        let sinks = self.0.read();
        if sinks.is_empty() {
            return;
        }
        let mut deliveries: Vec<(Arc<Attached>, Vec<Change>)> = Vec::new();
        for change in changes {
            let key: &str = &change.key;
            let prefixes = key.match_indices('/').map(|(at, _)| &key[..=at]);
            for attached in prefixes.filter_map(|prefix| sinks.get(prefix)).flatten() {
                let Some(attached) = attached.upgrade() else { continue };
                if change.revision <= attached.after {
                    continue;
                }
                match deliveries.iter_mut().find(|(a, _)| Arc::ptr_eq(a, &attached)) {
                    Some((_, list)) => list.push(change.clone()),
                    None => deliveries.push((attached, vec![change.clone()])),
                }
            }
        }
        // A sink may attach or detach others while it works.
        drop(sinks);
        for (attached, list) in deliveries {
            attached.sink.apply(&list);
        }
    }

    /// Tells every sink that delivery cannot go on, and detaches them all.
    pub fn break_all(&self, error: &Error) {
        let sinks = std::mem::take(&mut *self.0.write());
        for attached in sinks.into_values().flatten().filter_map(|attached| attached.upgrade()) {
            attached.sink.broken(error.clone());
        }
    }
}
