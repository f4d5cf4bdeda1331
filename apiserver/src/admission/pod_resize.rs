//! PodResizeValidator: a pod on a node is not resized beyond what the node has, nor on a node that cannot (KEP-1287).

use std::sync::Arc;

use api::amounts::{self, Half, ResourceList};
use apimachinery::object::ObjectExt as _;
use apimachinery::quantity::Quantity;
use apimachinery::status::{Cause, Status};
use async_trait::async_trait;
use serde_json::Value;

use super::{Attributes, Name, Plugin, lookup};
use crate::server::Server;

pub const NAME: &str = "PodResizeValidator";

const OS_LABEL: &str = "kubernetes.io/os";

pub struct PodResizeValidator;

#[async_trait]
impl Plugin for PodResizeValidator {
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
        let resizes = resource.group.is_empty() && resource.plural == "pods" && attributes.subresource == "resize";
        let node = object.str_at(&["spec", "nodeName"]).unwrap_or_default();
        // The generation changes with the spec alone.
        if !resizes || node.is_empty() || old.is_some_and(|old| old.generation() == object.generation()) {
            return Ok(());
        }
        let node = lookup::get(server, "", "nodes", "", node)
            .ok_or_else(|| attributes.forbidden(format!("node {node:?} not found")))?
            .tree();
        check(object, &node).map_err(|(reason, text)| {
            let mut status = attributes.forbidden(text);
            if let Some(details) = &mut status.details {
                details.causes.push(Cause::new(reason, "", ""));
            }
            status
        })
    }
}

/// Why a pod cannot be resized on its node: a reason and words.
fn check(pod: &Value, node: &Value) -> Result<(), (&'static str, String)> {
    if let Some(os) = node.labels().and_then(|labels| labels.get(OS_LABEL)).and_then(Value::as_str)
        && os != "linux"
    {
        let text = format!("pod resize is only supported on linux nodes, node {:?} is {os:?}", node.name());
        return Err(("UnsupportedPlatform", text));
    }
    let requests = amounts::of_pod(pod, Half::Requests, amounts::Options { overhead: true, statuses: false });
    let allocatable = amounts::list(node, &["status", "allocatable"]);
    let of = |list: &ResourceList, name: &str| list.get(name).cloned().unwrap_or_default();
    let mut lacks = Vec::new();
    for (name, count) in [("cpu", Quantity::milli_value as fn(&Quantity) -> i64), ("memory", Quantity::value)] {
        let (wanted, there) = (of(&requests, name), of(&allocatable, name));
        if wanted > there {
            lacks.push(format!("{name}, requested: {}, allocatable: {}", count(&wanted), count(&there)));
        }
    }
    if lacks.is_empty() {
        return Ok(());
    }
    Err(("NodeCapacity", format!("node didn't have enough allocatable resources: {}", lacks.join("; "))))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_fits_its_node_or_is_refused() {
        let node = |os: &str| {
            json!({
                "metadata": {"name": "n", "labels": {OS_LABEL: os}},
                "status": {"allocatable": {"cpu": "1", "memory": "1Gi"}},
            })
        };
        let pod = |cpu: &str, memory: &str| json!({"spec": {"containers": [{"resources": {"requests": {"cpu": cpu, "memory": memory}}}]}});
        assert_eq!(check(&pod("1", "1Gi"), &node("linux")), Ok(()));
        let text = "node didn't have enough allocatable resources: cpu, requested: 1500, allocatable: 1000; memory, requested: 2147483648, allocatable: 1073741824";
        assert_eq!(check(&pod("1500m", "2Gi"), &node("linux")), Err(("NodeCapacity", text.to_string())));
        let text = "pod resize is only supported on linux nodes, node \"n\" is \"windows\"";
        assert_eq!(check(&pod("1", "1"), &node("windows")), Err(("UnsupportedPlatform", text.to_string())));
    }
}
