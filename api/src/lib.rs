//! Every built-in kind: schema table, names, defaults, validation, printer columns. Does no I/O.

pub mod amounts;
pub mod canonical;
pub mod cbor;
pub mod check;
pub mod conversion;
pub mod converter;
pub mod custom;
pub mod defaults;
pub mod discovery;
pub mod expressions;
pub mod openapi;
pub mod printers;
pub mod protobuf;
pub mod qos;
pub mod quota;
mod read;
pub mod table;
pub mod type_checking;
pub mod validation;
mod version;
pub mod warnings;

pub use canonical::canonicalize;
pub use check::check_fields;
pub use table::{Package, Resource, Subresource, Table, table};
pub use version::{GIT_VERSION, MAJOR, MINOR, version};
