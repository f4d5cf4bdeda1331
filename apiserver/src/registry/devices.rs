//! What an API server adds to `resource.k8s.io`: who may have administrators' access, and since when taints are there.

use apimachinery::field::{self, ErrorList, Path};
use apimachinery::object::ObjectExt as _;
use serde_json::Value;

use crate::registry::hooks::{HookContext, Hooks};
use crate::server::Server;

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
