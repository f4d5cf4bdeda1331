//! Which requests a webhook or a policy is about: rules, selectors, and equivalent versions of a resource.

use std::sync::Arc;

use apimachinery::gvk::{GroupVersion, GroupVersionKind};
use apimachinery::labels::Selector;
use apimachinery::object::ObjectExt as _;
use apimachinery::status::Status;
use serde_json::Value;

use super::{Attributes, Operation};
use crate::cache::Freshness;
use crate::codec::body::{self, Expected};
use crate::registry::{Served, checks};
use crate::request::accept::Encoding;
use crate::request::options::FieldValidation;
use crate::server::Server;

/// Kinds that configure admission are never subject to it: they could not be mended.
const EXEMPT: [&str; 6] = [
    "ValidatingWebhookConfiguration",
    "MutatingWebhookConfiguration",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
    "MutatingAdmissionPolicy",
    "MutatingAdmissionPolicyBinding",
];

/// Whether a request is about a kind that configures admission.
pub fn is_exempt(attributes: &Attributes<'_>) -> bool {
    let resource = &attributes.served.resource;
    resource.group == "admissionregistration.k8s.io" && EXEMPT.iter().any(|kind| resource.kind == *kind)
}

/// A rule: operations on resources.
#[derive(Debug)]
pub struct Rule {
    groups: Vec<String>,
    versions: Vec<String>,
    resources: Vec<String>,
    operations: Vec<String>,
    scope: String,
    /// Of policies: only objects of these names; empty means all.
    names: Vec<String>,
}

impl Rule {
    /// Reads a `RuleWithOperations`, with the names of a policy's.
    pub fn new(rule: &Value) -> Self {
        let texts =
            |name: &str| rule.list_at(&[name]).iter().filter_map(Value::as_str).map(str::to_string).collect::<Vec<_>>();
        Rule {
            groups: texts("apiGroups"),
            versions: texts("apiVersions"),
            resources: texts("resources"),
            operations: texts("operations"),
            scope: rule.str_at(&["scope"]).unwrap_or("*").to_string(),
            names: texts("resourceNames"),
        }
    }

    fn matches(&self, served: &Served, attributes: &Attributes<'_>) -> bool {
        let any = |list: &[String], wanted: &str| list.iter().any(|have| have == "*" || have == wanted);
        let resource = &served.resource;
        let namespaces = resource.group.is_empty() && resource.plural == "namespaces";
        let namespaced = !namespaces && !attributes.namespace.is_empty();
        let scope = match self.scope.as_str() {
            "Namespaced" => namespaced,
            "Cluster" => !namespaced,
            _ => true,
        };
        scope
            && any(&self.operations, attributes.operation.as_str())
            && any(&self.groups, &resource.group)
            && any(&self.versions, &resource.version)
            && self.resources.iter().any(|have| {
                let (plural, subresource) = have.split_once('/').unwrap_or((have, ""));
                (plural == "*" || plural == resource.plural)
                    && (subresource == "*" || subresource == attributes.subresource)
            })
            && (self.names.is_empty() || self.names.contains(&attributes.name))
    }
}

/// The version of the resource that rules ask for: the one of the request if a rule names it, else (with match policy
/// `Equivalent`) another in which the same objects are served.
pub fn find(rules: &[Rule], equivalent: bool, server: &Server, attributes: &Attributes<'_>) -> Option<Arc<Served>> {
    let own = requested(server, attributes)?;
    if rules.iter().any(|rule| rule.matches(&own, attributes)) {
        return Some(own);
    }
    if !equivalent {
        return None;
    }
    // Versions of one resource share where its objects are.
    let cache = own.cache.as_ref()?;
    let mut others = server.registry.rows();
    others.retain(|other| other.cache.as_ref().is_some_and(|other| Arc::ptr_eq(other, cache)));
    others.retain(|other| !Arc::ptr_eq(other, &own));
    rules.iter().find_map(|rule| others.iter().find(|other| rule.matches(other, attributes)).cloned())
}

/// The row of the request.
pub fn requested(server: &Server, attributes: &Attributes<'_>) -> Option<Arc<Served>> {
    let resource = &attributes.served.resource;
    server.registry.find(&resource.group, &resource.version, &resource.plural)
}

/// The namespace that a request is in; for a Namespace itself, its name.
pub fn namespace<'a>(attributes: &'a Attributes<'_>) -> &'a str {
    if is_namespace(attributes) { &attributes.name } else { &attributes.namespace }
}

fn is_namespace(attributes: &Attributes<'_>) -> bool {
    attributes.served.resource.group.is_empty() && attributes.served.resource.plural == "namespaces"
}

/// Whether the labels of the request's namespace match. Objects without a namespace always do.
///
/// # Errors
/// 404 when the namespace is not there.
pub async fn namespace_matches(
    selector: &Selector,
    server: &Server,
    attributes: &Attributes<'_>,
    object: &Value,
) -> Result<bool, Status> {
    let name = namespace(attributes);
    if (name.is_empty() && !is_namespace(attributes)) || selector.is_empty() {
        return Ok(true);
    }
    let empty = serde_json::Map::new();
    let changes = matches!(attributes.operation, Operation::Create | Operation::Update);
    if is_namespace(attributes) && attributes.subresource.is_empty() && changes {
        return Ok(selector.matches(object.labels().unwrap_or(&empty)));
    }
    let namespace = read_namespace(server, name).await?;
    Ok(selector.matches(namespace.labels().unwrap_or(&empty)))
}

/// A Namespace.
///
/// # Errors
/// 404 when it is not there.
pub async fn read_namespace(server: &Server, name: &str) -> Result<Value, Status> {
    let missing = || Status::not_found(&apimachinery::gvk::GroupResource::new("", "namespaces"), name);
    let served = server.registry.any_version("", "namespaces").ok_or_else(missing)?;
    let cache = served.cache.as_ref().ok_or_else(missing)?;
    let key = served.key("", name);
    if let Some(entry) = cache.cached(&key) {
        return Ok(entry.tree());
    }
    let entry = cache.get(&key, Freshness::Consistent).await.map_err(crate::handlers::errors::of_read)?;
    entry.map(|entry| entry.tree()).ok_or_else(missing)
}

/// Whether the labels of the new or the old object match.
pub fn object_matches(selector: &Selector, object: &Value, old: Option<&Value>) -> bool {
    if selector.is_empty() {
        return true;
    }
    let empty = serde_json::Map::new();
    let matches = |object: &Value| object.is_object() && selector.matches(object.labels().unwrap_or(&empty));
    matches(object) || old.is_some_and(matches)
}

/// Reads a label selector; one that cannot be read matches nothing, as upstream refuses to store it.
pub fn selector(of: Option<&Value>) -> Selector {
    match of {
        None | Some(Value::Null) => Selector::everything(),
        some => Selector::from_label_selector(some).unwrap_or_else(|_| Selector::nothing()),
    }
}

/// An object of the pipeline in the version of a row.
///
/// # Errors
/// When a conversion webhook fails.
pub async fn in_version(matched: &Served, attributes: &Attributes<'_>, object: &Value) -> Result<Value, Status> {
    if object.is_null()
        || attributes.is_foreign()
        || (matched.custom().is_some() && is_same(matched, attributes.served))
    {
        return Ok(object.clone());
    }
    match matched.custom() {
        Some(custom) => custom.under_review(object.clone()).await,
        None => matched.present(object.clone()).await,
    }
}

/// An object in the version of a row, changed by a review, as the pipeline works on it: with defaults, and without
/// what its schema does not know.
///
/// # Errors
/// When it is no such object any more, or a conversion webhook fails.
pub async fn to_pipeline(matched: &Served, attributes: &Attributes<'_>, object: Value) -> Result<Value, Status> {
    match attributes.served.custom() {
        _ if attributes.is_foreign() => Ok(object),
        None => Ok(matched.to_storage(object)),
        Some(_) if object.kind() != &*matched.resource.kind => Ok(object),
        Some(custom) => custom.reviewed(object).await,
    }
}

fn is_same(a: &Served, b: &Served) -> bool {
    Arc::ptr_eq(&a.resource, &b.resource)
}

/// Brings what a review made of an object into form, in the version of a row: defaults come. What a built-in kind does
/// not know goes; what a custom one does not know may be known to the version of the request ([`to_pipeline`]).
///
/// # Errors
/// When it is no such object any more.
pub fn settle(server: &Server, matched: &Served, object: &mut Value) -> Result<(), Status> {
    if object.kind() != &*matched.resource.kind {
        // What a subresource takes is no object of the resource.
        return Ok(());
    }
    if let Some(custom) = matched.custom() {
        return custom.settle_reviewed(object).map_err(Status::internal);
    }
    read(server, matched, object)
}

/// Reads a built-in object of whatever version of the row's kind.
fn read(server: &Server, matched: &Served, object: &mut Value) -> Result<(), Status> {
    let resource = &matched.resource;
    let other = GroupVersion::parse(object.api_version())
        .ok()
        .filter(|version| version.group == *resource.group && version.version != *resource.version)
        .and_then(|version| server.registry.find(&version.group, &version.version, &resource.plural))
        .filter(|row| *row.resource.kind == *object.kind());
    let row = other.as_deref().unwrap_or(matched);
    let bytes = object.to_string();
    let read = body::read_as(bytes.as_bytes(), Encoding::Json, &expected(row), FieldValidation::Ignore);
    *object = read.map_err(|misread| misfit(misread.error))?.object;
    checks::default(&row.resource, object, server);
    if other.is_some() {
        *object = matched.from_storage(row.to_storage(object.take()));
    }
    Ok(())
}

/// The refusal of what is no object of the kind that was asked about: only what can be read fails as it is converted.
fn misfit(error: String) -> Status {
    match error.starts_with("converting (") {
        true => Status::failure(500, "", error),
        false => Status::internal(error),
    }
}

/// As [`settle`], of what a webhook's patch made of the object of a request, which may be one of a subresource's kind.
///
/// # Errors
/// 500 when it says that it is something else.
pub fn settle_patched(
    server: &Server,
    matched: &Served,
    attributes: &Attributes<'_>,
    object: &mut Value,
) -> Result<(), Status> {
    if !attributes.is_foreign() {
        let Some(custom) = matched.custom() else { return read(server, matched, object) };
        custom.still_fits(object, &attributes.served.resource.version)?;
        return settle(server, matched, object);
    }
    let (group, version, kind) = super::kind_of(matched, attributes.subresource);
    let wanted = GroupVersionKind::new(group.to_owned(), version.to_owned(), kind.to_owned());
    let text = object.to_string();
    if let Some(mismatch) = body::other_kind(object.api_version(), object.kind(), &wanted, text.as_bytes()) {
        return Err(misfit(mismatch.text()));
    }
    object.set_api_version(&wanted.api_version());
    object.set_kind(&wanted.kind);
    Ok(())
}

/// As [`settle`], of what a JSON patch made of an object of the row's kind: upstream reads it strictly.
///
/// # Errors
/// 500 when it is no such object any more or has fields that its kind does not have.
pub fn read_strictly(server: &Server, matched: &Served, object: &mut Value) -> Result<(), Status> {
    if matched.custom().is_some() {
        return settle(server, matched, object);
    }
    let bytes = object.to_string();
    let read = body::read_as(bytes.as_bytes(), Encoding::Json, &expected(matched), FieldValidation::Strict);
    let decoded = read.map_err(|misread| {
        // Another kind is read as what it is, and is then no object of this one.
        let what = if misread.error.starts_with("converting (") { "failed to convert object: " } else { "" };
        Status::internal(format!("{what}{}", misread.error))
    })?;
    *object = decoded.object;
    checks::default(&matched.resource, object, server);
    Ok(())
}

fn expected(matched: &Served) -> Expected<'_> {
    let resource = &matched.resource;
    let kind =
        GroupVersionKind::new(resource.group.to_string(), resource.version.to_string(), resource.kind.to_string());
    Expected { kind, schema: matched.schema(), empty: false }
}
