//! From nothing to an API server, and to a whole control plane, that says it is ready.

use super::median;
use crate::figures::{API_READY, CONTROL_PLANE_READY};
use crate::subject::{ControlPlane, Kind, Limits, Subject};
use crate::table::Table;

const TIMES: usize = 3;
/// Upstream takes seconds each time, and about the same.
const UPSTREAMS_TIMES: usize = 1;

pub async fn run(subject: &Subject, table: &mut Table) -> anyhow::Result<()> {
    let (mut api, mut whole) = (Vec::new(), Vec::new());
    let times = if subject.kind == Kind::Keelson { TIMES } else { UPSTREAMS_TIMES };
    for _ in 0..times {
        let plane = ControlPlane::api(subject, &[]).await?;
        api.push(plane.ready_after.as_secs_f64());
        plane.stop().await?;
    }
    table.set(subject.kind, API_READY, median(api));
    for _ in 0..times {
        let plane = ControlPlane::whole(subject, Limits::Default).await?;
        // Its controllers work once this is there; upstream's take longer than its API server says.
        super::default_account(&plane.endpoint).await?;
        whole.push(plane.started.elapsed().as_secs_f64());
        plane.stop().await?;
    }
    table.set(subject.kind, CONTROL_PLANE_READY, median(whole));
    Ok(())
}
