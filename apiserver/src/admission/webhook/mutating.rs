//! `MutatingAdmissionWebhook`: webhooks are asked one after the other, each seeing what those before it made.

use std::sync::Arc;

use apimachinery::patch;
use apimachinery::status::Status;
use async_trait::async_trait;
use serde_json::{Value, json};

use super::review::JSON_PATCH;
use super::{Failure, Webhook};
use crate::admission::chain::Step;
use crate::admission::{Attributes, Plugin, rules};
use crate::registry::Served;
use crate::server::Server;

/// The plugin.
pub struct MutatingAdmissionWebhook;

#[async_trait]
impl Plugin for MutatingAdmissionWebhook {
    async fn mutate(
        &self,
        server: &Arc<Server>,
        attributes: &Attributes<'_>,
        object: &mut Value,
        old: Option<&Value>,
    ) -> Result<(), Status> {
        let hooks = server.webhooks.mutating(server).await.map_err(|error| attributes.not_ready(&error))?;
        if hooks.is_empty() {
            return Ok(());
        }
        let again = attributes.review.begin(|state| &mut state.webhooks, object);
        let result = Box::pin(each(server, attributes, &hooks, again, object, old)).await;
        attributes.review.end(|state| &mut state.webhooks, object);
        result
    }
}

async fn each(
    server: &Arc<Server>,
    attributes: &Attributes<'_>,
    hooks: &[Webhook],
    again: bool,
    object: &mut Value,
    old: Option<&Value>,
) -> Result<(), Status> {
    let round = u8::from(again);
    for (index, hook) in hooks.iter().enumerate() {
        let Some(matched) = hook.wants(server, Step::Admit, attributes, object, old).await? else { continue };
        if again && !attributes.review.is_wanted_again(|state| &mut state.webhooks, &hook.uid) {
            continue;
        }
        let begun = server.clock.monotonic();
        let place = format!("round_{round}_index_{index}");
        let answer = ask(server, attributes, hook, &matched, object, old, &place).await;
        hook.observe(server, Step::Admit, attributes, &answer, server.clock.monotonic() - begun);
        let changed = matches!(answer, Ok(true));
        // Fields in the order of upstream's structure.
        let (configuration, name) = (json!(hook.configuration), json!(hook.name));
        let mutation = format!(r#"{{"configuration":{configuration},"webhook":{name},"mutated":{changed}}}"#);
        attributes.review.annotate(&format!("mutation.webhook.admission.k8s.io/{place}"), &mutation);
        if changed {
            attributes.review.changed(|state| &mut state.webhooks);
        }
        if hook.reinvoke {
            attributes.review.asked(|state| &mut state.webhooks, &hook.uid);
        }
        match answer {
            Ok(_) => {}
            Err(Failure::Calling(reason, _)) if hook.ignore_failures => {
                tracing::warn!(webhook = hook.name, reason, "failed calling webhook, failing open");
                let key = format!("failed-open.mutation.webhook.admission.k8s.io/{place}");
                attributes.review.annotate(&key, &hook.name);
            }
            Err(Failure::Calling(reason, _)) => return Err(hook.calling(&reason)),
            Err(Failure::Refused(status) | Failure::Internal(status)) => return Err(status),
        }
    }
    Ok(())
}

/// Asks one webhook and applies its patch; whether the object changed.
async fn ask(
    server: &Arc<Server>,
    attributes: &Attributes<'_>,
    hook: &Webhook,
    matched: &Served,
    object: &mut Value,
    old: Option<&Value>,
    place: &str,
) -> Result<bool, Failure> {
    let mut versioned = rules::in_version(matched, attributes, object).await.map_err(Failure::Internal)?;
    let old = rules::in_version(matched, attributes, old.unwrap_or(&Value::Null)).await.map_err(Failure::Internal)?;
    let answer = hook.ask(server, attributes, matched, &versioned, &old, Step::Admit).await?;
    if answer.patch.is_empty() {
        return Ok(false);
    }
    let undecodable =
        |error: String| Failure::Calling(format!("received undecodable patch in webhook response: {error}"), 503);
    let operations = apimachinery::json::parse(&answer.patch).map_err(|error| undecodable(error.to_string()))?;
    let Some(list) = operations.as_array() else {
        let text = "json: cannot unmarshal object into Go value of type jsonpatch.Patch";
        return Err(undecodable(text.to_string()));
    };
    if list.is_empty() {
        return Ok(false);
    }
    if versioned.is_null() {
        let name = &hook.name;
        let text = format!(
            "admission webhook {name:?} attempted to modify the object, which is not supported for this operation"
        );
        return Err(Failure::Internal(Status::internal(text)));
    }
    if answer.patch_type != JSON_PATCH {
        let status = super::review::refusal(&hook.name, answer.status);
        return Err(Failure::Calling(format!("unsupported patch type {:?}", answer.patch_type), status.code));
    }
    let before = versioned.clone();
    patch::json::apply(&mut versioned, &operations)
        .map_err(|error| Failure::Internal(Status::internal(error.to_string())))?;
    let changed = versioned != before;
    let (configuration, name) = (json!(hook.configuration), json!(hook.name));
    let shown =
        format!(r#"{{"configuration":{configuration},"webhook":{name},"patch":{operations},"patchType":"JSONPatch"}}"#);
    rules::settle_patched(server, matched, attributes, &mut versioned).map_err(Failure::Internal)?;
    attributes.review.annotate_detailed(&format!("patch.webhook.admission.k8s.io/{place}"), &shown);
    *object = rules::to_pipeline(matched, attributes, versioned).await.map_err(Failure::Internal)?;
    Ok(changed)
}
