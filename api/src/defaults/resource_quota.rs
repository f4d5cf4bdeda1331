//! ResourceQuota: amounts in thousandths.

use serde_json::Value;

use super::resource_list::round;
use super::set::at;

pub(super) fn set(quota: &mut Value) {
    if let Some(spec) = at(quota, &["spec"]) {
        round(spec, "hard");
    }
    if let Some(status) = at(quota, &["status"]) {
        round(status, "hard");
        round(status, "used");
    }
}
