use apimachinery::schema::{ListKind, Type};

use super::*;

#[test]
fn structs_are_written_in_the_order_of_their_source() {
    let ty = crate::table().find_kind("", "v1", "Service").expect("built in");
    let service = serde_json::json!({"apiVersion": "v1", "kind": "Service", "metadata": {"uid": "u", "name": "<a>"},
        "spec": {"type": "ClusterIP", "ports": [{"port": 1, "name": "n", "appProtocol": "x", "other": 1}]}});
    assert_eq!(
        apimachinery::gotext::json_of(ty, &service),
        r#"{"kind":"Service","apiVersion":"v1","metadata":{"name":"\u003ca\u003e","uid":"u"},"spec":{"ports":[{"name":"n","appProtocol":"x","port":1,"other":1}],"type":"ClusterIP"}}"#
    );
}

#[test]
fn the_text_parses_and_is_whole() {
    let table = table();
    assert_eq!(table.resources().len(), 95);
    assert!(table.schema().len() > 1000);
    for (name, ty) in table.types() {
        assert!(ty.object().is_some(), "{name} was declared but never filled");
    }
}

#[test]
fn every_resource_has_a_kind_and_a_list() {
    for resource in table().resources() {
        assert!(resource.type_ref().is_some(), "{}", resource.qualified());
        if resource.has_verb("list") {
            let list = table().find_kind(&resource.group, &resource.version, &resource.list_kind);
            assert!(list.and_then(|list| list.field("items")).is_some(), "{}", resource.list_kind);
        }
        for subresource in &resource.subresources {
            let kind = table().find_kind(&subresource.group, &subresource.version, &subresource.kind);
            assert!(kind.is_some(), "{}/{}", resource.plural, subresource.name);
        }
    }
}

#[test]
fn facts_of_well_known_fields() {
    let pod = table().find_kind("", "v1", "Pod").expect("Pod is built in");
    let containers = pod.walk(&["spec", "containers"]).expect("declared");
    assert!(matches!(containers.list_kind(), Some(ListKind::Map(keys)) if keys[..] == ["name"]));
    let spec = pod.field("spec").expect("declared").ty;
    assert_eq!(spec.field("containers").expect("declared").field.patch_merge_key(), Some("name"));
    assert!(spec.field("volumes").expect("declared").field.patch_retain_keys);
    let protocol = spec.walk(&["containers", "ports", "protocol"]).expect("declared");
    assert!(matches!(protocol.ty(), Type::String(string) if string.values.len() == 3));
    let port = spec.walk(&["containers", "ports"]).and_then(|ports| ports.item()).expect("declared");
    assert_eq!(port.field("protocol").expect("declared").field.default(), Some(&serde_json::json!("TCP")));
    // VolumeSource is inlined in JSON and a message of its own in protobuf.
    let volume = table().named("core/v1.Volume").and_then(TypeRef::object).expect("declared");
    assert_eq!(volume.proto.len(), 2);
    assert!(volume.fields.len() > 20);
    // ObjectReference merges as a whole, except as a volume's claim.
    assert!(table().named("core/v1.ObjectReference").expect("declared").is_atomic());
    let volume = table().named("core/v1.PersistentVolumeSpec").expect("declared");
    assert!(!volume.field("claimRef").expect("declared").ty.is_atomic());
}

#[test]
fn lookups_by_name() {
    for (group, version, plural, prefix) in [
        ("", "v1", "pods", "pods"),
        ("", "v1", "services", "services/specs"),
        ("", "v1", "nodes", "minions"),
        ("networking.k8s.io", "v1", "ingresses", "ingress"),
        ("apiextensions.k8s.io", "v1", "customresourcedefinitions", "apiextensions.k8s.io/customresourcedefinitions"),
    ] {
        let resource = table().find_resource(group, version, plural).expect(plural);
        assert_eq!(resource.storage_prefix, prefix);
        let same = table().find_resource_by_kind(group, version, &resource.kind).expect(plural);
        assert_eq!(same, resource);
    }
    assert!(table().find_resource("apps", "v1", "pods").is_none());
    assert!(table().find_kind("apps", "v1", "DeleteOptions").is_some());
    assert!(table().find_kind("apps", "v1", "Pod").is_none());
}
