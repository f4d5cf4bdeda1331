//! RuntimeClass: a pod gets the overhead, node selector and tolerations of its runtime class.

use std::sync::Arc;

use api::amounts::list;
use apimachinery::object::ObjectExt as _;
use apimachinery::status::Status;
use async_trait::async_trait;
use serde_json::{Value, json};

use super::{Attributes, Name, Operation, Plugin, lookup};
use crate::server::Server;

pub const NAME: &str = "RuntimeClass";

pub struct RuntimeClass;

/// The class that a pod names; `None` when it names none.
fn class(server: &Server, attributes: &Attributes<'_>, pod: &Value) -> Result<Option<Value>, Status> {
    let Some(name) = pod.str_at(&["spec", "runtimeClassName"]) else { return Ok(None) };
    match lookup::get(server, "node.k8s.io", "runtimeclasses", "", name) {
        Some(entry) => Ok(Some(entry.tree())),
        None => Err(attributes.forbidden(format!("pod rejected: RuntimeClass {name:?} not found"))),
    }
}

fn concerns(attributes: &Attributes<'_>) -> bool {
    attributes.operation == Operation::Create && attributes.is_core("pods")
}

const MISMATCH: &str = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";

#[async_trait]
impl Plugin for RuntimeClass {
    fn resources(&self) -> &'static [Name] {
        &[("", "pods")]
    }

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
        let Some(class) = class(server, attributes, object)? else { return Ok(()) };
        apply(object, &class).map_err(|text| attributes.forbidden(text))
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
        let class = class(server, attributes, object)?;
        let overhead = class.as_ref().filter(|class| class.get("overhead").is_some_and(|at| !at.is_null()));
        match overhead {
            Some(class) if list(class, &["overhead", "podFixed"]) != list(object, &["spec", "overhead"]) => {
                Err(attributes.forbidden(MISMATCH))
            }
            None if object.at(&["spec", "overhead"]).is_some_and(|overhead| !overhead.is_null()) => Err(attributes
                .forbidden("pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead")),
            _ => Ok(()),
        }
    }
}

/// Puts what the class says into a pod.
fn apply(pod: &mut Value, class: &Value) -> Result<(), String> {
    if class.get("overhead").is_some_and(|overhead| !overhead.is_null()) {
        let fixed = list(class, &["overhead", "podFixed"]);
        let own = list(pod, &["spec", "overhead"]);
        if !own.is_empty() && own != fixed {
            return Err(MISMATCH.to_string());
        }
        if let Some(amounts) = class.at(&["overhead", "podFixed"]) {
            pod.set_at(&["spec", "overhead"], amounts.clone());
        }
    }
    for (key, value) in class.map_at(&["scheduling", "nodeSelector"]).into_iter().flatten() {
        let value = value.as_str().unwrap_or_default();
        match pod.str_at(&["spec", "nodeSelector", key]) {
            Some(own) if own != value => {
                return Err(format!(
                    "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {value}; pod.spec.nodeSelector[{key}] = {own}"
                ));
            }
            _ => pod.set_at(&["spec", "nodeSelector", key], value.into()),
        }
    }
    let more = class.list_at(&["scheduling", "tolerations"]);
    if !more.is_empty() {
        let merged = merge(pod.list_at(&["spec", "tolerations"]), more);
        pod.set_at(&["spec", "tolerations"], json!(merged));
    }
    Ok(())
}

/// Both lists of tolerations without those that another one includes.
pub fn merge(first: &[Value], second: &[Value]) -> Vec<Value> {
    let all: Vec<&Value> = first.iter().chain(second).collect();
    let mut merged = Vec::new();
    'next: for (at, one) in all.iter().enumerate() {
        for (other_at, other) in all.iter().enumerate() {
            if other_at != at && includes(other, one) && !(includes(one, other) && at < other_at) {
                continue 'next;
            }
        }
        merged.push((*one).clone());
    }
    merged
}

/// Whether a toleration tolerates everything that another one does.
pub fn includes(wide: &Value, narrow: &Value) -> bool {
    let text = |toleration: &Value, field: &str| toleration.str_at(&[field]).unwrap_or_default().to_string();
    if wide == narrow {
        return true;
    }
    let (wide_key, narrow_key) = (text(wide, "key"), text(narrow, "key"));
    if !wide_key.is_empty() && wide_key != narrow_key {
        return false;
    }
    let effect = text(wide, "effect");
    if !effect.is_empty() && effect != text(narrow, "effect") {
        return false;
    }
    if effect == "NoExecute" {
        match (wide.i64_at(&["tolerationSeconds"]), narrow.i64_at(&["tolerationSeconds"])) {
            (Some(_), None) => return false,
            (Some(wide), Some(narrow)) if wide < narrow => return false,
            _ => {}
        }
    }
    match text(wide, "operator").as_str() {
        "" | "Equal" => {
            matches!(text(narrow, "operator").as_str(), "" | "Equal") && text(wide, "value") == text(narrow, "value")
        }
        "Exists" => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_is_put_into_the_pod() {
        let class = json!({
            "overhead": {"podFixed": {"cpu": "10m"}},
            "scheduling": {"nodeSelector": {"kind": "vm"}, "tolerations": [{"key": "vm", "operator": "Exists"}]},
        });
        let mut pod = json!({"spec": {"tolerations": [{"key": "vm", "operator": "Equal", "value": "x"}]}});
        assert_eq!(apply(&mut pod, &class), Ok(()));
        assert_eq!(pod["spec"]["overhead"], json!({"cpu": "10m"}));
        assert_eq!(pod["spec"]["nodeSelector"], json!({"kind": "vm"}));
        assert_eq!(pod["spec"]["tolerations"], json!([{"key": "vm", "operator": "Exists"}]));
        let mut pod = json!({"spec": {"nodeSelector": {"kind": "bare"}}});
        assert_eq!(
            apply(&mut pod, &class),
            Err("conflict: runtimeClass.scheduling.nodeSelector[kind] = vm; pod.spec.nodeSelector[kind] = bare".into())
        );
        let mut pod = json!({"spec": {"overhead": {"cpu": "1"}}});
        assert_eq!(apply(&mut pod, &class), Err(MISMATCH.into()));
    }
}
