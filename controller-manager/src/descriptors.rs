//! The table of contents: every controller of kube-controller-manager by upstream's name.
//!
//! An entry whose `start` is `None` is a controller of upstream that Keelson does not have yet: its
//! name is accepted by `--controllers` and start-up says that it does not run.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::future::BoxFuture;

use crate::context::Context;
use crate::{
    bootstrap_tokens, certificates, cluster_role_aggregation, cron_job, daemon_set, deployment, disruption,
    endpoint_slice, endpoint_slice_mirroring, endpoints, garbage_collector, job, legacy_token_cleaner, namespace,
    node_ipam, node_lifecycle, pod_gc, protection, replicaset, resource_quota, root_ca, service_account,
    service_account_tokens, service_cidr, stateful_set, taint_eviction, ttl_after_finished,
    validating_admission_policy_status,
};

/// Registers informers and handlers, and answers the controller's loop.
pub type Start = fn(&Arc<Context>) -> BoxFuture<'static, ()>;

/// One controller.
pub struct Descriptor {
    pub name: &'static str,
    /// Names of old, still accepted by `--controllers`.
    pub aliases: &'static [&'static str],
    pub on_by_default: bool,
    pub start: Option<Start>,
}

const fn controller(name: &'static str, aliases: &'static [&'static str], start: Start) -> Descriptor {
    Descriptor { name, aliases, on_by_default: true, start: Some(start) }
}

const fn controller_off(name: &'static str, aliases: &'static [&'static str], start: Start) -> Descriptor {
    Descriptor { name, aliases, on_by_default: false, start: Some(start) }
}

const fn absent(name: &'static str, aliases: &'static [&'static str]) -> Descriptor {
    Descriptor { name, aliases, on_by_default: true, start: None }
}

const fn absent_off(name: &'static str, aliases: &'static [&'static str]) -> Descriptor {
    Descriptor { name, aliases, on_by_default: false, start: None }
}

pub static ALL: &[Descriptor] = &[
    controller(deployment::NAME, &["deployment"], deployment::start),
    controller(endpoints::NAME, &["endpoint"], endpoints::start),
    controller(endpoint_slice::NAME, &["endpointslice"], endpoint_slice::start),
    controller(namespace::NAME, &["namespace"], namespace::start),
    controller(service_account::NAME, &["serviceaccount"], service_account::start),
    controller(root_ca::NAME, &["root-ca-cert-publisher"], root_ca::start),
    controller(garbage_collector::NAME, &["garbagecollector"], garbage_collector::start),
    controller(node_ipam::NAME, &["nodeipam"], node_ipam::start),
    controller(node_lifecycle::NAME, &["nodelifecycle"], node_lifecycle::start),
    controller(taint_eviction::NAME, &[], taint_eviction::start),
    controller(pod_gc::NAME, &["podgc"], pod_gc::start),
    controller(stateful_set::NAME, &["statefulset"], stateful_set::start),
    controller(daemon_set::NAME, &["daemonset"], daemon_set::start),
    controller(replicaset::NAME, &["replicaset"], replicaset::start),
    controller(replicaset::REPLICATION_NAME, &["replicationcontroller"], replicaset::start_replication),
    controller(service_account_tokens::NAME, &["serviceaccount-token"], service_account_tokens::start),
    controller(endpoint_slice_mirroring::NAME, &["endpointslicemirroring"], endpoint_slice_mirroring::start),
    controller(resource_quota::NAME, &["resourcequota"], resource_quota::start),
    controller(job::NAME, &["job"], job::start),
    absent("horizontal-pod-autoscaler-controller", &["horizontalpodautoscaling"]),
    controller(disruption::NAME, &["disruption"], disruption::start),
    controller(cron_job::NAME, &["cronjob"], cron_job::start),
    controller(certificates::signer::NAME, &["csrsigning"], certificates::signer::start),
    controller(certificates::approver::NAME, &["csrapproving"], certificates::approver::start),
    controller(certificates::cleaner::NAME, &["csrcleaner"], certificates::cleaner::start),
    controller(certificates::pod_cleaner::NAME, &[], certificates::pod_cleaner::start),
    absent("ttl-controller", &["ttl"]),
    controller_off(bootstrap_tokens::signer::NAME, &["bootstrapsigner"], bootstrap_tokens::signer::start),
    controller_off(bootstrap_tokens::cleaner::NAME, &["tokencleaner"], bootstrap_tokens::cleaner::start),
    absent("device-taint-eviction-controller", &[]),
    absent("persistentvolume-binder-controller", &["persistentvolume-binder"]),
    absent("persistentvolume-attach-detach-controller", &["attachdetach"]),
    absent("persistentvolume-expander-controller", &["persistentvolume-expander"]),
    controller(cluster_role_aggregation::NAME, &["clusterrole-aggregation"], cluster_role_aggregation::start),
    controller(protection::claims::NAME, &["pvc-protection"], protection::claims::start),
    controller(protection::volumes::NAME, &["pv-protection"], protection::volumes::start),
    absent("podgroup-protection-controller", &[]),
    controller(ttl_after_finished::NAME, &["ttl-after-finished"], ttl_after_finished::start),
    controller(certificates::trust_bundle_publisher::NAME, &[], certificates::trust_bundle_publisher::start),
    absent("ephemeral-volume-controller", &["ephemeral-volume"]),
    absent("storageversion-garbage-collector-controller", &["storage-version-gc"]),
    absent("resourceclaim-controller", &["resource-claim-controller"]),
    absent("resourcepoolstatusrequest-controller", &[]),
    controller(legacy_token_cleaner::NAME, &["legacy-service-account-token-cleaner"], legacy_token_cleaner::start),
    controller(
        validating_admission_policy_status::NAME,
        &["validatingadmissionpolicy-status"],
        validating_admission_policy_status::start,
    ),
    controller(protection::attributes_classes::NAME, &[], protection::attributes_classes::start),
    controller(service_cidr::NAME, &[], service_cidr::start),
    absent("storage-version-migrator-controller", &[]),
    absent_off("selinux-warning-controller", &["selinux-warning"]),
];

/// Every name and alias once, or the ones that are there twice.
pub fn duplicates() -> Vec<&'static str> {
    let mut seen = BTreeSet::new();
    ALL.iter()
        .flat_map(|descriptor| std::iter::once(descriptor.name).chain(descriptor.aliases.iter().copied()))
        .filter(|name| !seen.insert(*name))
        .collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_are_unique() {
        assert_eq!(super::duplicates(), Vec::<&str>::new());
    }
}
