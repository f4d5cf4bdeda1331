//! `replicas`.

use super::Scope;
use crate::kustomize::fieldspec::{Leaf, require};
use crate::kustomize::resources::Resources;
use crate::kustomize::{Error, Result};

/// Sets the replicas of objects by name.
pub fn replicas(scope: &Scope<'_>, resources: &mut Resources) -> Result<()> {
    let specs = &scope.config.replicas;
    for replica in &scope.kustomization.replicas {
        let mut found = false;
        for spec in specs {
            let gvk = spec.gvk();
            for at in resources.by_any_id(|id| id.name == replica.name && id.gvk.is_selected(&gvk)) {
                found = true;
                spec.apply(&mut resources.0[at].object, Some(Leaf::Scalar), &mut |field| {
                    require(field, "ScalarNode")?;
                    *field = replica.count.into();
                    Ok(())
                })?;
            }
        }
        if !found {
            let kinds: Vec<String> = specs.iter().map(|spec| spec.gvk().to_string()).collect();
            return Err(Error::new(format!(
                "resource with name {} does not match a config with the following GVK [{}]",
                replica.name,
                kinds.join(" ")
            )));
        }
    }
    Ok(())
}
