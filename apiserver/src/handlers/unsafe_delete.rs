//! Deletion of objects that cannot be read any more (KEP-3926): past admission, finalizers and everything else.
//!
//! Behind the gate `AllowUnsafeMalformedObjectDeletion`, for whoever may `unsafe-delete-ignore-read-errors`. Upstream's
//! counterpart is `registry/generic/registry/corrupt_obj_deleter.go`.

use std::sync::Arc;

use apimachinery::field::{self, ErrorList, Path};
use apimachinery::gvk::GroupKind;
use apimachinery::status::{Details, Status};

use super::errors;
use crate::authorization::{self, Decision};
use crate::cache::Corruption;
use crate::config::features;
use crate::registry::Served;
use crate::request::Layer;
use crate::request::notes::Annotation;
use crate::request::options::DeleteOptions;
use crate::server::walk::Context;

/// The option's name.
const OPTION: &str = "ignoreStoreReadErrorWithClusterBreakingPotential";
/// What a user must be allowed beside `delete`.
const VERB: &str = "unsafe-delete-ignore-read-errors";
/// Upstream's number of this kind of storage error.
const CODE: u32 = 7;

/// Whether the gate is open.
pub fn is_enabled(cx: &Context) -> bool {
    cx.server.features.enabled(features::ALLOW_UNSAFE_MALFORMED_OBJECT_DELETION)
}

/// The option goes with no other; without the gate there is no such option.
///
/// # Errors
/// 422.
pub fn check(cx: &Context, options: &mut DeleteOptions) -> Result<(), Status> {
    if !is_enabled(cx) {
        options.ignore_store_read_error = false;
    }
    if !options.ignore_store_read_error {
        return Ok(());
    }
    let preconditions = options.precondition_uid.is_some() || options.precondition_resource_version.is_some();
    let mut wrong = ErrorList::new();
    for (set, name) in [
        (options.dry_run, "dryRun"),
        (options.propagation.is_some(), "propagationPolicy"),
        (options.orphan_dependents.is_some(), "orphanDependents"),
        (options.grace_period_seconds.is_some(), "gracePeriodSeconds"),
        (preconditions, "preconditions"),
    ] {
        if set {
            wrong.push(field::invalid(&Path::new(OPTION), true, format!("cannot be set together with .{name}")));
        }
    }
    refuse_option(wrong)
}

/// A whole collection is not deleted this way.
///
/// # Errors
/// 422.
pub fn not_a_collection(options: &DeleteOptions) -> Result<(), Status> {
    let mut wrong = ErrorList::new();
    if options.ignore_store_read_error {
        let why = "is not allowed with DELETECOLLECTION, try again after removing the option";
        wrong.push(field::invalid(&Path::new(OPTION), true, why));
    }
    refuse_option(wrong)
}

fn refuse_option(wrong: ErrorList) -> Result<(), Status> {
    match wrong.is_empty() {
        true => Ok(()),
        false => Err(Status::invalid(&GroupKind::new("meta.k8s.io", "DeleteOptions"), "", &wrong)),
    }
}

/// Deletes an object that cannot be read, and only such a one.
///
/// # Errors
/// 403 for who may not, 422 for an object with which nothing is wrong.
pub async fn handle(cx: &Context, served: &Arc<Served>, namespace: &str, name: &str) -> Result<(), Status> {
    let annotation = Annotation { value: String::new(), detailed: false };
    cx.annotations.add("apiserver.k8s.io/unsafe-delete-ignore-read-error", annotation);
    authorize(cx, served, name).await?;
    let resource = served.group_resource();
    let cache = served.cache.as_ref().ok_or_else(super::method_not_allowed)?;
    let key = served.key(namespace, name);
    let found = cache.corruption(&key).await.map_err(errors::of_read)?;
    let Some(found) = found else {
        let mut wrong = ErrorList::new();
        let why = "is exclusively used to delete corrupt object(s), try again by removing this option";
        wrong.push(field::invalid(&Path::new(OPTION), true, why));
        return Err(Status::invalid(&GroupKind::new(resource.group, resource.resource), name, &wrong));
    };
    tracing::warn!(key, why = found.why, user = cx.user.name, "an object that cannot be read is deleted");
    let _timing = cx.latencies.begin(Layer::Storage);
    match cache.discard(&key, &found).await {
        // Somebody else was quicker.
        Err(crate::cache::Error::NotFound { .. }) => Ok(()),
        other => other.map_err(|error| errors::of_object(error, &resource, name)),
    }
}

async fn authorize(cx: &Context, served: &Served, name: &str) -> Result<(), Status> {
    let mut attributes = authorization::Attributes::of(&cx.user, &cx.info, &cx.query);
    attributes.verb = VERB.to_string();
    let reason = match cx.server.authorizer.decide(&attributes).await {
        Decision::Allow(_) => return Ok(()),
        Decision::Deny(reason) | Decision::NoOpinion(reason) => reason,
    };
    let why = format!("not permitted to do {VERB:?}, reason: {reason}");
    Err(Status::forbidden(&served.group_resource(), name, why))
}

/// What a read of this object is answered.
pub fn unreadable(key: &str, found: &Corruption) -> Status {
    let kind = if found.transform { "data from the storage is not transformable" } else { "object not decodable" };
    let revision = if found.transform { 0 } else { found.revision };
    let inner = format!("{kind} revision={revision}: {}", found.why);
    Status::internal(format!(
        "StorageError: corrupt object, Code: {CODE}, Key: {key}, ResourceVersion: 0, AdditionalErrorMsg: {inner}"
    ))
}

/// What a deletion is answered, of which no object is left to show.
pub fn deleted(served: &Served, name: &str) -> Status {
    let kind = served.resource.kind.to_string();
    let mut status = Status::success(Some(Details { name: name.to_string(), kind, ..Details::default() }));
    status.code = 200;
    status
}
