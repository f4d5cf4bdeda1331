//! From one version of a kind to another.
//!
//! Most versions differ in nothing but their name. Those that differ have a function here:
//! Events of the core group and of `events.k8s.io`, and HorizontalPodAutoscaler v1 and v2 (`autoscaler.rs`); the
//! betas of dynamic resources are in `devices.rs`, and those that nobody serves any more in `betas.rs`.

mod autoscaler;
mod betas;
mod devices;

use apimachinery::object::ObjectExt as _;
use serde_json::{Value, json};

use crate::discovery::compare_versions;
use crate::{Resource, canonical, canonicalize, defaults};

pub use betas::TEMPLATE_GENERATION;

/// An object of any version that Kubernetes ever had, in a version that there is now: with the defaults of its own
/// version, those that `more` adds among them, and in the form that Go would give it.
///
/// # Errors
/// When there is no such kind in its version.
pub fn upgrade(mut object: Value, to: &Resource, more: impl FnOnce(&Resource, &mut Value)) -> Result<Value, String> {
    let (group, version) = object.api_version().split_once('/').unwrap_or(("", object.api_version()));
    let from = Resource { group: group.to_owned().into(), version: version.to_owned().into(), ..to.clone() };
    let unknown = || format!("no kind {:?} is registered for version {:?}", object.kind(), object.api_version());
    if object.kind() != to.kind {
        return Err(unknown());
    }
    let ty = from.type_ref().ok_or_else(unknown)?;
    as_stored(ty, &mut object);
    // What was in this group has its kinds elsewhere now.
    let defaulted = if from.group == "extensions" { to } else { &from };
    betas::fill(&mut object, &from);
    more(defaulted, &mut object);
    defaults::apply(defaulted, &mut object);
    if from.group != to.group || from.version != to.version {
        betas::raise(&mut object, &from);
        object = convert(object, &from, to);
        if let Some(ty) = to.type_ref() {
            as_stored(ty, &mut object);
        }
    }
    Ok(object)
}

/// Canonical as it is once it was stored.
fn as_stored(ty: apimachinery::schema::TypeRef<'_>, object: &mut Value) {
    let (api_version, kind) = (object.api_version().to_owned(), object.kind().to_owned());
    canonicalize(ty, object);
    canonical::null_empty_lists(ty, object);
    object.set_api_version(&api_version);
    object.set_kind(&kind);
}

/// Kinds that were in another group before, as which they are still understood.
const MOVED: [(&str, &str, &[&str]); 3] = [
    ("extensions", "apps", &["DaemonSet", "Deployment", "ReplicaSet"]),
    ("extensions", "networking.k8s.io", &["Ingress", "NetworkPolicy"]),
    ("events.k8s.io", "", &["Event"]),
];

/// Whether a kind of two groups is the same.
pub fn is_same_kind(one: &str, other: &str, kind: &str) -> bool {
    let moved = |(from, to, kinds): &(&str, &str, &[&str])| {
        kinds.contains(&kind) && ((*from, *to) == (one, other) || (*from, *to) == (other, one))
    };
    one == other || MOVED.iter().any(moved)
}

/// The version of a kind that clients should write: the first of those that are served by default. Kinds of
/// `extensions` are where they went.
pub fn preferred(group: &str, kind: &str) -> Option<&'static Resource> {
    let rows = crate::table().resources().iter();
    let same = |of: &str| of == group || group == "extensions" && is_same_kind(of, group, kind);
    rows.filter(|row| row.enabled_by_default && row.kind == kind && same(&row.group))
        .min_by(|a, b| compare_versions(&a.version, &b.version))
}

/// An object of one version in another version of the same kind.
pub fn convert(mut object: Value, from: &Resource, to: &Resource) -> Value {
    match (from.kind.as_ref(), from.group.as_ref(), from.version.as_ref(), to.version.as_ref()) {
        ("Event", "events.k8s.io", ..) => event(&mut object, false),
        ("Event", "", ..) => event(&mut object, true),
        ("HorizontalPodAutoscaler", _, "v1", "v2") => autoscaler::to_v2(&mut object),
        ("HorizontalPodAutoscaler", _, "v2", "v1") => autoscaler::to_v1(&mut object),
        (kind, "resource.k8s.io", "v1beta1", _) => devices::convert(&mut object, kind, true),
        (kind, "resource.k8s.io", _, "v1beta1") => devices::convert(&mut object, kind, false),
        _ => {}
    }
    object.set_api_version(&to.api_version());
    object
}

/// Names of an Event's fields in the core group and in `events.k8s.io`, where they differ, and
/// whether the latter always writes them.
const EVENT_FIELDS: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
];

fn event(object: &mut Value, to_events: bool) {
    let Some(map) = object.as_object_mut() else { return };
    for (core, events) in EVENT_FIELDS {
        let (from, to) = if to_events { (core, events) } else { (events, core) };
        if let Some(value) = map.remove(from) {
            map.insert(to.to_string(), value);
        }
    }
    if to_events {
        // Here these are `omitempty`; the core group writes them even when empty.
        for name in ["reportingController", "reportingInstance"] {
            if map.get(name).and_then(Value::as_str) == Some("") {
                map.remove(name);
            }
        }
        map.entry("eventTime").or_insert(Value::Null);
    } else {
        for name in ["reportingComponent", "reportingInstance"] {
            map.entry(name).or_insert_with(|| "".into());
        }
        for name in ["eventTime", "firstTimestamp", "lastTimestamp"] {
            map.entry(name).or_insert(Value::Null);
        }
        for name in ["involvedObject", "source"] {
            map.entry(name).or_insert_with(|| json!({}));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_ingress_is_written_as_one_of_today() {
        let old = json!({
            "apiVersion": "extensions/v1beta1", "kind": "Ingress", "metadata": {"name": "a"},
            "spec": {"rules": [{"host": "h", "http": {"paths": [
                {"path": "/", "backend": {"serviceName": "s", "servicePort": 80}},
            ]}}]},
        });
        let to = preferred("extensions", "Ingress").expect("it is served");
        let new = upgrade(old.clone(), to, |_, _| {}).expect("known");
        assert_eq!(new["apiVersion"], "networking.k8s.io/v1");
        assert_eq!(
            new["spec"]["rules"][0]["http"]["paths"][0],
            json!({
                "path": "/", "pathType": "ImplementationSpecific",
                "backend": {"service": {"name": "s", "port": {"number": 80}}},
            })
        );
        let mut unknown = old;
        unknown["apiVersion"] = "extensions/v7".into();
        let why = upgrade(unknown, to, |_, _| {}).unwrap_err();
        assert_eq!(why, r#"no kind "Ingress" is registered for version "extensions/v7""#);
    }

    #[test]
    fn autoscalers_survive_the_way_there_and_back() {
        let table = crate::table();
        let find = |version| table.find_resource("autoscaling", version, "horizontalpodautoscalers").unwrap();
        let v1 = json!({
            "apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "x"},
            "spec": {"maxReplicas": 3, "targetCPUUtilizationPercentage": 50},
            "status": {"currentReplicas": 0, "desiredReplicas": 0},
        });
        let v2 = convert(v1.clone(), find("v1"), find("v2"));
        assert_eq!(v2["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 50);
        assert_eq!(convert(v2, find("v2"), find("v1")), v1);
    }

    #[test]
    fn events_are_one() {
        let table = crate::table();
        let core = table.find_resource("", "v1", "events").unwrap();
        let events = table.find_resource("events.k8s.io", "v1", "events").unwrap();
        let object = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {}, "note": "n", "regarding": {"kind": "Pod"}, "eventTime": null});
        let stored = convert(object, events, core);
        assert_eq!(stored["message"], "n");
        assert_eq!(stored["involvedObject"]["kind"], "Pod");
        assert_eq!(stored["apiVersion"], "v1");
    }
}
