//! Job.

mod policies;
mod status;

use apimachinery::field::{self, ErrorList, Path};
use apimachinery::names;
use serde_json::{Value, json};

use super::checks::{
    domain_prefixed_path, immutable, immutable_struct, label_selector, name_is_subdomain, non_negative,
    parsed_selector, selector_text,
};
use super::object_meta;
use super::pod;
use crate::read::Read;

pub(super) use status::update as update_status;

const MOST_PARALLEL: i64 = 100_000;
const MANY_COMPLETIONS: i64 = 100_000;
const LIMIT_FOR_MANY: i64 = 10_000;

pub(super) fn create(job: &Value, errors: &mut ErrorList) {
    object_meta::create(job, true, name_is_subdomain, errors);
    generated_selector(job, errors);
    selecting_spec(&job["spec"], errors);
    let (name, completions) = (job["metadata"].text("name"), job["spec"].num("completions"));
    if is_indexed(&job["spec"]) && completions > 0 {
        let hostname = format!("{name}-{}", completions - 1);
        if !names::dns1123_label(&hostname).is_empty() {
            let message = format!("will not able to create pod with invalid DNS label: {hostname}");
            errors.push(field::invalid(&Path::new("metadata").child("name"), name, message));
        }
    }
}

fn is_indexed(spec: &Value) -> bool {
    spec.text("completionMode") == "Indexed"
}

fn generated_selector(job: &Value, errors: &mut ErrorList) {
    let spec = &job["spec"];
    if spec.flag("manualSelector") || spec.set("selector").is_none() {
        return;
    }
    let (uid, name) = (job["metadata"].text("uid"), job["metadata"].text("name"));
    if uid.is_empty() {
        errors.push(field::required(&Path::new("metadata").child("uid"), ""));
    }
    let expected = json!({
        "controller-uid": uid,
        "job-name": name,
        "batch.kubernetes.io/controller-uid": uid,
        "batch.kubernetes.io/job-name": name,
    });
    let path = Path::new("spec").children(&["template", "metadata", "labels"]);
    let labels = &spec["template"]["metadata"]["labels"];
    let order = ["controller-uid", "job-name", "batch.kubernetes.io/controller-uid", "batch.kubernetes.io/job-name"];
    for key in order {
        let message = || format!("must be '{}'", expected.text(key));
        match labels.set(key) {
            None => errors.push(field::required(&path.key(key), message())),
            Some(value) if *value != expected[key] => {
                errors.push(field::invalid(&path.key(key), labels, message()));
            }
            Some(_) => {}
        }
    }
    if parsed_selector(&spec["selector"]).is_some_and(|s| !s.matches(&expected.as_object())) {
        let path = Path::new("spec").child("selector");
        errors.push(field::invalid(&path, selector_text(&spec["selector"]), "`selector` not auto-generated"));
    }
}

/// The spec of a Job, which unlike that of a Job's template has a selector.
fn selecting_spec(spec: &Value, errors: &mut ErrorList) {
    let path = Path::new("spec");
    self::spec(spec, &path, errors);
    let selector = spec.set("selector");
    match selector {
        None => errors.push(field::required(&path.child("selector"), "")),
        Some(selector) => label_selector(selector, &path.child("selector"), errors),
    }
    let labels = &spec["template"]["metadata"]["labels"];
    let matches = match selector {
        None => Some(false),
        Some(selector) => parsed_selector(selector).map(|s| s.matches(&labels.as_object())),
    };
    if matches == Some(false) {
        let path = path.children(&["template", "metadata", "labels"]);
        errors.push(field::invalid(&path, labels, "`selector` does not match template `labels`"));
    }
}

/// `validateJobSpec`.
fn spec(spec: &Value, path: &Path, errors: &mut ErrorList) {
    for name in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ] {
        non_negative(spec.num(name), &path.child(name), errors);
    }
    if spec.set("maxFailedIndexes").is_some() && spec.set("backoffLimitPerIndex").is_none() {
        errors.push(field::required(&path.child("backoffLimitPerIndex"), "when maxFailedIndexes is specified"));
    }
    if let Some(manager) = spec.set("managedBy").and_then(Value::as_str) {
        domain_prefixed_path(manager, &path.child("managedBy"), errors);
        if manager.len() > 63 {
            errors.push(field::too_long(&path.child("managedBy"), 63));
        }
    }
    match spec.set("completionMode").and_then(Value::as_str) {
        Some("Indexed") => indexed(spec, path, errors),
        None | Some("NonIndexed") => {
            for name in ["backoffLimitPerIndex", "maxFailedIndexes"] {
                if let Some(value) = spec.set(name) {
                    errors.push(field::invalid(&path.child(name), value, "requires indexed completion mode"));
                }
            }
        }
        Some(other) => {
            errors.push(field::not_supported(&path.child("completionMode"), other, &["NonIndexed", "Indexed"]));
        }
    }
    policies::check(spec, path, errors);
    pod::template(&spec["template"], &path.child("template"), errors);
    let restart = spec["template"]["spec"].text("restartPolicy");
    let path = path.children(&["template", "spec", "restartPolicy"]);
    match restart {
        "" | "Always" => errors.push(field::required(&path, r#"valid values: "OnFailure", "Never""#)),
        "OnFailure" if spec.set("podFailurePolicy").is_some() => {
            let message = r#"only "Never" is supported when podFailurePolicy is specified"#;
            errors.push(field::invalid(&path, restart, message));
        }
        "OnFailure" | "Never" => {}
        other => errors.push(field::not_supported(&path, other, &["OnFailure", "Never"])),
    }
}

fn indexed(spec: &Value, path: &Path, errors: &mut ErrorList) {
    let completions = spec.int("completions");
    let (parallelism, max_failed) = (spec.num("parallelism"), spec.num("maxFailedIndexes"));
    if completions.is_none() {
        errors.push(field::required(&path.child("completions"), "when completion mode is Indexed"));
    }
    let mut too_many = |name: &'static str, value: i64, message: String| {
        errors.push(field::invalid(&path.child(name), value, message));
    };
    if parallelism > MOST_PARALLEL {
        let message = format!("must be less than or equal to {MOST_PARALLEL} when completion mode is Indexed");
        too_many("parallelism", parallelism, message);
    }
    if spec.set("maxFailedIndexes").is_some() && completions.is_some_and(|completions| max_failed > completions) {
        too_many("maxFailedIndexes", max_failed, "must be less than or equal to completions".to_owned());
    }
    if max_failed > MOST_PARALLEL {
        too_many("maxFailedIndexes", max_failed, format!("must be less than or equal to {MOST_PARALLEL}"));
    }
    if completions.is_none_or(|c| c <= MANY_COMPLETIONS) || spec.set("backoffLimitPerIndex").is_none() {
        return;
    }
    if spec.set("maxFailedIndexes").is_none() {
        let message = format!("must be specified when completions is above {MANY_COMPLETIONS}");
        errors.push(field::required(&path.child("maxFailedIndexes"), message));
    }
    for (name, value) in [("parallelism", parallelism), ("maxFailedIndexes", max_failed)] {
        if value > LIMIT_FOR_MANY {
            let message = format!(
                "must be less than or equal to {LIMIT_FOR_MANY} when completions are above {MANY_COMPLETIONS} \
                 and used with backoff limit per index"
            );
            errors.push(field::invalid(&path.child(name), value, message));
        }
    }
}

pub(super) fn update(new: &Value, old: &Value, errors: &mut ErrorList) {
    create(new, errors);
    object_meta::update(new, old, errors);
    let path = Path::new("spec");
    // Where pods run and what they get may change while none run.
    let idle = old["status"].set("startTime").is_none() || status::is_true(&old["status"], "Suspended");
    let suspended = old["spec"].flag("suspend");
    let free = suspended && idle && old["status"].num("active") == 0;
    let (new, old) = (&new["spec"], &old["spec"]);
    selecting_spec(new, errors);
    let at = path.child("completions");
    if !is_indexed(new) {
        immutable(&new["completions"], &old["completions"], &at, errors);
    } else if new["completions"] != old["completions"]
        && !new["completions"].is_null()
        && new["completions"] != new["parallelism"]
    {
        let message = "can only be modified in tandem with spec.parallelism";
        errors.push(field::invalid(&at, &new["completions"], message));
    }
    immutable(&new["selector"], &old["selector"], &path.child("selector"), errors);
    template_update(&new["template"], &old["template"], free, &path, errors);
    for name in ["completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"] {
        immutable(&new[name], &old[name], &path.child(name), errors);
    }
}

/// A template may not change, but for where its pods run and what their containers get while the Job is
/// suspended and none of its pods is left.
fn template_update(new: &Value, old: &Value, free: bool, path: &Path, errors: &mut ErrorList) {
    if !free {
        immutable_struct("PodTemplateSpec", new, old, &path.child("template"), errors);
        return;
    }
    let mut old = old["spec"].clone();
    allow_placement(&new["spec"], &mut old);
    for name in ["containers", "initContainers"] {
        allow_resources(new["spec"].list(name), old.get_mut(name));
    }
    immutable_struct("PodSpec", &new["spec"], &old, &path.child("template.spec"), errors);
}

/// Takes over where pods run.
fn allow_placement(new: &Value, old: &mut Value) {
    for name in ["nodeSelector", "tolerations", "schedulingGates"] {
        old[name] = new[name].clone();
    }
    match (new.set("affinity"), old.set("affinity").is_some()) {
        (None, true) => {
            if let Some(affinity) = old["affinity"].as_object_mut() {
                affinity.remove("nodeAffinity");
            }
            if old["affinity"].as_object().is_some_and(serde_json::Map::is_empty) {
                old["affinity"] = Value::Null;
            }
        }
        (Some(affinity), _) => old["affinity"]["nodeAffinity"] = affinity["nodeAffinity"].clone(),
        (None, false) => {}
    }
}

/// Takes over what containers get, where they are still the same ones.
fn allow_resources(new: &[Value], old: Option<&mut Value>) {
    let Some(Value::Array(old)) = old else { return };
    if old.len() != new.len() {
        return;
    }
    for (old, new) in old.iter_mut().zip(new) {
        if old["name"] == new["name"] {
            old["resources"] = new["resources"].clone();
        }
    }
}

/// What a CronJob makes Jobs of.
pub(super) fn template(template: &Value, path: &Path, errors: &mut ErrorList) {
    let path = path.child("spec");
    spec(&template["spec"], &path, errors);
    if let Some(selector) = template["spec"].set("selector") {
        errors.push(field::invalid(
            &path.child("selector"),
            selector_text(selector),
            "`selector` will be auto-generated",
        ));
    }
    if template["spec"].flag("manualSelector") {
        errors.push(field::not_supported(&path.child("manualSelector"), true, &["nil", "false"]));
    }
}
