//! Every plugin there is, in upstream's order, and the chain of those that are on.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use apimachinery::status::Status;
use component_base::metrics::Histogram;
use serde_json::Value;

use super::{
    Attributes, Name, Operation, Plugin, always, always_pull_images, certificates, default_ingress_class,
    default_storage_class, default_toleration_seconds, deny_service_external_ips, event_rate_limit,
    extended_resource_toleration, image_policy, limit_pod_hard_anti_affinity_topology, limit_ranger,
    namespace_auto_provision, namespace_lifecycle, node_declared_features, node_restriction,
    owner_references_permission_enforcement, persistent_volume_claim_resize, pod_node_selector, pod_resize,
    pod_security, pod_toleration_restriction, pod_topology_labels, policy, priority, resource_quota, runtime_class,
    service_account, storage_object_in_use_protection, taint_nodes_by_condition, webhook,
};
use crate::config::Config;
use crate::server::Server;
use crate::server::metrics::AdmissionMetrics;
use crate::server::walk::Context;

const CREATE: u8 = 1 << Operation::Create as u8;
const UPDATE: u8 = 1 << Operation::Update as u8;
const DELETE: u8 = 1 << Operation::Delete as u8;
const CONNECT: u8 = 1 << Operation::Connect as u8;
const ALL: u8 = CREATE | UPDATE | DELETE | CONNECT;

/// The two halves of admission, as metrics name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Objects may be changed.
    Admit,
    /// Objects are judged in their final form.
    Validate,
}

impl Step {
    /// The label.
    pub fn as_str(self) -> &'static str {
        match self {
            Step::Admit => "admit",
            Step::Validate => "validate",
        }
    }
}

/// A plugin's row.
struct Row {
    name: &'static str,
    /// On unless it is switched off.
    default: bool,
    /// The operations that it looks at.
    operations: u8,
    steps: &'static [Step],
    plugin: &'static dyn Plugin,
}

const ADMIT: &[Step] = &[Step::Admit];
const VALIDATE: &[Step] = &[Step::Validate];
const BOTH: &[Step] = &[Step::Admit, Step::Validate];

const fn on(name: &'static str, operations: u8, steps: &'static [Step], plugin: &'static dyn Plugin) -> Row {
    Row { name, default: true, operations, steps, plugin }
}

const fn off(name: &'static str, operations: u8, steps: &'static [Step], plugin: &'static dyn Plugin) -> Row {
    Row { name, default: false, operations, steps, plugin }
}

/// In the order in which they run.
#[rustfmt::skip]
const PLUGINS: &[Row] = &[
    off(always::ADMIT, ALL, BOTH, &always::AlwaysAdmit),
    off(namespace_auto_provision::NAME, CREATE, ADMIT, &namespace_auto_provision::NamespaceAutoProvision),
    on(namespace_lifecycle::NAME, CREATE | UPDATE | DELETE, ADMIT, &namespace_lifecycle::NamespaceLifecycle),
    off(namespace_auto_provision::EXISTS, CREATE | UPDATE | DELETE, VALIDATE, &namespace_auto_provision::NamespaceExists),
    off(limit_pod_hard_anti_affinity_topology::NAME, CREATE | UPDATE, VALIDATE, &limit_pod_hard_anti_affinity_topology::LimitPodHardAntiAffinityTopology),
    on(limit_ranger::NAME, CREATE | UPDATE, BOTH, &limit_ranger::LimitRanger),
    on(service_account::NAME, CREATE | UPDATE, BOTH, &service_account::ServiceAccount),
    off(node_restriction::NAME, CREATE | UPDATE | DELETE, ADMIT, &node_restriction::NodeRestriction),
    on(taint_nodes_by_condition::NAME, CREATE, ADMIT, &taint_nodes_by_condition::TaintNodesByCondition),
    off(always_pull_images::NAME, CREATE | UPDATE, BOTH, &always_pull_images::AlwaysPullImages),
    off(image_policy::NAME, CREATE | UPDATE, VALIDATE, &image_policy::ImagePolicyWebhook),
    on(pod_security::NAME, CREATE | UPDATE, VALIDATE, &pod_security::PodSecurity),
    off(pod_node_selector::NAME, CREATE, BOTH, &pod_node_selector::PodNodeSelector),
    on(priority::NAME, CREATE | UPDATE | DELETE, BOTH, &priority::Priority),
    on(default_toleration_seconds::NAME, CREATE | UPDATE, ADMIT, &default_toleration_seconds::DefaultTolerationSeconds),
    off(pod_toleration_restriction::NAME, CREATE | UPDATE, BOTH, &pod_toleration_restriction::PodTolerationRestriction),
    off(event_rate_limit::NAME, CREATE | UPDATE, VALIDATE, &event_rate_limit::EventRateLimit),
    off(extended_resource_toleration::NAME, CREATE | UPDATE, ADMIT, &extended_resource_toleration::ExtendedResourceToleration),
    on(default_storage_class::NAME, CREATE, ADMIT, &default_storage_class::DefaultStorageClass),
    on(storage_object_in_use_protection::NAME, CREATE, ADMIT, &storage_object_in_use_protection::StorageObjectInUseProtection),
    off(owner_references_permission_enforcement::NAME, CREATE | UPDATE, VALIDATE, &owner_references_permission_enforcement::OwnerReferencesPermissionEnforcement),
    on(persistent_volume_claim_resize::NAME, UPDATE, VALIDATE, &persistent_volume_claim_resize::PersistentVolumeClaimResize),
    on(runtime_class::NAME, CREATE, BOTH, &runtime_class::RuntimeClass),
    on("CertificateApproval", UPDATE, VALIDATE, &certificates::CertificateApproval),
    on("CertificateSigning", UPDATE, VALIDATE, &certificates::CertificateSigning),
    on("ClusterTrustBundleAttest", CREATE | UPDATE, VALIDATE, &certificates::ClusterTrustBundleAttest),
    on("CertificateSubjectRestriction", CREATE, VALIDATE, &certificates::CertificateSubjectRestriction),
    on(default_ingress_class::NAME, CREATE, ADMIT, &default_ingress_class::DefaultIngressClass),
    off(deny_service_external_ips::NAME, CREATE | UPDATE, VALIDATE, &deny_service_external_ips::DenyServiceExternalIps),
    on(pod_topology_labels::NAME, CREATE, ADMIT, &pod_topology_labels::PodTopologyLabels),
    on(node_declared_features::NAME, UPDATE, VALIDATE, &node_declared_features::NodeDeclaredFeatureValidator),
    on(pod_resize::NAME, UPDATE, VALIDATE, &pod_resize::PodResizeValidator),
    on(policy::MUTATING, CREATE | UPDATE | CONNECT, ADMIT, &policy::MutatingAdmissionPolicy),
    on(webhook::MUTATING, ALL, ADMIT, &webhook::MutatingAdmissionWebhook),
    on(policy::VALIDATING, ALL, VALIDATE, &policy::ValidatingAdmissionPolicy),
    on(webhook::VALIDATING, ALL, VALIDATE, &webhook::ValidatingAdmissionWebhook),
    on(resource_quota::NAME, CREATE | UPDATE, VALIDATE, &resource_quota::ResourceQuota),
    off(always::DENY, ALL, BOTH, &always::AlwaysDeny),
];

/// Upstream's plugins that act only behind gates that are off in 1.36 (`GenericWorkload`, `WorkloadWithJob`), on kinds
/// that are not served without them: their names are accepted.
const GATED: [&str; 3] = ["JobValidation", "PodGroupProtection", "PodGroupWorkloadExists"];

/// Whether there is a plugin of this name.
pub fn is_known(name: &str) -> bool {
    PLUGINS.iter().any(|row| row.name == name) || GATED.contains(&name)
}

/// Whether a plugin of this name is on with these flags.
pub fn is_on(config: &Config, name: &str) -> bool {
    let named = |list: &[String]| list.iter().any(|have| have == name);
    let default = PLUGINS.iter().any(|row| row.name == name && row.default);
    (default || named(&config.enable_admission_plugins)) && !named(&config.disable_admission_plugins)
}

/// A plugin in one step, and how long it took when it let the request pass and when it did not.
struct Slot {
    name: &'static str,
    plugin: &'static dyn Plugin,
    resources: &'static [Name],
    took: [OnceLock<Histogram>; 2],
}

/// The plugins of one operation and step.
struct Stage {
    operation: Operation,
    step: Step,
    slots: Vec<Slot>,
    took: [OnceLock<Histogram>; 2],
}

/// The plugins that are on.
pub struct Chain(Vec<Stage>);

const OPERATIONS: [Operation; 4] = [Operation::Create, Operation::Update, Operation::Delete, Operation::Connect];

impl Chain {
    /// Those that are on by default or switched on, without those that are switched off.
    pub fn new(config: &Config) -> Self {
        let stage = |operation: Operation, step: Step| {
            let wanted = |row: &&Row| {
                row.operations & (1 << operation as u8) != 0 && row.steps.contains(&step) && is_on(config, row.name)
            };
            let slot = |row: &Row| Slot {
                name: row.name,
                plugin: row.plugin,
                resources: row.plugin.resources(),
                took: Default::default(),
            };
            Stage {
                operation,
                step,
                slots: PLUGINS.iter().filter(wanted).map(slot).collect(),
                took: Default::default(),
            }
        };
        let both = |operation| [stage(operation, Step::Admit), stage(operation, Step::Validate)];
        Self(OPERATIONS.into_iter().flat_map(both).collect())
    }

    fn stage(&self, operation: Operation, step: Step) -> &Stage {
        &self.0[2 * operation as usize + usize::from(step == Step::Validate)]
    }

    /// Lets every plugin change the object. What they have to say besides is in the request's notes, whatever comes of it.
    ///
    /// # Errors
    /// The first refusal.
    pub async fn mutate(
        &self,
        cx: &Context,
        attributes: &Attributes<'_>,
        object: &mut Value,
        old: Option<&Value>,
    ) -> Result<(), Status> {
        let server = &cx.server;
        let stage = self.stage(attributes.operation, Step::Admit);
        let begun = server.clock.monotonic();
        let mut result;
        loop {
            result = stage.mutate(server, attributes, object, old).await;
            // A webhook or a policy changed the object: all see it once more.
            if result.is_err() || !attributes.review.repeat() {
                break;
            }
        }
        stage.observe(&server.metrics.admission, result.is_err(), server.clock.monotonic() - begun);
        attributes.report(cx);
        result
    }

    /// Lets every plugin judge the object.
    ///
    /// # Errors
    /// The first refusal.
    pub async fn validate(
        &self,
        cx: &Context,
        attributes: &Attributes<'_>,
        object: &Value,
        old: Option<&Value>,
    ) -> Result<(), Status> {
        let server = &cx.server;
        let stage = self.stage(attributes.operation, Step::Validate);
        let begun = server.clock.monotonic();
        let mut result = Ok(());
        let mut since = begun;
        for slot in &stage.slots {
            if !slot.looks_at(attributes) {
                slot.observe(stage, &server.metrics.admission, false, Duration::ZERO);
                continue;
            }
            result = slot.plugin.validate(server, attributes, object, old).await;
            let now = server.clock.monotonic();
            slot.observe(stage, &server.metrics.admission, result.is_err(), now - since);
            since = now;
            if result.is_err() {
                break;
            }
        }
        stage.observe(&server.metrics.admission, result.is_err(), since - begun);
        attributes.report(cx);
        result
    }
}

impl Stage {
    async fn mutate(
        &self,
        server: &Arc<Server>,
        attributes: &Attributes<'_>,
        object: &mut Value,
        old: Option<&Value>,
    ) -> Result<(), Status> {
        let mut since = server.clock.monotonic();
        for slot in &self.slots {
            if !slot.looks_at(attributes) {
                slot.observe(self, &server.metrics.admission, false, Duration::ZERO);
                continue;
            }
            let result = slot.plugin.mutate(server, attributes, object, old).await;
            let now = server.clock.monotonic();
            slot.observe(self, &server.metrics.admission, result.is_err(), now - since);
            since = now;
            result?;
        }
        Ok(())
    }

    fn observe(&self, metrics: &AdmissionMetrics, rejected: bool, took: Duration) {
        let series = self.took[usize::from(rejected)]
            .get_or_init(|| metrics.step.with(&[self.operation.as_str(), text(rejected), self.step.as_str()]));
        series.observe(took.as_secs_f64());
    }
}

impl Slot {
    /// Most plugins are about few resources: for others they are not even asked.
    fn looks_at(&self, attributes: &Attributes<'_>) -> bool {
        let resource = &attributes.served.resource;
        let is = |(group, plural): &Name| resource.plural == *plural && resource.group == *group;
        self.resources.is_empty() || self.resources.iter().any(is)
    }

    fn observe(&self, stage: &Stage, metrics: &AdmissionMetrics, rejected: bool, took: Duration) {
        let labels = || [self.name, stage.operation.as_str(), text(rejected), stage.step.as_str()];
        let series = self.took[usize::from(rejected)].get_or_init(|| metrics.controller.with(&labels()));
        series.observe(took.as_secs_f64());
    }
}

fn text(yes: bool) -> &'static str {
    if yes { "true" } else { "false" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_switches_hold() {
        let mut names: Vec<&str> = PLUGINS.iter().map(|row| row.name).chain(GATED).collect();
        assert_eq!(names.len(), 41, "as many as upstream orders");
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), 41);
        let config = Config {
            enable_admission_plugins: vec![always::DENY.to_string()],
            disable_admission_plugins: vec![resource_quota::NAME.to_string()],
            ..Config::default()
        };
        let chain = Chain::new(&config);
        let last = |operation, step| chain.stage(operation, step).slots.last().map(|slot| slot.name);
        assert_eq!(last(Operation::Connect, Step::Admit), Some(always::DENY));
        assert!(
            chain.stage(Operation::Create, Step::Validate).slots.iter().all(|slot| slot.name != resource_quota::NAME)
        );
    }

    /// What sees connections is what upstream lets see them.
    #[test]
    fn connections_are_seen_by_webhooks_and_policies_alone() {
        let chain = Chain::new(&Config::default());
        let names =
            |step| -> Vec<&str> { chain.stage(Operation::Connect, step).slots.iter().map(|slot| slot.name).collect() };
        assert_eq!(names(Step::Admit), [policy::MUTATING, webhook::MUTATING]);
        assert_eq!(names(Step::Validate), [policy::VALIDATING, webhook::VALIDATING]);
    }
}
