//! Connections (exec, attach, port-forward, proxy) before they are made: their options, as an object that admission sees.

use std::sync::Arc;

use apimachinery::schema::{Type, TypeRef};
use apimachinery::status::Status;
use serde_json::{Map, Value, json};

use crate::admission::review::Review;
use crate::admission::{Attributes, Operation, kind_of};
use crate::registry::Served;
use crate::request::Query;
use crate::server::walk::Context;

/// Lets plugins judge a connection.
///
/// # Errors
/// Their refusal, and 400 for options that cannot be read.
pub async fn admit(cx: &Context, served: &Arc<Served>) -> Result<(), Status> {
    let subresource = cx.info.subresource.as_str();
    let attributes = Attributes {
        operation: Operation::Connect,
        served,
        subresource,
        namespace: cx.info.namespace.clone(),
        name: cx.info.name.clone(),
        base: String::new(),
        user: &cx.user,
        dry_run: false,
        warnings: parking_lot::Mutex::default(),
        review: Review::default(),
    };
    let (group, version, kind) = kind_of(served, subresource);
    let ty = api::table()
        .find_kind(group, version, kind)
        .ok_or_else(|| Status::internal(format!("the table lacks {kind}")))?;
    let mut options = read(ty, &cx.query).map_err(Status::bad_request)?;
    options.insert("kind".to_string(), kind.into());
    options.insert(
        "apiVersion".to_string(),
        if group.is_empty() { version.into() } else { format!("{group}/{version}").into() },
    );
    // What follows the subresource is the path at the other side.
    if subresource == "proxy" {
        let rest = cx.info.parts.get(3..).unwrap_or_default().join("/");
        let slash = if cx.path.ends_with('/') && !rest.is_empty() { "/" } else { "" };
        options.insert("path".to_string(), format!("/{rest}{slash}").into());
    }
    let mut options = Value::Object(options);
    cx.server.admission.mutate(cx, &attributes, &mut options, None).await?;
    cx.server.admission.validate(cx, &attributes, &options, None).await
}

/// The fields of a type that a query gives, as upstream reads them.
fn read(ty: TypeRef<'_>, query: &Query) -> Result<Map<String, Value>, String> {
    let mut out = Map::new();
    for field in ty.fields() {
        let name = field.name.as_ref();
        if !query.has(name) {
            continue;
        }
        let first = query.get(name).unwrap_or_default();
        let value = match ty.at(field.ty).ty() {
            Type::Bool => json!(query.flag(name)),
            Type::String(_) => json!(first),
            Type::Int32 | Type::Int64 => query.integer(name)?.map_or(Value::Null, Value::from),
            Type::List(_) => {
                let numbers = matches!(ty.at(field.ty).item().map(TypeRef::ty), Some(Type::Int32 | Type::Int64));
                let item = |text: &str| match numbers {
                    true => text
                        .parse::<i32>()
                        .map(Value::from)
                        .map_err(|_| format!("strconv.ParseInt: parsing {text:?}: invalid syntax")),
                    false => Ok(Value::from(text)),
                };
                Value::Array(query.all(name).map(item).collect::<Result<_, _>>()?)
            }
            _ => continue,
        };
        // As a Go value shows: what is empty is left out.
        let empty = matches!(&value, Value::Bool(false) | Value::Null) || value == "" || value == json!([]);
        if !empty {
            out.insert(name.to_string(), value);
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_become_options() {
        let check = |kind: &str, query: &str| {
            let ty = api::table().find_kind("", "v1", kind).expect("a kind of options");
            read(ty, &Query::parse(query)).map(Value::Object)
        };
        assert_eq!(
            check("PodExecOptions", "command=sh&command=-c&stdin=true&tty=false&container=c&other=1"),
            Ok(json!({"command": ["sh", "-c"], "stdin": true, "container": "c"}))
        );
        assert_eq!(check("PodPortForwardOptions", "ports=80&ports=443"), Ok(json!({"ports": [80, 443]})));
        assert!(check("PodPortForwardOptions", "ports=x").is_err());
    }
}
