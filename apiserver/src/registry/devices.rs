//! `resource.k8s.io/v1beta1` and the shape that v1beta2 and v1 have.
//!
//! The first beta wrote a request's and a device's own fields beside their alternatives; later versions
//! nest a request under `exactly` and lift a device out of `basic` (KEP-4381).

use apimachinery::field::{self, ErrorList, Path};
use apimachinery::object::ObjectExt as _;
use serde_json::{Map, Value};

use crate::registry::hooks::{HookContext, Hooks};
use crate::server::Server;

/// What v1beta1 says of a request directly and v1 under `exactly`.
const REQUEST_FIELDS: [&str; 7] =
    ["deviceClassName", "selectors", "allocationMode", "count", "adminAccess", "tolerations", "capacity"];

/// Administrators' access to devices is for namespaces that are labelled for it (KEP-5018).
pub(super) struct AdminAccess;

impl Hooks for AdminAccess {
    fn refuse(&self, cx: &HookContext<'_>, new: &Value, old: Option<&Value>) -> ErrorList {
        const LABEL: &str = "resource.kubernetes.io/admin-access";
        let path = match (cx.subresource, old) {
            ("", None) => requested(new),
            ("status", Some(old)) if granted(old).is_none() => granted(new),
            _ => None,
        };
        let Some(path) = path else { return ErrorList::new() };
        let entry = cx.server.registry.any_version("", "namespaces").and_then(|served| {
            let key = served.key("", new.namespace());
            served.cache.as_ref()?.cached(&key)
        });
        if entry.is_some_and(|entry| entry.label(LABEL) == Some("true")) {
            return ErrorList::new();
        }
        let message = format!("admin access to devices requires the `{LABEL}: true` label on the containing namespace");
        ErrorList::from(field::forbidden(&path, message))
    }
}

/// Where a claim, or a template of one, asks for it.
fn requested(object: &Value) -> Option<Path> {
    let requests = object.pointer("/spec/devices/requests").or_else(|| object.pointer("/spec/spec/devices/requests"));
    let asks = |request: &Value| request.pointer("/exactly/adminAccess") == Some(&Value::Bool(true));
    let at = requests?.as_array()?.iter().position(asks)?;
    Some(Path::new("spec").children(&["devices", "requests"]).index(at).child("adminAccess"))
}

/// Where a claim has it.
fn granted(object: &Value) -> Option<Path> {
    let results = object.pointer("/status/allocation/devices/results")?.as_array()?;
    let at = results.iter().position(|result| result.get("adminAccess") == Some(&Value::Bool(true)))?;
    Some(Path::new("status").children(&["allocation", "devices", "results"]).index(at).child("adminAccess"))
}

/// Turns a v1beta1 object into v1's shape, or back.
pub(super) fn convert(object: &mut Value, kind: &str, to_v1: bool) {
    match kind {
        "ResourceClaim" => requests(object.pointer_mut("/spec/devices/requests"), to_v1),
        "ResourceClaimTemplate" => requests(object.pointer_mut("/spec/spec/devices/requests"), to_v1),
        "ResourceSlice" => {
            devices(object.pointer_mut("/spec/devices"), to_v1);
            if let Some(Value::Object(spec)) = object.get_mut("spec") {
                // Plain fields became pointers: their zero values became nothing.
                if to_v1 {
                    spec.retain(|name, value| {
                        !(name == "nodeName" && value.as_str() == Some("")
                            || name == "allNodes" && value.as_bool() == Some(false))
                    });
                }
            }
        }
        _ => {}
    }
}

/// Taints say since when they are there.
pub(super) fn time_added(object: &mut Value, server: &Server) {
    let now = |taint: Option<&mut Value>| {
        if let Some(Value::Object(taint)) = taint
            && taint.get("timeAdded").is_none_or(Value::is_null)
        {
            taint.insert("timeAdded".to_string(), server.timestamp().into());
        }
    };
    match object.kind() {
        "DeviceTaintRule" => now(object.pointer_mut("/spec/taint")),
        "ResourceSlice" => {
            for device in object.pointer_mut("/spec/devices").and_then(Value::as_array_mut).into_iter().flatten() {
                // v1beta1 has them one level down.
                for path in ["/taints", "/basic/taints"] {
                    let taints = device.pointer_mut(path).and_then(Value::as_array_mut);
                    taints.into_iter().flatten().for_each(|taint| now(Some(taint)));
                }
            }
        }
        _ => {}
    }
}

fn requests(list: Option<&mut Value>, to_v1: bool) {
    for request in list.and_then(Value::as_array_mut).into_iter().flatten().filter_map(Value::as_object_mut) {
        if to_v1 {
            let mut exactly = Map::new();
            for name in REQUEST_FIELDS {
                if let Some(value) = request.remove(name) {
                    exactly.insert(name.to_string(), value);
                }
            }
            // v1beta1 always writes the class, empty where alternatives are listed.
            let empty = exactly.iter().all(|(_, value)| value.is_null() || value.as_str() == Some(""));
            if !empty {
                request.insert("exactly".to_string(), Value::Object(exactly));
            }
        } else {
            if let Some(Value::Object(exactly)) = request.remove("exactly") {
                request.extend(exactly);
            }
            request.entry("deviceClassName").or_insert_with(|| "".into());
        }
    }
}

fn devices(list: Option<&mut Value>, to_v1: bool) {
    for device in list.and_then(Value::as_array_mut).into_iter().flatten().filter_map(Value::as_object_mut) {
        if to_v1 {
            if let Some(Value::Object(basic)) = device.remove("basic") {
                device.extend(basic);
            }
        } else {
            let name = device.remove("name");
            let basic = std::mem::take(device);
            device.extend(name.map(|name| ("name".to_string(), name)));
            device.insert("basic".to_string(), Value::Object(basic));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn shapes_survive_the_way_there_and_back() {
        for (kind, beta, v1) in [
            (
                "ResourceClaim",
                json!({"spec": {"devices": {"requests": [
                    {"name": "a", "deviceClassName": "c", "count": 2},
                    {"name": "b", "deviceClassName": "", "firstAvailable": [{"name": "x", "deviceClassName": "c"}]},
                ]}}}),
                json!({"spec": {"devices": {"requests": [
                    {"name": "a", "exactly": {"deviceClassName": "c", "count": 2}},
                    {"name": "b", "firstAvailable": [{"name": "x", "deviceClassName": "c"}]},
                ]}}}),
            ),
            (
                "ResourceClaimTemplate",
                json!({"spec": {"spec": {"devices": {"requests": [{"name": "a", "deviceClassName": "c"}]}}}}),
                json!({"spec": {"spec": {"devices": {"requests": [{"name": "a", "exactly": {"deviceClassName": "c"}}]}}}}),
            ),
            (
                "ResourceSlice",
                json!({"spec": {"nodeName": "n", "devices": [{"name": "d", "basic": {"attributes": {"x": {"int": 1}}}}]}}),
                json!({"spec": {"nodeName": "n", "devices": [{"name": "d", "attributes": {"x": {"int": 1}}}]}}),
            ),
        ] {
            let mut object = beta.clone();
            convert(&mut object, kind, true);
            assert_eq!(object, v1, "{kind}");
            convert(&mut object, kind, false);
            assert_eq!(object, beta, "{kind}");
        }
    }
}
