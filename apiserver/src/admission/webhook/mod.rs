//! `MutatingAdmissionWebhook` and `ValidatingAdmissionWebhook`: servers of the user's own that change or refuse
//! requests.
//!
//! Upstream: `staging/src/k8s.io/apiserver/pkg/admission/plugin/webhook`. Configurations are compiled once for each
//! change of them; a request that none of them is about costs a comparison.

mod mutating;
mod review;
mod validating;

pub use mutating::MutatingAdmissionWebhook;
pub use validating::ValidatingAdmissionWebhook;

use std::sync::Arc;
use std::time::Duration;

use apimachinery::labels::Selector;
use apimachinery::object::ObjectExt as _;
use apimachinery::status::Status;
use serde_json::Value;

use super::chain::Step;
use super::expression::{Decider, Inputs, MatchConditions};
use super::rules::{self, Rule};
use super::{Attributes, compiled::Compiled, manifests};
use crate::cache::Error;
use crate::registry::Served;
use crate::request::Layer;
use crate::server::Server;
use crate::server::metrics::{Ending, Subject};
use crate::webhook::Client;
use review::Unusable;

/// Upstream's names of the plugins.
pub const MUTATING: &str = "MutatingAdmissionWebhook";
pub const VALIDATING: &str = "ValidatingAdmissionWebhook";

const GROUP: &str = "admissionregistration.k8s.io";

/// The configurations of both kinds, compiled.
#[derive(Debug, Default)]
pub struct Configurations {
    mutating: Compiled<Vec<Webhook>>,
    validating: Compiled<Vec<Webhook>>,
}

impl Configurations {
    /// Configurations from files.
    pub fn take(&self, mutating: bool, objects: Vec<Vec<Value>>) {
        if mutating { self.mutating.fix(objects) } else { self.validating.fix(objects) }
    }

    async fn mutating(&self, server: &Server) -> Result<Arc<Vec<Webhook>>, Error> {
        self.mutating.get(server, GROUP, &["mutatingwebhookconfigurations"], |objects| compile(&objects[0])).await
    }

    async fn validating(&self, server: &Server) -> Result<Arc<Vec<Webhook>>, Error> {
        self.validating.get(server, GROUP, &["validatingwebhookconfigurations"], |objects| compile(&objects[0])).await
    }
}

/// One webhook.
#[derive(Debug)]
pub struct Webhook {
    /// Its name.
    pub name: String,
    /// The configuration that it is in.
    pub configuration: String,
    /// It is from a file: it may see the configurations of admission itself.
    of_file: bool,
    /// Unique among all webhooks; stays the same while the configuration does.
    pub uid: String,
    rules: Vec<Rule>,
    equivalent: bool,
    namespace_selector: Selector,
    object_selector: Selector,
    conditions: MatchConditions,
    /// Whether a webhook that cannot be called is passed over.
    pub ignore_failures: bool,
    /// Whether a dry run may call it.
    side_effects: Option<bool>,
    /// Whether it is asked again after later changes.
    pub reinvoke: bool,
    timeout: Duration,
    /// `v1`, `v1beta1` in the order of preference.
    versions: Vec<String>,
    client: Client,
}

/// Webhooks in the order of their configurations' names.
fn compile(configurations: &[Value]) -> Vec<Webhook> {
    let mut sorted: Vec<&Value> = configurations.iter().collect();
    // Those from files are asked first.
    let of_file = |configuration: &&Value| configuration.name().ends_with(manifests::SUFFIX);
    sorted.sort_by_key(|configuration| (!of_file(configuration), configuration.name()));
    let mut hooks = Vec::new();
    for configuration in sorted {
        let mut seen: std::collections::BTreeMap<String, usize> = std::collections::BTreeMap::new();
        for hook in configuration.list_at(&["webhooks"]) {
            let name = hook.str_at(&["name"]).unwrap_or_default();
            let count = seen.entry(name.to_string()).or_default();
            hooks.push(Webhook::new(configuration.name(), name, *count, hook));
            *count += 1;
        }
    }
    hooks
}

impl Webhook {
    fn new(configuration: &str, name: &str, count: usize, hook: &Value) -> Self {
        let text = |field: &str| hook.str_at(&[field]);
        let ignore_failures = text("failurePolicy") == Some("Ignore");
        let seconds = hook.i64_at(&["timeoutSeconds"]).and_then(|s| u64::try_from(s).ok()).unwrap_or(10).clamp(1, 30);
        Webhook {
            name: name.to_string(),
            configuration: configuration.to_string(),
            of_file: configuration.ends_with(manifests::SUFFIX),
            uid: format!("{configuration}/{name}/{count}"),
            rules: hook.list_at(&["rules"]).iter().map(Rule::new).collect(),
            equivalent: text("matchPolicy") != Some("Exact"),
            namespace_selector: rules::selector(hook.get("namespaceSelector")),
            object_selector: rules::selector(hook.get("objectSelector")),
            conditions: MatchConditions::new(hook.list_at(&["matchConditions"]), false, !ignore_failures),
            ignore_failures,
            side_effects: text("sideEffects").map(|effects| !matches!(effects, "None" | "NoneOnDryRun")),
            reinvoke: text("reinvocationPolicy") == Some("IfNeeded"),
            timeout: Duration::from_secs(seconds),
            versions: hook
                .list_at(&["admissionReviewVersions"])
                .iter()
                .filter_map(Value::as_str)
                .map(str::to_string)
                .collect(),
            client: Client::new(hook.get("clientConfig").unwrap_or(&Value::Null)),
        }
    }

    /// The version in which the webhook wants to see the request, if it wants to see it at all.
    async fn wants(
        &self,
        server: &Server,
        step: Step,
        attributes: &Attributes<'_>,
        object: &Value,
        old: Option<&Value>,
    ) -> Result<Option<Arc<Served>>, Status> {
        if !self.of_file && rules::is_exempt(attributes) {
            return Ok(None);
        }
        // The rules are looked at first: they cost nothing, and most webhooks are not about most requests.
        let Some(matched) = rules::find(&self.rules, self.equivalent, server, attributes) else { return Ok(None) };
        if !rules::object_matches(&self.object_selector, object, old)
            || !rules::namespace_matches(&self.namespace_selector, server, attributes, object).await?
        {
            return Ok(None);
        }
        if self.conditions.is_empty() {
            return Ok(Some(matched));
        }
        let inputs = Inputs::new(attributes, &matched, object, old).await?;
        let decider = Decider::new(server, attributes.user);
        let begun = server.clock.monotonic();
        let held = self.conditions.hold(&inputs.activation(None, Some(&decider.caller())));
        let subject = Subject { name: &self.name, kind: "webhook", step, operation: attributes.operation };
        server.metrics.admission.conditions(subject, held.value(), server.clock.monotonic() - begun);
        match held.verdict() {
            Ok(true) => Ok(Some(matched)),
            Ok(false) => Ok(None),
            Err(error) => Err(attributes.forbidden(error)),
        }
    }
}

/// What became of a call.
enum Failure {
    /// The webhook could not be asked, or answered nonsense: why, and a code for metrics. What that means for the request
    /// is up to the webhook's failure policy.
    Calling(String, u16),
    /// It refused.
    Refused(Status),
    /// What it answered could not be done, or it could not have been asked rightfully.
    Internal(Status),
}

impl Webhook {
    /// The status of a failed call that counts.
    fn calling(&self, reason: &str) -> Status {
        Status::internal(format!("failed calling webhook {:?}: {reason}", self.name))
    }

    /// Counts a call.
    fn observe<T>(
        &self,
        server: &Server,
        step: Step,
        attributes: &Attributes<'_>,
        answer: &Result<T, Failure>,
        took: Duration,
    ) {
        let ending = match answer {
            Ok(_) => Ending::Allowed,
            Err(Failure::Calling(_, code)) => Ending::Uncalled(*code, self.ignore_failures),
            Err(Failure::Refused(status)) => Ending::Refused(status.code),
            Err(Failure::Internal(_)) => Ending::Internal,
        };
        server.metrics.admission.webhook(&self.name, step, attributes.operation, ending, took);
    }

    /// Asks the webhook; `object` and `old` are in the matched version.
    async fn ask(
        &self,
        server: &Arc<Server>,
        attributes: &Attributes<'_>,
        matched: &Served,
        object: &Value,
        old: &Value,
        step: Step,
    ) -> Result<review::Answer, Failure> {
        if attributes.dry_run {
            match self.side_effects {
                None => return Err(Failure::Calling("Webhook SideEffects is nil".to_string(), 400)),
                Some(true) => {
                    let text = format!("admission webhook {:?} does not support dry run", self.name);
                    return Err(Failure::Internal(Status::bad_request(text)));
                }
                Some(false) => {}
            }
        }
        let version = self.versions.iter().find(|version| matches!(version.as_str(), "v1" | "v1beta1"));
        let Some(version) = version else {
            let text = "could not create admission objects: webhook does not accept known AdmissionReview versions (v1, v1beta1)";
            return Err(Failure::Calling(text.to_string(), 400));
        };
        let (uid, body) = review::request(version, attributes, matched, object, old);
        let called =
            |text: &dyn std::fmt::Display, code| Failure::Calling(format!("failed to call webhook: {text}"), code);
        let layer = if step == Step::Admit { Layer::MutatingWebhook } else { Layer::ValidatingWebhook };
        let timing = attributes.review.latencies.begin(layer);
        let answer = self.client.post(server, &body, self.timeout).await;
        drop(timing);
        let answer = answer.map_err(|error| match &error {
            crate::webhook::Error::Client(text) => {
                Failure::Calling(format!("could not get REST client: {text}"), error.code())
            }
            crate::webhook::Error::Call { .. } => called(&error, error.code()),
        })?;
        let answer = review::verify(version, &uid, &answer, step == Step::Admit).map_err(|error| match error {
            Unusable::Unreadable(text) => called(&text, 503),
            Unusable::Invalid(text) => Failure::Calling(format!("received invalid webhook response: {text}"), 503),
        })?;
        for (key, value) in &answer.annotations {
            attributes.review.annotate(&format!("{}/{key}", self.name), value);
        }
        for warning in &answer.warnings {
            attributes.warn(warning.clone());
        }
        if answer.allowed { Ok(answer) } else { Err(Failure::Refused(review::refusal(&self.name, answer.status))) }
    }
}
