//! coordination.k8s.io: Lease and LeaseCandidate.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::{self, text};
use super::{AGE, Column, NAME};

pub(super) const LEASE_COLUMNS: &[Column] =
    &[NAME, Column::string("Holder").of("io.k8s.api.coordination.v1.LeaseSpec", "holderIdentity"), AGE];
pub(super) const CANDIDATE_COLUMNS: &[Column] = &[
    NAME,
    Column::string("LeaseName").of("io.k8s.api.coordination.v1alpha2.LeaseCandidateSpec", "leaseName"),
    Column::string("BinaryVersion"),
    Column::string("EmulationVersion"),
    AGE,
];
pub(super) fn lease_row(lease: &Value, now: Timestamp) -> Vec<Value> {
    vec![json!(cells::name(lease)), json!(text(lease, &["spec", "holderIdentity"])), cells::age(lease, now)]
}

pub(super) fn candidate_row(candidate: &Value, now: Timestamp) -> Vec<Value> {
    let spec = |field| json!(text(candidate, &["spec", field]));
    vec![
        json!(cells::name(candidate)),
        spec("leaseName"),
        spec("binaryVersion"),
        spec("emulationVersion"),
        cells::age(candidate, now),
    ]
}
