//! Managed fields between a resource and its scale: `spec.replicas` of a Scale is some field of the
//! resource, and whoever owns one owns the other.

use super::entry::{decode, encode};
use super::{DecodeError, Entry, Fields};
use crate::fieldset::{Path, PathElement, Set};
use serde_json::Value;

/// The version of every Scale.
const SCALE_VERSION: &str = "autoscaling/v1";

/// Which field of a resource its replicas are.
#[derive(Clone, Debug)]
pub struct ScaleFields {
    /// Per version of the resource; `None` where that version has no scale.
    pub replicas: Vec<(String, Option<Vec<String>>)>,
}

fn path(names: &[String]) -> Path {
    names.iter().map(|name| PathElement::field(name)).collect()
}

fn set_of(path: &[PathElement]) -> Set {
    let mut set = Set::new();
    set.insert(path);
    set
}

fn in_scale() -> Set {
    Set::of_fields(&[&["spec", "replicas"]])
}

impl ScaleFields {
    /// The outer `None`: an unknown version.
    fn path(&self, version: &str) -> Option<Option<Path>> {
        let (_, names) = self.replicas.iter().find(|(known, _)| known == version)?;
        Some(names.as_deref().map(path))
    }

    /// The managed fields of a Scale of a resource with these.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn to_scale(&self, parent: Option<&Value>) -> Result<Option<Value>, DecodeError> {
        let entries = decode(parent)?
            .into_iter()
            .filter(|entry| self.path(&entry.api_version).flatten().is_some_and(|path| entry.set().has(&path)))
            .map(|entry| Entry { api_version: SCALE_VERSION.to_owned(), fields: Fields::Set(in_scale()), ..entry })
            .collect::<Vec<_>>();
        Ok((!entries.is_empty()).then(|| encode(entries)))
    }

    /// The managed fields of the resource, now of `version`, after its Scale got `scale`.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn to_parent(
        &self,
        parent: Option<&Value>,
        scale: Option<&Value>,
        version: &str,
    ) -> Result<Option<Value>, DecodeError> {
        let mut scale = decode(scale)?;
        let parent = decode(parent)?;
        // As upstream, an entry that the scale brings has the time that its manager had before, which only
        // appliers keep: updates under another version are another manager's.
        for entry in &mut scale {
            entry.time = parent.iter().find(|other| same_manager(entry, other)).and_then(|other| other.time);
        }
        let mut entries = Vec::new();
        for mut entry in parent {
            let Some(path) = self.path(&entry.api_version) else { continue };
            let Some(path) = path.filter(|path| entry.set().has(path)) else {
                entries.push(entry);
                continue;
            };
            let kept = scale.iter().position(|other| same_manager(other, &entry));
            match kept {
                Some(at) => {
                    scale.remove(at);
                }
                // Somebody else has the replicas now.
                None => entry.fields = Fields::Set(entry.fields.take().difference(&set_of(&path))),
            }
            if !entry.fields.is_empty() {
                entries.push(entry);
            }
        }
        if let Some(path) = self.path(version).flatten() {
            for entry in scale.into_iter().filter(|entry| entry.fields.intersects(&in_scale())) {
                entries.push(Entry { api_version: version.to_owned(), fields: Fields::Set(set_of(&path)), ..entry });
            }
        }
        Ok((!entries.is_empty()).then(|| encode(entries)))
    }
}

/// Whether an entry of a Scale is one of the resource: updates are told apart by their version, which
/// is another one.
fn same_manager(scale: &Entry, parent: &Entry) -> bool {
    scale.manager == parent.manager
        && scale.operation == parent.operation
        && scale.subresource == parent.subresource
        && scale.operation == super::Operation::Apply
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn fields() -> ScaleFields {
        let replicas = Some(vec!["spec".to_owned(), "replicas".to_owned()]);
        ScaleFields { replicas: vec![("apps/v1".into(), replicas)] }
    }

    fn entry(manager: &str, operation: &str, version: &str, subresource: &str, fields: Value) -> Value {
        let mut entry = json!({"manager": manager, "operation": operation, "apiVersion": version, "fieldsType": "FieldsV1", "fieldsV1": fields});
        if !subresource.is_empty() {
            entry["subresource"] = subresource.into();
        }
        entry
    }

    #[test]
    fn there_and_back() {
        let replicas = json!({"f:spec": {"f:replicas": {}}});
        let both = json!({"f:spec": {"f:replicas": {}, "f:selector": {}}});
        let parent = json!([
            entry("applier", "Apply", "apps/v1", "", both.clone()),
            entry("other", "Apply", "apps/v9", "", both.clone()),
            entry("updater", "Update", "apps/v1", "", json!({"f:spec": {"f:selector": {}}})),
        ]);
        let scale = fields().to_scale(Some(&parent)).unwrap();
        assert_eq!(scale, Some(json!([entry("applier", "Apply", "autoscaling/v1", "", replicas.clone())])));
        // Nothing changes: all but the unknown version stays.
        let same = fields().to_parent(Some(&parent), scale.as_ref(), "apps/v1").unwrap().unwrap();
        assert_eq!(same.as_array().unwrap().len(), 2);
        assert_eq!(same[0], parent[0]);
        // Somebody takes the replicas.
        let taken = json!([entry("hpa", "Update", "autoscaling/v1", "scale", replicas.clone())]);
        let after = fields().to_parent(Some(&parent), Some(&taken), "apps/v1").unwrap().unwrap();
        assert_eq!(
            after,
            json!([
                entry("applier", "Apply", "apps/v1", "", json!({"f:spec": {"f:selector": {}}})),
                entry("hpa", "Update", "apps/v1", "scale", replicas),
                entry("updater", "Update", "apps/v1", "", json!({"f:spec": {"f:selector": {}}})),
            ])
        );
    }
}
