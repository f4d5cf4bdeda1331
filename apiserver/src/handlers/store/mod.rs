//! The generic store: what happens to an object between decoding and the answer, once for all
//! kinds (upstream's `registry/generic/registry/store.go` with `rest.BeforeCreate` and
//! `rest.BeforeUpdate`).

mod create;
mod update;

use std::borrow::Cow;
use std::sync::Arc;

use api::canonical::Empty;
use apimachinery::field;
use apimachinery::gvk::GroupKind;
use apimachinery::object::ObjectExt as _;
use apimachinery::status::Status;
use serde_json::Value;

use crate::cache::{Entry, raw};
use crate::registry::Served;
use crate::registry::hooks::Reservation;
use crate::server::walk::Context;

pub use create::create;
pub use update::{Change, Update, same_uid, update};

/// What a write left behind.
pub enum Written {
    /// Stored; `created` tells an upsert's create from its update.
    Stored { entry: Arc<Entry>, created: bool },
    /// Not stored: a dry run, or an update that ended in deletion. In the served version.
    Object { object: Value, created: bool },
}

impl Written {
    /// The object in the served version.
    ///
    /// # Errors
    /// When what was stored cannot be converted back.
    pub async fn object(&self, served: &Served) -> Result<Value, Status> {
        match self {
            Written::Stored { entry, .. } => Ok(served.from_storage(served.read(entry).await?)),
            Written::Object { object, .. } => Ok(object.clone()),
        }
    }

    /// Whether the object is new.
    pub fn created(&self) -> bool {
        match self {
            Written::Stored { created, .. } | Written::Object { created, .. } => *created,
        }
    }
}

/// Takes an object's namespace from the request, refusing another; without one there it has none.
///
/// # Errors
/// 400 when the object names another namespace.
pub fn place(cx: &Context, served: &Served, object: &mut Value) -> Result<(), Status> {
    let namespace = if served.resource.namespaced { cx.info.namespace.as_str() } else { "" };
    let have = object.namespace().to_string();
    if have.is_empty() {
        if !namespace.is_empty() {
            object.set_namespace(namespace);
        }
    } else if namespace.is_empty() {
        object.remove_at(&["metadata", "namespace"]);
    } else if have != namespace {
        return Err(Status::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    Ok(())
}

/// Takes out what only the server sets.
pub fn wipe(object: &mut Value) {
    for path in ["uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"] {
        object.remove_at(&["metadata", path]);
    }
}

fn invalid(served: &Served, object: &Value, name: &str, errors: &field::ErrorList) -> Status {
    // Upstream names the internal kind, whose group is that of what is stored; custom objects have
    // none, and are named as they name themselves.
    let kind = if served.custom().is_some() { object.kind() } else { &served.storage.kind };
    let kind = GroupKind::new(served.storage.group.to_string(), kind.to_string());
    Status::invalid(&kind, name, errors)
}

/// What was allocated for a write that is not stored yet.
type Reserved<'a> = &'a mut Option<Box<dyn Reservation>>;

fn keep(reserved: Reserved<'_>) {
    if let Some(reservation) = reserved.take() {
        reservation.keep();
    }
}

/// What was allocated for nothing is free again before the client hears of it.
async fn give_back(reserved: Option<Box<dyn Reservation>>) {
    if let Some(reservation) = reserved {
        reservation.give_back().await;
    }
}

/// Whether members whose text is kept ([`raw`]) say what they say in other words: upstream, which has them as bytes,
/// takes them for other ones.
fn texts_changed(cx: &Context, served: &Served, new: &Value) -> bool {
    let places = raw::places(&served.storage.group, &served.storage.plural);
    match &cx.texts {
        Some(given) if !places.is_empty() => raw::chosen(new, places, given) != cx.stored_texts,
        _ => false,
    }
}

/// Takes out the empty lists and maps that are not written; only validation sees them again.
fn take_empty(served: &Served, object: &mut Value) -> Vec<Empty> {
    if served.custom().is_some() { Vec::new() } else { api::canonical::take_empty(served.schema(), object) }
}

/// The object with the empty lists and maps that it came with.
fn as_given<'a>(object: &'a Value, empty: &[Empty]) -> Cow<'a, Value> {
    if empty.is_empty() {
        return Cow::Borrowed(object);
    }
    let mut given = object.clone();
    api::canonical::put_empty(&mut given, empty);
    Cow::Owned(given)
}

/// Brings an object back into canonical form after it was changed on the way.
fn finish(served: &Served, object: &mut Value) {
    if served.custom().is_some() {
        // Nothing but metadata has a form of its own, and that was settled when it was decoded.
        return;
    }
    let (api_version, kind) = (object.api_version().to_string(), object.kind().to_string());
    api::canonicalize(served.storage_schema(), object);
    object.set_api_version(&api_version);
    object.set_kind(&kind);
}

/// What storing an object and reading it back does to it upstream; an update that is only tried is not read
/// back there.
fn read_back(served: &Served, object: &mut Value, tried: bool) {
    if !served.resource.custom {
        api::canonical::null_empty_lists(served.storage_schema(), object);
        if !tried {
            served.rules.hooks.read_back(object);
        }
    }
}
