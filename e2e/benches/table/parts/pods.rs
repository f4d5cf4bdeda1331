//! Creates of pods: more fields to check and to default than anything else.

use super::{LOAD_FOR, POD_COLLECTION, pod};
use crate::figures::PODS;
use crate::load::{Ask, rate};
use crate::subject::{ControlPlane, Subject};
use crate::table::Table;

pub async fn run(subject: &Subject, table: &mut Table) -> anyhow::Result<()> {
    let plane = ControlPlane::api(subject, &[]).await?;
    for (clients, what) in PODS {
        let per_second = rate(&plane.endpoint, clients, LOAD_FOR, |client, number| {
            Ask::post(POD_COLLECTION, &pod(&format!("p{clients}-{client}-{number}"), None))
        })
        .await?;
        table.set(subject.kind, what, per_second);
    }
    plane.stop().await
}
