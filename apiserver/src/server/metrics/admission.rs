//! What admission took and what became of it, in upstream's names.

use std::time::Duration;

use component_base::metrics::{CounterVec, HistogramVec, Registry, Stability};

use crate::admission::{Operation, chain::Step};

/// Upstream's buckets.
const DURATIONS: &[f64] = &[0.005, 0.025, 0.1, 0.5, 1.0, 2.5];
const WEBHOOK_DURATIONS: &[f64] = &[0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 10.0, 25.0];
const POLICY_DURATIONS: &[f64] = &[0.000_000_5, 0.001, 0.01, 0.1, 1.0];
const CONDITION_DURATIONS: &[f64] = &[0.001, 0.005, 0.01, 0.025, 0.1, 0.2, 0.25];

const PLUGIN: &[&str] = &["name", "operation", "rejected", "type"];
const CONDITION: &[&str] = &["kind", "name", "operation", "type"];
const VALIDATING: &[&str] = &["enforcement_action", "error_type", "policy", "policy_binding"];
const MUTATING: &[&str] = &["error_type", "policy", "policy_binding"];

/// The families.
pub struct AdmissionMetrics {
    /// One of the two halves of admission.
    pub step: HistogramVec,
    /// One plugin.
    pub controller: HistogramVec,
    webhook: HistogramVec,
    rejections: CounterVec,
    fail_open: CounterVec,
    requests: CounterVec,
    condition_errors: CounterVec,
    condition_exclusions: CounterVec,
    condition_durations: HistogramVec,
    validating: (CounterVec, HistogramVec),
    mutating: (CounterVec, HistogramVec),
}

/// How a webhook's part in a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It had nothing against the request.
    Allowed,
    /// It refused, with this code.
    Refused(u16),
    /// It could not be asked; the code of that failure, and whether the request goes on all the same.
    Uncalled(u16, bool),
    /// What it answered could not be done.
    Internal,
}

/// What is evaluated: whose condition, in which step, for what.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    pub name: &'a str,
    /// `webhook` or `policy`.
    pub kind: &'static str,
    pub step: Step,
    pub operation: Operation,
}

/// What one run of a policy came to.
#[derive(Clone, Copy, Debug)]
pub struct Check<'a> {
    pub policy: &'a str,
    pub binding: &'a str,
    /// `no_error`, `compile_error`, `invalid_error`, `out_of_budget`.
    pub error: &'static str,
    pub took: Duration,
}

impl AdmissionMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        let counter = |name, help, labels| registry.counter_vec(name, help, Stability::Alpha, labels);
        Self {
            step: registry.histogram_vec(
                "apiserver_admission_step_admission_duration_seconds",
                "Admission sub-step latency histogram in seconds, broken out for each operation and API resource and step type (validate or admit).",
                Stability::Stable,
                &["operation", "rejected", "type"],
                DURATIONS,
            ),
            controller: registry.histogram_vec(
                "apiserver_admission_controller_admission_duration_seconds",
                "Admission controller latency histogram in seconds, identified by name and broken out for each operation and API resource and type (validate or admit).",
                Stability::Stable,
                PLUGIN,
                DURATIONS,
            ),
            webhook: registry.histogram_vec(
                "apiserver_admission_webhook_admission_duration_seconds",
                "Admission webhook latency histogram in seconds, identified by name and broken out for each operation and API resource and type (validate or admit).",
                Stability::Stable,
                PLUGIN,
                WEBHOOK_DURATIONS,
            ),
            rejections: registry.counter_vec(
                "apiserver_admission_webhook_rejection_count",
                "Admission webhook rejection count, identified by name and broken out for each admission type (validating or admit) and operation. Additional labels specify an error type (calling_webhook_error or apiserver_internal_error if an error occurred; no_error otherwise) and optionally a non-zero rejection code if the webhook rejects the request with an HTTP status code (honored by the apiserver when the code is greater or equal to 400). Codes greater than 600 are truncated to 600, to keep the metrics cardinality bounded.",
                Stability::Alpha,
                &["error_type", "name", "operation", "rejection_code", "type"],
            ),
            fail_open: registry.counter_vec(
                "apiserver_admission_webhook_fail_open_count",
                "Admission webhook fail open count, identified by name and broken out for each admission type (validating or admit).",
                Stability::Alpha,
                &["name", "type"],
            ),
            requests: counter(
                "apiserver_admission_webhook_request_total",
                "Admission webhook request total, identified by name and broken out for each admission type (validating or admit) and operation. Additional labels specify whether the request was rejected or not and an HTTP status code. Codes greater than 600 are truncated to 600, to keep the metrics cardinality bounded.",
                &["code", "name", "operation", "rejected", "type"],
            ),
            condition_errors: counter(
                "apiserver_admission_match_condition_evaluation_errors_total",
                "Admission match condition evaluation errors count, identified by name of resource containing the match condition and broken out for each kind containing matchConditions (webhook or policy), operation and admission type (validate or admit).",
                CONDITION,
            ),
            condition_exclusions: counter(
                "apiserver_admission_match_condition_exclusions_total",
                "Admission match condition evaluation exclusions count, identified by name of resource containing the match condition and broken out for each kind containing matchConditions (webhook or policy), operation and admission type (validate or admit).",
                CONDITION,
            ),
            condition_durations: registry.histogram_vec(
                "apiserver_admission_match_condition_evaluation_seconds",
                "Admission match condition evaluation time in seconds, identified by name and broken out for each kind containing matchConditions (webhook or policy), operation and type (validate or admit).",
                Stability::Alpha,
                CONDITION,
                CONDITION_DURATIONS,
            ),
            validating: (
                registry.counter_vec(
                    "apiserver_validating_admission_policy_check_total",
                    "Validation admission policy check total, labeled by policy and further identified by binding and enforcement action taken.",
                    Stability::Beta,
                    VALIDATING,
                ),
                registry.histogram_vec(
                    "apiserver_validating_admission_policy_check_duration_seconds",
                    "Validation admission latency for individual validation expressions in seconds, labeled by policy and further including binding and enforcement action taken.",
                    Stability::Beta,
                    VALIDATING,
                    POLICY_DURATIONS,
                ),
            ),
            mutating: (
                counter(
                    "apiserver_mutating_admission_policy_check_total",
                    "Mutation admission policy check total, labeled by policy and further identified by binding.",
                    MUTATING,
                ),
                registry.histogram_vec(
                    "apiserver_mutating_admission_policy_check_duration_seconds",
                    "Mutation admission latency for individual mutation expressions in seconds, labeled by policy and binding.",
                    Stability::Alpha,
                    MUTATING,
                    POLICY_DURATIONS,
                ),
            ),
        }
    }

    /// A webhook was asked, or was to be.
    pub fn webhook(&self, name: &str, step: Step, operation: Operation, ending: Ending, took: Duration) {
        // Upstream names the steps of webhooks otherwise than those of plugins.
        let step = if step == Step::Admit { "admit" } else { "validating" };
        let operation = operation.as_str();
        let (code, rejected) = match ending {
            Ending::Allowed => (200, false),
            Ending::Refused(code) => (code, true),
            Ending::Uncalled(code, open) => (code, !open),
            Ending::Internal => (0, true),
        };
        let code = code.min(600).to_string();
        let yes = if rejected { "true" } else { "false" };
        if rejected {
            let error = match ending {
                Ending::Uncalled(..) => "calling_webhook_error",
                Ending::Internal => "apiserver_internal_error",
                Ending::Allowed | Ending::Refused(_) => "no_error",
            };
            self.rejections.inc(&[error, name, operation, &code, step]);
        }
        self.requests.inc(&[&code, name, operation, yes, step]);
        self.webhook.observe_duration(&[name, operation, yes, step], took);
        if matches!(ending, Ending::Uncalled(_, true)) {
            self.fail_open.inc(&[name, step]);
        }
    }

    /// Match conditions were evaluated; `held` is `None` when they have no value.
    pub fn conditions(&self, subject: Subject<'_>, held: Option<bool>, took: Duration) {
        let labels = [subject.kind, subject.name, subject.operation.as_str(), subject.step.as_str()];
        self.condition_durations.observe_duration(&labels, took);
        match held {
            Some(true) => {}
            Some(false) => self.condition_exclusions.inc(&labels),
            None => self.condition_errors.inc(&labels),
        }
    }

    /// A validation was evaluated; `action` is `allow`, `deny`, `audit` or `warn`.
    pub fn validated(&self, check: &Check<'_>, action: &'static str) {
        let labels = [action, check.error, check.policy, check.binding];
        self.validating.0.inc(&labels);
        self.validating.1.observe_duration(&labels, check.took);
    }

    /// A policy changed something, or failed to.
    pub fn mutated(&self, check: &Check<'_>) {
        let labels = [check.error, check.policy, check.binding];
        self.mutating.0.inc(&labels);
        self.mutating.1.observe_duration(&labels, check.took);
    }
}
