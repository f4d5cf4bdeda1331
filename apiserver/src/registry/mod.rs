//! The resources this server serves: each a row of the table, a cache, and a strategy.
//!
//! Everything generic is in `handlers`; what differs by kind is a [`Rules`] row (`rules.rs`) and,
//! where a row cannot say it, a file per kind with [`Hooks`]. Storing and reading always happens in
//! the storage version; [`api::conversion`] turns one version into another.

mod admission;
pub mod apiextensions;
pub mod apiregistration;
pub mod autoscaling;
pub mod batch;
pub mod certificates;
pub mod checks;
pub mod core;
pub mod custom;
mod definition_beta;
mod devices;
pub mod disabled;
pub mod fields;
mod foreign;
pub mod hooks;
pub mod mirrored;
pub mod rbac;
pub mod rules;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use api::{Resource, conversion};
use apimachinery::gvk::{GroupKind, GroupResource};
use apimachinery::schema::TypeRef;
use apimachinery::status::Status;
use arc_swap::{ArcSwap, Guard};
use serde_json::Value;
use smallvec::SmallVec;

use crate::cache::{Cache, Entry, ResourceCache, ResourceSpec};
use crate::config::{Config, features};
use crate::storage::Durability;
pub use custom::Custom;
pub use hooks::Hooks;
pub use rules::Rules;

/// One resource in one served version: a row of the table, or of a CustomResourceDefinition.
pub struct Served {
    /// The row of this version.
    pub resource: Arc<Resource>,
    /// The row of the version that the pipeline works in: what is stored, for built-in kinds; this
    /// one, for custom ones and where nothing is stored.
    pub storage: Arc<Resource>,
    types: Types,
    /// Where objects are; `None` for reviews and bindings.
    pub cache: Option<Arc<ResourceCache>>,
    /// What differs from the generic walk.
    pub rules: Rules,
    /// A number for each served row, never used twice, in keys of derived encodings: below 2^26.
    pub ordinal: u32,
}

/// Where the row's types come from.
enum Types {
    Table { served: TypeRef<'static>, storage: TypeRef<'static> },
    Custom(Custom),
}

impl Served {
    /// The type of this version.
    pub fn schema(&self) -> TypeRef<'_> {
        match &self.types {
            Types::Table { served, .. } => *served,
            Types::Custom(custom) => custom.schema(),
        }
    }

    /// The type of the version that the pipeline works in.
    pub fn storage_schema(&self) -> TypeRef<'_> {
        match &self.types {
            Types::Table { storage, .. } => *storage,
            Types::Custom(custom) => custom.schema(),
        }
    }

    /// What there is to know about a row made from a CustomResourceDefinition.
    pub fn custom(&self) -> Option<&Custom> {
        match &self.types {
            Types::Table { .. } => None,
            Types::Custom(custom) => Some(custom),
        }
    }

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

    /// Whether what the pipeline works in is what is served.
    pub fn is_storage_version(&self) -> bool {
        Arc::ptr_eq(&self.resource, &self.storage)
    }

    /// An object of the version that the pipeline works in, in this one.
    pub fn from_storage(&self, object: Value) -> Value {
        if self.is_storage_version() { object } else { conversion::convert(object, &self.storage, &self.resource) }
    }

    /// An object of this version, in the one that the pipeline works in.
    pub fn to_storage(&self, object: Value) -> Value {
        if self.is_storage_version() { object } else { conversion::convert(object, &self.resource, &self.storage) }
    }

    /// A stored object's tree in the version that the pipeline works in.
    ///
    /// # Errors
    /// When a conversion webhook fails; built-in kinds never do.
    pub async fn read(&self, entry: &Arc<Entry>) -> Result<Value, Status> {
        match self.custom() {
            None => Ok(entry.tree()),
            Some(custom) => Box::pin(custom.read(self, entry)).await,
        }
    }

    /// An object of the pipeline as it is to be stored.
    ///
    /// # Errors
    /// As [`Served::read`].
    pub async fn write(&self, object: Value) -> Result<Value, Status> {
        match self.custom() {
            None => Ok(object),
            Some(custom) => Box::pin(custom.write(object)).await,
        }
    }

    /// What a dry run answers for an object of the pipeline: what would be read back of it in this version.
    ///
    /// # Errors
    /// As [`Served::read`].
    pub async fn dry_run(&self, object: Value) -> Result<Value, Status> {
        match self.custom() {
            None => Ok(self.from_storage(object)),
            Some(custom) => Box::pin(async { custom.present(custom.write(object).await?).await }).await,
        }
    }

    /// Notes that an entry was just written through this row, so that it needs no decoding to be
    /// read in the same version.
    pub fn wrote(&self, entry: &Entry) {
        if let Some(custom) = self.custom() {
            custom.wrote(self, entry);
        }
    }

    /// A stored tree as this version serves it.
    ///
    /// # Errors
    /// As [`Served::read`].
    pub async fn present(&self, object: Value) -> Result<Value, Status> {
        match self.custom() {
            None => Ok(self.from_storage(object)),
            Some(custom) => Box::pin(custom.present(object)).await,
        }
    }

    /// Makes sure that entries can be encoded in this version without waiting for anybody: custom
    /// resources may have to be converted by a webhook first.
    ///
    /// # Errors
    /// As [`Served::read`].
    pub async fn prepare(&self, entries: &[Arc<Entry>]) -> Result<(), Status> {
        match self.custom() {
            None => Ok(()),
            Some(custom) => Box::pin(custom.prepare(self, entries)).await,
        }
    }

    /// The storage key of an object.
    pub fn key(&self, namespace: &str, name: &str) -> String {
        self.cache.as_ref().map(|cache| cache.spec().key(namespace, name)).unwrap_or_default()
    }

    /// The internal Go type that a few of upstream's messages name.
    pub fn go_name(&self, list: bool) -> String {
        if self.resource.custom {
            return if list { "*unstructured.UnstructuredList" } else { "*unstructured.Unstructured" }.to_string();
        }
        let package = match self.resource.group.as_ref() {
            "" | "events.k8s.io" => "core",
            group => group.split('.').next().unwrap_or(group),
        };
        let kind = if list { &self.resource.list_kind } else { &self.resource.kind };
        format!("*{package}.{kind}")
    }
}

/// Group, version and plural in one, so that looking a row up allocates nothing.
type Path = SmallVec<[u8; 96]>;

fn path(group: &str, version: &str, plural: &str) -> Path {
    let mut path = Path::new();
    for part in [group, version, plural] {
        path.extend_from_slice(part.as_bytes());
        path.push(b'/');
    }
    path
}

/// All served resources: the table's, fixed for the life of the server, and those of
/// CustomResourceDefinitions, a snapshot that is replaced as a whole.
pub struct Registry {
    served: HashMap<Path, Arc<Served>, ahash::RandomState>,
    /// The first version of each that is served.
    first: HashMap<Path, Arc<Served>, ahash::RandomState>,
    groups: BTreeSet<(String, String)>,
    order: Vec<Arc<Served>>,
    custom: ArcSwap<custom::Rows>,
}

/// Resources whose acknowledged writes may be lost with the machine: heartbeats and news.
const RELAXED: [(&str, &str); 2] = [("coordination.k8s.io", "leases"), ("", "events")];

impl Registry {
    /// Builds the rows that `--runtime-config` leaves on.
    pub fn new(config: &Config, cache: &Arc<Cache>) -> Self {
        let table = api::table();
        let rows: Vec<Arc<Resource>> = table.resources().iter().cloned().map(Arc::new).collect();
        let mut registry = Self {
            served: HashMap::default(),
            first: HashMap::default(),
            groups: BTreeSet::new(),
            order: Vec::new(),
            custom: ArcSwap::from_pointee(custom::Rows::new(rows.len())),
        };
        let gates = features::gates(config);
        for (ordinal, resource) in rows.iter().enumerate() {
            let Some(schema) = resource.type_ref() else { continue };
            if !enabled(config, resource) || !features::serve(&gates, &resource.group, &resource.plural) {
                continue;
            }
            let storage = resource.storage_version.as_ref().and_then(|(group, version)| {
                // Events of events.k8s.io are stored as those of the core group.
                let of = |row: &&Arc<Resource>| {
                    row.group == *group && row.version == *version && row.plural == resource.plural
                };
                rows.iter().find(of)
            });
            let storage = storage.unwrap_or(resource);
            let stored = resource.storage_version.is_some();
            let served = Arc::new(Served {
                resource: resource.clone(),
                storage: storage.clone(),
                types: Types::Table { served: schema, storage: storage.type_ref().unwrap_or(schema) },
                cache: stored.then(|| cache.register(spec(config, storage))),
                rules: rules::of(&resource.group, &resource.plural),
                ordinal: u32::try_from(ordinal).expect("there are fewer than 2^26 resources"),
            });
            registry.groups.insert((resource.group.to_string(), resource.version.to_string()));
            registry.served.insert(path(&resource.group, &resource.version, &resource.plural), served.clone());
            registry.first.entry(path(&resource.group, "", &resource.plural)).or_insert_with(|| served.clone());
            registry.order.push(served);
        }
        registry
    }

    /// A served resource.
    pub fn find(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Served>> {
        let path = path(group, version, plural);
        self.served.get(&path).cloned().or_else(|| self.custom.load().find(&path).cloned())
    }

    /// The built-in resource in whatever version is served first, for the server's own use.
    pub fn any_version(&self, group: &str, plural: &str) -> Option<&Arc<Served>> {
        self.first.get(&path(group, "", plural))
    }

    /// Whether a group and version is served at all.
    pub fn serves(&self, group: &str, version: &str) -> bool {
        self.groups.contains(&(group.to_string(), version.to_string())) || self.custom.load().serves(group, version)
    }

    /// Whether any version of a group is built in.
    pub fn serves_group(&self, group: &str) -> bool {
        self.groups.iter().any(|(have, _)| have == group)
    }

    /// Every built-in row, in the order of discovery.
    pub fn all(&self) -> &[Arc<Served>] {
        &self.order
    }

    /// Every row that discovery shows, in its order: built-in ones, then custom ones.
    pub fn rows(&self) -> Vec<Arc<Served>> {
        let mut rows = self.order.clone();
        rows.extend(self.custom.load().discovered());
        rows
    }

    /// The custom rows of a resource, one a version.
    pub fn versions(&self, group: &str, plural: &str) -> Vec<Arc<Served>> {
        let mut rows = self.custom.load().discovered();
        rows.retain(|row| row.resource.group == group && row.resource.plural == plural);
        rows
    }

    /// The custom rows of this moment.
    pub fn custom(&self) -> Guard<Arc<custom::Rows>> {
        self.custom.load()
    }

    /// Replaces the custom rows. One caller at a time: the loop that follows the definitions.
    pub fn set_custom(&self, rows: custom::Rows) {
        self.custom.store(Arc::new(rows));
    }

    /// Changes whenever what [`Registry::rows`] answers may have changed: documents made from the
    /// rows are good for as long as this stays.
    pub fn generation(&self) -> u64 {
        self.custom.load().generation()
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

impl Served {
    /// The row of one version of a definition.
    pub fn custom_row(
        resource: Resource,
        custom: Custom,
        cache: Arc<ResourceCache>,
        rules: Rules,
        ordinal: u32,
    ) -> Arc<Served> {
        let resource = Arc::new(resource);
        let types = Types::Custom(custom);
        Arc::new(Served { storage: resource.clone(), resource, types, cache: Some(cache), rules, ordinal })
    }
}

fn spec(config: &Config, storage: &Resource) -> ResourceSpec {
    let prefix = format!("{}/{}/", config.etcd_prefix.trim_end_matches('/'), storage.storage_prefix);
    let mut spec = ResourceSpec::new(&storage.group, &storage.plural, &prefix, storage.namespaced);
    spec.fields = fields::selectable(storage);
    spec.index_owners = false;
    if RELAXED.contains(&(storage.group.as_ref(), storage.plural.as_ref())) {
        spec.durability = Durability::Relaxed;
    }
    spec.version = storage.api_version();
    let storage = storage.clone();
    spec.decode = Some(Arc::new(move |stored: &[u8]| foreign::read(&storage, stored)));
    spec
}
