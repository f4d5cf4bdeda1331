//! The kustomization file.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::fieldspec::FieldSpec;
use super::id::{Gvk, Id};
use super::loader::Loader;
use super::{Error, Result};

/// The names such a file may have.
const FILE_NAMES: [&str; 3] = ["kustomization.yaml", "kustomization.yml", "Kustomization"];

const KIND: &str = "Kustomization";
const VERSION: &str = "kustomize.config.k8s.io/v1beta1";
/// The kind of a component.
pub const COMPONENT: &str = "Component";
const COMPONENT_VERSION: &str = "kustomize.config.k8s.io/v1alpha1";

/// Texts by name.
pub type Texts = BTreeMap<String, String>;

/// What the file says. Fields are upstream's.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Kustomization {
    pub kind: String,
    pub api_version: String,
    pub metadata: Option<Value>,
    pub openapi: Option<Texts>,
    pub name_prefix: String,
    pub name_suffix: String,
    pub namespace: String,
    pub common_labels: Option<Texts>,
    pub labels: Vec<Label>,
    pub common_annotations: Texts,
    pub patches_strategic_merge: Option<Vec<String>>,
    #[serde(rename = "patchesJson6902")]
    pub patches_json6902: Option<Vec<Patch>>,
    pub patches: Vec<Patch>,
    pub images: Vec<Image>,
    pub image_tags: Option<Vec<Image>>,
    pub replacements: Vec<Replacement>,
    pub replicas: Vec<Replica>,
    pub vars: Option<Vec<Var>>,
    pub sort_options: Option<SortOptions>,
    pub resources: Vec<String>,
    pub components: Vec<String>,
    pub crds: Vec<String>,
    pub bases: Option<Vec<String>>,
    pub config_map_generator: Vec<GeneratorArgs>,
    pub secret_generator: Vec<GeneratorArgs>,
    pub helm_globals: Option<Value>,
    pub helm_charts: Vec<Value>,
    pub helm_chart_inflation_generator: Vec<Value>,
    pub generator_options: Option<GeneratorOptions>,
    pub configurations: Vec<String>,
    pub generators: Vec<String>,
    pub transformers: Vec<String>,
    pub validators: Vec<String>,
    pub build_metadata: Vec<String>,
}

/// An entry of `labels`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Label {
    pub pairs: Texts,
    pub include_selectors: bool,
    pub include_templates: bool,
    pub fields: Vec<FieldSpec>,
}

/// An entry of `patches` or `patchesJson6902`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Patch {
    pub path: String,
    pub patch: String,
    pub target: Option<Selector>,
    pub options: Option<PatchOptions>,
}

/// What a patch may change beyond its target's fields.
#[derive(Debug, Default, Clone, Copy, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct PatchOptions {
    pub allow_name_change: bool,
    pub allow_kind_change: bool,
}

/// Which objects; texts of names are regular expressions.
#[derive(Debug, Default, Clone, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Selector {
    pub group: String,
    pub version: String,
    pub kind: String,
    pub name: String,
    pub namespace: String,
    pub annotation_selector: String,
    pub label_selector: String,
}

impl Selector {
    /// Its parts that name an object.
    pub fn id(&self) -> Id {
        Id {
            gvk: Gvk::new(&self.group, &self.version, &self.kind),
            name: self.name.clone(),
            namespace: self.namespace.clone(),
        }
    }
}

/// An entry of `images`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Image {
    pub name: String,
    pub new_name: String,
    pub tag_suffix: String,
    pub new_tag: String,
    pub digest: String,
}

/// An entry of `replicas`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Replica {
    pub name: String,
    pub count: i64,
}

/// An entry of `replacements`, here or in the file that `path` names.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Replacement {
    pub path: String,
    pub source: Option<Source>,
    pub targets: Option<Vec<Target>>,
    pub source_value: Option<String>,
}

/// Where a replacement's value comes from.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Source {
    pub group: String,
    pub version: String,
    pub kind: String,
    pub name: String,
    pub namespace: String,
    pub field_path: String,
    pub options: Option<FieldOptions>,
}

/// Where a replacement's value goes.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Target {
    pub select: Option<Selector>,
    pub reject: Vec<Selector>,
    pub field_paths: Vec<String>,
    pub options: Option<FieldOptions>,
}

/// A part of a field.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct FieldOptions {
    pub delimiter: String,
    pub index: i64,
    pub encoding: String,
    pub create: bool,
}

/// An entry of `vars`.
#[derive(Debug, Default, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Var {
    pub name: String,
    pub objref: ObjectReference,
    pub fieldref: FieldReference,
}

/// The object of a var.
#[derive(Debug, Default, Clone, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct ObjectReference {
    pub api_version: String,
    pub group: String,
    pub version: String,
    pub kind: String,
    pub name: String,
    pub namespace: String,
}

/// The field of a var.
#[derive(Debug, Default, Clone, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct FieldReference {
    pub field_path: String,
}

/// The order of the output.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct SortOptions {
    pub order: String,
    pub legacy_sort_options: Option<LegacySortOptions>,
}

/// Kinds that come first and last.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct LegacySortOptions {
    pub order_first: Vec<String>,
    pub order_last: Vec<String>,
}

/// An entry of `configMapGenerator` or `secretGenerator`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct GeneratorArgs {
    pub name: String,
    pub namespace: String,
    pub behavior: String,
    pub literals: Vec<String>,
    pub files: Vec<String>,
    pub envs: Vec<String>,
    pub env: String,
    pub options: Option<GeneratorOptions>,
    /// Of a Secret.
    #[serde(rename = "type")]
    pub secret_type: String,
}

/// What generated objects have in common.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct GeneratorOptions {
    pub labels: Texts,
    pub annotations: Texts,
    pub disable_name_suffix_hash: bool,
    pub immutable: bool,
}

impl Kustomization {
    /// Reads the file of a folder and gives it with its name. `warn` gets a line for each deprecated field.
    ///
    /// # Errors
    /// When there is none, or several, or it is malformed.
    pub fn load(loader: &Loader, warn: &mut dyn FnMut(&str)) -> Result<(Self, &'static str)> {
        let found: Vec<(&'static str, Vec<u8>)> =
            FILE_NAMES.into_iter().filter_map(|name| Some((name, loader.bytes(name).ok()?))).collect();
        let root = loader.root().display();
        let (name, bytes) = match found.as_slice() {
            [] => {
                return Err(Error::new(format!(
                    "unable to find one of 'kustomization.yaml', 'kustomization.yml' or 'Kustomization' in directory '{root}'"
                )));
            }
            [one] => one,
            _ => return Err(Error::new(format!("Found multiple kustomization files under: {root}\n"))),
        };
        let mut read = Self::parse(&String::from_utf8_lossy(bytes))?;
        let empty = read.is_empty();
        read.warn(warn);
        read.fix();
        if empty {
            return Err(Error::new("kustomization.yaml is empty"));
        }
        let errors = read.enforce();
        if !errors.is_empty() {
            return Err(Error::new(format!("Failed to read kustomization file under {root}:\n{}", errors.join("\n"))));
        }
        Ok((read, name))
    }

    fn parse(text: &str) -> Result<Self> {
        let invalid = |why: String| Error::new(format!("invalid Kustomization: {why}"));
        let tree = apimachinery::yaml::parse(text).map_err(|error| invalid(error.to_string()))?;
        match without_nulls(tree) {
            Value::Null => Ok(Kustomization::default()),
            tree => serde_json::from_value(tree).map_err(|error| invalid(go_words(&error.to_string()))),
        }
    }

    /// Whether it says nothing but what it is.
    fn is_empty(&self) -> bool {
        let shown =
            format!("{:?}", Kustomization { kind: String::new(), api_version: String::new(), ..Default::default() });
        let (kind, version) = (format!("kind: {:?}", self.kind), format!("api_version: {:?}", self.api_version));
        let mine = format!("{self:?}").replacen(&kind, "kind: \"\"", 1).replacen(&version, "api_version: \"\"", 1);
        mine == shown
    }

    fn warn(&self, warn: &mut dyn FnMut(&str)) {
        const FIX: &str = "Run 'kustomize edit fix' to update your Kustomization automatically.";
        let deprecated = [
            (self.bases.is_some(), "bases", "resources", ""),
            (self.common_labels.is_some(), "commonLabels", "labels", ""),
            (self.image_tags.is_some(), "imageTags", "images", ""),
            (self.patches_json6902.is_some(), "patchesJson6902", "patches", ""),
            (self.patches_strategic_merge.is_some(), "patchesStrategicMerge", "patches", ""),
            (self.vars.is_some(), "vars", "replacements", "[EXPERIMENTAL] "),
        ];
        for (_, old, new, note) in deprecated.into_iter().filter(|(used, ..)| *used) {
            warn(&format!("# Warning: '{old}' is deprecated. Please use '{new}' instead. {note}{FIX}"));
        }
    }

    /// Moves what deprecated fields hold to where it belongs now.
    fn fix(&mut self) {
        if self.kind.is_empty() {
            self.kind = KIND.into();
        }
        if self.api_version.is_empty() {
            self.api_version = if self.kind == COMPONENT { COMPONENT_VERSION } else { VERSION }.into();
        }
        self.resources.extend(self.bases.take().unwrap_or_default());
        self.images.extend(self.image_tags.take().unwrap_or_default());
        for generator in self.config_map_generator.iter_mut().chain(&mut self.secret_generator) {
            if !generator.env.is_empty() {
                generator.envs.push(std::mem::take(&mut generator.env));
            }
        }
    }

    fn enforce(&self) -> Vec<String> {
        let mut errors = Vec::new();
        if self.kind != KIND && self.kind != COMPONENT {
            errors.push(format!("kind should be {KIND} or {COMPONENT}"));
        }
        let required = if self.kind == COMPONENT { COMPONENT_VERSION } else { VERSION };
        if self.api_version != required {
            errors.push(format!("apiVersion for {} should be {required}", self.kind));
        }
        errors
    }
}

/// Null is absent, as Go reads it.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(
            map.into_iter()
                .filter(|(_, value)| !value.is_null())
                .map(|(key, value)| (key, without_nulls(value)))
                .collect(),
        ),
        Value::Array(items) => Value::Array(items.into_iter().map(without_nulls).collect()),
        other => other,
    }
}

/// What serde says, as Go says it where both know the case.
fn go_words(text: &str) -> String {
    match text.strip_prefix("unknown field `").and_then(|rest| rest.split_once('`')) {
        Some((field, _)) => format!("json: unknown field {field:?}"),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::Kustomization;

    #[test]
    fn reading() {
        let read = |text: &str| Kustomization::parse(text).map(|read| read.resources.len());
        assert_eq!(read("resources: [a, b]\ncommonAnnotations:\n"), Ok(2));
        assert_eq!(
            read("resource: [a]").expect_err("a misspelt field").0,
            "invalid Kustomization: json: unknown field \"resource\""
        );
        assert!(Kustomization::parse("kind: Kustomization\napiVersion: x").expect("reads").is_empty());
        assert!(!Kustomization::parse("namePrefix: a").expect("reads").is_empty());
    }

    #[test]
    fn deprecated_fields_are_told_and_moved() {
        let mut read = Kustomization::parse("bases: [a]\nresources: [b]\nvars: []\n").expect("reads");
        let mut told = Vec::new();
        read.warn(&mut |line| told.push(line.to_owned()));
        read.fix();
        assert_eq!(read.resources, ["b", "a"]);
        assert_eq!(told.len(), 2);
        assert!(
            told[0].starts_with("# Warning: 'bases' is deprecated. Please use 'resources' instead. Run"),
            "{told:?}"
        );
        assert_eq!(read.enforce(), Vec::<String>::new());
    }
}
