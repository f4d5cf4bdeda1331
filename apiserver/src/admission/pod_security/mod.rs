//! PodSecurity: the Pod Security Standards, chosen by a namespace's labels.
//!
//! Pods that violate the enforced level are refused; workloads whose template does are accepted with
//! a warning. Upstream: `pod-security-admission` and `plugin/pkg/admission/security/podsecurity`.

mod checks;
pub mod policy;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use apimachinery::field::ErrorList;
use apimachinery::gvk::GroupKind;
use apimachinery::object::ObjectExt as _;
use apimachinery::status::Status;
use async_trait::async_trait;
use serde_json::Value;

use super::{Attributes, Operation, Plugin, lookup};
use crate::server::Server;
use checks::{Subject, describe, evaluate, reasons};
use policy::{Level, Policy, Standard};

pub const NAME: &str = "PodSecurity";

/// Existing pods that a namespace's new level is checked against.
const MAX_PODS: usize = 3000;

pub struct PodSecurity;

/// `PodSecurityConfiguration`: what namespaces without labels get, and who is exempt.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    pub defaults: Policy,
    pub users: Vec<String>,
    pub namespaces: Vec<String>,
    pub runtime_classes: Vec<String>,
}

/// Subresources of a pod that do not change what it may do.
const IGNORED: [&str; 8] = ["exec", "attach", "binding", "eviction", "log", "portforward", "proxy", "status"];

/// Where workloads have their pods' template.
const TEMPLATES: [(&str, &str, &[&str]); 8] = [
    ("", "podtemplates", &["template"]),
    ("", "replicationcontrollers", &["spec", "template"]),
    ("apps", "replicasets", &["spec", "template"]),
    ("apps", "deployments", &["spec", "template"]),
    ("apps", "daemonsets", &["spec", "template"]),
    ("apps", "statefulsets", &["spec", "template"]),
    ("batch", "jobs", &["spec", "template"]),
    ("batch", "cronjobs", &["spec", "jobTemplate", "spec", "template"]),
];

#[async_trait]
impl Plugin for PodSecurity {
    async fn validate(
        &self,
        server: &Arc<Server>,
        attributes: &Attributes<'_>,
        object: &Value,
        old: Option<&Value>,
    ) -> Result<(), Status> {
        if !matches!(attributes.operation, Operation::Create | Operation::Update) {
            return Ok(());
        }
        let settings = &server.config.admission.pod_security;
        let resource = &attributes.served.resource;
        match (resource.group.as_ref(), resource.plural.as_ref()) {
            ("", "namespaces") if attributes.subresource.is_empty() => {
                namespace(server, settings, attributes, object, old).await
            }
            ("", "pods") if !IGNORED.contains(&attributes.subresource) => {
                let judged = Judged::Pod { old };
                judge(server, settings, attributes, object, judged)
            }
            (group, plural) if attributes.subresource.is_empty() => {
                let template = TEMPLATES.iter().find(|(have, name, _)| *have == group && *name == plural);
                match template.and_then(|(_, _, path)| object.at(path)).filter(|template| !template.is_null()) {
                    Some(template) => judge(server, settings, attributes, template, Judged::Template),
                    None => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }
}

/// Whether an update of a pod brings something that was not judged yet.
fn significant(new: &Value, old: &Value) -> bool {
    let image = |container: &Value| container.str_at(&["image"]).map(str::to_string);
    for field in ["containers", "initContainers"] {
        let (new, old) = (new.list_at(&["spec", field]), old.list_at(&["spec", field]));
        if new.len() != old.len() || new.iter().zip(old).any(|(new, old)| image(new) != image(old)) {
            return true;
        }
    }
    let before = old.list_at(&["spec", "ephemeralContainers"]);
    new.list_at(&["spec", "ephemeralContainers"]).iter().any(|container| {
        let same = before.iter().find(|old| old.get("name") == container.get("name"));
        same.is_none_or(|old| image(old) != image(container))
    })
}

/// What is judged.
#[derive(Clone, Copy)]
enum Judged<'a> {
    /// A pod, which may be refused; and what it was, if it is not new.
    Pod { old: Option<&'a Value> },
    /// The template of a workload.
    Template,
}

/// Begins labels of namespaces, and annotations in the audit log.
const PREFIX: &str = "pod-security.kubernetes.io/";

fn judge(
    server: &Server,
    settings: &Settings,
    attributes: &Attributes<'_>,
    pod: &Value,
    judged: Judged<'_>,
) -> Result<(), Status> {
    let annotate = |name: &str, value: &str| attributes.review.annotate(&format!("{PREFIX}{name}"), value);
    for (exempt, why) in [
        (settings.namespaces.contains(&attributes.namespace), "namespace"),
        (settings.users.contains(&attributes.user.name), "user"),
    ] {
        if exempt {
            annotate("exempt", why);
            return Ok(());
        }
    }
    let is_pod = matches!(judged, Judged::Pod { .. });
    let Some(namespace) = lookup::get(server, "", "namespaces", "", &attributes.namespace) else {
        let text = format!("failed to lookup namespace {:?}", attributes.namespace);
        if is_pod {
            return Err(Status::internal(text));
        }
        annotate("error", &format!("{text}: namespaces {:?} not found", attributes.namespace));
        return Ok(());
    };
    // Few namespaces say anything: most pods cost no more than a look at the labels.
    let silent = !namespace.labels().iter().any(|(key, _)| key.starts_with(PREFIX));
    let (policy, errors) = if silent {
        (settings.defaults, ErrorList::new())
    } else {
        Policy::of(namespace.tree().labels(), settings.defaults)
    };
    let lenient = |standard: Standard| standard.level == Level::Privileged;
    match judged {
        Judged::Pod { .. } if errors.is_empty() && policy.fully_privileged() => {
            annotate("enforce-policy", &Standard::PRIVILEGED.to_string());
            return Ok(());
        }
        Judged::Pod { old: Some(old) } if !significant(pod, old) => return Ok(()),
        Judged::Template if errors.is_empty() && lenient(policy.warn) && lenient(policy.audit) => return Ok(()),
        _ => {}
    }
    let class = pod.str_at(&["spec", "runtimeClassName"]).unwrap_or_default();
    if !class.is_empty() && settings.runtime_classes.iter().any(|exempt| exempt == class) {
        annotate("exempt", "runtimeClass");
        return Ok(());
    }
    if !errors.is_empty() {
        annotate("error", &format!("Failed to parse policy: {}", errors.to_aggregate()));
    }
    let subject = Subject::new(pod);
    let would_violate = |standard: Standard| {
        let violations = evaluate(standard, &subject);
        let text = || format!("would violate PodSecurity \"{standard}\": {}", describe(&violations));
        (!violations.is_empty()).then(text)
    };
    if let Some(text) = would_violate(policy.audit) {
        annotate("audit-violations", &text);
    }
    if is_pod {
        annotate("enforce-policy", &policy.enforce.to_string());
        let violations = evaluate(policy.enforce, &subject);
        if !violations.is_empty() {
            let text = format!("violates PodSecurity \"{}\": {}", policy.enforce, describe(&violations));
            return Err(Status::forbidden(&attributes.served.group_resource(), &attributes.name, text));
        }
    }
    if let Some(text) = would_violate(policy.warn) {
        attributes.warn(text);
    }
    Ok(())
}

/// Checks the labels of a namespace, and warns of pods that a new level would not let in.
async fn namespace(
    server: &Server,
    settings: &Settings,
    attributes: &Attributes<'_>,
    object: &Value,
    old: Option<&Value>,
) -> Result<(), Status> {
    let (new_policy, errors) = Policy::of(object.labels(), settings.defaults);
    let invalid = |errors: &ErrorList| Err(Status::invalid(&GroupKind::new("", "Namespace"), object.name(), errors));
    let exempt = settings.namespaces.iter().any(|namespace| namespace == object.name());
    let Some(old) = old else {
        if !errors.is_empty() {
            return invalid(&errors);
        }
        if exempt {
            warn_exempt(attributes, object, new_policy);
        }
        return Ok(());
    };
    let (old_policy, old_errors) = Policy::of(old.labels(), settings.defaults);
    if !errors.is_empty() && errors.to_aggregate() != old_errors.to_aggregate() {
        return invalid(&errors);
    }
    let (new, old) = (new_policy.enforce, old_policy.enforce);
    let laxer = new.version == old.version && new.level <= old.level;
    if new == old || new.level == Level::Privileged || laxer {
        return Ok(());
    }
    if exempt {
        warn_exempt(attributes, object, new_policy);
        return Ok(());
    }
    let pods = lookup::list(server, "", "pods", Some(object.name())).await?;
    for warning in existing(object.name(), new, pods, &settings.runtime_classes) {
        attributes.warn(warning);
    }
    Ok(())
}

fn warn_exempt(attributes: &Attributes<'_>, namespace: &Value, policy: Policy) {
    let labelled = namespace.labels().is_some_and(|labels| labels.keys().any(|key| key.starts_with(PREFIX)));
    if labelled && !policy.fully_privileged() {
        attributes.warn(format!(
            "namespace {:?} is exempt from Pod Security, and the policy (enforce={}, audit={}, warn={}) will be ignored",
            namespace.name(),
            policy.enforce,
            policy.audit,
            policy.warn
        ));
    }
}

/// Warnings about the pods of a namespace under a new level. One pod of each controller comes first.
fn existing(namespace: &str, standard: Standard, pods: Vec<Value>, exempt_classes: &[String]) -> Vec<String> {
    let mut seen = HashSet::new();
    let (mut first, mut later) = (Vec::new(), Vec::new());
    for pod in pods {
        let class = pod.str_at(&["spec", "runtimeClassName"]).unwrap_or_default();
        if !class.is_empty() && exempt_classes.iter().any(|exempt| exempt == class) {
            continue;
        }
        match pod.controller_ref().and_then(|owner| owner.str_at(&["uid"])).map(str::to_string) {
            Some(owner) if !seen.insert(owner.clone()) => later.push(pod),
            _ => first.push(pod),
        }
    }
    first.append(&mut later);
    let total = first.len();
    let mut by_reason: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for pod in first.iter().take(MAX_PODS) {
        let violations = evaluate(standard, &Subject::new(pod));
        if !violations.is_empty() {
            by_reason.entry(reasons(&violations)).or_default().insert(pod.name().to_string());
        }
    }
    let mut warnings = Vec::new();
    if total > MAX_PODS {
        warnings.push(format!(
            "new PodSecurity enforce level only checked against the first {MAX_PODS} of {total} existing pods"
        ));
    }
    if by_reason.is_empty() {
        return warnings;
    }
    warnings.push(format!(
        "existing pods in namespace {namespace:?} violate the new PodSecurity enforce level \"{standard}\""
    ));
    let mut each: Vec<String> = by_reason
        .into_iter()
        .map(|(reason, pods)| {
            let first = pods.iter().next().cloned().unwrap_or_default();
            match pods.len() {
                1 => format!("{first}: {reason}"),
                2 => format!("{first} (and 1 other pod): {reason}"),
                many => format!("{first} (and {} other pods): {reason}", many - 1),
            }
        })
        .collect();
    each.sort();
    warnings.extend(each);
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;
    use policy::Version;
    use serde_json::json;

    #[test]
    fn existing_pods_are_told_by_reason() {
        let pod = |name: &str, host: bool| json!({"metadata": {"name": name}, "spec": {"hostNetwork": host, "containers": [{"name": "c"}]}});
        let baseline = Standard { level: Level::Baseline, version: Version::Latest };
        let pods = vec![pod("b", true), pod("a", true), pod("c", true), pod("fine", false)];
        assert_eq!(
            existing("ns", baseline, pods, &[]),
            [
                "existing pods in namespace \"ns\" violate the new PodSecurity enforce level \"baseline:latest\"",
                "a (and 2 other pods): host namespaces",
            ]
        );
        assert!(existing("ns", baseline, vec![pod("fine", false)], &[]).is_empty());
    }

    #[test]
    fn only_images_make_an_update_significant() {
        let pod = |image: &str, label: &str| json!({"metadata": {"labels": {"x": label}}, "spec": {"containers": [{"name": "c", "image": image}]}});
        assert!(!significant(&pod("a", "1"), &pod("a", "2")));
        assert!(significant(&pod("a", "1"), &pod("b", "1")));
    }
}
