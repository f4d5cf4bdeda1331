//! Kinds of `batch` that need code.

pub mod job;
