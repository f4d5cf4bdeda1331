//! OpenAPI v3 (one document per group version, KEP-2896) and v2 (Swagger), from the table.
//!
//! A document is a function of the enabled [`Resource`] rows. [`OpenApi`] holds the rows of a server,
//! builds each document when it is first asked for and keeps its bytes; the index needs none of them,
//! because a document's hash is that of the rows it is made from. Types come from the table,
//! descriptions from `k8s-openapi`. A custom resource's schema is given beside its row.
//!
//! Reads and writes nothing.

mod custom;
mod descriptions;
mod merge;
mod operations;
mod render;
mod schemas;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use serde_json::{Map, Value, json};

use crate::{Resource, discovery, table};
pub use custom::{Custom, SchemaSource};
use operations::Operation;
use schemas::{Dialect, Schemas};

/// What a field means, as published: definition (`io.k8s.api.core.v1.Pod`), JSON name.
pub fn field_description(definition: &str, field: &str) -> Option<String> {
    descriptions::descriptions().of_field(definition, field)
}

/// What a type means, as published.
pub fn type_description(definition: &str) -> Option<String> {
    descriptions::descriptions().of_type(definition)
}

/// A document as served.
#[derive(Clone, Debug)]
pub struct Document {
    pub json: Bytes,
    /// Quoted, for the header and for `If-None-Match`; for a v3 document the index's hash.
    pub etag: String,
}

/// The OpenAPI of a server.
#[derive(Debug, Default)]
pub struct OpenApi {
    rows: Arc<Vec<Resource>>,
    custom: BTreeMap<(String, String), Vec<Custom>>,
    /// Parts of the Swagger document that other servers answer for.
    parts: Vec<Bytes>,
    documents: Mutex<HashMap<String, Arc<Document>>>,
}

impl OpenApi {
    /// `rows` are the enabled built-in resources in the order of discovery.
    pub fn new(rows: Vec<Resource>, custom: Vec<Custom>) -> Self {
        let mut new = Self { rows: Arc::new(rows), ..Self::default() };
        new.set_custom(custom);
        new
    }

    fn set_custom(&mut self, custom: Vec<Custom>) {
        for custom in custom {
            let key = (custom.row.group.to_string(), custom.row.version.to_string());
            self.custom.entry(key).or_default().push(custom);
        }
    }

    /// The same server with other custom resources, and with `parts` of Swagger documents (`paths`,
    /// `definitions`, `parameters`) of other servers. Documents that stay the same are kept.
    pub fn renewed(&self, custom: Vec<Custom>, parts: Vec<Bytes>) -> Self {
        let mut new = Self { rows: self.rows.clone(), parts, ..Self::default() };
        new.set_custom(custom);
        let known = self.documents.lock().expect("no holder panics").clone();
        let kept = known.into_iter().filter(|(name, document)| document.etag == format!("\"{}\"", new.hash(name)));
        new.documents = Mutex::new(kept.collect());
        new
    }

    /// Names of the v3 documents: `api`, `api/v1`, `apis`, `apis/apps`, `apis/apps/v1`, `version`, …
    pub fn names(&self) -> Vec<String> {
        let mut names: BTreeSet<String> =
            [".well-known/openid-configuration", "api", "apis", "openid/v1/jwks", "version"].map(str::to_owned).into();
        for row in self.rows.iter() {
            names.insert(operations::base_path(&row.group, &row.version).trim_start_matches('/').to_owned());
            if !row.group.is_empty() {
                names.insert(format!("apis/{}", row.group));
            }
        }
        names.extend(self.custom.keys().map(|(group, version)| format!("apis/{group}/{version}")));
        names.into_iter().collect()
    }

    /// `/openapi/v3`: where every document is, with the hash of what it is made from.
    pub fn v3_index(&self) -> Value {
        let paths: Map<String, Value> = self
            .names()
            .into_iter()
            .map(|name| {
                let url = format!("/openapi/v3/{name}?hash={}", self.hash(&name));
                (name, json!({"serverRelativeURL": url}))
            })
            .collect();
        json!({"paths": paths})
    }

    /// The hash of a v3 document: of the version and the rows behind it, so that nothing need be built.
    pub fn hash(&self, name: &str) -> String {
        let mut source = format!("{} {name}\n", crate::GIT_VERSION);
        for row in self.rows.iter() {
            if operations::base_path(&row.group, &row.version).trim_start_matches('/').starts_with(name) {
                source.push_str(&format!("{} {:?}\n", row.qualified(), row.verbs));
            }
        }
        let mut add = |custom: &Custom| source.push_str(&format!("{:?} {}\n", custom.row, custom.revision));
        if name.is_empty() {
            self.custom.values().flatten().for_each(add);
            for part in &self.parts {
                source.push_str(&discovery::hash(part));
            }
        } else if let ["apis", group, version] = name.split('/').collect::<Vec<_>>()[..] {
            self.custom.get(&(group.to_owned(), version.to_owned())).into_iter().flatten().for_each(&mut add);
        }
        discovery::hash(source.as_bytes())
    }

    /// `/openapi/v3/<name>`, built once.
    pub fn v3(&self, name: &str) -> Option<Arc<Document>> {
        self.cached(name, || Some((self.v3_json(name)?, self.hash(name))))
    }

    /// `/openapi/v2`, built once.
    pub fn v2(&self) -> Arc<Document> {
        self.cached("", || Some((self.v2_json(), self.hash("")))).expect("there is always a Swagger document")
    }

    /// Built outside the lock: two first readers may both build, and the later one's copy is dropped.
    fn cached(&self, name: &str, build: impl FnOnce() -> Option<(Vec<u8>, String)>) -> Option<Arc<Document>> {
        let known = self.documents.lock().expect("no holder panics").get(name).cloned();
        if known.is_some() {
            return known;
        }
        let (mut json, hash) = build()?;
        json.shrink_to_fit();
        let document = Arc::new(Document { json: json.into(), etag: format!("\"{hash}\"") });
        Some(self.documents.lock().expect("no holder panics").entry(name.to_owned()).or_insert(document).clone())
    }

    /// A v3 document, built anew.
    pub fn v3_json(&self, name: &str) -> Option<Vec<u8>> {
        let parts: Vec<&str> = name.split('/').collect();
        let mut operations = Vec::new();
        let mut everywhere: Vec<(&str, &str)> = vec![("", "v1")];
        let mut customs: &[Custom] = &[];
        match parts[..] {
            ["api"] => operations.push(operations::discovery("/api/", Some(""), None)),
            ["apis"] => operations.push(operations::discovery("/apis/", None, None)),
            ["apis", group] => {
                self.rows.iter().find(|row| row.group == group)?;
                operations.push(operations::discovery(&format!("/apis/{group}/"), Some(group), None));
            }
            ["api", version] => operations.extend(self.group_version("", version)?),
            ["apis", group, version] => {
                if let Some(found) = self.custom.get(&(group.to_owned(), version.to_owned())) {
                    customs = found;
                    operations
                        .extend(customs.iter().flat_map(|custom| operations::operations(&custom.row, schema_name)));
                    everywhere = every_group_version();
                } else {
                    operations.extend(self.group_version(group, version)?);
                    everywhere.push((group, version));
                }
            }
            _ => operations.push(operations::plain(&format!("/{name}/"))?),
        }
        let mut schemas = Schemas::new(Dialect::V3, &everywhere);
        let mut given = BTreeMap::new();
        for custom in customs {
            custom::insert(Dialect::V3, custom, &mut schemas, &mut given);
        }
        let (paths, _) = render::paths(Dialect::V3, operations, &mut schemas);
        let mut found = schemas.finish();
        found.extend(given);
        let mut components = render::Writer::default();
        if !found.is_empty() {
            components.members("schemas", found);
        }
        if customs.is_empty() {
            components.value("securitySchemes", &render::bearer_token());
        }
        let mut document = render::Writer::default();
        document.value("openapi", &json!("3.0.0"));
        document.value("info", &if customs.is_empty() { info() } else { custom_info() });
        document.members("paths", paths);
        document.member("components", &components.finish());
        Some(document.finish())
    }

    fn group_version(&self, group: &str, version: &str) -> Option<Vec<Operation>> {
        let base = operations::base_path(group, version);
        let mut found = vec![operations::discovery(&format!("{base}/"), Some(group), Some(version))];
        for row in self.rows.iter().filter(|row| row.group == group && row.version == version) {
            found.extend(operations::operations(row, schema_name));
        }
        (found.len() > 1).then_some(found)
    }

    /// The Swagger document, built anew: every group version at once.
    pub fn v2_json(&self) -> Vec<u8> {
        let mut operations =
            vec![operations::discovery("/api/", Some(""), None), operations::discovery("/apis/", None, None)];
        for path in ["/.well-known/openid-configuration/", "/openid/v1/jwks/", "/version/"] {
            operations.extend(operations::plain(path));
        }
        let mut done: Vec<(&str, &str)> = Vec::new();
        for row in self.rows.iter() {
            if !row.group.is_empty() && !done.iter().any(|(group, _)| *group == row.group) {
                operations.push(operations::discovery(&format!("/apis/{}/", row.group), Some(&row.group), None));
            }
            if !done.contains(&(&row.group, &row.version)) {
                done.push((&row.group, &row.version));
                operations.extend(self.group_version(&row.group, &row.version).unwrap_or_default());
            }
        }
        let everywhere = every_group_version();
        let mut schemas = Schemas::new(Dialect::V2, &everywhere);
        let mut given = BTreeMap::new();
        for custom in self.custom.values().flatten() {
            custom::insert(Dialect::V2, custom, &mut schemas, &mut given);
            operations.extend(operations::operations(&custom.row, schema_name));
        }
        let (mut paths, mut parameters) = render::paths(Dialect::V2, operations, &mut schemas);
        let mut definitions = schemas.finish();
        definitions.extend(given);
        for part in &self.parts {
            merge::merge(part, &mut paths, &mut definitions, &mut parameters);
        }
        let mut document = render::Writer::default();
        document.value("swagger", &json!("2.0"));
        document.value("info", &info());
        document.members("paths", paths);
        document.members("definitions", definitions);
        document.members("parameters", parameters);
        document.value("securityDefinitions", &render::bearer_token());
        document.value("security", &json!([{"BearerToken": []}]));
        document.finish()
    }
}

/// What upstream calls documents of custom resources.
fn custom_info() -> Value {
    json!({"title": "Kubernetes CRD Swagger", "version": "v0.1.0"})
}

fn info() -> Value {
    json!({"title": "Kubernetes", "version": format!("{}.{}", crate::MAJOR, crate::MINOR)})
}

/// The published name of a kind's schema; custom kinds are named by their group, reversed.
fn schema_name(group: &str, version: &str, kind: &str) -> String {
    let built_in = table().find_kind(group, version, kind).and_then(|ty| ty.object());
    if let Some(name) = built_in.and_then(|object| table().open_api_name(&object.name)) {
        return name;
    }
    let reversed: Vec<&str> = group.split('.').rev().collect();
    format!("{}.{version}.{kind}", reversed.join("."))
}

/// Every group version that upstream's scheme registers, sorted: what `DeleteOptions` belongs to.
fn every_group_version() -> Vec<(&'static str, &'static str)> {
    let mut all: Vec<(&str, &str)> = table()
        .packages()
        .iter()
        .filter(|package| !matches!(package.group, "meta.k8s.io" | "metrics.k8s.io" | "apidiscovery.k8s.io"))
        .filter(|package| package.version.starts_with('v') && package.version.len() > 1 && package.name.contains('/'))
        .map(|package| (package.group, package.version))
        .collect();
    all.push(("apiregistration.k8s.io", "v1beta1"));
    all.sort_unstable();
    all.dedup();
    all
}

#[cfg(test)]
mod tests;
