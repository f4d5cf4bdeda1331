//! Admission: what may change or refuse a write after it was authorized.
//!
//! The order of [`PLUGINS`] is upstream's (`pkg/kubeapiserver/options/plugins.go`). Plugins see
//! objects in the storage version.

pub mod always;
pub mod always_pull_images;
pub mod certificates;
pub mod chain;
pub mod compiled;
pub mod configuration;
pub mod default_ingress_class;
pub mod default_storage_class;
pub mod default_toleration_seconds;
pub mod deny_service_external_ips;
pub mod event_rate_limit;
pub mod expression;
pub mod extended_resource_toleration;
pub mod image_policy;
pub mod limit_pod_hard_anti_affinity_topology;
pub mod limit_ranger;
pub mod lookup;
pub mod manifests;
pub mod namespace_auto_provision;
pub mod namespace_lifecycle;
pub mod node_declared_features;
pub mod node_restriction;
pub mod owner_references_permission_enforcement;
pub mod persistent_volume_claim_resize;
pub mod pod_node_selector;
pub mod pod_resize;
pub mod pod_security;
pub mod pod_toleration_restriction;
pub mod pod_topology_labels;
pub mod policy;
pub mod priority;
pub mod resource_quota;
pub mod review;
pub mod rules;
pub mod runtime_class;
pub mod service_account;
pub mod storage_object_in_use_protection;
pub mod taint_nodes_by_condition;
pub mod webhook;

use std::sync::Arc;

use apimachinery::status::Status;
use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::Value;

use crate::registry::Served;
use crate::request::UserInfo;
use crate::server::Server;
use crate::server::walk::Context;
pub use chain::Chain;

/// What is being done to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    Delete,
    Connect,
}

impl Operation {
    /// As upstream's messages and reviews name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Operation::Create => "CREATE",
            Operation::Update => "UPDATE",
            Operation::Delete => "DELETE",
            Operation::Connect => "CONNECT",
        }
    }
}

/// What plugins are configured with, beside flags.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    pub event_rate_limit: event_rate_limit::Settings,
    /// `None` without a configuration, which the plugin cannot do without.
    pub image_policy: Option<Arc<image_policy::ImagePolicy>>,
    /// Folders of webhooks and policies, by plugin.
    pub manifests: manifests::Settings,
    pub pod_node_selector: pod_node_selector::Settings,
    pub pod_security: pod_security::Settings,
    pub pod_toleration_restriction: pod_toleration_restriction::Settings,
}

/// A request as plugins see it.
pub struct Attributes<'a> {
    pub operation: Operation,
    pub served: &'a Served,
    pub subresource: &'a str,
    pub namespace: String,
    /// Empty while a name has yet to be generated.
    pub name: String,
    /// What a name will be generated from.
    pub base: String,
    pub user: &'a Arc<UserInfo>,
    pub dry_run: bool,
    /// What the user should know; see [`Attributes::warn`].
    pub warnings: Mutex<Vec<String>>,
    /// What webhooks and policies share.
    pub review: review::Review<'a>,
}

impl Attributes<'_> {
    /// Whether this is about a resource of the core group by this name, not about a subresource.
    pub fn is_core(&self, plural: &str) -> bool {
        self.served.resource.group.is_empty() && self.served.resource.plural == plural && self.subresource.is_empty()
    }

    /// Group, version and kind of the object in the request: of a subresource's own kind where it has one.
    pub fn kind(&self) -> (&str, &str, &str) {
        kind_of(self.served, self.subresource)
    }

    /// Whether the object in the request is not one of the resource: a Scale, an Eviction, the options of a connection.
    pub fn is_foreign(&self) -> bool {
        let resource = &self.served.resource;
        !self.subresource.is_empty() && self.kind() != (&*resource.group, &*resource.version, &*resource.kind)
    }

    /// Tells the user something, whether or not the request is refused.
    pub fn warn(&self, warning: String) {
        self.warnings.lock().push(warning);
    }

    /// Hands over what plugins said beside their verdicts.
    fn report(&self, cx: &Context) {
        cx.warnings.append(&mut self.warnings.lock());
        self.review.annotations.move_to(&cx.annotations);
        self.review.latencies.move_to(&cx.latencies);
    }

    /// The 403 of a plugin.
    pub fn forbidden(&self, error: impl std::fmt::Display) -> Status {
        let name = [&self.name, &self.base].into_iter().find(|name| !name.is_empty());
        Status::forbidden(&self.served.group_resource(), name.map_or("Unknown", |name| name), error)
    }

    /// The refusal while nobody can tell what webhooks and policies there are.
    fn not_ready(&self, error: &crate::cache::Error) -> Status {
        tracing::warn!(%error, "the configuration of admission cannot be read");
        self.forbidden("not yet ready to handle request")
    }
}

/// A resource: its group and its plural.
pub type Name = (&'static str, &'static str);

/// One admission plugin.
#[async_trait]
pub trait Plugin: Send + Sync {
    /// The only resources that it looks at, whatever their subresource; empty for one that looks at all.
    fn resources(&self) -> &'static [Name] {
        &[]
    }

    /// Changes the object, or refuses it.
    ///
    /// # Errors
    /// The refusal.
    async fn mutate(
        &self,
        _server: &Arc<Server>,
        _attributes: &Attributes<'_>,
        _object: &mut Value,
        _old: Option<&Value>,
    ) -> Result<(), Status> {
        Ok(())
    }

    /// Refuses the object, seeing its final form. For deletes the object is null.
    ///
    /// # Errors
    /// The refusal.
    async fn validate(
        &self,
        _server: &Arc<Server>,
        _attributes: &Attributes<'_>,
        _object: &Value,
        _old: Option<&Value>,
    ) -> Result<(), Status> {
        Ok(())
    }
}

/// Group, version and kind of what a resource, or a subresource of it, takes.
pub fn kind_of<'s>(served: &'s Served, subresource: &str) -> (&'s str, &'s str, &'s str) {
    let resource = &served.resource;
    match resource.subresource(subresource) {
        Some(own) => (&own.group, &own.version, &own.kind),
        None => (&resource.group, &resource.version, &resource.kind),
    }
}

/// Several errors as upstream's aggregate shows them: each once.
pub(crate) fn aggregate(errors: Vec<String>) -> String {
    let mut once: Vec<String> = Vec::new();
    for error in errors {
        if !once.contains(&error) {
            once.push(error);
        }
    }
    if once.len() == 1 { once.remove(0) } else { format!("[{}]", once.join(", ")) }
}
