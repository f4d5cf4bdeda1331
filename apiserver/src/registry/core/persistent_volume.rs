//! PersistentVolumes begin Pending and remember when their phase last changed.

use apimachinery::object::ObjectExt as _;
use serde_json::{Value, json};

use crate::registry::hooks::{HookContext, Hooks};

pub struct PersistentVolume;

const CHANGED: [&str; 2] = ["status", "lastPhaseTransitionTime"];

impl Hooks for PersistentVolume {
    fn prepare_create(&self, cx: &HookContext<'_>, object: &mut Value) {
        object.set_at(&["status"], json!({"phase": "Pending", "lastPhaseTransitionTime": cx.server.timestamp()}));
    }

    fn prepare_update(&self, cx: &HookContext<'_>, new: &mut Value, old: &Value) {
        if cx.subresource != "status" {
            return;
        }
        let phase = |object: &Value| object.str_at(&["status", "phase"]).unwrap_or_default().to_string();
        let before = old.at(&CHANGED).cloned();
        let after = new.at(&CHANGED).cloned();
        if phase(new) == phase(old) {
            if let (None, Some(before)) = (after, before) {
                new.set_at(&CHANGED, before);
            }
        } else if after.is_none() || after == before {
            new.set_at(&CHANGED, cx.server.timestamp().into());
        }
    }
}
