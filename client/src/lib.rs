//! How components talk to the API: transport, typed verbs, informers, work queues, events, leader
//! election.
//!
//! Builds on `kube` for kubeconfig, exec plugins and TLS; everything over it is our own and generic
//! over lean types, so that a reader keeps only the fields it looks at. The same [`Client`] runs
//! over TCP or straight into an in-process router.

pub mod delegated;
pub mod discovery;
pub mod error;
pub mod events;
pub mod informer;
pub mod interned;
pub mod kubeconfig;
pub mod leader_election;
pub mod meta;
pub mod ratelimit;
pub mod resources;
mod token;
pub mod transport;
pub mod verbs;
pub mod watch;
pub mod workqueue;

pub use error::{Error, Result, Status, StatusCause, StatusDetails};
pub use interned::Interned;
pub use meta::{List, ListMeta, Meta, ObjectKey, ObjectMeta, OwnerReference, Timestamp};
pub use resources::Resource;
pub use transport::Client;
pub use verbs::{DeleteOptions, ListParams, Patch, Preconditions, Propagation};
pub use watch::{WatchEvent, WatchParams, WatchStream};
