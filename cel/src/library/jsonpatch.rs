//! What mutations may call: `jsonpatch.escapeKey`, and the type `JSONPatch`.

use std::sync::Arc;

use super::{Functions, text};
use crate::cost::Cost;
use crate::decl::DeclType;
use crate::types::Type;
use crate::value::Value;

/// Declares it.
pub fn declare(f: &mut Functions) {
    let id = "string_jsonpatch_escapeKey_string";
    f.global("jsonpatch.escapeKey", id, &[Type::String], Type::String, Cost::TraverseFirst, |args| {
        Ok(Value::text(text(&args[0])?.replace('~', "~0").replace('/', "~1")))
    });
}

/// The type of one operation: `JSONPatch{op: 'add', path: '/x', value: 1}`.
pub fn json_patch_type() -> Arc<DeclType> {
    let text = DeclType::string();
    DeclType::object(
        "JSONPatch",
        [("op", text.clone()), ("path", text.clone()), ("from", text), ("value", DeclType::dynamic())],
    )
}
