//! Operations written as the `paths` of a document.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::operations::{Body, Content, Operation, Parameter, Produces};
use super::schemas::{Dialect, PATCH, Schemas};

const PATCHES: [&str; 4] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];

pub(super) fn bearer_token() -> Value {
    json!({"BearerToken": {
        "description": "Bearer Token authentication",
        "in": "header",
        "name": "authorization",
        "type": "apiKey",
    }})
}

/// Groups operations by path. Parameters that all operations of a path share are the path's.
pub(super) fn paths(
    dialect: Dialect,
    operations: Vec<Operation>,
    schemas: &mut Schemas<'_>,
) -> BTreeMap<String, Vec<u8>> {
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
            item.insert(operation.method.to_owned(), self::operation(dialect, &operation, schemas));
        }
        if !shared.is_empty() {
            item.insert("parameters".to_owned(), parameters(dialect, shared));
        }
        out.insert(path, serde_json::to_vec(&item).expect("a tree is always JSON"));
    }
    out
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
                out.insert("requestBody".to_owned(), request_body(body, schemas));
            }
        }
        Dialect::V2 => {
            if let (Some(body), Value::Array(list)) = (&operation.body, &mut list) {
                list.insert(0, body_parameter(body, schemas));
            }
            let consumes = match (&operation.body, operation.produces) {
                (Some(Body::Patch), _) => json!(PATCHES),
                (None, Produces::Object) if operation.action.is_none() => json!(produces),
                (None, Produces::Json | Produces::KeySet) => json!(["application/json"]),
                _ => json!(["*/*"]),
            };
            out.insert("consumes".to_owned(), consumes);
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

fn request_body(body: &Body, schemas: &mut Schemas<'_>) -> Value {
    match body {
        Body::Whole { schema, required } => {
            let mut out = json!({"content": {"*/*": {"schema": schemas.reference(schema)}}});
            if *required {
                out["required"] = json!(true);
            }
            out
        }
        Body::Patch => {
            let schema = schemas.reference(PATCH);
            let content: Map<String, Value> =
                PATCHES.iter().map(|media| ((*media).to_owned(), json!({"schema": schema}))).collect();
            json!({"content": content, "required": true})
        }
    }
}

fn body_parameter(body: &Body, schemas: &mut Schemas<'_>) -> Value {
    let (schema, required) = match body {
        Body::Whole { schema, required } => (schema.as_str(), *required),
        Body::Patch => (PATCH, true),
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
