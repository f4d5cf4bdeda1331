//! Who this server is among those of a cluster (KEP-1965): a Lease of kube-system that names it, renewed while it
//! runs, and the removal of Leases whose servers ended without a word. Behind the gate `APIServerIdentity`.
//!
//! Upstream: `apiserver/pkg/server/config.go`, `pkg/controlplane/apiserver/server.go`,
//! `component-helpers/apimachinery/lease` and `pkg/controlplane/controller/apiserverleasegc`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use apimachinery::object::ObjectExt as _;
use apimachinery::status::Status;
use apimachinery::{random, time};
use component_base::featuregate::FeatureGates;
use component_base::program;
use http::Method;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::config::features;
use crate::server::{Server, in_process};

/// What the server is called in its own name and in the label of its Lease.
const COMPONENT: &str = "kube-apiserver";
/// Tells Leases of servers from those by which leaders are elected, and whose they are.
const LABEL: &str = "apiserver.kubernetes.io/identity";
/// The machine, for people who look for the server of a Lease.
const HOSTNAME_LABEL: &str = "kubernetes.io/hostname";
/// Where other servers of the cluster reach this one.
const PEER_ADDRESS: &str = "kubernetes.io/peer-advertise-address";
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases";

/// Seconds for which a Lease stands without being renewed.
const DURATION_SECONDS: i64 = 3600;
/// Time between renewals, lengthened at random by up to [`JITTER`] of it.
const RENEW_INTERVAL: Duration = Duration::from_secs(10);
const JITTER: f64 = 0.04;
/// Attempts to renew before the next interval is waited for.
const MAX_RENEWALS: usize = 5;
/// Pauses between attempts to find or make the Lease: twice the first, doubled up to the last.
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const MAX_BACKOFF: Duration = Duration::from_secs(7);
/// How long the removal of the own Lease may take.
const REMOVAL_TIMEOUT: Duration = Duration::from_secs(10);
/// How often Leases are looked at that may have expired.
const COLLECTION_PERIOD: Duration = Duration::from_secs(3600);

/// This server's name, and what its Lease says.
pub struct Identity {
    id: String,
    hostname: String,
    /// The name with something that no other process has.
    holder: String,
    /// What was left of a former process is gone.
    started: AtomicBool,
}

impl Identity {
    /// The server of this machine, or nobody while the gate is off.
    ///
    /// # Errors
    /// When the machine does not tell its name.
    pub fn new(gates: &FeatureGates) -> std::io::Result<Option<Self>> {
        if !gates.enabled(features::API_SERVER_IDENTITY) {
            return Ok(None);
        }
        let hostname = program::hostname()?;
        let id = id(&hostname);
        let holder = format!("{id}_{}", random::uid());
        Ok(Some(Self { id, hostname, holder, started: AtomicBool::new(false) }))
    }

    /// `apiserver-` and a digest: upstream's `APIServerID`.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Whether the Lease of a former process on this machine is out of the way.
    pub fn started(&self) -> bool {
        self.started.load(Ordering::Acquire)
    }

    fn path(&self) -> String {
        format!("{LEASES}/{}", self.id)
    }

    async fn remove(&self, server: &Arc<Server>) {
        let path = self.path();
        let removal = in_process::request(server, Method::DELETE, &path, None);
        match tokio::time::timeout(REMOVAL_TIMEOUT, Box::pin(removal)).await {
            Ok(Err(status)) if !status.is_not_found() => {
                tracing::error!(lease = self.id, error = %status.message, "error deleting old lease");
            }
            Err(_) => tracing::error!(lease = self.id, "the lease was not deleted in time"),
            Ok(_) => {}
        }
    }

    /// A Lease to write: that which is there with a new time, or a new one.
    fn lease(&self, server: &Server, base: Option<&Value>) -> Value {
        let mut lease = base.cloned().unwrap_or_else(|| {
            json!({
                "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                "metadata": {"name": self.id, "namespace": "kube-system"},
                "spec": {"holderIdentity": self.holder},
            })
        });
        lease["spec"]["leaseDurationSeconds"] = DURATION_SECONDS.into();
        lease["spec"]["renewTime"] = time::format_micro(server.clock.now()).into();
        lease["metadata"]["labels"][LABEL] = COMPONENT.into();
        lease["metadata"]["labels"][HOSTNAME_LABEL] = self.hostname.as_str().into();
        if server.features.enabled(features::UNKNOWN_VERSION_INTEROPERABILITY_PROXY) {
            lease["metadata"]["annotations"][PEER_ADDRESS] = server.peer_address().into();
        }
        lease
    }

    /// Renews the Lease, or makes it; what is there then.
    async fn sync(&self, server: &Arc<Server>, latest: Option<Value>) -> Option<Value> {
        if let Some(latest) = latest {
            match self.renew(server, latest).await {
                Ok(lease) => return Some(lease),
                Err(status) => tracing::info!(
                    error = %status.message,
                    "failed to update lease using latest lease, fallback to ensure lease"
                ),
            }
        }
        let (lease, created) = self.ensure(server).await?;
        if created {
            return Some(lease);
        }
        match self.renew(server, lease.clone()).await {
            Ok(lease) => Some(lease),
            Err(status) => {
                tracing::error!(error = %status.message, interval = ?RENEW_INTERVAL, "Will retry updating lease");
                Some(lease)
            }
        }
    }

    async fn renew(&self, server: &Arc<Server>, mut base: Value) -> Result<Value, Status> {
        let mut last = Status::internal("the server is ending");
        for _ in 0..MAX_RENEWALS {
            let lease = self.lease(server, Some(&base));
            match in_process::request(server, Method::PUT, &self.path(), Some(&lease)).await {
                Ok(lease) => return Ok(lease),
                Err(status) => {
                    tracing::error!(error = %status.message, "Failed to update lease");
                    let conflict = status.is_conflict();
                    last = status;
                    if conflict {
                        let Some((current, _)) = self.ensure(server).await else { break };
                        base = current;
                    }
                }
            }
        }
        Err(last)
    }

    /// The Lease, and whether this call made it. Tries until it is there, or nothing once the server is told to end.
    async fn ensure(&self, server: &Arc<Server>) -> Option<(Value, bool)> {
        let mut pause = FIRST_BACKOFF;
        loop {
            match self.get_or_create(server).await {
                Ok(found) => return Some(found),
                Err(status) => {
                    pause = (pause * 2).min(MAX_BACKOFF);
                    tracing::error!(error = %status.message, interval = ?pause, "Failed to ensure lease exists, will retry");
                }
            }
            tokio::select! {
                () = server.clock.sleep(pause) => {}
                () = server.lifecycle.initiated.cancelled() => return None,
            }
        }
    }

    async fn get_or_create(&self, server: &Arc<Server>) -> Result<(Value, bool), Status> {
        if let Some(lease) = super::get(server, &self.path()).await? {
            return Ok((lease, false));
        }
        let lease = self.lease(server, None);
        Ok((in_process::request(server, Method::POST, LEASES, Some(&lease)).await?, true))
    }
}

/// The name that servers of upstream give themselves: of the machine, and of what they are.
fn id(hostname: &str) -> String {
    let mut hash = Sha256::new();
    for part in [hostname, COMPONENT] {
        hash.update(u16::try_from(part.len()).unwrap_or(u16::MAX).to_be_bytes());
        hash.update(part);
    }
    format!("apiserver-{}", base32(&hash.finalize()[..16]))
}

/// RFC 4648's base 32 without padding, in lower case.
fn base32(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let mut text = String::with_capacity(bytes.len().div_ceil(5) * 8);
    for chunk in bytes.chunks(5) {
        let bits = chunk.iter().enumerate().fold(0u64, |bits, (at, byte)| bits | u64::from(*byte) << (32 - 8 * at));
        let digits = (chunk.len() * 8).div_ceil(5);
        text.extend((0..digits).map(|at| char::from(ALPHABET[(bits >> (35 - 5 * at) & 31) as usize])));
    }
    text
}

/// Removes what a former process left, which others must not take for this one.
pub async fn start(server: &Arc<Server>) {
    let Some(identity) = &server.identity else { return };
    identity.remove(server).await;
    identity.started.store(true, Ordering::Release);
}

/// Keeps the Lease until the server is told to end, and takes it away then.
pub async fn run(server: &Arc<Server>) {
    let Some(identity) = &server.identity else { return };
    let stopping = &server.lifecycle.initiated;
    let mut latest = None;
    while !stopping.is_cancelled() {
        latest = Box::pin(identity.sync(server, latest)).await;
        tokio::select! {
            () = server.clock.sleep(RENEW_INTERVAL.mul_f64(1.0 + JITTER * rand::random::<f64>())) => {}
            () = stopping.cancelled() => {}
        }
    }
    tracing::info!(lease = identity.id, "Cleaning up lease on exit");
    identity.remove(server).await;
}

/// Removes expired Leases of servers, this one's or others', until the server is told to end.
pub async fn collect(server: &Arc<Server>) {
    if server.identity.is_none() {
        return;
    }
    let stopping = &server.lifecycle.initiated;
    while !stopping.is_cancelled() {
        if let Err(status) = Box::pin(collect_once(server)).await {
            tracing::error!(error = %status.message, "Error while listing apiserver leases");
        }
        tokio::select! {
            () = server.clock.sleep(COLLECTION_PERIOD) => {}
            () = stopping.cancelled() => {}
        }
    }
}

async fn collect_once(server: &Arc<Server>) -> Result<(), Status> {
    let list = format!("{LEASES}?labelSelector={LABEL}%3D{COMPONENT}");
    let leases = in_process::request(server, Method::GET, &list, None).await?;
    for lease in leases.list_at(&["items"]).iter().filter(|lease| expired(lease, server.clock.now())) {
        let path = format!("{LEASES}/{}", lease.name());
        match in_process::request(server, Method::DELETE, &path, None).await {
            Err(status) if !status.is_not_found() => {
                tracing::error!(lease = lease.name(), error = %status.message, "Error deleting lease");
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whether a server has not renewed its Lease in time; one that does not say until when it stands never did.
fn expired(lease: &Value, now: Timestamp) -> bool {
    let renewed = lease.str_at(&["spec", "renewTime"]).and_then(|text| time::parse_micro(text).ok());
    let seconds = lease.at(&["spec", "leaseDurationSeconds"]).and_then(Value::as_i64);
    match (renewed, seconds) {
        (Some(renewed), Some(seconds)) => now.duration_since(renewed) > SignedDuration::from_secs(seconds),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_upstreams() {
        for (bytes, text) in [("", ""), ("f", "my"), ("fo", "mzxq"), ("foo", "mzxw6"), ("fooba", "mzxw6ytb")] {
            assert_eq!(base32(bytes.as_bytes()), text);
        }
        assert_eq!(base32(b"foobar"), "mzxw6ytboi");
        assert_eq!(id("testAPIServerID"), "apiserver-5toptfq5wsd34qjmvecvmgbige");
    }

    #[test]
    fn what_was_not_renewed_expires() {
        let now: Timestamp = "2026-01-01T02:00:00Z".parse().expect("a time");
        let spec =
            |renewed: &str, seconds: i64| json!({"spec": {"renewTime": renewed, "leaseDurationSeconds": seconds}});
        for (lease, want) in [
            (spec("2026-01-01T01:00:00.000000Z", 3600), false),
            (spec("2026-01-01T00:59:59.999999Z", 3600), true),
            (spec("2026-01-01T00:00:00.000000Z", 9000), false),
            (json!({"spec": {"renewTime": "2026-01-01T02:00:00.000000Z"}}), true),
            (json!({"spec": {"leaseDurationSeconds": 3600}}), true),
        ] {
            assert_eq!(expired(&lease, now), want, "{lease}");
        }
    }

    const FOLDER: &str = "the test's folder";

    async fn server(dir: &std::path::Path) -> crate::Handle {
        let storage = crate::storage::embedded::Embedded::open(crate::storage::embedded::Options {
            sync: false,
            ..crate::storage::embedded::Options::new(dir)
        });
        let config = crate::Config { reconcile_endpoints: false, ..crate::Config::default() };
        let shutdown = tokio_util::sync::CancellationToken::new();
        let storage = Arc::new(storage.expect(FOLDER));
        crate::Server::start_in_process(config, storage, shutdown).await.expect("a server")
    }

    #[tokio::test]
    async fn a_lease_is_renewed_whatever_happened_to_it() {
        let dir = tempfile::tempdir().expect(FOLDER);
        let server = server(dir.path()).await.server;
        let identity = server.identity.as_ref().expect("the gate is on");
        let made = identity.sync(&server, None).await.expect("a lease");
        let renewed = identity.sync(&server, Some(made.clone())).await.expect("a lease");
        assert_eq!(renewed.str_at(&["metadata", "uid"]), made.str_at(&["metadata", "uid"]));
        assert!(renewed["spec"]["renewTime"].as_str() > made["spec"]["renewTime"].as_str());
        // Somebody else has written: what is there now is renewed.
        in_process::merge_patch(&server, &identity.path(), &json!({"metadata": {"labels": {LABEL: null, "a": "b"}}}))
            .await
            .expect("a patch");
        let renewed = identity.sync(&server, Some(renewed)).await.expect("a lease");
        assert_eq!(renewed["metadata"]["labels"][LABEL], COMPONENT);
        assert_eq!(renewed["metadata"]["labels"]["a"], "b");
        // Somebody else has removed it.
        identity.remove(&server).await;
        let again = identity.sync(&server, Some(renewed.clone())).await.expect("a lease");
        assert_ne!(again["metadata"]["uid"], renewed["metadata"]["uid"]);
    }

    #[tokio::test]
    async fn leases_of_servers_that_are_gone_are_removed() {
        let dir = tempfile::tempdir().expect(FOLDER);
        let server = server(dir.path()).await.server;
        let old =
            json!({"leaseDurationSeconds": 10, "renewTime": "2020-01-01T00:00:00.000000Z", "holderIdentity": "x"});
        let future = json!({"leaseDurationSeconds": 10, "renewTime": "2999-01-01T00:00:00.000000Z"});
        for (name, component, spec) in [
            ("apiserver-gone", COMPONENT, &old),
            ("apiserver-silent", COMPONENT, &json!({})),
            ("apiserver-here", COMPONENT, &future),
            ("apiserver-other", "sample-apiserver", &old),
        ] {
            let lease = json!({
                "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                "metadata": {"name": name, "labels": {LABEL: component}}, "spec": spec,
            });
            in_process::request(&server, Method::POST, LEASES, Some(&lease)).await.expect("a lease");
        }
        collect_once(&server).await.expect("a pass");
        let list = in_process::request(&server, Method::GET, LEASES, None).await.expect("a list");
        let own = server.identity.as_ref().expect("the gate is on").id();
        let left: Vec<&str> =
            list.list_at(&["items"]).iter().map(|lease| lease.name()).filter(|name| *name != own).collect();
        assert_eq!(left, ["apiserver-here", "apiserver-other"]);
    }
}
