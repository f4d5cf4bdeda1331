//! The labels and annotations that tie sandboxes and containers to pods, as upstream writes them: all
//! that a restarted kubelet knows of a container is here.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::{Container, Pod};

use crate::pod::{PodExt, container_hash};

pub const POD_NAME: &str = "io.kubernetes.pod.name";
pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
pub const POD_UID: &str = "io.kubernetes.pod.uid";
pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";
pub const HASH: &str = "io.kubernetes.container.hash";
pub const RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
pub const TERMINATION_PATH: &str = "io.kubernetes.container.terminationMessagePath";
pub const TERMINATION_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
pub const PRE_STOP: &str = "io.kubernetes.container.preStopHandler";
pub const PORTS: &str = "io.kubernetes.container.ports";
pub const DELETION_GRACE: &str = "io.kubernetes.pod.deletionGracePeriod";
pub const TERMINATION_GRACE: &str = "io.kubernetes.pod.terminationGracePeriod";

/// Labels of a sandbox: the pod's own, then the three that identify it.
pub fn sandbox_labels(pod: &Pod) -> HashMap<String, String> {
    let mut labels: HashMap<String, String> = pod.metadata.labels.clone().unwrap_or_default().into_iter().collect();
    labels.insert(POD_NAME.into(), pod.pod_name().into());
    labels.insert(POD_NAMESPACE.into(), pod.pod_namespace().into());
    labels.insert(POD_UID.into(), pod.uid().into());
    labels
}

/// Labels of a container.
pub fn container_labels(pod: &Pod, container: &Container) -> HashMap<String, String> {
    HashMap::from([
        (POD_NAME.into(), pod.pod_name().into()),
        (POD_NAMESPACE.into(), pod.pod_namespace().into()),
        (POD_UID.into(), pod.uid().into()),
        (CONTAINER_NAME.into(), container.name.clone()),
    ])
}

/// Annotations of a container: what is needed to stop it and to report it without its spec.
pub fn container_annotations(pod: &Pod, container: &Container, restart_count: u32) -> HashMap<String, String> {
    let mut out = HashMap::from([
        (HASH.into(), format!("{:x}", container_hash(container))),
        (RESTART_COUNT.into(), restart_count.to_string()),
        (TERMINATION_PATH.into(), container.termination_message_path.clone().unwrap_or_default()),
        (TERMINATION_POLICY.into(), container.termination_message_policy.clone().unwrap_or_default()),
    ]);
    if let Some(seconds) = pod.metadata.deletion_grace_period_seconds {
        out.insert(DELETION_GRACE.into(), seconds.to_string());
    }
    if let Some(seconds) = pod.pod_spec().termination_grace_period_seconds {
        out.insert(TERMINATION_GRACE.into(), seconds.to_string());
    }
    if let Some(hook) = container.lifecycle.as_ref().and_then(|l| l.pre_stop.as_ref()) {
        out.insert(PRE_STOP.into(), serde_json::to_string(hook).expect("an API type serializes"));
    }
    if let Some(ports) = container.ports.as_ref().filter(|p| !p.is_empty()) {
        out.insert(PORTS.into(), serde_json::to_string(ports).expect("an API type serializes"));
    }
    out
}
