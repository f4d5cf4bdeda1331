//! Default values of built-in kinds.
//!
//! Two sources, applied in upstream's order: the `+default` markers, which are in the table
//! ([`table_defaults`]), and what Kubernetes calls `SetDefaults_*`, one file per kind beside this one.

mod from_table;

use serde_json::Value;

use crate::Resource;

pub use from_table::table_defaults;

/// Fills `object` with every default of its kind. Custom resources have theirs in their schema.
pub fn apply(resource: &Resource, object: &mut Value) {
    if let Some(ty) = resource.type_ref() {
        table_defaults(ty, object);
    }
}
