//! The volume sources of storage systems: required fields, mostly.

use apimachinery::field::{self, ErrorList, Path};
use apimachinery::names::{self, inclusive_range_error};
use serde_json::Value;

use super::super::checks::{messages, name_is_subdomain};
use super::super::read::Read;
use super::volumes::descending_path;

pub(super) fn check(kind: &str, source: &Value, volume_name: &str, volume: &Path, path: &Path, errors: &mut ErrorList) {
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
        "iscsi" => {
            iscsi(source, path, errors);
            let label = format!("{volume_name}:{}", source.text("targetPortal"));
            if source.set("initiatorName").is_some() && label.len() > 64 {
                errors.push(field::invalid(
                    &volume.child("name"),
                    volume_name,
                    "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified.",
                ));
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
        "cephfs" => {
            if source.list("monitors").is_empty() {
                errors.push(field::required(&path.child("monitors"), ""));
            }
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

fn iscsi(source: &Value, path: &Path, errors: &mut ErrorList) {
    for name in ["targetPortal", "iqn"] {
        if source.text(name).is_empty() {
            errors.push(field::required(&path.child(name), ""));
        }
    }
    let known = |name: &str| ["iqn", "eui", "naa"].iter().any(|p| name.starts_with(p));
    let alnum = |s: &str, n: usize| s.len() == n && s.bytes().all(|b| b.is_ascii_alphanumeric());
    let valid = |name: &str| match name.get(..3) {
        Some("iqn") => {
            let date = name.get(4..11).unwrap_or_default().as_bytes();
            let digits = |r: std::ops::Range<usize>| date.get(r).is_some_and(|d| d.iter().all(u8::is_ascii_digit));
            let rest = name.get(12..).unwrap_or_default();
            let dated = digits(0..4) && date.get(4) == Some(&b'-') && digits(5..7);
            dated
                && rest.split_once(':').is_some_and(|(host, tail)| {
                    !host.is_empty() && !tail.is_empty() && !tail.contains([',', ';', '*', '&', '$', '|', ' '])
                })
        }
        Some("eui") => alnum(name.get(4..).unwrap_or_default(), 16),
        _ => alnum(name.get(4..).unwrap_or_default(), 32),
    };
    let names = [("iqn", source.text("iqn")), ("initiatorname", source.text("initiatorName"))];
    let mut check = |(field_name, name): (&'static str, &str)| {
        if !name.is_empty() && !known(name) {
            let message = "must be valid format starting with iqn, eui, or naa";
            errors.push(field::invalid(&path.child(field_name), name, message));
        } else if !name.is_empty() && !valid(name) {
            errors.push(field::invalid(&path.child(field_name), name, "must be valid format"));
        }
    };
    check(names[0]);
    check(names[1]);
    let lun = source.num("lun");
    if !(0..=255).contains(&lun) {
        errors.push(field::invalid(&path.child("lun"), lun, inclusive_range_error(0, 255)));
    }
    let chap = source.flag("chapAuthDiscovery") || source.flag("chapAuthSession");
    if chap && source.set("secretRef").is_none() {
        errors.push(field::required(&path.child("secretRef"), ""));
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
    if kind != "Managed"
        && !kind.is_empty()
        && !uri.is_empty()
        && !uri.starts_with("https://")
        && !uri.starts_with("http://")
    {
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
