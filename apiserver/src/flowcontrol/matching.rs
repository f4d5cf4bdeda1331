//! Which FlowSchema a request belongs to. Upstream: `util/flowcontrol/rule.go`.

use std::sync::Arc;

use serde::{Deserialize, Deserializer};

use crate::request::{RequestInfo, UserInfo};

fn nullable<'de, D: Deserializer<'de>, T: Deserialize<'de>>(input: D) -> Result<Vec<T>, D::Error> {
    Ok(Option::deserialize(input)?.unwrap_or_default())
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Spec {
    pub matching_precedence: i64,
    pub priority_level_configuration: Named,
    pub distinguisher_method: Option<Distinguisher>,
    #[serde(deserialize_with = "nullable")]
    rules: Vec<Rule>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Named {
    pub name: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Distinguisher {
    #[serde(rename = "type")]
    pub kind: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Rule {
    #[serde(deserialize_with = "nullable")]
    subjects: Vec<Subject>,
    #[serde(deserialize_with = "nullable")]
    resource_rules: Vec<ResourceRule>,
    #[serde(deserialize_with = "nullable")]
    non_resource_rules: Vec<PathRule>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Subject {
    kind: String,
    user: Option<Named>,
    group: Option<Named>,
    service_account: Option<Account>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Account {
    namespace: String,
    name: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ResourceRule {
    #[serde(deserialize_with = "nullable")]
    verbs: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    api_groups: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    resources: Vec<String>,
    cluster_scope: bool,
    #[serde(deserialize_with = "nullable")]
    namespaces: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct PathRule {
    #[serde(deserialize_with = "nullable")]
    verbs: Vec<String>,
    #[serde(rename = "nonResourceURLs", deserialize_with = "nullable")]
    paths: Vec<String>,
}

/// A FlowSchema, ready to match.
#[derive(Clone, Debug)]
pub struct Schema {
    pub(super) name: Arc<str>,
    pub(super) uid: Arc<str>,
    pub(super) spec: Spec,
}

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|item| item == wanted || (list.len() == 1 && item == "*"))
}

impl Subject {
    fn is(&self, user: &UserInfo) -> bool {
        match self.kind.as_str() {
            "User" => self.user.as_ref().is_some_and(|named| named.name == "*" || named.name == user.name),
            "Group" => self.group.as_ref().is_some_and(|named| named.name == "*" || user.in_group(&named.name)),
            "ServiceAccount" => self.service_account.as_ref().is_some_and(|account| {
                user.service_account().is_some_and(|(namespace, name)| {
                    namespace == account.namespace && (account.name == "*" || account.name == name)
                })
            }),
            _ => false,
        }
    }
}

impl ResourceRule {
    fn matches(&self, info: &RequestInfo) -> bool {
        let resource = || {
            if info.subresource.is_empty() {
                has(&self.resources, &info.resource)
            } else {
                has(&self.resources, &format!("{}/{}", info.resource, info.subresource))
            }
        };
        let place =
            || if info.namespace.is_empty() { self.cluster_scope } else { has(&self.namespaces, &info.namespace) };
        has(&self.verbs, &info.verb) && has(&self.api_groups, &info.group) && place() && resource()
    }
}

impl PathRule {
    fn matches(&self, info: &RequestInfo) -> bool {
        let covers = |rule: &String| {
            let below = rule.strip_suffix('*').unwrap_or(rule);
            rule == "*"
                || *rule == info.path
                || info.path.strip_prefix(below).is_some_and(|rest| below.ends_with('/') || rest.starts_with('/'))
        };
        has(&self.verbs, &info.verb) && self.paths.iter().any(covers)
    }
}

impl Schema {
    /// Whether a request belongs to the schema.
    pub fn matches(&self, user: &UserInfo, info: &RequestInfo) -> bool {
        self.spec.rules.iter().any(|rule| {
            let wanted = if info.is_resource {
                rule.resource_rules.iter().any(|rule| rule.matches(info))
            } else {
                rule.non_resource_rules.iter().any(|rule| rule.matches(info))
            };
            wanted && rule.subjects.iter().any(|subject| subject.is(user))
        })
    }

    /// What tells the flows of the schema apart.
    pub fn distinguish<'a>(&self, user: &'a UserInfo, info: &'a RequestInfo) -> &'a str {
        match self.spec.distinguisher_method.as_ref().map(|method| method.kind.as_str()) {
            Some("ByUser") => &user.name,
            Some("ByNamespace") => &info.namespace,
            _ => "",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::objects;
    use super::*;
    use crate::request::Query;

    #[test]
    fn requests_find_their_schema() {
        let mut schemas: Vec<Schema> = objects::schemas()
            .iter()
            .map(|object| Schema {
                name: object["metadata"]["name"].as_str().unwrap().into(),
                uid: "".into(),
                spec: serde_json::from_value(object["spec"].clone()).unwrap(),
            })
            .collect();
        schemas.sort_by_key(|schema| schema.spec.matching_precedence);
        let found = |user: UserInfo, method: &str, path: &str| {
            let info = RequestInfo::new(&method.parse().unwrap(), path, &Query::default()).unwrap();
            let schema = schemas.iter().find(|schema| schema.matches(&user, &info)).unwrap();
            (schema.name.to_string(), schema.distinguish(&user, &info).to_string())
        };
        let user = UserInfo::new;
        let lease = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/x";
        for (user, method, path, want, flow) in [
            (user("a", &["system:masters"]), "GET", "/api/v1/pods", "exempt", ""),
            (UserInfo::anonymous(), "GET", "/livez", "probes", ""),
            (UserInfo::anonymous(), "GET", "/livez/ping", "probes", ""),
            (UserInfo::anonymous(), "GET", "/metrics", "global-default", "system:anonymous"),
            (user("system:kube-scheduler", &[]), "PUT", lease, "system-leader-election", "system:kube-scheduler"),
            (user("system:kube-scheduler", &[]), "DELETE", lease, "kube-scheduler", "kube-system"),
            (
                user("system:node:n", &["system:nodes"]),
                "PATCH",
                "/api/v1/nodes/n/status",
                "system-node-high",
                "system:node:n",
            ),
            (
                user("system:node:n", &["system:nodes"]),
                "GET",
                "/api/v1/namespaces/a/pods/p",
                "system-nodes",
                "system:node:n",
            ),
            (
                user("system:serviceaccount:kube-system:x", &["system:serviceaccounts"]),
                "GET",
                "/api/v1/namespaces/a/pods/p",
                "kube-system-service-accounts",
                "a",
            ),
            (
                user("system:serviceaccount:a:x", &["system:serviceaccounts"]),
                "GET",
                "/api/v1/pods",
                "service-accounts",
                "system:serviceaccount:a:x",
            ),
            (user("alice", &[]), "GET", "/api/v1/pods", "global-default", "alice"),
        ] {
            let name = user.name.clone();
            assert_eq!(found(user, method, path), (want.to_string(), flow.to_string()), "{name} {method} {path}");
        }
    }
}
