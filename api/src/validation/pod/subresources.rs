//! What `ephemeralcontainers` and `resize` may change in a pod.

use apimachinery::field::{self, ErrorList, Path};
use apimachinery::gotext::quote;
use serde_json::Value;

use super::super::checks::semantically_equal;
use super::super::{diff, object_meta};
use super::annotations::MIRROR;
use super::metadata_and_spec;
use crate::qos;
use crate::read::Read;

fn is_mirror(pod: &Value) -> bool {
    pod["metadata"]["annotations"].get(MIRROR).is_some()
}

/// An error that stands alone, of no field.
fn only(message: &str, errors: &mut ErrorList) {
    *errors = ErrorList::from(field::forbidden(&Path::new(""), message));
}

/// `ValidatePodEphemeralContainersUpdate`: they are added, and stay as they are.
pub(in super::super) fn ephemeral_containers(new: &Value, old: &Value, errors: &mut ErrorList) {
    object_meta::update(new, old, errors);
    metadata_and_spec(new, errors);
    super::update::annotations(new, old, errors);
    if is_mirror(old) {
        only("static pods do not support ephemeral containers", errors);
        return;
    }
    const LIST: &str = "ephemeralContainers";
    let path = Path::new("spec").child(LIST);
    for before in old["spec"].list(LIST) {
        let name = before.text("name");
        match new["spec"].list(LIST).iter().find(|container| container.text("name") == name) {
            None => {
                let message = format!("existing ephemeral containers {} may not be removed\n", quote(name));
                errors.push(field::forbidden(&path, message));
            }
            Some(now) if !semantically_equal(now, before) => {
                let diff = diff::of("EphemeralContainer", before, now);
                let message = format!("existing ephemeral containers {} may not be changed\n{diff}", quote(name));
                errors.push(field::forbidden(&path, message));
            }
            Some(_) => {}
        }
    }
}

const ONLY_CPU_AND_MEMORY: &str = "only cpu and memory resources are mutable";

/// `ValidatePodResize`.
pub(in super::super) fn resize(new: &Value, old: &Value, errors: &mut ErrorList) {
    object_meta::update(new, old, errors);
    metadata_and_spec(new, errors);
    if is_mirror(old) {
        only("static pods cannot be resized", errors);
        return;
    }
    let (spec, before, path) = (&new["spec"], &old["spec"], Path::new("spec"));
    if before["os"].text("name") == "windows" {
        only("windows pods cannot be resized", errors);
        return;
    }
    let class = old["status"].text("qosClass");
    let class = if class.is_empty() { qos::class(old) } else { class };
    if class != qos::class(new) {
        let message = "Pod QOS Class may not change as a result of resizing";
        errors.push(field::invalid(&path, new["status"].text("qosClass"), message));
    }
    let running = old["status"].list("containerStatuses").iter().find(|c| c["state"].set("running").is_some());
    if running.is_some_and(|status| status.set("resources").is_none()) {
        errors.push(field::forbidden(&path, "Pod running on node without support for resize"));
    }
    let mut munged = spec.clone();
    let amounts = |spec: &Value| {
        ["requests", "limits"].iter().any(|list| spec["resources"].map(list).is_some_and(|list| !list.is_empty()))
    };
    if amounts(before) || amounts(spec) {
        of_the_pod(spec, before, &mut munged, &path, errors);
    }
    if !old["status"].list("nodeAllocatableResourceClaimStatuses").is_empty() {
        errors.push(field::forbidden(&path, "pods with node allocatable resource claims cannot be resized"));
    }
    if !same_order(spec, before, &path, errors) {
        return;
    }
    for list in ["initContainers", "containers"] {
        for (i, (now, before)) in spec.list(list).iter().zip(before.list(list)).enumerate() {
            let path = path.child(list).index(i).child("resources");
            for (amounts, shown) in [("requests", "resource requests"), ("limits", "resource limits")] {
                if removed(&now["resources"][amounts], &before["resources"][amounts]) {
                    errors.push(field::forbidden(&path.child(amounts), format!("{shown} cannot be removed")));
                }
            }
        }
    }
    of_containers(before, &mut munged, &path, errors);
    if errors.is_empty() && !semantically_equal(&munged, before) {
        errors.push(field::forbidden(&path, ONLY_CPU_AND_MEMORY));
    }
}

/// Whether something that had an amount has none.
fn removed(new: &Value, old: &Value) -> bool {
    old.as_object().into_iter().flatten().any(|(name, _)| new.get(name).is_none())
}

/// Puts CPU and memory back.
fn restore(resources: &mut Value, old: &Value) {
    for list in ["requests", "limits"] {
        for name in ["cpu", "memory"] {
            let before = old[list].get(name).cloned();
            let Some(map) = resources.as_object_mut() else { continue };
            match (before, map.get_mut(list).and_then(Value::as_object_mut)) {
                (Some(amount), Some(amounts)) => {
                    amounts.insert(name.to_owned(), amount);
                }
                (Some(amount), None) => {
                    map.insert(list.to_owned(), serde_json::json!({name: amount}));
                }
                (None, Some(amounts)) => {
                    amounts.remove(name);
                }
                (None, None) => {}
            }
        }
    }
}

fn of_the_pod(spec: &Value, before: &Value, munged: &mut Value, path: &Path, errors: &mut ErrorList) {
    let at = path.child("resources");
    match (before.set("resources"), spec.set("resources")) {
        (Some(_), None) => {
            errors.push(field::forbidden(&at, "pod-level resources cannot be removed"));
            return;
        }
        (Some(old), Some(new)) => {
            for list in ["requests", "limits"] {
                if removed(&new[list], &old[list]) {
                    errors.push(field::forbidden(
                        &at.child(list),
                        format!("pod-level resource {list} cannot be removed"),
                    ));
                }
            }
        }
        _ => {}
    }
    if let Some(resources) = munged.get_mut("resources").filter(|resources| resources.is_object()) {
        restore(resources, &before["resources"]);
    }
    if !semantically_equal(&munged["resources"], &before["resources"]) {
        errors.push(field::forbidden(path, "only cpu and memory resources are mutable at pod-level"));
    }
}

fn same_order(spec: &Value, before: &Value, path: &Path, errors: &mut ErrorList) -> bool {
    let start = errors.len();
    for list in ["containers", "initContainers"] {
        let (now, old, path) = (spec.list(list), before.list(list), path.child(list));
        if now.len() != old.len() {
            errors.push(field::forbidden(&path, format!("{list} may not be added or removed on resize")));
            continue;
        }
        for (i, _) in now.iter().zip(old).enumerate().filter(|(_, (now, old))| now.text("name") != old.text("name")) {
            let message = format!("{list} may not be renamed or reordered on resize");
            errors.push(field::forbidden(&path.index(i).child("name"), message));
        }
    }
    errors.len() == start
}

fn of_containers(before: &Value, munged: &mut Value, path: &Path, errors: &mut ErrorList) {
    for list in ["containers", "initContainers"] {
        let containers = munged.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten();
        for (i, (container, old)) in containers.zip(before.list(list)).enumerate() {
            let at = path.child(list).index(i);
            let changed = !semantically_equal(container, old);
            let init = list == "initContainers";
            restore(&mut container["resources"], &old["resources"]);
            if !semantically_equal(container, old) {
                if init {
                    let message = "only cpu and memory resources for init or sidecar containers are mutable";
                    errors.push(field::forbidden(&at, message));
                } else {
                    errors.push(field::forbidden(path, ONLY_CPU_AND_MEMORY));
                }
            }
            if init && changed && container.text("restartPolicy") != "Always" {
                let restarts = |policy: &&Value| policy.text("restartPolicy") == "RestartContainer";
                for _ in container.list("resizePolicy").iter().filter(restarts) {
                    let message =
                        "non-sidecar init containers with a resize policy of RestartContainer cannot be resized";
                    errors.push(field::forbidden(&at, message));
                }
            }
        }
    }
}
