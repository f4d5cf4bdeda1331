//! Fills cluster roles that gather others (`admin`, `edit`, `view` and those of administrators): the
//! rules of every role that their selectors match, each once, in the order of the roles' names.
//!
//! Reads cluster roles; writes `rules` of those with an `aggregationRule` by server-side apply.
//! Upstream: `pkg/controller/clusterroleaggregation`.

use std::sync::Arc;

use apimachinery::labels::Selector;
use client::meta::null_default;
use client::resources::CLUSTER_ROLES;
use client::workqueue::WorkQueue;
use client::{ObjectKey, ObjectMeta, Patch};
use futures::future::BoxFuture;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use crate::context::Context;
use crate::worker::{self, Error, Requeue};

pub const NAME: &str = "clusterrole-aggregation-controller";

/// As upstream; a role that gathers roles that gather needs a few rounds anyway.
const WORKERS: usize = 5;

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ClusterRole {
    metadata: ObjectMeta,
    #[serde(deserialize_with = "null_default")]
    rules: Vec<Value>,
    aggregation_rule: Option<AggregationRule>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct AggregationRule {
    #[serde(deserialize_with = "null_default")]
    cluster_role_selectors: Vec<Value>,
}

client::impl_meta!(ClusterRole);

/// Pure: the rules a role should have; `None` when it gathers nothing or has them already.
///
/// # Errors
/// A selector that is none.
fn decide(role: &ClusterRole, all: &[Arc<ClusterRole>]) -> Result<Option<Vec<Value>>, String> {
    let Some(aggregation) = &role.aggregation_rule else { return Ok(None) };
    let mut sorted: Vec<&ClusterRole> = all.iter().map(|role| &**role).collect();
    sorted.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    let mut rules: Vec<Value> = Vec::new();
    for selector in &aggregation.cluster_role_selectors {
        let selector = Selector::from_label_selector(Some(selector)).map_err(|error| error.to_string())?;
        let matching = sorted
            .iter()
            .filter(|other| other.metadata.name != role.metadata.name && selector.matches(&other.metadata.labels));
        for rule in matching.flat_map(|other| &other.rules) {
            if !rules.contains(rule) {
                rules.push(rule.clone());
            }
        }
    }
    Ok((rules != role.rules).then_some(rules))
}

pub fn start(context: &Arc<Context>) -> BoxFuture<'static, ()> {
    let client = context.client(NAME);
    let roles = context.informers.of::<ClusterRole>(&CLUSTER_ROLES);
    let queue: WorkQueue<ObjectKey> = WorkQueue::new();
    {
        // Any change may concern any role that gathers.
        let (queue, store) = (queue.clone(), roles.store());
        roles.on_event(move |event| {
            let changed = event.object();
            let gathers = |role: &ClusterRole| role.aggregation_rule.is_some();
            if gathers(changed) {
                queue.add(changed.metadata.key());
            }
            for role in store.list().iter().filter(|role| gathers(role)) {
                queue.add(role.metadata.key());
            }
        });
    }
    let followed = [roles.synced()];
    let store = roles.store();
    worker::start(NAME, queue, WORKERS, &context.shutdown, followed, move |key| {
        let (client, store) = (client.clone(), store.clone());
        async move {
            let Some(role) = store.get(&key) else { return Ok(Requeue::Never) };
            let Some(rules) = decide(&role, &store.list()).map_err(Error::Other)? else {
                return Ok(Requeue::Never);
            };
            let patch = Patch::Apply {
                body: json!({
                    "apiVersion": CLUSTER_ROLES.api_version(), "kind": "ClusterRole",
                    "metadata": { "name": key.name }, "rules": rules,
                }),
                manager: NAME.to_owned(),
                force: true,
            };
            client.patch::<IgnoredAny>(&CLUSTER_ROLES, None, &key.name, None, &patch).await?;
            Ok(Requeue::Never)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role(value: Value) -> Arc<ClusterRole> {
        Arc::new(serde_json::from_value(value).unwrap())
    }

    #[test]
    fn gathers_each_rule_once_in_order() {
        let rule = |verb: &str| json!({"verbs": [verb], "apiGroups": [""], "resources": ["pods"]});
        let all = [
            role(json!({"metadata": {"name": "b", "labels": {"to": "x"}}, "rules": [rule("list"), rule("get")]})),
            role(json!({"metadata": {"name": "a", "labels": {"to": "x"}}, "rules": [rule("get")]})),
            role(json!({"metadata": {"name": "other", "labels": {"to": "y"}}, "rules": [rule("delete")]})),
            role(json!({
                "metadata": {"name": "sum", "labels": {"to": "x"}}, "rules": [rule("watch")],
                "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"to": "x"}}]},
            })),
        ];
        let wanted = vec![rule("get"), rule("list")];
        assert_eq!(decide(&all[3], &all), Ok(Some(wanted.clone())));
        let settled = ClusterRole { rules: wanted, ..ClusterRole::clone(&all[3]) };
        assert_eq!(decide(&settled, &all), Ok(None));
        assert_eq!(decide(&all[0], &all), Ok(None), "a role that gathers nothing");
    }
}
