//! `namespace`.

use super::Scope;
use crate::kustomize::fieldspec::{FieldSpec, Leaf, scalar_text, set_scalar};
use crate::kustomize::id::Gvk;
use crate::kustomize::resources::Resources;
use crate::kustomize::{Error, Result};

const METADATA_NAMESPACE: &str = "metadata/namespace";
const METADATA_NAME: &str = "metadata/name";

/// Puts every object that has a namespace into one, with the subjects called `default` of bindings.
pub fn namespace(scope: &Scope<'_>, resources: &mut Resources) -> Result<()> {
    let namespace = &scope.kustomization.namespace;
    if namespace.is_empty() {
        return Ok(());
    }
    for at in 0..resources.0.len() {
        let resource = &mut resources.0[at];
        if resource.is_empty() {
            continue;
        }
        resource.remember();
        let object = &mut resource.object;
        let gvk = Gvk::of(object);
        let mut set = |field: &mut serde_json::Value| set_scalar(field, namespace);
        if !gvk.is_cluster_scoped() {
            FieldSpec::anywhere(METADATA_NAMESPACE, true).apply(object, Some(Leaf::Scalar), &mut set)?;
        }
        let binding = matches!(gvk.kind.as_str(), "RoleBinding" | "ClusterRoleBinding");
        if binding && let Some(subjects) = object.get_mut("subjects").and_then(serde_json::Value::as_array_mut) {
            let default =
                |subject: &serde_json::Value| subject.get("name").is_some_and(|name| scalar_text(name) == "default");
            for subject in subjects.iter_mut().filter(|subject| default(subject)) {
                subject["namespace"] = serde_json::Value::String(namespace.clone());
            }
        }
        for spec in &scope.config.namespace {
            // The namespace itself is set above; the name only of what core calls a Namespace.
            let skipped = spec.path == METADATA_NAMESPACE
                || (spec.path == METADATA_NAME && gvk.api_version() != "v1")
                || (binding && spec.path == "subjects/namespace" && spec.kind.ends_with("RoleBinding"));
            if !skipped {
                spec.apply(object, Some(Leaf::Scalar), &mut set)
                    .map_err(|error| error.wrap("namespace transformation failed"))?;
            }
        }
        let id = resource.id();
        let same: Vec<String> =
            resources.0.iter().filter(|other| other.id().same(&id)).map(|other| other.object.to_string()).collect();
        if same.len() != 1 {
            return Err(Error::new(format!("namespace transformation produces ID conflict: [{}]", same.join(" "))));
        }
    }
    Ok(())
}
