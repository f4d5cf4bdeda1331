//! What may change in a pod.

use apimachinery::field::{self, ErrorList, Path};
use apimachinery::names::inclusive_range_error;
use serde_json::Value;

use super::super::checks::semantically_equal;
use super::super::{diff, object_meta};
use super::annotations::{APP_ARMOR, MIRROR};
use super::{containers, metadata_and_spec, scheduling};
use crate::read::Read;

const UPDATABLE: &str = "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// `ValidatePodUpdate`.
pub(in super::super) fn update(new: &Value, old: &Value, errors: &mut ErrorList) {
    object_meta::update(new, old, errors);
    metadata_and_spec(new, errors);
    annotations(new, old, errors);
    let path = Path::new("spec");
    let (new, old) = (&new["spec"], &old["spec"]);
    for name in ["containers", "initContainers"] {
        let at = path.child(name);
        if new.list(name).len() != old.list(name).len() {
            errors.push(field::forbidden(&at, "pod updates may not add or remove containers"));
            return;
        }
        for (i, container) in new.list(name).iter().enumerate() {
            if container.text("image").is_empty() {
                errors.push(field::required(&at.index(i).child("image"), ""));
            }
            containers::trimmed_image(container, &at.index(i), errors);
        }
    }
    let at = path.child("activeDeadlineSeconds");
    match (new.int("activeDeadlineSeconds"), old.int("activeDeadlineSeconds")) {
        (Some(seconds), _) if !(0..=i64::from(i32::MAX)).contains(&seconds) => {
            errors.push(field::invalid(&at, seconds, inclusive_range_error(0, i64::from(i32::MAX))));
            return;
        }
        (Some(seconds), Some(before)) if before < seconds => {
            errors.push(field::invalid(&at, seconds, "must be less than or equal to previous value"));
            return;
        }
        (None, Some(_)) => {
            errors.push(field::invalid(&at, Value::Null, "must not update from a positive integer to nil value"));
        }
        _ => {}
    }
    tolerations(new, old, &path.child("tolerations"), errors);
    gates(new, old, &path.child("schedulingGates"), errors);
    if semantically_equal(new, old) {
        return;
    }
    let munged = munge(new, old, &path, errors);
    if !semantically_equal(&munged, old) {
        let changed = diff::of("PodSpec", old, &munged);
        let message = format!("pod updates may not change fields other than {UPDATABLE}\n{changed}");
        errors.push(field::forbidden(&path, message));
    }
}

/// The new spec with everything that may change put back.
fn munge(new: &Value, old: &Value, path: &Path, errors: &mut ErrorList) -> Value {
    let mut munged = new.clone();
    for name in ["containers", "initContainers"] {
        let images: Vec<Value> = old.list(name).iter().map(|c| c["image"].clone()).collect();
        let containers = munged.get_mut(name).and_then(Value::as_array_mut).into_iter().flatten();
        for (container, image) in containers.zip(images) {
            container["image"] = image;
        }
    }
    let put_back = |name: &str, munged: &mut Value| {
        let Some(map) = munged.as_object_mut() else { return };
        match old.set(name) {
            Some(value) => map.insert(name.to_owned(), value.clone()),
            None => map.remove(name),
        };
    };
    for name in ["activeDeadlineSeconds", "schedulingGates", "tolerations"] {
        put_back(name, &mut munged);
    }
    let grace = "terminationGracePeriodSeconds";
    if old.num(grace) < 0 && new.num(grace) == 1 {
        put_back(grace, &mut munged);
    }
    if old.list("schedulingGates").is_empty() {
        return munged;
    }
    if !semantically_equal(&new["nodeSelector"], &old["nodeSelector"]) {
        if old.entries("nodeSelector").any(|(k, v)| new["nodeSelector"].get(k) != Some(v)) {
            let message = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
            errors.push(field::invalid(&path.child("nodeSelector"), &new["nodeSelector"], message));
        }
        put_back("nodeSelector", &mut munged);
    }
    let (mine, theirs) = (&new["affinity"]["nodeAffinity"], &old["affinity"]["nodeAffinity"]);
    if !semantically_equal(mine, theirs) {
        node_affinity(mine, theirs, &path.child("affinity").child("nodeAffinity"), errors);
        let mut affinity = new["affinity"].clone();
        let others = ["podAffinity", "podAntiAffinity"].iter().any(|name| affinity.set(name).is_some());
        if !affinity.is_object() {
            affinity = serde_json::json!({});
        }
        affinity["nodeAffinity"] = theirs.clone();
        // Without anything else in it, it counts as not there, as it was.
        munged["affinity"] = if old["affinity"].is_object() || others { affinity } else { Value::Null };
    }
    munged
}

/// A gated pod's required node affinity may only become narrower.
fn node_affinity(new: &Value, old: &Value, path: &Path, errors: &mut ErrorList) {
    const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
    if old.set(REQUIRED).is_none() {
        return;
    }
    let (before, after) = (old[REQUIRED].list("nodeSelectorTerms"), new[REQUIRED].list("nodeSelectorTerms"));
    let path = path.child(REQUIRED).child("nodeSelectorTerms");
    if !before.is_empty() && before.len() != after.len() {
        let message = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
        errors.push(field::invalid(&path, Value::from(after), message));
        return;
    }
    let only_added = |old: &Value, new: &Value| {
        let lists = ["matchExpressions", "matchFields"];
        let empty = lists.iter().all(|l| old.list(l).is_empty());
        if empty {
            return lists.iter().all(|l| new.list(l).is_empty());
        }
        lists.iter().all(|l| new.list(l).starts_with(old.list(l)))
    };
    for (i, (old, new)) in before.iter().zip(after).enumerate() {
        if !only_added(old, new) {
            let message = "only additions are allowed (no mutations or deletions)";
            errors.push(field::invalid(&path.index(i), new, message));
        }
    }
}

fn tolerations(new: &Value, old: &Value, path: &Path, errors: &mut ErrorList) {
    let timeless = |t: &Value| {
        let mut t = t.clone();
        if let Some(map) = t.as_object_mut() {
            map.remove("tolerationSeconds");
        }
        t
    };
    let known: Vec<Value> = new.list("tolerations").iter().map(timeless).collect();
    if old.list("tolerations").iter().any(|t| !known.contains(&timeless(t))) {
        let message = "existing toleration can not be modified except its tolerationSeconds";
        errors.push(field::forbidden(path, message));
        return;
    }
    scheduling::tolerations(new.list("tolerations"), path, errors);
}

fn gates(new: &Value, old: &Value, path: &Path, errors: &mut ErrorList) {
    for (i, gate) in new.list("schedulingGates").iter().enumerate() {
        let name = gate.text("name");
        if !old.list("schedulingGates").iter().any(|g| g.text("name") == name) {
            let message = format!("only deletion is allowed, but found new scheduling gate '{name}'");
            errors.push(field::forbidden(&path.index(i).child("name"), message));
        }
    }
}

/// Annotations that must stay as they were created.
pub(super) fn annotations(new: &Value, old: &Value, errors: &mut ErrorList) {
    let path = Path::new("metadata").child("annotations");
    let (new, old) = (&new["metadata"], &old["metadata"]);
    for (key, value) in old.entries("annotations") {
        if new["annotations"].get(key) == Some(value) {
            continue;
        }
        if key.starts_with(APP_ARMOR) {
            errors.push(field::forbidden(&path.key(key.clone()), "may not remove or update AppArmor annotations"));
        }
        if key == MIRROR {
            errors.push(field::forbidden(&path.key(key.clone()), "may not remove or update mirror pod annotation"));
        }
    }
    for (key, _) in new.entries("annotations").filter(|(k, _)| old["annotations"].get(k.as_str()).is_none()) {
        if key.starts_with(APP_ARMOR) {
            errors.push(field::forbidden(&path.key(key.clone()), "may not add AppArmor annotations"));
        }
        if key == MIRROR {
            errors.push(field::forbidden(&path.key(key.clone()), "may not add mirror pod annotation"));
        }
    }
}
