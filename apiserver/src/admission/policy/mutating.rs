//! `MutatingAdmissionPolicy`: expressions that make patches, JSON patches or apply configurations.

use std::sync::Arc;

use apimachinery::fieldset;
use apimachinery::object::ObjectExt as _;
use apimachinery::patch;
use apimachinery::schema::TypeRef;
use apimachinery::status::{Cause, Status};
use async_trait::async_trait;
use cel::Value as Cel;
use serde_json::Value;

use super::variables;
use super::{BUDGET, Binding, Policy, Scope, error_type, namespace_object, params};
use crate::admission::chain::Step;
use crate::admission::expression::{Decider, Expression, Inputs};
use crate::admission::{Attributes, Plugin, rules as matching};
use crate::registry::Served;
use crate::server::Server;
use crate::server::metrics::Check;

/// What a policy says.
#[derive(Debug)]
pub struct Mutations {
    mutations: Vec<Mutation>,
    /// Whether it is asked again after later changes.
    reinvoke: bool,
}

#[derive(Debug)]
enum Mutation {
    JsonPatch(Expression),
    Apply(Expression),
}

/// Compiles the mutations of a policy.
pub fn compile(scope: &Scope<'_>) -> Mutations {
    let env = scope.env(true, true);
    let mutation = |mutation: &Value| {
        let text = |field: &str| mutation.str_at(&[field, "expression"]).unwrap_or_default().trim().to_string();
        match mutation.str_at(&["patchType"]) {
            Some("JSONPatch") => {
                Mutation::JsonPatch(Expression::new(&env, &text("jsonPatch"), &[api::expressions::json_patch()]))
            }
            _ => Mutation::Apply(Expression::new(&env, &text("applyConfiguration"), &[api::expressions::object()])),
        }
    };
    Mutations {
        mutations: scope.spec.list_at(&["mutations"]).iter().map(mutation).collect(),
        reinvoke: scope.spec.str_at(&["reinvocationPolicy"]) == Some("IfNeeded"),
    }
}

/// A policy that could not be applied.
struct Problem {
    policy: String,
    binding: Option<String>,
    message: String,
    /// Whether the reason is `Invalid` rather than `Forbidden`.
    invalid: bool,
}

impl Problem {
    fn text(&self) -> String {
        let Problem { policy, binding, message, .. } = self;
        match binding {
            Some(binding) => format!("policy '{policy}' with binding '{binding}' denied request: {message}"),
            None => format!("policy {policy:?} denied request: {message}"),
        }
    }
}

/// Why a mutation, or a policy as a whole, came to nothing.
enum Failure {
    /// The policy says what comes of it.
    Policy(String),
    /// The request ends with it.
    Request(Status),
}

impl Failure {
    fn text(&self) -> &str {
        match self {
            Failure::Policy(text) => text,
            Failure::Request(status) => &status.message,
        }
    }
}

impl From<String> for Failure {
    fn from(text: String) -> Self {
        Failure::Policy(text)
    }
}

/// The plugin.
pub struct MutatingAdmissionPolicy;

#[async_trait]
impl Plugin for MutatingAdmissionPolicy {
    async fn mutate(
        &self,
        server: &Arc<Server>,
        attributes: &Attributes<'_>,
        object: &mut Value,
        old: Option<&Value>,
    ) -> Result<(), Status> {
        let policies = server.policies.mutating(server).await.map_err(|error| attributes.not_ready(&error))?;
        if policies.is_empty() || matching::is_exempt(attributes) {
            return Ok(());
        }
        let again = attributes.review.begin(|state| &mut state.policies, object);
        let (mut problems, mut applied) = (Vec::new(), false);
        for policy in policies.iter() {
            match Box::pin(each(server, attributes, policy, again, object, old, &mut problems)).await {
                Ok(any) => applied |= any,
                Err(problem) => {
                    attributes.review.end(|state| &mut state.policies, object);
                    return Err(problem);
                }
            }
        }
        if applied {
            // Now the last of them counts as well as those before it.
            attributes.review.changed(|state| &mut state.policies);
        }
        attributes.review.end(|state| &mut state.policies, object);
        refuse(attributes, &problems)
    }
}

fn refuse(attributes: &Attributes<'_>, problems: &[Problem]) -> Result<(), Status> {
    let Some(first) = problems.first() else { return Ok(()) };
    let mut status = attributes.forbidden("");
    status.message = first.text();
    if first.invalid {
        status.reason = "Invalid".into();
    }
    if let Some(details) = &mut status.details {
        details.causes.extend(problems.iter().map(|problem| Cause::new("", problem.text(), "")));
    }
    Err(status)
}

/// Asks one policy; answers whether any mutation was applied.
///
/// # Errors
/// What ends the request, whatever the policy says of failures.
async fn each(
    server: &Arc<Server>,
    attributes: &Attributes<'_>,
    policy: &Policy<Mutations>,
    again: bool,
    object: &mut Value,
    old: Option<&Value>,
    problems: &mut Vec<Problem>,
) -> Result<bool, Status> {
    let mut applied = false;
    let problem = |binding: Option<&Binding>, message: String, invalid: bool| {
        policy.fail.then(|| Problem {
            policy: policy.name.clone(),
            binding: binding.map(|binding| binding.name.clone()),
            message,
            invalid,
        })
    };
    let configured = |binding: Option<&Binding>, error: &str| {
        let what = if binding.is_some() { "binding" } else { "policy" };
        problem(binding, format!("failed to configure {what}: {error}"), false)
    };
    let matched = match policy.constraints.find(server, attributes, object, old).await {
        Ok(Some(matched)) => matched,
        Ok(None) => return Ok(false),
        Err(error) => {
            problems.extend(configured(None, &error.message));
            return Ok(false);
        }
    };
    if let Some(kind) = &policy.params
        && let Err(error) = super::param_resource(server, kind)
    {
        problems.extend(configured(None, &error));
        return Ok(false);
    }
    for binding in &policy.bindings {
        match binding.matches(server, attributes, object, old).await {
            Ok(true) => {}
            Ok(false) => continue,
            Err(error) => {
                problems.extend(configured(Some(binding), &error.message));
                continue;
            }
        }
        let params = match params(server, policy.params.as_ref(), binding, &attributes.namespace).await {
            Ok(params) => params,
            Err(error) => {
                problems.extend(configured(Some(binding), &error));
                continue;
            }
        };
        let namespace = namespace_object(server, attributes).await?;
        for param in params {
            let key = {
                let param = param.as_ref();
                let (namespace, name) = (param.map(|p| p.namespace()), param.map(|p| p.name()));
                format!("{}/{}/{:?}/{:?}", policy.name, binding.name, namespace, name)
            };
            if again && !attributes.review.is_wanted_again(|state| &mut state.policies, &key) {
                continue;
            }
            let mut inputs = Inputs::new(attributes, &matched, object, old).await?;
            inputs.namespace = namespace.clone();
            let before = inputs.object.clone();
            let failed = match apply(server, attributes, policy, &matched, &mut inputs, param.as_ref(), &binding.name) {
                Ok(Some(failed)) => failed,
                Ok(None) => continue,
                Err(Failure::Policy(message)) => {
                    problems.extend(problem(Some(binding), message, true));
                    continue;
                }
                Err(Failure::Request(status)) => return Err(status),
            };
            applied |= failed.len() < policy.rules.mutations.len();
            problems.extend(failed.into_iter().filter_map(|message| problem(Some(binding), message, true)));
            if inputs.object != before {
                attributes.review.changed(|state| &mut state.policies);
                *object = matching::to_pipeline(&matched, attributes, inputs.object).await?;
            }
            if policy.rules.reinvoke {
                attributes.review.asked(|state| &mut state.policies, &key);
            }
        }
    }
    Ok(applied)
}

/// Applies the mutations of a policy to `inputs.object`. `None` when the policy is not about it, else what is wrong with
/// mutations that could not be applied: those after them are applied all the same.
fn apply(
    server: &Server,
    attributes: &Attributes<'_>,
    policy: &Policy<Mutations>,
    matched: &Served,
    inputs: &mut Inputs,
    param: Option<&Value>,
    binding: &str,
) -> Result<Option<Vec<String>>, Failure> {
    if inputs.object.is_null() {
        return Ok(None);
    }
    let decider = Decider::new(server, attributes.user);
    let caller = decider.caller();
    let null = Value::Null;
    let params = policy.params.as_ref().map(|_| param.unwrap_or(&null));
    if !policy.holds(server, attributes, Step::Admit, &inputs.activation(params, Some(&caller)))? {
        return Ok(None);
    }
    let mut failed = Vec::new();
    for mutation in &policy.rules.mutations {
        let activation = inputs.activation(params, Some(&caller));
        let begun = server.clock.monotonic();
        let made = mutated(server, policy, mutation, matched, &activation, &inputs.object);
        let took = server.clock.monotonic() - begun;
        let error = made.as_ref().map_or_else(|failure| error_type(failure.text()), |_| "no_error");
        server.metrics.admission.mutated(&Check { policy: &policy.name, binding, error, took });
        match made {
            Ok(next) => inputs.object = next,
            Err(Failure::Policy(message)) => failed.push(message),
            Err(failure @ Failure::Request(_)) => return Err(failure),
        }
    }
    Ok(Some(failed))
}

/// What one mutation makes of an object.
fn mutated(
    server: &Server,
    policy: &Policy<Mutations>,
    mutation: &Mutation,
    matched: &Served,
    activation: &cel::Activation<'_>,
    object: &Value,
) -> Result<Value, Failure> {
    let (Mutation::JsonPatch(expression) | Mutation::Apply(expression)) = mutation;
    let made = variables::with(&policy.variables, activation, &mut |variables| {
        let mut budget = BUDGET;
        let value = variables.eval(expression, activation, &mut budget).map_err(|e| e.text().to_string())?;
        check_names(&value)?;
        let json = |error: cel::Error| {
            format!("JSONPath valueExpression evaluated to a type that could not marshal to JSON: {error}")
        };
        value.to_json().map_err(json)
    })?;
    match mutation {
        Mutation::JsonPatch(_) => {
            let mut next = json_patch(object, made)?;
            if object.kind() == &*matched.resource.kind {
                matching::read_strictly(server, matched, &mut next).map_err(Failure::Request)?;
            }
            Ok(next)
        }
        Mutation::Apply(_) => {
            let mut next = merge(object, made, type_of(object, matched)?)?;
            matching::settle(server, matched, &mut next).map_err(|status| status.message)?;
            Ok(next)
        }
    }
}

/// What an object is merged by; subresources take objects of other kinds.
fn type_of<'a>(object: &Value, matched: &'a Served) -> Result<TypeRef<'a>, String> {
    let (api_version, kind) = (object.api_version(), object.kind());
    if kind == &*matched.resource.kind {
        return Ok(matched.schema());
    }
    // Upstream looks among the types of the resource's own group and version.
    let (group, version) = (&matched.resource.group, &matched.resource.version);
    let known = api::table().find_kind(group, version, kind).filter(|_| api_version == matched.api_version());
    known.ok_or_else(|| mistyped(&format!("no corresponding type for {api_version}, Kind={kind}")))
}

fn mistyped(error: &str) -> String {
    format!("error applying patch: failed to convert patch object to typed object: {error}")
}

/// Applies a JSON patch. One whose `test` fails changes nothing.
fn json_patch(object: &Value, mut operations: Value) -> Result<Value, String> {
    for operation in operations.as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
        // Upstream writes both down, said or not.
        for field in ["op", "path"] {
            operation.entry(field).or_insert_with(|| "".into());
        }
    }
    let mut patched = object.clone();
    match patch::json::apply(&mut patched, &operations) {
        Ok(()) => Ok(patched),
        Err(patch::json::Error::TestFailed(_)) => Ok(object.clone()),
        Err(error) => Err(format!("JSON Patch: {error}")),
    }
}

/// Merges an apply configuration, which may not touch what is atomic: it would take away all it does not mention.
fn merge(object: &Value, mut config: Value, of: TypeRef<'_>) -> Result<Value, String> {
    config.set_api_version(object.api_version());
    config.set_kind(object.kind());
    whole_numbers(&mut config);
    fieldset::validate(&config, of, false).map_err(|error| mistyped(&error))?;
    let atomics = fieldset::atomics(&config, of);
    if !atomics.is_empty() {
        let list = atomics.join(", ");
        return Err(format!(
            "error applying patch: invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: {list}"
        ));
    }
    fieldset::merge(object, &config, of)
        .map_err(|error| format!("error applying patch: failed to merge patch: {error}"))
}

/// Writes doubles without a fraction as integers, which Go's JSON does not tell apart.
fn whole_numbers(value: &mut Value) {
    match value {
        Value::Number(number) if number.is_f64() => {
            let double = number.as_f64().unwrap_or_default();
            // Beyond this not every integer is a double.
            if double.fract() == 0.0 && double.abs() < 9e15 {
                *value = Value::from(double as i64);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(whole_numbers),
        Value::Object(map) => map.values_mut().for_each(whole_numbers),
        _ => {}
    }
}

/// Objects must be named by the path to them: `Object.spec` in the field `spec` of an `Object`.
fn check_names(value: &Cel<'_>) -> Result<(), String> {
    let mut wrong = Vec::new();
    match value {
        Cel::Object(_) => names(value, "Object", &mut wrong),
        Cel::List(patches) => {
            for patch in patches.iter() {
                if let Ok(Cel::Object(patch)) = patch
                    && let Some(value @ Cel::Object(object)) = patch.fields.get("value")
                {
                    // A value of a patch may be any part of an object.
                    names(value, &object.decl.name.clone(), &mut wrong);
                }
            }
        }
        _ => {}
    }
    if wrong.is_empty() { Ok(()) } else { Err(format!("type mismatch: {}", wrong.join("\n"))) }
}

fn names(value: &Cel<'_>, path: &str, wrong: &mut Vec<String>) {
    match value {
        Cel::Object(object) => {
            let name = &object.decl.name;
            if name != path {
                wrong.push(format!(
                    "unexpected type name {name:?}, expected {path:?}, which matches field name path from root Object type"
                ));
            }
            for (field, value) in &object.fields {
                names(value, &format!("{path}.{field}"), wrong);
            }
        }
        Cel::List(list) => list.iter().flatten().for_each(|item| names(&item, path, wrong)),
        Cel::Map(map) => {
            for key in map.keys() {
                if let Ok(Some(value)) = map.get(&key) {
                    names(&value, path, wrong);
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_failed_test_changes_nothing() {
        let object = json!({"a": 1});
        let patch = json!([{"op": "test", "path": "/a", "value": 2}, {"op": "remove", "path": "/a"}]);
        assert_eq!(json_patch(&object, patch), Ok(object.clone()));
        let patch = json!([{"op": "remove", "path": "/b"}]);
        assert!(json_patch(&object, patch).is_err_and(|error| error.starts_with("JSON Patch: ")));
    }

    #[test]
    fn atomic_parts_may_not_be_applied() {
        let pod = api::table().find_kind("", "v1", "Pod").expect("Pod is in the table");
        let config = json!({"spec": {"nodeSelector": {"a": "b"}, "containers": [{"name": "c", "command": ["x"]}]}});
        let error = merge(&json!({"apiVersion": "v1", "kind": "Pod"}), config, pod).expect_err("atomic");
        assert!(error.contains(".spec.containers[0].command, .spec.nodeSelector"), "{error}");
        let config = json!({"metadata": {"labels": {"x": "y"}}});
        let object = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"labels": {"a": "b"}}});
        let merged = merge(&object, config, pod).expect("labels are granular");
        assert_eq!(merged["metadata"]["labels"], json!({"a": "b", "x": "y"}));
    }
}
