use std::collections::BTreeSet;
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

/// What is known to differ: place, reason.
const DIFFERENCES: &str = include_str!("differences.txt");

/// Checks that what differs is what is listed, no more and no less.
fn explained(wrong: &[String]) {
    let place = |line: &str| line.split(": ").next().unwrap_or_default().to_owned();
    let listed: BTreeSet<String> = DIFFERENCES
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(|line| line.split('\t').next().unwrap_or_default().to_owned())
        .collect();
    let found: BTreeSet<String> = wrong.iter().map(|line| place(line)).collect();
    let unknown: Vec<&String> = wrong.iter().filter(|line| !listed.contains(&place(line))).collect();
    let report: String = unknown.iter().take(200).map(|line| format!("{}\n", clipped(line))).collect();
    assert!(unknown.is_empty(), "{} differences without a reason:\n{report}", unknown.len());
    let gone: Vec<&String> = listed.difference(&found).collect();
    assert!(gone.is_empty(), "listed, but equal: {gone:?}");
}

fn clipped(line: &str) -> String {
    line.chars().take(300).collect()
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
fn documents_equal_upstream() {
    let Some(spec) = shared() else { return };
    let server = server();
    let mut wrong = Vec::new();
    for name in server.names() {
        let wanted = read(spec.join("v3").join(format!("{}.json", name.replace('/', "__"))));
        let got = v3(&server, &name);
        // The same types are in many documents: their differences are named by the type alone.
        differences("", &wanted["components"]["schemas"], &got["components"]["schemas"], &mut wrong);
        let rest = |mut document: Value| {
            if let Some(components) = document["components"].as_object_mut() {
                components.remove("schemas");
            }
            document
        };
        differences(&name, &rest(wanted), &rest(got), &mut wrong);
    }
    let mut wanted = read(spec.join("swagger.json"));
    let mut got = serde_json::from_slice::<Value>(&server.v2_json()).expect("documents are JSON");
    differences("", &wanted["definitions"], &got["definitions"], &mut wrong);
    for document in [&mut wanted, &mut got] {
        document.as_object_mut().expect("an object").remove("definitions");
        in_any_order(document);
    }
    differences("v2", &wanted, &got, &mut wrong);
    explained(&wrong);
}

/// Lists that are sets: parameters, and upstream's media types and schemes.
fn in_any_order(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (key, value) in map.iter_mut() {
                in_any_order(value);
                if let (true, Value::Array(items)) =
                    (matches!(key.as_str(), "parameters" | "consumes" | "produces"), value)
                {
                    items.sort_by_key(Value::to_string);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(in_any_order),
        _ => {}
    }
}

#[test]
fn v3_index_names_upstreams_documents() {
    let Some(spec) = shared() else { return };
    let index = server().v3_index();
    let names = |value: &Value| value["paths"].as_object().map(|map| map.keys().cloned().collect::<Vec<_>>());
    assert_eq!(names(&index), names(&read(spec.join("v3/index.json"))));
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

fn widgets(schema: Value) -> Custom {
    let mut row = table().find_resource("apps", "v1", "deployments").expect("built in").clone();
    row.group = "example.com".into();
    row.plural = "widgets".into();
    row.kind = "Widget".into();
    row.list_kind = "WidgetList".into();
    row.custom = true;
    row.subresources.retain(|subresource| subresource.name == "status");
    for subresource in &mut row.subresources {
        subresource.group = "example.com".into();
        subresource.kind = "Widget".into();
    }
    Custom {
        row,
        revision: schema.to_string(),
        schema: Arc::new(move || Some(schema.clone())),
        selectable_fields: vec!["spec.color".to_owned()],
        preserve_unknown_fields: false,
    }
}

#[test]
fn custom_resources_are_published() {
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "nullable": true}}});
    let server = OpenApi::new(Vec::new(), vec![widgets(schema)]);
    assert!(server.names().contains(&"apis/example.com/v1".to_owned()));
    let document = v3(&server, "apis/example.com/v1");
    let schemas = &document["components"]["schemas"];
    let widget = &schemas["com.example.v1.Widget"];
    assert_eq!(widget["x-kubernetes-group-version-kind"][0]["kind"], "Widget");
    assert_eq!(widget["x-kubernetes-selectable-fields"], json!([{"fieldPath": "spec.color"}]));
    assert_eq!(widget["properties"]["spec"], json!({"type": "object", "nullable": true}));
    assert!(widget["properties"]["kind"]["description"].is_string());
    let path = &document["paths"]["/apis/example.com/v1/namespaces/{namespace}/widgets/{name}"];
    assert_eq!(path["patch"]["operationId"], "patchExampleComV1NamespacedWidget");
    let media: Vec<&String> = path["patch"]["requestBody"]["content"].as_object().expect("a body").keys().collect();
    assert!(!media.iter().any(|media| media.contains("strategic")), "{media:?}");
    assert_eq!(
        path["put"]["requestBody"]["content"]["application/yaml"]["schema"]["$ref"],
        "#/components/schemas/com.example.v1.Widget"
    );
    for kind in ["ObjectMeta", "ListMeta", "DeleteOptions", "Status"] {
        assert!(schemas[format!("io.k8s.apimachinery.pkg.apis.meta.v1.{kind}")].is_object(), "{kind}");
    }
    assert_eq!(
        schemas["com.example.v1.WidgetList"]["properties"]["items"]["items"]["$ref"],
        "#/components/schemas/com.example.v1.Widget"
    );

    let swagger: Value = serde_json::from_slice(&server.v2_json()).expect("documents are JSON");
    assert_eq!(swagger["definitions"]["com.example.v1.Widget"]["properties"]["spec"], json!({}));
    assert!(swagger["paths"]["/apis/example.com/v1/widgets"]["get"].is_object());
}

#[test]
fn only_what_changed_is_built_again() {
    let first = OpenApi::new(table().resources().to_vec(), vec![widgets(json!({"type": "object"}))]);
    let (apps, widget, swagger) = (first.v3("apis/apps/v1"), first.v3("apis/example.com/v1"), first.v2());
    let same = first.renewed(vec![widgets(json!({"type": "object"}))], Vec::new());
    assert!(Arc::ptr_eq(&same.v2(), &swagger));
    let second = first.renewed(vec![widgets(json!({"type": "object", "description": "new"}))], Vec::new());
    assert!(Arc::ptr_eq(&second.v3("apis/apps/v1").expect("built in"), &apps.expect("built in")));
    assert_ne!(second.v3("apis/example.com/v1").expect("custom").etag, widget.expect("custom").etag);
    assert_ne!(second.v2().etag, swagger.etag);
    let third = second.renewed(Vec::new(), Vec::new());
    assert!(third.v3("apis/example.com/v1").is_none());
}
