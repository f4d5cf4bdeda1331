//! [`crate::api::Api`] over the real client: services from an informer, config maps and secrets each
//! followed by a watch of its own for as long as some pod asks for it.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use client::informer::{Informer, InformerParams, Store};
use client::{Client, DeleteOptions, Meta, Patch, resources};
use component_base::clock::SharedClock;
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::certificates::v1beta1::{ClusterTrustBundle, PodCertificateRequest};
use k8s_openapi::api::core::v1::{ConfigMap, Node, ObjectReference, Pod, Secret, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use parking_lot::Mutex;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::api::{Api, Error, Events, Result};
use crate::references::References;

/// A published type as informers keep it.
#[derive(Clone, Debug, Deserialize)]
#[serde(transparent, bound = "T: DeserializeOwned")]
pub struct Typed<T>(pub Arc<T>);

/// Published types have the published metadata.
pub trait HasMetadata: Clone + Send + Sync + 'static {
    fn metadata(&self) -> &ObjectMeta;
    fn metadata_mut(&mut self) -> &mut ObjectMeta;
}

macro_rules! has_metadata {
    ($($kind:ty),+) => {$(
        impl HasMetadata for $kind {
            fn metadata(&self) -> &ObjectMeta { &self.metadata }
            fn metadata_mut(&mut self) -> &mut ObjectMeta { &mut self.metadata }
        }
    )+};
}
has_metadata!(ClusterTrustBundle, ConfigMap, Node, Pod, PodCertificateRequest, Secret, Service);

impl<T: HasMetadata> Meta for Typed<T> {
    fn name(&self) -> &str {
        self.0.metadata().name.as_deref().unwrap_or_default()
    }
    fn namespace(&self) -> &str {
        self.0.metadata().namespace.as_deref().unwrap_or_default()
    }
    fn uid(&self) -> &str {
        self.0.metadata().uid.as_deref().unwrap_or_default()
    }
    fn resource_version(&self) -> &str {
        self.0.metadata().resource_version.as_deref().unwrap_or_default()
    }
    fn trim(&mut self) {
        if let Some(object) = Arc::get_mut(&mut self.0) {
            object.metadata_mut().managed_fields = None;
        }
    }
}

fn translate(error: client::Error) -> Error {
    let text = error.status().map_or_else(|| error.chain(), |status| status.message.clone());
    if error.is_not_found() {
        Error::NotFound(text)
    } else if error.is_conflict() {
        Error::Conflict(text)
    } else {
        Error::Other(text)
    }
}

/// A watched object is dropped when nobody asked for it for this long.
const IDLE: Duration = Duration::from_secs(300);

type OnChange = Arc<OnceLock<Box<dyn Fn() + Send + Sync>>>;

struct Watched<T> {
    store: Store<Typed<T>>,
    informer: Arc<Informer<Typed<T>>>,
    stop: CancellationToken,
    asked: Duration,
}

/// Objects of one kind, watched by name.
struct Watches<T> {
    client: Client,
    resource: client::Resource,
    clock: SharedClock,
    on_change: OnChange,
    entries: Mutex<HashMap<(String, String), Watched<T>>>,
}

impl<T: HasMetadata + DeserializeOwned> Watches<T> {
    fn new(client: Client, resource: client::Resource, clock: SharedClock, on_change: OnChange) -> Self {
        Self { client, resource, clock, on_change, entries: Mutex::default() }
    }

    /// The object, from the watch once that has caught up, by a plain GET before.
    async fn get(&self, namespace: &str, name: &str) -> Result<Arc<T>> {
        let key = (namespace.to_owned(), name.to_owned());
        let now = self.clock.monotonic();
        {
            let mut entries = self.entries.lock();
            entries.retain(|_, watched| {
                let keep = now.saturating_sub(watched.asked) < IDLE;
                if !keep {
                    watched.stop.cancel();
                }
                keep
            });
            if let Some(watched) = entries.get_mut(&key) {
                watched.asked = now;
                if watched.informer.has_synced()
                    && let Some(found) = watched.store.get_named(namespace, name)
                {
                    return Ok(found.0.clone());
                }
            }
        }
        let found: T = self.client.get(&self.resource, Some(namespace), name).await.map_err(translate)?;
        self.watch(key, now);
        Ok(Arc::new(found))
    }

    /// Ends the watches of a namespace whose object is not among `names`.
    fn keep_only(&self, namespace: &str, names: &BTreeSet<String>) {
        self.entries.lock().retain(|(of, name), watched| {
            let keep = of != namespace || names.contains(name);
            if !keep {
                watched.stop.cancel();
            }
            keep
        });
    }

    fn watch(&self, key: (String, String), now: Duration) {
        let mut entries = self.entries.lock();
        if entries.contains_key(&key) {
            return;
        }
        let params = InformerParams {
            namespace: key.0.clone(),
            field_selector: format!("metadata.name={}", key.1),
            ..Default::default()
        };
        let informer = Informer::<Typed<T>>::new(self.client.clone(), self.resource.clone(), params);
        let on_change = self.on_change.clone();
        informer.on_event(move |_| {
            if let Some(tell) = on_change.get() {
                tell();
            }
        });
        let stop = CancellationToken::new();
        tokio::spawn(informer.clone().run(stop.clone()));
        let watched = Watched { store: informer.store(), informer, stop, asked: now };
        entries.insert(key, watched);
    }
}

/// How long a pod waits for the first list of trust bundles before it is tried again later.
const FIRST_LIST: Duration = Duration::from_secs(10);

/// The API of a cluster.
pub struct ApiClient {
    client: Client,
    services: Arc<Informer<Typed<Service>>>,
    config_maps: Watches<ConfigMap>,
    secrets: Watches<Secret>,
    /// Followed as soon as some pod wants trust bundles: few clusters have them.
    trust_bundles: tokio::sync::OnceCell<Arc<Informer<Typed<ClusterTrustBundle>>>>,
    /// Likewise with requests for certificates of this node's pods.
    certificate_requests: tokio::sync::OnceCell<Arc<Informer<Typed<PodCertificateRequest>>>>,
    node_name: String,
    on_change: OnChange,
}

impl ApiClient {
    /// `services` is shared with whoever else follows them.
    pub fn new(client: Client, services: Arc<Informer<Typed<Service>>>, node_name: &str, clock: SharedClock) -> Self {
        let on_change = OnChange::default();
        let config_maps =
            Watches::new(client.clone(), resources::CONFIG_MAPS.clone(), clock.clone(), on_change.clone());
        let secrets = Watches::new(client.clone(), resources::SECRETS.clone(), clock, on_change.clone());
        Self {
            client,
            services,
            config_maps,
            secrets,
            trust_bundles: tokio::sync::OnceCell::new(),
            certificate_requests: tokio::sync::OnceCell::new(),
            node_name: node_name.to_owned(),
            on_change,
        }
    }

    /// Follows trust bundles, if this API has them.
    async fn follow_trust_bundles(&self) -> Result<Arc<Informer<Typed<ClusterTrustBundle>>>> {
        let resource = &resources::CLUSTER_TRUST_BUNDLES;
        let one = client::ListParams { limit: 1, ..Default::default() };
        match self.client.list::<Value>(resource, None, &one).await {
            Err(error) if error.is_not_found() => {
                // Upstream's words for a server without the kind as well.
                return Err(Error::Other(
                    "ClusterTrustBundle projection is not supported in static kubelet mode".to_owned(),
                ));
            }
            other => other.map_err(translate)?,
        };
        Ok(self.follow(resource, InformerParams::default()).await)
    }

    /// Follows requests for certificates of this node's pods.
    async fn follow_certificate_requests(&self) -> Arc<Informer<Typed<PodCertificateRequest>>> {
        let params = InformerParams::fields(&format!("spec.nodeName={}", self.node_name));
        self.follow(&resources::POD_CERTIFICATE_REQUESTS, params).await
    }

    /// Follows objects for good; whoever is told of changes is told of theirs.
    async fn follow<T>(&self, resource: &client::Resource, params: InformerParams) -> Arc<Informer<Typed<T>>>
    where
        T: HasMetadata + DeserializeOwned,
    {
        let informer = Informer::<Typed<T>>::new(self.client.clone(), resource.clone(), params);
        let on_change = self.on_change.clone();
        informer.on_event(move |_| {
            if let Some(tell) = on_change.get() {
                tell();
            }
        });
        tokio::spawn(informer.clone().run(CancellationToken::new()));
        let _ = tokio::time::timeout(FIRST_LIST, informer.wait_synced()).await;
        informer
    }

    /// Sets who is told when a config map or secret in use changes. Once.
    pub fn on_change(&self, tell: impl Fn() + Send + Sync + 'static) {
        let _ = self.on_change.set(Box::new(tell));
    }
}

#[async_trait]
impl Api for ApiClient {
    async fn config_map(&self, namespace: &str, name: &str) -> Result<Arc<ConfigMap>> {
        self.config_maps.get(namespace, name).await
    }

    async fn secret(&self, namespace: &str, name: &str) -> Result<Arc<Secret>> {
        self.secrets.get(namespace, name).await
    }

    fn keep_only(&self, namespace: &str, references: &References) {
        self.config_maps.keep_only(namespace, &references.config_maps);
        self.secrets.keep_only(namespace, &references.secrets);
    }

    async fn trust_bundles(&self) -> Result<Vec<Arc<ClusterTrustBundle>>> {
        let informer = self.trust_bundles.get_or_try_init(|| self.follow_trust_bundles()).await?;
        if !informer.has_synced() {
            return Err(Error::Other("ClusterTrustBundle informer has not yet synced".to_owned()));
        }
        Ok(informer.store().list().iter().map(|bundle| bundle.0.clone()).collect())
    }

    async fn request_certificate(&self, namespace: &str, new: &PodCertificateRequest) -> Result<PodCertificateRequest> {
        // Followed before it is made: what becomes of it is not missed.
        self.certificate_requests.get_or_init(|| self.follow_certificate_requests()).await;
        self.client.create(&resources::POD_CERTIFICATE_REQUESTS, Some(namespace), new).await.map_err(translate)
    }

    async fn certificate_request(&self, namespace: &str, name: &str) -> Result<Option<Arc<PodCertificateRequest>>> {
        let informer = self.certificate_requests.get_or_init(|| self.follow_certificate_requests()).await;
        if !informer.has_synced() {
            return Err(Error::Other("PodCertificateRequest informer has not yet synced".to_owned()));
        }
        Ok(informer.store().get(&client::ObjectKey::new(namespace, name)).map(|request| request.0.clone()))
    }

    async fn service_account_uid(&self, namespace: &str, name: &str) -> Result<String> {
        let found: Value =
            self.client.get(&resources::SERVICE_ACCOUNTS, Some(namespace), name).await.map_err(translate)?;
        Ok(found["metadata"]["uid"].as_str().unwrap_or_default().to_owned())
    }

    fn services(&self, namespace: &str) -> Result<Vec<Arc<Service>>> {
        if !self.services.has_synced() {
            return Err(Error::Other("services have not yet been read at least once, cannot construct envvars".into()));
        }
        let all = self.services.store().list();
        Ok(all.iter().filter(|s| s.namespace() == namespace).map(|s| s.0.clone()).collect())
    }

    async fn token(&self, namespace: &str, account: &str, request: TokenRequest) -> Result<TokenRequest> {
        let sent = self.client.create_sub(&resources::SERVICE_ACCOUNTS, Some(namespace), account, "token", &request);
        sent.await.map_err(translate)
    }

    async fn patch_pod_status(&self, namespace: &str, name: &str, patch: Value) -> Result<Pod> {
        let patch = Patch::Strategic(patch);
        let sent = self.client.patch(&resources::PODS, Some(namespace), name, Some("status"), &patch);
        sent.await.map_err(translate)
    }

    async fn delete_pod(&self, namespace: &str, name: &str, uid: &str) -> Result<()> {
        let options = DeleteOptions::uid(uid).grace(0);
        match self.client.delete(&resources::PODS, Some(namespace), name, &options).await {
            // Another pod of this name is there: the one we meant is gone.
            Err(error) if error.is_conflict() => Err(Error::NotFound(translate(error).to_string())),
            other => other.map_err(translate),
        }
    }

    async fn create_pod(&self, pod: &Pod) -> Result<Pod> {
        self.client.create(&resources::PODS, pod.metadata.namespace.as_deref(), pod).await.map_err(translate)
    }

    async fn runtime_handler(&self, class: &str) -> Result<String> {
        let found: Value = self.client.get(&resources::RUNTIME_CLASSES, None, class).await.map_err(translate)?;
        Ok(found["handler"].as_str().unwrap_or_default().to_owned())
    }

    async fn node(&self, name: &str) -> Result<Node> {
        self.client.get(&resources::NODES, None, name).await.map_err(translate)
    }
}

/// Events through the client's recorder.
pub struct Recorder(pub client::events::Recorder);

impl Events for Recorder {
    fn event(&self, object: &ObjectReference, kind: &str, reason: &str, message: &str) {
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        let reference = client::events::Reference {
            api_version: text(&object.api_version),
            kind: text(&object.kind),
            namespace: text(&object.namespace),
            name: text(&object.name),
            uid: text(&object.uid),
            resource_version: text(&object.resource_version),
            field_path: text(&object.field_path),
        };
        self.0.event(&reference, kind, reason, message);
    }
}
