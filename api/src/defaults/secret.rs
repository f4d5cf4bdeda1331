//! Secret.

use serde_json::Value;

use super::set::if_zero;

pub(super) fn set(secret: &mut Value) {
    if let Some(secret) = secret.as_object_mut() {
        if_zero(secret, "type", "Opaque");
    }
}
