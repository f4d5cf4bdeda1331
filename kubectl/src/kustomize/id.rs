//! What names an object: group, version, kind, name and namespace.

use std::fmt;

use serde::Deserialize;
use serde_json::Value;

use crate::codec;

/// What a namespace is called where there can be none.
pub const NO_NAMESPACE: &str = "_non_namespaceable_";

/// A group, version and kind; an empty part stands for any in selectors.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Gvk {
    pub group: String,
    pub version: String,
    pub kind: String,
}

impl Gvk {
    pub fn new(group: &str, version: &str, kind: &str) -> Self {
        Gvk { group: group.to_owned(), version: version.to_owned(), kind: kind.to_owned() }
    }

    /// Of an object.
    pub fn of(object: &Value) -> Self {
        let api_version = codec::text(object, &["apiVersion"]);
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        Self::new(group, version, codec::text(object, &["kind"]))
    }

    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// Whether a selector's parts, as far as it has them, are equal.
    pub fn is_selected(&self, selector: &Gvk) -> bool {
        (selector.group.is_empty() || selector.group == self.group)
            && (selector.version.is_empty() || selector.version == self.version)
            && (selector.kind.is_empty() || selector.kind == self.kind)
    }

    /// Whether kustomize knows that it has no namespace; it knows the kinds of 1.21.
    pub fn is_cluster_scoped(&self) -> bool {
        CLUSTER_SCOPED.iter().any(|(group, versions, kinds)| {
            *group == self.group && versions.contains(&self.version.as_str()) && kinds.contains(&self.kind.as_str())
        })
    }
}

/// Group, versions, kinds.
const CLUSTER_SCOPED: &[(&str, &[&str], &[&str])] = &[
    (
        "admissionregistration.k8s.io",
        &["v1", "v1beta1"],
        &["MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"],
    ),
    ("apiextensions.k8s.io", &["v1", "v1beta1"], &["CustomResourceDefinition"]),
    ("apiregistration.k8s.io", &["v1", "v1beta1"], &["APIService"]),
    ("certificates.k8s.io", &["v1", "v1beta1"], &["CertificateSigningRequest"]),
    ("flowcontrol.apiserver.k8s.io", &["v1beta1"], &["FlowSchema", "PriorityLevelConfiguration"]),
    ("networking.k8s.io", &["v1", "v1beta1"], &["IngressClass"]),
    ("node.k8s.io", &["v1", "v1beta1"], &["RuntimeClass"]),
    ("policy", &["v1beta1"], &["PodSecurityPolicy"]),
    ("rbac.authorization.k8s.io", &["v1", "v1beta1"], &["ClusterRole", "ClusterRoleBinding"]),
    ("scheduling.k8s.io", &["v1", "v1beta1"], &["PriorityClass"]),
    ("storage.k8s.io", &["v1", "v1beta1"], &["CSIDriver", "CSINode", "StorageClass", "VolumeAttachment"]),
    ("", &["v1"], &["ComponentStatus", "Namespace", "Node", "NodeProxyOptions", "PersistentVolume"]),
];

fn or<'a>(text: &'a str, absent: &'a str) -> &'a str {
    if text.is_empty() { absent } else { text }
}

impl fmt::Display for Gvk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", or(&self.kind, "[noKind]"), or(&self.version, "[noVer]"), or(&self.group, "[noGrp]"))
    }
}

/// An object's identity.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Id {
    pub gvk: Gvk,
    pub name: String,
    pub namespace: String,
}

impl Id {
    /// Of an object as it stands.
    pub fn of(object: &Value) -> Self {
        Id { gvk: Gvk::of(object), name: scalar(object, "name"), namespace: scalar(object, "namespace") }
    }

    /// The namespace it lives in: `default` when it names none, [`NO_NAMESPACE`] when it has none.
    pub fn effective_namespace(&self) -> &str {
        if self.gvk.is_cluster_scoped() { NO_NAMESPACE } else { or(&self.namespace, "default") }
    }

    /// Whether both live in one namespace.
    pub fn same_namespace(&self, other: &Id) -> bool {
        self.effective_namespace() == other.effective_namespace()
    }

    /// Whether both mean one object.
    pub fn same(&self, other: &Id) -> bool {
        self.same_namespace(other) && self.name == other.name && self.gvk == other.gvk
    }

    /// Whether a selector's parts, as far as it has them, are equal.
    pub fn is_selected_by(&self, selector: &Id) -> bool {
        (selector.name.is_empty() || selector.name == self.name)
            && (selector.namespace.is_empty() || selector.same_namespace(self))
            && self.gvk.is_selected(&selector.gvk)
    }

    /// As Go's `%#v` shows it.
    pub fn go_syntax(&self) -> String {
        format!(
            "resid.ResId{{Gvk:resid.Gvk{{Group:{:?}, Version:{:?}, Kind:{:?}, isClusterScoped:{}}}, Name:{:?}, Namespace:{:?}}}",
            self.gvk.group,
            self.gvk.version,
            self.gvk.kind,
            self.gvk.is_cluster_scoped(),
            self.name,
            self.namespace
        )
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}.{}", self.gvk, or(&self.name, "[noName]"), or(&self.namespace, "[noNs]"))
    }
}

/// A field of the metadata as text, numbers too.
fn scalar(object: &Value, field: &str) -> String {
    match codec::at(object, &["metadata", field]) {
        Some(Value::String(text)) => text.clone(),
        Some(other @ (Value::Number(_) | Value::Bool(_))) => other.to_string(),
        _ => String::new(),
    }
}
