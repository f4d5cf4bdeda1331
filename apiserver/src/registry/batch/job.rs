//! Jobs select their pods by the job's own uid unless told otherwise.

use apimachinery::object::ObjectExt as _;
use serde_json::{Value, json};

use crate::registry::hooks::{HookContext, Hooks};

pub struct Job;

const LABELS: [&str; 2] = ["batch.kubernetes.io/controller-uid", "controller-uid"];
const NAMES: [&str; 2] = ["batch.kubernetes.io/job-name", "job-name"];

impl Hooks for Job {
    fn prepare_create(&self, _: &HookContext<'_>, object: &mut Value) {
        if object.bool_at(&["spec", "manualSelector"]) == Some(true) {
            return;
        }
        // Defaulting made these one and the same map upstream, so both get what is added.
        let shared = object
            .labels()
            .is_some_and(|labels| object.map_at(&["spec", "template", "metadata", "labels"]) == Some(labels));
        let (uid, name) = (object.uid().to_string(), object.name().to_string());
        // Labels a user set to something else are left for validation to refuse.
        for (keys, value) in [(LABELS, &uid), (NAMES, &name)] {
            for key in keys {
                let labels = object.at_mut_or_create(&["spec", "template", "metadata", "labels"]);
                if !labels.is_object() {
                    *labels = json!({});
                }
                if labels.get(key).is_none() {
                    labels[key] = value.clone().into();
                }
            }
        }
        if shared && let Some(labels) = object.at(&["spec", "template", "metadata", "labels"]).cloned() {
            object.set_at(&["metadata", "labels"], labels);
        }
        let selector = object.at_mut_or_create(&["spec", "selector", "matchLabels"]);
        if !selector.is_object() {
            *selector = json!({});
        }
        if selector.get(LABELS[0]).is_none() {
            selector[LABELS[0]] = uid.into();
        }
    }

    /// A job without labels has its template's.
    fn read_back(&self, object: &mut Value) {
        if object.labels().is_none_or(serde_json::Map::is_empty)
            && let Some(labels) = object.at(&["spec", "template", "metadata", "labels"]).cloned()
        {
            object.set_at(&["metadata", "labels"], labels);
        }
    }
}
