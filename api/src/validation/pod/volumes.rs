//! Volumes of a pod, their mounts and devices.

use std::collections::{BTreeMap, BTreeSet};

use apimachinery::field::{self, ErrorList, Path};
use apimachinery::gotext::quote;
use apimachinery::names;
use serde_json::Value;

use super::super::certificates::pod::{is_of_kubernetes, user_annotations};
use super::super::certificates::signer_name;
use super::super::checks::{dns1123_label, label_selector, messages, name_is_subdomain, quantity};
use super::super::persistent_volume_claim;
use super::env::{VOLUME_FIELDS, field_ref, resource_field_ref};
use super::volume_sources;
use crate::read::Read;

const MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";
/// In the order in which a second source is complained about.
const SOURCES: &[&str] = &[
    "emptyDir",
    "hostPath",
    "gitRepo",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "secret",
    "nfs",
    "iscsi",
    "glusterfs",
    "flocker",
    "persistentVolumeClaim",
    "rbd",
    "cinder",
    "cephfs",
    "quobyte",
    "downwardAPI",
    "fc",
    "flexVolume",
    "configMap",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "storageos",
    "projected",
    "scaleIO",
    "csi",
    "ephemeral",
    "image",
];

/// Volumes by name, those without an error only.
pub(super) type Volumes<'a> = BTreeMap<&'a str, &'a Value>;

/// `pod_name` is empty in templates.
pub(super) fn volumes<'a>(list: &'a [Value], pod_name: &str, path: &Path, errors: &mut ErrorList) -> Volumes<'a> {
    let mut known = Volumes::new();
    for (i, volume) in list.iter().enumerate() {
        let path = path.index(i);
        let name = volume.text("name");
        let before = errors.len();
        source(volume, name, pod_name, &path, errors);
        if name.is_empty() {
            errors.push(field::required(&path.child("name"), ""));
        } else {
            dns1123_label(name, &path.child("name"), errors);
        }
        if known.contains_key(name) {
            errors.push(field::duplicate(&path.child("name"), name));
        }
        if errors.len() == before {
            known.insert(name, volume);
        }
        if let Some(claim) = volume.set("persistentVolumeClaim").filter(|_| !pod_name.is_empty()) {
            let claim = claim.text("claimName");
            let made = |v: &Value| v.set("ephemeral").is_some() && claim == format!("{pod_name}-{}", v.text("name"));
            if list.iter().any(made) {
                errors.push(field::invalid(
                    &path.child("persistentVolumeClaim").child("claimName"),
                    claim,
                    "must not reference a PVC that gets created for an ephemeral volume",
                ));
            }
        }
    }
    known
}

fn source(volume: &Value, name: &str, pod_name: &str, path: &Path, errors: &mut ErrorList) {
    let mut given = 0;
    for kind in SOURCES {
        let Some(source) = volume.set(kind) else { continue };
        if given > 0 {
            let shown = match *kind {
                "downwardAPI" => "downwarAPI",
                "cephfs" => "cephFS",
                other => other,
            };
            errors.push(field::forbidden(&path.child(shown), "may not specify more than 1 volume type"));
            continue;
        }
        given += 1;
        one_source(kind, source, name, pod_name, path, errors);
    }
    if given == 0 {
        errors.push(field::required(path, "must specify a volume type"));
    }
}

fn one_source(kind: &'static str, source: &Value, name: &str, pod_name: &str, volume: &Path, errors: &mut ErrorList) {
    let path = volume.child(if kind == "gcePersistentDisk" { "persistentDisk" } else { kind });
    let mut required = |field: &'static str| {
        if source.text(field).is_empty() {
            errors.push(field::required(&path.child(field), ""));
        }
    };
    match kind {
        "emptyDir" => {
            if source.set("sizeLimit").is_some_and(|q| quantity(q).sign() < 0) {
                errors.push(field::forbidden(
                    &path.child("sizeLimit"),
                    "SizeLimit field must be a valid resource quantity",
                ));
            }
        }
        "hostPath" => host_path(source, &path, errors),
        "secret" => {
            required("secretName");
            mode(source, "defaultMode", &path, errors);
            keys(source, &path, errors);
        }
        "configMap" => {
            required("name");
            mode(source, "defaultMode", &path, errors);
            keys(source, &path, errors);
        }
        "persistentVolumeClaim" => required("claimName"),
        "downwardAPI" => {
            mode(source, "defaultMode", &path, errors);
            for file in source.list("items") {
                downward_file(file, &path, errors);
            }
        }
        "projected" => {
            mode(source, "defaultMode", &path, errors);
            projections(source, &path, errors);
        }
        "ephemeral" => {
            match source.set("volumeClaimTemplate") {
                None => errors.push(field::required(&path.child("volumeClaimTemplate"), "")),
                Some(template) => {
                    persistent_volume_claim::template(template, &path.child("volumeClaimTemplate"), errors);
                }
            }
            if !pod_name.is_empty() && !name.is_empty() {
                let claim = format!("{pod_name}-{name}");
                for message in name_is_subdomain(&claim, false) {
                    errors.push(field::invalid(
                        &volume.child("name"),
                        name,
                        format!("PVC name {}: {message}", quote(&claim)),
                    ));
                }
            }
        }
        "image" => {
            if source.text("reference").is_empty() && !pod_name.is_empty() {
                errors.push(field::required(&path.child("reference"), ""));
            }
            super::containers::pull_policy(source.text("pullPolicy"), &path.child("pullPolicy"), errors);
        }
        _ => volume_sources::check(kind, source, name, volume, &path, errors),
    }
}

const HOST_PATH_TYPES: &[&str] =
    &["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];

pub(in super::super) fn host_path(source: &Value, path: &Path, errors: &mut ErrorList) {
    let host = source.text("path");
    if host.is_empty() {
        errors.push(field::required(&path.child("path"), ""));
        return;
    }
    no_backsteps(host, &path.child("path"), errors);
    if let Some(kind) = source.set("type").and_then(Value::as_str).filter(|k| !HOST_PATH_TYPES.contains(k)) {
        errors.push(field::not_supported(&path.child("type"), kind, HOST_PATH_TYPES));
    }
}

fn mode(source: &Value, name: &'static str, path: &Path, errors: &mut ErrorList) {
    if let Some(mode) = source.int(name).filter(|m| !(0..=0o777).contains(m)) {
        errors.push(field::invalid(&path.child(name), mode, MODE));
    }
}

fn keys(source: &Value, path: &Path, errors: &mut ErrorList) {
    for (i, item) in source.list("items").iter().enumerate() {
        key_to_path(item, &path.child("items").index(i), errors);
    }
}

fn key_to_path(item: &Value, path: &Path, errors: &mut ErrorList) {
    for name in ["key", "path"] {
        if item.text(name).is_empty() {
            errors.push(field::required(&path.child(name), ""));
        }
    }
    local_path(item.text("path"), &path.child("path"), errors);
    mode(item, "mode", path, errors);
}

/// `ValidateLocalNonReservedPath`.
fn local_path(target: &str, path: &Path, errors: &mut ErrorList) {
    descending_path(target, path, errors);
    if target.starts_with("..") && !target.starts_with("../") {
        errors.push(field::invalid(path, target, "must not start with '..'"));
    }
}

/// A path that leads down from where it starts.
pub(super) fn descending_path(target: &str, path: &Path, errors: &mut ErrorList) {
    if target.starts_with('/') {
        errors.push(field::invalid(path, target, "must be a relative path"));
    }
    no_backsteps(target, path, errors);
}

pub(in super::super) fn no_backsteps(target: &str, path: &Path, errors: &mut ErrorList) {
    if target.split('/').any(|part| part == "..") {
        errors.push(field::invalid(path, target, "must not contain '..'"));
    }
}

fn downward_file(file: &Value, path: &Path, errors: &mut ErrorList) {
    if file.text("path").is_empty() {
        errors.push(field::required(&path.child("path"), ""));
    }
    local_path(file.text("path"), &path.child("path"), errors);
    match (file.set("fieldRef"), file.set("resourceFieldRef")) {
        (Some(reference), resource) => {
            field_ref(reference, VOLUME_FIELDS, &path.child("fieldRef"), errors);
            if resource.is_some() {
                let message = "fieldRef and resourceFieldRef can not be specified simultaneously";
                errors.push(field::invalid(path, "resource", message));
            }
        }
        (None, Some(reference)) => resource_field_ref(reference, true, &path.child("resourceFieldRef"), errors),
        (None, None) => errors.push(field::required(path, "one of fieldRef and resourceFieldRef is required")),
    }
    mode(file, "mode", path, errors);
}

fn projections(projected: &Value, path: &Path, errors: &mut ErrorList) {
    let mut used: BTreeSet<String> = BTreeSet::new();
    let mut claim = |target: &str, shown: &str, errors: &mut ErrorList| {
        if !used.insert(target.to_owned()) {
            errors.push(field::invalid(path, shown, "conflicting duplicate paths"));
        }
    };
    for (i, source) in projected.list("sources").iter().enumerate() {
        let at = path.child("sources").index(i);
        let mut given = 0;
        for kind in ["secret", "configMap"] {
            let Some(source) = source.set(kind) else { continue };
            given += 1;
            let at = at.child(kind);
            if source.text("name").is_empty() {
                errors.push(field::required(&at.child("name"), ""));
            }
            for (i, item) in source.list("items").iter().enumerate() {
                key_to_path(item, &at.child("items").index(i), errors);
                if !item.text("path").is_empty() {
                    claim(item.text("path"), source.text("name"), errors);
                }
            }
        }
        if let Some(source) = source.set("downwardAPI") {
            given += 1;
            for file in source.list("items") {
                downward_file(file, &at.child("downwardAPI"), errors);
                if !file.text("path").is_empty() {
                    claim(file.text("path"), file.text("path"), errors);
                }
            }
        }
        if let Some(token) = source.set("serviceAccountToken") {
            given += 1;
            let at = at.child("serviceAccountToken").child("expirationSeconds");
            let seconds = token.num("expirationSeconds");
            if seconds < 600 {
                errors.push(field::invalid(&at, seconds, "may not specify a duration less than 10 minutes"));
            }
            if seconds > 1 << 32 {
                errors.push(field::invalid(&at, seconds, "may not specify a duration larger than 2^32 seconds"));
            }
            if token.text("path").is_empty() {
                errors.push(field::required(&path.child("path"), ""));
            } else {
                local_path(token.text("path"), &path.child("path"), errors);
            }
        }
        if let Some(bundle) = source.set("clusterTrustBundle") {
            given += 1;
            trust_bundle(bundle, &at.child("clusterTrustBundle"), errors);
            claim(bundle.text("path"), bundle.text("path"), errors);
        }
        if let Some(certificate) = source.set("podCertificate") {
            given += 1;
            pod_certificate(certificate, &at.child("podCertificate"), errors);
            for name in ["credentialBundlePath", "keyPath", "certificateChainPath"] {
                if !certificate.text(name).is_empty() {
                    claim(certificate.text(name), certificate.text(name), errors);
                }
            }
        }
        if given > 1 {
            errors.push(field::forbidden(&at, "may not specify more than 1 volume type per source"));
        }
    }
}

fn trust_bundle(bundle: &Value, path: &Path, errors: &mut ErrorList) {
    match (bundle.set("name").is_some(), bundle.set("signerName").is_some()) {
        (true, true) => {
            errors.push(field::invalid(path, bundle, "only one of name and signerName may be used"));
        }
        (true, false) => {
            let name = bundle.text("name");
            if name.is_empty() {
                errors.push(field::required(&path.child("name"), "must be a valid object name"));
            }
            for message in names::path_segment(name) {
                let message = format!("not a valid clustertrustbundlename: {message}");
                errors.push(field::invalid(&path.child("name"), name, message));
            }
            if let Some(selector) = bundle.set("labelSelector") {
                errors.push(field::invalid(
                    &path.child("labelSelector"),
                    selector,
                    "labelSelector must be unset if name is specified",
                ));
            }
        }
        (false, true) => {
            if bundle.text("signerName").is_empty() {
                errors.push(field::required(&path.child("signerName"), "must be a valid signer name"));
            }
            label_selector(&bundle["labelSelector"], &path.child("labelSelector"), errors);
        }
        (false, false) => errors.push(field::required(path, "either name or signerName must be specified")),
    }
    if bundle.text("path").is_empty() {
        errors.push(field::required(&path.child("path"), ""));
    }
    local_path(bundle.text("path"), &path.child("path"), errors);
}

const KEY_TYPES: &[&str] = &["RSA3072", "RSA4096", "ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519"];

fn pod_certificate(certificate: &Value, path: &Path, errors: &mut ErrorList) {
    signer_name(certificate.text("signerName"), &path.child("signerName"), errors);
    user_annotations(&certificate["userAnnotations"], &path.child("userAnnotations"), errors);
    if !KEY_TYPES.contains(&certificate.text("keyType")) {
        errors.push(field::not_supported(&path.child("keyType"), certificate.text("keyType"), KEY_TYPES));
    }
    if let Some(seconds) = certificate.int("maxExpirationSeconds") {
        let at = path.child("maxExpirationSeconds");
        if seconds < 3600 {
            errors.push(field::invalid(&at, seconds, "if provided, maxExpirationSeconds must be >= 3600"));
        }
        let max = if is_of_kubernetes(certificate.text("signerName")) { 86400 } else { 91 * 86400 };
        if seconds > max {
            let message = format!("if provided, maxExpirationSeconds must be <= {max}");
            errors.push(field::invalid(&at, seconds, message));
        }
    }
    let mut given = 0;
    for name in ["credentialBundlePath", "keyPath", "certificateChainPath"] {
        if !certificate.text(name).is_empty() {
            given += 1;
            local_path(certificate.text(name), &path.child(name), errors);
        }
    }
    if given == 0 {
        let message = "specify at least one of credentialBundlePath, keyPath, and certificateChainPath";
        errors.push(field::required(path, message));
    }
}

const PROPAGATIONS: &[&str] = &["Bidirectional", "HostToContainer", "None"];

pub(super) fn mounts(container: &Value, volumes: &Volumes<'_>, path: &Path, errors: &mut ErrorList) {
    let devices = container.list("volumeDevices");
    let mut points = BTreeSet::new();
    for (i, mount) in container.list("volumeMounts").iter().enumerate() {
        let at = path.index(i);
        let (name, target) = (mount.text("name"), mount.text("mountPath"));
        if name.is_empty() {
            errors.push(field::required(&at.child("name"), ""));
        }
        if !volumes.contains_key(name) {
            errors.push(field::not_found(&at.child("name"), name));
        }
        if target.is_empty() {
            errors.push(field::required(&at.child("mountPath"), ""));
        }
        if !points.insert(target) {
            errors.push(field::invalid(&at.child("mountPath"), target, "must be unique"));
        }
        if devices.iter().any(|d| d.text("name") == name) {
            errors.push(field::invalid(&at.child("name"), name, "must not already exist in volumeDevices"));
        }
        if devices.iter().any(|d| d.text("devicePath") == target) {
            let message = "must not already exist as a path in volumeDevices";
            errors.push(field::invalid(&at.child("mountPath"), target, message));
        }
        // Upstream leaves the index out of these paths.
        let (sub_path, expression) = (mount.text("subPath"), mount.text("subPathExpr"));
        if !sub_path.is_empty() {
            descending_path(sub_path, &path.child("subPath"), errors);
        }
        if !expression.is_empty() {
            if !sub_path.is_empty() {
                let message = "subPathExpr and subPath are mutually exclusive";
                errors.push(field::invalid(&at.child("subPathExpr"), expression, message));
            }
            descending_path(expression, &path.child("subPathExpr"), errors);
        }
        if let Some(propagation) = mount.set("mountPropagation").and_then(Value::as_str) {
            let path = path.child("mountPropagation");
            if !PROPAGATIONS.contains(&propagation) {
                errors.push(field::not_supported(&path, propagation, PROPAGATIONS));
            }
            if propagation == "Bidirectional" && !container["securityContext"].flag("privileged") {
                let message = "Bidirectional mount propagation is available only to privileged containers";
                errors.push(field::forbidden(&path, message));
            }
        }
        recursive_read_only(mount, &path.child("recursiveReadOnly"), errors);
    }
}

fn recursive_read_only(mount: &Value, path: &Path, errors: &mut ErrorList) {
    match mount.set("recursiveReadOnly").and_then(Value::as_str) {
        None | Some("Disabled") => {}
        Some("Enabled" | "IfPossible") => {
            if !mount.flag("readOnly") {
                errors.push(field::forbidden(path, "may only be specified when readOnly is true"));
            }
            if !matches!(mount.text("mountPropagation"), "" | "None") {
                let message = "may only be specified when mountPropagation is None or not specified";
                errors.push(field::forbidden(path, message));
            }
        }
        Some(other) => errors.push(field::not_supported(path, other, &["Disabled", "Enabled", "IfPossible"])),
    }
}

pub(super) fn devices(container: &Value, volumes: &Volumes<'_>, path: &Path, errors: &mut ErrorList) {
    let mounts = container.list("volumeMounts");
    let (mut paths, mut names_seen) = (BTreeSet::new(), BTreeSet::new());
    for (i, device) in container.list("volumeDevices").iter().enumerate() {
        let at = path.index(i);
        let (name, target) = (device.text("name"), device.text("devicePath"));
        let volume = volumes.get(name);
        if name.is_empty() {
            errors.push(field::required(&at.child("name"), ""));
        }
        if names_seen.contains(name) {
            errors.push(field::invalid(&at.child("name"), name, "must be unique"));
        }
        if volume.is_some_and(|v| v.set("persistentVolumeClaim").is_none() && v.set("ephemeral").is_none()) {
            let message = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
            errors.push(field::invalid(&at.child("name"), name, message));
        }
        if volume.is_none() {
            errors.push(field::not_found(&at.child("name"), name));
        }
        if target.is_empty() {
            errors.push(field::required(&at.child("devicePath"), ""));
        }
        if paths.contains(target) {
            errors.push(field::invalid(&at.child("devicePath"), target, "must be unique"));
        }
        if target.split('/').any(|part| part == "..") {
            errors.push(field::invalid(&at.child("devicePath"), target, "can not contain backsteps ('..')"));
        } else {
            paths.insert(target);
        }
        if mounts.iter().any(|m| m.text("name") == name) {
            errors.push(field::invalid(&at.child("name"), name, "must not already exist in volumeMounts"));
        }
        if mounts.iter().any(|m| m.text("mountPath") == target) {
            let message = "must not already exist as a path in volumeMounts";
            errors.push(field::invalid(&at.child("devicePath"), target, message));
        }
        if !name.is_empty() {
            names_seen.insert(name);
        }
    }
}

/// `resourceClaims` of a pod; gives their names.
pub(super) fn resource_claims<'a>(spec: &'a Value, path: &Path, errors: &mut ErrorList) -> BTreeSet<&'a str> {
    let mut seen = BTreeSet::new();
    for (i, claim) in spec.list("resourceClaims").iter().enumerate() {
        let path = path.index(i);
        let name = claim.text("name");
        if name.is_empty() {
            errors.push(field::required(&path.child("name"), ""));
        } else if seen.contains(name) {
            errors.push(field::duplicate(&path.child("name"), name));
        } else {
            dns1123_label(name, &path.child("name"), errors);
            seen.insert(name);
        }
        let given = ["resourceClaimName", "resourceClaimTemplateName"].map(|f| claim.set(f).is_some());
        let shown = || {
            let quoted = |f: &str| claim.set(f).map_or("null".to_owned(), |v| v.to_string());
            field::BadValue::Raw(format!(
                "{{\"Name\":{},\"ResourceClaimName\":{},\"ResourceClaimTemplateName\":{}}}",
                quote(name),
                quoted("resourceClaimName"),
                quoted("resourceClaimTemplateName")
            ))
        };
        match given {
            [true, true] => errors.push(field::invalid(
                &path,
                shown(),
                "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified",
            )),
            [false, false] => errors.push(field::invalid(
                &path,
                shown(),
                "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`",
            )),
            _ => {}
        }
        for name in ["resourceClaimName", "resourceClaimTemplateName"] {
            if let Some(value) = claim.set(name).and_then(Value::as_str) {
                messages(name_is_subdomain(value, false), value, &path.child(name), errors);
            }
        }
    }
    seen
}
