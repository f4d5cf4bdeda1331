//! The roles and bindings that every cluster has, as data: upstream's `bootstrappolicy` of 1.36.
//!
//! Words of a list are separated by spaces and sorted; `core` is the group without a name.

mod controllers;
mod gated;
mod general;
mod namespaced;

use apimachinery::object::ObjectExt as _;
use component_base::featuregate::FeatureGates;
use serde_json::{Value, json};

use super::GROUP;

const READ: &str = "get list watch";
const WRITE: &str = "create delete deletecollection patch update";
const READ_WRITE: &str = "create delete deletecollection get list patch update watch";
const READ_UPDATE: &str = "get list patch update watch";

/// Lets a component record what it did.
const EVENTS: Rule = on("create patch update", "core events.k8s.io", "events");

/// A rule of the tables.
#[derive(Clone, Copy)]
struct Rule {
    verbs: &'static str,
    groups: &'static str,
    resources: &'static str,
    names: &'static str,
    urls: &'static str,
}

const fn on(verbs: &'static str, groups: &'static str, resources: &'static str) -> Rule {
    Rule { verbs, groups, resources, names: "", urls: "" }
}

const fn urls(verbs: &'static str, urls: &'static str) -> Rule {
    Rule { verbs, groups: "", resources: "", names: "", urls }
}

impl Rule {
    const fn named(self, names: &'static str) -> Rule {
        Rule { names, ..self }
    }

    fn value(&self) -> Value {
        let words = |text: &str| -> Value {
            text.split_ascii_whitespace().map(|word| if word == "core" { "" } else { word }).collect()
        };
        let mut rule = json!({"verbs": words(self.verbs)});
        for (field, text) in [
            ("apiGroups", self.groups),
            ("resources", self.resources),
            ("resourceNames", self.names),
            ("nonResourceURLs", self.urls),
        ] {
            if !text.is_empty() {
                rule[field] = words(text);
            }
        }
        rule
    }
}

/// A cluster role of the tables.
struct ClusterRole {
    name: &'static str,
    rules: &'static [Rule],
    /// The role whose rules this one becomes part of.
    part_of: &'static str,
    /// Gathers its rules from those that are part of it.
    gathers: bool,
}

const fn role(name: &'static str, rules: &'static [Rule]) -> ClusterRole {
    ClusterRole { name, rules, part_of: "", gathers: false }
}

/// A role made of others.
const fn aggregate(name: &'static str) -> ClusterRole {
    ClusterRole { name, rules: &[], part_of: "", gathers: true }
}

impl ClusterRole {
    const fn part_of(self, role: &'static str) -> ClusterRole {
        ClusterRole { part_of: role, ..self }
    }

    fn value(&self, prefix: &str) -> Value {
        let mut object = object("ClusterRole", "", &format!("{prefix}{}", self.name));
        let label = |role: &str| format!("{GROUP}/aggregate-to-{role}");
        if !self.part_of.is_empty() {
            object.set_label(&label(self.part_of), "true");
        }
        if self.gathers {
            object["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": {label(self.name): "true"}}]});
            object["rules"] = Value::Null;
        } else {
            object["rules"] = self.rules.iter().map(Rule::value).collect();
        }
        object
    }
}

/// Somebody who is bound.
#[derive(Clone, Copy)]
enum Subject {
    User(&'static str),
    Group(&'static str),
    /// Of `kube-system`.
    Account(&'static str),
}

impl Subject {
    fn value(&self) -> Value {
        match self {
            Subject::User(name) => json!({"apiGroup": GROUP, "kind": "User", "name": name}),
            Subject::Group(name) => json!({"apiGroup": GROUP, "kind": "Group", "name": name}),
            Subject::Account(name) => json!({"kind": "ServiceAccount", "name": name, "namespace": "kube-system"}),
        }
    }
}

fn object(kind: &str, namespace: &str, name: &str) -> Value {
    let mut object = json!({
        "apiVersion": format!("{GROUP}/v1"), "kind": kind,
        "metadata": {
            "name": name,
            "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
            "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"},
        },
    });
    if !namespace.is_empty() {
        object.set_namespace(namespace);
    }
    object
}

fn binding(kind: &str, namespace: &str, name: &str, role: (&str, &str), subjects: &[Subject]) -> Value {
    let mut object = object(kind, namespace, name);
    object["roleRef"] = json!({"apiGroup": GROUP, "kind": role.0, "name": role.1});
    if !subjects.is_empty() {
        object["subjects"] = subjects.iter().map(Subject::value).collect();
    }
    object
}

/// Every object, roles before the bindings that name them.
pub fn objects(gates: &FeatureGates) -> Vec<Value> {
    let on: Vec<&gated::Feature> = gated::ALL.iter().filter(|feature| gates.enabled(feature.gate)).collect();
    let plain = general::ROLES.iter().chain(on.iter().flat_map(|feature| feature.roles));
    let mut objects: Vec<Value> = plain.map(|role| role.value("")).collect();
    for role in objects.iter_mut().filter(|role| role.name() == gated::NODE) {
        let more = on.iter().flat_map(|feature| feature.node).map(Rule::value);
        role["rules"].as_array_mut().into_iter().for_each(|rules| rules.extend(more.clone()));
    }
    let controllers: Vec<&ClusterRole> =
        controllers::ROLES.iter().chain(on.iter().flat_map(|feature| feature.controllers)).collect();
    objects.extend(controllers.iter().map(|role| role.value(controllers::PREFIX)));
    objects.extend(namespaced::ROLES.iter().map(|(namespace, name, rules)| {
        let mut object = object("Role", namespace, name);
        object["rules"] = rules.iter().map(Rule::value).collect();
        object
    }));
    let bindings = general::BINDINGS.iter().chain(on.iter().flat_map(|feature| feature.bindings));
    objects.extend(
        bindings.map(|(name, subjects)| binding("ClusterRoleBinding", "", name, ("ClusterRole", name), subjects)),
    );
    objects.extend(controllers.iter().map(|role| {
        let name = format!("{}{}", controllers::PREFIX, role.name);
        let subjects = [Subject::Account(role.name)];
        binding("ClusterRoleBinding", "", &name, ("ClusterRole", &name), &subjects)
    }));
    objects.extend(
        namespaced::BINDINGS
            .iter()
            .map(|(namespace, name, role, subjects)| binding("RoleBinding", namespace, name, ("Role", role), subjects)),
    );
    objects
}
