//! Deployments.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::{self, at, int, list};
use super::{AGE, Column, NAME};

pub(super) const COLUMNS: &[Column] = &[
    NAME,
    Column::string("Ready").about("Number of the pod with ready state"),
    Column::string("Up-to-date").of("io.k8s.api.apps.v1.DeploymentStatus", "updatedReplicas"),
    Column::string("Available").of("io.k8s.api.apps.v1.DeploymentStatus", "availableReplicas"),
    AGE,
    Column::string("Containers").about("Names of each container in the template.").wide(),
    Column::string("Images").about("Images referenced by each container in the template.").wide(),
    Column::string("Selector").of("io.k8s.api.apps.v1.DeploymentSpec", "selector").wide(),
];
pub(super) fn row(deployment: &Value, now: Timestamp) -> Vec<Value> {
    let status = |field| int(deployment, &["status", field]);
    let (names, images) = cells::containers(list(deployment, &["spec", "template", "spec", "containers"]));
    // Unlike other workloads a Deployment prints an empty selector as nothing.
    let selector = cells::selector(at(deployment, &["spec", "selector"])).unwrap_or_else(|| "<invalid>".into());
    vec![
        json!(cells::name(deployment)),
        json!(format!("{}/{}", status("readyReplicas"), int(deployment, &["spec", "replicas"]))),
        json!(status("updatedReplicas")),
        json!(status("availableReplicas")),
        cells::age(deployment, now),
        json!(names),
        json!(images),
        json!(selector),
    ]
}
