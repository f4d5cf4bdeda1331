//! POST of a new object.

use std::sync::Arc;

use apimachinery::gvk::GroupVersionKind;
use apimachinery::status::Status;
use axum::body::Body;
use http::StatusCode;

use super::store::{self, Written};
use super::{entry_answer, format, object_answer, owner_references};
use crate::cache::raw;
use crate::codec::body::{self, Expected};
use crate::registry::{Served, checks};
use crate::request::accept::{self, Allowed, Encoding, Route};
use crate::request::options::{WriteKind, WriteOptions};
use crate::response::Response;
use crate::server::walk::Context;

/// Decodes and defaults an object of the served kind.
///
/// # Errors
/// 415 for encodings not understood, 400 for bodies that are no such object.
pub fn decode(
    cx: &mut Context,
    served: &Served,
    bytes: &[u8],
    options: &WriteOptions,
) -> Result<serde_json::Value, Status> {
    let encoding = accept::body_encoding(&cx.headers, cx.cbor())?;
    if let Some(custom) = served.custom() {
        let object = custom.decode(served, bytes, encoding, options.field_validation, &cx.warnings)?;
        cx.about(&object);
        return Ok(object);
    }
    let expected = Expected {
        kind: GroupVersionKind::new(
            served.resource.group.to_string(),
            served.resource.version.to_string(),
            served.resource.kind.to_string(),
        ),
        schema: served.schema(),
        empty: true,
    };
    let places = raw::places(&served.storage.group, &served.storage.plural);
    if !places.is_empty() && encoding == Encoding::Json {
        cx.texts = Some(raw::texts(bytes, places));
    }
    let decoded = body::decode(bytes, encoding, &expected, options.field_validation)?;
    cx.warnings.extend(decoded.warnings);
    let mut object = decoded.object;
    checks::default(&served.resource, &mut object, &cx.server);
    cx.about(&object);
    owner_references::dedup(&cx.warnings, &mut object, false);
    Ok(object)
}

/// Creates an object.
///
/// # Errors
/// What decoding and the generic store answer.
pub async fn handle(cx: &mut Context, served: &Arc<Served>, body: Body) -> Result<Response, Status> {
    let format = format(cx, Route::Object, Allowed::Transforms)?;
    let bytes = body::read(body).await?;
    let options = WriteOptions::parse(&cx.query, WriteKind::Create)?;
    let object = decode(cx, served, &bytes, &options)?;
    let manager = cx.field_manager(&options.field_manager);
    match store::create(cx, served, object, &options, Some(&manager)).await? {
        Written::Stored { entry, .. } => entry_answer(cx, served, StatusCode::CREATED, &entry, format).await,
        Written::Object { object, .. } => object_answer(cx, served, StatusCode::CREATED, &object, format),
    }
}
