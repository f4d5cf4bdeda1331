//! Discovery on disk, where and how upstream keeps it, so that both kubectls share one cache:
//! `<cache>/discovery/<host>/servergroups.json` and `<group>/<version>/serverresources.json`.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::{Discovery, Group, Version, items, resources, text};

/// How long cached answers serve. A name that is not found asks the server again before that.
const TIME_TO_LIVE: Duration = Duration::from_secs(6 * 3600);

/// The cached discovery; None when a part is missing or too old.
pub fn read(dir: &Path) -> Option<Discovery> {
    let groups = load(&dir.join("servergroups.json"))?;
    let mut found = Discovery::default();
    for item in items(&groups, "groups") {
        let mut group = Group { name: text(item, "name"), versions: Vec::new() };
        let preferred = text(&item["preferredVersion"], "version");
        for item in items(item, "versions") {
            let name = text(item, "version");
            let list = load(&dir.join(text(item, "groupVersion")).join("serverresources.json"))?;
            group.versions.push(Version { name, resources: resources(&list) });
        }
        group.versions.sort_by_key(|version| version.name != preferred);
        found.groups.push(group);
    }
    (!found.groups.is_empty()).then_some(found)
}

fn load(path: &Path) -> Option<Value> {
    let age = fs::metadata(path).ok()?.modified().ok()?.elapsed().unwrap_or_default();
    if age > TIME_TO_LIVE {
        return None;
    }
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// Keeps an answer. A cache that cannot be written costs time later, nothing else.
pub fn write(dir: &Path, found: &Discovery) {
    let mut groups = Vec::new();
    for group in &found.groups {
        let mut versions = Vec::new();
        for version in &group.versions {
            let group_version =
                if group.name.is_empty() { version.name.clone() } else { format!("{}/{}", group.name, version.name) };
            let list: Vec<Value> = version.resources.iter().map(resource).collect();
            let list = json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": list});
            store(&dir.join(&group_version).join("serverresources.json"), &list);
            versions.push(json!({"groupVersion": group_version, "version": version.name}));
        }
        let preferred = versions.first().cloned().unwrap_or(Value::Null);
        groups.push(json!({"name": group.name, "versions": versions, "preferredVersion": preferred}));
    }
    store(&dir.join("servergroups.json"), &json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}));
}

fn resource(resource: &super::Resource) -> Value {
    let mut map = Map::new();
    map.insert("name".into(), json!(resource.name));
    map.insert("singularName".into(), json!(resource.singular));
    map.insert("namespaced".into(), json!(resource.namespaced));
    map.insert("kind".into(), json!(resource.kind));
    map.insert("verbs".into(), json!(resource.verbs));
    for (key, value) in [("group", &resource.group), ("version", &resource.version)] {
        if !value.is_empty() {
            map.insert(key.into(), json!(value));
        }
    }
    for (key, value) in [("shortNames", &resource.short_names), ("categories", &resource.categories)] {
        if !value.is_empty() {
            map.insert(key.into(), json!(value));
        }
    }
    Value::Object(map)
}

/// Writes beside and renames, so that a reader never sees half a file.
fn store(path: &Path, value: &Value) {
    let Some(parent) = path.parent() else { return };
    let written = fs::create_dir_all(parent).and_then(|()| tempfile::NamedTempFile::new_in(parent)).and_then(|file| {
        fs::write(file.path(), value.to_string())?;
        file.persist(path).map_err(|error| error.error)
    });
    if let Err(error) = written {
        tracing::debug!(%error, "discovery cache not written");
    }
}
