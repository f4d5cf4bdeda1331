//! The checks that the restricted level adds: what a pod must give up.

use std::collections::BTreeSet;

use apimachinery::object::ObjectExt as _;
use serde_json::Value;

use super::subject::{
    Outcome, Run, Subject, containers, context, given, name, plural, quoted, setters, strings, violation,
};

/// Windows has none of these.
pub(super) fn unless_windows(pod: &Subject<'_>, check: Run) -> Outcome {
    if pod.windows() { None } else { check(pod) }
}

/// A user namespace takes the danger out of these.
pub(super) fn unless_user_namespace(pod: &Subject<'_>, check: Run) -> Outcome {
    if pod.has_user_namespace() { None } else { check(pod) }
}

pub(super) fn capabilities_restricted(pod: &Subject<'_>) -> Outcome {
    let undropped = pod.named(|container| !strings(container, &["capabilities", "drop"]).contains(&"ALL"));
    let mut added = BTreeSet::new();
    let adding = pod.named(|container| {
        let mut more = strings(container, &["capabilities", "add"]);
        more.retain(|capability| *capability != "NET_BIND_SERVICE");
        added.extend(more.iter().map(ToString::to_string));
        !more.is_empty()
    });
    let mut details = Vec::new();
    if !undropped.is_empty() {
        details.push(format!("{} must set securityContext.capabilities.drop=[\"ALL\"]", containers(&undropped)));
    }
    if !adding.is_empty() {
        details.push(format!(
            "{} must not include {} in securityContext.capabilities.add",
            containers(&adding),
            quoted(&added)
        ));
    }
    if details.is_empty() { None } else { violation("unrestricted capabilities", details.join("; ")) }
}

pub(super) fn privilege_escalation(pod: &Subject<'_>) -> Outcome {
    let bad = pod
        .named(|container| context(container, &["allowPrivilegeEscalation"]).and_then(Value::as_bool) != Some(false));
    if bad.is_empty() {
        return None;
    }
    violation(
        "allowPrivilegeEscalation != false",
        format!("{} must set securityContext.allowPrivilegeEscalation=false", containers(&bad)),
    )
}

const UNRESTRICTED_VOLUMES: [&str; 9] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
];

const RESTRICTED_VOLUMES: [&str; 21] = [
    "hostPath",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "gitRepo",
    "nfs",
    "iscsi",
    "glusterfs",
    "rbd",
    "flexVolume",
    "cinder",
    "cephfs",
    "flocker",
    "fc",
    "azureFile",
    "vsphereVolume",
    "quobyte",
    "azureDisk",
    "photonPersistentDisk",
    "portworxVolume",
    "scaleIO",
    "storageos",
];

pub(super) fn restricted_volumes(pod: &Subject<'_>) -> Outcome {
    let mut kinds = BTreeSet::new();
    let mut names = Vec::new();
    for volume in pod.spec.list_at(&["volumes"]) {
        if UNRESTRICTED_VOLUMES.iter().any(|kind| given(volume, kind)) {
            continue;
        }
        names.push(name(volume));
        kinds.insert(RESTRICTED_VOLUMES.iter().find(|kind| given(volume, kind)).copied().unwrap_or("unknown"));
    }
    if names.is_empty() {
        return None;
    }
    violation(
        "restricted volume types",
        format!(
            "{} {} {} {} {}",
            plural("volume", "volumes", names.len()),
            quoted(&names),
            plural("uses", "use", names.len()),
            plural("restricted volume type", "restricted volume types", kinds.len()),
            quoted(&kinds)
        ),
    )
}

pub(super) fn run_as_non_root(pod: &Subject<'_>) -> Outcome {
    const REASON: &str = "runAsNonRoot != true";
    let of = |holder: &Value| context(holder, &["runAsNonRoot"]).and_then(Value::as_bool);
    let by_pod = of(pod.spec);
    let explicit = pod.named(|container| of(container) == Some(false));
    let setters = setters(by_pod == Some(false), &explicit);
    if !setters.is_empty() {
        return violation(REASON, format!("{} must not set securityContext.runAsNonRoot=false", setters.join(" and ")));
    }
    let implicit = pod.named(|container| of(container).is_none() && by_pod != Some(true));
    if implicit.is_empty() {
        return None;
    }
    violation(REASON, format!("pod or {} must set securityContext.runAsNonRoot=true", containers(&implicit)))
}

pub(super) fn run_as_user(pod: &Subject<'_>) -> Outcome {
    let root = |holder: &Value| context(holder, &["runAsUser"]).and_then(Value::as_i64) == Some(0);
    let setters = setters(root(pod.spec), &pod.named(root));
    if setters.is_empty() {
        return None;
    }
    violation("runAsUser=0", format!("{} must not set runAsUser=0", setters.join(" and ")))
}
