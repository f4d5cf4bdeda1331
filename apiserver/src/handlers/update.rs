//! PUT of an object or one of its subresources of the same kind.

use std::sync::Arc;

use apimachinery::object::ObjectExt as _;
use apimachinery::status::Status;
use axum::body::Body;
use http::StatusCode;

use super::create::decode;
use super::store::{self, Update, Written};
use super::{entry_answer, format, object_answer};
use crate::codec::body;
use crate::registry::Served;
use crate::request::accept::{Allowed, Route};
use crate::request::options::{WriteKind, WriteOptions};
use crate::response::Response;
use crate::server::walk::Context;

/// Refuses an object whose name is not the one in the path; an object without one takes it.
///
/// # Errors
/// 400.
pub fn name_matches(object: &mut serde_json::Value, name: &str) -> Result<(), Status> {
    let have = object.name();
    if have.is_empty() {
        return Err(Status::bad_request(format!(
            "the name of the object ({name} based on URL) was undeterminable: name must be provided"
        )));
    }
    if have != name {
        return Err(Status::bad_request(format!(
            "the name of the object ({have}) does not match the name on the URL ({name})"
        )));
    }
    Ok(())
}

/// Replaces an object, or creates it where the kind allows that.
///
/// # Errors
/// What decoding and the generic store answer.
pub async fn handle(cx: &mut Context, served: &Arc<Served>, body: Body) -> Result<Response, Status> {
    let format = format(cx, Route::Object, Allowed::Transforms)?;
    let bytes = body::read(body).await?;
    let options = WriteOptions::parse(&cx.query, WriteKind::Update)?;
    let mut object = decode(cx, served, &bytes, &options)?;
    let name = cx.info.name.clone();
    store::place(cx, served, &mut object)?;
    name_matches(&mut object, &name)?;
    let subresource = cx.info.subresource.clone();
    let update = Update {
        subresource: &subresource,
        name: &name,
        options: &options,
        manager: Some(cx.field_manager(&options.field_manager)),
        derived: false,
    };
    let change = move |_: &mut Context, _: Option<&serde_json::Value>| Ok(object.clone());
    let written = store::update(cx, served, &update, served.rules.create_on_update, &change).await?;
    answer(cx, served, written, format).await
}

/// A write's answer.
///
/// # Errors
/// When the object has no form that the client takes.
pub async fn answer(
    cx: &Context,
    served: &Served,
    written: Written,
    format: crate::request::accept::Format,
) -> Result<Response, Status> {
    let code = if written.created() { StatusCode::CREATED } else { StatusCode::OK };
    match written {
        Written::Stored { entry, .. } => entry_answer(cx, served, code, &entry, format).await,
        Written::Object { object, .. } => object_answer(cx, served, code, &object, format),
    }
}
