//! DefaultStorageClass: a claim that names no class gets the default one.

use std::sync::Arc;

use apimachinery::object::ObjectExt as _;
use apimachinery::status::Status;
use async_trait::async_trait;
use serde_json::Value;

use super::{Attributes, Name, Operation, Plugin, lookup};
use crate::server::Server;

pub const NAME: &str = "DefaultStorageClass";

/// The older way to name a class.
pub const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";
const DEFAULT: [&str; 2] =
    ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];

pub struct DefaultStorageClass;

/// The newest object that an annotation marks as the default; the first by name of equally new ones.
pub fn newest_default(objects: Vec<Value>, annotations: &[&str]) -> Option<Value> {
    objects.into_iter().filter(|object| annotations.iter().any(|key| object.annotation(key) == Some("true"))).min_by(
        |a, b| {
            let time = |object: &Value| object.creation_timestamp().unwrap_or_default().to_string();
            time(b).cmp(&time(a)).then_with(|| a.name().cmp(b.name()))
        },
    )
}

#[async_trait]
impl Plugin for DefaultStorageClass {
    fn resources(&self) -> &'static [Name] {
        &[("", "persistentvolumeclaims")]
    }

    async fn mutate(
        &self,
        server: &Arc<Server>,
        attributes: &Attributes<'_>,
        object: &mut Value,
        _: Option<&Value>,
    ) -> Result<(), Status> {
        let named = object.annotation(CLASS_ANNOTATION).is_some()
            || object.at(&["spec", "storageClassName"]).is_some_and(|name| !name.is_null());
        if attributes.operation != Operation::Create || !attributes.is_core("persistentvolumeclaims") || named {
            return Ok(());
        }
        let classes = lookup::list(server, "storage.k8s.io", "storageclasses", None).await?;
        if let Some(class) = newest_default(classes, &DEFAULT) {
            object.set_at(&["spec", "storageClassName"], class.name().into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_newest_default_wins() {
        let class = |name: &str, time: &str, default: &str| json!({"metadata": {"name": name, "creationTimestamp": time, "annotations": {DEFAULT[0]: default}}});
        let classes = vec![
            class("old", "2020-01-01T00:00:00Z", "true"),
            class("b", "2021-01-01T00:00:00Z", "true"),
            class("a", "2021-01-01T00:00:00Z", "true"),
            class("newest", "2022-01-01T00:00:00Z", "false"),
        ];
        assert_eq!(newest_default(classes, &DEFAULT).map(|class| class.name().to_string()), Some("a".to_string()));
        assert_eq!(newest_default(Vec::new(), &DEFAULT), None);
    }
}
