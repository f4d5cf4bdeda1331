//! Creates of small objects, each on disk before it is answered.

use serde_json::json;

use super::LOAD_FOR;
use crate::figures::CONFIG_MAPS;
use crate::load::{Ask, rate};
use crate::subject::{ControlPlane, Subject};
use crate::table::Table;

pub async fn run(subject: &Subject, table: &mut Table) -> anyhow::Result<()> {
    let plane = ControlPlane::api(subject, &[]).await?;
    for (clients, what) in CONFIG_MAPS {
        let per_second = rate(&plane.endpoint, clients, LOAD_FOR, |client, number| {
            let name = format!("w{clients}-{client}-{number}");
            let map =
                json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"key": "value"}});
            Ask::post("/api/v1/namespaces/default/configmaps", &map)
        })
        .await?;
        table.set(subject.kind, what, per_second);
    }
    plane.stop().await
}
