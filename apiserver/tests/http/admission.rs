//! What admission plugins change, refuse and charge, over the wire.

use std::sync::Arc;

use apiserver::UserInfo;
use axum::body::Body;
use http::Request;
use serde_json::{Value, json};

use crate::Fixture;

const PODS: &str = "/api/v1/namespaces/default/pods";
const QUOTAS: &str = "/api/v1/namespaces/default/resourcequotas";

fn pod(name: &str, spec: Value) -> Value {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
    });
    for (key, value) in spec.as_object().unwrap() {
        pod["spec"][key] = value.clone();
    }
    pod
}

fn container(resources: Value) -> Value {
    json!({"containers": [{"name": "c", "image": "i", "resources": resources}]})
}

async fn with_account(server: &Fixture) {
    // The controller that makes it does not run here.
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    let answer = server.post("/api/v1/namespaces/default/serviceaccounts", &account).await;
    assert_eq!(answer.code, 201, "{}", answer.message());
}

#[tokio::test]
async fn limit_ranges_fill_in_and_refuse() {
    let server = Fixture::new().await;
    with_account(&server).await;
    let range = json!({
        "apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "limits"},
        "spec": {"limits": [{
            "type": "Container", "default": {"cpu": "500m"}, "defaultRequest": {"cpu": "100m"}, "max": {"cpu": "1"},
        }]},
    });
    assert_eq!(server.post("/api/v1/namespaces/default/limitranges", &range).await.code, 201);
    let made = server.post(PODS, &pod("a", json!({}))).await;
    assert_eq!(made.code, 201, "{}", made.message());
    assert_eq!(
        made.body["spec"]["containers"][0]["resources"],
        json!({"limits": {"cpu": "500m"}, "requests": {"cpu": "100m"}})
    );
    assert_eq!(
        made.body["metadata"]["annotations"]["kubernetes.io/limit-ranger"],
        "LimitRanger plugin set: cpu request for container c; cpu limit for container c"
    );
    let refused = server.post(PODS, &pod("b", container(json!({"limits": {"cpu": "2"}})))).await;
    assert_eq!(refused.code, 403);
    assert_eq!(refused.message(), "pods \"b\" is forbidden: maximum cpu usage per Container is 1, but limit is 2");
}

/// A quota as the quota controller, which does not run here, would have counted it first.
async fn quota(server: &Fixture, name: &str, hard: Value) {
    let quota =
        json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": name}, "spec": {"hard": hard}});
    let made = server.post(QUOTAS, &quota).await;
    assert_eq!(made.code, 201, "{}", made.message());
    let used: Value = hard.as_object().unwrap().keys().map(|name| (name.clone(), json!("0"))).collect();
    let mut counted = made.body;
    counted["status"] = json!({"hard": hard, "used": used});
    let path = format!("{QUOTAS}/{name}/status");
    let answer = server.ask("PUT", &path, "application/json", counted.to_string()).await;
    assert_eq!(answer.code, 200, "{}", answer.message());
}

/// Of many who come at once, as many get in as there is room for.
#[tokio::test(flavor = "multi_thread")]
async fn a_quota_is_not_overrun_by_a_crowd() {
    const ROOM: usize = 10;
    let server = Fixture::new().await;
    quota(&server, "q", json!({"count/configmaps": ROOM.to_string()})).await;
    let crowd = (0..64).map(|number| {
        let router = server.handle.admin_router();
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("c{number}")}});
        tokio::spawn(async move {
            let request = http::Request::post("/api/v1/namespaces/default/configmaps")
                .header("content-type", "application/json")
                .body(axum::body::Body::from(object.to_string()))
                .unwrap();
            Fixture::send_to(router, request).await.code
        })
    });
    let codes: Vec<u16> = futures::future::join_all(crowd).await.into_iter().map(Result::unwrap).collect();
    let count = |code: u16| codes.iter().filter(|have| **have == code).count();
    assert_eq!((count(201), count(403)), (ROOM, 64 - ROOM), "{codes:?}");
    let used = server.get(&format!("{QUOTAS}/q")).await;
    assert_eq!(used.body["status"]["used"]["count/configmaps"], ROOM.to_string());
    let stored = server.get("/api/v1/namespaces/default/configmaps").await;
    assert_eq!(stored.body["items"].as_array().map(Vec::len), Some(ROOM));
}

#[tokio::test]
async fn quotas_are_charged_and_kept() {
    let server = Fixture::new().await;
    with_account(&server).await;
    quota(&server, "q", json!({"pods": "2", "requests.cpu": "1", "count/configmaps": "1"})).await;
    let refused = server.post(PODS, &pod("bare", json!({}))).await;
    assert_eq!(refused.code, 403);
    assert_eq!(refused.message(), "pods \"bare\" is forbidden: failed quota: q: must specify requests.cpu for: c");
    let small = container(json!({"requests": {"cpu": "600m"}}));
    assert_eq!(server.post(PODS, &pod("one", small.clone())).await.code, 201);
    let refused = server.post(PODS, &pod("two", small)).await;
    assert_eq!(refused.code, 403);
    assert_eq!(
        refused.message(),
        "pods \"two\" is forbidden: exceeded quota: q, requested: requests.cpu=600m, used: requests.cpu=600m, limited: requests.cpu=1"
    );
    let map = |name: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});
    let maps = "/api/v1/namespaces/default/configmaps";
    assert_eq!(server.post(&format!("{maps}?dryRun=All"), &map("dry")).await.code, 201);
    assert_eq!(server.post(maps, &map("a")).await.code, 201);
    let refused = server.post(maps, &map("b")).await;
    assert_eq!(
        refused.message(),
        "configmaps \"b\" is forbidden: exceeded quota: q, requested: count/configmaps=1, used: count/configmaps=1, limited: count/configmaps=1"
    );
    let counted = server.get(&format!("{QUOTAS}/q")).await;
    assert_eq!(counted.body["status"]["used"], json!({"pods": "1", "requests.cpu": "600m", "count/configmaps": "1"}));
}

#[tokio::test]
async fn no_quota_is_overrun_by_many_at_once() {
    let server = Arc::new(Fixture::new().await);
    quota(&server, "q", json!({"count/secrets": "10"})).await;
    let mut tasks = Vec::new();
    for number in 0..40 {
        let server = server.clone();
        tasks.push(tokio::spawn(async move {
            let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": format!("s{number}")}});
            server.post("/api/v1/namespaces/default/secrets", &secret).await.code
        }));
    }
    let mut codes = Vec::new();
    for task in tasks {
        codes.push(task.await.unwrap());
    }
    assert_eq!(codes.iter().filter(|code| **code == 201).count(), 10, "{codes:?}");
    assert_eq!(codes.iter().filter(|code| **code == 403).count(), 30, "{codes:?}");
}

#[tokio::test]
async fn pod_security_goes_by_the_namespaces_labels() {
    let server = Fixture::new().await;
    let namespace = |name: &str, labels: Value| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}});
    let bad = namespace("bad", json!({"pod-security.kubernetes.io/enforce": "strong"}));
    let answer = server.post("/api/v1/namespaces", &bad).await;
    assert_eq!(answer.code, 422);
    assert!(answer.message().contains("must be one of privileged, baseline, restricted"), "{}", answer.message());
    let strict = namespace(
        "strict",
        json!({"pod-security.kubernetes.io/enforce": "baseline", "pod-security.kubernetes.io/warn": "restricted"}),
    );
    assert_eq!(server.post("/api/v1/namespaces", &strict).await.code, 201);
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    server.post("/api/v1/namespaces/strict/serviceaccounts", &account).await;
    let pods = "/api/v1/namespaces/strict/pods";
    let refused = server.post(pods, &pod("a", json!({"hostNetwork": true}))).await;
    assert_eq!(refused.code, 403);
    assert_eq!(
        refused.message(),
        "pods \"a\" is forbidden: violates PodSecurity \"baseline:latest\": host namespaces (hostNetwork=true)"
    );
    let warned = server.post(pods, &pod("b", json!({}))).await;
    assert_eq!(warned.code, 201, "{}", warned.message());
    assert!(
        warned.warnings.iter().any(|warning| warning.contains("would violate PodSecurity \\\"restricted:latest\\\"")),
        "{:?}",
        warned.warnings
    );
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
        "spec": {
            "selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"hostPID": true, "containers": [{"name": "c", "image": "i"}]}},
        },
    });
    let made = server.post("/apis/apps/v1/namespaces/strict/deployments", &deployment).await;
    assert_eq!(made.code, 201, "a workload is warned of, not refused: {}", made.message());
    assert!(made.warnings.iter().any(|warning| warning.contains("hostPID=true")), "{:?}", made.warnings);
}

#[tokio::test]
async fn classes_are_filled_in() {
    let server = Fixture::new().await;
    let class = json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "provisioner": "p",
        "metadata": {"name": "fast", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
    });
    assert_eq!(server.post("/apis/storage.k8s.io/v1/storageclasses", &class).await.code, 201);
    let claim = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "c"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    });
    let made = server.post("/api/v1/namespaces/default/persistentvolumeclaims", &claim).await;
    assert_eq!(made.body["spec"]["storageClassName"], "fast", "{}", made.message());
    let runtime = json!({
        "apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "vm"}, "handler": "vm",
        "overhead": {"podFixed": {"cpu": "10m"}}, "scheduling": {"nodeSelector": {"kind": "vm"}},
    });
    assert_eq!(server.post("/apis/node.k8s.io/v1/runtimeclasses", &runtime).await.code, 201);
    with_account(&server).await;
    let made = server.post(PODS, &pod("p", json!({"runtimeClassName": "vm"}))).await;
    assert_eq!(made.code, 201, "{}", made.message());
    assert_eq!(made.body["spec"]["overhead"], json!({"cpu": "10m"}));
    assert_eq!(made.body["spec"]["nodeSelector"], json!({"kind": "vm"}));
    let refused = server.post(PODS, &pod("q", json!({"runtimeClassName": "none"}))).await;
    assert_eq!(refused.message(), "pods \"q\" is forbidden: pod rejected: RuntimeClass \"none\" not found");
}

#[tokio::test]
async fn kubelets_keep_to_their_node() {
    let server = Fixture::with(|config| config.enable_admission_plugins = vec!["NodeRestriction".into()]).await;
    let kubelet = || UserInfo::new("system:node:n1", &["system:nodes"]);
    let node = |name: &str, labels: Value| json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}});
    let nodes = "/api/v1/nodes";
    let answer = server.ask_as(kubelet(), "POST", nodes, &node("n2", json!({}))).await;
    assert_eq!(answer.code, 403);
    assert_eq!(answer.message(), "nodes \"n2\" is forbidden: node \"n1\" is not allowed to modify node \"n2\"");
    let labels = json!({"node-role.kubernetes.io/control-plane": ""});
    let answer = server.ask_as(kubelet(), "POST", nodes, &node("n1", labels)).await;
    assert_eq!(
        answer.message(),
        "nodes \"n1\" is forbidden: node \"n1\" is not allowed to set the following labels: node-role.kubernetes.io/control-plane"
    );
    let made = server.ask_as(kubelet(), "POST", nodes, &node("n1", json!({"kubernetes.io/hostname": "n1"}))).await;
    assert_eq!(made.code, 201, "{}", made.message());
    let mut tainted = made.body.clone();
    tainted["spec"]["taints"] = json!([]);
    let answer = server.ask_as(kubelet(), "PUT", &format!("{nodes}/n1"), &tainted).await;
    assert_eq!(answer.message(), "nodes \"n1\" is forbidden: node \"n1\" is not allowed to modify taints");
    with_account(&server).await;
    let answer = server.ask_as(kubelet(), "POST", PODS, &pod("p", json!({"nodeName": "n1"}))).await;
    assert!(answer.message().contains("can only create mirror pods"), "{}", answer.message());
    let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "n2"}});
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    let answer = server.ask_as(kubelet(), "POST", leases, &lease).await;
    assert!(answer.message().contains("same name as the requesting node"), "{}", answer.message());
}

#[tokio::test]
async fn requests_say_where_they_belong() {
    let server = Fixture::new().await;
    let uid = async |path: &str| server.get(path).await.body["metadata"]["uid"].as_str().unwrap().to_string();
    let group = "/apis/flowcontrol.apiserver.k8s.io/v1";
    let schema = uid(&format!("{group}/flowschemas/global-default")).await;
    let level = uid(&format!("{group}/prioritylevelconfigurations/global-default")).await;
    let headers = async || {
        let request = Request::get("/apis").body(Body::empty()).unwrap();
        let router = server.handle.router(UserInfo::new("alice", &[]));
        let answer = tower::ServiceExt::oneshot(router, request).await.unwrap();
        let header = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_string);
        (header("x-kubernetes-pf-flowschema-uid"), header("x-kubernetes-pf-prioritylevel-uid"))
    };
    // The dispatcher follows its objects; at first it knows none.
    for _ in 0..100 {
        if headers().await == (Some(schema.clone()), Some(level.clone())) {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(headers().await, (Some(schema), Some(level)));
}
