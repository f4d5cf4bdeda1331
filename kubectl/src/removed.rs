//! API versions that Kubernetes once served, and what took their place (the deprecated API migration guide).

/// Group and version, kinds (none: all of them), the release that dropped them, and what to use.
type Row = (&'static str, &'static [&'static str], &'static str, &'static str);

const APPS: &[&str] = &["Deployment", "DaemonSet", "ReplicaSet", "StatefulSet", "ControllerRevision"];
const POD_SECURITY: &str = "Pod Security admission (labels pod-security.kubernetes.io/* of the namespace)";

const ROWS: &[Row] = &[
    ("extensions/v1beta1", &["Deployment", "DaemonSet", "ReplicaSet"], "1.16", "apps/v1"),
    ("extensions/v1beta1", &["NetworkPolicy"], "1.16", "networking.k8s.io/v1"),
    ("extensions/v1beta1", &["PodSecurityPolicy"], "1.16", POD_SECURITY),
    ("extensions/v1beta1", &["Ingress"], "1.22", "networking.k8s.io/v1"),
    ("apps/v1beta1", APPS, "1.16", "apps/v1"),
    ("apps/v1beta2", APPS, "1.16", "apps/v1"),
    ("batch/v2alpha1", &["CronJob"], "1.21", "batch/v1"),
    (
        "admissionregistration.k8s.io/v1beta1",
        &["MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"],
        "1.22",
        "admissionregistration.k8s.io/v1",
    ),
    ("apiextensions.k8s.io/v1beta1", &[], "1.22", "apiextensions.k8s.io/v1"),
    ("apiregistration.k8s.io/v1beta1", &[], "1.22", "apiregistration.k8s.io/v1"),
    ("authentication.k8s.io/v1beta1", &["TokenReview"], "1.22", "authentication.k8s.io/v1"),
    ("authorization.k8s.io/v1beta1", &[], "1.22", "authorization.k8s.io/v1"),
    ("certificates.k8s.io/v1beta1", &["CertificateSigningRequest"], "1.22", "certificates.k8s.io/v1"),
    ("coordination.k8s.io/v1beta1", &["Lease"], "1.22", "coordination.k8s.io/v1"),
    ("networking.k8s.io/v1beta1", &["Ingress", "IngressClass"], "1.22", "networking.k8s.io/v1"),
    ("rbac.authorization.k8s.io/v1alpha1", &[], "1.22", "rbac.authorization.k8s.io/v1"),
    ("rbac.authorization.k8s.io/v1beta1", &[], "1.22", "rbac.authorization.k8s.io/v1"),
    ("scheduling.k8s.io/v1beta1", &["PriorityClass"], "1.22", "scheduling.k8s.io/v1"),
    (
        "storage.k8s.io/v1beta1",
        &["CSIDriver", "CSINode", "StorageClass", "VolumeAttachment"],
        "1.22",
        "storage.k8s.io/v1",
    ),
    ("autoscaling/v2beta1", &[], "1.25", "autoscaling/v2"),
    ("batch/v1beta1", &["CronJob"], "1.25", "batch/v1"),
    ("discovery.k8s.io/v1beta1", &["EndpointSlice"], "1.25", "discovery.k8s.io/v1"),
    ("events.k8s.io/v1beta1", &["Event"], "1.25", "events.k8s.io/v1"),
    ("node.k8s.io/v1beta1", &["RuntimeClass"], "1.25", "node.k8s.io/v1"),
    ("policy/v1beta1", &["PodDisruptionBudget"], "1.25", "policy/v1"),
    ("policy/v1beta1", &["PodSecurityPolicy"], "1.25", POD_SECURITY),
    ("autoscaling/v2beta2", &[], "1.26", "autoscaling/v2"),
    ("flowcontrol.apiserver.k8s.io/v1beta1", &[], "1.26", "flowcontrol.apiserver.k8s.io/v1"),
    ("storage.k8s.io/v1beta1", &["CSIStorageCapacity"], "1.27", "storage.k8s.io/v1"),
    ("flowcontrol.apiserver.k8s.io/v1beta2", &[], "1.29", "flowcontrol.apiserver.k8s.io/v1"),
    ("flowcontrol.apiserver.k8s.io/v1beta3", &[], "1.32", "flowcontrol.apiserver.k8s.io/v1"),
];

/// A line on what became of a kind, if it was removed.
pub fn hint(api_version: &str, kind: &str) -> Option<String> {
    let is = |row: &&Row| row.0 == api_version && (row.1.is_empty() || row.1.contains(&kind));
    let (_, _, release, instead) = ROWS.iter().find(is)?;
    Some(format!("{kind} of {api_version} was removed in Kubernetes {release}: use {instead}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints() {
        let check = |api_version: &str, kind: &str, want: Option<&str>| {
            assert_eq!(hint(api_version, kind).as_deref(), want, "{api_version} {kind}");
        };
        check(
            "extensions/v1beta1",
            "Ingress",
            Some("Ingress of extensions/v1beta1 was removed in Kubernetes 1.22: use networking.k8s.io/v1"),
        );
        check(
            "rbac.authorization.k8s.io/v1beta1",
            "ClusterRole",
            Some(
                "ClusterRole of rbac.authorization.k8s.io/v1beta1 was removed in Kubernetes 1.22: use rbac.authorization.k8s.io/v1",
            ),
        );
        check("storage.k8s.io/v1beta1", "Other", None);
        check("apps/v1", "Deployment", None);
    }
}
