//! `resource.k8s.io/v1beta1` and the shape that v1beta2 and v1 have.
//!
//! The first beta wrote a request's and a device's own fields beside their alternatives; later versions
//! nest a request under `exactly` and lift a device out of `basic` (KEP-4381).

use serde_json::{Map, Value};

/// What v1beta1 says of a request directly and v1 under `exactly`.
const REQUEST_FIELDS: [&str; 7] =
    ["deviceClassName", "selectors", "allocationMode", "count", "adminAccess", "tolerations", "capacity"];

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
