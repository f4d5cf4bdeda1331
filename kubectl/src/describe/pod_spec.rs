//! Containers, volumes, tolerations: what pods and pod templates have in common.

use serde_json::Value;

use super::writer::{Writer, int_or_string, or, rfc1123};
use crate::codec::{at, int, list, text};

/// A pod template as workloads show it.
pub fn template(w: &mut Writer, template: &Value) {
    w.line(0, "Pod Template:");
    w.labels("  Labels", template, &["metadata", "labels"]);
    if at(template, &["metadata", "annotations"]).and_then(Value::as_object).is_some_and(|map| !map.is_empty()) {
        w.annotations("  Annotations", template, &["metadata", "annotations"]);
    }
    let account = text(template, &["spec", "serviceAccountName"]);
    if !account.is_empty() {
        w.line(1, &format!("Service Account:\t{account}"));
    }
    let init = list(template, &["spec", "initContainers"]);
    if !init.is_empty() {
        containers(w, "Init Containers", init, &[], None, "  ");
    }
    containers(w, "Containers", list(template, &["spec", "containers"]), &[], None, "  ");
    volumes(w, list(template, &["spec", "volumes"]), "  ");
    spread_constraints(w, list(template, &["spec", "topologySpreadConstraints"]), "  ");
    let priority = text(template, &["spec", "priorityClassName"]);
    if !priority.is_empty() {
        w.line(1, &format!("Priority Class Name:\t{priority}"));
    }
    w.labels("  Node-Selectors", template, &["spec", "nodeSelector"]);
    tolerations(w, "  Tolerations", list(template, &["spec", "tolerations"]));
}

/// A list of containers with their states. `pod` resolves field references.
pub fn containers(
    w: &mut Writer,
    label: &str,
    containers: &[Value],
    statuses: &[Value],
    pod: Option<&Value>,
    space: &str,
) {
    let none = if containers.is_empty() { " <none>" } else { "" };
    w.line(0, &format!("{space}{label}:{none}"));
    for container in containers {
        let name = text(container, &["name"]);
        let status = statuses.iter().find(|status| text(status, &["name"]) == name);
        let indent = if space.is_empty() { "" } else { " " };
        w.line(1, &format!("{indent}{name}:"));
        if let Some(status) = status {
            w.line(2, &format!("Container ID:\t{}", text(status, &["containerID"])));
        }
        w.line(2, &format!("Image:\t{}", text(container, &["image"])));
        if let Some(status) = status {
            w.line(2, &format!("Image ID:\t{}", text(status, &["imageID"])));
        }
        for (title, field) in [("Port", "containerPort"), ("Host Port", "hostPort")] {
            let ports = ports(list(container, &["ports"]), field);
            if ports.contains(',') {
                w.line(2, &format!("{title}s:\t{ports}"));
            } else {
                w.line(2, &format!("{title}:\t{}", or(&ports, "<none>")));
            }
        }
        if let Some(profile) = at(container, &["securityContext", "seccompProfile"]) {
            w.line(2, &format!("SeccompProfile:\t{}", text(profile, &["type"])));
            if profile["type"] == "Localhost" {
                w.line(3, &format!("LocalhostProfile:\t{}", text(profile, &["localhostProfile"])));
            }
        }
        for (title, field) in [("Command", "command"), ("Args", "args")] {
            let words = list(container, &[field]);
            if !words.is_empty() {
                w.line(2, &format!("{title}:"));
            }
            for line in words.iter().filter_map(Value::as_str).flat_map(|word| word.split('\n')) {
                w.line(3, line);
            }
        }
        if let Some(status) = status {
            container_state(w, status);
        }
        if let Some(wanted) = at(container, &["resources"]) {
            resources(w, wanted, 2);
        }
        for (title, field) in
            [("Liveness", "livenessProbe"), ("Readiness", "readinessProbe"), ("Startup", "startupProbe")]
        {
            if let Some(probe) = at(container, &[field]) {
                w.line(2, &format!("{title}:\t{}", probe_text(probe)));
            }
        }
        env_from(w, list(container, &["envFrom"]));
        env(w, container, pod);
        mounts(w, container);
    }
}

fn ports(ports: &[Value], field: &str) -> String {
    let texts: Vec<String> = ports
        .iter()
        .map(|port| {
            let number = int(port, &[field]).unwrap_or(0);
            let shown = format!("{number}/{}", text(port, &["protocol"]));
            match text(port, &["name"]) {
                "" => shown,
                name => format!("{shown} ({name})"),
            }
        })
        .collect();
    texts.join(", ")
}

fn container_state(w: &mut Writer, status: &Value) {
    state(w, "State", at(status, &["state"]).unwrap_or(&Value::Null));
    if let Some(last) = at(status, &["lastState"]).filter(|last| at(last, &["terminated"]).is_some()) {
        state(w, "Last State", last);
    }
    let ready = if status["ready"] == true { "True" } else { "False" };
    w.line(2, &format!("Ready:\t{ready}"));
    w.line(2, &format!("Restart Count:\t{}", int(status, &["restartCount"]).unwrap_or(0)));
}

fn state(w: &mut Writer, title: &str, state: &Value) {
    if let Some(running) = at(state, &["running"]) {
        w.line(2, &format!("{title}:\tRunning"));
        w.line(3, &format!("Started:\t{}", rfc1123(running, &["startedAt"])));
    } else if let Some(terminated) = at(state, &["terminated"]) {
        w.line(2, &format!("{title}:\tTerminated"));
        for (title, field) in [("Reason", "reason"), ("Message", "message")] {
            let value = text(terminated, &[field]);
            if !value.is_empty() {
                w.line(3, &format!("{title}:\t{value}"));
            }
        }
        w.line(3, &format!("Exit Code:\t{}", int(terminated, &["exitCode"]).unwrap_or(0)));
        if let Some(signal) = int(terminated, &["signal"]).filter(|signal| *signal > 0) {
            w.line(3, &format!("Signal:\t{signal}"));
        }
        w.line(3, &format!("Started:\t{}", rfc1123(terminated, &["startedAt"])));
        w.line(3, &format!("Finished:\t{}", rfc1123(terminated, &["finishedAt"])));
    } else {
        w.line(2, &format!("{title}:\tWaiting"));
        let reason = text(state, &["waiting", "reason"]);
        if !reason.is_empty() {
            w.line(3, &format!("Reason:\t{reason}"));
        }
    }
}

/// Limits, then requests.
pub fn resources(w: &mut Writer, resources: &Value, level: usize) {
    for (title, field) in [("Limits", "limits"), ("Requests", "requests")] {
        if let Some(Value::Object(map)) =
            at(resources, &[field]).filter(|map| map.as_object().is_some_and(|m| !m.is_empty()))
        {
            w.line(level, &format!("{title}:"));
            for (name, value) in map {
                w.line(level + 1, &format!("{name}:\t{}", int_or_string(Some(value))));
            }
        }
    }
}

fn probe_text(probe: &Value) -> String {
    let number = |field| int(probe, &[field]).unwrap_or(0);
    let attributes = format!(
        "delay={}s timeout={}s period={}s #success={} #failure={}",
        number("initialDelaySeconds"),
        number("timeoutSeconds"),
        number("periodSeconds"),
        number("successThreshold"),
        number("failureThreshold")
    );
    if let Some(exec) = at(probe, &["exec"]) {
        let command: Vec<&str> = list(exec, &["command"]).iter().filter_map(Value::as_str).collect();
        return format!("exec [{}] {attributes}", command.join(" "));
    }
    if let Some(get) = at(probe, &["httpGet"]) {
        let port = int_or_string(at(get, &["port"]));
        let host = text(get, &["host"]);
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        let location = if port.is_empty() { host } else { format!("{host}:{port}") };
        let path = text(get, &["path"]);
        let slash = if path.is_empty() || path.starts_with('/') { "" } else { "/" };
        return format!("http-get {}://{location}{slash}{path} {attributes}", text(get, &["scheme"]).to_lowercase());
    }
    if let Some(socket) = at(probe, &["tcpSocket"]) {
        return format!("tcp-socket {}:{} {attributes}", text(socket, &["host"]), int_or_string(at(socket, &["port"])));
    }
    if let Some(grpc) = at(probe, &["grpc"]) {
        return format!("grpc <pod>:{} {} {attributes}", int(grpc, &["port"]).unwrap_or(0), text(grpc, &["service"]));
    }
    format!("unknown {attributes}")
}

fn optional(reference: &Value) -> bool {
    reference["optional"] == true
}

fn env_from(w: &mut Writer, sources: &[Value]) {
    if sources.is_empty() {
        return;
    }
    w.line(2, "Environment Variables from:");
    for source in sources {
        let (kind, reference) = match (at(source, &["configMapRef"]), at(source, &["secretRef"])) {
            (Some(reference), _) => ("ConfigMap", reference),
            (None, Some(reference)) => ("Secret", reference),
            (None, None) => ("", &Value::Null),
        };
        let (name, optional) = (text(reference, &["name"]), optional(reference));
        match text(source, &["prefix"]) {
            "" => w.line(3, &format!("{name}\t{kind}\tOptional: {optional}")),
            prefix => w.line(3, &format!("{name}\t{kind} with prefix '{prefix}'\tOptional: {optional}")),
        }
    }
}

fn env(w: &mut Writer, container: &Value, pod: Option<&Value>) {
    let variables = list(container, &["env"]);
    w.line(2, if variables.is_empty() { "Environment:\t<none>" } else { "Environment:" });
    for variable in variables {
        let name = text(variable, &["name"]);
        let Some(from) = at(variable, &["valueFrom"]) else {
            for (index, line) in text(variable, &["value"]).split('\n').enumerate() {
                w.line(3, &if index == 0 { format!("{name}:\t{line}") } else { format!("\t{line}") });
            }
            continue;
        };
        if let Some(reference) = at(from, &["fieldRef"]) {
            let path = text(reference, &["fieldPath"]);
            let value = pod.map(|pod| field_value(pod, path)).unwrap_or_default();
            w.line(3, &format!("{name}:\t{value} ({}:{path})", text(reference, &["apiVersion"])));
        } else if let Some(reference) = at(from, &["resourceFieldRef"]) {
            let resource = text(reference, &["resource"]);
            w.line(3, &format!("{name}:\t{} ({resource})", resource_value(container, reference)));
        } else if let Some(reference) = at(from, &["secretKeyRef"]) {
            w.line(
                3,
                &format!(
                    "{name}:\t<set to the key '{}' in secret '{}'>\tOptional: {}",
                    text(reference, &["key"]),
                    text(reference, &["name"]),
                    optional(reference)
                ),
            );
        } else if let Some(reference) = at(from, &["configMapKeyRef"]) {
            w.line(
                3,
                &format!(
                    "{name}:\t<set to the key '{}' of config map '{}'>\tOptional: {}",
                    text(reference, &["key"]),
                    text(reference, &["name"]),
                    optional(reference)
                ),
            );
        }
    }
}

/// What a field reference means for a pod; only metadata can be told from here.
fn field_value(pod: &Value, path: &str) -> String {
    let keyed = |prefix: &str| path.strip_prefix(prefix).and_then(|rest| rest.strip_suffix("']"));
    if let Some(key) = keyed("metadata.labels['") {
        return text(pod, &["metadata", "labels", key]).to_owned();
    }
    if let Some(key) = keyed("metadata.annotations['") {
        return text(pod, &["metadata", "annotations", key]).to_owned();
    }
    match path {
        "metadata.name" => text(pod, &["metadata", "name"]).to_owned(),
        "metadata.namespace" => text(pod, &["metadata", "namespace"]).to_owned(),
        "metadata.uid" => text(pod, &["metadata", "uid"]).to_owned(),
        _ => String::new(),
    }
}

/// A container's own limit or request in units of the divisor, rounded up.
fn resource_value(container: &Value, reference: &Value) -> String {
    use apimachinery::quantity::Quantity;
    let resource = text(reference, &["resource"]);
    let Some((field, name)) = resource.split_once('.') else { return String::new() };
    let quantity = int_or_string(at(container, &["resources", field, name]));
    let value = Quantity::parse(&quantity).map_or(0.0, |quantity| quantity.as_f64());
    let divisor = int_or_string(at(reference, &["divisor"]));
    let divisor = Quantity::parse(&divisor).map_or(1.0, |quantity| quantity.as_f64());
    let divisor = if divisor == 0.0 { 1.0 } else { divisor };
    let shown = (value / divisor).ceil();
    if shown == 0.0 && matches!(resource, "limits.cpu" | "limits.memory") {
        return "node allocatable".into();
    }
    format!("{shown:.0}")
}

fn mounts(w: &mut Writer, container: &Value) {
    let mut mounts: Vec<&Value> = list(container, &["volumeMounts"]).iter().collect();
    w.line(2, if mounts.is_empty() { "Mounts:\t<none>" } else { "Mounts:" });
    mounts.sort_by_key(|mount| text(mount, &["mountPath"]).to_owned());
    for mount in mounts {
        let mut flags = if mount["readOnly"] == true { "ro" } else { "rw" }.to_owned();
        let sub = text(mount, &["subPath"]);
        if !sub.is_empty() {
            flags = format!("{flags},path={sub:?}");
        }
        w.line(3, &format!("{} from {} ({flags})", text(mount, &["mountPath"]), text(mount, &["name"])));
    }
    let mut devices: Vec<&Value> = list(container, &["volumeDevices"]).iter().collect();
    if !devices.is_empty() {
        w.line(2, "Devices:");
        devices.sort_by_key(|device| text(device, &["devicePath"]).to_owned());
        for device in devices {
            w.line(3, &format!("{} from {}", text(device, &["devicePath"]), text(device, &["name"])));
        }
    }
}

pub fn tolerations(w: &mut Writer, title: &str, tolerations: &[Value]) {
    w.text(&format!("{title}:\t"));
    if tolerations.is_empty() {
        w.text("<none>\n");
    }
    let mut sorted: Vec<&Value> = tolerations.iter().collect();
    sorted.sort_by_key(|toleration| text(toleration, &["key"]).to_owned());
    for (index, toleration) in sorted.into_iter().enumerate() {
        let (key, value, effect) =
            (text(toleration, &["key"]), text(toleration, &["value"]), text(toleration, &["effect"]));
        let mut line = if index > 0 { "\t".to_owned() } else { String::new() };
        line.push_str(key);
        if !value.is_empty() {
            line.push_str(&format!("={value}"));
        }
        if !effect.is_empty() {
            line.push_str(&format!(":{effect}"));
        }
        if toleration["operator"] == "Exists" && value.is_empty() {
            line.push_str(if key.is_empty() && effect.is_empty() { "op=Exists" } else { " op=Exists" });
        }
        if let Some(seconds) = int(toleration, &["tolerationSeconds"]) {
            line.push_str(&format!(" for {seconds}s"));
        }
        w.text(&(line + "\n"));
    }
}

pub fn spread_constraints(w: &mut Writer, constraints: &[Value], space: &str) {
    if constraints.is_empty() {
        return;
    }
    let mut sorted: Vec<&Value> = constraints.iter().collect();
    sorted.sort_by_key(|constraint| text(constraint, &["topologyKey"]).to_owned());
    w.text(&format!("{space}Topology Spread Constraints:\t"));
    for (index, constraint) in sorted.into_iter().enumerate() {
        let indent = if index > 0 { format!("{space}\t") } else { String::new() };
        let selector = match at(constraint, &["labelSelector"]) {
            Some(selector) => format!(" for selector {}", api::printers::cells::selector_cell(Some(selector))),
            None => String::new(),
        };
        w.text(&format!(
            "{indent}{}:{} when max skew {} is exceeded{selector}\n",
            text(constraint, &["topologyKey"]),
            text(constraint, &["whenUnsatisfiable"]),
            int(constraint, &["maxSkew"]).unwrap_or(0)
        ));
    }
}

pub fn volumes(w: &mut Writer, volumes: &[Value], space: &str) {
    if volumes.is_empty() {
        w.line(0, &format!("{space}Volumes:\t<none>"));
        return;
    }
    w.line(0, &format!("{space}Volumes:"));
    let indent = if space.is_empty() { "" } else { " " };
    for volume in volumes {
        w.line(1, &format!("{indent}{}:", text(volume, &["name"])));
        source(w, volume);
    }
}

/// What a volume is made from: its type, then the fields that say which one.
fn source(w: &mut Writer, volume: &Value) {
    let shown = |source: &Value, field: &str| match at(source, &[field]) {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => String::new(),
    };
    let flag = |source: &Value, field: &str| (source[field] == true).to_string();
    if let Some(s) = at(volume, &["hostPath"]) {
        w.line(2, "Type:\tHostPath (bare host directory volume)");
        w.line(2, &format!("Path:\t{}", shown(s, "path")));
        // An absent type and an empty one are told apart, as upstream does.
        w.line(2, &format!("HostPathType:\t{}", at(s, &["type"]).map_or("<none>", |kind| kind.as_str().unwrap_or(""))));
    } else if let Some(s) = at(volume, &["emptyDir"]) {
        w.line(2, "Type:\tEmptyDir (a temporary directory that shares a pod's lifetime)");
        w.line(2, &format!("Medium:\t{}", shown(s, "medium")));
        w.line(2, &format!("SizeLimit:\t{}", or(&shown(s, "sizeLimit"), "<unset>")));
    } else if let Some(s) = at(volume, &["secret"]) {
        w.line(2, "Type:\tSecret (a volume populated by a Secret)");
        w.line(2, &format!("SecretName:\t{}", shown(s, "secretName")));
        w.line(2, &format!("Optional:\t{}", optional(s)));
    } else if let Some(s) = at(volume, &["configMap"]) {
        w.line(2, "Type:\tConfigMap (a volume populated by a ConfigMap)");
        w.line(2, &format!("Name:\t{}", shown(s, "name")));
        w.line(2, &format!("Optional:\t{}", optional(s)));
    } else if let Some(s) = at(volume, &["nfs"]) {
        w.line(2, "Type:\tNFS (an NFS mount that lasts the lifetime of a pod)");
        w.line(2, &format!("Server:\t{}", shown(s, "server")));
        w.line(2, &format!("Path:\t{}", shown(s, "path")));
        w.line(2, &format!("ReadOnly:\t{}", flag(s, "readOnly")));
    } else if let Some(s) = at(volume, &["persistentVolumeClaim"]) {
        w.line(2, "Type:\tPersistentVolumeClaim (a reference to a PersistentVolumeClaim in the same namespace)");
        w.line(2, &format!("ClaimName:\t{}", shown(s, "claimName")));
        w.line(2, &format!("ReadOnly:\t{}", flag(s, "readOnly")));
    } else if let Some(s) = at(volume, &["downwardAPI"]) {
        w.line(2, "Type:\tDownwardAPI (a volume populated by information about the pod)");
        w.line(2, "Items:");
        for item in list(s, &["items"]) {
            for from in [text(item, &["fieldRef", "fieldPath"]), text(item, &["resourceFieldRef", "resource"])] {
                if !from.is_empty() {
                    w.line(3, &format!("{from} -> {}", text(item, &["path"])));
                }
            }
        }
    } else if let Some(s) = at(volume, &["projected"]) {
        w.line(2, "Type:\tProjected (a volume that contains injected data from multiple sources)");
        for part in list(s, &["sources"]) {
            if let Some(secret) = at(part, &["secret"]) {
                w.line(2, &format!("SecretName:\t{}", shown(secret, "name")));
                w.line(2, &format!("Optional:\t{}", optional(secret)));
            } else if at(part, &["downwardAPI"]).is_some() {
                w.line(2, "DownwardAPI:\ttrue");
            } else if let Some(map) = at(part, &["configMap"]) {
                w.line(2, &format!("ConfigMapName:\t{}", shown(map, "name")));
                w.line(2, &format!("Optional:\t{}", optional(map)));
            } else if let Some(token) = at(part, &["serviceAccountToken"]) {
                w.line(2, &format!("TokenExpirationSeconds:\t{}", int(token, &["expirationSeconds"]).unwrap_or(0)));
            }
        }
    } else if let Some(s) = at(volume, &["csi"]) {
        w.line(2, "Type:\tCSI (a Container Storage Interface (CSI) volume source)");
        w.line(2, &format!("Driver:\t{}", shown(s, "driver")));
        w.line(2, &format!("FSType:\t{}", shown(s, "fsType")));
        w.line(2, &format!("ReadOnly:\t{}", flag(s, "readOnly")));
        match at(s, &["volumeAttributes"]) {
            Some(_) => w.labels_indented("    ", "VolumeAttributes", s, &["volumeAttributes"]),
            None => w.line(2, "VolumeAttributes:\t<none>"),
        }
    } else if let Some(s) = at(volume, &["image"]) {
        w.line(2, "Type:\tImage (a container image or OCI artifact)");
        w.line(2, &format!("Reference:\t{}", shown(s, "reference")));
        w.line(2, &format!("PullPolicy:\t{}", shown(s, "pullPolicy")));
    } else if let Some(s) = at(volume, &["ephemeral", "volumeClaimTemplate", "spec"]) {
        w.line(
            2,
            "Type:\tEphemeralVolume (an inline specification for a volume that gets created and deleted with the pod)",
        );
        w.line(2, &format!("StorageClass:\t{}", shown(s, "storageClassName")));
        w.line(2, &format!("Volume:\t{}", shown(s, "volumeName")));
        w.line(2, &format!("Capacity:\t{}", int_or_string(at(s, &["resources", "requests", "storage"]))));
        w.line(2, &format!("Access Modes:\t{}", api::printers::access_modes(list(s, &["accessModes"]))));
    } else {
        w.line(1, "<unknown>");
    }
}
