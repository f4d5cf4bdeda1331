//! Deployments, ReplicaSets, DaemonSets, StatefulSets, Jobs, ReplicationControllers.

use serde_json::Value;

use super::writer::{Writer, int_or_string, or, rfc1123};
use super::{Related, pod_spec};
use crate::codec::{self, at, int, list, text};

fn number(object: &Value, path: &[&str]) -> i64 {
    int(object, path).unwrap_or(0)
}

fn selector(object: &Value) -> String {
    api::printers::cells::selector(at(object, &["spec", "selector"])).unwrap_or_else(|| "<error>".into())
}

fn template(w: &mut Writer, object: &Value) {
    pod_spec::template(w, at(object, &["spec", "template"]).unwrap_or(&Value::Null));
}

fn conditions(w: &mut Writer, object: &Value) {
    let conditions = list(object, &["status", "conditions"]);
    if conditions.is_empty() {
        return;
    }
    w.line(0, "Conditions:\n  Type\tStatus\tReason");
    w.line(1, "----\t------\t------");
    for c in conditions {
        w.line(1, &format!("{} \t{}\t{}", text(c, &["type"]), text(c, &["status"]), text(c, &["reason"])));
    }
}

fn pods_status(w: &mut Writer, related: &Related) {
    let Some(pods) = &related.pods else {
        w.field("Pods Status", "error in fetching pods: not authorized");
        return;
    };
    let count = |phase: &str| pods.iter().filter(|pod| text(pod, &["status", "phase"]) == phase).count();
    w.field(
        "Pods Status",
        format!(
            "{} Running / {} Waiting / {} Succeeded / {} Failed",
            count("Running"),
            count("Pending"),
            count("Succeeded"),
            count("Failed")
        ),
    );
}

pub fn deployment(w: &mut Writer, deployment: &Value, related: &Related) {
    w.field("Name", text(deployment, &["metadata", "name"]));
    w.field("Namespace", text(deployment, &["metadata", "namespace"]));
    w.field("CreationTimestamp", rfc1123(deployment, &["metadata", "creationTimestamp"]));
    w.metadata(deployment);
    w.field("Selector", selector(deployment));
    let status = |field| number(deployment, &["status", field]);
    w.field(
        "Replicas",
        format!(
            "{} desired | {} updated | {} total | {} available | {} unavailable",
            number(deployment, &["spec", "replicas"]),
            status("updatedReplicas"),
            status("replicas"),
            status("availableReplicas"),
            status("unavailableReplicas")
        ),
    );
    w.field("StrategyType", text(deployment, &["spec", "strategy", "type"]));
    w.field("MinReadySeconds", number(deployment, &["spec", "minReadySeconds"]));
    if let Some(rolling) = at(deployment, &["spec", "strategy", "rollingUpdate"]) {
        w.field(
            "RollingUpdateStrategy",
            format!(
                "{} max unavailable, {} max surge",
                or(&int_or_string(at(rolling, &["maxUnavailable"])), "<nil>"),
                or(&int_or_string(at(rolling, &["maxSurge"])), "<nil>")
            ),
        );
    }
    template(w, deployment);
    conditions(w, deployment);
    if !related.replica_sets.is_empty() {
        let (new, old) = split_replica_sets(deployment, &related.replica_sets);
        w.field("OldReplicaSets", replica_sets_text(&old));
        w.field("NewReplicaSet", replica_sets_text(&new));
    }
}

/// The ReplicaSet of the current template (the oldest, should there be several), and the others.
fn split_replica_sets<'a>(deployment: &Value, sets: &'a [Value]) -> (Vec<&'a Value>, Vec<&'a Value>) {
    let mut sorted: Vec<&Value> = sets.iter().collect();
    sorted.sort_by_key(|set| {
        (text(set, &["metadata", "creationTimestamp"]).to_owned(), text(set, &["metadata", "name"]).to_owned())
    });
    let plain = |template: Option<&Value>| {
        let mut template = template.cloned().unwrap_or_default();
        codec::remove(&mut template, &["metadata", "labels", "pod-template-hash"]);
        if template["metadata"]["creationTimestamp"].is_null() {
            codec::remove(&mut template, &["metadata", "creationTimestamp"]);
        }
        template
    };
    let wanted = plain(at(deployment, &["spec", "template"]));
    let new = sorted.iter().position(|set| plain(at(set, &["spec", "template"])) == wanted);
    let new = new.map(|index| sorted.remove(index));
    (new.into_iter().collect(), sorted)
}

fn replica_sets_text(sets: &[&Value]) -> String {
    let texts: Vec<String> = sets
        .iter()
        .map(|set| {
            format!(
                "{} ({}/{} replicas created)",
                text(set, &["metadata", "name"]),
                number(set, &["status", "replicas"]),
                number(set, &["spec", "replicas"])
            )
        })
        .collect();
    or(&texts.join(", "), "<none>").to_owned()
}

pub fn replica_set(w: &mut Writer, set: &Value, related: &Related) {
    w.field("Name", text(set, &["metadata", "name"]));
    w.field("Namespace", text(set, &["metadata", "namespace"]));
    w.field("Selector", api::printers::cells::selector_cell(at(set, &["spec", "selector"])));
    replicas(w, set, related);
}

pub fn replication_controller(w: &mut Writer, controller: &Value, related: &Related) {
    w.field("Name", text(controller, &["metadata", "name"]));
    w.field("Namespace", text(controller, &["metadata", "namespace"]));
    w.field("Selector", api::printers::cells::labels(controller, &["spec", "selector"]));
    replicas(w, controller, related);
}

fn replicas(w: &mut Writer, set: &Value, related: &Related) {
    w.metadata(set);
    w.controlled_by(set);
    w.field(
        "Replicas",
        format!("{} current / {} desired", number(set, &["status", "replicas"]), number(set, &["spec", "replicas"])),
    );
    pods_status(w, related);
    template(w, set);
    conditions(w, set);
}

pub fn daemon_set(w: &mut Writer, set: &Value, related: &Related) {
    w.field("Name", text(set, &["metadata", "name"]));
    w.field("Namespace", text(set, &["metadata", "namespace"]));
    w.field("Selector", selector(set));
    w.field("Node-Selector", api::printers::cells::labels(set, &["spec", "template", "spec", "nodeSelector"]));
    w.metadata(set);
    for (title, field) in [
        ("Desired Number of Nodes Scheduled", "desiredNumberScheduled"),
        ("Current Number of Nodes Scheduled", "currentNumberScheduled"),
        ("Number of Nodes Scheduled with Up-to-date Pods", "updatedNumberScheduled"),
        ("Number of Nodes Scheduled with Available Pods", "numberAvailable"),
        ("Number of Nodes Misscheduled", "numberMisscheduled"),
    ] {
        w.line(0, &format!("{title}: {}", number(set, &["status", field])));
    }
    pods_status(w, related);
    template(w, set);
}

pub fn stateful_set(w: &mut Writer, set: &Value, related: &Related) {
    w.field("Name", text(set, &["metadata", "name"]));
    w.field("Namespace", text(set, &["metadata", "namespace"]));
    w.field("CreationTimestamp", rfc1123(set, &["metadata", "creationTimestamp"]));
    w.field("Selector", selector(set));
    w.metadata(set);
    w.field(
        "Replicas",
        format!("{} desired | {} total", number(set, &["spec", "replicas"]), number(set, &["status", "replicas"])),
    );
    w.field("Update Strategy", text(set, &["spec", "updateStrategy", "type"]));
    if let Some(partition) = int(set, &["spec", "updateStrategy", "rollingUpdate", "partition"]) {
        w.line(1, &format!("Partition:\t{partition}"));
        let unavailable = at(set, &["spec", "updateStrategy", "rollingUpdate", "maxUnavailable"]);
        if unavailable.is_some() {
            w.line(1, &format!("MaxUnavailable:\t{}", int_or_string(unavailable)));
        }
    }
    pods_status(w, related);
    template(w, set);
    let claims = list(set, &["spec", "volumeClaimTemplates"]);
    if claims.is_empty() {
        w.field("Volume Claims", "<none>");
        return;
    }
    w.line(0, "Volume Claims:");
    for claim in claims {
        w.line(1, &format!("Name:\t{}", text(claim, &["metadata", "name"])));
        w.line(1, &format!("StorageClass:\t{}", text(claim, &["spec", "storageClassName"])));
        w.labels_indented("  ", "Labels", claim, &["metadata", "labels"]);
        w.labels_indented("  ", "Annotations", claim, &["metadata", "annotations"]);
        let capacity = int_or_string(at(claim, &["spec", "resources", "requests", "storage"]));
        w.line(1, &format!("Capacity:\t{}", or(&capacity, "<default>")));
        let modes: Vec<&str> = list(claim, &["spec", "accessModes"]).iter().filter_map(Value::as_str).collect();
        w.line(1, &format!("Access Modes:\t[{}]", modes.join(" ")));
    }
}

pub fn job(w: &mut Writer, job: &Value) {
    w.field("Name", text(job, &["metadata", "name"]));
    w.field("Namespace", text(job, &["metadata", "namespace"]));
    w.field("Selector", selector(job));
    w.metadata(job);
    w.controlled_by(job);
    let spec = |field| int(job, &["spec", field]);
    if let Some(parallelism) = spec("parallelism") {
        w.field("Parallelism", parallelism);
    }
    w.field("Completions", spec("completions").map_or_else(|| "<unset>".to_owned(), |n| n.to_string()));
    if at(job, &["spec", "completionMode"]).is_some() {
        w.field("Completion Mode", text(job, &["spec", "completionMode"]));
    }
    if let Some(suspend) = at(job, &["spec", "suspend"]).and_then(Value::as_bool) {
        w.field("Suspend", suspend);
    }
    if let Some(limit) = spec("backoffLimit") {
        w.field("Backoff Limit", limit);
    }
    if let Some(seconds) = spec("ttlSecondsAfterFinished") {
        w.field("TTL Seconds After Finished", seconds);
    }
    let time = |field| text(job, &["status", field]).parse::<jiff::Timestamp>().ok();
    if time("startTime").is_some() {
        w.field("Start Time", rfc1123(job, &["status", "startTime"]));
    }
    if time("completionTime").is_some() {
        w.field("Completed At", rfc1123(job, &["status", "completionTime"]));
    }
    if let (Some(start), Some(end)) = (time("startTime"), time("completionTime")) {
        w.field("Duration", api::printers::duration::human(api::printers::duration::between(start, end)));
    }
    if let Some(seconds) = spec("activeDeadlineSeconds") {
        w.field("Active Deadline Seconds", format!("{seconds}s"));
    }
    let status = |field| number(job, &["status", field]);
    let ready = int(job, &["status", "ready"]).map_or_else(String::new, |ready| format!(" ({ready} Ready)"));
    w.field(
        "Pods Statuses",
        format!("{} Active{ready} / {} Succeeded / {} Failed", status("active"), status("succeeded"), status("failed")),
    );
    if job["spec"]["completionMode"] == "Indexed" {
        w.field("Completed Indexes", or(text(job, &["status", "completedIndexes"]), "<none>"));
    }
    template(w, job);
}
