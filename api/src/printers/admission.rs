//! admissionregistration.k8s.io: webhook configurations, policies and their bindings.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::{self, at, count, list, text};
use super::{AGE, Column, NAME};

pub(super) const WEBHOOK_COLUMNS: &[Column] = &[
    NAME,
    Column::integer("Webhooks").about("Webhooks indicates the number of webhooks registered in this configuration"),
    AGE,
];
pub(super) const VALIDATING_POLICY_COLUMNS: &[Column] = &[
    NAME,
    Column::integer("Validations")
        .about("Validations indicates the number of validation rules defined in this configuration"),
    Column::string("ParamKind").about("ParamKind specifies the kind of resources used to parameterize this policy"),
    AGE,
];
pub(super) const MUTATING_POLICY_COLUMNS: &[Column] = &[
    NAME,
    Column::integer("Mutations")
        .about("Mutation indicates the number of mutations rules defined in this configuration"),
    Column::string("ParamKind").about("ParamKind specifies the kind of resources used to parameterize this policy"),
    AGE,
];
pub(super) const BINDING_COLUMNS: &[Column] = &[
    NAME,
    Column::string("PolicyName").about("PolicyName indicates the policy definition which the policy binding binded to"),
    Column::string("ParamRef").about("ParamRef indicates the param resource which sets the configuration param"),
    AGE,
];
pub(super) fn webhook_row(configuration: &Value, now: Timestamp) -> Vec<Value> {
    vec![json!(cells::name(configuration)), json!(count(configuration, &["webhooks"])), cells::age(configuration, now)]
}

pub(super) fn validating_policy_row(policy: &Value, now: Timestamp) -> Vec<Value> {
    policy_row(policy, "validations", now)
}

pub(super) fn mutating_policy_row(policy: &Value, now: Timestamp) -> Vec<Value> {
    policy_row(policy, "mutations", now)
}

fn policy_row(policy: &Value, rules: &str, now: Timestamp) -> Vec<Value> {
    let parameters = at(policy, &["spec", "paramKind"]).map_or_else(
        || "<unset>".to_owned(),
        |kind| format!("{}/{}", text(kind, &["apiVersion"]), text(kind, &["kind"])),
    );
    vec![json!(cells::name(policy)), json!(count(policy, &["spec", rules])), json!(parameters), cells::age(policy, now)]
}

pub(super) fn binding_row(binding: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        json!(cells::name(binding)),
        json!(text(binding, &["spec", "policyName"])),
        json!(parameter(at(binding, &["spec", "paramRef"]))),
        cells::age(binding, now),
    ]
}

fn parameter(reference: Option<&Value>) -> String {
    let Some(reference) = reference else {
        return "<unset>".into();
    };
    let name = text(reference, &["name"]);
    if name.is_empty() {
        return at(reference, &["selector"]).map_or_else(|| "<unset>".into(), go_selector);
    }
    // Whether the parameter is cluster scoped cannot be told from here.
    format!("{}/{name}", cells::or(text(reference, &["namespace"]), "*"))
}

/// A selector as Go's generated `String` method writes it, which is what upstream serves here.
fn go_selector(selector: &Value) -> String {
    let labels: String = match at(selector, &["matchLabels"]) {
        Some(Value::Object(map)) => {
            map.iter().map(|(key, value)| format!("{key}: {},", value.as_str().unwrap_or(""))).collect()
        }
        _ => String::new(),
    };
    let expressions: String = list(selector, &["matchExpressions"])
        .iter()
        .map(|e| {
            let values: Vec<&str> = list(e, &["values"]).iter().filter_map(Value::as_str).collect();
            format!(
                "LabelSelectorRequirement{{Key:{},Operator:{},Values:[{}],}},",
                text(e, &["key"]),
                text(e, &["operator"]),
                values.join(" ")
            )
        })
        .collect();
    format!(
        "&LabelSelector{{MatchLabels:map[string]string{{{labels}}},MatchExpressions:[]LabelSelectorRequirement{{{expressions}}},}}"
    )
}
