//! Type check and canonical form in one call: what Go's `json.Unmarshal` and `json.Marshal` do.

use apimachinery::schema::TypeRef;
use serde_json::Value;

/// The text Go's decoder would answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Error(pub String);

/// Checks `value` against its type and makes it canonical in place, as Go has it between reading and writing:
/// empty lists and maps are still there.
///
/// # Errors
/// The first value that does not fit its type.
pub fn decoded(ty: TypeRef<'_>, value: &mut Value) -> Result<(), Error> {
    if let Some(error) = api::check_fields(ty, value).type_error {
        return Err(Error(error));
    }
    api::canonical::canonicalize_decoded(ty, value);
    Ok(())
}

/// Makes a value that was checked while it was read canonical, without the lists and maps that are empty.
pub fn written(ty: TypeRef<'_>, value: &mut Value) {
    // Go tells an empty list from none, and here alone that is a wish: to start over.
    let reset = value.pointer("/metadata/managedFields").and_then(Value::as_array).is_some_and(Vec::is_empty);
    api::canonicalize(ty, value);
    if reset && let Some(Value::Object(metadata)) = value.get_mut("metadata") {
        metadata.insert("managedFields".into(), Value::Array(Vec::new()));
    }
}
