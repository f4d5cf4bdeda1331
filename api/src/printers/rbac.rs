//! RoleBindings and ClusterRoleBindings. Roles have no printer of their own.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::{self, list, text};
use super::{AGE, Column, NAME};

// As published with the types, without what the schema adds.
const ROLE: &str = "RoleRef can reference a Role in the current namespace or a ClusterRole in the global namespace. If the RoleRef cannot be resolved, the Authorizer must return an error.";
const CLUSTER_ROLE: &str = "RoleRef can only reference a ClusterRole in the global namespace. If the RoleRef cannot be resolved, the Authorizer must return an error.";

pub(super) const BINDING_COLUMNS: &[Column] = &[
    NAME,
    Column::string("Role").about(ROLE),
    AGE,
    Column::string("Users").about("Users in the roleBinding").wide(),
    Column::string("Groups").about("Groups in the roleBinding").wide(),
    Column::string("ServiceAccounts").about("ServiceAccounts in the roleBinding").wide(),
];
pub(super) const CLUSTER_BINDING_COLUMNS: &[Column] = &[
    NAME,
    Column::string("Role").about(CLUSTER_ROLE),
    AGE,
    Column::string("Users").about("Users in the clusterRoleBinding").wide(),
    Column::string("Groups").about("Groups in the clusterRoleBinding").wide(),
    Column::string("ServiceAccounts").about("ServiceAccounts in the clusterRoleBinding").wide(),
];
pub(super) fn binding_row(binding: &Value, now: Timestamp) -> Vec<Value> {
    let subjects = |kind: &str| {
        let named: Vec<String> = list(binding, &["subjects"])
            .iter()
            .filter(|subject| text(subject, &["kind"]) == kind)
            .map(|subject| match kind {
                "ServiceAccount" => format!("{}/{}", text(subject, &["namespace"]), text(subject, &["name"])),
                _ => text(subject, &["name"]).to_owned(),
            })
            .collect();
        json!(named.join(", "))
    };
    vec![
        json!(cells::name(binding)),
        json!(format!("{}/{}", text(binding, &["roleRef", "kind"]), text(binding, &["roleRef", "name"]))),
        cells::age(binding, now),
        subjects("User"),
        subjects("Group"),
        subjects("ServiceAccount"),
    ]
}
