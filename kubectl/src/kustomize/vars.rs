//! `vars`: `$(NAME)` in the usual places, replaced by fields of objects.

use std::collections::BTreeMap;

use serde_json::Value;

use super::config::Config;
use super::fieldspec::scalar_text;
use super::id::{Gvk, Id};
use super::kustomization::Var;
use super::replacement_path;
use super::resources::Resources;
use super::{Error, Result};

/// Notes on objects which vars they are for.
///
/// # Errors
/// When an object cannot be told.
pub fn attach(resources: &mut Resources, vars: &[Var]) -> Result<()> {
    for var in vars {
        let target = target(var);
        let exact = !target.namespace.is_empty() || target.gvk.is_cluster_scoped();
        let found = resources
            .by_any_id(|id| if exact { id.same(&target) } else { id.name == target.name && id.gvk == target.gvk });
        match found.as_slice() {
            [] => {}
            [one] => resources.0[*one].vars.push(var.name.clone()),
            _ => {
                return Err(Error::new(format!(
                    "found {} resId matches for var {} (unable to disambiguate)",
                    found.len(),
                    var.name
                )));
            }
        }
    }
    Ok(())
}

fn target(var: &Var) -> Id {
    let object = &var.objref;
    let (group, version) = match object.api_version.split_once('/') {
        Some(parts) => parts,
        None if object.api_version.is_empty() => (object.group.as_str(), object.version.as_str()),
        None => (object.group.as_str(), object.api_version.as_str()),
    };
    Id { gvk: Gvk::new(group, version, &object.kind), name: object.name.clone(), namespace: object.namespace.clone() }
}

/// Adds vars; two of one name must be one.
///
/// # Errors
/// When they are not.
pub fn merge(into: &mut Vec<Var>, more: &[Var]) -> Result<()> {
    for var in more {
        match into.iter().find(|known| known.name == var.name) {
            Some(known) if known == var => {}
            Some(_) => return Err(Error::new(format!("var '{}' already encountered", var.name))),
            None => into.push(var.clone()),
        }
    }
    Ok(())
}

/// Replaces them everywhere. `warn` gets a line about those that stand nowhere.
///
/// # Errors
/// When a var has no object, or its object not the field.
pub fn resolve(resources: &mut Resources, vars: &[Var], config: &Config, warn: &mut dyn FnMut(&str)) -> Result<()> {
    if vars.is_empty() {
        return Ok(());
    }
    let mut values = BTreeMap::new();
    for var in vars {
        let field = if var.fieldref.field_path.is_empty() { "metadata.name" } else { &var.fieldref.field_path };
        let Some(holder) = resources.0.iter().find(|resource| resource.vars.contains(&var.name)) else {
            return Err(Error::new(format!(
                "var '{}' cannot be mapped to a field in the set of known resources",
                var.name
            )));
        };
        let path = replacement_path::parse(&field.replace('[', ".").replace(']', ""));
        let Some(value) = replacement_path::get(&holder.object, &path) else {
            return Err(Error::new(format!(
                "field specified in var '{}' not found in corresponding resource",
                var.name
            )));
        };
        values.insert(var.name.as_str(), (value.clone(), 0_usize));
    }
    for resource in &mut resources.0 {
        for spec in &config.var_reference {
            spec.apply(&mut resource.object, None, &mut |value| set(value, &mut values))?;
        }
    }
    let unused: Vec<&str> = values.iter().filter(|(_, (_, count))| *count == 0).map(|(name, _)| *name).collect();
    if !unused.is_empty() {
        warn(&format!("well-defined vars that were never replaced: {}", unused.join(",")));
    }
    Ok(())
}

type Values<'a> = BTreeMap<&'a str, (Value, usize)>;

fn set(value: &mut Value, values: &mut Values<'_>) -> Result<()> {
    match value {
        Value::String(text) => *value = expand(text, values),
        Value::Object(map) => {
            for value in map.values_mut() {
                if let Value::String(text) = value {
                    *value = expand(text, values);
                }
            }
        }
        Value::Array(items) => {
            for item in items {
                match item {
                    Value::String(text) => *item = expand(text, values),
                    _ => return Err(Error::new("invalid value type expect a string")),
                }
            }
        }
        _ => {}
    }
    Ok(())
}

/// A text with its references replaced; one that is nothing but a reference takes the value's type.
fn expand(text: &str, values: &mut Values<'_>) -> Value {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
            continue;
        }
        let name = rest.strip_prefix('(').and_then(|inner| inner.split_once(')'));
        let Some((name, after)) = name else {
            out.push('$');
            continue;
        };
        match values.get_mut(name) {
            Some((value, count)) if !(value.is_object() || value.is_array() || value.is_null()) => {
                *count += 1;
                if text == format!("$({name})") {
                    return value.clone();
                }
                out.push_str(&scalar_text(value));
            }
            _ => out.push_str(&format!("$({name})")),
        }
        rest = after;
    }
    out.push_str(rest);
    Value::String(out)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::expand;

    #[test]
    fn references() {
        let mut values = [("A", (json!("x"), 0)), ("N", (json!(5), 0))].into();
        for (text, expected) in [
            ("$(A)-$(A)", json!("x-x")),
            ("$(N)", json!(5)),
            ("p$(N)", json!("p5")),
            ("$(NO)$", json!("$(NO)$")),
            ("$$(A)", json!("$(A)")),
            ("$x", json!("$x")),
        ] {
            assert_eq!(expand(text, &mut values), expected, "{text}");
        }
        assert_eq!((values["A"].1, values["N"].1), (2, 2));
    }
}
