//! `replacements`: a field of one object, written to fields of others.

use serde_json::Value;

use super::fieldspec::scalar_text;
use super::id::{Gvk, Id};
use super::kustomization::{FieldOptions, Replacement, Source, Target};
use super::replacement_path as path;
use super::resource::Resource;
use super::resources::{Matcher, Resources};
use super::transform::Scope;
use super::{Error, Result};

/// The field of a source or target that names none.
const DEFAULT_FIELD: &str = "metadata.name";

/// Carries them out in order.
pub fn replacements(scope: &Scope<'_>, resources: &mut Resources) -> Result<()> {
    for replacement in load(scope)? {
        let no_source = replacement.source.is_none() && replacement.source_value.is_none();
        let Some(targets) = replacement.targets.as_ref().filter(|_| !no_source) else {
            return Err(Error::new("replacements must specify a source and at least one target"));
        };
        let value = value_of(&replacement, resources)?;
        for target in targets {
            write(resources, target, &value)?;
        }
    }
    Ok(())
}

/// Those of the kustomization, files read in place.
fn load(scope: &Scope<'_>) -> Result<Vec<Replacement>> {
    let mut found = Vec::new();
    for replacement in &scope.kustomization.replacements {
        if replacement.path.is_empty() {
            found.push(replacement.clone());
            continue;
        }
        if replacement.source.is_some() || replacement.targets.is_some() {
            return Err(Error::new("cannot specify both path and inline replacement"));
        }
        let text = scope.loader.text(&replacement.path)?;
        let tree = apimachinery::yaml::parse(&text).map_err(|error| Error::new(error.to_string()))?;
        let list = match tree {
            Value::Array(items) => items,
            object @ Value::Object(_) => vec![object],
            _ => {
                return Err(Error::new("unsupported replacement type encountered within replacement path: invalid"));
            }
        };
        for item in list {
            found.push(serde_json::from_value(item).map_err(|error| Error::new(error.to_string()))?);
        }
    }
    Ok(found)
}

fn value_of(replacement: &Replacement, resources: &Resources) -> Result<Value> {
    let source = match (&replacement.source, &replacement.source_value) {
        (Some(_), Some(_)) => return Err(Error::new("value and resource selectors are mutually exclusive")),
        (_, Some(text)) => return Ok(Value::String(text.clone())),
        (Some(source), None) => source,
        (None, None) => return Err(Error::new("replacements must specify a source and at least one target")),
    };
    let selector = Id {
        gvk: Gvk::new(&source.group, &source.version, &source.kind),
        name: source.name.clone(),
        namespace: source.namespace.clone(),
    };
    let mut matches =
        resources.0.iter().filter(|resource| resource.all_ids().iter().any(|id| id.is_selected_by(&selector)));
    let Some(found) = matches.next() else {
        return Err(Error::new(format!("nothing selected by {}", shown(source, &selector))));
    };
    if matches.next().is_some() {
        return Err(Error::new(format!("multiple matches for selector {}", shown(source, &selector))));
    }
    let field = if source.field_path.is_empty() { DEFAULT_FIELD } else { &source.field_path };
    let missing = || Error::new(format!("fieldPath `{field}` is missing for replacement source {selector}"));
    let value = path::get(&found.object, &path::parse(field)).filter(|value| !value.is_null()).ok_or_else(missing)?;
    part(value, source.options.as_ref())
}

fn shown(source: &Source, selector: &Id) -> String {
    let mut parts = vec![selector.to_string()];
    if !source.field_path.is_empty() {
        parts.push(source.field_path.clone());
    }
    if let Some(options) = source.options.as_ref().filter(|options| !options.delimiter.is_empty() || options.create) {
        parts.push(format!("{}({}), create={}", options.delimiter, options.index, options.create));
    }
    parts.join(":")
}

/// The part of a source's value that its options ask for.
fn part(value: &Value, options: Option<&FieldOptions>) -> Result<Value> {
    let Some(options) = options.filter(|options| !options.delimiter.is_empty()) else { return Ok(value.clone()) };
    if value.is_object() || value.is_array() {
        return Err(Error::new("delimiter option can only be used with scalar nodes"));
    }
    let text = scalar_text(value);
    let parts: Vec<&str> = text.split(&options.delimiter).collect();
    usize::try_from(options.index)
        .ok()
        .and_then(|at| parts.get(at))
        .map(|part| Value::String((*part).to_owned()))
        .ok_or_else(|| Error::new(format!("options.index {} is out of bounds for value {text}", options.index)))
}

fn write(resources: &mut Resources, target: &Target, value: &Value) -> Result<()> {
    let Some(select) = &target.select else {
        return Err(Error::new("target must specify resources to select"));
    };
    let matcher = Matcher::new(select)?;
    let rejected =
        target.reject.iter().map(|selector| Ok((selector, Matcher::new(selector)?))).collect::<Result<Vec<_>>>()?;
    let default = [DEFAULT_FIELD.to_owned()];
    let fields: &[String] = if target.field_paths.is_empty() { &default } else { &target.field_paths };
    for resource in &mut resources.0 {
        let ids = resource.all_ids();
        let fits =
            |matcher: &Matcher, id: &Id| matcher.gvk(id) && matcher.name(&id.name) && matcher.namespace(&id.namespace);
        let by_metadata = rejected.iter().any(|(selector, matcher)| {
            !(selector.label_selector.is_empty() && selector.annotation_selector.is_empty())
                && matcher.metadata(resource)
        });
        let by_id = rejected
            .iter()
            .any(|(selector, matcher)| selector.id() != Id::default() && ids.iter().any(|id| fits(matcher, id)));
        if !matcher.metadata(resource) || by_metadata || by_id || !ids.iter().any(|id| fits(&matcher, id)) {
            continue;
        }
        write_to(resource, fields, target.options.as_ref(), value)?;
    }
    Ok(())
}

fn write_to(resource: &mut Resource, fields: &[String], options: Option<&FieldOptions>, value: &Value) -> Result<()> {
    let create = options.is_some_and(|options| options.create);
    for field in fields {
        let failed =
            format!("unable to find {}field {field:?} in replacement target", if create { "or create " } else { "" });
        let count = path::visit(&mut resource.object, &path::parse(field), create.then_some(value), &mut |place| {
            put(place, options, value)
        })
        .map_err(|error| error.wrap(&failed))?;
        if count == 0 {
            return Err(Error::new(failed));
        }
    }
    Ok(())
}

/// Writes a value; a scalar keeps its type where the text allows it.
fn put(place: &mut Value, options: Option<&FieldOptions>, value: &Value) -> Result<()> {
    let mut value = value.clone();
    if let Some(options) = options.filter(|options| !options.delimiter.is_empty()) {
        if place.is_object() || place.is_array() {
            return Err(Error::new("delimiter option can only be used with scalar nodes"));
        }
        let old = scalar_text(place);
        let new = scalar_text(&value);
        let mut parts: Vec<&str> = old.split(&options.delimiter).collect();
        match usize::try_from(options.index) {
            Err(_) => parts.insert(0, &new),
            Ok(at) if at >= parts.len() => parts.push(&new),
            Ok(at) => parts[at] = &new,
        }
        value = Value::String(parts.join(&options.delimiter));
    }
    let scalar = |value: &Value| !(value.is_object() || value.is_array());
    if !scalar(place) || !scalar(&value) {
        *place = value;
        return Ok(());
    }
    let text = scalar_text(&value);
    *place = match place {
        Value::Number(_) | Value::Bool(_) => {
            apimachinery::yaml::parse(&text).ok().filter(scalar).unwrap_or(Value::String(text))
        }
        _ => Value::String(text),
    };
    Ok(())
}
