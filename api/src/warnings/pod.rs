//! Pods and pod templates.

use apimachinery::field::Path;
use apimachinery::gotext::quote;
use serde_json::Value;

use super::address::ip;
use super::storage::{claim_spec, fractional};
use super::{deprecated_label, node_selector_term};
use crate::read::Read;

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

/// `path` is that of the template, nothing for a pod.
pub(super) fn spec_and_meta(path: &Path, object: &Value, out: &mut Vec<String>) {
    let (spec, annotations) = (&object["spec"], &object["metadata"]["annotations"]);
    let at = || path.child("spec");
    scheduling(spec, &at, out);
    for (annotation, message) in [
        (
            "scheduler.alpha.kubernetes.io/critical-pod",
            "non-functional in v1.16+; use the \"priorityClassName\" field instead",
        ),
        ("security.alpha.kubernetes.io/sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
        ("security.alpha.kubernetes.io/unsafe-sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
    ] {
        if annotations.get(annotation).is_some() {
            out.push(format!("{}: {message}", path.children(&["metadata", "annotations"]).key(annotation)));
        }
    }
    volumes(spec.list("volumes"), &at, out);
    repeated(spec.list("hostAliases"), "ip", "ip", || at().child("hostAliases"), out);
    repeated(spec.list("imagePullSecrets"), "name", "name", || at().child("imagePullSecrets"), out);
    for (i, _) in spec.list("imagePullSecrets").iter().enumerate().filter(|(_, s)| s.text("name").is_empty()) {
        let path = at().child("imagePullSecrets").index(i).child("name");
        out.push(format!("{path}: invalid empty name \"\""));
    }
    for name in ["memory", "ephemeral-storage"] {
        fractional(&spec["overhead"][name], || at().child("overhead").key(name), out);
    }
    let seccomp = |path: &Path, key: &str, out: &mut Vec<String>| {
        let path = path.children(&["metadata", "annotations"]).key(key);
        out.push(format!("{path}: non-functional in v1.27+; use the \"seccompProfile\" field instead"));
    };
    const POD_SECCOMP: &str = "seccomp.security.alpha.kubernetes.io/pod";
    if spec["securityContext"].set("seccompProfile").is_none() && annotations.get(POD_SECCOMP).is_some() {
        seccomp(path, POD_SECCOMP, out);
    }
    let template = path.to_string() != "<nil>";
    for (list, container, i) in containers(spec) {
        let name = container.text("name");
        if annotations.is_object() {
            let key = format!("container.seccomp.security.alpha.kubernetes.io/{name}");
            if container["securityContext"].set("seccompProfile").is_none() && annotations.get(&key).is_some() {
                seccomp(path, &key, out);
            }
            let key = format!("container.apparmor.security.beta.kubernetes.io/{name}");
            if template
                && container["securityContext"].set("appArmorProfile").is_none()
                && let Some(annotation) = annotations.get(&key).and_then(Value::as_str)
                && !same_profile(&spec["securityContext"]["appArmorProfile"], annotation)
            {
                let path = path.children(&["metadata", "annotations"]).key(key);
                out.push(format!("{path}: deprecated since v1.30; use the \"appArmorProfile\" field instead"));
            }
        }
        let here = || at().child(list).index(i);
        for name in ["memory", "ephemeral-storage"] {
            for kind in ["limits", "requests"] {
                fractional(
                    &container["resources"][kind][name],
                    || here().children(&["resources", kind]).key(name),
                    out,
                );
            }
        }
        env(container.list("env"), &here, out);
    }
    ports(spec, &at, out);
    if spec.num("terminationGracePeriodSeconds") < 0 {
        let path = at().child("terminationGracePeriodSeconds");
        out.push(format!("{path}: must be >= 0; negative values are invalid and will be treated as 1"));
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        let (affinity, here) = (&spec["affinity"][kind], || at().child("affinity").child(kind));
        for (i, _) in affinity.list(REQUIRED).iter().enumerate().filter(|(_, t)| t.set("labelSelector").is_none()) {
            let path = here().child(REQUIRED).index(i).child("labelSelector");
            out.push(format!("{path}: {NO_SELECTOR}"));
        }
        let none = |term: &Value| term["podAffinityTerm"].set("labelSelector").is_none();
        for (i, _) in affinity.list(PREFERRED).iter().enumerate().filter(|(_, term)| none(term)) {
            let path = here().child(PREFERRED).index(i).children(&["podAffinityTerm", "labelSelector"]);
            out.push(format!("{path}: {NO_SELECTOR}"));
        }
    }
    for (i, server) in spec["dnsConfig"].texts("nameservers").enumerate() {
        ip(server, || at().children(&["dnsConfig", "nameservers"]).index(i), out);
    }
    for (i, alias) in spec.list("hostAliases").iter().enumerate() {
        ip(alias.text("ip"), || at().child("hostAliases").index(i).child("ip"), out);
    }
}

const NO_SELECTOR: &str = "a null labelSelector results in matching no pod";

fn same_profile(profile: &Value, annotation: &str) -> bool {
    let (kind, local) = match annotation.split_once('/') {
        _ if annotation == "unconfined" => ("Unconfined", ""),
        Some(("runtime", "default")) => ("RuntimeDefault", ""),
        Some(("localhost", name)) => ("Localhost", name),
        _ => return false,
    };
    profile.text("type") == kind && profile.text("localhostProfile") == local
}

fn scheduling(spec: &Value, at: &dyn Fn() -> Path, out: &mut Vec<String>) {
    for (label, _) in spec.entries("nodeSelector") {
        if let Some(message) = deprecated_label(label) {
            out.push(format!("{}: {message}", at().child("nodeSelector").key(label.clone())));
        }
    }
    let node = &spec["affinity"]["nodeAffinity"];
    if node.is_object() {
        let path = at().children(&["affinity", "nodeAffinity"]);
        for (i, term) in node[REQUIRED].list("nodeSelectorTerms").iter().enumerate() {
            node_selector_term(term, false, &path.children(&[REQUIRED, "nodeSelectorTerms"]).index(i), out);
        }
        for (i, term) in node.list(PREFERRED).iter().enumerate() {
            node_selector_term(&term["preference"], true, &path.child(PREFERRED).index(i).child("preference"), out);
        }
    }
    for (i, constraint) in spec.list("topologySpreadConstraints").iter().enumerate() {
        let here = || at().child("topologySpreadConstraints").index(i);
        let key = constraint.text("topologyKey");
        if let Some(message) = deprecated_label(key) {
            out.push(format!("{}: {key} is {message}", here().child("topologyKey")));
        }
        if constraint.set("labelSelector").is_none() {
            out.push(format!("{}: {NO_SELECTOR}", here().child("labelSelector")));
        }
    }
}

fn volumes(volumes: &[Value], at: &dyn Fn() -> Path, out: &mut Vec<String>) {
    const DEPRECATED: [(&str, &str, &str); 9] = [
        ("photonPersistentDisk", "photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
        ("gitRepo", "gitRepo", "deprecated in v1.11, and disabled by default in v1.33+"),
        ("scaleIO", "scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
        ("flocker", "flocker", "deprecated in v1.22, non-functional in v1.25+"),
        ("storageos", "storageOS", "deprecated in v1.22, non-functional in v1.25+"),
        ("quobyte", "quobyte", "deprecated in v1.22, non-functional in v1.25+"),
        ("glusterfs", "glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
        ("cephfs", "cephfs", "deprecated in v1.28, non-functional in v1.31+"),
        ("rbd", "rbd", "deprecated in v1.28, non-functional in v1.31+"),
    ];
    for (i, volume) in volumes.iter().enumerate() {
        let here = || at().child("volumes").index(i);
        for (kind, shown, message) in DEPRECATED {
            if volume.set(kind).is_some() {
                out.push(format!("{}: {message}", here().child(shown)));
            }
        }
        if let Some(template) = volume["ephemeral"].set("volumeClaimTemplate") {
            let path = here().children(&["ephemeral", "volumeClaimTemplate", "spec"]);
            claim_spec(&template["spec"], &path, out);
        }
    }
    for volume in volumes {
        overlaps(volume, out);
    }
}

/// A path within a volume, and what puts something there.
#[derive(Clone, PartialEq)]
struct Target<'a> {
    path: &'a str,
    source: String,
}

impl std::fmt::Display for Target<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&quote(self.path))?;
        if self.source.is_empty() { Ok(()) } else { write!(f, " ({})", self.source) }
    }
}

fn overlaps(volume: &Value, out: &mut Vec<String>) {
    let name = quote(volume.text("name"));
    type Shown<'a> = &'a dyn Fn(&Value) -> String;
    let plain: [(&str, Shown); 3] = [
        ("configMap", &|source| format!("ConfigMap {}", quote(source.text("name")))),
        ("secret", &|source| format!("Secret {}", quote(source.text("secretName")))),
        ("downwardAPI", &|_| "DownwardAPI".to_owned()),
    ];
    for (kind, shown) in plain {
        let source = &volume[kind];
        let items = source.list("items").iter();
        let targets = items.map(|item| Target { path: item.text("path"), source: String::new() });
        collide(targets, |text| format!("volume {name} ({}): overlapping paths: {text}", shown(source)), out);
    }
    let mut targets: Vec<Target<'_>> = Vec::new();
    for source in volume["projected"].list("sources") {
        if source.as_object().is_none_or(|map| map.values().all(Value::is_null)) {
            out.push(format!("volume {name} (Projected) has no sources provided"));
            continue;
        }
        projected(source, &mut targets);
    }
    collide(targets, |text| format!("volume {name} (Projected): overlapping paths: {text}"), out);
}

fn projected<'a>(source: &'a Value, targets: &mut Vec<Target<'a>>) {
    let mut add = |path: &'a str, source: String| targets.push(Target { path, source });
    let items = |kind: &str| source[kind].set("items").is_some();
    if items("configMap") || items("secret") || items("downwardAPI") {
        let (kind, shown) = if items("configMap") {
            ("configMap", format!("ConfigMap {}", quote(source["configMap"].text("name"))))
        } else if items("secret") {
            ("secret", format!("Secret {}", quote(source["secret"].text("name"))))
        } else {
            ("downwardAPI", "DownwardAPI".to_owned())
        };
        for item in source[kind].list("items") {
            add(item.text("path"), shown.clone());
        }
    } else if let Some(token) = source.set("serviceAccountToken") {
        add(token.text("path"), "ServiceAccountToken".to_owned());
    } else if let Some(bundle) = source.set("clusterTrustBundle") {
        let name = bundle.set("name").or_else(|| bundle.set("signerName")).and_then(Value::as_str).unwrap_or_default();
        add(bundle.text("path"), format!("ClusterTrustBundle {}", quote(name)));
    } else if let Some(certificate) = source.set("podCertificate") {
        for (field, shown) in [
            ("certificateChainPath", "PodCertificate chain"),
            ("keyPath", "PodCertificate key"),
            ("credentialBundlePath", "PodCertificate credential bundle"),
        ] {
            if !certificate.text(field).is_empty() {
                add(certificate.text(field), shown.to_owned());
            }
        }
    }
}

/// Says which targets are, or lie within, an earlier one.
fn collide<'a>(targets: impl IntoIterator<Item = Target<'a>>, say: impl Fn(String) -> String, out: &mut Vec<String>) {
    let within = |a: &str, b: &str| a.strip_prefix(b).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let mut known: Vec<Target<'a>> = Vec::new();
    for target in targets {
        let target = Target { path: target.path.trim_end_matches('/'), ..target };
        if !target.path.is_empty() {
            for other in known.iter().filter(|other| !other.path.is_empty()) {
                if within(target.path, other.path) || within(other.path, target.path) {
                    out.push(say(format!("{target} with {other}")));
                }
            }
        }
        known.push(target);
    }
}

/// Entries that repeat an earlier one's key.
fn repeated(list: &[Value], key: &str, shown: &'static str, path: impl Fn() -> Path, out: &mut Vec<String>) {
    for (i, item) in list.iter().enumerate() {
        if list[..i].iter().any(|other| other.text(key) == item.text(key)) {
            let (path, value) = (path().index(i).child(shown), quote(item.text(key)));
            out.push(format!("{path}: duplicate {shown} {value}"));
        }
    }
}

/// Init containers, containers and ephemeral ones, in upstream's order.
fn containers(spec: &Value) -> impl Iterator<Item = (&'static str, &Value, usize)> {
    ["initContainers", "containers", "ephemeralContainers"]
        .into_iter()
        .flat_map(|list| spec.list(list).iter().enumerate().map(move |(i, container)| (list, container, i)))
}

/// A later definition that does not build on an earlier one hides it.
fn env(env: &[Value], here: &dyn Fn() -> Path, out: &mut Vec<String>) {
    for (i, item) in env.iter().enumerate() {
        let name = item.text("name");
        if !env[..i].iter().any(|other| other.text("name") == name) {
            continue;
        }
        let (reference, value) = (format!("$({name})"), item.text("value"));
        if item.set("valueFrom").is_some() || value == reference || !value.contains(&reference) {
            let path = here().child("env").index(i);
            out.push(format!(
                "{path}: hides previous definition of {}, which may be dropped when using apply",
                quote(name)
            ));
        }
    }
}

fn ports(spec: &Value, at: &dyn Fn() -> Path, out: &mut Vec<String>) {
    let all: Vec<(&'static str, usize, usize, &Value)> = containers(spec)
        .flat_map(|(list, container, i)| {
            container.list("ports").iter().enumerate().map(move |(j, port)| (list, i, j, port))
        })
        .collect();
    let path =
        |(list, i, j, _): &(&'static str, usize, usize, &Value)| at().child(*list).index(*i).child("ports").index(*j);
    for (n, entry) in all.iter().enumerate() {
        let port = entry.3;
        let [ip, protocol, name] = ["hostIP", "protocol", "name"].map(|field| port.text(field));
        let (number, host) = (port.num("containerPort"), port.num("hostPort"));
        if !ip.is_empty() && host == 0 {
            out.push(format!(
                "{}: hostIP set without hostPort: {{Name:{name} HostPort:{host} ContainerPort:{number} Protocol:{protocol} HostIP:{ip}}}",
                path(entry)
            ));
        }
        let same = |other: &&(&'static str, usize, usize, &Value)| {
            other.3.num("containerPort") == number && other.3.text("protocol") == protocol
        };
        for other in all[..n].iter().filter(same) {
            let (their_ip, their_host) = (other.3.text("hostIP"), other.3.num("hostPort"));
            let what = if ip == their_ip && host == their_host {
                "duplicate"
            } else if host == 0 || their_host == 0 {
                "overlapping"
            } else if host == their_host && ip.is_empty() != their_ip.is_empty() {
                "dangerously ambiguous"
            } else {
                continue;
            };
            out.push(format!("{}: {what} port definition with {}", path(entry), path(other)));
        }
    }
    for (n, entry) in all.iter().enumerate().filter(|(_, entry)| !entry.3.text("name").is_empty()) {
        let name = entry.3.text("name");
        if let Some(first) = all[..n].iter().find(|other| other.3.text("name") == name) {
            let (mine, other) = (path(entry), path(first));
            out.push(format!("{mine}: duplicate port name {} with {other}, services and probes that select ports by name will use {other}", quote(name)));
        }
    }
}
