//! PersistentVolume, also inline in VolumeAttachments.

use apimachinery::field::{self, ErrorList, Path};
use serde_json::Value;

use super::checks::{
    IMMUTABLE, dns1123_label, dns1123_subdomain, immutable, messages, name_is_label, name_is_subdomain,
    positive_quantity, quantity, semantically_equal,
};
use super::object_meta;
use super::persistent_volume_claim::{VOLUME_MODES, access_modes};
use super::pod::scheduling::node_selector;
use super::pod::volume_sources::{csi_driver_name, persistent_iscsi, shared};
use super::pod::volumes::{host_path, no_backsteps};
use crate::read::Read;

const RECLAIM_POLICIES: [&str; 3] = ["Delete", "Recycle", "Retain"];

/// In the order in which a second source is complained about.
const SOURCES: [&str; 22] = [
    "hostPath",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "glusterfs",
    "flocker",
    "nfs",
    "rbd",
    "quobyte",
    "cephfs",
    "iscsi",
    "cinder",
    "fc",
    "flexVolume",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "scaleIO",
    "local",
    "storageos",
    "csi",
];

pub(super) fn create(volume: &Value, errors: &mut ErrorList) {
    object_meta::create(volume, false, name_is_subdomain, errors);
    spec(&volume["spec"], volume["metadata"].text("name"), false, &Path::new("spec"), errors);
    mount_options(volume, errors);
}

/// Where mount options are allowed, as an annotation.
const MOUNTED: [&str; 13] = [
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "glusterfs",
    "nfs",
    "rbd",
    "quobyte",
    "iscsi",
    "cinder",
    "cephfs",
    "azureFile",
    "vsphereVolume",
    "azureDisk",
    "photonPersistentDisk",
];

fn mount_options(volume: &Value, errors: &mut ErrorList) {
    const ANNOTATION: &str = "volume.beta.kubernetes.io/mount-options";
    let given = volume["metadata"]["annotations"].get(ANNOTATION).is_some();
    if given && !MOUNTED.iter().any(|kind| volume["spec"].set(kind).is_some()) {
        let path = Path::new("metadata").children(&["annotations", ANNOTATION]);
        errors.push(field::forbidden(&path, "may not specify mount options for this volume type"));
    }
}

/// `ValidatePersistentVolumeSpec`; `inline` is a spec within a VolumeAttachment.
pub(super) fn spec(spec: &Value, name: &str, inline: bool, path: &Path, errors: &mut ErrorList) {
    let in_place = "in the context of inline volumes";
    let forbid = |name: &'static str, errors: &mut ErrorList| {
        errors.push(field::forbidden(&path.child(name), format!("may not be specified {in_place}")));
    };
    let has_capacity = spec.map("capacity").is_some_and(|c| !c.is_empty());
    if inline {
        if spec.set("claimRef").is_some() {
            forbid("claimRef", errors);
        }
        if has_capacity {
            forbid("capacity", errors);
        }
        if spec.set("csi").is_none() {
            errors.push(field::required(&path.child("csi"), format!("has to be specified {in_place}")));
        }
    }
    if spec.list("accessModes").is_empty() {
        errors.push(field::required(&path.child("accessModes"), ""));
    }
    access_modes(spec, path, errors);
    if !inline {
        capacity(spec, &path.child("capacity"), errors);
    }
    let policy = spec.text("persistentVolumeReclaimPolicy");
    let at = path.child("persistentVolumeReclaimPolicy");
    if inline && !matches!(policy, "" | "Retain") {
        errors.push(field::forbidden(&at, format!("may only be Retain {in_place}")));
    } else if !inline && !policy.is_empty() && !RECLAIM_POLICIES.contains(&policy) {
        errors.push(field::not_supported(&at, policy, &RECLAIM_POLICIES));
    }
    if let Some(affinity) = spec.set("nodeAffinity") {
        if inline {
            forbid("nodeAffinity", errors);
        } else {
            node_affinity(affinity, &path.child("nodeAffinity"), errors);
        }
    }
    sources(spec, name, inline, path, errors);
    let root = spec["hostPath"].set("path").and_then(Value::as_str).is_some_and(is_root);
    if root && policy == "Recycle" {
        errors.push(field::forbidden(&at, "may not be 'recycle' for a hostPath mount of '/'"));
    }
    let class = spec.text("storageClassName");
    if !class.is_empty() && inline {
        forbid("storageClassName", errors);
    } else if !class.is_empty() {
        messages(name_is_subdomain(class, false), class, &path.child("storageClassName"), errors);
    }
    if let Some(mode) = spec.set("volumeMode").and_then(Value::as_str) {
        let at = path.child("volumeMode");
        if inline && mode != "Filesystem" {
            let message = format!("may not specify volumeMode other than Filesystem {in_place}");
            errors.push(field::forbidden(&at, message));
        } else if !inline && !VOLUME_MODES.contains(&mode) {
            errors.push(field::not_supported(&at, mode, VOLUME_MODES));
        }
    }
    if let Some(class) = spec.set("volumeAttributesClassName").and_then(Value::as_str) {
        let at = path.child("volumeAttributesClassName");
        if class.is_empty() {
            errors.push(field::required(&at, "an empty string is disallowed"));
        } else {
            messages(name_is_subdomain(class, false), class, &at, errors);
        }
        if spec.set("csi").is_none() {
            let message = "has to be specified when using volumeAttributesClassName";
            errors.push(field::required(&path.child("csi"), message));
        }
    }
}

/// A path that means `/` when it is cleaned up.
fn is_root(path: &str) -> bool {
    let mut depth = 0;
    for part in path.split('/').filter(|part| !matches!(*part, "" | ".")) {
        depth = if part == ".." { std::cmp::max(depth - 1, 0) } else { depth + 1 };
    }
    path.starts_with('/') && depth == 0
}

fn capacity(spec: &Value, path: &Path, errors: &mut ErrorList) {
    let size = spec.map("capacity").map_or(0, serde_json::Map::len);
    if size == 0 {
        errors.push(field::required(path, ""));
    }
    if size > 1 || spec["capacity"].get("storage").is_none() {
        errors.push(field::not_supported(path, &spec["capacity"], &["storage"]));
    }
    for (name, value) in spec.entries("capacity") {
        let path = path.key(name.clone());
        basic_resource(value, &path, errors);
        positive_quantity(value, &path, errors);
    }
}

/// `validateBasicResource`.
pub(super) fn basic_resource(value: &Value, path: &Path, errors: &mut ErrorList) {
    let amount = quantity(value).value();
    if amount < 0 {
        errors.push(field::invalid(path, amount, "must be a valid resource quantity"));
    }
}

fn node_affinity(affinity: &Value, path: &Path, errors: &mut ErrorList) {
    match affinity.set("required") {
        Some(selector) => node_selector(selector, &path.child("required"), errors),
        None => errors.push(field::required(&path.child("required"), "must specify required node constraints")),
    }
}

fn sources(spec: &Value, name: &str, inline: bool, path: &Path, errors: &mut ErrorList) {
    let mut given = 0;
    for kind in SOURCES {
        let Some(source) = spec.set(kind) else { continue };
        // Upstream lets a flexVolume come after others.
        if given > 0 && kind != "flexVolume" {
            let shown = if kind == "cephfs" { "cephFS" } else { kind };
            errors.push(field::forbidden(&path.child(shown), "may not specify more than 1 volume type"));
            continue;
        }
        given += 1;
        one_source(kind, source, name, path, errors);
        if kind == "local" && (inline || spec.set("nodeAffinity").is_none()) {
            let message = "Local volume requires node affinity";
            errors.push(field::required(&path.child("nodeAffinity"), message));
        }
    }
    if given == 0 {
        errors.push(field::required(path, "must specify a volume type"));
    }
}

fn one_source(kind: &'static str, source: &Value, name: &str, spec: &Path, errors: &mut ErrorList) {
    let path = spec.child(if kind == "gcePersistentDisk" { "persistentDisk" } else { kind });
    match kind {
        "hostPath" => host_path(source, &path, errors),
        "glusterfs" => {
            shared(kind, source, &path, errors);
            if let Some(namespace) = source.set("endpointsNamespace").and_then(Value::as_str) {
                let at = path.child("endpointsNamespace");
                if namespace.is_empty() {
                    let message = "if the endpointnamespace is set, it must be a valid namespace name";
                    errors.push(field::invalid(&at, namespace, message));
                } else {
                    messages(name_is_label(namespace, false), namespace, &at, errors);
                }
            }
        }
        "iscsi" => persistent_iscsi(source, name, &path, errors),
        "cinder" | "storageos" => {
            shared(kind, source, &path, errors);
            if source.set("secretRef").is_some_and(|secret| secret.text("namespace").is_empty()) {
                errors.push(field::required(&path.children(&["secretRef", "namespace"]), ""));
            }
        }
        "azureFile" => {
            shared(kind, source, &path, errors);
            if source.set("secretNamespace").and_then(Value::as_str) == Some("") {
                errors.push(field::required(&path.child("secretNamespace"), ""));
            }
        }
        "local" => {
            let local = source.text("path");
            if local.is_empty() {
                errors.push(field::required(&path.child("path"), ""));
            } else {
                no_backsteps(local, &path.child("path"), errors);
            }
        }
        "csi" => csi(source, &path, errors),
        _ => shared(kind, source, &path, errors),
    }
}

fn csi(source: &Value, path: &Path, errors: &mut ErrorList) {
    csi_driver_name(source.text("driver"), &path.child("driver"), errors);
    if source.text("volumeHandle").is_empty() {
        errors.push(field::required(&path.child("volumeHandle"), ""));
    }
    const SECRETS: [&str; 4] =
        ["controllerPublishSecretRef", "controllerExpandSecretRef", "nodePublishSecretRef", "nodeExpandSecretRef"];
    for secret in SECRETS {
        let Some(reference) = source.set(secret) else { continue };
        let path = path.child(secret);
        let (name, namespace) = (reference.text("name"), reference.text("namespace"));
        if name.is_empty() {
            errors.push(field::required(&path.child("name"), ""));
        } else {
            dns1123_subdomain(name, &path.child("name"), errors);
        }
        if namespace.is_empty() {
            errors.push(field::required(&path.child("namespace"), ""));
        } else {
            dns1123_label(namespace, &path.child("namespace"), errors);
        }
    }
}

pub(super) fn update(new: &Value, old: &Value, errors: &mut ErrorList) {
    // Upstream looks at a changed volume twice.
    create(new, errors);
    create(new, errors);
    let (new, old) = (&new["spec"], &old["spec"]);
    if SOURCES.iter().any(|kind| !same_source(kind, &new[*kind], &old[*kind])) {
        let path = Path::new("spec").child("persistentvolumesource");
        let mut shown = only(new);
        if added_secret(&shown["csi"], &old["csi"]) {
            shown["csi"][EXPAND_SECRET] = Value::Null;
        }
        let diff = super::diff::of("PersistentVolumeSource", &only(old), &shown);
        errors
            .push(field::forbidden(&path, format!("spec.persistentvolumesource is immutable after creation\n{diff}")));
    }
    immutable(&new["volumeMode"], &old["volumeMode"], &Path::new("volumeMode"), errors);
    if let Some(affinity) = old.set("nodeAffinity") {
        pv_node_affinity(&new["nodeAffinity"], affinity, &Path::new("nodeAffinity"), errors);
    }
    let class = "volumeAttributesClassName";
    if old.set(class).is_some() && new.set(class).is_none() {
        let path = Path::new("spec").child(class);
        errors.push(field::forbidden(&path, "update from non-nil value to nil is forbidden"));
    }
}

/// The sources of a spec.
fn only(spec: &Value) -> Value {
    Value::Object(SOURCES.iter().filter_map(|kind| Some((kind.to_string(), spec.set(kind)?.clone()))).collect())
}

const EXPAND_SECRET: &str = "controllerExpandSecretRef";

fn added_secret(new: &Value, old: &Value) -> bool {
    old.is_object() && old.set(EXPAND_SECRET).is_none() && new.set(EXPAND_SECRET).is_some()
}

/// A driver's secret for expansion may be added later.
fn same_source(kind: &str, new: &Value, old: &Value) -> bool {
    if kind == "csi" && added_secret(new, old) {
        let mut new = new.clone();
        new[EXPAND_SECRET] = Value::Null;
        return semantically_equal(&new, old);
    }
    semantically_equal(new, old)
}

/// Labels of old names may be replaced by those of today.
fn pv_node_affinity(new: &Value, old: &Value, path: &Path, errors: &mut ErrorList) {
    let mut modern = old.clone();
    let terms = modern.pointer_mut("/required/nodeSelectorTerms").and_then(Value::as_array_mut);
    let mut changed = false;
    for (i, term) in terms.into_iter().flatten().enumerate() {
        let Some(theirs) = new["required"].list("nodeSelectorTerms").get(i) else { break };
        for list in ["matchExpressions", "matchFields"] {
            let requirements = term.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten();
            for (requirement, new) in requirements.zip(theirs.list(list)) {
                let ga = match requirement.text("key") {
                    "beta.kubernetes.io/os" => "kubernetes.io/os",
                    "beta.kubernetes.io/arch" => "kubernetes.io/arch",
                    "failure-domain.beta.kubernetes.io/zone" => "topology.kubernetes.io/zone",
                    "failure-domain.beta.kubernetes.io/region" => "topology.kubernetes.io/region",
                    "beta.kubernetes.io/instance-type" => "node.kubernetes.io/instance-type",
                    _ => continue,
                };
                if new.text("key") == ga {
                    requirement["key"] = ga.into();
                    changed = true;
                }
            }
        }
    }
    if !semantically_equal(new, if changed { &modern } else { old }) {
        let message = format!("{IMMUTABLE}, except for updating from beta label to GA");
        errors.push(field::invalid(path, new, message));
    }
}

pub(super) fn update_status(new: &Value, old: &Value, errors: &mut ErrorList) {
    object_meta::update(new, old, errors);
    if new["metadata"].text("resourceVersion").is_empty() {
        errors.push(field::required(&Path::new("resourceVersion"), ""));
    }
}
