//! What the kubelet tells about itself: pods, configuration, metrics, statistics.

use std::fmt::Write;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use proto::cri;
use serde_json::{Value, json};

use super::{Server, refuse};
use crate::node::facts::Usage;
use crate::pod::PodExt;
use crate::runtime::labels;

const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The pods bound to the node, with the statuses the kubelet last made.
pub(super) async fn pods(State(server): State<Arc<Server>>) -> Json<Value> {
    let items: Vec<Value> = server
        .workers
        .pods()
        .into_iter()
        .map(|pod| {
            let mut pod = (*pod).clone();
            pod.status = server.statuses.get(pod.uid()).or(pod.status);
            let mut value = serde_json::to_value(&pod).unwrap_or_default();
            if let Some(fields) = value.as_object_mut() {
                // Items of a list do not repeat what kind they are.
                fields.remove("apiVersion");
                fields.remove("kind");
            }
            value
        })
        .collect();
    Json(json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}))
}

/// The pods that the runtime holds, whether or not anybody wants them.
pub(super) async fn running_pods(State(server): State<Arc<Server>>) -> Response {
    let containers = match server.cri.list_containers(None).await {
        Ok(containers) => containers,
        Err(error) => return refuse(StatusCode::INTERNAL_SERVER_ERROR, error.message),
    };
    let mut pods: std::collections::BTreeMap<String, Value> = Default::default();
    for container in containers.iter().filter(|c| c.state() == cri::ContainerState::ContainerRunning) {
        let label = |name: &str| container.labels.get(name).cloned().unwrap_or_default();
        let entry = pods.entry(label(labels::POD_UID)).or_insert_with(|| {
            json!({
                "metadata": {
                    "name": label(labels::POD_NAME), "namespace": label(labels::POD_NAMESPACE), "uid": label(labels::POD_UID),
                },
                "spec": {"containers": []},
                "status": {},
            })
        });
        let image = container.image.as_ref().map(|i| i.image.clone()).unwrap_or_default();
        if let Some(list) = entry["spec"]["containers"].as_array_mut() {
            list.push(json!({"name": label(labels::CONTAINER_NAME), "image": image, "resources": {}}));
        }
    }
    let items: Vec<Value> = pods.into_values().collect();
    Json(json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items})).into_response()
}

/// The configuration in effect, in the file's words.
pub(super) async fn configz(State(server): State<Arc<Server>>) -> Json<Value> {
    let file = &server.config.file;
    let seconds = component_base::duration::format;
    Json(json!({"kubeletconfig": {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": file.address,
        "port": file.port,
        "healthzPort": file.healthz_port,
        "healthzBindAddress": file.healthz_bind_address,
        "clusterDomain": file.cluster_domain,
        "clusterDNS": file.cluster_dns,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": file.cgroup_root,
        "cgroupsPerQOS": file.cgroups_per_qos,
        "cpuCFSQuota": file.cpu_cfs_quota,
        "containerLogMaxSize": file.container_log_max_size,
        "containerLogMaxFiles": file.container_log_max_files,
        "containerRuntimeEndpoint": file.container_runtime_endpoint,
        "maxPods": file.max_pods,
        "podPidsLimit": file.pod_pids_limit,
        "nodeStatusUpdateFrequency": seconds(file.node_status_update_frequency),
        "nodeLeaseDurationSeconds": file.node_lease_duration_seconds,
        "resolvConf": file.resolv_conf,
        "staticPodPath": file.static_pod_path,
        "registerNode": file.register_node,
        "seccompDefault": server.config.seccomp_default,
    }}))
}

/// The kubelet's own metrics.
pub(super) async fn metrics(State(server): State<Arc<Server>>) -> Response {
    let containers = server.cri.list_containers(None).await.unwrap_or_default();
    let states = [
        ("created", cri::ContainerState::ContainerCreated),
        ("exited", cri::ContainerState::ContainerExited),
        ("running", cri::ContainerState::ContainerRunning),
        ("unknown", cri::ContainerState::ContainerUnknown),
    ];
    let mut out = String::new();
    let mut metric = |name: &str, kind: &str, help: &str, samples: &[(String, f64)]| {
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in samples {
            let _ = writeln!(out, "{name}{labels} {value}");
        }
    };
    let node = format!("{{node={:?}}}", server.node_name);
    metric("kubelet_node_name", "gauge", "[ALPHA] The node's name. The count is always 1.", &[(node, 1.0)]);
    let by_state: Vec<(String, f64)> = states
        .iter()
        .map(|(word, state)| {
            let count = containers.iter().filter(|c| c.state() == *state).count();
            (format!("{{container_state=\"{word}\"}}"), count as f64)
        })
        .collect();
    metric("kubelet_running_containers", "gauge", "[ALPHA] Number of containers currently running", &by_state);
    let pods = server.workers.active_pods();
    let certificates: Vec<(String, f64)> = server
        .volumes
        .certificate_states(pods.iter().map(AsRef::as_ref))
        .into_iter()
        .map(|((signer, state), count)| (format!("{{signer_name={signer:?},state=\"{state}\"}}"), count as f64))
        .collect();
    if !certificates.is_empty() {
        let help = "[ALPHA] Gauge vector reporting the number of pod certificate projected volume sources, faceted by signer_name and state.";
        metric("kubelet_podcertificate_states", "gauge", help, &certificates);
    }
    let running = pods.len() as f64;
    metric(
        "kubelet_running_pods",
        "gauge",
        "[ALPHA] Number of pods that have a running pod sandbox",
        &[(String::new(), running)],
    );
    let desired = server.workers.pods().len() as f64;
    metric(
        "kubelet_desired_pods",
        "gauge",
        "[ALPHA] The number of pods the kubelet is being instructed to run.",
        &[(String::new(), desired)],
    );
    for (name, help, value) in process() {
        let kind = if name.ends_with("_total") { "counter" } else { "gauge" };
        metric(name, kind, help, &[(String::new(), value)]);
    }
    ([(header::CONTENT_TYPE, TEXT)], out).into_response()
}

/// What `/proc/self` says of this process.
fn process() -> Vec<(&'static str, &'static str, f64)> {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Fields after the command, which may contain spaces.
    let fields: Vec<f64> = stat
        .rsplit_once(')')
        .map(|(_, rest)| rest.split_whitespace().map(|f| f.parse().unwrap_or(0.0)).collect())
        .unwrap_or_default();
    let field = |index: usize| fields.get(index).copied().unwrap_or(0.0);
    let files = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    vec![
        (
            "process_cpu_seconds_total",
            "Total user and system CPU time spent in seconds.",
            (field(11) + field(12)) / 100.0,
        ),
        ("process_open_fds", "Number of open file descriptors.", files as f64),
        ("process_resident_memory_bytes", "Resident memory size in bytes.", field(21) * 4096.0),
        ("process_virtual_memory_bytes", "Virtual memory size in bytes.", field(20)),
    ]
}

struct Sample {
    namespace: String,
    pod: String,
    uid: String,
    container: String,
    cpu_nanos: u64,
    cpu_nano_cores: Option<u64>,
    memory: u64,
    timestamp: i64,
    disk: Option<(u64, u64)>,
}

async fn samples(server: &Server) -> Result<Vec<Sample>, crate::cri::Error> {
    let stats = server.cri.list_container_stats(None).await?;
    let value = |v: Option<cri::UInt64Value>| v.map(|v| v.value);
    Ok(stats
        .into_iter()
        .filter_map(|stats| {
            // Containers that have ended are listed with nothing in them.
            stats.cpu.as_ref().filter(|cpu| cpu.timestamp > 0)?;
            let attributes = stats.attributes?;
            let label = |name: &str| attributes.labels.get(name).cloned().unwrap_or_default();
            let cpu = stats.cpu.unwrap_or_default();
            let memory = stats.memory.unwrap_or_default();
            Some(Sample {
                namespace: label(labels::POD_NAMESPACE),
                pod: label(labels::POD_NAME),
                uid: label(labels::POD_UID),
                container: label(labels::CONTAINER_NAME),
                cpu_nanos: value(cpu.usage_core_nano_seconds).unwrap_or(0),
                cpu_nano_cores: value(cpu.usage_nano_cores),
                memory: value(memory.working_set_bytes).unwrap_or(0),
                timestamp: cpu.timestamp,
                disk: stats
                    .writable_layer
                    .map(|d| (value(d.used_bytes).unwrap_or(0), value(d.inodes_used).unwrap_or(0))),
            })
        })
        .collect())
}

/// CPU seconds of the whole machine since boot, from `/proc/stat`.
fn node_cpu_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = text.lines().next().unwrap_or_default();
    let fields: Vec<f64> = line.split_whitespace().skip(1).map(|f| f.parse().unwrap_or(0.0)).collect();
    // Idle (3) and waiting for I/O (4) are not use.
    let busy: f64 =
        fields.iter().enumerate().filter(|(index, _)| !matches!(index, 3 | 4) && *index < 8).map(|(_, v)| v).sum();
    busy / 100.0
}

/// `/metrics/resource`: what the metrics server scrapes.
pub(super) async fn resource_metrics(State(server): State<Arc<Server>>) -> Response {
    let (samples, failed) = match samples(&server).await {
        Ok(samples) => (samples, 0),
        Err(_) => (Vec::new(), 1),
    };
    let usage = Usage::read(&server.config.root_dir);
    let millis = |nanos: i64| nanos / 1_000_000;
    let now = server.clock.now().as_millisecond();
    let mut out = String::new();
    let mut family = |name: &str, kind: &str, help: &str, lines: Vec<String>| {
        let _ = writeln!(out, "# HELP {name} [STABLE] {help}\n# TYPE {name} {kind}");
        for line in lines {
            let _ = writeln!(out, "{name}{line}");
        }
    };
    let of = |s: &Sample| format!("{{container={:?},namespace={:?},pod={:?}}}", s.container, s.namespace, s.pod);
    let cpu =
        samples.iter().map(|s| format!("{} {} {}", of(s), s.cpu_nanos as f64 / 1e9, millis(s.timestamp))).collect();
    family(
        "container_cpu_usage_seconds_total",
        "counter",
        "Cumulative cpu time consumed by the container in core-seconds",
        cpu,
    );
    let memory = samples.iter().map(|s| format!("{} {} {}", of(s), s.memory, millis(s.timestamp))).collect();
    family("container_memory_working_set_bytes", "gauge", "Current working set of the container in bytes", memory);
    let mut pods: std::collections::BTreeMap<(&str, &str), (u64, u64, i64)> = Default::default();
    for sample in &samples {
        let entry = pods.entry((&sample.namespace, &sample.pod)).or_default();
        *entry = (entry.0 + sample.cpu_nanos, entry.1 + sample.memory, entry.2.max(sample.timestamp));
    }
    let pod = |n: &str, p: &str| format!("{{namespace={n:?},pod={p:?}}}");
    let cpu =
        pods.iter().map(|((n, p), (c, _, t))| format!("{} {} {}", pod(n, p), *c as f64 / 1e9, millis(*t))).collect();
    family("pod_cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed by the pod in core-seconds", cpu);
    let memory = pods.iter().map(|((n, p), (_, m, t))| format!("{} {m} {}", pod(n, p), millis(*t))).collect();
    family("pod_memory_working_set_bytes", "gauge", "Current working set of the pod in bytes", memory);
    family(
        "node_cpu_usage_seconds_total",
        "counter",
        "Cumulative cpu time consumed by the node in core-seconds",
        vec![format!(" {} {now}", node_cpu_seconds())],
    );
    family(
        "node_memory_working_set_bytes",
        "gauge",
        "Current working set of the node in bytes",
        vec![format!(" {} {now}", server.machine.memory - usage.memory_available)],
    );
    family(
        "resource_scrape_error",
        "gauge",
        "1 if there was an error while getting container metrics, 0 otherwise",
        vec![format!(" {failed}")],
    );
    ([(header::CONTENT_TYPE, TEXT)], out).into_response()
}

/// `/stats/summary`.
pub(super) async fn summary(State(server): State<Arc<Server>>) -> Response {
    let samples = match samples(&server).await {
        Ok(samples) => samples,
        Err(error) => return refuse(StatusCode::INTERNAL_SERVER_ERROR, error.message),
    };
    let now = server.clock.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let usage = Usage::read(&server.config.root_dir);
    let mut pods: std::collections::BTreeMap<&str, Value> = Default::default();
    for sample in &samples {
        let entry = pods.entry(&sample.uid).or_insert_with(|| {
            json!({
                "podRef": {"name": sample.pod, "namespace": sample.namespace, "uid": sample.uid},
                "containers": [],
                "cpu": {"time": now, "usageNanoCores": 0, "usageCoreNanoSeconds": 0},
                "memory": {"time": now, "workingSetBytes": 0},
            })
        });
        let mut container = json!({
            "name": sample.container,
            "cpu": {"time": now, "usageCoreNanoSeconds": sample.cpu_nanos},
            "memory": {"time": now, "workingSetBytes": sample.memory},
        });
        if let Some(rate) = sample.cpu_nano_cores {
            container["cpu"]["usageNanoCores"] = json!(rate);
        }
        if let Some((bytes, inodes)) = sample.disk {
            container["rootfs"] = json!({"time": now, "usedBytes": bytes, "inodesUsed": inodes});
        }
        let add = |value: &Value, more: u64| json!(value.as_u64().unwrap_or(0) + more);
        entry["cpu"]["usageNanoCores"] = add(&entry["cpu"]["usageNanoCores"], sample.cpu_nano_cores.unwrap_or(0));
        entry["cpu"]["usageCoreNanoSeconds"] = add(&entry["cpu"]["usageCoreNanoSeconds"], sample.cpu_nanos);
        entry["memory"]["workingSetBytes"] = add(&entry["memory"]["workingSetBytes"], sample.memory);
        if let Some(list) = entry["containers"].as_array_mut() {
            list.push(container);
        }
    }
    let pods: Vec<Value> = pods.into_values().collect();
    let body = json!({
        "node": {
            "nodeName": server.node_name,
            "cpu": {"time": now, "usageCoreNanoSeconds": (node_cpu_seconds() * 1e9) as u64},
            "memory": {
                "time": now,
                "availableBytes": usage.memory_available,
                "workingSetBytes": server.machine.memory - usage.memory_available,
            },
            "fs": {
                "time": now,
                "availableBytes": usage.disk_available,
                "capacityBytes": usage.disk_capacity,
                "usedBytes": usage.disk_capacity - usage.disk_available,
                "inodes": usage.inodes,
                "inodesFree": usage.inodes_free,
            },
            "rlimit": {"time": now, "maxpid": usage.max_pids, "curproc": usage.pids},
        },
        "pods": pods,
    });
    Json(body).into_response()
}
