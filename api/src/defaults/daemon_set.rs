//! DaemonSet.

use serde_json::Value;

use super::pod_spec;
use super::set::{at, child_or_new, if_nil, if_zero, text};

pub(super) fn set(set: &mut Value) {
    let Some(spec) = at(set, &["spec"]) else { return };
    if let Some(strategy) = child_or_new(spec, "updateStrategy") {
        if_zero(strategy, "type", "RollingUpdate");
        if text(strategy, "type") == "RollingUpdate"
            && let Some(rolling) = child_or_new(strategy, "rollingUpdate")
        {
            if_nil(rolling, "maxUnavailable", 1);
            if_nil(rolling, "maxSurge", 0);
        }
    }
    if_nil(spec, "revisionHistoryLimit", 10);
    pod_spec::template(spec.get_mut("template"));
}
