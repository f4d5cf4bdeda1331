//! Server-side apply: one manager's configuration put over the live object.

use super::versions::Changes;
use super::{ApplyError, Entry, Fields, Identity, NEVER_OWNED, PATH, Request, conflict, decode, record, write};
use crate::fieldset::{self, PathElement, Set};
use crate::gvk::GroupVersion;
use crate::object::ObjectExt;
use serde_json::Value;

const BEFORE_FIRST_APPLY: &str = "before-first-apply";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Whose applies take over what client-side apply set.
const KUBECTL: &str = "kubectl";
/// Upstream's bound on the keys and values of all annotations, in bytes.
const MAX_ANNOTATIONS: usize = 256 * 1024;

/// What applying a configuration gives: the object to default, validate and store. `live` is
/// `None` when the object does not exist yet.
///
/// # Errors
/// [`ApplyError`].
pub fn apply(live: Option<&Value>, config: &Value, force: bool, request: &Request<'_>) -> Result<Value, ApplyError> {
    let entries = decode(live.and_then(|l| l.at(PATH)))
        .map_err(|e| ApplyError::Invalid(format!("failed to decode managed fields: {e}")))?;
    if config.api_version() != request.api_version || config.kind() != request.kind {
        return Err(ApplyError::BadRequest(format!("invalid object type: {}", group_version_kind(config))));
    }
    let empty = fieldset::zero(request.ty);
    let base = live.map_or_else(|| empty.clone(), super::without_managed);
    let mut result = match merge(&base, empty, config, entries.clone(), force, request) {
        Err(Refusal::Conflicts(conflicts)) if request.manager == KUBECTL => {
            let allowed = allowed_conflicts(&base, request);
            let left: Vec<_> = conflicts.into_iter().filter(|(_, path)| !allowed.has(path)).collect();
            if left.is_empty() {
                merge(&base, empty, config, entries, true, request)
            } else {
                Err(Refusal::Conflicts(left))
            }
        }
        other => other,
    }
    .map_err(Refusal::into_error)?;
    if request.manager == KUBECTL && result.annotation(LAST_APPLIED).is_some_and(|text| !text.is_empty()) {
        keep_last_applied(&mut result, config);
    }
    Ok(result)
}

/// Go's text of a group, version and kind.
fn group_version_kind(object: &Value) -> String {
    match GroupVersion::parse(object.api_version()) {
        Ok(version) => format!("{}/{}, Kind={}", version.group, version.version, object.kind()),
        Err(_) => "/, Kind=".to_owned(),
    }
}

/// `kubectl apply` without `--server-side` must find the configuration that was applied last.
fn keep_last_applied(object: &mut Value, config: &Value) {
    let mut config = config.clone();
    if let Some(Value::Object(annotations)) = config.pointer_mut("/metadata/annotations") {
        annotations.remove(LAST_APPLIED);
    }
    let text = crate::gotext::json(&config) + "\n";
    let others: usize = object
        .annotations()
        .into_iter()
        .flatten()
        .filter(|(key, _)| *key != LAST_APPLIED)
        .map(|(key, value)| key.len() + value.as_str().map_or(0, str::len))
        .sum();
    if others + LAST_APPLIED.len() + text.len() > MAX_ANNOTATIONS {
        if let Some(Value::Object(annotations)) = object.pointer_mut("/metadata/annotations") {
            annotations.remove(LAST_APPLIED);
        }
    } else {
        object.set_annotation(LAST_APPLIED, &text);
    }
}

/// `kubectl apply --server-side` may take over what client-side apply set before, as long as
/// nobody changed it since.
fn allowed_conflicts(live: &Value, request: &Request<'_>) -> Set {
    let Some(last) = live.annotation(LAST_APPLIED).and_then(|text| crate::json::parse(text.as_bytes()).ok()) else {
        return Set::new();
    };
    if last.api_version() != request.api_version || fieldset::validate(&last, request.ty, false).is_err() {
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
    BadRequest(String),
    Invalid(String),
}

impl Refusal {
    fn into_error(self) -> ApplyError {
        match self {
            Self::Conflicts(conflicts) => ApplyError::Conflict(Box::new(conflict::status(&conflicts))),
            Self::BadRequest(message) => ApplyError::BadRequest(message),
            Self::Invalid(message) => ApplyError::Invalid(message),
        }
    }
}

impl From<String> for Refusal {
    fn from(message: String) -> Self {
        Self::Invalid(message)
    }
}

fn merge(
    live: &Value,
    empty: &Value,
    config: &Value,
    mut entries: Vec<Entry>,
    force: bool,
    request: &Request<'_>,
) -> Result<Value, Refusal> {
    if entries.is_empty() {
        entries = record(empty, live, entries, request, BEFORE_FIRST_APPLY)
            .map_err(|error| format!("failed to create manager for existing fields: {error}"))?;
    }
    if config.at(PATH).is_some_and(|managed| !managed.is_null()) {
        return Err(Refusal::BadRequest("metadata.managedFields must be nil".into()));
    }
    fieldset::validate(config, request.ty, false).map_err(|error| {
        let object = format!("{}/{}; {}", config.namespace(), config.name(), group_version_kind(config));
        format!("failed to create typed patch object ({object}): {error}")
    })?;
    reconcile(&mut entries, request);
    let identity = Identity::apply(request.manager, request.subresource);
    let merged =
        fieldset::merge(live, config, request.ty).map_err(|error| format!("failed to merge config: {error}"))?;
    let set = request.reset.apply(fieldset::of(config, request.ty));
    let last = entries.iter().position(|e| identity.is(e)).map(|i| entries.remove(i));
    let mut mine = identity.entry(set, last.as_ref().and_then(|l| l.time));
    mine.api_version = request.api_version.to_owned();
    entries.push(mine);

    let new = match last {
        Some(last) if !last.fields.is_empty() => {
            prune(merged, &entries, &last, request).map_err(|error| format!("failed to prune fields: {error}"))?
        }
        _ => merged,
    };
    let mut changes = Changes::new(live, &new, request);
    let mut kept = Vec::with_capacity(entries.len());
    let mut conflicts = Vec::new();
    for mut entry in entries {
        if identity.is(&entry) {
            kept.push(entry);
            continue;
        }
        let Some(changed) = changes.in_version(&entry.api_version)? else { continue };
        let set = entry.set();
        if !force {
            let lost = set.intersection(&changed.modified.clone().union(changed.added.clone()));
            conflicts.extend(lost.paths().into_iter().map(|path| (entry.clone(), path)));
        }
        entry.fields.lose(changed);
        if !entry.fields.is_empty() {
            kept.push(entry);
        }
    }
    if !conflicts.is_empty() {
        return Err(Refusal::Conflicts(conflicts));
    }
    let unchanged = *live == new;
    for entry in kept.iter_mut().filter(|e| identity.is(e)) {
        entry.fields = Fields::Set(entry.fields.take().difference(&NEVER_OWNED));
        if !unchanged {
            entry.time = Some(request.now);
        }
    }
    kept.retain(|e| !e.fields.is_empty());
    let mut new = new;
    write(&mut new, kept);
    Ok(new)
}

/// Brings sets that were written under another schema in line with today's, and forgets versions that are
/// not served any more.
fn reconcile(entries: &mut Vec<Entry>, request: &Request<'_>) {
    entries.retain_mut(|entry| {
        let Some(ty) = request.type_of(&entry.api_version) else { return false };
        if let Some(set) = fieldset::reconcile(&entry.set(), ty) {
            entry.fields = Fields::Set(set);
        }
        true
    });
}

/// Removes what this manager applied before, no longer applies, and nobody else owns.
fn prune(merged: Value, entries: &[Entry], last: &Entry, request: &Request<'_>) -> Result<Value, String> {
    let Some(ty) = request.type_of(&last.api_version) else { return Ok(merged) };
    let merged = request.view(&merged, &last.api_version)?.into_owned();
    let last_set = last.set().with_named_fields(ty);
    let pruned = fieldset::remove(&merged, &last_set, ty);
    let pruned = add_back_owned(&merged, pruned, &last.api_version, entries, request)?;
    // What went only because something above it went, comes back too.
    let pruned = request.view(&pruned, &last.api_version)?;
    let pruned_set = fieldset::of(&pruned, ty).with_named_fields(ty);
    let merged_set = fieldset::of(&merged, ty).with_named_fields(ty);
    let result = fieldset::remove(&merged, &merged_set.difference(&pruned_set).intersection(&last_set), ty);
    Ok(request.view(&result, request.api_version)?.into_owned())
}

/// What others own, or this manager still applies, comes back: the version that was pruned first, so that
/// what the others need to be converted is there.
fn add_back_owned(
    merged: &Value,
    pruned: Value,
    version: &str,
    entries: &[Entry],
    request: &Request<'_>,
) -> Result<Value, String> {
    let mut versions: Vec<&str> = vec![version];
    for entry in entries {
        if !versions.contains(&entry.api_version.as_str()) {
            versions.push(&entry.api_version);
        }
    }
    let mut merged = merged.clone();
    let mut pruned = pruned;
    for version in versions {
        let owned = entries.iter().filter(|entry| entry.api_version == version);
        let owned = owned.fold(Set::new(), |all, entry| all.union(entry.set()));
        let Some(ty) = request.type_of(version).filter(|_| !owned.is_empty()) else { continue };
        merged = request.view(&merged, version)?.into_owned();
        let here = request.view(&pruned, version)?;
        let merged_set = fieldset::of(&merged, ty).with_named_fields(ty);
        let pruned_set = fieldset::of(&here, ty).with_named_fields(ty);
        let gone = merged_set.difference(&pruned_set.union(owned.with_named_fields(ty)));
        pruned = fieldset::remove(&merged, &gone, ty);
    }
    Ok(pruned)
}
