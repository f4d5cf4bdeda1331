//! What the server itself puts into the cluster and keeps there: namespaces, roles, priority classes, the
//! service range, the `kubernetes` Service with its endpoints, and the client authority for others.
//!
//! Everything goes through the server's own walk, as `system:apiserver`, so that it is defaulted,
//! validated and tracked like anything else.

pub mod flow_control;
pub mod identity;
mod roles;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use apimachinery::object::ObjectExt as _;
use apimachinery::status::Status;
use component_base::health::Checks;
use http::Method;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::config::features;
use crate::server::{Server, in_process};
use crate::services::repair::Repair;
use crate::storage::Storage;

/// Namespaces that every cluster has.
const NAMESPACES: [&str; 4] = ["kube-system", "kube-public", "kube-node-lease", "default"];

/// Name, value and description of the classes that every cluster has.
const PRIORITY_CLASSES: [(&str, i64, &str); 2] = [
    (
        "system-node-critical",
        2_000_001_000,
        "Used for system critical pods that must not be moved from their current node.",
    ),
    (
        "system-cluster-critical",
        2_000_000_000,
        "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
    ),
];

/// How often everything is looked at again; upstream's endpoint reconciler has the same period.
const PERIOD: Duration = Duration::from_secs(10);

/// The hook that is over when the Lease of a former process on this machine is.
const IDENTITY_HOOK: &str = "poststarthook/start-kube-apiserver-identity-lease-controller";

/// The post-start hooks of upstream, in its order. What they start is there
/// once the cluster's own objects are: some of it is no loop here, but a part of the walk or of a cache.
const HOOKS: [&str; 21] = [
    "poststarthook/start-apiserver-admission-initializer",
    "poststarthook/generic-apiserver-start-informers",
    "poststarthook/priority-and-fairness-config-consumer",
    "poststarthook/priority-and-fairness-filter",
    "poststarthook/storage-object-count-tracker-hook",
    "poststarthook/start-apiextensions-informers",
    "poststarthook/start-apiextensions-controllers",
    "poststarthook/crd-informer-synced",
    "poststarthook/start-system-namespaces-controller",
    "poststarthook/peer-endpoint-reconciler-controller",
    "poststarthook/start-cluster-authentication-info-controller",
    IDENTITY_HOOK,
    "poststarthook/start-kube-apiserver-identity-lease-garbage-collector",
    "poststarthook/storage-readiness",
    "poststarthook/start-legacy-token-tracking-controller",
    "poststarthook/start-service-ip-repair-controllers",
    "poststarthook/rbac/bootstrap-roles",
    "poststarthook/scheduling/bootstrap-system-priority-classes",
    "poststarthook/priority-and-fairness-config-producer",
    "poststarthook/bootstrap-controller",
    "poststarthook/start-kubernetes-service-cidr-controller",
];

/// The gate that a hook is behind, if any.
fn gate(hook: &str) -> Option<&'static str> {
    match hook {
        IDENTITY_HOOK | "poststarthook/start-kube-apiserver-identity-lease-garbage-collector" => {
            Some(features::API_SERVER_IDENTITY)
        }
        "poststarthook/peer-endpoint-reconciler-controller" => Some(features::UNKNOWN_VERSION_INTEROPERABILITY_PROXY),
        _ => None,
    }
}

/// Whether what a hook starts is there.
fn finished(server: &Server, hook: &str) -> bool {
    match (hook, &server.identity) {
        (IDENTITY_HOOK, Some(identity)) => identity.started(),
        _ => server.bootstrapped.load(Ordering::Acquire),
    }
}

/// Adds the checks that need nothing but a started process.
pub fn checks(checks: &Checks, endpoint: &str) {
    // The server is made only once its store is open and its caches can load themselves.
    match endpoint {
        "readyz" => checks.add("informer-sync", || Ok(())),
        // The server reaches itself without TLS: there is no certificate that could run out.
        _ => checks.add("loopback-serving-certificate", || Ok(())),
    }
}

/// Adds the checks that look at the running server.
pub fn live_checks(server: &Arc<Server>, storage: &Arc<dyn Storage>) {
    let trouble: Arc<Mutex<Option<String>>> = Arc::default();
    for checks in [&server.livez, &server.healthz] {
        let seen = trouble.clone();
        checks.add("etcd", move || match seen.lock().as_ref() {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        });
    }
    for checks in [&server.livez, &server.readyz, &server.healthz] {
        for hook in HOOKS.into_iter().filter(|hook| gate(hook).is_none_or(|gate| server.features.enabled(gate))) {
            // Weak: the server owns the checks.
            let server = Arc::downgrade(server);
            checks.add(hook, move || match server.upgrade() {
                Some(server) if finished(&server, hook) => Ok(()),
                _ => Err("not finished".to_string()),
            });
        }
    }
    let (storage, shutdown) = (storage.clone(), server.shutdown.clone());
    tokio::spawn(async move {
        loop {
            let state = tokio::time::timeout(Duration::from_secs(2), storage.healthy()).await;
            *trouble.lock() = match state {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(_) => Some("the store did not answer in time".to_string()),
            };
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(500)) => {}
                () = shutdown.cancelled() => return,
            }
        }
    });
}

/// Adds the check that is upstream's last.
pub fn last_checks(server: &Server) {
    let stopping = server.lifecycle.initiated.clone();
    server.readyz.add("shutdown", move || {
        if stopping.is_cancelled() { Err("process is shutting down".to_string()) } else { Ok(()) }
    });
}

/// Creates what is missing.
async fn objects(server: &Arc<Server>) {
    match ensure(server).await {
        Ok(()) => server.bootstrapped.store(true, Ordering::Release),
        Err(status) => {
            tracing::warn!(error = %status.message, "the cluster's own objects are not all there yet; trying again");
        }
    }
}

/// What happens once, before the server says that it is ready.
pub async fn start(server: &Arc<Server>) {
    tokio::join!(objects(server), identity::start(server));
}

/// Keeps everything there until the server stops, and takes away then what must not outlive it.
pub async fn run(server: Arc<Server>) {
    tokio::join!(keep(&server), identity::run(&server), identity::collect(&server));
    server.lifecycle.farewell.cancel();
}

async fn keep(server: &Arc<Server>) {
    let mut repair = Repair::default();
    loop {
        if let Err(status) = repair.pass(server).await {
            tracing::warn!(error = %status.message, "cluster IPs were not looked at; trying again");
        }
        tokio::select! {
            () = server.clock.sleep(PERIOD) => {}
            () = server.refresh.notified() => {}
            () = server.lifecycle.initiated.cancelled() => break,
        }
        objects(server).await;
    }
    if server.config.reconcile_endpoints
        && let Err(status) = endpoints(server, false).await
    {
        tracing::info!(error = %status.message, "own endpoint was not removed");
    }
}

async fn ensure(server: &Arc<Server>) -> Result<(), Status> {
    for name in NAMESPACES {
        create_missing(
            server,
            "/api/v1/namespaces",
            &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}),
        )
        .await?;
    }
    for (name, value, description) in PRIORITY_CLASSES {
        create_missing(
            server,
            "/apis/scheduling.k8s.io/v1/priorityclasses",
            &json!({
                "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name},
                "value": value, "description": description,
            }),
        )
        .await?;
    }
    if !server.bootstrapped.load(Ordering::Acquire) {
        roles::reconcile(server).await?;
        flow_control::ensure(server).await?;
    }
    token_tracking(server).await?;
    service_range(server).await?;
    service(server).await?;
    if server.config.reconcile_endpoints {
        endpoints(server, true).await?;
    }
    authority(server).await
}

async fn get(server: &Arc<Server>, path: &str) -> Result<Option<Value>, Status> {
    match in_process::request(server, Method::GET, path, None).await {
        Ok(object) => Ok(Some(object)),
        Err(status) if status.is_not_found() => Ok(None),
        Err(status) => Err(status),
    }
}

/// Creates an object unless there is one of that name; says whether it did.
async fn create_missing(server: &Arc<Server>, collection: &str, object: &Value) -> Result<bool, Status> {
    if get(server, &format!("{collection}/{}", object.name())).await?.is_some() {
        return Ok(false);
    }
    match in_process::request(server, Method::POST, collection, Some(object)).await {
        Ok(_) => Ok(true),
        Err(status) if status.is_already_exists() => Ok(false),
        Err(status) => Err(status),
    }
}

/// The ServiceCIDR `kubernetes` of the configured ranges: created, upgraded to a second range, said to be ready.
async fn service_range(server: &Arc<Server>) -> Result<(), Status> {
    const PATH: &str = "/apis/networking.k8s.io/v1/servicecidrs";
    let path = format!("{PATH}/kubernetes");
    let ranges: Vec<String> = server.allocators.ips.ranges().iter().map(ToString::to_string).collect();
    let object = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": "kubernetes"},
        "spec": {"cidrs": ranges},
    });
    let Some(current) = get(server, &path).await? else {
        create_missing(server, PATH, &object).await?;
        return service_range_ready(server, &path).await;
    };
    let have: Vec<&str> = current.list_at(&["spec", "cidrs"]).iter().filter_map(Value::as_str).collect();
    if ranges.len() == 2 && have == ranges[..1] {
        patch(server, &path, &json!({"spec": {"cidrs": ranges}})).await?;
        return Ok(());
    }
    let conditions = current.list_at(&["status", "conditions"]);
    let ready = conditions.iter().find(|condition| condition.str_at(&["type"]) == Some("Ready"));
    let unknown = ready.is_none_or(|condition| condition.str_at(&["status"]) == Some("Unknown"));
    if have != ranges {
        tracing::warn!(?have, want = ?ranges, "the default ServiceCIDR is not that of the flags");
    } else if unknown && current.deletion_timestamp().is_none() {
        service_range_ready(server, &path).await?;
    }
    Ok(())
}

async fn service_range_ready(server: &Arc<Server>, path: &str) -> Result<(), Status> {
    let condition = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": "kubernetes"},
        "status": {"conditions": [{
            "type": "Ready",
            "status": "True",
            "reason": "",
            "message": "Kubernetes default Service CIDR is ready",
            "lastTransitionTime": server.timestamp(),
        }]},
    });
    let manager = "kubernetes-service-cidr-controller";
    in_process::apply(server, &format!("{path}/status"), &condition, manager).await.map(|_| ())
}

/// The ConfigMap that says since when the use of tokens kept in Secrets is noted.
async fn token_tracking(server: &Arc<Server>) -> Result<(), Status> {
    const PATH: &str = "/api/v1/namespaces/kube-system/configmaps";
    const NAME: &str = "kube-apiserver-legacy-service-account-token-tracking";
    let today = server.clock.now().to_zoned(jiff::tz::TimeZone::UTC).date().to_string();
    let data = json!({"since": today});
    let path = format!("{PATH}/{NAME}");
    match get(server, &path).await? {
        None => {
            let object = json!({
                "apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {"name": NAME, "namespace": "kube-system"}, "data": data,
            });
            create_missing(server, PATH, &object).await.map(|_| ())
        }
        Some(have)
            if have.str_at(&["data", "since"]).and_then(|day| day.parse::<jiff::civil::Date>().ok()).is_none() =>
        {
            patch(server, &path, &json!({"data": data})).await
        }
        Some(_) => Ok(()),
    }
}

async fn patch(server: &Arc<Server>, path: &str, body: &Value) -> Result<(), Status> {
    in_process::merge_patch(server, path, body).await.map(|_| ())
}

/// The Service through which pods find the API.
async fn service(server: &Arc<Server>) -> Result<(), Status> {
    let Some(address) = server.allocators.ips.first() else { return Ok(()) };
    let object = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {
            "name": "kubernetes",
            "namespace": "default",
            "labels": {"component": "apiserver", "provider": "kubernetes"},
        },
        "spec": {
            "clusterIP": address.to_string(),
            "ipFamilyPolicy": "SingleStack",
            "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": server.advertise_port()}],
            "sessionAffinity": "None",
            "type": "ClusterIP",
        },
    });
    create_missing(server, "/api/v1/namespaces/default/services", &object).await.map(|_| ())
}

/// Adds this server's address to the endpoints of the Service, or takes it out. Other servers'
/// addresses stay: each server owns its own.
async fn endpoints(server: &Arc<Server>, present: bool) -> Result<(), Status> {
    let address = server.advertise_address();
    if address.is_loopback() {
        // A machine without any route: nobody else can reach this server, and Endpoints hold no such address.
        return Ok(());
    }
    let own = address.to_string();
    let port = server.advertise_port();
    let path = "/api/v1/namespaces/default/endpoints";
    let current = get(server, &format!("{path}/kubernetes")).await?;
    let mut addresses: Vec<String> = current
        .iter()
        .flat_map(|object| object.list_at(&["subsets"]))
        .flat_map(|subset| subset.list_at(&["addresses"]))
        .filter_map(|address| address.str_at(&["ip"]))
        .map(str::to_string)
        .collect();
    addresses.retain(|address| *address != own);
    // With the embedded store there is exactly one server, and stale addresses are its former ones.
    if matches!(server.config.storage, crate::config::StorageBackend::Embedded { .. }) {
        addresses.clear();
    }
    if present {
        addresses.push(own);
    }
    addresses.sort();
    let subsets = if addresses.is_empty() {
        json!([])
    } else {
        let list: Vec<Value> = addresses.iter().map(|ip| json!({"ip": ip})).collect();
        json!([{"addresses": list, "ports": [{"name": "https", "port": port, "protocol": "TCP"}]}])
    };
    let object = json!({
        "apiVersion": "v1", "kind": "Endpoints",
        "metadata": {
            "name": "kubernetes",
            "namespace": "default",
            "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"},
        },
        "subsets": subsets,
    });
    let same = |have: &Value| have.list_at(&["subsets"]) == object.list_at(&["subsets"]);
    match &current {
        None if present => {
            create_missing(server, path, &object).await?;
        }
        Some(have) if !same(have) => {
            in_process::request(server, Method::PUT, &format!("{path}/kubernetes"), Some(&object)).await?;
        }
        _ => {}
    }
    let family = if addresses.first().is_some_and(|address| address.contains(':')) { "IPv6" } else { "IPv4" };
    let endpoints: Vec<Value> =
        addresses.iter().map(|ip| json!({"addresses": [ip], "conditions": {"ready": true}})).collect();
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": "kubernetes",
            "namespace": "default",
            "labels": {"kubernetes.io/service-name": "kubernetes"},
        },
        "addressType": family,
        "endpoints": endpoints,
        "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
    });
    let path = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
    match get(server, &format!("{path}/kubernetes")).await? {
        None if present => {
            create_missing(server, path, &slice).await?;
        }
        Some(have)
            if have.list_at(&["endpoints"]) != slice.list_at(&["endpoints"])
                || have.list_at(&["ports"]) != slice.list_at(&["ports"]) =>
        {
            in_process::request(server, Method::PUT, &format!("{path}/kubernetes"), Some(&slice)).await?;
        }
        _ => {}
    }
    Ok(())
}

/// The ConfigMap from which components that delegate authentication learn the client authority, and how
/// front proxies tell them about users.
async fn authority(server: &Arc<Server>) -> Result<(), Status> {
    let mut data = serde_json::Map::new();
    let read = |path: PathBuf| async move {
        tokio::fs::read_to_string(path)
            .await
            .map_err(|error| Status::internal(format!("reading the client authority: {error}")))
    };
    if let Some(path) = &server.config.client_ca_file {
        data.insert("client-ca-file".to_string(), read(path.clone()).await?.into());
    }
    let front = &server.config.request_header;
    if let Some(path) = &front.client_ca_file {
        data.insert("requestheader-client-ca-file".to_string(), read(path.clone()).await?.into());
        let lists = [
            ("requestheader-allowed-names", &front.allowed_names),
            ("requestheader-username-headers", &front.username_headers),
            ("requestheader-group-headers", &front.group_headers),
            ("requestheader-extra-headers-prefix", &front.extra_headers_prefixes),
            ("requestheader-uid-headers", &front.uid_headers),
        ];
        for (name, list) in lists {
            if name != "requestheader-uid-headers" || !list.is_empty() {
                data.insert(name.to_string(), json!(list).to_string().into());
            }
        }
    }
    if data.is_empty() {
        return Ok(());
    }
    let collection = "/api/v1/namespaces/kube-system/configmaps";
    let name = "extension-apiserver-authentication";
    let object = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "kube-system"},
        "data": data,
    });
    if create_missing(server, collection, &object).await? {
        return Ok(());
    }
    let have = get(server, &format!("{collection}/{name}")).await?;
    let differs = |have: &Value| data.iter().any(|(key, value)| have.at(&["data", key]) != Some(value));
    if have.as_ref().is_some_and(differs) {
        patch(server, &format!("{collection}/{name}"), &json!({"data": data})).await?;
    }
    Ok(())
}
