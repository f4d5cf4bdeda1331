//! Admission: what may change or refuse a write after it was authorized.
//!
//! The order of [`PLUGINS`] is upstream's (`pkg/kubeapiserver/options/plugins.go`). Plugins see
//! objects in the storage version.

pub mod always_pull_images;
pub mod certificates;
pub mod compiled;
pub mod configuration;
pub mod default_ingress_class;
pub mod default_storage_class;
pub mod default_toleration_seconds;
pub mod deny_service_external_ips;
pub mod event_rate_limit;
pub mod expression;
pub mod extended_resource_toleration;
pub mod limit_pod_hard_anti_affinity_topology;
pub mod limit_ranger;
pub mod lookup;
pub mod namespace_auto_provision;
pub mod namespace_lifecycle;
pub mod node_restriction;
pub mod owner_references_permission_enforcement;
pub mod persistent_volume_claim_resize;
pub mod pod_node_selector;
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

use crate::config::Config;
use crate::registry::Served;
use crate::request::UserInfo;
use crate::server::Server;

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
    pub user: &'a UserInfo,
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

    /// Tells the user something, whether or not the request is refused.
    pub fn warn(&self, warning: String) {
        self.warnings.lock().push(warning);
    }

    /// The 403 of a plugin.
    pub fn forbidden(&self, error: impl std::fmt::Display) -> Status {
        Status::forbidden(&self.served.group_resource(), &self.name, error)
    }

    /// The refusal while nobody can tell what webhooks and policies there are.
    fn not_ready(&self, error: &crate::cache::Error) -> Status {
        tracing::warn!(%error, "the configuration of admission cannot be read");
        self.forbidden("not yet ready to handle request")
    }
}

/// One admission plugin.
#[async_trait]
pub trait Plugin: Send + Sync {
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

/// Every plugin there is, in the order in which they run: name, whether it is on by default, itself.
const PLUGINS: &[(&str, bool, &dyn Plugin)] = &[
    (namespace_auto_provision::NAME, false, &namespace_auto_provision::NamespaceAutoProvision),
    (namespace_lifecycle::NAME, true, &namespace_lifecycle::NamespaceLifecycle),
    (namespace_auto_provision::EXISTS, false, &namespace_auto_provision::NamespaceExists),
    (
        limit_pod_hard_anti_affinity_topology::NAME,
        false,
        &limit_pod_hard_anti_affinity_topology::LimitPodHardAntiAffinityTopology,
    ),
    (limit_ranger::NAME, true, &limit_ranger::LimitRanger),
    (service_account::NAME, true, &service_account::ServiceAccount),
    (node_restriction::NAME, false, &node_restriction::NodeRestriction),
    (taint_nodes_by_condition::NAME, true, &taint_nodes_by_condition::TaintNodesByCondition),
    (always_pull_images::NAME, false, &always_pull_images::AlwaysPullImages),
    (pod_security::NAME, true, &pod_security::PodSecurity),
    (pod_node_selector::NAME, false, &pod_node_selector::PodNodeSelector),
    (priority::NAME, true, &priority::Priority),
    (default_toleration_seconds::NAME, true, &default_toleration_seconds::DefaultTolerationSeconds),
    (pod_toleration_restriction::NAME, false, &pod_toleration_restriction::PodTolerationRestriction),
    (event_rate_limit::NAME, false, &event_rate_limit::EventRateLimit),
    (extended_resource_toleration::NAME, false, &extended_resource_toleration::ExtendedResourceToleration),
    (default_storage_class::NAME, true, &default_storage_class::DefaultStorageClass),
    (storage_object_in_use_protection::NAME, true, &storage_object_in_use_protection::StorageObjectInUseProtection),
    (
        owner_references_permission_enforcement::NAME,
        false,
        &owner_references_permission_enforcement::OwnerReferencesPermissionEnforcement,
    ),
    (persistent_volume_claim_resize::NAME, true, &persistent_volume_claim_resize::PersistentVolumeClaimResize),
    (runtime_class::NAME, true, &runtime_class::RuntimeClass),
    ("CertificateApproval", true, &certificates::CertificateApproval),
    ("CertificateSigning", true, &certificates::CertificateSigning),
    ("ClusterTrustBundleAttest", true, &certificates::ClusterTrustBundleAttest),
    ("CertificateSubjectRestriction", true, &certificates::CertificateSubjectRestriction),
    (default_ingress_class::NAME, true, &default_ingress_class::DefaultIngressClass),
    (deny_service_external_ips::NAME, false, &deny_service_external_ips::DenyServiceExternalIps),
    (pod_topology_labels::NAME, true, &pod_topology_labels::PodTopologyLabels),
    (policy::MUTATING, true, &policy::MutatingAdmissionPolicy),
    (webhook::MUTATING, true, &webhook::MutatingAdmissionWebhook),
    (policy::VALIDATING, true, &policy::ValidatingAdmissionPolicy),
    (webhook::VALIDATING, true, &webhook::ValidatingAdmissionWebhook),
    (resource_quota::NAME, true, &resource_quota::ResourceQuota),
];

/// Upstream's plugins that have no counterpart here, or are elsewhere: their names are accepted.
const ELSEWHERE: [&str; 8] = [
    "AlwaysAdmit",
    "AlwaysDeny",
    "ImagePolicyWebhook",
    "JobValidation",
    "NodeDeclaredFeatureValidator",
    "PodGroupProtection",
    "PodGroupWorkloadExists",
    "PodResizeValidator",
];

/// Whether there is a plugin of this name.
pub fn is_known(name: &str) -> bool {
    PLUGINS.iter().any(|(have, ..)| *have == name) || ELSEWHERE.contains(&name)
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

/// The plugins that are on.
pub struct Chain(Vec<&'static dyn Plugin>);

impl Chain {
    /// Those that are on by default or switched on, without those that are switched off.
    pub fn new(config: &Config) -> Self {
        let named = |list: &[String], name: &str| list.iter().any(|have| have == name);
        Self(
            PLUGINS
                .iter()
                .filter(|(name, default, _)| {
                    (*default || named(&config.enable_admission_plugins, name))
                        && !named(&config.disable_admission_plugins, name)
                })
                .map(|(_, _, plugin)| *plugin)
                .collect(),
        )
    }

    /// Lets every plugin change the object.
    ///
    /// # Errors
    /// The first refusal.
    pub async fn mutate(
        &self,
        server: &Arc<Server>,
        attributes: &Attributes<'_>,
        object: &mut Value,
        old: Option<&Value>,
    ) -> Result<(), Status> {
        loop {
            for plugin in &self.0 {
                plugin.mutate(server, attributes, object, old).await?;
            }
            // A webhook or a policy changed the object: all see it once more.
            if !attributes.review.repeat() {
                return Ok(());
            }
        }
    }

    /// Lets every plugin judge the object.
    ///
    /// # Errors
    /// The first refusal.
    pub async fn validate(
        &self,
        server: &Arc<Server>,
        attributes: &Attributes<'_>,
        object: &Value,
        old: Option<&Value>,
    ) -> Result<(), Status> {
        for plugin in &self.0 {
            plugin.validate(server, attributes, object, old).await?;
        }
        Ok(())
    }
}
