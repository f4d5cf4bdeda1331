//! The bound on entries of updaters: the oldest of each version are folded into one.

use super::{Entry, Fields, Operation};

/// Managers by update beyond this many are folded into one.
const MAX_UPDATE_MANAGERS: usize = 10;
const OLD_UPDATES: &str = "ancient-changes";

/// Folds the oldest updaters of each version until few enough are left.
pub(super) fn cap(entries: &mut Vec<Entry>) {
    let is_updater = |entry: &Entry| entry.operation == Operation::Update;
    let mut left = entries.iter().filter(|entry| is_updater(entry)).count();
    if left <= MAX_UPDATE_MANAGERS {
        return;
    }
    let (mut updaters, others): (Vec<Entry>, Vec<Entry>) = std::mem::take(entries).into_iter().partition(is_updater);
    updaters.sort_by_cached_key(|entry| (entry.seconds(), entry.identifier()));
    let mut kept: Vec<Entry> = Vec::with_capacity(updaters.len());
    // Per version: where the first one seen stands in `kept`.
    let mut first: Vec<(String, usize)> = Vec::new();
    for mut entry in updaters {
        let known = first.iter().find(|(version, _)| *version == entry.api_version).map(|(_, at)| *at);
        let Some(at) = known.filter(|_| left > MAX_UPDATE_MANAGERS) else {
            if known.is_none() {
                first.push((entry.api_version.clone(), kept.len()));
            }
            kept.push(entry);
            continue;
        };
        // The oldest of its version becomes the one that the others are folded into.
        let oldest = &mut kept[at];
        oldest.manager = OLD_UPDATES.to_owned();
        oldest.subresource = String::new();
        oldest.fields = Fields::Set(oldest.fields.take().union(entry.fields.take()));
        oldest.time = entry.time;
        left -= 1;
    }
    *entries = others;
    entries.extend(kept);
}
