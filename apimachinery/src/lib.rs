//! Meta, group/version/kind, quantity, selectors, field paths, patches, apply, Status. Knows no kind.
//!
//! Every module here is upstream's behaviour on plain trees: what `k8s.io/apimachinery` does on
//! typed structs, done on [`object::Object`] under a [`schema`].

pub mod cron;
pub mod duration;
pub mod field;
pub mod fields;
pub mod fieldset;
pub mod go_base64;
pub mod gotext;
pub mod gvk;
pub mod intstr;
pub mod json;
pub mod jsonpath;
pub mod labels;
pub mod managed;
pub mod names;
pub mod object;
pub mod patch;
pub mod quantity;
pub mod random;
pub mod schema;
pub mod status;
pub mod time;
pub mod yaml;
