//! CustomResourceDefinitions: stored versions, and a deletion that waits for the instances.

use api::validation::custom_resource_definition::unrecognized_formats;
use apimachinery::gotext;
use apimachinery::object::ObjectExt as _;
use serde_json::{Value, json};

use super::hooks::{HookContext, Hooks};

/// Held by a definition that is being deleted until its instances are gone.
pub const CLEANUP_FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";

pub struct CustomResourceDefinition;

impl Hooks for CustomResourceDefinition {
    fn prepare_create(&self, _: &HookContext<'_>, object: &mut Value) {
        remember_storage_version(object);
    }

    fn prepare_update(&self, cx: &HookContext<'_>, new: &mut Value, _: &Value) {
        if cx.subresource.is_empty() {
            remember_storage_version(new);
        }
    }

    fn warnings(&self, new: &Value, old: Option<&Value>) -> Vec<String> {
        let known = old.map(unrecognized_formats).unwrap_or_default();
        let new = unrecognized_formats(new).into_iter().filter(|format| !known.contains(format));
        new.map(|format| format!("unrecognized format {}", gotext::quote(&format))).collect()
    }

    fn has_other_finalizers(&self, object: &Value) -> bool {
        // The first deletion only marks it: the finalizer comes with the mark.
        object.deletion_timestamp().is_none()
    }

    fn prepare_delete(&self, object: &mut Value) {
        if object.finalizers().any(|name| name == CLEANUP_FINALIZER) {
            return;
        }
        let mut finalizers: Vec<String> = object.finalizers().map(str::to_string).collect();
        finalizers.push(CLEANUP_FINALIZER.to_string());
        object.set_finalizers(finalizers);
        // The mark is no change of what is wanted.
        object.remove_at(&["metadata", "deletionGracePeriodSeconds"]);
        if object.generation() > 1 {
            object.set_generation(object.generation() - 1);
        }
        let since = object.deletion_timestamp().unwrap_or_default().to_string();
        crate::extensions::status::set_condition(
            object,
            "Terminating",
            "True",
            "InstanceDeletionPending",
            "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon",
            &since,
        );
    }
}

/// Adds the version that is stored now to those that ever were.
fn remember_storage_version(object: &mut Value) {
    let storage = object
        .list_at(&["spec", "versions"])
        .iter()
        .find(|version| version.bool_at(&["storage"]) == Some(true))
        .and_then(|version| version.get("name").cloned());
    let Some(storage) = storage else { return };
    let mut stored = object.list_at(&["status", "storedVersions"]).to_vec();
    if !stored.contains(&storage) {
        stored.push(storage);
        object.set_at(&["status", "storedVersions"], json!(stored));
    }
}
