//! Guards ServiceCIDRs: says when one is ready, and holds a deleted one back for as long as it is the
//! only range of some Service's address.
//!
//! Reads ServiceCIDRs and IPAddresses; writes finalizers and conditions of ServiceCIDRs. Upstream:
//! `pkg/controller/servicecidrs` (KEP-1880).

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use client::informer::{Event, InformerParams, Store};
use client::meta::null_default;
use client::resources::{IP_ADDRESSES, SERVICE_CIDRS};
use client::workqueue::WorkQueue;
use client::{Client, ObjectKey, ObjectMeta, Patch};
use component_base::clock::SharedClock;
use futures::future::BoxFuture;
use ipnet::IpNet;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use crate::context::Context;
use crate::types::{Condition, condition, whole_seconds};
use crate::worker::{self, Requeue};

pub const NAME: &str = "service-cidr-controller";

const FINALIZER: &str = "networking.k8s.io/service-cidr-finalizer";
/// The label of addresses that the API server took for Services.
const ALLOCATED: &str = "ipaddress.kubernetes.io/managed-by=ipallocator.k8s.io";
/// Allocators may not have heard of a deletion yet.
const GRACE: Duration = Duration::from_secs(10);
const WORKERS: usize = 5;
const BLOCKED: &str =
    "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR";

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct ServiceCidr {
    metadata: ObjectMeta,
    #[serde(deserialize_with = "null_default")]
    spec: Spec,
    #[serde(deserialize_with = "null_default")]
    status: Status,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Spec {
    #[serde(deserialize_with = "null_default")]
    cidrs: Vec<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Status {
    #[serde(deserialize_with = "null_default")]
    conditions: Vec<Condition>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Address {
    metadata: ObjectMeta,
}

client::impl_meta!(ServiceCidr);
client::impl_meta!(Address);

impl ServiceCidr {
    fn ranges(&self) -> impl Iterator<Item = IpNet> + '_ {
        self.spec.cidrs.iter().filter_map(|range| range.parse().ok())
    }

    /// Whether addresses of Services may come from here: not the first, nor the last of IPv4.
    fn holds(&self, address: IpAddr) -> bool {
        let edge = |range: &IpNet| {
            range.network() == address || matches!(range, IpNet::V4(range) if range.broadcast() == address)
        };
        self.ranges().any(|range| range.contains(&address) && !edge(&range))
    }

    fn overlaps(&self, other: &ServiceCidr) -> bool {
        self.ranges().any(|mine| other.ranges().any(|theirs| mine.contains(&theirs) || theirs.contains(&mine)))
    }
}

/// Pure: whether a range may go without leaving an address outside of every range.
fn may_go(range: &ServiceCidr, all: &[Arc<ServiceCidr>], addresses: &[Arc<Address>]) -> bool {
    let name = &range.metadata.name;
    let covered = range.ranges().all(|mine| {
        all.iter().any(|other| other.metadata.name != *name && other.ranges().any(|theirs| theirs.contains(&mine)))
    });
    covered
        || !addresses.iter().filter_map(|address| address.metadata.name.parse().ok()).any(|address: IpAddr| {
            range.holds(address) && !all.iter().any(|other| other.metadata.name != *name && other.holds(address))
        })
}

struct Controller {
    client: Client,
    clock: SharedClock,
    ranges: Store<ServiceCidr>,
    addresses: Store<Address>,
}

pub fn start(context: &Arc<Context>) -> BoxFuture<'static, ()> {
    let ranges = context.informers.of::<ServiceCidr>(&SERVICE_CIDRS);
    let addresses = context.informers.informer::<Address>(&IP_ADDRESSES, InformerParams::labels(ALLOCATED));
    let queue: WorkQueue<ObjectKey> = WorkQueue::new();
    {
        let (queue, store) = (queue.clone(), ranges.store());
        ranges.on_event(move |event| {
            let object = event.object();
            queue.add(object.metadata.key());
            // Others may hold what this one held, or be held up by its absence.
            for other in store.list().iter().filter(|other| other.overlaps(object)) {
                queue.add(other.metadata.key());
            }
        });
    }
    {
        let (queue, store) = (queue.clone(), ranges.store());
        addresses.on_event(move |event| {
            if matches!(event, Event::Modified { .. }) {
                return;
            }
            let Ok(address) = event.object().metadata.name.parse() else { return };
            for range in store.list().iter().filter(|range| range.holds(address)) {
                queue.add(range.metadata.key());
            }
        });
    }
    let controller = Arc::new(Controller {
        client: context.client("service-cidrs-controller"),
        clock: context.clock.clone(),
        ranges: ranges.store(),
        addresses: addresses.store(),
    });
    let followed = [ranges.synced(), addresses.synced()];
    worker::start(NAME, queue, WORKERS, &context.shutdown, followed, move |key| {
        let controller = controller.clone();
        async move { controller.sync(&key).await }
    })
}

impl Controller {
    async fn sync(&self, key: &ObjectKey) -> worker::Result {
        let Some(range) = self.ranges.get(key) else { return Ok(Requeue::Never) };
        let Some(deleted) = range.metadata.deletion_timestamp else {
            if !range.metadata.finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
                self.finalizers(&key.name, json!({"finalizers": [FINALIZER]})).await?;
            }
            self.report(&range, "True", "", "Kubernetes Service CIDR is ready").await?;
            return Ok(Requeue::Never);
        };
        if !may_go(&range, &self.ranges.list(), &self.addresses.list()) {
            self.report(&range, "False", "Terminating", BLOCKED).await?;
            return Ok(Requeue::Never);
        }
        let since = self.clock.now().duration_since(deleted).unsigned_abs();
        if since < GRACE {
            return Ok(Requeue::After(GRACE - since));
        }
        if range.metadata.finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
            self.finalizers(&key.name, json!({"$deleteFromPrimitiveList/finalizers": [FINALIZER]})).await?;
        }
        Ok(Requeue::Never)
    }

    async fn finalizers(&self, name: &str, metadata: Value) -> worker::Result<()> {
        let patch = Patch::Strategic(json!({ "metadata": metadata }));
        match self.client.patch::<IgnoredAny>(&SERVICE_CIDRS, None, name, None, &patch).await {
            Err(error) if !error.is_not_found() => Err(error.into()),
            _ => Ok(()),
        }
    }

    async fn report(&self, range: &ServiceCidr, status: &str, reason: &str, message: &str) -> worker::Result<()> {
        let now = condition(&range.status.conditions, "Ready");
        if now.is_some_and(|now| now.status == status && now.reason == reason && now.message == message) {
            return Ok(());
        }
        let name = &range.metadata.name;
        let body = json!({
            "apiVersion": "networking.k8s.io/v1",
            "kind": "ServiceCIDR",
            "metadata": { "name": name },
            "status": { "conditions": [{
                "type": "Ready",
                "status": status,
                "reason": reason,
                "message": message,
                "lastTransitionTime": whole_seconds(self.clock.now()),
            }]},
        });
        let patch = Patch::Apply { body, manager: NAME.to_string(), force: true };
        self.client.patch::<IgnoredAny>(&SERVICE_CIDRS, None, name, Some("status"), &patch).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_stay_while_they_are_needed() {
        let range = |name: &str, cidrs: &[&str]| {
            let mut range = ServiceCidr::default();
            range.metadata.name = name.to_string();
            range.spec.cidrs = cidrs.iter().map(ToString::to_string).collect();
            Arc::new(range)
        };
        let small = range("small", &["10.0.1.0/24"]);
        let check = |others: &[Arc<ServiceCidr>], addresses: &[&str], want: bool| {
            let all: Vec<_> = others.iter().cloned().chain([small.clone()]).collect();
            let addresses: Vec<_> = addresses
                .iter()
                .map(|name| {
                    let mut address = Address::default();
                    address.metadata.name = name.to_string();
                    Arc::new(address)
                })
                .collect();
            assert_eq!(may_go(&small, &all, &addresses), want, "{others:?} {addresses:?}");
        };
        check(&[], &[], true);
        check(&[], &["10.0.2.7", "fd00::7"], true);
        check(&[], &["10.0.1.7"], false);
        check(&[range("same", &["10.0.1.0/24"])], &["10.0.1.7"], true);
        check(&[range("large", &["10.0.0.0/16"])], &["10.0.1.7"], true);
        check(&[range("half", &["10.0.1.0/25"])], &["10.0.1.7"], true);
        check(&[range("half", &["10.0.1.0/25"])], &["10.0.1.7", "10.0.1.200"], false);
        // An address at the edge of a range is not one of the range.
        check(&[range("edge", &["10.0.1.0/29"])], &["10.0.1.7"], false);
        check(&[], &["10.0.1.255"], true);
    }
}
