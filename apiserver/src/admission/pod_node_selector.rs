//! PodNodeSelector: the pods of a namespace run on the nodes that the namespace is given.

use std::collections::BTreeMap;
use std::sync::Arc;

use apimachinery::object::ObjectExt as _;
use apimachinery::status::Status;
use async_trait::async_trait;
use serde_json::Value;

use super::{Attributes, Operation, Plugin, lookup};
use crate::server::Server;

pub const NAME: &str = "PodNodeSelector";

/// A namespace's selector: `key=value,key=value`.
const ANNOTATION: &str = "scheduler.alpha.kubernetes.io/node-selector";
/// The name of the default in the configuration.
const CLUSTER_DEFAULT: &str = "clusterDefaultNodeSelector";

pub struct PodNodeSelector;

/// `podNodeSelectorPluginConfig`: the default, and the selectors that namespaces may have.
pub type Settings = BTreeMap<String, String>;

type Labels = BTreeMap<String, String>;

/// Reads a selector of equalities.
fn parse(text: &str) -> Result<Labels, String> {
    text.split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .map(|part| match part.split_once('=') {
            Some((key, value)) => Ok((key.trim().to_string(), value.trim_start_matches('=').trim().to_string())),
            None => Err(format!("invalid selector: [{part}]")),
        })
        .collect()
}

fn concerns(attributes: &Attributes<'_>) -> bool {
    attributes.is_core("pods") && attributes.operation == Operation::Create
}

fn selector_of(pod: &Value) -> Labels {
    let pairs = pod.map_at(&["spec", "nodeSelector"]).into_iter().flatten();
    pairs.map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_string())).collect()
}

fn of_namespace(server: &Server, attributes: &Attributes<'_>) -> Result<Labels, Status> {
    let namespace = lookup::get(server, "", "namespaces", "", &attributes.namespace).map(|entry| entry.tree());
    let annotated = namespace.as_ref().and_then(|namespace| namespace.annotation(ANNOTATION));
    let settings = &server.config.admission.pod_node_selector;
    let text = annotated.or_else(|| settings.get(CLUSTER_DEFAULT).map(String::as_str)).unwrap_or_default();
    parse(text).map_err(|error| attributes.forbidden(error))
}

fn conflicts(one: &Labels, other: &Labels) -> bool {
    one.iter().any(|(key, value)| other.get(key).is_some_and(|have| have != value))
}

#[async_trait]
impl Plugin for PodNodeSelector {
    async fn mutate(
        &self,
        server: &Arc<Server>,
        attributes: &Attributes<'_>,
        object: &mut Value,
        _: Option<&Value>,
    ) -> Result<(), Status> {
        if !concerns(attributes) {
            return Ok(());
        }
        let wanted = of_namespace(server, attributes)?;
        if conflicts(&wanted, &selector_of(object)) {
            return Err(
                attributes.forbidden("pod node label selector conflicts with its namespace node label selector")
            );
        }
        for (key, value) in wanted {
            object.set_at(&["spec", "nodeSelector", &key], value.into());
        }
        Ok(())
    }

    async fn validate(
        &self,
        server: &Arc<Server>,
        attributes: &Attributes<'_>,
        object: &Value,
        _: Option<&Value>,
    ) -> Result<(), Status> {
        if !concerns(attributes) {
            return Ok(());
        }
        let own = selector_of(object);
        if conflicts(&of_namespace(server, attributes)?, &own) {
            return Err(
                attributes.forbidden("pod node label selector conflicts with its namespace node label selector")
            );
        }
        let allowed = match server.config.admission.pod_node_selector.get(&attributes.namespace) {
            Some(text) => parse(text).map_err(|error| attributes.forbidden(error))?,
            None => return Ok(()),
        };
        let within = own.iter().all(|(key, value)| allowed.get(key).is_none_or(|have| have == value));
        if within {
            return Ok(());
        }
        Err(attributes.forbidden("pod node label selector labels conflict with its namespace whitelist"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_read_and_compared() {
        let labels = parse("a=1, b==2").unwrap();
        assert_eq!(labels.into_iter().collect::<Vec<_>>(), [("a".into(), "1".into()), ("b".into(), "2".into())]);
        assert!(parse("nonsense").is_err());
        let of = |text: &str| parse(text).unwrap();
        assert!(conflicts(&of("a=1"), &of("a=2")));
        assert!(!conflicts(&of("a=1"), &of("b=2")));
    }
}
