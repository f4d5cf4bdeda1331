//! What counts against a ResourceQuota: which quotas an object concerns, and how much it uses.
//!
//! Admission charges quotas with this, the quota controller recounts them with it. Pure: objects in,
//! amounts out. Upstream: `pkg/quota/v1`.

mod claims;
mod device_claims;
mod pods;
mod services;

use std::collections::BTreeSet;
use std::sync::Arc;

use apimachinery::labels::{Operator, Requirement};
use apimachinery::object::ObjectExt as _;
use apimachinery::quantity::{Format, Quantity};
use jiff::Timestamp;
use serde_json::Value;

use crate::amounts::{self, ResourceList};
pub use device_claims::Devices;

/// Resources that older names count, beside `count/…`.
const ALIASES: [&str; 4] = ["configmaps", "resourcequotas", "replicationcontrollers", "secrets"];

/// Resources that are never counted: they are not stored, or are news.
const IGNORED: [(&str, &str); 9] = [
    ("", "bindings"),
    ("", "componentstatuses"),
    ("", "events"),
    ("events.k8s.io", "events"),
    ("authentication.k8s.io", "tokenreviews"),
    ("authorization.k8s.io", "localsubjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectrulesreviews"),
    ("authorization.k8s.io", "subjectaccessreviews"),
];

/// How objects of one resource are counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Evaluator {
    Pods,
    Claims,
    /// ResourceClaims, with what has to be known to count them.
    DeviceClaims(Arc<Devices>),
    Services,
    /// Only their number counts; under `count/…`, and under an older name if there is one.
    Count {
        name: String,
        alias: Option<&'static str>,
    },
}

/// What is being done, as far as quotas care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change<'a> {
    Create,
    Update { old: &'a Value },
}

/// A condition under which a quota counts an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    pub name: String,
    pub operator: String,
    pub values: Vec<String>,
}

impl Scope {
    /// Whether one of these values (or none) satisfies the scope's operator.
    fn accepts(&self, values: &BTreeSet<&str>) -> bool {
        let operator = match self.operator.as_str() {
            "In" => Operator::In,
            "NotIn" => Operator::NotIn,
            "Exists" => return !values.is_empty(),
            "DoesNotExist" => return values.is_empty(),
            _ => return false,
        };
        let Ok(requirement) = Requirement::new(&self.name, operator, self.values.clone()) else { return false };
        let matches = |value: Option<&str>| {
            let labels: Vec<(String, String)> =
                value.map(|value| (self.name.clone(), value.to_string())).into_iter().collect();
            requirement.matches(&LabelList(&labels))
        };
        if values.is_empty() { matches(None) } else { values.iter().any(|value| matches(Some(value))) }
    }
}

struct LabelList<'a>(&'a [(String, String)]);

impl apimachinery::labels::Labels for LabelList<'_> {
    fn label(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(have, _)| have == key).map(|(_, value)| value.as_str())
    }
}

/// All conditions of a quota.
pub fn scopes(quota: &Value) -> Vec<Scope> {
    let text = |value: &Value, field: &str| value.str_at(&[field]).unwrap_or_default().to_string();
    let plain = quota.list_at(&["spec", "scopes"]).iter().filter_map(Value::as_str).map(|name| Scope {
        name: name.to_string(),
        operator: "Exists".to_string(),
        values: Vec::new(),
    });
    let selected = quota.list_at(&["spec", "scopeSelector", "matchExpressions"]).iter().map(|term| Scope {
        name: text(term, "scopeName"),
        operator: text(term, "operator"),
        values: term.list_at(&["values"]).iter().filter_map(Value::as_str).map(str::to_string).collect(),
    });
    plain.chain(selected).collect()
}

fn one() -> Quantity {
    Quantity::new(1, Format::DecimalSI)
}

fn count_name(group: &str, plural: &str) -> String {
    if group.is_empty() { format!("count/{plural}") } else { format!("count/{plural}.{group}") }
}

impl Evaluator {
    /// How a resource is counted; `None` when it is not. ResourceClaims by themselves only: see [`Devices`].
    pub fn of(group: &str, plural: &str) -> Option<Evaluator> {
        if IGNORED.contains(&(group, plural)) {
            return None;
        }
        Some(match (group, plural) {
            ("", "pods") => Evaluator::Pods,
            ("", "persistentvolumeclaims") => Evaluator::Claims,
            ("", "services") => Evaluator::Services,
            ("resource.k8s.io", "resourceclaims") => Evaluator::DeviceClaims(Arc::default()),
            _ => {
                let alias = ALIASES.into_iter().find(|alias| group.is_empty() && *alias == plural);
                Evaluator::Count { name: count_name(group, plural), alias }
            }
        })
    }

    /// Whether a request may change what an object uses.
    pub fn handles(&self, subresource: &str, change: Change<'_>, new: &Value) -> bool {
        match (self, subresource, change) {
            (Evaluator::Pods, "", Change::Update { old }) => pods::is_terminating(old) != pods::is_terminating(new),
            (Evaluator::Pods, "resize", Change::Update { .. }) => true,
            (Evaluator::Claims, "status", Change::Update { old }) => claims::status_matters(old, new),
            (Evaluator::Claims | Evaluator::DeviceClaims(_) | Evaluator::Services, "", _) | (_, "", Change::Create) => {
                true
            }
            _ => false,
        }
    }

    /// Which of these names this evaluator counts.
    pub fn counted<'a>(&self, names: impl Iterator<Item = &'a str>) -> BTreeSet<String> {
        let ours = |name: &&str| match self {
            Evaluator::Pods => pods::counts(name),
            Evaluator::Claims => claims::counts(name),
            Evaluator::DeviceClaims(devices) => devices.counts(name),
            Evaluator::Services => services::counts(name),
            Evaluator::Count { name: own, alias } => own == name || alias.is_some_and(|alias| alias == *name),
        };
        names.filter(ours).map(str::to_string).collect()
    }

    fn in_scope(&self, scope: &Scope, object: &Value) -> bool {
        match self {
            Evaluator::Pods => pods::in_scope(scope, object),
            Evaluator::Claims => claims::in_scope(scope, object),
            Evaluator::DeviceClaims(_) | Evaluator::Services | Evaluator::Count { .. } => false,
        }
    }

    /// Whether a quota counts an object, going by the limits in `hard`.
    pub fn concerns(&self, quota: &Value, hard: &ResourceList, object: &Value) -> bool {
        !self.counted(hard.keys().map(String::as_str)).is_empty()
            && scopes(quota).iter().all(|scope| self.in_scope(scope, object))
    }

    /// What an object has to say so that these resources can be counted.
    ///
    /// # Errors
    /// Says what is not there.
    pub fn constraints(&self, counted: &BTreeSet<String>, object: &Value) -> Result<(), String> {
        match self {
            Evaluator::Pods => pods::constraints(counted, object),
            _ => Ok(()),
        }
    }

    /// How much an object uses.
    pub fn usage(&self, object: &Value, now: Timestamp) -> ResourceList {
        match self {
            Evaluator::Pods => pods::usage(object, now),
            Evaluator::Claims => claims::usage(object),
            Evaluator::DeviceClaims(devices) => devices.usage(object, now),
            Evaluator::Services => services::usage(object),
            Evaluator::Count { name, alias } => {
                let names = std::iter::once(name.clone()).chain(alias.map(str::to_string));
                names.map(|name| (name, one())).collect()
            }
        }
    }
}

/// The amounts of these names only.
pub fn mask<'a>(amounts: &ResourceList, names: impl Iterator<Item = &'a String>) -> ResourceList {
    names.filter_map(|name| Some((name.clone(), amounts.get(name)?.clone()))).collect()
}

/// What is left of `amounts` beyond `others`; nothing below zero.
pub fn beyond(amounts: &ResourceList, others: &ResourceList) -> ResourceList {
    let mut rest = amounts.clone();
    for (name, amount) in &mut rest {
        if let Some(other) = others.get(name) {
            amount.sub(other);
            if amount.sign() < 0 {
                *amount = Quantity::new(0, amount.format());
            }
        }
    }
    rest
}

/// `cpu=1,memory=2Gi`, as messages show amounts.
pub fn pretty(amounts: &ResourceList) -> String {
    amounts.iter().map(|(name, amount)| format!("{name}={amount}")).collect::<Vec<_>>().join(",")
}

/// What the objects of a resource use of a quota, by the limits in `hard`.
pub fn recount<'a>(
    evaluator: &Evaluator,
    quota: &Value,
    hard: &ResourceList,
    objects: impl Iterator<Item = &'a Value>,
    now: Timestamp,
) -> ResourceList {
    let counted = evaluator.counted(hard.keys().map(String::as_str));
    let zero =
        |name: &String| (name.clone(), Quantity::new(0, hard.get(name).map_or(Format::DecimalSI, Quantity::format)));
    let mut used: ResourceList = counted.iter().map(zero).collect();
    for object in objects.filter(|object| evaluator.concerns(quota, hard, object)) {
        amounts::add(&mut used, &mask(&evaluator.usage(object, now), counted.iter()));
    }
    used
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn hard(names: &[&str]) -> ResourceList {
        names.iter().map(|name| ((*name).to_string(), Quantity::new(10, Format::DecimalSI))).collect()
    }

    fn shown(used: &ResourceList) -> String {
        pretty(used)
    }

    #[test]
    fn pods_claims_services_and_counts() {
        let pod = json!({"spec": {"containers": [
            {"name": "a", "resources": {"requests": {"cpu": "100m", "example.com/gpu": "2"}, "limits": {"memory": "1Gi"}}},
        ]}});
        let claim = json!({"spec": {"storageClassName": "fast", "resources": {"requests": {"storage": "1Gi"}}}});
        let service = json!({"spec": {"type": "LoadBalancer", "ports": [{}, {}]}});
        for (group, plural, object, want) in [
            (
                "",
                "pods",
                &pod,
                "count/pods=1,cpu=100m,limits.memory=1Gi,pods=1,requests.cpu=100m,requests.example.com/gpu=2",
            ),
            (
                "",
                "persistentvolumeclaims",
                &claim,
                "count/persistentvolumeclaims=1,fast.storageclass.storage.k8s.io/persistentvolumeclaims=1,\
                 fast.storageclass.storage.k8s.io/requests.storage=1Gi,persistentvolumeclaims=1,requests.storage=1Gi",
            ),
            ("", "services", &service, "count/services=1,services=1,services.loadbalancers=1,services.nodeports=2"),
            ("", "secrets", &json!({}), "count/secrets=1,secrets=1"),
            ("apps", "deployments", &json!({}), "count/deployments.apps=1"),
        ] {
            let evaluator = Evaluator::of(group, plural).expect("counted");
            assert_eq!(shown(&evaluator.usage(object, Timestamp::UNIX_EPOCH)), want, "{plural}");
        }
        assert_eq!(Evaluator::of("events.k8s.io", "events"), None);
    }

    #[test]
    fn scopes_narrow_a_quota() {
        let pods = Evaluator::Pods;
        let quota = |spec: Value| json!({"spec": spec});
        let pod = |spec: Value| json!({"spec": spec});
        let plain = pod(json!({"containers": [{}]}));
        let critical = pod(json!({"priorityClassName": "critical", "containers": [{}]}));
        let bounded =
            pod(json!({"activeDeadlineSeconds": 5, "containers": [{"resources": {"requests": {"cpu": "1"}}}]}));
        let selector = |operator: &str, values: &[&str]| {
            quota(json!({"scopeSelector": {"matchExpressions": [
                {"scopeName": "PriorityClass", "operator": operator, "values": values},
            ]}}))
        };
        for (quota, pod, want) in [
            (quota(json!({})), &plain, true),
            (quota(json!({"scopes": ["BestEffort"]})), &plain, true),
            (quota(json!({"scopes": ["BestEffort"]})), &bounded, false),
            (quota(json!({"scopes": ["Terminating"]})), &bounded, true),
            (quota(json!({"scopes": ["NotTerminating"]})), &bounded, false),
            (selector("In", &["critical"]), &critical, true),
            (selector("In", &["critical"]), &plain, false),
            (selector("NotIn", &["critical"]), &plain, true),
            (selector("Exists", &[]), &critical, true),
            (selector("DoesNotExist", &[]), &critical, false),
        ] {
            assert_eq!(pods.concerns(&quota, &hard(&["pods"]), pod), want, "{quota} {pod}");
        }
        assert!(!pods.concerns(&quota(json!({})), &hard(&["services"]), &plain), "it limits no pods");
    }

    #[test]
    fn recounting_sums_what_concerns() {
        let quota = json!({"spec": {}});
        let pod = |phase: &str| json!({"spec": {"containers": [{"resources": {"requests": {"cpu": "500m"}}}]}, "status": {"phase": phase}});
        let pods = [pod("Running"), pod("Running"), pod("Succeeded")];
        let hard = hard(&["pods", "requests.cpu", "count/pods", "services"]);
        let used = recount(&Evaluator::Pods, &quota, &hard, pods.iter(), Timestamp::UNIX_EPOCH);
        assert_eq!(shown(&used), "count/pods=3,pods=2,requests.cpu=1");
    }

    #[test]
    fn containers_must_say_what_is_counted() {
        let pod =
            json!({"spec": {"containers": [{"name": "b"}, {"name": "a", "resources": {"requests": {"cpu": "1"}}}]}});
        let counted = ["requests.cpu", "limits.memory", "pods"].map(String::from).into();
        assert_eq!(
            Evaluator::Pods.constraints(&counted, &pod),
            Err("must specify limits.memory for: a,b; requests.cpu for: b".to_string())
        );
    }
}
