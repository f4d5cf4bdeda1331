//! Objects of storage that stay while they are in use: a finalizer holds them, which goes when nobody uses them any
//! more. Admission puts it on; where it is missing, the controllers here do.

pub mod attributes_classes;
pub mod claims;
pub mod volumes;

use client::{Client, ObjectKey, ObjectMeta, Resource};
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use crate::worker::Error;

/// What is to be done about an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Decision {
    Nothing,
    /// It has no finalizer and is not being deleted.
    Protect,
    /// It is being deleted and waits for the finalizer to go.
    ReleaseIfUnused,
}

/// Pure.
fn decide(object: &ObjectMeta, finalizer: &str) -> Decision {
    let held = object.finalizers.iter().any(|have| have == finalizer);
    match (object.is_deleting(), held) {
        (true, true) => Decision::ReleaseIfUnused,
        (false, false) => Decision::Protect,
        _ => Decision::Nothing,
    }
}

/// Puts the finalizer on or takes it off. The object is read whole, because an update replaces all of it.
async fn set_finalizer(
    client: &Client,
    resource: &Resource,
    object: &ObjectMeta,
    finalizer: &str,
    on: bool,
) -> Result<(), Error> {
    let key: ObjectKey = object.key();
    let mut whole: Value = match client.get(resource, key.ns(), &key.name).await {
        Ok(whole) => whole,
        Err(error) if error.is_not_found() => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    if whole["metadata"]["uid"] != object.uid.as_str() {
        return Ok(());
    }
    let mut finalizers: Vec<Value> = whole["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
    finalizers.retain(|have| have != finalizer);
    if on {
        finalizers.push(json!(finalizer));
    }
    whole["metadata"]["finalizers"] = finalizers.into();
    match client.update::<IgnoredAny>(resource, key.ns(), &key.name, &whole).await {
        Err(error) if !error.is_not_found() => Err(error.into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decisions() {
        for (deleting, finalizers, expected) in [
            (false, vec![], Decision::Protect),
            (false, vec!["f"], Decision::Nothing),
            (true, vec!["other", "f"], Decision::ReleaseIfUnused),
            (true, vec!["other"], Decision::Nothing),
        ] {
            let object = ObjectMeta {
                deletion_timestamp: deleting.then_some(client::Timestamp::UNIX_EPOCH),
                finalizers: finalizers.into_iter().map(String::from).collect(),
                ..ObjectMeta::default()
            };
            assert_eq!(decide(&object, "f"), expected);
        }
    }
}
