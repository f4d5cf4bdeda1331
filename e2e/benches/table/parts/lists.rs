//! LIST of many pods in each form, and the memory that holding them takes.

use std::time::Instant;

use super::{POD_COLLECTION, PODS, SETTLED, fill, median};
use crate::figures::{FULL_API, LIST_JSON, LIST_PAGE, LIST_PRETTY, LIST_PROTOBUF};
use crate::load::{Ask, Connection, PROTOBUF};
use crate::subject::{ControlPlane, Kind, Subject};
use crate::table::Table;

const TIMES: usize = 9;
/// Upstream takes a second for some of them.
const UPSTREAMS_TIMES: usize = 5;

pub async fn run(subject: &Subject, table: &mut Table) -> anyhow::Result<()> {
    let plane = ControlPlane::api(subject, &[]).await?;
    fill(&plane.endpoint, "listed", PODS).await?;
    tokio::time::sleep(SETTLED).await;
    table.set_memory(subject.kind, FULL_API, plane.memory());
    let all = format!("{POD_COLLECTION}?resourceVersion=0");
    let asks = [
        (LIST_JSON, Ask::get(&all)),
        // What curl asks for, and what every browser is answered: indented.
        (LIST_PRETTY, Ask { agent: "curl/8.14.1", ..Ask::get(&all).accept("*/*") }),
        (LIST_PROTOBUF, Ask::get(&all).accept(PROTOBUF)),
        (LIST_PAGE, Ask::get(format!("{POD_COLLECTION}?limit=500"))),
    ];
    for (what, ask) in asks {
        let mut connection = Connection::open(&plane.endpoint).await?;
        let mut times = Vec::new();
        let repeat = if subject.kind == Kind::Keelson { TIMES } else { UPSTREAMS_TIMES };
        for _ in 0..repeat {
            let started = Instant::now();
            connection.count(&ask).await?;
            times.push(started.elapsed().as_secs_f64() * 1e3);
        }
        table.set(subject.kind, what, median(times));
    }
    plane.stop().await
}
