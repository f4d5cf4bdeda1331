//! A change of an object, tried again while others change it too.

use std::sync::Arc;

use apimachinery::gvk::GroupKind;
use apimachinery::object::ObjectExt as _;
use apimachinery::status::{Status, reason};
use apimachinery::{field, managed};
use parking_lot::Mutex;
use serde_json::Value;

use super::{
    Reserved, Written, as_given, create, finish, give_back, invalid, keep, place, read_back, take_empty, texts_changed,
};
use crate::admission::review::{RequestOptions, Review};
use crate::admission::{Attributes, Operation};
use crate::cache::{CreateOptions, Entry, Error, Freshness, raw};
use crate::handlers::managers::track;
use crate::handlers::{errors, method_not_allowed, owner_references, scale};
use crate::registry::hooks::HookContext;
use crate::registry::rules::{GenerationRule, StatusRule, StatusUpdate};
use crate::registry::{Served, checks, disabled};
use crate::request::Layer;
use crate::request::options::WriteOptions;
use crate::server::walk::Context;

/// How often a write that lost a race is tried again before the client is told.
const RACE_ATTEMPTS: usize = 64;

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
    let cache = served.cache.clone().ok_or_else(method_not_allowed)?;
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
        base: String::new(),
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
    // Told even if something else is wrong.
    cx.warnings.extend(forgiven);
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
    cx.warnings.extend(warnings);
    if update.options.dry_run {
        let object = served.dry_run(new).await?;
        return Ok(Some(Written::Object { object, created: false }));
    }
    let cache = served.cache.as_ref().ok_or_else(method_not_allowed)?;
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
                    match managed {
                        Some(managed) => new.set_at(&["metadata", "managedFields"], managed),
                        None => drop(new.remove_at(&["metadata", "managedFields"])),
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

/// Whether an object that was being deleted has nothing left that holds it.
fn deleted_by_update(served: &Served, new: &Value, old: &Value) -> bool {
    old.deletion_timestamp().is_some()
        && new.finalizers().next().is_none()
        && old.deletion_grace_period_seconds().unwrap_or_default() == 0
        && !served.rules.hooks.has_other_finalizers(new)
}
