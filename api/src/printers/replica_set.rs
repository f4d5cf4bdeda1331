//! ReplicaSets and ReplicationControllers.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::{self, at, int, list};
use super::{AGE, Column, NAME};

pub(super) const COLUMNS: &[Column] = &[
    NAME,
    Column::integer("Desired").of("io.k8s.api.apps.v1.ReplicaSetSpec", "replicas"),
    Column::integer("Current").of("io.k8s.api.apps.v1.ReplicaSetStatus", "replicas"),
    Column::integer("Ready").of("io.k8s.api.apps.v1.ReplicaSetStatus", "readyReplicas"),
    AGE,
    Column::string("Containers").about("Names of each container in the template.").wide(),
    Column::string("Images").about("Images referenced by each container in the template.").wide(),
    Column::string("Selector").of("io.k8s.api.apps.v1.ReplicaSetSpec", "selector").wide(),
];
pub(super) const CONTROLLER_COLUMNS: &[Column] = &[
    NAME,
    Column::integer("Desired").of("io.k8s.api.core.v1.ReplicationControllerSpec", "replicas"),
    Column::integer("Current").of("io.k8s.api.core.v1.ReplicationControllerStatus", "replicas"),
    Column::integer("Ready").of("io.k8s.api.core.v1.ReplicationControllerStatus", "readyReplicas"),
    AGE,
    Column::string("Containers").about("Names of each container in the template.").wide(),
    Column::string("Images").about("Images referenced by each container in the template.").wide(),
    Column::string("Selector").of("io.k8s.api.core.v1.ReplicationControllerSpec", "selector").wide(),
];
pub(super) fn row(set: &Value, now: Timestamp) -> Vec<Value> {
    cells_with(set, now, cells::selector_cell(at(set, &["spec", "selector"])))
}

pub(super) fn controller_row(controller: &Value, now: Timestamp) -> Vec<Value> {
    cells_with(controller, now, cells::labels(controller, &["spec", "selector"]))
}

fn cells_with(set: &Value, now: Timestamp, selector: String) -> Vec<Value> {
    let (names, images) = cells::containers(list(set, &["spec", "template", "spec", "containers"]));
    vec![
        json!(cells::name(set)),
        json!(int(set, &["spec", "replicas"])),
        json!(int(set, &["status", "replicas"])),
        json!(int(set, &["status", "readyReplicas"])),
        cells::age(set, now),
        json!(names),
        json!(images),
        json!(selector),
    ]
}
