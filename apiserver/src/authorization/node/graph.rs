//! Which objects belong to which node, by way of the pods that run there.

use std::collections::BTreeSet;
use std::sync::Arc;

use ahash::AHashMap;
use apimachinery::object::ObjectExt as _;
use parking_lot::RwLock;
use serde_json::{Value, json};

use super::references;
use crate::cache::{Entry, Event, Follower, Snapshot};
use crate::response::members;

/// Kinds of objects that a pod refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Secret,
    ConfigMap,
    ServiceAccount,
    /// PersistentVolumeClaim.
    Claim,
    ResourceClaim,
}

/// An object that pods refer to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub kind: Kind,
    pub namespace: Box<str>,
    pub name: Box<str>,
}

impl Key {
    pub fn new(kind: Kind, namespace: &str, name: &str) -> Self {
        Self { kind, namespace: namespace.into(), name: name.into() }
    }
}

type Name = (Box<str>, Box<str>);

struct Pod {
    node: Arc<str>,
    uid: Box<str>,
    /// Sorted.
    keys: Vec<Key>,
}

struct Volume {
    claim: Name,
    secrets: BTreeSet<(String, String)>,
}

/// The relations. Cheap to ask: a few hash look-ups.
#[derive(Default)]
pub struct Graph {
    pods: AHashMap<Name, Pod>,
    /// How many pods of each node refer to an object.
    uses: AHashMap<Key, AHashMap<Arc<str>, u32>>,
    volumes: AHashMap<Box<str>, Volume>,
    /// Volumes that name a secret.
    secret_volumes: AHashMap<(String, String), BTreeSet<Box<str>>>,
    attachments: AHashMap<Box<str>, Arc<str>>,
    slices: AHashMap<Box<str>, Arc<str>>,
    certificate_requests: AHashMap<Name, Arc<str>>,
}

fn named(namespace: &str, name: &str) -> Name {
    (namespace.into(), name.into())
}

impl Graph {
    /// Whether a pod of the node refers to the object, be it by way of a volume.
    pub fn reaches(&self, node: &str, kind: Kind, namespace: &str, name: &str) -> bool {
        if self.uses(node, &Key::new(kind, namespace, name)) {
            return true;
        }
        kind == Kind::Secret
            && self
                .secret_volumes
                .get(&(namespace.to_string(), name.to_string()))
                .into_iter()
                .flatten()
                .any(|volume| self.reaches_volume(node, volume))
    }

    fn uses(&self, node: &str, key: &Key) -> bool {
        self.uses.get(key).is_some_and(|nodes| nodes.contains_key(node))
    }

    /// Whether a pod of the node uses the claim that is bound to a volume.
    pub fn reaches_volume(&self, node: &str, volume: &str) -> bool {
        self.volumes
            .get(volume)
            .is_some_and(|volume| self.uses(node, &Key::new(Kind::Claim, &volume.claim.0, &volume.claim.1)))
    }

    /// Whether a pod runs on the node.
    pub fn has_pod(&self, node: &str, namespace: &str, name: &str) -> bool {
        self.pods.get(&named(namespace, name)).is_some_and(|pod| &*pod.node == node)
    }

    /// Whether a VolumeAttachment is for the node.
    pub fn has_attachment(&self, node: &str, name: &str) -> bool {
        self.attachments.get(name).is_some_and(|have| &**have == node)
    }

    /// Whether a ResourceSlice is of the node.
    pub fn has_slice(&self, node: &str, name: &str) -> bool {
        self.slices.get(name).is_some_and(|have| &**have == node)
    }

    /// Whether a PodCertificateRequest is of the node.
    pub fn has_certificate_request(&self, node: &str, namespace: &str, name: &str) -> bool {
        self.certificate_requests.get(&named(namespace, name)).is_some_and(|have| &**have == node)
    }

    fn put_pod(&mut self, entry: &Entry) {
        let node = entry.field("spec.nodeName").unwrap_or_default();
        let name = named(entry.namespace(), entry.name());
        if node.is_empty() {
            self.remove_pod(&name);
            return;
        }
        // References of a bound pod change only by what these fields may bring.
        let settled = || {
            ["\"ephemeralContainers\"", "\"resourceClaimStatuses\"", "\"extendedResourceClaimStatus\""]
                .iter()
                .all(|field| memchr::memmem::find(entry.json(), field.as_bytes()).is_none())
        };
        if self.pods.get(&name).is_some_and(|pod| &*pod.node == node && *pod.uid == *entry.uid()) && settled() {
            return;
        }
        self.remove_pod(&name);
        let keys: Vec<Key> = references::of_pod(&referring(entry)).into_iter().collect();
        let node: Arc<str> = node.into();
        for key in &keys {
            *self.uses.entry(key.clone()).or_default().entry(node.clone()).or_default() += 1;
        }
        self.pods.insert(name, Pod { node, uid: entry.uid().into(), keys });
    }

    fn remove_pod(&mut self, name: &Name) {
        let Some(pod) = self.pods.remove(name) else { return };
        for key in &pod.keys {
            let Some(nodes) = self.uses.get_mut(key) else { continue };
            if let Some(count) = nodes.get_mut(&pod.node) {
                *count -= 1;
                if *count == 0 {
                    nodes.remove(&pod.node);
                }
            }
            if nodes.is_empty() {
                self.uses.remove(key);
            }
        }
    }

    fn put_volume(&mut self, entry: &Entry) {
        self.remove_volume(entry.name());
        let object = entry.tree();
        let Some(claim) = object.at(&["spec", "claimRef"]).filter(|claim| !claim.is_null()) else { return };
        let text = |field: &str| claim.str_at(&[field]).unwrap_or_default();
        let secrets = references::secrets_of_volume(&object, text("namespace"));
        for secret in &secrets {
            self.secret_volumes.entry(secret.clone()).or_default().insert(entry.name().into());
        }
        let claim = named(text("namespace"), text("name"));
        self.volumes.insert(entry.name().into(), Volume { claim, secrets });
    }

    fn remove_volume(&mut self, name: &str) {
        let Some(volume) = self.volumes.remove(name) else { return };
        for secret in &volume.secrets {
            if let Some(volumes) = self.secret_volumes.get_mut(secret) {
                volumes.remove(name);
                if volumes.is_empty() {
                    self.secret_volumes.remove(secret);
                }
            }
        }
    }
}

/// The kinds whose objects make the graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Pods,
    Volumes,
    Attachments,
    Slices,
    CertificateRequests,
}

impl Source {
    /// All, with their groups and resources.
    pub const ALL: [(Source, &'static str, &'static str); 5] = [
        (Source::Pods, "", "pods"),
        (Source::Volumes, "", "persistentvolumes"),
        (Source::Attachments, "storage.k8s.io", "volumeattachments"),
        (Source::Slices, "resource.k8s.io", "resourceslices"),
        (Source::CertificateRequests, "certificates.k8s.io", "podcertificaterequests"),
    ];
}

/// Brings one kind's objects into the graph.
pub struct Populator {
    pub source: Source,
    pub graph: Arc<RwLock<Graph>>,
}

/// As much of a pod as says what it refers to. What the graph follows is on the way of every write, and half of a pod is
/// metadata that names nothing.
fn referring(pod: &Entry) -> Value {
    const ELSEWHERE: [&str; 3] = [references::MIRROR, "\"resourceClaimStatuses\"", "\"extendedResourceClaimStatus\""];
    let json = pod.json();
    if ELSEWHERE.iter().any(|text| memchr::memmem::find(json, text.as_bytes()).is_some()) {
        return pod.tree();
    }
    let spec = members::value(json, "spec").and_then(|spec| serde_json::from_slice::<Value>(spec).ok());
    json!({"metadata": {"name": pod.name(), "namespace": pod.namespace()}, "spec": spec})
}

fn node_of(object: &Value) -> Arc<str> {
    object.str_at(&["spec", "nodeName"]).unwrap_or_default().into()
}

impl Populator {
    pub(super) fn put(&self, graph: &mut Graph, entry: &Entry) {
        match self.source {
            Source::Pods => graph.put_pod(entry),
            Source::Volumes => graph.put_volume(entry),
            Source::Attachments => {
                graph.attachments.insert(entry.name().into(), node_of(&entry.tree()));
            }
            Source::Slices => {
                graph.slices.insert(entry.name().into(), node_of(&entry.tree()));
            }
            Source::CertificateRequests => {
                let name = named(entry.namespace(), entry.name());
                graph.certificate_requests.insert(name, node_of(&entry.tree()));
            }
        }
    }
}

impl Follower for Populator {
    fn replace(&self, objects: &Snapshot) {
        let mut graph = self.graph.write();
        match self.source {
            Source::Pods => {
                graph.pods.clear();
                graph.uses.clear();
            }
            Source::Volumes => {
                graph.volumes.clear();
                graph.secret_volumes.clear();
            }
            Source::Attachments => graph.attachments.clear(),
            Source::Slices => graph.slices.clear(),
            Source::CertificateRequests => graph.certificate_requests.clear(),
        }
        for entry in objects.range(None, None) {
            self.put(&mut graph, entry);
        }
    }

    fn apply(&self, event: &Event) {
        let mut graph = self.graph.write();
        let entry = event.any();
        if event.object.is_some() {
            self.put(&mut graph, entry);
            return;
        }
        let name = named(entry.namespace(), entry.name());
        match self.source {
            Source::Pods => graph.remove_pod(&name),
            Source::Volumes => graph.remove_volume(entry.name()),
            Source::Attachments => {
                graph.attachments.remove(entry.name());
            }
            Source::Slices => {
                graph.slices.remove(entry.name());
            }
            Source::CertificateRequests => {
                graph.certificate_requests.remove(&name);
            }
        }
    }
}
