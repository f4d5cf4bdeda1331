//! Rows against what upstream prints for the same objects, and columns against what it serves.

use std::path::PathBuf;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{DEFAULT, Description, PRINTERS, find};

const NOW: &str = "2026-03-01T12:00:00Z";

fn shared(path: &str) -> Option<PathBuf> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let candidates = [
        std::env::var_os("KEELSON_SHARED").map(PathBuf::from),
        Some(root.join("../../shared")),
        Some(root.join("../../../shared")),
    ];
    let found = candidates.into_iter().flatten().map(|dir| dir.join(path)).find(|file| file.exists());
    if found.is_none() {
        println!("skipped: needs ../shared");
    }
    found
}

#[test]
fn registry_is_sorted() {
    assert!(PRINTERS.is_sorted_by_key(|p| (p.group, p.resource)));
}

#[test]
fn columns_equal_upstreams() {
    let Some(path) = shared("spec/tables.json") else {
        return;
    };
    let tables: Value = serde_json::from_slice(&std::fs::read(path).expect("readable")).expect("JSON");
    for (url, served) in tables.as_object().expect("a map by URL") {
        let mut parts: Vec<&str> = url.trim_start_matches('/').split('/').collect();
        let resource = parts.pop().expect("a resource");
        let group = if parts[0] == "apis" { parts[1] } else { "" };
        let printer = find(group, resource);
        let served = served.as_array().expect("columns");
        assert_eq!(printer.columns.len(), served.len(), "{url}");
        for (column, served) in printer.columns.iter().zip(served) {
            let ours = column.to_value(|_, _| served["description"].as_str().map(str::to_owned));
            assert_eq!(&ours, served, "{url}");
            if let Description::Field(..) = column.description {
                assert_ne!(served["description"], "", "{url} {}", column.name);
            }
        }
    }
}

fn check(group: &str, resource: &str, object: Value, expected: &[Value]) {
    let now: Timestamp = NOW.parse().expect("a time");
    let printer = find(group, resource);
    let row = (printer.row)(&object, now);
    assert_eq!(row, expected, "{resource}");
}

fn pod(status: Value) -> Value {
    json!({
        "metadata": {"name": "p", "creationTimestamp": "2026-03-01T11:00:00Z"},
        "spec": {"containers": [{"name": "a"}, {"name": "b"}]},
        "status": status,
    })
}

fn check_pod(pod: &Value, ready: &str, status: &str, restarts: &str) {
    let row = (find("", "pods").row)(pod, NOW.parse().expect("a time"));
    assert_eq!(row[1..4], [json!(ready), json!(status), json!(restarts)], "{pod}");
}

#[test]
fn pod_status() {
    let running = json!({"running": {"startedAt": "2026-03-01T11:00:01Z"}});
    let ended = |code: i64, reason: &str| json!({"terminated": {"exitCode": code, "reason": reason}});
    let container = |name: &str, ready: bool, restarts: i64, state: &Value| json!({"name": name, "ready": ready, "restartCount": restarts, "state": state});
    let ready = json!([{"type": "Ready", "status": "True"}]);

    check_pod(&pod(json!({"phase": "Pending"})), "0/2", "Pending", "0");
    check_pod(&pod(json!({"phase": "Failed", "reason": "Evicted"})), "0/2", "Evicted", "0");
    check_pod(
        &pod(
            json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]}),
        ),
        "0/2",
        "SchedulingGated",
        "0",
    );
    check_pod(
        &pod(
            json!({"phase": "Running", "containerStatuses": [container("a", true, 0, &running), container("b", true, 0, &running)]}),
        ),
        "2/2",
        "Running",
        "0",
    );
    let mut crashing = container("b", false, 3, &json!({"waiting": {"reason": "CrashLoopBackOff"}}));
    crashing["lastState"] = json!({"terminated": {"exitCode": 1, "finishedAt": "2026-03-01T11:57:30Z"}});
    check_pod(
        &pod(json!({"phase": "Running", "containerStatuses": [container("a", true, 1, &running), crashing]})),
        "1/2",
        "CrashLoopBackOff",
        "4 (2m30s ago)",
    );
    check_pod(
        &pod(
            json!({"phase": "Running", "conditions": ready, "containerStatuses": [container("a", false, 0, &ended(0, "Completed")), container("b", true, 0, &running)]}),
        ),
        "1/2",
        "Running",
        "0",
    );
    check_pod(
        &pod(
            json!({"phase": "Running", "containerStatuses": [container("a", false, 0, &ended(0, "Completed")), container("b", true, 0, &running)]}),
        ),
        "1/2",
        "NotReady",
        "0",
    );
    check_pod(
        &pod(
            json!({"phase": "Running", "containerStatuses": [container("a", false, 0, &ended(0, "Completed")), container("b", false, 0, &ended(2, ""))]}),
        ),
        "0/2",
        "ExitCode:2",
        "0",
    );
    let mut going = pod(json!({"phase": "Running"}));
    going["metadata"]["deletionTimestamp"] = json!(NOW);
    check_pod(&going, "0/2", "Terminating", "0");
    going["status"]["reason"] = json!("NodeLost");
    check_pod(&going, "0/2", "Unknown", "0");

    let mut initializing = pod(json!({"phase": "Pending", "initContainerStatuses": [
        container("x", true, 0, &ended(0, "Completed")),
        container("y", false, 0, &json!({"waiting": {"reason": "PodInitializing"}})),
    ]}));
    initializing["spec"]["initContainers"] = json!([{"name": "x"}, {"name": "y"}]);
    check_pod(&initializing, "0/2", "Init:1/2", "0");
    initializing["status"]["initContainerStatuses"][1] = container("y", false, 2, &ended(7, "Error"));
    check_pod(&initializing, "0/2", "Init:Error", "2");
    // A started sidecar counts as ready and does not hold the pod back.
    initializing["spec"]["initContainers"][1]["restartPolicy"] = json!("Always");
    let mut sidecar = container("y", true, 1, &running);
    sidecar["started"] = json!(true);
    initializing["status"]["initContainerStatuses"][1] = sidecar;
    initializing["status"]["containerStatuses"] =
        json!([container("a", false, 0, &json!({"waiting": {"reason": "ContainerCreating"}}))]);
    check_pod(&initializing, "1/3", "ContainerCreating", "1");
}

#[test]
fn rows() {
    let meta = json!({"name": "x", "creationTimestamp": "2026-03-01T11:00:00Z"});
    check(
        "",
        "services",
        json!({"metadata": meta, "spec": {"type": "NodePort", "clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7"], "selector": {"app": "a", "tier": "b"},
            "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]}}),
        &[
            json!("x"),
            json!("NodePort"),
            json!("10.96.0.7"),
            json!("<none>"),
            json!("80:30080/TCP,53/UDP"),
            json!("60m"),
            json!("app=a,tier=b"),
        ],
    );
    check(
        "",
        "services",
        json!({"metadata": meta, "spec": {"type": "LoadBalancer", "clusterIPs": ["10.96.0.7"]}}),
        &[
            json!("x"),
            json!("LoadBalancer"),
            json!("10.96.0.7"),
            json!("<pending>"),
            json!("<none>"),
            json!("60m"),
            json!("<none>"),
        ],
    );
    check(
        "",
        "nodes",
        json!({"metadata": {"name": "n", "creationTimestamp": "2026-02-20T12:00:00Z", "labels": {"node-role.kubernetes.io/worker": "", "node-role.kubernetes.io/control-plane": ""}},
            "spec": {"unschedulable": true},
            "status": {"conditions": [{"type": "Ready", "status": "True"}], "addresses": [{"type": "InternalIP", "address": "172.30.0.11"}],
                "nodeInfo": {"kubeletVersion": "v1.36.2", "osImage": "Debian", "kernelVersion": "6.1", "architecture": "amd64", "containerRuntimeVersion": "containerd://1.6.20"}}}),
        &[
            json!("n"),
            json!("Ready,SchedulingDisabled"),
            json!("control-plane,worker"),
            json!("9d"),
            json!("v1.36.2"),
            json!("172.30.0.11"),
            json!("<none>"),
            json!("Debian"),
            json!("6.1 (amd64)"),
            json!("containerd://1.6.20"),
        ],
    );
    check(
        "apps",
        "deployments",
        json!({"metadata": meta, "spec": {"replicas": 3, "selector": {"matchLabels": {"b": "2"}, "matchExpressions": [{"key": "a", "operator": "In", "values": ["z", "y"]}, {"key": "c", "operator": "Exists"}]},
            "template": {"spec": {"containers": [{"name": "c1", "image": "i1"}, {"name": "c2", "image": "i2"}]}}}, "status": {"readyReplicas": 1, "updatedReplicas": 2, "availableReplicas": 1}}),
        &[
            json!("x"),
            json!("1/3"),
            json!(2),
            json!(1),
            json!("60m"),
            json!("c1,c2"),
            json!("i1,i2"),
            json!("a in (y,z),b=2,c"),
        ],
    );
    check(
        "",
        "endpoints",
        json!({"metadata": meta, "subsets": [{"addresses": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}], "ports": [{"port": 80}, {"port": 443}]}]}),
        &[json!("x"), json!("10.0.0.1:80,[fd00::1]:80,10.0.0.1:443 + 1 more..."), json!("60m")],
    );
    check(
        "",
        "events",
        json!({"metadata": {"name": "e"}, "lastTimestamp": "2026-03-01T11:59:50Z", "firstTimestamp": "2026-03-01T11:50:00Z", "count": 4, "type": "Warning", "reason": "BackOff",
            "involvedObject": {"kind": "Pod", "name": "p", "fieldPath": "spec.containers{a}"}, "source": {"component": "kubelet", "host": "n1"}, "message": " m\n"}),
        &[
            json!("10s"),
            json!("Warning"),
            json!("BackOff"),
            json!("pod/p"),
            json!("spec.containers{a}"),
            json!("kubelet, n1"),
            json!("m"),
            json!("10m"),
            json!(4),
            json!("e"),
        ],
    );
    check(
        "batch",
        "jobs",
        json!({"metadata": meta, "spec": {"completions": 5, "template": {"spec": {"containers": [{"name": "c", "image": "i"}]}}},
            "status": {"succeeded": 5, "startTime": "2026-03-01T11:00:00Z", "completionTime": "2026-03-01T11:00:42Z", "conditions": [{"type": "Complete", "status": "True"}]}}),
        &[
            json!("x"),
            json!("Complete"),
            json!("5/5"),
            json!("42s"),
            json!("60m"),
            json!("c"),
            json!("i"),
            json!("<none>"),
        ],
    );
    check(
        "autoscaling",
        "horizontalpodautoscalers",
        json!({"metadata": meta, "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "d"}, "minReplicas": 1, "maxReplicas": 9, "metrics": [
            {"type": "Resource", "resource": {"name": "cpu", "target": {"averageUtilization": 80}}},
            {"type": "Pods", "pods": {"target": {"averageValue": "100m"}}},
            {"type": "External", "external": {"target": {"value": "2"}}}]},
            "status": {"currentReplicas": 2, "currentMetrics": [{"resource": {"current": {"averageUtilization": 12}}}]}}),
        &[
            json!("x"),
            json!("Deployment/d"),
            json!("cpu: 12%/80%, <unknown>/100m + 1 more..."),
            json!("1"),
            json!(9),
            json!(2),
            json!("60m"),
        ],
    );
}

#[test]
fn kinds_without_a_printer() {
    let object = json!({"metadata": {"name": "r", "creationTimestamp": "2026-03-01T11:00:00Z"}});
    let row = (find("rbac.authorization.k8s.io", "roles").row)(&object, NOW.parse().expect("a time"));
    assert_eq!(row, [json!("r"), json!("2026-03-01T11:00:00Z")]);
    assert_eq!(find("example.com", "widgets").columns.len(), DEFAULT.columns.len());
}

#[test]
fn a_row_fits_its_columns() {
    for printer in PRINTERS {
        let cells = (printer.row)(&json!({}), NOW.parse().expect("a time")).len();
        let extra = usize::from(printer.resource == "ipaddresses");
        assert_eq!(cells, printer.columns.len() + extra, "{}", printer.resource);
    }
}
