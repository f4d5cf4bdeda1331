//! The resources this server serves: each a row of the table, a cache, and a strategy.
//!
//! Everything generic is in `handlers`; what differs by kind is a [`Rules`] row (`rules.rs`) and,
//! where a row cannot say it, a file per kind with [`Hooks`]. Storing and reading always happens in
//! the storage version; `conversion.rs` turns one version into another.

pub mod apiregistration;
pub mod autoscaling;
pub mod batch;
pub mod certificates;
pub mod checks;
pub mod conversion;
pub mod core;
mod devices;
pub mod fields;
pub mod hooks;
pub mod mirrored;
pub mod rbac;
pub mod rules;
pub mod storage;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use api::Resource;
use apimachinery::gvk::{GroupKind, GroupResource};
use apimachinery::schema::TypeRef;
use serde_json::Value;

use crate::cache::{Cache, ResourceCache, ResourceSpec};
use crate::config::Config;
use crate::storage::Durability;
pub use hooks::Hooks;
pub use rules::Rules;

/// One resource in one served version.
pub struct Served {
    /// The row of this version.
    pub resource: &'static Resource,
    /// Its type.
    pub schema: TypeRef<'static>,
    /// The row of the version that is stored; this one's where nothing is stored.
    pub storage: &'static Resource,
    /// Its type.
    pub storage_schema: TypeRef<'static>,
    /// Where objects are; `None` for reviews and bindings.
    pub cache: Option<Arc<ResourceCache>>,
    /// What differs from the generic walk.
    pub rules: Rules,
    /// A small number for each served row, in keys of derived encodings.
    pub ordinal: u16,
}

impl Served {
    /// `apps/v1`.
    pub fn api_version(&self) -> String {
        self.resource.api_version()
    }

    /// `deployments.apps`.
    pub fn group_resource(&self) -> GroupResource {
        GroupResource::new(self.resource.group.to_string(), self.resource.plural.to_string())
    }

    /// `Deployment.apps`.
    pub fn group_kind(&self) -> GroupKind {
        GroupKind::new(self.resource.group.to_string(), self.resource.kind.to_string())
    }

    /// Whether what is stored is what is served.
    pub fn is_storage_version(&self) -> bool {
        std::ptr::eq(self.resource, self.storage)
    }

    /// An object of the storage version in this one.
    pub fn from_storage(&self, object: Value) -> Value {
        if self.is_storage_version() { object } else { conversion::convert(object, self.storage, self.resource) }
    }

    /// An object of this version in the storage version.
    pub fn to_storage(&self, object: Value) -> Value {
        if self.is_storage_version() { object } else { conversion::convert(object, self.resource, self.storage) }
    }

    /// The storage key of an object.
    pub fn key(&self, namespace: &str, name: &str) -> String {
        self.cache.as_ref().map(|cache| cache.spec().key(namespace, name)).unwrap_or_default()
    }

    /// The internal Go type that a few of upstream's messages name.
    pub fn go_name(&self, list: bool) -> String {
        let package = match self.resource.group.as_ref() {
            "" => "core",
            group => group.split('.').next().unwrap_or(group),
        };
        let kind = if list { &self.resource.list_kind } else { &self.resource.kind };
        format!("*{package}.{kind}")
    }
}

/// All served resources.
pub struct Registry {
    served: HashMap<(String, String, String), Arc<Served>>,
    groups: BTreeSet<(String, String)>,
    order: Vec<Arc<Served>>,
}

/// Resources whose acknowledged writes may be lost with the machine: heartbeats and news.
const RELAXED: [(&str, &str); 2] = [("coordination.k8s.io", "leases"), ("", "events")];

impl Registry {
    /// Builds the rows that `--runtime-config` leaves on.
    pub fn new(config: &Config, cache: &Arc<Cache>) -> Self {
        let table = api::table();
        let mut registry = Self { served: HashMap::new(), groups: BTreeSet::new(), order: Vec::new() };
        for (ordinal, resource) in table.resources().iter().enumerate() {
            let Some(schema) = resource.type_ref() else { continue };
            if !enabled(config, resource) {
                continue;
            }
            let storage = resource
                .storage_version
                .as_ref()
                .and_then(|(group, version)| {
                    // Events of events.k8s.io are stored as those of the core group.
                    table.find_resource(group, version, &resource.plural)
                })
                .unwrap_or(resource);
            let stored = resource.storage_version.is_some();
            let served = Arc::new(Served {
                resource,
                schema,
                storage,
                storage_schema: storage.type_ref().unwrap_or(schema),
                cache: stored.then(|| cache.register(spec(config, storage))),
                rules: rules::of(&resource.group, &resource.plural),
                ordinal: u16::try_from(ordinal).expect("there are fewer than 65,536 resources"),
            });
            registry.groups.insert((resource.group.to_string(), resource.version.to_string()));
            registry.served.insert(
                (resource.group.to_string(), resource.version.to_string(), resource.plural.to_string()),
                served.clone(),
            );
            registry.order.push(served);
        }
        registry
    }

    /// A served resource.
    pub fn find(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Served>> {
        self.served.get(&(group.to_string(), version.to_string(), plural.to_string()))
    }

    /// The resource in whatever version is served first, for the server's own use.
    pub fn any_version(&self, group: &str, plural: &str) -> Option<&Arc<Served>> {
        self.order.iter().find(|served| served.resource.group == group && served.resource.plural == plural)
    }

    /// Whether a group and version is served at all.
    pub fn serves(&self, group: &str, version: &str) -> bool {
        self.groups.contains(&(group.to_string(), version.to_string()))
    }

    /// Whether any version of a group is served.
    pub fn serves_group(&self, group: &str) -> bool {
        self.groups.iter().any(|(have, _)| have == group)
    }

    /// Every served row, in the order of discovery.
    pub fn all(&self) -> &[Arc<Served>] {
        &self.order
    }
}

/// Whether `--runtime-config` leaves a resource on.
pub fn enabled(config: &Config, resource: &Resource) -> bool {
    let version = resource.version.as_ref();
    let level = if version.contains("alpha") {
        "api/alpha"
    } else if version.contains("beta") {
        "api/beta"
    } else {
        "api/ga"
    };
    let api_version = resource.api_version();
    let exact = format!("{api_version}/{}", resource.plural);
    let setting = |key: &str| config.runtime_config.iter().rev().find(|(have, _)| have == key).map(|(_, on)| *on);
    setting(&exact)
        .or_else(|| setting(&api_version))
        .or_else(|| setting(level))
        .or_else(|| setting("api/all"))
        .unwrap_or(resource.enabled_by_default)
}

fn spec(config: &Config, storage: &'static Resource) -> ResourceSpec {
    let prefix = format!("{}/{}/", config.etcd_prefix.trim_end_matches('/'), storage.storage_prefix);
    let mut spec = ResourceSpec::new(&storage.group, &storage.plural, &prefix, storage.namespaced);
    spec.fields = fields::selectable(storage);
    spec.index_owners = false;
    if RELAXED.contains(&(storage.group.as_ref(), storage.plural.as_ref())) {
        spec.durability = Durability::Relaxed;
    }
    spec.decode = Some(Arc::new(|stored: &[u8]| decode_stored(stored)));
    spec
}

/// Reads a value that upstream stored as protobuf.
fn decode_stored(stored: &[u8]) -> Result<Vec<u8>, String> {
    let (api_version, kind, raw) = crate::codec::protobuf::open(stored).map_err(|error| error.to_string())?;
    let version = apimachinery::gvk::GroupVersion::parse(&api_version).map_err(|error| error.to_string())?;
    let ty = api::table()
        .find_kind(&version.group, &version.version, &kind)
        .ok_or_else(|| format!("no kind {kind:?} is known for version {api_version:?}"))?;
    let mut tree = api::protobuf::decode(ty, raw).map_err(|error| error.to_string())?;
    if let Some(map) = tree.as_object_mut() {
        map.insert("apiVersion".into(), api_version.into());
        map.insert("kind".into(), kind.into());
    }
    Ok(serde_json::to_vec(&tree).expect("a JSON tree encodes"))
}
