//! What the server serves: aggregated discovery, or the older documents where it has none.

use bytes::Bytes;
use http::{Request, header};
use serde::Deserialize;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::meta::null_default;
use crate::resources::Resource;
use crate::transport::Client;

/// A served resource; subresources are named inside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiResource {
    pub resource: Resource,
    pub singular: String,
    pub verbs: Vec<String>,
    pub short_names: Vec<String>,
    pub categories: Vec<String>,
    /// Names such as `status`.
    pub subresources: Vec<String>,
    /// Whether its version is the preferred one of its group.
    pub preferred: bool,
}

impl ApiResource {
    /// Whether all these verbs are served.
    pub fn supports(&self, verbs: &[&str]) -> bool {
        verbs.iter().all(|verb| self.verbs.iter().any(|known| known == verb))
    }
}

/// What was found, and which group versions could not be read.
#[derive(Debug, Clone, Default)]
pub struct Discovered {
    pub resources: Vec<ApiResource>,
    /// Group versions whose resources are unknown because their server did not answer.
    pub failed: Vec<String>,
}

impl Discovered {
    /// The resources of each group's preferred version, plus those found only in other versions.
    pub fn preferred(&self) -> Vec<&ApiResource> {
        let is_same = |a: &ApiResource, b: &ApiResource| {
            a.resource.group == b.resource.group && a.resource.plural == b.resource.plural
        };
        let mut chosen: Vec<&ApiResource> = self.resources.iter().filter(|resource| resource.preferred).collect();
        for resource in self.resources.iter().filter(|resource| !resource.preferred) {
            if !chosen.iter().any(|known| is_same(known, resource)) {
                chosen.push(resource);
            }
        }
        chosen
    }
}

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";

#[derive(Deserialize)]
struct GroupDiscoveryList {
    items: Vec<GroupDiscovery>,
}

#[derive(Deserialize)]
struct GroupDiscovery {
    #[serde(default)]
    metadata: crate::meta::ObjectMeta,
    #[serde(default)]
    versions: Vec<VersionDiscovery>,
}

#[derive(Deserialize)]
struct VersionDiscovery {
    version: String,
    #[serde(default, deserialize_with = "null_default")]
    resources: Vec<ResourceDiscovery>,
    #[serde(default)]
    freshness: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ResourceDiscovery {
    resource: String,
    #[serde(default)]
    response_kind: ResponseKind,
    #[serde(default)]
    scope: String,
    #[serde(default)]
    singular_resource: String,
    #[serde(default)]
    verbs: Vec<String>,
    #[serde(default)]
    short_names: Vec<String>,
    #[serde(default)]
    categories: Vec<String>,
    #[serde(default)]
    subresources: Vec<SubresourceDiscovery>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ResponseKind {
    kind: String,
}

#[derive(Deserialize)]
struct SubresourceDiscovery {
    subresource: String,
}

impl Client {
    /// Everything the server serves.
    pub async fn discover(&self) -> Result<Discovered> {
        let mut found = Discovered::default();
        for path in ["/api", "/apis"] {
            let request = Request::get(path).header(header::ACCEPT, AGGREGATED).body(Bytes::new())?;
            let body = self.request(request).await?;
            let document: Value = decode(path, &body)?;
            if document["kind"] == "APIGroupDiscoveryList" {
                let list: GroupDiscoveryList =
                    serde_json::from_value(document).map_err(|source| Error::Decode { path: path.into(), source })?;
                found.add_aggregated(list);
            } else {
                self.discover_legacy(path, &document, &mut found).await?;
            }
        }
        Ok(found)
    }

    async fn discover_legacy(&self, path: &str, document: &Value, found: &mut Discovered) -> Result<()> {
        let texts = |value: &Value| -> Vec<String> {
            value
                .as_array()
                .map(|list| list.iter().filter_map(|item| item.as_str().map(String::from)).collect())
                .unwrap_or_default()
        };
        // (group, version, preferred)
        let mut versions: Vec<(String, String, bool)> = Vec::new();
        if path == "/api" {
            for (index, version) in texts(&document["versions"]).into_iter().enumerate() {
                versions.push((String::new(), version, index == 0));
            }
        } else {
            for group in document["groups"].as_array().into_iter().flatten() {
                let name = group["name"].as_str().unwrap_or_default();
                let preferred = group["preferredVersion"]["version"].as_str();
                for version in group["versions"].as_array().into_iter().flatten() {
                    if let Some(version) = version["version"].as_str() {
                        versions.push((name.into(), version.into(), Some(version) == preferred));
                    }
                }
            }
        }
        for (group, version, preferred) in versions {
            let group_version = if group.is_empty() { version.clone() } else { format!("{group}/{version}") };
            let list: Value = match self.get_raw(&format!("{path}/{group_version}")).await {
                Ok(body) => decode(path, &body)?,
                Err(error) => {
                    tracing::info!(
                        group_version,
                        error = error.chain(),
                        "cannot read the resources of a group version"
                    );
                    found.failed.push(group_version);
                    continue;
                }
            };
            let (whole, parts): (Vec<&Value>, Vec<&Value>) = list["resources"]
                .as_array()
                .into_iter()
                .flatten()
                .partition(|entry| !entry["name"].as_str().unwrap_or_default().contains('/'));
            for entry in whole {
                let plural = entry["name"].as_str().unwrap_or_default();
                let prefix = format!("{plural}/");
                found.resources.push(ApiResource {
                    resource: Resource::dynamic(
                        &group,
                        &version,
                        plural,
                        entry["kind"].as_str().unwrap_or_default(),
                        entry["namespaced"].as_bool().unwrap_or_default(),
                    ),
                    singular: entry["singularName"].as_str().unwrap_or_default().to_string(),
                    verbs: texts(&entry["verbs"]),
                    short_names: texts(&entry["shortNames"]),
                    categories: texts(&entry["categories"]),
                    subresources: parts
                        .iter()
                        .filter_map(|part| part["name"].as_str()?.strip_prefix(&prefix).map(String::from))
                        .collect(),
                    preferred,
                });
            }
        }
        Ok(())
    }
}

impl Discovered {
    fn add_aggregated(&mut self, list: GroupDiscoveryList) {
        for group in list.items {
            for (index, version) in group.versions.into_iter().enumerate() {
                let name = &group.metadata.name;
                if version.freshness == "Stale" {
                    self.failed.push(format!("{name}/{}", version.version));
                }
                self.resources.extend(version.resources.into_iter().map(|entry| ApiResource {
                    resource: Resource::dynamic(
                        name,
                        &version.version,
                        &entry.resource,
                        &entry.response_kind.kind,
                        entry.scope == "Namespaced",
                    ),
                    singular: entry.singular_resource,
                    verbs: entry.verbs,
                    short_names: entry.short_names,
                    categories: entry.categories,
                    subresources: entry.subresources.into_iter().map(|sub| sub.subresource).collect(),
                    preferred: index == 0,
                }));
            }
        }
    }
}

fn decode(path: &str, body: &[u8]) -> Result<Value> {
    serde_json::from_slice(body).map_err(|source| Error::Decode { path: path.to_string(), source })
}
