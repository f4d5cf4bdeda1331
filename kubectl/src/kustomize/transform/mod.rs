//! The transformers, in the order in which a kustomization's run whatever its own order.

mod images;
mod metadata;
mod names;
mod namespace;
mod patches;
mod replicas;
mod sort;

use serde_json::Value;

use super::config::Config;
use super::kustomization::Kustomization;
use super::loader::Loader;
use super::resources::Resources;
use super::{Error, Result, replacements};

pub use names::add_hashes;
pub use sort::sort;

/// What a transformer sees beside the objects.
pub struct Scope<'a> {
    pub kustomization: &'a Kustomization,
    pub config: &'a Config,
    pub loader: &'a Loader,
}

/// A transformer.
type Transform = fn(&Scope<'_>, &mut Resources) -> Result<()>;

/// All of them.
const ORDER: &[Transform] = &[
    patches::strategic_merge,
    patches::patches,
    namespace::namespace,
    names::prefix,
    names::suffix,
    metadata::labels,
    metadata::annotations,
    patches::json6902,
    replicas::replicas,
    images::images,
    replacements::replacements,
];

/// Runs them.
///
/// # Errors
/// When one cannot do what it is told.
pub fn run(scope: &Scope<'_>, resources: &mut Resources) -> Result<()> {
    for transform in ORDER {
        transform(scope, resources)?;
        resources.drop_empty();
    }
    Ok(())
}

/// Sets a text in a map.
///
/// # Errors
/// When it is no map.
fn set_entry(map: &mut Value, key: &str, text: &str) -> Result<()> {
    match map {
        Value::Object(map) => {
            map.insert(key.to_owned(), Value::String(text.to_owned()));
            Ok(())
        }
        Value::Null => {
            *map = serde_json::json!({key: text});
            Ok(())
        }
        other => Err(super::fieldspec::require(other, "MappingNode")
            .err()
            .unwrap_or_else(|| Error::new("expected a mapping node"))),
    }
}
