//! Who sent a request, once authentication has answered.

use std::collections::BTreeMap;

/// Every authenticated user is in this group.
pub const AUTHENTICATED: &str = "system:authenticated";
/// Every anonymous user is in this group.
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
/// The name of a user without credentials.
pub const ANONYMOUS: &str = "system:anonymous";
/// Members may do anything.
pub const MASTERS: &str = "system:masters";
/// The user as which the server talks to itself.
pub const APISERVER: &str = "system:apiserver";

/// A user as authentication established it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserInfo {
    pub name: String,
    pub uid: String,
    pub groups: Vec<String>,
    pub extra: BTreeMap<String, Vec<String>>,
}

impl UserInfo {
    /// A user of this name in these groups, `system:authenticated` included.
    pub fn new(name: &str, groups: &[&str]) -> Self {
        let mut user = Self {
            name: name.to_string(),
            groups: groups.iter().map(ToString::to_string).collect(),
            ..Self::default()
        };
        user.authenticated();
        user
    }

    /// The user of a request without credentials.
    pub fn anonymous() -> Self {
        Self { name: ANONYMOUS.to_string(), groups: vec![UNAUTHENTICATED.to_string()], ..Self::default() }
    }

    /// The server itself, for its own loops.
    pub fn apiserver() -> Self {
        Self::new(APISERVER, &[MASTERS])
    }

    /// Adds `system:authenticated`, unless the user is anonymous or already in it.
    pub fn authenticated(&mut self) {
        if self.name == ANONYMOUS || self.in_group(AUTHENTICATED) || self.in_group(UNAUTHENTICATED) {
            return;
        }
        self.groups.push(AUTHENTICATED.to_string());
    }

    /// Whether the user is a member.
    pub fn in_group(&self, group: &str) -> bool {
        self.groups.iter().any(|have| have == group)
    }

    /// The namespace and name, when this is a service account.
    pub fn service_account(&self) -> Option<(&str, &str)> {
        self.name.strip_prefix("system:serviceaccount:")?.split_once(':')
    }

    /// As `authentication.k8s.io/v1 UserInfo`.
    pub fn to_value(&self) -> serde_json::Value {
        let mut value = serde_json::json!({});
        if !self.name.is_empty() {
            value["username"] = self.name.clone().into();
        }
        if !self.uid.is_empty() {
            value["uid"] = self.uid.clone().into();
        }
        if !self.groups.is_empty() {
            value["groups"] = self.groups.clone().into();
        }
        if !self.extra.is_empty() {
            value["extra"] = serde_json::json!(self.extra);
        }
        value
    }
}
