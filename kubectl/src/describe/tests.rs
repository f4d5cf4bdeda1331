//! Layouts against what upstream's kubectl prints for the same objects.

use serde_json::json;

use super::generic::label_for;
use super::{Related, describe};
use crate::mapper::Mapping;

fn mapping(group: &str, kind: &str) -> Mapping {
    Mapping {
        group: group.into(),
        version: "v1".into(),
        resource: String::new(),
        kind: kind.into(),
        singular: String::new(),
        namespaced: true,
        verbs: Vec::new(),
    }
}

fn check(group: &str, kind: &str, object: serde_json::Value, related: &Related, expected: &str) {
    let now = "2026-03-01T12:00:00Z".parse().expect("a time");
    assert_eq!(describe(&mapping(group, kind), &object, related, now), expected);
}

#[test]
fn field_names_become_words() {
    for (field, label) in [
        ("apiVersion", "API Version"),
        ("creationTimestamp", "Creation Timestamp"),
        ("uid", "UID"),
        ("generation", "Generation"),
        ("kubernetes.io/x", "kubernetes.io/x"),
    ] {
        assert_eq!(label_for(field), label);
    }
}

#[test]
fn config_maps() {
    let map =
        json!({"metadata": {"name": "m", "namespace": "n", "labels": {"a": "1", "b": "2"}}, "data": {"k": "v\nw"}});
    let expected = "Name:         m\nNamespace:    n\nLabels:       a=1\n              b=2\nAnnotations:  <none>\n\nData\n====\nk:\n----\nv\nw\n\n\nBinaryData\n====\n\nEvents:  <none>\n";
    check("", "ConfigMap", map, &Related { events: Some(Vec::new()), ..Related::default() }, expected);
}

#[test]
fn events_have_columns_of_their_own() {
    let event = json!({"type": "Warning", "reason": "BackOff", "count": 3, "message": "m\n",
        "firstTimestamp": "2026-03-01T11:50:00Z", "lastTimestamp": "2026-03-01T11:59:00Z",
        "involvedObject": {"fieldPath": "spec.containers{c}"}, "source": {"component": "kubelet"}});
    let object = json!({"metadata": {"name": "s", "namespace": "n"}});
    let expected = "Name:                s\nNamespace:           n\nLabels:              <none>\nAnnotations:         <none>\nImage pull secrets:  <none>\nEvents:\n  Type     Reason   Age                From     Message\n  ----     ------   ----               ----     -------\n  Warning  BackOff  60s (x3 over 10m)  kubelet  spec.containers{c}: m\n";
    check("", "ServiceAccount", object, &Related { events: Some(vec![event]), ..Related::default() }, expected);
}
