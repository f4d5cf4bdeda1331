//! `labels`, `commonLabels` and `commonAnnotations`.

use super::{Scope, set_entry};
use crate::kustomize::Result;
use crate::kustomize::fieldspec::{FieldSpec, Leaf, merge_all};
use crate::kustomize::kustomization::Texts;
use crate::kustomize::resources::Resources;

/// Labels, each entry of `labels` to its own fields, then those that selectors get too.
pub fn labels(scope: &Scope<'_>, resources: &mut Resources) -> Result<()> {
    let config = scope.config;
    for label in &scope.kustomization.labels {
        let merging = |result: Result<()>| result.map_err(|error| error.wrap("failed to merge labels"));
        let mut specs = label.fields.clone();
        merging(merge_all(&mut specs, &config.labels))?;
        if label.include_selectors {
            merging(merge_all(&mut specs, &config.common_labels))?;
        } else {
            if label.include_templates {
                merge_all(&mut specs, &config.template_labels)
                    .map_err(|error| error.wrap("failed to merge template fieldSpec"))?;
            }
            merging(merge_all(&mut specs, &[FieldSpec::anywhere("metadata/labels", true)]))?;
        }
        set(resources, &label.pairs, &specs)?;
    }
    match &scope.kustomization.common_labels {
        Some(labels) => set(resources, labels, &config.common_labels),
        None => Ok(()),
    }
}

/// Annotations.
pub fn annotations(scope: &Scope<'_>, resources: &mut Resources) -> Result<()> {
    set(resources, &scope.kustomization.common_annotations, &scope.config.common_annotations)
}

/// Sets texts in the maps of some fields.
pub fn set(resources: &mut Resources, texts: &Texts, specs: &[FieldSpec]) -> Result<()> {
    for resource in &mut resources.0 {
        for (key, text) in texts {
            for spec in specs {
                spec.apply(&mut resource.object, Some(Leaf::Map), &mut |map| set_entry(map, key, text))?;
            }
        }
    }
    Ok(())
}
