//! Meta, group/version/kind, quantity, selectors, field paths, patches, apply, Status. Knows no kind.

pub mod schema;
