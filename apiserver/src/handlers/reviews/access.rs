//! SubjectAccessReview and its relatives: may somebody do something?

use std::sync::Arc;

use apimachinery::field::{self, ErrorList, Path};
use apimachinery::object::ObjectExt as _;
use apimachinery::status::Status;
use apimachinery::{fields, gotext, labels, names};
use serde_json::{Value, json};

use crate::authorization::{Attributes, Decision};
use crate::registry::Served;
use crate::request::UserInfo;
use crate::server::walk::Context;

const OWN: &str = "selfsubjectaccessreviews";
const LOCAL: &str = "localsubjectaccessreviews";

fn strings(value: &Value, path: &[&str]) -> Vec<String> {
    value.list_at(path).iter().filter_map(Value::as_str).map(str::to_string).collect()
}

fn given<'a>(spec: &'a Value, field: &str) -> Option<&'a Value> {
    spec.get(field).filter(|value| !value.is_null())
}

/// Answers the review.
///
/// # Errors
/// 422 for a question that is none.
pub async fn review(cx: &Context, served: &Served, review: &mut Value) -> Result<(), Status> {
    let kind = served.resource.plural.as_ref();
    let errors = validate(kind, review);
    if !errors.is_empty() {
        // Upstream names no kind here.
        let group = apimachinery::gvk::GroupKind::new(served.resource.group.to_string(), "");
        return Err(Status::invalid(&group, "", &errors));
    }
    let spec = review.get("spec").cloned().unwrap_or_else(|| json!({}));
    let user = if kind == OWN {
        cx.user.clone()
    } else {
        let text = |name: &str| spec.str_at(&[name]).unwrap_or_default().to_string();
        let mut user = UserInfo {
            name: text("user"),
            uid: text("uid"),
            groups: strings(&spec, &["groups"]),
            ..UserInfo::default()
        };
        for (key, _) in spec.map_at(&["extra"]).into_iter().flatten() {
            user.extra.insert(key.clone(), strings(&spec, &["extra", key]));
        }
        Arc::new(user)
    };
    let (attributes, errors) = attributes(user, &spec);
    let (allowed, denied, reason) = match cx.server.authorizer.decide(&attributes).await {
        Decision::Allow(reason) => (true, false, reason),
        Decision::Deny(reason) => (false, true, reason),
        Decision::NoOpinion(reason) => (false, false, reason),
    };
    let mut status = json!({"allowed": allowed});
    if denied {
        status["denied"] = true.into();
    }
    if !reason.is_empty() {
        status["reason"] = reason.into();
    }
    if !errors.is_empty() {
        status["evaluationError"] = errors.join("; ").into();
    }
    review["status"] = status;
    Ok(())
}

fn validate(kind: &str, review: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    let path = Path::new("spec");
    let empty = json!({});
    let spec = review.get("spec").unwrap_or(&empty);
    let resource = given(spec, "resourceAttributes");
    let other = given(spec, "nonResourceAttributes");
    if resource.is_some() && other.is_some() {
        errors.push(field::invalid(
            &path.child("nonResourceAttributes"),
            names_of_go(other),
            "cannot be specified in combination with resourceAttributes",
        ));
    }
    if resource.is_none() && other.is_none() {
        errors.push(field::invalid(
            &path.child("resourceAttributes"),
            field::BadValue::from(Value::Null),
            "exactly one of nonResourceAttributes or resourceAttributes must be specified",
        ));
    }
    let named = spec.str_at(&["user"]).is_some_and(|user| !user.is_empty());
    if kind != OWN && !named && spec.list_at(&["groups"]).is_empty() {
        errors.push(field::invalid(&path.child("user"), "", "at least one of user or group must be specified"));
    }
    if let Some(resource) = resource {
        selectors(&Path::new("spec.resourceAttributes"), resource, &mut errors);
    }
    let mut metadata = review.get("metadata").cloned().unwrap_or_else(|| json!({}));
    let must = if kind == LOCAL { "must be empty except for namespace" } else { "must be empty" };
    if let Some(fields) = metadata.as_object_mut() {
        fields.retain(|name, value| {
            name != "managedFields" && !value.is_null() && !(kind == LOCAL && name == "namespace")
        });
        if !fields.is_empty() {
            errors.push(field::invalid(&Path::new("metadata"), shown(review), must));
        }
    }
    if kind == LOCAL {
        let namespace = resource.and_then(|value| value.str_at(&["namespace"])).unwrap_or_default();
        if resource.is_some() && namespace != review.namespace() {
            errors.push(field::invalid(
                &Path::new("spec.resourceAttributes.namespace"),
                namespace,
                "must match metadata.namespace",
            ));
        }
        if other.is_some() {
            errors.push(field::invalid(
                &Path::new("spec.nonResourceAttributes"),
                names_of_go(other),
                "disallowed on this kind of request",
            ));
        }
    }
    errors
}

/// Metadata as messages show it: whole, and in Go's order.
fn shown(review: &Value) -> field::BadValue {
    let metadata = review.get("metadata").unwrap_or(&Value::Null);
    let ty = api::table().find_kind("authorization.k8s.io", "v1", "SubjectAccessReview");
    ty.and_then(|ty| ty.child("metadata"))
        .map_or_else(|| metadata.into(), |ty| field::BadValue::Raw(gotext::struct_json(ty, metadata)))
}

/// Attributes of a path as upstream writes them in messages: its internal type has no names for JSON.
fn names_of_go(attributes: Option<&Value>) -> Value {
    let text = |name: &str| attributes.and_then(|value| value.str_at(&[name])).unwrap_or_default();
    json!({"Path": text("path"), "Verb": text("verb")})
}

fn selectors(path: &Path, resource: &Value, errors: &mut ErrorList) {
    for name in ["fieldSelector", "labelSelector"] {
        let Some(selector) = given(resource, name) else { continue };
        let path = path.child(name);
        let raw = selector.str_at(&["rawSelector"]).unwrap_or_default();
        let requirements = selector.list_at(&["requirements"]);
        if !raw.is_empty() && !requirements.is_empty() {
            errors.push(field::invalid(
                &path.child("rawSelector"),
                raw,
                "may not specified at the same time as requirements",
            ));
        }
        if raw.is_empty() && requirements.is_empty() {
            let text = format!("when {path} is specified, requirements or rawSelector is required");
            errors.push(field::required(&path.child("requirements"), &text));
        }
        for (index, requirement) in requirements.iter().enumerate() {
            let at = path.child("requirements").index(index);
            let values = requirement.list_at(&["values"]);
            let key = requirement.str_at(&["key"]).unwrap_or_default();
            if name == "fieldSelector" && key.is_empty() {
                errors.push(field::required(&at.child("key"), "must be specified"));
            }
            match requirement.str_at(&["operator"]).unwrap_or_default() {
                "In" | "NotIn" if values.is_empty() => errors
                    .push(field::required(&at.child("values"), "must be specified when `operator` is 'In' or 'NotIn'")),
                "Exists" | "DoesNotExist" if !values.is_empty() => errors.push(field::forbidden(
                    &at.child("values"),
                    "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
                )),
                // An operator of a newer release is no error: its term is left out.
                _ => {}
            }
            if name == "labelSelector" {
                for text in names::qualified_name(key) {
                    errors.push(field::invalid(&at.child("key"), key, &text));
                }
                for (index, value) in values.iter().enumerate() {
                    let value = value.as_str().unwrap_or_default();
                    for text in names::label_value(value) {
                        errors.push(field::invalid(&at.child("values").index(index), value, &text));
                    }
                }
            }
        }
    }
}

/// What is asked, and what of it could not be understood.
fn attributes(user: Arc<UserInfo>, spec: &Value) -> (Attributes, Vec<String>) {
    let mut errors = Vec::new();
    let Some(resource) = given(spec, "resourceAttributes") else {
        let text = |name: &str| spec.str_at(&["nonResourceAttributes", name]).unwrap_or_default().to_string();
        return (Attributes { user, verb: text("verb"), path: text("path"), ..Attributes::default() }, errors);
    };
    let text = |name: &str| resource.str_at(&[name]).unwrap_or_default().to_string();
    let mut note = |name: &str, failed: bool, some: bool| {
        if failed {
            let partially = if some { "partially " } else { "" };
            errors.push(format!("spec.resourceAttributes.{name} {partially}ignored due to parse error"));
        }
    };
    let (field_selector, failed) = field_terms(resource.get("fieldSelector"));
    note("fieldSelector", failed, !field_selector.is_empty());
    let (label_selector, failed) = label_terms(resource.get("labelSelector"));
    note("labelSelector", failed, !label_selector.is_empty());
    let attributes = Attributes {
        user,
        verb: text("verb"),
        namespace: text("namespace"),
        group: text("group"),
        version: Some(text("version")).filter(|version| !version.is_empty()).unwrap_or_else(|| "*".to_string()),
        resource: text("resource"),
        subresource: text("subresource"),
        name: text("name"),
        is_resource: true,
        path: String::new(),
        field_selector,
        label_selector,
    };
    (attributes, errors)
}

/// The terms that can be read, and whether others could not. Dropping a term only widens what is asked.
fn field_terms(selector: Option<&Value>) -> (Vec<fields::Requirement>, bool) {
    let Some(selector) = selector.filter(|selector| !selector.is_null()) else { return (Vec::new(), false) };
    if let Some(raw) = selector.str_at(&["rawSelector"]).filter(|raw| !raw.is_empty()) {
        return match fields::Selector::parse(raw) {
            Ok(selector) => (selector.requirements, false),
            Err(_) => (Vec::new(), true),
        };
    }
    let given = selector.list_at(&["requirements"]);
    let terms: Vec<fields::Requirement> = given
        .iter()
        .filter_map(|term| {
            let negated = match term.str_at(&["operator"])? {
                "In" => false,
                "NotIn" => true,
                _ => return None,
            };
            let [value] = term.list_at(&["values"]) else { return None };
            let field = term.str_at(&["key"]).unwrap_or_default().to_string();
            Some(fields::Requirement { field, negated, value: value.as_str()?.to_string() })
        })
        .collect();
    let failed = terms.len() != given.len();
    (terms, failed)
}

fn label_terms(selector: Option<&Value>) -> (Vec<labels::Requirement>, bool) {
    let Some(selector) = selector.filter(|selector| !selector.is_null()) else { return (Vec::new(), false) };
    if let Some(raw) = selector.str_at(&["rawSelector"]).filter(|raw| !raw.is_empty()) {
        return match labels::Selector::parse(raw) {
            Ok(selector) => (selector.requirements().to_vec(), false),
            Err(_) => (Vec::new(), true),
        };
    }
    let given = selector.list_at(&["requirements"]);
    let terms: Vec<labels::Requirement> = given
        .iter()
        .filter_map(|term| {
            let operator = match term.str_at(&["operator"])? {
                "In" => labels::Operator::In,
                "NotIn" => labels::Operator::NotIn,
                "Exists" => labels::Operator::Exists,
                "DoesNotExist" => labels::Operator::DoesNotExist,
                _ => return None,
            };
            let key = term.str_at(&["key"]).unwrap_or_default();
            labels::Requirement::new(key, operator, strings(term, &["values"])).ok()
        })
        .collect();
    let failed = terms.len() != given.len();
    (terms, failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_checked() {
        let check = |kind: &str, review: Value| {
            let errors = validate(kind, &review);
            if errors.is_empty() { String::new() } else { errors.to_aggregate() }
        };
        let pods = json!({"resource": "pods", "verb": "get"});
        for (kind, review, want) in [
            (OWN, json!({"spec": {"resourceAttributes": pods}}), ""),
            (
                OWN,
                json!({"spec": {}}),
                "spec.resourceAttributes: Invalid value: null: exactly one of nonResourceAttributes or resourceAttributes must be specified",
            ),
            (
                "subjectaccessreviews",
                json!({"spec": {"resourceAttributes": pods}}),
                "spec.user: Invalid value: \"\": at least one of user or group must be specified",
            ),
            (
                "subjectaccessreviews",
                json!({"metadata": {"creationTimestamp": null}, "spec": {"groups": ["a"], "resourceAttributes": pods}}),
                "",
            ),
            (
                OWN,
                json!({
                    "metadata": {
                        "labels": {"b": "<1>", "a": "2"},
                        "managedFields": [{"apiVersion": "v1", "fieldsType": "FieldsV1", "manager": "m"}],
                        "name": "n",
                        "annotations": {"x": "y"},
                    },
                    "spec": {"resourceAttributes": pods},
                }),
                r#"metadata: Invalid value: {"name":"n","labels":{"a":"2","b":"\u003c1\u003e"},"annotations":{"x":"y"},"managedFields":[{"manager":"m","apiVersion":"v1","fieldsType":"FieldsV1"}]}: must be empty"#,
            ),
            (
                LOCAL,
                json!({"metadata": {"namespace": "a"}, "spec": {"user": "u", "resourceAttributes": {"namespace": "b"}}}),
                "spec.resourceAttributes.namespace: Invalid value: \"b\": must match metadata.namespace",
            ),
            (
                OWN,
                json!({"spec": {"resourceAttributes": {"fieldSelector": {}}}}),
                "spec.resourceAttributes.fieldSelector.requirements: Required value: when spec.resourceAttributes.fieldSelector is specified, requirements or rawSelector is required",
            ),
            (
                OWN,
                json!({"spec": {"resourceAttributes": {"fieldSelector": {"requirements": [{"operator": "Later"}]}}}}),
                "spec.resourceAttributes.fieldSelector.requirements[0].key: Required value: must be specified",
            ),
            (
                OWN,
                json!({"spec": {"resourceAttributes": {"labelSelector": {"requirements": [
                    {"key": "a/b/c", "operator": "Later", "values": ["-"]},
                ]}}}}),
                "[spec.resourceAttributes.labelSelector.requirements[0].key: Invalid value: \"a/b/c\": a valid label key must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName'), spec.resourceAttributes.labelSelector.requirements[0].values[0]: Invalid value: \"-\": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')]",
            ),
        ] {
            assert_eq!(check(kind, review), want, "{kind}");
        }
    }

    #[test]
    fn selectors_that_cannot_be_read_are_told() {
        let ask = |selector: Value| {
            let spec = json!({"resourceAttributes": {"fieldSelector": selector}});
            attributes(Arc::default(), &spec)
        };
        let (asked, errors) = ask(json!({"rawSelector": "spec.nodeName=n1"}));
        assert_eq!((asked.field_selector[0].value.as_str(), errors.len()), ("n1", 0));
        let (asked, errors) = ask(json!({"rawSelector": "nonsense"}));
        assert!(asked.field_selector.is_empty());
        assert_eq!(errors, ["spec.resourceAttributes.fieldSelector ignored due to parse error"]);
        let (asked, errors) = ask(json!({"requirements": [
            {"key": "spec.nodeName", "operator": "In", "values": ["n1"]}, {"key": "x", "operator": "Exists"},
        ]}));
        assert_eq!(asked.field_selector.len(), 1);
        assert_eq!(errors, ["spec.resourceAttributes.fieldSelector partially ignored due to parse error"]);
    }
}
