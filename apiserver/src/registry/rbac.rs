//! Roles and bindings: nobody may give what they do not have.
//!
//! A role may be written only by who holds all its rights or may `escalate` it; a binding only by
//! who holds all rights of its role or may `bind` it. Upstream:
//! `pkg/registry/rbac/*/policybased/storage.go`.

use std::sync::Arc;

use apimachinery::gvk::GroupResource;
use apimachinery::object::ObjectExt as _;
use apimachinery::status::Status;
use async_trait::async_trait;
use serde_json::Value;

use super::hooks::{HookContext, Hooks};
use crate::admission::lookup;
use crate::authorization::rbac::GROUP;
use crate::authorization::rbac::index::RoleRef;
use crate::authorization::rbac::rule::Rule;
use crate::authorization::{Attributes, Decision};
use crate::request::user::MASTERS;

/// Role and ClusterRole.
pub struct Role;

/// RoleBinding and ClusterRoleBinding.
pub struct Binding;

fn rules(object: &Value) -> Vec<Rule> {
    object.get("rules").and_then(|rules| serde_json::from_value(rules.clone()).ok()).unwrap_or_default()
}

fn gathers(object: &Value) -> bool {
    !object.list_at(&["aggregationRule", "clusterRoleSelectors"]).is_empty()
}

/// Whether an update does nothing but let the garbage collector finish the object.
fn only_for_collector(new: &Value, old: &Value) -> bool {
    let rest = |object: &Value| {
        let mut object = object.clone();
        for field in ["ownerReferences", "finalizers", "managedFields"] {
            object.remove_at(&["metadata", field]);
        }
        object
    };
    (new.owner_references() != old.owner_references() || !new.finalizers().eq(old.finalizers()))
        && rest(new) == rest(old)
}

/// Whether the user may use a special verb on a role.
async fn may(cx: &HookContext<'_>, verb: &str, resource: &str, namespace: &str, name: &str) -> bool {
    let attributes = Attributes {
        user: cx.user.clone(),
        verb: verb.to_string(),
        group: GROUP.to_string(),
        version: "*".to_string(),
        resource: resource.to_string(),
        namespace: namespace.to_string(),
        name: name.to_string(),
        is_resource: true,
        ..Attributes::default()
    };
    matches!(cx.server.authorizer.decide(&attributes).await, Decision::Allow(_))
}

fn forbidden(resource: &str, object: &Value, text: &str) -> Status {
    Status::forbidden(&GroupResource::new(GROUP, resource), object.name(), text)
}

#[async_trait]
impl Hooks for Role {
    async fn permit(&self, cx: &HookContext<'_>, new: &Value, old: Option<&Value>) -> Result<(), Status> {
        let namespace = new.namespace();
        let resource = if namespace.is_empty() { "clusterroles" } else { "roles" };
        if cx.user.in_group(MASTERS) || may(cx, "escalate", resource, namespace, old.map_or("", |old| old.name())).await
        {
            return Ok(());
        }
        if old.is_some_and(|old| only_for_collector(new, old)) {
            return Ok(());
        }
        let rbac = &cx.server.rbac;
        rbac.confirm_no_escalation(cx.user, namespace, &rules(new)).map_err(|text| forbidden(resource, new, &text))?;
        if (gathers(new) || old.is_some_and(gathers))
            && rbac.confirm_no_escalation(cx.user, namespace, &Rule::everything()).is_err()
        {
            return Err(forbidden(resource, new, "must have cluster-admin privileges to use the aggregationRule"));
        }
        Ok(())
    }
}

#[async_trait]
impl Hooks for Binding {
    async fn permit(&self, cx: &HookContext<'_>, new: &Value, old: Option<&Value>) -> Result<(), Status> {
        if cx.user.in_group(MASTERS) || old.is_some_and(|old| only_for_collector(new, old)) {
            return Ok(());
        }
        let namespace = new.namespace();
        let resource = if namespace.is_empty() { "clusterrolebindings" } else { "rolebindings" };
        let text = |field: &str| new.str_at(&["roleRef", field]).unwrap_or_default();
        let role = RoleRef { kind: text("kind").into(), name: text("name").into() };
        let plural = match text("kind") {
            "ClusterRole" => "clusterroles",
            "Role" => "roles",
            other => return Err(Status::internal(format!("unsupported role reference kind: {other:?}"))),
        };
        if may(cx, "bind", plural, namespace, &role.name).await {
            return Ok(());
        }
        // A role that was made a moment ago may not have come to the index yet.
        let of = if plural == "roles" { namespace } else { "" };
        let stored =
            || lookup::get(cx.server, GROUP, plural, of, &role.name).map(|entry| Arc::from(rules(&entry.tree())));
        let Some(rules) = cx.server.rbac.rules_of(&role, namespace).or_else(stored) else {
            return Err(Status::not_found(&GroupResource::new(GROUP, resource), &role.name));
        };
        cx.server.rbac.confirm_no_escalation(cx.user, namespace, &rules).map_err(|text| forbidden(resource, new, &text))
    }
}
