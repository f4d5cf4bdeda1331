use serde_json::{Value, json};

use crate::table;

fn check(group: &str, version: &str, plural: &str, object: Value, want: &[&str]) {
    let resource = table().find_resource(group, version, plural).expect("built in");
    let mut object = object;
    crate::canonicalize(resource.type_ref().expect("built in"), &mut object);
    crate::defaults::apply(resource, &mut object);
    assert_eq!(super::of(resource, "", &object, None), want, "{object}");
}

#[test]
fn pods() {
    let pod = |spec: Value| json!({"metadata": {"name": "p", "namespace": "n"}, "spec": spec});
    let check = |spec: Value, want: &[&str]| check("", "v1", "pods", pod(spec), want);
    let container = |more: Value| {
        let mut container = json!({"name": "c", "image": "i"});
        container.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        json!({"containers": [container]})
    };
    check(container(json!({})), &[]);
    check(
        container(
            json!({"env": [{"name": "A", "value": "1"}, {"name": "A", "value": "$(A)2"}, {"name": "A", "value": "3"}]}),
        ),
        &["spec.containers[0].env[2]: hides previous definition of \"A\", which may be dropped when using apply"],
    );
    check(
        container(
            json!({"ports": [{"containerPort": 80, "name": "a"}, {"containerPort": 80, "name": "b"}, {"containerPort": 80, "hostPort": 8080}]}),
        ),
        &[
            "spec.containers[0].ports[1]: duplicate port definition with spec.containers[0].ports[0]",
            "spec.containers[0].ports[2]: overlapping port definition with spec.containers[0].ports[0]",
            "spec.containers[0].ports[2]: overlapping port definition with spec.containers[0].ports[1]",
        ],
    );
    check(
        container(json!({"resources": {"limits": {"memory": "1500m"}, "requests": {"memory": "1Ki"}}})),
        &[
            "spec.containers[0].resources.limits[memory]: fractional byte value \"1500m\" is invalid, must be an integer",
        ],
    );
    let mut volumes = container(json!({}));
    volumes["volumes"] = json!([{"name": "v", "configMap": {"name": "m", "items": [
        {"key": "a", "path": "p"}, {"key": "b", "path": "p/q"}, {"key": "c", "path": "pq"},
    ]}}]);
    volumes["nodeSelector"] = json!({"beta.kubernetes.io/os": "linux"});
    check(
        volumes,
        &[
            "spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use \"kubernetes.io/os\" instead",
            "volume \"v\" (ConfigMap \"m\"): overlapping paths: \"p/q\" with \"p\"",
        ],
    );
}

#[test]
fn services() {
    let check = |spec: Value, want: &[&str]| {
        check("", "v1", "services", json!({"metadata": {"name": "s", "namespace": "n"}, "spec": spec}), want);
    };
    check(json!({"ports": [{"port": 80}]}), &[]);
    check(
        json!({"ports": [{"port": 80}], "clusterIP": "None", "sessionAffinity": "ClientIP", "loadBalancerSourceRanges": ["10.0.0.1/8"]}),
        &[
            "spec.SessionAffinity is ignored for headless services",
            "spec.loadBalancerSourceRanges[0]: CIDR value \"10.0.0.1/8\" is ambiguous in this context (should be \"10.0.0.0/8\" or \"10.0.0.1/32\"?)",
        ],
    );
    check(
        json!({"ports": [{"port": 80}], "externalIPs": ["::ffff:1.2.3.4", "fd00::0:1"], "externalName": "x"}),
        &[
            "spec.externalIPs[0]: non-standard IP address \"::ffff:1.2.3.4\" is invalid: use \"1.2.3.4\"",
            "spec.externalIPs[1]: IPv6 address \"fd00::0:1\" should be in RFC 5952 canonical format (\"fd00::1\")",
            "spec.externalIPs is deprecated and may no longer be implemented in some clusters",
            "spec.externalName is ignored when spec.type is not \"ExternalName\"",
        ],
    );
}
