//! Kinds that are created but never stored: access and token reviews, and bindings.

mod access;
mod rules;

use std::sync::Arc;

use apimachinery::object::ObjectExt as _;
use apimachinery::status::Status;
use axum::body::Body;
use http::StatusCode;
use serde_json::{Value, json};

use super::create::decode;
use super::subresources::{self, answer, plain};
use super::{method_not_allowed, store};
use crate::codec::body;
use crate::registry::Served;
use crate::request::options::{WriteKind, WriteOptions};
use crate::response::Response;
use crate::server::walk::Context;

/// Answers a review.
///
/// # Errors
/// 400 and 422 for reviews that do not say what they are about.
pub async fn handle(cx: &mut Context, served: &Arc<Served>, body: Body) -> Result<Response, Status> {
    plain(cx)?;
    let bytes = body::read(body).await?;
    let options = WriteOptions::parse(&cx.query, WriteKind::Create)?;
    let mut review = decode(cx, served, &bytes, &options)?;
    api::canonicalize(served.schema(), &mut review);
    review.set_api_version(&served.api_version());
    review.set_kind(&served.resource.kind);
    store::wipe(&mut review);
    store::place(cx, served, &mut review)?;
    if served.resource.plural == "bindings" {
        let pods = cx.server.registry.any_version("", "pods").cloned().ok_or_else(super::unknown_resource)?;
        let name = review.name().to_string();
        return subresources::bind(cx, &pods, &name, &review, &options).await;
    }
    review.remove_at(&["metadata", "namespace"]);
    if served.resource.namespaced {
        let namespace = cx.info.namespace.clone();
        review.set_namespace(&namespace);
    }
    let manager = cx.field_manager(&options.field_manager);
    crate::handlers::managers::track(cx, served, "", &manager, None, &mut review);
    match served.resource.plural.as_ref() {
        "tokenreviews" => token_review(cx, &mut review).await?,
        "subjectaccessreviews" | "localsubjectaccessreviews" | "selfsubjectaccessreviews" => {
            access::review(cx, served, &mut review).await?;
        }
        "selfsubjectreviews" => {
            // The answer is an object of its own.
            review["metadata"] = json!({});
            review.set_creation_timestamp(&cx.server.timestamp());
            review["status"] = json!({"userInfo": cx.user.to_value()});
        }
        "selfsubjectrulesreviews" => rules::review(cx, &mut review)?,
        _ => return Err(method_not_allowed()),
    }
    answer(cx, StatusCode::CREATED, &review)
}

async fn token_review(cx: &Context, review: &mut Value) -> Result<(), Status> {
    let token = review.str_at(&["spec", "token"]).unwrap_or_default().to_string();
    if token.is_empty() {
        return Err(Status::bad_request("token is required for TokenReview in authentication"));
    }
    let audiences: Vec<String> =
        review.list_at(&["spec", "audiences"]).iter().filter_map(Value::as_str).map(str::to_string).collect();
    let wanted = (!audiences.is_empty()).then_some(audiences.as_slice());
    // What is not found out stays as the client sent it.
    let mut status = review["status"].as_object().cloned().unwrap_or_default();
    status.remove("authenticated");
    match cx.server.authenticator.ask(&token, wanted).await {
        Some((user, audiences)) => {
            status.insert("authenticated".into(), true.into());
            status.insert("user".into(), user.to_value());
            status.remove("audiences");
            if !audiences.is_empty() {
                status.insert("audiences".into(), json!(audiences));
            }
        }
        None => {
            status.entry("user").or_insert_with(|| json!({}));
            status.insert("error".into(), "invalid bearer token".into());
        }
    }
    review["status"] = Value::Object(status);
    Ok(())
}
