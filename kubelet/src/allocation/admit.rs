//! Whether this node takes a pod that was bound to it, or a larger size of one that it has: the checks
//! that the scheduler made, made again where their answer counts.
//!
//! Pure. Reasons and messages are upstream's (`pkg/kubelet/lifecycle/predicate.go`,
//! `pkg/kubelet/sysctl`).

use std::collections::BTreeMap;

use apimachinery::quantity::Quantity as Amount;
use k8s_openapi::api::core::v1::{Container, NodeSelectorRequirement, NodeSelectorTerm, Pod, Taint, Toleration};

use crate::pod::{PodExt, is_sidecar};
use crate::resources;

/// What the node has to give and how it is marked.
#[derive(Clone, Debug, Default)]
pub struct NodeView {
    pub name: String,
    /// `None` until the node's object has been read: labels and taints are then not held against a pod.
    pub marks: Option<Marks>,
    /// Milli-CPUs.
    pub cpu: i64,
    /// Bytes.
    pub memory: i64,
    /// Bytes.
    pub storage: i64,
    pub pods: i64,
    /// Sysctls beyond the safe ones that pods may set; a `*` at the end stands for any rest.
    pub allowed_sysctls: Vec<String>,
    /// Whether the kernel confines by AppArmor.
    pub apparmor: bool,
}

/// What others wrote on the node's object.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Marks {
    pub labels: BTreeMap<String, String>,
    pub taints: Vec<Taint>,
}

/// Why a pod is not taken: `reason` goes into `status.reason`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Rejection {
    pub reason: String,
    pub message: String,
}

/// Sysctls that cannot harm others, being confined to the pod.
const SAFE_SYSCTLS: &[&str] = &[
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
];

/// Checks a pod against the node and the pods that are on it. `others` must not hold the pod itself.
pub fn admit(pod: &Pod, others: &[&Pod], node: &NodeView) -> Result<(), Rejection> {
    own_checks(pod, node)?;
    fits(pod, others, node)?;
    marks(pod, others, node)
}

/// Whether what a running pod asks for now fits beside the others.
pub fn fits(pod: &Pod, others: &[&Pod], node: &NodeView) -> Result<(), Rejection> {
    let count = i64::try_from(others.len()).unwrap_or(i64::MAX);
    let short = |name: &str, requested: i64, used: i64, capacity: i64| {
        Err(Rejection {
            reason: format!("OutOf{name}"),
            message: format!(
                "Node didn't have enough resource: {name}, requested: {requested}, used: {used}, capacity: {capacity}"
            ),
        })
    };
    if count + 1 > node.pods {
        return short("pods", 1, count, node.pods);
    }
    for (name, of, capacity) in [
        ("cpu", resources::pod_cpu_request as fn(&Pod) -> i64, node.cpu),
        ("memory", resources::pod_memory_request, node.memory),
        ("ephemeral-storage", resources::pod_storage_request, node.storage),
    ] {
        let requested = of(pod);
        let used: i64 = others.iter().map(|pod| of(pod)).sum();
        // Nothing asked for fits even where nothing is left.
        if requested > 0 && requested > capacity - used {
            return short(name, requested, used, capacity);
        }
    }
    Ok(())
}

fn own_checks(pod: &Pod, node: &NodeView) -> Result<(), Rejection> {
    let reject =
        |reason: &str, message: &str| Err(Rejection { reason: reason.to_owned(), message: message.to_owned() });
    let label = pod.metadata.labels.as_ref().and_then(|l| l.get("kubernetes.io/os"));
    if label.is_some_and(|os| os != "linux") {
        return reject(
            "PodOSSelectorNodeLabelDoesNotMatch",
            "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label",
        );
    }
    if pod.pod_spec().os.as_ref().is_some_and(|os| os.name != "linux") {
        return reject("PodOSNotSupported", "Failed to admit pod as the OS field doesn't match node OS");
    }
    let context = pod.pod_spec().security_context.as_ref();
    for sysctl in context.and_then(|c| c.sysctls.as_ref()).into_iter().flatten() {
        let name = sysctl.name.replace('/', ".");
        let listed = SAFE_SYSCTLS.contains(&name.as_str())
            || node.allowed_sysctls.iter().any(|allowed| match allowed.strip_suffix('*') {
                Some(prefix) => name.starts_with(prefix),
                None => *allowed == name,
            });
        if !listed {
            return reject("SysctlForbidden", &format!("forbidden sysctl: {:?} not allowlisted", sysctl.name));
        }
        // A namespace that is the node's own is not the pod's to tune.
        let shared = (name.starts_with("net.") && pod.host_network())
            || ((name.starts_with("kernel.shm") || name.starts_with("kernel.msg") || name.starts_with("fs.mqueue."))
                && pod.pod_spec().host_ipc == Some(true));
        if shared {
            let which = if name.starts_with("net.") { "net" } else { "ipc" };
            return reject(
                "SysctlForbidden",
                &format!("forbidden sysctl: {:?} not allowed with host {which} enabled", sysctl.name),
            );
        }
    }
    let confined = |profile: Option<&k8s_openapi::api::core::v1::AppArmorProfile>| {
        profile.is_some_and(|profile| profile.type_ != "Unconfined")
    };
    let containers = pod.pod_spec().containers.iter().chain(pod.init_containers());
    let wants_apparmor = confined(context.and_then(|c| c.app_armor_profile.as_ref()))
        || containers
            .into_iter()
            .any(|c| confined(c.security_context.as_ref().and_then(|s| s.app_armor_profile.as_ref())));
    if wants_apparmor && !node.apparmor {
        return reject("AppArmor", "Cannot enforce AppArmor: AppArmor is not enabled on the host");
    }
    Ok(())
}

fn marks(pod: &Pod, others: &[&Pod], node: &NodeView) -> Result<(), Rejection> {
    let failed = |name: &str, text: &str| {
        Err(Rejection { reason: name.to_owned(), message: format!("Predicate {name} failed: {text}") })
    };
    if node.marks.as_ref().is_some_and(|marks| !affinity_matches(pod, &marks.labels, &node.name)) {
        return failed("NodeAffinity", "node(s) didn't match Pod's node affinity/selector");
    }
    if pod.pod_spec().node_name.as_ref().is_some_and(|name| !name.is_empty() && *name != node.name) {
        return failed("NodeName", "node(s) didn't match the requested node name");
    }
    let taken: Vec<HostPort> = others.iter().flat_map(|other| host_ports(other)).collect();
    if host_ports(pod).iter().any(|port| taken.iter().any(|other| port.clashes(other))) {
        return failed("NodePorts", "node(s) didn't have free ports for the requested pod ports");
    }
    if let Some(marks) = node.marks.as_ref().filter(|_| !pod.is_static()) {
        let tolerations = pod.pod_spec().tolerations.as_deref().unwrap_or_default();
        let refused = marks
            .taints
            .iter()
            .any(|taint| taint.effect == "NoExecute" && !tolerations.iter().any(|t| tolerates(t, taint)));
        if refused {
            return failed("TaintToleration", "node(s) had taints that the pod didn't tolerate");
        }
    }
    Ok(())
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct HostPort {
    ip: String,
    protocol: String,
    port: i32,
}

impl HostPort {
    fn clashes(&self, other: &Self) -> bool {
        let anywhere = |ip: &str| ip == "0.0.0.0";
        self.port == other.port
            && self.protocol == other.protocol
            && (self.ip == other.ip || anywhere(&self.ip) || anywhere(&other.ip))
    }
}

fn host_ports(pod: &Pod) -> Vec<HostPort> {
    let all = |c: &&Container| c.ports.is_some();
    let containers =
        pod.pod_spec().containers.iter().chain(pod.init_containers().iter().filter(|c| is_sidecar(c))).filter(all);
    let text = |given: &Option<String>, default: &str| {
        given.clone().filter(|value| !value.is_empty()).unwrap_or_else(|| default.to_owned())
    };
    containers
        .flat_map(|c| c.ports.iter().flatten())
        .filter_map(|port| {
            let number = port.host_port.filter(|number| *number > 0)?;
            Some(HostPort { ip: text(&port.host_ip, "0.0.0.0"), protocol: text(&port.protocol, "TCP"), port: number })
        })
        .collect()
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let effect = toleration.effect.as_deref().unwrap_or_default();
    let key = toleration.key.as_deref().unwrap_or_default();
    if (!effect.is_empty() && effect != taint.effect) || (!key.is_empty() && key != taint.key) {
        return false;
    }
    let (given, value) = (toleration.value.as_deref().unwrap_or_default(), taint.value.as_deref().unwrap_or_default());
    let numbers = || Some((value.parse::<i64>().ok()?, given.parse::<i64>().ok()?));
    match toleration.operator.as_deref().unwrap_or_default() {
        "" | "Equal" => given == value,
        "Exists" => true,
        "Lt" => numbers().is_some_and(|(taint, toleration)| taint < toleration),
        "Gt" => numbers().is_some_and(|(taint, toleration)| taint > toleration),
        _ => false,
    }
}

fn affinity_matches(pod: &Pod, labels: &BTreeMap<String, String>, name: &str) -> bool {
    let spec = pod.pod_spec();
    if spec.node_selector.iter().flatten().any(|(key, value)| labels.get(key) != Some(value)) {
        return false;
    }
    let required = spec
        .affinity
        .as_ref()
        .and_then(|a| a.node_affinity.as_ref()?.required_during_scheduling_ignored_during_execution.as_ref());
    required.is_none_or(|selector| selector.node_selector_terms.iter().any(|term| term_matches(term, labels, name)))
}

fn term_matches(term: &NodeSelectorTerm, labels: &BTreeMap<String, String>, name: &str) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    // A term that says nothing matches nothing.
    !(expressions.is_empty() && fields.is_empty())
        && expressions.iter().all(|r| requirement_matches(r, labels.get(&r.key).map(String::as_str)))
        && fields.iter().all(|r| r.key == "metadata.name" && requirement_matches(r, Some(name)))
}

fn requirement_matches(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let listed = value.is_some_and(|value| values.iter().any(|v| v == value));
    let numbers = || Some((value?.parse::<i64>().ok()?, values.first()?.parse::<i64>().ok()?));
    match requirement.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => numbers().is_some_and(|(own, bound)| own > bound),
        "Lt" => numbers().is_some_and(|(own, bound)| own < bound),
        _ => false,
    }
}

/// Whether two amounts are the same number, however they are written.
pub fn same_amount(a: &str, b: &str) -> bool {
    match (Amount::parse(a), Amount::parse(b)) {
        (Ok(mut a), Ok(b)) => {
            a.sub(&b);
            a.is_zero()
        }
        _ => a == b,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn node() -> NodeView {
        NodeView {
            name: "n1".into(),
            marks: Some(Marks {
                labels: BTreeMap::from([("zone".into(), "a".into()), ("cores".into(), "4".into())]),
                taints: vec![Taint { key: "gone".into(), effect: "NoExecute".into(), ..Default::default() }],
            }),
            cpu: 2000,
            memory: 1 << 30,
            storage: 1 << 30,
            pods: 2,
            ..Default::default()
        }
    }

    fn pod(spec: Value) -> Pod {
        let mut value = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a"}],
            "tolerations": [{"operator": "Exists"}]}});
        for (key, field) in spec.as_object().unwrap() {
            value["spec"][key] = field.clone();
        }
        serde_json::from_value(value).unwrap()
    }

    fn asks(cpu: &str) -> Value {
        json!({"containers": [{"name": "a", "resources": {"requests": {"cpu": cpu}}}]})
    }

    #[test]
    fn what_does_not_fit_says_by_how_much() {
        let other = pod(asks("1500m"));
        let error = admit(&pod(asks("600m")), &[&other], &node()).unwrap_err();
        assert_eq!(error.reason, "OutOfcpu");
        assert_eq!(error.message, "Node didn't have enough resource: cpu, requested: 600, used: 1500, capacity: 2000");
        assert!(admit(&pod(asks("500m")), &[&other], &node()).is_ok());
        let error = admit(&pod(json!({})), &[&other, &other], &node()).unwrap_err();
        assert_eq!(error.reason, "OutOfpods");
    }

    #[test]
    fn the_node_must_be_the_one_that_was_asked_for() {
        let term = |operator: &str, values: Value| {
            json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
                {"nodeSelectorTerms": [{"matchExpressions": [{"key": "cores", "operator": operator, "values": values}]}]}}}})
        };
        for (spec, reason) in [
            (json!({"nodeSelector": {"zone": "a"}}), None),
            (json!({"nodeSelector": {"zone": "b"}}), Some("NodeAffinity")),
            (term("Gt", json!(["3"])), None),
            (term("Lt", json!(["3"])), Some("NodeAffinity")),
            (term("In", json!(["8", "4"])), None),
            (json!({"nodeName": "n2"}), Some("NodeName")),
            (json!({"tolerations": []}), Some("TaintToleration")),
            (json!({"tolerations": [{"key": "gone", "effect": "NoExecute"}]}), None),
            (json!({"os": {"name": "windows"}}), Some("PodOSNotSupported")),
            (
                json!({"securityContext": {"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}}),
                Some("SysctlForbidden"),
            ),
            (json!({"securityContext": {"sysctls": [{"name": "net/ipv4/tcp_syncookies", "value": "1"}]}}), None),
            (json!({"securityContext": {"appArmorProfile": {"type": "RuntimeDefault"}}}), Some("AppArmor")),
        ] {
            let found = admit(&pod(spec.clone()), &[], &node()).err().map(|r| r.reason);
            assert_eq!(found.as_deref(), reason, "{spec}");
        }
    }

    #[test]
    fn host_ports_clash_on_the_same_address_and_protocol() {
        let with = |ip: &str, protocol: &str| {
            pod(json!({"containers": [{"name": "a", "ports":
                [{"containerPort": 1, "hostPort": 80, "hostIP": ip, "protocol": protocol}]}]}))
        };
        let there = with("10.0.0.1", "TCP");
        for (pod, clashes) in [
            (with("10.0.0.1", "TCP"), true),
            (with("", "TCP"), true),
            (with("10.0.0.2", "TCP"), false),
            (with("10.0.0.1", "UDP"), false),
        ] {
            assert_eq!(admit(&pod, &[&there], &node()).is_err(), clashes);
        }
    }

    #[test]
    fn amounts_are_compared_as_numbers() {
        assert!(same_amount("1", "1000m") && same_amount("1Gi", "1024Mi") && !same_amount("1", "2"));
    }
}
