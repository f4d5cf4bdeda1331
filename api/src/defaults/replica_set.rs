//! ReplicaSet.

use serde_json::Value;

use super::pod_spec;
use super::set::{at, if_nil};

pub(super) fn set(set: &mut Value) {
    let Some(spec) = at(set, &["spec"]) else { return };
    if_nil(spec, "replicas", 1);
    pod_spec::template(spec.get_mut("template"));
}
