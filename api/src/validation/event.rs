//! Event. What `events.k8s.io` asks for is stricter than what the core group does.

use apimachinery::field::{self, ErrorList, Path};
use serde_json::Value;

use super::checks::{
    IMMUTABLE, dns1123_subdomain, immutable, immutable_struct, immutable_text, name_is_subdomain, qualified_name,
};
use super::object_meta;
use crate::read::Read;

const LONGEST: usize = 128;
const LONGEST_NOTE: usize = 1024;

/// `strict` is a request to `events.k8s.io`; the event is in the core group's form.
pub(super) fn create(event: &Value, strict: bool, errors: &mut ErrorList) {
    legacy(event, strict, errors);
    if !strict {
        return;
    }
    object_meta::create(event, true, name_is_subdomain, errors);
    series(event, errors);
    if event.set("eventTime").is_none() {
        errors.push(field::required(&Path::new("eventTime"), ""));
    }
    let kind = event.text("type");
    if !matches!(kind, "Normal" | "Warning") {
        errors.push(field::invalid(&Path::new("type"), "", format!("has invalid value: {kind}")));
    }
    let source = &event["source"];
    let needless = [
        ("firstTimestamp", event.set("firstTimestamp").is_some()),
        ("lastTimestamp", event.set("lastTimestamp").is_some()),
        ("count", event.num("count") != 0),
        ("source", !source.text("component").is_empty() || !source.text("host").is_empty()),
    ];
    for (name, _) in needless.iter().filter(|(_, set)| *set) {
        errors.push(field::invalid(&Path::new(*name), "", "needs to be unset"));
    }
}

fn series(event: &Value, errors: &mut ErrorList) {
    let Some(series) = event.set("series") else { return };
    if series.num("count") < 2 {
        errors.push(field::invalid(&Path::new("series.count"), "", "should be at least 2"));
    }
    if series.set("lastObservedTime").is_none() {
        errors.push(field::required(&Path::new("series.lastObservedTime"), ""));
    }
}

/// What every event must be.
fn legacy(event: &Value, strict: bool, errors: &mut ErrorList) {
    let (namespace, about) = (event["metadata"].text("namespace"), event["involvedObject"].text("namespace"));
    let new_style = event.set("eventTime").is_some();
    let agrees = match (new_style, about) {
        (false, "") => matches!(namespace, "" | "default"),
        (false, about) => about == namespace,
        (true, "") => matches!(namespace, "default" | "kube-system"),
        (true, _) => true,
    };
    if !agrees {
        let path = Path::new("involvedObject").child("namespace");
        errors.push(field::invalid(&path, about, "does not match event.namespace"));
    }
    if new_style {
        let controller = event.text("reportingComponent");
        let path = Path::new(if strict { "reportingController" } else { "reportingComponent" });
        if controller.is_empty() {
            errors.push(field::required(&path, ""));
        }
        qualified_name(controller, &path, errors);
        for name in ["reportingInstance", "action", "reason"] {
            if event.text(name).is_empty() {
                errors.push(field::required(&Path::new(name), ""));
            }
            too_long(event, name, LONGEST, errors);
        }
        too_long(event, "message", LONGEST_NOTE, errors);
    }
    dns1123_subdomain(namespace, &Path::new("namespace"), errors);
}

fn too_long(event: &Value, name: &'static str, most: usize, errors: &mut ErrorList) {
    if event.text(name).len() > most {
        errors.push(field::invalid(&Path::new(name), "", format!("can have at most {most} characters")));
    }
}

pub(super) fn update(new: &Value, old: &Value, strict: bool, errors: &mut ErrorList) {
    legacy(new, strict, errors);
    if !strict {
        return;
    }
    object_meta::update(new, old, errors);
    if new["series"] != old["series"] {
        series(new, errors);
    }
    const KEPT: [(&str, &str); 14] = [
        ("involvedObject", "involvedObject"),
        ("reason", "reason"),
        ("message", "message"),
        ("source", "source"),
        ("firstTimestamp", "firstTimestamp"),
        ("lastTimestamp", "lastTimestamp"),
        ("count", "count"),
        ("reason", "reason"),
        ("type", "type"),
        ("eventTime", "eventTime"),
        ("action", "action"),
        ("related", "related"),
        ("reportingComponent", "reportingController"),
        ("reportingInstance", "reportingInstance"),
    ];
    for (name, shown) in KEPT {
        let path = Path::new(shown);
        match name {
            "reason" | "message" | "type" | "action" | "reportingComponent" | "reportingInstance" => {
                immutable_text(&new[name], &old[name], &path, errors);
            }
            "count" if new.num(name) != old.num(name) => {
                errors.push(field::invalid(&path, new.num(name), IMMUTABLE));
            }
            "count" => {}
            "involvedObject" => immutable_struct("ObjectReference", &new[name], &old[name], &path, errors),
            _ => immutable(&new[name], &old[name], &path, errors),
        }
    }
}
