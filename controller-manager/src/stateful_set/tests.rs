//! Tables over plan, status, claims and pods.

use std::sync::Arc;

use client::Timestamp;
use serde_json::json;

use super::claims;
use super::new_pod;
use super::plan::{POD_NAME, REVISION, Revisions, Step, parent_and_ordinal, plan, status};
use crate::testing::pod;
use crate::types::{ControllerRevision, Ordinals, Pod, RetentionPolicy, RollingPartition, StatefulSet};

const NAMES: Revisions<'static> = Revisions { current: "old", update: "new" };

fn set(replicas: i64) -> StatefulSet {
    let mut set = StatefulSet::default();
    set.metadata.name = "db".into();
    set.metadata.namespace = "ns".into();
    set.metadata.uid = "set".into();
    set.spec.replicas = replicas;
    set.spec.service_name = "db".into();
    set.spec.update_strategy.kind = "RollingUpdate".into();
    set.spec.update_strategy.rolling_update = Some(RollingPartition::default());
    set
}

fn ready(ordinal: i64, revision: &str) -> Arc<Pod> {
    let name = format!("db-{ordinal}");
    Arc::new(pod(&name).label(POD_NAME, &name).label(REVISION, revision).node("n").running().ready(1).build())
}

fn pending(ordinal: i64, revision: &str) -> Arc<Pod> {
    let name = format!("db-{ordinal}");
    Arc::new(pod(&name).label(POD_NAME, &name).label(REVISION, revision).phase("Pending").build())
}

fn ending(ordinal: i64, revision: &str) -> Arc<Pod> {
    let mut pod = (*ready(ordinal, revision)).clone();
    pod.metadata.deletion_timestamp = Some(Timestamp::UNIX_EPOCH);
    Arc::new(pod)
}

/// What a plan does, without the steps that only keep claims in order.
fn run(set: &StatefulSet, pods: &[Arc<Pod>]) -> Vec<String> {
    plan(set, pods, NAMES, Timestamp::from_second(100).unwrap())
        .into_iter()
        .filter_map(|step| match step {
            Step::Create { ordinal, at_current } => Some(format!("+{ordinal}{}", if at_current { " old" } else { "" })),
            Step::Delete(pod) => Some(format!("-{}", pod.metadata.name)),
            Step::Identity(pod) => Some(format!("identity {}", pod.metadata.name)),
            Step::Claims(_) | Step::Retention(_) => None,
        })
        .collect()
}

#[test]
fn pods_come_and_go_in_order() {
    let none: [String; 0] = [];
    assert_eq!(run(&set(3), &[]), ["+0"]);
    assert_eq!(run(&set(3), &[pending(0, "new")]), none, "the first is not ready");
    assert_eq!(run(&set(3), &[ready(0, "new")]), ["+1"]);
    assert_eq!(run(&set(3), &[ready(0, "new"), ready(2, "new")]), ["+1"]);
    assert_eq!(run(&set(1), &[ready(0, "new"), ready(1, "new"), ready(2, "new")]), ["-db-2"]);
    assert_eq!(run(&set(1), &[ready(0, "new"), ready(1, "new"), ending(2, "new")]), none);
    assert_eq!(run(&set(1), &[ready(0, "new"), pending(1, "new"), ready(2, "new")]), ["-db-2"]);
    assert_eq!(run(&set(1), &[pending(0, "new"), ready(1, "new")]), none, "scaling down waits for the rest");
    assert_eq!(run(&set(1), &[ready(0, "new"), pending(1, "new")]), ["-db-1"], "the one that blocks may go");
}

#[test]
fn parallel_pods_come_and_go_at_once() {
    let mut parallel = set(3);
    parallel.spec.pod_management_policy = "Parallel".into();
    assert_eq!(run(&parallel, &[]), ["+0", "+1", "+2"]);
    assert_eq!(run(&parallel, &[pending(0, "new"), ready(3, "new"), ready(4, "new")]), ["+1", "+2", "-db-4", "-db-3"]);
}

#[test]
fn finished_pods_are_made_anew() {
    let failed = Arc::new(pod("db-0").label(POD_NAME, "db-0").phase("Failed").build());
    assert_eq!(run(&set(2), &[failed]), ["-db-0"]);
}

#[test]
fn updates_roll_from_the_top_and_stop_at_the_partition() {
    let none: [String; 0] = [];
    let mut set = set(3);
    let all_old = [ready(0, "old"), ready(1, "old"), ready(2, "old")];
    assert_eq!(run(&set, &all_old), ["-db-2"]);
    assert_eq!(run(&set, &[ready(0, "old"), ready(1, "old"), ready(2, "new")]), ["-db-1"]);
    set.spec.update_strategy.rolling_update = Some(RollingPartition { partition: 2, ..Default::default() });
    assert_eq!(run(&set, &[ready(0, "old"), ready(1, "old"), ready(2, "new")]), none);
    assert_eq!(run(&set, &[ready(0, "old")]), ["+1 old"], "below the partition the old revision stays");
    set.spec.update_strategy.kind = "OnDelete".into();
    assert_eq!(run(&set, &all_old), none);
    set.spec.ordinals = Some(Ordinals { start: 5 });
    assert_eq!(run(&set, &[]), ["+5"]);
}

#[test]
fn a_set_that_is_deleted_does_nothing() {
    let mut set = set(3);
    set.metadata.deletion_timestamp = Some(Timestamp::UNIX_EPOCH);
    assert!(plan(&set, &[], NAMES, Timestamp::UNIX_EPOCH).is_empty());
}

#[test]
fn the_status_counts_and_completes() {
    let now = Timestamp::from_second(100).unwrap();
    let set = set(2);
    let mixed = status(&set, &[ready(0, "old"), ready(1, "new")], NAMES, 0, now);
    assert_eq!((mixed.replicas, mixed.current_replicas, mixed.updated_replicas), (2, 1, 1));
    assert_eq!(mixed.current_revision, "old");
    let done = status(&set, &[ready(0, "new"), ready(1, "new")], NAMES, 0, now);
    assert_eq!((done.current_replicas, done.current_revision.as_str()), (2, "new"));
}

#[test]
fn names_are_taken_apart() {
    assert_eq!(parent_and_ordinal("db-0"), Some(("db", 0)));
    assert_eq!(parent_and_ordinal("a-b-12"), Some(("a-b", 12)));
    assert_eq!(parent_and_ordinal("db-x"), None);
    assert_eq!(parent_and_ordinal("db-"), None);
}

#[test]
fn pods_have_their_identity_and_claims() {
    let mut set = set(1);
    set.spec.selector = json!({ "matchLabels": { "app": "db" } });
    set.spec.volume_claim_templates =
        vec![json!({ "metadata": { "name": "data" }, "spec": { "accessModes": ["ReadWriteOnce"] } })];
    let mut revision = ControllerRevision::default();
    revision.metadata.name = "db-abc".into();
    revision.data = json!({ "spec": { "template": {
        "$patch": "replace",
        "metadata": { "labels": { "app": "db" } },
        "spec": { "volumes": [{ "name": "data", "emptyDir": {} }, { "name": "tmp", "emptyDir": {} }] },
    } } });
    let pod = new_pod(&set, &revision, 2);
    assert_eq!(pod["metadata"]["name"], "db-2");
    assert_eq!(pod["metadata"]["labels"]["apps.kubernetes.io/pod-index"], "2");
    assert_eq!(pod["metadata"]["labels"][REVISION], "db-abc");
    assert_eq!((&pod["spec"]["hostname"], &pod["spec"]["subdomain"]), (&json!("db-2"), &json!("db")));
    assert_eq!(pod["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"], "data-db-2");
    assert_eq!(pod["spec"]["volumes"].as_array().unwrap().len(), 2);
    assert!(pod.get("$patch").is_none() && pod["metadata"].get("generateName").is_none());
    let claim = claims::claim(&set.spec.volume_claim_templates[0], &set, 2);
    assert_eq!(claim["metadata"]["name"], "data-db-2");
    assert_eq!(claim["metadata"]["labels"]["app"], "db");
}

#[test]
fn claims_follow_the_retention_policy() {
    let owners = |deleted: &str, scaled: &str, ordinal: i64, known: &[&str]| {
        let mut set = set(1);
        set.spec.persistent_volume_claim_retention_policy =
            Some(RetentionPolicy { when_deleted: deleted.into(), when_scaled: scaled.into() });
        let pod = ready(ordinal, "new");
        let mut claim = client::ObjectMeta::default();
        for kind in known {
            let (resource, owner) = match *kind {
                "StatefulSet" => (&client::resources::STATEFUL_SETS, &set.metadata),
                _ => (&client::resources::PODS, &pod.metadata),
            };
            claim.owner_references.push(crate::ownership::controller_reference(resource, owner));
        }
        claims::owners(&claim, &set, &pod)
            .map(|owners| owners.iter().map(|owner| owner.kind.clone()).collect::<Vec<_>>())
    };
    assert_eq!(owners("Retain", "Retain", 0, &[]), None);
    assert_eq!(owners("Retain", "Retain", 0, &["StatefulSet"]), Some(vec![]));
    assert_eq!(owners("Delete", "Retain", 0, &[]), Some(vec!["StatefulSet".to_string()]));
    assert_eq!(owners("Delete", "Delete", 1, &["StatefulSet"]), Some(vec!["Pod".to_string()]));
    assert_eq!(owners("Retain", "Delete", 1, &[]), Some(vec!["Pod".to_string()]));
    assert_eq!(owners("Retain", "Delete", 0, &["Pod"]), Some(vec![]));
}
