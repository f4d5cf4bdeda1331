//! Priority: turns a pod's `priorityClassName` into its priority, and keeps classes consistent.

use std::sync::Arc;

use apimachinery::object::ObjectExt as _;
use apimachinery::status::Status;
use async_trait::async_trait;
use serde_json::Value;

use super::{Attributes, Name, Operation, Plugin};
use crate::cache::Freshness;
use crate::server::Server;

pub const NAME: &str = "Priority";

/// What a pod gets when it names no class and none is the default.
const DEFAULT_PRIORITY: i64 = 0;

pub struct Priority;

async fn classes(server: &Arc<Server>) -> Result<Vec<Arc<Value>>, Status> {
    let Some(served) = server.registry.any_version("scheduling.k8s.io", "priorityclasses") else {
        return Ok(Vec::new());
    };
    let cache = served.cache.as_ref().expect("priority classes are stored");
    let snapshot = cache.snapshot(Freshness::Any).await.map_err(crate::handlers::errors::of_read)?;
    Ok(snapshot.range(None, None).map(|entry| server.decoded.tree(entry)).collect())
}

#[async_trait]
impl Plugin for Priority {
    fn resources(&self) -> &'static [Name] {
        &[("", "pods"), ("scheduling.k8s.io", "priorityclasses")]
    }

    async fn mutate(
        &self,
        server: &Arc<Server>,
        attributes: &Attributes<'_>,
        object: &mut Value,
        old: Option<&Value>,
    ) -> Result<(), Status> {
        if !attributes.is_core("pods") {
            return Ok(());
        }
        match attributes.operation {
            Operation::Create => {}
            Operation::Update => {
                // Clients that read a pod without knowing these fields must not lose them.
                for field in ["priority", "preemptionPolicy"] {
                    if object.at(&["spec", field]).is_none_or(Value::is_null)
                        && let Some(value) = old.and_then(|old| old.at(&["spec", field])).cloned()
                    {
                        object.set_at(&["spec", field], value);
                    }
                }
                return Ok(());
            }
            Operation::Delete | Operation::Connect => return Ok(()),
        }
        let name = object.str_at(&["spec", "priorityClassName"]).unwrap_or_default().to_string();
        let (priority, policy, class) = if name.is_empty() {
            let classes = classes(server).await?;
            let default = classes
                .iter()
                .filter(|class| class.get("globalDefault") == Some(&Value::Bool(true)))
                .min_by_key(|class| class.i64_at(&["value"]).unwrap_or_default());
            match default {
                Some(class) => (
                    class.i64_at(&["value"]).unwrap_or_default(),
                    class.str_at(&["preemptionPolicy"]).unwrap_or("PreemptLowerPriority").to_string(),
                    class.name().to_string(),
                ),
                None => (DEFAULT_PRIORITY, "PreemptLowerPriority".to_string(), String::new()),
            }
        } else {
            let served = server.registry.any_version("scheduling.k8s.io", "priorityclasses");
            let entry = match served.and_then(|served| Some((served, served.cache.as_ref()?))) {
                Some((served, cache)) => cache
                    .get(&served.key("", &name), Freshness::Consistent)
                    .await
                    .map_err(crate::handlers::errors::of_read)?,
                None => None,
            };
            let Some(entry) = entry else {
                return Err(attributes.forbidden(format!("no PriorityClass with name {name} was found")));
            };
            let class = server.decoded.tree(&entry);
            (
                class.i64_at(&["value"]).unwrap_or_default(),
                class.str_at(&["preemptionPolicy"]).unwrap_or("PreemptLowerPriority").to_string(),
                name,
            )
        };
        if !class.is_empty() {
            object.set_at(&["spec", "priorityClassName"], class.into());
        }
        if let Some(given) = object.i64_at(&["spec", "priority"])
            && given != priority
        {
            return Err(attributes.forbidden(format!(
                "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller computed {priority} from the given PriorityClass name"
            )));
        }
        object.set_at(&["spec", "priority"], priority.into());
        if let Some(given) = object.str_at(&["spec", "preemptionPolicy"])
            && given != policy
        {
            return Err(attributes.forbidden(format!(
                "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission controller computed {policy} from the given PriorityClass name"
            )));
        }
        object.set_at(&["spec", "preemptionPolicy"], policy.into());
        Ok(())
    }

    async fn validate(
        &self,
        server: &Arc<Server>,
        attributes: &Attributes<'_>,
        object: &Value,
        _: Option<&Value>,
    ) -> Result<(), Status> {
        let resource = &attributes.served.resource;
        if resource.group != "scheduling.k8s.io"
            || resource.plural != "priorityclasses"
            || !matches!(attributes.operation, Operation::Create | Operation::Update)
            || object.get("globalDefault") != Some(&Value::Bool(true))
        {
            return Ok(());
        }
        for class in classes(server).await? {
            if class.get("globalDefault") == Some(&Value::Bool(true))
                && (attributes.operation == Operation::Create || class.name() != object.name())
            {
                return Err(attributes.forbidden(format!(
                    "PriorityClass {} is already marked as default. Only one default can exist",
                    class.name()
                )));
            }
        }
        Ok(())
    }
}
