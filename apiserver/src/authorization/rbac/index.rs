//! Roles and bindings arranged by subject, so that a decision looks only at rules that may matter.
//!
//! Per scope (the cluster, or one namespace) each user and group has the bindings that name it. When
//! a subject is first asked about, the rules of its bindings are compiled into a table by resource;
//! the table lasts until one of its bindings, or a role that they name, changes.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use ahash::{AHashMap, AHashSet};
use apimachinery::gotext;
use serde::Deserialize;

use super::rule::{Rule, Text};
use crate::authorization::Attributes;
use crate::request::UserInfo;

/// The rules of one role, shared by the tables of all its subjects.
pub type Rules = Arc<[Rule]>;

/// Who is bound.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Subject {
    pub kind: Text,
    pub name: Text,
    pub namespace: Option<Text>,
}

/// Which role is meant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct RoleRef {
    pub kind: Text,
    pub name: Text,
}

/// A RoleBinding or ClusterRoleBinding.
#[derive(Clone, Debug, Default)]
pub struct Binding {
    /// Empty for a ClusterRoleBinding.
    pub namespace: Text,
    pub name: Text,
    pub role: RoleRef,
    pub subjects: Vec<Subject>,
}

/// The key under which a subject's bindings are found.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    /// Service accounts are users of a certain name.
    User(Text),
    Group(Text),
}

impl Binding {
    /// `None` for a subject that nobody can be.
    fn key(&self, subject: &Subject) -> Option<Key> {
        match &*subject.kind {
            "User" => Some(Key::User(subject.name.clone())),
            "Group" => Some(Key::Group(subject.name.clone())),
            "ServiceAccount" => {
                let own = subject.namespace.as_deref().filter(|namespace| !namespace.is_empty());
                let namespace = own.unwrap_or(&self.namespace);
                let name = &subject.name;
                (!namespace.is_empty())
                    .then(|| Key::User(format!("system:serviceaccount:{namespace}:{name}").into_boxed_str()))
            }
            _ => None,
        }
    }

    /// As access reviews tell where a right comes from.
    fn describe(&self, user: &UserInfo) -> String {
        let applies = |subject: &&Subject| match self.key(subject) {
            Some(Key::User(name)) => *name == *user.name,
            Some(Key::Group(name)) => user.in_group(&name),
            None => false,
        };
        let subject = match self.subjects.iter().find(applies) {
            Some(subject) if &*subject.kind == "ServiceAccount" => {
                let own = subject.namespace.as_deref().filter(|namespace| !namespace.is_empty());
                let text = format!("{}/{}", subject.name, own.unwrap_or(&self.namespace));
                format!("ServiceAccount {}", gotext::quote(&text))
            }
            Some(subject) => format!("{} {}", subject.kind, gotext::quote(&subject.name)),
            None => String::new(),
        };
        let (kind, name) = if self.namespace.is_empty() {
            ("ClusterRoleBinding", self.name.to_string())
        } else {
            ("RoleBinding", format!("{}/{}", self.name, self.namespace))
        };
        let role = &self.role;
        format!("{kind} {} of {} {} to {subject}", gotext::quote(&name), role.kind, gotext::quote(&role.name))
    }
}

/// A rule that a binding gives.
struct Grant {
    rules: Rules,
    at: usize,
    binding: Arc<Binding>,
}

impl Grant {
    fn rule(&self) -> &Rule {
        &self.rules[self.at]
    }
}

/// What one subject may do in one scope.
#[derive(Default)]
struct Table {
    /// By resource as rules name it: `pods`, `pods/log`, `*/scale`.
    resources: AHashMap<Text, Vec<Grant>>,
    /// Rules for all resources.
    all: Vec<Grant>,
    /// Rules for plain paths.
    paths: Vec<Grant>,
    /// Roles that are named and not there.
    errors: Vec<String>,
}

impl Table {
    /// The first grant that allows the request.
    fn find(&self, attributes: &Attributes) -> Option<&Grant> {
        if !attributes.is_resource {
            return self.paths.iter().find(|grant| grant.rule().allows(attributes));
        }
        let among = |grants: Option<&Vec<Grant>>| {
            grants.into_iter().flatten().position(|grant| grant.rule().allows_found(attributes))
        };
        let exact = |key: &str| {
            let grants = self.resources.get(key);
            among(grants).and_then(|at| grants?.get(at))
        };
        let found = if attributes.subresource.is_empty() {
            exact(&attributes.resource)
        } else {
            exact(&format!("{}/{}", attributes.resource, attributes.subresource))
                .or_else(|| exact(&format!("*/{}", attributes.subresource)))
        };
        found.or_else(|| self.all.iter().find(|grant| grant.rule().allows_found(attributes)))
    }
}

#[derive(Default)]
struct Entry {
    bindings: BTreeMap<Text, Arc<Binding>>,
    table: OnceLock<Table>,
}

#[derive(Default)]
struct Scope {
    users: AHashMap<Text, Entry>,
    groups: AHashMap<Text, Entry>,
    bindings: AHashMap<Text, Arc<Binding>>,
}

impl Scope {
    fn slot(&mut self, key: Key) -> &mut Entry {
        match key {
            Key::User(name) => self.users.entry(name).or_default(),
            Key::Group(name) => self.groups.entry(name).or_default(),
        }
    }

    fn insert(&mut self, binding: Binding) {
        let binding = Arc::new(binding);
        for key in binding.subjects.iter().filter_map(|subject| binding.key(subject)) {
            let entry = self.slot(key);
            entry.bindings.insert(binding.name.clone(), binding.clone());
            entry.table = OnceLock::new();
        }
        self.bindings.insert(binding.name.clone(), binding);
    }

    fn remove(&mut self, name: &str) {
        let Some(binding) = self.bindings.remove(name) else { return };
        for key in binding.subjects.iter().filter_map(|subject| binding.key(subject)) {
            let entry = self.slot(key.clone());
            entry.bindings.remove(name);
            entry.table = OnceLock::new();
            if entry.bindings.is_empty() {
                match &key {
                    Key::User(name) => self.users.remove(name),
                    Key::Group(name) => self.groups.remove(name),
                };
            }
        }
    }

    /// Drops the tables that may contain rules of this role; `None` means any role of that kind.
    fn forget(&mut self, kind: &str, name: Option<&str>) {
        for entry in self.users.values_mut().chain(self.groups.values_mut()) {
            let names = |binding: &Arc<Binding>| {
                *binding.role.kind == *kind && name.is_none_or(|name| *binding.role.name == *name)
            };
            if entry.table.get().is_some() && entry.bindings.values().any(names) {
                entry.table = OnceLock::new();
            }
        }
    }

    /// The entries that concern a user.
    fn entries<'a>(&'a self, user: &'a UserInfo) -> impl Iterator<Item = &'a Entry> {
        let own = self.users.get(user.name.as_str());
        own.into_iter().chain(user.groups.iter().filter_map(|group| self.groups.get(group.as_str())))
    }
}

/// All roles and bindings.
#[derive(Default)]
pub struct Index {
    cluster: Scope,
    namespaces: AHashMap<Text, Scope>,
    cluster_roles: AHashMap<Text, Rules>,
    /// By namespace, then name.
    roles: AHashMap<Text, AHashMap<Text, Rules>>,
}

/// What the index says about a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A binding gives it; the text describes the binding.
    Allowed(String),
    /// Nothing gives it; roles that could not be found are named.
    Unknown(Vec<String>),
}

impl Index {
    /// Adds or replaces a binding.
    pub fn put_binding(&mut self, binding: Binding) {
        let scope = match &*binding.namespace {
            "" => &mut self.cluster,
            _ => self.namespaces.entry(binding.namespace.clone()).or_default(),
        };
        scope.remove(&binding.name);
        scope.insert(binding);
    }

    /// Takes a binding out; an empty namespace means a ClusterRoleBinding.
    pub fn remove_binding(&mut self, namespace: &str, name: &str) {
        if namespace.is_empty() {
            self.cluster.remove(name);
        } else if let Some(scope) = self.namespaces.get_mut(namespace) {
            scope.remove(name);
            if scope.bindings.is_empty() {
                self.namespaces.remove(namespace);
            }
        }
    }

    /// Forgets all RoleBindings, or all ClusterRoleBindings.
    pub fn clear_bindings(&mut self, namespaced: bool) {
        if namespaced {
            self.namespaces.clear();
        } else {
            self.cluster = Scope::default();
        }
    }

    /// Adds, replaces or (`None`) removes a role; an empty namespace means a ClusterRole.
    pub fn put_role(&mut self, namespace: &str, name: &str, rules: Option<Rules>) {
        if namespace.is_empty() {
            put(&mut self.cluster_roles, name, rules);
            self.cluster.forget("ClusterRole", Some(name));
            for scope in self.namespaces.values_mut() {
                scope.forget("ClusterRole", Some(name));
            }
            return;
        }
        let roles = self.roles.entry(namespace.into()).or_default();
        put(roles, name, rules);
        if roles.is_empty() {
            self.roles.remove(namespace);
        }
        if let Some(scope) = self.namespaces.get_mut(namespace) {
            scope.forget("Role", Some(name));
        }
    }

    /// Forgets all Roles, or all ClusterRoles.
    pub fn clear_roles(&mut self, namespaced: bool) {
        let kind = if namespaced {
            self.roles.clear();
            "Role"
        } else {
            self.cluster_roles.clear();
            "ClusterRole"
        };
        self.cluster.forget(kind, None);
        for scope in self.namespaces.values_mut() {
            scope.forget(kind, None);
        }
    }

    /// The rules that a binding in `namespace` (empty: of the cluster) gives.
    ///
    /// # Errors
    /// Says which role is not there, in the words of upstream's lister.
    pub fn rules_of(&self, role: &RoleRef, namespace: &str) -> Result<Rules, String> {
        let missing = |kind: &str| format!("{kind}.rbac.authorization.k8s.io {} not found", gotext::quote(&role.name));
        match &*role.kind {
            "Role" => self
                .roles
                .get(namespace)
                .and_then(|roles| roles.get(&role.name))
                .cloned()
                .ok_or_else(|| missing("role")),
            "ClusterRole" => self.cluster_roles.get(&role.name).cloned().ok_or_else(|| missing("clusterrole")),
            other => Err(format!("unsupported role reference kind: {}", gotext::quote(other))),
        }
    }

    fn compile(&self, entry: &Entry) -> Table {
        let mut table = Table::default();
        // A second binding to the same role adds nothing.
        let mut seen = AHashSet::new();
        for binding in entry.bindings.values() {
            let rules = match self.rules_of(&binding.role, &binding.namespace) {
                Ok(rules) => rules,
                Err(error) => {
                    table.errors.push(error);
                    continue;
                }
            };
            if !seen.insert(Arc::as_ptr(&rules).cast::<Rule>()) {
                continue;
            }
            for (at, rule) in rules.iter().enumerate() {
                let grant = || Grant { rules: rules.clone(), at, binding: binding.clone() };
                for resource in &rule.resources {
                    if &**resource == "*" {
                        table.all.push(grant());
                    } else {
                        table.resources.entry(resource.clone()).or_default().push(grant());
                    }
                }
                if !rule.non_resource_urls.is_empty() {
                    table.paths.push(grant());
                }
            }
        }
        table
    }

    fn scopes(&self, namespace: &str) -> impl Iterator<Item = &Scope> {
        let own = if namespace.is_empty() { None } else { self.namespaces.get(namespace) };
        std::iter::once(&self.cluster).chain(own)
    }

    /// Judges a request.
    pub fn judge(&self, attributes: &Attributes) -> Verdict {
        let mut errors = Vec::new();
        for scope in self.scopes(&attributes.namespace) {
            for entry in scope.entries(&attributes.user) {
                let table = entry.table.get_or_init(|| self.compile(entry));
                if let Some(grant) = table.find(attributes) {
                    return Verdict::Allowed(grant.binding.describe(&attributes.user));
                }
                errors.extend(table.errors.iter().cloned());
            }
        }
        Verdict::Unknown(errors)
    }

    /// Every rule that applies to a user in a namespace (empty: in the whole cluster only), and what
    /// could not be found.
    pub fn rules_for(&self, user: &UserInfo, namespace: &str) -> (Vec<Rules>, Vec<String>) {
        let (mut rules, mut errors) = (Vec::new(), Vec::new());
        for scope in self.scopes(namespace) {
            let bindings: BTreeMap<&Text, &Arc<Binding>> =
                scope.entries(user).flat_map(|entry| &entry.bindings).collect();
            for binding in bindings.into_values() {
                match self.rules_of(&binding.role, &binding.namespace) {
                    Ok(found) => rules.push(found),
                    Err(error) => errors.push(error),
                }
            }
        }
        (rules, errors)
    }
}

fn put(map: &mut AHashMap<Text, Rules>, name: &str, rules: Option<Rules>) {
    match rules {
        Some(rules) => {
            map.insert(name.into(), rules);
        }
        None => {
            map.remove(name);
        }
    }
}
