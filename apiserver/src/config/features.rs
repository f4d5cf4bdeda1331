//! The feature gates that this server has a switch for, with upstream's stages and defaults of 1.36
//! (`apiserver/pkg/features`, `pkg/features`). Others parse without effect.

use component_base::featuregate::{FeatureGates, Gate, Stage};
use component_base::zpages;

use super::Config;

/// KEP-3926: deletion of stored objects that cannot be read.
pub const ALLOW_UNSAFE_MALFORMED_OBJECT_DELETION: &str = "AllowUnsafeMalformedObjectDeletion";
/// KEP-1965: a Lease names each server while it runs.
pub const API_SERVER_IDENTITY: &str = "APIServerIdentity";
/// KEP-4222: CBOR as an encoding of objects, beside JSON, YAML and protobuf.
pub const CBOR_SERVING_AND_STORAGE: &str = "CBORServingAndStorage";
/// KEP-3257: ClusterTrustBundles, and what their readers may do.
pub const CLUSTER_TRUST_BUNDLE: &str = "ClusterTrustBundle";
/// KEP-3257: they as sources of projected volumes.
pub const CLUSTER_TRUST_BUNDLE_PROJECTION: &str = "ClusterTrustBundleProjection";
/// KEP-5284: `impersonate-on:MODE:VERB`; without it `impersonate` alone decides.
pub const CONSTRAINED_IMPERSONATION: &str = "ConstrainedImpersonation";
/// KEP-5793: webhooks and policies from files.
pub const MANIFEST_BASED_ADMISSION_CONTROL_CONFIG: &str = "ManifestBasedAdmissionControlConfig";
/// KEP-4317: certificates of pods.
pub const POD_CERTIFICATE_REQUEST: &str = "PodCertificateRequest";
/// KEP-4020: servers of different versions find each other; here, they say where they are.
pub const UNKNOWN_VERSION_INTEROPERABILITY_PROXY: &str = "UnknownVersionInteroperabilityProxy";

const fn alpha(name: &'static str) -> Gate {
    Gate { name, default: false, stage: Stage::Alpha, locked: false }
}

const fn beta(name: &'static str, default: bool) -> Gate {
    Gate { name, default, stage: Stage::Beta, locked: false }
}

const GATES: &[Gate] = &[
    alpha(ALLOW_UNSAFE_MALFORMED_OBJECT_DELETION),
    beta(API_SERVER_IDENTITY, true),
    alpha(CBOR_SERVING_AND_STORAGE),
    beta(CLUSTER_TRUST_BUNDLE, false),
    beta(CLUSTER_TRUST_BUNDLE_PROJECTION, false),
    zpages::GATES[0],
    zpages::GATES[1],
    beta(CONSTRAINED_IMPERSONATION, true),
    alpha(MANIFEST_BASED_ADMISSION_CONTROL_CONFIG),
    beta(POD_CERTIFICATE_REQUEST, false),
    beta(UNKNOWN_VERSION_INTEROPERABILITY_PROXY, true),
];

/// Resources that are served only while a gate is on, whatever `--runtime-config` says.
const RESOURCES: [(&str, &str, &str); 2] = [
    ("certificates.k8s.io", "clustertrustbundles", CLUSTER_TRUST_BUNDLE),
    ("certificates.k8s.io", "podcertificaterequests", POD_CERTIFICATE_REQUEST),
];

/// Every gate at its default.
pub fn defaults() -> FeatureGates {
    FeatureGates::new(GATES)
}

/// Whether no gate keeps a resource from being served.
pub fn serve(gates: &FeatureGates, group: &str, plural: &str) -> bool {
    RESOURCES.iter().all(|(of, resource, gate)| (*of, *resource) != (group, plural) || gates.enabled(gate))
}

/// The gates as `--feature-gates` sets them.
pub fn gates(config: &Config) -> FeatureGates {
    let mut gates = defaults();
    let known = |name: &str| matches!(name, "AllAlpha" | "AllBeta") || GATES.iter().any(|gate| gate.name == name);
    let settings = config.feature_gates.iter().filter(|(name, _)| known(name));
    let settings = settings.map(|(name, on)| (name.clone(), on.to_string())).collect();
    if let Err(error) = gates.set(&settings) {
        tracing::error!(%error, "a feature gate keeps its default");
    }
    gates
}
