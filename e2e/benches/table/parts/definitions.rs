//! What a CustomResourceDefinition costs that nobody uses.

use std::time::Duration;

use serde_json::{Value, json};

use super::{FILLERS, SETTLED};
use crate::figures::DEFINITION;
use crate::load::{self, Ask};
use crate::subject::{ControlPlane, Kind, Subject};
use crate::table::Table;

/// Upstream is given fewer: a thousand do not fit into its memory here.
const OURS: usize = 1_000;
const UPSTREAMS: usize = 50;
/// How long the last definitions may take to be served.
const SERVED: Duration = Duration::from_secs(6);

pub async fn run(subject: &Subject, table: &mut Table) -> anyhow::Result<()> {
    let plane = ControlPlane::api(subject, &[]).await?;
    tokio::time::sleep(SETTLED).await;
    let before = plane.memory();
    let count = if subject.kind == Kind::Keelson { OURS } else { UPSTREAMS };
    let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    load::each(&plane.endpoint, FILLERS, count, |number| Ask::post(path, &definition(number))).await?;
    tokio::time::sleep(SERVED).await;
    let grown = plane.memory().resident_mib - before.resident_mib;
    table.set(subject.kind, DEFINITION, grown * 1024.0 / count as f64);
    plane.stop().await
}

/// A definition of the size that operators bring.
fn definition(number: usize) -> Value {
    let (singular, group) = (format!("widget{number}"), "bench.example.com");
    let field = |kind: &str| json!({"type": kind, "description": "One of the fields that people set."});
    let fields: Vec<(String, Value)> =
        (0..20).map(|at| (format!("field{at}"), field(["string", "integer", "boolean"][at % 3]))).collect();
    let spec: serde_json::Map<String, Value> = fields.into_iter().collect();
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{singular}s.{group}")},
        "spec": {
            "group": group, "scope": "Namespaced",
            "names": {
                "plural": format!("{singular}s"), "singular": singular,
                "kind": format!("Widget{number}"), "listKind": format!("Widget{number}List"),
            },
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {
                    "type": "object",
                    "properties": {
                        "spec": {"type": "object", "properties": spec},
                        "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                    },
                }},
                "subresources": {"status": {}},
            }],
        },
    })
}
