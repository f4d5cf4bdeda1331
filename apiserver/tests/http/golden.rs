//! Every golden object is taken in JSON and in protobuf without a failure of the server's own. Most
//! are refused: their fields hold numbers instead of sense.

use std::path::PathBuf;

use serde_json::Value;

use super::{Answer, Fixture};

fn shared() -> Option<PathBuf> {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    std::env::var_os("KEELSON_SHARED")
        .map(PathBuf::from)
        .into_iter()
        .chain([here.join("../../shared"), here.join("../../../shared")])
        .find(|path| path.join("spec/golden/HEAD").is_dir())
}

#[tokio::test]
async fn golden_objects_never_break_the_server() {
    let Some(shared) = shared() else {
        eprintln!("skipped: needs ../shared");
        return;
    };
    let server = Fixture::with(|config| {
        config.runtime_config = vec![("api/all".to_string(), true)];
        config.feature_gates = vec![("AllBeta".to_string(), true)];
    })
    .await;
    let mut tried = 0;
    for file in std::fs::read_dir(shared.join("spec/golden/HEAD")).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let object: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let (Some(version), Some(kind)) = (object["apiVersion"].as_str(), object["kind"].as_str()) else { continue };
        let group = version.split_once('/').map_or("", |(group, _)| group);
        let Some(served) = server
            .handle
            .server
            .registry
            .all()
            .iter()
            .find(|served| served.api_version() == version && served.resource.kind == kind)
        else {
            continue;
        };
        let resource = &served.resource;
        let root = if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{version}") };
        let place = if resource.namespaced { "/namespaces/default" } else { "" };
        let collection = format!("{root}{place}/{}", resource.plural);
        // The golden namespace is not the one of the path.
        let mut plain = object.clone();
        plain["metadata"]["namespace"] = if resource.namespaced { "default".into() } else { Value::Null };
        plain["metadata"]["name"] = "golden".into();
        // A binding to something that is no node is upstream's one 500 for what a client sends.
        let held = |answer: &Answer| {
            answer.code < 500
                || kind == "Binding" && answer.message().starts_with("target.kind: Unsupported value: \"kindValue\"")
        };
        let answer = server.post(&format!("{collection}?dryRun=All"), &plain).await;
        assert!(held(&answer), "{collection}: {}", answer.text);
        let binary = std::fs::read(path.with_extension("pb")).unwrap();
        let answer = server
            .ask("POST", &format!("{collection}?dryRun=All"), "application/vnd.kubernetes.protobuf", binary)
            .await;
        assert!(held(&answer), "{collection}: {}", answer.text);
        let named = format!("{collection}/golden");
        let mut patch = serde_json::json!({"metadata": {"labels": {"a": "b"}}, "apiVersion": version, "kind": kind});
        if let Some(spec) = plain.get("spec") {
            patch["spec"] = spec.clone();
        }
        for content_type in
            ["application/merge-patch+json", "application/strategic-merge-patch+json", "application/apply-patch+yaml"]
        {
            let query = if content_type.contains("apply") { "?fieldManager=x&dryRun=All" } else { "" };
            let answer = server.ask("PATCH", &format!("{named}{query}"), content_type, patch.to_string()).await;
            assert!(answer.code < 500, "{named} {content_type}: {}", answer.text);
        }
        tried += 1;
    }
    assert!(tried > 60, "only {tried} golden objects found their resource");
}
