//! The FlowSchemas and PriorityLevelConfigurations that every cluster has: upstream's of 1.36, as data.

use serde_json::{Value, json};

/// Objects that carry this as `"true"` are kept as they are here.
pub const AUTO_UPDATE: &str = "apf.kubernetes.io/autoupdate-spec";
pub const GROUP: &str = "flowcontrol.apiserver.k8s.io";

type Queues = (i64, i64, i64);

/// Name, shares, lendable percent, and queues, hand size and queue length; without queues excess is refused.
const LEVELS: [(&str, i64, i64, Option<Queues>); 7] = [
    ("catch-all", 5, 0, None),
    ("global-default", 20, 50, Some((128, 6, 50))),
    ("leader-election", 10, 0, Some((16, 4, 50))),
    ("node-high", 40, 25, Some((64, 6, 50))),
    ("system", 30, 33, Some((64, 6, 50))),
    ("workload-high", 40, 50, Some((128, 6, 50))),
    ("workload-low", 100, 90, Some((128, 6, 50))),
];

/// Who a schema is about.
enum Who {
    User(&'static str),
    Group(&'static str),
    /// Every service account of a namespace.
    Accounts(&'static str),
}

impl Who {
    fn value(&self) -> Value {
        match self {
            Who::User(name) => json!({"kind": "User", "user": {"name": name}}),
            Who::Group(name) => json!({"kind": "Group", "group": {"name": name}}),
            Who::Accounts(namespace) => {
                json!({"kind": "ServiceAccount", "serviceAccount": {"name": "*", "namespace": namespace}})
            }
        }
    }
}

/// What a schema is about.
enum What {
    Everything,
    /// `get` of these paths.
    Paths(&'static [&'static str]),
    /// Verbs, group, resources, and whether also without a namespace.
    Resources(&'static [(&'static [&'static str], &'static str, &'static [&'static str], bool)]),
}

struct Schema {
    name: &'static str,
    precedence: i64,
    level: &'static str,
    /// `ByUser`, `ByNamespace` or nothing.
    distinguisher: &'static str,
    who: &'static [Who],
    what: What,
}

const EVERYBODY: &[Who] = &[Who::Group("system:unauthenticated"), Who::Group("system:authenticated")];

const fn schema(
    name: &'static str,
    precedence: i64,
    level: &'static str,
    distinguisher: &'static str,
    who: &'static [Who],
    what: What,
) -> Schema {
    Schema { name, precedence, level, distinguisher, who, what }
}

const SCHEMAS: [Schema; 11] = [
    schema("exempt", 1, "exempt", "", &[Who::Group("system:masters")], What::Everything),
    schema("probes", 2, "exempt", "", EVERYBODY, What::Paths(&["/healthz", "/readyz", "/livez"])),
    schema(
        "system-leader-election",
        100,
        "leader-election",
        "ByUser",
        &[
            Who::User("system:kube-controller-manager"),
            Who::User("system:kube-scheduler"),
            Who::Accounts("kube-system"),
        ],
        What::Resources(&[(&["get", "create", "update"], "coordination.k8s.io", &["leases"], false)]),
    ),
    schema(
        "system-node-high",
        400,
        "node-high",
        "ByUser",
        &[Who::Group("system:nodes")],
        What::Resources(&[
            (&["*"], "", &["nodes", "nodes/status"], true),
            (&["*"], "coordination.k8s.io", &["leases"], false),
        ]),
    ),
    schema("system-nodes", 500, "system", "ByUser", &[Who::Group("system:nodes")], What::Everything),
    schema(
        "kube-controller-manager",
        800,
        "workload-high",
        "ByNamespace",
        &[Who::User("system:kube-controller-manager")],
        What::Everything,
    ),
    schema(
        "kube-scheduler",
        800,
        "workload-high",
        "ByNamespace",
        &[Who::User("system:kube-scheduler")],
        What::Everything,
    ),
    schema(
        "kube-system-service-accounts",
        900,
        "workload-high",
        "ByNamespace",
        &[Who::Accounts("kube-system")],
        What::Everything,
    ),
    schema(
        "service-accounts",
        9000,
        "workload-low",
        "ByUser",
        &[Who::Group("system:serviceaccounts")],
        What::Everything,
    ),
    schema("global-default", 9900, "global-default", "ByUser", EVERYBODY, What::Everything),
    schema("catch-all", 10000, "catch-all", "ByUser", EVERYBODY, What::Everything),
];

fn object(kind: &str, name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": format!("{GROUP}/v1"), "kind": kind,
        "metadata": {"name": name, "annotations": {AUTO_UPDATE: "true"}},
        "spec": spec,
    })
}

/// The priority levels.
pub fn levels() -> Vec<Value> {
    const KIND: &str = "PriorityLevelConfiguration";
    let exempt = json!({"type": "Exempt", "exempt": {"nominalConcurrencyShares": 0, "lendablePercent": 0}});
    let limited = LEVELS.iter().map(|(name, shares, lendable, queues)| {
        let response = match queues {
            Some((queues, hand, length)) => json!({
                "type": "Queue",
                "queuing": {"queues": queues, "handSize": hand, "queueLengthLimit": length},
            }),
            None => json!({"type": "Reject"}),
        };
        let limited = json!({
            "nominalConcurrencyShares": shares, "lendablePercent": lendable, "limitResponse": response,
        });
        object(KIND, name, json!({"type": "Limited", "limited": limited}))
    });
    std::iter::once(object(KIND, "exempt", exempt)).chain(limited).collect()
}

/// The schemas.
pub fn schemas() -> Vec<Value> {
    SCHEMAS
        .iter()
        .map(|schema| {
            let mut rule = json!({"subjects": schema.who.iter().map(Who::value).collect::<Value>()});
            match &schema.what {
                What::Everything => {
                    rule["resourceRules"] = json!([{
                        "verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "clusterScope": true, "namespaces": ["*"],
                    }]);
                    rule["nonResourceRules"] = json!([{"verbs": ["*"], "nonResourceURLs": ["*"]}]);
                }
                What::Paths(paths) => {
                    rule["nonResourceRules"] = json!([{"verbs": ["get"], "nonResourceURLs": paths}]);
                }
                What::Resources(rules) => {
                    rule["resourceRules"] = rules
                        .iter()
                        .map(|(verbs, group, resources, cluster)| {
                            let mut rule = json!({
                                "verbs": verbs, "apiGroups": [group], "resources": resources, "namespaces": ["*"],
                            });
                            if *cluster {
                                rule["clusterScope"] = true.into();
                            }
                            rule
                        })
                        .collect();
                }
            }
            let mut spec = json!({
                "matchingPrecedence": schema.precedence,
                "priorityLevelConfiguration": {"name": schema.level},
                "rules": [rule],
            });
            if !schema.distinguisher.is_empty() {
                spec["distinguisherMethod"] = json!({"type": schema.distinguisher});
            }
            object("FlowSchema", schema.name, spec)
        })
        .collect()
}
