//! `POST pods/x/eviction`: a delete that a PodDisruptionBudget may refuse (`policy/v1 Eviction`).
//!
//! Reads the pod and the budgets that cover it; writes the budget's status (one disruption less, and which
//! pod took it), the pod's `DisruptionTarget` condition, and deletes the pod.

use std::sync::Arc;

use apimachinery::gvk::{GroupKind, GroupResource, GroupVersionKind};
use apimachinery::labels::Selector;
use apimachinery::object::ObjectExt as _;
use apimachinery::status::{Cause, Status};
use axum::body::Body;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};

use super::store::{self, Update};
use super::subresources::{created, plain};
use super::{delete, errors, get, method_not_allowed};
use crate::admission::review::{RequestOptions, Review};
use crate::admission::{Attributes, Operation};
use crate::cache::Freshness;
use crate::codec::body::{self, Expected};
use crate::registry::Served;
use crate::request::accept;
use crate::request::options::{DeleteOptions, WriteKind, WriteOptions};
use crate::response::Response;
use crate::server::walk::Context;

/// More evictions than this are not kept in a budget's status.
const MAX_DISRUPTED_PODS: usize = 2000;

const REFUSED: &str = "Cannot evict pod as it would violate the pod's disruption budget.";

/// How often an eviction that lost a race is tried again.
const ATTEMPTS: usize = 20;

/// Evicts a pod.
///
/// # Errors
/// 429 while the pod's budget has no disruption left or its controller has not caught up; what deleting
/// the pod answers.
pub async fn handle(cx: &mut Context, served: &Arc<Served>, body: Body) -> Result<Response, Status> {
    plain(cx)?;
    let bytes = body::read(body).await?;
    let options = WriteOptions::parse(&cx.query, WriteKind::Create)?;
    let mut eviction = decode(cx, &bytes, &options)?;
    let (namespace, name) = (cx.info.namespace.clone(), cx.info.name.clone());
    store::place(cx, served, &mut eviction)?;
    let attributes = attributes(cx, served, &options);
    cx.server.admission.mutate(cx, &attributes, &mut eviction, None).await?;
    if eviction.name() != name {
        return Err(Status::bad_request("name in URL does not match name in Eviction object"));
    }
    let delete = Deletion::of(&eviction, &options)?;
    cx.server.admission.validate(cx, &attributes, &eviction, None).await?;
    drop(attributes);
    let free = delete.options.precondition_resource_version.is_none();
    for attempt in 1..=ATTEMPTS {
        let pod = get::read_at(served, &namespace, &name, Freshness::Consistent).await?.tree();
        if !ignores_budgets(&pod) {
            return guarded(cx, served, &pod, &delete).await;
        }
        let mut wanted = delete.clone();
        // A pod that only waits may become ready, and then its budget counts.
        if pod.str_at(&["status", "phase"]) == Some("Pending") && pod.deletion_timestamp().is_none() && free {
            wanted.options.precondition_resource_version = Some(pod.resource_version().to_string());
        }
        match remove(cx, served, &namespace, &name, &wanted).await {
            Ok(()) => break,
            Err(status) if free && status.code == 409 && attempt < ATTEMPTS => {}
            Err(status) => return Err(status),
        }
    }
    Ok(created(cx))
}

/// The eviction in either of its versions.
fn decode(cx: &mut Context, bytes: &[u8], options: &WriteOptions) -> Result<Value, Status> {
    let encoding = accept::body_encoding(&cx.headers, cx.cbor())?;
    let old = match encoding {
        accept::Encoding::Json => apimachinery::json::parse(bytes).ok(),
        accept::Encoding::Yaml => {
            apimachinery::yaml::decode(&String::from_utf8_lossy(bytes)).ok().map(|decoded| decoded.value)
        }
        accept::Encoding::Cbor => api::cbor::interpret(bytes).ok().map(|(version, _)| json!({"apiVersion": version})),
        accept::Encoding::Protobuf => {
            crate::codec::protobuf::open(bytes).ok().map(|(version, ..)| json!({"apiVersion": version}))
        }
    }
    .is_some_and(|tree| tree.api_version() == "policy/v1beta1");
    let schema = api::table()
        .find_kind("policy", "v1", "Eviction")
        .ok_or_else(|| Status::internal("the table lacks Eviction"))?;
    let version = if old { "v1beta1" } else { "v1" };
    let expected = Expected { kind: GroupVersionKind::new("policy", version, "Eviction"), schema, empty: false };
    let decoded = body::decode(bytes, encoding, &expected, options.field_validation)?;
    cx.warnings.extend(decoded.warnings);
    let mut eviction = decoded.object;
    cx.about(&eviction);
    eviction.set_api_version("policy/v1");
    Ok(eviction)
}

fn attributes<'a>(cx: &'a Context, served: &'a Arc<Served>, options: &'a WriteOptions) -> Attributes<'a> {
    Attributes {
        operation: Operation::Create,
        served,
        subresource: "eviction",
        namespace: cx.info.namespace.clone(),
        name: cx.info.name.clone(),
        base: String::new(),
        user: &cx.user,
        dry_run: options.dry_run,
        warnings: Mutex::default(),
        review: Review::of(RequestOptions::Write("CreateOptions", options)),
    }
}

/// How the pod is to be deleted.
#[derive(Clone)]
struct Deletion {
    options: DeleteOptions,
    /// What is not allowed of the options. It is said where the pod would be deleted, as upstream does: after a pod that
    /// is not there, a budget that refuses, and the pod's condition.
    allowed: Result<(), Status>,
}

impl Deletion {
    fn of(eviction: &Value, options: &WriteOptions) -> Result<Self, Status> {
        let empty = Value::Object(Map::new());
        let body = eviction.get("deleteOptions").filter(|options| !options.is_null()).unwrap_or(&empty);
        check_options(eviction, body, options)?;
        let (mut delete, allowed) = DeleteOptions::unchecked(body)?;
        delete.dry_run |= options.dry_run;
        Ok(Self { options: delete, allowed })
    }
}

/// What an eviction itself does not take.
fn check_options(eviction: &Value, body: &Value, options: &WriteOptions) -> Result<(), Status> {
    if body.bool_at(&["ignoreStoreReadErrorWithClusterBreakingPotential"]) == Some(true) {
        let mut errors = apimachinery::field::ErrorList::new();
        errors.push(apimachinery::field::invalid(
            &apimachinery::field::Path::new("deleteOptions").child("ignoreStoreReadErrorWithClusterBreakingPotential"),
            true,
            "can not be set for pod eviction, try after removing the option",
        ));
        return Err(Status::invalid(&GroupKind::new("policy", "Eviction"), eviction.name(), &errors));
    }
    let said: Vec<&str> = body.list_at(&["dryRun"]).iter().filter_map(Value::as_str).collect();
    if options.dry_run && !said.is_empty() && said != ["All"] {
        let text = format!("Non-matching dry-run options in request and content: [All] and [{}]", said.join(" "));
        return Err(Status::failure(500, "", text));
    }
    Ok(())
}

/// Whether the pod's end disrupts nothing any more, or not yet.
fn ignores_budgets(pod: &Value) -> bool {
    matches!(pod.str_at(&["status", "phase"]), Some("Succeeded" | "Failed" | "Pending"))
        || pod.deletion_timestamp().is_some()
}

fn is_ready(pod: &Value) -> bool {
    pod.list_at(&["status", "conditions"])
        .iter()
        .any(|condition| condition.str_at(&["type"]) == Some("Ready") && condition.str_at(&["status"]) == Some("True"))
}

/// Evicts a running pod as its budget allows.
async fn guarded(cx: &mut Context, served: &Arc<Served>, pod: &Value, delete: &Deletion) -> Result<Response, Status> {
    let (namespace, name) = (pod.namespace().to_string(), pod.name().to_string());
    let mut delete = delete.clone();
    let free = delete.options.precondition_resource_version.is_none();
    let mut budget_name = String::new();
    let mut guarded = false;
    match budgets(cx, pod).await?.as_slice() {
        [] => {}
        [budget] => {
            budget_name = budget.name().to_string();
            let healthy = budget.i64_at(&["status", "currentHealthy"]).unwrap_or_default();
            let desired = budget.i64_at(&["status", "desiredHealthy"]).unwrap_or_default();
            let always = budget.str_at(&["spec", "unhealthyPodEvictionPolicy"]) == Some("AlwaysAllow");
            if !is_ready(pod) && (always || (healthy >= desired && desired > 0)) {
                // It counts for nobody, as long as it stays so.
                guarded = true;
                delete.options.precondition_resource_version = Some(pod.resource_version().to_string());
            } else {
                spend(cx, &namespace, &budget_name, &name, delete.options.dry_run).await?;
            }
        }
        _ => {
            return Err(Status::failure(
                500,
                "",
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
            ));
        }
    }
    match remove(cx, served, &namespace, &name, &delete).await {
        Ok(()) => Ok(created(cx)),
        Err(status) if status.code == 409 && guarded && free => Err(being_processed(&budget_name)),
        Err(status) => Err(status),
    }
}

/// Marks the pod as a target of disruption and deletes it.
async fn remove(
    cx: &mut Context,
    served: &Arc<Served>,
    namespace: &str,
    name: &str,
    delete: &Deletion,
) -> Result<(), Status> {
    let mut options = delete.options.clone();
    if !options.dry_run {
        let write = WriteOptions::default();
        let update = Update { subresource: "status", name, options: &write, manager: None, derived: true };
        let wanted = options.clone();
        let target = served.clone();
        let pod_name = name.to_string();
        let change = move |cx: &mut Context, current: Option<&Value>| {
            let current = current.ok_or_else(|| Status::not_found(&target.group_resource(), &pod_name))?;
            delete::preconditions(&target, current, &wanted)?;
            let mut new = current.clone();
            set_condition(
                &mut new,
                json!({
                    "type": "DisruptionTarget",
                    "status": "True",
                    "reason": "EvictionByEvictionAPI",
                    "message": "Eviction API: evicting",
                    "lastProbeTime": null,
                    "lastTransitionTime": cx.server.timestamp(),
                }),
            );
            Ok(new)
        };
        let written = store::update(cx, served, &update, false, &change).await?;
        if options.precondition_resource_version.is_some() {
            options.precondition_resource_version = Some(written.object(served).await?.resource_version().to_string());
        }
    }
    delete.allowed.clone()?;
    delete::one(cx, served, namespace, name, &options).await
}

/// Sets a condition; its time only changes with its status.
fn set_condition(object: &mut Value, mut condition: Value) {
    let mut conditions: Vec<Value> = object.list_at(&["status", "conditions"]).to_vec();
    match conditions.iter_mut().find(|old| old.str_at(&["type"]) == condition.str_at(&["type"])) {
        Some(old) => {
            if old.str_at(&["status"]) == condition.str_at(&["status"]) {
                condition["lastTransitionTime"] = old.get("lastTransitionTime").cloned().unwrap_or(Value::Null);
            }
            *old = condition;
        }
        None => conditions.push(condition),
    }
    object.set_at(&["status", "conditions"], conditions.into());
}

/// The budgets that cover a pod.
async fn budgets(cx: &Context, pod: &Value) -> Result<Vec<Value>, Status> {
    let Some(served) = cx.server.registry.any_version("policy", "poddisruptionbudgets").cloned() else {
        return Ok(Vec::new());
    };
    let cache = served.cache.clone().ok_or_else(method_not_allowed)?;
    let snapshot = cache.snapshot(Freshness::Consistent).await.map_err(errors::of_read)?;
    let empty = Map::new();
    let labels = pod.labels().unwrap_or(&empty);
    Ok(snapshot
        .range(Some(pod.namespace()), None)
        .map(|entry| entry.tree())
        .filter(|budget| {
            // A selector that cannot be read covers nothing.
            Selector::from_label_selector(budget.at(&["spec", "selector"]))
                .is_ok_and(|selector| selector.matches(labels))
        })
        .collect())
}

fn refuse(retry_after_seconds: u32, cause: String) -> Status {
    let mut status = Status::too_many_requests(REFUSED, retry_after_seconds);
    status.details.get_or_insert_default().causes.push(Cause::new("DisruptionBudget", cause, ""));
    status
}

fn being_processed(budget: &str) -> Status {
    refuse(10, format!("The disruption budget {budget} is still being processed by the server."))
}

/// Takes one disruption from a budget.
async fn spend(cx: &mut Context, namespace: &str, budget: &str, pod: &str, dry_run: bool) -> Result<(), Status> {
    let Some(served) = cx.server.registry.any_version("policy", "poddisruptionbudgets").cloned() else {
        return Ok(());
    };
    let options = WriteOptions { dry_run, ..WriteOptions::default() };
    // The server itself writes the budget, as a client of its own.
    let manager = Some("kube-apiserver".to_string());
    let update = Update { subresource: "status", name: budget, options: &options, manager, derived: true };
    let (name, pod) = (budget.to_string(), pod.to_string());
    debug_assert_eq!(namespace, cx.info.namespace, "a budget covers pods of its own namespace");
    let change = move |cx: &mut Context, current: Option<&Value>| {
        let current =
            current.ok_or_else(|| Status::not_found(&GroupResource::new("policy", "poddisruptionbudgets"), &name))?;
        disrupted(current, &pod, &cx.server.timestamp())
    };
    store::update(cx, &served, &update, false, &change).await.map(|_| ())
}

/// A budget after one more disruption.
fn disrupted(budget: &Value, pod: &str, now: &str) -> Result<Value, Status> {
    let name = budget.name();
    let number = |field: &str| budget.i64_at(&["status", field]).unwrap_or_default();
    if number("observedGeneration") < budget.generation() {
        return Err(being_processed(name));
    }
    let resource = GroupResource::new("policy", "poddisruptionbudget");
    let allowed = number("disruptionsAllowed");
    if allowed < 0 {
        return Err(Status::forbidden(&resource, name, "pdb disruptions allowed is negative"));
    }
    if budget.map_at(&["status", "disruptedPods"]).is_some_and(|pods| pods.len() > MAX_DISRUPTED_PODS) {
        let why = "DisruptedPods map too big - too many evictions not confirmed by PDB controller";
        return Err(Status::forbidden(&resource, name, why));
    }
    if allowed == 0 {
        return Err(refuse(0, exhausted(budget)));
    }
    let mut new = budget.clone();
    new.set_at(&["status", "disruptionsAllowed"], (allowed - 1).into());
    if allowed == 1 {
        set_condition(
            &mut new,
            json!({
                "type": "DisruptionAllowed",
                "status": "False",
                "reason": "InsufficientPods",
                "message": "",
                "observedGeneration": number("observedGeneration"),
                "lastTransitionTime": now,
            }),
        );
    }
    new.set_at(&["status", "disruptedPods", pod], now.into());
    Ok(new)
}

/// Why a budget has no disruption left.
fn exhausted(budget: &Value) -> String {
    let name = budget.name();
    let number = |field: &str| budget.i64_at(&["status", field]).unwrap_or_default();
    let (healthy, desired) = (number("currentHealthy"), number("desiredHealthy"));
    let text = |condition: &Value, field: &str| condition.str_at(&[field]).unwrap_or_default().to_string();
    let not_allowed = budget
        .list_at(&["status", "conditions"])
        .iter()
        .find(|condition| text(condition, "type") == "DisruptionAllowed")
        .filter(|condition| text(condition, "status") == "False" && !text(condition, "message").is_empty());
    match not_allowed {
        Some(condition) if text(condition, "reason") == "SyncFailed" => format!(
            "The disruption budget {name} does not allow evicting pods currently because it failed sync: {}",
            text(condition, "message")
        ),
        _ if healthy <= desired => {
            format!("The disruption budget {name} needs {desired} healthy pods and has {healthy} currently")
        }
        Some(condition) => format!(
            "The disruption budget {name} does not allow evicting pods currently ({}): {}",
            text(condition, "reason"),
            text(condition, "message")
        ),
        None => format!("The disruption budget {name} does not allow evicting pods currently"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(status: Value) -> Value {
        json!({"metadata": {"name": "b", "generation": 1}, "status": status})
    }

    #[test]
    fn spends_disruptions() {
        let one =
            budget(json!({"observedGeneration": 1, "disruptionsAllowed": 1, "currentHealthy": 3, "desiredHealthy": 2}));
        let after = disrupted(&one, "p", "2026-01-01T00:00:00Z").unwrap();
        assert_eq!(after.i64_at(&["status", "disruptionsAllowed"]), Some(0));
        assert_eq!(after.str_at(&["status", "disruptedPods", "p"]), Some("2026-01-01T00:00:00Z"));
        let condition = &after.list_at(&["status", "conditions"])[0];
        assert_eq!(
            (condition["type"].as_str(), condition["status"].as_str()),
            (Some("DisruptionAllowed"), Some("False"))
        );
    }

    #[test]
    fn refuses_as_upstream() {
        for (status, code, cause) in [
            (
                json!({"observedGeneration": 0, "disruptionsAllowed": 1}),
                429,
                "The disruption budget b is still being processed by the server.",
            ),
            (json!({"observedGeneration": 1, "disruptionsAllowed": -1}), 403, ""),
            (
                json!({"observedGeneration": 1, "currentHealthy": 2, "desiredHealthy": 2}),
                429,
                "The disruption budget b needs 2 healthy pods and has 2 currently",
            ),
            (
                json!({"observedGeneration": 1, "conditions": [{"type": "DisruptionAllowed", "status": "False", "reason": "SyncFailed", "message": "no scale"}]}),
                429,
                "The disruption budget b does not allow evicting pods currently because it failed sync: no scale",
            ),
            (
                json!({"observedGeneration": 1, "currentHealthy": 3, "desiredHealthy": 2}),
                429,
                "The disruption budget b does not allow evicting pods currently",
            ),
        ] {
            let refused = disrupted(&budget(status.clone()), "p", "").unwrap_err();
            let details = refused.details.clone().unwrap_or_default();
            let got = details.causes.first().map(|cause| cause.message.as_str()).unwrap_or_default();
            assert_eq!((refused.code, got), (code, cause), "{status}");
        }
    }
}
