//! How long the table takes to parse and a Pod takes to encode, decode, check and canonicalize.
//!
//! `cargo bench -p api`. The Pod is one that a Deployment makes: two containers, probes, volumes.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use serde_json::{Value, json};

fn pod() -> Value {
    let container = |name: &str| {
        json!({
            "name": name,
            "image": "registry.example/app:v1",
            "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
            "env": [{"name": "A", "value": "b"}, {"name": "POD_IP", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "status.podIP"}}}],
            "resources": {"limits": {"cpu": "500m", "memory": "128Mi"}, "requests": {"cpu": "100m", "memory": "64Mi"}},
            "volumeMounts": [{"name": "data", "mountPath": "/data"}, {"name": "token", "mountPath": "/var/run/secrets", "readOnly": true}],
            "livenessProbe": {"httpGet": {"path": "/healthz", "port": 8080, "scheme": "HTTP"}, "timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3},
            "terminationMessagePath": "/dev/termination-log",
            "terminationMessagePolicy": "File",
            "imagePullPolicy": "IfNotPresent",
        })
    };
    let mut pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "app-6d4cf56db6-xxxxx", "namespace": "default", "uid": "6f1f6d0e-5e0c-4f43-8e25-2a7f7d7f0a10", "resourceVersion": "123456",
            "creationTimestamp": "2026-11-21T00:00:00Z", "labels": {"app": "app", "pod-template-hash": "6d4cf56db6"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "app-6d4cf56db6", "uid": "x", "controller": true, "blockOwnerDeletion": true}],
        },
        "spec": {
            "containers": [container("app"), container("side")],
            "volumes": [{"name": "data", "emptyDir": {}}, {"name": "token", "projected": {"defaultMode": 420, "sources": [{"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}}]}}],
            "restartPolicy": "Always", "terminationGracePeriodSeconds": 30, "dnsPolicy": "ClusterFirst", "serviceAccountName": "default", "nodeName": "node-1",
            "securityContext": {}, "schedulerName": "default-scheduler", "priority": 0, "enableServiceLinks": true, "preemptionPolicy": "PreemptLowerPriority",
            "tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}],
        },
        "status": {"phase": "Running", "podIP": "10.244.1.5", "podIPs": [{"ip": "10.244.1.5"}], "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-11-21T00:00:01Z"}]},
    });
    let ty = api::table().find_kind("", "v1", "Pod").expect("built in");
    api::canonicalize(ty, &mut pod);
    pod
}

fn benches(criterion: &mut Criterion) {
    criterion.bench_function("table/parse", |bencher| bencher.iter(|| black_box(api::table::parse_anew())));
    let pod = pod();
    let ty = api::table().find_kind("", "v1", "Pod").expect("built in");
    let bytes = api::protobuf::encode_object(&pod).expect("encodes");
    criterion.bench_function("pod/encode", |bencher| bencher.iter(|| api::protobuf::encode_object(black_box(&pod))));
    criterion.bench_function("pod/decode", |bencher| bencher.iter(|| api::protobuf::decode_object(black_box(&bytes))));
    criterion.bench_function("pod/check", |bencher| bencher.iter(|| api::check_fields(ty, black_box(&pod))));
    criterion.bench_function("pod/canonicalize", |bencher| {
        bencher.iter_batched(
            || pod.clone(),
            |mut pod| api::canonicalize(ty, &mut pod),
            criterion::BatchSize::SmallInput,
        );
    });
    let server = api::openapi::OpenApi::new(api::table().resources().to_vec(), Vec::new());
    let mut group = criterion.benchmark_group("openapi");
    group.sample_size(10);
    group.bench_function("core/v1", |bencher| bencher.iter(|| server.v3_json("api/v1")));
    group.bench_function("index", |bencher| bencher.iter(|| server.v3_index()));
}

criterion_group!(codec, benches);
criterion_main!(codec);
