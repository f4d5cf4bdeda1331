//! Environment variables: `$(VAR)` expansion, field and resource references, service variables.
//!
//! Pure but for the config maps and secrets that a container names.

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::api::core::v1::{Container, ObjectFieldSelector, Pod, ResourceFieldSelector, Service};

use crate::api::{self, Api};
use crate::pod::PodExt;
use crate::resources;

/// Why the environment of a container could not be made; users see the text.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A config map or secret could not be read.
    #[error("{0}")]
    Api(#[from] api::Error),
    /// A key is missing in one of them.
    #[error("couldn't find key {key} in {kind} {namespace}/{name}")]
    MissingKey { key: String, kind: &'static str, namespace: String, name: String },
    /// A field path that pods do not have.
    #[error("unsupported fieldPath: {0}")]
    FieldPath(String),
    /// A resource that containers do not have.
    #[error("unsupported container resource : {0}")]
    Resource(String),
    /// A container that the pod does not have.
    #[error("container {0} not found")]
    Container(String),
}

/// Node facts that fields may refer to.
#[derive(Clone, Debug, Default)]
pub struct NodeFacts {
    /// The node's addresses, the primary one first.
    pub host_ips: Vec<String>,
    /// What a container without limits may use: milli-CPUs and bytes.
    pub allocatable_cpu: i64,
    pub allocatable_memory: i64,
    pub allocatable_storage: i64,
}

/// Replaces `$(NAME)` by its value where it has one; `$$` is a dollar sign.
pub fn expand(input: &str, lookup: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(input.len());
    let mut rest = input;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|r| r.split_once(')')) {
            match lookup(name) {
                Some(value) => out.push_str(&value),
                None => {
                    out.push_str("$(");
                    out.push_str(name);
                    out.push(')');
                }
            }
            rest = after;
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    out
}

/// The environment of a container: service variables, then `envFrom`, then `env`, later ones winning.
pub async fn make(
    api: &dyn Api,
    pod: &Pod,
    container: &Container,
    pod_ips: &[String],
    facts: &NodeFacts,
) -> Result<Vec<(String, String)>, Error> {
    let namespace = pod.pod_namespace();
    let links = pod.pod_spec().enable_service_links.unwrap_or(true);
    let services = if pod.is_static() {
        service_variables(api, namespace, links).unwrap_or_default()
    } else {
        service_variables(api, namespace, links)?
    };
    let mut named: HashMap<String, String> = HashMap::new();
    let mut order: Vec<String> = Vec::new();
    let mut set = |named: &mut HashMap<String, String>, name: String, value: String| {
        if !named.contains_key(&name) {
            order.push(name.clone());
        }
        named.insert(name, value);
    };
    for source in container.env_from.iter().flatten() {
        let prefix = source.prefix.as_deref().unwrap_or_default();
        if let Some(reference) = &source.config_map_ref {
            let Some(map) = optional(api.config_map(namespace, &reference.name).await, reference.optional)? else {
                continue;
            };
            for (key, value) in map.data.iter().flatten() {
                set(&mut named, format!("{prefix}{key}"), value.clone());
            }
        } else if let Some(reference) = &source.secret_ref {
            let Some(secret) = optional(api.secret(namespace, &reference.name).await, reference.optional)? else {
                continue;
            };
            for (key, value) in secret.data.iter().flatten() {
                set(&mut named, format!("{prefix}{key}"), String::from_utf8_lossy(&value.0).into_owned());
            }
        }
    }
    for variable in container.env.iter().flatten() {
        let mut value = variable.value.clone().unwrap_or_default();
        if !value.is_empty() {
            value = expand(&value, |name| named.get(name).or_else(|| services.get(name)).cloned());
        } else if let Some(from) = &variable.value_from {
            if let Some(field) = &from.field_ref {
                value = field_value(field, pod, pod_ips, facts)?;
            } else if let Some(resource) = &from.resource_field_ref {
                value = resource_value(resource, pod, Some(container), facts)?;
            } else if let Some(reference) = &from.config_map_key_ref {
                let Some(map) = optional(api.config_map(namespace, &reference.name).await, reference.optional)? else {
                    continue;
                };
                match map.data.as_ref().and_then(|d| d.get(&reference.key)) {
                    Some(found) => value = found.clone(),
                    None if reference.optional == Some(true) => continue,
                    None => return Err(missing(&reference.key, "ConfigMap", namespace, &reference.name)),
                }
            } else if let Some(reference) = &from.secret_key_ref {
                let Some(secret) = optional(api.secret(namespace, &reference.name).await, reference.optional)? else {
                    continue;
                };
                match secret.data.as_ref().and_then(|d| d.get(&reference.key)) {
                    Some(found) => value = String::from_utf8_lossy(&found.0).into_owned(),
                    None if reference.optional == Some(true) => continue,
                    None => return Err(missing(&reference.key, "Secret", namespace, &reference.name)),
                }
            }
        }
        set(&mut named, variable.name.clone(), value);
    }
    let mut out: Vec<(String, String)> = services.into_iter().filter(|(name, _)| !named.contains_key(name)).collect();
    out.extend(order.into_iter().filter_map(|name| named.remove_entry(&name)));
    Ok(out)
}

fn missing(key: &str, kind: &'static str, namespace: &str, name: &str) -> Error {
    Error::MissingKey { key: key.into(), kind, namespace: namespace.into(), name: name.into() }
}

fn optional<T>(result: api::Result<T>, optional: Option<bool>) -> Result<Option<T>, Error> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_not_found() && optional == Some(true) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn service_variables(api: &dyn Api, namespace: &str, links: bool) -> Result<BTreeMap<String, String>, Error> {
    let mut out = BTreeMap::new();
    let mut add = |service: &Service| variables_of(service, &mut out);
    for service in api.services("default")?.iter().filter(|s| s.metadata.name.as_deref() == Some("kubernetes")) {
        add(service);
    }
    if links {
        api.services(namespace)?.iter().for_each(|s| add(s));
    }
    Ok(out)
}

/// `REDIS_SERVICE_HOST`, `REDIS_PORT_6379_TCP` and their like.
fn variables_of(service: &Service, out: &mut BTreeMap<String, String>) {
    let Some(spec) = &service.spec else { return };
    let ip = spec.cluster_ip.as_deref().unwrap_or_default();
    let ports = spec.ports.as_deref().unwrap_or_default();
    let Some(first) = ports.first() else { return };
    if ip.is_empty() || ip == "None" {
        return;
    }
    let upper = |text: &str| text.to_uppercase().replace('-', "_");
    let name = upper(service.metadata.name.as_deref().unwrap_or_default());
    let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
    out.insert(format!("{name}_SERVICE_HOST"), ip.to_owned());
    out.insert(format!("{name}_SERVICE_PORT"), first.port.to_string());
    for (index, port) in ports.iter().enumerate() {
        if let Some(port_name) = port.name.as_deref().filter(|n| !n.is_empty()) {
            out.insert(format!("{name}_SERVICE_PORT_{}", upper(port_name)), port.port.to_string());
        }
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let url = format!("{}://{host}:{}", protocol.to_lowercase(), port.port);
        if index == 0 {
            out.insert(format!("{name}_PORT"), url.clone());
        }
        let prefix = format!("{name}_PORT_{}_{}", port.port, protocol.to_uppercase());
        out.insert(format!("{prefix}_PROTO"), protocol.to_lowercase());
        out.insert(format!("{prefix}_PORT"), port.port.to_string());
        out.insert(format!("{prefix}_ADDR"), ip.to_owned());
        out.insert(prefix, url);
    }
}

/// The text of a field of the pod.
pub fn field_value(
    field: &ObjectFieldSelector,
    pod: &Pod,
    pod_ips: &[String],
    facts: &NodeFacts,
) -> Result<String, Error> {
    let metadata = &pod.metadata;
    let spec = pod.pod_spec();
    let path = field.field_path.as_str();
    if let Some((map, key)) = path.strip_suffix("']").and_then(|p| p.split_once("['")) {
        let map = match map {
            "metadata.labels" => metadata.labels.as_ref(),
            "metadata.annotations" => metadata.annotations.as_ref(),
            _ => return Err(Error::FieldPath(path.into())),
        };
        return Ok(map.and_then(|m| m.get(key)).cloned().unwrap_or_default());
    }
    Ok(match path {
        "metadata.name" => pod.pod_name().to_owned(),
        "metadata.namespace" => pod.pod_namespace().to_owned(),
        "metadata.uid" => pod.uid().to_owned(),
        "metadata.labels" => format_map(metadata.labels.as_ref()),
        "metadata.annotations" => format_map(metadata.annotations.as_ref()),
        "spec.nodeName" => spec.node_name.clone().unwrap_or_default(),
        "spec.serviceAccountName" => spec.service_account_name.clone().unwrap_or_default(),
        "status.hostIP" => facts.host_ips.first().cloned().unwrap_or_default(),
        "status.hostIPs" => facts.host_ips.join(","),
        "status.podIP" => pod_ips.first().cloned().unwrap_or_default(),
        "status.podIPs" => pod_ips.join(","),
        _ => return Err(Error::FieldPath(path.into())),
    })
}

/// Labels or annotations as a file of `key="value"` lines, sorted, values quoted as Go does.
fn format_map(map: Option<&BTreeMap<String, String>>) -> String {
    let lines: Vec<String> = map.into_iter().flatten().map(|(k, v)| format!("{k}={}", go_quote(v))).collect();
    lines.join("\n")
}

fn go_quote(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => out.push_str(&format!("\\x{:02x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// The number a resource reference stands for, rounded up to whole divisors. A limit that is not set is
/// the node's allocatable amount.
pub fn resource_value(
    field: &ResourceFieldSelector,
    pod: &Pod,
    container: Option<&Container>,
    facts: &NodeFacts,
) -> Result<String, Error> {
    let by_name = field.container_name.as_deref().filter(|n| !n.is_empty()).and_then(|n| pod.container(n));
    let container = match (&by_name, container) {
        (Some((_, found)), _) => found,
        (None, Some(own)) if field.container_name.as_deref().unwrap_or_default().is_empty() => own,
        _ => return Err(Error::Container(field.container_name.clone().unwrap_or_default())),
    };
    let lists = container.resources.as_ref();
    let requests = lists.and_then(|r| r.requests.as_ref());
    let limits = lists.and_then(|r| r.limits.as_ref());
    let get = |list: Option<&BTreeMap<_, _>>, name: &str| list.and_then(|l| l.get(name)).map_or(0, resources::whole);
    let or = |value: i64, default: i64| if value == 0 { default } else { value };
    let divisor = field.divisor.as_ref().and_then(|d| apimachinery::quantity::Quantity::parse(&d.0).ok());
    let milli = divisor.as_ref().map_or(0, apimachinery::quantity::Quantity::milli_value);
    let whole = divisor.as_ref().map_or(0, apimachinery::quantity::Quantity::value);
    let ceil = |value: i64, by: i64| (value + by - 1) / by;
    let name = field.resource.as_str();
    let (_, kind) = name.split_once('.').unwrap_or_default();
    Ok(match name {
        "limits.cpu" => ceil(or(resources::milli_cpu(limits), facts.allocatable_cpu), or(milli, 1000)),
        "requests.cpu" => ceil(resources::milli_cpu(requests), or(milli, 1000)),
        "limits.memory" => ceil(or(resources::memory(limits), facts.allocatable_memory), or(whole, 1)),
        "requests.memory" => ceil(resources::memory(requests), or(whole, 1)),
        "limits.ephemeral-storage" => ceil(or(get(limits, kind), facts.allocatable_storage), or(whole, 1)),
        "requests.ephemeral-storage" => ceil(get(requests, kind), or(whole, 1)),
        _ if name.starts_with("limits.hugepages-") => ceil(get(limits, kind), or(whole, 1)),
        _ if name.starts_with("requests.hugepages-") => ceil(get(requests, kind), or(whole, 1)),
        _ => return Err(Error::Resource(name.into())),
    }
    .to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn expansion() {
        let lookup = |name: &str| (name == "A").then(|| "x".to_owned());
        for (input, expected) in [
            ("$(A)", "x"),
            ("$$(A)", "$(A)"),
            ("$(B)", "$(B)"),
            ("$A", "$A"),
            ("a$", "a$"),
            ("$(A", "$(A"),
            ("$(A)$(A)b", "xxb"),
            ("$$$(A)", "$x"),
            ("$()", "$()"),
        ] {
            assert_eq!(expand(input, lookup), expected, "{input}");
        }
    }

    #[test]
    fn fields_and_resources() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n", "labels": {"b": "x\"y", "a": "1"}},
            "spec": {"nodeName": "node", "containers": [{"name": "c", "resources": {"limits": {"cpu": "1500m"}, "requests": {"memory": "10Mi"}}}]}
        }))
        .unwrap();
        let facts = NodeFacts {
            host_ips: vec!["1.2.3.4".into()],
            allocatable_cpu: 2000,
            allocatable_memory: 1 << 30,
            allocatable_storage: 0,
        };
        let field = |path: &str| {
            let selector = ObjectFieldSelector { field_path: path.into(), api_version: None };
            field_value(&selector, &pod, &["10.0.0.1".into(), "fd::1".into()], &facts).map_err(|e| e.to_string())
        };
        assert_eq!(field("metadata.labels"), Ok("a=\"1\"\nb=\"x\\\"y\"".into()));
        assert_eq!(field("metadata.labels['a']"), Ok("1".into()));
        assert_eq!(field("status.podIPs"), Ok("10.0.0.1,fd::1".into()));
        assert_eq!(field("spec.nope"), Err("unsupported fieldPath: spec.nope".into()));
        let resource = |name: &str, divisor: &str| {
            let selector: ResourceFieldSelector =
                serde_json::from_value(json!({"resource": name, "divisor": divisor})).unwrap();
            resource_value(&selector, &pod, Some(&pod.pod_spec().containers[0]), &facts).unwrap()
        };
        assert_eq!(resource("limits.cpu", "0"), "2");
        assert_eq!(resource("limits.cpu", "1m"), "1500");
        assert_eq!(resource("requests.memory", "1Mi"), "10");
        assert_eq!(resource("limits.memory", "1Mi"), "1024");
        assert_eq!(resource("requests.cpu", "1"), "0");
    }

    #[test]
    fn service_variables_are_docker_links() {
        let service: Service = serde_json::from_value(json!({"metadata": {"name": "my-db"},
            "spec": {"clusterIP": "10.0.0.9", "ports": [{"name": "sql-port", "port": 5432, "protocol": "TCP"}]}}))
        .unwrap();
        let mut out = BTreeMap::new();
        variables_of(&service, &mut out);
        let text: Vec<String> = out.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(
            text,
            [
                "MY_DB_PORT=tcp://10.0.0.9:5432",
                "MY_DB_PORT_5432_TCP=tcp://10.0.0.9:5432",
                "MY_DB_PORT_5432_TCP_ADDR=10.0.0.9",
                "MY_DB_PORT_5432_TCP_PORT=5432",
                "MY_DB_PORT_5432_TCP_PROTO=tcp",
                "MY_DB_SERVICE_HOST=10.0.0.9",
                "MY_DB_SERVICE_PORT=5432",
                "MY_DB_SERVICE_PORT_SQL_PORT=5432",
            ]
        );
    }
}
