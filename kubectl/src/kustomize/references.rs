//! Which fields hold the names of other objects, by default.

use super::fieldspec::FieldSpec;
use super::id::Gvk;

/// A kind, and the fields by which others refer to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackReference {
    /// What is referred to.
    pub target: Gvk,
    /// The fields that hold its name.
    pub referrers: Vec<FieldSpec>,
}

/// The kinds that hold a pod's specification, and where.
const POD_SPECS: &[(&str, &str)] = &[
    ("Pod", "spec"),
    ("PodTemplate", "template/spec"),
    ("Deployment", "spec/template/spec"),
    ("ReplicaSet", "spec/template/spec"),
    ("DaemonSet", "spec/template/spec"),
    ("StatefulSet", "spec/template/spec"),
    ("Job", "spec/template/spec"),
    ("CronJob", "spec/jobTemplate/spec/template/spec"),
];

/// As [`POD_SPECS`], the ones whose other references are followed.
const WORKLOADS: &[(&str, &str)] = &[
    ("Pod", "spec"),
    ("StatefulSet", "spec/template/spec"),
    ("Deployment", "spec/template/spec"),
    ("ReplicationController", "spec/template/spec"),
    ("CronJob", "spec/jobTemplate/spec/template/spec"),
    ("Job", "spec/template/spec"),
    ("DaemonSet", "spec/template/spec"),
];

const CONFIG_MAP_FIELDS: &[&str] = &[
    "volumes/configMap/name",
    "containers/env/valueFrom/configMapKeyRef/name",
    "initContainers/env/valueFrom/configMapKeyRef/name",
    "containers/envFrom/configMapRef/name",
    "initContainers/envFrom/configMapRef/name",
    "volumes/projected/sources/configMap/name",
];

const SECRET_FIELDS: &[&str] = &[
    "volumes/secret/secretName",
    "containers/env/valueFrom/secretKeyRef/name",
    "initContainers/env/valueFrom/secretKeyRef/name",
    "containers/envFrom/secretRef/name",
    "initContainers/envFrom/secretRef/name",
    "imagePullSecrets/name",
    "volumes/projected/sources/secret/name",
];

fn spec(group: &str, version: &str, kind: &str, path: &str) -> FieldSpec {
    FieldSpec {
        group: group.to_owned(),
        version: version.to_owned(),
        kind: kind.to_owned(),
        path: path.to_owned(),
        create: false,
    }
}

fn in_pods(holders: &[(&str, &str)], fields: &[&str], pod_version: &str) -> Vec<FieldSpec> {
    let version = |kind: &str| if kind == "Pod" { pod_version } else { "" };
    holders
        .iter()
        .flat_map(|(kind, at)| fields.iter().map(move |field| spec("", version(kind), kind, &format!("{at}/{field}"))))
        .collect()
}

fn back(group: &str, version: &str, kind: &str, referrers: Vec<FieldSpec>) -> BackReference {
    BackReference { target: Gvk::new(group, version, kind), referrers }
}

const RBAC: &str = "rbac.authorization.k8s.io";
const ADMISSION: &str = "admissionregistration.k8s.io";

/// Kinds and paths of fields, of any group and version.
fn fields(of: &[(&str, &str)]) -> Vec<FieldSpec> {
    of.iter().map(|(kind, path)| spec("", "", kind, path)).collect()
}

/// The table.
pub fn defaults() -> Vec<BackReference> {
    let scaled = |kind| back("", "", kind, fields(&[("HorizontalPodAutoscaler", "spec/scaleTargetRef/name")]));
    let mut config_maps = in_pods(POD_SPECS, CONFIG_MAP_FIELDS, "v1");
    config_maps.extend(fields(&[
        ("Node", "spec/configSource/configMap"),
        ("Role", "rules/resourceNames"),
        ("ClusterRole", "rules/resourceNames"),
        ("Ingress", "metadata/annotations/nginx.ingress.kubernetes.io\\/fastcgi-params-configmap"),
    ]));
    let mut secrets = in_pods(POD_SPECS, SECRET_FIELDS, "v1");
    secrets.extend(fields(&[
        ("Ingress", "spec/tls/secretName"),
        ("Ingress", "metadata/annotations/ingress.kubernetes.io\\/auth-secret"),
        ("Ingress", "metadata/annotations/nginx.ingress.kubernetes.io\\/auth-secret"),
        ("Ingress", "metadata/annotations/nginx.ingress.kubernetes.io\\/auth-tls-secret"),
        ("ServiceAccount", "imagePullSecrets/name"),
        ("StorageClass", "parameters/secretName"),
        ("StorageClass", "parameters/adminSecretName"),
        ("StorageClass", "parameters/userSecretName"),
        ("StorageClass", "parameters/secretRef"),
        ("Role", "rules/resourceNames"),
        ("ClusterRole", "rules/resourceNames"),
        ("PersistentVolume", "spec/azureFile/secretName"),
    ]));
    secrets.push(spec(
        "serving.knative.dev",
        "v1",
        "Service",
        "spec/template/spec/containers/env/valueFrom/secretKeyRef/name",
    ));
    let services = vec![
        spec("apps", "", "StatefulSet", "spec/serviceName"),
        spec("", "", "Ingress", "spec/rules/http/paths/backend/serviceName"),
        spec("", "", "Ingress", "spec/backend/serviceName"),
        spec("", "", "Ingress", "spec/rules/http/paths/backend/service/name"),
        spec("", "", "Ingress", "spec/defaultBackend/service/name"),
        spec("apiregistration.k8s.io", "", "APIService", "spec/service/name"),
        spec(ADMISSION, "", "ValidatingWebhookConfiguration", "webhooks/clientConfig/service"),
        spec(ADMISSION, "", "MutatingWebhookConfiguration", "webhooks/clientConfig/service"),
    ];
    let mut accounts =
        vec![spec(RBAC, "", "RoleBinding", "subjects"), spec(RBAC, "", "ClusterRoleBinding", "subjects")];
    accounts.extend(in_pods(WORKLOADS, &["serviceAccountName"], ""));
    vec![
        scaled("Deployment"),
        scaled("ReplicationController"),
        scaled("ReplicaSet"),
        scaled("StatefulSet"),
        back("", "v1", "ConfigMap", config_maps),
        back("", "v1", "Secret", secrets),
        back("", "v1", "Service", services),
        back(RBAC, "", "Role", vec![spec(RBAC, "", "RoleBinding", "roleRef/name")]),
        back(
            RBAC,
            "",
            "ClusterRole",
            vec![spec(RBAC, "", "RoleBinding", "roleRef/name"), spec(RBAC, "", "ClusterRoleBinding", "roleRef/name")],
        ),
        back("", "v1", "ServiceAccount", accounts),
        back("", "v1", "PersistentVolumeClaim", in_pods(WORKLOADS, &["volumes/persistentVolumeClaim/claimName"], "")),
        back(
            "",
            "v1",
            "PersistentVolume",
            fields(&[("PersistentVolumeClaim", "spec/volumeName"), ("ClusterRole", "rules/resourceNames")]),
        ),
        back(
            "storage.k8s.io",
            "v1",
            "StorageClass",
            fields(&[
                ("PersistentVolume", "spec/storageClassName"),
                ("PersistentVolumeClaim", "spec/storageClassName"),
                ("StatefulSet", "spec/volumeClaimTemplates/spec/storageClassName"),
            ]),
        ),
        back("scheduling.k8s.io", "v1", "PriorityClass", in_pods(WORKLOADS, &["priorityClassName"], "")),
        // Upstream's group for this one holds a version, so that it selects nothing.
        back("networking.k8s.io/v1", "v1", "IngressClass", fields(&[("Ingress", "spec/ingressClassName")])),
        back(
            ADMISSION,
            "",
            "ValidatingAdmissionPolicy",
            vec![spec(ADMISSION, "", "ValidatingAdmissionPolicyBinding", "spec/policyName")],
        ),
    ]
}
