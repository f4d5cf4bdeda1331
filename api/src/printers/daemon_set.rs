//! DaemonSets.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::{self, at, int, list};
use super::{AGE, Column, NAME};

pub(super) const COLUMNS: &[Column] = &[
    NAME,
    Column::integer("Desired").of("io.k8s.api.apps.v1.DaemonSetStatus", "desiredNumberScheduled"),
    Column::integer("Current").of("io.k8s.api.apps.v1.DaemonSetStatus", "currentNumberScheduled"),
    Column::integer("Ready").of("io.k8s.api.apps.v1.DaemonSetStatus", "numberReady"),
    Column::integer("Up-to-date").of("io.k8s.api.apps.v1.DaemonSetStatus", "updatedNumberScheduled"),
    Column::integer("Available").of("io.k8s.api.apps.v1.DaemonSetStatus", "numberAvailable"),
    Column::string("Node Selector").of("io.k8s.api.core.v1.PodSpec", "nodeSelector"),
    AGE,
    Column::string("Containers").about("Names of each container in the template.").wide(),
    Column::string("Images").about("Images referenced by each container in the template.").wide(),
    Column::string("Selector").of("io.k8s.api.apps.v1.DaemonSetSpec", "selector").wide(),
];
pub(super) fn row(set: &Value, now: Timestamp) -> Vec<Value> {
    let status = |field| json!(int(set, &["status", field]));
    let (names, images) = cells::containers(list(set, &["spec", "template", "spec", "containers"]));
    vec![
        json!(cells::name(set)),
        status("desiredNumberScheduled"),
        status("currentNumberScheduled"),
        status("numberReady"),
        status("updatedNumberScheduled"),
        status("numberAvailable"),
        json!(cells::labels(set, &["spec", "template", "spec", "nodeSelector"])),
        cells::age(set, now),
        json!(names),
        json!(images),
        json!(cells::selector_cell(at(set, &["spec", "selector"]))),
    ]
}
