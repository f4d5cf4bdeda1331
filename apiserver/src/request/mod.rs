//! What a request asks for, read from its line and headers: nothing here touches a body or a store.

pub mod accept;
pub mod info;
pub mod latency;
pub mod notes;
pub mod options;
pub mod query;
pub mod user;

pub use info::RequestInfo;
pub use latency::{Latencies, Layer};
pub use query::Query;
pub use user::UserInfo;
