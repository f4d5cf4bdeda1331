//! The storage contract, run against every engine and against the cache above each; and crash tests
//! of the embedded engine.
//!
//! The etcd half starts Debian's `etcd` on free ports; without one it says `skipped: needs etcd`.

#![allow(clippy::unwrap_used)] // A test that cannot go on fails here, with the line.

mod cache;
mod contract;
mod crash;
mod etcd;
mod model;
mod subject;
