//! Fields of a served version that hold the same thing twice. Upstream's internal types have them
//! once, so writing either of the two sets both.

use api::Resource;
use api::conversion::TEMPLATE_GENERATION;
use apimachinery::object::ObjectExt as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

/// Where a kind has a pod's spec.
pub(super) fn pod_spec(resource: &Resource) -> Option<&'static [&'static str]> {
    Some(match (resource.group.as_ref(), resource.kind.as_ref()) {
        ("", "Pod") => &["spec"],
        ("", "PodTemplate") => &["template", "spec"],
        ("", "ReplicationController")
        | ("apps", "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet")
        | ("batch", "Job") => &["spec", "template", "spec"],
        ("batch", "CronJob") => &["spec", "jobTemplate", "spec", "template", "spec"],
        _ => return None,
    })
}

/// Fills in the other half of every pair.
pub fn fill(resource: &Resource, object: &mut Value) {
    if let Some(path) = pod_spec(resource)
        && object.at(path).is_some_and(Value::is_object)
    {
        let spec = object.at_mut_or_create(path);
        let name = spec.str_at(&["serviceAccountName"]).unwrap_or_default().to_string();
        let old_name = spec.str_at(&["serviceAccount"]).unwrap_or_default().to_string();
        let name = if name.is_empty() { old_name } else { name };
        if !name.is_empty() {
            spec["serviceAccountName"] = name.clone().into();
            spec["serviceAccount"] = name.into();
        }
    }
    match (resource.group.as_ref(), resource.kind.as_ref()) {
        ("", "Secret") => {
            secret(object);
            no_null_bytes(object, "data");
        }
        ("", "ConfigMap") => no_null_bytes(object, "binaryData"),
        ("", "Node") => pair(object, &["spec", "podCIDR"], &["spec", "podCIDRs"], None),
        ("", "Pod") => pair(object, &["status", "podIP"], &["status", "podIPs"], Some("ip")),
        ("apps", "StatefulSet") => claims(object),
        ("apps", "DaemonSet") => generation(object),
        _ => {}
    }
}

/// `stringData` is `data` in plain text; it is never stored.
fn secret(object: &mut Value) {
    let Some(Value::Object(plain)) = object.as_object_mut().and_then(|map| map.remove("stringData")) else {
        return;
    };
    if plain.is_empty() {
        return;
    }
    let data = object.at_mut_or_create(&["data"]);
    if !data.is_object() {
        *data = json!({});
    }
    for (key, value) in plain {
        data[key] = STANDARD.encode(value.as_str().unwrap_or_default()).into();
    }
}

/// Bytes that are null become empty when upstream copies them.
fn no_null_bytes(object: &mut Value, field: &str) {
    for value in object.get_mut(field).and_then(Value::as_object_mut).into_iter().flat_map(serde_json::Map::values_mut)
    {
        if value.is_null() {
            *value = "".into();
        }
    }
}

/// A first value and the list it is first of; the single one wins where they disagree.
fn pair(object: &mut Value, one: &[&str], many: &[&str], key: Option<&str>) {
    let first = object.str_at(one).unwrap_or_default().to_string();
    let list = object.list_at(many);
    let head = list.first().and_then(|item| match key {
        Some(key) => item.str_at(&[key]),
        None => item.as_str(),
    });
    let head = head.unwrap_or_default().to_string();
    if first.is_empty() {
        if !head.is_empty() {
            object.set_at(one, head.into());
        }
    } else if head != first {
        let item = match key {
            Some(key) => json!({key: first}),
            None => first.into(),
        };
        object.set_at(many, json!([item]));
    }
}

/// Claim templates are objects of their own and say so.
fn claims(object: &mut Value) {
    let Some(templates) =
        object.get_mut("spec").and_then(|spec| spec.get_mut("volumeClaimTemplates")).and_then(Value::as_array_mut)
    else {
        return;
    };
    for template in templates.iter_mut().filter(|template| template.is_object()) {
        template["apiVersion"] = "v1".into();
        template["kind"] = "PersistentVolumeClaim".into();
    }
}

fn generation(object: &mut Value) {
    let number = object.annotation(TEMPLATE_GENERATION).and_then(|text| text.parse::<i64>().ok());
    object.set_annotation(TEMPLATE_GENERATION, &number.unwrap_or_default().to_string());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fills_the_other_half() {
        let resource = |group: &str, plural: &str| api::table().find_resource(group, "v1", plural).unwrap();
        let mut secret = json!({"data": {"a": "eA=="}, "stringData": {"b": "plain"}});
        fill(resource("", "secrets"), &mut secret);
        assert_eq!(secret, json!({"data": {"a": "eA==", "b": "cGxhaW4="}}));
        let mut node = json!({"spec": {"podCIDR": "10.0.0.0/24"}});
        fill(resource("", "nodes"), &mut node);
        assert_eq!(node["spec"]["podCIDRs"], json!(["10.0.0.0/24"]));
        let mut pod = json!({"spec": {"serviceAccount": "x"}, "status": {"podIPs": [{"ip": "10.0.0.1"}]}});
        fill(resource("", "pods"), &mut pod);
        assert_eq!(pod["spec"]["serviceAccountName"], "x");
        assert_eq!(pod["status"]["podIP"], "10.0.0.1");
    }
}
