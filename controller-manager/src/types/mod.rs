//! Lean views of the kinds controllers read: only the fields that decide something.
//!
//! Types that controllers write back keep every other field of their spec and status in `rest`, so
//! that an update never loses what a newer server added.

mod daemon_set;
mod disruption;
mod job;
mod node;
mod pod;
mod secret;
mod service;
mod stateful_set;
mod storage;
mod workload;

pub use daemon_set::*;
pub use disruption::*;
pub use job::*;
pub use node::*;
pub use pod::*;
pub use secret::*;
pub use service::*;
pub use stateful_set::*;
pub use storage::*;
pub use workload::*;

use client::Timestamp;
use serde::{Deserialize, Serialize};

/// A condition of any kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Condition {
    #[serde(rename = "type")]
    pub kind: String,
    pub status: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_probe_time: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_heartbeat_time: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_update_time: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<Timestamp>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
}

impl Condition {
    pub fn is_true(&self) -> bool {
        self.status == "True"
    }
}

/// The condition of this type.
pub fn condition<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.kind == kind)
}

/// A time without its fraction, as Kubernetes' `metav1.Time` is written.
pub fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).expect("a shorter timestamp is in range")
}

pub(crate) fn is_zero(value: &i64) -> bool {
    *value == 0
}
