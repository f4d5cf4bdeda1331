//! Every built-in kind: schema table, names, defaults, validation, printer columns. Does no I/O.

pub mod printers;
pub mod table;

pub use table::{Package, Resource, Subresource, Table, table};
