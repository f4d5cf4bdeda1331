//! Betas that nobody serves any more, as they may still be stored: what their fields became.
//!
//! Only the way up is needed. Kinds that only changed their version are not here.

use apimachinery::object::ObjectExt as _;
use serde_json::{Map, Value, json};

use crate::Resource;

/// Where the generation of a daemon's template went.
pub const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

const HOSTNAME: &str = "kubernetes.io/hostname";
const ZONE: &str = "topology.kubernetes.io/zone";
const KEEPS_ZERO: &str = "flowcontrol.k8s.io/preserve-zero-concurrency-shares";
const RBAC: &str = "rbac.authorization.k8s.io";

/// Sets the defaults that an old version had otherwise.
pub(super) fn fill(object: &mut Value, from: &Resource) {
    let old = match (from.group.as_ref(), from.version.as_ref()) {
        (group @ ("extensions" | "apps" | "certificates.k8s.io" | "admissionregistration.k8s.io"), "v1beta1") => group,
        ("apps", "v1beta2") if from.kind == "DaemonSet" => return generation(object),
        _ => return,
    };
    let defaults = match (from.kind.as_ref(), old) {
        ("Deployment", "extensions") => {
            let rolls = object.pointer("/spec/strategy/type").is_none_or(|kind| kind == "RollingUpdate" || kind == "");
            if rolls {
                set(object, "/spec/strategy", &json!({"type": "RollingUpdate", "rollingUpdate": {}}));
                set(object, "/spec/strategy/rollingUpdate", &json!({"maxUnavailable": 1, "maxSurge": 1}));
            }
            json!({"progressDeadlineSeconds": i32::MAX, "revisionHistoryLimit": i32::MAX})
        }
        ("Deployment", _) => json!({"revisionHistoryLimit": 2}),
        ("DaemonSet" | "StatefulSet", _) => {
            generation(object);
            set(object, "/spec", &json!({"updateStrategy": {}}));
            set(object, "/spec/updateStrategy", &json!({"type": "OnDelete"}));
            json!({})
        }
        ("ReplicaSet", _) => json!({}),
        ("CertificateSigningRequest", _) => {
            for condition in items(object, "/status/conditions") {
                if condition.get("status").is_none_or(|status| status == "") {
                    condition.insert("status".to_owned(), "True".into());
                }
            }
            json!({"usages": ["digital signature", "key encipherment"], "signerName": "kubernetes.io/legacy-unknown"})
        }
        ("ValidatingWebhookConfiguration" | "MutatingWebhookConfiguration", _) => {
            for webhook in items(object, "/webhooks") {
                for (name, value) in [
                    ("failurePolicy", json!("Ignore")),
                    ("matchPolicy", json!("Exact")),
                    ("sideEffects", json!("Unknown")),
                    ("timeoutSeconds", json!(30)),
                    ("admissionReviewVersions", json!(["v1beta1"])),
                ] {
                    set_in(webhook, name, &value);
                }
            }
            return;
        }
        _ => return,
    };
    if from.kind != "CertificateSigningRequest" {
        labels_of_template(object);
    }
    set(object, "/spec", &defaults);
}

/// Sets what is not set in an object.
fn set(object: &mut Value, pointer: &str, defaults: &Value) {
    let (Some(Value::Object(map)), Value::Object(defaults)) = (object.pointer_mut(pointer), defaults) else { return };
    for (name, value) in defaults {
        set_in(map, name, value);
    }
}

fn set_in(map: &mut Map<String, Value>, name: &str, value: &Value) {
    let unset = |old: &Value| old.is_null() || old.as_array().is_some_and(Vec::is_empty) || *old == "";
    if map.get(name).is_none_or(unset) {
        map.insert(name.to_owned(), value.clone());
    }
}

/// Workloads took their labels, and what they select by, from the template of their pods.
fn labels_of_template(object: &mut Value) {
    let Some(labels) = object.pointer("/spec/template/metadata/labels").filter(|labels| labels.is_object()) else {
        return;
    };
    let labels = labels.clone();
    set(object, "/spec", &json!({"selector": {"matchLabels": labels}}));
    set(object, "/metadata", &json!({"labels": labels}));
}

/// The generation of a daemon's template became an annotation.
fn generation(object: &mut Value) {
    let number = object.pointer("/spec/templateGeneration").and_then(Value::as_i64);
    if let Some(number) = number {
        object.set_annotation(TEMPLATE_GENERATION, &number.to_string());
    }
}

/// Gives an object of an old version the fields that it has now.
pub(super) fn raise(object: &mut Value, from: &Resource) {
    match (from.kind.as_ref(), from.group.as_ref(), from.version.as_ref()) {
        ("Ingress", "extensions" | "networking.k8s.io", "v1beta1") => ingress(object),
        ("EndpointSlice", "discovery.k8s.io", "v1beta1") => {
            items(object, "/endpoints").for_each(endpoint);
        }
        ("PriorityLevelConfiguration", _, version @ ("v1beta1" | "v1beta2" | "v1beta3")) => shares(object, version),
        ("RuntimeClass", "node.k8s.io", "v1alpha1") => runtime_class(object),
        ("PodDisruptionBudget", _, "v1beta1") => selector(object),
        ("RoleBinding" | "ClusterRoleBinding", RBAC, "v1alpha1") => items(object, "/subjects").for_each(subject),
        _ => {}
    }
}

fn items<'a>(object: &'a mut Value, pointer: &str) -> impl Iterator<Item = &'a mut Map<String, Value>> {
    let list = object.pointer_mut(pointer).and_then(Value::as_array_mut);
    list.into_iter().flatten().filter_map(Value::as_object_mut)
}

fn ingress(object: &mut Value) {
    if let Some(Value::Object(spec)) = object.get_mut("spec")
        && let Some(mut default) = spec.remove("backend")
    {
        default.as_object_mut().into_iter().for_each(backend);
        spec.insert("defaultBackend".to_owned(), default);
    }
    for rule in items(object, "/spec/rules") {
        let paths = rule.get_mut("http").and_then(|http| http.get_mut("paths")).and_then(Value::as_array_mut);
        for path in paths.into_iter().flatten().filter_map(Value::as_object_mut) {
            path.entry("pathType").or_insert_with(|| "ImplementationSpecific".into());
            path.get_mut("backend").and_then(Value::as_object_mut).into_iter().for_each(backend);
        }
    }
}

fn backend(backend: &mut Map<String, Value>) {
    let name = backend.remove("serviceName").unwrap_or_else(|| "".into());
    let port = match backend.remove("servicePort") {
        Some(Value::String(name)) => json!({"name": name}),
        Some(Value::Number(number)) if number.as_i64() != Some(0) => json!({"number": number}),
        _ => json!({}),
    };
    if name.as_str() != Some("") || port != json!({}) {
        backend.insert("service".to_owned(), json!({"name": name, "port": port}));
    }
}

fn endpoint(endpoint: &mut Map<String, Value>) {
    let Some(Value::Object(mut topology)) = endpoint.remove("topology") else { return };
    if let Some(zone) = topology.remove(ZONE) {
        endpoint.insert("zone".to_owned(), zone);
    }
    if endpoint.contains_key("nodeName") && topology.get(HOSTNAME) == endpoint.get("nodeName") {
        topology.remove(HOSTNAME);
    }
    if !topology.is_empty() {
        endpoint.insert("deprecatedTopology".to_owned(), Value::Object(topology));
    }
}

fn shares(object: &mut Value, version: &str) {
    let kept = object.annotation(KEEPS_ZERO).is_some();
    if version == "v1beta3" {
        object.remove_at(&["metadata", "annotations", KEEPS_ZERO]);
    }
    let Some(Value::Object(limited)) = object.pointer_mut("/spec/limited") else { return };
    let name = if version == "v1beta3" { "nominalConcurrencyShares" } else { "assuredConcurrencyShares" };
    let shares = limited.remove(name).and_then(|shares| shares.as_i64()).unwrap_or_default();
    let shares = if shares == 0 && !(kept && version == "v1beta3") { 30 } else { shares };
    limited.insert("nominalConcurrencyShares".to_owned(), shares.into());
}

/// An empty selector selected nothing; now it selects everything.
fn selector(object: &mut Value) {
    const KEY: &str = "pdb.kubernetes.io/deprecated-v1beta1-empty-selector-match";
    let Some(selector) = object.pointer_mut("/spec/selector") else { return };
    let one = |operator: &str| json!({"matchExpressions": [{"key": KEY, "operator": operator}]});
    if *selector == json!({}) {
        *selector = one("Exists");
    } else if *selector == one("DoesNotExist") {
        *selector = json!({});
    }
}

fn runtime_class(object: &mut Value) {
    let Some(map) = object.as_object_mut() else { return };
    let Some(Value::Object(mut spec)) = map.remove("spec") else { return };
    map.insert("handler".to_owned(), spec.remove("runtimeHandler").unwrap_or_else(|| "".into()));
    for name in ["overhead", "scheduling"] {
        map.extend(spec.remove(name).map(|value| (name.to_owned(), value)));
    }
}

fn subject(subject: &mut Map<String, Value>) {
    let version = subject.remove("apiVersion").unwrap_or_default();
    let group = match subject.get("kind").and_then(Value::as_str) {
        Some("ServiceAccount") => "",
        Some("User" | "Group") => RBAC,
        _ => version.as_str().and_then(|version| version.split_once('/')).map_or("", |(group, _)| group),
    };
    // Everybody was a user then.
    if group == RBAC && subject["kind"] == "User" && subject.get("name").is_some_and(|name| name == "*") {
        subject.insert("kind".to_owned(), "Group".into());
        subject.insert("name".to_owned(), "system:authenticated".into());
    }
    subject.insert("apiGroup".to_owned(), group.into());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raised(group: &str, version: &str, kind: &str, mut object: Value) -> Value {
        let row = crate::table().find_resource("", "v1", "pods").expect("built in").clone();
        let from = Resource {
            group: group.to_owned().into(),
            version: version.to_owned().into(),
            kind: kind.to_owned().into(),
            ..row
        };
        raise(&mut object, &from);
        object
    }

    #[test]
    fn defaults_are_what_they_were() {
        let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {}});
        for (group, kind, given, filled) in [
            (
                "extensions",
                "Deployment",
                json!({"metadata": {}, "spec": {"strategy": {}, "template": template}}),
                json!({"metadata": {"labels": {"a": "b"}}, "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template,
                    "progressDeadlineSeconds": i32::MAX, "revisionHistoryLimit": i32::MAX,
                    "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 1}}}}),
            ),
            (
                "apps",
                "StatefulSet",
                json!({"metadata": {"labels": {"x": "y"}}, "spec": {"selector": {}, "updateStrategy": {}, "template": template}}),
                json!({"metadata": {"labels": {"x": "y"}}, "spec": {"selector": {}, "updateStrategy": {"type": "OnDelete"}, "template": template}}),
            ),
            (
                "admissionregistration.k8s.io",
                "ValidatingWebhookConfiguration",
                json!({"webhooks": [{"name": "a", "timeoutSeconds": 3, "admissionReviewVersions": []}]}),
                json!({"webhooks": [{"name": "a", "timeoutSeconds": 3, "admissionReviewVersions": ["v1beta1"], "failurePolicy": "Ignore",
                    "matchPolicy": "Exact", "sideEffects": "Unknown"}]}),
            ),
        ] {
            let row = crate::table().find_resource("", "v1", "pods").expect("built in").clone();
            let from = Resource { group: group.into(), version: "v1beta1".into(), kind: kind.into(), ..row };
            let mut object = given;
            fill(&mut object, &from);
            assert_eq!(object, filled, "{kind}");
        }
    }

    #[test]
    fn fields_are_what_they_became() {
        for (group, version, kind, beta, now) in [
            (
                "extensions",
                "v1beta1",
                "Ingress",
                json!({"spec": {"backend": {"serviceName": "a", "servicePort": 80}, "rules": [{"http": {"paths": [
                    {"path": "/", "backend": {"serviceName": "b", "servicePort": "web"}},
                    {"pathType": "Exact", "backend": {"servicePort": 0, "resource": {"kind": "x"}}}]}}]}}),
                json!({"spec": {"defaultBackend": {"service": {"name": "a", "port": {"number": 80}}}, "rules": [{"http": {"paths": [
                    {"path": "/", "pathType": "ImplementationSpecific", "backend": {"service": {"name": "b", "port": {"name": "web"}}}},
                    {"pathType": "Exact", "backend": {"resource": {"kind": "x"}}}]}}]}}),
            ),
            (
                "discovery.k8s.io",
                "v1beta1",
                "EndpointSlice",
                json!({"endpoints": [{"nodeName": "n", "topology": {HOSTNAME: "n", ZONE: "z"}}, {"topology": {HOSTNAME: "m"}}]}),
                json!({"endpoints": [{"nodeName": "n", "zone": "z"}, {"deprecatedTopology": {HOSTNAME: "m"}}]}),
            ),
            (
                "flowcontrol.apiserver.k8s.io",
                "v1beta2",
                "PriorityLevelConfiguration",
                json!({"spec": {"limited": {"assuredConcurrencyShares": 5}}}),
                json!({"spec": {"limited": {"nominalConcurrencyShares": 5}}}),
            ),
            (
                "flowcontrol.apiserver.k8s.io",
                "v1beta3",
                "PriorityLevelConfiguration",
                json!({"metadata": {"annotations": {KEEPS_ZERO: ""}}, "spec": {"limited": {"nominalConcurrencyShares": 0}}}),
                json!({"metadata": {"annotations": {}}, "spec": {"limited": {"nominalConcurrencyShares": 0}}}),
            ),
            (
                "policy",
                "v1beta1",
                "PodDisruptionBudget",
                json!({"spec": {"selector": {}}}),
                json!({"spec": {"selector": {"matchExpressions": [
                    {"key": "pdb.kubernetes.io/deprecated-v1beta1-empty-selector-match", "operator": "Exists"}]}}}),
            ),
            (
                "node.k8s.io",
                "v1alpha1",
                "RuntimeClass",
                json!({"spec": {"runtimeHandler": "h", "overhead": {"podFixed": {"cpu": "1"}}}}),
                json!({"handler": "h", "overhead": {"podFixed": {"cpu": "1"}}}),
            ),
            (
                RBAC,
                "v1alpha1",
                "RoleBinding",
                json!({"subjects": [{"kind": "User", "name": "*"}, {"kind": "ServiceAccount", "name": "a", "apiVersion": "v1"}]}),
                json!({"subjects": [{"kind": "Group", "name": "system:authenticated", "apiGroup": RBAC},
                    {"kind": "ServiceAccount", "name": "a", "apiGroup": ""}]}),
            ),
        ] {
            assert_eq!(raised(group, version, kind, beta), now, "{kind} {version}");
        }
    }
}
