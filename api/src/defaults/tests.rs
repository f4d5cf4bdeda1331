use serde_json::{Value, json};

use crate::table;

fn defaulted(group: &str, version: &str, plural: &str, object: Value) -> Value {
    let resource = table().find_resource(group, version, plural).expect("built in");
    let mut object = object;
    crate::canonicalize(resource.type_ref().expect("built in"), &mut object);
    super::apply(resource, &mut object);
    object
}

#[test]
fn pods() {
    let pod = defaulted(
        "",
        "v1",
        "pods",
        json!({"metadata": {"name": "a"}, "spec": {
            "hostNetwork": true,
            "containers": [{"name": "c", "image": "nginx", "resources": {"limits": {"cpu": "0.0001"}},
                "ports": [{"containerPort": 80}], "livenessProbe": {"httpGet": {"port": 80}}}],
            "volumes": [{"name": "v"}, {"name": "s", "secret": {"secretName": "x"}}],
        }}),
    );
    let spec = &pod["spec"];
    assert_eq!(spec["restartPolicy"], "Always");
    assert_eq!(spec["enableServiceLinks"], true);
    assert_eq!(spec["securityContext"], json!({}));
    let container = &spec["containers"][0];
    assert_eq!(container["imagePullPolicy"], "Always");
    assert_eq!(container["resources"], json!({"limits": {"cpu": "1m"}, "requests": {"cpu": "1m"}}));
    assert_eq!(container["ports"], json!([{"containerPort": 80, "hostPort": 80, "protocol": "TCP"}]));
    assert_eq!(container["livenessProbe"]["httpGet"], json!({"path": "/", "port": 80, "scheme": "HTTP"}));
    assert_eq!(
        spec["volumes"],
        json!([{"name": "v", "emptyDir": {}}, {"name": "s", "secret": {"secretName": "x", "defaultMode": 420}}])
    );
}

#[test]
fn pod_level_resources() {
    let pod = defaulted(
        "",
        "v1",
        "pods",
        json!({"spec": {
            "resources": {"limits": {"cpu": "2", "memory": "1Gi"}},
            "containers": [{"name": "a", "resources": {"requests": {"cpu": "500m"}}}, {"name": "b", "resources": {"requests": {"cpu": "250m"}}}],
        }}),
    );
    assert_eq!(pod["spec"]["resources"]["requests"], json!({"cpu": "750m", "memory": "1Gi"}));
}

#[test]
fn services() {
    let service = defaulted(
        "",
        "v1",
        "services",
        json!({"spec": {"type": "NodePort", "sessionAffinity": "ClientIP", "ports": [{"port": 80}]}}),
    );
    assert_eq!(
        service["spec"],
        json!({"type": "NodePort", "sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 10800}},
            "ports": [{"port": 80, "targetPort": 80, "protocol": "TCP"}], "externalTrafficPolicy": "Cluster", "internalTrafficPolicy": "Cluster"})
    );
}

#[test]
fn workloads() {
    let template = json!({"spec": {"containers": [{"name": "c", "image": "nginx:1"}]}});
    let deployment = defaulted("apps", "v1", "deployments", json!({"spec": {"template": template}}));
    assert_eq!(
        deployment["spec"]["strategy"],
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}})
    );
    assert_eq!(deployment["spec"]["template"]["spec"]["containers"][0]["imagePullPolicy"], "IfNotPresent");
    let stateful = defaulted(
        "apps",
        "v1",
        "statefulsets",
        json!({"spec": {"template": template, "volumeClaimTemplates": [{"spec": {}}]}}),
    );
    assert_eq!(stateful["spec"]["updateStrategy"], json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}));
    assert_eq!(stateful["spec"]["volumeClaimTemplates"][0]["status"]["phase"], "Pending");
    let job = defaulted(
        "batch",
        "v1",
        "jobs",
        json!({"spec": {"template": {"metadata": {"labels": {"a": "b"}}, "spec": {}}}}),
    );
    assert_eq!(job["metadata"]["labels"], json!({"a": "b"}));
    assert_eq!(job["spec"]["completions"], 1);
    let cron = defaulted("batch", "v1", "cronjobs", json!({"spec": {"jobTemplate": {"spec": {"template": template}}}}));
    assert_eq!(cron["spec"]["jobTemplate"]["spec"].get("completions"), None);
    assert_eq!(cron["spec"]["jobTemplate"]["spec"]["template"]["spec"]["restartPolicy"], "Always");
}

#[test]
fn others() {
    let namespace = defaulted("", "v1", "namespaces", json!({"metadata": {"name": "n"}}));
    assert_eq!(
        (&namespace["metadata"]["labels"], &namespace["status"]),
        (&json!({"kubernetes.io/metadata.name": "n"}), &json!({"phase": "Active"}))
    );
    let secret = defaulted("", "v1", "secrets", json!({}));
    assert_eq!(secret["type"], "Opaque");
    let range = defaulted(
        "",
        "v1",
        "limitranges",
        json!({"spec": {"limits": [{"type": "Container", "max": {"cpu": "2"}, "min": {"memory": "1"}}]}}),
    );
    assert_eq!(range["spec"]["limits"][0]["defaultRequest"], json!({"cpu": "2", "memory": "1"}));
    let definition = defaulted(
        "apiextensions.k8s.io",
        "v1",
        "customresourcedefinitions",
        json!({"spec": {"names": {"kind": "Foo", "plural": "foos"},
        "versions": [{"name": "v1", "storage": true}]}}),
    );
    assert_eq!(
        definition["spec"]["names"],
        json!({"kind": "Foo", "plural": "foos", "singular": "foo", "listKind": "FooList"})
    );
    assert_eq!(definition["status"]["storedVersions"], json!(["v1"]));
}
