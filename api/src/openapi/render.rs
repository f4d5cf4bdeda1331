//! Operations written as the `paths` of a document.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use serde_json::{Map, Value, json};

use super::operations::{Body, Content, Operation, Parameter, Produces};
use super::schemas::{Dialect, PATCH, Schemas};

const PATCHES: [&str; 4] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];

/// Custom resources know no strategic merge.
const CUSTOM_PATCHES: [&str; 3] =
    ["application/json-patch+json", "application/merge-patch+json", "application/apply-patch+yaml"];

pub(super) fn bearer_token() -> Value {
    json!({"BearerToken": {
        "description": "Bearer Token authentication",
        "in": "header",
        "name": "authorization",
        "type": "apiKey",
    }})
}

/// Groups operations by path. Parameters that all operations of a path share are the path's; in Swagger,
/// parameters that say nothing of their path's kind are references into the second map.
pub(super) fn paths(
    dialect: Dialect,
    operations: Vec<Operation>,
    schemas: &mut Schemas<'_>,
) -> (BTreeMap<String, Vec<u8>>, BTreeMap<String, Vec<u8>>) {
    let mut known = BTreeMap::new();
    let mut by_path: BTreeMap<String, Vec<Operation>> = BTreeMap::new();
    for operation in operations {
        by_path.entry(operation.path.clone()).or_default().push(operation);
    }
    let mut out = BTreeMap::new();
    for (path, operations) in by_path {
        let shared: Vec<Parameter> = operations[0]
            .parameters
            .iter()
            .filter(|parameter| operations.iter().all(|operation| operation.parameters.contains(parameter)))
            .cloned()
            .collect();
        let mut item = Map::new();
        for mut operation in operations {
            operation.parameters.retain(|parameter| !shared.contains(parameter));
            let mut rendered = self::operation(dialect, &operation, schemas);
            if let (Dialect::V2, Some(list)) = (dialect, rendered.get_mut("parameters")) {
                share(list, &mut known);
            }
            item.insert(operation.method.to_owned(), rendered);
        }
        if !shared.is_empty() {
            let mut list = parameters(dialect, shared);
            if dialect == Dialect::V2 {
                share(&mut list, &mut known);
            }
            item.insert("parameters".to_owned(), list);
        }
        out.insert(path, serde_json::to_vec(&item).expect("a tree is always JSON"));
    }
    (out, known)
}

/// Replaces parameters by references to shared ones, except those of which upstream keeps a copy in each
/// operation: names, bodies of a kind, and two that kubectl looks for.
fn share(list: &mut Value, known: &mut BTreeMap<String, Vec<u8>>) {
    for parameter in list.as_array_mut().into_iter().flatten() {
        let name = parameter["name"].as_str().unwrap_or_default();
        let query = parameter["in"] == "query";
        let of_kind = parameter
            .pointer("/schema/$ref")
            .and_then(Value::as_str)
            .is_some_and(|reference| !reference.starts_with("#/definitions/io.k8s.apimachinery"));
        if name == "name" || (query && matches!(name, "fieldValidation" | "dryRun")) || of_kind {
            continue;
        }
        let json = in_order(parameter);
        let key = format!("{name}-{}", hash(json.as_bytes()));
        let reference = json!({"$ref": format!("#/parameters/{key}")});
        known.entry(key).or_insert_with(|| parameter.to_string().into_bytes());
        *parameter = reference;
    }
}

/// A parameter with its members in the order in which upstream hashes them.
fn in_order(parameter: &Value) -> String {
    const ORDER: [&str; 7] = ["uniqueItems", "type", "description", "name", "in", "required", "schema"];
    let members: Vec<String> =
        ORDER.into_iter().filter_map(|key| Some(format!("\"{key}\":{}", parameter.get(key)?))).collect();
    format!("{{{}}}", members.join(","))
}

/// Six bytes of FNV-1 in eight characters, upstream's names of shared parameters.
fn hash(bytes: &[u8]) -> String {
    let hash = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| hash.wrapping_mul(0x100_0000_01b3) ^ u64::from(*byte));
    URL_SAFE.encode(&hash.to_be_bytes()[..6])
}

/// An object put together from members that are JSON already.
#[derive(Default)]
pub(super) struct Writer {
    json: Vec<u8>,
}

impl Writer {
    /// Adds a member.
    pub(super) fn member(&mut self, name: &str, json: &[u8]) {
        self.json.push(if self.json.is_empty() { b'{' } else { b',' });
        serde_json::to_writer(&mut self.json, name).expect("writing to memory does not fail");
        self.json.push(b':');
        self.json.extend_from_slice(json);
    }

    /// Adds a small member that is a tree.
    pub(super) fn value(&mut self, name: &str, value: &Value) {
        self.member(name, value.to_string().as_bytes());
    }

    /// Adds an object of members that are JSON already.
    pub(super) fn members(&mut self, name: &str, members: BTreeMap<String, Vec<u8>>) {
        let mut inner = Writer::default();
        for (name, json) in members {
            inner.member(&name, &json);
        }
        self.member(name, &inner.finish());
    }

    /// The object.
    pub(super) fn finish(mut self) -> Vec<u8> {
        if self.json.is_empty() {
            self.json.push(b'{');
        }
        self.json.push(b'}');
        self.json
    }
}

fn operation(dialect: Dialect, operation: &Operation, schemas: &mut Schemas<'_>) -> Value {
    let mut out = Map::new();
    out.insert("operationId".to_owned(), json!(operation.id));
    out.insert("description".to_owned(), json!(operation.description));
    out.insert("tags".to_owned(), json!([operation.tag]));
    if let Some(action) = operation.action {
        out.insert("x-kubernetes-action".to_owned(), json!(action));
    }
    if let Some((group, version, kind)) = &operation.kind {
        let kind = json!({"group": group, "version": version, "kind": kind});
        out.insert("x-kubernetes-group-version-kind".to_owned(), kind);
    }
    let mut list = parameters(dialect, operation.parameters.clone());
    let produces = media_types(operation.produces);
    match dialect {
        Dialect::V3 => {
            if let Some(body) = &operation.body {
                out.insert("requestBody".to_owned(), request_body(body, operation.produces, schemas));
            }
        }
        Dialect::V2 => {
            if let (Some(body), Value::Array(list)) = (&operation.body, &mut list) {
                list.insert(0, body_parameter(body, schemas));
            }
            let consumes = match (&operation.body, operation.produces) {
                (Some(Body::CustomPatch), _) => json!(CUSTOM_PATCHES),
                (_, Produces::Custom) => json!(produces),
                (Some(Body::Patch), _) => json!(PATCHES),
                (None, Produces::Object) if operation.action.is_none() => json!(produces),
                (None, Produces::Json) if operation.tag == "version" => json!(["application/json"]),
                (None, Produces::Json | Produces::KeySet) => Value::Null,
                _ => json!(["*/*"]),
            };
            if !consumes.is_null() {
                out.insert("consumes".to_owned(), consumes);
            }
            out.insert("produces".to_owned(), json!(produces));
            out.insert("schemes".to_owned(), json!(["https"]));
        }
    }
    if list.as_array().is_some_and(|list| !list.is_empty()) {
        out.insert("parameters".to_owned(), list);
    }
    let responses: Map<String, Value> = operation
        .responses
        .iter()
        .map(|(status, meaning, content)| {
            ((*status).to_owned(), response(dialect, meaning, content, &produces, schemas))
        })
        .collect();
    out.insert("responses".to_owned(), Value::Object(responses));
    Value::Object(out)
}

fn response(dialect: Dialect, meaning: &str, content: &Content, produces: &[&str], schemas: &mut Schemas<'_>) -> Value {
    let schema = match content {
        Content::None => return json!({"description": meaning}),
        Content::Schema(name) => schemas.reference(name),
        Content::Text => json!({"type": "string"}),
    };
    match dialect {
        Dialect::V2 => json!({"description": meaning, "schema": schema}),
        Dialect::V3 => {
            let content: Map<String, Value> =
                produces.iter().map(|media| ((*media).to_owned(), json!({"schema": schema}))).collect();
            json!({"description": meaning, "content": content})
        }
    }
}

fn media_types(produces: Produces) -> Vec<&'static str> {
    let objects = ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];
    match produces {
        Produces::Object => objects.to_vec(),
        Produces::Custom => objects[..2].to_vec(),
        Produces::Stream => {
            [&objects[..], &["application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch"]]
                .concat()
        }
        Produces::Log => [&["text/plain"], &objects[..]].concat(),
        Produces::Any => vec!["*/*"],
        Produces::Json => vec!["application/json"],
        Produces::KeySet => vec!["application/jwk-set+json"],
    }
}

fn request_body(body: &Body, produces: Produces, schemas: &mut Schemas<'_>) -> Value {
    let (schema, required, media): (&str, bool, &[&str]) = match body {
        Body::Whole { schema, required } if produces == Produces::Custom => {
            (schema, *required, &["application/json", "application/yaml"])
        }
        Body::Whole { schema, required } => (schema, *required, &["*/*"]),
        Body::Patch => (PATCH, true, &PATCHES),
        Body::CustomPatch => (PATCH, true, &CUSTOM_PATCHES),
    };
    let schema = schemas.reference(schema);
    let content: Map<String, Value> =
        media.iter().map(|media| ((*media).to_owned(), json!({"schema": schema}))).collect();
    let mut out = json!({"content": content});
    if required {
        out["required"] = json!(true);
    }
    out
}

fn body_parameter(body: &Body, schemas: &mut Schemas<'_>) -> Value {
    let (schema, required) = match body {
        Body::Whole { schema, required } => (schema.as_str(), *required),
        Body::Patch | Body::CustomPatch => (PATCH, true),
    };
    let mut out = json!({"in": "body", "name": "body", "schema": schemas.reference(schema)});
    if required {
        out["required"] = json!(true);
    }
    out
}

fn parameters(dialect: Dialect, mut list: Vec<Parameter>) -> Value {
    list.sort_by(|a, b| a.name.cmp(&b.name).then(a.place.cmp(b.place)));
    list.into_iter()
        .map(|parameter| {
            let mut out = Map::new();
            out.insert("name".to_owned(), json!(parameter.name));
            out.insert("in".to_owned(), json!(parameter.place));
            if parameter.place == "path" {
                out.insert("required".to_owned(), json!(true));
            }
            if let Some(description) = parameter.description {
                out.insert("description".to_owned(), json!(description));
            }
            match dialect {
                Dialect::V2 => {
                    out.insert("type".to_owned(), json!(parameter.ty));
                    out.insert("uniqueItems".to_owned(), json!(true));
                }
                Dialect::V3 => {
                    out.insert("schema".to_owned(), json!({"type": parameter.ty, "uniqueItems": true}));
                }
            }
            Value::Object(out)
        })
        .collect()
}
