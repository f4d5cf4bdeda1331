//! What the kubelet and others may report of a pod.

use apimachinery::field::{self, ErrorList, Path};
use serde_json::Value;

use super::super::checks::{immutable_text, legacy_ip, messages, name_is_subdomain, qualified_name, sloppy_ip};
use super::super::object_meta;
use super::status_claims;
use crate::read::Read;

const LISTS: [&str; 3] = ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"];

/// `ValidatePodStatusUpdate`.
pub(in super::super) fn update(new: &Value, old: &Value, errors: &mut ErrorList) {
    object_meta::update(new, old, errors);
    super::update::annotations(new, old, errors);
    let path = Path::new("status");
    let (status, before) = (&new["status"], &old["status"]);
    for (i, condition) in status.list("conditions").iter().enumerate() {
        let path = path.child("conditions").index(i);
        if condition.num("observedGeneration") < 0 {
            let value = condition.num("observedGeneration");
            errors.push(field::invalid(&path.child("observedGeneration"), value, "must be a non-negative integer"));
        }
        let kind = condition.text("type");
        if !matches!(kind, "PodScheduled" | "Ready" | "Initialized") {
            qualified_name(kind, &path.child("Type"), errors);
        }
    }
    if new["spec"].text("nodeName") != old["spec"].text("nodeName") {
        errors.push(field::forbidden(&path.child("nodeName"), "may not be changed directly"));
    }
    let nominated = status.text("nominatedNodeName");
    if nominated != before.text("nominatedNodeName") && !nominated.is_empty() {
        messages(name_is_subdomain(nominated, false), nominated, &path.child("nominatedNodeName"), errors);
        if !old["spec"].text("nodeName").is_empty() {
            let message = "may not be set on pods that are already bound to a node";
            errors.push(field::forbidden(&path.child("nominatedNodeName"), message));
        }
    }
    if status.num("observedGeneration") < 0 {
        let value = status.num("observedGeneration");
        errors.push(field::invalid(&path.child("observedGeneration"), value, "must be a non-negative integer"));
    }
    immutable_text(&status["qosClass"], &before["qosClass"], &path.child("qosClass"), errors);
    for name in LISTS {
        transitions(status, before, name, &old["spec"], &path.child(name), errors);
    }
    status_claims::resource_claims(new, &path.child("resourceClaimStatuses"), errors);
    status_claims::extended_resources(new, &path.child("extendedResourceClaimStatus"), errors);
    addresses(status, before, "podIPs", errors);
    addresses(status, before, "hostIPs", errors);
    for list in LISTS {
        status_claims::users(new, list, &path.child(list), errors);
    }
    for (list, containers) in [("containerStatuses", "containers"), ("initContainerStatuses", "initContainers")] {
        status_claims::allocated(new, list, containers, &path.child(list), errors);
    }
    for (i, container) in status.list(LISTS[2]).iter().enumerate() {
        if !container.list("allocatedResourcesStatus").is_empty() {
            let path = path.child(LISTS[2]).index(i).child("allocatedResourcesStatus");
            errors.push(field::forbidden(&path, "must not be specified in container status"));
        }
    }
}

/// A container that ended for good must not come back.
fn transitions(new: &Value, old: &Value, list: &'static str, spec: &Value, path: &Path, errors: &mut ErrorList) {
    let containers = match list {
        "containerStatuses" => "containers",
        "initContainerStatuses" => "initContainers",
        _ => "",
    };
    let everything_restarts = ["containers", "initContainers"].iter().any(|l| {
        let rules = |c: &Value| c.list("restartPolicyRules").iter().any(|r| r.text("action") == "RestartAllContainers");
        spec.list(l).iter().any(rules)
    });
    if everything_restarts && !containers.is_empty() {
        return;
    }
    for (i, status) in old.list(list).iter().enumerate() {
        let Some(ended) = status["state"].set("terminated") else { continue };
        let name = status.text("name");
        let Some(now) = new.list(list).iter().find(|s| s.text("name") == name) else { continue };
        if now["state"].set("terminated").is_some() {
            continue;
        }
        let container = spec.list(containers).iter().find(|c| c.text("name") == name);
        if !container.is_some_and(|c| may_restart(c, spec, ended.num("exitCode"))) {
            let message = "may not be transitioned to non-terminated state";
            errors.push(field::forbidden(&path.index(i).child("state"), message));
        }
    }
}

/// Whether a container is run again after it ended with this code.
fn may_restart(container: &Value, spec: &Value, code: i64) -> bool {
    for rule in container.list("restartPolicyRules").iter().filter(|r| r.text("action") == "Restart") {
        let codes = &rule["exitCodes"];
        let listed = codes.list("values").iter().any(|v| v.as_i64() == Some(code));
        match codes.text("operator") {
            "In" if listed => return true,
            "NotIn" if !listed => return true,
            _ => {}
        }
    }
    let own = container.text("restartPolicy");
    match if own.is_empty() { spec.text("restartPolicy") } else { own } {
        "Always" => true,
        "OnFailure" => code != 0,
        _ => false,
    }
}

fn addresses(new: &Value, old: &Value, list: &'static str, errors: &mut ErrorList) {
    let path = Path::new("status").child(list);
    let items = new.list(list);
    if list == "hostIPs" && !items.is_empty() && new.text("hostIP") != items[0].text("ip") {
        errors.push(field::invalid(&path.index(0).child("ip"), items[0].text("ip"), "must be equal to `hostIP`"));
    }
    let known: Vec<&str> = old.list(list).iter().map(|i| i.text("ip")).collect();
    for (i, item) in items.iter().enumerate() {
        legacy_ip(item.text("ip"), &known, &path.index(i), errors);
    }
    if items.len() > 1 {
        if let Some((i, item)) = items.iter().enumerate().find(|(_, item)| sloppy_ip(item.text("ip")).is_none()) {
            let why = format!("failed to check for dual stack with error:invalid IP[{i}]: {}", item.text("ip"));
            errors.push(field::internal(&path, why));
        }
        let families: Vec<bool> = items.iter().filter_map(|i| Some(sloppy_ip(i.text("ip"))?.is_ipv4())).collect();
        let dual = families.contains(&true) && families.contains(&false);
        if !dual || items.len() > 2 {
            // Go shows the internal form of the list.
            let shown: Vec<String> = items.iter().map(|i| format!("{{\"IP\":{}}}", i["ip"])).collect();
            let shown = field::BadValue::Raw(format!("[{}]", shown.join(",")));
            errors.push(field::invalid(&path, shown, "may specify no more than one IP for each IP family"));
        }
    }
}
