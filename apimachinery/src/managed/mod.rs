//! `metadata.managedFields`: who set what, when and how.
//!
//! One engine for both operations, in upstream's order of steps: [`update`] after every create,
//! update and patch, [`apply`] for server-side apply. Reads and writes `metadata.managedFields`
//! of the objects it is given and nothing else. Spec: KEP-555.

mod entry;

pub use entry::{DecodeError, Entry, Operation};

use crate::fieldset::{self, Comparison, PathElement, Set, path_text};
use crate::gotext::quote;
use crate::object::ObjectExt;
use crate::schema::TypeRef;
use crate::status::{Cause, Status};
use crate::time::Timestamp;
use entry::{Identity, decode, encode};
use serde_json::Value;
use std::sync::LazyLock;

/// Managers by update beyond this many are folded into one.
const MAX_UPDATE_MANAGERS: usize = 10;
const OLD_UPDATES: &str = "ancient-changes";
const BEFORE_FIRST_APPLY: &str = "before-first-apply";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Identity and bookkeeping that nobody owns.
static NEVER_OWNED: LazyLock<Set> = LazyLock::new(|| {
    Set::of_fields(&[
        &["apiVersion"],
        &["kind"],
        &["metadata"],
        &["metadata", "name"],
        &["metadata", "namespace"],
        &["metadata", "creationTimestamp"],
        &["metadata", "selfLink"],
        &["metadata", "uid"],
        &["metadata", "clusterName"],
        &["metadata", "generation"],
        &["metadata", "managedFields"],
        &["metadata", "resourceVersion"],
    ])
});

/// Who changes an object, and under which description.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// `fieldManager`, or [`manager_from_user_agent`].
    pub manager: &'a str,
    /// The group version of the request.
    pub api_version: &'a str,
    /// `status`, `scale`, …, or empty.
    pub subresource: &'a str,
    pub ty: TypeRef<'a>,
    /// What this endpoint resets and therefore gives nobody: the strategy's reset fields.
    pub reset: &'a Set,
    pub now: Timestamp,
}

/// Why an apply was refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ApplyError {
    /// Others own what would change; the Status says who owns what.
    #[error("{0}")]
    Conflict(Box<Status>),
    /// The configuration carries managedFields itself, or is of another version.
    #[error("{0}")]
    BadRequest(String),
    /// The configuration does not fit the type, or the object's managedFields are unreadable.
    #[error("{0}")]
    Invalid(String),
}

/// The manager when the request names none: the user agent up to its first slash, at most 128
/// characters.
pub fn manager_from_user_agent(user_agent: &str) -> String {
    let head = user_agent.split('/').next().unwrap_or_default();
    head.chars().take_while(|c| crate::gotext::is_print(*c)).take(128).collect()
}

/// The usual reset fields: a main resource with a status leaves status alone, `/status` leaves
/// everything but status and metadata alone.
pub fn usual_reset_fields(subresource: &str) -> Set {
    if subresource == "status" { Set::of_fields(&[&["spec"]]) } else { Set::of_fields(&[&["status"]]) }
}

/// Sets the managedFields of `new`, which replaces `old` (`None` on create), both in the request's
/// version and canonical form. Never fails: unreadable managedFields are dropped.
pub fn update(old: Option<&Value>, new: &mut Value, request: &Request<'_>) {
    let live = old.and_then(|o| o.at(&["metadata", "managedFields"]));
    let sent = new.at(&["metadata", "managedFields"]);
    let entries = if !request.subresource.is_empty() || sent.is_none_or(Value::is_null) {
        decode(live).unwrap_or_default()
    } else if is_reset(sent) {
        Vec::new()
    } else {
        match decode(sent) {
            Ok(entries) if !entries.is_empty() => entries,
            _ => decode(live).unwrap_or_default(),
        }
    };
    new.remove_at(&["metadata", "managedFields"]);
    // An object that existed before anybody tracked fields stays untracked until it is applied.
    if entries.is_empty() && old.is_some_and(|o| !o.uid().is_empty()) {
        return;
    }
    let old = match old {
        Some(old) => without_managed(old),
        None => fieldset::zero(request.ty),
    };
    let mut entries = record(&old, new, entries, request, request.manager);
    cap(&mut entries);
    write(new, entries);
}

/// An empty list, or a list of one empty entry: a client asks to start over.
fn is_reset(sent: Option<&Value>) -> bool {
    match sent.and_then(Value::as_array).map(Vec::as_slice) {
        Some([]) => true,
        Some([entry]) => entry.as_object().is_some_and(|m| m.values().all(|v| v.is_null() || v == "")),
        _ => false,
    }
}

fn without_managed(object: &Value) -> Value {
    let mut object = object.clone();
    object.remove_at(&["metadata", "managedFields"]);
    object
}

fn write(object: &mut Value, entries: Vec<Entry>) {
    match encode(entries) {
        Value::Array(list) if list.is_empty() => {
            object.remove_at(&["metadata", "managedFields"]);
        }
        list => object.set_at(&["metadata", "managedFields"], list),
    }
}

/// An update by `manager`: it gains what it added and changed, everyone loses what was changed or
/// removed. Entries that did not change keep their time.
fn record(old: &Value, new: &Value, entries: Vec<Entry>, request: &Request<'_>, manager: &str) -> Vec<Entry> {
    let changes = fieldset::compare(old, new, request.ty);
    let mine =
        changes.modified.clone().union(&changes.added).recursive_difference(request.reset).difference(&NEVER_OWNED);
    let mut entries = disown(entries, &changes.without(request.reset), None);
    if mine.is_empty() {
        return entries;
    }
    let identity = Identity::update(manager, request.api_version, request.subresource);
    match entries.iter_mut().find(|e| identity.is(e)) {
        Some(entry) => {
            entry.set = std::mem::take(&mut entry.set).union(&mine);
            entry.time = Some(request.now);
        }
        None => {
            // A manager that just lost its whole set comes back as a new entry.
            entries.push(identity.entry(mine, Some(request.now)));
        }
    }
    entries
}

/// Takes what changed or went from every entry but `except`; entries left with nothing go.
fn disown(mut entries: Vec<Entry>, changes: &Comparison, except: Option<&Identity>) -> Vec<Entry> {
    let changed = changes.modified.clone().union(&changes.added);
    for entry in entries.iter_mut().filter(|e| except.is_none_or(|id| !id.is(e))) {
        let lost = entry.set.intersection(&changed);
        if !lost.is_empty() {
            entry.set = entry.set.difference(&lost);
        }
        if !changes.removed.is_empty() {
            entry.set = entry.set.difference(&changes.removed);
        }
    }
    entries.retain(|e| !e.set.is_empty());
    entries
}

/// Folds the oldest updaters of each version into one entry when there are too many.
fn cap(entries: &mut Vec<Entry>) {
    let mut updaters: Vec<usize> = (0..entries.len()).filter(|i| entries[*i].operation == Operation::Update).collect();
    let mut left = updaters.len();
    if left <= MAX_UPDATE_MANAGERS {
        return;
    }
    updaters.sort_by(|a, b| {
        let key = |i: usize| (entries[i].seconds(), entries[i].identifier());
        key(*a).cmp(&key(*b))
    });
    let mut buckets: Vec<(String, Entry)> = Vec::new();
    let mut first: Vec<(String, usize)> = Vec::new();
    let mut gone: Vec<usize> = Vec::new();
    for i in updaters {
        if left <= MAX_UPDATE_MANAGERS {
            break;
        }
        let version = entries[i].api_version.clone();
        let Some(at) = first.iter().position(|(v, _)| *v == version) else {
            first.push((version, i));
            continue;
        };
        if !buckets.iter().any(|(v, _)| *v == version) {
            let oldest = first[at].1;
            let bucket = Entry { manager: OLD_UPDATES.into(), subresource: String::new(), ..entries[oldest].clone() };
            buckets.push((version.clone(), bucket));
            gone.push(oldest);
        }
        for (_, bucket) in buckets.iter_mut().filter(|(v, _)| *v == version) {
            bucket.set = std::mem::take(&mut bucket.set).union(&entries[i].set);
            bucket.time = entries[i].time;
        }
        gone.push(i);
        left -= 1;
    }
    let mut index = 0;
    entries.retain(|_| {
        index += 1;
        !gone.contains(&(index - 1))
    });
    for (_, bucket) in buckets {
        let same = |e: &&mut Entry| {
            e.manager == OLD_UPDATES
                && e.operation == Operation::Update
                && e.api_version == bucket.api_version
                && e.subresource.is_empty()
        };
        match entries.iter_mut().find(same) {
            Some(entry) => {
                entry.set = std::mem::take(&mut entry.set).union(&bucket.set);
                entry.time = bucket.time;
            }
            None => entries.push(bucket),
        }
    }
}

/// What applying a configuration gives: the object to default, validate and store. `live` is
/// `None` when the object does not exist yet.
pub fn apply(live: Option<&Value>, config: &Value, force: bool, request: &Request<'_>) -> Result<Value, ApplyError> {
    if config.api_version() != request.api_version {
        return Err(ApplyError::BadRequest(format!(
            "Incorrect version specified in apply patch. Specified patch version: {}, expected: {}",
            config.api_version(),
            request.api_version
        )));
    }
    if config.at(&["metadata", "managedFields"]).is_some_and(|m| !m.is_null()) {
        return Err(ApplyError::BadRequest("metadata.managedFields must be nil".into()));
    }
    let mut entries = decode(live.and_then(|l| l.at(&["metadata", "managedFields"])))
        .map_err(|e| ApplyError::Invalid(format!("failed to decode managed fields: {e}")))?;
    let empty = fieldset::zero(request.ty);
    let base = live.map_or_else(|| empty.clone(), without_managed);
    if entries.is_empty() {
        let whole = Request { subresource: request.subresource, ..*request };
        entries = record(&empty, &base, entries, &whole, BEFORE_FIRST_APPLY);
    }
    match merge_config(&base, config, entries.clone(), force, request) {
        Err(Refusal::Conflicts(conflicts)) => {
            let allowed = allowed_conflicts(&base, request);
            let left: Vec<_> = conflicts.into_iter().filter(|(_, path)| !allowed.has(path)).collect();
            if left.is_empty() {
                return merge_config(&base, config, entries, true, request).map_err(Refusal::into_error);
            }
            Err(Refusal::Conflicts(left).into_error())
        }
        other => other.map_err(Refusal::into_error),
    }
}

/// `kubectl apply --server-side` may take over what client-side apply set before, as long as
/// nobody changed it since.
fn allowed_conflicts(live: &Value, request: &Request<'_>) -> Set {
    let last = (request.manager == "kubectl").then(|| live.annotation(LAST_APPLIED)).flatten();
    let Some(last) = last.and_then(|text| crate::json::parse(text.as_bytes()).ok()) else { return Set::new() };
    if last.api_version() != request.api_version {
        return Set::new();
    }
    let changes = fieldset::compare(&last, live, request.ty);
    fieldset::of(&last, request.ty)
        .difference(&changes.modified)
        .difference(&changes.added)
        .difference(&changes.removed)
}

enum Refusal {
    Conflicts(Vec<(Entry, Vec<PathElement>)>),
    Invalid(String),
}

impl Refusal {
    fn into_error(self) -> ApplyError {
        match self {
            Self::Conflicts(conflicts) => ApplyError::Conflict(Box::new(conflict_status(&conflicts))),
            Self::Invalid(message) => ApplyError::Invalid(message),
        }
    }
}

fn merge_config(
    live: &Value,
    config: &Value,
    mut entries: Vec<Entry>,
    force: bool,
    request: &Request<'_>,
) -> Result<Value, Refusal> {
    let identity = Identity::apply(request.manager, request.subresource);
    let merged = fieldset::merge(live, config, request.ty)
        .map_err(|e| Refusal::Invalid(format!("failed to merge config: {e}")))?;
    let set = fieldset::of(config, request.ty).recursive_difference(request.reset);
    let last = entries.iter().position(|e| identity.is(e)).map(|i| entries.remove(i));
    let mut mine = identity.entry(set, last.as_ref().and_then(|l| l.time));
    mine.api_version = request.api_version.to_owned();
    entries.push(mine);

    let new = match last {
        Some(last) if !last.set.is_empty() => prune(merged, &entries, &last.set, request.ty),
        _ => merged,
    };
    let changes = fieldset::compare(live, &new, request.ty).without(request.reset);
    if !force {
        let changed = changes.modified.clone().union(&changes.added);
        let conflicts: Vec<_> = entries
            .iter()
            .filter(|e| !identity.is(e))
            .flat_map(|e| e.set.intersection(&changed).paths().into_iter().map(|p| (e.clone(), p)))
            .collect();
        if !conflicts.is_empty() {
            return Err(Refusal::Conflicts(conflicts));
        }
    }
    let mut entries = disown(entries, &changes, Some(&identity));
    let unchanged = *live == new;
    for entry in entries.iter_mut().filter(|e| identity.is(e)) {
        entry.set = entry.set.difference(&NEVER_OWNED);
        if !unchanged {
            entry.time = Some(request.now);
        }
    }
    entries.retain(|e| !e.set.is_empty());
    let mut new = new;
    write(&mut new, entries);
    Ok(new)
}

/// Removes what this manager applied before, no longer applies, and nobody else owns.
fn prune(merged: Value, entries: &[Entry], last: &Set, ty: TypeRef<'_>) -> Value {
    let last = last.with_named_fields(ty);
    let pruned = fieldset::remove(&merged, &last, ty);
    let owned = entries.iter().fold(Set::new(), |all, e| all.union(&e.set)).with_named_fields(ty);
    let merged_set = fieldset::of(&merged, ty).with_named_fields(ty);
    // What others own, or this manager still applies, comes back.
    let pruned_set = fieldset::of(&pruned, ty).with_named_fields(ty);
    let pruned = fieldset::remove(&merged, &merged_set.difference(&pruned_set.union(&owned)), ty);
    // What went only because something above it went, comes back too.
    let pruned_set = fieldset::of(&pruned, ty).with_named_fields(ty);
    fieldset::remove(&merged, &merged_set.difference(&pruned_set).intersection(&last), ty)
}

fn conflict_status(conflicts: &[(Entry, Vec<PathElement>)]) -> Status {
    let causes = conflicts
        .iter()
        .map(|(entry, path)| {
            Cause::new("FieldManagerConflict", format!("conflict with {}", show_manager(entry)), path_text(path))
        })
        .collect();
    if let [(entry, path)] = conflicts {
        let message =
            format!("Apply failed with 1 conflict: conflict with {}: {}", show_manager(entry), path_text(path));
        return Status::apply_conflict(causes, message);
    }
    let mut by_manager: Vec<(String, String, Vec<String>)> = Vec::new();
    for (entry, path) in conflicts {
        let id = entry.identifier();
        match by_manager.iter_mut().find(|(known, ..)| *known == id) {
            Some((.., paths)) => paths.push(path_text(path)),
            None => by_manager.push((id, show_manager(entry), vec![path_text(path)])),
        }
    }
    by_manager.sort();
    let mut lines = Vec::new();
    for (_, manager, paths) in by_manager {
        lines.push(format!("conflicts with {manager}:"));
        lines.extend(paths.into_iter().map(|p| format!("- {p}")));
    }
    Status::apply_conflict(causes, format!("Apply failed with {} conflicts: {}", conflicts.len(), lines.join("\n")))
}

fn show_manager(entry: &Entry) -> String {
    let mut text = quote(&entry.manager);
    if !entry.subresource.is_empty() {
        text.push_str(&format!(" with subresource {}", quote(&entry.subresource)));
    }
    if entry.operation == Operation::Update {
        text.push_str(&format!(" using {}", entry.api_version));
    }
    text
}

/// If nothing but times in managedFields differs, gives `new` the old ones: the write is then
/// recognized as none.
pub fn keep_times_if_equal(old: &Value, new: &mut Value) {
    const PATH: &[&str] = &["metadata", "managedFields"];
    let (Some(Value::Array(before)), Some(Value::Array(after))) = (old.at(PATH), new.at(PATH)) else { return };
    let timeless = |entry: &Value| {
        let mut entry = entry.clone();
        entry.remove_at(&["time"]);
        entry
    };
    // Entries are sorted by time, so the same ones may stand in another order.
    let matches =
        before.len() == after.len() && after.iter().all(|a| before.iter().any(|b| timeless(a) == timeless(b)));
    if matches {
        let before = before.clone();
        let rest_equal = {
            let (mut a, mut b) = (old.clone(), new.clone());
            a.remove_at(PATH);
            b.remove_at(PATH);
            a == b
        };
        if rest_equal {
            new.set_at(PATH, Value::Array(before));
        }
    }
}

#[cfg(test)]
mod tests;
