//! The rules by node, over a graph made of stored objects.

use apimachinery::fields;
use bytes::Bytes;
use serde_json::json;

use super::*;
use crate::cache::{Entry, ResourceSpec, SelectableField};

fn populate(node: &Node, source: Source, objects: &[serde_json::Value]) {
    let (_, group, plural) = Source::ALL.into_iter().find(|(have, ..)| *have == source).expect("listed");
    let namespaced = matches!(source, Source::Pods | Source::CertificateRequests);
    let mut spec = ResourceSpec::new(group, plural, &format!("/registry/{plural}/"), namespaced);
    spec.fields = vec![SelectableField::at_path("spec.nodeName").indexed()];
    let spec = Arc::new(spec);
    for object in objects {
        let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
        let key = spec.key(text("namespace"), text("name"));
        let entry = Entry::decode(&spec, key.into(), 2, 1, &Bytes::from(object.to_string())).expect("an object");
        let populator = Populator { source, graph: node.graph.clone() };
        populator.put(&mut node.graph.write(), &entry);
    }
}

fn fixture() -> Arc<Node> {
    let node = Node::new(&crate::config::features::defaults());
    populate(
        &node,
        Source::Pods,
        &[
            json!({
                "metadata": {"name": "p", "namespace": "a", "uid": "1"},
                "spec": {
                    "nodeName": "n1", "serviceAccountName": "sa",
                    "volumes": [
                        {"name": "s", "secret": {"secretName": "s1"}}, {"name": "c", "configMap": {"name": "c1"}},
                        {"name": "v", "persistentVolumeClaim": {"claimName": "claim"}},
                    ],
                },
            }),
            json!({
                "metadata": {"name": "q", "namespace": "a", "uid": "2"},
                "spec": {"nodeName": "n2", "volumes": [{"name": "s", "secret": {"secretName": "s2"}}]},
            }),
            json!({"metadata": {"name": "unbound", "namespace": "a", "uid": "3"}, "spec": {}}),
        ],
    );
    populate(
        &node,
        Source::Volumes,
        &[json!({
            "metadata": {"name": "pv"},
            "spec": {
                "claimRef": {"namespace": "a", "name": "claim"},
                "csi": {"nodeStageSecretRef": {"namespace": "csi", "name": "stage"}},
            },
        })],
    );
    populate(&node, Source::Attachments, &[json!({"metadata": {"name": "va"}, "spec": {"nodeName": "n1"}})]);
    populate(&node, Source::Slices, &[json!({"metadata": {"name": "slice"}, "spec": {"nodeName": "n1"}})]);
    Arc::new(node)
}

#[test]
fn a_node_reaches_what_its_pods_use() {
    let node = fixture();
    let none = |node: &str| format!("no relationship found between node '{node}' and this object");
    // node, verb, group, resource/subresource, namespace, name, the reason of a refusal or nothing.
    for (who, verb, group, resource, namespace, name, want) in [
        ("n1", "get", "", "secrets", "a", "s1", String::new()),
        ("n1", "list", "", "secrets", "a", "s1", String::new()),
        ("n1", "list", "", "secrets", "a", "", "No Object name found".into()),
        ("n1", "list", "", "secrets", "", "", "can only read namespaced object of this type".into()),
        ("n1", "delete", "", "secrets", "a", "s1", "can only read resources of this type".into()),
        ("n1", "get", "", "secrets", "a", "s2", none("n1")),
        ("n2", "get", "", "secrets", "a", "s2", String::new()),
        ("n1", "get", "", "secrets", "b", "s1", none("n1")),
        ("n1", "get", "", "secrets", "csi", "stage", String::new()),
        ("n2", "get", "", "secrets", "csi", "stage", none("n2")),
        ("n1", "get", "", "configmaps", "a", "c1", String::new()),
        ("n2", "get", "", "configmaps", "a", "c1", none("n2")),
        ("n1", "get", "", "persistentvolumeclaims", "a", "claim", String::new()),
        ("n1", "patch", "", "persistentvolumeclaims/status", "a", "claim", String::new()),
        ("n1", "get", "", "persistentvolumeclaims/status", "a", "claim", "can only get/update/patch this type".into()),
        ("n1", "list", "", "persistentvolumeclaims", "a", "", "can only get individual resources of this type".into()),
        ("n1", "get", "", "persistentvolumes", "", "pv", String::new()),
        ("n2", "get", "", "persistentvolumes", "", "pv", none("n2")),
        ("n1", "create", "", "serviceaccounts/token", "a", "sa", String::new()),
        ("n2", "create", "", "serviceaccounts/token", "a", "sa", none("n2")),
        ("n1", "get", "", "serviceaccounts", "a", "sa", String::new()),
        (
            "n1",
            "delete",
            "",
            "serviceaccounts",
            "a",
            "sa",
            "can only create tokens for individual service accounts".into(),
        ),
        ("n1", "get", "storage.k8s.io", "volumeattachments", "", "va", String::new()),
        ("n2", "get", "storage.k8s.io", "volumeattachments", "", "va", none("n2")),
        ("n1", "delete", "resource.k8s.io", "resourceslices", "", "slice", String::new()),
        ("n2", "delete", "resource.k8s.io", "resourceslices", "", "slice", none("n2")),
        ("n1", "get", "", "pods", "a", "p", String::new()),
        ("n2", "get", "", "pods", "a", "p", none("n2")),
        ("n1", "list", "", "pods", "", "", "can only list/watch pods with spec.nodeName field selector".into()),
        ("n1", "patch", "", "pods/status", "a", "q", String::new()),
        ("n1", "get", "", "nodes", "", "n1", String::new()),
        ("n1", "get", "", "nodes", "", "n2", "node 'n1' cannot read 'n2', only its own Node object".into()),
        ("n1", "list", "", "nodes", "", "", "node 'n1' cannot read all nodes, only its own Node object".into()),
        ("n1", "update", "coordination.k8s.io", "leases", "kube-node-lease", "n1", String::new()),
        (
            "n1",
            "update",
            "coordination.k8s.io",
            "leases",
            "kube-node-lease",
            "n2",
            "can only access node lease with the same name as the requesting node".into(),
        ),
        (
            "n1",
            "update",
            "coordination.k8s.io",
            "leases",
            "default",
            "n1",
            "can only access leases in the \"kube-node-lease\" system namespace".into(),
        ),
        ("n1", "list", "", "services", "", "", String::new()),
        ("n1", "create", "authorization.k8s.io", "subjectaccessreviews", "", "", String::new()),
    ] {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let attributes = Attributes {
            user: UserInfo::new(&format!("system:node:{who}"), &[NODES]).into(),
            verb: verb.into(),
            group: group.into(),
            resource: resource.into(),
            subresource: subresource.into(),
            namespace: namespace.into(),
            name: name.into(),
            is_resource: true,
            ..Attributes::default()
        };
        let got = match node.authorize(&attributes) {
            Decision::Allow(reason) | Decision::NoOpinion(reason) => reason,
            Decision::Deny(reason) => format!("denied: {reason}"),
        };
        assert_eq!(got, want, "{who} {verb} {group}/{resource}/{subresource} {namespace}/{name}");
        let allowed = matches!(node.authorize(&attributes), Decision::Allow(_));
        assert_eq!(allowed, want.is_empty(), "{who} {verb} {resource} {name}");
    }
}

#[test]
fn only_a_selector_for_the_node_may_list_pods() {
    let node = fixture();
    let allowed = |user: UserInfo, selector: &str| {
        let field_selector = fields::Selector::parse(selector).expect("a selector").requirements;
        let attributes = Attributes {
            user: user.into(),
            verb: "watch".into(),
            resource: "pods".into(),
            is_resource: true,
            field_selector,
            ..Attributes::default()
        };
        matches!(node.authorize(&attributes), Decision::Allow(_))
    };
    let kubelet = || UserInfo::new("system:node:n1", &[NODES]);
    assert!(allowed(kubelet(), "spec.nodeName=n1,status.phase!=Failed"));
    assert!(!allowed(kubelet(), "spec.nodeName!=n1"));
    assert!(!allowed(kubelet(), "spec.nodeName=n2"));
    assert!(!allowed(UserInfo::new("system:node:n1", &[]), "spec.nodeName=n1"), "not in the group of nodes");
    assert!(!allowed(UserInfo::new("n1", &[NODES]), "spec.nodeName=n1"), "not a node's name");
}

#[test]
fn access_ends_with_the_pod() {
    let node = fixture();
    let reaches = || node.graph.read().reaches("n1", Kind::Secret, "a", "s1");
    assert!(reaches());
    // Bound to another node: the old one's claim is gone.
    populate(
        &node,
        Source::Pods,
        &[json!({
            "metadata": {"name": "p", "namespace": "a", "uid": "9"},
            "spec": {"nodeName": "n2", "volumes": [{"name": "s", "secret": {"secretName": "s1"}}]},
        })],
    );
    assert!(!reaches());
    assert!(node.graph.read().reaches("n2", Kind::Secret, "a", "s1"));
}
