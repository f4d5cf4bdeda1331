//! AlwaysAdmit and AlwaysDeny: deprecated, and of use to nobody but tests.

use std::sync::Arc;

use apimachinery::status::Status;
use async_trait::async_trait;
use serde_json::Value;

use super::{Attributes, Plugin};
use crate::server::Server;

pub const ADMIT: &str = "AlwaysAdmit";
pub const DENY: &str = "AlwaysDeny";

/// Has nothing against anything.
pub struct AlwaysAdmit;

/// Refuses everything.
pub struct AlwaysDeny;

#[async_trait]
impl Plugin for AlwaysAdmit {}

fn deny(attributes: &Attributes<'_>) -> Result<(), Status> {
    Err(attributes.forbidden("admission control is denying all modifications"))
}

#[async_trait]
impl Plugin for AlwaysDeny {
    async fn mutate(
        &self,
        _: &Arc<Server>,
        attributes: &Attributes<'_>,
        _: &mut Value,
        _: Option<&Value>,
    ) -> Result<(), Status> {
        deny(attributes)
    }

    async fn validate(
        &self,
        _: &Arc<Server>,
        attributes: &Attributes<'_>,
        _: &Value,
        _: Option<&Value>,
    ) -> Result<(), Status> {
        deny(attributes)
    }
}
