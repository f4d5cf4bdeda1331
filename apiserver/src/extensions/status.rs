//! What a definition's status says: accepted names and conditions, computed from the definition and
//! the others of its group. Pure.

use std::collections::BTreeSet;

use api::validation::custom_resource_definition::approval::{self, State, is_protected};
use api::{Resource, Subresource};
use apimachinery::gotext::quote;
use apimachinery::object::ObjectExt as _;
use serde_json::{Value, json};

use crate::registry::custom::Definition;

/// Whether a condition is True.
pub fn is_true(definition: &Value, condition: &str) -> bool {
    find(definition, condition).and_then(|found| found.str_at(&["status"])) == Some("True")
}

fn find<'a>(definition: &'a Value, condition: &str) -> Option<&'a Value> {
    let conditions = definition.list_at(&["status", "conditions"]);
    conditions.iter().find(|found| found.str_at(&["type"]) == Some(condition))
}

/// Sets a condition; its transition time moves only with its status.
pub fn set_condition(definition: &mut Value, kind: &str, status: &str, reason: &str, message: &str, now: &str) {
    let mut conditions = definition.list_at(&["status", "conditions"]).to_vec();
    let generation = definition.generation();
    let since = match find(definition, kind) {
        Some(old) if old.str_at(&["status"]) == Some(status) => {
            old.str_at(&["lastTransitionTime"]).unwrap_or(now).to_string()
        }
        _ => now.to_string(),
    };
    let mut new = json!({
        "type": kind, "status": status, "lastTransitionTime": since, "reason": reason, "message": message,
    });
    // Who observes a generation keeps saying so.
    if find(definition, kind).is_some_and(|old| old.get("observedGeneration").is_some()) {
        new["observedGeneration"] = generation.into();
    }
    match conditions.iter_mut().find(|found| found.str_at(&["type"]) == Some(kind)) {
        Some(old) => *old = new,
        None => conditions.push(new),
    }
    definition.set_at(&["status", "conditions"], json!(conditions));
}

fn remove_condition(definition: &mut Value, kind: &str) {
    let mut conditions = definition.list_at(&["status", "conditions"]).to_vec();
    let before = conditions.len();
    conditions.retain(|found| found.str_at(&["type"]) != Some(kind));
    if conditions.len() != before {
        definition.set_at(&["status", "conditions"], json!(conditions));
    }
}

/// The definition with the status it should have; `None` when it has it. `taken` are the accepted
/// names of the group's definitions, this one among them.
pub fn compute<'a>(definition: &Value, taken: impl Iterator<Item = &'a Value>, now: &str) -> Option<Value> {
    let mut new = definition.clone();
    let conflict = accept_names(&mut new, taken);
    match &conflict {
        Some((reason, message)) => set_condition(&mut new, "NamesAccepted", "False", reason, message, now),
        None => set_condition(&mut new, "NamesAccepted", "True", "NoConflicts", "no conflicts found", now),
    }
    if !is_true(&new, "Established") {
        if conflict.is_none() {
            let message = "the initial names have been accepted";
            set_condition(&mut new, "Established", "True", "InitialNamesAccepted", message, now);
        } else {
            set_condition(&mut new, "Established", "False", "NotAccepted", "not all names are accepted", now);
        }
    }
    if definition.bool_at(&["spec", "preserveUnknownFields"]) == Some(true) {
        let message = "spec.preserveUnknownFields: Invalid value: true: must be false";
        set_condition(&mut new, "NonStructuralSchema", "True", "Violations", message, now);
    } else {
        remove_condition(&mut new, "NonStructuralSchema");
    }
    match self::approval(definition) {
        Some((status, reason, message)) => {
            set_condition(&mut new, "KubernetesAPIApprovalPolicyConformant", status, reason, &message, now);
        }
        None => remove_condition(&mut new, "KubernetesAPIApprovalPolicyConformant"),
    }
    (new.get("status") != definition.get("status")).then_some(new)
}

/// Names that nobody else of the group has become this definition's; answers reason and message
/// of the last conflict.
fn accept_names<'a>(definition: &mut Value, taken: impl Iterator<Item = &'a Value>) -> Option<(&'static str, String)> {
    let mut resources = BTreeSet::new();
    let mut kinds = BTreeSet::new();
    for names in taken {
        let text = |name: &str| names.str_at(&[name]).unwrap_or_default().to_string();
        resources.extend([text("plural"), text("singular")]);
        resources.extend(names.list_at(&["shortNames"]).iter().filter_map(Value::as_str).map(str::to_string));
        kinds.extend([text("kind"), text("listKind")]);
    }
    let requested = definition.at(&["spec", "names"]).cloned().unwrap_or_default();
    let mut accepted = definition.at(&["status", "acceptedNames"]).cloned().unwrap_or_else(|| json!({}));
    let mut conflict = None;
    let fresh = |wanted: &str, have: &str, used: &BTreeSet<String>| {
        if wanted == have || !used.contains(wanted) {
            Ok(())
        } else {
            Err(format!("{} is already in use", quote(wanted)))
        }
    };
    let mut single = |name: &str, reason: &'static str, used: &BTreeSet<String>, accepted: &mut Value| {
        let wanted = requested.str_at(&[name]).unwrap_or_default();
        let have = accepted.str_at(&[name]).unwrap_or_default().to_string();
        match fresh(wanted, &have, used) {
            Ok(()) => {
                if !wanted.is_empty() {
                    accepted[name] = wanted.into();
                }
            }
            Err(message) => conflict = Some((reason, message)),
        }
    };
    single("plural", "PluralConflict", &resources, &mut accepted);
    single("singular", "SingularConflict", &resources, &mut accepted);
    let wanted = requested.list_at(&["shortNames"]).to_vec();
    let have = accepted.list_at(&["shortNames"]).to_vec();
    let mut short_conflict = None;
    if wanted != have {
        let problems: Vec<String> = wanted
            .iter()
            .filter(|name| !have.contains(name))
            .filter_map(|name| fresh(name.as_str().unwrap_or_default(), "", &resources).err())
            .collect();
        match problems.as_slice() {
            [] if wanted.is_empty() => {
                accepted.remove_at(&["shortNames"]);
            }
            [] => accepted["shortNames"] = json!(wanted),
            [one] => short_conflict = Some(("ShortNamesConflict", one.clone())),
            many => short_conflict = Some(("ShortNamesConflict", format!("[{}]", many.join(", ")))),
        }
    }
    single("kind", "KindConflict", &kinds, &mut accepted);
    single("listKind", "ListKindConflict", &kinds, &mut accepted);
    let last_is_kind = matches!(conflict, Some(("KindConflict" | "ListKindConflict", _)));
    if short_conflict.is_some() && !last_is_kind {
        conflict = short_conflict;
    }
    match requested.list_at(&["categories"]) {
        [] => {
            accepted.remove_at(&["categories"]);
        }
        categories => accepted["categories"] = json!(categories),
    }
    definition.set_at(&["status", "acceptedNames"], accepted);
    conflict
}

fn approval(definition: &Value) -> Option<(&'static str, &'static str, String)> {
    if !is_protected(definition.str_at(&["spec", "group"]).unwrap_or_default()) {
        return None;
    }
    let (state, message) = approval::state(definition);
    let (status, reason) = match state {
        State::Missing => ("False", "MissingAnnotation"),
        State::Invalid => ("False", "InvalidAnnotation"),
        State::Bypassed => ("False", "UnapprovedAnnotation"),
        State::Approved => ("True", "ApprovedAnnotation"),
    };
    Some((status, reason, message))
}

/// In upstream's order, which discovery shows.
const VERBS: [&str; 8] = ["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"];
/// Those of a definition that is being deleted.
const LAST_VERBS: [&str; 5] = ["delete", "deletecollection", "get", "list", "watch"];

/// The row of one version, as discovery and routing need it.
pub fn resource(definition: &Definition, at: usize, tree: &Value, terminating: bool) -> Resource {
    let names = tree.at(&["status", "acceptedNames"]).cloned().unwrap_or_default();
    let version = &definition.versions[at];
    let texts = |name: &str| -> Vec<_> {
        names.list_at(&[name]).iter().filter_map(Value::as_str).map(|text| text.to_string().into()).collect()
    };
    let verbs = |list: &[&'static str]| list.iter().map(|verb| (*verb).into()).collect::<Vec<_>>();
    let mut subresources = Vec::new();
    if version.status {
        subresources.push(Subresource {
            name: "status".into(),
            group: definition.group.clone().into(),
            version: version.name.clone().into(),
            kind: definition.kind.clone().into(),
            foreign: false,
            verbs: verbs(&["get", "patch", "update"]),
        });
    }
    if version.scale.is_some() {
        subresources.push(Subresource {
            name: "scale".into(),
            group: "autoscaling".into(),
            version: "v1".into(),
            kind: "Scale".into(),
            foreign: true,
            verbs: verbs(&["get", "patch", "update"]),
        });
    }
    Resource {
        group: definition.group.clone().into(),
        version: version.name.clone().into(),
        plural: definition.plural.clone().into(),
        singular: names.str_at(&["singular"]).unwrap_or_default().to_string().into(),
        kind: definition.kind.clone().into(),
        list_kind: definition.list_kind.clone().into(),
        short_names: texts("shortNames"),
        categories: texts("categories"),
        namespaced: definition.namespaced,
        verbs: verbs(if terminating { &LAST_VERBS } else { &VERBS }),
        subresources,
        custom: true,
        enabled_by_default: true,
        storage_version: Some((
            definition.group.clone().into(),
            definition.versions[definition.storage].name.clone().into(),
        )),
        storage_prefix: format!("{}/{}", definition.group, definition.plural).into(),
        selectable_fields: version.selectable_fields.iter().map(|field| field.clone().into()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(plural: &str, kind: &str) -> Value {
        json!({
            "metadata": {"name": format!("{plural}.example.com")},
            "spec": {"group": "example.com", "names": {
                "plural": plural, "singular": kind.to_lowercase(), "kind": kind, "listKind": format!("{kind}List")}},
            "status": {},
        })
    }

    const NOW: &str = "2026-01-01T00:00:00Z";

    #[test]
    fn accepts_names_once() {
        let first = compute(&definition("foos", "Foo"), std::iter::empty(), NOW).expect("a new status");
        assert!(is_true(&first, "NamesAccepted") && is_true(&first, "Established"));
        assert_eq!(first["status"]["acceptedNames"]["listKind"], "FooList");
        assert_eq!(compute(&first, std::iter::once(&first["status"]["acceptedNames"]), "2026-01-02T00:00:00Z"), None);

        let second = compute(&definition("bars", "Foo"), std::iter::once(&first["status"]["acceptedNames"]), NOW)
            .expect("a new status");
        assert!(!is_true(&second, "NamesAccepted") && !is_true(&second, "Established"));
        let condition = find(&second, "NamesAccepted").expect("a condition");
        assert_eq!(condition["reason"], "ListKindConflict");
        assert_eq!(condition["message"], "\"FooList\" is already in use");
        assert_eq!(second["status"]["acceptedNames"]["plural"], "bars");
    }

    #[test]
    fn protected_groups_need_approval() {
        for (annotation, status, reason) in [
            ("", "False", "MissingAnnotation"),
            ("unapproved, testing", "False", "UnapprovedAnnotation"),
            ("https://github.com/kubernetes/kubernetes/pull/1", "True", "ApprovedAnnotation"),
            ("because", "False", "InvalidAnnotation"),
        ] {
            let mut object = definition("foos", "Foo");
            object["spec"]["group"] = "x.k8s.io".into();
            if !annotation.is_empty() {
                object["metadata"]["annotations"] = json!({approval::ANNOTATION: annotation});
            }
            let found = super::approval(&object).expect("protected");
            assert_eq!((found.0, found.1), (status, reason));
        }
        assert!(super::approval(&definition("foos", "Foo")).is_none());
        assert!(!is_protected("notk8s.io") && is_protected("k8s.io"));
    }
}
