//! NodeDeclaredFeatureValidator: a change of a running pod that needs a feature of its node is refused where the node
//! does not declare it (KEP-5328).

use std::sync::Arc;

use apimachinery::object::ObjectExt as _;
use apimachinery::status::Status;
use async_trait::async_trait;
use serde_json::Value;

use super::{Attributes, Name, Plugin, lookup};
use crate::server::Server;

pub const NAME: &str = "NodeDeclaredFeatureValidator";

/// Tells from the old and the new pod whether the change needs a feature.
type Needs = fn(&Value, &Value) -> bool;

/// The features that a change may need, each with what tells that it does.
const FEATURES: [(&str, Needs); 2] = [
    ("InPlacePodLevelResourcesVerticalScaling", pod_resources_change),
    ("InPlacePodVerticalScalingInitContainers", init_resources_change),
];

pub struct NodeDeclaredFeatureValidator;

fn pod_resources_change(old: &Value, new: &Value) -> bool {
    let of = |pod: &Value| pod.at(&["spec", "resources"]).filter(|resources| !resources.is_null()).cloned();
    of(old) != of(new)
}

/// Sidecars are not meant: they run as containers do.
fn init_resources_change(old: &Value, new: &Value) -> bool {
    let after = new.list_at(&["spec", "initContainers"]);
    let before = old.list_at(&["spec", "initContainers"]).iter().enumerate();
    before
        .filter(|(_, container)| container.str_at(&["restartPolicy"]) != Some("Always"))
        .any(|(at, container)| container.get("resources") != after.get(at).and_then(|after| after.get("resources")))
}

#[async_trait]
impl Plugin for NodeDeclaredFeatureValidator {
    fn resources(&self) -> &'static [Name] {
        &[("", "pods")]
    }

    async fn validate(
        &self,
        server: &Arc<Server>,
        attributes: &Attributes<'_>,
        object: &Value,
        old: Option<&Value>,
    ) -> Result<(), Status> {
        let resource = &attributes.served.resource;
        let concerns =
            resource.group.is_empty() && resource.plural == "pods" && matches!(attributes.subresource, "" | "resize");
        let name = object.str_at(&["spec", "nodeName"]).unwrap_or_default();
        let Some(old) = old.filter(|old| concerns && !name.is_empty() && old.generation() != object.generation())
        else {
            return Ok(());
        };
        let needed: Vec<&str> =
            FEATURES.iter().filter(|(_, needs)| needs(old, object)).map(|(feature, _)| *feature).collect();
        if needed.is_empty() {
            return Ok(());
        }
        let node = lookup::get(server, "", "nodes", "", name)
            .ok_or_else(|| attributes.forbidden(format!("node {name:?} not found")))?
            .tree();
        let declared = node.list_at(&["status", "declaredFeatures"]);
        let missing: Vec<&str> = needed.into_iter().filter(|name| !declared.iter().any(|have| have == name)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let list = missing.join(", ");
        Err(attributes
            .forbidden(format!("pod update requires features {list} which are not available on node {name:?}")))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn changes_that_need_a_feature_are_known() {
        let pod = |cpu: &str, policy: &str, all: Value| {
            let container = json!({"name": "i", "restartPolicy": policy, "resources": {"requests": {"cpu": cpu}}});
            json!({"spec": {"initContainers": [container], "resources": all}})
        };
        let before = pod("1", "", Value::Null);
        assert!(!init_resources_change(&before, &before));
        assert!(init_resources_change(&before, &pod("2", "", Value::Null)));
        assert!(!init_resources_change(&pod("1", "Always", Value::Null), &pod("2", "Always", Value::Null)));
        assert!(!pod_resources_change(&before, &before));
        assert!(pod_resources_change(&before, &pod("1", "", json!({"requests": {"cpu": "1"}}))));
    }
}
