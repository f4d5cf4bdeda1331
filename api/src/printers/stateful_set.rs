//! StatefulSets, and the ControllerRevisions that they and DaemonSets keep.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::{self, flag, int, list, text};
use super::{AGE, Column, NAME};

pub(super) const COLUMNS: &[Column] = &[
    NAME,
    Column::string("Ready").about("Number of the pod with ready state"),
    AGE,
    Column::string("Containers").about("Names of each container in the template.").wide(),
    Column::string("Images").about("Images referenced by each container in the template.").wide(),
];
pub(super) const REVISION_COLUMNS: &[Column] = &[
    NAME,
    Column::string("Controller").about("Controller of the object"),
    Column::string("Revision").of("io.k8s.api.apps.v1.ControllerRevision", "revision"),
    AGE,
];
pub(super) fn row(set: &Value, now: Timestamp) -> Vec<Value> {
    let (names, images) = cells::containers(list(set, &["spec", "template", "spec", "containers"]));
    vec![
        json!(cells::name(set)),
        json!(format!("{}/{}", int(set, &["status", "readyReplicas"]), int(set, &["spec", "replicas"]))),
        cells::age(set, now),
        json!(names),
        json!(images),
    ]
}

pub(super) fn revision_row(revision: &Value, now: Timestamp) -> Vec<Value> {
    let owner = list(revision, &["metadata", "ownerReferences"]).iter().find(|owner| flag(owner, &["controller"]));
    let controller = owner.map_or_else(
        || "<none>".to_owned(),
        |owner| {
            let (kind, name) = (text(owner, &["kind"]), text(owner, &["name"]));
            match text(owner, &["apiVersion"]).split_once('/') {
                Some((group, _)) if !group.is_empty() => format!("{}/{name}", format!("{kind}.{group}").to_lowercase()),
                _ if kind.is_empty() => name.to_owned(),
                _ => format!("{}/{name}", kind.to_lowercase()),
            }
        },
    );
    vec![
        json!(cells::name(revision)),
        json!(controller),
        json!(int(revision, &["revision"])),
        cells::age(revision, now),
    ]
}
