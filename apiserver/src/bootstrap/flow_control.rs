//! The cluster's own FlowSchemas and priority levels, and the condition that says whether a schema's
//! level is there.

use std::sync::Arc;
use std::time::Duration;

use apimachinery::gotext;
use apimachinery::object::ObjectExt as _;
use apimachinery::status::Status;
use http::Method;
use serde_json::{Value, json};

use crate::admission::lookup;
use crate::flowcontrol::objects::{self, AUTO_UPDATE, GROUP};
use crate::server::{Server, in_process};

const PRODUCER: &str = "api-priority-and-fairness-config-producer-v1";
const CONSUMER: &str = "api-priority-and-fairness-config-consumer-v1";
/// From a condition that could not be written to the next attempt.
const AGAIN: Duration = Duration::from_secs(1);

/// Objects that are kept whatever their annotation says: nothing works without them.
const MANDATORY: [&str; 2] = ["exempt", "catch-all"];

/// Creates what is missing and mends what is kept up to date.
///
/// # Errors
/// The first object's that could not be written.
pub async fn ensure(server: &Arc<Server>) -> Result<(), Status> {
    for (plural, objects) in [("prioritylevelconfigurations", objects::levels()), ("flowschemas", objects::schemas())] {
        for object in objects {
            one(server, plural, object).await?;
        }
    }
    Ok(())
}

async fn one(server: &Arc<Server>, plural: &str, expected: Value) -> Result<(), Status> {
    let name = expected.name().to_string();
    let path = format!("/apis/{GROUP}/v1/{plural}");
    let answer = match lookup::get(server, GROUP, plural, "", &name).map(|entry| entry.tree()) {
        None => {
            let path = format!("{path}?fieldManager={PRODUCER}");
            in_process::request(server, Method::POST, &path, Some(&expected)).await
        }
        Some(mut current) => {
            let kept = MANDATORY.contains(&name.as_str())
                || match current.annotation(AUTO_UPDATE) {
                    Some(value) => value == "true",
                    None => current.generation() == 1,
                };
            if !kept || current.get("spec") == expected.get("spec") {
                return Ok(());
            }
            current["spec"] = expected["spec"].clone();
            let path = format!("{path}/{name}?fieldManager={PRODUCER}");
            in_process::request(server, Method::PUT, &path, Some(&current)).await
        }
    };
    match answer {
        // Another server was faster.
        Err(status) if !status.is_already_exists() && !status.is_conflict() => Err(status),
        _ => Ok(()),
    }
}

/// Keeps every schema's condition true until the server stops.
pub async fn run(server: Arc<Server>) {
    loop {
        let written = conditions(&server).await;
        if let Err(status) = &written {
            tracing::info!(error = %status.message, "conditions of flow schemas could not be written");
        }
        tokio::select! {
            () = server.flow_control.changed() => {}
            () = server.clock.sleep(AGAIN), if written.is_err() => {}
            () = server.shutdown.cancelled() => return,
        }
    }
}

async fn conditions(server: &Arc<Server>) -> Result<(), Status> {
    for schema in lookup::list(server, GROUP, "flowschemas", None).await? {
        let level = schema.str_at(&["spec", "priorityLevelConfiguration", "name"]).unwrap_or_default();
        let wanted = condition(level, server.flow_control.has_level(level));
        let current = schema
            .list_at(&["status", "conditions"])
            .iter()
            .find(|condition| condition.str_at(&["type"]) == Some("Dangling"));
        let same = |field: &str| current.and_then(|current| current.get(field)) == wanted.get(field);
        if ["status", "reason", "message"].into_iter().all(same) {
            continue;
        }
        let mut wanted = wanted.clone();
        let since = current.filter(|_| same("status")).and_then(|current| current.str_at(&["lastTransitionTime"]));
        wanted["lastTransitionTime"] = since.map_or_else(|| server.timestamp(), str::to_string).into();
        let body = json!({
            "apiVersion": format!("{GROUP}/v1"), "kind": "FlowSchema",
            "metadata": {"name": schema.name()}, "status": {"conditions": [wanted]},
        });
        let path = format!("/apis/{GROUP}/v1/flowschemas/{}/status", schema.name());
        match in_process::apply(server, &path, &body, CONSUMER).await {
            Err(status) if !status.is_not_found() => return Err(status),
            _ => {}
        }
    }
    Ok(())
}

fn condition(level: &str, found: bool) -> Value {
    let named =
        format!("This FlowSchema references the PriorityLevelConfiguration object named {}", gotext::quote(level));
    if found {
        json!({"type": "Dangling", "status": "False", "reason": "Found", "message": format!("{named} and it exists")})
    } else {
        json!({
            "type": "Dangling", "status": "True", "reason": "NotFound",
            "message": format!("{named} but there is no such object"),
        })
    }
}
