//! Pure helpers over a deployment and its ReplicaSets: which is new, how many pods may be where,
//! revisions and annotations.

use std::cmp::Ordering;
use std::hash::Hasher as _;

use apimachinery::intstr::IntOrString;
use serde_json::Value;

use crate::types::{Deployment, DeploymentStatus, ReplicaSet};

pub const REVISION: &str = "deployment.kubernetes.io/revision";
pub const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
pub const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";
pub const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";
pub const ROLLBACK_TO: &str = "deprecated.deployment.rollback.to";
pub const POD_TEMPLATE_HASH: &str = "pod-template-hash";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Longest revision history kept, in characters: about a hundred revisions.
const MAX_HISTORY: usize = 2000;

/// Annotations that stay on the deployment.
pub const NOT_COPIED: &[&str] =
    &[LAST_APPLIED, REVISION, REVISION_HISTORY, DESIRED_REPLICAS, MAX_REPLICAS, ROLLBACK_TO];

pub fn sort_by_creation(sets: &mut [ReplicaSet]) {
    sets.sort_by(by_creation);
}

pub fn by_creation(a: &ReplicaSet, b: &ReplicaSet) -> Ordering {
    a.metadata
        .creation_timestamp
        .cmp(&b.metadata.creation_timestamp)
        .then_with(|| a.metadata.name.cmp(&b.metadata.name))
}

pub fn by_revision(a: &ReplicaSet, b: &ReplicaSet) -> Ordering {
    match (revision(a), revision(b)) {
        (Some(left), Some(right)) if left != right => left.cmp(&right),
        _ => by_creation(a, b),
    }
}

/// Largest first; among equals the newer first.
pub fn by_size_newer(a: &ReplicaSet, b: &ReplicaSet) -> Ordering {
    b.spec.replicas.cmp(&a.spec.replicas).then_with(|| by_creation(b, a))
}

/// Largest first; among equals the older first.
pub fn by_size_older(a: &ReplicaSet, b: &ReplicaSet) -> Ordering {
    b.spec.replicas.cmp(&a.spec.replicas).then_with(|| by_creation(a, b))
}

/// A template without the label that tells ReplicaSets apart, and without what means nothing
/// (upstream's semantic equality takes empty and absent for the same).
fn comparable(template: &Value) -> Value {
    let mut template = template.clone();
    if let Some(labels) = template.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
        labels.remove(POD_TEMPLATE_HASH);
    }
    strip_empty(&mut template);
    template
}

/// Drops nulls, and empty lists and maps that stand for absent ones. A map that may be meaningfully
/// empty (`emptyDir: {}`) is a field of its own name, so only well-known collections are dropped.
fn strip_empty(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.values_mut().for_each(strip_empty);
            map.retain(|key, value| match value {
                Value::Null => false,
                Value::Array(list) => !list.is_empty(),
                Value::Object(inner) => {
                    !inner.is_empty()
                        || !matches!(
                            key.as_str(),
                            "labels" | "annotations" | "nodeSelector" | "metadata" | "limits" | "requests"
                        )
                }
                _ => true,
            });
        }
        Value::Array(list) => list.iter_mut().for_each(strip_empty),
        _ => {}
    }
}

pub fn equal_ignoring_hash(a: &Value, b: &Value) -> bool {
    comparable(a) == comparable(b)
}

/// The place of the set that has the deployment's template; the oldest when there are several.
/// `sets` are ordered by creation.
pub fn find_new(deployment: &Deployment, sets: &[ReplicaSet]) -> Option<usize> {
    let wanted = comparable(&deployment.spec.template);
    sets.iter().position(|set| comparable(&set.spec.template) == wanted)
}

/// The value of `pod-template-hash` for a new set. Upstream hashes a dump of Go structs; any stable
/// hash serves, because a set is found by its template and never by its hash. Ours is FNV-1a over
/// the template's JSON, whose keys are sorted.
pub fn template_hash(template: &Value, collision_count: Option<i64>) -> String {
    let mut hasher = Fnv32::default();
    hasher.write(template.to_string().as_bytes());
    if let Some(count) = collision_count {
        hasher.write(&(count as i32).to_le_bytes());
    }
    apimachinery::random::safe_encode(&hasher.finish().to_string())
}

struct Fnv32(u32);

impl Default for Fnv32 {
    fn default() -> Self {
        Self(0x811c_9dc5)
    }
}

impl std::hash::Hasher for Fnv32 {
    fn finish(&self) -> u64 {
        self.0.into()
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
        }
    }
}

/// The name of a new set, cut so that it stays a name.
pub fn set_name(deployment: &str, hash: &str) -> String {
    let room = 253 - 1 - hash.len();
    let mut end = deployment.len().min(room);
    while !deployment.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}-{hash}", &deployment[..end])
}

pub fn replicas<'a>(sets: impl IntoIterator<Item = &'a ReplicaSet>) -> i64 {
    sets.into_iter().map(|set| set.spec.replicas).sum()
}

pub fn actual<'a>(sets: impl IntoIterator<Item = &'a ReplicaSet>) -> i64 {
    sets.into_iter().map(|set| set.status.replicas).sum()
}

pub fn ready<'a>(sets: impl IntoIterator<Item = &'a ReplicaSet>) -> i64 {
    sets.into_iter().map(|set| set.status.ready_replicas).sum()
}

pub fn available<'a>(sets: impl IntoIterator<Item = &'a ReplicaSet>) -> i64 {
    sets.into_iter().map(|set| set.status.available_replicas).sum()
}

/// `None` when a set that was reconciled does not say.
pub fn terminating<'a>(sets: impl IntoIterator<Item = &'a ReplicaSet>) -> Option<i64> {
    let mut total = 0;
    for set in sets {
        match set.status.terminating_replicas {
            Some(count) => total += count,
            None if set.status.observed_generation == 0 => {}
            None => return None,
        }
    }
    Some(total)
}

pub fn is_rolling(deployment: &Deployment) -> bool {
    deployment.spec.strategy.kind == "RollingUpdate"
}

fn scaled(value: &Value, total: i64, round_up: bool) -> i64 {
    IntOrString::from_value(value).and_then(|value| value.scaled(total, round_up).ok()).unwrap_or(0)
}

/// Surge and unavailability in pods. Both zero would never move: then one may be unavailable.
fn fenceposts(deployment: &Deployment) -> (i64, i64) {
    let Some(rolling) = deployment.spec.strategy.rolling_update.as_ref().filter(|_| is_rolling(deployment)) else {
        return (0, 0);
    };
    let surge = scaled(&rolling.max_surge, deployment.spec.replicas, true);
    let unavailable = scaled(&rolling.max_unavailable, deployment.spec.replicas, false);
    if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
}

pub fn max_surge(deployment: &Deployment) -> i64 {
    fenceposts(deployment).0
}

pub fn max_unavailable(deployment: &Deployment) -> i64 {
    if !is_rolling(deployment) || deployment.spec.replicas == 0 {
        return 0;
    }
    fenceposts(deployment).1.min(deployment.spec.replicas)
}

/// How large the new set should be now, given the size of all of them together.
pub fn new_set_replicas(deployment: &Deployment, total: i64, current: i64) -> i64 {
    if !is_rolling(deployment) {
        return deployment.spec.replicas;
    }
    let surge = deployment
        .spec
        .strategy
        .rolling_update
        .as_ref()
        .map_or(0, |rolling| scaled(&rolling.max_surge, deployment.spec.replicas, true));
    let room = deployment.spec.replicas + surge - total;
    if room <= 0 {
        return current;
    }
    current + room.min(deployment.spec.replicas - current)
}

/// The share of `to_add` pods that one set takes when a deployment is scaled in mid-rollout.
pub fn proportion(set: &ReplicaSet, deployment: &Deployment, to_add: i64, added: i64) -> i64 {
    if set.spec.replicas == 0 || to_add == 0 || to_add == added {
        return 0;
    }
    let fraction = fraction(set, deployment);
    let allowed = to_add - added;
    if to_add > 0 { fraction.min(allowed) } else { fraction.max(allowed) }
}

fn fraction(set: &ReplicaSet, deployment: &Deployment) -> i64 {
    if deployment.spec.replicas == 0 {
        return -set.spec.replicas;
    }
    let now = deployment.spec.replicas + max_surge(deployment);
    let before = match annotation_count(set, MAX_REPLICAS) {
        Some(count) if count > 0 => count,
        _ => deployment.status.replicas,
    };
    if before == 0 {
        return 0;
    }
    let size = (set.spec.replicas * now) as f64 / before as f64;
    size.round() as i64 - set.spec.replicas
}

fn annotation_count(set: &ReplicaSet, key: &str) -> Option<i64> {
    set.metadata.annotation(key)?.parse::<u32>().ok().map(i64::from)
}

pub fn desired_replicas(set: &ReplicaSet) -> Option<i64> {
    annotation_count(set, DESIRED_REPLICAS)
}

/// `None` when the annotation is no number; an absent one is revision 0.
pub fn revision(set: &ReplicaSet) -> Option<i64> {
    set.metadata.annotation(REVISION).map_or(Some(0), |text| text.parse().ok())
}

pub fn max_revision<'a>(sets: impl IntoIterator<Item = &'a ReplicaSet>) -> i64 {
    sets.into_iter().filter_map(revision).max().unwrap_or(0).max(0)
}

/// The second highest revision, which an unspecific rollback goes to.
pub fn last_revision(sets: &[ReplicaSet]) -> i64 {
    let (mut max, mut second) = (0, 0);
    for value in sets.iter().filter_map(revision) {
        if value >= max {
            (second, max) = (max, value);
        } else if value > second {
            second = value;
        }
    }
    second
}

/// Sets the replica annotations; true when something changed.
pub fn set_replicas_annotations(set: &mut ReplicaSet, deployment: &Deployment) -> bool {
    let desired = deployment.spec.replicas;
    let max = desired + max_surge(deployment);
    let mut changed = false;
    for (key, value) in [(DESIRED_REPLICAS, desired), (MAX_REPLICAS, max)] {
        let value = value.to_string();
        if set.metadata.annotation(key) != Some(&value) {
            set.metadata.annotations.insert(key.into(), value);
            changed = true;
        }
    }
    changed
}

/// Copies the deployment's annotations and moves the revision on; true when something changed.
pub fn set_new_annotations(deployment: &Deployment, set: &mut ReplicaSet, new_revision: i64, exists: bool) -> bool {
    let mut changed = false;
    for (key, value) in &deployment.metadata.annotations {
        if !NOT_COPIED.contains(&key.as_str()) && set.metadata.annotation(key) != Some(value) {
            set.metadata.annotations.insert(key.clone(), value.clone());
            changed = true;
        }
    }
    let old_text = set.metadata.annotation(REVISION).map(String::from);
    let old = match old_text.as_deref() {
        None | Some("") => 0,
        Some(text) => match text.parse::<i64>() {
            Ok(old) => old,
            // Not ours to overwrite.
            Err(_) => return false,
        },
    };
    if old < new_revision {
        set.metadata.annotations.insert(REVISION.into(), new_revision.to_string());
        changed = true;
        if let Some(old_text) = old_text {
            append_history(set, &old_text);
        }
    }
    if !exists && set_replicas_annotations(set, deployment) {
        changed = true;
    }
    changed
}

fn append_history(set: &mut ReplicaSet, revision: &str) {
    let history = set.metadata.annotation(REVISION_HISTORY).unwrap_or_default();
    if history.is_empty() {
        set.metadata.annotations.insert(REVISION_HISTORY.into(), revision.into());
        return;
    }
    let mut revisions: Vec<&str> = history.split(',').collect();
    let mut length = history.len() + revision.len() + 1;
    while length > MAX_HISTORY && !revisions.is_empty() {
        length -= revisions.remove(0).len() + 1;
    }
    if length <= MAX_HISTORY {
        revisions.push(revision);
        let joined = revisions.join(",");
        set.metadata.annotations.insert(REVISION_HISTORY.into(), joined);
    }
}

/// Whether the new set has all pods and they are available.
pub fn is_saturated(deployment: &Deployment, set: &ReplicaSet) -> bool {
    let wanted = deployment.spec.replicas;
    set.spec.replicas == wanted && desired_replicas(set) == Some(wanted) && set.status.available_replicas == wanted
}

/// The one active set; the new or the newest when none is active; none when several are.
pub fn active_or_latest<'a>(new: Option<&'a ReplicaSet>, old: &'a [ReplicaSet]) -> Option<&'a ReplicaSet> {
    let mut active = old.iter().chain(new).filter(|set| set.spec.replicas > 0);
    match (active.next(), active.next()) {
        (None, _) => new.or_else(|| old.iter().max_by(|a, b| by_creation(a, b))),
        (Some(only), None) => Some(only),
        _ => None,
    }
}

pub fn is_complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let wanted = deployment.spec.replicas;
    status.updated_replicas == wanted
        && status.replicas == wanted
        && status.available_replicas == wanted
        && status.observed_generation >= deployment.metadata.generation
}

/// Go's `math.MaxInt32` means "no limit" in these two fields.
pub fn progress_deadline(deployment: &Deployment) -> Option<i64> {
    deployment.spec.progress_deadline_seconds.filter(|seconds| *seconds != i64::from(i32::MAX))
}

pub fn history_limit(deployment: &Deployment) -> Option<i64> {
    deployment.spec.revision_history_limit.filter(|limit| *limit != i64::from(i32::MAX))
}
