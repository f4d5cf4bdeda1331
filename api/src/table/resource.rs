//! A resource: what discovery, routing, storage and printing need to know beside its type.
//!
//! Built-in rows come from the table and borrow its text; a CustomResourceDefinition makes rows of the
//! same shape at run time with owned text.

use apimachinery::schema::{Text, TypeRef};

/// One resource of one group and version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// Empty for core.
    pub group: Text,
    pub version: Text,
    pub plural: Text,
    pub singular: Text,
    pub kind: Text,
    pub list_kind: Text,
    pub short_names: Vec<Text>,
    pub categories: Vec<Text>,
    pub namespaced: bool,
    /// Sorted, as discovery lists them.
    pub verbs: Vec<Text>,
    /// Sorted by name.
    pub subresources: Vec<Subresource>,
    /// Made from a CustomResourceDefinition.
    pub custom: bool,
    /// False for versions that need `--runtime-config`.
    pub enabled_by_default: bool,
    /// Group and version that etcd holds; `None` where nothing is stored (reviews, `bindings`).
    pub storage_version: Option<(Text, Text)>,
    /// What follows the etcd prefix: `pods`, `services/specs`, `minions`.
    pub storage_prefix: Text,
    /// Field selector labels besides `metadata.name` and `metadata.namespace`.
    pub selectable_fields: Vec<Text>,
}

/// `pods/status`, `deployments/scale`, …
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subresource {
    pub name: Text,
    /// Group, version and kind of what it takes and gives.
    pub group: Text,
    pub version: Text,
    pub kind: Text,
    /// The kind is of another group or version than the resource, so discovery names it.
    pub foreign: bool,
    /// Sorted.
    pub verbs: Vec<Text>,
}

impl Resource {
    /// `v1`, `apps/v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_string() } else { format!("{}/{}", self.group, self.version) }
    }

    /// `pods`, `deployments.apps`: how messages name it.
    pub fn qualified(&self) -> String {
        if self.group.is_empty() { self.plural.to_string() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// True when the verb is served.
    pub fn has_verb(&self, verb: &str) -> bool {
        self.verbs.iter().any(|known| known == verb)
    }

    /// The named subresource.
    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|subresource| subresource.name == name)
    }

    /// The type of a built-in resource's objects; `None` for rows made from a CustomResourceDefinition.
    pub fn type_ref(&self) -> Option<TypeRef<'static>> {
        crate::table().find_kind(&self.group, &self.version, &self.kind)
    }

    /// Label of a field selector that this resource knows. Built-in kinds without selectors of their own take
    /// a namespace although they are in none.
    pub fn selects(&self, label: &str) -> bool {
        let namespace = self.namespaced || (!self.custom && self.selectable_fields.is_empty());
        label == "metadata.name"
            || (label == "metadata.namespace" && namespace)
            || self.selectable_fields.iter().any(|known| known == label)
    }
}
