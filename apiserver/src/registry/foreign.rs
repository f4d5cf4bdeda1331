//! Objects that somebody else stored: upstream, as protobuf or as Go's JSON, of this version of the kind or another.
//!
//! Upstream decodes every version that it knows, sets the defaults of that version, and converts. Here that happens once,
//! when an object enters the cache, so that every reader finds what this server would have stored itself.

use api::{Resource, conversion};
use apimachinery::gvk::GroupVersion;
use apimachinery::json as go_json;
use apimachinery::object::ObjectExt as _;
use bytes::Bytes;
use serde_json::{Value, json};

use super::{definition_beta, mirrored};
use crate::cache::{PROTOBUF_PREFIX, Read, raw};
use crate::codec::protobuf;

/// Reads a stored value as an object of the version `storage`.
pub(super) fn read(storage: &Resource, stored: &[u8]) -> Result<Read, String> {
    let mut object = if stored.starts_with(PROTOBUF_PREFIX) {
        message(stored)?
    } else {
        go_json::parse(stored).map_err(|error| error.message)?
    };
    let texts = texts(storage, stored);
    let given = object.clone();
    if storage.group == "apiextensions.k8s.io" {
        definition_beta::modernize(&mut object);
    }
    let is_storage = object.api_version() == storage.api_version();
    let object = conversion::upgrade(object, storage, |version, object| {
        mirrored::fill(version, object);
        if storage.kind == "Service" && storage.group.is_empty() {
            one_of_many(object);
        }
    })?;
    let stale = !is_storage || !is_written_so(&given, &object);
    let mut json = go_json::to_vec_stored(&object);
    json = raw::keep(json, raw::places(&storage.group, &storage.plural), &texts);
    Ok(Read { json: Bytes::from(json), stale })
}

/// The texts of the members whose text is kept. Of protobuf only the one of a ControllerRevision is looked for; others
/// come in the form that they would be given here.
fn texts(storage: &Resource, stored: &[u8]) -> Vec<String> {
    let places = raw::places(&storage.group, &storage.plural);
    if !stored.starts_with(PROTOBUF_PREFIX) {
        return raw::texts(stored, places);
    }
    if storage.kind != "ControllerRevision" {
        return Vec::new();
    }
    // A `RawExtension`, the second field.
    let message = protobuf::open(stored).ok().map(|(.., message)| message);
    let text = message.and_then(|message| protobuf::field(protobuf::field(message, 2)?, 1));
    text.and_then(|text| String::from_utf8(text.to_vec()).ok()).into_iter().collect()
}

/// Services had one address of one family once.
fn one_of_many(service: &mut Value) {
    let Some(Value::Object(spec)) = service.get_mut("spec") else { return };
    let is_external = spec.get("type").is_some_and(|kind| kind == "ExternalName");
    if is_external {
        spec.remove("internalTrafficPolicy");
        return;
    }
    let address = spec.get("clusterIP").and_then(Value::as_str).unwrap_or_default().to_owned();
    if address.is_empty() {
        return;
    }
    spec.entry("clusterIPs").or_insert_with(|| json!([address]));
    if spec.contains_key("ipFamilies") || address == "None" {
        return;
    }
    let family = if address.contains(':') { "IPv6" } else { "IPv4" };
    spec.insert("ipFamilies".to_owned(), json!([family]));
    spec.entry("ipFamilyPolicy").or_insert_with(|| "SingleStack".into());
}

/// Whether nothing was added to what was stored but what Go writes anyway.
fn is_written_so(given: &Value, made: &Value) -> bool {
    match (given, made) {
        (Value::Object(given), Value::Object(made)) => made.iter().all(|(name, made)| match given.get(name) {
            Some(given) => is_written_so(given, made),
            None => is_nothing(made),
        }),
        (Value::Array(given), Value::Array(made)) => {
            given.len() == made.len() && given.iter().zip(made).all(|(given, made)| is_written_so(given, made))
        }
        _ => given == made || is_nothing(given) && is_nothing(made),
    }
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.values().all(is_nothing),
    }
}

/// The object in upstream's protobuf.
fn message(stored: &[u8]) -> Result<Value, String> {
    let (api_version, kind, raw) = protobuf::open(stored).map_err(|error| error.to_string())?;
    let version = GroupVersion::parse(&api_version).map_err(|error| error.to_string())?;
    let ty = api::table()
        .find_kind(&version.group, &version.version, &kind)
        .ok_or_else(|| format!("no kind {kind:?} is registered for version {api_version:?}"))?;
    let mut object = api::protobuf::decode(ty, raw).map_err(|error| error.to_string())?;
    object.set_api_version(&api_version);
    object.set_kind(&kind);
    Ok(object)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(group: &str, version: &str, plural: &str) -> &'static Resource {
        api::table().find_resource(group, version, plural).expect("built in")
    }

    fn check(storage: &Resource, stored: &Value) -> (Value, bool) {
        let read = read(storage, stored.to_string().as_bytes()).expect("reads");
        (serde_json::from_slice(&read.json).expect("JSON"), read.stale)
    }

    #[test]
    fn defaults_that_came_later_are_set() {
        let stored = json!({"kind": "Service", "apiVersion": "v1", "metadata": {"name": "a", "creationTimestamp": null},
            "spec": {"ports": [{"port": 80, "targetPort": 80, "protocol": "TCP"}], "clusterIP": "10.0.0.1", "type": "ClusterIP",
                "sessionAffinity": "None"}, "status": {"loadBalancer": {}}});
        let (object, stale) = check(row("", "v1", "services"), &stored);
        assert!(stale);
        assert_eq!(object["spec"]["internalTrafficPolicy"], "Cluster");
        assert_eq!(object["spec"]["clusterIPs"], json!(["10.0.0.1"]));
        assert_eq!(object["spec"]["ipFamilies"], json!(["IPv4"]));
        let (again, stale) = check(row("", "v1", "services"), &object);
        assert_eq!((again, stale), (object, false));
    }

    #[test]
    fn other_versions_are_converted() {
        let hpa = json!({"kind": "HorizontalPodAutoscaler", "apiVersion": "autoscaling/v1", "metadata": {"name": "a"},
            "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "a"}, "maxReplicas": 3},
            "status": {"currentReplicas": 0, "desiredReplicas": 0}});
        let (object, stale) = check(row("autoscaling", "v2", "horizontalpodautoscalers"), &hpa);
        assert!(stale);
        assert_eq!(object["apiVersion"], "autoscaling/v2");
        assert_eq!(object["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 80);
        assert_eq!(object["spec"]["minReplicas"], 1);

        let event = json!({"kind": "Event", "apiVersion": "events.k8s.io/v1", "metadata": {"name": "a"}, "note": "n",
            "regarding": {"kind": "Pod"}, "eventTime": null});
        let (object, _) = check(row("", "v1", "events"), &event);
        assert_eq!((&object["apiVersion"], &object["message"]), (&json!("v1"), &json!("n")));

        let deployment = json!({"kind": "Deployment", "apiVersion": "apps/v1beta2", "metadata": {"name": "a"}, "spec": {
            "selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}},
                "spec": {"containers": [{"name": "a", "image": "a"}]}}}});
        let (object, _) = check(row("apps", "v1", "deployments"), &deployment);
        assert_eq!((&object["apiVersion"], &object["spec"]["replicas"]), (&json!("apps/v1"), &json!(1)));
        assert_eq!(
            object["spec"]["template"]["spec"]["containers"][0]["terminationMessagePath"],
            "/dev/termination-log"
        );
    }

    #[test]
    fn a_text_is_kept() {
        let storage = row("apps", "v1", "controllerrevisions");
        let stored =
            r#"{"kind":"ControllerRevision","apiVersion":"apps/v1","metadata":{},"revision":1,"data":{"z":1.0}}"#;
        let kept = |stored: &[u8]| {
            let json = read(storage, stored).expect("reads").json;
            raw::texts(&json, raw::places("apps", "controllerrevisions")).pop()
        };
        assert_eq!(kept(stored.as_bytes()).as_deref(), Some(r#"{"z":1.0}"#));
        let message = b"k8s\0\n\x1d\n\x07apps/v1\x12\x12ControllerRevision\x12\x12\x12\x0e\n\x0c{\"z\":  1.0 }\x18\x01";
        assert_eq!(kept(message).as_deref(), Some(r#"{"z":  1.0 }"#));
    }

    #[test]
    fn what_nobody_knows_is_refused() {
        let storage = row("", "v1", "pods");
        for stored in [
            json!({"kind": "Pod", "apiVersion": "v7", "metadata": {}}),
            json!({"kind": "Node", "apiVersion": "v1", "metadata": {}}),
        ] {
            assert!(read(storage, stored.to_string().as_bytes()).is_err(), "{stored}");
        }
    }
}
