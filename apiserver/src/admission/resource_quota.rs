//! ResourceQuota: charges what a request adds to the namespace's quotas, and refuses what exceeds them.
//!
//! The charge is written to the quota's status before the object is stored, under the status's
//! resource version: of requests that race for the last of a quota, one wins and the others look again,
//! so no limit is overrun. The quota controller gives back what was charged for objects that are gone.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use api::amounts::{self, ResourceList};
use api::quota::{self, Change, Devices, Evaluator};
use apimachinery::object::ObjectExt as _;
use apimachinery::status::Status;
use async_trait::async_trait;
use http::Method;
use serde_json::{Value, json};

use super::{Attributes, Operation, Plugin, lookup};
use crate::server::{Server, in_process};

pub const NAME: &str = "ResourceQuota";

/// How long a request may compete for a quota.
const PATIENCE: Duration = Duration::from_secs(10);

pub struct ResourceQuota;

#[async_trait]
impl Plugin for ResourceQuota {
    async fn validate(
        &self,
        server: &Arc<Server>,
        attributes: &Attributes<'_>,
        object: &Value,
        old: Option<&Value>,
    ) -> Result<(), Status> {
        let resource = &attributes.served.storage;
        if attributes.namespace.is_empty() || attributes.is_core("namespaces") {
            return Ok(());
        }
        let change = match (attributes.operation, old) {
            (Operation::Create, _) => Change::Create,
            (Operation::Update, Some(old)) => Change::Update { old },
            _ => return Ok(()),
        };
        let Some(mut evaluator) = Evaluator::of(&resource.group, &resource.plural) else { return Ok(()) };
        if !evaluator.handles(attributes.subresource, change, object) {
            return Ok(());
        }
        // Most namespaces have none.
        let quotas = lookup::list(server, "", "resourcequotas", Some(&attributes.namespace)).await?;
        if quotas.is_empty() {
            return Ok(());
        }
        if let Evaluator::DeviceClaims(devices) = &mut evaluator {
            *devices = Arc::new(around(server, object).await?);
        }
        let request = Request { attributes, evaluator: &evaluator, object, change, now: server.clock.now() };
        match tokio::time::timeout(PATIENCE, Box::pin(compete(server, request, quotas))).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Status::internal("resource quota evaluation timed out")),
        }
    }
}

/// Charges the quotas, anew as long as somebody else is faster.
async fn compete(server: &Arc<Server>, mut request: Request<'_>, mut quotas: Vec<Value>) -> Result<(), Status> {
    let attributes = request.attributes;
    while !quotas.is_empty() {
        request.now = server.clock.now();
        let charged = request.charge(&quotas).map_err(|text| attributes.forbidden(text))?;
        if attributes.dry_run || write(server, charged).await? {
            break;
        }
        quotas = lookup::list(server, "", "resourcequotas", Some(&attributes.namespace)).await?;
    }
    Ok(())
}

/// What says how a claim of devices counts.
async fn around(server: &Arc<Server>, claim: &Value) -> Result<Devices, Status> {
    let (group, namespace) = ("resource.k8s.io", claim.namespace());
    let classes = lookup::list(server, group, "deviceclasses", None).await?;
    let owner = claim.controller_ref().and_then(|owner| owner.str_at(&["name"]));
    let pod = owner.and_then(|name| lookup::get(server, "", "pods", namespace, name));
    let Some(pod) = pod else { return Ok(Devices::new(&classes, Vec::new(), &[])) };
    let pod: Value = serde_json::from_slice(pod.json()).map_err(|error| Status::internal(error.to_string()))?;
    let claims = lookup::list(server, group, "resourceclaims", Some(namespace)).await?;
    Ok(Devices::new(&classes, vec![pod], &claims))
}

/// Writes quotas' new statuses; `false` when somebody else was faster with one of them.
async fn write(server: &Arc<Server>, quotas: Vec<Value>) -> Result<bool, Status> {
    for quota in quotas {
        let path = format!("/api/v1/namespaces/{}/resourcequotas/{}/status", quota.namespace(), quota.name());
        match in_process::request(server, Method::PUT, &path, Some(&quota)).await {
            Ok(_) => {}
            // What was charged to others before stays until the controller recounts.
            Err(status) if status.is_conflict() || status.is_not_found() => return Ok(false),
            Err(status) => return Err(status),
        }
    }
    Ok(true)
}

struct Request<'a> {
    attributes: &'a Attributes<'a>,
    evaluator: &'a Evaluator,
    object: &'a Value,
    change: Change<'a>,
    now: jiff::Timestamp,
}

fn hard(quota: &Value) -> ResourceList {
    amounts::list(quota, &["status", "hard"])
}

impl Request<'_> {
    /// The quotas that change, with their new `status.used`.
    ///
    /// # Errors
    /// Which quota is exceeded, or what the object does not say.
    fn charge(&self, quotas: &[Value]) -> Result<Vec<Value>, String> {
        let mut concerned: Vec<(&Value, ResourceList)> = Vec::new();
        for quota in quotas {
            let hard = hard(quota);
            if !self.evaluator.concerns(quota, &hard, self.object) {
                continue;
            }
            let counted = self.evaluator.counted(hard.keys().map(String::as_str));
            self.evaluator
                .constraints(&counted, self.object)
                .map_err(|text| format!("failed quota: {}: {text}", quota.name()))?;
            let used = amounts::list(quota, &["status", "used"]);
            if counted.iter().any(|name| !used.contains_key(name)) {
                return Err(format!("status unknown for quota: {}, resources: {}", quota.name(), join(&counted)));
            }
            concerned.push((quota, hard));
        }
        if concerned.is_empty() {
            return Ok(Vec::new());
        }
        let usage = self.evaluator.usage(self.object, self.now);
        let negative: BTreeSet<String> =
            usage.iter().filter(|(_, amount)| amount.sign() < 0).map(|(name, _)| name.clone()).collect();
        if !negative.is_empty() {
            return Err(format!("quota usage is negative for resource(s): {}", join(&negative)));
        }
        let mut charged = Vec::new();
        for (quota, hard) in concerned {
            let mut added = match self.change {
                Change::Update { old } if self.evaluator.concerns(quota, &hard, old) => {
                    quota::beyond(&usage, &self.evaluator.usage(old, self.now))
                }
                _ => usage.clone(),
            };
            added.retain(|_, amount| !amount.is_zero());
            let requested = quota::mask(&added, hard.keys());
            if requested.is_empty() {
                continue;
            }
            let used = amounts::list(quota, &["status", "used"]);
            let mut total = used.clone();
            amounts::add(&mut total, &requested);
            let exceeded: Vec<&String> = requested.keys().filter(|name| total[*name] > hard[*name]).collect();
            if !exceeded.is_empty() && self.attributes.subresource != "status" {
                let shown = |list: &ResourceList| quota::pretty(&quota::mask(list, exceeded.iter().copied()));
                return Err(format!(
                    "exceeded quota: {}, requested: {}, used: {}, limited: {}",
                    quota.name(),
                    shown(&requested),
                    shown(&used),
                    shown(&hard)
                ));
            }
            let mut quota = quota.clone();
            for (name, amount) in &total {
                quota.set_at(&["status", "used", name], json!(amount.to_string()));
            }
            charged.push(quota);
        }
        Ok(charged)
    }
}

fn join(names: &BTreeSet<String>) -> String {
    names.iter().map(String::as_str).collect::<Vec<_>>().join(",")
}
