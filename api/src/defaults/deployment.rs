//! Deployment.

use serde_json::Value;

use super::pod_spec;
use super::set::{at, child_or_new, if_nil, if_zero, text};

pub(super) fn set(deployment: &mut Value) {
    let Some(spec) = at(deployment, &["spec"]) else { return };
    if_nil(spec, "replicas", 1);
    if let Some(strategy) = child_or_new(spec, "strategy") {
        if_zero(strategy, "type", "RollingUpdate");
        if text(strategy, "type") == "RollingUpdate"
            && let Some(rolling) = child_or_new(strategy, "rollingUpdate")
        {
            if_nil(rolling, "maxUnavailable", "25%");
            if_nil(rolling, "maxSurge", "25%");
        }
    }
    if_nil(spec, "revisionHistoryLimit", 10);
    if_nil(spec, "progressDeadlineSeconds", 600);
    pod_spec::template(spec.get_mut("template"));
}
