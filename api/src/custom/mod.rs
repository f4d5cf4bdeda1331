//! CustomResourceDefinitions: what a structural schema does to objects.
//!
//! A [`Node`] is a schema compiled once from `openAPIV3Schema`; objects are pruned, coerced,
//! defaulted and validated under it in upstream's order and words (apiextensions-apiserver's
//! `pkg/apiserver/schema` and `pkg/apiserver/validation`). [`types::shared`] gives the same schema
//! as a type of `apimachinery`, for server-side apply.
//!
//! Pure: the definition comes in as a tree, objects are trees.

pub mod columns;
pub mod default;
pub mod formats;
pub mod list_type;
pub mod meta;
pub mod paths;
pub mod pattern;
pub mod prune;
pub mod ratchet;
pub mod rules;
pub mod schema;
pub mod types;
pub mod validate;

pub use pattern::Pattern;
pub use ratchet::Correlated;
pub use schema::{Additional, Kind, ListType, Node, Rule, Values};
