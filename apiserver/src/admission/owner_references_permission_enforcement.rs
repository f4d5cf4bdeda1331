//! OwnerReferencesPermissionEnforcement: who makes an object depend on another could delete it anyway,
//! and who blocks another's deletion may set its finalizers.

use std::sync::Arc;

use apimachinery::object::ObjectExt as _;
use apimachinery::status::Status;
use async_trait::async_trait;
use serde_json::Value;

use super::{Attributes, Operation, Plugin};
use crate::authorization::{Attributes as Question, Decision};
use crate::server::Server;

pub const NAME: &str = "OwnerReferencesPermissionEnforcement";

pub struct OwnerReferencesPermissionEnforcement;

async fn may(server: &Server, question: &Question) -> Result<(), String> {
    match server.authorizer.decide(question).await {
        Decision::Allow(_) => Ok(()),
        Decision::Deny(reason) | Decision::NoOpinion(reason) => Err(reason),
    }
}

/// References that block their owner's deletion, and did not before.
fn newly_blocking<'a>(new: &'a Value, old: Option<&Value>) -> Vec<&'a Value> {
    let blocks = |reference: &Value| reference.bool_at(&["blockOwnerDeletion"]) == Some(true);
    let before = |reference: &Value| {
        old.into_iter()
            .flat_map(|old| old.owner_references())
            .any(|old| old.get("uid") == reference.get("uid") && blocks(old))
    };
    new.owner_references().iter().filter(|reference| blocks(reference) && !before(reference)).collect()
}

#[async_trait]
impl Plugin for OwnerReferencesPermissionEnforcement {
    async fn validate(
        &self,
        server: &Arc<Server>,
        attributes: &Attributes<'_>,
        object: &Value,
        old: Option<&Value>,
    ) -> Result<(), Status> {
        if !matches!(attributes.operation, Operation::Create | Operation::Update) {
            return Ok(());
        }
        let owners = |object: &Value| object.owner_references().to_vec();
        let changed = old.map_or(!owners(object).is_empty(), |old| owners(old) != owners(object));
        if !changed {
            return Ok(());
        }
        let resource = &attributes.served.resource;
        let question = |verb: &str, group: &str, version: &str, plural: &str, subresource: &str, name: &str| Question {
            user: attributes.user.clone(),
            verb: verb.to_string(),
            group: group.to_string(),
            version: version.to_string(),
            resource: plural.to_string(),
            subresource: subresource.to_string(),
            name: name.to_string(),
            is_resource: true,
            ..Question::default()
        };
        if attributes.operation != Operation::Create {
            let delete = Question {
                namespace: attributes.namespace.clone(),
                ..question(
                    "delete",
                    &resource.group,
                    &resource.version,
                    &resource.plural,
                    attributes.subresource,
                    &attributes.name,
                )
            };
            may(server, &delete).await.map_err(|reason| {
                attributes.forbidden(format!("cannot set an ownerRef on a resource you can't delete: {reason}, <nil>"))
            })?;
        }
        let blocking = newly_blocking(object, old);
        if blocking.is_empty() || may(server, &question("update", "*", "*", "*", "finalizers", "*")).await.is_ok() {
            return Ok(());
        }
        for reference in blocking {
            let text = |field: &str| reference.str_at(&[field]).unwrap_or_default();
            let (group, version) = text("apiVersion").split_once('/').unwrap_or(("", text("apiVersion")));
            let owner = server.registry.all().iter().find(|served| {
                served.resource.group == group
                    && served.resource.version == version
                    && served.resource.kind == text("kind")
            });
            let Some(owner) = owner else {
                return Err(attributes.forbidden(format!(
                    "cannot set blockOwnerDeletion in this case because cannot find RESTMapping for APIVersion {} Kind {}: no matches for kind {:?} in version {:?}",
                    text("apiVersion"),
                    text("kind"),
                    text("kind"),
                    text("apiVersion")
                )));
            };
            let mut finalize = question("update", group, version, &owner.resource.plural, "finalizers", text("name"));
            if owner.resource.namespaced {
                finalize.namespace.clone_from(&attributes.namespace);
            }
            may(server, &finalize).await.map_err(|reason| {
                attributes.forbidden(format!(
                    "cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on: {reason}, <nil>"
                ))
            })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_new_blocks_count() {
        let object =
            |blocks: Value| json!({"metadata": {"ownerReferences": [{"uid": "1", "blockOwnerDeletion": blocks}]}});
        assert_eq!(newly_blocking(&object(json!(true)), None).len(), 1);
        assert_eq!(newly_blocking(&object(json!(true)), Some(&object(json!(false)))).len(), 1);
        assert!(newly_blocking(&object(json!(true)), Some(&object(json!(true)))).is_empty());
        assert!(newly_blocking(&object(json!(false)), None).is_empty());
    }
}
