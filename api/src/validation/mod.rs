//! Validation of built-in kinds: everything that is wrong with an object, at once.
//!
//! One file per kind, pure functions over canonical, defaulted trees (see [`crate::canonicalize`]
//! and [`crate::defaults`]). Paths, reasons, messages and their order are upstream's
//! (`pkg/apis/*/validation`). Kinds without rules of their own get those of their metadata.

mod admission_policy;
mod api_service;
mod capabilities;
pub(crate) mod certificates;
mod checks;
mod conditions;
mod config_map;
mod controller_revision;
mod cron_job;
mod csi;
pub mod custom_resource_definition;
mod daemon_set;
mod deployment;
mod diff;
mod endpoints;
mod event;
mod flow_control;
mod horizontal_pod_autoscaler;
mod ingress;
mod job;
mod lease;
mod limit_range;
mod mutating_admission_policy;
mod namespace;
mod network_policy;
mod node;
mod object_meta;
mod persistent_volume;
mod persistent_volume_claim;
mod pod;
mod pod_disruption_budget;
mod priority_class;
mod rbac;
mod replica_set;
mod resource;
mod resource_quota;
mod runtime_class;
mod secret;
mod service;
mod service_cidr;
mod stateful_set;
mod storage_class;
mod storage_version;
mod webhook_configuration;
mod workload;

use apimachinery::field::{ErrorList, Path};
use serde_json::{Map, Value};

use crate::Resource;

const ADMISSION: &str = "admissionregistration.k8s.io";
const CERTIFICATES: &str = "certificates.k8s.io";
const EVENTS: &str = "events.k8s.io";
const FLOW: &str = "flowcontrol.apiserver.k8s.io";
const RESOURCE: &str = "resource.k8s.io";
const RBAC: &str = "rbac.authorization.k8s.io";

pub use capabilities::allow_privileged;
pub use checks::domain_prefixed_path;
pub(crate) use checks::sloppy_ip;
pub use object_meta::field_manager;

/// What is wrong with a new object. It is in the storage version; `request` is the version it was sent in.
pub fn create(request: &Resource, resource: &Resource, object: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    let known = kind_create(request, resource, object, &mut errors);
    // Upstream checks metadata once more for every kind, after the kind's own rules passed.
    if !known || errors.is_empty() {
        object_meta::generic(object, resource.namespaced, checks::name_is_path_segment, &mut errors);
    }
    errors
}

/// What is wrong with a Service's addresses and families, which has to be known before any is allocated.
pub fn service_cluster_ips(service: &Value, old: Option<&Value>) -> ErrorList {
    let mut errors = ErrorList::new();
    service::cluster_ips(&service["spec"], old, &apimachinery::field::Path::new("spec"), &mut errors);
    errors
}

/// What is wrong with an object that replaces another.
pub fn update(request: &Resource, resource: &Resource, new: &Value, old: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    common(resource, new, old, &mut errors);
    if !kind_update(request, resource, new, old, &mut errors) && resource.custom {
        object_meta::generic_update(new, old, &mut errors);
    }
    errors
}

/// Upstream looks at the metadata of every update before the kind's own rules, which look again: each
/// error is listed twice.
fn common(resource: &Resource, new: &Value, old: &Value, errors: &mut ErrorList) {
    object_meta::generic(new, resource.namespaced, checks::name_is_path_segment, errors);
    object_meta::generic_update(new, old, errors);
}

/// What is wrong with an update through `/status` or another subresource that updates the object.
pub fn update_subresource(resource: &Resource, subresource: &str, new: &Value, old: &Value) -> ErrorList {
    // `/scale` changes the object itself.
    if subresource == "scale" {
        return update(resource, resource, new, old);
    }
    let mut errors = ErrorList::new();
    common(resource, new, old, &mut errors);
    if !kind_update_subresource(resource, subresource, new, old, &mut errors) && resource.custom {
        object_meta::generic_update(new, old, &mut errors);
    }
    errors
}

/// What is wrong with the metadata of a new custom object.
pub fn custom_metadata(object: &Value, namespaced: bool, errors: &mut ErrorList) {
    object_meta::generic(object, namespaced, checks::name_is_subdomain, errors);
}

/// What is looked at in the metadata of every changed object, before the kind's own rules.
pub fn custom_metadata_any_update(new: &Value, old: &Value, namespaced: bool, errors: &mut ErrorList) {
    object_meta::generic(new, namespaced, checks::name_is_path_segment, errors);
    object_meta::generic_update(new, old, errors);
}

/// What is wrong with the metadata of a changed custom object.
pub fn custom_metadata_update(new: &Value, old: &Value, errors: &mut ErrorList) {
    object_meta::generic_update(new, old, errors);
}

/// What is wrong with labels.
pub fn labels(labels: &Map<String, Value>, path: &Path, errors: &mut ErrorList) {
    checks::labels(&Value::Object(labels.clone()), path, errors);
}

/// What is wrong with annotations.
pub fn annotations(annotations: &Map<String, Value>, path: &Path, errors: &mut ErrorList) {
    checks::annotations(&Value::Object(annotations.clone()), path, errors);
}

/// What is wrong with the metadata of a resource embedded in a custom object.
pub(crate) fn embedded_metadata(metadata: &Value, path: &Path, errors: &mut ErrorList) {
    let mut metadata = metadata.clone();
    if metadata.get("name").and_then(Value::as_str).unwrap_or_default().is_empty()
        && let Some(map) = metadata.as_object_mut()
    {
        // Embedded resources need no name; any will do to check the rest.
        map.insert("name".into(), "fakename".into());
    }
    let namespaced = metadata.get("namespace").and_then(Value::as_str).is_some_and(|namespace| !namespace.is_empty());
    object_meta::generic_at(&metadata, namespaced, checks::name_is_path_segment, path, errors);
}

/// What is wrong with a Binding.
pub fn binding(binding: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    pod::binding(binding, &mut errors);
    errors
}

fn kind_create(request: &Resource, resource: &Resource, object: &Value, errors: &mut ErrorList) -> bool {
    if resource.custom {
        return false;
    }
    match (&*resource.group, &*resource.kind) {
        ("", "ConfigMap") => config_map::create(object, errors),
        ("", "Endpoints") => endpoints::create(object, errors),
        ("", "Event") => event::create(object, request.group == EVENTS, errors),
        ("", "LimitRange") => limit_range::create(object, errors),
        ("", "Namespace") => namespace::create(object, errors),
        ("", "Node") => node::create(object, errors),
        ("", "PersistentVolume") => persistent_volume::create(object, errors),
        ("", "PersistentVolumeClaim") => persistent_volume_claim::create(object, errors),
        ("", "Pod") => pod::create(object, errors),
        ("", "PodTemplate") => workload::pod_template(object, errors),
        ("", "ReplicationController") => workload::replication_controller(object, errors),
        ("", "ResourceQuota") => resource_quota::create(object, errors),
        ("", "Secret") => secret::create(object, errors),
        ("", "Service") => service::create(object, errors),
        ("", "ServiceAccount") => object_meta::create(object, true, checks::name_is_subdomain, errors),
        ("apps", "ControllerRevision") => controller_revision::create(object, errors),
        ("apps", "DaemonSet") => daemon_set::create(object, errors),
        ("apps", "Deployment") => deployment::create(object, errors),
        ("apps", "ReplicaSet") => replica_set::create(object, errors),
        ("apps", "StatefulSet") => stateful_set::create(object, errors),
        (ADMISSION, "MutatingWebhookConfiguration" | "ValidatingWebhookConfiguration") => {
            webhook_configuration::create(object, errors);
        }
        (ADMISSION, "MutatingAdmissionPolicy") => mutating_admission_policy::policy(object, errors),
        (ADMISSION, "MutatingAdmissionPolicyBinding") => mutating_admission_policy::binding(object, errors),
        (ADMISSION, "ValidatingAdmissionPolicy") => admission_policy::policy(object, errors),
        (ADMISSION, "ValidatingAdmissionPolicyBinding") => admission_policy::binding(object, errors),
        ("apiregistration.k8s.io", "APIService") => api_service::create(object, errors),
        ("apiextensions.k8s.io", "CustomResourceDefinition") => custom_resource_definition::create(object, errors),
        ("autoscaling", "HorizontalPodAutoscaler") => horizontal_pod_autoscaler::create(object, errors),
        ("batch", "CronJob") => cron_job::create(object, errors),
        ("batch", "Job") => job::create(object, errors),
        (CERTIFICATES, "CertificateSigningRequest") => certificates::create(object, errors),
        (CERTIFICATES, "ClusterTrustBundle") => certificates::trust_bundle::create(object, errors),
        (CERTIFICATES, "PodCertificateRequest") => certificates::pod::create(object, errors),
        ("coordination.k8s.io", "Lease") => lease::create(object, errors),
        ("coordination.k8s.io", "LeaseCandidate") => lease::candidate(object, errors),
        ("discovery.k8s.io", "EndpointSlice") => endpoints::slice(object, errors),
        (FLOW, "FlowSchema") => flow_control::schema(object, errors),
        (FLOW, "PriorityLevelConfiguration") => flow_control::level(object, errors),
        ("internal.apiserver.k8s.io", "StorageVersion") => storage_version::create(object, errors),
        ("networking.k8s.io", "IPAddress") => service_cidr::address(object, errors),
        ("networking.k8s.io", "Ingress") => ingress::create(object, errors),
        ("networking.k8s.io", "IngressClass") => ingress::class(object, errors),
        ("networking.k8s.io", "NetworkPolicy") => network_policy::create(object, errors),
        ("networking.k8s.io", "ServiceCIDR") => service_cidr::create(object, errors),
        ("node.k8s.io", "RuntimeClass") => runtime_class::create(object, errors),
        ("policy", "PodDisruptionBudget") => pod_disruption_budget::create(object, errors),
        (RBAC, "ClusterRole") => rbac::cluster_role(object, errors),
        (RBAC, "ClusterRoleBinding") => rbac::cluster_role_binding(object, errors),
        (RBAC, "Role") => rbac::role(object, errors),
        (RBAC, "RoleBinding") => rbac::role_binding(object, errors),
        (RESOURCE, "DeviceClass") => resource::class(object, errors),
        (RESOURCE, "DeviceTaintRule") => resource::taint_rule(object, errors),
        (RESOURCE, "ResourceClaim") => resource::claim(object, errors),
        (RESOURCE, "ResourceClaimTemplate") => resource::template(object, errors),
        (RESOURCE, "ResourceSlice") => resource::slice(object, errors),
        ("scheduling.k8s.io", "PriorityClass") => priority_class::create(object, errors),
        ("storage.k8s.io", "CSIDriver") => csi::driver(object, errors),
        ("storage.k8s.io", "CSINode") => csi::node(object, errors),
        ("storage.k8s.io", "CSIStorageCapacity") => csi::capacity(object, errors),
        ("storage.k8s.io", "StorageClass") => storage_class::create(object, errors),
        ("storage.k8s.io", "VolumeAttachment") => csi::attachment(object, errors),
        ("storage.k8s.io", "VolumeAttributesClass") => storage_class::attributes(object, errors),
        ("storagemigration.k8s.io", "StorageVersionMigration") => storage_version::migration(object, errors),
        _ => return false,
    }
    true
}

fn kind_update(request: &Resource, resource: &Resource, new: &Value, old: &Value, errors: &mut ErrorList) -> bool {
    if resource.custom {
        return false;
    }
    match (&*resource.group, &*resource.kind) {
        ("", "ConfigMap") => config_map::update(new, old, errors),
        ("", "Endpoints") => endpoints::update(new, old, errors),
        ("", "Event") => event::update(new, old, request.group == EVENTS, errors),
        ("", "LimitRange") => limit_range::create(new, errors),
        ("", "Namespace") => namespace::update(new, old, errors),
        ("", "Node") => node::update(new, old, errors),
        ("", "PersistentVolume") => persistent_volume::update(new, old, errors),
        ("", "PersistentVolumeClaim") => persistent_volume_claim::update(new, old, errors),
        ("", "Pod") => pod::update(new, old, errors),
        ("", "PodTemplate") => workload::pod_template_update(new, old, errors),
        ("", "ReplicationController") => workload::replication_controller_update(new, old, errors),
        ("", "ResourceQuota") => resource_quota::update(new, old, errors),
        ("", "Secret") => secret::update(new, old, errors),
        ("", "Service") => service::update(new, old, errors),
        ("", "ServiceAccount") => {
            object_meta::update(new, old, errors);
            object_meta::create(new, true, checks::name_is_subdomain, errors);
        }
        ("apps", "ControllerRevision") => controller_revision::update(new, old, errors),
        ("apps", "DaemonSet") => daemon_set::update(new, old, errors),
        ("apps", "Deployment") => deployment::update(new, old, errors),
        ("apps", "ReplicaSet") => replica_set::update(new, old, errors),
        ("apps", "StatefulSet") => stateful_set::update(new, old, errors),
        (ADMISSION, "MutatingWebhookConfiguration" | "ValidatingWebhookConfiguration") => {
            webhook_configuration::update(new, old, errors);
        }
        (ADMISSION, "MutatingAdmissionPolicy") => mutating_admission_policy::policy(new, errors),
        (ADMISSION, "MutatingAdmissionPolicyBinding") => mutating_admission_policy::binding(new, errors),
        (ADMISSION, "ValidatingAdmissionPolicy") => admission_policy::policy(new, errors),
        (ADMISSION, "ValidatingAdmissionPolicyBinding") => admission_policy::binding(new, errors),
        ("apiregistration.k8s.io", "APIService") => api_service::update(new, old, errors),
        ("apiextensions.k8s.io", "CustomResourceDefinition") => custom_resource_definition::update(new, old, errors),
        ("autoscaling", "HorizontalPodAutoscaler") => horizontal_pod_autoscaler::update(new, old, errors),
        ("batch", "CronJob") => cron_job::update(new, old, errors),
        ("batch", "Job") => job::update(new, old, errors),
        (CERTIFICATES, "CertificateSigningRequest") => certificates::update(new, old, "", errors),
        (CERTIFICATES, "ClusterTrustBundle") => certificates::trust_bundle::update(new, old, errors),
        (CERTIFICATES, "PodCertificateRequest") => certificates::pod::update(new, old, errors),
        ("coordination.k8s.io", "Lease") => lease::update(new, old, errors),
        ("coordination.k8s.io", "LeaseCandidate") => lease::candidate_update(new, old, errors),
        ("discovery.k8s.io", "EndpointSlice") => endpoints::slice_update(new, old, errors),
        (FLOW, "FlowSchema") => flow_control::schema(new, errors),
        (FLOW, "PriorityLevelConfiguration") => flow_control::level(new, errors),
        // What it says is in its status, which has a way in of its own.
        ("internal.apiserver.k8s.io", "StorageVersion") => {}
        ("networking.k8s.io", "IPAddress") => service_cidr::address_update(new, old, errors),
        ("networking.k8s.io", "Ingress") => ingress::update(new, old, errors),
        ("networking.k8s.io", "IngressClass") => ingress::class_update(new, old, errors),
        ("networking.k8s.io", "NetworkPolicy") => network_policy::update(new, old, errors),
        ("networking.k8s.io", "ServiceCIDR") => service_cidr::update(new, old, errors),
        ("node.k8s.io", "RuntimeClass") => runtime_class::update(new, old, errors),
        ("policy", "PodDisruptionBudget") => pod_disruption_budget::create(new, errors),
        (RBAC, "ClusterRole") => rbac::cluster_role_update(new, old, errors),
        (RBAC, "ClusterRoleBinding") => rbac::cluster_role_binding_update(new, old, errors),
        (RBAC, "Role") => rbac::role_update(new, old, errors),
        (RBAC, "RoleBinding") => rbac::role_binding_update(new, old, errors),
        (RESOURCE, "DeviceClass") => resource::class_update(new, old, errors),
        (RESOURCE, "DeviceTaintRule") => resource::taint_rule_update(new, old, errors),
        (RESOURCE, "ResourceClaim") => resource::claim_update(new, old, errors),
        (RESOURCE, "ResourceClaimTemplate") => resource::template_update(new, old, errors),
        (RESOURCE, "ResourceSlice") => resource::slice_update(new, old, errors),
        ("scheduling.k8s.io", "PriorityClass") => priority_class::update(new, old, errors),
        ("storage.k8s.io", "CSIDriver") => csi::driver_update(new, old, errors),
        ("storage.k8s.io", "CSINode") => csi::node_update(new, old, errors),
        ("storage.k8s.io", "CSIStorageCapacity") => csi::capacity_update(new, old, errors),
        ("storage.k8s.io", "StorageClass") => storage_class::update(new, old, errors),
        ("storage.k8s.io", "VolumeAttachment") => csi::attachment_update(new, old, errors),
        ("storage.k8s.io", "VolumeAttributesClass") => storage_class::attributes_update(new, old, errors),
        ("storagemigration.k8s.io", "StorageVersionMigration") => storage_version::migration_update(new, old, errors),
        _ => return false,
    }
    true
}

fn kind_update_subresource(
    resource: &Resource,
    subresource: &str,
    new: &Value,
    old: &Value,
    errors: &mut ErrorList,
) -> bool {
    if resource.custom {
        return false;
    }
    match (&*resource.group, &*resource.kind, subresource) {
        ("", "Namespace", "status") => namespace::update_status(new, old, errors),
        ("", "Namespace", "finalize") => namespace::finalize(new, old, errors),
        ("", "Node", "status") => node::update_status(new, old, errors),
        ("", "PersistentVolume", "status") => persistent_volume::update_status(new, old, errors),
        ("", "PersistentVolumeClaim", "status") => persistent_volume_claim::update_status(new, old, errors),
        ("", "Pod", "ephemeralcontainers") => pod::ephemeral_containers(new, old, errors),
        ("", "Pod", "resize") => pod::resize(new, old, errors),
        ("", "Pod", "status") => pod::update_status(new, old, errors),
        ("", "ReplicationController", "status") => workload::replication_controller_status(new, old, errors),
        ("", "ResourceQuota", "status") => resource_quota::update_status(new, old, errors),
        ("", "Service", "status") => service::update_status(new, old, errors),
        ("apps", "DaemonSet", "status") => daemon_set::update_status(new, old, errors),
        ("apps", "Deployment", "status") => deployment::update_status(new, old, errors),
        ("apps", "ReplicaSet", "status") => replica_set::update_status(new, old, errors),
        ("apps", "StatefulSet", "status") => stateful_set::update_status(new, old, errors),
        ("apiextensions.k8s.io", "CustomResourceDefinition", "status") => {
            custom_resource_definition::update_status(new, old, errors);
        }
        ("autoscaling", "HorizontalPodAutoscaler", "status") => {
            horizontal_pod_autoscaler::update_status(new, old, errors);
        }
        ("batch", "Job", "status") => job::update_status(new, old, errors),
        (CERTIFICATES, "CertificateSigningRequest", "approval" | "status") => {
            certificates::update(new, old, subresource, errors);
        }
        (CERTIFICATES, "PodCertificateRequest", "status") => certificates::pod::update_status(new, old, errors),
        (RESOURCE, "DeviceTaintRule", "status") => resource::taint_rule_status(new, old, errors),
        (RESOURCE, "ResourceClaim", "status") => resource::claim_status(new, old, errors),
        ("internal.apiserver.k8s.io", "StorageVersion", "status") => storage_version::update_status(new, errors),
        ("storagemigration.k8s.io", "StorageVersionMigration", "status") => {
            storage_version::migration_status(new, old, errors);
        }
        ("apiregistration.k8s.io", "APIService", "status") => object_meta::generic_update(new, old, errors),
        (ADMISSION, "ValidatingAdmissionPolicy", "status") => admission_policy::update_status(new, errors),
        (FLOW, "FlowSchema" | "PriorityLevelConfiguration", "status") => flow_control::update_status(new, errors),
        ("networking.k8s.io", "ServiceCIDR", "status") => object_meta::update(new, old, errors),
        ("storage.k8s.io", "VolumeAttachment", "status") => csi::attachment_update(new, old, errors),
        ("networking.k8s.io", "Ingress", "status") => ingress::update_status(new, old, errors),
        ("policy", "PodDisruptionBudget", "status") => pod_disruption_budget::update_status(new, errors),
        _ => return false,
    }
    true
}

#[cfg(test)]
mod golden;
#[cfg(test)]
mod tests;
