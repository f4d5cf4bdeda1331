//! Brings the cluster's own roles and bindings up to date, once at every start.
//!
//! What is missing is created or added; what an administrator added stays; what carries
//! `autoupdate: "false"` is left alone. Upstream: `component-helpers/auth/rbac/reconciliation`.

use std::sync::Arc;

use apimachinery::object::ObjectExt as _;
use apimachinery::status::Status;
use futures::{StreamExt as _, TryStreamExt as _};
use http::Method;
use serde_json::{Value, json};

use crate::authorization::rbac::rule::{self, Rule};
use crate::authorization::rbac::{GROUP, policy};
use crate::server::{Server, in_process};

/// `"false"` keeps an object as it is.
const AUTO_UPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";

/// Objects written at a time: enough for the store to write many with one flush.
const AT_ONCE: usize = 64;

/// How often an object that others write meanwhile is looked at again.
const ATTEMPTS: usize = 4;

/// Reconciles every role and binding.
///
/// # Errors
/// The first object's that could not be written.
pub async fn reconcile(server: &Arc<Server>) -> Result<(), Status> {
    futures::stream::iter(policy::objects(&server.features))
        .map(|object| async move { one(server, &object).await })
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await
}

async fn one(server: &Arc<Server>, expected: &Value) -> Result<(), Status> {
    let plural = format!("{}s", expected.kind().to_ascii_lowercase());
    let collection = match expected.namespace() {
        "" => format!("/apis/{GROUP}/v1/{plural}"),
        namespace => format!("/apis/{GROUP}/v1/namespaces/{namespace}/{plural}"),
    };
    let path = format!("{collection}/{}", expected.name());
    for _ in 0..ATTEMPTS {
        let answer = match step(current(server, &plural, expected), expected) {
            Step::Nothing => return Ok(()),
            Step::Create => in_process::request(server, Method::POST, &collection, Some(expected)).await,
            Step::Update(object) => in_process::request(server, Method::PUT, &path, Some(&object)).await,
            Step::Recreate => {
                in_process::request(server, Method::DELETE, &path, None).await?;
                in_process::request(server, Method::POST, &collection, Some(expected)).await
            }
        };
        match answer {
            Ok(_) => return Ok(()),
            Err(status) if status.is_already_exists() || status.is_conflict() || status.is_not_found() => {}
            Err(status) => return Err(status),
        }
    }
    Err(Status::internal(format!("exceeded maximum attempts to reconcile {path}")))
}

/// The object as the cache has it.
fn current(server: &Server, plural: &str, expected: &Value) -> Option<Value> {
    let served = server.registry.find(GROUP, "v1", plural)?;
    let entry = served.cache.as_ref()?.cached(&served.key(expected.namespace(), expected.name()))?;
    Some(entry.tree())
}

/// What has to be done about one object.
#[derive(Debug, PartialEq)]
enum Step {
    Nothing,
    Create,
    Update(Value),
    /// A binding cannot change its role.
    Recreate,
}

fn step(current: Option<Value>, expected: &Value) -> Step {
    let Some(current) = current else { return Step::Create };
    if current.annotation(AUTO_UPDATE) == Some("false") {
        return Step::Nothing;
    }
    if current.get("roleRef") != expected.get("roleRef") {
        return Step::Recreate;
    }
    let mut wanted = current.clone();
    for (key, value) in expected.labels().into_iter().flatten() {
        if wanted.label(key).is_none() {
            wanted.set_label(key, value.as_str().unwrap_or_default());
        }
    }
    for (key, value) in expected.annotations().into_iter().flatten() {
        if wanted.annotation(key).is_none() {
            wanted.set_annotation(key, value.as_str().unwrap_or_default());
        }
    }
    if expected.get("roleRef").is_some() {
        extend(&mut wanted, &["subjects"], expected);
    } else {
        let rules = |object: &Value| -> Vec<Rule> {
            object.get("rules").and_then(|rules| serde_json::from_value(rules.clone()).ok()).unwrap_or_default()
        };
        let have = rules(&current);
        let missing = rule::uncovered(have.iter(), &rules(expected));
        if !missing.is_empty() {
            let list = missing.iter().map(value_of);
            match wanted["rules"].as_array_mut() {
                Some(rules) => rules.extend(list),
                None => wanted["rules"] = list.collect(),
            }
        }
        if expected.get("aggregationRule").is_none() {
            wanted.remove_at(&["aggregationRule"]);
        } else {
            extend(&mut wanted, &["aggregationRule", "clusterRoleSelectors"], expected);
        }
    }
    if wanted == current { Step::Nothing } else { Step::Update(wanted) }
}

/// Adds the items of a list that are not there yet.
fn extend(wanted: &mut Value, path: &[&str], expected: &Value) {
    let missing: Vec<Value> =
        expected.list_at(path).iter().filter(|item| !wanted.list_at(path).contains(item)).cloned().collect();
    if missing.is_empty() {
        return;
    }
    let mut list = wanted.list_at(path).to_vec();
    list.extend(missing);
    wanted.set_at(path, list.into());
}

fn value_of(rule: &Rule) -> Value {
    let mut value = json!({"verbs": rule.verbs});
    for (field, list) in [
        ("apiGroups", &rule.api_groups),
        ("resources", &rule.resources),
        ("resourceNames", &rule.resource_names),
        ("nonResourceURLs", &rule.non_resource_urls),
    ] {
        if !list.is_empty() {
            value[field] = json!(list);
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected(kind: &str, name: &str) -> Value {
        let gates = crate::config::features::defaults();
        let found = policy::objects(&gates).into_iter().find(|object| object.kind() == kind && object.name() == name);
        found.unwrap_or_else(|| panic!("{kind} {name} is in no table"))
    }

    #[test]
    fn adds_what_is_missing_and_keeps_what_was_added() {
        let role = expected("ClusterRole", "system:basic-user");
        assert_eq!(step(None, &role), Step::Create);
        assert_eq!(step(Some(role.clone()), &role), Step::Nothing);
        let mut poorer = role.clone();
        poorer["rules"] = json!([{"verbs": ["create"], "apiGroups": ["authorization.k8s.io"], "resources": ["*"]}]);
        poorer.remove_at(&["metadata", "labels"]);
        poorer.set_annotation("own", "kept");
        let Step::Update(mended) = step(Some(poorer.clone()), &role) else { panic!("rules are missing") };
        assert_eq!(mended.label("kubernetes.io/bootstrapping"), Some("rbac-defaults"));
        assert_eq!(mended.annotation("own"), Some("kept"));
        assert_eq!(
            mended["rules"],
            json!([
                {"verbs": ["create"], "apiGroups": ["authorization.k8s.io"], "resources": ["*"]},
                {"verbs": ["create"], "apiGroups": ["authentication.k8s.io"], "resources": ["selfsubjectreviews"]},
            ])
        );
        poorer.set_annotation(AUTO_UPDATE, "false");
        assert_eq!(step(Some(poorer), &role), Step::Nothing);
    }

    #[test]
    fn subjects_are_added_and_another_role_starts_over() {
        let binding = expected("ClusterRoleBinding", "system:discovery");
        let mut changed = binding.clone();
        changed["subjects"] = json!([{"kind": "User", "name": "alice", "apiGroup": GROUP}]);
        let Step::Update(mended) = step(Some(changed.clone()), &binding) else { panic!("a subject is missing") };
        assert_eq!(mended.list_at(&["subjects"]).len(), 2);
        changed["roleRef"]["name"] = "view".into();
        assert_eq!(step(Some(changed), &binding), Step::Recreate);
    }
}
