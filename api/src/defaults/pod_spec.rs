//! What every pod spec gets, in a Pod or in a template.

use serde_json::{Value, json};

use super::resource_list::{round, round_resources};
use super::set::{Tree, at, child, if_nil, if_zero, is_zero, items, text};

/// A volume with nothing but this has no source yet, and becomes an emptyDir.
const VOLUME_NAME: &str = "name";

/// A pod template.
pub(super) fn template(template: Option<&mut Value>) {
    if let Some(spec) = template.and_then(|t| at(t, &["spec"])) {
        set(spec);
    }
}

pub(super) fn set(spec: &mut Tree) {
    if_zero(spec, "dnsPolicy", "ClusterFirst");
    if_zero(spec, "restartPolicy", "Always");
    if_nil(spec, "securityContext", json!({}));
    if_nil(spec, "terminationGracePeriodSeconds", 30);
    if_zero(spec, "schedulerName", "default-scheduler");
    items(spec, "volumes").for_each(volume);
    for containers in ["initContainers", "containers", "ephemeralContainers"] {
        items(spec, containers).for_each(container);
    }
    round(spec, "overhead");
    round_resources(spec, "resources");
}

fn volume(volume: &mut Tree) {
    if volume.keys().all(|key| key == VOLUME_NAME) {
        volume.insert("emptyDir".into(), json!({}));
    }
    for (source, mode) in [("secret", 0o644), ("configMap", 0o644), ("downwardAPI", 0o644), ("projected", 0o644)] {
        if let Some(source) = child(volume, source) {
            if_nil(source, "defaultMode", mode);
        }
    }
    if let Some(api) = child(volume, "downwardAPI") {
        downward_items(api);
    }
    if let Some(projected) = child(volume, "projected") {
        for source in items(projected, "sources") {
            if let Some(api) = child(source, "downwardAPI") {
                downward_items(api);
            }
            if let Some(token) = child(source, "serviceAccountToken") {
                if_nil(token, "expirationSeconds", 3600);
            }
        }
    }
    if let Some(path) = child(volume, "hostPath") {
        if_nil(path, "type", "");
    }
    if let Some(image) = child(volume, "image") {
        let policy = pull_policy(text(image, "reference"));
        if_zero(image, "pullPolicy", policy);
    }
    if let Some(iscsi) = child(volume, "iscsi") {
        if_zero(iscsi, "iscsiInterface", "default");
    }
    if let Some(rbd) = child(volume, "rbd") {
        if_zero(rbd, "pool", "rbd");
        if_zero(rbd, "user", "admin");
        if_zero(rbd, "keyring", "/etc/ceph/keyring");
    }
    if let Some(disk) = child(volume, "azureDisk") {
        if_nil(disk, "cachingMode", "ReadWrite");
        if_nil(disk, "kind", "Shared");
        if_nil(disk, "fsType", "ext4");
        if_nil(disk, "readOnly", false);
    }
    if let Some(scale) = child(volume, "scaleIO") {
        if_zero(scale, "storageMode", "ThinProvisioned");
        if_zero(scale, "fsType", "xfs");
    }
    if let Some(spec) =
        child(volume, "ephemeral").and_then(|e| child(e, "volumeClaimTemplate")).and_then(|t| child(t, "spec"))
    {
        if_nil(spec, "volumeMode", "Filesystem");
        round_resources(spec, "resources");
    }
}

fn downward_items(api: &mut Tree) {
    for item in items(api, "items") {
        field_ref(item);
    }
}

fn field_ref(holder: &mut Tree) {
    if let Some(field) = child(holder, "fieldRef") {
        if_zero(field, "apiVersion", "v1");
    }
}

fn container(container: &mut Tree) {
    let policy = pull_policy(text(container, "image"));
    if_zero(container, "imagePullPolicy", policy);
    if_zero(container, "terminationMessagePath", "/dev/termination-log");
    if_zero(container, "terminationMessagePolicy", "File");
    for port in items(container, "ports") {
        if_zero(port, "protocol", "TCP");
    }
    for variable in items(container, "env") {
        if let Some(from) = child(variable, "valueFrom") {
            field_ref(from);
            if let Some(file) = child(from, "fileKeyRef") {
                if_nil(file, "optional", false);
            }
        }
    }
    round_resources(container, "resources");
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(found) = child(container, name) {
            probe(found);
        }
    }
    if let Some(lifecycle) = child(container, "lifecycle") {
        for name in ["postStart", "preStop"] {
            if let Some(handler) = child(lifecycle, name) {
                http_get(handler);
            }
        }
    }
}

fn probe(probe: &mut Tree) {
    http_get(probe);
    if let Some(grpc) = child(probe, "grpc") {
        if_nil(grpc, "service", "");
    }
    if_zero(probe, "timeoutSeconds", 1);
    if_zero(probe, "periodSeconds", 10);
    if_zero(probe, "successThreshold", 1);
    if_zero(probe, "failureThreshold", 3);
}

fn http_get(handler: &mut Tree) {
    if let Some(get) = child(handler, "httpGet") {
        if_zero(get, "path", "/");
        if_zero(get, "scheme", "HTTP");
    }
}

/// `Always` for a moving tag.
fn pull_policy(image: &str) -> &'static str {
    if image_tag(image) == Some("latest") { "Always" } else { "IfNotPresent" }
}

/// Whether this is a registry's host, with or without a port.
fn is_registry(host: &str) -> bool {
    let (name, port) = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, rest)) => {
            let address_fits = !address.is_empty() && address.bytes().all(|b| b == b':' || b.is_ascii_hexdigit());
            return address_fits
                && (rest.is_empty() || rest.strip_prefix(':').is_some_and(|port| !port.is_empty() && digits(port)));
        }
        None => host.split_once(':').map_or((host, None), |(name, port)| (name, Some(port))),
    };
    let component = |part: &str| {
        !part.is_empty()
            && !part.starts_with('-')
            && !part.ends_with('-')
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    name.split('.').all(component) && port.is_none_or(|port| !port.is_empty() && digits(port))
}

fn digits(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit())
}

/// The tag of an image, `latest` if it has neither tag nor digest; `None` for what is no image.
fn image_tag(image: &str) -> Option<&str> {
    let is_digest = |text: &str| text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if image.is_empty() || is_digest(image) {
        return None;
    }
    let (name, digest) = match image.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (image, None),
    };
    // A colon before the last slash belongs to the registry's port.
    let tag_at = name.rfind(':').filter(|colon| name.rfind('/').is_none_or(|slash| slash < *colon));
    let (name, tag) = match tag_at {
        Some(colon) => (&name[..colon], Some(&name[colon + 1..])),
        None => (name, None),
    };
    let path = match name.split_once('/') {
        Some((host, path))
            if host.contains(['.', ':']) || host == "localhost" || host.bytes().any(|b| b.is_ascii_uppercase()) =>
        {
            if !is_registry(host) {
                return None;
            }
            path
        }
        _ => name,
    };
    let valid_part = |part: &str| {
        let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        edge(part.as_bytes().first())
            && edge(part.as_bytes().last())
            && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-'))
            // One dot, one or two underscores or any number of dashes stand between words.
            && part
                .split(|c: char| c.is_ascii_alphanumeric())
                .all(|between| matches!(between, "" | "." | "_" | "__") || between.bytes().all(|b| b == b'-'))
    };
    let valid_tag = |tag: &str| {
        let bytes = tag.as_bytes();
        matches!(bytes.first(), Some(b) if b.is_ascii_alphanumeric() || *b == b'_')
            && bytes.len() <= 128
            && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
    };
    // What stands before the tag has a longest length of its own.
    if path.len() > 255
        || !path.split('/').all(valid_part)
        || tag.is_some_and(|t| !valid_tag(t))
        || digest.is_some_and(|d| !d.contains(':'))
    {
        return None;
    }
    match (tag, digest) {
        (Some(tag), _) => Some(tag),
        (None, None) => Some("latest"),
        (None, Some(_)) => None,
    }
}

/// Requests a container does not state equal its limits; in Pods only, not in templates.
pub(super) fn requests_from_limits(container: &mut Tree) {
    let Some(resources) = child(container, "resources") else { return };
    let Some(limits) = child(resources, "limits").filter(|l| !l.is_empty()).cloned() else { return };
    if is_zero(resources.get("requests")) {
        resources.insert("requests".into(), json!({}));
    }
    if let Some(requests) = child(resources, "requests") {
        for (name, amount) in limits {
            requests.entry(name).or_insert(amount);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags() {
        for (image, expected) in [
            ("nginx", Some("latest")),
            ("nginx:1", Some("1")),
            ("localhost:5000/a/b", Some("latest")),
            ("localhost:5000/a/b:2", Some("2")),
            ("a@sha256:00", None),
            ("a:latest@sha256:00", Some("latest")),
            ("busybox:1.37/b/c", None),
            ("a_b.example:5000/c", None),
            ("[::1]:5000/c", Some("latest")),
            ("", None),
            ("UPPER", None),
            ("a b", None),
        ] {
            assert_eq!(image_tag(image), expected, "{image}");
        }
    }
}
