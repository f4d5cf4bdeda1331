//! RoleBinding and ClusterRoleBinding: the API groups of role and subjects.

use serde_json::Value;

use super::set::{at, if_zero, items, text};

const GROUP: &str = "rbac.authorization.k8s.io";

pub(super) fn set(binding: &mut Value) {
    if let Some(role) = at(binding, &["roleRef"]) {
        if_zero(role, "apiGroup", GROUP);
    }
    let Some(binding) = binding.as_object_mut() else { return };
    for subject in items(binding, "subjects") {
        if matches!(text(subject, "kind"), "User" | "Group") {
            if_zero(subject, "apiGroup", GROUP);
        }
    }
}
