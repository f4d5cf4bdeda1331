//! `patches`, and the older `patchesStrategicMerge` and `patchesJson6902`.

use serde_json::{Value, json};

use super::Scope;
use crate::codec;
use crate::kustomize::kustomization::{Patch, Selector};
use crate::kustomize::merge::merge;
use crate::kustomize::resource::Resource;
use crate::kustomize::resources::Resources;
use crate::kustomize::{Error, Result};

/// `patchesStrategicMerge`: each is a patch, or the file of one.
pub fn strategic_merge(scope: &Scope<'_>, resources: &mut Resources) -> Result<()> {
    let Some(paths) = scope.kustomization.patches_strategic_merge.as_ref().filter(|paths| !paths.is_empty()) else {
        return Ok(());
    };
    let mut patches = Vec::new();
    for path in paths {
        let inline = Resource::parse(path);
        patches.extend(match inline {
            Ok(found) => found,
            Err(_) => scope.loader.text(path).and_then(|text| Resource::parse(&text))?,
        });
    }
    if patches.is_empty() {
        return Err(Error::new(format!("patch appears to be empty; files=[{}], Patch=", paths.join(" "))));
    }
    for patch in &patches {
        let at = resources.one_by_id(&patch.original_id())?;
        apply(&mut resources.0[at], patch)?;
        resources.drop_empty();
    }
    Ok(())
}

/// What a patch turned out to be.
enum Parsed {
    Strategic(Vec<Resource>),
    Json(Value),
}

/// `patches`.
pub fn patches(scope: &Scope<'_>, resources: &mut Resources) -> Result<()> {
    let mut parsed = Vec::new();
    for patch in &scope.kustomization.patches {
        parsed.push(parse(scope, patch)?);
    }
    for ((patches, source), patch) in parsed.iter().zip(&scope.kustomization.patches) {
        match (patches, &patch.target) {
            (Parsed::Strategic(patches), Some(target)) => targeted(resources, patches, target, source)?,
            (Parsed::Strategic(patches), None) => {
                for patch in patches {
                    let id = patch.original_id();
                    let at = resources.one_by_id(&id).map_err(|error| {
                        error.wrap(format!("no resource matches strategic merge patch {:?}", id.to_string()))
                    })?;
                    apply(&mut resources.0[at], patch)?;
                }
            }
            (Parsed::Json(operations), Some(target)) => {
                for at in resources.select(target)? {
                    resources.0[at].remember();
                    operate(&mut resources.0[at], operations)?;
                }
            }
            (Parsed::Json(_), None) => {
                return Err(Error::new(format!("must specify a target for JSON patch {source}")));
            }
        }
        resources.drop_empty();
    }
    Ok(())
}

fn parse(scope: &Scope<'_>, patch: &Patch) -> Result<(Parsed, String)> {
    let inline = patch.patch.trim();
    let (text, source) = match (inline.is_empty(), patch.path.is_empty()) {
        (true, true) => return Err(Error::new("must specify one of patch and path in\n")),
        (false, false) => return Err(Error::new("patch and path can't be set at the same time\n")),
        (false, true) => (inline.to_owned(), format!("[patch: {inline:?}]")),
        (true, false) => {
            let text = scope
                .loader
                .text(&patch.path)
                .map_err(|error| error.wrap(format!("failed to get the patch file from path({})", patch.path)))?;
            (text, format!("[path: {:?}]", patch.path))
        }
    };
    let operations = operations(&text).ok().filter(Value::is_array);
    match (Resource::parse(&text), operations) {
        (Ok(mut found), _) => {
            let options = patch.options.unwrap_or_default();
            found.iter_mut().for_each(|patch| patch.options = options);
            Ok((Parsed::Strategic(found), source))
        }
        (Err(_), Some(operations)) => Ok((Parsed::Json(operations), source)),
        (Err(_), None) => {
            let error = Error::new(format!("unable to parse SM or JSON patch from {source}"));
            Err(error.wrap(format!(
                "trouble configuring builtin PatchTransformer with config: `\n{}`",
                codec::yaml_text(&shown(patch))
            )))
        }
    }
}

/// A JSON patch: JSON when it begins like a list of JSON, else YAML.
fn operations(text: &str) -> Result<Value> {
    let parsed = if text.starts_with('[') {
        serde_json::from_str(text).map_err(|error| error.to_string())
    } else {
        apimachinery::yaml::parse(text).map_err(|error| error.to_string())
    };
    parsed.map_err(Error::new)
}

/// The entry as a tree, without what it does not say.
fn shown(patch: &Patch) -> Value {
    let mut tree = json!({});
    for (key, text) in [("patch", &patch.patch), ("path", &patch.path)] {
        if !text.is_empty() {
            tree[key] = json!(text);
        }
    }
    if let Some(target) = &patch.target {
        let parts = [
            ("group", &target.group),
            ("version", &target.version),
            ("kind", &target.kind),
            ("name", &target.name),
            ("namespace", &target.namespace),
            ("annotationSelector", &target.annotation_selector),
            ("labelSelector", &target.label_selector),
        ];
        let parts = parts.into_iter().filter(|(_, text)| !text.is_empty());
        tree["target"] =
            parts.map(|(key, text)| (key.to_owned(), json!(text))).collect::<serde_json::Map<_, _>>().into();
    }
    tree
}

/// One strategic patch for every object that a selector means, whatever the patch calls itself.
fn targeted(resources: &mut Resources, patches: &[Resource], target: &Selector, source: &str) -> Result<()> {
    let patch = match patches {
        [] => return Ok(()),
        [one] => one,
        _ => {
            return Err(Error::new(format!(
                "Multiple Strategic-Merge Patches in one `patches` entry is not allowed to set `patches.target` field: {source}"
            )));
        }
    };
    for at in resources.select(target)? {
        let resource = &mut resources.0[at];
        let mut copy = patch.clone();
        let api_version = resource.id().gvk.api_version();
        codec::set(&mut copy.object, &["apiVersion"], Value::String(api_version));
        apply(resource, &copy)?;
    }
    Ok(())
}

fn apply(resource: &mut Resource, patch: &Resource) -> Result<()> {
    let (kind, name, namespace) = (resource.kind().to_owned(), resource.name(), resource.namespace());
    let options = patch.options;
    if options.allow_name_change || options.allow_kind_change {
        resource.remember();
    }
    let Some(merged) = merge(&resource.object, &patch.object)? else {
        resource.object = Value::Null;
        return Ok(());
    };
    resource.object = merged;
    if resource.is_empty() {
        return Ok(());
    }
    if !options.allow_kind_change {
        resource.set_kind(&kind);
    }
    if !options.allow_name_change {
        resource.set_name(&name);
    }
    resource.set_namespace(&namespace);
    Ok(())
}

/// `patchesJson6902`.
pub fn json6902(scope: &Scope<'_>, resources: &mut Resources) -> Result<()> {
    for patch in scope.kustomization.patches_json6902.iter().flatten() {
        let Some(target) = patch.target.as_ref().filter(|target| !target.name.is_empty()) else {
            return Err(Error::new("must specify the target name"));
        };
        let text = match (patch.path.is_empty(), patch.patch.is_empty()) {
            (true, true) => return Err(Error::new("empty file path and empty jsonOp")),
            (false, false) => return Err(Error::new("must specify a file path or jsonOp, not both")),
            (false, true) => scope.loader.text(&patch.path)?,
            (true, false) => patch.patch.clone(),
        };
        let operations = operations(&text)?;
        if operations.as_array().is_none_or(Vec::is_empty) {
            return Err(Error::new(format!("patch appears to be empty; file={}, JsonOp={text}", patch.path)));
        }
        for at in resources.select(target)? {
            operate(&mut resources.0[at], &operations)?;
        }
    }
    Ok(())
}

fn operate(resource: &mut Resource, operations: &Value) -> Result<()> {
    apimachinery::patch::json::apply(&mut resource.object, operations).map_err(|error| Error::new(error.to_string()))
}
