//! YAML in and out, as `sigs.k8s.io/yaml` does it.
//!
//! In: YAML 1.1 scalars (`yes`, `0644`, `1_000`), merge keys, aliases with a bound on expansion,
//! keys made strings. Out: byte-equal to upstream's, so diffs of manifests stay empty.

mod emit;
mod parse;
mod resolve;

pub use emit::emit;
pub use parse::{Error, Parsed, decode, parse, parse_documents, parse_documents_core};

#[cfg(test)]
mod tests;
