//! DELETE of one object or of a collection: grace, finalizers, preconditions, propagation.

use std::sync::Arc;

use apimachinery::gvk::{GroupResource, GroupVersionKind};
use apimachinery::object::ObjectExt as _;
use apimachinery::status::{Details, Status};
use axum::body::Body;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use http::StatusCode;
use serde_json::{Value, json};

use super::selection::Selection;
use super::{errors, format, list, namespace, object_answer, table_options, unsafe_delete};
use crate::admission::review::{RequestOptions, Review};
use crate::admission::{Attributes, Operation};
use crate::cache::{CreateOptions, Entry, Error, Freshness};
use crate::codec::body::{self, Expected};
use crate::registry::Served;
use crate::registry::hooks::HookContext;
use crate::request::Layer;
use crate::request::accept::{self, Allowed, Route};
use crate::request::options::{DeleteOptions, FieldValidation, ListOptions, Propagation};
use crate::response::{self, Response};
use crate::server::walk::Context;

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

/// Kinds whose deletion answers the object instead of a Status, upstream's `ReturnDeletedObject`.
const RETURNED: [(&str, &str); 16] = [
    ("", "namespaces"),
    ("", "persistentvolumeclaims"),
    ("", "persistentvolumes"),
    ("", "pods"),
    ("", "podtemplates"),
    ("", "resourcequotas"),
    ("", "serviceaccounts"),
    ("", "services"),
    ("resource.k8s.io", ""),
    ("storage.k8s.io", "csidrivers"),
    ("storage.k8s.io", "csinodes"),
    ("storage.k8s.io", "storageclasses"),
    ("storage.k8s.io", "volumeattachments"),
    ("storage.k8s.io", "volumeattributesclasses"),
    ("apiextensions.k8s.io", ""),
    ("apiregistration.k8s.io", ""),
];

/// Resources whose dependents stay when a client does not say what should become of them: the versions that
/// were there before the garbage collector.
const ORPHANS_BY_DEFAULT: [(&str, &str); 2] = [("", "replicationcontrollers"), ("batch", "jobs")];

/// What upstream says to clients that delete a Job without a propagation policy.
const JOB_WARNING: &str = "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them or set propagationPolicy=Orphan to suppress this warning";

/// Deletes of a collection that are under way at once: as many share one sync of the store.
const WORKERS: usize = 256;

/// What became of an object.
enum Deleted {
    /// It is gone; its last state in the storage version.
    Gone(Value),
    /// It would be gone, after an update that a dry run does not come to: upstream shows an empty object.
    Shown,
    /// It stays until its grace period is over or its finalizers are gone.
    Marked(Value),
}

/// Reads DeleteOptions from body or query.
async fn options(cx: &mut Context, body: Body) -> Result<DeleteOptions, Status> {
    let bytes = body::read(body).await?;
    if bytes.is_empty() {
        return DeleteOptions::parse(&cx.query, None);
    }
    let encoding = accept::body_encoding(&cx.headers, cx.cbor())?;
    let schema = api::table()
        .find_kind("meta.k8s.io", "v1", "DeleteOptions")
        .ok_or_else(|| Status::internal("the table lacks DeleteOptions"))?;
    // Clients send DeleteOptions under any group and version; only the kind says what it is.
    let mut expected = Expected { kind: GroupVersionKind::new("", "v1", "DeleteOptions"), schema, empty: false };
    if matches!(encoding, accept::Encoding::Json | accept::Encoding::Yaml)
        && let Ok(tree) = apimachinery::json::parse(&bytes)
        && tree.kind() == "DeleteOptions"
        && let Ok(version) = apimachinery::gvk::GroupVersion::parse(tree.api_version())
        && !tree.api_version().is_empty()
    {
        expected.kind = GroupVersionKind::new(version.group, version.version, "DeleteOptions");
    }
    let named = match encoding {
        accept::Encoding::Protobuf => {
            crate::codec::protobuf::open(&bytes).ok().map(|(api_version, kind, _)| (api_version, kind))
        }
        accept::Encoding::Cbor => api::cbor::interpret(&bytes).ok(),
        _ => None,
    };
    if let Some((api_version, kind)) = named
        && kind == "DeleteOptions"
        && !api_version.is_empty()
        && let Ok(version) = apimachinery::gvk::GroupVersion::parse(&api_version)
    {
        expected.kind = GroupVersionKind::new(version.group, version.version, "DeleteOptions");
    }
    if encoding == accept::Encoding::Json
        && let Ok(tree) = apimachinery::json::parse(&bytes)
        && !matches!(tree.kind(), "" | "DeleteOptions")
    {
        return Err(Status::bad_request(format!(
            "no kind {:?} is registered for version {:?} in scheme \"k8s.io/apimachinery/pkg/apis/meta/internalversion/scheme/register.go:27\"",
            tree.kind(),
            tree.api_version()
        )));
    }
    let decoded = body::read_as(&bytes, encoding, &expected, FieldValidation::Ignore)
        .map_err(|misread| Status::bad_request(misread.error))?;
    if let Some(record) = &mut cx.record {
        // Upstream records options in its internal version.
        let mut recorded = decoded.object.clone();
        recorded.set_api_version("meta.k8s.io/__internal");
        record.about(&recorded);
    }
    DeleteOptions::parse(&cx.query, Some(&decoded.object))
}

/// Deletes one object.
///
/// # Errors
/// 404, 409 for preconditions, 403 for what admission protects.
pub async fn handle(cx: &mut Context, served: &Arc<Served>, body: Body) -> Result<Response, Status> {
    let format = format(cx, Route::Object, Allowed::Transforms)?;
    let mut options = options(cx, body).await?;
    unsafe_delete::check(cx, &mut options)?;
    warn(cx, served, &options);
    let name = cx.info.name.clone();
    let namespace = namespace(served, cx);
    if options.ignore_store_read_error {
        unsafe_delete::handle(cx, served, &namespace, &name).await?;
        let plain = accept::Format { transform: None, ..format };
        return Ok(response::status(&unsafe_delete::deleted(served, &name), plain));
    }
    let deleted = delete(cx, served, &namespace, &name, &name, &options).await?;
    match deleted {
        Deleted::Gone(object) if !returned(served) => {
            let details = Details {
                name,
                group: served.resource.group.to_string(),
                kind: served.resource.plural.to_string(),
                uid: object.uid().to_string(),
                ..Details::default()
            };
            Ok(response::status(&Status::success(Some(details)), accept::Format { transform: None, ..format }))
        }
        Deleted::Shown => {
            let mut empty = json!({"metadata": {}});
            empty.set_api_version(&served.storage.api_version());
            empty.set_kind(&served.storage.kind);
            object_answer(cx, served, StatusCode::OK, &served.present(empty).await?, format)
        }
        Deleted::Gone(object) => object_answer(cx, served, StatusCode::OK, &served.present(object).await?, format),
        Deleted::Marked(object) => {
            let accepted = options.orphan_dependents == Some(false);
            let code = if accepted { StatusCode::ACCEPTED } else { StatusCode::OK };
            object_answer(cx, served, code, &served.present(object).await?, format)
        }
    }
}

fn warn(cx: &mut Context, served: &Served, options: &DeleteOptions) {
    let is_job = served.resource.group == "batch" && served.resource.plural == "jobs";
    if is_job && options.propagation.is_none() && options.orphan_dependents.is_none() {
        cx.warnings.push(JOB_WARNING.to_string());
    }
}

fn returned(served: &Served) -> bool {
    RETURNED.iter().any(|(group, plural)| {
        served.resource.group == *group && (plural.is_empty() || served.resource.plural == *plural)
    })
}

/// Deletes one object, whatever becomes of it.
///
/// # Errors
/// As [`handle`].
pub async fn one(
    cx: &Context,
    served: &Arc<Served>,
    namespace: &str,
    name: &str,
    options: &DeleteOptions,
) -> Result<(), Status> {
    delete(cx, served, namespace, name, name, options).await.map(|_| ())
}

/// Deletes an object. `asked` is the name that the request has, none when it is about a collection.
async fn delete(
    cx: &Context,
    served: &Arc<Served>,
    namespace: &str,
    name: &str,
    asked: &str,
    options: &DeleteOptions,
) -> Result<Deleted, Status> {
    let group_resource = served.group_resource();
    let cache = served.cache.as_ref().ok_or_else(super::method_not_allowed)?;
    let key = served.key(namespace, name);
    let attributes = Attributes {
        operation: Operation::Delete,
        served,
        subresource: "",
        namespace: namespace.to_string(),
        name: asked.to_string(),
        base: String::new(),
        user: &cx.user,
        dry_run: options.dry_run,
        warnings: parking_lot::Mutex::default(),
        review: Review::of(RequestOptions::Delete(options)),
    };
    let hooks = served.rules.hooks;
    let hook = HookContext {
        server: &cx.server,
        user: &cx.user,
        subresource: "",
        dry_run: options.dry_run,
        warnings: parking_lot::Mutex::default(),
    };
    loop {
        let entry = cache
            .get(&key, Freshness::Consistent)
            .await
            .map_err(|error| errors::of_object(error, &group_resource, name))?
            .ok_or_else(|| Status::not_found(&group_resource, name))?;
        let old = entry.tree();
        preconditions(served, &old, options)?;
        let mut object = old.clone();
        let decision = decide(cx, served, &mut object, options);
        if decision == Decision::AlreadyMarked {
            return Ok(Deleted::Marked(old));
        }
        // Reviews see a custom object in the version of the request.
        let presented = if served.custom().is_some() { Some(served.read(&entry).await?) } else { None };
        let seen = Some(presented.as_ref().unwrap_or(&old));
        cx.server.admission.mutate(cx, &attributes, &mut Value::Null, seen).await?;
        cx.server.admission.validate(cx, &attributes, &Value::Null, seen).await?;
        let result = match decision {
            Decision::AlreadyMarked => return Ok(Deleted::Marked(old)),
            Decision::Mark | Decision::Now if options.dry_run => {
                let changed = !served.rules.graceful && old.finalizers().next().is_some();
                return Ok(match decision {
                    Decision::Mark => Deleted::Marked(object),
                    _ if changed => Deleted::Shown,
                    _ => Deleted::Gone(object),
                });
            }
            Decision::Mark => mark(cx, served, &entry, object).await,
            Decision::Now => remove(cx, served, &entry, object).await,
        };
        match result {
            Ok(deleted) => {
                if let Deleted::Gone(object) = &deleted {
                    hooks.deleted(&hook, object).await;
                }
                return Ok(deleted);
            }
            // Somebody wrote it meanwhile: decide again on what it is now.
            Err(Error::Conflict { .. }) => {}
            Err(error) => return Err(errors::of_object(error, &group_resource, name)),
        }
    }
}

async fn mark(cx: &Context, served: &Served, entry: &Arc<Entry>, object: Value) -> Result<Deleted, Error> {
    let _timing = cx.latencies.begin(Layer::Storage);
    let cache = served.cache.as_ref().expect("what is deleted is stored");
    let entry = cache.update(entry, object, CreateOptions::default()).await?;
    Ok(Deleted::Marked(entry.tree()))
}

async fn remove(cx: &Context, served: &Served, entry: &Arc<Entry>, mut object: Value) -> Result<Deleted, Error> {
    let _timing = cx.latencies.begin(Layer::Storage);
    let cache = served.cache.as_ref().expect("what is deleted is stored");
    cache.delete(entry).await?;
    // The answer shows the object as it last was stored, under that version.
    object.set_resource_version(&entry.revision().to_string());
    Ok(Deleted::Gone(object))
}

/// Kinds whose own deletion looks at the preconditions before the generic one does.
const OWN_PRECONDITIONS: [(&str, &str); 2] =
    [("", "namespaces"), ("apiextensions.k8s.io", "customresourcedefinitions")];

/// Checks what the client says the object must be.
///
/// # Errors
/// 409 in upstream's words.
pub fn preconditions(served: &Served, object: &Value, options: &DeleteOptions) -> Result<(), Status> {
    let resource = served.group_resource();
    let own = OWN_PRECONDITIONS.contains(&(resource.group.as_str(), resource.resource.as_str()));
    // The generic deletion names the stored kind where the resource belongs.
    let kind = GroupResource::new(served.storage.group.to_string(), served.storage.kind.to_string());
    let conflict = |of_store: String, of_request: String| {
        if own {
            Status::conflict(&resource, object.name(), format!("Precondition failed: {of_store}"))
        } else {
            Status::conflict(&kind, object.name(), of_request)
        }
    };
    let (uid, version) = (object.uid(), object.resource_version());
    if let Some(wanted) = options.precondition_uid.as_deref().filter(|wanted| *wanted != uid) {
        return Err(conflict(
            format!("UID in precondition: {wanted}, UID in object meta: {uid}"),
            format!(
                "the UID in the precondition ({wanted}) does not match the UID in record ({uid}). The object might have been deleted and then recreated"
            ),
        ));
    }
    if let Some(wanted) = options.precondition_resource_version.as_deref().filter(|wanted| *wanted != version) {
        return Err(conflict(
            format!("ResourceVersion in precondition: {wanted}, ResourceVersion in object meta: {version}"),
            format!(
                "the ResourceVersion in the precondition ({wanted}) does not match the ResourceVersion in record ({version}). The object might have been modified"
            ),
        ));
    }
    Ok(())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Decision {
    /// Gone now.
    Now,
    /// Marked as being deleted; somebody else finishes.
    Mark,
    /// Marked before, and nothing changes.
    AlreadyMarked,
}

/// Decides what the deletion does and prepares the object for it.
fn decide(cx: &Context, served: &Served, object: &mut Value, options: &DeleteOptions) -> Decision {
    let hooks = served.rules.hooks;
    let now = cx.server.clock.now();
    let requested = options.grace_period_seconds.map(|seconds| if seconds < 0 { 1 } else { seconds });
    // A namespace that is emptied stays as it is until that is done.
    let emptied = served.resource.plural == "namespaces" && hooks.has_other_finalizers(object);
    if emptied && object.deletion_timestamp().is_some() {
        return Decision::AlreadyMarked;
    }
    let mut graceful = None;
    if served.rules.graceful {
        match (object.deletion_timestamp().map(str::to_string), object.deletion_grace_period_seconds()) {
            // Marked before with time left: only a shorter period changes anything.
            (Some(stamp), Some(left)) if left > 0 => match requested {
                Some(period) if period < left => {
                    let begun = apimachinery::time::parse(&stamp).unwrap_or(now);
                    let mut end = begun.checked_add(jiff::SignedDuration::from_secs(period - left)).unwrap_or(now);
                    let mut period = period;
                    if end < now {
                        end = now;
                        if period != 0 {
                            period = 1;
                        }
                    }
                    object.set_deletion_timestamp(&apimachinery::time::format(end));
                    object.set_at(&["metadata", "deletionGracePeriodSeconds"], period.into());
                    graceful = Some(period);
                }
                _ => return Decision::AlreadyMarked,
            },
            (Some(_), _) => {}
            (None, _) => {
                if let Some(period) = hooks.grace_period(object, requested) {
                    let end = now.checked_add(jiff::SignedDuration::from_secs(period)).unwrap_or(now);
                    object.set_deletion_timestamp(&apimachinery::time::format(end));
                    object.set_at(&["metadata", "deletionGracePeriodSeconds"], period.into());
                    if object.generation() > 0 {
                        object.set_generation(object.generation() + 1);
                    }
                    graceful = Some(period);
                }
            }
        }
    }
    if served.resource.plural != "events" {
        propagate(cx, served, object, options);
    }
    let held = object.finalizers().next().is_some() || hooks.has_other_finalizers(object);
    if held && graceful.is_none() {
        let first = object.deletion_timestamp().is_none();
        if object.deletion_timestamp().is_none() && object.generation() > 0 {
            object.set_generation(object.generation() + 1);
        }
        let later = object
            .deletion_timestamp()
            .and_then(|stamp| apimachinery::time::parse(stamp).ok())
            .is_none_or(|stamp| stamp > now);
        if later {
            object.set_deletion_timestamp(&cx.server.timestamp());
        }
        if !emptied {
            object.set_at(&["metadata", "deletionGracePeriodSeconds"], 0.into());
        }
        if first {
            hooks.prepare_delete(object);
        }
    }
    if held || graceful.is_some_and(|period| period > 0) { Decision::Mark } else { Decision::Now }
}

/// Adds the finalizer that makes the garbage collector orphan or delete dependents first.
fn propagate(cx: &Context, served: &Served, object: &mut Value, options: &DeleteOptions) {
    if !cx.server.config.enable_garbage_collector {
        return;
    }
    let have: Vec<String> = object.finalizers().map(str::to_string).collect();
    let explicit = match (options.orphan_dependents, options.propagation) {
        (Some(true), _) | (_, Some(Propagation::Orphan)) => Some(ORPHAN),
        (_, Some(Propagation::Foreground)) => Some(FOREGROUND),
        (Some(false), _) | (_, Some(Propagation::Background)) => Some(""),
        (None, None) => None,
    };
    // The first deletion of a definition only begins what its own finalizer ends.
    let definition = served.resource.group == "apiextensions.k8s.io";
    if definition && object.deletion_timestamp().is_none() {
        return;
    }
    let finalizer = match explicit {
        Some(finalizer) => finalizer,
        // Without a wish, a finalizer that is there already says what to do.
        None if have.iter().any(|name| name == ORPHAN) => ORPHAN,
        None if have.iter().any(|name| name == FOREGROUND) => FOREGROUND,
        None if ORPHANS_BY_DEFAULT.contains(&(served.resource.group.as_ref(), served.resource.plural.as_ref())) => {
            ORPHAN
        }
        None => "",
    };
    let mut wanted: Vec<String> = have.iter().filter(|name| *name != ORPHAN && *name != FOREGROUND).cloned().collect();
    if !finalizer.is_empty() {
        wanted.push(finalizer.to_string());
    }
    if wanted != have {
        if wanted.is_empty() {
            object.remove_at(&["metadata", "finalizers"]);
        } else {
            object.set_finalizers(wanted);
        }
    }
}

/// Deletes everything that selectors pick, and answers the list of it.
///
/// # Errors
/// The first deletion that fails for another reason than that the object is gone already.
pub async fn collection(cx: &mut Context, served: &Arc<Served>, body: Body) -> Result<Response, Status> {
    let format = format(cx, Route::Object, Allowed::Transforms)?;
    // Upstream looks at what is selected before it reads the body.
    let list_options = ListOptions::parse(&cx.query, cx.query.flag("watch"))?;
    let mut options = options(cx, body).await?;
    unsafe_delete::check(cx, &mut options)?;
    unsafe_delete::not_a_collection(&options)?;
    let namespace = namespace(served, cx);
    let selection = Selection::new(served, &list_options, &namespace, "")?;
    warn(cx, served, &options);
    let (entries, meta) = list::collect(served, &list_options, &selection).await?;
    served.prepare(&entries).await?;
    let cx: &Context = cx;
    let options = &options;
    let entries: Vec<Arc<Entry>> = stream::iter(entries)
        .map(|entry| async move {
            match delete(cx, served, entry.namespace(), entry.name(), "", options).await {
                Ok(_) => {}
                Err(status) if status.is_not_found() => {}
                Err(status) => return Err(status),
            }
            Ok(entry)
        })
        .buffered(WORKERS)
        .try_collect()
        .await?;
    let plain = accept::Format { transform: None, ..format };
    let table = table_options(cx)?;
    let write = || response::list::body(served, entries, &meta, plain, &table);
    let (content_type, body) = cx.latencies.track(Layer::Serialization, write)?;
    let mut answer = response::bytes(StatusCode::OK, content_type, bytes::Bytes::new());
    *answer.body_mut() = body;
    Ok(answer)
}
