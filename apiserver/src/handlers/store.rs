//! The generic store: what happens to an object between decoding and the answer, once for all
//! kinds (upstream's `registry/generic/registry/store.go` with `rest.BeforeCreate` and
//! `rest.BeforeUpdate`).

use std::borrow::Cow;
use std::sync::Arc;

use api::canonical::Empty;
use apimachinery::gvk::GroupKind;
use apimachinery::managed;
use apimachinery::object::ObjectExt as _;
use apimachinery::status::{Status, reason};
use apimachinery::{field, random};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::managers::track;
use super::{errors, owner_references, scale};
use crate::admission::review::{RequestOptions, Review};
use crate::admission::{Attributes, Operation};
use crate::cache::raw;
use crate::cache::{CreateOptions, Entry, Error, Freshness};
use crate::registry::hooks::{HookContext, Reservation};
use crate::registry::rules::{GenerationRule, StatusRule, StatusUpdate};
use crate::registry::{Served, checks, disabled};
use crate::request::Layer;
use crate::request::options::WriteOptions;
use crate::server::walk::Context;

/// How often a generated name that is taken is replaced by another.
const NAME_ATTEMPTS: usize = 8;

/// How often a write that lost a race is tried again before the client is told.
const RACE_ATTEMPTS: usize = 64;

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

/// Creates an object that was decoded and defaulted, in the served version.
///
/// # Errors
/// What admission, validation, allocation and the store have against it.
pub async fn create(
    cx: &mut Context,
    served: &Arc<Served>,
    object: Value,
    options: &WriteOptions,
    manager: Option<&str>,
) -> Result<Written, Status> {
    let mut reserved = None;
    let written = create_with(cx, served, &mut reserved, object, options, manager).await;
    give_back(reserved).await;
    written
}

async fn create_with(
    cx: &mut Context,
    served: &Arc<Served>,
    reserved: Reserved<'_>,
    mut object: Value,
    options: &WriteOptions,
    manager: Option<&str>,
) -> Result<Written, Status> {
    wipe(&mut object);
    place(cx, served, &mut object)?;
    let empty = take_empty(served, &mut object);
    if let Some(manager) = manager {
        track(cx, served, "", manager, None, &mut object);
    }
    let mut object = served.to_storage(object);
    let attributes = Attributes {
        operation: Operation::Create,
        served,
        subresource: "",
        namespace: object.namespace().to_string(),
        name: object.name().to_string(),
        user: &cx.user,
        dry_run: options.dry_run,
        warnings: Mutex::default(),
        review: Review::of(RequestOptions::Write("CreateOptions", options)),
    };
    if served.custom().is_some_and(|custom| custom.terminating) {
        return Err(Status::forbidden(
            &served.group_resource(),
            object.name(),
            "create not allowed while custom resource definition is terminating",
        ));
    }
    let admission = &cx.server.admission;
    admission.mutate(cx, &attributes, &mut object, None).await?;
    // A webhook cannot move an object elsewhere.
    place(cx, served, &mut object)?;
    owner_references::dedup(&cx.warnings, &mut object, true);
    let hooks = served.rules.hooks;
    let hook = HookContext {
        server: &cx.server,
        user: &cx.user,
        subresource: "",
        dry_run: options.dry_run,
        warnings: Mutex::default(),
    };
    hooks.permit(&hook, &object, None).await?;
    let generated = object.name().is_empty() && !object.generate_name().is_empty();
    let base = object.generate_name().to_string();
    object.set_creation_timestamp(&cx.server.timestamp());
    object.set_uid(&uuid::Uuid::new_v4().to_string());
    if generated {
        object.set_name(&random::generate_name(&base));
    }
    *reserved = hooks.reserve(&hook, &mut object, None).await?;
    match served.rules.status {
        StatusRule::Reset => object.set_at(&["status"], json!({})),
        StatusRule::Removed => {
            object.remove_at(&["status"]);
        }
        StatusRule::Plain | StatusRule::KeepOnUpdate => {}
    }
    match served.rules.generation {
        // A kind that counts no generations keeps what it was given.
        GenerationRule::None | GenerationRule::FieldsFromZero(_) => {}
        _ => object.set_generation(1),
    }
    if served.resource.plural == "pods" && served.resource.group.is_empty() {
        object.set_generation(1);
    }
    disabled::drop(&cx.server.features, &served.storage, &mut object, None);
    hooks.prepare_create(&hook, &mut object);
    cx.warnings.append(&mut hook.warnings.lock());
    finish(served, &mut object);
    let mut errors = hooks.refuse(&hook, &object, None);
    errors.extend(checks::create(served, &as_given(&object, &empty)));
    if !errors.is_empty() {
        return Err(invalid(served, &object, object.name(), &errors));
    }
    let mut warnings = checks::warnings(&served.storage, "", &object, None);
    warnings.append(&mut hooks.warnings(&object, None));
    read_back(served, &mut object, false);
    admission.validate(cx, &attributes, &object, None).await?;
    cx.warnings.extend(warnings);
    let ttl = hooks.ttl(&cx.server);
    let group_resource = served.group_resource();
    let cache = served.cache.clone().ok_or_else(super::method_not_allowed)?;
    let mut attempts = 0;
    loop {
        let name = object.name().to_string();
        let key = served.key(object.namespace(), &name);
        let result = if options.dry_run {
            match cache.get(&key, Freshness::Consistent).await {
                Ok(None) => {
                    let object = served.from_storage(object);
                    return Ok(Written::Object { object, created: true });
                }
                Ok(Some(_)) => Err(Error::Exists { key }),
                Err(error) => Err(error),
            }
        } else {
            let _timing = cx.latencies.begin(Layer::Storage);
            match served.custom() {
                None => {
                    cache.create_as(&key, &object, CreateOptions { ttl }, cx.texts.as_deref().unwrap_or_default()).await
                }
                Some(_) => cache.create(&key, served.write(object.clone()).await?, CreateOptions { ttl }).await,
            }
        };
        match result {
            Ok(entry) => {
                keep(reserved);
                served.wrote(&entry);
                return Ok(Written::Stored { entry, created: true });
            }
            Err(Error::Exists { .. }) if generated => {
                attempts += 1;
                // What was allocated is in the name of the first attempt.
                if attempts >= NAME_ATTEMPTS || reserved.is_some() {
                    return Err(Status::generate_name_conflict(&group_resource, &name, 1));
                }
                object.set_name(&random::generate_name(&base));
            }
            Err(Error::Exists { key }) => {
                let mut status = if base.is_empty() {
                    Status::already_exists(&group_resource, &name)
                } else {
                    Status::generate_name_conflict(&group_resource, &name, 1)
                };
                // Upstream's clients wait for a deletion that they read of here.
                let holder = cache.get(&key, Freshness::Consistent).await.ok().flatten();
                if holder.is_some_and(|entry| entry.tree().deletion_timestamp().is_some()) {
                    status.message = format!("object is being deleted: {}", status.message);
                }
                return Err(status);
            }
            Err(error) => return Err(errors::of_object(error, &group_resource, &name)),
        }
    }
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

/// The data of a ControllerRevision are immutable in their text, which is what errors show.
fn immutable_text(cx: &Context, new: &Value, old: &Value, changed: bool, errors: &mut field::ErrorList) {
    if changed && new["data"] == old["data"] {
        errors.push(field::invalid(&field::Path::new("data"), &new["data"], "field is immutable"));
    }
    let Some(text) = cx.texts.as_ref().and_then(|texts| texts.first()) else { return };
    for error in errors.0.iter_mut().filter(|error| error.field == "data") {
        error.bad_value = field::BadValue::Raw(raw::compact(text));
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

/// What an update is made of.
pub struct Update<'a> {
    pub subresource: &'a str,
    pub name: &'a str,
    pub options: &'a WriteOptions,
    /// Books ownership for this manager; `None` when the change did so itself (apply).
    pub manager: Option<String>,
    /// A lost race is tried again even though the object carries a resource version, because it
    /// was derived from the current object (patches).
    pub derived: bool,
}

/// Makes the new object from the current one; both in the served version. `None` is a create.
pub type Change<'a> = &'a (dyn Fn(&mut Context, Option<&Value>) -> Result<Value, Status> + Send + Sync);

/// Updates an object.
///
/// # Errors
/// 404, 409, and what admission and validation have against it.
pub async fn update(
    cx: &mut Context,
    served: &Arc<Served>,
    update: &Update<'_>,
    may_create: bool,
    change: Change<'_>,
) -> Result<Written, Status> {
    let group_resource = served.group_resource();
    let cache = served.cache.clone().ok_or_else(super::method_not_allowed)?;
    let namespace = if served.resource.namespaced { cx.info.namespace.clone() } else { String::new() };
    let key = served.key(&namespace, update.name);
    let read_error = |error| errors::of_object(error, &group_resource, update.name);
    for _ in 0..RACE_ATTEMPTS {
        let current = cache.get(&key, Freshness::Consistent).await.map_err(read_error)?;
        let Some(current) = current else {
            if !may_create || !update.subresource.is_empty() {
                return Err(Status::not_found(&group_resource, update.name));
            }
            let warnings = cx.warnings.mark();
            let object = made(cx, served, None, change).await?;
            let created = create(cx, served, object, update.options, update.manager.as_deref()).await;
            match created {
                Err(status) if status.is_already_exists() => {
                    cx.warnings.truncate(warnings);
                    continue;
                }
                other => return other,
            }
        };
        let warnings = cx.warnings.mark();
        let mut reserved = None;
        let attempted = attempt(cx, served, &mut reserved, update, &current, change).await;
        give_back(reserved).await;
        match attempted? {
            Some(written) => return Ok(written),
            None => cx.warnings.truncate(warnings),
        }
    }
    Err(Status::conflict(&group_resource, update.name, errors::MODIFIED))
}

/// Whether versions of this kind are converted by asking somebody.
fn needs_webhook(served: &Served) -> bool {
    served.custom().is_some_and(|custom| custom.definition.webhook.is_some())
}

/// What a change makes of an object, once everything is converted that it wants to see.
async fn made(cx: &mut Context, served: &Served, old: Option<&Value>, change: Change<'_>) -> Result<Value, Status> {
    loop {
        let warnings = cx.warnings.mark();
        let new = change(cx, old);
        if !cx.conversions.make(cx, served).await {
            return new;
        }
        cx.warnings.truncate(warnings);
    }
}

/// One try; `None` when somebody else wrote in between and it is worth another.
async fn attempt(
    cx: &mut Context,
    served: &Arc<Served>,
    reserved: Reserved<'_>,
    update: &Update<'_>,
    current: &Arc<Entry>,
    change: Change<'_>,
) -> Result<Option<Written>, Status> {
    let group_resource = served.group_resource();
    let name = update.name;
    let old_stored = served.read(current).await?;
    let places = raw::places(&served.storage.group, &served.storage.plural);
    if !places.is_empty() {
        cx.stored_texts = raw::texts(current.json(), places);
    }
    let converted = (!served.is_storage_version()).then(|| served.from_storage(old_stored.clone()));
    let old = converted.as_ref().unwrap_or(&old_stored);
    let mut new = made(cx, served, Some(old), change).await?;
    place(cx, served, &mut new)?;
    let empty = take_empty(served, &mut new);
    // What a client puts names the object it means; what a patch made of the uid is for validation.
    if update.manager.is_some() {
        same_uid(served, new.uid(), old)?;
    }
    if let Some(manager) = &update.manager {
        loop {
            let given = needs_webhook(served).then(|| new.clone());
            track(cx, served, update.subresource, manager, Some(old), &mut new);
            match given {
                // Once more, with what was converted meanwhile.
                Some(given) if cx.conversions.make(cx, served).await => new = given,
                _ => break,
            }
        }
    }
    let mut new = served.to_storage(new);
    let attributes = Attributes {
        operation: Operation::Update,
        served,
        subresource: update.subresource,
        namespace: old.namespace().to_string(),
        name: name.to_string(),
        user: &cx.user,
        dry_run: update.options.dry_run,
        warnings: Mutex::default(),
        review: Review::of(RequestOptions::Write("UpdateOptions", update.options)),
    };
    let admission = &cx.server.admission;
    match update.subresource {
        // The Binding was admitted as it came.
        "binding" => {}
        "scale" => scale::mutate(cx, &attributes, &mut new, &old_stored).await?,
        _ => admission.mutate(cx, &attributes, &mut new, Some(&old_stored)).await?,
    }
    place(cx, served, &mut new)?;
    owner_references::dedup(&cx.warnings, &mut new, true);
    let hooks = served.rules.hooks;
    let hook = HookContext {
        server: &cx.server,
        user: &cx.user,
        // A scale is an update of the resource itself.
        subresource: if update.subresource == "scale" { "" } else { update.subresource },
        dry_run: update.options.dry_run,
        warnings: Mutex::default(),
    };
    hooks.permit(&hook, &new, Some(&old_stored)).await?;
    let version = new.resource_version().to_string();
    let unconditional = version.is_empty() || version == "0";
    if unconditional {
        if !served.rules.unconditional_update {
            let mut errors = field::ErrorList::new();
            errors.push(field::invalid(
                &field::Path::new("metadata").child("resourceVersion"),
                field::BadValue::Raw("0".to_string()),
                "must be specified for an update",
            ));
            // Here upstream names the resource where it names the kind elsewhere.
            let kind = GroupKind::new(served.resource.group.to_string(), served.resource.plural.to_string());
            return Err(Status::invalid(&kind, name, &errors));
        }
    } else if let Err(error) = version.parse::<u64>() {
        let why = if matches!(error.kind(), std::num::IntErrorKind::PosOverflow) {
            "value out of range"
        } else {
            "invalid syntax"
        };
        let text = format!("strconv.ParseUint: parsing {version:?}: {why}");
        return Err(Status::failure(500, reason::UNKNOWN, text));
    } else if version != old.resource_version() {
        return Err(Status::conflict(&group_resource, name, errors::MODIFIED));
    }
    new.set_resource_version(old.resource_version());
    *reserved = hooks.reserve(&hook, &mut new, Some(&old_stored)).await?;
    let other_texts = texts_changed(cx, served, &new);
    before_update(served, &hook, &mut new, &old_stored, other_texts);
    finish(served, &mut new);
    managed::keep_times_if_equal(&old_stored, &mut new);
    let mut forgiven = Vec::new();
    let mut errors = hooks.refuse(&hook, &new, Some(&old_stored));
    let given = as_given(&new, &empty);
    errors.extend(checks::update(served, update.subresource, &given, &old_stored, &mut forgiven));
    drop(given);
    if served.storage.kind == "ControllerRevision" {
        immutable_text(cx, &new, &old_stored, other_texts, &mut errors);
    }
    if !errors.is_empty() {
        return Err(invalid(served, &new, name, &errors));
    }
    let mut warnings = checks::warnings(&served.storage, update.subresource, &new, Some(&old_stored));
    warnings.append(&mut hooks.warnings(&new, Some(&old_stored)));
    read_back(served, &mut new, update.options.dry_run);
    match update.subresource {
        "binding" => {}
        "scale" => scale::validate(cx, &attributes, &new, &old_stored).await?,
        _ => admission.validate(cx, &attributes, &new, Some(&old_stored)).await?,
    }
    cx.warnings.extend(forgiven);
    cx.warnings.extend(warnings);
    if update.options.dry_run {
        let object = served.from_storage(new);
        return Ok(Some(Written::Object { object, created: false }));
    }
    let cache = served.cache.as_ref().ok_or_else(super::method_not_allowed)?;
    let lost = unconditional || update.derived;
    if deleted_by_update(served, &new, &old_stored) {
        // The last finalizer went: this update is the deletion.
        let timing = cx.latencies.begin(Layer::Storage);
        let deleted = cache.delete(current).await;
        drop(timing);
        return match deleted {
            Ok(revision) => {
                keep(reserved);
                hooks.deleted(&hook, &new).await;
                let mut object = served.from_storage(new);
                object.set_resource_version(&revision.to_string());
                Ok(Some(Written::Object { object, created: false }))
            }
            Err(Error::Conflict { .. } | Error::NotFound { .. }) if lost => Ok(None),
            Err(error) => Err(errors::of_object(error, &group_resource, name)),
        };
    }
    let ttl = hooks.ttl(&cx.server);
    let new = served.write(new).await?;
    let timing = cx.latencies.begin(Layer::Storage);
    let updated = cache.update_as(current, new, CreateOptions { ttl }, cx.texts.as_deref()).await;
    drop(timing);
    match updated {
        Ok(entry) => {
            keep(reserved);
            served.wrote(&entry);
            Ok(Some(Written::Stored { entry, created: false }))
        }
        Err(Error::Conflict { .. } | Error::NotFound { .. }) if lost => Ok(None),
        Err(error) => Err(errors::of_object(error, &group_resource, name)),
    }
}

/// Refuses an object that says it is another one of the same name.
///
/// # Errors
/// 409 in the words of upstream's store.
pub fn same_uid(served: &Served, uid: &str, old: &Value) -> Result<(), Status> {
    if uid.is_empty() || uid == old.uid() {
        return Ok(());
    }
    let key = served.key(old.namespace(), old.name());
    Err(Status::conflict(
        &served.group_resource(),
        old.name(),
        format!(
            "StorageError: invalid object, Code: 4, Key: {key}, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
            old.uid()
        ),
    ))
}

/// What every update keeps of the old object, and the kind's own rules.
fn before_update(served: &Served, hook: &HookContext<'_>, new: &mut Value, old: &Value, other_texts: bool) {
    // Upstream writes a binding past the strategy.
    if hook.subresource == "binding" {
        return;
    }
    let rules = &served.rules;
    let take = |new: &mut Value, path: &[&str]| match old.at(path).cloned() {
        Some(value) => new.set_at(path, value),
        None => {
            new.remove_at(path);
        }
    };
    take(new, &["metadata", "generation"]);
    match hook.subresource {
        "" if rules.status != StatusRule::Plain => take(new, &["status"]),
        "status" => {
            take(new, &["spec"]);
            for field in ["webhooks", "template", "data"] {
                if old.get(field).is_some() {
                    take(new, &[field]);
                }
            }
            match rules.status_update {
                StatusUpdate::KeepSpec => {}
                StatusUpdate::KeepSpecAndLabels => take(new, &["metadata", "labels"]),
                StatusUpdate::ResetMetadata => {
                    let managed = new.at(&["metadata", "managedFields"]).cloned();
                    take(new, &["metadata"]);
                    if let Some(managed) = managed {
                        new.set_at(&["metadata", "managedFields"], managed);
                    }
                }
            }
        }
        _ => {}
    }
    if hook.subresource.is_empty() {
        let changed = match rules.generation {
            GenerationRule::None | GenerationRule::One => false,
            GenerationRule::Fields(fields) | GenerationRule::FieldsFromZero(fields) => {
                other_texts || fields.iter().any(|field| new.get(*field) != old.get(*field))
            }
            GenerationRule::AllAndLabels | GenerationRule::AllButMetadata => {
                let rest = |object: &Value| {
                    let mut object = object.clone();
                    object.as_object_mut().map(|map| map.remove("metadata"));
                    object
                };
                let labels = rules.generation == GenerationRule::AllAndLabels && new.labels() != old.labels();
                labels || rest(new) != rest(old)
            }
        };
        if changed {
            new.set_generation(old.generation() + 1);
        }
    }
    disabled::drop(&hook.server.features, &served.storage, new, Some(old));
    rules.hooks.prepare_update(hook, new, old);
    if new.uid().is_empty() {
        new.set_uid(old.uid());
    }
    if old.creation_timestamp().is_some() {
        take(new, &["metadata", "creationTimestamp"]);
    }
    if old.deletion_timestamp().is_some() {
        take(new, &["metadata", "deletionTimestamp"]);
    }
    if old.deletion_grace_period_seconds().is_some() && new.deletion_grace_period_seconds().is_none() {
        take(new, &["metadata", "deletionGracePeriodSeconds"]);
    }
}

/// Whether an object that was being deleted has nothing left that holds it.
fn deleted_by_update(served: &Served, new: &Value, old: &Value) -> bool {
    old.deletion_timestamp().is_some()
        && new.finalizers().next().is_none()
        && old.deletion_grace_period_seconds().unwrap_or_default() == 0
        && !served.rules.hooks.has_other_finalizers(new)
}
