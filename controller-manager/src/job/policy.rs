//! What a Job's policies say about failed pods (KEP-3329, KEP-3850) and about early success (KEP-3998).

use super::indexes::Indexes;
use crate::types::{ContainerStatus, Job, OnExitCodes, Pod, PodFailurePolicy, SuccessPolicy};

/// What the first rule that a failed pod matches makes of it.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// No rule matched, or one that says so: it counts towards the back-off limit.
    Count,
    /// It does not count.
    Ignore,
    /// Its index has failed for good.
    FailIndex,
    /// The whole Job has failed, for this reason.
    FailJob(String),
}

impl Verdict {
    pub fn counts(&self) -> bool {
        *self != Verdict::Ignore
    }
}

/// Judges a failed pod.
pub fn judge(policy: Option<&PodFailurePolicy>, pod: &Pod) -> Verdict {
    let name = || pod.metadata.key();
    for (at, rule) in policy.map(|policy| policy.rules.as_slice()).unwrap_or_default().iter().enumerate() {
        let reason = if let Some(codes) = &rule.on_exit_codes {
            let statuses = pod.status.container_statuses.iter().chain(&pod.status.init_container_statuses);
            statuses.filter_map(|status| exit_code(status, codes).map(|code| (status, code))).next().map(
                |(status, code)| {
                    format!(
                        "Container {} for pod {} failed with exit code {code} matching {} rule at index {at}",
                        status.name,
                        name(),
                        rule.action
                    )
                },
            )
        } else {
            let matching = pod.status.conditions.iter().find(|condition| {
                rule.on_pod_conditions
                    .iter()
                    .any(|pattern| pattern.kind == condition.kind && pattern.status == condition.status)
            });
            matching.map(|condition| {
                format!("Pod {} has condition {} matching {} rule at index {at}", name(), condition.kind, rule.action)
            })
        };
        let Some(reason) = reason else { continue };
        match rule.action.as_str() {
            "Ignore" => return Verdict::Ignore,
            "FailIndex" => return Verdict::FailIndex,
            "Count" => return Verdict::Count,
            "FailJob" => return Verdict::FailJob(reason),
            // An action of a newer server: the rule does not apply.
            _ => {}
        }
    }
    Verdict::Count
}

/// The exit code by which a container's end matches.
fn exit_code(status: &ContainerStatus, codes: &OnExitCodes) -> Option<i64> {
    if codes.container_name.as_ref().is_some_and(|name| *name != status.name) {
        return None;
    }
    let code = status.state.terminated.as_ref()?.exit_code;
    let listed = codes.values.contains(&code);
    let matches = match codes.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        _ => false,
    };
    (code != 0 && matches).then_some(code)
}

/// Why the Job has failed by its policy, if one of its pods says so.
pub fn fails_job<'a>(job: &Job, failed: impl IntoIterator<Item = &'a Pod>) -> Option<String> {
    let policy = job.spec.pod_failure_policy.as_ref()?;
    failed.into_iter().find_map(|pod| match judge(Some(policy), pod) {
        Verdict::FailJob(reason) => Some(reason),
        _ => None,
    })
}

/// Why the Job counts as a success although not all of its indexes have succeeded.
pub fn succeeded(policy: Option<&SuccessPolicy>, completions: i64, succeeded: &Indexes) -> Option<String> {
    if succeeded.is_empty() {
        return None;
    }
    let met = |rule: &crate::types::SuccessPolicyRule| match &rule.succeeded_indexes {
        Some(text) => {
            let required = Indexes::parse(text, completions);
            let have = required.overlap(succeeded);
            !required.is_empty()
                && (have == required.total() || rule.succeeded_count.is_some_and(|count| have >= count))
        }
        None => rule.succeeded_count.is_some_and(|count| succeeded.total() >= count),
    };
    let at = policy?.rules.iter().position(met)?;
    Some(format!("Matched rules at index {at}"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(status: Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "ns"}, "status": status})).unwrap()
    }

    #[test]
    fn verdicts() {
        let policy: PodFailurePolicy = serde_json::from_value(json!({"rules": [
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            {"action": "FailJob", "onExitCodes": {"containerName": "main", "operator": "In", "values": [42]}},
            {"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [7]}},
            {"action": "Count", "onExitCodes": {"operator": "NotIn", "values": [1, 2]}},
            {"action": "Ignore", "onExitCodes": {"operator": "In", "values": [1]}},
        ]}))
        .unwrap();
        let ended = |name: &str, code: i64| {
            pod(json!({"containerStatuses": [{"name": name, "state": {"terminated": {"exitCode": code}}}]}))
        };
        let fails = "Container main for pod ns/p failed with exit code 42 matching FailJob rule at index 1";
        for (pod, expected) in [
            (pod(json!({"conditions": [{"type": "DisruptionTarget", "status": "True"}]})), Verdict::Ignore),
            (ended("main", 42), Verdict::FailJob(fails.into())),
            (ended("other", 42), Verdict::Count),
            (ended("any", 7), Verdict::FailIndex),
            (ended("any", 9), Verdict::Count),
            (ended("any", 1), Verdict::Ignore),
            (ended("any", 2), Verdict::Count),
            (ended("any", 0), Verdict::Count),
        ] {
            assert_eq!(judge(Some(&policy), &pod), expected);
        }
        assert_eq!(judge(None, &ended("main", 42)), Verdict::Count);
    }

    #[test]
    fn early_success() {
        let policy = |rules: Value| serde_json::from_value::<SuccessPolicy>(json!({ "rules": rules })).unwrap();
        let have = Indexes::default().with([0, 1, 4]);
        for (rules, expected) in [
            (json!([{"succeededCount": 3}]), Some("Matched rules at index 0")),
            (json!([{"succeededCount": 4}]), None),
            (json!([{"succeededIndexes": "0-2"}, {"succeededIndexes": "0,4"}]), Some("Matched rules at index 1")),
            (json!([{"succeededIndexes": "0-3", "succeededCount": 2}]), Some("Matched rules at index 0")),
            (json!([{"succeededIndexes": "2,3", "succeededCount": 1}]), None),
        ] {
            assert_eq!(succeeded(Some(&policy(rules)), 5, &have).as_deref(), expected);
        }
        assert_eq!(succeeded(Some(&policy(json!([{"succeededCount": 0}]))), 5, &Indexes::default()), None);
    }
}
