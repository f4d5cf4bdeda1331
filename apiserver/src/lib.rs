//! kube-apiserver: one pipeline over one table, for every resource.
//!
//! A request walks `server::walk` (request id, authentication, authorization, …), then the generic
//! handlers (`handlers`), which know no kind: the table of `api` describes kinds, `registry` holds
//! what differs by kind. Reads serve bytes out of `cache`; writes go through it to `storage`.

pub mod admission;
pub mod aggregator;
pub mod answers;
pub mod audit;
pub mod authentication;
pub mod authorization;
pub mod bootstrap;
pub mod cache;
pub mod codec;
pub mod config;
pub mod encryption;
pub mod endpoints;
pub mod extensions;
pub mod flowcontrol;
pub mod handlers;
pub mod proxy;
pub mod registry;
pub mod remote;
pub mod request;
pub mod response;
pub mod server;
pub mod services;
pub mod storage;
pub mod webhook;

pub use config::Config;
pub use request::UserInfo;
pub use server::{Handle, Server};

/// Bytes of stack of each thread that serves requests. Expressions and schemas nest as deep as upstream lets them, and
/// what walks them recurses; pages that are never touched cost nothing.
pub const STACK: usize = 16 << 20;

/// The runtime to serve in.
///
/// # Errors
/// When threads or epoll cannot be had.
pub fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().thread_stack_size(STACK).enable_all().build()
}
