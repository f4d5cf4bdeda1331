//! CustomResourceDefinitions as upstream stores them: in the version `v1beta1`, which nobody serves any more.
//!
//! What all versions of a definition have alike stands beside them there, and a few fields have other names.

use apimachinery::object::ObjectExt as _;
use serde_json::{Map, Value, json};

const BETA: &str = "apiextensions.k8s.io/v1beta1";

/// Makes a stored definition one of `v1`, which it may be already.
pub fn modernize(definition: &mut Value) {
    if definition.api_version() != BETA {
        return;
    }
    definition.set_api_version("apiextensions.k8s.io/v1");
    if let Some(Value::Object(spec)) = definition.get_mut("spec") {
        raise(spec);
    }
}

fn raise(spec: &mut Map<String, Value>) {
    let name = spec.remove("version").unwrap_or_default();
    // In the names that they have in each version.
    let shared: Vec<(&str, Value)> = [
        ("validation", "schema"),
        ("subresources", "subresources"),
        ("additionalPrinterColumns", "additionalPrinterColumns"),
        ("selectableFields", "selectableFields"),
    ]
    .into_iter()
    .filter_map(|(beta, name)| Some((name, spec.remove(beta).filter(|value| !value.is_null())?)))
    .collect();
    let versions = spec.entry("versions").or_insert(Value::Null);
    if versions.as_array().is_none_or(Vec::is_empty) {
        *versions = json!([{"name": name, "served": true, "storage": true}]);
    }
    for version in versions.as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
        for (name, value) in &shared {
            version.entry(*name).or_insert_with(|| value.clone());
        }
        let columns = version.get_mut("additionalPrinterColumns").and_then(Value::as_array_mut);
        for column in columns.into_iter().flatten().filter_map(Value::as_object_mut) {
            if let Some(path) = column.remove("JSONPath") {
                column.insert("jsonPath".to_string(), path);
            }
        }
    }
    if let Some(Value::Object(conversion)) = spec.get_mut("conversion") {
        let members =
            [("webhookClientConfig", "clientConfig"), ("conversionReviewVersions", "conversionReviewVersions")];
        let members = members.into_iter().filter_map(|(beta, name)| Some((name.to_string(), conversion.remove(beta)?)));
        let webhook: Map<String, Value> = members.collect();
        if conversion.get("strategy").is_some_and(|strategy| strategy == "Webhook") {
            conversion.insert("webhook".to_string(), Value::Object(webhook));
        }
    }
    // Nothing said was yes, then; it is no now.
    match spec.get("preserveUnknownFields").and_then(Value::as_bool) {
        Some(false) => drop(spec.remove("preserveUnknownFields")),
        _ => drop(spec.insert("preserveUnknownFields".to_string(), true.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(spec: Value) -> Value {
        let mut stored = json!({"kind": "CustomResourceDefinition", "apiVersion": BETA, "metadata": {}, "spec": spec});
        modernize(&mut stored);
        assert_eq!(stored["apiVersion"], "apiextensions.k8s.io/v1");
        stored["spec"].clone()
    }

    #[test]
    fn what_versions_share_becomes_theirs() {
        let schema = json!({"openAPIV3Schema": {"type": "object"}});
        let spec = check(json!({
            "group": "a.b", "version": "v1", "preserveUnknownFields": false,
            "validation": schema, "subresources": {"status": {}},
            "additionalPrinterColumns": [{"name": "A", "type": "string", "JSONPath": ".a"}],
            "versions": [{"name": "v1", "served": true, "storage": true}, {"name": "v2", "served": true, "storage": false}],
            "conversion": {"strategy": "None", "conversionReviewVersions": ["v1"]},
        }));
        let version = |name: &str, storage: bool| {
            json!({
                "name": name, "served": true, "storage": storage, "schema": schema, "subresources": {"status": {}},
                "additionalPrinterColumns": [{"name": "A", "type": "string", "jsonPath": ".a"}],
            })
        };
        assert_eq!(
            spec,
            json!({
                "group": "a.b", "versions": [version("v1", true), version("v2", false)], "conversion": {"strategy": "None"},
            })
        );
    }

    #[test]
    fn one_version_and_a_webhook() {
        let spec = check(json!({
            "version": "v1",
            "conversion": {"strategy": "Webhook", "webhookClientConfig": {"url": "u"}, "conversionReviewVersions": ["v1"]},
        }));
        assert_eq!(
            spec,
            json!({
                "versions": [{"name": "v1", "served": true, "storage": true}],
                "conversion": {"strategy": "Webhook", "webhook": {"clientConfig": {"url": "u"}, "conversionReviewVersions": ["v1"]}},
                "preserveUnknownFields": true,
            })
        );
        let own = json!({"apiVersion": "apiextensions.k8s.io/v1", "metadata": {"annotations": {"was": BETA}}});
        let mut same = own.clone();
        modernize(&mut same);
        assert_eq!(same, own);
    }
}
