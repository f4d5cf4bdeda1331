//! ConfigMaps, Secrets, ServiceAccounts and Namespaces.

use std::collections::BTreeSet;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::Related;
use super::writer::{Writer, int_or_string, rfc1123};
use crate::codec::{at, list, pairs, text};

pub fn config_map(w: &mut Writer, map: &Value) {
    w.head(map);
    w.text("\nData\n====\n");
    for (key, value) in pairs(map, &["data"]) {
        w.text(&format!("{key}:\n----\n{value}\n\n"));
    }
    w.text("\nBinaryData\n====\n");
    for (key, value) in pairs(map, &["binaryData"]) {
        w.text(&format!("{key}: {} bytes\n", decoded(value).len()));
    }
    w.text("\n");
}

fn decoded(value: &str) -> Vec<u8> {
    STANDARD.decode(value).unwrap_or_default()
}

/// Sizes only, except the token of an account, which is there to be read.
pub fn secret(w: &mut Writer, secret: &Value) {
    w.head(secret);
    let kind = text(secret, &["type"]);
    w.text(&format!("\nType:\t{kind}\n"));
    w.text("\nData\n====\n");
    for (key, value) in pairs(secret, &["data"]) {
        let bytes = decoded(value);
        if key == "token" && kind == "kubernetes.io/service-account-token" {
            w.field(key, String::from_utf8_lossy(&bytes));
        } else {
            w.field(key, format!("{} bytes", bytes.len()));
        }
    }
}

pub fn service_account(w: &mut Writer, account: &Value) {
    w.head(account);
    let secrets = list(account, &["imagePullSecrets"]);
    if secrets.is_empty() {
        w.line(0, "Image pull secrets:\t<none>");
    }
    for (index, secret) in secrets.iter().enumerate() {
        let title = if index == 0 { "Image pull secrets:" } else { "                   " };
        w.line(0, &format!("{title}\t{}", text(secret, &["name"])));
    }
}

pub fn namespace(w: &mut Writer, namespace: &Value, related: &Related) {
    w.field("Name", text(namespace, &["metadata", "name"]));
    w.metadata(namespace);
    w.field("Status", text(namespace, &["status", "phase"]));
    let conditions = list(namespace, &["status", "conditions"]);
    if !conditions.is_empty() {
        w.line(0, "Conditions:");
        w.line(1, "Type\tStatus\tLastTransitionTime\tReason\tMessage");
        w.line(1, "----\t------\t------------------\t------\t-------");
        for c in conditions {
            w.line(
                1,
                &format!(
                    "{}\t{}\t{}\t{}\t{}",
                    text(c, &["type"]),
                    text(c, &["status"]),
                    rfc1123(c, &["lastTransitionTime"]),
                    text(c, &["reason"]),
                    text(c, &["message"])
                ),
            );
        }
    }
    if let Some(found) = &related.quotas {
        w.text("\n");
        quotas(w, found);
    }
    if let Some(found) = &related.limits {
        w.text("\n");
        limits(w, found);
    }
}

fn quotas(w: &mut Writer, quotas: &[Value]) {
    if quotas.is_empty() {
        w.line(0, "No resource quota.");
        return;
    }
    let mut sorted: Vec<&Value> = quotas.iter().collect();
    sorted.sort_by_key(|quota| text(quota, &["metadata", "name"]).to_owned());
    w.line(0, "Resource Quotas");
    for quota in sorted {
        w.line(1, &format!("Name:\t{}", text(quota, &["metadata", "name"])));
        let mut scopes: Vec<&str> = list(quota, &["spec", "scopes"]).iter().filter_map(Value::as_str).collect();
        scopes.sort_unstable();
        if !scopes.is_empty() {
            w.line(1, &format!("Scopes:\t{}", scopes.join(", ")));
            scopes.iter().filter_map(|scope| scope_help(scope)).for_each(|help| w.line(1, &format!("* {help}")));
        }
        w.line(1, "Resource\tUsed\tHard");
        w.line(1, "--------\t---\t---");
        if let Some(Value::Object(hard)) = at(quota, &["status", "hard"]) {
            for (name, value) in hard {
                let used = at(quota, &["status", "used", name]);
                let used = if used.is_some() { int_or_string(used) } else { "0".into() };
                w.line(1, &format!("{name}\t{used}\t{}", int_or_string(Some(value))));
            }
        }
    }
}

fn scope_help(scope: &str) -> Option<&'static str> {
    Some(match scope {
        "Terminating" => {
            "Matches all pods that have an active deadline. These pods have a limited lifespan on a node before being actively terminated by the system."
        }
        "NotTerminating" => {
            "Matches all pods that do not have an active deadline. These pods usually include long running pods whose container command is not expected to terminate."
        }
        "BestEffort" => {
            "Matches all pods that do not have resource requirements set. These pods have a best effort quality of service."
        }
        "NotBestEffort" => {
            "Matches all pods that have at least one resource requirement set. These pods have a burstable or guaranteed quality of service."
        }
        _ => return None,
    })
}

fn limits(w: &mut Writer, ranges: &[Value]) {
    if ranges.is_empty() {
        w.line(0, "No LimitRange resource.");
        return;
    }
    w.line(0, "Resource Limits\n Type\tResource\tMin\tMax\tDefault Request\tDefault Limit\tMax Limit/Request Ratio");
    w.line(0, " ----\t--------\t---\t---\t---------------\t-------------\t-----------------------");
    const FIELDS: [&str; 5] = ["min", "max", "defaultRequest", "default", "maxLimitRequestRatio"];
    for range in ranges {
        for item in list(range, &["spec", "limits"]) {
            let mut names = BTreeSet::new();
            for field in FIELDS {
                if let Some(Value::Object(map)) = at(item, &[field]) {
                    names.extend(map.keys().cloned());
                }
            }
            for name in names {
                let cells: Vec<String> = FIELDS
                    .iter()
                    .map(|field| {
                        let value = at(item, &[field, &name]);
                        if value.is_some() { int_or_string(value) } else { "-".into() }
                    })
                    .collect();
                w.line(0, &format!(" {}\t{name}\t{}", text(item, &["type"]), cells.join("\t")));
            }
        }
    }
}
