//! `ValidatingAdmissionPolicy`: expressions that must hold for a request to be let through.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::object::ObjectExt as _;
use apimachinery::status::{Cause, Status};
use async_trait::async_trait;
use cel::Value as Cel;
use serde_json::{Value, json};

use super::variables::{self, Evaluation};
use super::{BUDGET, Binding, Policy, Scope, error_type, namespace_object, params};
use crate::admission::chain::Step;
use crate::admission::expression::{Decider, Expression, Failure, Inputs};
use crate::admission::{Attributes, Plugin, rules as matching};
use crate::server::Server;
use crate::server::metrics::Check;

/// A message that an expression made may not be longer.
const LONGEST_MESSAGE: usize = 5 * 1024;

/// What a policy says.
#[derive(Debug)]
pub struct Rules {
    validations: Vec<Validation>,
    annotations: Vec<(String, Expression)>,
}

#[derive(Debug)]
struct Validation {
    expression: Expression,
    message: String,
    message_expression: Option<Expression>,
    reason: String,
}

/// Compiles the validations of a policy.
pub fn compile(scope: &Scope<'_>) -> Rules {
    let (env, message_env) = (scope.env(true, false), scope.env(false, false));
    let text = |value: &Value, field: &str| value.str_at(&[field]).unwrap_or_default().to_string();
    let validation = |validation: &Value| {
        let message_expression = text(validation, "messageExpression");
        Validation {
            expression: Expression::new(&env, &text(validation, "expression"), &[cel::Type::Bool]),
            message: text(validation, "message").trim().to_string(),
            message_expression: (!message_expression.is_empty())
                .then(|| Expression::new(&message_env, &message_expression, &[cel::Type::String])),
            reason: text(validation, "reason"),
        }
    };
    let annotation = |annotation: &Value| {
        let expression = text(annotation, "valueExpression");
        let types = [cel::Type::String, cel::Type::Null];
        (text(annotation, "key"), Expression::new(&env, expression.trim(), &types))
    };
    Rules {
        validations: scope.spec.list_at(&["validations"]).iter().map(validation).collect(),
        annotations: scope.spec.list_at(&["auditAnnotations"]).iter().map(annotation).collect(),
    }
}

/// What one run of a policy came to.
#[derive(Default)]
struct Outcome {
    denials: Vec<Denial>,
    /// Annotations that could not be made.
    errors: Vec<String>,
    annotations: Vec<(String, String)>,
    /// Validations without a value that nobody minds.
    ignored: Vec<(&'static str, Duration)>,
}

#[derive(Default)]
struct Denial {
    /// Why it has no value, for metrics.
    error: &'static str,
    took: Duration,
    /// The place of the validation.
    index: usize,
    message: String,
    reason: String,
}

/// A refusal, to be shown if it is the first.
struct Refusal<'p> {
    policy: &'p str,
    binding: Option<&'p str>,
    message: String,
    reason: String,
}

/// What bindings may do about a denial, and how metrics call that.
const ACTIONS: [(&str, &str); 3] = [("Deny", "deny"), ("Audit", "audit"), ("Warn", "warn")];

/// The plugin.
pub struct ValidatingAdmissionPolicy;

#[async_trait]
impl Plugin for ValidatingAdmissionPolicy {
    async fn validate(
        &self,
        server: &Arc<Server>,
        attributes: &Attributes<'_>,
        object: &Value,
        old: Option<&Value>,
    ) -> Result<(), Status> {
        let policies = server.policies.validating(server).await.map_err(|error| attributes.not_ready(&error))?;
        if policies.is_empty() || matching::is_exempt(attributes) {
            return Ok(());
        }
        let mut refusals: Vec<Refusal<'_>> = Vec::new();
        for policy in policies.iter() {
            Box::pin(judge(server, attributes, policy, object, old, &mut refusals)).await?;
        }
        match refusals.into_iter().next() {
            None => Ok(()),
            Some(refusal) => Err(status(attributes, &refusal)),
        }
    }
}

fn status(attributes: &Attributes<'_>, refusal: &Refusal<'_>) -> Status {
    let (policy, text) = (refusal.policy, &refusal.message);
    let message = match refusal.binding {
        Some(binding) => {
            format!("ValidatingAdmissionPolicy '{policy}' with binding '{binding}' denied request: {text}")
        }
        None => format!("ValidatingAdmissionPolicy '{policy}' denied request: {text}"),
    };
    let mut status = attributes.forbidden(&message);
    let (reason, code) = match refusal.reason.as_str() {
        "Unauthorized" => ("Unauthorized", 401),
        "Forbidden" => ("Forbidden", 403),
        "RequestEntityTooLarge" => ("RequestEntityTooLarge", 413),
        _ => ("Invalid", 422),
    };
    status.reason = reason.into();
    status.code = code;
    if let Some(details) = &mut status.details {
        details.causes.push(Cause::new("", message, ""));
    }
    status
}

/// What a policy or binding that cannot be used means for the request.
fn misconfigured<'p>(policy: &'p Policy<Rules>, binding: Option<&'p Binding>, error: &str) -> Option<Refusal<'p>> {
    let what = if binding.is_some() { "binding" } else { "policy" };
    policy.fail.then(|| Refusal {
        policy: &policy.name,
        binding: binding.map(|binding| binding.name.as_str()),
        message: format!("failed to configure {what}: {error}"),
        reason: String::new(),
    })
}

async fn judge<'p>(
    server: &Arc<Server>,
    attributes: &Attributes<'_>,
    policy: &'p Policy<Rules>,
    object: &Value,
    old: Option<&Value>,
    refusals: &mut Vec<Refusal<'p>>,
) -> Result<(), Status> {
    let matched = match policy.constraints.find(server, attributes, object, old).await {
        Ok(Some(matched)) => matched,
        Ok(None) => return Ok(()),
        Err(error) => {
            refusals.extend(misconfigured(policy, None, &error.message));
            return Ok(());
        }
    };
    if let Some(kind) = &policy.params
        && let Err(error) = super::param_resource(server, kind)
    {
        refusals.extend(misconfigured(policy, None, &error));
        return Ok(());
    }
    let mut inputs: Option<Inputs> = None;
    let mut annotations: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for binding in &policy.bindings {
        match binding.matches(server, attributes, object, old).await {
            Ok(true) => {}
            Ok(false) => continue,
            Err(error) => {
                refusals.extend(misconfigured(policy, Some(binding), &error.message));
                continue;
            }
        }
        let params = match params(server, policy.params.as_ref(), binding, &attributes.namespace).await {
            Ok(params) => params,
            Err(error) => {
                refusals.extend(misconfigured(policy, Some(binding), &error));
                continue;
            }
        };
        if inputs.is_none() {
            let mut made = Inputs::new(attributes, &matched, object, old).await?;
            made.namespace = namespace_object(server, attributes).await?;
            inputs = Some(made);
        }
        let Some(inputs) = &inputs else { continue };
        for param in &params {
            let outcome = run(server, attributes, policy, inputs, param.as_ref());
            for denial in outcome.denials {
                refusals.extend(act(server, attributes, policy, binding, denial));
            }
            for (error, took) in outcome.ignored {
                let check = Check { policy: &policy.name, binding: &binding.name, error, took };
                server.metrics.admission.validated(&check, "allow");
            }
            refusals.extend(outcome.errors.into_iter().map(|message| Refusal {
                policy: &policy.name,
                binding: Some(&binding.name),
                message,
                reason: String::new(),
            }));
            for (key, value) in outcome.annotations {
                let values = annotations.entry(key).or_default();
                if !values.contains(&value) {
                    values.push(value);
                }
            }
        }
    }
    for (key, values) in annotations {
        attributes.review.annotate(&format!("{}/{key}", policy.name), &values.join(", "));
    }
    Ok(())
}

/// Does what the binding says is to be done about a denial.
fn act<'p>(
    server: &Server,
    attributes: &Attributes<'_>,
    policy: &'p Policy<Rules>,
    binding: &'p Binding,
    denial: Denial,
) -> Option<Refusal<'p>> {
    let Denial { index, message, reason, error, took } = denial;
    let check = Check { policy: &policy.name, binding: &binding.name, error, took };
    for action in &binding.actions {
        if let Some(action) = ACTIONS.iter().find(|(name, _)| name == action) {
            server.metrics.admission.validated(&check, action.1);
        }
        match action.as_str() {
            "Audit" => {
                // Fields in the order of upstream's structure.
                let (message, name, own, actions) =
                    (json!(message), json!(policy.name), json!(binding.name), json!(binding.actions));
                let failure = format!(
                    r#"[{{"message":{message},"policy":{name},"binding":{own},"expressionIndex":{index},"validationActions":{actions}}}]"#
                );
                attributes.review.annotate("validation.policy.admission.k8s.io/validation_failure", &failure);
            }
            "Warn" => attributes.warn(format!(
                "Validation failed for ValidatingAdmissionPolicy '{}' with binding '{}': {message}",
                policy.name, binding.name
            )),
            _ => {}
        }
    }
    let deny = binding.actions.iter().any(|action| action == "Deny");
    deny.then(|| Refusal { policy: &policy.name, binding: Some(&binding.name), message, reason })
}

/// Runs a policy with one set of parameters.
fn run(
    server: &Server,
    attributes: &Attributes<'_>,
    policy: &Policy<Rules>,
    inputs: &Inputs,
    param: Option<&Value>,
) -> Outcome {
    let failed = |message: String| {
        if policy.fail {
            let error = error_type(&message);
            Outcome { denials: vec![Denial { message, error, ..Denial::default() }], ..Outcome::default() }
        } else {
            Outcome::default()
        }
    };
    let decider = Decider::new(server, attributes.user);
    let caller = decider.caller();
    let null = Value::Null;
    let params = policy.params.as_ref().map(|_| param.unwrap_or(&null));
    let activation = inputs.activation(params, Some(&caller));
    match policy.holds(server, attributes, Step::Validate, &activation) {
        Ok(true) => {}
        Ok(false) => return Outcome::default(),
        Err(error) => return failed(error),
    }
    variables::with(&policy.variables, &activation, &mut |variables| {
        let mut outcome = Outcome::default();
        match validate(server, policy, variables, &activation, &mut outcome) {
            Ok(()) => outcome,
            Err(message) => failed(message),
        }
    })
}

/// Evaluates validations, their messages, and annotations. An error ends everything.
fn validate(
    server: &Server,
    policy: &Policy<Rules>,
    variables: &Evaluation<'_>,
    activation: &cel::Activation<'_>,
    outcome: &mut Outcome,
) -> Result<(), String> {
    let mut budget = BUDGET;
    let rules = &policy.rules;
    let mut results = Vec::with_capacity(rules.validations.len());
    for validation in &rules.validations {
        let begun = server.clock.monotonic();
        let result = match variables.eval(&validation.expression, activation, &mut budget) {
            Ok(Cel::Bool(true)) => None,
            Ok(_) => Some(Ok(())),
            Err(Failure::Expression(error)) => Some(Err(error)),
            Err(Failure::Budget(error)) => return Err(error),
        };
        results.push((result, server.clock.monotonic() - begun));
    }
    for (index, (validation, (result, took))) in rules.validations.iter().zip(results).enumerate() {
        match result {
            None => {}
            Some(Err(message)) if policy.fail => {
                let error = error_type(&message);
                outcome.denials.push(Denial { index, message, error, took, ..Denial::default() });
            }
            // Passed over: the policy does not fail with it.
            Some(Err(message)) => outcome.ignored.push((error_type(&message), took)),
            Some(Ok(())) => {
                let message = match message(validation, variables, activation, &mut budget) {
                    Ok(message) => message,
                    Err(error) if policy.fail => format!("failed messageExpression: {error}"),
                    Err(_) => continue,
                };
                let reason = validation.reason.clone();
                outcome.denials.push(Denial { index, message, reason, error: "no_error", took });
            }
        }
    }
    let mut budget = BUDGET;
    for (key, expression) in &rules.annotations {
        match variables.eval(expression, activation, &mut budget) {
            Ok(Cel::String(text)) if !text.trim().is_empty() => {
                outcome.annotations.push((key.clone(), text.trim().to_string()));
            }
            Ok(_) => {}
            Err(Failure::Expression(error)) if policy.fail => outcome.errors.push(error),
            Err(Failure::Expression(_)) => {}
            Err(Failure::Budget(error)) => return Err(error),
        }
    }
    Ok(())
}

/// Why a validation failed, for people: what its expression makes, what it says, or the expression itself.
fn message(
    validation: &Validation,
    variables: &Evaluation<'_>,
    activation: &cel::Activation<'_>,
    budget: &mut u64,
) -> Result<String, String> {
    let made = match &validation.message_expression {
        None => String::new(),
        Some(expression) => match variables.eval(expression, activation, budget) {
            Ok(Cel::String(text)) => text.trim().to_string(),
            Ok(_) | Err(Failure::Expression(_)) => String::new(),
            Err(Failure::Budget(error)) => return Err(error),
        },
    };
    if !made.is_empty() && made.len() <= LONGEST_MESSAGE && !made.contains('\n') {
        return Ok(made);
    }
    if !validation.message.is_empty() {
        return Ok(validation.message.clone());
    }
    Ok(format!("failed expression: {}", validation.expression.text.trim()))
}
