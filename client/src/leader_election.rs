//! Leader election on a Lease, with upstream's record, timing and behaviour.
//!
//! A candidate reads the Lease, takes it when nobody holds it or when it has not changed for the
//! lease duration *by the candidate's own clock* (the holder's clock is never trusted), and renews it
//! every retry period. A leader that cannot renew within the renew deadline stops. On shutdown the
//! Lease is released, so that the next candidate need not wait.

use std::time::Duration;

use component_base::clock::SharedClock;
use rand::Rng as _;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::error::{Error, Result};
use crate::events::{Recorder, Reference};
use crate::meta::ObjectMeta;
use crate::resources::LEASES;
use crate::transport::Client;

/// Who competes for what, and how fast. The defaults are upstream's.
#[derive(Debug, Clone)]
pub struct Config {
    pub namespace: String,
    pub name: String,
    /// This candidate; must differ between processes.
    pub identity: String,
    /// How long a Lease that does not change stays its holder's.
    pub lease_duration: Duration,
    /// A leader that could not renew for this long stops leading.
    pub renew_deadline: Duration,
    /// Time between attempts.
    pub retry_period: Duration,
    /// Give the Lease up on shutdown.
    pub release_on_cancel: bool,
}

impl Config {
    /// Upstream's timing: 15 s, 10 s, 2 s.
    pub fn new(namespace: &str, name: &str, identity: &str) -> Self {
        Self {
            namespace: namespace.to_string(),
            name: name.to_string(),
            identity: identity.to_string(),
            lease_duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
            release_on_cancel: true,
        }
    }

    /// Upstream's rules for the three durations.
    pub fn validate(&self) -> std::result::Result<(), String> {
        if self.lease_duration <= self.renew_deadline {
            return Err("leaseDuration must be greater than renewDeadline".into());
        }
        if self.renew_deadline <= self.retry_period.mul_f64(JITTER) {
            return Err("renewDeadline must be greater than retryPeriod*JitterFactor".into());
        }
        Ok(())
    }
}

const JITTER: f64 = 1.2;

/// `<hostname>_<uuid>`, as upstream's components call themselves.
pub fn default_identity() -> String {
    let host = component_base::program::hostname().ok().filter(|host| !host.is_empty());
    let host = host.as_deref().unwrap_or("localhost");
    format!("{host}_{}", uuid::Uuid::new_v4())
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Lease {
    api_version: String,
    kind: String,
    metadata: ObjectMeta,
    spec: LeaseSpec,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct LeaseSpec {
    #[serde(skip_serializing_if = "Option::is_none")]
    holder_identity: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lease_duration_seconds: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    acquire_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    renew_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lease_transitions: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    strategy: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    preferred_holder: Option<String>,
}

impl LeaseSpec {
    fn holder(&self) -> &str {
        self.holder_identity.as_deref().unwrap_or_default()
    }
}

/// How leading ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Shutdown was asked for.
    Cancelled,
    /// The Lease was lost: the process should end, because others lead now.
    Lost,
}

/// A candidate.
pub struct LeaderElector {
    client: Client,
    config: Config,
    clock: SharedClock,
    recorder: Option<Recorder>,
    /// The record seen last and when, by our monotonic clock, it was first seen so.
    observed: Option<(LeaseSpec, Duration)>,
    reported: String,
}

impl LeaderElector {
    pub fn new(client: Client, config: Config, clock: SharedClock) -> Self {
        Self { client, config, clock, recorder: None, observed: None, reported: String::new() }
    }

    /// Announces leadership with an Event.
    pub fn with_recorder(mut self, recorder: Recorder) -> Self {
        self.recorder = Some(recorder);
        self
    }

    /// Waits to become leader, then runs `lead`, whose token is cancelled when leading must end.
    pub async fn run<F, Fut>(mut self, shutdown: CancellationToken, lead: F) -> Outcome
    where
        F: FnOnce(CancellationToken) -> Fut,
        Fut: Future<Output = ()>,
    {
        tracing::info!(
            lease = format!("{}/{}", self.config.namespace, self.config.name),
            "attempting to acquire leader lease..."
        );
        loop {
            let attempt = tokio::select! {
                () = shutdown.cancelled() => return Outcome::Cancelled,
                attempt = self.try_acquire_or_renew() => attempt,
            };
            if self.settle(attempt) {
                break;
            }
            let factor = 1.0 + rand::rng().random_range(0.0..JITTER);
            tokio::select! {
                () = shutdown.cancelled() => return Outcome::Cancelled,
                () = self.clock.sleep(self.config.retry_period.mul_f64(factor)) => {}
            }
        }
        tracing::info!(
            lease = format!("{}/{}", self.config.namespace, self.config.name),
            "successfully acquired lease"
        );
        let leading = shutdown.child_token();
        let work = lead(leading.clone());
        tokio::pin!(work);
        let mut ended = false;
        let outcome = tokio::select! {
            outcome = self.renew_until_lost(&shutdown) => outcome,
            // Work that ends by itself has been told to, or has nothing left to do.
            () = &mut work => {
                ended = true;
                Outcome::Cancelled
            }
        };
        leading.cancel();
        if outcome == Outcome::Cancelled && self.config.release_on_cancel {
            // The work may still write while it winds down; nobody else may lead until it has ended.
            if !ended && tokio::time::timeout(self.config.renew_deadline, &mut work).await.is_err() {
                tracing::warn!("work did not end in time; keeping the lease until it expires");
                return outcome;
            }
            self.release().await;
        }
        outcome
    }

    async fn renew_until_lost(&mut self, shutdown: &CancellationToken) -> Outcome {
        let mut renewed = self.clock.monotonic();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return Outcome::Cancelled,
                () = self.clock.sleep(self.config.retry_period) => {}
            }
            let left = (renewed + self.config.renew_deadline).saturating_sub(self.clock.monotonic());
            let clock = self.clock.clone();
            let attempt = tokio::select! {
                attempt = self.try_acquire_or_renew() => attempt,
                () = clock.sleep(left) => Err(Error::Transport("timed out waiting for the condition".into())),
            };
            if self.settle(attempt) {
                renewed = self.clock.monotonic();
            } else if self.clock.monotonic().saturating_sub(renewed) >= self.config.renew_deadline {
                tracing::error!(lease = self.config.name, "failed to renew lease");
                self.event("stopped leading");
                return Outcome::Lost;
            }
        }
    }

    fn settle(&mut self, attempt: Result<bool>) -> bool {
        let won = match attempt {
            Ok(won) => won,
            Err(error) => {
                tracing::info!(
                    lease = self.config.name,
                    error = error.chain(),
                    "error retrieving or updating the lease"
                );
                false
            }
        };
        if let Some((spec, _)) = &self.observed
            && self.reported != spec.holder()
        {
            self.reported = spec.holder().to_string();
            if won {
                self.event("became leader");
            } else {
                tracing::info!(identity = self.reported, "new leader elected");
            }
        }
        won
    }

    fn event(&self, what: &str) {
        if let Some(recorder) = &self.recorder {
            let lease = Reference {
                api_version: LEASES.api_version(),
                kind: "Lease".into(),
                namespace: self.config.namespace.clone(),
                name: self.config.name.clone(),
                ..Reference::default()
            };
            recorder.event(&lease, "Normal", "LeaderElection", &format!("{} {what}", self.config.identity));
        }
    }

    fn stamp(&self) -> String {
        self.clock.now().strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
    }

    fn desired(&self) -> LeaseSpec {
        let now = self.stamp();
        LeaseSpec {
            holder_identity: Some(self.config.identity.clone()),
            lease_duration_seconds: Some(self.config.lease_duration.as_secs() as i64),
            acquire_time: Some(now.clone()),
            renew_time: Some(now),
            lease_transitions: Some(0),
            ..LeaseSpec::default()
        }
    }

    /// One attempt; true when this candidate holds the Lease afterwards.
    async fn try_acquire_or_renew(&mut self) -> Result<bool> {
        let namespace = self.config.namespace.clone();
        let name = self.config.name.clone();
        let mut desired = self.desired();
        let mut lease: Lease = match self.client.get(&LEASES, Some(&namespace), &name).await {
            Ok(lease) => lease,
            Err(error) if error.is_not_found() => {
                let lease = Lease {
                    api_version: LEASES.api_version(),
                    kind: "Lease".into(),
                    metadata: ObjectMeta { name, namespace: namespace.clone(), ..ObjectMeta::default() },
                    spec: desired,
                };
                let created: Lease = self.client.create(&LEASES, Some(&namespace), &lease).await?;
                self.observe(created.spec);
                return Ok(true);
            }
            Err(error) => return Err(error),
        };
        if self.observed.as_ref().is_none_or(|(seen, _)| *seen != lease.spec) {
            self.observe(lease.spec.clone());
        }
        let mine = lease.spec.holder() == self.config.identity;
        let seen_at = self.observed.as_ref().map_or(Duration::ZERO, |(_, at)| *at);
        let held_for = lease
            .spec
            .lease_duration_seconds
            .map_or(self.config.lease_duration, |seconds| Duration::from_secs(seconds.max(0) as u64));
        let expired = seen_at + held_for < self.clock.monotonic();
        if !lease.spec.holder().is_empty() && !mine && !expired {
            return Ok(false);
        }
        let transitions = lease.spec.lease_transitions.unwrap_or(0);
        if mine {
            desired.acquire_time = lease.spec.acquire_time.clone().or(desired.acquire_time);
            desired.lease_transitions = Some(transitions);
        } else {
            desired.lease_transitions = Some(transitions + 1);
        }
        desired.strategy = lease.spec.strategy.take();
        desired.preferred_holder = lease.spec.preferred_holder.take();
        lease.api_version = LEASES.api_version();
        lease.kind = "Lease".into();
        lease.spec = desired;
        // The resource version in the metadata makes a concurrent change a conflict.
        let updated: Lease = self.client.update(&LEASES, Some(&namespace), &name, &lease).await?;
        self.observe(updated.spec);
        Ok(true)
    }

    fn observe(&mut self, spec: LeaseSpec) {
        self.observed = Some((spec, self.clock.monotonic()));
    }

    /// Empties the holder, if it is still us.
    async fn release(&mut self) {
        let (namespace, name) = (self.config.namespace.as_str(), self.config.name.as_str());
        let attempt = async {
            let mut lease: Lease = self.client.get(&LEASES, Some(namespace), name).await?;
            if lease.spec.holder() != self.config.identity {
                return Ok(());
            }
            let now = self.stamp();
            lease.api_version = LEASES.api_version();
            lease.kind = "Lease".into();
            lease.spec = LeaseSpec {
                holder_identity: Some(String::new()),
                lease_duration_seconds: Some(1),
                acquire_time: Some(now.clone()),
                renew_time: Some(now),
                lease_transitions: lease.spec.lease_transitions,
                ..LeaseSpec::default()
            };
            self.client.update::<Lease>(&LEASES, Some(namespace), name, &lease).await?;
            Ok::<_, Error>(())
        };
        if let Err(error) = attempt.await {
            tracing::info!(error = error.chain(), "cannot release the lease");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Arc;

    use bytes::Bytes;
    use component_base::clock::FakeClock;
    use futures::future::BoxFuture;
    use http::{Method, Request, Response};
    use http_body_util::{BodyExt as _, Full};
    use parking_lot::Mutex;
    use serde_json::{Value, json};

    use super::*;

    /// A server that holds one Lease and checks resource versions.
    #[derive(Clone, Default)]
    struct Server {
        lease: Arc<Mutex<Option<Value>>>,
        broken: Arc<Mutex<bool>>,
    }

    impl tower::Service<Request<Full<Bytes>>> for Server {
        type Response = Response<Full<Bytes>>;
        type Error = Infallible;
        type Future = BoxFuture<'static, std::result::Result<Self::Response, Infallible>>;

        fn poll_ready(
            &mut self,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<std::result::Result<(), Infallible>> {
            std::task::Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: Request<Full<Bytes>>) -> Self::Future {
            let server = self.clone();
            Box::pin(async move {
                let method = request.method().clone();
                let body = request.into_body().collect().await.unwrap().to_bytes();
                let mut held = server.lease.lock();
                let fail = |code: u16, reason: &str| {
                    let status = json!({ "status": "Failure", "code": code, "reason": reason, "message": reason });
                    (code, status)
                };
                let (code, answer) = if *server.broken.lock() {
                    fail(500, "InternalError")
                } else if method == Method::GET {
                    held.clone().map_or_else(|| fail(404, "NotFound"), |lease| (200, lease))
                } else {
                    let mut lease: Value = serde_json::from_slice(&body).unwrap();
                    let version = |lease: &Value| {
                        lease["metadata"]["resourceVersion"].as_str().unwrap_or("0").parse::<u64>().unwrap()
                    };
                    let current = held.as_ref().map_or(0, version);
                    if method == Method::PUT && version(&lease) != current {
                        fail(409, "Conflict")
                    } else {
                        lease["metadata"]["resourceVersion"] = json!((current + 1).to_string());
                        *held = Some(lease.clone());
                        (200, lease)
                    }
                };
                Ok(Response::builder().status(code).body(Full::new(Bytes::from(answer.to_string()))).unwrap())
            })
        }
    }

    impl Server {
        fn holder(&self) -> String {
            let lease = self.lease.lock();
            lease.as_ref().unwrap()["spec"]["holderIdentity"].as_str().unwrap_or_default().to_string()
        }

        fn elector(&self, identity: &str, clock: &FakeClock) -> LeaderElector {
            let client = Client::from_service(self.clone());
            LeaderElector::new(client, Config::new("kube-system", "test", identity), Arc::new(clock.clone()))
        }
    }

    fn clock() -> FakeClock {
        FakeClock::new(jiff::Timestamp::UNIX_EPOCH)
    }

    #[tokio::test]
    async fn a_lease_is_taken_held_and_expires_by_the_candidates_clock() {
        let (server, clock) = (Server::default(), clock());
        let mut first = server.elector("a", &clock);
        let mut second = server.elector("b", &clock);
        assert!(first.try_acquire_or_renew().await.unwrap());
        assert!(!second.try_acquire_or_renew().await.unwrap(), "a holds it");
        clock.step(Duration::from_secs(14));
        assert!(first.try_acquire_or_renew().await.unwrap());
        assert!(!second.try_acquire_or_renew().await.unwrap(), "a renewed it");
        clock.step(Duration::from_secs(16));
        assert!(second.try_acquire_or_renew().await.unwrap(), "a fell silent");
        assert_eq!(server.holder(), "b");
        assert!(!first.try_acquire_or_renew().await.unwrap());
        let lease = server.lease.lock().clone().unwrap();
        assert_eq!(lease["spec"]["leaseTransitions"], 1);
        assert_eq!(lease["spec"]["renewTime"], "1970-01-01T00:00:30.000000Z");
    }

    #[tokio::test]
    async fn shutdown_releases_even_when_the_work_ends_first() {
        for _ in 0..20 {
            let (server, clock) = (Server::default(), clock());
            let shutdown = CancellationToken::new();
            let stop = shutdown.clone();
            let outcome = server
                .elector("a", &clock)
                .run(shutdown, |leading| async move {
                    stop.cancel();
                    leading.cancelled().await;
                })
                .await;
            assert_eq!(outcome, Outcome::Cancelled);
            assert_eq!(server.holder(), "");
        }
    }

    #[tokio::test]
    async fn a_leader_that_cannot_renew_stops() {
        let (server, clock) = (Server::default(), clock());
        let broken = server.broken.clone();
        let stepper = clock.clone();
        let run = server.elector("a", &clock).run(CancellationToken::new(), |leading| async move {
            *broken.lock() = true;
            while !leading.is_cancelled() {
                stepper.step(Duration::from_secs(1));
                tokio::task::yield_now().await;
            }
        });
        assert_eq!(run.await, Outcome::Lost);
        assert_eq!(server.holder(), "a", "a lost lease is not released");
    }
}
