//! Default values of built-in kinds.
//!
//! Two sources, applied in upstream's order: the `+default` markers, which are in the table
//! ([`table_defaults`]), and what Kubernetes calls `SetDefaults_*`, one file per kind beside this one.
//! Both take a canonical tree, in which structs that are no pointers are present.

mod admission_registration;
mod api_service;
mod cron_job;
mod csi_driver;
mod custom_resource_definition;
mod daemon_set;
mod deployment;
mod device;
mod endpoint_slice;
mod endpoints;
mod flow_control;
mod from_table;
mod horizontal_pod_autoscaler;
mod ingress_class;
mod job;
mod limit_range;
mod namespace;
mod network_policy;
mod node;
mod persistent_volume;
mod persistent_volume_claim;
mod pod;
mod pod_spec;
mod priority_class;
mod rbac;
mod replica_set;
mod replication_controller;
mod resource_list;
mod resource_quota;
mod secret;
mod service;
mod set;
mod stateful_set;
mod storage_class;

use serde_json::Value;

use crate::Resource;

pub use from_table::table_defaults;

/// Fills `object` with every default of its kind. Custom resources have theirs in their schema.
pub fn apply(resource: &Resource, object: &mut Value) {
    if resource.custom {
        return;
    }
    if let Some(ty) = resource.type_ref() {
        table_defaults(ty, object);
    }
    kind(&resource.group, &resource.version, &resource.kind, object);
}

/// The `SetDefaults_*` of one kind.
fn kind(group: &str, version: &str, kind: &str, object: &mut Value) {
    match (group, kind) {
        ("", "Endpoints") => endpoints::set(object),
        ("", "LimitRange") => limit_range::set(object),
        ("", "Namespace") => namespace::set(object),
        ("", "Node") => node::set(object),
        ("", "PersistentVolume") => persistent_volume::set(object),
        ("", "PersistentVolumeClaim") => persistent_volume_claim::set(object),
        ("", "Pod") => pod::set(object),
        ("", "PodTemplate") => pod_spec::template(object.get_mut("template")),
        ("", "ReplicationController") => replication_controller::set(object),
        ("", "ResourceQuota") => resource_quota::set(object),
        ("", "Secret") => secret::set(object),
        ("", "Service") => service::set(object),
        ("apps", "DaemonSet") => daemon_set::set(object),
        ("apps", "Deployment") => deployment::set(object),
        ("apps", "ReplicaSet") => replica_set::set(object),
        ("apps", "StatefulSet") => stateful_set::set(object),
        ("autoscaling", "HorizontalPodAutoscaler") => horizontal_pod_autoscaler::set(version, object),
        ("batch", "CronJob") => cron_job::set(object),
        ("batch", "Job") => job::set(object),
        ("discovery.k8s.io", "EndpointSlice") => endpoint_slice::set(object),
        ("networking.k8s.io", "IngressClass") => ingress_class::set(object),
        ("networking.k8s.io", "NetworkPolicy") => network_policy::set(object),
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => rbac::set(object),
        ("scheduling.k8s.io", "PriorityClass") => priority_class::set(object),
        ("storage.k8s.io", "CSIDriver") => csi_driver::set(object),
        ("storage.k8s.io", "StorageClass") => storage_class::set(object),
        ("admissionregistration.k8s.io", kind) => admission_registration::set(kind, object),
        ("apiextensions.k8s.io", "CustomResourceDefinition") => custom_resource_definition::set(object),
        ("apiregistration.k8s.io", "APIService") => api_service::set(object),
        ("flowcontrol.apiserver.k8s.io", kind) => flow_control::set(kind, object),
        ("resource.k8s.io", kind) => device::set(kind, object),
        _ => {}
    }
}

#[cfg(test)]
mod tests;
