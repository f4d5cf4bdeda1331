//! Kinds that are created but never stored: access and token reviews, and bindings.

use std::sync::Arc;

use apimachinery::field::{self, ErrorList, Path};
use apimachinery::object::ObjectExt as _;
use apimachinery::status::Status;
use axum::body::Body;
use http::StatusCode;
use serde_json::{Value, json};

use super::create::decode;
use super::subresources::{self, answer, plain};
use super::{method_not_allowed, store};
use crate::authorization::{Attributes, Decision};
use crate::codec::body;
use crate::registry::Served;
use crate::request::UserInfo;
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
    store::track(cx, served, "", &manager, None, &mut review);
    match served.resource.plural.as_ref() {
        "tokenreviews" => token_review(cx, &mut review)?,
        "subjectaccessreviews" | "localsubjectaccessreviews" | "selfsubjectaccessreviews" => {
            access_review(cx, served, &mut review)?;
        }
        "selfsubjectreviews" => {
            review.set_creation_timestamp(&cx.server.timestamp());
            review["status"] = json!({"userInfo": cx.user.to_value()});
        }
        "selfsubjectrulesreviews" => rules_review(cx, &mut review)?,
        _ => return Err(method_not_allowed()),
    }
    answer(cx, StatusCode::CREATED, &review)
}

fn token_review(cx: &Context, review: &mut Value) -> Result<(), Status> {
    let token = review.str_at(&["spec", "token"]).unwrap_or_default().to_string();
    if token.is_empty() {
        return Err(Status::bad_request("token is required for TokenReview in authentication"));
    }
    let audiences: Vec<String> =
        review.list_at(&["spec", "audiences"]).iter().filter_map(Value::as_str).map(str::to_string).collect();
    let wanted = (!audiences.is_empty()).then_some(audiences.as_slice());
    review["status"] = match cx.server.authenticator.token(&token, wanted) {
        Some((user, audiences)) => {
            let mut status = json!({"authenticated": true, "user": user.to_value()});
            if !audiences.is_empty() {
                status["audiences"] = json!(audiences);
            }
            status
        }
        None => json!({"user": {}, "error": "invalid bearer token"}),
    };
    Ok(())
}

fn access_review(cx: &Context, served: &Served, review: &mut Value) -> Result<(), Status> {
    let own = served.resource.plural == "selfsubjectaccessreviews";
    let mut errors = ErrorList::new();
    let path = Path::new("spec");
    let spec = review.get("spec").cloned().unwrap_or_else(|| json!({}));
    let resource = spec.get("resourceAttributes").filter(|value| !value.is_null());
    let other = spec.get("nonResourceAttributes").filter(|value| !value.is_null());
    if resource.is_some() && other.is_some() {
        errors.push(field::invalid(
            &path.child("nonResourceAttributes"),
            other,
            "cannot be specified in combination with resourceAttributes",
        ));
    }
    if resource.is_none() && other.is_none() {
        errors.push(field::invalid(
            &path.child("resourceAttributes"),
            field::BadValue::from(Value::Null),
            "exactly one of nonResourceAttributes or resourceAttributes must be specified",
        ));
    }
    let text = |name: &str| spec.str_at(&[name]).unwrap_or_default().to_string();
    let groups: Vec<String> = spec.list_at(&["groups"]).iter().filter_map(Value::as_str).map(str::to_string).collect();
    if !own && text("user").is_empty() && groups.is_empty() {
        errors.push(field::invalid(&path.child("user"), "", "at least one of user or group must be specified"));
    }
    if served.resource.plural == "localsubjectaccessreviews" {
        let namespace = resource.and_then(|value| value.str_at(&["namespace"])).unwrap_or_default();
        if namespace != cx.info.namespace {
            errors.push(field::invalid(
                &path.child("resourceAttributes").child("namespace"),
                namespace,
                "must match metadata.namespace",
            ));
        }
        if other.is_some() {
            errors.push(field::invalid(
                &path.child("nonResourceAttributes"),
                other,
                "disallowed on this kind of request",
            ));
        }
    }
    if !errors.is_empty() {
        // Upstream names no kind here.
        let group = apimachinery::gvk::GroupKind::new(served.resource.group.to_string(), "");
        return Err(Status::invalid(&group, "", &errors));
    }
    let user = if own {
        cx.user.clone()
    } else {
        let mut user = UserInfo { name: text("user"), uid: text("uid"), groups, ..UserInfo::default() };
        for (key, values) in spec.map_at(&["extra"]).into_iter().flatten() {
            let values = values.as_array().into_iter().flatten();
            user.extra.insert(key.to_lowercase(), values.filter_map(Value::as_str).map(str::to_string).collect());
        }
        user
    };
    let attributes = match (resource, other) {
        (Some(resource), _) => {
            let text = |name: &str| resource.str_at(&[name]).unwrap_or_default().to_string();
            Attributes {
                user,
                verb: text("verb"),
                namespace: text("namespace"),
                group: text("group"),
                version: text("version"),
                resource: text("resource"),
                subresource: text("subresource"),
                name: text("name"),
                is_resource: true,
                path: String::new(),
            }
        }
        (None, other) => {
            let text = |name: &str| other.and_then(|value| value.str_at(&[name])).unwrap_or_default().to_string();
            Attributes { user, verb: text("verb"), path: text("path"), ..Attributes::default() }
        }
    };
    let (allowed, denied, reason) = match cx.server.authorizer.authorize(&attributes) {
        Decision::Allow(reason) => (true, false, reason),
        Decision::Deny(reason) => (false, true, reason),
        Decision::NoOpinion(reason) => (false, false, reason),
    };
    let mut status = json!({"allowed": allowed});
    if denied {
        status["denied"] = true.into();
    }
    if !reason.is_empty() {
        status["reason"] = reason.into();
    }
    review["status"] = status;
    Ok(())
}

/// What the asking user may do. The authorizers that exist until RBAC decide by user alone, so the
/// answer is everything or nothing but the public paths.
fn rules_review(cx: &Context, review: &mut Value) -> Result<(), Status> {
    let namespace = review.str_at(&["spec", "namespace"]).unwrap_or_default().to_string();
    if namespace.is_empty() {
        return Err(Status::bad_request("no namespace on request"));
    }
    let everything = Attributes {
        user: cx.user.clone(),
        verb: "*".to_string(),
        namespace,
        group: "*".to_string(),
        version: "*".to_string(),
        resource: "*".to_string(),
        is_resource: true,
        ..Attributes::default()
    };
    let all = matches!(cx.server.authorizer.authorize(&everything), Decision::Allow(_));
    review["status"] = if all {
        json!({
            "incomplete": false,
            "nonResourceRules": [{"nonResourceURLs": ["*"], "verbs": ["*"]}],
            "resourceRules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}],
        })
    } else {
        json!({"incomplete": false, "nonResourceRules": [], "resourceRules": []})
    };
    Ok(())
}
