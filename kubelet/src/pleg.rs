//! Notices what happens to containers without the kubelet's doing: by the runtime's event stream where
//! it has one, and by listing everything once a second where it has none.
//!
//! Says only which pod to look at. With events the listing continues, slowly, as a safety net.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use component_base::clock::SharedClock;
use futures::StreamExt;
use tokio_util::sync::CancellationToken;

use crate::cri::{Result, Runtime};
use crate::runtime::labels;

/// Between listings without events.
const RELIST: Duration = Duration::from_secs(1);
/// And with them.
const RELIST_WITH_EVENTS: Duration = Duration::from_secs(60);
/// The listing is healthy if it succeeded within this time.
pub const HEALTHY: Duration = Duration::from_secs(180);

/// Who hears.
pub trait Listener: Send + Sync {
    /// Something about a pod changed.
    fn changed(&self, uid: &str);
    /// A listing succeeded; these pods have something in the runtime.
    fn listed(&self, uids: &HashSet<String>);
}

/// The state of everything, by id: pod uid and state number.
type Snapshot = HashMap<String, (String, i32)>;

/// Runs until shutdown.
pub async fn run(
    runtime: Arc<dyn Runtime>,
    listener: Arc<dyn Listener>,
    clock: SharedClock,
    shutdown: CancellationToken,
) {
    let mut known = Snapshot::new();
    let mut events_exist = true;
    loop {
        let mut events = match events_exist {
            true => match runtime.container_events().await {
                Ok(stream) => Some(stream),
                Err(error) => {
                    events_exist = !error.is_unimplemented();
                    None
                }
            },
            false => None,
        };
        // Events may have been missed until the stream stood: list after opening it.
        match snapshot(&runtime).await {
            Ok(fresh) => {
                for uid in differences(&known, &fresh) {
                    listener.changed(&uid);
                }
                known = fresh;
                listener.listed(&known.values().map(|(uid, _)| uid.clone()).collect());
            }
            Err(error) => tracing::debug!(%error, "failed to list containers"),
        }
        let wait = clock.sleep(if events.is_some() { RELIST_WITH_EVENTS } else { RELIST });
        tokio::pin!(wait);
        loop {
            let next = async {
                match &mut events {
                    Some(stream) => stream.next().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = &mut wait => break,
                event = next => match event {
                    Some(Ok(event)) => {
                        if let Some(metadata) = event.pod_sandbox_status.and_then(|s| s.metadata) {
                            listener.changed(&metadata.uid);
                        }
                    }
                    failed => {
                        // Either the runtime went away or it does not have the call: list meanwhile.
                        events_exist = !failed.is_some_and(|f| f.is_err_and(|e| e.is_unimplemented()));
                        events = None;
                        wait.set(clock.sleep(RELIST));
                    }
                },
            }
        }
    }
}

async fn snapshot(runtime: &Arc<dyn Runtime>) -> Result<Snapshot> {
    let (sandboxes, containers) = futures::try_join!(runtime.list_pod_sandbox(None), runtime.list_containers(None))?;
    let uid = |map: &HashMap<String, String>| map.get(labels::POD_UID).cloned();
    let sandboxes = sandboxes.into_iter().filter_map(|s| Some((s.id, (uid(&s.labels)?, s.state))));
    let containers = containers.into_iter().filter_map(|c| Some((c.id, (uid(&c.labels)?, c.state))));
    Ok(sandboxes.chain(containers).collect())
}

/// Pods of things that are new, gone or in another state.
fn differences(old: &Snapshot, new: &Snapshot) -> HashSet<String> {
    let changed = new.iter().filter(|(id, value)| old.get(*id) != Some(value)).map(|(_, (uid, _))| uid.clone());
    let gone = old.iter().filter(|(id, _)| !new.contains_key(*id)).map(|(_, (uid, _))| uid.clone());
    changed.chain(gone).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_changes_are_news() {
        let of = |items: &[(&str, &str, i32)]| -> Snapshot {
            items.iter().map(|(id, uid, state)| (id.to_string(), (uid.to_string(), *state))).collect()
        };
        let old = of(&[("a", "p1", 1), ("b", "p2", 1), ("c", "p3", 1)]);
        let new = of(&[("a", "p1", 1), ("b", "p2", 2), ("d", "p4", 0)]);
        let mut news: Vec<String> = differences(&old, &new).into_iter().collect();
        news.sort();
        assert_eq!(news, ["p2", "p3", "p4"]);
    }
}
