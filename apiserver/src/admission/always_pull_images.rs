//! AlwaysPullImages: nobody runs another's private image only because it is on the node already.

use std::sync::Arc;

use apimachinery::object::ObjectExt as _;
use apimachinery::status::Status;
use async_trait::async_trait;
use serde_json::Value;

use super::{Attributes, Operation, Plugin};
use crate::server::Server;

pub const NAME: &str = "AlwaysPullImages";

pub struct AlwaysPullImages;

const LISTS: [&str; 3] = ["containers", "initContainers", "ephemeralContainers"];

fn concerns(attributes: &Attributes<'_>, new: &Value, old: Option<&Value>) -> bool {
    let resource = &attributes.served.resource;
    if !resource.group.is_empty()
        || resource.plural != "pods"
        || !matches!(attributes.subresource, "" | "ephemeralcontainers")
        || !matches!(attributes.operation, Operation::Create | Operation::Update)
    {
        return false;
    }
    // An update that names no new image needs no new pull.
    let images = |pod: &Value| -> Vec<String> {
        let containers = LISTS.iter().flat_map(|list| pod.list_at(&["spec", list]));
        containers.map(|container| container.str_at(&["image"]).unwrap_or_default().to_string()).collect()
    };
    old.is_none_or(|old| {
        let known = images(old);
        images(new).iter().any(|image| !known.contains(image))
    })
}

#[async_trait]
impl Plugin for AlwaysPullImages {
    async fn mutate(
        &self,
        _: &Arc<Server>,
        attributes: &Attributes<'_>,
        object: &mut Value,
        old: Option<&Value>,
    ) -> Result<(), Status> {
        if !concerns(attributes, object, old) {
            return Ok(());
        }
        for list in LISTS {
            for container in object["spec"][list].as_array_mut().into_iter().flatten() {
                container["imagePullPolicy"] = "Always".into();
            }
        }
        for volume in object["spec"]["volumes"].as_array_mut().into_iter().flatten() {
            if let Some(image) = volume.get_mut("image").filter(|image| image.get("reference").is_some()) {
                image["pullPolicy"] = "Always".into();
            }
        }
        Ok(())
    }

    /// A later webhook may have undone it.
    async fn validate(
        &self,
        _: &Arc<Server>,
        attributes: &Attributes<'_>,
        object: &Value,
        old: Option<&Value>,
    ) -> Result<(), Status> {
        if !concerns(attributes, object, old) {
            return Ok(());
        }
        for list in LISTS {
            for (at, container) in object.list_at(&["spec", list]).iter().enumerate() {
                let policy = container.str_at(&["imagePullPolicy"]).unwrap_or_default();
                if policy != "Always" {
                    return Err(attributes.forbidden(format!(
                        "spec.{list}[{at}].imagePullPolicy: Unsupported value: {policy:?}: supported values: \"Always\""
                    )));
                }
            }
        }
        Ok(())
    }
}
