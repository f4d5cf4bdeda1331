//! Roles, bindings and rules that come with a feature gate.

use super::{ClusterRole, EVENTS, READ, Rule, Subject, on, role};
use crate::config::features;

/// The role of kubelets.
pub const NODE: &str = "system:node";

/// What comes with a gate.
pub struct Feature {
    pub gate: &'static str,
    pub roles: &'static [ClusterRole],
    pub controllers: &'static [ClusterRole],
    pub bindings: &'static [(&'static str, &'static [Subject])],
    /// What kubelets may do besides.
    pub node: &'static [Rule],
}

const CERTIFICATES: &str = "certificates.k8s.io";

pub const ALL: &[Feature] = &[
    Feature {
        gate: features::CLUSTER_TRUST_BUNDLE,
        roles: &[role("system:cluster-trust-bundle-discovery", &[on(READ, CERTIFICATES, "clustertrustbundles")])],
        controllers: &[role(
            "kube-apiserver-serving-clustertrustbundle-publisher",
            &[
                on("attest", CERTIFICATES, "signers").named("kubernetes.io/kube-apiserver-serving"),
                on("create delete list update watch", CERTIFICATES, "clustertrustbundles"),
                EVENTS,
            ],
        )],
        bindings: &[("system:cluster-trust-bundle-discovery", &[Subject::Group("system:serviceaccounts")])],
        node: &[on(READ, CERTIFICATES, "clustertrustbundles")],
    },
    Feature {
        gate: features::POD_CERTIFICATE_REQUEST,
        roles: &[],
        controllers: &[role(
            "podcertificaterequestcleaner",
            &[on("delete get list watch", CERTIFICATES, "podcertificaterequests")],
        )],
        bindings: &[],
        node: &[on("create get list watch", CERTIFICATES, "podcertificaterequests")],
    },
];
