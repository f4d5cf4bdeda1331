//! CustomResourceDefinition: names from the kind, no conversion, the stored version.

use serde_json::{Value, json};

use super::set::{at, child, if_nil, if_zero, is_zero, text};

pub(super) fn set(definition: &mut Value) {
    let mut stored = None;
    if let Some(spec) = at(definition, &["spec"]) {
        if let Some(names) = child(spec, "names") {
            let kind = text(names, "kind").to_owned();
            if_zero(names, "singular", kind.to_lowercase());
            if !kind.is_empty() {
                if_zero(names, "listKind", format!("{kind}List"));
            }
        }
        if_nil(spec, "conversion", json!({"strategy": "None"}));
        let service =
            child(spec, "conversion").and_then(|c| child(c, "webhook")).and_then(|w| child(w, "clientConfig"));
        if let Some(service) = service.and_then(|c| child(c, "service")) {
            if_nil(service, "port", 443);
        }
        let versions = spec.get("versions").and_then(Value::as_array).into_iter().flatten();
        stored = versions.filter(|v| v.get("storage") == Some(&Value::Bool(true))).find_map(|v| v.get("name").cloned());
    }
    if let (Some(status), Some(name)) = (at(definition, &["status"]), stored)
        && is_zero(status.get("storedVersions"))
    {
        status.insert("storedVersions".into(), json!([name]));
    }
}
