//! Pods.

use serde_json::Value;

use super::pod_spec;
use super::writer::{Writer, or, rfc1123};
use crate::codec::{at, int, list, text};

pub fn describe(w: &mut Writer, pod: &Value) {
    w.field("Name", text(pod, &["metadata", "name"]));
    w.field("Namespace", text(pod, &["metadata", "namespace"]));
    if let Some(priority) = int(pod, &["spec", "priority"]) {
        w.field("Priority", priority);
    }
    for (title, field) in [
        ("Priority Class Name", "priorityClassName"),
        ("Runtime Class Name", "runtimeClassName"),
        ("Service Account", "serviceAccountName"),
    ] {
        let value = text(pod, &["spec", field]);
        if !value.is_empty() {
            w.field(title, value);
        }
    }
    match text(pod, &["spec", "nodeName"]) {
        "" => w.field("Node", "<none>"),
        node => w.field("Node", format!("{node}/{}", text(pod, &["status", "hostIP"]))),
    }
    if at(pod, &["status", "startTime"]).is_some() {
        w.field("Start Time", rfc1123(pod, &["status", "startTime"]));
    }
    w.metadata(pod);
    let phase = text(pod, &["status", "phase"]);
    if at(pod, &["metadata", "deletionTimestamp"]).is_some() && !matches!(phase, "Failed" | "Succeeded") {
        w.field("Status", format!("Terminating (lasts {})", w.since(pod, &["metadata", "deletionTimestamp"])));
        let grace = int(pod, &["metadata", "deletionGracePeriodSeconds"]).unwrap_or(0);
        w.field("Termination Grace Period", format!("{grace}s"));
    } else {
        w.field("Status", phase);
    }
    for (title, field) in [("Reason", "reason"), ("Message", "message")] {
        let value = text(pod, &["status", field]);
        if !value.is_empty() {
            w.field(title, value);
        }
    }
    if let Some(profile) = at(pod, &["spec", "securityContext", "seccompProfile"]) {
        w.field("SeccompProfile", text(profile, &["type"]));
        if profile["type"] == "Localhost" {
            w.field("LocalhostProfile", text(profile, &["localhostProfile"]));
        }
    }
    w.field("IP", text(pod, &["status", "podIP"]));
    let ips = list(pod, &["status", "podIPs"]);
    if ips.is_empty() {
        w.field("IPs", "<none>");
    } else {
        w.line(0, "IPs:");
        ips.iter().for_each(|ip| w.line(1, &format!("IP:\t{}", text(ip, &["ip"]))));
    }
    w.controlled_by(pod);
    let nominated = text(pod, &["status", "nominatedNodeName"]);
    if !nominated.is_empty() {
        w.field("NominatedNodeName", nominated);
    }
    if let Some(resources) = at(pod, &["spec", "resources"]) {
        w.line(0, "Resources:");
        pod_spec::resources(w, resources, 1);
    }
    let statuses = |field| list(pod, &["status", field]);
    let containers = |field| list(pod, &["spec", field]);
    if !containers("initContainers").is_empty() {
        pod_spec::containers(
            w,
            "Init Containers",
            containers("initContainers"),
            statuses("initContainerStatuses"),
            Some(pod),
            "",
        );
    }
    pod_spec::containers(w, "Containers", containers("containers"), statuses("containerStatuses"), Some(pod), "");
    if !containers("ephemeralContainers").is_empty() {
        pod_spec::containers(
            w,
            "Ephemeral Containers",
            containers("ephemeralContainers"),
            statuses("ephemeralContainerStatuses"),
            Some(pod),
            "",
        );
    }
    let conditions = list(pod, &["status", "conditions"]);
    let gates = list(pod, &["spec", "readinessGates"]);
    if !gates.is_empty() {
        w.line(0, "Readiness Gates:\n  Type\tStatus");
        for gate in gates {
            let kind = text(gate, &["conditionType"]);
            let status =
                conditions.iter().find(|c| text(c, &["type"]) == kind).map_or("<none>", |c| text(c, &["status"]));
            w.line(1, &format!("{kind} \t{status} "));
        }
    }
    if !conditions.is_empty() {
        w.line(0, "Conditions:\n  Type\tStatus");
        for condition in conditions {
            w.line(1, &format!("{} \t{} ", text(condition, &["type"]), text(condition, &["status"])));
        }
    }
    pod_spec::volumes(w, list(pod, &["spec", "volumes"]), "");
    w.field("QoS Class", or(text(pod, &["status", "qosClass"]), "BestEffort"));
    w.labels("Node-Selectors", pod, &["spec", "nodeSelector"]);
    pod_spec::tolerations(w, "Tolerations", list(pod, &["spec", "tolerations"]));
    pod_spec::spread_constraints(w, list(pod, &["spec", "topologySpreadConstraints"]), "");
}
