//! Between bytes and canonical trees.

pub mod body;
pub mod canonical;
pub mod protobuf;
