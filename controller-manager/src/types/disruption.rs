//! PodDisruptionBudgets.

use std::collections::BTreeMap;

use client::events::Reference;
use client::meta::null_default;
use client::{ObjectMeta, Timestamp, resources};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodDisruptionBudget {
    #[serde(skip_deserializing)]
    pub api_version: &'static str,
    #[serde(skip_deserializing)]
    pub kind: &'static str,
    pub metadata: ObjectMeta,
    pub spec: PodDisruptionBudgetSpec,
    pub status: PodDisruptionBudgetStatus,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodDisruptionBudgetSpec {
    /// A number or a percentage.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub min_available: Value,
    /// A number or a percentage.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub max_unavailable: Value,
    #[serde(skip_serializing_if = "Value::is_null")]
    pub selector: Value,
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodDisruptionBudgetStatus {
    pub observed_generation: i64,
    /// Pods that were evicted and are still there, and since when.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_default")]
    pub disrupted_pods: BTreeMap<String, Timestamp>,
    pub disruptions_allowed: i64,
    pub current_healthy: i64,
    pub desired_healthy: i64,
    pub expected_pods: i64,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_default")]
    pub conditions: Vec<StatusCondition>,
}

/// `metav1.Condition`: unlike the conditions of old it says which generation it is about, and all its fields
/// are required.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StatusCondition {
    #[serde(rename = "type")]
    pub kind: String,
    pub status: String,
    #[serde(skip_serializing_if = "super::is_zero")]
    pub observed_generation: i64,
    pub last_transition_time: Option<Timestamp>,
    pub reason: String,
    pub message: String,
}

client::impl_meta!(PodDisruptionBudget);

impl PodDisruptionBudget {
    /// Ready to be sent: with its type written in.
    pub fn typed(mut self) -> Self {
        self.api_version = "policy/v1";
        self.kind = "PodDisruptionBudget";
        self
    }

    pub fn reference(&self) -> Reference {
        Reference::of(&resources::POD_DISRUPTION_BUDGETS, &self.metadata)
    }
}
