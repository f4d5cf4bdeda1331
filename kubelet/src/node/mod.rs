//! The Node object: registered, kept current, and vouched for by a Lease.

pub mod facts;
pub mod status;

use std::sync::Arc;
use std::time::Duration;

use client::{Client, Patch, resources};
use component_base::clock::SharedClock;
use k8s_openapi::api::core::v1::ObjectReference;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::api::Events;
use facts::{Machine, Usage};
use status::{Inputs, Reserved, RuntimeFacts, Thresholds};

const LEASE_NAMESPACE: &str = "kube-node-lease";
/// An unchanged status is written again after this time.
const REPORT: Duration = Duration::from_secs(300);
/// Pause after a failure to reach the API.
const RETRY: Duration = Duration::from_millis(500);

/// What the node says of itself.
#[derive(Clone, Debug)]
pub struct Config {
    pub name: String,
    pub hostname: String,
    pub addresses: Vec<String>,
    pub port: u16,
    pub labels: Vec<(String, String)>,
    /// Taints to register with: `{key, value, effect}` objects.
    pub taints: Vec<Value>,
    pub register: bool,
    pub provider_id: String,
    pub max_pods: i64,
    pub reserved: Reserved,
    pub thresholds: Thresholds,
    pub version: String,
    pub root_dir: std::path::PathBuf,
    pub status_update_frequency: Duration,
    pub lease_duration_seconds: i64,
}

/// The part that talks about the node.
pub struct Node {
    config: Config,
    machine: Machine,
    client: Client,
    clock: SharedClock,
    events: Arc<dyn Events>,
    runtime: Arc<Mutex<RuntimeFacts>>,
    changed: Arc<Notify>,
}

impl Node {
    /// `runtime` is filled by whoever watches the runtime, who calls `changed` when something of weight
    /// is new.
    pub fn new(
        config: Config,
        machine: Machine,
        client: Client,
        clock: SharedClock,
        events: Arc<dyn Events>,
        runtime: Arc<Mutex<RuntimeFacts>>,
        changed: Arc<Notify>,
    ) -> Self {
        Self { config, machine, client, clock, events, runtime, changed }
    }

    /// A reference to the node, for events. Its uid is its name, as upstream has it.
    pub fn reference(name: &str) -> ObjectReference {
        ObjectReference {
            kind: Some("Node".into()),
            name: Some(name.into()),
            uid: Some(name.into()),
            ..Default::default()
        }
    }

    /// Registers, then keeps status and lease current until shutdown.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let lease = self.clone();
        let work = async {
            if self.config.register {
                self.register().await;
            }
            tokio::join!(self.keep_status(), lease.keep_lease());
        };
        tokio::select! {
            () = work => {}
            () = shutdown.cancelled() => {}
        }
    }

    fn labels(&self) -> serde_json::Map<String, Value> {
        let mut labels = serde_json::Map::new();
        for (key, value) in [
            ("kubernetes.io/hostname", self.config.hostname.as_str()),
            ("kubernetes.io/os", "linux"),
            ("kubernetes.io/arch", self.machine.architecture.as_str()),
            ("beta.kubernetes.io/os", "linux"),
            ("beta.kubernetes.io/arch", self.machine.architecture.as_str()),
        ] {
            labels.insert(key.into(), json!(value));
        }
        for (key, value) in &self.config.labels {
            labels.insert(key.clone(), json!(value));
        }
        labels
    }

    async fn build(&self, old: &Value) -> Value {
        let runtime = self.runtime.lock().clone();
        let usage = Usage::read(&self.config.root_dir);
        status::build(
            &Inputs {
                machine: &self.machine,
                usage,
                runtime: &runtime,
                addresses: &self.config.addresses,
                hostname: &self.config.hostname,
                port: self.config.port,
                max_pods: self.config.max_pods,
                reserved: &self.config.reserved,
                thresholds: &self.config.thresholds,
                version: &self.config.version,
                now: self.clock.now(),
            },
            old,
        )
    }

    /// Creates the node, or puts labels of an existing one right.
    async fn register(&self) {
        loop {
            match self.try_register().await {
                Ok(()) => return,
                Err(error) => {
                    tracing::warn!(node = %self.config.name, error = %error.chain(), "unable to register node")
                }
            }
            self.clock.sleep(RETRY).await;
        }
    }

    async fn try_register(&self) -> client::Result<()> {
        let name = &self.config.name;
        let mut node = json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {
                "name": name,
                "labels": self.labels(),
                "annotations": {"volumes.kubernetes.io/controller-managed-attach-detach": "true"},
            },
            "spec": {},
            "status": self.build(&Value::Null).await,
        });
        if !self.config.taints.is_empty() {
            node["spec"]["taints"] = Value::Array(self.config.taints.clone());
        }
        if !self.config.provider_id.is_empty() {
            node["spec"]["providerID"] = json!(self.config.provider_id);
        }
        match self.client.create::<Value>(&resources::NODES, None, &node).await {
            Ok(_) => {
                tracing::info!(node = %name, "registered node");
                Ok(())
            }
            Err(error) if error.is_already_exists() => {
                let patch = json!({"metadata": {
                    "labels": self.labels(),
                    "annotations": {"volumes.kubernetes.io/controller-managed-attach-detach": "true"},
                }});
                self.client.patch::<Value>(&resources::NODES, None, name, None, &Patch::Strategic(patch)).await?;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    async fn keep_status(&self) {
        let mut reported: Option<Duration> = None;
        loop {
            let now = self.clock.monotonic();
            let due = reported.is_none_or(|at| now.saturating_sub(at) >= REPORT);
            let wait = match self.report(due).await {
                Ok(true) => {
                    reported = Some(now);
                    self.config.status_update_frequency
                }
                Ok(false) => self.config.status_update_frequency,
                Err(error) => {
                    tracing::warn!(node = %self.config.name, error = %error.chain(), "failed to update node status");
                    if error.is_not_found() && self.config.register {
                        // Somebody deleted it: be there again.
                        self.register().await;
                    }
                    RETRY
                }
            };
            tokio::select! {
                () = self.clock.sleep(wait) => {}
                () = self.changed.notified() => {}
            }
        }
    }

    /// Writes the status if it changed, or anyway when `due`; says whether it did.
    async fn report(&self, due: bool) -> client::Result<bool> {
        let node: Value = self.client.get(&resources::NODES, None, &self.config.name).await?;
        let old = &node["status"];
        let new = self.build(old).await;
        let present = new.as_object().is_some_and(|fields| {
            let shown = Value::Object(fields.keys().map(|k| (k.clone(), old[k].clone())).collect());
            status::same(&shown, &new)
        });
        if present && !due {
            return Ok(false);
        }
        let ready = |status: &Value| {
            let list = status["conditions"].as_array().into_iter().flatten();
            list.filter(|c| c["type"] == "Ready").map(|c| c["status"] == "True").next()
        };
        let mut body = new.clone();
        // Addresses merge by type, which would keep one that went: replace the list.
        if old["addresses"] != new["addresses"] {
            let mut list = vec![json!({"$patch": "replace"})];
            list.extend(new["addresses"].as_array().cloned().unwrap_or_default());
            body["addresses"] = Value::Array(list);
        }
        let patch = Patch::Strategic(json!({"status": body}));
        self.client.patch::<Value>(&resources::NODES, None, &self.config.name, Some("status"), &patch).await?;
        if let (Some(before), Some(after)) = (ready(old), ready(&new))
            && before != after
        {
            let reason = if after { "NodeReady" } else { "NodeNotReady" };
            let text = format!("Node {} status is now: {reason}", self.config.name);
            self.events.event(&Self::reference(&self.config.name), "Normal", reason, &text);
        }
        Ok(true)
    }

    async fn keep_lease(&self) {
        let period = Duration::from_secs(u64::try_from(self.config.lease_duration_seconds / 4).unwrap_or(10).max(1));
        let mut kept: Option<Value> = None;
        loop {
            let wait = match self.renew(&mut kept).await {
                Ok(()) => period,
                Err(error) => {
                    tracing::warn!(node = %self.config.name, error = %error.chain(), "failed to renew the node lease");
                    kept = None;
                    RETRY
                }
            };
            self.clock.sleep(wait).await;
        }
    }

    async fn renew(&self, kept: &mut Option<Value>) -> client::Result<()> {
        let now = self.clock.now().strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string();
        let name = &self.config.name;
        let namespace = Some(LEASE_NAMESPACE);
        let current = match kept.take() {
            Some(lease) => Some(lease),
            None => match self.client.get::<Value>(&resources::LEASES, namespace, name).await {
                Ok(lease) => Some(lease),
                Err(error) if error.is_not_found() => None,
                Err(error) => return Err(error),
            },
        };
        let spec = json!({
            "holderIdentity": name,
            "leaseDurationSeconds": self.config.lease_duration_seconds,
            "renewTime": now,
        });
        let written: Value = match current {
            Some(mut lease) => {
                lease["spec"] = spec;
                self.client.update(&resources::LEASES, namespace, name, &lease).await?
            }
            None => {
                let mut metadata = json!({"name": name, "namespace": LEASE_NAMESPACE});
                if let Ok(node) = self.client.get::<Value>(&resources::NODES, None, name).await {
                    metadata["ownerReferences"] = json!([{
                        "apiVersion": "v1", "kind": "Node", "name": name, "uid": node["metadata"]["uid"],
                    }]);
                }
                let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec});
                self.client.create(&resources::LEASES, namespace, &lease).await?
            }
        };
        *kept = Some(written);
        Ok(())
    }
}
