//! SelfSubjectRulesReview: everything that the asking user may do in a namespace.

use apimachinery::object::ObjectExt as _;
use apimachinery::status::Status;
use serde_json::{Value, json};

use crate::authorization::Authorizer as _;
use crate::authorization::rbac::rule::Rule;
use crate::server::walk::Context;

/// Answers the review.
///
/// # Errors
/// 400 without a namespace.
pub fn review(cx: &Context, review: &mut Value) -> Result<(), Status> {
    let namespace = review.str_at(&["spec", "namespace"]).unwrap_or_default().to_string();
    if namespace.is_empty() {
        return Err(Status::bad_request("no namespace on request"));
    }
    let found = cx.server.authorizer.rules_for(&cx.user, &namespace);
    let (mut resources, mut paths) = (Vec::new(), Vec::new());
    for rule in &found.rules {
        if !rule.resources.is_empty() {
            resources.push(resource_rule(rule));
        }
        if !rule.non_resource_urls.is_empty() {
            paths.push(json!({"verbs": rule.verbs, "nonResourceURLs": rule.non_resource_urls}));
        }
    }
    let mut status = json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": found.incomplete});
    if !found.errors.is_empty() {
        status["evaluationError"] = found.errors.join(", ").into();
    }
    // Upstream's answer is a new object: nothing of the question is in it.
    review["metadata"] = json!({});
    review["spec"] = json!({});
    review["status"] = status;
    Ok(())
}

fn resource_rule(rule: &Rule) -> Value {
    let mut value = json!({"verbs": rule.verbs});
    for (field, list) in
        [("apiGroups", &rule.api_groups), ("resources", &rule.resources), ("resourceNames", &rule.resource_names)]
    {
        if !list.is_empty() {
            value[field] = json!(list);
        }
    }
    value
}
