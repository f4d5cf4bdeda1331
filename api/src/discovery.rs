//! Discovery documents: what a server says it serves.
//!
//! `/api`, `/apis`, `/apis/<group>`, `/apis/<group>/<version>` and the aggregated form
//! (`apidiscovery.k8s.io/v2`, KEP-3352; 1.36 no longer serves v2beta1). All are functions of the
//! enabled [`Resource`] rows, built-in and custom alike, and of an [`Order`] of groups and versions:
//! that of APIServices' priorities, or of the rows themselves ([`order_of`]).
//!
//! Reads and writes nothing.

use std::cmp::Ordering;
use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256, Sha512};

use crate::Resource;

/// Media type parameters of the aggregated form.
pub const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// `/api`: the versions of the core group, and where the server can be reached (`host:port`).
pub fn api_versions(server_address: &str) -> Value {
    json!({
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": server_address}],
    })
}

/// Groups in the order they are told to clients, each with its versions, most preferred first.
pub type Order = [(String, Vec<String>)];

/// `/apis`: every group but core.
pub fn group_list(order: &Order) -> Value {
    let groups: Vec<Value> = order
        .iter()
        .filter(|(name, _)| !name.is_empty())
        .map(|(name, versions)| Value::Object(group_fields(name, versions)))
        .collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/apis/<group>`; `None` when nothing of the group is served.
pub fn group(order: &Order, name: &str) -> Option<Value> {
    let (_, versions) = order.iter().find(|(group, _)| *group == name)?;
    let mut fields = group_fields(name, versions);
    fields.insert("kind".to_owned(), json!("APIGroup"));
    fields.insert("apiVersion".to_owned(), json!("v1"));
    Some(Value::Object(fields))
}

/// `/api/v1` and `/apis/<group>/<version>`; `None` when nothing of it is enabled.
pub fn resource_list(rows: &[&Resource], group: &str, version: &str) -> Option<Value> {
    let mut found: Vec<&Resource> =
        rows.iter().copied().filter(|row| row.group == group && row.version == version).collect();
    if found.is_empty() {
        return None;
    }
    found.sort_by(|a, b| a.plural.cmp(&b.plural));
    let mut resources = Vec::new();
    for row in &found {
        resources.push(api_resource(row));
        for subresource in &row.subresources {
            let mut fields = Map::new();
            fields.insert("name".to_owned(), json!(format!("{}/{}", row.plural, subresource.name)));
            fields.insert("singularName".to_owned(), json!(""));
            fields.insert("namespaced".to_owned(), json!(row.namespaced));
            if subresource.foreign {
                fields.insert("group".to_owned(), json!(subresource.group));
                fields.insert("version".to_owned(), json!(subresource.version));
            }
            fields.insert("kind".to_owned(), json!(subresource.kind));
            fields.insert("verbs".to_owned(), json!(subresource.verbs));
            resources.push(Value::Object(fields));
        }
    }
    // The core list is the oldest document of all and has no apiVersion.
    let mut list = Map::new();
    list.insert("kind".to_owned(), json!("APIResourceList"));
    if !group.is_empty() {
        list.insert("apiVersion".to_owned(), json!("v1"));
    }
    list.insert("groupVersion".to_owned(), json!(found[0].api_version()));
    list.insert("resources".to_owned(), Value::Array(resources));
    Some(Value::Object(list))
}

fn api_resource(row: &Resource) -> Value {
    let mut fields = Map::new();
    fields.insert("name".to_owned(), json!(row.plural));
    fields.insert("singularName".to_owned(), json!(row.singular));
    fields.insert("namespaced".to_owned(), json!(row.namespaced));
    fields.insert("kind".to_owned(), json!(row.kind));
    fields.insert("verbs".to_owned(), json!(row.verbs));
    if !row.short_names.is_empty() {
        fields.insert("shortNames".to_owned(), json!(row.short_names));
    }
    if !row.categories.is_empty() {
        fields.insert("categories".to_owned(), json!(row.categories));
    }
    if let Some((group, version)) = &row.storage_version {
        fields.insert("storageVersionHash".to_owned(), json!(storage_version_hash(group, version, &row.kind)));
    }
    Value::Object(fields)
}

/// The aggregated document of `/api` (`legacy`) or of `/apis`. `other` gives the versions that other
/// servers answer for, as elements of `versions`.
pub fn aggregated(
    rows: &[&Resource],
    order: &Order,
    legacy: bool,
    other: impl Fn(&str, &str) -> Option<Value>,
) -> Value {
    let mut found: HashMap<(&str, &str), Vec<&Resource>> = HashMap::new();
    for row in rows {
        found.entry((row.group.as_ref(), row.version.as_ref())).or_default().push(row);
    }
    let items: Vec<Value> = order
        .iter()
        .filter(|(name, _)| name.is_empty() == legacy)
        .map(|(name, versions)| {
            let versions: Vec<Value> = versions
                .iter()
                .map(|version| {
                    if let Some(other) = other(name, version) {
                        return other;
                    }
                    let mut rows = found.remove(&(name.as_str(), version.as_str())).unwrap_or_default();
                    rows.sort_by(|a, b| a.plural.cmp(&b.plural));
                    let resources: Vec<Value> = rows.into_iter().map(aggregated_resource).collect();
                    json!({"version": version, "freshness": "Current", "resources": resources})
                })
                .collect();
            let metadata = if name.is_empty() { json!({}) } else { json!({"name": name}) };
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items})
}

fn aggregated_resource(row: &Resource) -> Value {
    // Built-in kinds of the resource's own group and version leave both empty; custom ones do not.
    let own = if row.custom { (row.group.as_ref(), row.version.as_ref()) } else { ("", "") };
    let mut fields = Map::new();
    fields.insert("resource".to_owned(), json!(row.plural));
    fields.insert("responseKind".to_owned(), response_kind(own, &row.kind));
    fields.insert("scope".to_owned(), json!(if row.namespaced { "Namespaced" } else { "Cluster" }));
    fields.insert("singularResource".to_owned(), json!(row.singular));
    fields.insert("verbs".to_owned(), json!(row.verbs));
    if !row.short_names.is_empty() {
        fields.insert("shortNames".to_owned(), json!(row.short_names));
    }
    if !row.categories.is_empty() {
        fields.insert("categories".to_owned(), json!(row.categories));
    }
    if !row.subresources.is_empty() {
        let subresources: Vec<Value> = row
            .subresources
            .iter()
            .map(|subresource| {
                let group_version =
                    if subresource.foreign { (subresource.group.as_ref(), subresource.version.as_ref()) } else { own };
                json!({
                    "subresource": subresource.name,
                    "responseKind": response_kind(group_version, &subresource.kind),
                    "verbs": subresource.verbs,
                })
            })
            .collect();
        fields.insert("subresources".to_owned(), Value::Array(subresources));
    }
    Value::Object(fields)
}

fn response_kind((group, version): (&str, &str), kind: &str) -> Value {
    json!({"group": group, "version": version, "kind": kind})
}

/// Groups in order of their first row, each with its versions in order of theirs.
pub fn order_of(rows: &[&Resource]) -> Vec<(String, Vec<String>)> {
    let mut groups: Vec<(String, Vec<String>)> = Vec::new();
    for row in rows {
        let at = groups.iter().position(|(name, _)| *name == row.group).unwrap_or_else(|| {
            groups.push((row.group.to_string(), Vec::new()));
            groups.len() - 1
        });
        let versions = &mut groups[at].1;
        if !versions.iter().any(|version| *version == row.version) {
            versions.push(row.version.to_string());
        }
    }
    groups
}

fn group_fields(name: &str, versions: &[String]) -> Map<String, Value> {
    let versions: Vec<Value> = versions
        .iter()
        .map(|version| json!({"groupVersion": format!("{name}/{version}"), "version": version}))
        .collect();
    let mut fields = Map::new();
    fields.insert("name".to_owned(), json!(name));
    fields.insert("preferredVersion".to_owned(), versions.first().cloned().unwrap_or(Value::Null));
    fields.insert("versions".to_owned(), Value::Array(versions));
    fields
}

/// Base64 of the first eight bytes of SHA-256 over `group/version/kind` as etcd holds them.
pub fn storage_version_hash(group: &str, version: &str, kind: &str) -> String {
    STANDARD.encode(&Sha256::digest(format!("{group}/{version}/{kind}"))[..8])
}

/// The `ETag` of a discovery or OpenAPI document, quotes included.
pub fn etag(document: &[u8]) -> String {
    format!("\"{}\"", hash(document))
}

/// SHA-512 in upper-case hexadecimal: the `hash` parameter of the OpenAPI index.
pub fn hash(document: &[u8]) -> String {
    Sha512::digest(document).iter().map(|byte| format!("{byte:02X}")).collect()
}

/// Orders custom rows as discovery does: groups by name, versions by [`compare_versions`].
pub fn sort(rows: &mut [&Resource]) {
    rows.sort_by(|a, b| {
        a.group
            .cmp(&b.group)
            .then_with(|| compare_versions(&a.version, &b.version))
            .then_with(|| a.plural.cmp(&b.plural))
    });
}

/// Kubernetes' order of versions, most preferred first: `v2`, `v1`, `v1beta2`, `v1beta1`, `v1alpha1`,
/// then anything else by name.
pub fn compare_versions(a: &str, b: &str) -> Ordering {
    match (parse_version(a), parse_version(b)) {
        (Some(a), Some(b)) => b.cmp(&a),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => a.cmp(b),
    }
}

/// Stability (2 stable, 1 beta, 0 alpha), major, minor.
fn parse_version(version: &str) -> Option<(u8, u64, u64)> {
    let number = |text: &str| -> Option<u64> {
        (text.starts_with(|c: char| ('1'..='9').contains(&c)) && text.bytes().all(|b| b.is_ascii_digit()))
            .then(|| text.parse().ok())
            .flatten()
    };
    let rest = version.strip_prefix('v')?;
    if let Some(major) = number(rest) {
        return Some((2, major, 0));
    }
    let (stability, (major, minor)) =
        if let Some(parts) = rest.split_once("beta") { (1, parts) } else { (0, rest.split_once("alpha")?) };
    Some((stability, number(major)?, number(minor)?))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::table;

    fn spec(name: &str) -> Option<Value> {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
        let named = std::env::var_os("KEELSON_SHARED").map(PathBuf::from);
        let shared =
            named.into_iter().chain([root.join("../shared"), root.join("../../shared")]).find(|path| path.is_dir())?;
        let text = std::fs::read(shared.join("spec/discovery").join(name)).ok()?;
        Some(serde_json::from_slice(&text).expect("recorded documents are JSON"))
    }

    #[test]
    fn equal_to_upstream() {
        let rows: Vec<&Resource> = table().resources().iter().filter(|row| row.enabled_by_default).collect();
        let Some(apis) = spec("apis.json") else {
            println!("skipped: needs ../shared");
            return;
        };
        let order = order_of(&rows);
        assert_eq!(group_list(&order), apis);
        assert_eq!(Some(aggregated(&rows, &order, true, |_, _| None)), spec("aggregated_api.json"));
        assert_eq!(Some(aggregated(&rows, &order, false, |_, _| None)), spec("aggregated_apis.json"));
        assert_eq!(Some(api_versions("127.0.0.1:26443")), spec("api.json"));
        assert_eq!(resource_list(&rows, "", "v1"), spec("api__v1.json"));
        let mut documents = 0;
        for (name, versions) in order.iter().filter(|(name, _)| !name.is_empty()) {
            assert_eq!(group(&order, name), spec(&format!("apis__{name}.json")));
            for version in versions {
                assert_eq!(resource_list(&rows, name, version), spec(&format!("apis__{name}__{version}.json")));
                documents += 1;
            }
        }
        assert_eq!(documents, 21);
    }

    #[test]
    fn versions_in_order_of_preference() {
        let mut versions = ["foo10", "v1", "v11alpha2", "v10beta3", "v3beta1", "v12alpha1", "v11", "v10", "foo1", "v2"];
        versions.sort_by(|a, b| compare_versions(a, b));
        assert_eq!(
            versions,
            ["v11", "v10", "v2", "v1", "v10beta3", "v3beta1", "v12alpha1", "v11alpha2", "foo1", "foo10"]
        );
    }
}
