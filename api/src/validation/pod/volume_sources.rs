//! The volume sources of storage systems: required fields, mostly.

use apimachinery::field::{self, ErrorList, Path};
use apimachinery::names::{self, inclusive_range_error};
use serde_json::Value;

use super::super::checks::{messages, name_is_subdomain};
use super::volumes::descending_path;
use crate::read::Read;

/// The source of a pod's volume.
pub(super) fn check(kind: &str, source: &Value, volume_name: &str, volume: &Path, path: &Path, errors: &mut ErrorList) {
    match kind {
        "iscsi" => {
            iscsi(source, " starting with iqn, eui, or naa", path, errors);
            let label = format!("{volume_name}:{}", source.text("targetPortal"));
            if source.set("initiatorName").is_some() && label.len() > 64 {
                errors.push(field::invalid(&volume.child("name"), volume_name, LONG_LABEL));
            }
        }
        "csi" => {
            csi_driver_name(source.text("driver"), &path.child("driver"), errors);
            if let Some(secret) = source.set("nodePublishSecretRef") {
                let name = secret.text("name");
                if name.is_empty() {
                    errors.push(field::required(&path.children(&["nodePublishSecretRef", "name"]), ""));
                } else {
                    messages(name_is_subdomain(name, false), name, &path.child("name"), errors);
                }
            }
        }
        _ => shared(kind, source, path, errors),
    }
}

const LONG_LABEL: &str = "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified.";

/// Sources with the same rules in pods and in PersistentVolumes.
pub(in super::super) fn shared(kind: &str, source: &Value, path: &Path, errors: &mut ErrorList) {
    let mut required = |names: &[&'static str]| {
        for name in names {
            if source.text(name).is_empty() {
                errors.push(field::required(&path.child(*name), ""));
            }
        }
    };
    match kind {
        "gitRepo" => {
            required(&["repository"]);
            descending_path(source.text("directory"), &path.child("directory"), errors);
        }
        "gcePersistentDisk" => {
            required(&["pdName"]);
            partition(source, path, errors);
        }
        "awsElasticBlockStore" => {
            required(&["volumeID"]);
            partition(source, path, errors);
        }
        "nfs" => {
            required(&["server", "path"]);
            if !source.text("path").starts_with('/') {
                errors.push(field::invalid(&path.child("path"), source.text("path"), "must be an absolute path"));
            }
        }
        "glusterfs" => required(&["endpoints", "path"]),
        "flocker" => flocker(source, path, errors),
        "rbd" => {
            if source.list("monitors").is_empty() {
                errors.push(field::required(&path.child("monitors"), ""));
            }
            if source.text("image").is_empty() {
                errors.push(field::required(&path.child("image"), ""));
            }
        }
        "cinder" => {
            required(&["volumeID"]);
            secret_name(source, path, errors);
        }
        "cephfs" if source.list("monitors").is_empty() => {
            errors.push(field::required(&path.child("monitors"), ""));
        }
        "quobyte" => quobyte(source, path, errors),
        "fc" => fibre_channel(source, path, errors),
        "flexVolume" => {
            required(&["driver"]);
            for (key, _) in source.entries("options") {
                let lower = key.to_lowercase();
                let namespace = lower.split('/').next().unwrap_or_default();
                let reserved = ["kubernetes.io", "k8s.io"]
                    .iter()
                    .any(|d| namespace == *d || namespace.ends_with(&format!(".{d}")));
                if lower.contains('/') && reserved {
                    let message = "kubernetes.io and k8s.io namespaces are reserved";
                    errors.push(field::invalid(&path.child("options").key(key.clone()), key, message));
                }
            }
        }
        "azureFile" => required(&["secretName", "shareName"]),
        "vsphereVolume" => required(&["volumePath"]),
        "photonPersistentDisk" => required(&["pdID"]),
        "portworxVolume" => required(&["volumeID"]),
        "azureDisk" => azure_disk(source, path, errors),
        "storageos" => {
            let name = source.text("volumeName");
            if name.is_empty() {
                errors.push(field::required(&path.child("volumeName"), ""));
            } else {
                messages(names::dns1123_label(name), name, &path.child("volumeName"), errors);
            }
            let namespace = source.text("volumeNamespace");
            if !namespace.is_empty() {
                messages(names::dns1123_label(namespace), namespace, &path.child("volumeNamespace"), errors);
            }
            secret_name(source, path, errors);
        }
        "scaleIO" => required(&["gateway", "system", "volumeName"]),
        _ => {}
    }
}

fn secret_name(source: &Value, path: &Path, errors: &mut ErrorList) {
    if source.set("secretRef").is_some_and(|s| s.text("name").is_empty()) {
        errors.push(field::required(&path.children(&["secretRef", "name"]), ""));
    }
}

fn partition(source: &Value, path: &Path, errors: &mut ErrorList) {
    let number = source.num("partition");
    if !(0..=255).contains(&number) {
        errors.push(field::invalid(&path.child("partition"), number, inclusive_range_error(1, 255)));
    }
}

/// iSCSI of a PersistentVolume, which has the volume's name in its own place.
pub(in super::super) fn persistent_iscsi(source: &Value, volume_name: &str, path: &Path, errors: &mut ErrorList) {
    let portal = source.text("targetPortal");
    let long = source.set("initiatorName").is_some() && volume_name.len() + 1 + portal.len() > 64;
    let before = errors.len();
    iscsi(source, "", path, errors);
    if long {
        let at = before + usize::from(portal.is_empty());
        errors.0.insert(at, field::invalid(&path.child("targetportal"), portal, LONG_LABEL));
    }
    secret_name(source, path, errors);
    // Upstream looks at the initiator after the secret.
    let initiator = |error: &field::FieldError| error.field.ends_with(".initiatorname");
    errors.0[before..].sort_by_key(initiator);
}

fn iscsi(source: &Value, form: &str, path: &Path, errors: &mut ErrorList) {
    for name in ["targetPortal", "iqn"] {
        if source.text(name).is_empty() {
            errors.push(field::required(&path.child(name), ""));
        }
    }
    let name = source.text("iqn");
    if !name.is_empty() {
        iscsi_name(name, form, &path.child("iqn"), errors);
    }
    let lun = source.num("lun");
    if !(0..=255).contains(&lun) {
        errors.push(field::invalid(&path.child("lun"), lun, inclusive_range_error(0, 255)));
    }
    let chap = source.flag("chapAuthDiscovery") || source.flag("chapAuthSession");
    if chap && source.set("secretRef").is_none() {
        errors.push(field::required(&path.child("secretRef"), ""));
    }
    if let Some(name) = source.set("initiatorName").and_then(Value::as_str) {
        iscsi_name(name, form, &path.child("initiatorname"), errors);
    }
}

fn iscsi_name(name: &str, form: &str, path: &Path, errors: &mut ErrorList) {
    let alnum = |s: &str, n: usize| s.len() == n && s.bytes().all(|b| b.is_ascii_alphanumeric());
    // Upstream's pattern for iqn is not anchored at its start.
    let iqn = || {
        name.match_indices("iqn.").any(|(at, _)| {
            let date = &name.as_bytes()[at + 4..];
            let digits = |r: std::ops::Range<usize>| date.get(r).is_some_and(|d| d.iter().all(u8::is_ascii_digit));
            let dated = digits(0..4) && date.get(4) == Some(&b'-') && digits(5..7) && date.get(7) == Some(&b'.');
            dated
                && name[at + 12..].split_once(':').is_some_and(|(host, tail)| {
                    let known = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.');
                    let odd = |c: char| matches!(c, ',' | ';' | '*' | '&' | '$' | '|') || c.is_ascii_whitespace();
                    !host.is_empty() && host.bytes().all(known) && !tail.is_empty() && !tail.contains(odd)
                })
        })
    };
    let rest = |n: usize| name.char_indices().nth(n).map_or("", |(at, _)| &name[at..]);
    let valid = match name.get(..3) {
        Some("iqn") => iqn(),
        Some("eui") => alnum(rest(4), 16),
        Some("naa") => alnum(rest(4), 32),
        _ => {
            errors.push(field::invalid(path, name, format!("must be valid format{form}")));
            return;
        }
    };
    if !valid {
        errors.push(field::invalid(path, name, "must be valid format"));
    }
}

fn flocker(source: &Value, path: &Path, errors: &mut ErrorList) {
    let (name, uuid) = (source.text("datasetName"), source.text("datasetUUID"));
    if name.is_empty() && uuid.is_empty() {
        errors.push(field::required(path, "one of datasetName and datasetUUID is required"));
    }
    if !name.is_empty() && !uuid.is_empty() {
        let message = "datasetName and datasetUUID can not be specified simultaneously";
        errors.push(field::invalid(path, "resource", message));
    }
    if name.contains('/') {
        errors.push(field::invalid(&path.child("datasetName"), name, "must not contain '/'"));
    }
}

fn quobyte(source: &Value, path: &Path, errors: &mut ErrorList) {
    const PAIRS: &str = "must be a host:port pair or multiple pairs separated by commas";
    let registry = source.text("registry");
    if registry.is_empty() {
        errors.push(field::required(&path.child("registry"), PAIRS));
    } else if source.text("tenant").len() >= 65 {
        let message = "must be a UUID and may not exceed a length of 64 characters";
        errors.push(field::required(&path.child("tenant"), message));
    } else {
        for pair in registry.split(',').filter(|p| p.matches(':').count() != 1) {
            let _ = pair;
            errors.push(field::invalid(&path.child("registry"), registry, PAIRS));
        }
    }
    if source.text("volume").is_empty() {
        errors.push(field::required(&path.child("volume"), ""));
    }
}

fn fibre_channel(source: &Value, path: &Path, errors: &mut ErrorList) {
    let (names, ids) = (source.list("targetWWNs"), source.list("wwids"));
    if names.is_empty() && ids.is_empty() {
        let message = "must specify either targetWWNs or wwids, but not both";
        errors.push(field::required(&path.child("targetWWNs"), message));
    }
    if !names.is_empty() && !ids.is_empty() {
        let message = "targetWWNs and wwids can not be specified simultaneously";
        errors.push(field::invalid(&path.child("targetWWNs"), &source["targetWWNs"], message));
    }
    if !names.is_empty() {
        match source.int("lun") {
            None => errors.push(field::required(&path.child("lun"), "lun is required if targetWWNs is specified")),
            Some(lun) if !(0..=255).contains(&lun) => {
                errors.push(field::invalid(&path.child("lun"), lun, inclusive_range_error(0, 255)));
            }
            Some(_) => {}
        }
    }
}

fn azure_disk(source: &Value, path: &Path, errors: &mut ErrorList) {
    for (name, field_name) in [("diskName", "diskName"), ("diskURI", "diskURI")] {
        if source.text(name).is_empty() {
            errors.push(field::required(&path.child(field_name), ""));
        }
    }
    let (caching, kind) = (source.text("cachingMode"), source.text("kind"));
    if source.set("cachingMode").is_some() && !["None", "ReadOnly", "ReadWrite"].contains(&caching) {
        errors.push(field::not_supported(&path.child("cachingMode"), caching, &["None", "ReadOnly", "ReadWrite"]));
    }
    if source.set("kind").is_some() && !["Dedicated", "Managed", "Shared"].contains(&kind) {
        errors.push(field::not_supported(&path.child("kind"), kind, &["Dedicated", "Managed", "Shared"]));
    }
    let uri = source.text("diskURI");
    if kind == "Managed" && !uri.starts_with("/subscriptions/") {
        let supported =
            ["/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}"];
        errors.push(field::not_supported(&path.child("diskURI"), uri, &supported));
    }
    if source.set("kind").is_some() && kind != "Managed" && !uri.starts_with("https://") {
        let supported = ["https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd"];
        errors.push(field::not_supported(&path.child("diskURI"), uri, &supported));
    }
}

/// The name of a CSI driver: a domain of at most 63 characters.
pub(in super::super) fn csi_driver_name(driver: &str, path: &Path, errors: &mut ErrorList) {
    if driver.is_empty() {
        errors.push(field::required(path, ""));
        return;
    }
    if driver.len() > 63 {
        errors.push(field::too_long(path, 63));
    }
    for message in names::dns1123_subdomain(&driver.to_lowercase()) {
        errors.push(field::invalid(path, driver, message));
    }
}
