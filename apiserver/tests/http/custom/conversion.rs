//! Several versions of one kind.

use serde_json::{Value, json};

use super::{DEFINITIONS, definition, establish, until};
use crate::Fixture;

fn two_versions() -> Value {
    let any = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let mut crd = definition("foos", "Foo", "Cluster", any.clone());
    crd["spec"]["versions"] = json!([
        {"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": any.clone()}},
        {"name": "v2", "served": true, "storage": false, "schema": {"openAPIV3Schema": any}, "deprecated": true},
    ]);
    crd
}

#[tokio::test]
async fn without_a_webhook_only_the_name_changes() {
    let server = Fixture::new().await;
    establish(&server, &two_versions()).await;
    let foo = json!({"apiVersion": "example.com/v2", "kind": "Foo", "metadata": {"name": "x"}, "spec": {"a": 1}});
    let made = server.post("/apis/example.com/v2/foos", &foo).await;
    assert_eq!((made.code, &made.body["apiVersion"]), (201, &json!("example.com/v2")), "{}", made.text);
    assert_eq!(made.warnings, ["299 - \"example.com/v2 Foo is deprecated\""]);
    for version in ["v1", "v2"] {
        let read = server.get(&format!("/apis/example.com/{version}/foos/x")).await.body;
        assert_eq!(read["apiVersion"], format!("example.com/{version}"));
        assert_eq!(read["spec"], json!({"a": 1}));
        let list = server.get(&format!("/apis/example.com/{version}/foos")).await.body;
        assert_eq!(list["apiVersion"], format!("example.com/{version}"));
    }
    // The other version becomes the stored one; what is there stays readable in both.
    let path = format!("{DEFINITIONS}/foos.example.com");
    let mut crd = server.get(&path).await.body;
    crd["spec"]["versions"][0]["storage"] = false.into();
    crd["spec"]["versions"][1]["storage"] = true.into();
    let put = server.ask("PUT", &path, "application/json", crd.to_string()).await;
    assert_eq!(put.body["status"]["storedVersions"], json!(["v1", "v2"]), "{}", put.text);
    until(&server, "/apis/example.com/v2/foos/x", |answer| answer.body["apiVersion"] == "example.com/v2").await;
    let read = server.get("/apis/example.com/v1/foos/x").await.body;
    assert_eq!(read["apiVersion"], "example.com/v1");
}
