//! `ValidatingAdmissionWebhook`: all webhooks that want to see a request are asked at once.

use std::sync::Arc;

use apimachinery::status::Status;
use async_trait::async_trait;
use futures::future::join_all;
use serde_json::Value;

use super::{Failure, Webhook};
use crate::admission::chain::Step;
use crate::admission::{Attributes, Plugin, rules};
use crate::registry::Served;
use crate::server::Server;

/// The plugin.
pub struct ValidatingAdmissionWebhook;

#[async_trait]
impl Plugin for ValidatingAdmissionWebhook {
    async fn validate(
        &self,
        server: &Arc<Server>,
        attributes: &Attributes<'_>,
        object: &Value,
        old: Option<&Value>,
    ) -> Result<(), Status> {
        let hooks = server.webhooks.validating(server).await.map_err(|error| attributes.not_ready(&error))?;
        if hooks.is_empty() {
            return Ok(());
        }
        Box::pin(ask(server, attributes, &hooks, object, old)).await
    }
}

/// Asks all that want to see the request, at once.
async fn ask(
    server: &Arc<Server>,
    attributes: &Attributes<'_>,
    hooks: &[Webhook],
    object: &Value,
    old: Option<&Value>,
) -> Result<(), Status> {
    let mut relevant: Vec<(&Webhook, Arc<Served>)> = Vec::new();
    for hook in hooks.iter() {
        if let Some(matched) = hook.wants(server, Step::Validate, attributes, object, old).await? {
            relevant.push((hook, matched));
        }
    }
    let calls = relevant.iter().map(|(hook, matched)| async move {
        let begun = server.clock.monotonic();
        let asked = async {
            let object = rules::in_version(matched, attributes, object).await.map_err(Failure::Internal)?;
            let old = old.unwrap_or(&Value::Null);
            let old = rules::in_version(matched, attributes, old).await.map_err(Failure::Internal)?;
            hook.ask(server, attributes, matched, &object, &old, Step::Validate).await
        };
        let answer = asked.await;
        let took = server.clock.monotonic() - begun;
        hook.observe(server, Step::Validate, attributes, &answer, took);
        (*hook, answer)
    });
    let mut refusal = None;
    for (index, (hook, answer)) in join_all(calls).await.into_iter().enumerate() {
        match answer {
            Ok(_) => {}
            Err(Failure::Calling(reason, _)) if hook.ignore_failures => {
                tracing::warn!(webhook = hook.name, reason, "failed calling webhook, failing open");
                let key = format!("failed-open.validating.webhook.admission.k8s.io/round_0_index_{index}");
                attributes.review.annotate(&key, &hook.name);
            }
            Err(Failure::Calling(reason, _)) => refusal = refusal.or(Some(hook.calling(&reason))),
            Err(Failure::Refused(status) | Failure::Internal(status)) => refusal = refusal.or(Some(status)),
        }
    }
    refusal.map_or(Ok(()), Err)
}
