//! A CustomResourceDefinition, read for serving.

use std::sync::{Arc, OnceLock};

use api::custom::columns::Columns;
use api::custom::rules::Programs;
use api::custom::{Node, default, types};
use apimachinery::object::ObjectExt as _;
use apimachinery::schema::{SharedType, TypeRef};
use arc_swap::ArcSwap;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::convert::Reviewer;
use crate::cache::Entry;

/// Paths of the scale subresource, as keys from the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scale {
    /// As written: `.spec.replicas`.
    pub spec_replicas_path: String,
    pub status_replicas_path: String,
    pub label_selector_path: Option<String>,
}

impl Scale {
    /// The keys of one of the paths.
    pub fn keys(path: &str) -> Vec<&str> {
        path.strip_prefix('.').unwrap_or(path).split('.').collect()
    }
}

/// One version of a definition.
pub struct Version {
    pub name: String,
    pub served: bool,
    /// There is a status subresource.
    pub status: bool,
    pub scale: Option<Scale>,
    /// What users of the version are told.
    pub deprecation: Option<String>,
    /// JSON paths that field selectors may name, without the leading dot.
    pub selectable_fields: Vec<String>,
    compiled: OnceLock<Compiled>,
}

/// What is made of a version's schema on first use.
struct Compiled {
    node: Option<Node>,
    columns: Columns,
    ty: OnceLock<SharedType>,
    programs: OnceLock<Option<Programs>>,
}

/// Where a webhook converts.
pub struct Webhook {
    /// `spec.conversion.webhook.clientConfig`.
    pub client_config: Value,
    pub review_versions: Vec<String>,
    pub(super) reviewer: Arc<dyn Reviewer>,
}

/// A definition whose names were accepted.
pub struct Definition {
    /// `plural.group`.
    pub name: String,
    pub uid: String,
    pub group: String,
    pub kind: String,
    pub list_kind: String,
    pub plural: String,
    pub namespaced: bool,
    /// Unknown fields are kept everywhere (definitions from before v1).
    pub preserve_unknown: bool,
    pub versions: Vec<Version>,
    /// Which of the versions is stored.
    pub storage: usize,
    pub webhook: Option<Webhook>,
    /// Cancelled when these rows are served no more: watches end then.
    pub ended: CancellationToken,
    /// Equal for definitions that serve the same in the same way.
    pub fingerprint: u64,
    source: ArcSwap<Entry>,
}

impl Definition {
    /// Reads a stored definition; `None` while it has no accepted names, or is malformed.
    pub fn read(entry: &Arc<Entry>, tree: &Value, reviewer: &Arc<dyn Reviewer>) -> Option<Definition> {
        let spec = tree.get("spec")?;
        let names = tree.at(&["status", "acceptedNames"])?;
        let text = |value: &Value, name: &str| value.get(name).and_then(Value::as_str).map(str::to_string);
        let filled = |name: &str| text(names, name).filter(|text| !text.is_empty());
        let group = text(spec, "group")?;
        let versions = spec.get("versions")?.as_array()?;
        let kind = filled("kind")?;
        let storage = versions.iter().position(|version| version.get("storage") == Some(&Value::Bool(true)))?;
        let read: Option<Vec<Version>> =
            versions.iter().map(|version| read_version(version, &group, &kind, versions)).collect();
        let conversion = spec.get("conversion");
        let webhook = conversion.filter(|conversion| conversion.str_at(&["strategy"]) == Some("Webhook")).map(|c| {
            let versions = c.list_at(&["webhook", "conversionReviewVersions"]);
            Webhook {
                client_config: c.at(&["webhook", "clientConfig"]).cloned().unwrap_or_default(),
                review_versions: versions.iter().filter_map(Value::as_str).map(str::to_string).collect(),
                reviewer: reviewer.clone(),
            }
        });
        Some(Definition {
            name: tree.name().to_string(),
            uid: tree.uid().to_string(),
            list_kind: filled("listKind")?,
            plural: filled("plural")?,
            namespaced: spec.str_at(&["scope"]) == Some("Namespaced"),
            preserve_unknown: spec.bool_at(&["preserveUnknownFields"]).unwrap_or_default(),
            versions: read?,
            storage,
            webhook,
            ended: CancellationToken::new(),
            fingerprint: fingerprint(spec, names),
            source: ArcSwap::new(entry.clone()),
            group,
            kind,
        })
    }

    /// Replaces the object that schemas are read from, when nothing that is served changed: the old
    /// bytes need not be kept then.
    pub fn refresh(&self, entry: &Arc<Entry>) {
        self.source.store(entry.clone());
    }

    /// Whether a webhook converts between versions.
    pub fn has_webhook(&self) -> bool {
        self.webhook.is_some()
    }

    /// `group/version` of a version.
    pub fn api_version(&self, at: usize) -> String {
        format!("{}/{}", self.group, self.versions[at].name)
    }

    /// Which version an object is of.
    pub fn version_of(&self, object: &Value) -> Option<usize> {
        let version = object.api_version().strip_prefix(&self.group)?.strip_prefix('/')?;
        self.versions.iter().position(|known| known.name == version)
    }

    /// `openAPIV3Schema` of a version as it was written, for publishing.
    pub fn schema_json(&self, at: usize) -> Option<Value> {
        let mut tree = self.source.load().tree();
        tree.pointer_mut(&format!("/spec/versions/{at}/schema/openAPIV3Schema")).map(Value::take)
    }

    fn compiled(&self, at: usize) -> &Compiled {
        self.versions[at].compiled.get_or_init(|| {
            let tree = self.source.load().tree();
            let version = &tree["spec"]["versions"][at];
            let node = version.at(&["schema", "openAPIV3Schema"]).map(|schema| {
                let mut node = Node::compile(schema);
                if !self.preserve_unknown {
                    default::prune_defaults(&mut node);
                }
                node
            });
            Compiled { node, columns: Columns::of_version(version), ty: OnceLock::new(), programs: OnceLock::new() }
        })
    }

    /// The compiled schema of a version.
    pub fn node(&self, at: usize) -> Option<&Node> {
        self.compiled(at).node.as_ref()
    }

    /// The rules of a version; `None` if it has none.
    pub fn programs(&self, at: usize) -> Option<&Programs> {
        let compiled = self.compiled(at);
        let compile = || compiled.node.as_ref().and_then(|node| Programs::compile(node, true));
        compiled.programs.get_or_init(compile).as_ref()
    }

    /// The printer columns of a version.
    pub fn columns(&self, at: usize) -> &Columns {
        &self.compiled(at).columns
    }

    /// A version as a type.
    pub fn type_ref(&self, at: usize) -> TypeRef<'_> {
        let compiled = self.compiled(at);
        compiled.ty.get_or_init(|| types::shared(compiled.node.as_ref(), self.preserve_unknown)).type_ref()
    }
}

fn fingerprint(spec: &Value, names: &Value) -> u64 {
    use std::hash::{BuildHasher as _, Hasher as _};
    let mut hasher = ahash::RandomState::with_seeds(1, 2, 3, 4).build_hasher();
    hasher.write(spec.to_string().as_bytes());
    hasher.write(names.to_string().as_bytes());
    hasher.finish()
}

fn read_version(version: &Value, group: &str, kind: &str, all: &[Value]) -> Option<Version> {
    let name = version.str_at(&["name"])?.to_string();
    let flag = |version: &Value, name: &str| version.get(name).and_then(Value::as_bool).unwrap_or_default();
    let text = |value: Option<&str>| value.unwrap_or_default().to_string();
    let scale = version.at(&["subresources", "scale"]).filter(|scale| scale.is_object()).map(|scale| Scale {
        spec_replicas_path: text(scale.str_at(&["specReplicasPath"])),
        status_replicas_path: text(scale.str_at(&["statusReplicasPath"])),
        label_selector_path: scale.str_at(&["labelSelectorPath"]).map(str::to_string).filter(|path| !path.is_empty()),
    });
    let deprecation = flag(version, "deprecated").then(|| {
        version.str_at(&["deprecationWarning"]).map_or_else(|| default_warning(&name, group, kind, all), str::to_string)
    });
    Some(Version {
        served: flag(version, "served"),
        status: version.at(&["subresources", "status"]).is_some_and(Value::is_object),
        scale,
        deprecation,
        selectable_fields: version
            .list_at(&["selectableFields"])
            .iter()
            .filter_map(|field| field.str_at(&["jsonPath"]))
            .map(|path| path.strip_prefix('.').unwrap_or(path).to_string())
            .collect(),
        compiled: OnceLock::new(),
        name,
    })
}

/// What upstream tells users of a deprecated version that has no text of its own.
fn default_warning(name: &str, group: &str, kind: &str, all: &[Value]) -> String {
    let mut text = format!("{group}/{name} {kind} is deprecated");
    let mut better: Vec<&str> = all
        .iter()
        .filter(|version| version.bool_at(&["served"]) == Some(true) && version.bool_at(&["deprecated"]) != Some(true))
        .filter_map(|version| version.str_at(&["name"]))
        .filter(|other| api::discovery::compare_versions(other, name).is_lt())
        .collect();
    better.sort_by(|a, b| api::discovery::compare_versions(a, b));
    if let Some(best) = better.first() {
        text.push_str(&format!("; use {group}/{best} {kind}"));
    }
    text
}
