//! ControllerRevisions: the templates a StatefulSet or DaemonSet has had, so that it can go back.
//!
//! The data of a revision is a patch that replaces the pod template; two revisions are the same one
//! when their templates are. Upstream: `pkg/controller/history`.

use std::collections::BTreeMap;

use client::resources::CONTROLLER_REVISIONS;
use client::{Client, DeleteOptions, ObjectMeta, Patch, Resource};
use serde_json::{Value, json};

use crate::deployment::equal_ignoring_hash;
use crate::ownership::controller_reference;
use crate::types::ControllerRevision;
use crate::worker::Error;

/// The template a revision holds, without the patch directive.
pub fn template(revision: &ControllerRevision) -> Value {
    let mut template = revision.data["spec"]["template"].clone();
    if let Some(template) = template.as_object_mut() {
        template.remove("$patch");
    }
    template
}

fn data(template: &Value) -> Value {
    let mut template = template.clone();
    template["$patch"] = json!("replace");
    json!({ "spec": { "template": template } })
}

/// FNV-1, as upstream, over the JSON of the data.
fn hash(data: &Value, collisions: i64) -> String {
    let mut state: u32 = 0x811c_9dc5;
    for byte in data.to_string().bytes().chain(collisions.to_string().bytes()) {
        state = state.wrapping_mul(0x0100_0193) ^ u32::from(byte);
    }
    apimachinery::random::safe_encode(&state.to_string())
}

fn name(owner: &str, hash: &str) -> String {
    let mut end = owner.len().min(223);
    while !owner.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}-{hash}", &owner[..end])
}

/// A revision has the labels of its template, and its hash under the label of its kind of owner.
fn labels(template: &Value, label: &str, hash: &str) -> BTreeMap<String, String> {
    let own = template["metadata"]["labels"].as_object().into_iter().flatten();
    let own = own.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_string())));
    own.chain([(label.to_string(), hash.to_string())]).collect()
}

/// What must be done so that the newest revision holds the template.
#[derive(Debug, PartialEq)]
pub enum Decision {
    /// The newest does already.
    Newest,
    /// An older one does: it becomes the newest.
    Raise {
        place: usize,
        revision: i64,
    },
    Create {
        revision: i64,
    },
}

/// Pure. `revisions` are ordered by number.
pub fn decide(revisions: &[ControllerRevision], wanted: &Value) -> Decision {
    let next = revisions.last().map_or(1, |last| last.revision + 1);
    let equal = revisions.iter().rposition(|revision| equal_ignoring_hash(&template(revision), wanted));
    match equal {
        Some(place) if place + 1 == revisions.len() => Decision::Newest,
        Some(place) => Decision::Raise { place, revision: next },
        None => Decision::Create { revision: next },
    }
}

/// Pure: the oldest revisions beyond the limit that nobody lives on.
pub fn expendable<'a>(revisions: &'a [ControllerRevision], live: &[&str], limit: usize) -> Vec<&'a ControllerRevision> {
    let mut idle: Vec<_> =
        revisions.iter().filter(|revision| !live.contains(&revision.metadata.name.as_str())).collect();
    idle.truncate(idle.len().saturating_sub(limit));
    idle
}

/// The history of one owner.
pub struct History<'a> {
    pub client: &'a Client,
    pub resource: &'a Resource,
    pub owner: &'a ObjectMeta,
    /// The label that holds a revision's hash: each kind of owner has its own.
    pub label: &'static str,
}

impl History<'_> {
    /// Gives revisions without the label their name as its value, which is as good: nothing else has it.
    pub async fn label_all(&self, revisions: &mut [ControllerRevision]) -> Result<(), Error> {
        for revision in revisions.iter_mut().filter(|revision| revision.metadata.label(self.label).is_none()) {
            let known = &revision.metadata;
            let patch = Patch::Merge(json!({
                "metadata": {
                    "resourceVersion": known.resource_version, "uid": known.uid, "labels": {self.label: known.name},
                },
            }));
            *revision =
                self.client.patch(&CONTROLLER_REVISIONS, Some(&known.namespace), &known.name, None, &patch).await?;
        }
        Ok(())
    }

    /// Makes the newest revision hold `wanted`; answers it, and the collisions met on the way.
    pub async fn settle(
        &self,
        revisions: &mut Vec<ControllerRevision>,
        wanted: &Value,
        collisions: i64,
    ) -> Result<(ControllerRevision, i64), Error> {
        match decide(revisions, wanted) {
            Decision::Newest => {
                let newest = revisions.last().cloned().expect("the decision found it");
                Ok((newest, collisions))
            }
            Decision::Raise { place, revision } => {
                let known = &revisions[place].metadata;
                let patch = Patch::Merge(json!({
                    "metadata": { "resourceVersion": known.resource_version, "uid": known.uid },
                    "revision": revision,
                }));
                let raised: ControllerRevision =
                    self.client.patch(&CONTROLLER_REVISIONS, Some(&known.namespace), &known.name, None, &patch).await?;
                revisions.remove(place);
                revisions.push(raised.clone());
                Ok((raised, collisions))
            }
            Decision::Create { revision } => {
                let (created, collisions) = self.create(wanted, revision, collisions).await?;
                revisions.push(created.clone());
                Ok((created, collisions))
            }
        }
    }

    async fn create(
        &self,
        wanted: &Value,
        revision: i64,
        mut collisions: i64,
    ) -> Result<(ControllerRevision, i64), Error> {
        let data = data(wanted);
        loop {
            let made = self.manifest(wanted, &data, &hash(&data, collisions), revision);
            let namespace = Some(self.owner.namespace.as_str());
            let result: client::Result<ControllerRevision> =
                self.client.create(&CONTROLLER_REVISIONS, namespace, &made).await;
            match result {
                Ok(created) => return Ok((created, collisions)),
                Err(error) if error.is_already_exists() => {
                    let known: ControllerRevision =
                        self.client.get(&CONTROLLER_REVISIONS, namespace, &made.metadata.name).await?;
                    if equal_ignoring_hash(&template(&known), wanted) {
                        // Ours, from before the cache could know.
                        return Ok((known, collisions));
                    }
                    collisions += 1;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn manifest(&self, wanted: &Value, data: &Value, hash: &str, revision: i64) -> ControllerRevision {
        ControllerRevision {
            api_version: "apps/v1",
            kind: "ControllerRevision",
            metadata: ObjectMeta {
                name: name(&self.owner.name, hash),
                namespace: self.owner.namespace.clone(),
                labels: labels(wanted, self.label, hash).into(),
                annotations: self.owner.annotations.clone(),
                owner_references: vec![controller_reference(self.resource, self.owner)].into(),
                ..ObjectMeta::default()
            },
            data: data.clone(),
            revision,
        }
    }

    /// Deletes what the limit lets go.
    pub async fn truncate(&self, revisions: &[ControllerRevision], live: &[&str], limit: usize) -> Result<(), Error> {
        for revision in expendable(revisions, live, limit) {
            let meta = &revision.metadata;
            let result = self
                .client
                .delete(&CONTROLLER_REVISIONS, Some(&meta.namespace), &meta.name, &DeleteOptions::uid(&meta.uid))
                .await;
            match result {
                Err(error) if !error.is_not_found() && !error.is_conflict() => return Err(error.into()),
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn revision(number: i64, image: &str) -> ControllerRevision {
        let mut revision = ControllerRevision { data: data(&pod(image)), revision: number, ..Default::default() };
        revision.metadata.name = format!("r{number}");
        revision
    }

    fn pod(image: &str) -> Value {
        json!({ "metadata": { "labels": { "app": "a" } }, "spec": { "containers": [{ "image": image }] } })
    }

    #[test]
    fn revisions_move_on_and_back() {
        assert_eq!(decide(&[], &pod("a")), Decision::Create { revision: 1 });
        let known = [revision(1, "a"), revision(2, "b")];
        assert_eq!(decide(&known, &pod("b")), Decision::Newest);
        assert_eq!(decide(&known, &pod("a")), Decision::Raise { place: 0, revision: 3 });
        assert_eq!(decide(&known, &pod("c")), Decision::Create { revision: 3 });
        assert_eq!(template(&known[0]), pod("a"));
        assert_ne!(hash(&data(&pod("a")), 0), hash(&data(&pod("a")), 1));
    }

    #[test]
    fn revisions_are_labelled_as_their_template_and_by_hash() {
        let labels = labels(&pod("a"), "controller-revision-hash", "1x2");
        assert_eq!(
            labels.into_iter().collect::<Vec<_>>(),
            [("app".to_string(), "a".to_string()), ("controller-revision-hash".to_string(), "1x2".to_string()),]
        );
    }

    #[test]
    fn history_keeps_what_lives() {
        let known = [revision(1, "a"), revision(2, "b"), revision(3, "c"), revision(4, "d")];
        let names = |live: &[&str], limit| {
            expendable(&known, live, limit).iter().map(|revision| revision.revision).collect::<Vec<_>>()
        };
        assert_eq!(names(&["r1", "r4"], 1), [2]);
        assert_eq!(names(&["r1", "r4"], 0), [2, 3]);
        assert!(names(&["r1", "r4"], 10).is_empty());
    }
}
