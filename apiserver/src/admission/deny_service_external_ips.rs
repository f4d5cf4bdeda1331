//! DenyServiceExternalIPs: services may not take addresses that are not theirs (CVE-2020-8554).

use std::sync::Arc;

use apimachinery::object::ObjectExt as _;
use apimachinery::status::Status;
use async_trait::async_trait;
use serde_json::Value;

use super::{Attributes, Operation, Plugin};
use crate::server::Server;

pub const NAME: &str = "DenyServiceExternalIPs";

pub struct DenyServiceExternalIps;

#[async_trait]
impl Plugin for DenyServiceExternalIps {
    async fn validate(
        &self,
        _: &Arc<Server>,
        attributes: &Attributes<'_>,
        object: &Value,
        old: Option<&Value>,
    ) -> Result<(), Status> {
        if !attributes.is_core("services") || !matches!(attributes.operation, Operation::Create | Operation::Update) {
            return Ok(());
        }
        let addresses = |service: &Value| service.list_at(&["spec", "externalIPs"]).to_vec();
        let known = old.map(addresses).unwrap_or_default();
        if addresses(object).iter().all(|address| known.contains(address)) {
            return Ok(());
        }
        Err(attributes.forbidden("Use of external IPs is denied by admission control."))
    }
}
