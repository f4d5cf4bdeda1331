//! OpenAPI v3 of extension servers that only have v2: their Swagger document in the other form, as far as it goes.
//!
//! Loses what upstream's conversion (kube-openapi's `openapiconv`) loses: security, and whether a body is required.

use serde_json::{Map, Value, json};

/// A Swagger document as OpenAPI 3.0.
pub fn convert(swagger: &Value) -> Value {
    let mut out = json!({"openapi": "3.0.0", "info": swagger["info"]});
    copy(swagger, &mut out, &["externalDocs"]);
    if let Some(paths) = swagger.get("paths").and_then(Value::as_object) {
        let convert = |(name, item): (&String, &Value)| match name.starts_with("x-") {
            true => (name.clone(), item.clone()),
            false => (name.clone(), path_item(item)),
        };
        out["paths"] = paths.iter().map(convert).collect::<Map<_, _>>().into();
    }
    let mut components = Map::new();
    let mut section = |from: &str, to: &str, convert: &dyn Fn(&Value) -> Value| {
        if let Some(members) = swagger.get(from).and_then(Value::as_object).filter(|members| !members.is_empty()) {
            let converted = members.iter().map(|(name, value)| (name.clone(), convert(value))).collect();
            components.insert(to.to_string(), Value::Object(converted));
        }
    };
    section("definitions", "schemas", &schema);
    section("securityDefinitions", "securitySchemes", &security_scheme);
    section("responses", "responses", &|value| response(value, swagger.get("produces")));
    out["components"] = Value::Object(components);
    out
}

/// Copies members of these names, and all extensions.
fn copy(from: &Value, to: &mut Value, names: &[&str]) {
    for (name, value) in from.as_object().into_iter().flatten() {
        if names.contains(&name.as_str()) || name.starts_with("x-") {
            to[name] = value.clone();
        }
    }
}

fn reference(from: &Value, to: &mut Value, section: &str) {
    if let Some(text) = from.get("$ref").and_then(Value::as_str) {
        let moved = text.replacen(&format!("#/{section}/"), &format!("#/components/{section}/"), 1);
        to["$ref"] = moved.into();
    }
}

fn path_item(item: &Value) -> Value {
    let mut out = json!({});
    copy(item, &mut out, &["$ref"]);
    for method in ["get", "put", "post", "delete", "options", "head", "patch"] {
        if let Some(value) = item.get(method) {
            out[method] = operation(value);
        }
    }
    if let Some(parameters) = item.get("parameters").and_then(Value::as_array) {
        out["parameters"] = parameters.iter().map(parameter).collect();
    }
    out
}

fn operation(value: &Value) -> Value {
    let mut out = json!({});
    copy(value, &mut out, &["description", "externalDocs", "tags", "summary", "deprecated", "operationId"]);
    let mut parameters = Vec::new();
    for each in value.get("parameters").and_then(Value::as_array).into_iter().flatten() {
        match each.get("schema") {
            Some(body) if each["name"] == "body" => {
                out["requestBody"] = json!({});
                if let Some(content) = content(value.get("consumes"), body) {
                    out["requestBody"]["content"] = content;
                }
            }
            _ => parameters.push(parameter(each)),
        }
    }
    if !parameters.is_empty() {
        out["parameters"] = parameters.into();
    }
    let mut responses = Map::new();
    for (code, each) in value.get("responses").and_then(Value::as_object).into_iter().flatten() {
        let converted = if code.starts_with("x-") { each.clone() } else { response(each, value.get("produces")) };
        responses.insert(code.clone(), converted);
    }
    out["responses"] = responses.into();
    out
}

/// The schema under each media type; `None` where none is named.
fn content(types: Option<&Value>, of: &Value) -> Option<Value> {
    let types = types?.as_array()?;
    let entries = types.iter().filter_map(Value::as_str).map(|name| (name.to_string(), json!({"schema": schema(of)})));
    Some(entries.collect::<Map<_, _>>().into())
}

fn response(value: &Value, produces: Option<&Value>) -> Value {
    let mut out = json!({});
    copy(value, &mut out, &["description"]);
    reference(value, &mut out, "responses");
    if let Some(content) = value.get("schema").and_then(|of| content(produces, of)) {
        out["content"] = content;
    }
    out
}

fn parameter(value: &Value) -> Value {
    let mut out = json!({});
    copy(value, &mut out, &["name", "description", "in", "required", "allowEmptyValue"]);
    reference(value, &mut out, "parameters");
    out["schema"] = match value.get("schema") {
        Some(of) => schema(of),
        // What stood beside the parameter's name moves into a schema.
        None => {
            let mut of = json!({"type": value.get("type").cloned().unwrap_or_else(|| "".into())});
            for name in ["format", "uniqueItems"] {
                if let Some(value) = value.get(name).filter(|value| **value != false && **value != "") {
                    of[name] = value.clone();
                }
            }
            of
        }
    };
    out
}

fn security_scheme(value: &Value) -> Value {
    let mut out = json!({});
    copy(value, &mut out, &["description", "type", "name", "in"]);
    if let Some(flow) = value.get("flow").and_then(Value::as_str).filter(|flow| !flow.is_empty()) {
        let mut details = json!({});
        copy(value, &mut details, &["authorizationUrl", "tokenUrl", "scopes"]);
        out["flows"] = json!({flow: details});
    }
    out
}

/// A schema with its references moved.
fn schema(value: &Value) -> Value {
    let mut out = value.clone();
    move_references(&mut out);
    wrap_references(&mut out);
    out
}

/// Not within `allOf` and its like: upstream passes these by.
fn move_references(value: &mut Value) {
    let Some(map) = value.as_object_mut() else { return };
    if let Some(Value::String(reference)) = map.get_mut("$ref")
        && let Some((_, name)) = reference.split_once("#/definitions/")
    {
        *reference = format!("#/components/schemas/{name}");
    }
    if let Some(Value::Object(properties)) = map.get_mut("properties") {
        properties.values_mut().for_each(move_references);
    }
    for name in ["items", "additionalProperties", "additionalItems"] {
        match map.get_mut(name) {
            Some(Value::Array(items)) => items.iter_mut().for_each(move_references),
            Some(inner) => move_references(inner),
            None => {}
        }
    }
}

/// In OpenAPI 3.0 nothing stands beside a reference: what does goes around it.
fn wrap_references(value: &mut Value) {
    let Some(map) = value.as_object_mut() else { return };
    for name in ["properties", "patternProperties", "definitions"] {
        if let Some(Value::Object(members)) = map.get_mut(name) {
            members.values_mut().for_each(wrap_references);
        }
    }
    for name in ["items", "additionalProperties", "additionalItems", "allOf", "anyOf", "oneOf", "not"] {
        match map.get_mut(name) {
            Some(Value::Array(items)) => items.iter_mut().for_each(wrap_references),
            Some(inner) => wrap_references(inner),
            None => {}
        }
    }
    if map.len() > 1
        && let Some(reference) = map.remove("$ref")
    {
        map.insert("allOf".to_string(), json!([{"$ref": reference}]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_finds_its_place() {
        let swagger = json!({
            "swagger": "2.0",
            "info": {"title": "t", "version": "1"},
            "paths": {"/apis/a/v1/things": {
                "parameters": [{"name": "pretty", "in": "query", "type": "string", "uniqueItems": true}],
                "post": {
                    "operationId": "create", "consumes": ["*/*"], "produces": ["application/json"], "schemes": ["https"],
                    "parameters": [
                        {"name": "body", "in": "body", "required": true, "schema": {"$ref": "#/definitions/a"}},
                        {"$ref": "#/parameters/p"},
                    ],
                    "responses": {"201": {"description": "Created", "schema": {"$ref": "#/definitions/a"}}},
                    "x-kubernetes-action": "post",
                },
            }},
            "definitions": {"a": {
                "type": "object",
                "properties": {
                    "one": {"description": "d", "$ref": "#/definitions/b"},
                    "many": {"type": "array", "items": {"$ref": "#/definitions/b"}},
                },
                "additionalProperties": {"$ref": "#/definitions/b"},
            }},
            "securityDefinitions": {"BearerToken": {"type": "apiKey", "name": "authorization", "in": "header"}},
        });
        let b = json!({"$ref": "#/components/schemas/b"});
        let a = json!({"schema": {"$ref": "#/components/schemas/a"}});
        assert_eq!(
            convert(&swagger),
            json!({
                "openapi": "3.0.0",
                "info": {"title": "t", "version": "1"},
                "paths": {"/apis/a/v1/things": {
                    "parameters": [{"name": "pretty", "in": "query", "schema": {"type": "string", "uniqueItems": true}}],
                    "post": {
                        "operationId": "create",
                        "requestBody": {"content": {"*/*": a}},
                        "parameters": [{"$ref": "#/components/parameters/p", "schema": {"type": ""}}],
                        "responses": {"201": {"description": "Created", "content": {"application/json": a}}},
                        "x-kubernetes-action": "post",
                    },
                }},
                "components": {
                    "schemas": {"a": {
                        "type": "object",
                        "properties": {
                            "one": {"description": "d", "allOf": [b]},
                            "many": {"type": "array", "items": b},
                        },
                        "additionalProperties": b,
                    }},
                    "securitySchemes": {"BearerToken": {"type": "apiKey", "name": "authorization", "in": "header"}},
                },
            })
        );
    }
}
