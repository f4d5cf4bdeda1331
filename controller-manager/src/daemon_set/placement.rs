//! Pure: on which nodes the pods of a DaemonSet belong.

use serde_json::{Value, json};

use crate::types::{Node, Pod, Taint, Toleration};

/// Taints that every daemon tolerates, because daemons are what makes a node ready: (key, effect).
const TOLERATED: [(&str, &str); 6] = [
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];

/// The pod spec of a template with the tolerations that daemons get.
pub(super) fn with_tolerations(spec: &mut Value) {
    let mut tolerations: Vec<Value> = spec["tolerations"].as_array().cloned().unwrap_or_default();
    let mut wanted = TOLERATED.to_vec();
    if spec["hostNetwork"] == true {
        wanted.push(("node.kubernetes.io/network-unavailable", "NoSchedule"));
    }
    for (key, effect) in wanted {
        let toleration = json!({ "key": key, "operator": "Exists", "effect": effect });
        if !tolerations.contains(&toleration) {
            tolerations.push(toleration);
        }
    }
    spec["tolerations"] = json!(tolerations);
}

/// Ties a pod spec to one node by affinity, which leaves the binding to the scheduler. Terms that are
/// there stay, each with the name of the node added.
pub(super) fn tie_to_node(spec: &mut Value, node: &str) {
    let field = json!({ "key": "metadata.name", "operator": "In", "values": [node] });
    let required = &mut spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
    match required["nodeSelectorTerms"].as_array_mut() {
        Some(terms) if !terms.is_empty() => {
            for term in terms {
                term["matchFields"] = json!([field]);
            }
        }
        _ => *required = json!({ "nodeSelectorTerms": [{ "matchFields": [field] }] }),
    }
}

/// The node a daemon pod is on or meant for.
pub(super) fn target(pod: &Pod) -> Option<&str> {
    if !pod.spec.node_name.is_empty() {
        return Some(&pod.spec.node_name);
    }
    pod.spec.affinity.node_affinity.required.node_selector_terms.iter().find_map(|term| {
        term.match_fields
            .iter()
            .find(|field| field.key == "metadata.name" && field.operator == "In")
            .and_then(|field| field.values.first())
            .map(String::as_str)
    })
}

/// Whether a pod should come to a node, and whether one that is there may stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Verdict {
    pub run: bool,
    pub stay: bool,
}

const NO: Verdict = Verdict { run: false, stay: false };

/// Judges one node for a pod spec that has the daemons' tolerations.
pub(super) fn judge(spec: &Value, node: &Node) -> Verdict {
    if spec["nodeName"].as_str().is_some_and(|name| !name.is_empty() && name != node.metadata.name) {
        return NO;
    }
    let selector_fits = spec["nodeSelector"]
        .as_object()
        .into_iter()
        .flatten()
        .all(|(key, value)| node.metadata.label(key) == value.as_str());
    let required = &spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
    let affinity_fits = required.is_null()
        || required["nodeSelectorTerms"].as_array().into_iter().flatten().any(|term| term_matches(term, node));
    if !selector_fits || !affinity_fits {
        return NO;
    }
    let tolerations: Vec<Toleration> = serde_json::from_value(spec["tolerations"].clone()).unwrap_or_default();
    let tolerated =
        |taint: &Taint| tolerations.iter().any(|toleration| crate::taint_eviction::tolerates(toleration, taint));
    let bad = |effects: &[&str]| {
        node.spec.taints.iter().any(|taint| effects.contains(&taint.effect.as_str()) && !tolerated(taint))
    };
    Verdict { run: !bad(&["NoSchedule", "NoExecute"]), stay: !bad(&["NoExecute"]) }
}

/// A term without any requirement matches nothing.
fn term_matches(term: &Value, node: &Node) -> bool {
    let list = |name: &str| term[name].as_array().map_or(&[][..], Vec::as_slice);
    let (expressions, fields) = (list("matchExpressions"), list("matchFields"));
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    let label = |key: &str| node.metadata.label(key);
    let field = |key: &str| (key == "metadata.name").then_some(node.metadata.name.as_str());
    expressions.iter().all(|requirement| requirement_matches(requirement, &label))
        && fields.iter().all(|requirement| requirement_matches(requirement, &field))
}

fn requirement_matches<'a>(requirement: &Value, value_of: &dyn Fn(&str) -> Option<&'a str>) -> bool {
    let value = value_of(requirement["key"].as_str().unwrap_or_default());
    let mut values = requirement["values"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let number = |text: Option<&str>| text.and_then(|text| text.parse::<i64>().ok());
    match requirement["operator"].as_str().unwrap_or_default() {
        "In" => value.is_some_and(|value| values.any(|wanted| wanted == value)),
        "NotIn" => !value.is_some_and(|value| values.any(|wanted| wanted == value)),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => number(value).zip(number(values.next())).is_some_and(|(value, bound)| value > bound),
        "Lt" => number(value).zip(number(values.next())).is_some_and(|(value, bound)| value < bound),
        _ => false,
    }
}
