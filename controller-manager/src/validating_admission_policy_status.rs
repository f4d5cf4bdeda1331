//! Checks the expressions of ValidatingAdmissionPolicies against the types of what they are about, and writes what is
//! wrong into their status. A policy works all the same.
//!
//! Reads policies, discovery and OpenAPI documents; writes `status` by server-side apply, once for each generation.
//! Upstream: `pkg/controller/validatingadmissionpolicystatus`.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::type_checking::{self, Checked, MOST_TYPES};
use apimachinery::gvk::{GroupVersion, GroupVersionKind};
use apimachinery::object::ObjectExt as _;
use client::discovery::ApiResource;
use client::resources::VALIDATING_ADMISSION_POLICIES;
use client::workqueue::WorkQueue;
use client::{Client, ObjectKey, ObjectMeta, Patch};
use futures::future::BoxFuture;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use crate::context::Context;
use crate::worker::{self, Error, Requeue};

pub const NAME: &str = "validatingadmissionpolicy-status-controller";

/// As upstream's `--concurrent-validating-admission-policy-status-syncs`.
const WORKERS: usize = 5;

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Policy {
    metadata: ObjectMeta,
    spec: Value,
    status: Value,
}

client::impl_meta!(Policy);

/// Whether the status is of this generation already.
fn is_checked(policy: &Policy) -> bool {
    policy.metadata.generation <= policy.status.i64_at(&["observedGeneration"]).unwrap_or_default()
}

/// The kinds that a policy is about, as far as its rules name them: sorted, no more than upstream looks at.
fn kinds(spec: &Value, served: &[ApiResource]) -> Vec<GroupVersionKind> {
    let mut found: BTreeMap<(String, String, String), GroupVersionKind> = BTreeMap::new();
    'rules: for rule in spec.list_at(&["matchConstraints", "resourceRules"]) {
        let texts = |field: &str| {
            let mut texts: Vec<&str> = rule.list_at(&[field]).iter().filter_map(Value::as_str).collect();
            texts.sort_unstable();
            texts
        };
        let (groups, versions) = (texts("apiGroups"), texts("apiVersions"));
        let named = |texts: &[&str]| texts.iter().all(|text| !text.contains('*'));
        if !named(&groups) || !named(&versions) {
            continue;
        }
        let resources: Vec<&str> = texts("resources").into_iter().filter(|text| !text.contains(['*', '/'])).collect();
        let mut count = 0;
        for group in groups {
            for version in &versions {
                for plural in &resources {
                    // Upstream's mapper takes the core group for any.
                    let matches = |known: &&ApiResource| {
                        let resource = &known.resource;
                        (group.is_empty() || resource.group == group)
                            && resource.version == **version
                            && (resource.plural == **plural || known.singular == **plural)
                    };
                    for known in served.iter().filter(matches) {
                        let resource = &known.resource;
                        let text = |text: &str| text.to_string();
                        let kind = GroupVersionKind::new(
                            resource.group.to_string(),
                            resource.version.to_string(),
                            resource.kind.to_string(),
                        );
                        found.insert((text(&resource.group), text(&resource.version), text(&resource.kind)), kind);
                        count += 1;
                        if count == MOST_TYPES {
                            break 'rules;
                        }
                    }
                }
            }
        }
    }
    found.into_values().collect()
}

/// OpenAPI documents of group versions, each read once.
struct Documents<'c> {
    client: &'c Client,
    read: BTreeMap<String, Option<Value>>,
}

impl Documents<'_> {
    /// The document that has a kind; `None` where the server has none.
    async fn of(&mut self, kind: &GroupVersionKind) -> Result<Option<&Value>, Error> {
        let path = match &*kind.group {
            "" => format!("/openapi/v3/api/{}", kind.version),
            group => format!("/openapi/v3/apis/{group}/{}", kind.version),
        };
        if !self.read.contains_key(&path) {
            let document = match self.client.get_raw(&path).await {
                Ok(bytes) => serde_json::from_slice(&bytes).ok(),
                Err(error) if error.is_not_found() => None,
                Err(error) => return Err(error.into()),
            };
            self.read.insert(path.clone(), document);
        }
        Ok(self.read.get(&path).and_then(Option::as_ref))
    }
}

/// Checks one policy: its warnings, as its status has them.
async fn check(client: &Client, policy: &Policy) -> Result<Vec<Value>, Error> {
    let served = client.discover().await?;
    let mut documents = Documents { client, read: BTreeMap::new() };
    let mut types = Vec::new();
    for kind in kinds(&policy.spec, &served.resources) {
        let declared = documents.of(&kind).await?.and_then(|document| type_checking::declare(document, &kind));
        types.extend(declared.map(|decl| Checked { kind, decl }));
    }
    let params = match policy.spec.get("paramKind").filter(|kind| kind.is_object()) {
        None => None,
        Some(kind) => {
            let version = GroupVersion::parse(kind.api_version()).unwrap_or_default();
            let kind = GroupVersionKind::new(version.group, version.version, kind.kind());
            let declared = documents.of(&kind).await?.and_then(|document| type_checking::declare(document, &kind));
            Some(declared.flatten())
        }
    };
    let whole = json!({"spec": policy.spec});
    let warnings = type_checking::check(&whole, &types, params);
    Ok(warnings.into_iter().map(|warning| json!({"fieldRef": warning.field_ref, "warning": warning.warning})).collect())
}

pub fn start(context: &Arc<Context>) -> BoxFuture<'static, ()> {
    let client = context.client(NAME);
    let policies = context.informers.of::<Policy>(&VALIDATING_ADMISSION_POLICIES);
    let queue: WorkQueue<ObjectKey> = WorkQueue::new();
    {
        let queue = queue.clone();
        policies.on_event(move |event| {
            let policy = event.object();
            if !is_checked(policy) {
                queue.add(policy.metadata.key());
            }
        });
    }
    let followed = [policies.synced()];
    let store = policies.store();
    worker::start(NAME, queue, WORKERS, &context.shutdown, followed, move |key| {
        let (client, store) = (client.clone(), store.clone());
        async move {
            let Some(policy) = store.get(&key).filter(|policy| !is_checked(policy)) else {
                return Ok(Requeue::Never);
            };
            let warnings = check(&client, &policy).await?;
            let mut checking = json!({});
            if !warnings.is_empty() {
                checking["expressionWarnings"] = warnings.into();
            }
            let resource = &VALIDATING_ADMISSION_POLICIES;
            let patch = Patch::Apply {
                body: json!({
                    "apiVersion": resource.api_version(), "kind": "ValidatingAdmissionPolicy",
                    "metadata": { "name": key.name },
                    "status": { "observedGeneration": policy.metadata.generation, "typeChecking": checking },
                }),
                manager: NAME.to_owned(),
                force: true,
            };
            client.patch::<IgnoredAny>(resource, None, &key.name, Some("status"), &patch).await?;
            Ok(Requeue::Never)
        }
    })
}

#[cfg(test)]
mod tests {
    use client::resources::{CONFIG_MAPS, DEPLOYMENTS, EVENTS_V1, Resource};

    use super::*;

    fn served(resource: Resource, singular: &str) -> ApiResource {
        ApiResource {
            resource,
            singular: singular.to_owned(),
            verbs: Vec::new(),
            short_names: Vec::new(),
            categories: Vec::new(),
            subresources: Vec::new(),
            preferred: true,
        }
    }

    #[test]
    fn the_kinds_of_rules() {
        let all = [
            served(CONFIG_MAPS.clone(), "configmap"),
            served(DEPLOYMENTS.clone(), "deployment"),
            served(EVENTS_V1.clone(), "event"),
        ];
        let check = |rules: Value| -> Vec<String> {
            let found = kinds(&json!({"matchConstraints": {"resourceRules": rules}}), &all);
            found.into_iter().map(|kind| format!("{}/{}", kind.group, kind.kind)).collect()
        };
        let rule = |group: &str, resources: Value| json!({"apiGroups": [group], "apiVersions": ["v1"], "resources": resources});
        assert_eq!(check(json!([rule("apps", json!(["deployments", "deployments/scale"]))])), ["apps/Deployment"]);
        assert_eq!(check(json!([rule("apps", json!(["deployment"]))])), ["apps/Deployment"], "singular names too");
        assert_eq!(check(json!([rule("", json!(["configmaps", "events"]))])), ["/ConfigMap", "events.k8s.io/Event"]);
        assert!(check(json!([rule("*", json!(["configmaps"])), rule("", json!(["*"]))])).is_empty());
    }

    #[test]
    fn each_generation_is_checked_once() {
        let policy = |generation: i64, observed: Value| -> Policy {
            serde_json::from_value(json!({
                "metadata": {"name": "p", "generation": generation}, "status": {"observedGeneration": observed},
            }))
            .unwrap()
        };
        assert!(is_checked(&policy(2, json!(2))));
        assert!(!is_checked(&policy(2, json!(1))));
        assert!(!is_checked(&policy(1, Value::Null)));
    }
}
