//! Stand-ins for tests of the parts: an API in memory and settings below a temporary directory.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestStatus};
use k8s_openapi::api::certificates::v1beta1::{ClusterTrustBundle, PodCertificateRequest};
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod, Secret, Service};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::Notify;

use crate::api::{Api, Error, Result};
use crate::references::References;
use crate::settings::Settings;

/// Settings whose every path is below `directory`.
pub fn settings(directory: &Path) -> Settings {
    Settings {
        node_name: "node".into(),
        root_dir: directory.join("kubelet"),
        pod_logs_dir: directory.join("pods"),
        container_logs_dir: directory.join("containers"),
        dns: Default::default(),
        facts: crate::env::NodeFacts { host_ips: vec!["1.2.3.4".into()], ..Default::default() },
        memory_capacity: 1 << 30,
        cfs_quota: true,
        seccomp_default: false,
        pod_pids_limit: None,
        cgroup_root: "/".into(),
        cgroups_per_qos: false,
    }
}

/// Grants of a node with room for everything.
pub fn allocations(directory: &Path) -> crate::allocation::Allocations {
    let node = crate::allocation::NodeView {
        name: "node".into(),
        cpu: 4000,
        memory: 8 << 30,
        storage: 1 << 40,
        pods: 110,
        ..Default::default()
    };
    let clock = component_base::clock::RealClock::shared();
    crate::allocation::Allocations::load(directory, node, Arc::new(crate::api::NoEvents), clock)
}

/// Objects by `namespace/name`, and what was asked for.
#[derive(Default)]
pub struct FakeApi {
    pub config_maps: Mutex<HashMap<String, ConfigMap>>,
    pub secrets: Mutex<HashMap<String, Secret>>,
    /// Trust bundles, where the API has them.
    pub trust_bundles: Mutex<Option<Vec<Arc<ClusterTrustBundle>>>>,
    pub nodes: Mutex<HashMap<String, Node>>,
    /// Requests for certificates in order.
    pub certificate_requests: Mutex<Vec<Arc<PodCertificateRequest>>>,
    /// Status patches in order.
    pub patches: Mutex<Vec<Value>>,
    /// What was said to be in use still, by namespace, in order.
    pub kept: Mutex<Vec<(String, References)>>,
    /// Names of pods deleted.
    pub deleted: Mutex<Vec<String>>,
    /// How many of the next status patches fail.
    pub failures: Mutex<u32>,
    pub changed: Notify,
}

#[async_trait]
impl Api for FakeApi {
    async fn config_map(&self, namespace: &str, name: &str) -> Result<Arc<ConfigMap>> {
        let found = self.config_maps.lock().get(&format!("{namespace}/{name}")).cloned();
        found.map(Arc::new).ok_or_else(|| Error::NotFound(format!("configmap {name:?} not found")))
    }

    async fn secret(&self, namespace: &str, name: &str) -> Result<Arc<Secret>> {
        let found = self.secrets.lock().get(&format!("{namespace}/{name}")).cloned();
        found.map(Arc::new).ok_or_else(|| Error::NotFound(format!("secret {name:?} not found")))
    }

    fn keep_only(&self, namespace: &str, references: &References) {
        self.kept.lock().push((namespace.to_owned(), references.clone()));
    }

    async fn trust_bundles(&self) -> Result<Vec<Arc<ClusterTrustBundle>>> {
        let text = "ClusterTrustBundle projection is not supported in static kubelet mode";
        self.trust_bundles.lock().clone().ok_or_else(|| Error::Other(text.to_owned()))
    }

    async fn request_certificate(&self, _: &str, new: &PodCertificateRequest) -> Result<PodCertificateRequest> {
        let mut requests = self.certificate_requests.lock();
        let mut made = new.clone();
        made.metadata.name = Some(format!("req-{}", requests.len()));
        requests.push(Arc::new(made.clone()));
        Ok(made)
    }

    async fn certificate_request(&self, _: &str, name: &str) -> Result<Option<Arc<PodCertificateRequest>>> {
        let requests = self.certificate_requests.lock();
        Ok(requests.iter().find(|request| request.metadata.name.as_deref() == Some(name)).cloned())
    }

    async fn service_account_uid(&self, _: &str, name: &str) -> Result<String> {
        Ok(format!("uid of {name}"))
    }

    fn services(&self, _: &str) -> Result<Vec<Arc<Service>>> {
        Ok(Vec::new())
    }

    async fn token(&self, _: &str, account: &str, request: TokenRequest) -> Result<TokenRequest> {
        let status = TokenRequestStatus { token: Some(format!("token of {account}")), ..Default::default() };
        Ok(TokenRequest { status: Some(status), ..request })
    }

    async fn patch_pod_status(&self, _: &str, _: &str, patch: Value) -> Result<Pod> {
        let mut failures = self.failures.lock();
        if *failures > 0 {
            *failures -= 1;
            return Err(Error::Other("the server is down".into()));
        }
        self.patches.lock().push(patch);
        self.changed.notify_one();
        Ok(Pod::default())
    }

    async fn delete_pod(&self, _: &str, name: &str, _: &str) -> Result<()> {
        self.deleted.lock().push(name.to_owned());
        self.changed.notify_one();
        Ok(())
    }

    async fn create_pod(&self, pod: &Pod) -> Result<Pod> {
        Ok(pod.clone())
    }

    async fn runtime_handler(&self, class: &str) -> Result<String> {
        Err(Error::NotFound(format!("runtimeclasses.node.k8s.io {class:?} not found")))
    }

    async fn node(&self, name: &str) -> Result<Node> {
        let found = self.nodes.lock().get(name).cloned();
        found.ok_or_else(|| Error::NotFound(format!("nodes {name:?} not found")))
    }
}
