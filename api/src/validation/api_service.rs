//! APIService.

use apimachinery::field::{self, ErrorList, Path};
use apimachinery::gotext::quote;
use apimachinery::names;
use serde_json::Value;

use super::checks::{dns1123_subdomain, messages, name_is_path_segment};
use super::object_meta;
use crate::read::Read;

pub(super) fn create(service: &Value, errors: &mut ErrorList) {
    object_meta::generic(service, false, name_is_path_segment, errors);
    let (spec, path) = (&service["spec"], Path::new("spec"));
    let (group, version) = (spec.text("group"), spec.text("version"));
    let (name, required) = (service["metadata"].text("name"), format!("{version}.{group}"));
    if !name.is_empty() && name != required && names::path_segment(name).is_empty() {
        let message = format!("must be `spec.version+\".\"+spec.group`: {}", quote(&required));
        errors.push(field::invalid(&Path::new("metadata").child("name"), name, message));
    }
    if group.is_empty() && version != "v1" {
        let message = "only v1 may have an empty group and it better be legacy kube";
        errors.push(field::required(&path.child("group"), message));
    }
    if !group.is_empty() {
        dns1123_subdomain(group, &path.child("group"), errors);
    }
    messages(names::dns1035_label(version), version, &path.child("version"), errors);
    for (name, most) in [("groupPriorityMinimum", 20_000), ("versionPriority", 1000)] {
        let value = spec.num(name);
        if !(1..=most).contains(&value) {
            let message = format!("must be positive and less than {most}");
            errors.push(field::invalid(&path.child(name), value, message));
        }
    }
    let (bundle, insecure) = (spec.text("caBundle"), path.child("insecureSkipTLSVerify"));
    let Some(target) = spec.set("service") else {
        if !bundle.is_empty() {
            let size = format!("{} bytes", super::config_map::decoded_len(&spec["caBundle"]));
            let message = "local APIServices may not have a caBundle";
            errors.push(field::invalid(&path.child("caBundle"), size, message));
        }
        if spec.flag("insecureSkipTLSVerify") {
            let message = "local APIServices may not have insecureSkipTLSVerify";
            errors.push(field::invalid(&insecure, true, message));
        }
        return;
    };
    let path = path.child("service");
    for name in ["namespace", "name"] {
        if target.text(name).is_empty() {
            errors.push(field::required(&path.child(name), ""));
        }
    }
    let wrong = names::port_num(target.num("port"));
    if !wrong.is_empty() {
        let message = format!("port is not valid: {}", wrong.join(", "));
        errors.push(field::invalid(&path.child("port"), target.num("port"), message));
    }
    if spec.flag("insecureSkipTLSVerify") && !bundle.is_empty() {
        errors.push(field::invalid(&insecure, true, "may not be true if caBundle is present"));
    }
}

pub(super) fn update(new: &Value, old: &Value, errors: &mut ErrorList) {
    object_meta::generic_update(new, old, errors);
    create(new, errors);
}
