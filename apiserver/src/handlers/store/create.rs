//! A new object, from its decoded form to the stored one.

use std::sync::Arc;

use apimachinery::object::ObjectExt as _;
use apimachinery::random;
use apimachinery::status::Status;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::{Reserved, Written, as_given, finish, give_back, invalid, keep, place, read_back, take_empty, wipe};
use crate::admission::review::{RequestOptions, Review};
use crate::admission::{Attributes, Operation};
use crate::cache::{CreateOptions, Error, Freshness};
use crate::handlers::managers::track;
use crate::handlers::{errors, method_not_allowed, owner_references};
use crate::registry::hooks::HookContext;
use crate::registry::rules::{GenerationRule, StatusRule};
use crate::registry::{Served, checks, disabled};
use crate::request::Layer;
use crate::request::options::WriteOptions;
use crate::server::walk::Context;

/// How often a generated name that is taken is replaced by another.
const NAME_ATTEMPTS: usize = 8;

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
    let mut attributes = Attributes {
        operation: Operation::Create,
        served,
        subresource: "",
        namespace: object.namespace().to_string(),
        name: object.name().to_string(),
        base: object.generate_name().to_string(),
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
    object.set_uid(&random::uid());
    if generated {
        object.set_name(&hooks.generate_name(&base));
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
    if attributes.name.is_empty() {
        attributes.name = object.name().to_string();
    }
    admission.validate(cx, &attributes, &object, None).await?;
    cx.warnings.extend(warnings);
    let ttl = hooks.ttl(&cx.server);
    let group_resource = served.group_resource();
    let cache = served.cache.clone().ok_or_else(method_not_allowed)?;
    let mut attempts = 0;
    loop {
        let name = object.name().to_string();
        let key = served.key(object.namespace(), &name);
        let result = if options.dry_run {
            match cache.get(&key, Freshness::Consistent).await {
                Ok(None) => {
                    let object = served.dry_run(object).await?;
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
                object.set_name(&hooks.generate_name(&base));
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
