//! What the server serves: groups, versions and resources, by aggregated discovery.

pub mod cache;

use serde_json::Value;

use crate::error::Result;
use crate::rest::{Call, Rest};

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,\
    application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";

/// Everything served, in the server's order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Discovery {
    /// Groups, the core group (named "") first.
    pub groups: Vec<Group>,
    /// Group versions whose server did not answer.
    pub stale: Vec<String>,
}

/// One API group.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Group {
    /// "" for the core group.
    pub name: String,
    /// Preferred version first.
    pub versions: Vec<Version>,
}

/// One version of a group.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Version {
    /// `v1`, `v1beta1`, …
    pub name: String,
    /// Its resources and subresources.
    pub resources: Vec<Resource>,
}

/// One resource, or one subresource (`pods/log`).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Resource {
    /// Plural name; with a slash for a subresource.
    pub name: String,
    /// Singular name.
    pub singular: String,
    /// Kind of its objects.
    pub kind: String,
    /// Group of that kind, when it differs.
    pub group: String,
    /// Version of that kind, when it differs.
    pub version: String,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// What may be done.
    pub verbs: Vec<String>,
    /// `po`, `deploy`, …
    pub short_names: Vec<String>,
    /// `all`, `api-extensions`, …
    pub categories: Vec<String>,
}

/// Asks the server.
///
/// # Errors
/// When it does not answer. A group whose own server is away is left out and named in `stale`.
pub async fn fetch(rest: &Rest) -> Result<Discovery> {
    let (core, groups) = futures::future::join(
        rest.value(Call::get("/api").accept(AGGREGATED)),
        rest.value(Call::get("/apis").accept(AGGREGATED)),
    )
    .await;
    let (core, groups) = (core?, groups?);
    let mut found = Discovery::default();
    for document in [core, groups] {
        if document["kind"] == "APIGroupDiscoveryList" {
            aggregated(&document, &mut found);
        } else {
            unaggregated(rest, &document, &mut found).await?;
        }
    }
    Ok(found)
}

fn text(value: &Value, key: &str) -> String {
    value.get(key).and_then(Value::as_str).unwrap_or("").to_owned()
}

fn texts(value: &Value, key: &str) -> Vec<String> {
    items(value, key).iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn items<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn aggregated(document: &Value, found: &mut Discovery) {
    for item in items(document, "items") {
        let mut group = Group { name: text(&item["metadata"], "name"), versions: Vec::new() };
        for item in items(item, "versions") {
            let mut version = Version { name: text(item, "version"), resources: Vec::new() };
            if item["freshness"] == "Stale" {
                found.stale.push(format!("{}/{}", group.name, version.name));
                continue;
            }
            for item in items(item, "resources") {
                let kind = &item["responseKind"];
                let resource = Resource {
                    name: text(item, "resource"),
                    singular: text(item, "singularResource"),
                    kind: text(kind, "kind"),
                    group: text(kind, "group"),
                    version: text(kind, "version"),
                    namespaced: item["scope"] == "Namespaced",
                    verbs: texts(item, "verbs"),
                    short_names: texts(item, "shortNames"),
                    categories: texts(item, "categories"),
                };
                let subresources: Vec<Resource> = items(item, "subresources")
                    .iter()
                    .map(|sub| Resource {
                        name: format!("{}/{}", resource.name, text(sub, "subresource")),
                        singular: resource.singular.clone(),
                        kind: text(&sub["responseKind"], "kind"),
                        group: text(&sub["responseKind"], "group"),
                        version: text(&sub["responseKind"], "version"),
                        namespaced: resource.namespaced,
                        verbs: texts(sub, "verbs"),
                        ..Resource::default()
                    })
                    .collect();
                version.resources.push(resource);
                version.resources.extend(subresources);
            }
            group.versions.push(version);
        }
        found.groups.push(group);
    }
}

/// Servers that do not aggregate: one document for each group version.
async fn unaggregated(rest: &Rest, document: &Value, found: &mut Discovery) -> Result<()> {
    let mut wanted: Vec<(String, Vec<String>)> = Vec::new();
    if document["kind"] == "APIVersions" {
        wanted.push((String::new(), texts(document, "versions")));
    }
    for group in items(document, "groups") {
        let preferred = text(&group["preferredVersion"], "version");
        let mut versions: Vec<String> = items(group, "versions").iter().map(|v| text(v, "version")).collect();
        versions.sort_by_key(|version| *version != preferred);
        wanted.push((text(group, "name"), versions));
    }
    for (name, versions) in wanted {
        let mut group = Group { name, versions: Vec::new() };
        for version in versions {
            let path = if group.name.is_empty() {
                format!("/api/{version}")
            } else {
                format!("/apis/{}/{version}", group.name)
            };
            match rest.value(Call::get(path)).await {
                Ok(list) => group.versions.push(Version { name: version, resources: resources(&list) }),
                Err(_) => found.stale.push(format!("{}/{version}", group.name)),
            }
        }
        found.groups.push(group);
    }
    Ok(())
}

/// The resources of an `APIResourceList`.
fn resources(list: &Value) -> Vec<Resource> {
    items(list, "resources")
        .iter()
        .map(|item| Resource {
            name: text(item, "name"),
            singular: text(item, "singularName"),
            kind: text(item, "kind"),
            group: text(item, "group"),
            version: text(item, "version"),
            namespaced: item["namespaced"] == true,
            verbs: texts(item, "verbs"),
            short_names: texts(item, "shortNames"),
            categories: texts(item, "categories"),
        })
        .collect()
}
