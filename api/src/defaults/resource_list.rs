//! `SetDefaults_ResourceList`: amounts are rounded up to thousandths.

use apimachinery::quantity::Quantity;
use serde_json::Value;

use super::set::{Tree, child};

const MILLI: i32 = -3;

/// Rounds the list in a field.
pub(super) fn round(map: &mut Tree, name: &str) {
    let Some(list) = child(map, name) else { return };
    for value in list.values_mut() {
        let Value::String(text) = value else { continue };
        if let Ok(mut quantity) = Quantity::parse(text)
            && !quantity.is_multiple_of(MILLI)
        {
            quantity.round_up(MILLI);
            *text = quantity.to_string();
        }
    }
}

/// Rounds `limits` and `requests` of the `resources` in a field.
pub(super) fn round_resources(map: &mut Tree, name: &str) {
    if let Some(resources) = child(map, name) {
        round(resources, "limits");
        round(resources, "requests");
    }
}
