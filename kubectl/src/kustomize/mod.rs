//! `kubectl kustomize`: objects out of a folder with a kustomization file, changed as it says.
//!
//! One pass over the tree of folders ([`target`]) gathers resources, runs generators and then the
//! transformers of each folder in upstream's fixed order; hashes and references to renamed objects
//! come last, over everything. Objects are plain trees, because the output has sorted keys and no
//! comments; what upstream keeps in internal annotations (former names, prefixes, behaviours) are
//! fields of [`resource::Resource`].
//!
//! Reads files below the roots and nothing else: remote bases, plugins and Helm charts are refused.

mod config;
mod fieldspec;
mod generators;
mod id;
mod kustomization;
mod loader;
mod merge;
mod name_reference;
mod references;
mod replacement_path;
mod replacements;
mod resource;
mod resources;
mod target;
mod transform;
mod vars;

#[cfg(test)]
mod tests;

use std::path::Path;

use serde_json::Value;

pub use loader::Restriction;

/// The version of kustomize whose behaviour this is; `managedByLabel` shows it.
pub const VERSION: &str = "v5.8.1";

/// Why nothing was built, in upstream's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Error(pub String);

impl Error {
    fn new(text: impl Into<String>) -> Self {
        Error(text.into())
    }

    /// With what was attempted before it.
    fn wrap(self, what: impl std::fmt::Display) -> Self {
        Error(format!("{what}: {}", self.0))
    }
}

/// What building gives.
pub type Result<T> = std::result::Result<T, Error>;

/// How to build.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Whether files may lie outside the folder that names them.
    pub restriction: Restriction,
    /// The order of the objects when the kustomization names none.
    pub order: Order,
    /// Adds `app.kubernetes.io/managed-by`.
    pub managed_by: bool,
}

/// The order of objects in the output.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Order {
    /// Namespaces first, webhooks last, the rest by kind and name.
    #[default]
    Legacy,
    /// As they were read.
    None,
}

/// Builds the objects of a folder. `warn` gets a line for each deprecated field.
///
/// # Errors
/// What is wrong with a file, or between files.
pub fn build(folder: &Path, options: Options, warn: &mut dyn FnMut(&str)) -> Result<Vec<Value>> {
    target::build(folder, options, warn)
}

/// The objects as one YAML stream.
pub fn yaml(objects: &[Value]) -> String {
    objects.iter().map(crate::codec::yaml_text).collect::<Vec<_>>().join("---\n")
}

/// A file name for each object, for output into a folder: with the namespace when there are several.
pub fn file_names(objects: &[Value]) -> Vec<String> {
    let ids: Vec<id::Id> = objects.iter().map(id::Id::of).collect();
    let mut namespaces: Vec<&str> =
        ids.iter().filter(|id| !id.gvk.is_cluster_scoped()).map(id::Id::effective_namespace).collect();
    namespaces.sort_unstable();
    namespaces.dedup();
    let name = |id: &id::Id| {
        let parts = [&id.gvk.group, &id.gvk.version, &id.gvk.kind];
        let kind: Vec<&str> = parts.into_iter().map(String::as_str).filter(|part| !part.is_empty()).collect();
        let name = format!("{}_{}.yaml", kind.join("_").to_lowercase(), id.name.to_lowercase());
        if namespaces.len() > 1 && !id.gvk.is_cluster_scoped() {
            format!("{}_{name}", id.effective_namespace().to_lowercase())
        } else {
            name
        }
    };
    ids.iter().map(name).collect()
}
