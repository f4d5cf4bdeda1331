//! Admission policies: rules in CEL, bound to requests. What both kinds share: whom a policy is about, its parameters,
//! its variables.
//!
//! Upstream: `staging/src/k8s.io/apiserver/pkg/admission/plugin/policy`.

mod mutating;
mod validating;
mod variables;

pub use mutating::MutatingAdmissionPolicy;
pub use validating::ValidatingAdmissionPolicy;

use std::sync::Arc;

use apimachinery::gvk::{GroupVersion, GroupVersionKind};
use apimachinery::labels::Selector;
use apimachinery::object::ObjectExt as _;
use apimachinery::status::Status;
use serde_json::Value;

use super::chain::Step;
use super::compiled::Compiled;
use super::expression::{Expression, MatchConditions};
use super::rules::{self, Rule};
use super::{Attributes, manifests};
use crate::cache::{Error, Freshness};
use crate::registry::Served;
use crate::server::Server;
use crate::server::metrics::Subject;

/// Upstream's names of the plugins.
pub const MUTATING: &str = "MutatingAdmissionPolicy";
pub const VALIDATING: &str = "ValidatingAdmissionPolicy";

const GROUP: &str = "admissionregistration.k8s.io";

/// What the expressions of one policy and binding may cost together.
const BUDGET: u64 = 10_000_000;

/// The policies of both kinds, compiled.
#[derive(Debug, Default)]
pub struct Policies {
    validating: Compiled<Vec<Policy<validating::Rules>>>,
    mutating: Compiled<Vec<Policy<mutating::Mutations>>>,
}

impl Policies {
    /// Policies and bindings from files.
    pub fn take(&self, mutating: bool, objects: Vec<Vec<Value>>) {
        if mutating { self.mutating.fix(objects) } else { self.validating.fix(objects) }
    }

    async fn validating(&self, server: &Server) -> Result<Arc<Vec<Policy<validating::Rules>>>, Error> {
        let plurals = ["validatingadmissionpolicies", "validatingadmissionpolicybindings"];
        self.validating
            .get(server, GROUP, &plurals, |objects| compile(&objects[0], &objects[1], validating::compile))
            .await
    }

    async fn mutating(&self, server: &Server) -> Result<Arc<Vec<Policy<mutating::Mutations>>>, Error> {
        let plurals = ["mutatingadmissionpolicies", "mutatingadmissionpolicybindings"];
        self.mutating.get(server, GROUP, &plurals, |objects| compile(&objects[0], &objects[1], mutating::compile)).await
    }
}

/// A policy with its bindings. `R` is what it says.
#[derive(Debug)]
struct Policy<R> {
    name: String,
    constraints: Constraints,
    conditions: MatchConditions,
    /// Whether a request fails with a policy that fails.
    fail: bool,
    params: Option<GroupVersionKind>,
    variables: Vec<(String, Expression)>,
    rules: R,
    bindings: Vec<Binding>,
}

/// A binding.
#[derive(Debug)]
struct Binding {
    name: String,
    constraints: Option<Constraints>,
    /// `paramRef`.
    params: Option<Value>,
    /// `validationActions`.
    actions: Vec<String>,
}

/// `matchConstraints` of a policy or `matchResources` of a binding.
#[derive(Debug)]
struct Constraints {
    rules: Vec<Rule>,
    exclude: Vec<Rule>,
    equivalent: bool,
    namespace_selector: Selector,
    object_selector: Selector,
}

/// What the rules of a policy are compiled from.
struct Scope<'s> {
    spec: &'s Value,
    params: bool,
    variables: &'s api::expressions::Variables,
}

impl Scope<'_> {
    fn env(&self, authorizer: bool, patches: bool) -> cel::Env {
        let options = api::expressions::Options { params: self.params, authorizer, patches };
        self.variables.within(api::expressions::environment(options))
    }
}

/// The policies that are bound, in the order of their names.
fn compile<R>(policies: &[Value], bindings: &[Value], rules: impl Fn(&Scope<'_>) -> R) -> Vec<Policy<R>> {
    let mut bound: Vec<Policy<R>> = Vec::new();
    for policy in policies {
        let name = policy.name();
        let of = |binding: &&Value| binding.str_at(&["spec", "policyName"]) == Some(name);
        let bindings: Vec<Binding> = bindings.iter().filter(of).map(Binding::new).collect();
        let Some(spec) = policy.get("spec").filter(|_| !bindings.is_empty()) else { continue };
        bound.push(Policy::new(name, spec, bindings, &rules));
    }
    // Those from files are asked first.
    let of_file = |policy: &Policy<R>| policy.name.ends_with(manifests::SUFFIX);
    bound.sort_by(|a, b| of_file(b).cmp(&of_file(a)).then_with(|| a.name.cmp(&b.name)));
    bound
}

impl<R> Policy<R> {
    fn new(name: &str, spec: &Value, bindings: Vec<Binding>, rules: impl Fn(&Scope<'_>) -> R) -> Self {
        let fail = spec.str_at(&["failurePolicy"]) != Some("Ignore");
        let params = spec.get("paramKind").filter(|kind| kind.is_object()).map(|kind| {
            let version = GroupVersion::parse(kind.api_version()).unwrap_or_default();
            GroupVersionKind::new(version.group, version.version, kind.kind())
        });
        let mut declared = api::expressions::Variables::of(spec.list_at(&["variables"]).len());
        let mut variables = Vec::new();
        let options = api::expressions::Options { params: params.is_some(), authorizer: true, patches: false };
        for variable in spec.list_at(&["variables"]) {
            let name = variable.str_at(&["name"]).unwrap_or_default();
            let env = declared.within(api::expressions::environment(options));
            let expression = Expression::new(&env, variable.str_at(&["expression"]).unwrap_or_default(), &[]);
            declared.add(name, expression.output_type());
            variables.push((name.to_string(), expression));
        }
        let scope = Scope { spec, params: params.is_some(), variables: &declared };
        Policy {
            name: name.to_string(),
            constraints: Constraints::new(spec.get("matchConstraints").unwrap_or(&Value::Null)),
            conditions: MatchConditions::new(spec.list_at(&["matchConditions"]), params.is_some(), fail),
            fail,
            params,
            rules: rules(&scope),
            variables,
            bindings,
        }
    }
}

impl<R> Policy<R> {
    /// Whether the policy's conditions hold for a request.
    fn holds(
        &self,
        server: &Server,
        attributes: &Attributes<'_>,
        step: Step,
        variables: &cel::Activation<'_>,
    ) -> Result<bool, String> {
        if self.conditions.is_empty() {
            return Ok(true);
        }
        let begun = server.clock.monotonic();
        let held = self.conditions.hold(variables);
        let subject = Subject { name: &self.name, kind: "policy", step, operation: attributes.operation };
        server.metrics.admission.conditions(subject, held.value(), server.clock.monotonic() - begun);
        held.verdict()
    }
}

/// How metrics name what is wrong.
fn error_type(text: &str) -> &'static str {
    if text.contains("compilation error") {
        "compile_error"
    } else if text.contains(super::expression::OUT_OF_BUDGET) {
        "out_of_budget"
    } else {
        "invalid_error"
    }
}

impl Binding {
    fn new(binding: &Value) -> Self {
        let spec = |field: &str| binding.at(&["spec", field]).filter(|value| value.is_object());
        Binding {
            name: binding.name().to_string(),
            constraints: spec("matchResources").map(Constraints::new),
            params: spec("paramRef").cloned(),
            actions: binding
                .list_at(&["spec", "validationActions"])
                .iter()
                .filter_map(Value::as_str)
                .map(str::to_string)
                .collect(),
        }
    }

    /// Whether the binding is about a request.
    async fn matches(
        &self,
        server: &Server,
        attributes: &Attributes<'_>,
        object: &Value,
        old: Option<&Value>,
    ) -> Result<bool, Status> {
        match &self.constraints {
            None => Ok(true),
            Some(constraints) => constraints.find(server, attributes, object, old).await.map(|found| found.is_some()),
        }
    }
}

impl Constraints {
    fn new(resources: &Value) -> Self {
        let rules = |field: &str| resources.list_at(&[field]).iter().map(Rule::new).collect();
        Constraints {
            rules: rules("resourceRules"),
            exclude: rules("excludeResourceRules"),
            equivalent: resources.str_at(&["matchPolicy"]) != Some("Exact"),
            namespace_selector: rules::selector(resources.get("namespaceSelector")),
            object_selector: rules::selector(resources.get("objectSelector")),
        }
    }

    /// The version in which a request is looked at, if it is one of these at all.
    async fn find(
        &self,
        server: &Server,
        attributes: &Attributes<'_>,
        object: &Value,
        old: Option<&Value>,
    ) -> Result<Option<Arc<Served>>, Status> {
        let found = if self.rules.is_empty() {
            rules::requested(server, attributes)
        } else {
            rules::find(&self.rules, self.equivalent, server, attributes)
        };
        let Some(found) = found else { return Ok(None) };
        if rules::find(&self.exclude, self.equivalent, server, attributes).is_some()
            || !rules::object_matches(&self.object_selector, object, old)
            || !rules::namespace_matches(&self.namespace_selector, server, attributes, object).await?
        {
            return Ok(None);
        }
        Ok(Some(found))
    }
}

/// The parameters of a binding: each is a run of the policy of its own. `None` is a run without.
async fn params(
    server: &Server,
    kind: Option<&GroupVersionKind>,
    binding: &Binding,
    namespace: &str,
) -> Result<Vec<Option<Value>>, String> {
    let Some(kind) = kind else { return Ok(vec![None]) };
    let Some(reference) = &binding.params else { return Ok(vec![None]) };
    let served = param_resource(server, kind)?;
    let cache = served.cache.as_ref().ok_or_else(|| unknown(kind))?;
    let named = reference.str_at(&["namespace"]).unwrap_or_default();
    let namespace = match (served.resource.namespaced, named, namespace) {
        (false, "", _) => "",
        (false, ..) => return Err("paramRef.namespace must not be provided for a cluster-scoped `paramKind`".into()),
        (true, "", "") => {
            let text = "cannot use namespaced paramRef in policy binding that matches cluster-scoped resources";
            return Err(text.into());
        }
        (true, "", own) => own,
        (true, named, _) => named,
    };
    let selector = reference.get("selector").filter(|selector| selector.is_object());
    let found: Vec<Value> = match (reference.str_at(&["name"]).unwrap_or_default(), selector) {
        ("", None) => return Err("one of name or selector must be provided".into()),
        ("", Some(selector)) => {
            let selector = rules::selector(Some(selector));
            let snapshot = cache.snapshot(Freshness::Any).await.map_err(|error| error.to_string())?;
            let within = served.resource.namespaced.then_some(namespace);
            let empty = serde_json::Map::new();
            let objects = snapshot.range(within, None).map(|entry| entry.tree());
            objects.filter(|object| selector.matches(object.labels().unwrap_or(&empty))).collect()
        }
        (_, Some(_)) => return Err("paramRef.name and paramRef.selector are mutually exclusive".into()),
        (name, None) => cache.cached(&served.key(namespace, name)).map(|entry| entry.tree()).into_iter().collect(),
    };
    if found.is_empty() && reference.str_at(&["parameterNotFoundAction"]) == Some("Deny") {
        return Err("no params found for policy binding with `Deny` parameterNotFoundAction".into());
    }
    Ok(found.into_iter().map(|object| Some(served.from_storage(object))).collect())
}

/// The resource of a kind of parameters.
fn param_resource(server: &Server, kind: &GroupVersionKind) -> Result<Arc<Served>, String> {
    let is = |served: &&Arc<Served>| {
        let resource = &served.resource;
        resource.group == *kind.group && resource.version == *kind.version && resource.kind == *kind.kind
    };
    server
        .registry
        .rows()
        .iter()
        .find(|served| is(served) && served.cache.is_some())
        .cloned()
        .ok_or_else(|| unknown(kind))
}

fn unknown(kind: &GroupVersionKind) -> String {
    let version = if kind.group.is_empty() { kind.version.clone() } else { format!("{}/{}", kind.group, kind.version) };
    format!("failed to find resource referenced by paramKind: '{version}, Kind={}'", kind.kind)
}

/// The Namespace that a request is in, as expressions see it. `null` for what is in none.
async fn namespace_object(server: &Server, attributes: &Attributes<'_>) -> Result<Value, Status> {
    let own = attributes.served.resource.group.is_empty() && attributes.served.resource.plural == "namespaces";
    let name = if own { "" } else { attributes.namespace.as_str() };
    if name.is_empty() {
        return Ok(Value::Null);
    }
    let mut namespace = rules::read_namespace(server, name).await?;
    for field in ["managedFields", "ownerReferences", "selfLink"] {
        namespace.remove_at(&["metadata", field]);
    }
    if let Some(map) = namespace.as_object_mut() {
        map.remove("apiVersion");
        map.remove("kind");
    }
    Ok(namespace)
}
