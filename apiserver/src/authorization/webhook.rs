//! Authorization by a webhook: a SubjectAccessReview is sent, its answer kept for a while.
//!
//! Upstream: `apiserver/plugin/pkg/authorizer/webhook` and `apiserver/pkg/authorization/cel`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use component_base::clock::SharedClock;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use apimachinery::labels;

use super::{Asks, Attributes, Authorizer, Decision, Found};
use crate::answers::{Answers, Key};
use crate::remote::{Backoff, Remote};
use crate::request::UserInfo;

/// Decisions kept at a time; upstream's figure.
const CACHED: usize = 8192;
/// Requests whose attributes are longer than this are not kept: a stranger could fill the memory.
const MAX_KEY: usize = 10_000;

/// Pauses of a webhook that is asked again.
const BACKOFF: Backoff = Backoff::webhook(Duration::from_millis(500));

/// What the cost of a condition is estimated with.
const MAX_GROUPS: u64 = 1000;

/// What a webhook's silence means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
pub enum FailurePolicy {
    NoOpinion,
    Deny,
}

/// One webhook of an AuthorizationConfiguration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    pub name: String,
    /// A kubeconfig whose server is asked; without one the cluster's own.
    pub kubeconfig: Option<PathBuf>,
    pub timeout: Duration,
    pub authorized_ttl: Duration,
    pub unauthorized_ttl: Duration,
    /// Of the SubjectAccessReview that is sent.
    pub version: String,
    pub failure: FailurePolicy,
    /// CEL over `request`; all must hold for the webhook to be asked.
    pub conditions: Vec<String>,
}

/// An authorizer behind a webhook.
pub struct Webhook {
    options: Options,
    remote: Arc<dyn Remote>,
    conditions: Vec<cel::Program>,
    declared: Arc<cel::DeclType>,
    answers: Answers<Result<Decision, Arc<str>>>,
}

fn request_type() -> Arc<cel::DeclType> {
    let text = cel::DeclType::string;
    let resource = cel::DeclType::object(
        "resourceAttributes",
        [
            ("namespace", text()),
            ("verb", text()),
            ("group", text()),
            ("version", text()),
            ("resource", text()),
            ("subresource", text()),
            ("name", text()),
        ],
    );
    let path = cel::DeclType::object("nonResourceAttributes", [("path", text()), ("verb", text())]);
    cel::DeclType::object(
        "request",
        [
            ("resourceAttributes", resource),
            ("nonResourceAttributes", path),
            ("user", text()),
            ("uid", text()),
            ("groups", cel::DeclType::list(text(), MAX_GROUPS)),
            ("extra", cel::DeclType::map(cel::DeclType::list(text(), MAX_GROUPS), MAX_GROUPS)),
        ],
    )
}

impl Webhook {
    /// A webhook by these options.
    ///
    /// # Errors
    /// A condition that does not compile, or is no condition.
    pub fn new(options: Options, remote: Arc<dyn Remote>, clock: SharedClock) -> Result<Self, String> {
        let declared = request_type();
        let env = cel::Env::new().declared("request", &declared).sizes(declared.clone());
        let mut conditions = Vec::new();
        for expression in &options.conditions {
            let program = env.compile(expression).map_err(|error| format!("compilation failed: {error}"))?;
            if program.output_type() != &cel::Type::Bool {
                return Err(format!("must evaluate to bool: {expression}"));
            }
            conditions.push(program);
        }
        Ok(Self { options, remote, conditions, declared, answers: Answers::new(clock, CACHED) })
    }

    /// Whether the webhook is about this request at all. A condition that is false settles it; one that
    /// fails makes the failure policy decide.
    fn concerns(&self, spec: &Value) -> Result<bool, String> {
        let value = cel::Value::from_json(spec, Some(&*self.declared)).map_err(|error| format!("{error:?}"))?;
        let variables = cel::Activation::new().with("request", value);
        let mut failed = None;
        for condition in &self.conditions {
            match condition.eval(&variables, cel::PER_CALL_LIMIT).value {
                Ok(cel::Value::Bool(false)) => return Ok(false),
                Ok(_) => {}
                Err(error) => failed = Some(format!("{error:?}")),
            }
        }
        failed.map_or(Ok(true), Err)
    }

    /// What a decision is kept under; `None` when it must not be kept.
    fn key(spec: &Value) -> Option<Key> {
        let text = spec.to_string();
        (text.len() <= MAX_KEY).then(|| Sha256::digest(text).into())
    }

    fn ttl(&self, decision: &Decision) -> Duration {
        match decision {
            Decision::Allow(_) => self.options.authorized_ttl,
            Decision::Deny(_) | Decision::NoOpinion(_) => self.options.unauthorized_ttl,
        }
    }

    fn failed(&self, why: &str) -> Decision {
        tracing::warn!(webhook = self.options.name, why, "the authorization webhook gave no answer");
        match self.options.failure {
            FailurePolicy::NoOpinion => Decision::NoOpinion(String::new()),
            FailurePolicy::Deny => Decision::Deny(String::new()),
        }
    }
}

/// The spec of the review of a request.
fn spec_of(attributes: &Attributes) -> Value {
    let user = &attributes.user;
    let mut spec = json!({"user": user.name, "groups": user.groups, "uid": user.uid, "extra": user.extra});
    if attributes.is_resource {
        spec["resourceAttributes"] = json!({
            "namespace": attributes.namespace, "verb": attributes.verb, "group": attributes.group,
            "version": attributes.version, "resource": attributes.resource,
            "subresource": attributes.subresource, "name": attributes.name,
        });
        if !attributes.field_selector.is_empty() {
            let terms: Vec<Value> = attributes
                .field_selector
                .iter()
                .map(|term| {
                    json!({"key": term.field, "operator": if term.negated { "NotIn" } else { "In" }, "values": [term.value]})
                })
                .collect();
            spec["resourceAttributes"]["fieldSelector"] = json!({"requirements": terms});
        }
        let terms: Vec<Value> = attributes.label_selector.iter().filter_map(label_term).collect();
        if !terms.is_empty() {
            spec["resourceAttributes"]["labelSelector"] = json!({"requirements": terms});
        }
    } else {
        spec["nonResourceAttributes"] = json!({"path": attributes.path, "verb": attributes.verb});
    }
    spec
}

/// A requirement as a review has it. One with an operator that reviews do not know is left out: a selector
/// only narrows what is asked for.
fn label_term(term: &labels::Requirement) -> Option<Value> {
    use labels::Operator;
    let operator = match term.operator {
        Operator::Equals | Operator::DoubleEquals | Operator::In => "In",
        Operator::NotEquals | Operator::NotIn => "NotIn",
        Operator::Exists => "Exists",
        Operator::DoesNotExist => "DoesNotExist",
        Operator::GreaterThan | Operator::LessThan => return None,
    };
    let mut value = json!({"key": term.key, "operator": operator});
    if !term.values.is_empty() {
        value["values"] = json!(term.values);
    }
    Some(value)
}

impl Authorizer for Webhook {
    /// What is known already: nothing is asked.
    fn authorize(&self, attributes: &Attributes) -> Decision {
        let known = Self::key(&spec_of(attributes)).and_then(|key| self.answers.known(&key));
        known.and_then(Result::ok).unwrap_or_else(|| Decision::NoOpinion(String::new()))
    }

    fn asks(&self) -> Option<&dyn Asks> {
        Some(self)
    }

    fn rules_for(&self, _: &UserInfo, _: &str) -> Found {
        let error = "webhook authorizer does not support user rule resolution".to_string();
        Found { incomplete: true, errors: vec![error], ..Found::default() }
    }
}

#[async_trait]
impl Asks for Webhook {
    async fn decide(&self, attributes: &Attributes) -> Decision {
        let spec = spec_of(attributes);
        match self.concerns(&spec) {
            Ok(true) => {}
            Ok(false) => return Decision::NoOpinion(String::new()),
            Err(error) => return self.failed(&error),
        }
        let key = Self::key(&spec);
        let mut sent = spec;
        if self.options.version == "v1beta1"
            && let Some(fields) = sent.as_object_mut()
            && let Some(groups) = fields.remove("groups")
        {
            // The old version's name for them.
            fields.insert("group".to_string(), groups);
        }
        let review = json!({
            "apiVersion": format!("authorization.k8s.io/{}", self.options.version),
            "kind": "SubjectAccessReview", "metadata": {}, "spec": sent,
        });
        let (remote, timeout) = (self.remote.clone(), self.options.timeout);
        let ask = async move { ask(&*remote, &review, timeout).await };
        let answer = match key {
            None => ask.await,
            Some(key) => {
                let ttls = (self.ttl(&Decision::Allow(String::new())), self.ttl(&Decision::Deny(String::new())));
                let kept = async move {
                    let answer = ask.await;
                    let ttl = match &answer {
                        Ok(Decision::Allow(_)) => Some(ttls.0),
                        Ok(_) => Some(ttls.1),
                        // An outage is nobody's verdict.
                        Err(_) => None,
                    };
                    (answer, ttl)
                };
                self.answers.get(key, || kept).await
            }
        };
        answer.unwrap_or_else(|why| self.failed(&why))
    }
}

async fn ask(remote: &dyn Remote, review: &Value, timeout: Duration) -> Result<Decision, Arc<str>> {
    let attempts = BACKOFF.run(|error| error.transient, || remote.ask(review));
    let status = match tokio::time::timeout(timeout, attempts).await {
        Ok(Ok(answer)) => answer.get("status").cloned().unwrap_or_default(),
        Ok(Err(error)) => return Err(error.message.into()),
        Err(_) => return Err("it did not answer in time".into()),
    };
    let flag = |name: &str| status.get(name).and_then(Value::as_bool) == Some(true);
    let reason = status.get("reason").and_then(Value::as_str).unwrap_or_default().to_string();
    match (flag("allowed"), flag("denied")) {
        (true, true) => Err("it both allowed and denied".into()),
        (true, false) => Ok(Decision::Allow(reason)),
        (false, true) => Ok(Decision::Deny(reason)),
        (false, false) => Ok(Decision::NoOpinion(reason)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use component_base::clock::FakeClock;
    use std::sync::atomic::{AtomicUsize, Ordering};

    struct Answers(AtomicUsize, Value);

    #[async_trait]
    impl Remote for Answers {
        async fn ask(&self, review: &Value) -> Result<Value, crate::remote::Failure> {
            self.0.fetch_add(1, Ordering::Relaxed);
            if self.1.is_null() {
                return Err("down".into());
            }
            assert_eq!(review["kind"], "SubjectAccessReview");
            Ok(json!({"status": self.1}))
        }
    }

    fn webhook(answer: Value, failure: FailurePolicy, conditions: &[&str]) -> (Webhook, Arc<Answers>, FakeClock) {
        let clock = FakeClock::new(jiff::Timestamp::from_second(1_800_000_000).unwrap());
        let remote = Arc::new(Answers(AtomicUsize::new(0), answer));
        let options = Options {
            name: "w".into(),
            kubeconfig: None,
            timeout: Duration::from_secs(3),
            authorized_ttl: Duration::from_secs(300),
            unauthorized_ttl: Duration::from_secs(30),
            version: "v1".into(),
            failure,
            conditions: conditions.iter().map(ToString::to_string).collect(),
        };
        (Webhook::new(options, remote.clone(), Arc::new(clock.clone())).unwrap(), remote, clock)
    }

    fn pods(user: &str) -> Attributes {
        Attributes {
            user: UserInfo::new(user, &["dev"]).into(),
            verb: "get".into(),
            resource: "pods".into(),
            namespace: "a".into(),
            is_resource: true,
            ..Attributes::default()
        }
    }

    #[tokio::test]
    async fn answers_are_kept_for_their_time() {
        let (webhook, remote, clock) = webhook(json!({"allowed": true, "reason": "yes"}), FailurePolicy::Deny, &[]);
        let asked = || remote.0.load(Ordering::Relaxed);
        assert_eq!(webhook.authorize(&pods("a")), Decision::NoOpinion(String::new()), "nothing is known yet");
        assert_eq!(webhook.decide(&pods("a")).await, Decision::Allow("yes".into()));
        assert_eq!(webhook.decide(&pods("a")).await, Decision::Allow("yes".into()));
        assert_eq!(webhook.authorize(&pods("a")), Decision::Allow("yes".into()));
        assert_eq!(asked(), 1);
        clock.step(Duration::from_secs(301));
        webhook.decide(&pods("a")).await;
        webhook.decide(&pods("b")).await;
        assert_eq!(asked(), 3);
    }

    #[tokio::test]
    async fn silence_is_judged_by_policy() {
        let (open, ..) = webhook(Value::Null, FailurePolicy::NoOpinion, &[]);
        assert_eq!(open.decide(&pods("a")).await, Decision::NoOpinion(String::new()));
        let (closed, ..) = webhook(Value::Null, FailurePolicy::Deny, &[]);
        assert_eq!(closed.decide(&pods("a")).await, Decision::Deny(String::new()));
        let (liar, ..) = webhook(json!({"allowed": true, "denied": true}), FailurePolicy::Deny, &[]);
        assert_eq!(liar.decide(&pods("a")).await, Decision::Deny(String::new()));
    }

    #[tokio::test]
    async fn conditions_spare_the_webhook() {
        let conditions =
            ["has(request.resourceAttributes)", "!('system:masters' in request.groups)", "request.user != 'b'"];
        let (webhook, remote, _) = webhook(json!({"denied": true}), FailurePolicy::Deny, &conditions);
        assert_eq!(webhook.decide(&pods("a")).await, Decision::Deny(String::new()));
        assert_eq!(webhook.decide(&pods("b")).await, Decision::NoOpinion(String::new()));
        let path = Attributes { path: "/healthz".into(), verb: "get".into(), ..Attributes::default() };
        assert_eq!(webhook.decide(&path).await, Decision::NoOpinion(String::new()));
        assert_eq!(remote.0.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn selectors_are_said() {
        let selector = labels::Selector::parse("a=b,c!=d,e in (f,g),h,!i,j>5").unwrap();
        let attributes = Attributes { label_selector: selector.requirements().to_vec(), ..pods("a") };
        let spec = spec_of(&attributes);
        assert_eq!(
            spec["resourceAttributes"]["labelSelector"]["requirements"],
            json!([
                {"key": "a", "operator": "In", "values": ["b"]},
                {"key": "c", "operator": "NotIn", "values": ["d"]},
                {"key": "e", "operator": "In", "values": ["f", "g"]},
                {"key": "h", "operator": "Exists"},
                {"key": "i", "operator": "DoesNotExist"},
            ])
        );
        assert_eq!(spec_of(&pods("a"))["resourceAttributes"].get("labelSelector"), None);
    }

    #[tokio::test]
    async fn many_who_ask_the_same_ask_once() {
        let (webhook, remote, _) = webhook(json!({"allowed": true}), FailurePolicy::Deny, &[]);
        let who = pods("a");
        let all = futures::future::join_all((0..20).map(|_| webhook.decide(&who))).await;
        assert!(all.iter().all(|decision| *decision == Decision::Allow(String::new())));
        assert_eq!(remote.0.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn bad_conditions_are_refused() {
        let clock = component_base::clock::RealClock::shared();
        let remote: Arc<dyn Remote> = Arc::new(Answers(AtomicUsize::new(0), Value::Null));
        for bad in ["request.nope == 'x'", "request.user"] {
            let options = Options {
                name: String::new(),
                kubeconfig: None,
                timeout: Duration::ZERO,
                authorized_ttl: Duration::ZERO,
                unauthorized_ttl: Duration::ZERO,
                version: "v1".into(),
                failure: FailurePolicy::Deny,
                conditions: vec![bad.into()],
            };
            assert!(Webhook::new(options, remote.clone(), clock.clone()).is_err(), "{bad}");
        }
    }
}
