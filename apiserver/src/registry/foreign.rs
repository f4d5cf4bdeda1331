//! Objects that somebody else stored: upstream, as protobuf or as Go's JSON, of this version of the kind or another.
//!
//! Upstream decodes every version that it knows, sets the defaults of that version, and converts. Here that happens once,
//! when an object enters the cache, so that every reader finds what this server would have stored itself.

use api::Resource;
use apimachinery::gvk::GroupVersion;
use apimachinery::json;
use apimachinery::object::ObjectExt as _;
use bytes::Bytes;
use serde_json::Value;

use super::{betas, conversion, definition_beta, mirrored};
use crate::cache::{PROTOBUF_PREFIX, Read};
use crate::codec::protobuf;

/// Reads a stored value as an object of the version `storage`.
pub(super) fn read(storage: &Resource, stored: &[u8]) -> Result<Read, String> {
    let mut object = if stored.starts_with(PROTOBUF_PREFIX) {
        message(stored)?
    } else {
        json::parse(stored).map_err(|error| error.message)?
    };
    let given = object.clone();
    if storage.group == "apiextensions.k8s.io" {
        definition_beta::modernize(&mut object);
    }
    let version = GroupVersion::parse(object.api_version()).map_err(|error| error.to_string())?;
    let kind = object.kind().to_owned();
    let unknown = || format!("no kind {kind:?} is registered for version {:?}", version.to_string());
    if kind != storage.kind {
        return Err(unknown());
    }
    let from =
        Resource { group: version.group.clone().into(), version: version.version.clone().into(), ..storage.clone() };
    let ty = from.type_ref().ok_or_else(unknown)?;
    canonicalize(ty, &mut object);
    mirrored::fill(&from, &mut object);
    api::defaults::apply(&from, &mut object);
    let is_storage = from.group == storage.group && from.version == storage.version;
    if !is_storage {
        betas::raise(&mut object, &from);
        object = conversion::convert(object, &from, storage);
        if let Some(ty) = storage.type_ref() {
            canonicalize(ty, &mut object);
        }
    }
    let stale = !is_storage || !is_written_so(&given, &object);
    Ok(Read { json: Bytes::from(json::to_vec_stored(&object)), stale })
}

/// Canonical as it is once it was stored.
fn canonicalize(ty: apimachinery::schema::TypeRef<'_>, object: &mut Value) {
    let (api_version, kind) = (object.api_version().to_owned(), object.kind().to_owned());
    api::canonicalize(ty, object);
    api::canonical::null_empty_lists(ty, object);
    object.set_api_version(&api_version);
    object.set_kind(&kind);
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
    use serde_json::json;

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
