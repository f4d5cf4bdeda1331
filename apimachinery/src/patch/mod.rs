//! The three patch formats: JSON patch (RFC 6902), JSON merge patch (RFC 7386) and Kubernetes'
//! strategic merge patch.

pub mod json;
mod lazy;
pub mod merge;
pub mod strategic;

pub use strategic::go_value;
