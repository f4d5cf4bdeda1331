//! Which objects a pod or a volume refers to.
//!
//! Upstream: `VisitPodSecretNames`, `VisitPodConfigmapNames` (`pkg/api/v1/pod`) and
//! `VisitPVSecretNames` (`pkg/api/v1/persistentvolume`).

use std::collections::BTreeSet;

use apimachinery::object::ObjectExt as _;
use serde_json::Value;

use super::graph::{Key, Kind};

/// A mirror pod gives its node nothing: the node made it up.
pub(super) const MIRROR: &str = "kubernetes.io/config.mirror";

/// Volumes that name a secret, and where.
const VOLUME_SECRETS: [&[&str]; 10] = [
    &["azureFile", "secretName"],
    &["cephfs", "secretRef", "name"],
    &["cinder", "secretRef", "name"],
    &["flexVolume", "secretRef", "name"],
    &["rbd", "secretRef", "name"],
    &["secret", "secretName"],
    &["scaleIO", "secretRef", "name"],
    &["iscsi", "secretRef", "name"],
    &["storageos", "secretRef", "name"],
    &["csi", "nodePublishSecretRef", "name"],
];

/// Whether a pod names any secret.
pub fn names_secrets(pod: &Value) -> bool {
    named(pod).iter().any(|key| key.kind == Kind::Secret)
}

/// Everything that a pod lets its node read.
pub fn of_pod(pod: &Value) -> BTreeSet<Key> {
    if pod.annotation(MIRROR).is_some() { BTreeSet::new() } else { named(pod) }
}

/// Everything that a pod names.
fn named(pod: &Value) -> BTreeSet<Key> {
    let mut found = BTreeSet::new();
    let mut add = |kind: Kind, name: Option<&str>| {
        if let Some(name) = name.filter(|name| !name.is_empty()) {
            found.insert(Key::new(kind, pod.namespace(), name));
        }
    };
    add(Kind::ServiceAccount, pod.str_at(&["spec", "serviceAccountName"]));
    for secret in pod.list_at(&["spec", "imagePullSecrets"]) {
        add(Kind::Secret, secret.str_at(&["name"]));
    }
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for container in pod.list_at(&["spec", list]) {
            for from in container.list_at(&["envFrom"]) {
                add(Kind::Secret, from.str_at(&["secretRef", "name"]));
                add(Kind::ConfigMap, from.str_at(&["configMapRef", "name"]));
            }
            for variable in container.list_at(&["env"]) {
                add(Kind::Secret, variable.str_at(&["valueFrom", "secretKeyRef", "name"]));
                add(Kind::ConfigMap, variable.str_at(&["valueFrom", "configMapKeyRef", "name"]));
            }
        }
    }
    for volume in pod.list_at(&["spec", "volumes"]) {
        for path in VOLUME_SECRETS {
            add(Kind::Secret, volume.str_at(path));
        }
        add(Kind::ConfigMap, volume.str_at(&["configMap", "name"]));
        for source in volume.list_at(&["projected", "sources"]) {
            add(Kind::Secret, source.str_at(&["secret", "name"]));
            add(Kind::ConfigMap, source.str_at(&["configMap", "name"]));
        }
        add(Kind::Claim, volume.str_at(&["persistentVolumeClaim", "claimName"]));
        if volume.get("ephemeral").is_some_and(|ephemeral| !ephemeral.is_null()) {
            let name = format!("{}-{}", pod.name(), volume.str_at(&["name"]).unwrap_or_default());
            add(Kind::Claim, Some(&name));
        }
    }
    for claim in pod.list_at(&["spec", "resourceClaims"]) {
        add(Kind::ResourceClaim, claim.str_at(&["resourceClaimName"]));
        let name = claim.str_at(&["name"]);
        let generated = claim.str_at(&["resourceClaimTemplateName"]).and_then(|_| {
            let statuses = pod.list_at(&["status", "resourceClaimStatuses"]);
            statuses.iter().find(|status| status.str_at(&["name"]) == name)?.str_at(&["resourceClaimName"])
        });
        add(Kind::ResourceClaim, generated);
    }
    add(Kind::ResourceClaim, pod.str_at(&["status", "extendedResourceClaimStatus", "resourceClaimName"]));
    found
}

/// Volumes of a pod that the kubelet makes without the API.
const PLAIN_VOLUMES: [&str; 24] = [
    "awsElasticBlockStore",
    "azureDisk",
    "cephfs",
    "cinder",
    "downwardAPI",
    "emptyDir",
    "fc",
    "flexVolume",
    "flocker",
    "gcePersistentDisk",
    "gitRepo",
    "hostPath",
    "image",
    "iscsi",
    "nfs",
    "photonPersistentDisk",
    "portworxVolume",
    "quobyte",
    "rbd",
    "scaleIO",
    "storageos",
    "vsphereVolume",
    "name",
    "mountPropagation",
];

/// Volumes that need an object of the API, and which.
const API_VOLUMES: [(&str, &str); 7] = [
    ("configMap", "configmaps (via configmap volumes)"),
    ("secret", "secrets (via secret volumes)"),
    ("csi", "csidrivers (via CSI volumes)"),
    ("glusterfs", "endpoints (via glusterFS volumes)"),
    ("persistentVolumeClaim", "persistentvolumeclaims"),
    ("ephemeral", "persistentvolumeclaims (via ephemeral volumes)"),
    ("azureFile", "secrets (via azureFile volumes)"),
];

const API_SOURCES: [(&str, &str); 5] = [
    ("configMap", "configmaps (via projected volumes)"),
    ("secret", "secrets (via projected volumes)"),
    ("serviceAccountToken", "serviceaccounts (via projected volumes)"),
    ("clusterTrustBundle", "clustertrustbundles"),
    ("podCertificate", "podcertificates"),
];

/// What of the API a pod refers to, if anything: such a pod cannot be a copy of a file on a node.
pub fn needs_api(pod: &Value) -> Option<&'static str> {
    let mut plain = pod.clone();
    plain.remove_at(&["metadata", "annotations", MIRROR]);
    let keys = of_pod(&plain);
    let has = |kind: Kind| keys.iter().any(|key| key.kind == kind);
    if has(Kind::ServiceAccount) {
        return Some("serviceaccounts");
    }
    if has(Kind::Secret) {
        return Some("secrets");
    }
    if has(Kind::ConfigMap) {
        return Some("configmaps");
    }
    if !pod.list_at(&["spec", "resourceClaims"]).is_empty() {
        return Some("resourceclaims");
    }
    let given = |object: &Value, field: &str| object.get(field).is_some_and(|value| !value.is_null());
    for volume in pod.list_at(&["spec", "volumes"]) {
        if let Some((_, what)) = API_VOLUMES.iter().find(|(field, _)| given(volume, field)) {
            return Some(what);
        }
        for source in volume.list_at(&["projected", "sources"]) {
            if let Some((_, what)) = API_SOURCES.iter().find(|(field, _)| given(source, field)) {
                return Some(what);
            }
        }
        let known = |field: &String| field == "projected" || PLAIN_VOLUMES.contains(&field.as_str());
        if !volume.as_object().is_some_and(|fields| fields.keys().all(known)) {
            return Some("volumes of an unknown type");
        }
    }
    None
}

/// References of a volume to secrets that a kubelet uses: in a field of this name, below this source.
const PV_SECRET_REFS: [(&str, &str); 9] = [
    ("cephfs", "secretRef"),
    ("cinder", "secretRef"),
    ("flexVolume", "secretRef"),
    ("rbd", "secretRef"),
    ("scaleIO", "secretRef"),
    ("iscsi", "secretRef"),
    ("csi", "nodePublishSecretRef"),
    ("csi", "nodeStageSecretRef"),
    ("csi", "nodeExpandSecretRef"),
];

/// Namespace and name of the secrets that whoever mounts a volume needs. The claim's namespace holds
/// those that name none.
pub fn secrets_of_volume(volume: &Value, claim_namespace: &str) -> BTreeSet<(String, String)> {
    let mut found = BTreeSet::new();
    let mut add = |namespace: Option<&str>, name: Option<&str>| {
        let namespace = namespace.filter(|namespace| !namespace.is_empty()).unwrap_or(claim_namespace);
        if let Some(name) = name.filter(|name| !name.is_empty()) {
            found.insert((namespace.to_string(), name.to_string()));
        }
    };
    let azure = ["spec", "azureFile"];
    add(volume.str_at(&[azure[0], azure[1], "secretNamespace"]), volume.str_at(&[azure[0], azure[1], "secretName"]));
    add(
        volume.str_at(&["spec", "storageos", "secretRef", "namespace"]),
        volume.str_at(&["spec", "storageos", "secretRef", "name"]),
    );
    for (source, field) in PV_SECRET_REFS {
        add(volume.str_at(&["spec", source, field, "namespace"]), volume.str_at(&["spec", source, field, "name"]));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn finds_every_reference_of_a_pod() {
        let mut pod = json!({
            "metadata": {"name": "p", "namespace": "n"},
            "spec": {
                "serviceAccountName": "sa",
                "imagePullSecrets": [{"name": "pull"}],
                "initContainers": [{"envFrom": [{"secretRef": {"name": "from-s"}}, {"configMapRef": {"name": "from-c"}}]}],
                "containers": [{"env": [
                    {"valueFrom": {"secretKeyRef": {"name": "key-s"}}}, {"valueFrom": {"configMapKeyRef": {"name": "key-c"}}},
                ]}],
                "ephemeralContainers": [{"envFrom": [{"secretRef": {"name": "late"}}]}],
                "volumes": [
                    {"name": "a", "secret": {"secretName": "vol-s"}},
                    {"name": "b", "configMap": {"name": "vol-c"}},
                    {"name": "c", "projected": {"sources": [{"secret": {"name": "pro-s"}}, {"configMap": {"name": "pro-c"}}]}},
                    {"name": "d", "persistentVolumeClaim": {"claimName": "pvc"}},
                    {"name": "e", "ephemeral": {}},
                    {"name": "f", "csi": {"nodePublishSecretRef": {"name": "csi-s"}}},
                ],
                "resourceClaims": [
                    {"name": "x", "resourceClaimName": "rc"}, {"name": "y", "resourceClaimTemplateName": "t"},
                ],
            },
            "status": {"resourceClaimStatuses": [{"name": "y", "resourceClaimName": "generated"}]},
        });
        let found = of_pod(&pod);
        let names =
            |kind: Kind| -> Vec<&str> { found.iter().filter(|key| key.kind == kind).map(|key| &*key.name).collect() };
        assert_eq!(names(Kind::Secret), ["csi-s", "from-s", "key-s", "late", "pro-s", "pull", "vol-s"]);
        assert_eq!(names(Kind::ConfigMap), ["from-c", "key-c", "pro-c", "vol-c"]);
        assert_eq!(names(Kind::Claim), ["p-e", "pvc"]);
        assert_eq!(names(Kind::ResourceClaim), ["generated", "rc"]);
        assert_eq!(names(Kind::ServiceAccount), ["sa"]);
        pod.set_annotation(MIRROR, "x");
        assert!(of_pod(&pod).is_empty());
    }
}
