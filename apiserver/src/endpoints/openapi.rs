//! OpenAPI v2 and v3.

use apimachinery::status::Status;

use crate::response::{self, Response};
use crate::server::walk::Context;

/// The documents, made on first use.
#[derive(Default)]
pub struct Documents {}

/// `/openapi/v2`.
///
/// # Errors
/// 406.
pub fn v2(_cx: &mut Context) -> Result<Response, Status> {
    Ok(response::page_not_found())
}

/// `/openapi/v3` and below.
///
/// # Errors
/// 406.
pub fn v3(_cx: &mut Context, _rest: &str) -> Result<Response, Status> {
    Ok(response::page_not_found())
}
