//! StatefulSet.

use serde_json::Value;

use super::set::{at, child, child_or_new, if_nil, if_zero, items, text};
use super::{persistent_volume_claim, pod_spec};

pub(super) fn set(set: &mut Value) {
    let Some(spec) = at(set, &["spec"]) else { return };
    if_zero(spec, "podManagementPolicy", "OrderedReady");
    if let Some(strategy) = child_or_new(spec, "updateStrategy") {
        if text(strategy, "type").is_empty() {
            if_zero(strategy, "type", "RollingUpdate");
            child_or_new(strategy, "rollingUpdate");
        }
        if text(strategy, "type") == "RollingUpdate"
            && let Some(rolling) = child(strategy, "rollingUpdate")
        {
            if_nil(rolling, "partition", 0);
        }
    }
    if let Some(policy) = child_or_new(spec, "persistentVolumeClaimRetentionPolicy") {
        if_zero(policy, "whenDeleted", "Retain");
        if_zero(policy, "whenScaled", "Retain");
    }
    if_nil(spec, "replicas", 1);
    if_nil(spec, "revisionHistoryLimit", 10);
    items(spec, "volumeClaimTemplates").for_each(persistent_volume_claim::template);
    pod_spec::template(spec.get_mut("template"));
}
