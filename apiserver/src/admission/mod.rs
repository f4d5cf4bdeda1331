//! Admission: what may change or refuse a write after it was authorized.
//!
//! The order of [`PLUGINS`] is upstream's (`pkg/kubeapiserver/options/plugins.go`). Plugins see
//! objects in the storage version.

pub mod default_toleration_seconds;
pub mod namespace_lifecycle;
pub mod priority;
pub mod service_account;
pub mod storage_object_in_use_protection;
pub mod taint_nodes_by_condition;

use std::sync::Arc;

use apimachinery::status::Status;
use async_trait::async_trait;
use serde_json::Value;

use crate::config::Config;
use crate::registry::Served;
use crate::request::UserInfo;
use crate::server::Server;

/// What is being done to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    Delete,
    Connect,
}

/// A request as plugins see it.
pub struct Attributes<'a> {
    pub operation: Operation,
    pub served: &'a Served,
    pub subresource: &'a str,
    pub namespace: String,
    /// Empty while a name has yet to be generated.
    pub name: String,
    pub user: &'a UserInfo,
    pub dry_run: bool,
}

impl Attributes<'_> {
    /// Whether this is about a resource of the core group by this name, not about a subresource.
    pub fn is_core(&self, plural: &str) -> bool {
        self.served.resource.group.is_empty() && self.served.resource.plural == plural && self.subresource.is_empty()
    }

    /// The 403 of a plugin.
    pub fn forbidden(&self, error: impl std::fmt::Display) -> Status {
        Status::forbidden(&self.served.group_resource(), &self.name, error)
    }
}

/// One admission plugin.
#[async_trait]
pub trait Plugin: Send + Sync {
    /// Changes the object, or refuses it.
    ///
    /// # Errors
    /// The refusal.
    async fn mutate(
        &self,
        _server: &Arc<Server>,
        _attributes: &Attributes<'_>,
        _object: &mut Value,
        _old: Option<&Value>,
    ) -> Result<(), Status> {
        Ok(())
    }

    /// Refuses the object, seeing its final form. For deletes the object is null.
    ///
    /// # Errors
    /// The refusal.
    async fn validate(
        &self,
        _server: &Arc<Server>,
        _attributes: &Attributes<'_>,
        _object: &Value,
        _old: Option<&Value>,
    ) -> Result<(), Status> {
        Ok(())
    }
}

/// Every plugin there is, in the order in which they run, all on by default.
const PLUGINS: [(&str, &dyn Plugin); 6] = [
    (namespace_lifecycle::NAME, &namespace_lifecycle::NamespaceLifecycle),
    (service_account::NAME, &service_account::ServiceAccount),
    (taint_nodes_by_condition::NAME, &taint_nodes_by_condition::TaintNodesByCondition),
    (priority::NAME, &priority::Priority),
    (default_toleration_seconds::NAME, &default_toleration_seconds::DefaultTolerationSeconds),
    (storage_object_in_use_protection::NAME, &storage_object_in_use_protection::StorageObjectInUseProtection),
];

/// The plugins that are on.
pub struct Chain(Vec<&'static dyn Plugin>);

impl Chain {
    /// All plugins but those that flags switch off.
    pub fn new(config: &Config) -> Self {
        Self(
            PLUGINS
                .iter()
                .filter(|(name, _)| !config.disable_admission_plugins.iter().any(|off| off == name))
                .map(|(_, plugin)| *plugin)
                .collect(),
        )
    }

    /// Lets every plugin change the object.
    ///
    /// # Errors
    /// The first refusal.
    pub async fn mutate(
        &self,
        server: &Arc<Server>,
        attributes: &Attributes<'_>,
        object: &mut Value,
        old: Option<&Value>,
    ) -> Result<(), Status> {
        for plugin in &self.0 {
            plugin.mutate(server, attributes, object, old).await?;
        }
        Ok(())
    }

    /// Lets every plugin judge the object.
    ///
    /// # Errors
    /// The first refusal.
    pub async fn validate(
        &self,
        server: &Arc<Server>,
        attributes: &Attributes<'_>,
        object: &Value,
        old: Option<&Value>,
    ) -> Result<(), Status> {
        for plugin in &self.0 {
            plugin.validate(server, attributes, object, old).await?;
        }
        Ok(())
    }
}
