//! DeviceTaintRule (KEP-5055).

use apimachinery::field::{self, ErrorList, Path};
use serde_json::Value;

use super::super::checks::{dns1123_label, name_is_subdomain};
use super::super::{conditions, object_meta};
use super::{driver_name, pool_name, taint};
use crate::read::Read;

const MOST_CONDITIONS: usize = 8;

pub(in super::super) fn taint_rule(rule: &Value, errors: &mut ErrorList) {
    object_meta::create(rule, false, name_is_subdomain, errors);
    spec(&rule["spec"], None, errors);
}

pub(in super::super) fn taint_rule_update(new: &Value, old: &Value, errors: &mut ErrorList) {
    object_meta::update(new, old, errors);
    spec(&new["spec"], Some(&old["spec"]["taint"]), errors);
}

fn spec(spec: &Value, old_taint: Option<&Value>, errors: &mut ErrorList) {
    let path = Path::new("spec");
    let (selector, at) = (&spec["deviceSelector"], path.child("deviceSelector"));
    let of = |name: &str| selector.set(name).and_then(Value::as_str);
    if let Some(driver) = of("driver") {
        driver_name(driver, &at.child("driver"), errors);
    }
    if let Some(pool) = of("pool") {
        pool_name(pool, &at.child("pool"), errors);
    }
    if let Some(device) = of("device") {
        dns1123_label(device, &at.child("device"), errors);
    }
    taint(&spec["taint"], old_taint, &path.child("taint"), errors);
}

pub(in super::super) fn taint_rule_status(new: &Value, old: &Value, errors: &mut ErrorList) {
    object_meta::update(new, old, errors);
    let (list, path) = (new["status"].list("conditions"), Path::new("status").child("conditions"));
    conditions::check(list, &path, errors);
    if list.len() > MOST_CONDITIONS {
        errors.push(field::too_many(&path, list.len(), MOST_CONDITIONS));
    }
}
