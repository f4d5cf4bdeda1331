//! Every built-in kind: schema table, names, defaults, validation, printer columns. Does no I/O.

pub mod printers;
