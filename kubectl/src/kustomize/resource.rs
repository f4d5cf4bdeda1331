//! One object on its way, with what the build remembers of it.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::fieldspec;
use super::id::{Gvk, Id};
use super::kustomization::PatchOptions;
use super::{Error, Result};
use crate::codec;

/// Keeps an object out of the output.
const LOCAL_CONFIG: &str = "config.kubernetes.io/local-config";
/// Where an object came from.
const ORIGIN: &str = "config.kubernetes.io/origin";

/// What a generated object does to one that is there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Behavior {
    #[default]
    Unspecified,
    Create,
    Replace,
    Merge,
}

impl Behavior {
    pub fn parse(text: &str) -> Self {
        match text {
            "create" => Behavior::Create,
            "replace" => Behavior::Replace,
            "merge" => Behavior::Merge,
            _ => Behavior::Unspecified,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Behavior::Unspecified => "unspecified",
            Behavior::Create => "create",
            Behavior::Replace => "replace",
            Behavior::Merge => "merge",
        }
    }
}

/// A former identity, all but group and version, which do not change.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Former {
    kind: String,
    name: String,
    namespace: String,
}

/// An object and its history.
#[derive(Debug, Clone, Default)]
pub struct Resource {
    pub object: Value,
    former: Vec<Former>,
    pub prefixes: Vec<String>,
    pub suffixes: Vec<String>,
    pub behavior: Behavior,
    /// Its name ends in a hash of its content.
    pub hashed: bool,
    /// What it may change when it is a patch.
    pub options: PatchOptions,
    /// The vars that take their values from it.
    pub vars: Vec<String>,
    /// Where it came from, as shown with `originAnnotations`.
    pub origin: Option<String>,
}

impl Resource {
    pub fn new(object: Value) -> Self {
        Resource { object, ..Resource::default() }
    }

    /// The objects of a manifest; lists are taken apart.
    ///
    /// # Errors
    /// When it is not YAML, or an object lacks kind or name.
    pub fn parse(text: &str) -> Result<Vec<Resource>> {
        let documents = apimachinery::yaml::parse_documents_core(text)
            .map_err(|error| Error::new(format!("MalformedYAMLError: {error}")))?;
        let mut waiting: std::collections::VecDeque<Value> = documents.into_iter().filter(|d| !is_empty(d)).collect();
        waiting.iter().try_for_each(validate)?;
        let mut found = Vec::new();
        while let Some(object) = waiting.pop_front() {
            let kind = codec::text(&object, &["kind"]).to_owned();
            match object.get("items") {
                Some(items) if kind.ends_with("List") => match items {
                    Value::Array(items) => {
                        items.iter().try_for_each(validate)?;
                        waiting.extend(items.iter().filter(|item| !is_empty(item)).cloned());
                    }
                    Value::Null => {}
                    other => {
                        return Err(Error::new(format!(
                            "expected array in {kind}/items, but found {}",
                            go_type(other)
                        )));
                    }
                },
                _ => found.push(Resource::new(object)),
            }
        }
        Ok(found)
    }

    pub fn id(&self) -> Id {
        Id::of(&self.object)
    }

    /// Every identity it had before, oldest first.
    pub fn former_ids(&self) -> Vec<Id> {
        let gvk = Gvk::of(&self.object);
        self.former
            .iter()
            .map(|former| Id {
                gvk: Gvk { kind: former.kind.clone(), ..gvk.clone() },
                name: former.name.clone(),
                namespace: former.namespace.clone(),
            })
            .collect()
    }

    /// Every identity it has or had, the present one last.
    pub fn all_ids(&self) -> Vec<Id> {
        let mut ids = self.former_ids();
        ids.push(self.id());
        ids
    }

    /// The first identity it had.
    pub fn original_id(&self) -> Id {
        self.former_ids().into_iter().next().unwrap_or_else(|| self.id())
    }

    /// Notes its identity before a change.
    pub fn remember(&mut self) {
        let id = self.id();
        let namespace = id.effective_namespace().to_owned();
        self.former.push(Former { kind: id.gvk.kind, name: id.name, namespace });
    }

    pub fn kind(&self) -> &str {
        codec::text(&self.object, &["kind"])
    }

    pub fn set_kind(&mut self, kind: &str) {
        codec::set(&mut self.object, &["kind"], Value::String(kind.to_owned()));
    }

    pub fn name(&self) -> String {
        self.id().name
    }

    pub fn set_name(&mut self, name: &str) {
        codec::set(&mut self.object, &["metadata", "name"], Value::String(name.to_owned()));
    }

    pub fn namespace(&self) -> String {
        self.id().namespace
    }

    /// An empty one removes the field.
    pub fn set_namespace(&mut self, namespace: &str) {
        if namespace.is_empty() {
            codec::remove(&mut self.object, &["metadata", "namespace"]);
        } else {
            codec::set(&mut self.object, &["metadata", "namespace"], Value::String(namespace.to_owned()));
        }
    }

    /// A map of its metadata, as texts.
    pub fn texts(&self, path: &[&str]) -> BTreeMap<String, String> {
        match codec::at(&self.object, path) {
            Some(Value::Object(map)) => {
                map.iter().map(|(key, value)| (key.clone(), fieldspec::scalar_text(value))).collect()
            }
            _ => BTreeMap::new(),
        }
    }

    /// Replaces such a map; an empty one goes.
    pub fn set_texts(&mut self, path: &[&str], texts: BTreeMap<String, String>) {
        if texts.is_empty() {
            codec::remove(&mut self.object, path);
            return;
        }
        let map: Map<String, Value> = texts.into_iter().map(|(key, value)| (key, Value::String(value))).collect();
        codec::set(&mut self.object, path, Value::Object(map));
    }

    /// Whether nothing is left of it.
    pub fn is_empty(&self) -> bool {
        is_empty(&self.object)
    }

    /// Whether it is there for the build alone.
    pub fn is_local(&self) -> bool {
        match codec::at(&self.object, &["metadata", "annotations", LOCAL_CONFIG]) {
            Some(value) => fieldspec::scalar_text(value) != "false",
            None => false,
        }
    }

    /// Takes the identity, the metadata and the history of the object it replaces.
    pub fn inherit(&mut self, old: &Resource) {
        for path in [["metadata", "labels"], ["metadata", "annotations"]] {
            let mut merged = old.texts(&path);
            merged.extend(self.texts(&path));
            self.set_texts(&path, merged);
        }
        self.set_name(&old.name());
        self.set_namespace(&old.namespace());
        self.former = old.former.clone();
        self.prefixes = old.prefixes.clone();
        self.suffixes = old.suffixes.clone();
        self.behavior = old.behavior;
        self.hashed = self.hashed && old.hashed;
        self.options = old.options;
        self.vars = old.vars.clone();
    }

    /// Adds the data of another that this one has not.
    pub fn inherit_data(&mut self, old: &Resource) {
        for field in ["data", "binaryData"] {
            let mut merged = old.texts(&[field]);
            merged.extend(self.texts(&[field]));
            self.set_texts(&[field], merged);
        }
    }

    /// The object as it is printed.
    pub fn finish(mut self, show_origin: bool) -> Value {
        let path = ["metadata", "annotations"];
        let mut annotations = match codec::at(&self.object, &path) {
            Some(Value::Object(map)) => map.clone(),
            _ => Map::new(),
        };
        annotations.remove(ORIGIN);
        if show_origin && let Some(origin) = self.origin.take() {
            annotations.insert(ORIGIN.to_owned(), Value::String(origin));
        }
        if annotations.is_empty() {
            codec::remove(&mut self.object, &path);
        } else {
            codec::set(&mut self.object, &path, Value::Object(annotations));
        }
        self.object
    }
}

fn is_empty(object: &Value) -> bool {
    match object {
        Value::Null => true,
        Value::Object(map) => map.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::String(text) => text.is_empty(),
        _ => false,
    }
}

/// Refuses what has no kind or no name.
fn validate(object: &Value) -> Result<()> {
    if is_empty(object) {
        return Ok(());
    }
    if !object.is_object() {
        return Err(fieldspec::require(object, "MappingNode").err().unwrap_or_else(|| Error::new("not an object")));
    }
    let resource = Resource::new(object.clone());
    let kind = resource.kind();
    let shown = |map: BTreeMap<String, String>| {
        let pairs: Vec<String> = map.iter().map(|(key, value)| format!("{key}:{value}")).collect();
        format!("map[{}]", pairs.join(" "))
    };
    let meta = || {
        format!(
            "{{{{{} {kind}}} {{{{{} {}}} {} {}}}}}",
            codec::text(object, &["apiVersion"]),
            resource.name(),
            resource.namespace(),
            shown(resource.texts(&["metadata", "labels"])),
            shown(resource.texts(&["metadata", "annotations"]))
        )
    };
    if kind.is_empty() {
        return Err(Error::new(format!("missing kind in object {}", meta())));
    }
    if !kind.ends_with("List") && resource.name().is_empty() {
        return Err(Error::new(format!("missing metadata.name in object {}", meta())));
    }
    Ok(())
}

fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Object(_) => "map[string]interface {}",
        Value::Array(_) => "[]interface {}",
        Value::String(_) => "string",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int",
        Value::Null => "<nil>",
    }
}
