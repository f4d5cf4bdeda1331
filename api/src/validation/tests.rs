use serde_json::{Value, json};

use crate::table;

/// Every error of a new object, after the steps that come before validation.
fn errors(group: &str, version: &str, plural: &str, object: Value) -> Vec<String> {
    let resource = table().find_resource(group, version, plural).expect("built in");
    let object = prepared(resource, object);
    super::create(resource, resource, &object).iter().map(ToString::to_string).collect()
}

fn prepared(resource: &crate::Resource, object: Value) -> Value {
    let mut object = object;
    crate::canonicalize(resource.type_ref().expect("built in"), &mut object);
    crate::defaults::apply(resource, &mut object);
    object
}

fn update_errors(group: &str, version: &str, plural: &str, old: Value, new: Value) -> Vec<String> {
    let resource = table().find_resource(group, version, plural).expect("built in");
    let (old, new) = (prepared(resource, old), prepared(resource, new));
    super::update(resource, resource, &new, &old).iter().map(ToString::to_string).collect()
}

fn pod(spec: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "n", "resourceVersion": "1"}, "spec": spec})
}

#[test]
fn good_objects_pass() {
    let container = json!({"name": "c", "image": "i"});
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [container]}});
    let meta = json!({"name": "x", "namespace": "n"});
    let none: [String; 0] = [];
    assert_eq!(errors("", "v1", "pods", pod(json!({"containers": [container]}))), none);
    let workload = json!({"metadata": meta, "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template}});
    for plural in ["deployments", "replicasets", "daemonsets", "statefulsets"] {
        assert_eq!(errors("apps", "v1", plural, workload.clone()), none, "{plural}");
    }
    assert_eq!(errors("", "v1", "services", json!({"metadata": meta, "spec": {"ports": [{"port": 80}]}})), none);
    assert_eq!(errors("", "v1", "configmaps", json!({"metadata": meta, "data": {"a.b": "c"}})), none);
    assert_eq!(errors("", "v1", "secrets", json!({"metadata": meta, "data": {"a": "YQ=="}})), none);
    assert_eq!(errors("", "v1", "namespaces", json!({"metadata": {"name": "x"}})), none);
    assert_eq!(errors("", "v1", "nodes", json!({"metadata": {"name": "x"}})), none);
}

#[test]
fn pods() {
    for (spec, expected) in [
        (json!({}), vec!["spec.containers: Required value"]),
        (
            json!({"containers": [{"name": "A"}]}),
            vec![
                "spec.containers[0].name: Invalid value: \"A\": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
                "spec.containers[0].image: Required value",
            ],
        ),
        (
            json!({"containers": [{"name": "a", "image": "i", "volumeMounts": [{"name": "v", "mountPath": "/x"}]}]}),
            vec!["spec.containers[0].volumeMounts[0].name: Not found: \"v\""],
        ),
        (
            json!({"containers": [{"name": "a", "image": "i", "ports": [{"containerPort": 70000}]}]}),
            vec![
                "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
            ],
        ),
        (
            json!({"containers": [{"name": "a", "image": "i", "resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}}]}),
            vec![
                "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
            ],
        ),
        (
            json!({"containers": [{"name": "a", "image": "i"}], "restartPolicy": "Sometimes"}),
            vec![
                "spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"OnFailure\", \"Never\"",
            ],
        ),
        (
            json!({"containers": [{"name": "a", "image": "i", "env": [{"name": "X", "valueFrom": {}}]}]}),
            vec![
                "spec.containers[0].env[0].valueFrom: Invalid value: \"\": must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
            ],
        ),
    ] {
        assert_eq!(errors("", "v1", "pods", pod(spec)), expected);
    }
}

#[test]
fn pod_updates() {
    let old = pod(json!({"containers": [{"name": "a", "image": "i"}]}));
    let image = pod(json!({"containers": [{"name": "a", "image": "j"}]}));
    assert_eq!(update_errors("", "v1", "pods", old.clone(), image), [""; 0]);
    let node = pod(json!({"containers": [{"name": "a", "image": "i"}], "nodeName": "n"}));
    let got = update_errors("", "v1", "pods", old, node);
    assert!(
        got[0].starts_with("spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`"),
        "{got:?}"
    );
}

#[test]
fn services() {
    let meta = json!({"name": "x", "namespace": "n"});
    for (spec, expected) in [
        (json!({}), vec!["spec.ports: Required value"]),
        (
            json!({"ports": [{"port": 0}], "type": "Foo"}),
            vec![
                "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
                "spec.ports[0].targetPort: Invalid value: 0: must be between 1 and 65535, inclusive",
                "spec.type: Unsupported value: \"Foo\": supported values: \"ClusterIP\", \"ExternalName\", \"LoadBalancer\", \"NodePort\"",
            ],
        ),
        (
            json!({"ports": [{"port": 1}], "clusterIP": "1.2.3", "clusterIPs": ["1.2.3"]}),
            vec![
                "spec.clusterIPs[0]: Invalid value: \"1.2.3\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
            ],
        ),
        (json!({"type": "ExternalName"}), vec!["spec.externalName: Required value"]),
    ] {
        assert_eq!(errors("", "v1", "services", json!({"metadata": meta, "spec": spec})), expected);
    }
}

#[test]
fn metadata() {
    for (meta, expected) in [
        (json!({"namespace": "n"}), vec!["metadata.name: Required value: name or generateName is required"]),
        (
            json!({"name": "x", "namespace": "n", "labels": {"-": "a"}}),
            vec![
                "metadata.labels: Invalid value: \"-\": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')",
            ],
        ),
        (
            json!({"name": "x", "namespace": "n", "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "", "uid": "1"}]}),
            vec!["metadata.ownerReferences.name: Invalid value: \"\": must not be empty"],
        ),
    ] {
        assert_eq!(errors("", "v1", "configmaps", json!({"metadata": meta})), expected);
    }
    let old = json!({"metadata": {"name": "x", "namespace": "n", "uid": "1", "resourceVersion": "1"}});
    let new = json!({"metadata": {"name": "y", "namespace": "n", "uid": "1"}});
    assert_eq!(
        update_errors("", "v1", "configmaps", old, new),
        [
            "metadata.resourceVersion: Invalid value: \"\": must be specified for an update",
            "metadata.name: Invalid value: \"y\": field is immutable",
            // Once for every kind, once for this one.
            "metadata.resourceVersion: Invalid value: \"\": must be specified for an update",
            "metadata.name: Invalid value: \"y\": field is immutable",
        ]
    );
}

#[test]
fn workloads() {
    let meta = json!({"name": "x", "namespace": "n", "resourceVersion": "1"});
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let with = |selector: Value| json!({"metadata": meta, "spec": {"selector": selector, "template": template}});
    assert_eq!(
        errors("apps", "v1", "deployments", with(json!({"matchLabels": {"a": "c"}}))),
        ["spec.template.metadata.labels: Invalid value: {\"a\":\"b\"}: `selector` does not match template `labels`"]
    );
    assert_eq!(
        errors("apps", "v1", "deployments", with(json!({}))),
        ["spec.selector: Invalid value: {}: empty selector is invalid for deployment"]
    );
    let (old, new) = (
        with(json!({"matchLabels": {"a": "b"}})),
        with(json!({"matchExpressions": [{"key": "a", "operator": "Exists"}]})),
    );
    assert_eq!(
        update_errors("apps", "v1", "deployments", old, new),
        [
            "spec.selector: Invalid value: {\"matchExpressions\":[{\"key\":\"a\",\"operator\":\"Exists\"}]}: field is immutable"
        ]
    );
}

#[test]
fn config_maps_and_secrets() {
    let meta = json!({"name": "x", "namespace": "n", "resourceVersion": "1"});
    let key = errors("", "v1", "configmaps", json!({"metadata": meta, "data": {"a b": ""}}));
    assert!(key[0].starts_with("data[a b]: Invalid value: \"a b\": a valid config key"), "{key:?}");
    let big = "x".repeat(1024 * 1024 + 1);
    assert_eq!(
        errors("", "v1", "configmaps", json!({"metadata": meta, "data": {"a": big}})),
        ["[]: Too long: may not be more than 1048576 bytes"]
    );
    assert_eq!(
        errors("", "v1", "secrets", json!({"metadata": meta, "type": "kubernetes.io/tls"})),
        ["data[tls.crt]: Required value", "data[tls.key]: Required value"]
    );
    assert_eq!(
        update_errors(
            "",
            "v1",
            "secrets",
            json!({"metadata": meta, "immutable": true, "data": {"a": "YQ=="}}),
            json!({"metadata": meta, "immutable": true, "data": {"a": "Yg=="}, "type": "t"}),
        ),
        [
            "type: Invalid value: \"t\": field is immutable",
            "data: Forbidden: field is immutable when `immutable` is set"
        ]
    );
}
