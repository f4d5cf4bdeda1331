//! ReplicationController: labels and selector come from its template.

use apimachinery::object::ObjectExt;
use serde_json::Value;

use super::pod_spec;
use super::set::{at, if_nil, if_zero};

pub(super) fn set(controller: &mut Value) {
    let labels = controller.at(&["spec", "template", "metadata", "labels"]).filter(|l| l.is_object()).cloned();
    if let Some(labels) = labels {
        if let Some(spec) = at(controller, &["spec"]) {
            if_zero(spec, "selector", labels.clone());
        }
        if let Some(metadata) = at(controller, &["metadata"]) {
            if_zero(metadata, "labels", labels);
        }
    }
    if let Some(spec) = at(controller, &["spec"]) {
        if_nil(spec, "replicas", 1);
        pod_spec::template(spec.get_mut("template"));
    }
}
