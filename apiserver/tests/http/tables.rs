//! Tables of what has a kind of its own, and of kinds that are served in several versions.

use axum::body::Body;
use http::Request;
use serde_json::{Value, json};

use super::Fixture;

async fn table(server: &Fixture, path: &str) -> Value {
    let accept = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let answer = server.send(Request::get(path).header("accept", accept).body(Body::empty()).unwrap()).await;
    assert_eq!((answer.code, &answer.body["kind"]), (200, &json!("Table")), "{}", answer.text);
    answer.body
}

fn columns(table: &Value) -> Vec<&str> {
    table["columnDefinitions"].as_array().unwrap().iter().map(|column| column["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn scales_have_columns_of_their_own() {
    let server = Fixture::new().await;
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
        "spec": {"replicas": 3, "selector": {"matchLabels": {"a": "b"}}, "template": template},
    });
    let path = "/apis/apps/v1/namespaces/default/deployments";
    assert_eq!(server.post(path, &deployment).await.code, 201);
    let shown = table(&server, &format!("{path}/d/scale?includeObject=Object")).await;
    assert_eq!(columns(&shown), ["Name", "Desired", "Available", "Age"]);
    assert_eq!(shown["rows"][0]["cells"].as_array().unwrap()[..3], [json!("d"), json!(3), json!(0)]);
    assert_eq!(shown["rows"][0]["object"]["kind"], "Scale");
    let accept = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io";
    let request = Request::get(format!("{path}/d/scale")).header("accept", accept).body(Body::empty()).unwrap();
    let metadata = server.send(request).await.body;
    assert_eq!((&metadata["kind"], &metadata["metadata"]["name"]), (&json!("PartialObjectMetadata"), &json!("d")));
    assert_eq!(metadata.get("spec"), None);
}

/// What one version only says in annotations is printed from where it comes, and is no metadata.
#[tokio::test]
async fn rows_are_made_of_what_is_stored() {
    let server = Fixture::new().await;
    let metric = |name: &str, percent: i32| json!({"type": "Resource", "resource": {"name": name, "target": {"type": "Utilization", "averageUtilization": percent}}});
    let autoscaler = json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "h"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}, "maxReplicas": 5,
            "metrics": [metric("memory", 70), metric("cpu", 60)],
        },
    });
    let path = |version: &str| format!("/apis/autoscaling/{version}/namespaces/default/horizontalpodautoscalers");
    assert_eq!(server.post(&path("v2"), &autoscaler).await.code, 201);
    for version in ["v1", "v2"] {
        let shown = table(&server, &path(version)).await;
        assert_eq!(shown["rows"][0]["cells"][2], "memory: <unknown>/70%, cpu: <unknown>/60%", "{version}");
        assert_eq!(shown["rows"][0]["object"]["metadata"].get("annotations"), None, "{version}");
        let whole = table(&server, &format!("{}/h?includeObject=Object", path(version))).await;
        assert_eq!(whole["rows"][0]["object"]["apiVersion"], format!("autoscaling/{version}"));
    }
}
