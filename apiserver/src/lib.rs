//! kube-apiserver.

pub mod cache;
pub mod storage;
