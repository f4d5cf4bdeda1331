//! Memory: of every program when idle, and of the control plane when it holds many pods.

use super::{FILLERS, POD_COLLECTION, PODS, SETTLED, default_account, make_nodes, node_name, pod};
use crate::figures::{FULL_CONTROL_PLANE, IDLE_API, IDLE_CONTROL_PLANE, IDLE_CONTROLLERS, IDLE_SCHEDULER};
use crate::load::{self, Ask};
use crate::subject::{ControlPlane, Limits, Subject};
use crate::table::Table;

const NODES: usize = 100;

pub async fn run(subject: &Subject, table: &mut Table) -> anyhow::Result<()> {
    // Each program alone.
    let mut plane = ControlPlane::api(subject, &[]).await?;
    tokio::time::sleep(SETTLED).await;
    table.set_memory(subject.kind, IDLE_API, plane.memory());
    plane.start_controllers(Limits::Default)?;
    plane.start_scheduler(Limits::Default)?;
    tokio::time::sleep(SETTLED).await;
    table.set_memory(subject.kind, IDLE_CONTROLLERS, plane.memory_of("kube-controller-manager"));
    table.set_memory(subject.kind, IDLE_SCHEDULER, plane.memory_of("kube-scheduler"));
    plane.stop().await?;

    let plane = ControlPlane::whole(subject, Limits::Default).await?;
    default_account(&plane.endpoint).await?;
    tokio::time::sleep(SETTLED).await;
    table.set_memory(subject.kind, IDLE_CONTROL_PLANE, plane.memory());
    // Pods that have their node already: it is the holding that is measured, not the scheduling.
    make_nodes(&plane.endpoint, NODES).await?;
    load::each(&plane.endpoint, FILLERS, PODS, |number| {
        let node = node_name(number % NODES);
        Ask::post(POD_COLLECTION, &pod(&format!("held-{number}"), Some(&node)))
    })
    .await?;
    tokio::time::sleep(SETTLED).await;
    table.set_memory(subject.kind, FULL_CONTROL_PLANE, plane.memory());
    plane.stop().await
}
