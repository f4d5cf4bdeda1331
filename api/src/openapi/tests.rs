use std::path::PathBuf;

use super::*;

fn shared() -> Option<PathBuf> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let named = std::env::var_os("KEELSON_SHARED").map(PathBuf::from);
    let found = named.into_iter().chain([root.join("../shared"), root.join("../../shared")]).find(|path| path.is_dir());
    if found.is_none() {
        println!("skipped: needs ../shared");
    }
    found.map(|shared| shared.join("spec/openapi"))
}

fn server() -> OpenApi {
    let rows = table().resources().iter().filter(|row| row.enabled_by_default).cloned().collect();
    OpenApi::new(rows, Vec::new())
}

fn v3(server: &OpenApi, name: &str) -> Value {
    let json = server.v3_json(name).unwrap_or_else(|| panic!("{name} is not published"));
    serde_json::from_slice(&json).expect("documents are JSON")
}

fn read(path: PathBuf) -> Value {
    let text = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&text).expect("recorded documents are JSON")
}

/// Without descriptions, which are compared by themselves, and without the `allOf` that a reference
/// needs only because a description stands beside it.
fn bare(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|key, value| !(key == "description" && value.is_string()));
            map.values_mut().for_each(bare);
            if map.len() == 1
                && let Some(Value::Array(all)) = map.get_mut("allOf")
                && let (1, Some(Value::Object(only))) = (all.len(), all.pop())
            {
                *map = only;
            }
        }
        Value::Array(items) => items.iter_mut().for_each(bare),
        _ => {}
    }
}

/// Where two trees differ, up to a few places.
fn differences(path: &str, wanted: &Value, got: &Value, out: &mut Vec<String>) {
    match (wanted, got) {
        (Value::Object(a), Value::Object(b)) => {
            for key in a.keys().chain(b.keys().filter(|key| !a.contains_key(*key))) {
                match (a.get(key), b.get(key)) {
                    (Some(x), Some(y)) => differences(&format!("{path} {key}"), x, y, out),
                    (Some(x), None) => out.push(format!("{path} {key}: missing {x}")),
                    (None, y) => out.push(format!("{path} {key}: not in upstream's: {}", y.unwrap_or(&Value::Null))),
                }
            }
        }
        _ if wanted == got => {}
        _ => out.push(format!("{path}: wanted {wanted}, got {got}")),
    }
}

#[test]
fn v3_equals_upstream_but_for_descriptions() {
    let Some(spec) = shared() else { return };
    let server = server();
    let mut wrong = Vec::new();
    for name in server.names() {
        let mut wanted = read(spec.join("v3").join(format!("{}.json", name.replace('/', "__"))));
        let mut got = v3(&server, &name);
        bare(&mut wanted);
        bare(&mut got);
        differences(&name, &wanted, &got, &mut wrong);
    }
    let report: String = wrong.iter().take(60).map(|line| format!("{}\n", &line[..line.len().min(400)])).collect();
    assert!(wrong.is_empty(), "{} differences:\n{report}", wrong.len());
}

#[test]
fn v3_index_names_upstreams_documents() {
    let Some(spec) = shared() else { return };
    let index = server().v3_index();
    let names = |value: &Value| value["paths"].as_object().map(|map| map.keys().cloned().collect::<Vec<_>>());
    assert_eq!(names(&index), names(&read(spec.join("v3/index.json"))));
}

#[test]
fn v2_definitions_equal_upstream_but_for_descriptions() {
    let Some(spec) = shared() else { return };
    let mut wanted = read(spec.join("swagger.json"));
    let mut got = serde_json::from_slice::<Value>(&server().v2_json()).expect("documents are JSON");
    bare(&mut wanted);
    bare(&mut got);
    let mut wrong = Vec::new();
    differences("definitions", &wanted["definitions"], &got["definitions"], &mut wrong);
    let paths = |value: &Value| -> Vec<String> {
        value["paths"].as_object().map_or_else(Vec::new, |map| map.keys().cloned().collect())
    };
    assert_eq!(paths(&wanted), paths(&got));
    let report: String = wrong.iter().take(60).map(|line| format!("{}\n", &line[..line.len().min(400)])).collect();
    assert!(wrong.is_empty(), "{} differences:\n{report}", wrong.len());
}

#[test]
fn most_descriptions_are_upstreams() {
    let Some(spec) = shared() else { return };
    let wanted = read(spec.join("v3/api__v1.json"));
    let got = v3(&server(), "api/v1");
    let (mut same, mut all) = (0, 0);
    for (name, schema) in wanted["components"]["schemas"].as_object().expect("schemas") {
        for (field, property) in schema["properties"].as_object().into_iter().flatten() {
            if property["description"].is_string() {
                all += 1;
                let ours = &got["components"]["schemas"][name]["properties"][field]["description"];
                same += usize::from(*ours == property["description"]);
            }
        }
    }
    assert!(same * 100 >= all * 90, "{same} of {all} field descriptions are upstream's");
}

#[test]
fn documents_are_built_once_and_hashed() {
    let server = server();
    let first = server.v3("apis/apps/v1").expect("apps is enabled");
    let second = server.v3("apis/apps/v1").expect("apps is enabled");
    assert!(Arc::ptr_eq(&first, &second));
    assert_eq!(first.etag, format!("\"{}\"", server.hash("apis/apps/v1")));
    assert_eq!(first.etag.len(), 130);
    assert!(server.v3("apis/apps/v9").is_none());
    assert_ne!(server.hash("apis/apps/v1"), server.hash("apis/batch/v1"));
}

#[test]
fn custom_resources_are_published() {
    let mut row = table().find_resource("apps", "v1", "deployments").expect("built in").clone();
    row.group = "example.com".into();
    row.plural = "widgets".into();
    row.kind = "Widget".into();
    row.list_kind = "WidgetList".into();
    row.custom = true;
    row.subresources.clear();
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object"}}});
    let server = OpenApi::new(Vec::new(), vec![Custom { row, schema }]);
    assert!(server.names().contains(&"apis/example.com/v1".to_owned()));
    let document = v3(&server, "apis/example.com/v1");
    let schemas = &document["components"]["schemas"];
    assert_eq!(schemas["com.example.v1.Widget"]["x-kubernetes-group-version-kind"][0]["kind"], "Widget");
    assert!(document["paths"]["/apis/example.com/v1/namespaces/{namespace}/widgets/{name}"]["patch"].is_object());
    assert!(schemas["io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"].is_object());
}
