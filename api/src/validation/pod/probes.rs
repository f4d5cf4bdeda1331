//! Probes, lifecycle hooks and their handlers.

use apimachinery::field::{self, ErrorList, Path};
use apimachinery::names;
use serde_json::Value;

use super::super::checks::{non_negatives, port_num, port_num_or_name};
use crate::read::Read;

/// All probes of a container that may have them.
pub(super) fn probes(container: &Value, grace: Option<i64>, path: &Path, errors: &mut ErrorList) {
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let Some(found) = container.set(name) else { continue };
        let path = path.child(name);
        probe(found, grace, &path, errors);
        if name == "readinessProbe" {
            if let Some(seconds) = found.int("terminationGracePeriodSeconds") {
                errors.push(field::invalid(
                    &path.child("terminationGracePeriodSeconds"),
                    seconds,
                    "must not be set for readinessProbes",
                ));
            }
        } else if found.num("successThreshold") != 1 {
            errors.push(field::invalid(&path.child("successThreshold"), found.num("successThreshold"), "must be 1"));
        }
    }
}

fn probe(probe: &Value, grace: Option<i64>, path: &Path, errors: &mut ErrorList) {
    handler(probe, &["exec", "httpGet", "tcpSocket", "grpc"], grace, path, errors);
    const COUNTS: &[&str] =
        &["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"];
    non_negatives(probe, COUNTS, path, errors);
    if let Some(seconds) = probe.int("terminationGracePeriodSeconds").filter(|s| *s <= 0) {
        errors.push(field::invalid(&path.child("terminationGracePeriodSeconds"), seconds, "must be greater than 0"));
    }
}

pub(super) fn lifecycle(lifecycle: &Value, grace: Option<i64>, path: &Path, errors: &mut ErrorList) {
    for name in ["postStart", "preStop"] {
        if let Some(hook) = lifecycle.set(name) {
            handler(hook, &["exec", "httpGet", "tcpSocket", "sleep"], grace, &path.child(name), errors);
        }
    }
}

fn handler(handler: &Value, kinds: &[&'static str], grace: Option<i64>, path: &Path, errors: &mut ErrorList) {
    let mut given = 0;
    for kind in kinds {
        let Some(action) = handler.set(kind) else { continue };
        let path = path.child(*kind);
        given += 1;
        if given > 1 {
            errors.push(field::forbidden(&path, "may not specify more than 1 handler type"));
            continue;
        }
        match *kind {
            "exec" => {
                if action.list("command").is_empty() {
                    errors.push(field::required(&path.child("command"), ""));
                }
            }
            "httpGet" => http_get(action, &path, errors),
            "tcpSocket" => port_num_or_name(&action["port"], &path.child("port"), errors),
            "grpc" => port_num(action.num("port"), &path.child("port"), errors),
            _ => {
                let seconds = action.num("seconds");
                if let Some(grace) = grace.filter(|grace| seconds < 0 || seconds > *grace) {
                    errors.push(field::invalid(
                        &path,
                        seconds,
                        format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})"),
                    ));
                }
            }
        }
    }
    if given == 0 {
        errors.push(field::required(path, "must specify a handler type"));
    }
}

fn http_get(action: &Value, path: &Path, errors: &mut ErrorList) {
    if action.text("path").is_empty() {
        errors.push(field::required(&path.child("path"), ""));
    }
    port_num_or_name(&action["port"], &path.child("port"), errors);
    if !matches!(action.text("scheme"), "HTTP" | "HTTPS") {
        errors.push(field::not_supported(&path.child("scheme"), action.text("scheme"), &["HTTP", "HTTPS"]));
    }
    for header in action.list("httpHeaders") {
        let name = header.text("name");
        for message in names::http_header_name(name) {
            errors.push(field::invalid(&path.child("httpHeaders"), name, message));
        }
    }
}
