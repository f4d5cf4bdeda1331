//! Webhook configurations, admission policies and their bindings.

use serde_json::{Value, json};

use super::set::{Tree, at, child, if_nil, items};

pub(super) fn set(kind: &str, object: &mut Value) {
    match kind {
        "ValidatingWebhookConfiguration" | "MutatingWebhookConfiguration" => {
            let Some(object) = object.as_object_mut() else { return };
            for webhook in items(object, "webhooks") {
                self::webhook(webhook);
                if kind == "MutatingWebhookConfiguration" {
                    if_nil(webhook, "reinvocationPolicy", "Never");
                }
            }
        }
        "ValidatingAdmissionPolicy" | "MutatingAdmissionPolicy" => {
            let Some(spec) = at(object, &["spec"]) else { return };
            if_nil(spec, "failurePolicy", "Fail");
            if let Some(resources) = child(spec, "matchConstraints") {
                match_resources(resources);
            }
        }
        "ValidatingAdmissionPolicyBinding" | "MutatingAdmissionPolicyBinding" => {
            let Some(spec) = at(object, &["spec"]) else { return };
            if let Some(resources) = child(spec, "matchResources") {
                match_resources(resources);
            }
        }
        _ => {}
    }
}

fn webhook(webhook: &mut Tree) {
    if_nil(webhook, "failurePolicy", "Fail");
    if_nil(webhook, "matchPolicy", "Equivalent");
    if_nil(webhook, "namespaceSelector", json!({}));
    if_nil(webhook, "objectSelector", json!({}));
    if_nil(webhook, "timeoutSeconds", 10);
    items(webhook, "rules").for_each(rule);
    if let Some(service) = child(webhook, "clientConfig").and_then(|c| child(c, "service")) {
        if_nil(service, "port", 443);
    }
}

fn rule(rule: &mut Tree) {
    if_nil(rule, "scope", "*");
}

fn match_resources(resources: &mut Tree) {
    if_nil(resources, "matchPolicy", "Equivalent");
    if_nil(resources, "namespaceSelector", json!({}));
    if_nil(resources, "objectSelector", json!({}));
    for rules in ["resourceRules", "excludeResourceRules"] {
        items(resources, rules).for_each(rule);
    }
}
