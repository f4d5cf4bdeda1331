//! What the pod machinery needs from the API, as a small trait: so that it can be tested without a
//! server, and so that one place decides how objects are fetched and kept.

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::certificates::v1beta1::{ClusterTrustBundle, PodCertificateRequest};
use k8s_openapi::api::core::v1::{ConfigMap, Node, ObjectReference, Pod, Secret, Service};
use serde_json::Value;

use crate::references::References;

/// Why the API did not give what was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The object does not exist; the text is the server's.
    #[error("{0}")]
    NotFound(String),
    /// The object changed or is another one now; read again.
    #[error("{0}")]
    Conflict(String),
    /// Anything else; try again later.
    #[error("{0}")]
    Other(String),
}

impl Error {
    /// The object does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound(_))
    }
}

/// The result of every call.
pub type Result<T> = std::result::Result<T, Error>;

/// The calls. Config maps, secrets and services may come from a cache that is at most a few seconds old.
#[async_trait]
pub trait Api: Send + Sync {
    async fn config_map(&self, namespace: &str, name: &str) -> Result<Arc<ConfigMap>>;
    async fn secret(&self, namespace: &str, name: &str) -> Result<Arc<Secret>>;
    /// No pod uses any but these config maps and secrets of a namespace from now on: the others need not be followed.
    fn keep_only(&self, namespace: &str, references: &References);
    /// All ClusterTrustBundles; an error where the cluster has no such kind, or until they have been listed once.
    async fn trust_bundles(&self) -> Result<Vec<Arc<ClusterTrustBundle>>>;
    /// Asks for a pod's certificate.
    async fn request_certificate(&self, namespace: &str, new: &PodCertificateRequest) -> Result<PodCertificateRequest>;
    /// A request for a certificate of one of this node's pods, as far as it is known.
    async fn certificate_request(&self, namespace: &str, name: &str) -> Result<Option<Arc<PodCertificateRequest>>>;
    /// The uid of a service account.
    async fn service_account_uid(&self, namespace: &str, name: &str) -> Result<String>;
    /// Services of a namespace; an error until they have been listed once.
    fn services(&self, namespace: &str) -> Result<Vec<Arc<Service>>>;
    /// A token for a service account.
    async fn token(&self, namespace: &str, account: &str, request: TokenRequest) -> Result<TokenRequest>;
    /// Patches `status` with a strategic merge patch.
    async fn patch_pod_status(&self, namespace: &str, name: &str, patch: Value) -> Result<Pod>;
    /// Removes a pod at once, provided it is still the one of this uid.
    async fn delete_pod(&self, namespace: &str, name: &str, uid: &str) -> Result<()>;
    /// Creates a pod (mirrors only).
    async fn create_pod(&self, pod: &Pod) -> Result<Pod>;
    /// How the runtime calls a runtime class.
    async fn runtime_handler(&self, class: &str) -> Result<String>;
    /// A node as it is now.
    async fn node(&self, name: &str) -> Result<Node>;
}

/// Where events go. Never waits; what cannot be delivered is dropped.
pub trait Events: Send + Sync {
    /// `kind` is `Normal` or `Warning`.
    fn event(&self, object: &ObjectReference, kind: &str, reason: &str, message: &str);
}

/// Events about nothing, for tests and for a kubelet without an API.
pub struct NoEvents;

impl Events for NoEvents {
    fn event(&self, _: &ObjectReference, _: &str, _: &str, _: &str) {}
}

/// A reference to a pod, or to one of its containers as `spec.containers{name}`.
pub fn pod_reference(pod: &Pod, field_path: Option<String>) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Pod".into()),
        name: pod.metadata.name.clone(),
        namespace: pod.metadata.namespace.clone(),
        uid: pod.metadata.uid.clone(),
        resource_version: pod.metadata.resource_version.clone(),
        field_path,
    }
}
