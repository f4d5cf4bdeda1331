//! Tables over the pure decisions.

use client::Timestamp;
use serde_json::json;

use super::progress::{rollout_status, until_deadline};
use super::replica_sets as sets;
use super::rolling::{new_size, old_sizes};
use super::sync::{Split, calculate_status, expendable, proportional_sizes};
use crate::testing::replica_set;
use crate::types::{Deployment, ReplicaSet, RollingUpdate, condition};

fn deployment(replicas: i64, surge: serde_json::Value, unavailable: serde_json::Value) -> Deployment {
    let mut deployment = Deployment::default();
    deployment.metadata.name = "web".into();
    deployment.metadata.generation = 1;
    deployment.spec.replicas = replicas;
    deployment.spec.template = json!({ "metadata": { "labels": { "app": "a" } }, "spec": {} });
    deployment.spec.strategy.kind = "RollingUpdate".into();
    deployment.spec.strategy.rolling_update = Some(RollingUpdate { max_surge: surge, max_unavailable: unavailable });
    deployment
}

fn set(name: &str, replicas: i64, available: i64) -> ReplicaSet {
    let mut set = replica_set(name, replicas);
    set.status.replicas = replicas;
    set.status.ready_replicas = available;
    set.status.available_replicas = available;
    set.status.observed_generation = 1;
    set
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

#[test]
fn the_new_set_grows_into_the_surge() {
    for (replicas, surge, total, current, expected) in [
        (10, json!(2), 10, 0, Some(2)),
        (10, json!("25%"), 10, 0, Some(3)),
        (10, json!(0), 10, 0, None),
        (10, json!(2), 5, 0, Some(7)),
        (10, json!(20), 10, 0, Some(10)),
        (10, json!(2), 12, 12, Some(10)),
        (10, json!(2), 10, 10, None),
    ] {
        let deployment = deployment(replicas, surge.clone(), json!(0));
        assert_eq!(new_size(&deployment, total, current), expected, "surge {surge} total {total} current {current}");
    }
}

#[test]
fn old_sets_shrink_as_availability_allows() {
    // (maxUnavailable, new (size, available), old sets (size, available), expected sizes)
    for (unavailable, new, old, expected) in [
        (2, (0, 0), vec![(10, 10)], vec![8]),
        (0, (2, 2), vec![(10, 10)], vec![8]),
        (0, (2, 0), vec![(10, 10)], vec![10]),
        (0, (0, 0), vec![(10, 8)], vec![10]),
        (2, (5, 0), vec![(8, 8)], vec![8]),
        (2, (2, 0), vec![(10, 8)], vec![8]),
        (2, (0, 0), vec![(5, 3), (8, 8)], vec![0, 8]),
        (2, (10, 10), vec![(0, 0), (3, 3)], vec![0, 0]),
    ] {
        let deployment = deployment(10, json!(3), json!(unavailable));
        let new_set = set("new", new.0, new.1);
        let old_sets: Vec<ReplicaSet> = old.iter().map(|(size, available)| set("old", *size, *available)).collect();
        assert_eq!(old_sizes(&deployment, &new_set, &old_sets), expected, "{unavailable} {new:?} {old:?}");
    }
}

#[test]
fn nothing_moves_with_neither_surge_nor_unavailability() {
    assert_eq!(sets::max_unavailable(&deployment(10, json!(0), json!(0))), 1);
    assert_eq!(sets::max_unavailable(&deployment(10, json!("25%"), json!("25%"))), 2);
    assert_eq!(sets::max_surge(&deployment(10, json!("25%"), json!("25%"))), 3);
    assert_eq!(sets::max_unavailable(&deployment(0, json!(0), json!(0))), 0);
}

#[test]
fn scaling_keeps_proportions() {
    // (deployment size before, after, sets by age, expected sizes by name)
    for (before, after, sizes, expected) in [
        (10, 20, vec![("old", 5), ("new", 5)], vec![("new", 10), ("old", 10)]),
        (10, 5, vec![("old", 8), ("new", 2)], vec![("old", 4), ("new", 1)]),
        (10, 0, vec![("old", 8), ("new", 2)], vec![("old", 0), ("new", 0)]),
        (10, 12, vec![("a", 3), ("b", 3), ("c", 4)], vec![("c", 5), ("a", 3), ("b", 4)]),
    ] {
        let old_deployment = deployment(before, json!(0), json!(1));
        let deployment = deployment(after, json!(0), json!(1));
        let mut owned: Vec<ReplicaSet> = sizes
            .iter()
            .enumerate()
            .map(|(age, (name, size))| {
                let mut set = set(name, *size, *size);
                set.metadata.creation_timestamp = Some(at(age as i64));
                sets::set_replicas_annotations(&mut set, &old_deployment);
                set
            })
            .collect();
        let mut active: Vec<&mut ReplicaSet> = owned.iter_mut().collect();
        let result = proportional_sizes(&deployment, &mut active);
        let total: i64 = result.iter().sum();
        assert_eq!(total, after, "{sizes:?}");
        let mut named: Vec<(String, i64)> = active.iter().map(|set| set.metadata.name.clone()).zip(result).collect();
        let mut wanted: Vec<(String, i64)> = expected.iter().map(|(name, size)| (name.to_string(), *size)).collect();
        named.sort();
        wanted.sort();
        assert_eq!(named, wanted, "{before} to {after} over {sizes:?}");
    }
}

#[test]
fn the_new_set_is_found_by_its_template() {
    let deployment = deployment(1, json!(1), json!(0));
    let mut matching = set("match", 1, 1);
    matching.spec.template["metadata"]["labels"][sets::POD_TEMPLATE_HASH] = json!("abc");
    matching.spec.template["metadata"]["creationTimestamp"] = json!(null);
    let mut other = set("other", 1, 1);
    other.spec.template["spec"]["hostname"] = json!("h");
    assert_eq!(sets::find_new(&deployment, &[other.clone(), matching]), Some(1));
    assert_eq!(sets::find_new(&deployment, &[other]), None);
    let first = sets::template_hash(&deployment.spec.template, None);
    assert_eq!(first, sets::template_hash(&deployment.spec.template, None));
    assert_ne!(first, sets::template_hash(&deployment.spec.template, Some(1)));
    assert_eq!(sets::set_name(&"n".repeat(300), "abc").len(), 253);
}

#[test]
fn revisions_move_on_and_are_remembered() {
    let mut deployment = deployment(3, json!(1), json!(0));
    deployment.metadata.annotations.insert("note".into(), "x".into());
    deployment.metadata.annotations.insert(sets::ROLLBACK_TO.into(), "1".into());
    let mut set = set("a", 3, 3);
    assert!(sets::set_new_annotations(&deployment, &mut set, 1, false));
    assert_eq!(set.metadata.annotation("note"), Some("x"));
    assert_eq!(set.metadata.annotation(sets::ROLLBACK_TO), None);
    assert_eq!(set.metadata.annotation(sets::REVISION), Some("1"));
    assert_eq!(set.metadata.annotation(sets::MAX_REPLICAS), Some("4"));
    assert!(!sets::set_new_annotations(&deployment, &mut set, 1, true));
    assert!(sets::set_new_annotations(&deployment, &mut set, 3, true));
    assert!(sets::set_new_annotations(&deployment, &mut set, 5, true));
    assert_eq!(set.metadata.annotation(sets::REVISION), Some("5"));
    assert_eq!(set.metadata.annotation(sets::REVISION_HISTORY), Some("1,3"));
}

#[test]
fn history_beyond_the_limit_goes_when_it_is_empty() {
    let mut deployment = deployment(3, json!(1), json!(0));
    deployment.spec.revision_history_limit = Some(1);
    let with_revision = |name: &str, revision: i64, size: i64| {
        let mut set = set(name, size, size);
        set.metadata.annotations.insert(sets::REVISION.into(), revision.to_string());
        set
    };
    let old = [with_revision("c", 3, 0), with_revision("a", 1, 0), with_revision("b", 2, 1)];
    let names: Vec<&str> = expendable(&deployment, &old).iter().map(|set| set.metadata.name.as_str()).collect();
    assert_eq!(names, ["a"], "b is over the limit too, but has pods");
    deployment.spec.revision_history_limit = None;
    assert!(expendable(&deployment, &old).is_empty());
}

#[test]
fn a_rollout_progresses_completes_and_times_out() {
    let mut deployment = deployment(2, json!(1), json!(0));
    deployment.spec.progress_deadline_seconds = Some(60);
    let split = |available: i64| Split { new: Some(set("new", 2, available)), old: Vec::new() };
    let reason = |deployment: &Deployment| {
        condition(&deployment.status.conditions, "Progressing")
            .map(|condition| condition.reason.clone())
            .unwrap_or_default()
    };
    deployment.status = rollout_status(&deployment, &split(0), at(0));
    assert_eq!(reason(&deployment), "ReplicaSetUpdated");
    assert_eq!(deployment.status.unavailable_replicas, 2);
    assert_eq!(until_deadline(&deployment, &deployment.status, at(20)).unwrap().as_secs(), 40);
    let late = rollout_status(&deployment, &split(0), at(61));
    let timed_out = Deployment { status: late, ..deployment.clone() };
    assert_eq!(reason(&timed_out), "ProgressDeadlineExceeded");
    assert_eq!(until_deadline(&timed_out, &timed_out.status, at(61)), None);
    deployment.status = rollout_status(&deployment, &split(1), at(30));
    let progressing = condition(&deployment.status.conditions, "Progressing").unwrap();
    assert_eq!(progressing.last_update_time, Some(at(30)));
    assert_eq!(progressing.last_transition_time, Some(at(0)), "the status did not turn");
    deployment.status = rollout_status(&deployment, &split(2), at(40));
    assert_eq!(reason(&deployment), "NewReplicaSetAvailable");
    let message = &condition(&deployment.status.conditions, "Progressing").unwrap().message;
    assert_eq!(message, "ReplicaSet \"new\" has successfully progressed.");
    assert_eq!(condition(&deployment.status.conditions, "Available").unwrap().status, "True");
    assert_eq!(rollout_status(&deployment, &split(2), at(500)), deployment.status, "a finished rollout is left alone");
    assert_eq!(calculate_status(&deployment, &split(0), at(500)).conditions[1].status, "False");
}

#[test]
fn one_active_set_is_scaled_alone() {
    let new = set("new", 0, 0);
    let old = [set("a", 0, 0), set("b", 3, 3)];
    assert_eq!(sets::active_or_latest(Some(&new), &old).unwrap().metadata.name, "b");
    assert_eq!(sets::active_or_latest(Some(&set("new", 1, 1)), &old), None);
    assert_eq!(sets::active_or_latest(Some(&new), &old[..1]).unwrap().metadata.name, "new");
    assert_eq!(sets::active_or_latest(None, &[]), None);
}
