//! `metadata.managedFields`: who set what, when and how.
//!
//! One engine for both operations, in upstream's order of steps: [`update`] after every create,
//! update and patch, [`apply`] for server-side apply. Reads and writes `metadata.managedFields`
//! of the objects it is given and nothing else, but for the last-applied annotation that an apply by kubectl
//! keeps up to date. Spec: KEP-555.

mod apply;
mod cap;
mod conflict;
mod entry;
mod filter;
mod scale;
mod versions;

pub use apply::apply;
pub use entry::{DecodeError, Entry, Fields, Operation};
pub use filter::{Filter, Step};
pub use scale::ScaleFields;
pub use versions::{OneVersion, Versions};

use crate::fieldset::{self, Set};
use crate::object::ObjectExt;
use crate::schema::TypeRef;
use crate::status::Status;
use crate::time::Timestamp;
use entry::{Identity, decode, encode, stored};
use serde_json::{Map, Value};
use std::sync::LazyLock;
use versions::Changes;

/// Where managed fields stand in an object.
pub const PATH: &[&str] = &["metadata", "managedFields"];

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
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// `fieldManager`, or [`manager_from_user_agent`].
    pub manager: &'a str,
    /// The group version of the request.
    pub api_version: &'a str,
    /// The kind of the request's object.
    pub kind: &'a str,
    /// `status`, `scale`, …, or empty.
    pub subresource: &'a str,
    pub ty: TypeRef<'a>,
    /// What this endpoint resets and therefore gives nobody: the strategy's reset fields.
    pub reset: &'a Filter,
    /// The kind's other versions.
    pub versions: &'a dyn Versions,
    pub now: Timestamp,
}

/// Why an apply was refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ApplyError {
    /// Others own what would change; the Status says who owns what.
    #[error("{0}")]
    Conflict(Box<Status>),
    /// The configuration carries managedFields itself, or is of another version or kind.
    #[error("{0}")]
    BadRequest(String),
    /// The configuration does not fit the type, or the object's managedFields are unreadable: 500 without
    /// a reason.
    #[error("{0}")]
    Invalid(String),
}

/// The longest field manager, in bytes.
const MAX_MANAGER: usize = 128;

/// The manager when the request names none: the printable part of the user agent up to its first
/// slash, at most 128 bytes.
pub fn manager_from_user_agent(user_agent: &str) -> String {
    let head = user_agent.split('/').next().unwrap_or_default();
    let mut out = String::new();
    for c in head.chars().filter(|c| crate::gotext::is_print(*c)) {
        if out.len() + c.len_utf8() > MAX_MANAGER {
            break;
        }
        out.push(c);
    }
    out
}

/// Sets the managedFields of `new`, which replaces `old` (`None` on create), both in the request's
/// version and canonical form. Never fails: unreadable managedFields are dropped.
pub fn update(old: Option<&Value>, new: &mut Value, request: &Request<'_>) {
    let live = old.and_then(|o| o.at(PATH));
    let sent = new.remove_at(PATH);
    let sent = sent.as_ref().filter(|sent| request.subresource.is_empty() && !sent.is_null());
    let entries = if sent.is_none() || sent == live {
        stored(live).unwrap_or_default()
    } else if is_reset(sent) {
        Vec::new()
    } else {
        match decode(sent) {
            Ok(entries) if !entries.is_empty() => entries,
            _ => stored(live).unwrap_or_default(),
        }
    };
    // An object that existed before anybody tracked fields stays untracked until it is applied.
    if entries.is_empty() && old.is_some_and(|o| !o.uid().is_empty()) {
        return;
    }
    let recorded = match old {
        Some(old) => record(old, new, entries, request, request.manager),
        None => record(fieldset::zero(request.ty), new, entries, request, request.manager),
    };
    // What cannot be compared is owned by nobody, as upstream leaves it.
    let mut entries = recorded.unwrap_or_default();
    cap::cap(&mut entries);
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
    object.remove_at(PATH);
    object
}

fn write(object: &mut Value, entries: Vec<Entry>) {
    if entries.is_empty() {
        object.remove_at(PATH);
    } else {
        object.set_at(PATH, encode(entries));
    }
}

/// An update by `manager`: it gains what it added and changed, everyone loses what was changed or
/// removed. Entries that did not change keep their time; those of versions that are not served any more go.
fn record(
    old: &Value,
    new: &Value,
    entries: Vec<Entry>,
    request: &Request<'_>,
    manager: &str,
) -> Result<Vec<Entry>, String> {
    let identity = Identity::update(manager, request.api_version, request.subresource);
    let mut changes = Changes::new(old, new, request);
    let own = changes.own();
    if own.unidentified {
        return Err("an item of a list has no key".to_owned());
    }
    if entries.is_empty() {
        // Nobody loses anything: a new object, as a rule.
        let own = changes.into_own();
        let mine = own.modified.union(own.added).difference(&NEVER_OWNED);
        return Ok(if mine.is_empty() { entries } else { vec![identity.entry(mine, Some(request.now))] });
    }
    let mine = own.modified.clone().union(own.added.clone()).difference(&NEVER_OWNED);
    let mut kept = Vec::with_capacity(entries.len() + 1);
    let mut found = false;
    for mut entry in entries {
        let Some(changed) = changes.in_version(&entry.api_version)? else { continue };
        if identity.is(&entry) {
            found = true;
            if entry.fields.intersects(&changed.removed) || !entry.fields.contains(&mine) {
                let set = entry.fields.take().difference(&changed.removed);
                let set = set.difference(&changed.modified).difference(&changed.added).union(mine.clone());
                entry.fields = Fields::Set(set);
            }
            if !mine.is_empty() {
                entry.time = Some(request.now);
            }
        } else {
            entry.fields.lose(changed);
        }
        if !entry.fields.is_empty() {
            kept.push(entry);
        }
    }
    if !found && !mine.is_empty() {
        kept.push(identity.entry(mine, Some(request.now)));
    }
    Ok(kept)
}

/// If nothing but times in managedFields differs, gives `new` the old ones: the write is then
/// recognized as none.
pub fn keep_times_if_equal(old: &Value, new: &mut Value) {
    let (Some(Value::Array(before)), Some(Value::Array(after))) = (old.at(PATH), new.at(PATH)) else { return };
    let timeless = |a: &Value, b: &Value| match (a, b) {
        (Value::Object(a), Value::Object(b)) => equal_but_for("time", a, b),
        _ => a == b,
    };
    // Entries are sorted by time, so the same ones may stand in another order.
    let matches = before.len() == after.len() && after.iter().all(|a| before.iter().any(|b| timeless(a, b)));
    if matches && before != after && equal_but_for_managed(old, new) {
        let before = before.clone();
        new.set_at(PATH, Value::Array(before));
    }
}

/// Whether two maps differ in nothing but one key, which either may lack.
fn equal_but_for(but: &str, a: &Map<String, Value>, b: &Map<String, Value>) -> bool {
    let others = |map: &Map<String, Value>| map.len() - usize::from(map.contains_key(but));
    others(a) == others(b) && a.iter().all(|(key, value)| key == but || b.get(key) == Some(value))
}

/// Whether two objects differ in nothing but who owns what.
pub fn equal_but_for_managed(a: &Value, b: &Value) -> bool {
    let (Value::Object(a), Value::Object(b)) = (a, b) else { return false };
    let metadata = |x: Option<&Value>, y: Option<&Value>| match (x, y) {
        (Some(Value::Object(x)), Some(Value::Object(y))) => equal_but_for("managedFields", x, y),
        _ => false,
    };
    a.len() == b.len()
        && a.iter().all(|(key, value)| match key.as_str() {
            "metadata" => metadata(Some(value), b.get(key)),
            _ => b.get(key) == Some(value),
        })
}

#[cfg(test)]
mod tests;
