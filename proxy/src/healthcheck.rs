//! What kube-proxy tells load balancers: `/healthz` and `/livez` of the proxy itself (10256), and
//! one port per service with externalTrafficPolicy Local, answering whether this node has
//! endpoints of it.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use component_base::clock::SharedClock;
use component_base::serving;
use jiff::Timestamp;
use parking_lot::{Mutex, RwLock};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::types::{IpFamily, NamespacedName};

/// A node with this taint is about to be removed: load balancers should send it nothing new.
pub const TO_BE_DELETED_TAINT: &str = "ToBeDeletedByClusterAutoscaler";

/// Whether rules keep up with changes. Cheap to clone.
#[derive(Clone)]
pub struct ProxyHealth {
    clock: SharedClock,
    timeout: Duration,
    state: Arc<RwLock<HealthState>>,
    metrics: Metrics,
}

#[derive(Debug, Default)]
struct HealthState {
    updated: BTreeMap<IpFamily, Timestamp>,
    /// When the oldest change not yet in the rules arrived.
    queued: BTreeMap<IpFamily, Duration>,
    node_eligible: bool,
}

impl std::fmt::Debug for ProxyHealth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProxyHealth").field("state", &*self.state.read()).finish_non_exhaustive()
    }
}

impl ProxyHealth {
    /// Unhealthy when a change waits longer than `timeout`.
    pub fn new(clock: SharedClock, timeout: Duration, metrics: Metrics) -> Self {
        Self { clock, timeout, state: Arc::default(), metrics }
    }

    /// The rules of `family` are up to date.
    pub fn updated(&self, family: IpFamily) {
        let mut state = self.state.write();
        state.queued.remove(&family);
        state.updated.insert(family, self.clock.now());
    }

    /// A change for `family` arrived.
    pub fn queued(&self, family: IpFamily) {
        let now = self.clock.monotonic();
        self.state.write().queued.entry(family).or_insert(now);
    }

    /// Whether the node may take new traffic: it exists and is not about to be removed.
    pub fn set_node_eligible(&self, eligible: bool) {
        self.state.write().node_eligible = eligible;
    }

    /// Whether all families keep up.
    pub fn healthy(&self) -> bool {
        let state = self.state.read();
        state.updated.keys().all(|family| self.family_healthy(&state, *family))
    }

    fn family_healthy(&self, state: &HealthState, family: IpFamily) -> bool {
        state.queued.get(&family).is_none_or(|since| self.clock.monotonic().saturating_sub(*since) < self.timeout)
    }

    fn answer(&self, with_node: bool) -> (StatusCode, String) {
        let state = self.state.read();
        let now = self.clock.now();
        let mut healthy = true;
        let mut families = Vec::new();
        for (family, updated) in &state.updated {
            let ok = self.family_healthy(&state, *family);
            healthy &= ok;
            families.push(format!("\"{family}\":{{\"lastUpdated\":\"{updated}\",\"healthy\":{ok}}}"));
        }
        let serving = healthy && (!with_node || state.node_eligible);
        // Readers of old take a recent lastUpdated as health.
        let last = if serving {
            now.to_string()
        } else {
            state.updated.values().max().map_or_else(|| "0001-01-01T00:00:00Z".to_owned(), ToString::to_string)
        };
        let node = if with_node { format!(",\"nodeEligible\":{}", state.node_eligible) } else { String::new() };
        let status =
            if families.is_empty() { String::new() } else { format!(",\"status\":{{{}}}", families.join(",")) };
        let body =
            format!("{{\"lastUpdated\":\"{last}\",\"currentTime\":\"{now}\"{node},\"healthy\":{healthy}{status}}}");
        let code = if serving { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        (code, body)
    }

    /// `/healthz` and `/livez`.
    pub fn router(&self) -> Router {
        let (healthz, livez) = (self.clone(), self.clone());
        Router::new()
            .route(
                "/healthz",
                get(move || async move {
                    let answer = healthz.answer(true);
                    healthz.metrics.healthz_total.inc(&[answer.0.as_str()]);
                    json(answer)
                }),
            )
            .route(
                "/livez",
                get(move || async move {
                    let answer = livez.answer(false);
                    livez.metrics.livez_total.inc(&[answer.0.as_str()]);
                    json(answer)
                }),
            )
    }
}

fn json((code, body): (StatusCode, String)) -> Response {
    (code, [(header::CONTENT_TYPE, "application/json"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")], body)
        .into_response()
}

/// The health check ports of services.
#[derive(Debug)]
pub struct ServiceHealth {
    addresses: Vec<IpAddr>,
    health: ProxyHealth,
    services: Mutex<HashMap<NamespacedName, ServicePortServer>>,
}

#[derive(Debug)]
struct ServicePortServer {
    port: u16,
    local_endpoints: Arc<std::sync::atomic::AtomicUsize>,
    stop: CancellationToken,
}

impl Drop for ServicePortServer {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl ServiceHealth {
    /// Answers on these addresses.
    pub fn new(addresses: Vec<IpAddr>, health: ProxyHealth) -> Self {
        Self { addresses, health, services: Mutex::default() }
    }

    /// Opens and closes ports so that they equal `wanted`, and sets what they answer. A port that
    /// cannot be opened is returned, and tried again next time.
    pub async fn sync(
        &self,
        wanted: &BTreeMap<NamespacedName, u16>,
        endpoints: &BTreeMap<NamespacedName, usize>,
    ) -> Vec<(NamespacedName, u16, std::io::Error)> {
        let missing: Vec<(NamespacedName, u16)> = {
            let mut services = self.services.lock();
            services.retain(|name, server| wanted.get(name) == Some(&server.port));
            wanted
                .iter()
                .filter(|(name, _)| !services.contains_key(*name))
                .map(|(name, port)| (name.clone(), *port))
                .collect()
        };
        let mut failed = Vec::new();
        for (name, port) in missing {
            match self.open(&name, port).await {
                Ok(server) => {
                    self.services.lock().insert(name, server);
                }
                Err(error) => failed.push((name, port, error)),
            }
        }
        for (name, server) in &*self.services.lock() {
            let count = endpoints.get(name).copied().unwrap_or(0);
            server.local_endpoints.store(count, std::sync::atomic::Ordering::Relaxed);
        }
        failed
    }

    async fn open(&self, name: &NamespacedName, port: u16) -> std::io::Result<ServicePortServer> {
        let mut listeners = Vec::new();
        for ip in &self.addresses {
            listeners.push(TcpListener::bind(SocketAddr::new(*ip, port)).await?);
        }
        let server = ServicePortServer { port, local_endpoints: Arc::default(), stop: CancellationToken::new() };
        for listener in listeners {
            let (name, health, count) = (name.clone(), self.health.clone(), server.local_endpoints.clone());
            let router = Router::new().fallback(move || {
                let count = count.load(std::sync::atomic::Ordering::Relaxed);
                let answer = service_answer(&name, count, health.healthy());
                async move { answer }
            });
            tokio::spawn(serving::serve(listener, None, router, serving::Options::default(), server.stop.clone()));
        }
        Ok(server)
    }
}

fn service_answer(name: &NamespacedName, count: usize, healthy: bool) -> Response {
    let code = if count != 0 && healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = format!(
        "{{\n\t\"service\": {{\n\t\t\"namespace\": \"{}\",\n\t\t\"name\": \"{}\"\n\t}},\n\t\"localEndpoints\": {count},\n\t\"serviceProxyHealthy\": {healthy}\n}}",
        name.namespace, name.name
    );
    let mut response = json((code, body));
    response.headers_mut().insert("x-load-balancing-endpoint-weight", count.into());
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use component_base::clock::FakeClock;

    #[test]
    fn a_change_that_waits_too_long_is_unhealthy() {
        let clock = FakeClock::new(Timestamp::from_second(1_700_000_000).unwrap());
        let health = ProxyHealth::new(Arc::new(clock.clone()), Duration::from_secs(60), Metrics::default());
        health.updated(IpFamily::V4);
        health.updated(IpFamily::V6);
        assert!(health.healthy());
        // the node is not known yet
        assert_eq!(health.answer(true).0, 503);
        health.set_node_eligible(true);
        assert_eq!(health.answer(true).0, 200);
        health.queued(IpFamily::V4);
        clock.step(Duration::from_secs(59));
        health.queued(IpFamily::V4); // the oldest counts
        assert!(health.healthy());
        clock.step(Duration::from_secs(1));
        let (code, body) = health.answer(false);
        assert_eq!(code, 503);
        let body: serde_json::Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!(body["status"]["IPv4"]["healthy"], false);
        assert_eq!(body["status"]["IPv6"]["healthy"], true);
        assert_eq!(body["healthy"], false);
        health.updated(IpFamily::V4);
        assert!(health.healthy());
        health.set_node_eligible(false);
        assert_eq!((health.answer(true).0, health.answer(false).0), (StatusCode::SERVICE_UNAVAILABLE, StatusCode::OK));
    }

    #[tokio::test]
    async fn service_ports_open_answer_and_close() {
        let clock = FakeClock::new(Timestamp::UNIX_EPOCH);
        let health = ProxyHealth::new(Arc::new(clock), Duration::from_secs(60), Metrics::default());
        health.updated(IpFamily::V4);
        let server = ServiceHealth::new(vec![IpAddr::from([127, 0, 0, 1])], health);
        let probe = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = probe.local_addr().unwrap().port();
        drop(probe);
        let name = NamespacedName { namespace: "ns".into(), name: "a".into() };
        let wanted = BTreeMap::from([(name.clone(), port)]);
        assert!(server.sync(&wanted, &BTreeMap::from([(name.clone(), 2)])).await.is_empty());
        let answer = fetch(port).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(answer.contains("\"localEndpoints\": 2"), "{answer}");
        assert!(answer.contains("x-load-balancing-endpoint-weight: 2"), "{answer}");
        server.sync(&wanted, &BTreeMap::new()).await;
        assert!(fetch(port).await.starts_with("HTTP/1.1 503"));
        server.sync(&BTreeMap::new(), &BTreeMap::new()).await;
        assert!(server.services.lock().is_empty());
    }

    async fn fetch(port: u16) -> String {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    }
}
