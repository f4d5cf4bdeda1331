//! `namePrefix`, `nameSuffix`, and the hashes of generated objects.

use super::Scope;
use crate::kustomize::fieldspec::{FieldSpec, Leaf, scalar_text, set_scalar};
use crate::kustomize::id::Id;
use crate::kustomize::resource::Resource;
use crate::kustomize::resources::Resources;
use crate::kustomize::{Result, generators};

/// Group and kind whose names mean something outside the cluster's namespaces.
const KEPT: &[(&str, &str)] =
    &[("", "CustomResourceDefinition"), ("apiregistration.k8s.io", "APIService"), ("", "Namespace")];

fn is_kept(id: &Id) -> bool {
    KEPT.iter().any(|(group, kind)| (group.is_empty() || *group == id.gvk.group) && *kind == id.gvk.kind)
}

/// `namePrefix`.
pub fn prefix(scope: &Scope<'_>, resources: &mut Resources) -> Result<()> {
    let prefix = &scope.kustomization.name_prefix;
    rename(
        resources,
        prefix,
        &scope.config.name_prefix,
        |resource| resource.prefixes.push(prefix.clone()),
        |name| format!("{prefix}{name}"),
    )
}

/// `nameSuffix`.
pub fn suffix(scope: &Scope<'_>, resources: &mut Resources) -> Result<()> {
    let suffix = &scope.kustomization.name_suffix;
    rename(
        resources,
        suffix,
        &scope.config.name_suffix,
        |resource| resource.suffixes.push(suffix.clone()),
        |name| format!("{name}{suffix}"),
    )
}

fn rename(
    resources: &mut Resources,
    affix: &str,
    specs: &[FieldSpec],
    note: impl Fn(&mut Resource),
    new_name: impl Fn(&str) -> String,
) -> Result<()> {
    if affix.is_empty() {
        return Ok(());
    }
    for resource in &mut resources.0 {
        let id = resource.original_id();
        if is_kept(&id) {
            continue;
        }
        for spec in specs.iter().filter(|spec| id.gvk.is_selected(&spec.gvk())) {
            if spec.path == "metadata/name" {
                note(resource);
                resource.remember();
            }
            spec.apply(&mut resource.object, Some(Leaf::Scalar), &mut |field| {
                let name = new_name(&scalar_text(field));
                set_scalar(field, &name)
            })?;
        }
    }
    Ok(())
}

/// Ends the names of generated objects in hashes.
pub fn add_hashes(resources: &mut Resources) {
    for resource in resources.0.iter_mut().filter(|resource| resource.hashed) {
        let name = format!("{}-{}", resource.name(), generators::hash(&resource.object));
        resource.remember();
        resource.set_name(&name);
    }
}
