//! Adopting and releasing dependents by their controller reference, as upstream's ref managers do.

use client::{Client, Meta, ObjectMeta, OwnerReference, Patch, Resource};
use serde::de::IgnoredAny;
use serde_json::json;

use crate::types::MetadataOnly;
use crate::worker::Error;

/// What to do about one candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// Ours already.
    Keep,
    /// An orphan that the selector matches.
    Adopt,
    /// Ours, but the selector no longer matches.
    Release,
    /// Somebody else's, or nothing to do with us.
    Ignore,
}

/// Decides about `object` for the controlling object `owner`, whose selector matched or not.
pub fn claim(owner: &ObjectMeta, object: &ObjectMeta, matches: bool) -> Claim {
    match object.controller() {
        Some(controller) if controller.uid != owner.uid => Claim::Ignore,
        Some(_) if matches => Claim::Keep,
        Some(_) if owner.is_deleting() => Claim::Ignore,
        Some(_) => Claim::Release,
        None if owner.is_deleting() || object.is_deleting() || !matches => Claim::Ignore,
        // A controller never adopts across namespaces.
        None if owner.namespace != object.namespace => Claim::Ignore,
        None => Claim::Adopt,
    }
}

/// The reference a dependent gets.
pub fn controller_reference(resource: &Resource, owner: &ObjectMeta) -> OwnerReference {
    OwnerReference {
        api_version: resource.api_version(),
        kind: resource.kind.to_string(),
        name: owner.name.clone(),
        uid: owner.uid.clone(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// Carries out claims for one owner during one reconcile.
pub struct Claimer<'a> {
    pub client: &'a Client,
    pub owner_resource: &'a Resource,
    pub owner: &'a ObjectMeta,
    pub resource: &'a Resource,
    /// A finalizer that dependents get when they are adopted and lose when they are released.
    finalizer: Option<&'a str>,
    /// Whether the owner was read from the server, to be sure that it still lives, before adopting.
    confirmed: bool,
}

impl<'a> Claimer<'a> {
    pub fn new(
        client: &'a Client,
        owner_resource: &'a Resource,
        owner: &'a ObjectMeta,
        resource: &'a Resource,
    ) -> Self {
        Self { client, owner_resource, owner, resource, finalizer: None, confirmed: false }
    }

    /// Puts this finalizer on what is adopted, and takes it off what is released.
    pub fn with_finalizer(self, finalizer: &'a str) -> Self {
        Self { finalizer: Some(finalizer), ..self }
    }

    /// Whether `object` belongs to the owner afterwards.
    pub async fn settle(&mut self, object: &ObjectMeta, matches: bool) -> Result<bool, Error> {
        match claim(self.owner, object, matches) {
            Claim::Keep => Ok(true),
            Claim::Ignore => Ok(false),
            Claim::Adopt => self.adopt(object).await,
            Claim::Release => {
                self.release(object).await?;
                Ok(false)
            }
        }
    }

    async fn adopt(&mut self, object: &ObjectMeta) -> Result<bool, Error> {
        if !self.confirmed {
            let fresh: MetadataOnly =
                self.client.get_metadata(self.owner_resource, self.owner.key().ns(), &self.owner.name).await?;
            if fresh.uid() != self.owner.uid {
                return Err(Error::Other(format!(
                    "original {} {} is gone: got uid {}, wanted {}",
                    self.owner_resource.kind,
                    self.owner.key(),
                    fresh.uid(),
                    self.owner.uid
                )));
            }
            if fresh.metadata.is_deleting() {
                return Err(Error::Other(format!("{} has just been deleted", self.owner.key())));
            }
            self.confirmed = true;
        }
        let mut patch = json!({ "metadata": {
            "ownerReferences": [controller_reference(self.owner_resource, self.owner)],
            "uid": object.uid,
        }});
        if let Some(finalizer) = self.finalizer {
            patch["metadata"]["finalizers"] = json!([finalizer]);
        }
        let result: client::Result<IgnoredAny> =
            self.client.patch(self.resource, object.key().ns(), &object.name, None, &Patch::Strategic(patch)).await;
        match result {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    async fn release(&self, object: &ObjectMeta) -> Result<(), Error> {
        let mut patch = json!({ "metadata": {
            "ownerReferences": [{ "$patch": "delete", "uid": self.owner.uid }],
            "uid": object.uid,
        }});
        if let Some(finalizer) = self.finalizer {
            patch["metadata"]["$deleteFromPrimitiveList/finalizers"] = json!([finalizer]);
        }
        let result: client::Result<IgnoredAny> =
            self.client.patch(self.resource, object.key().ns(), &object.name, None, &Patch::Strategic(patch)).await;
        match result {
            Ok(_) => Ok(()),
            // Gone, or another object by now, or already without us: nothing left to release.
            Err(error) if error.is_not_found() || error.is_invalid() => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(owner: Option<&str>, deleting: bool) -> ObjectMeta {
        ObjectMeta {
            name: "o".into(),
            namespace: "ns".into(),
            owner_references: owner
                .map(|uid| OwnerReference { uid: uid.into(), controller: Some(true), ..Default::default() })
                .into_iter()
                .collect(),
            deletion_timestamp: deleting.then_some(client::Timestamp::UNIX_EPOCH),
            ..Default::default()
        }
    }

    #[test]
    fn claims() {
        let owner = |deleting| ObjectMeta { uid: "me".into(), ..object(None, deleting) };
        for (owner_deleting, controller, object_deleting, matches, expected) in [
            (false, Some("me"), false, true, Claim::Keep),
            (false, Some("me"), false, false, Claim::Release),
            (true, Some("me"), false, false, Claim::Ignore),
            (false, Some("other"), false, true, Claim::Ignore),
            (false, None, false, true, Claim::Adopt),
            (false, None, true, true, Claim::Ignore),
            (true, None, false, true, Claim::Ignore),
            (false, None, false, false, Claim::Ignore),
        ] {
            assert_eq!(claim(&owner(owner_deleting), &object(controller, object_deleting), matches), expected);
        }
    }
}
