//! CEL in admission: what expressions see, match conditions, and who answers `authorizer`.

use std::sync::Arc;

use apimachinery::object::ObjectExt as _;
use apimachinery::status::Status;
use cel::{Activation, AuthorizationRequest, Authorize, Authorizer, Decision, Program, Subject, Value as Cel};
use futures::FutureExt as _;
use serde_json::{Value, json};

use super::rules;
use super::{Attributes, aggregate};
use crate::authorization;
use crate::registry::Served;
use crate::request::UserInfo;
use crate::server::Server;

/// What the match conditions of one webhook or policy may cost together.
const MATCH_CONDITIONS_BUDGET: u64 = 2_500_000;

/// The message when a budget is used up.
pub const OUT_OF_BUDGET: &str =
    "validation failed due to running out of cost budget, no further validation rules will be run";

/// An expression that was compiled, or why it was not.
#[derive(Debug)]
pub struct Expression {
    /// The text.
    pub text: String,
    program: Result<Program, String>,
}

impl Expression {
    /// Compiles an expression; types are those it may be of (empty: any).
    pub fn new(env: &cel::Env, text: &str, types: &[cel::Type]) -> Self {
        let program = api::expressions::compile(env, text, types).map_err(|refusal| refusal.detail().to_string());
        Expression { text: text.to_string(), program }
    }

    /// The type of its value, if it compiles.
    pub fn output_type(&self) -> Option<&cel::Type> {
        self.program.as_ref().ok().map(Program::output_type)
    }

    /// Why it does not compile.
    pub fn error(&self) -> Option<&str> {
        self.program.as_ref().err().map(String::as_str)
    }

    /// Evaluates it, taking its cost from the budget. `extra` is what lazily evaluated parts cost, once it is known.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn eval<'a>(
        &self,
        variables: &Activation<'a>,
        budget: &mut u64,
        extra: impl FnOnce() -> u64,
    ) -> Result<Cel<'a>, Failure> {
        let program = match &self.program {
            Ok(program) => program,
            Err(error) => return Err(Failure::Expression(format!("compilation error: {error}"))),
        };
        let evaluated = program.eval(variables, cel::PER_CALL_LIMIT);
        *budget = budget
            .checked_sub(extra().saturating_add(evaluated.cost))
            .ok_or_else(|| Failure::Budget(OUT_OF_BUDGET.to_string()))?;
        evaluated
            .value
            .map_err(|error| Failure::Expression(format!("expression '{}' resulted in error: {error}", self.text)))
    }

    /// Evaluates it: the value, and what it cost.
    pub fn eval_alone<'a>(&self, variables: &Activation<'a>) -> (cel::Result<'a>, u64) {
        match &self.program {
            Ok(program) => {
                let evaluated = program.eval(variables, cel::PER_CALL_LIMIT);
                (evaluated.value, evaluated.cost)
            }
            Err(error) => (Err(cel::Error::new(error.clone())), 0),
        }
    }
}

/// Why an expression has no value.
#[derive(Clone, Debug)]
pub enum Failure {
    /// The expression failed; others may still be evaluated.
    Expression(String),
    /// The budget is used up; nothing else is evaluated.
    Budget(String),
}

impl Failure {
    /// The words.
    pub fn text(&self) -> &str {
        match self {
            Failure::Expression(text) | Failure::Budget(text) => text,
        }
    }
}

/// What expressions see of a request, in the version that was matched.
#[derive(Debug)]
pub struct Inputs {
    /// `object`
    pub object: Value,
    /// `oldObject`
    pub old: Value,
    /// `request`
    pub request: Value,
    /// `namespaceObject`
    pub namespace: Value,
}

impl Inputs {
    /// Takes a request in the version of `matched`.
    ///
    /// # Errors
    /// When a conversion webhook fails.
    pub async fn new(
        attributes: &Attributes<'_>,
        matched: &Served,
        object: &Value,
        old: Option<&Value>,
    ) -> Result<Self, Status> {
        Ok(Inputs {
            object: rules::in_version(matched, attributes, object).await?,
            old: rules::in_version(matched, attributes, old.unwrap_or(&Value::Null)).await?,
            request: request(attributes, matched, false),
            namespace: Value::Null,
        })
    }

    /// The variables of an expression. `params` is `None` where there are none.
    pub fn activation<'a>(&'a self, params: Option<&'a Value>, authorizer: Option<&Caller<'a>>) -> Activation<'a> {
        // Without a declaration every JSON value can be read.
        let plain = |json: &'a Value| Cel::from_json(json, None).unwrap_or(Cel::Null);
        let mut variables = Activation::new()
            .with("object", plain(&self.object))
            .with("oldObject", plain(&self.old))
            .with("request", plain(&self.request))
            .with("namespaceObject", plain(&self.namespace));
        if let Some(params) = params {
            variables.set("params", plain(params));
        }
        if let Some(caller) = authorizer {
            let authorizer = Authorizer::new(caller.decider);
            let text = |path: &[&str]| self.request.str_at(path).unwrap_or_default();
            let own = authorizer.resource(
                text(&["requestResource", "group"]),
                text(&["requestResource", "resource"]),
                text(&["requestSubResource"]),
                text(&["namespace"]),
                text(&["name"]),
            );
            variables.set("authorizer", Cel::Authorizer(authorizer));
            variables.set("authorizer.requestResource", own);
        }
        variables
    }
}

/// Who `authorizer` speaks for.
pub struct Caller<'a> {
    decider: &'a dyn Authorize,
}

/// Answers `authorizer` with the server's own authorizers.
pub struct Decider<'a> {
    server: &'a Server,
    user: &'a Arc<UserInfo>,
}

impl<'a> Decider<'a> {
    /// For the user of a request.
    pub fn new(server: &'a Server, user: &'a Arc<UserInfo>) -> Self {
        Decider { server, user }
    }

    /// As expressions take it.
    pub fn caller(&'a self) -> Caller<'a> {
        Caller { decider: self }
    }
}

impl Authorize for Decider<'_> {
    fn authorize(&self, subject: Subject<'_>, request: &AuthorizationRequest<'_>) -> Decision {
        let user = match subject {
            Subject::User => self.user.clone(),
            Subject::ServiceAccount { namespace, name } => Arc::new(UserInfo::new(
                &format!("system:serviceaccount:{namespace}:{name}"),
                &["system:serviceaccounts", &format!("system:serviceaccounts:{namespace}")],
            )),
        };
        let attributes = match request {
            AuthorizationRequest::Path { path, verb } => authorization::Attributes {
                user,
                verb: (*verb).to_string(),
                path: (*path).to_string(),
                ..authorization::Attributes::default()
            },
            AuthorizationRequest::Resource { check, verb } => authorization::Attributes {
                user,
                verb: (*verb).to_string(),
                namespace: check.namespace.clone(),
                group: check.group.clone(),
                version: "*".to_string(),
                resource: check.resource.clone(),
                subresource: check.subresource.clone(),
                name: check.name.clone(),
                is_resource: true,
                field_selector: apimachinery::fields::Selector::parse(&check.field_selector)
                    .map(|selector| selector.requirements)
                    .unwrap_or_default(),
                label_selector: apimachinery::labels::Selector::parse(&check.label_selector)
                    .map(|selector| selector.requirements().to_vec())
                    .unwrap_or_default(),
                ..authorization::Attributes::default()
            },
        };
        // An expression is evaluated without waiting; only a webhook authorizer has to be waited for.
        let decide = || self.server.authorizer.decide(&attributes);
        let decision = match decide().now_or_never() {
            Some(decision) => decision,
            None => match tokio::runtime::Handle::try_current() {
                Ok(runtime) if runtime.runtime_flavor() == tokio::runtime::RuntimeFlavor::MultiThread => {
                    tokio::task::block_in_place(|| runtime.block_on(decide()))
                }
                _ => authorization::Decision::NoOpinion("the authorizer cannot be waited for here".to_string()),
            },
        };
        match decision {
            authorization::Decision::Allow(reason) => Decision { allowed: true, reason, error: None },
            authorization::Decision::Deny(reason) | authorization::Decision::NoOpinion(reason) => {
                Decision { allowed: false, reason, error: None }
            }
        }
    }
}

/// An `AdmissionRequest` without the objects; `review` is one for a webhook, where what is empty is spelled out.
pub fn request(attributes: &Attributes<'_>, matched: &Served, review: bool) -> Value {
    let row = |served: &Served| {
        let resource = &served.resource;
        let (group, version, kind) = super::kind_of(served, attributes.subresource);
        (
            json!({"group": group, "version": version, "kind": kind}),
            json!({"group": resource.group, "version": resource.version, "resource": resource.plural}),
        )
    };
    let (kind, resource) = row(matched);
    let (request_kind, request_resource) = row(attributes.served);
    let mut request = json!({
        "kind": kind,
        "resource": resource,
        "requestKind": request_kind,
        "requestResource": request_resource,
        "operation": attributes.operation.as_str(),
        "userInfo": attributes.user.to_value(),
        "dryRun": attributes.dry_run,
    });
    let mut set = |name: &str, value: &str| {
        if !value.is_empty() {
            request[name] = value.into();
        }
    };
    set("subResource", attributes.subresource);
    set("requestSubResource", attributes.subresource);
    set("name", &attributes.name);
    set("namespace", rules::namespace(attributes));
    let options = attributes.review.options.to_value();
    if review || !options.is_null() {
        request["options"] = options;
    }
    request
}

/// The conditions under which a webhook or a policy is asked at all.
#[derive(Debug)]
pub struct MatchConditions {
    conditions: Vec<Expression>,
    /// Whether the request fails with a condition that fails.
    fail: bool,
}

impl MatchConditions {
    /// Compiles `matchConditions`.
    pub fn new(conditions: &[Value], params: bool, fail: bool) -> Self {
        let options = api::expressions::Options { params, authorizer: true, patches: false };
        let env = api::expressions::environment(options);
        let compile = |condition: &Value| {
            Expression::new(env, condition.str_at(&["expression"]).unwrap_or_default().trim(), &[cel::Type::Bool])
        };
        MatchConditions { conditions: conditions.iter().map(compile).collect(), fail }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.conditions.is_empty()
    }

    /// Whether all hold. One that is false decides, whatever others come to.
    pub fn hold(&self, variables: &Activation<'_>) -> Held {
        let mut budget = MATCH_CONDITIONS_BUDGET;
        let mut failed = Vec::new();
        for condition in &self.conditions {
            match condition.eval(variables, &mut budget, || 0) {
                Ok(Cel::Bool(false)) => return Held::No,
                Ok(_) => {}
                Err(Failure::Expression(text)) => failed.push(text),
                Err(Failure::Budget(text)) => return Held::Unknown(text, self.fail),
            }
        }
        if failed.is_empty() { Held::Yes } else { Held::Unknown(aggregate(failed), self.fail) }
    }
}

/// Whether conditions hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    Yes,
    No,
    /// Why nobody knows, and whether the request fails with that.
    Unknown(String, bool),
}

impl Held {
    /// Whether they do, if that is known.
    pub fn value(&self) -> Option<bool> {
        match self {
            Held::Yes => Some(true),
            Held::No => Some(false),
            Held::Unknown(..) => None,
        }
    }

    /// Whether to go on: conditions that cannot be evaluated spare the call where failures are ignored.
    ///
    /// # Errors
    /// What failed, when that fails the request.
    pub fn verdict(self) -> Result<bool, String> {
        match self {
            Held::Yes => Ok(true),
            Held::No | Held::Unknown(_, false) => Ok(false),
            Held::Unknown(text, true) => Err(text),
        }
    }
}
