//! Scenarios of whole Jobs.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use client::Timestamp;
use serde_json::{Value, json};

use super::assess::{Decision, INDEX_FAILURES, Sync, count_released};
use super::backoff::Record;
use super::indexes::COMPLETION_INDEX;
use super::pods;
use crate::types::{Job, Pod};

fn now() -> Timestamp {
    Timestamp::from_second(1_000_000).unwrap()
}

fn job(spec: Value, status: Value) -> Job {
    let mut whole = json!({
        "parallelism": 2, "completions": 3, "backoffLimit": 6,
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {
            "restartPolicy": "Never", "containers": [{"name": "c", "env": [{"name": "X", "value": "1"}]}]}},
    });
    for (key, value) in spec.as_object().unwrap() {
        whole[key] = value.clone();
    }
    let metadata = json!({"name": "j", "namespace": "ns", "uid": "job"});
    serde_json::from_value(json!({"metadata": metadata, "spec": whole, "status": status})).unwrap()
}

fn indexed(more: Value) -> Value {
    let mut spec = json!({"completionMode": "Indexed"});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    spec
}

/// A pod that still has the finalizer, made and ended long ago unless it runs.
fn pod(name: &str, phase: &str, index: Option<i64>) -> Pod {
    let mut annotations = json!({});
    if let Some(index) = index {
        annotations[COMPLETION_INDEX] = index.to_string().into();
    }
    serde_json::from_value(json!({
        "metadata": {
            "name": name, "namespace": "ns", "uid": name, "annotations": annotations,
            "finalizers": ["batch.kubernetes.io/job-tracking"], "creationTimestamp": "1970-01-01T00:00:00Z",
        },
        "status": {"phase": phase},
    }))
    .unwrap()
}

fn failed_times(name: &str, index: i64, failures: i64) -> Pod {
    let mut pod = pod(name, "Failed", Some(index));
    pod.metadata.annotations.insert(INDEX_FAILURES.into(), failures.to_string());
    pod
}

fn look(job: Job, pods: Vec<Pod>) -> Sync {
    Sync::of(job, pods.into_iter().map(Arc::new).collect(), HashSet::new(), &Record::default(), now())
}

fn names(decision: Decision) -> Vec<String> {
    let Decision::Delete(pods) = decision else { panic!("{decision:?} is no deletion") };
    pods.iter().map(|pod| pod.metadata.name.clone()).collect()
}

fn reason(sync: &Sync) -> Option<(&str, &str)> {
    sync.finished.as_ref().map(|condition| (condition.kind.as_str(), condition.reason.as_str()))
}

#[test]
fn pods_up_to_parallelism_and_completions() {
    let running = |name: &str| pod(name, "Running", None);
    for (spec, status, pods, expected) in [
        (json!({}), json!({}), vec![], Decision::Create(vec![None; 2])),
        (json!({}), json!({}), vec![running("a")], Decision::Create(vec![None; 1])),
        (json!({}), json!({}), vec![running("a"), running("b")], Decision::Nothing),
        (json!({}), json!({"succeeded": 2}), vec![], Decision::Create(vec![None; 1])),
        (json!({}), json!({"succeeded": 3}), vec![], Decision::Nothing),
        // A work queue begins no more once a pod has succeeded.
        (json!({"completions": null}), json!({}), vec![], Decision::Create(vec![None; 2])),
        (json!({"completions": null}), json!({"succeeded": 1}), vec![running("a")], Decision::Nothing),
        (json!({"parallelism": 1000, "completions": 1000}), json!({}), vec![], Decision::Create(vec![None; 500])),
    ] {
        assert_eq!(look(job(spec.clone(), status.clone()), pods).decide(now()), expected, "{spec} {status}");
    }
    let pods = vec![running("a"), pod("pending", "Pending", None), running("b")];
    assert_eq!(names(look(job(json!({}), json!({})), pods).decide(now())), ["pending"]);
    let pods = vec![running("a"), running("b")];
    assert_eq!(names(look(job(json!({"suspend": true}), json!({})), pods).decide(now())).len(), 2);
}

#[test]
fn indexes_without_a_pod_get_one() {
    let running = |name: &str, index: i64| pod(name, "Running", Some(index));
    let spec = || indexed(json!({"completions": 5, "parallelism": 3}));
    let create = |indexes: &[i64]| Decision::Create(indexes.iter().map(|index| Some(*index)).collect());
    assert_eq!(look(job(spec(), json!({})), vec![]).decide(now()), create(&[0, 1, 2]));
    let status = json!({"completedIndexes": "0,2", "succeeded": 2});
    assert_eq!(look(job(spec(), status.clone()), vec![running("a", 1)]).decide(now()), create(&[3, 4]));
    // The second pod of an index goes, and so does one whose index there is not.
    let pods = vec![running("a", 1), pod("b", "Pending", Some(1)), running("c", 9)];
    let mut gone = names(look(job(spec(), status), pods).decide(now()));
    gone.sort();
    assert_eq!(gone, ["b", "c"]);
}

#[test]
fn a_failed_pod_is_replaced_after_a_while() {
    let mut failed = pod("a", "Failed", None);
    failed.metadata.creation_timestamp = Some(now() - Duration::from_secs(3));
    let sync = look(job(json!({}), json!({})), vec![failed.clone()]);
    assert_eq!(sync.decide(now()), Decision::Wait(Duration::from_secs(7)));
    assert_eq!(sync.failed, 1);
    failed.metadata.creation_timestamp = Some(now() - Duration::from_secs(30));
    let sync = look(job(json!({}), json!({})), vec![failed]);
    assert_eq!(sync.decide(now()), Decision::Create(vec![None; 2]));
}

#[test]
fn a_pod_that_ends_is_replaced_when_the_policy_says() {
    let ending = || {
        let mut pod = pod("a", "Running", None);
        pod.metadata.deletion_timestamp = Some(now() - Duration::from_secs(60));
        pod
    };
    let sync = look(job(json!({}), json!({})), vec![ending()]);
    assert_eq!((sync.failed, sync.terminating, sync.decide(now())), (1, 1, Decision::Create(vec![None; 2])));
    let sync = look(job(json!({"podReplacementPolicy": "Failed"}), json!({})), vec![ending()]);
    assert_eq!((sync.failed, sync.terminating, sync.decide(now())), (0, 1, Decision::Create(vec![None; 1])));
}

#[test]
fn why_a_job_ends() {
    let failed = |count: usize| (0..count).map(|n| pod(&format!("f{n}"), "Failed", None)).collect::<Vec<_>>();
    let exit = |code: i64| {
        let mut failed = pod("x", "Failed", None);
        failed.status.container_statuses = serde_json::from_value(
            json!([{"name": "c", "state": {"terminated": {"exitCode": code, "finishedAt": "1970-01-01T00:00:01Z"}}}]),
        )
        .unwrap();
        vec![failed]
    };
    let policy = json!({"podFailurePolicy": {"rules": [
        {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}},
        {"action": "Ignore", "onExitCodes": {"operator": "In", "values": [7]}}]}, "backoffLimit": 0});
    let started = json!({"startTime": now() - Duration::from_secs(60)});
    let restarting = {
        let mut pod = pod("r", "Running", None);
        pod.status.container_statuses = serde_json::from_value(json!([{"name": "c", "restartCount": 6}])).unwrap();
        vec![pod]
    };
    let on_failure = json!({"template": {"spec": {"restartPolicy": "OnFailure"}}});
    let target = json!({"conditions": [{"type": "FailureTarget", "status": "True", "reason": "R", "message": "M"}]});
    let met = json!({"conditions": [{"type": "SuccessCriteriaMet", "status": "True", "reason": "S"}]});
    for (spec, status, pods, expected) in [
        (json!({}), json!({}), failed(6), None),
        (json!({}), json!({}), failed(7), Some(("FailureTarget", "BackoffLimitExceeded"))),
        (json!({}), json!({"failed": 6}), failed(1), Some(("FailureTarget", "BackoffLimitExceeded"))),
        (on_failure, json!({}), restarting, Some(("FailureTarget", "BackoffLimitExceeded"))),
        (policy.clone(), json!({}), exit(42), Some(("FailureTarget", "PodFailurePolicy"))),
        (policy.clone(), json!({}), exit(7), None),
        (policy, json!({}), exit(1), Some(("FailureTarget", "BackoffLimitExceeded"))),
        (json!({"activeDeadlineSeconds": 60}), started.clone(), vec![], Some(("FailureTarget", "DeadlineExceeded"))),
        (json!({"activeDeadlineSeconds": 61}), started, vec![], None),
        (json!({}), target, vec![], Some(("Failed", "R"))),
        (json!({}), met, vec![], Some(("SuccessCriteriaMet", "S"))),
    ] {
        assert_eq!(reason(&look(job(spec.clone(), status.clone()), pods)), expected, "{spec} {status}");
    }
    let deadline = job(json!({"activeDeadlineSeconds": 61}), json!({"startTime": now() - Duration::from_secs(60)}));
    assert_eq!(look(deadline, vec![]).deadline, Some(Duration::from_secs(1)));
}

#[test]
fn indexes_fail_for_themselves() {
    let spec = |more: Value| {
        let mut spec = indexed(json!({"completions": 3, "parallelism": 3, "backoffLimitPerIndex": 1}));
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        spec
    };
    // Index 0 has failed for good; index 1 gets another pod, which inherits the count.
    let pods = || vec![failed_times("a", 0, 1), failed_times("b", 1, 0), pod("c", "Running", Some(2))];
    let mut sync = look(job(spec(json!({})), json!({})), pods());
    assert_eq!(sync.decide(now()), Decision::Create(vec![Some(1)]));
    assert_eq!(sync.replaced.keys().collect::<Vec<_>>(), [&1]);
    let made = pods::from_template(&sync.job, Some(1), sync.replaced.get(&1).map(|pod| &**pod));
    assert_eq!(made["metadata"]["annotations"][INDEX_FAILURES], "1");
    let tally = sync.tally(now());
    assert_eq!(sync.job.status.failed_indexes.as_deref(), Some("0"));
    let released: Vec<_> = tally.release.iter().map(|pod| pod.metadata.name.as_str()).collect();
    assert_eq!(released, ["a"], "the pod that stands for index 1 stays");
    assert_eq!(
        reason(&look(job(spec(json!({"maxFailedIndexes": 0})), json!({})), pods())),
        Some(("FailureTarget", "MaxFailedIndexesExceeded"))
    );
    let status = json!({"completedIndexes": "1,2", "succeeded": 2});
    let sync = look(job(spec(json!({})), status), vec![failed_times("a", 0, 1)]);
    assert_eq!(reason(&sync), Some(("FailureTarget", "FailedIndexes")));
}

#[test]
fn some_indexes_may_be_enough() {
    let policy = json!({"successPolicy": {"rules": [{"succeededIndexes": "0"}]}});
    let pods = vec![pod("a", "Succeeded", Some(0)), pod("b", "Running", Some(1))];
    let mut sync = look(job(indexed(policy), json!({})), pods);
    assert_eq!(reason(&sync), Some(("SuccessCriteriaMet", "SuccessPolicy")));
    sync.tally(now());
    assert_eq!(sync.job.status.completed_indexes, "0");
    assert_eq!(reason(&sync), Some(("Complete", "SuccessPolicy")));
}

#[test]
fn pods_are_counted_once() {
    let pods = vec![pod("a", "Succeeded", None), pod("b", "Failed", None), pod("c", "Running", None)];
    let mut sync = look(job(json!({}), json!({})), pods.clone());
    let mut tally = sync.tally(now());
    assert!(tally.changed);
    let uncounted = sync.job.status.uncounted_terminated_pods.clone().unwrap();
    assert_eq!((uncounted.succeeded, uncounted.failed), (vec!["a".to_string()], vec!["b".to_string()]));
    assert_eq!((sync.job.status.succeeded, sync.job.status.failed), (0, 0));
    // The same look again, before the finalizers are off, changes nothing.
    let mut again = look(sync.job.clone(), pods);
    assert_eq!((again.succeeded, again.failed), (1, 1));
    assert!(!again.tally(now()).changed);
    // Once they are off, uids become numbers.
    tally.tracked.retain(|uid| uid == "c");
    assert!(count_released(&mut sync.job, &tally.tracked));
    assert_eq!((sync.job.status.succeeded, sync.job.status.failed), (1, 1));
    assert_eq!(sync.job.status.uncounted_terminated_pods, Some(Default::default()));
}

#[test]
fn the_end_waits_for_the_last_pod() {
    let met = json!({"succeeded": 3, "conditions": [{"type": "SuccessCriteriaMet", "status": "True", "reason": "CompletionsReached"}]});
    let mut sync = look(job(json!({}), met.clone()), vec![]);
    sync.tally(now());
    sync.terminating = 1;
    assert!(!sync.finish());
    sync.terminating = 0;
    assert!(sync.finish());
    assert!(sync.job.is_succeeded());
    assert_eq!(sync.job.status.completion_time, Some(now()));
    let mut uncounted = look(job(json!({}), met), vec![pod("a", "Succeeded", None)]);
    uncounted.tally(now());
    assert!(!uncounted.finish(), "a pod is not counted yet");
}

#[test]
fn the_pod_of_an_index() {
    let job = job(indexed(json!({})), json!({}));
    let made = pods::from_template(&job, Some(2), None);
    assert_eq!(made["metadata"]["generateName"], "j-2-");
    assert_eq!(made["metadata"]["labels"], json!({"a": "b", COMPLETION_INDEX: "2"}));
    assert_eq!(made["metadata"]["annotations"], json!({COMPLETION_INDEX: "2"}));
    assert_eq!(made["metadata"]["finalizers"], json!(["batch.kubernetes.io/job-tracking"]));
    assert_eq!(made["spec"]["hostname"], "j-2");
    let env = &made["spec"]["containers"][0]["env"];
    assert_eq!(env[0], json!({"name": "X", "value": "1"}));
    assert_eq!(env[1]["name"], "JOB_COMPLETION_INDEX");
    assert_eq!(
        env[1]["valueFrom"]["fieldRef"]["fieldPath"],
        "metadata.labels['batch.kubernetes.io/job-completion-index']"
    );
    assert!(made["spec"].get("initContainers").is_none());
    let plain = pods::from_template(&job, None, None);
    assert_eq!((plain["metadata"]["generateName"].as_str(), plain["spec"].get("hostname")), (Some("j-"), None));
}
