//! Validation of built-in kinds: everything that is wrong with an object, at once.
//!
//! One file per kind, pure functions over canonical, defaulted trees (see [`crate::canonicalize`]
//! and [`crate::defaults`]). Paths, reasons, messages and their order are upstream's
//! (`pkg/apis/*/validation`). Kinds without rules of their own get those of their metadata.

mod checks;
mod config_map;
mod daemon_set;
mod deployment;
mod namespace;
mod node;
mod object_meta;
mod persistent_volume_claim;
mod pod;
mod read;
mod replica_set;
mod secret;
mod service;
mod stateful_set;
mod workload;

use apimachinery::field::ErrorList;
use serde_json::Value;

use crate::Resource;

pub use object_meta::field_manager;

/// What is wrong with a new object.
pub fn create(resource: &Resource, object: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    let known = kind_create(resource, object, &mut errors);
    // Upstream checks metadata once more for every kind, after the kind's own rules passed.
    if !known || errors.is_empty() {
        object_meta::create(object, resource.namespaced, checks::name_is_path_segment, &mut errors);
    }
    errors
}

/// What is wrong with an object that replaces another.
pub fn update(resource: &Resource, new: &Value, old: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    if !kind_update(resource, new, old, &mut errors) {
        object_meta::update(new, old, &mut errors);
    }
    errors
}

/// What is wrong with an update through `/status` or another subresource that updates the object.
pub fn update_subresource(resource: &Resource, subresource: &str, new: &Value, old: &Value) -> ErrorList {
    // `/scale` changes the object itself.
    if subresource == "scale" {
        return update(resource, new, old);
    }
    let mut errors = ErrorList::new();
    if !kind_update_subresource(resource, subresource, new, old, &mut errors) {
        object_meta::update(new, old, &mut errors);
    }
    errors
}

/// What is wrong with a Binding.
pub fn binding(binding: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    pod::binding(binding, &mut errors);
    errors
}

fn kind_create(resource: &Resource, object: &Value, errors: &mut ErrorList) -> bool {
    if resource.custom {
        return false;
    }
    match (&*resource.group, &*resource.kind) {
        ("", "ConfigMap") => config_map::create(object, errors),
        ("", "Namespace") => namespace::create(object, errors),
        ("", "Node") => node::create(object, errors),
        ("", "PersistentVolumeClaim") => persistent_volume_claim::create(object, errors),
        ("", "Pod") => pod::create(object, errors),
        ("", "PodTemplate") => workload::pod_template(object, errors),
        ("", "ReplicationController") => workload::replication_controller(object, errors),
        ("", "Secret") => secret::create(object, errors),
        ("", "Service") => service::create(object, errors),
        ("apps", "DaemonSet") => daemon_set::create(object, errors),
        ("apps", "Deployment") => deployment::create(object, errors),
        ("apps", "ReplicaSet") => replica_set::create(object, errors),
        ("apps", "StatefulSet") => stateful_set::create(object, errors),
        _ => return names_only(resource, object, errors),
    }
    true
}

/// Kinds whose only rule is the form of their name.
fn names_only(resource: &Resource, object: &Value, errors: &mut ErrorList) -> bool {
    let check: object_meta::NameCheck = match (&*resource.group, &*resource.kind) {
        ("", "Endpoints" | "Event" | "LimitRange" | "PersistentVolume" | "ResourceQuota" | "ServiceAccount") => {
            checks::name_is_subdomain
        }
        ("apps", "ControllerRevision")
        | ("coordination.k8s.io", "Lease")
        | ("discovery.k8s.io", "EndpointSlice")
        | ("networking.k8s.io", "Ingress" | "IngressClass" | "NetworkPolicy")
        | ("node.k8s.io", "RuntimeClass")
        | ("policy", "PodDisruptionBudget")
        | ("scheduling.k8s.io", "PriorityClass")
        | ("storage.k8s.io", "CSIDriver" | "CSINode" | "StorageClass" | "VolumeAttachment" | "CSIStorageCapacity")
        | ("autoscaling", "HorizontalPodAutoscaler")
        | ("batch", "Job" | "CronJob") => checks::name_is_subdomain,
        _ => return false,
    };
    object_meta::create(object, resource.namespaced, check, errors);
    true
}

fn kind_update(resource: &Resource, new: &Value, old: &Value, errors: &mut ErrorList) -> bool {
    if resource.custom {
        return false;
    }
    match (&*resource.group, &*resource.kind) {
        ("", "ConfigMap") => config_map::update(new, old, errors),
        ("", "Namespace") => object_meta::update(new, old, errors),
        ("", "Node") => node::update(new, old, errors),
        ("", "PersistentVolumeClaim") => persistent_volume_claim::update(new, old, errors),
        ("", "Pod") => pod::update(new, old, errors),
        ("", "PodTemplate") => workload::pod_template_update(new, old, errors),
        ("", "ReplicationController") => workload::replication_controller_update(new, old, errors),
        ("", "Secret") => secret::update(new, old, errors),
        ("", "Service") => service::update(new, old, errors),
        ("apps", "DaemonSet") => daemon_set::update(new, old, errors),
        ("apps", "Deployment") => deployment::update(new, old, errors),
        ("apps", "ReplicaSet") => replica_set::update(new, old, errors),
        ("apps", "StatefulSet") => stateful_set::update(new, old, errors),
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
        ("", "Node", "status") => node::update(new, old, errors),
        ("", "Pod", "status") => pod::update_status(new, old, errors),
        ("", "ReplicationController", "status") => workload::replication_controller_status(new, old, errors),
        ("", "Service", "status") => service::update_status(new, old, errors),
        ("apps", "DaemonSet", "status") => daemon_set::update_status(new, old, errors),
        ("apps", "Deployment", "status") => deployment::update_status(new, old, errors),
        ("apps", "ReplicaSet", "status") => replica_set::update_status(new, old, errors),
        ("apps", "StatefulSet", "status") => stateful_set::update_status(new, old, errors),
        _ => return false,
    }
    true
}

#[cfg(test)]
mod tests;
