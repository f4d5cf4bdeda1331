//! What the user should know although the object is stored: deprecated fields, and values that do not do
//! what they seem to (`pkg/api/*/warnings.go` and the strategies).
//!
//! Pure functions over canonical, defaulted trees; paths are only made when there is something to say.

mod address;
mod network;
mod pod;
mod secret;
mod storage;

use apimachinery::field::Path;
use apimachinery::quantity::Quantity;
use apimachinery::{gotext, names};
use serde_json::Value;

use crate::Resource;
use crate::read::Read;

/// Warnings for a stored object; `old` is `None` for a create.
pub fn of(resource: &Resource, subresource: &str, new: &Value, old: Option<&Value>) -> Vec<String> {
    let mut out = Vec::new();
    if !resource.custom {
        kind(resource, subresource, new, old, &mut out);
    }
    out
}

fn kind(resource: &Resource, subresource: &str, new: &Value, old: Option<&Value>, out: &mut Vec<String>) {
    let template = || Path::new("spec").child("template");
    match (&*resource.group, &*resource.kind, subresource) {
        ("", "Pod", "") if old.is_none() => {
            name_is_hostname(new, "the Pod's hostname", out);
            pod::spec_and_meta(&Path::nil(), new, out);
        }
        ("", "Pod", "status") => network::pod_status(new, out),
        ("", "PodTemplate", "") if changed(new, old) => {
            pod::spec_and_meta(&Path::new("template"), &new["template"], out);
        }
        ("", "ReplicationController", "") if old.is_none() => {
            name_is_hostname(new, "Pod names and hostnames", out);
            pod::spec_and_meta(&template(), &new["spec"]["template"], out);
        }
        // Upstream looks at what was there before.
        ("", "ReplicationController", "") if changed(new, old) => {
            pod::spec_and_meta(&template(), &old.unwrap_or(new)["spec"]["template"], out);
        }
        ("apps", "Deployment" | "ReplicaSet", "") if changed(new, old) => {
            if old.is_none() {
                name_is_hostname(new, "Pod names and hostnames", out);
            }
            pod::spec_and_meta(&template(), &new["spec"]["template"], out);
        }
        ("apps", "DaemonSet", "") if changed(new, old) => {
            pod::spec_and_meta(&template(), &new["spec"]["template"], out);
        }
        ("apps", "StatefulSet", "") => stateful_set(new, old, out),
        ("batch", "Job", "") if changed(new, old) => {
            if old.is_none() {
                name_is_hostname(new, "Pod names and hostnames", out);
            }
            job_spec(&Path::new("spec"), &new["spec"], out);
        }
        ("batch", "CronJob", "") if changed(new, old) => {
            if old.is_none() {
                name_is_hostname(new, "Pod names and hostnames", out);
            }
            let path = Path::new("spec").children(&["jobTemplate", "spec"]);
            job_spec(&path, &new["spec"]["jobTemplate"]["spec"], out);
        }
        ("", "Secret", "") => secret::pair(new, out),
        ("", "Service", "") => network::service(new, out),
        ("", "Service", "status") | ("networking.k8s.io", "Ingress", "status") => network::load_balancer(new, out),
        ("", "Endpoints", "") => network::endpoints(new, out),
        ("discovery.k8s.io", "EndpointSlice", "") => network::endpoint_slice(new, old, out),
        ("networking.k8s.io", "Ingress", "") if old.is_none() => network::ingress(new, out),
        ("networking.k8s.io", "NetworkPolicy", "") => network::network_policy(new, out),
        ("", "Node", "") => network::node(new, out),
        ("", "ServiceAccount", "") => service_account(new, old, out),
        ("", "PersistentVolume", "") => storage::volume(new, out),
        ("", "PersistentVolumeClaim", "") => storage::claim(new, out),
        ("", "ResourceQuota", "") if old.is_none() => quota(new, out),
        ("storage.k8s.io", "StorageClass", "") => storage::class(new, out),
        ("storage.k8s.io", "CSIStorageCapacity", "") => storage::capacity(new, out),
        ("storage.k8s.io", "CSIDriver", "") => storage::driver(new, old, out),
        ("node.k8s.io", "RuntimeClass", "") => {
            for (label, _) in new["scheduling"].entries("nodeSelector") {
                if let Some(message) = deprecated_label(label) {
                    out.push(format!("scheduling.nodeSelector: {message}"));
                }
            }
        }
        ("resource.k8s.io", "ResourceSlice", "") => {
            let driver = new["spec"].text("driver");
            if driver.bytes().any(|b| b.is_ascii_uppercase()) {
                let driver = gotext::quote(driver);
                out.push(format!(
                    "spec.driver: driver names should be lowercase; {driver} contains uppercase characters"
                ));
            }
        }
        _ => {}
    }
}

/// Requests of which a quota allows more than of limits.
fn quota(quota: &Value, out: &mut Vec<String>) {
    let hard = &quota["spec"]["hard"];
    for (resource, bare) in [("cpu", true), ("memory", true), ("storage", false), ("ephemeral-storage", false)] {
        let names = [format!("requests.{resource}"), resource.to_owned()];
        let Some(name) = names.iter().take(1 + usize::from(bare)).find(|name| hard.set(name).is_some()) else {
            continue;
        };
        let limits = format!("limits.{resource}");
        let parse = |name: &str| Quantity::parse(hard.set(name)?.as_str()?).ok();
        if let (Some(request), Some(limit)) = (parse(name), parse(&limits))
            && request > limit
        {
            out.push(format!("ResourceQuota {name} ({request}) should be less than {limits} ({limit})"));
        }
    }
}

/// A new object, or one whose generation counted on.
fn changed(new: &Value, old: Option<&Value>) -> bool {
    old.is_none_or(|old| old["metadata"].num("generation") != new["metadata"].num("generation"))
}

fn name_is_hostname(object: &Value, what: &str, out: &mut Vec<String>) {
    let wrong = names::dns1123_label(object["metadata"].text("name"));
    if !wrong.is_empty() {
        out.push(format!(
            "metadata.name: this is used in {what}, which can result in surprising behavior; a DNS label is recommended: [{}]",
            wrong.join(" ")
        ));
    }
}

/// Labels of nodes that have a newer name or none.
fn deprecated_label(label: &str) -> Option<&'static str> {
    Some(match label {
        "beta.kubernetes.io/arch" => "deprecated since v1.14; use \"kubernetes.io/arch\" instead",
        "beta.kubernetes.io/os" => "deprecated since v1.14; use \"kubernetes.io/os\" instead",
        "failure-domain.beta.kubernetes.io/region" => {
            "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead"
        }
        "failure-domain.beta.kubernetes.io/zone" => {
            "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead"
        }
        "beta.kubernetes.io/instance-type" => {
            "deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead"
        }
        "app.kubernetes.io/created-by" => "deprecated since v1.9",
        "scheduler.alpha.kubernetes.io/preferAvoidPods" => "deprecated since v1.22; use Taints and Tolerations instead",
        "node-role.kubernetes.io/master" => "use \"node-role.kubernetes.io/control-plane\" instead",
        _ => return None,
    })
}

/// Expressions of a term of a node selector; the values of preferences are looked at, too.
fn node_selector_term(term: &Value, values: bool, path: &Path, out: &mut Vec<String>) {
    for (i, expression) in term.list("matchExpressions").iter().enumerate() {
        let at = || path.child("matchExpressions").index(i);
        let key = expression.text("key");
        if let Some(message) = deprecated_label(key) {
            out.push(format!("{}: {key} is {message}", at().child("key")));
        }
        for (i, value) in expression.texts("values").enumerate().filter(|_| values) {
            for message in names::label_value(value) {
                out.push(format!("{}: {value} is invalid, {message}", at().child("values").index(i)));
            }
        }
    }
}

fn stateful_set(new: &Value, old: Option<&Value>, out: &mut Vec<String>) {
    let (spec, path) = (&new["spec"], Path::new("spec"));
    if changed(new, old) {
        pod::spec_and_meta(&path.child("template"), &spec["template"], out);
    }
    for (i, claim) in spec.list("volumeClaimTemplates").iter().enumerate() {
        let at = path.child("volumeClaimTemplates").index(i);
        let at = if old.is_none() { at } else { at.child("Spec") };
        storage::claim_spec(&claim["spec"], &at, out);
    }
    if spec.num("revisionHistoryLimit") < 0 {
        out.push(
            "spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended"
                .to_owned(),
        );
    }
}

fn job_spec(path: &Path, spec: &Value, out: &mut Vec<String>) {
    const MANY_COMPLETIONS: i64 = 100_000;
    const MANY_PODS: i64 = 10_000;
    if spec.text("completionMode") == "Indexed"
        && spec.num("completions") > MANY_COMPLETIONS
        && spec.num("parallelism") > MANY_PODS
    {
        out.push(format!(
            "{path}: In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, Kubernetes might not be able to track completedIndexes when a big number of indexes fail"
        ));
    }
    pod::spec_and_meta(&path.child("template"), &spec["template"], out);
}

fn service_account(new: &Value, old: Option<&Value>, out: &mut Vec<String>) {
    const ANNOTATION: &str = "kubernetes.io/enforce-mountable-secrets";
    let has = |account: &Value| account["metadata"]["annotations"].get(ANNOTATION).is_some();
    if has(new) && !old.is_some_and(has) {
        out.push(format!(
            "metadata.annotations[{ANNOTATION}]: deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets"
        ));
    }
}

#[cfg(test)]
mod tests;
