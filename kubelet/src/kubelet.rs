//! Puts the parts together and runs them.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use client::informer::{Event, Informer, InformerParams};
use client::{Client, Meta, resources};
use component_base::clock::{RealClock, SharedClock};
use k8s_openapi::api::core::v1::{Node as ApiNode, Pod, Service};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::allocation::{Allocations, NodeView};
use crate::api::{Api, Events};
use crate::api_client::{ApiClient, Recorder, Typed};
use crate::certificates;
use crate::cgroup::{Cgroups, Tree, Unmanaged};
use crate::config::Config;
use crate::cri::{self, Runtime};
use crate::env::NodeFacts;
use crate::network::DnsSettings;
use crate::node::facts::{Machine, Usage, default_ip};
use crate::node::status::{Reserved, RuntimeFacts, runtime_errors};
use crate::node::{self, Node};
use crate::pod::{PodExt, Uid};
use crate::resources::{CgroupConfig, Qos, pod_cpu_request, qos_class, shares};
use crate::runtime::logs::rotate;
use crate::runtime::state::State;
use crate::settings::Settings;
use crate::static_pods::StaticPods;
use crate::workers::{Parts, Workers, marks};
use crate::{pleg, probe, runtime, server, status, volume};

/// How often the runtime is asked how it is: when all is well, and when it is not.
const RUNTIME_CHECK: Duration = Duration::from_secs(5);
const RUNTIME_CHECK_DOWN: Duration = Duration::from_millis(100);
/// A runtime that does not answer for this long is down.
const RUNTIME_GRACE: Duration = Duration::from_secs(30);
const GARBAGE: Duration = Duration::from_secs(60);
const HOUSEKEEPING: Duration = Duration::from_secs(10);
/// Listing images costs the runtime something; the Node shows them only.
const IMAGES: Duration = Duration::from_secs(60);

/// Why the kubelet cannot start. Trying again with the same configuration is no use.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("failed to prepare {path}")]
    Directory { path: String, source: std::io::Error },
    #[error(transparent)]
    Cgroup(#[from] crate::cgroup::Error),
    #[error(transparent)]
    Server(#[from] server::Error),
}

/// Runs until `shutdown`, leaving pods as they are. Returns early only when it cannot start.
pub async fn run(config: Config, client: Client, shutdown: CancellationToken) -> Result<(), Error> {
    let clock = RealClock::shared();
    let node_name = config.node_name();
    let machine = Machine::read();
    let settings = Arc::new(settings(&config, &machine, &node_name)?);
    let cri: Arc<dyn Runtime> = Arc::new(runtime_client(&config));
    let recorder = client::events::Recorder::core(client.clone(), "kubelet", &node_name, clock.clone());
    let events: Arc<dyn Events> = Arc::new(Recorder(recorder));
    let facts: Arc<Mutex<RuntimeFacts>> = Arc::default();
    let node_changed = Arc::new(Notify::new());

    let node = Node::new(
        node_config(&config, &settings, &node_name),
        machine.clone(),
        client.clone(),
        clock.clone(),
        events.clone(),
        facts.clone(),
        node_changed.clone(),
    );
    rotate_client_certificate(&config, &client, &node_name, &clock, &shutdown);
    let cgroups = cgroups(&config, &machine, &settings)?;
    let view = node_view(&config, &settings, &node_name);
    let allocations = Arc::new(Allocations::load(&settings.root_dir, view, events.clone(), clock.clone()));
    tokio::spawn(follow_node(&client, &node_name, &allocations).run(shutdown.clone()));
    // One check before registering: on a healthy machine the node is ready from its first status on.
    check_runtime(&cri, &facts).await;
    tokio::spawn(Arc::new(node).run(shutdown.clone()));
    events.event(&Node::reference(&node_name), "Normal", "Starting", "Starting kubelet.");

    let services =
        Informer::<Typed<Service>>::new(client.clone(), resources::SERVICES.clone(), InformerParams::default());
    let api_client = Arc::new(ApiClient::new(client.clone(), services.clone(), &node_name, clock.clone()));
    let api: Arc<dyn Api> = api_client.clone();
    tokio::spawn(services.run(shutdown.clone()));

    let Some(name) = runtime_name(&cri, &facts, &node_changed, &clock, &shutdown).await else { return Ok(()) };
    let statuses = status::Manager::new(api.clone(), clock.clone());
    let probes = Arc::new(probe::Manager::new(cri.clone(), statuses.clone(), events.clone(), clock.clone()));
    let manager = Arc::new(runtime::Manager::new(
        cri.clone(),
        name,
        settings.clone(),
        api.clone(),
        events.clone(),
        clock.clone(),
        cgroups.clone(),
        allocations.clone(),
    ));
    let network_ready = AtomicBool::new(is_network_ready(&facts.lock()));
    let parts = Arc::new(Parts {
        settings: settings.clone(),
        runtime: manager.clone(),
        statuses: statuses.clone(),
        probes: probes.clone(),
        volumes: Arc::new(volume::Volumes::new(settings.clone(), api.clone(), events.clone(), clock.clone())),
        cgroups: cgroups.clone(),
        allocations: allocations.clone(),
        api: api.clone(),
        events,
        clock: clock.clone(),
        network_ready,
        sources_changed: Default::default(),
    });
    let workers = Arc::new(Workers::new(parts.clone(), shutdown.clone()));
    let poked = workers.clone();
    probes.on_result(move |uid| poked.poke(uid));
    let poked = workers.clone();
    allocations.on_grant(move |uid| poked.poke(uid));
    let (poked, counted) = (workers.clone(), parts.clone());
    api_client.on_change(move || {
        counted.sources_changed.fetch_add(1, Ordering::AcqRel);
        poked.poke_where(volume::Volumes::needs_refresh);
    });

    let static_pods = Arc::new(StaticPods::new(
        config.file.static_pod_path.clone().into(),
        node_name.clone(),
        api,
        client.clone(),
        workers.clone(),
        clock.clone(),
    ));
    if !config.file.static_pod_path.is_empty() {
        static_pods.load();
        tokio::spawn(static_pods.clone().run(config.file.file_check_frequency, shutdown.clone()));
    }
    let pods = follow_pods(&client, &node_name, &workers, &static_pods);
    tokio::spawn(pods.clone().run(shutdown.clone()));

    let server = server::Server {
        config: config.clone(),
        node_name,
        client,
        cri: cri.clone(),
        workers: workers.clone(),
        volumes: parts.volumes.clone(),
        statuses,
        settings: settings.clone(),
        machine,
        clock: clock.clone(),
    };
    server::start(Arc::new(server), shutdown.clone()).await?;

    let listener = Arc::new(Listener { workers: workers.clone(), synced: AtomicBool::new(false) });
    tokio::spawn(pleg::run(cri.clone(), listener.clone(), clock.clone(), shutdown.clone()));
    let (orphans, seen) = (workers.clone(), settings.clone());
    tokio::spawn(async move {
        pods.wait_synced().await;
        // From here on a pod that nobody wants is known to be unwanted.
        let known = orphans.clone();
        allocations.retain(|uid| known.knows(uid));
        listener.synced.store(true, Ordering::Release);
        for uid in pods_on_disk(&seen) {
            orphans.adopt_orphan(&uid);
        }
    });

    let watch = watch_runtime(cri.clone(), facts, node_changed, parts, workers.clone(), clock.clone());
    let policy =
        rotate::Policy { max_size: config.file.log_max_size(), max_files: config.file.container_log_max_files.max(2) };
    let keep = housekeeping(manager, workers, cgroups, policy, clock);
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = watch => {}
        () = keep => {}
    }
    Ok(())
}

fn runtime_client(config: &Config) -> cri::Grpc {
    let runtime = &config.file.container_runtime_endpoint;
    let images = match config.file.image_service_endpoint.as_str() {
        "" => runtime,
        other => other,
    };
    cri::Grpc::new(runtime, images, config.file.runtime_request_timeout)
}

fn settings(config: &Config, machine: &Machine, node_name: &str) -> Result<Settings, Error> {
    let prepared = |path: &std::path::Path| {
        std::fs::create_dir_all(path).map_err(|source| Error::Directory { path: path.display().to_string(), source })
    };
    prepared(&config.root_dir.join("pods"))?;
    prepared(config.file.pod_logs_dir.as_ref())?;
    let host_ips = match config.node_ips.is_empty() {
        false => config.node_ips.clone(),
        true => default_ip().into_iter().map(|ip| ip.to_string()).collect(),
    };
    let disk = Usage::read(&config.root_dir).disk_capacity;
    let reserved = config.reserved(disk);
    Ok(Settings {
        node_name: node_name.to_owned(),
        root_dir: config.root_dir.clone(),
        pod_logs_dir: config.file.pod_logs_dir.clone().into(),
        container_logs_dir: config.container_logs_dir.clone(),
        dns: DnsSettings {
            cluster_dns: config.file.cluster_dns.clone(),
            cluster_domain: config.file.cluster_domain.clone(),
            resolv_conf: config.file.resolv_conf.clone(),
        },
        facts: NodeFacts {
            host_ips,
            allocatable_cpu: machine.cpus * 1000 - reserved.cpu,
            allocatable_memory: machine.memory - reserved.memory,
            allocatable_storage: disk - reserved.storage,
        },
        memory_capacity: machine.memory,
        cfs_quota: config.file.cpu_cfs_quota,
        seccomp_default: config.seccomp_default,
        pod_pids_limit: Some(config.file.pod_pids_limit).filter(|limit| *limit > 0),
        cgroup_root: config.file.cgroup_root.clone(),
        cgroups_per_qos: config.file.cgroups_per_qos,
    })
}

/// What the node has to give, for those who weigh pods.
fn node_view(config: &Config, settings: &Settings, node_name: &str) -> NodeView {
    let enabled = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled").unwrap_or_default();
    NodeView {
        name: node_name.to_owned(),
        marks: None,
        cpu: settings.facts.allocatable_cpu,
        memory: settings.facts.allocatable_memory,
        storage: settings.facts.allocatable_storage,
        pods: max_pods(config),
        allowed_sysctls: config.file.allowed_unsafe_sysctls.clone(),
        apparmor: enabled.starts_with('Y'),
    }
}

/// Pods that the node may have.
fn max_pods(config: &Config) -> i64 {
    let per_core = config.file.pods_per_core;
    let cpus = i64::try_from(std::thread::available_parallelism().map_or(1, usize::from)).unwrap_or(1);
    if per_core > 0 { config.file.max_pods.min(per_core * cpus) } else { config.file.max_pods }
}

/// Keeps the marks on the node's object known.
fn follow_node(client: &Client, node_name: &str, allocations: &Arc<Allocations>) -> Arc<Informer<Typed<ApiNode>>> {
    let params = InformerParams::fields(&format!("metadata.name={node_name}"));
    let informer = Informer::<Typed<ApiNode>>::new(client.clone(), resources::NODES.clone(), params);
    let allocations = allocations.clone();
    informer.on_event(move |event| {
        if let Event::Added(new) | Event::Modified { new, .. } = event {
            allocations.mark(marks(&new.0));
        }
    });
    informer
}

fn node_config(config: &Config, settings: &Settings, node_name: &str) -> node::Config {
    let disk = Usage::read(&config.root_dir).disk_capacity;
    node::Config {
        name: node_name.to_owned(),
        hostname: node_name.to_owned(),
        addresses: settings.facts.host_ips.clone(),
        port: config.file.port,
        labels: config.node_labels.clone().into_iter().collect(),
        taints: config.file.register_with_taints.clone(),
        register: config.file.register_node,
        provider_id: config.provider_id.clone(),
        max_pods: max_pods(config),
        reserved: config.reserved(disk),
        thresholds: config.thresholds(),
        version: component_base::version::git_version(),
        root_dir: config.root_dir.clone(),
        status_update_frequency: config.file.node_status_update_frequency,
        lease_duration_seconds: config.file.node_lease_duration_seconds,
    }
}

fn cgroups(config: &Config, machine: &Machine, settings: &Settings) -> Result<Arc<dyn Cgroups>, Error> {
    if !config.file.cgroups_per_qos {
        return Ok(Arc::new(Unmanaged));
    }
    let reserved: Reserved = config.reserved(0);
    let allocatable = CgroupConfig {
        cpu_shares: Some(shares(settings.facts.allocatable_cpu)),
        // What pods may use together: eviction, not the kernel, keeps the threshold free.
        memory: Some(machine.memory - reserved.memory + config.thresholds().memory_available),
        ..Default::default()
    };
    let root = match config.file.cgroup_root.as_str() {
        "" => "/",
        root => root,
    };
    Ok(Arc::new(Tree::new(root, allocatable, settings.pod_pids_limit, config.file.cpu_cfs_quota)?))
}

/// Asks the runtime how it is and keeps the answer.
async fn check_runtime(cri: &Arc<dyn Runtime>, facts: &Mutex<RuntimeFacts>) {
    let status = cri.status().await.map_err(|e| e.to_string());
    let known = !facts.lock().version.is_empty();
    let version = match (&status, known) {
        (Ok(_), false) => cri.version().await.ok().map(|v| format!("{}://{}", v.runtime_name, v.runtime_version)),
        _ => None,
    };
    let images = match (&status, known) {
        (Ok(_), false) => cri.list_images().await.ok(),
        _ => None,
    };
    let mut facts = facts.lock();
    let now = Instant::now();
    if status.is_ok() {
        facts.answered = Some(now);
    }
    // A runtime that restarts is no reason to call the node unready: what it last said holds a while.
    if status.is_ok() || facts.answered.is_none_or(|at| now - at >= RUNTIME_GRACE) {
        facts.status = Some(status);
    }
    if let Some(version) = version {
        facts.version = version;
    }
    if let Some(images) = images {
        facts.images = images;
    }
}

fn is_network_ready(facts: &RuntimeFacts) -> bool {
    matches!(&facts.status, Some(Ok(_))) && !runtime_errors(facts).iter().any(|e| e.contains("NetworkReady"))
}

/// Waits for the runtime; `None` on shutdown.
async fn runtime_name(
    cri: &Arc<dyn Runtime>,
    facts: &Arc<Mutex<RuntimeFacts>>,
    changed: &Notify,
    clock: &SharedClock,
    shutdown: &CancellationToken,
) -> Option<String> {
    loop {
        let version = facts.lock().version.clone();
        if let Some((name, _)) = version.split_once("://") {
            return Some(name.to_owned());
        }
        tokio::select! {
            () = clock.sleep(RUNTIME_CHECK_DOWN) => {}
            () = shutdown.cancelled() => return None,
        }
        check_runtime(cri, facts).await;
        if !facts.lock().version.is_empty() {
            changed.notify_one();
        }
    }
}

/// Keeps the runtime's condition known; tells the node and the workers when it changes.
async fn watch_runtime(
    cri: Arc<dyn Runtime>,
    facts: Arc<Mutex<RuntimeFacts>>,
    changed: Arc<Notify>,
    parts: Arc<Parts>,
    workers: Arc<Workers>,
    clock: SharedClock,
) {
    let mut listed = clock.monotonic();
    loop {
        let before = runtime_errors(&facts.lock());
        check_runtime(&cri, &facts).await;
        let after = runtime_errors(&facts.lock());
        let network = is_network_ready(&facts.lock());
        let was = parts.network_ready.swap(network, Ordering::AcqRel);
        if before != after {
            changed.notify_one();
        }
        if (network && !was) || (after.is_empty() && !before.is_empty()) {
            workers.poke_all();
        }
        if clock.monotonic().saturating_sub(listed) >= IMAGES {
            listed = clock.monotonic();
            if let Ok(images) = cri.list_images().await {
                facts.lock().images = images;
            }
        }
        clock.sleep(if after.is_empty() { RUNTIME_CHECK } else { RUNTIME_CHECK_DOWN }).await;
    }
}

/// Hands the API's pods to the workers.
fn follow_pods(
    client: &Client,
    node_name: &str,
    workers: &Arc<Workers>,
    static_pods: &Arc<StaticPods>,
) -> Arc<Informer<Typed<Pod>>> {
    let params = InformerParams::fields(&format!("spec.nodeName={node_name}"));
    let informer = Informer::<Typed<Pod>>::new(client.clone(), resources::PODS.clone(), params);
    let (workers, static_pods) = (workers.clone(), static_pods.clone());
    informer.on_event(move |event| {
        let (old, new) = match event {
            Event::Added(new) => (None, Some(new)),
            Event::Modified { old, new } => (Some(old), Some(new)),
            Event::Deleted(old) => (Some(old), None),
        };
        if let Some(old) = old.filter(|old| new.is_none_or(|new| new.uid() != old.uid())) {
            match old.0.is_mirror() {
                true => static_pods.mirror(old.namespace(), old.name(), None),
                false => workers.remove(old.uid()),
            }
        }
        if let Some(new) = new {
            match new.0.is_mirror() {
                true => static_pods.mirror(new.namespace(), new.name(), Some(new.0.clone())),
                false => workers.update(new.0.clone(), None),
            }
        }
    });
    informer
}

/// Pods that left a directory behind.
fn pods_on_disk(settings: &Settings) -> Vec<Uid> {
    let entries = std::fs::read_dir(settings.root_dir.join("pods")).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

struct Listener {
    workers: Arc<Workers>,
    /// Whether all sources of pods have been read once.
    synced: AtomicBool,
}

impl pleg::Listener for Listener {
    fn changed(&self, uid: &str) {
        self.workers.poke(uid);
    }

    fn listed(&self, uids: &HashSet<String>) {
        if self.synced.load(Ordering::Acquire) {
            uids.iter().for_each(|uid| self.workers.adopt_orphan(uid));
        }
    }
}

/// Asks for the next client certificate before the present one ends (`rotateCertificates`).
fn rotate_client_certificate(
    config: &Config,
    client: &Client,
    node_name: &str,
    clock: &SharedClock,
    shutdown: &CancellationToken,
) {
    if !config.file.rotate_certificates {
        return;
    }
    let node_name = node_name.to_owned();
    let rotation = certificates::Rotation {
        client: client.clone(),
        store: certificates::Store::new(&config.cert_dir, "kubelet-client"),
        ask: Box::new(move || Some(certificates::client_ask(&node_name))),
        initial: config.kubeconfig.as_deref().and_then(certificates::bootstrap::certificate_of),
        // The client follows the file.
        fresh: Box::new(|_| {}),
        clock: clock.clone(),
    };
    tokio::spawn(rotation.run(shutdown.clone()));
}

/// Collects garbage, rotates logs, weighs the burstable class.
async fn housekeeping(
    manager: Arc<runtime::Manager>,
    workers: Arc<Workers>,
    cgroups: Arc<dyn Cgroups>,
    policy: rotate::Policy,
    clock: SharedClock,
) {
    let mut collected = clock.monotonic();
    loop {
        clock.sleep(HOUSEKEEPING).await;
        let pods = workers.active_pods();
        let burstable =
            pods.iter().filter(|pod| qos_class(pod) == Qos::Burstable).map(|pod| pod_cpu_request(pod)).sum();
        cgroups.set_burstable_request(burstable);
        for pod in &pods {
            let Ok(state) = manager.state(pod.uid()).await else { break };
            for container in state.containers.iter().filter(|c| c.state == State::Running) {
                let rotated =
                    rotate::rotate(&manager.cri, &container.id, container.log_path.as_ref(), policy, clock.now());
                if let Err(error) = rotated.await {
                    tracing::warn!(pod = %pod.described(), container = %container.name, %error, "failed to rotate log");
                }
            }
        }
        if clock.monotonic().saturating_sub(collected) >= GARBAGE {
            collected = clock.monotonic();
            let known = workers.clone();
            if let Err(error) = manager.collect_garbage(|uid| !known.knows(uid)).await {
                tracing::debug!(%error, "failed to collect garbage");
            }
        }
    }
}
