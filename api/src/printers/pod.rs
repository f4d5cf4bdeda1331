//! Pods and pod templates.
//!
//! A pod's `Status` cell is not its phase: it is the most telling reason found in its containers,
//! computed in upstream's order, init containers first.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::{self, at, flag, int, list, text};
use super::{AGE, Column, NAME, duration};

pub(super) const COLUMNS: &[Column] = &[
    NAME,
    Column::string("Ready").about("The aggregate readiness state of this pod for accepting traffic."),
    Column::string("Status").about("The aggregate status of the containers in this pod."),
    Column::string("Restarts").about("The number of times the containers in this pod have been restarted and when the last container in this pod has restarted."),
    AGE,
    Column::string("IP").of("io.k8s.api.core.v1.PodStatus", "podIP").wide(),
    Column::string("Node").of("io.k8s.api.core.v1.PodSpec", "nodeName").wide(),
    Column::string("Nominated Node").of("io.k8s.api.core.v1.PodStatus", "nominatedNodeName").wide(),
    Column::string("Readiness Gates").of("io.k8s.api.core.v1.PodSpec", "readinessGates").wide(),
];
pub(super) const TEMPLATE_COLUMNS: &[Column] = &[
    NAME,
    Column::string("Containers").about("Names of each container in the template."),
    Column::string("Images").about("Images referenced by each container in the template."),
    Column::string("Pod Labels").about("The labels for the pod template."),
];
/// A finished pod's row says so, so that clients may hide it.
pub(super) fn conditions(pod: &Value) -> Vec<Value> {
    let (reason, message) = match text(pod, &["status", "phase"]) {
        "Succeeded" => ("Succeeded", "The pod has completed successfully."),
        "Failed" => ("Failed", "The pod failed."),
        _ => return Vec::new(),
    };
    vec![json!({"type": "Completed", "status": "True", "reason": reason, "message": message})]
}

pub(super) fn row(pod: &Value, now: Timestamp) -> Vec<Value> {
    let summary = summarize(pod);
    let restarts = match summary.last_restart {
        Some(last) if summary.restarts != 0 => {
            format!("{} ({} ago)", summary.restarts, duration::human(duration::between(last, now)))
        }
        _ => summary.restarts.to_string(),
    };
    let ip = list(pod, &["status", "podIPs"]).first().map_or("", |ip| text(ip, &["ip"]));
    vec![
        json!(cells::name(pod)),
        json!(format!("{}/{}", summary.ready, summary.total)),
        json!(summary.reason),
        json!(restarts),
        cells::age(pod, now),
        json!(cells::or(ip, "<none>")),
        json!(cells::or(text(pod, &["spec", "nodeName"]), "<none>")),
        json!(cells::or(text(pod, &["status", "nominatedNodeName"]), "<none>")),
        json!(readiness_gates(pod)),
    ]
}

pub(super) fn template_row(template: &Value, _now: Timestamp) -> Vec<Value> {
    let (names, images) = cells::containers(list(template, &["template", "spec", "containers"]));
    vec![
        json!(cells::name(template)),
        json!(names),
        json!(images),
        json!(cells::labels(template, &["template", "metadata", "labels"])),
    ]
}

fn readiness_gates(pod: &Value) -> String {
    let gates = list(pod, &["spec", "readinessGates"]);
    if gates.is_empty() {
        return "<none>".into();
    }
    let ready = gates.iter().filter(|gate| condition_is_true(pod, text(gate, &["conditionType"]))).count();
    format!("{ready}/{}", gates.len())
}

fn condition_is_true(pod: &Value, r#type: &str) -> bool {
    cells::condition(pod, &["status", "conditions"], r#type).is_some_and(|c| text(c, &["status"]) == "True")
}

/// What the first columns of a pod's row show.
#[derive(Debug, PartialEq, Eq)]
pub struct Summary {
    /// Containers that are ready, restartable init containers included.
    pub ready: usize,
    /// Containers that could be.
    pub total: usize,
    /// The `Status` cell.
    pub reason: String,
    /// Restarts of the containers that matter at this stage.
    pub restarts: i64,
    /// When the last of those restarted.
    pub last_restart: Option<Timestamp>,
}

/// Restart counts and the latest end of an earlier run, summed over containers.
#[derive(Default, Clone, Copy)]
struct Restarts {
    count: i64,
    last: Option<Timestamp>,
}

impl Restarts {
    fn add(&mut self, status: &Value) {
        self.count += int(status, &["restartCount"]);
        self.last = self.last.max(cells::timestamp(status, &["lastState", "terminated", "finishedAt"]));
    }
}

/// Reads a pod's readiness, status and restarts out of its container statuses.
pub fn summarize(pod: &Value) -> Summary {
    let init_containers = list(pod, &["spec", "initContainers"]);
    let restartable = |name: &str| {
        init_containers.iter().any(|c| text(c, &["name"]) == name && text(c, &["restartPolicy"]) == "Always")
    };
    let sidecars = init_containers.iter().filter(|c| text(c, &["restartPolicy"]) == "Always").count();
    let total = list(pod, &["spec", "containers"]).len() + sidecars;

    let phase = text(pod, &["status", "phase"]);
    let pod_reason = text(pod, &["status", "reason"]);
    let mut reason = cells::or(pod_reason, phase).to_owned();
    let gated = list(pod, &["status", "conditions"])
        .iter()
        .any(|c| text(c, &["type"]) == "PodScheduled" && text(c, &["reason"]) == "SchedulingGated");
    if gated {
        reason = "SchedulingGated".into();
    }

    let mut ready = 0;
    let mut restarts = Restarts::default();
    let mut sidecar_restarts = Restarts::default();
    let mut initializing = false;
    for (index, status) in list(pod, &["status", "initContainerStatuses"]).iter().enumerate() {
        let sidecar = restartable(text(status, &["name"]));
        restarts.add(status);
        if sidecar {
            sidecar_restarts.add(status);
        }
        let terminated = at(status, &["state", "terminated"]);
        if terminated.is_some_and(|t| int(t, &["exitCode"]) == 0) {
            continue;
        }
        if sidecar && flag(status, &["started"]) {
            ready += usize::from(flag(status, &["ready"]));
            continue;
        }
        let waiting = text(status, &["state", "waiting", "reason"]);
        reason = match terminated {
            Some(terminated) => format!("Init:{}", exit_reason(terminated)),
            None if !waiting.is_empty() && waiting != "PodInitializing" => {
                format!("Init:{waiting}")
            }
            None => format!("Init:{index}/{}", init_containers.len()),
        };
        initializing = true;
        break;
    }

    if !initializing || condition_is_true(pod, "Initialized") {
        restarts = sidecar_restarts;
        let mut running = false;
        let mut error = String::new();
        for status in list(pod, &["status", "containerStatuses"]).iter().rev() {
            restarts.add(status);
            let waiting = text(status, &["state", "waiting", "reason"]);
            if !waiting.is_empty() {
                reason = waiting.into();
            } else if let Some(terminated) = at(status, &["state", "terminated"]) {
                reason = exit_reason(terminated);
                if int(terminated, &["exitCode"]) != 0 {
                    error.clone_from(&reason);
                }
            } else if flag(status, &["ready"]) && at(status, &["state", "running"]).is_some() {
                running = true;
                ready += 1;
            }
        }
        // "Completed" is what the first container says; the pod may still have others at work.
        if reason == "Completed" {
            if running && condition_is_true(pod, "Ready") {
                reason = "Running".into();
            } else if !error.is_empty() {
                reason = error;
            } else if running {
                reason = "NotReady".into();
            }
        }
    }

    if cells::deleting(pod) {
        if pod_reason == "NodeLost" {
            reason = "Unknown".into();
        } else if !matches!(phase, "Failed" | "Succeeded") {
            reason = "Terminating".into();
        }
    }
    Summary { ready, total, reason, restarts: restarts.count, last_restart: restarts.last }
}

/// Why a container ended: its reason, else the signal, else the exit code.
fn exit_reason(terminated: &Value) -> String {
    let reason = text(terminated, &["reason"]);
    if !reason.is_empty() {
        return reason.into();
    }
    match int(terminated, &["signal"]) {
        0 => format!("ExitCode:{}", int(terminated, &["exitCode"])),
        signal => format!("Signal:{signal}"),
    }
}
