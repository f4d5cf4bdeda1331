//! The status of a ResourceClaim: what was allocated, for whom, and how the devices are.

use apimachinery::field::{self, BadValue, ErrorList, Path};
use apimachinery::gotext::quote;
use serde_json::Value;

use super::super::checks::{dns1123_label, immutable, interface_address, semantically_equal};
use super::super::pod::scheduling::node_selector;
use super::super::{conditions, object_meta};
use super::claim::{Requests, configuration, references};
use super::{binding_conditions, driver_name, fits, itself, pool_name, raw_object, unique, unique_texts};
use crate::read::Read;

const MOST_USERS: usize = 256;
const MOST_RESULTS: usize = 32;
const MOST_CONFIGS: usize = 64;
const MOST_CONDITIONS: usize = 8;
const LARGEST_DATA: usize = 10 * 1024;
const MOST_IPS: usize = 16;

pub(in super::super) fn claim_status(new: &Value, old: &Value, errors: &mut ErrorList) {
    object_meta::update(new, old, errors);
    let deleted = new["metadata"].set("deletionTimestamp").is_some();
    let known = Requests::of(&new["spec"]["devices"]);
    let (status, before, path) = (&new["status"], &old["status"], Path::new("status"));
    users(status.list("reservedFor"), &path.child("reservedFor"), errors);
    let allocated: Vec<DeviceId> = status["allocation"]["devices"].list("results").iter().map(DeviceId::of).collect();
    let (devices, at) = (status.list("devices"), path.child("devices"));
    for (i, device) in devices.iter().enumerate() {
        self::device(device, &allocated, &at.index(i), errors);
    }
    unique(devices, DeviceId::of, DeviceId::shown, &at, errors);
    let (reserved, at) = (status.list("reservedFor"), path.child("reservedFor"));
    if !reserved.is_empty() && status.set("allocation").is_none() {
        errors.push(field::forbidden(&at, "may not be specified when `allocated` is not set"));
    } else if deleted
        && reserved.iter().any(|user| !before.list("reservedFor").iter().any(|b| semantically_equal(b, user)))
    {
        let message = "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set";
        errors.push(field::forbidden(&at, message));
    }
    let at = path.child("allocation");
    match (status.set("allocation"), before.set("allocation")) {
        (Some(new), Some(old)) => immutable(new, old, &at, errors),
        (Some(new), None) => allocation(new, &known, &at, errors),
        (None, _) => {}
    }
}

fn users(list: &[Value], path: &Path, errors: &mut ErrorList) {
    if !fits(list, MOST_USERS, path, errors) {
        return;
    }
    for (i, user) in list.iter().enumerate() {
        for name in ["resource", "name", "uid"] {
            if user.text(name).is_empty() {
                errors.push(field::required(&path.index(i).child(name), ""));
            }
        }
    }
    unique_texts(list, |user| user.text("uid"), path, errors);
}

/// A device, or a share of it.
#[derive(PartialEq)]
struct DeviceId {
    driver: String,
    pool: String,
    device: String,
    share: String,
}

impl DeviceId {
    fn of(object: &Value) -> Self {
        let text = |name: &str| object.text(name).to_owned();
        Self { driver: text("driver"), pool: text("pool"), device: text("device"), share: text("shareID") }
    }

    fn shown(self) -> BadValue {
        let [driver, pool, device, share] = [self.driver, self.pool, self.device, self.share].map(|t| quote(&t));
        BadValue::Raw(format!("{{\"Driver\":{driver},\"Pool\":{pool},\"Device\":{device},\"ShareID\":{share}}}"))
    }
}

fn uid(uid: &str, path: &Path, errors: &mut ErrorList) {
    let bytes = uid.as_bytes();
    let dash = |at: &usize| matches!(at, 8 | 13 | 18 | 23);
    let plain = bytes.len() == 36
        && bytes.iter().enumerate().all(|(i, b)| if dash(&i) { *b == b'-' } else { b.is_ascii_hexdigit() });
    if !plain {
        let why = if bytes.len() == 36 {
            "invalid UUID format".to_owned()
        } else {
            format!("invalid UUID length: {}", bytes.len())
        };
        errors.push(field::invalid(path, uid, format!("error validating uid: {why}")));
    } else if bytes.iter().any(u8::is_ascii_uppercase) {
        let message = "uid must be in RFC 4122 normalized form, `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx` with lowercase hexadecimal characters";
        errors.push(field::invalid(path, uid, message));
    }
}

/// Which device of which driver's pool.
fn identity(object: &Value, path: &Path, errors: &mut ErrorList) {
    driver_name(object.text("driver"), &path.child("driver"), errors);
    pool_name(object.text("pool"), &path.child("pool"), errors);
    dns1123_label(object.text("device"), &path.child("device"), errors);
}

fn device(device: &Value, allocated: &[DeviceId], path: &Path, errors: &mut ErrorList) {
    identity(device, path, errors);
    if let Some(share) = device.set("shareID").and_then(Value::as_str) {
        uid(share, &path.child("shareID"), errors);
    }
    let id = DeviceId::of(device);
    if !allocated.contains(&id) {
        errors.push(field::invalid(path, id.shown(), "must be an allocated device in the claim"));
    }
    let (list, at) = (device.list("conditions"), path.child("conditions"));
    if list.len() > MOST_CONDITIONS {
        errors.push(field::too_many(&at, list.len(), MOST_CONDITIONS));
    }
    conditions::check(list, &at, errors);
    if let Some(data) = device.set("data") {
        raw_object(Some(data), LARGEST_DATA, &path.child("data"), errors);
    }
    if let Some(network) = device.set("networkData") {
        self::network(network, &path.child("networkData"), errors);
    }
}

fn network(network: &Value, path: &Path, errors: &mut ErrorList) {
    for (name, longest) in [("interfaceName", 256), ("hardwareAddress", 128)] {
        if network.text(name).len() > longest {
            errors.push(field::too_long(&path.child(name), longest));
        }
    }
    let (ips, path) = (network.list("ips"), path.child("ips"));
    if fits(ips, MOST_IPS, &path, errors) {
        for (i, ip) in ips.iter().enumerate() {
            interface_address(itself(ip), &path.index(i), errors);
        }
        unique_texts(ips, itself, &path, errors);
    }
}

fn allocation(allocation: &Value, known: &Requests<'_>, path: &Path, errors: &mut ErrorList) {
    let at = path.child("devices");
    let (results, path_results) = (allocation["devices"].list("results"), at.child("results"));
    if fits(results, MOST_RESULTS, &path_results, errors) {
        for (i, result) in results.iter().enumerate() {
            let path = path_results.index(i);
            known.check(result.text("request"), &path.child("request"), errors);
            identity(result, &path, errors);
            binding_conditions(result, &path, errors);
            if let Some(share) = result.set("shareID").and_then(Value::as_str) {
                uid(share, &path.child("shareID"), errors);
            }
        }
    }
    let (configs, path_configs) = (allocation["devices"].list("config"), at.child("config"));
    if fits(configs, MOST_CONFIGS, &path_configs, errors) {
        for (i, config) in configs.iter().enumerate() {
            let path = path_configs.index(i);
            super::super::checks::one_of(
                config.text("source"),
                &["FromClaim", "FromClass"],
                &path.child("source"),
                errors,
            );
            references(config, known, &path, errors);
            configuration(config, &path, errors);
        }
    }
    if let Some(selector) = allocation.set("nodeSelector") {
        node_selector(selector, &path.child("nodeSelector"), errors);
    }
}
