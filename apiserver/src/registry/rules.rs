//! How each kind's strategy differs from the generic one, as data.
//!
//! One row per resource that differs; facts of upstream's `pkg/registry/*/*/strategy.go`. What a
//! row cannot say is in the kind's [`Hooks`].

use super::{Hooks, admission, apiextensions, apiregistration, autoscaling, batch, certificates, core, devices, rbac};

/// What happens to `status` outside of the status subresource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusRule {
    /// The kind has none, or it is ordinary data.
    Plain,
    /// Emptied on create, kept on update.
    Reset,
    /// Taken out on create, kept on update (custom resources).
    Removed,
    /// Taken on create, kept on update (nodes report themselves; of pods, their hook leaves the class).
    KeepOnUpdate,
}

/// When `metadata.generation` counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GenerationRule {
    /// Never.
    None,
    /// One at create; never counts on.
    One,
    /// One at create, one more when any of these top-level fields changes.
    Fields(&'static [&'static str]),
    /// Zero at create, one more when any of these changes.
    FieldsFromZero(&'static [&'static str]),
    /// One at create, one more when anything but metadata changes.
    AllButMetadata,
    /// One at create, one more when anything but metadata, or the labels, changes.
    AllAndLabels,
}

/// What a status update takes from the old object besides `spec`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusUpdate {
    /// Metadata is the client's.
    KeepSpec,
    /// Labels stay as they were, too.
    KeepSpecAndLabels,
    /// Metadata stays as it was except for managed fields (`ResetObjectMetaForStatus`).
    ResetMetadata,
}

/// One resource's differences.
#[derive(Clone, Copy)]
pub struct Rules {
    pub status: StatusRule,
    pub generation: GenerationRule,
    pub status_update: StatusUpdate,
    /// PUT to a name that does not exist creates it.
    pub create_on_update: bool,
    /// PUT without a resource version is allowed.
    pub unconditional_update: bool,
    /// Deletion may leave a grace period (pods).
    pub graceful: bool,
    /// What a row cannot say.
    pub hooks: &'static dyn Hooks,
}

struct Nothing;
impl Hooks for Nothing {}

const DEFAULT: Rules = Rules {
    status: StatusRule::Plain,
    generation: GenerationRule::None,
    status_update: StatusUpdate::KeepSpec,
    create_on_update: false,
    unconditional_update: true,
    graceful: false,
    hooks: &Nothing,
};

const SPEC: GenerationRule = GenerationRule::Fields(&["spec"]);

const fn workload() -> Rules {
    Rules { status: StatusRule::Reset, generation: SPEC, ..DEFAULT }
}

/// The rules of a custom resource, with or without a status of its own.
pub fn custom(status: bool) -> Rules {
    Rules {
        status: if status { StatusRule::Removed } else { StatusRule::Plain },
        generation: GenerationRule::AllButMetadata,
        status_update: StatusUpdate::ResetMetadata,
        unconditional_update: false,
        hooks: &super::custom::CustomResource,
        ..DEFAULT
    }
}

/// The rules of a resource.
pub fn of(group: &str, plural: &str) -> Rules {
    use GenerationRule::{AllAndLabels, Fields, FieldsFromZero, One};
    use StatusUpdate::{KeepSpecAndLabels, ResetMetadata};
    let status_only = Rules { status: StatusRule::Reset, ..DEFAULT };
    let upsert = Rules { create_on_update: true, ..DEFAULT };
    let spec_only = Rules { generation: SPEC, ..DEFAULT };
    let conditional = |rules: Rules| Rules { unconditional_update: false, ..rules };
    match (group, plural) {
        ("", "configmaps" | "bindings") => DEFAULT,
        ("", "endpoints") => upsert,
        ("", "limitranges") => Rules { hooks: &core::limit_range::LimitRange, ..upsert },
        ("", "secrets") => Rules { hooks: &core::secret::Secret, ..DEFAULT },
        ("", "serviceaccounts") => Rules { hooks: &core::service_account::ServiceAccount, ..DEFAULT },
        ("" | "events.k8s.io", "events") => Rules { hooks: &core::event::Event, ..upsert },
        ("", "namespaces") => Rules { status: StatusRule::Reset, hooks: &core::namespace::Namespace, ..DEFAULT },
        ("", "nodes") => Rules { status: StatusRule::KeepOnUpdate, ..DEFAULT },
        ("", "persistentvolumes") => Rules { hooks: &core::persistent_volume::PersistentVolume, ..status_only },
        ("", "persistentvolumeclaims") => {
            Rules { hooks: &core::persistent_volume_claim::PersistentVolumeClaim, ..status_only }
        }
        ("", "pods") => Rules { status: StatusRule::KeepOnUpdate, graceful: true, hooks: &core::pod::Pod, ..DEFAULT },
        ("", "podtemplates") => Rules { generation: Fields(&["template"]), ..DEFAULT },
        ("", "services") => Rules { hooks: &core::service::Service, create_on_update: true, ..status_only },
        ("", "resourcequotas") => status_only,
        ("", "replicationcontrollers") => workload(),
        ("apps", "deployments") => {
            Rules { status_update: KeepSpecAndLabels, hooks: &core::deployment::Deployment, ..workload() }
        }
        ("apps", "replicasets" | "statefulsets") => workload(),
        ("apps", "daemonsets") => Rules { hooks: &core::daemon_set::DaemonSet, ..workload() },
        ("batch", "jobs") => Rules { hooks: &batch::job::Job, ..workload() },
        ("batch", "cronjobs") => workload(),
        ("autoscaling", "horizontalpodautoscalers") => {
            Rules { hooks: &autoscaling::HorizontalPodAutoscaler, ..status_only }
        }
        ("networking.k8s.io", "ingresses") => workload(),
        ("networking.k8s.io", "ingressclasses" | "networkpolicies") => spec_only,
        ("networking.k8s.io", "ipaddresses") => Rules { hooks: &core::ip_address::IpAddress, ..DEFAULT },
        ("networking.k8s.io", "servicecidrs") => Rules { status_update: ResetMetadata, ..status_only },
        ("policy", "poddisruptionbudgets") => conditional(workload()),
        ("discovery.k8s.io", "endpointslices") => {
            Rules { generation: AllAndLabels, hooks: &core::endpoint_slice::EndpointSlice, ..DEFAULT }
        }
        ("scheduling.k8s.io", "priorityclasses") => Rules { generation: One, ..DEFAULT },
        ("scheduling.k8s.io", "podgroups") => Rules { status_update: ResetMetadata, ..status_only },
        ("flowcontrol.apiserver.k8s.io", _) => Rules { status_update: ResetMetadata, ..workload() },
        ("node.k8s.io", "runtimeclasses") => conditional(upsert),
        ("rbac.authorization.k8s.io", "roles" | "clusterroles") => Rules { hooks: &rbac::Role, ..upsert },
        ("rbac.authorization.k8s.io", _) => Rules { hooks: &rbac::Binding, ..upsert },
        ("coordination.k8s.io", _) => conditional(upsert),
        ("storage.k8s.io", "csidrivers") => conditional(Rules { generation: FieldsFromZero(&["spec"]), ..DEFAULT }),
        ("storage.k8s.io", "volumeattachments") => conditional(Rules { status_update: ResetMetadata, ..status_only }),
        ("storage.k8s.io", "csinodes" | "csistoragecapacities") => conditional(DEFAULT),
        ("resource.k8s.io", "deviceclasses" | "resourceslices") => spec_only,
        ("resource.k8s.io", "devicetaintrules") => Rules { status_update: ResetMetadata, ..workload() },
        ("resource.k8s.io", "resourceclaims") => {
            Rules { status_update: ResetMetadata, hooks: &devices::AdminAccess, ..status_only }
        }
        ("resource.k8s.io", "resourceclaimtemplates") => Rules { hooks: &devices::AdminAccess, ..DEFAULT },
        ("resource.k8s.io", "resourcepoolstatusrequests") => {
            conditional(Rules { status_update: ResetMetadata, ..status_only })
        }
        ("certificates.k8s.io", "certificatesigningrequests") => {
            Rules { status: StatusRule::Reset, hooks: &certificates::CertificateSigningRequest, ..DEFAULT }
        }
        ("certificates.k8s.io", "clustertrustbundles") => conditional(DEFAULT),
        ("certificates.k8s.io", "podcertificaterequests") => {
            let hooks = &certificates::PodCertificateRequest;
            conditional(Rules { status_update: ResetMetadata, hooks, ..status_only })
        }
        ("admissionregistration.k8s.io", "validatingadmissionpolicies") => {
            conditional(Rules { status_update: ResetMetadata, hooks: &admission::Configuration, ..workload() })
        }
        ("admissionregistration.k8s.io", "mutatingwebhookconfigurations" | "validatingwebhookconfigurations") => {
            conditional(Rules { generation: Fields(&["webhooks"]), hooks: &admission::Configuration, ..DEFAULT })
        }
        ("admissionregistration.k8s.io", _) => conditional(Rules { hooks: &admission::Configuration, ..spec_only }),
        ("apiextensions.k8s.io", "customresourcedefinitions") => {
            conditional(Rules { hooks: &apiextensions::CustomResourceDefinition, ..workload() })
        }
        ("apiregistration.k8s.io", "apiservices") => {
            conditional(Rules { status_update: ResetMetadata, hooks: &apiregistration::ApiService, ..status_only })
        }
        ("storagemigration.k8s.io" | "internal.apiserver.k8s.io", _) => {
            conditional(Rules { status_update: ResetMetadata, ..status_only })
        }
        _ => DEFAULT,
    }
}
