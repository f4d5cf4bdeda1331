//! Pods, as controllers see them.

use std::collections::BTreeMap;
use std::time::Duration;

use client::meta::null_default;
use client::{Interned, ObjectMeta, Timestamp};
use serde::{Deserialize, Serialize};

use super::{Condition, condition};

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Pod {
    pub metadata: ObjectMeta,
    pub spec: PodSpec,
    pub status: PodStatus,
}

impl client::Meta for Pod {
    fn name(&self) -> &str {
        &self.metadata.name
    }

    fn namespace(&self) -> &str {
        &self.metadata.namespace
    }

    fn uid(&self) -> &str {
        &self.metadata.uid
    }

    fn resource_version(&self) -> &str {
        &self.metadata.resource_version
    }

    /// Only volumes that are claims matter, and few pods have any.
    fn trim(&mut self) {
        self.spec.volumes.retain(|volume| volume.persistent_volume_claim.is_some() || volume.ephemeral.is_some());
        self.spec.volumes.shrink_to_fit();
    }
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSpec {
    pub node_name: String,
    #[serde(deserialize_with = "null_default")]
    pub containers: Interned<Vec<Container>>,
    #[serde(deserialize_with = "null_default")]
    pub init_containers: Interned<Vec<Container>>,
    #[serde(deserialize_with = "null_default")]
    pub tolerations: Interned<Vec<Toleration>>,
    pub hostname: String,
    pub subdomain: String,
    pub restart_policy: String,
    pub termination_grace_period_seconds: Option<i64>,
    pub active_deadline_seconds: Option<i64>,
    pub affinity: Affinity,
    #[serde(deserialize_with = "null_default")]
    pub volumes: Vec<Volume>,
}

/// A volume; other kinds of it than claims are not kept.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Volume {
    pub name: String,
    pub persistent_volume_claim: Option<ClaimSource>,
    /// The claim is made with the pod, and named after both.
    pub ephemeral: Option<EphemeralSource>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClaimSource {
    pub claim_name: String,
}

/// What is in it is for whoever makes the claim.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct EphemeralSource {}

/// The part of an affinity that ties a daemon's pod to its node.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Affinity {
    #[serde(deserialize_with = "null_default")]
    pub node_affinity: NodeAffinity,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct NodeAffinity {
    #[serde(rename = "requiredDuringSchedulingIgnoredDuringExecution", deserialize_with = "null_default")]
    pub required: NodeSelector,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeSelector {
    #[serde(deserialize_with = "null_default")]
    pub node_selector_terms: Vec<NodeSelectorTerm>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeSelectorTerm {
    #[serde(deserialize_with = "null_default")]
    pub match_fields: Vec<FieldRequirement>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct FieldRequirement {
    pub key: String,
    pub operator: String,
    #[serde(deserialize_with = "null_default")]
    pub values: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Container {
    pub name: String,
    #[serde(deserialize_with = "null_default")]
    pub ports: Vec<ContainerPort>,
    /// `Always` marks a sidecar among the init containers.
    pub restart_policy: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerPort {
    pub name: String,
    pub container_port: i64,
    pub protocol: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Toleration {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub key: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub operator: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub value: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub effect: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub toleration_seconds: Option<i64>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodStatus {
    pub phase: String,
    pub reason: String,
    #[serde(rename = "podIP")]
    pub pod_ip: String,
    #[serde(rename = "podIPs", deserialize_with = "null_default")]
    pub pod_ips: Vec<PodIp>,
    #[serde(deserialize_with = "null_default")]
    pub conditions: Vec<Condition>,
    #[serde(deserialize_with = "null_default")]
    pub container_statuses: Vec<ContainerStatus>,
    #[serde(deserialize_with = "null_default")]
    pub init_container_statuses: Vec<ContainerStatus>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct PodIp {
    pub ip: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerStatus {
    pub name: String,
    pub restart_count: i64,
    #[serde(deserialize_with = "null_default")]
    pub state: ContainerState,
    /// What it was given, which a resize changes.
    #[serde(deserialize_with = "null_default")]
    pub resources: Interned<Resources>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(default)]
pub struct Resources {
    #[serde(deserialize_with = "null_default")]
    pub requests: BTreeMap<String, String>,
    #[serde(deserialize_with = "null_default")]
    pub limits: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ContainerState {
    /// Set once the container has ended.
    pub terminated: Option<Terminated>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Terminated {
    pub exit_code: i64,
    pub finished_at: Option<Timestamp>,
}

impl Pod {
    /// Neither finished nor being deleted.
    pub fn is_active(&self) -> bool {
        !self.is_finished() && !self.metadata.is_deleting()
    }

    pub fn is_finished(&self) -> bool {
        matches!(self.status.phase.as_str(), "Succeeded" | "Failed")
    }

    /// The names of the claims it uses, and whether each is its own, made with it.
    pub fn claims(&self) -> impl Iterator<Item = (String, bool)> {
        self.spec.volumes.iter().filter_map(|volume| match (&volume.persistent_volume_claim, &volume.ephemeral) {
            (Some(claim), _) => Some((claim.claim_name.clone(), false)),
            (None, Some(_)) => Some((format!("{}-{}", self.metadata.name, volume.name), true)),
            (None, None) => None,
        })
    }

    pub fn ready_condition(&self) -> Option<&Condition> {
        condition(&self.status.conditions, "Ready")
    }

    pub fn is_ready(&self) -> bool {
        self.ready_condition().is_some_and(Condition::is_true)
    }

    /// Since when the pod is ready; `None` when it is not, or does not say.
    pub fn ready_since(&self) -> Option<Timestamp> {
        self.ready_condition()
            .filter(|condition| condition.is_true())
            .and_then(|condition| condition.last_transition_time)
    }

    /// Ready for at least this long.
    pub fn is_available(&self, min_ready: Duration, now: Timestamp) -> bool {
        if !self.is_ready() {
            return false;
        }
        min_ready.is_zero() || self.ready_since().is_some_and(|since| since + min_ready <= now)
    }

    /// All addresses, the first one preferred.
    pub fn addresses(&self) -> Vec<&str> {
        if self.status.pod_ips.is_empty() {
            return Some(self.status.pod_ip.as_str()).into_iter().filter(|ip| !ip.is_empty()).collect();
        }
        self.status.pod_ips.iter().map(|ip| ip.ip.as_str()).collect()
    }
}
