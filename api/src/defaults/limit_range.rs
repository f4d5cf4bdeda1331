//! LimitRange: a container's default is its maximum, its default request that or its minimum.

use serde_json::{Map, Value};

use super::resource_list::round;
use super::set::{Tree, at, items, text};

pub(super) fn set(range: &mut Value) {
    let Some(spec) = at(range, &["spec"]) else { return };
    for limit in items(spec, "limits") {
        if text(limit, "type") == "Container" {
            fill(limit);
        }
        for list in ["default", "defaultRequest", "max", "maxLimitRequestRatio", "min"] {
            round(limit, list);
        }
    }
}

fn fill(limit: &mut Tree) {
    let list = |limit: &Tree, name: &str| limit.get(name).and_then(Value::as_object).cloned().unwrap_or_default();
    let complete = |mut known: Map<String, Value>, more: &Map<String, Value>| {
        for (name, amount) in more {
            known.entry(name.clone()).or_insert_with(|| amount.clone());
        }
        known
    };
    let default = complete(list(limit, "default"), &list(limit, "max"));
    let request = complete(complete(list(limit, "defaultRequest"), &default), &list(limit, "min"));
    for (name, map) in [("default", default), ("defaultRequest", request)] {
        if !map.is_empty() {
            limit.insert(name.into(), Value::Object(map));
        }
    }
}
