//! `serviceaccounts/token`: issues a signed token for a service account (TokenRequest).

use std::sync::Arc;

use apimachinery::field::{self, ErrorList, Path};
use apimachinery::gvk::{GroupKind, GroupResource};
use apimachinery::object::ObjectExt as _;
use apimachinery::status::Status;
use axum::body::Body;
use http::StatusCode;
use serde_json::{Value, json};

use super::get;
use super::managers::Owner;
use super::subresources::{answer, decode, plain};
use crate::admission;
use crate::authentication::service_account::Binding;
use crate::cache::Freshness;
use crate::codec::body;
use crate::registry::Served;
use crate::request::notes::Annotation;
use crate::request::options::{WriteKind, WriteOptions};
use crate::response::Response;
use crate::server::walk::Context;

/// The shortest life of a token, in seconds.
const MIN_SECONDS: i64 = 600;
/// The longest.
const MAX_SECONDS: i64 = 1 << 32;
/// What clients that cannot reload tokens ask for; such tokens are extended.
const WARN_ONLY_SECONDS: i64 = 3607;
/// How long extended tokens live.
const EXTENDED_SECONDS: i64 = 365 * 24 * 3600;

/// Issues a token.
///
/// # Errors
/// 404 for accounts and bound objects that do not exist, 422 for bad lifetimes.
pub async fn handle(cx: &mut Context, served: &Arc<Served>, body: Body) -> Result<Response, Status> {
    plain(cx)?;
    let bytes = body::read(body).await?;
    let options = WriteOptions::parse(&cx.query, WriteKind::Create)?;
    let mut request = decode(cx, ("authentication.k8s.io", "v1", "TokenRequest"), &bytes, &options)?;
    if request.i64_at(&["spec", "expirationSeconds"]).is_none() {
        request.set_at(&["spec", "expirationSeconds"], 3600.into());
    }
    cx.about(&request);
    let (namespace, name) = (cx.info.namespace.clone(), cx.info.name.clone());
    super::store::place(cx, served, &mut request)?;
    // Whose token it is may be said once more.
    let (own_name, own_uid) = (request.name().to_string(), request.uid().to_string());
    let kind = GroupKind::new("authentication.k8s.io", "TokenRequest");
    super::store::wipe(&mut request);
    let manager = cx.field_manager(&options.field_manager);
    if let Some(schema) = api::table().find_kind("authentication.k8s.io", "v1", "TokenRequest") {
        let own = ("authentication.k8s.io/v1", "TokenRequest", schema);
        Owner::of_kind(own, "token", &manager).track(cx, None, &mut request);
    }
    let attributes = admission::Attributes {
        operation: admission::Operation::Create,
        served,
        subresource: "token",
        namespace: namespace.clone(),
        name: name.clone(),
        base: String::new(),
        user: &cx.user,
        dry_run: options.dry_run,
        warnings: parking_lot::Mutex::default(),
        review: crate::admission::review::Review::default(),
    };
    cx.server.admission.mutate(cx, &attributes, &mut request, None).await?;
    cx.server.admission.validate(cx, &attributes, &request, None).await?;
    if !own_name.is_empty() && own_name != name {
        let mut errors = ErrorList::new();
        let path = Path::new("metadata").child("name");
        errors.push(field::invalid(&path, own_name, "must match the service account name if specified"));
        return Err(Status::invalid(&kind, &name, &errors));
    }
    let account = get::read_at(served, &namespace, &name, Freshness::Consistent).await?;
    if !own_uid.is_empty() && own_uid != account.uid() {
        let error = format!(
            "the UID in the token request ({own_uid}) does not match the UID of the service account ({})",
            account.uid()
        );
        return Err(Status::conflict(&GroupResource::new("authentication.k8s.io", "TokenRequest"), &name, error));
    }
    let seconds = request.i64_at(&["spec", "expirationSeconds"]).unwrap_or_default();
    let mut errors = ErrorList::new();
    let path = Path::new("spec").child("expirationSeconds");
    if seconds < MIN_SECONDS {
        errors.push(field::invalid(&path, seconds, "may not specify a duration less than 10 minutes"));
    }
    if seconds > MAX_SECONDS {
        errors.push(field::invalid(&path, seconds, "may not specify a duration larger than 2^32 seconds"));
    }
    if !errors.is_empty() {
        return Err(Status::invalid(&kind, "", &errors));
    }
    let tokens = cx.server.tokens.clone().ok_or_else(|| Status::not_found(&served.group_resource(), &name))?;
    let binding = bound(cx, &namespace, &request).await?;
    let mut audiences: Vec<String> =
        request.list_at(&["spec", "audiences"]).iter().filter_map(Value::as_str).map(str::to_string).collect();
    if audiences.is_empty() {
        audiences.clone_from(&tokens.audiences);
        request.set_at(&["spec", "audiences"], json!(audiences));
    }
    let mut life = seconds;
    if tokens.max_expiration_seconds > 0 && life > tokens.max_expiration_seconds {
        cx.warnings.push(format!(
            "requested expiration of {life} seconds shortened to {} seconds",
            tokens.max_expiration_seconds
        ));
        life = tokens.max_expiration_seconds;
    }
    let mut expires_reported = None;
    let mut warn_after = None;
    // Only for pods' tokens of the API itself: a year, with a warning after an hour.
    if tokens.extend_expiration
        && life == WARN_ONLY_SECONDS
        && binding.pod.is_some()
        && audiences.iter().all(|audience| tokens.audiences.contains(audience))
    {
        warn_after = Some(life);
        expires_reported = Some(life);
        life = EXTENDED_SECONDS;
        if tokens.max_expiration_seconds > 0 {
            life = life.min(tokens.max_expiration_seconds);
        }
    }
    let issued = tokens
        .issue(&namespace, (&name, account.uid()), &binding, &audiences, (life, warn_after))
        .map_err(|error| Status::internal(format!("failed to generate token: {error}")))?;
    let credential = Annotation { value: format!("JTI={}", issued.id), detailed: false };
    cx.annotations.add("authentication.kubernetes.io/issued-credential-id", credential);
    let expires = expires_reported.map_or(issued.expires, |reported| issued.expires - life + reported);
    let stamp = jiff::Timestamp::from_second(expires).map(apimachinery::time::format).unwrap_or_default();
    request.set_at(&["spec", "expirationSeconds"], life.into());
    request.set_name(&name);
    request.set_namespace(&namespace);
    request.set_creation_timestamp(&cx.server.timestamp());
    request.set_uid(account.uid());
    request.set_at(&["status"], json!({"token": issued.token, "expirationTimestamp": stamp}));
    answer(cx, StatusCode::CREATED, &request)
}

/// The objects that the token shall die with.
async fn bound(cx: &Context, namespace: &str, request: &Value) -> Result<Binding, Status> {
    let mut binding = Binding::default();
    let Some(reference) = request.at(&["spec", "boundObjectRef"]).filter(|value| !value.is_null()) else {
        return Ok(binding);
    };
    let text = |field: &str| reference.str_at(&[field]).unwrap_or_default().to_string();
    let (kind, name, uid) = (text("kind"), text("name"), text("uid"));
    let (plural, place) = match kind.as_str() {
        "Pod" => ("pods", namespace),
        "Secret" => ("secrets", namespace),
        "Node" => ("nodes", ""),
        _ => {
            return Err(Status::bad_request(format!(
                "cannot bind token to object of type {}, Kind={kind}",
                text("apiVersion")
            )));
        }
    };
    let served = cx.server.registry.any_version("", plural).cloned().ok_or_else(super::unknown_resource)?;
    let entry = get::read_at(&served, place, &name, Freshness::Consistent).await?;
    if !uid.is_empty() && uid != entry.uid() {
        return Err(Status::conflict(
            &GroupResource::new("", kind),
            &name,
            format!(
                "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
            ),
        ));
    }
    let found = Some((name, entry.uid().to_string()));
    match kind.as_str() {
        "Pod" => {
            let node = entry.field("spec.nodeName").unwrap_or_default().to_string();
            let account = entry.tree().str_at(&["spec", "serviceAccountName"]).unwrap_or_default().to_string();
            if account != cx.info.name {
                return Err(Status::bad_request(format!(
                    "cannot bind token for serviceaccount {:?} to pod running with different serviceaccount name.",
                    cx.info.name
                )));
            }
            binding.pod = found;
            if !node.is_empty()
                && let Some(nodes) = cx.server.registry.any_version("", "nodes")
                && let Ok(node_entry) = get::read_at(nodes, "", &node, Freshness::Any).await
            {
                binding.node = Some((node, node_entry.uid().to_string()));
            }
        }
        "Secret" => binding.secret = found,
        _ => binding.node = found,
    }
    Ok(binding)
}
