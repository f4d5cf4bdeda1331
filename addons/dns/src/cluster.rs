//! What is known of the cluster: Services, their endpoints, namespaces and, where asked for, pods; kept by informers
//! and looked up by name or by address.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use client::informer::{Informer, InformerParams, SharedInformerFactory, Store};
use client::{Meta, resources};
use component_base::clock::SharedClock;

use crate::config::PodRecords;
use crate::objects::{EndpointSlice, Namespace, Pod, Service};

/// Index of what has an address, by the address as [`IpAddr`] writes it.
const ADDRESS: &str = "address";
/// Index of slices, by `NAMESPACE/SERVICE`.
const SERVICE: &str = "service";

/// The cluster as this node knows it.
pub struct Cluster {
    pub(crate) services: Store<Service>,
    pub(crate) slices: Store<EndpointSlice>,
    pub(crate) namespaces: Store<Namespace>,
    /// Empty unless names of pods are verified.
    pub(crate) pods: Store<Pod>,
    synced: AtomicBool,
    /// When anything last changed, in seconds since the epoch: the serial number of the zone.
    modified: AtomicU32,
}

impl Default for Cluster {
    fn default() -> Self {
        Self::over(Store::default(), Store::default(), Store::default(), Store::default())
    }
}

impl Cluster {
    fn over(
        services: Store<Service>,
        slices: Store<EndpointSlice>,
        namespaces: Store<Namespace>,
        pods: Store<Pod>,
    ) -> Self {
        services.add_index(ADDRESS, |service: &Service| service.addresses().filter_map(written).collect());
        slices.add_index(SERVICE, |slice: &EndpointSlice| vec![service_key(slice.namespace(), slice.service())]);
        slices.add_index(ADDRESS, |slice: &EndpointSlice| {
            slice.ready().flat_map(|endpoint| &endpoint.addresses).filter_map(|ip| written(ip)).collect()
        });
        pods.add_index(ADDRESS, |pod: &Pod| {
            // The address of a pod that has ended may be another's already.
            let ended = matches!(pod.status.phase.as_str(), "Succeeded" | "Failed");
            pod.status.pod_ips.iter().filter(|_| !ended).filter_map(|ip| written(&ip.ip)).collect()
        });
        Self { services, slices, namespaces, pods, synced: AtomicBool::new(false), modified: AtomicU32::new(0) }
    }

    /// A cluster that follows the API server.
    pub fn follow(factory: &SharedInformerFactory, pods: PodRecords, clock: &SharedClock) -> Arc<Self> {
        let services = factory.of::<Service>(&resources::SERVICES);
        let slices = factory.of::<EndpointSlice>(&resources::ENDPOINT_SLICES);
        let namespaces = factory.informer::<Namespace>(&resources::NAMESPACES, InformerParams::metadata_only());
        let pod_store = match pods {
            PodRecords::Verified => factory.of::<Pod>(&resources::PODS).store(),
            PodRecords::Insecure | PodRecords::Disabled => Store::default(),
        };
        let cluster = Arc::new(Self::over(services.store(), slices.store(), namespaces.store(), pod_store));
        cluster.date(&services, clock);
        cluster.date(&slices, clock);
        cluster
    }

    /// Every change of these gives the zone a new serial number.
    fn date<T: Meta + serde::de::DeserializeOwned>(self: &Arc<Self>, informer: &Informer<T>, clock: &SharedClock) {
        let (cluster, clock) = (self.clone(), clock.clone());
        informer.on_event(move |_| {
            let now = u32::try_from(clock.now().as_second()).unwrap_or_default();
            cluster.modified.store(now, Ordering::Relaxed);
        });
    }

    /// Says that everything there is has been received.
    pub fn set_synced(&self) {
        self.synced.store(true, Ordering::Release);
    }

    /// Whether what is not known does not exist.
    pub fn is_synced(&self) -> bool {
        self.synced.load(Ordering::Acquire)
    }

    /// The serial number of the zone.
    pub fn serial(&self) -> u32 {
        self.modified.load(Ordering::Relaxed)
    }

    pub(crate) fn has_namespace(&self, name: &str) -> bool {
        self.namespaces.get_named("", name).is_some()
    }

    pub(crate) fn service(&self, namespace: &str, name: &str) -> Option<Arc<Service>> {
        self.services.get_named(namespace, name)
    }

    pub(crate) fn slices_of(&self, namespace: &str, service: &str) -> Vec<Arc<EndpointSlice>> {
        self.slices.by_index(SERVICE, &service_key(namespace, service))
    }

    pub(crate) fn services_at(&self, address: IpAddr) -> Vec<Arc<Service>> {
        self.services.by_index(ADDRESS, &address.to_string())
    }

    pub(crate) fn slices_at(&self, address: IpAddr) -> Vec<Arc<EndpointSlice>> {
        self.slices.by_index(ADDRESS, &address.to_string())
    }

    pub(crate) fn has_pod(&self, namespace: &str, address: IpAddr) -> bool {
        self.pods.by_index(ADDRESS, &address.to_string()).iter().any(|pod| pod.namespace() == namespace)
    }
}

fn service_key(namespace: &str, service: &str) -> String {
    format!("{namespace}/{service}")
}

/// An address in the one form in which it is looked up, `None` for what is none.
fn written(address: &str) -> Option<String> {
    address.parse::<IpAddr>().ok().map(|address| address.to_string())
}
