//! The table of every built-in type and resource, parsed once from the committed text.
//!
//! `kubernetes.txt` is written by `cargo run -p api --bin generate`. Parsing borrows its text, so the
//! names cost nothing; it takes a few milliseconds at most and happens on first use.

mod parse;
mod resource;

use std::sync::OnceLock;

use apimachinery::gvk::{GroupVersionKind, GroupVersionResource};
use apimachinery::schema::{ProtoEntry, Schema, TypeId, TypeRef};

pub use resource::{Resource, Subresource};

/// Everything known about built-in kinds.
#[derive(Debug)]
pub struct Table {
    schema: Schema,
    /// Go name (`core/v1.Pod`) → type, sorted.
    names: Vec<(&'static str, TypeId)>,
    /// (kind, group, version) → type, sorted: kinds differ in their first letters, groups hardly.
    kinds: Vec<((&'static str, &'static str, &'static str), TypeId)>,
    /// In the order of discovery: groups and versions by priority, resources by name.
    resources: Vec<Resource>,
    /// Indexes into `resources`, sorted by (plural, group, version).
    by_plural: Vec<u16>,
    /// Indexes into `resources`, sorted by (kind, group, version).
    by_kind: Vec<u16>,
    packages: Vec<Package>,
    /// By type id: a default is somewhere below.
    defaults: Vec<bool>,
}

/// A Go package of API types.
#[derive(Clone, Copy, Debug)]
pub struct Package {
    /// `core/v1`.
    pub name: &'static str,
    /// API group; empty for core and for packages without one.
    pub group: &'static str,
    pub version: &'static str,
    /// `io.k8s.api.core.v1`.
    pub open_api_prefix: &'static str,
}

/// The table of this build.
pub fn table() -> &'static Table {
    static TABLE: OnceLock<Table> = OnceLock::new();
    TABLE.get_or_init(|| parse::parse(include_str!("kubernetes.txt")))
}

/// Parses the text again: for the benchmark of start-up.
#[doc(hidden)]
pub fn parse_anew() -> Table {
    parse::parse(include_str!("kubernetes.txt"))
}

impl Table {
    /// Every resource, in the order of discovery, those off by default included.
    pub fn resources(&self) -> &[Resource] {
        &self.resources
    }

    /// The resource of these coordinates.
    pub fn resource(&self, gvr: &GroupVersionResource) -> Option<&Resource> {
        self.find_resource(&gvr.group, &gvr.version, &gvr.resource)
    }

    /// As [`Table::resource`], from borrowed text.
    pub fn find_resource(&self, group: &str, version: &str, plural: &str) -> Option<&Resource> {
        let key = |index: &u16| {
            let resource = &self.resources[usize::from(*index)];
            (resource.plural.as_ref(), resource.group.as_ref(), resource.version.as_ref())
        };
        let at = self.by_plural.binary_search_by(|index| key(index).cmp(&(plural, group, version))).ok()?;
        Some(&self.resources[usize::from(self.by_plural[at])])
    }

    /// The resource whose objects are of this kind (not of its list kind).
    pub fn resource_by_kind(&self, gvk: &GroupVersionKind) -> Option<&Resource> {
        self.find_resource_by_kind(&gvk.group, &gvk.version, &gvk.kind)
    }

    /// As [`Table::resource_by_kind`], from borrowed text.
    pub fn find_resource_by_kind(&self, group: &str, version: &str, kind: &str) -> Option<&Resource> {
        let key = |index: &u16| {
            let resource = &self.resources[usize::from(*index)];
            (resource.kind.as_ref(), resource.group.as_ref(), resource.version.as_ref())
        };
        let at = self.by_kind.binary_search_by(|index| key(index).cmp(&(kind, group, version))).ok()?;
        Some(&self.resources[usize::from(self.by_kind[at])])
    }

    /// The type of a kind: resources, lists, options, reviews. The kinds of `meta.k8s.io/v1` that every
    /// group serves (`Status`, `DeleteOptions`, `WatchEvent`, …) are found under any group and version.
    pub fn kind(&self, gvk: &GroupVersionKind) -> Option<TypeRef<'_>> {
        self.find_kind(&gvk.group, &gvk.version, &gvk.kind)
    }

    /// As [`Table::kind`], from borrowed text.
    pub fn find_kind(&self, group: &str, version: &str, kind: &str) -> Option<TypeRef<'_>> {
        let get = |group: &str, version: &str| {
            let at = self.kinds.binary_search_by(|(key, _)| (*key).cmp(&(kind, group, version))).ok()?;
            Some(self.schema.type_ref(self.kinds[at].1))
        };
        get(group, version).or_else(|| get("meta.k8s.io", "v1").filter(|_| SERVED_EVERYWHERE.contains(&kind)))
    }

    /// The type of this Go name, `core/v1.PodSpec`.
    pub fn named(&self, name: &str) -> Option<TypeRef<'_>> {
        let at = self.names.binary_search_by(|(key, _)| (*key).cmp(name)).ok()?;
        Some(self.schema.type_ref(self.names[at].1))
    }

    /// Every Go name and its type, sorted by name.
    pub fn types(&self) -> impl Iterator<Item = (&'static str, TypeRef<'_>)> {
        self.names.iter().map(|(name, id)| (*name, self.schema.type_ref(*id)))
    }

    /// The Go packages, in the order of the table.
    pub fn packages(&self) -> &[Package] {
        &self.packages
    }

    /// True when the type or anything below it has a default, so that a walk may pass it over.
    pub fn has_defaults(&self, id: TypeId) -> bool {
        self.defaults.get(id.0 as usize).copied().unwrap_or(false)
    }

    /// The arena of all types.
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// `core/v1.Pod` → `io.k8s.api.core.v1.Pod`.
    pub fn open_api_name(&self, name: &str) -> Option<String> {
        let (package, name) = name.rsplit_once('.')?;
        let package = self.packages.iter().find(|known| known.name == package)?;
        Some(format!("{}.{name}", package.open_api_prefix))
    }
}

/// Kinds of `meta.k8s.io/v1` that upstream registers in every group and version.
const SERVED_EVERYWHERE: &[&str] = &[
    "APIGroup",
    "APIGroupList",
    "APIResourceList",
    "APIVersions",
    "ApplyOptions",
    "CreateOptions",
    "DeleteOptions",
    "GetOptions",
    "List",
    "ListOptions",
    "PatchOptions",
    "Status",
    "UpdateOptions",
    "WatchEvent",
];

/// True for types that can travel as protobuf; kinds that are JSON only (`Table`) have no numbers.
pub fn has_protobuf(ty: TypeRef<'_>) -> bool {
    ty.object().is_some_and(|object| {
        object.proto.iter().any(|entry| matches!(entry, ProtoEntry::Field { .. } | ProtoEntry::Embed { .. }))
    })
}

#[cfg(test)]
mod tests;
