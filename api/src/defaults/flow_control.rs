//! FlowSchema and PriorityLevelConfiguration.

use serde_json::Value;

use super::set::{at, child, if_nil, if_zero};

pub(super) fn set(kind: &str, object: &mut Value) {
    let Some(spec) = at(object, &["spec"]) else { return };
    match kind {
        "FlowSchema" => if_zero(spec, "matchingPrecedence", 1000),
        "PriorityLevelConfiguration" => {
            if let Some(exempt) = child(spec, "exempt") {
                if_nil(exempt, "nominalConcurrencyShares", 0);
                if_nil(exempt, "lendablePercent", 0);
            }
            if let Some(limited) = child(spec, "limited") {
                if_nil(limited, "nominalConcurrencyShares", 30);
                if_nil(limited, "lendablePercent", 0);
                if let Some(queuing) = child(limited, "limitResponse").and_then(|r| child(r, "queuing")) {
                    if_zero(queuing, "handSize", 8);
                    if_zero(queuing, "queues", 64);
                    if_zero(queuing, "queueLengthLimit", 50);
                }
            }
        }
        _ => {}
    }
}
