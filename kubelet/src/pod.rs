//! Readings of a pod's spec that several parts share: identity, kinds of container, restart rules.
//!
//! Pure. The pod type is the published one (`k8s_openapi`): a node holds a hundred pods at most, so the
//! size of the full type does not matter here as it does in the scheduler.

use k8s_openapi::api::core::v1::{Container, EphemeralContainer, Pod, PodSpec};
use sha2::{Digest, Sha256};

/// Where a pod came from: `file`, `http` or `api`.
pub const CONFIG_SOURCE: &str = "kubernetes.io/config.source";
/// On a mirror pod: the hash of the static pod that it stands for.
pub const CONFIG_MIRROR: &str = "kubernetes.io/config.mirror";
/// On a static pod: the hash of its manifest.
pub const CONFIG_HASH: &str = "kubernetes.io/config.hash";
/// When the kubelet first saw the pod.
pub const CONFIG_SEEN: &str = "kubernetes.io/config.seen";

/// A pod's uid; one worker exists per uid.
pub type Uid = String;

/// The three kinds of container a pod may list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Runs before the regular ones; a sidecar when its restart policy is Always.
    Init,
    /// The pod's work.
    Regular,
    /// Added to a running pod for debugging; never restarted.
    Ephemeral,
}

/// Short readings of a pod.
pub trait PodExt {
    /// `metadata.uid`.
    fn uid(&self) -> &str;
    /// `metadata.name`.
    fn pod_name(&self) -> &str;
    /// `metadata.namespace`.
    fn pod_namespace(&self) -> &str;
    /// The spec; an empty one stands in for a missing one.
    fn pod_spec(&self) -> &PodSpec;
    /// `name_namespace(uid)`, as messages write it.
    fn described(&self) -> String;
    /// Annotation by name.
    fn annotation(&self, name: &str) -> Option<&str>;
    /// Whether the manifest came from a file on this node.
    fn is_static(&self) -> bool;
    /// Whether this API object mirrors a static pod.
    fn is_mirror(&self) -> bool;
    /// Whether deletion has been asked for.
    fn is_deleted(&self) -> bool;
    /// Whether the pod lives in the node's network namespace.
    fn host_network(&self) -> bool;
    /// The API's phase, or `""`.
    fn phase(&self) -> &str;
    /// Init containers, possibly none.
    fn init_containers(&self) -> &[Container];
    /// Ephemeral containers, possibly none.
    fn ephemeral_containers(&self) -> &[EphemeralContainer];
    /// A container of any kind by name.
    fn container(&self, name: &str) -> Option<(Kind, Container)>;
    /// `spec.restartPolicy`, Always when unset.
    fn restart_policy(&self) -> &str;
}

impl PodExt for Pod {
    fn uid(&self) -> &str {
        self.metadata.uid.as_deref().unwrap_or_default()
    }
    fn pod_name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }
    fn pod_namespace(&self) -> &str {
        self.metadata.namespace.as_deref().unwrap_or_default()
    }
    fn pod_spec(&self) -> &PodSpec {
        static EMPTY: std::sync::OnceLock<PodSpec> = std::sync::OnceLock::new();
        self.spec.as_ref().unwrap_or_else(|| EMPTY.get_or_init(PodSpec::default))
    }
    fn described(&self) -> String {
        format!("{}_{}({})", self.pod_name(), self.pod_namespace(), self.uid())
    }
    fn annotation(&self, name: &str) -> Option<&str> {
        self.metadata.annotations.as_ref()?.get(name).map(String::as_str)
    }
    fn is_static(&self) -> bool {
        self.annotation(CONFIG_SOURCE).is_some_and(|source| source != "api")
    }
    fn is_mirror(&self) -> bool {
        self.annotation(CONFIG_MIRROR).is_some()
    }
    fn is_deleted(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }
    fn host_network(&self) -> bool {
        self.pod_spec().host_network.unwrap_or(false)
    }
    fn phase(&self) -> &str {
        self.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default()
    }
    fn init_containers(&self) -> &[Container] {
        self.pod_spec().init_containers.as_deref().unwrap_or_default()
    }
    fn ephemeral_containers(&self) -> &[EphemeralContainer] {
        self.pod_spec().ephemeral_containers.as_deref().unwrap_or_default()
    }
    fn container(&self, name: &str) -> Option<(Kind, Container)> {
        if let Some(found) = self.pod_spec().containers.iter().find(|c| c.name == name) {
            return Some((Kind::Regular, found.clone()));
        }
        if let Some(found) = self.init_containers().iter().find(|c| c.name == name) {
            return Some((Kind::Init, found.clone()));
        }
        let found = self.ephemeral_containers().iter().find(|c| c.name == name)?;
        Some((Kind::Ephemeral, ephemeral_as_container(found)))
    }
    fn restart_policy(&self) -> &str {
        self.pod_spec().restart_policy.as_deref().unwrap_or("Always")
    }
}

/// An init container that keeps running beside the regular ones (KEP-753).
pub fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// An ephemeral container in the shape of the others: the same fields under another name.
pub fn ephemeral_as_container(ephemeral: &EphemeralContainer) -> Container {
    let mut value = serde_json::to_value(ephemeral).expect("an API type serializes");
    if let Some(map) = value.as_object_mut() {
        map.remove("targetContainerName");
    }
    serde_json::from_value(value).expect("an ephemeral container has a container's fields")
}

/// Whether a container that ended with `exit_code` is to be started again. Its own rules come first,
/// then its own policy, then the pod's (KEP-5307).
pub fn should_restart_after(container: &Container, pod: &Pod, exit_code: i32) -> bool {
    if let Some(policy) = container.restart_policy.as_deref() {
        let matched = container.restart_policy_rules.iter().flatten().find(|rule| {
            rule.exit_codes.as_ref().is_some_and(|codes| {
                let listed = codes.values.as_deref().unwrap_or_default().contains(&exit_code);
                match codes.operator.as_str() {
                    "In" => listed,
                    "NotIn" => !listed,
                    _ => false,
                }
            })
        });
        if matched.is_some_and(|rule| rule.action == "Restart") {
            return true;
        }
        match policy {
            "Always" => return true,
            "OnFailure" => return exit_code != 0,
            "Never" => return false,
            _ => {}
        }
    }
    match pod.restart_policy() {
        "OnFailure" => exit_code != 0,
        "Never" => false,
        _ => true,
    }
}

/// The hash that tells a changed container: of its name and image alone, 32-bit FNV-1a over JSON, so
/// that containers made by an upstream kubelet are recognized.
pub fn container_hash(container: &Container) -> u64 {
    let picked = serde_json::json!({ "image": container.image.clone().unwrap_or_default(), "name": container.name });
    let text = escape_html(&picked.to_string());
    u64::from(text.bytes().fold(0x811c_9dc5u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)))
}

/// Go's JSON encoder writes `<`, `>` and `&` as escapes; the hash is over its bytes.
fn escape_html(text: &str) -> String {
    text.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

/// The uid of a static pod, made from where it is and what it says, so that it survives restarts.
pub fn static_pod_uid(node_name: &str, path: &str, manifest: &[u8]) -> Uid {
    let mut hash = Sha256::new();
    for part in [node_name.as_bytes(), path.as_bytes(), manifest] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// Whether the pod's containers may be restarted after a failure of the sandbox.
pub fn should_restart_on_failure(pod: &Pod) -> bool {
    pod.restart_policy() != "Never"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(value: serde_json::Value) -> Container {
        serde_json::from_value(value).unwrap()
    }

    fn pod(policy: &str) -> Pod {
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u"},
            "spec": {"containers": [], "restartPolicy": policy}
        }))
        .unwrap()
    }

    #[test]
    fn restart_decisions() {
        let plain = container(serde_json::json!({"name": "c"}));
        let own = |policy: &str| container(serde_json::json!({"name": "c", "restartPolicy": policy}));
        let rules = container(serde_json::json!({"name": "c", "restartPolicy": "Never",
            "restartPolicyRules": [{"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}]}));
        for (container, policy, code, expected) in [
            (&plain, "Always", 0, true),
            (&plain, "OnFailure", 0, false),
            (&plain, "OnFailure", 1, true),
            (&plain, "Never", 1, false),
            (&own("Always"), "Never", 0, true),
            (&own("OnFailure"), "Always", 0, false),
            (&rules, "Always", 42, true),
            (&rules, "Always", 1, false),
        ] {
            assert_eq!(should_restart_after(container, &pod(policy), code), expected, "{policy} {code}");
        }
    }

    #[test]
    fn hash_depends_on_name_and_image_only() {
        let a = container(serde_json::json!({"name": "c", "image": "busybox:1.37"}));
        let b = container(serde_json::json!({"name": "c", "image": "busybox:1.37", "command": ["x"]}));
        let c = container(serde_json::json!({"name": "c", "image": "busybox:1.36"}));
        assert_eq!(container_hash(&a), container_hash(&b));
        assert_ne!(container_hash(&a), container_hash(&c));
    }

    #[test]
    fn ephemeral_containers_take_the_common_shape() {
        let ephemeral: EphemeralContainer =
            serde_json::from_value(serde_json::json!({"name": "d", "image": "i", "targetContainerName": "c"})).unwrap();
        assert_eq!(ephemeral_as_container(&ephemeral).image.as_deref(), Some("i"));
    }
}
