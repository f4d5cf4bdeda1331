//! CSIDriver.

use serde_json::{Value, json};

use super::set::{at, if_nil, if_zero};

pub(super) fn set(driver: &mut Value) {
    let Some(spec) = at(driver, &["spec"]) else { return };
    if_nil(spec, "attachRequired", true);
    if_nil(spec, "podInfoOnMount", false);
    if_nil(spec, "storageCapacity", false);
    if_nil(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
    if_zero(spec, "volumeLifecycleModes", json!(["Persistent"]));
    if_nil(spec, "requiresRepublish", false);
    if_nil(spec, "seLinuxMount", false);
}
