//! Role-based access control.
//!
//! Roles and bindings are followed in the watch cache and kept in an [`index::Index`]; a decision
//! reads that and nothing else. Upstream: `plugin/pkg/auth/authorizer/rbac` and
//! `pkg/registry/rbac/validation`.

pub mod index;
pub mod policy;
pub mod rule;

use std::sync::Arc;

use apimachinery::gotext;
use parking_lot::RwLock;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use super::{Attributes, Authorizer, Decision, Found};
use crate::cache::{Entry, Event, Follower, Snapshot};
use crate::registry::Registry;
use crate::request::UserInfo;
use index::{Binding, Index, RoleRef, Rules, Subject, Verdict};
use rule::Rule;

/// The group of all its kinds.
pub const GROUP: &str = "rbac.authorization.k8s.io";

/// Decides by roles and bindings. Clones share what they know.
#[derive(Clone, Default)]
pub struct Rbac {
    index: Arc<RwLock<Index>>,
}

impl Rbac {
    /// Reads all roles and bindings and follows them until `shutdown`.
    pub async fn start(&self, registry: &Registry, shutdown: &CancellationToken) {
        for what in [What::Roles, What::ClusterRoles, What::RoleBindings, What::ClusterRoleBindings] {
            let Some(served) = registry.any_version(GROUP, what.plural()) else { continue };
            let Some(cache) = &served.cache else { continue };
            let follower = Arc::new(Source { what, index: self.index.clone() });
            cache.follow(follower, shutdown.clone()).await;
        }
    }

    /// Every rule that applies to a user in a namespace (empty: in the whole cluster only), and
    /// which roles could not be found.
    pub fn rules_for(&self, user: &UserInfo, namespace: &str) -> (Vec<Rules>, Vec<String>) {
        self.index.read().rules_for(user, namespace)
    }

    /// The rules of the role that a binding in `namespace` refers to; `None` when it is not there.
    pub fn rules_of(&self, role: &RoleRef, namespace: &str) -> Option<Rules> {
        self.index.read().rules_of(role, namespace).ok()
    }

    /// Whether a user holds all these rights already, so may give them to others.
    ///
    /// # Errors
    /// Upstream's text, which lists what is missing.
    pub fn confirm_no_escalation(&self, user: &UserInfo, namespace: &str, wanted: &[Rule]) -> Result<(), String> {
        let (own, errors) = self.rules_for(user, namespace);
        let own = own.iter().flat_map(|rules| rules.iter());
        let missing = rule::uncovered(own, wanted);
        if missing.is_empty() {
            return Ok(());
        }
        let mut text = format!(
            "user {} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
            gotext::quote(&user.name),
            gotext::quoted_list(user.groups.iter().map(String::as_str)),
            rule::describe_missing(missing),
        );
        if !errors.is_empty() {
            text.push_str(&format!("; resolution errors: [{}]", aggregate(errors)));
        }
        Err(text)
    }
}

/// Several errors as upstream's aggregate shows them: each once.
fn aggregate(errors: Vec<String>) -> String {
    let mut once: Vec<String> = Vec::new();
    for error in errors {
        if !once.contains(&error) {
            once.push(error);
        }
    }
    if once.len() == 1 { once.remove(0) } else { format!("[{}]", once.join(", ")) }
}

impl Authorizer for Rbac {
    fn authorize(&self, attributes: &Attributes) -> Decision {
        match self.index.read().judge(attributes) {
            Verdict::Allowed(by) => Decision::Allow(format!("RBAC: allowed by {by}")),
            Verdict::Unknown(errors) if errors.is_empty() => Decision::NoOpinion(String::new()),
            Verdict::Unknown(errors) => Decision::NoOpinion(format!("RBAC: {}", aggregate(errors))),
        }
    }

    fn rules_for(&self, user: &UserInfo, namespace: &str) -> Found {
        let (rules, errors) = Rbac::rules_for(self, user, namespace);
        Found { rules: rules.iter().flat_map(|rules| rules.iter().cloned()).collect(), errors, incomplete: false }
    }
}

#[derive(Clone, Copy, Debug)]
enum What {
    Roles,
    ClusterRoles,
    RoleBindings,
    ClusterRoleBindings,
}

impl What {
    fn plural(self) -> &'static str {
        match self {
            What::Roles => "roles",
            What::ClusterRoles => "clusterroles",
            What::RoleBindings => "rolebindings",
            What::ClusterRoleBindings => "clusterrolebindings",
        }
    }
}

/// Brings one kind's objects into the index.
struct Source {
    what: What,
    index: Arc<RwLock<Index>>,
}

/// What of an object matters here.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Object {
    rules: Option<Vec<Rule>>,
    role_ref: RoleRef,
    subjects: Option<Vec<Subject>>,
}

fn read(entry: &Entry) -> Object {
    serde_json::from_slice(entry.json()).unwrap_or_else(|error| {
        // It grants nothing then; nobody can store such an object through the API.
        tracing::error!(%error, key = %entry.key(), "an RBAC object cannot be read");
        Object::default()
    })
}

impl Source {
    fn put(&self, index: &mut Index, entry: &Entry) {
        let object = read(entry);
        match self.what {
            What::Roles | What::ClusterRoles => {
                index.put_role(entry.namespace(), entry.name(), Some(object.rules.unwrap_or_default().into()));
            }
            What::RoleBindings | What::ClusterRoleBindings => index.put_binding(Binding {
                namespace: entry.namespace().into(),
                name: entry.name().into(),
                role: object.role_ref,
                subjects: object.subjects.unwrap_or_default(),
            }),
        }
    }
}

impl Follower for Source {
    fn replace(&self, objects: &Snapshot) {
        let mut index = self.index.write();
        match self.what {
            What::Roles => index.clear_roles(true),
            What::ClusterRoles => index.clear_roles(false),
            What::RoleBindings => index.clear_bindings(true),
            What::ClusterRoleBindings => index.clear_bindings(false),
        }
        for entry in objects.range(None, None) {
            self.put(&mut index, entry);
        }
    }

    fn apply(&self, event: &Event) {
        let mut index = self.index.write();
        match (&event.object, self.what) {
            (Some(entry), _) => self.put(&mut index, entry),
            (None, What::Roles | What::ClusterRoles) => {
                index.put_role(event.any().namespace(), event.any().name(), None);
            }
            (None, What::RoleBindings | What::ClusterRoleBindings) => {
                index.remove_binding(event.any().namespace(), event.any().name());
            }
        }
    }
}

#[cfg(test)]
mod matrix;
#[cfg(test)]
mod tests;
