//! What a kind may add to the generic walk. Every method has a default that does nothing.

use std::sync::Arc;

use apimachinery::field::ErrorList;
use apimachinery::random;
use apimachinery::status::Status;
use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::Value;

use crate::request::UserInfo;
use crate::server::Server;

/// What hooks know about the request.
pub struct HookContext<'a> {
    pub server: &'a Arc<Server>,
    pub user: &'a Arc<UserInfo>,
    /// Empty unless a subresource is addressed.
    pub subresource: &'a str,
    pub dry_run: bool,
    /// What preparation has to tell the client.
    pub warnings: Mutex<Vec<String>>,
}

/// Undoes an allocation unless it is kept; dropped when the request ends in the middle.
#[async_trait]
pub trait Reservation: Send {
    /// The write succeeded: what was allocated stays.
    fn keep(self: Box<Self>);

    /// The write failed or was a dry run.
    async fn give_back(self: Box<Self>);
}

/// The parts of a strategy that are code. Objects are in the storage version.
#[async_trait]
pub trait Hooks: Send + Sync {
    /// Whether the user may write this at all, beyond what authorization says of the request; after
    /// admission has changed the object, before anything else looks at it. `old` is `None` for a create.
    ///
    /// # Errors
    /// The refusal.
    async fn permit(&self, _cx: &HookContext<'_>, _new: &Value, _old: Option<&Value>) -> Result<(), Status> {
        Ok(())
    }

    /// Before validation of a new object, after `status` and `generation` were seen to.
    fn prepare_create(&self, _cx: &HookContext<'_>, _object: &mut Value) {}

    /// Before validation of a changed object. `cx.subresource` tells which part is updated.
    fn prepare_update(&self, _cx: &HookContext<'_>, _new: &mut Value, _old: &Value) {}

    /// The name of a new object that has only the beginning of one.
    fn generate_name(&self, base: &str) -> String {
        random::generate_name(base)
    }

    /// What is wrong that only the server can know; it is listed before what validation finds.
    fn refuse(&self, _cx: &HookContext<'_>, _new: &Value, _old: Option<&Value>) -> ErrorList {
        ErrorList::new()
    }

    /// What else the user should know although the object is stored; kinds of the table have `api::warnings`.
    fn warnings(&self, _new: &Value, _old: Option<&Value>) -> Vec<String> {
        Vec::new()
    }

    /// After validation: what upstream's defaulting adds when it reads the stored object back.
    fn read_back(&self, _object: &mut Value) {}

    /// Allocates what the object needs (cluster IPs, ports), before anything else of these. `old` is
    /// `None` for a create.
    ///
    /// # Errors
    /// When nothing is free or what was asked for is taken.
    async fn reserve(
        &self,
        _cx: &HookContext<'_>,
        _new: &mut Value,
        _old: Option<&Value>,
    ) -> Result<Option<Box<dyn Reservation>>, Status> {
        Ok(None)
    }

    /// After the object is gone from the store.
    async fn deleted(&self, _cx: &HookContext<'_>, _object: &Value) {}

    /// The grace period of a deletion; `None` deletes at once. `requested` is the client's.
    fn grace_period(&self, _object: &Value, _requested: Option<i64>) -> Option<i64> {
        None
    }

    /// Finalizers that live outside of metadata (namespaces) keep the object alive.
    fn has_other_finalizers(&self, _object: &Value) -> bool {
        false
    }

    /// What else happens to an object that is deleted but held by finalizers.
    fn prepare_delete(&self, _object: &mut Value) {}

    /// How long an object lives (events).
    fn ttl(&self, _server: &Server) -> Option<std::time::Duration> {
        None
    }
}
