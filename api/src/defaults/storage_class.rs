//! StorageClass.

use serde_json::Value;

use super::set::if_nil;

pub(super) fn set(class: &mut Value) {
    if let Some(class) = class.as_object_mut() {
        if_nil(class, "reclaimPolicy", "Delete");
        if_nil(class, "volumeBindingMode", "Immediate");
    }
}
