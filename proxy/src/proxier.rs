//! The sync loop of one IP family: collects changes, and runs the backend no more often than asked.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use component_base::clock::SharedClock;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::backend::{Backend, Scope, View};
use crate::conntrack;
use crate::endpoints::{EndpointsChangeTracker, local_ready_endpoints};
use crate::healthcheck::{ProxyHealth, ServiceHealth};
use crate::metrics::Metrics;
use crate::objects::{EndpointSlice, Service};
use crate::services::ServiceChangeTracker;
use crate::types::{EndpointsMap, IpFamily, NamespacedName, ServicePortMap};

/// Even when nothing is wrong, everything is written anew this often.
pub const FULL_SYNC_PERIOD: Duration = Duration::from_secs(3600);

/// When to sync.
#[derive(Clone, Copy, Debug)]
pub struct Periods {
    /// At least this long between two syncs.
    pub min: Duration,
    /// Retry after a failure, and look for flushed rules, this often.
    pub retry: Duration,
}

/// What the sync loop needs from outside.
#[derive(Clone)]
pub struct Context {
    /// Time.
    pub clock: SharedClock,
    /// Told of changes and syncs.
    pub health: ProxyHealth,
    /// Counts.
    pub metrics: Metrics,
    /// The ports of services with local policy.
    pub service_health: Arc<ServiceHealth>,
}

/// Receives changes. Cheap to clone.
#[derive(Clone)]
pub struct Proxier {
    family: IpFamily,
    changes: Arc<Mutex<Changes>>,
    wake: Arc<Notify>,
    context: Context,
}

struct Changes {
    services: ServiceChangeTracker,
    endpoints: EndpointsChangeTracker,
    zone: String,
    /// Events before this are the initial state, synced as a whole.
    initialized: bool,
    force_full: bool,
}

/// What the loop owns: the state the rules were made from, and the backend.
struct Synced {
    backend: Box<dyn Backend>,
    services: ServicePortMap,
    endpoints: EndpointsMap,
}

/// What one sync found.
struct Outcome {
    failed: Option<crate::backend::Error>,
    health_check_ports: BTreeMap<NamespacedName, u16>,
    local_endpoints: BTreeMap<NamespacedName, usize>,
}

impl Proxier {
    /// A proxier of `family` on the node `node_name`.
    pub fn new(family: IpFamily, node_name: &str, context: Context) -> Self {
        Self {
            family,
            changes: Arc::new(Mutex::new(Changes {
                services: ServiceChangeTracker::new(family),
                endpoints: EndpointsChangeTracker::new(family, node_name),
                zone: String::new(),
                initialized: false,
                force_full: true,
            })),
            wake: Arc::default(),
            context,
        }
    }

    /// A service changed.
    pub fn on_service(&self, old: Option<&Service>, new: Option<&Service>) {
        self.context.metrics.service_changes_total.inc(&[]);
        let mut changes = self.changes.lock();
        if changes.services.update(old, new) {
            self.queue(&changes);
        }
    }

    /// A slice changed, or went away.
    pub fn on_endpoint_slice(&self, slice: &Arc<EndpointSlice>, removed: bool) {
        self.context.metrics.endpoint_changes_total.inc(&[]);
        let mut changes = self.changes.lock();
        if changes.endpoints.update(slice, removed) {
            self.queue(&changes);
        }
    }

    /// The node's zone; a change concerns every service.
    pub fn set_zone(&self, zone: &str) {
        let mut changes = self.changes.lock();
        if changes.zone != zone {
            zone.clone_into(&mut changes.zone);
            changes.force_full = true;
            self.queue(&changes);
        }
    }

    /// The initial state is complete: from now on changes are synced as they come.
    pub fn start_syncing(&self) {
        let mut changes = self.changes.lock();
        changes.initialized = true;
        self.queue(&changes);
    }

    fn queue(&self, changes: &Changes) {
        if changes.initialized {
            self.context.health.queued(self.family);
            self.context.metrics.queued(self.family, self.context.clock.now());
            self.wake.notify_one();
        }
    }

    /// Syncs until `shutdown`.
    pub async fn run(self, backend: Box<dyn Backend>, periods: Periods, shutdown: CancellationToken) {
        let clock = self.context.clock.clone();
        self.context.health.updated(self.family);
        let mut synced = Synced { backend, services: ServicePortMap::new(), endpoints: EndpointsMap::new() };
        let mut last_full = clock.monotonic();
        let mut retry_at: Option<Duration> = None;
        let mut look_at = clock.monotonic() + periods.retry;
        loop {
            let now = clock.monotonic();
            let next = retry_at.unwrap_or(Duration::MAX).min(look_at).min(last_full + FULL_SYNC_PERIOD);
            let woken = tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.wake.notified() => true,
                () = clock.sleep(next.saturating_sub(now)) => false,
            };
            let now = clock.monotonic();
            let mut wanted = woken || retry_at.is_some_and(|at| now >= at);
            if now >= last_full + FULL_SYNC_PERIOD {
                self.changes.lock().force_full = true;
                wanted = true;
            }
            if now >= look_at {
                look_at = now + periods.retry;
                if self.changes.lock().initialized {
                    let damaged;
                    (synced, damaged) = blocking(synced, |synced| synced.backend.damaged()).await;
                    if damaged {
                        tracing::warn!(family = %self.family, "our rules were flushed; writing them anew");
                        self.changes.lock().force_full = true;
                        wanted = true;
                    }
                }
            }
            if !wanted || !self.changes.lock().initialized {
                continue;
            }
            let this = self.clone();
            let (back, (outcome, full)) = blocking(synced, move |synced| this.sync(synced)).await;
            synced = back;
            retry_at = None;
            match outcome.failed {
                Some(error) => {
                    tracing::error!(family = %self.family, %error, retry = ?periods.retry, "Sync failed");
                    self.changes.lock().force_full = true;
                    retry_at = Some(clock.monotonic() + periods.retry);
                }
                None => {
                    if full {
                        last_full = clock.monotonic();
                    }
                    self.report_services(&outcome).await;
                }
            }
            // Changes that arrive meanwhile are taken together.
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = clock.sleep(periods.min) => {}
            }
        }
    }

    async fn report_services(&self, outcome: &Outcome) {
        let failed = self.context.service_health.sync(&outcome.health_check_ports, &outcome.local_endpoints).await;
        for (service, port, error) in failed {
            tracing::error!(%service, port, %error, "Failed to start healthcheck");
        }
    }

    /// One sync; runs on a thread of its own because it waits for processes.
    fn sync(&self, synced: &mut Synced) -> (Outcome, bool) {
        let started = self.context.clock.monotonic();
        let (changed, conntrack_cleanup, full, zone) = {
            let mut changes = self.changes.lock();
            let mut changed = changes.services.apply(&mut synced.services);
            let update = changes.endpoints.apply(&mut synced.endpoints);
            changed.extend(update.updated);
            self.context.metrics.service_changes_pending.set(&[], 0.0);
            self.context.metrics.endpoint_changes_pending.set(&[], 0.0);
            let full = std::mem::take(&mut changes.force_full);
            (changed, update.conntrack_cleanup_required, full, changes.zone.clone())
        };
        let view = View { services: &synced.services, endpoints: &synced.endpoints, zone: &zone };
        let scope = if full { Scope::Full } else { Scope::Changed(&changed) };
        let result = synced.backend.sync(view, scope);
        let took = self.context.clock.monotonic().saturating_sub(started);
        let failed = match result {
            Ok(report) => {
                self.context.metrics.synced(self.family, full, took, self.context.clock.now(), report);
                self.context.health.updated(self.family);
                tracing::debug!(family = %self.family, full, services = synced.services.len(), rules = report.nat_rules_written, ?took, "SyncProxyRules complete");
                None
            }
            Err(error) => {
                self.context.metrics.failed(self.family, full, took);
                Some(error)
            }
        };
        // At the start flows may be stale from before: nobody watched meanwhile.
        if failed.is_none() && (conntrack_cleanup || full) {
            match conntrack::clean(self.family, &synced.services, &synced.endpoints) {
                Ok(deleted) => {
                    self.context.metrics.conntrack_deleted.with(&[self.family.as_str()]).inc_by(deleted as u64);
                }
                Err(error) => tracing::error!(family = %self.family, %error, "cannot clean stale UDP flows"),
            }
        }
        let outcome = Outcome {
            failed,
            health_check_ports: synced
                .services
                .iter()
                .filter(|(_, port)| port.health_check_node_port != 0)
                .map(|(name, port)| (name.service.clone(), port.health_check_node_port))
                .collect(),
            local_endpoints: local_ready_endpoints(&synced.endpoints),
        };
        (outcome, full)
    }
}

/// Runs `work` where blocking is allowed, handing the state through.
async fn blocking<R: Send + 'static>(
    mut synced: Synced,
    work: impl FnOnce(&mut Synced) -> R + Send + 'static,
) -> (Synced, R) {
    tokio::task::spawn_blocking(move || {
        let result = work(&mut synced);
        (synced, result)
    })
    .await
    .expect("a sync does not panic, and the runtime outlives the loop")
}
