//! The Node object's status from facts. Pure.

use jiff::Timestamp;
use proto::cri;
use serde_json::{Map, Value, json};

use super::facts::{Machine, Usage};

/// Images listed in the status, at most.
const MAX_IMAGES: usize = 50;
/// Names listed per image, at most.
const MAX_NAMES: usize = 5;

/// What is kept from pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reserved {
    /// Milli-CPUs.
    pub cpu: i64,
    /// Bytes, the eviction threshold included.
    pub memory: i64,
    /// Bytes, the eviction threshold included.
    pub storage: i64,
}

/// When the node is under pressure: upstream's default hard thresholds.
#[derive(Clone, Debug, PartialEq)]
pub struct Thresholds {
    /// Bytes of memory.
    pub memory_available: i64,
    /// Fraction of the disk.
    pub disk_available: f64,
    /// Fraction of inodes.
    pub inodes_free: f64,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self { memory_available: 100 << 20, disk_available: 0.10, inodes_free: 0.05 }
    }
}

/// What the runtime says of itself.
#[derive(Clone, Debug, Default)]
pub struct RuntimeFacts {
    /// `containerd://1.6.20`; kept from the last answer.
    pub version: String,
    /// The last answer, or why there is none.
    pub status: Option<Result<cri::StatusResponse, String>>,
    pub images: Vec<cri::Image>,
    /// When it last answered.
    pub answered: Option<std::time::Instant>,
}

/// Everything a status is made from.
#[derive(Debug)]
pub struct Inputs<'a> {
    pub machine: &'a Machine,
    pub usage: Usage,
    pub runtime: &'a RuntimeFacts,
    pub addresses: &'a [String],
    pub hostname: &'a str,
    pub port: u16,
    pub max_pods: i64,
    pub reserved: &'a Reserved,
    pub thresholds: &'a Thresholds,
    pub version: &'a str,
    pub now: Timestamp,
}

/// The status; transition times are carried over from `old`.
pub fn build(inputs: &Inputs<'_>, old: &Value) -> Value {
    let mut addresses: Vec<Value> =
        inputs.addresses.iter().map(|ip| json!({"type": "InternalIP", "address": ip})).collect();
    addresses.push(json!({"type": "Hostname", "address": inputs.hostname}));
    let capacity = capacity(inputs);
    let mut status = json!({
        "addresses": addresses,
        "allocatable": allocatable(inputs, &capacity),
        "capacity": capacity,
        "conditions": conditions(inputs, old),
        "daemonEndpoints": {"kubeletEndpoint": {"Port": inputs.port}},
        "images": images(&inputs.runtime.images),
        "nodeInfo": {
            "architecture": inputs.machine.architecture,
            "bootID": inputs.machine.boot_id,
            "containerRuntimeVersion": inputs.runtime.version,
            "kernelVersion": inputs.machine.kernel_version,
            "kubeProxyVersion": "",
            "kubeletVersion": inputs.version,
            "machineID": inputs.machine.machine_id,
            "operatingSystem": "linux",
            "osImage": inputs.machine.os_image,
            "systemUUID": inputs.machine.system_uuid,
        },
    });
    if let Some(Ok(runtime)) = &inputs.runtime.status {
        let handlers: Vec<Value> = runtime.runtime_handlers.iter().map(handler).collect();
        if !handlers.is_empty() {
            status["runtimeHandlers"] = Value::Array(handlers);
        }
        if let Some(features) = &runtime.features {
            status["features"] = json!({"supplementalGroupsPolicy": features.supplemental_groups_policy});
        }
    }
    status
}

fn handler(handler: &cri::RuntimeHandler) -> Value {
    let features = handler.features.unwrap_or_default();
    json!({
        "name": handler.name,
        "features": {
            "recursiveReadOnlyMounts": features.recursive_read_only_mounts,
            "userNamespaces": features.user_namespaces,
        },
    })
}

fn capacity(inputs: &Inputs<'_>) -> Value {
    let mut out = Map::from_iter([
        ("cpu".to_owned(), json!(inputs.machine.cpus.to_string())),
        ("memory".to_owned(), json!(format!("{}Ki", inputs.machine.memory / 1024))),
        ("pods".to_owned(), json!(inputs.max_pods.to_string())),
        ("ephemeral-storage".to_owned(), json!(format!("{}Ki", inputs.usage.disk_capacity / 1024))),
    ]);
    for (size, bytes) in &inputs.machine.huge_pages {
        out.insert(format!("hugepages-{size}"), json!(whole(*bytes)));
    }
    Value::Object(out)
}

fn whole(bytes: i64) -> String {
    match bytes {
        0 => "0".into(),
        bytes if bytes % (1 << 30) == 0 => format!("{}Gi", bytes >> 30),
        bytes => format!("{}Mi", bytes >> 20),
    }
}

fn allocatable(inputs: &Inputs<'_>, capacity: &Value) -> Value {
    let mut out = capacity.clone();
    let cpu = inputs.machine.cpus * 1000 - inputs.reserved.cpu;
    out["cpu"] = json!(if cpu % 1000 == 0 { (cpu / 1000).to_string() } else { format!("{cpu}m") });
    let huge: i64 = inputs.machine.huge_pages.iter().map(|(_, bytes)| bytes).sum();
    let memory = (inputs.machine.memory - inputs.reserved.memory - huge).max(0);
    out["memory"] = json!(format!("{}Ki", memory / 1024));
    // Upstream prints the remainder of the disk in bytes.
    out["ephemeral-storage"] = json!((inputs.usage.disk_capacity - inputs.reserved.storage).max(0).to_string());
    out
}

fn images(images: &[cri::Image]) -> Vec<Value> {
    let mut sorted: Vec<&cri::Image> = images.iter().collect();
    sorted.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.id.cmp(&b.id)));
    let named = sorted.into_iter().filter_map(|image| {
        let names: Vec<&String> = image.repo_digests.iter().chain(&image.repo_tags).take(MAX_NAMES).collect();
        (!names.is_empty()).then(|| json!({"names": names, "sizeBytes": image.size}))
    });
    named.take(MAX_IMAGES).collect()
}

/// Why the node is not ready; empty when it is.
pub fn runtime_errors(runtime: &RuntimeFacts) -> Vec<String> {
    let status = match &runtime.status {
        None => return vec!["container runtime status check may not have completed yet".into()],
        Some(Err(_)) => return vec!["container runtime is down".into()],
        Some(Ok(status)) => status,
    };
    let conditions = status.status.clone().unwrap_or_default().conditions;
    let mut out = Vec::new();
    for (kind, what) in
        [("RuntimeReady", "container runtime not ready"), ("NetworkReady", "container runtime network not ready")]
    {
        match conditions.iter().find(|c| c.r#type == kind) {
            Some(condition) if condition.status => {}
            Some(c) => out.push(format!("{what}: {kind}=false reason:{} message:{}", c.reason, c.message)),
            None => out.push(format!("{what}: condition {kind} is missing")),
        }
    }
    out
}

fn conditions(inputs: &Inputs<'_>, old: &Value) -> Vec<Value> {
    let usage = inputs.usage;
    let limits = inputs.thresholds;
    let below = |available: i64, total: i64, share: f64| total > 0 && (available as f64) < total as f64 * share;
    let memory = usage.memory_available < limits.memory_available;
    let disk = below(usage.disk_available, usage.disk_capacity, limits.disk_available)
        || below(usage.inodes_free, usage.inodes, limits.inodes_free);
    let pids = usage.max_pids > 0 && usage.pids * 100 >= usage.max_pids * 95;
    let pick = |bad: bool, yes: (&'static str, &'static str), no: (&'static str, &'static str)| {
        let (reason, message) = if bad { yes } else { no };
        (bad, reason, message.to_owned())
    };
    let errors = runtime_errors(inputs.runtime);
    let ready = match errors.len() {
        0 => (true, "KubeletReady", "kubelet is posting ready status".to_owned()),
        1 => (false, "KubeletNotReady", errors[0].clone()),
        _ => (false, "KubeletNotReady", format!("[{}]", errors.join(", "))),
    };
    let now = inputs.now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    // Ready comes last: old components look for it there.
    let all = [
        (
            "MemoryPressure",
            pick(
                memory,
                ("KubeletHasInsufficientMemory", "kubelet has insufficient memory available"),
                ("KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
            ),
        ),
        (
            "DiskPressure",
            pick(
                disk,
                ("KubeletHasDiskPressure", "kubelet has disk pressure"),
                ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
            ),
        ),
        (
            "PIDPressure",
            pick(
                pids,
                ("KubeletHasInsufficientPID", "kubelet has insufficient PID available"),
                ("KubeletHasSufficientPID", "kubelet has sufficient PID available"),
            ),
        ),
        ("Ready", ready),
    ];
    let mut out: Vec<Value> = all
        .into_iter()
        .map(|(kind, (yes, reason, message))| {
            let word = if yes { "True" } else { "False" };
            let before = old["conditions"].as_array().into_iter().flatten();
            let mut same = before.filter(|c| c["type"] == kind && c["status"] == word);
            let since = same.next().map_or(json!(now), |c| c["lastTransitionTime"].clone());
            json!({
                "type": kind, "status": word, "reason": reason, "message": message,
                "lastHeartbeatTime": now, "lastTransitionTime": since,
            })
        })
        .collect();
    let own = ["MemoryPressure", "DiskPressure", "PIDPressure", "Ready"];
    let foreign = old["conditions"].as_array().into_iter().flatten().filter(|c| !own.iter().any(|k| c["type"] == *k));
    let mut foreign: Vec<Value> = foreign.cloned().collect();
    foreign.append(&mut out);
    foreign
}

/// Whether two statuses say the same, heartbeat times apart.
pub fn same(a: &Value, b: &Value) -> bool {
    let strip = |status: &Value| {
        let mut status = status.clone();
        for condition in status["conditions"].as_array_mut().into_iter().flatten() {
            condition.as_object_mut().map(|c| c.remove("lastHeartbeatTime"));
        }
        status
    };
    strip(a) == strip(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready() -> RuntimeFacts {
        let condition = |kind: &str, status| cri::RuntimeCondition {
            r#type: kind.into(),
            status,
            reason: "NetworkPluginNotReady".into(),
            message: "cni plugin not initialized".into(),
        };
        let conditions = vec![condition("RuntimeReady", true), condition("NetworkReady", true)];
        let status = cri::StatusResponse { status: Some(cri::RuntimeStatus { conditions }), ..Default::default() };
        RuntimeFacts { version: "containerd://1".into(), status: Some(Ok(status)), images: Vec::new(), answered: None }
    }

    fn status(runtime: &RuntimeFacts, usage: Usage, old: &Value) -> Value {
        let machine = Machine { cpus: 4, memory: 8 << 30, huge_pages: vec![("2Mi".into(), 0)], ..Default::default() };
        let reserved = Reserved { cpu: 500, memory: 100 << 20, storage: 10 << 20 };
        let inputs = Inputs {
            machine: &machine,
            usage,
            runtime,
            addresses: &["1.2.3.4".into()],
            hostname: "n",
            port: 10250,
            max_pods: 110,
            reserved: &reserved,
            thresholds: &Thresholds::default(),
            version: "v1.36.2",
            now: Timestamp::from_second(1_800_000_000).unwrap(),
        };
        build(&inputs, old)
    }

    const FINE: Usage = Usage {
        memory_available: 1 << 30,
        disk_capacity: 100 << 20,
        disk_available: 50 << 20,
        inodes: 100,
        inodes_free: 50,
        max_pids: 1000,
        pids: 10,
    };

    #[test]
    fn amounts() {
        let status = status(&ready(), FINE, &json!({}));
        assert_eq!(
            status["capacity"],
            json!({"cpu": "4", "memory": "8388608Ki", "pods": "110", "ephemeral-storage": "102400Ki", "hugepages-2Mi": "0"})
        );
        assert_eq!(status["allocatable"]["cpu"], "3500m");
        assert_eq!(status["allocatable"]["memory"], "8286208Ki");
        assert_eq!(status["allocatable"]["ephemeral-storage"], (90 << 20).to_string());
    }

    #[test]
    fn conditions_follow_the_facts() {
        let of = |status: &Value, kind: &str| {
            let list = status["conditions"].as_array().unwrap();
            let found = list.iter().find(|c| c["type"] == kind).unwrap();
            (found["status"].as_str().unwrap().to_owned(), found["message"].as_str().unwrap().to_owned())
        };
        let fine = status(&ready(), FINE, &json!({}));
        assert_eq!(of(&fine, "Ready"), ("True".into(), "kubelet is posting ready status".into()));
        assert_eq!(fine["conditions"][3]["type"], "Ready");
        let mut runtime = ready();
        if let Some(Ok(status)) = &mut runtime.status {
            status.status.as_mut().unwrap().conditions[1].status = false;
        }
        let message = "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:cni plugin not initialized";
        assert_eq!(of(&status(&runtime, FINE, &json!({})), "Ready"), ("False".into(), message.into()));
        runtime.status = Some(Err("gone".into()));
        assert_eq!(of(&status(&runtime, FINE, &json!({})), "Ready").1, "container runtime is down");
        let full = Usage { disk_available: 1 << 20, memory_available: 1, ..FINE };
        let pressed = status(&ready(), full, &fine);
        assert_eq!(of(&pressed, "DiskPressure").0, "True");
        assert_eq!(of(&pressed, "MemoryPressure").0, "True");
        assert_eq!(of(&pressed, "PIDPressure").0, "False");
    }

    #[test]
    fn transition_times_and_foreign_conditions_stay() {
        let old = json!({"conditions": [
            {"type": "NetworkUnavailable", "status": "False"},
            {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z", "lastHeartbeatTime": "x"}]});
        let new = status(&ready(), FINE, &old);
        assert_eq!(new["conditions"][0]["type"], "NetworkUnavailable");
        assert_eq!(new["conditions"][4]["lastTransitionTime"], "2026-01-01T00:00:00Z");
        let mut later = new.clone();
        later["conditions"][4]["lastHeartbeatTime"] = json!("later");
        assert!(same(&new, &later));
        later["conditions"][4]["status"] = json!("False");
        assert!(!same(&new, &later));
    }
}
