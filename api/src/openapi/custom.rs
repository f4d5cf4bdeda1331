//! Custom resources in OpenAPI: the schema of a CustomResourceDefinition's version as it is published.
//!
//! Version 3 shows the structural schema as it is; version 2 leaves out what Swagger cannot say and
//! what kubectl's validation of old would trip over.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::descriptions::descriptions;
use super::schema_name;
use super::schemas::{Dialect, Schemas};
use crate::Resource;

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
const CONVENTIONS: &str = "https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md";

/// Gives a version's `openAPIV3Schema`, when a document is made of it: schemas are large, and most
/// documents are never asked for.
pub type SchemaSource = Arc<dyn Fn() -> Option<Value> + Send + Sync>;

/// One served version of a custom resource.
#[derive(Clone)]
pub struct Custom {
    pub row: Resource,
    /// Changes whenever the schema does.
    pub revision: String,
    pub schema: SchemaSource,
    /// Paths of `selectableFields`, without the leading dot.
    pub selectable_fields: Vec<String>,
    /// The definition's own `preserveUnknownFields`, from before schemas were structural.
    pub preserve_unknown_fields: bool,
}

impl fmt::Debug for Custom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Custom").field("row", &self.row.qualified()).field("revision", &self.revision).finish()
    }
}

/// Adds the kind, its list, and what both refer to.
pub(super) fn insert(
    dialect: Dialect,
    custom: &Custom,
    schemas: &mut Schemas<'_>,
    out: &mut BTreeMap<String, Vec<u8>>,
) {
    let row = &custom.row;
    let name = schema_name(&row.group, &row.version, &row.kind);
    let list = schema_name(&row.group, &row.version, &row.list_kind);
    for kind in ["ObjectMeta", "ListMeta"] {
        schemas.reference(&format!("{META}.{kind}"));
    }
    schemas.given(&name);
    schemas.given(&list);
    out.insert(list, self::list(dialect, custom, &name).to_string().into_bytes());
    out.insert(name, kind(dialect, custom).to_string().into_bytes());
}

fn extensions(custom: &Custom, kind: &str, schema: &mut Value) {
    let row = &custom.row;
    schema["x-kubernetes-group-version-kind"] = json!([{"group": row.group, "version": row.version, "kind": kind}]);
    if !custom.selectable_fields.is_empty() {
        schema["x-kubernetes-selectable-fields"] =
            custom.selectable_fields.iter().map(|path| json!({"fieldPath": path})).collect();
    }
}

fn kind(dialect: Dialect, custom: &Custom) -> Value {
    let schema = (custom.schema)().filter(Value::is_object);
    let mut out = match schema {
        Some(schema) if dialect == Dialect::V3 || !(is_true(&schema, PRESERVE) || custom.preserve_unknown_fields) => {
            let mut out = published(dialect, schema);
            let metadata = described(dialect, "ObjectMeta", OBJECT_METADATA);
            properties(&mut out).insert("metadata".to_owned(), metadata);
            type_meta(&mut out);
            embedded(dialect, &mut out);
            out
        }
        // More properties would have kubectl refuse every other field.
        _ => json!({"type": "object"}),
    };
    extensions(custom, &custom.row.kind, &mut out);
    out
}

fn list(dialect: Dialect, custom: &Custom, item: &str) -> Value {
    let row = &custom.row;
    let mut out = json!({
        "type": "object",
        "description": format!("{} is a list of {}", row.list_kind, row.kind),
        "required": ["items"],
        "properties": {
            "items": {
                "type": "array",
                "description": format!("List of {}. More info: {CONVENTIONS}", row.plural),
                "items": {"$ref": dialect.reference(item)},
            },
            "metadata": described(dialect, "ListMeta", LIST_METADATA),
        },
    });
    type_meta(&mut out);
    extensions(custom, &row.list_kind, &mut out);
    out
}

const OBJECT_METADATA: &str = "Standard object's metadata. More info: {}#metadata";
const LIST_METADATA: &str = "Standard list metadata. More info: {}#types-kinds";

/// A reference with a description beside it, as the dialect allows.
fn described(dialect: Dialect, kind: &str, text: &str) -> Value {
    let reference = json!({"$ref": dialect.reference(&format!("{META}.{kind}"))});
    let text = text.replace("{}", CONVENTIONS);
    match dialect {
        Dialect::V2 => {
            let mut out = reference;
            out["description"] = json!(text);
            out
        }
        Dialect::V3 => json!({"allOf": [reference], "description": text}),
    }
}

fn properties(schema: &mut Value) -> &mut Map<String, Value> {
    if !schema.get("properties").is_some_and(Value::is_object) {
        schema["properties"] = json!({});
    }
    schema["properties"].as_object_mut().expect("made an object just now")
}

fn type_meta(schema: &mut Value) {
    for field in ["apiVersion", "kind"] {
        let text = descriptions().of_field("io.k8s.api.core.v1.Pod", field);
        properties(schema).insert(field.to_owned(), json!({"type": "string", "description": text}));
    }
}

const PRESERVE: &str = "x-kubernetes-preserve-unknown-fields";
const EMBEDDED: &str = "x-kubernetes-embedded-resource";
const INT_OR_STRING: &str = "x-kubernetes-int-or-string";

fn is_true(schema: &Value, key: &str) -> bool {
    schema.get(key).and_then(Value::as_bool).unwrap_or(false)
}

/// Keywords of a structural schema that are published as they are.
const KEYWORDS: [&str; 25] = [
    "type",
    "title",
    "description",
    "externalDocs",
    "example",
    "format",
    "maximum",
    "minimum",
    "maxLength",
    "minLength",
    "pattern",
    "maxItems",
    "minItems",
    "multipleOf",
    "enum",
    "maxProperties",
    "minProperties",
    "required",
    "allOf",
    "anyOf",
    "oneOf",
    "not",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-list-type",
    "x-kubernetes-map-type",
];

/// Keywords that say nothing when they are false.
const SWITCHES: [&str; 7] =
    ["nullable", "exclusiveMaximum", "exclusiveMinimum", "uniqueItems", PRESERVE, EMBEDDED, INT_OR_STRING];

fn published(dialect: Dialect, schema: Value) -> Value {
    let Value::Object(mut from) = schema else { return schema };
    let v2 = dialect == Dialect::V2;
    let mut out = Map::new();
    for key in KEYWORDS {
        let junctor = matches!(key, "allOf" | "anyOf" | "oneOf" | "not");
        if !(v2 && junctor)
            && let Some(value) = from.remove(key)
            && !matches!(&value, Value::String(text) if text.is_empty())
            && !matches!(&value, Value::Array(list) if list.is_empty())
        {
            out.insert(key.to_owned(), value);
        }
    }
    for key in SWITCHES {
        if from.get(key).and_then(Value::as_bool) == Some(true) {
            out.insert(key.to_owned(), Value::Bool(true));
        }
    }
    if let Some(rules) =
        from.remove("x-kubernetes-validations").filter(|rules| rules.as_array().is_some_and(|r| !r.is_empty()))
    {
        out.insert("x-kubernetes-validations".to_owned(), rules);
    }
    if !v2 {
        if let Some(default) = from.remove("default") {
            out.insert("default".to_owned(), default);
        }
        unfold(&mut out);
    }
    let nullable = v2 && out.remove("nullable").is_some();
    let preserve = out.contains_key(PRESERVE);
    if nullable {
        out.remove("type");
    }
    // Values without a type, and unknown fields, break where items or properties are set.
    let bare = nullable || (v2 && preserve);
    if !bare {
        if let Some(Value::Object(fields)) = from.remove("properties") {
            if v2 && let Some(Value::Array(required)) = out.get_mut("required") {
                let nullable = |name: &Value| {
                    name.as_str().and_then(|name| fields.get(name)).is_some_and(|field| is_true(field, "nullable"))
                };
                required.retain(|name| !nullable(name));
                if required.is_empty() {
                    out.remove("required");
                }
            }
            let fields: Map<String, Value> =
                fields.into_iter().map(|(name, field)| (name, published(dialect, field))).collect();
            out.insert("properties".to_owned(), Value::Object(fields));
        }
        if let Some(items) = from.remove("items") {
            out.insert("items".to_owned(), published(dialect, items));
        }
    }
    match from.remove("additionalProperties") {
        Some(values @ Value::Object(_)) => {
            if v2 && is_true(&values, "nullable") {
                out.remove("required");
            }
            out.insert("additionalProperties".to_owned(), published(dialect, values));
        }
        Some(Value::Bool(allowed)) => {
            out.insert("additionalProperties".to_owned(), Value::Bool(allowed));
        }
        _ => {}
    }
    if v2 {
        let ty = out.get("type").and_then(Value::as_str);
        if (ty == Some("array") && !out.contains_key("items")) || (ty == Some("object") && preserve) {
            out.remove("type");
        }
    }
    Value::Object(out)
}

/// Says with `anyOf` what `x-kubernetes-int-or-string` means, unless the author did.
fn unfold(schema: &mut Map<String, Value>) {
    if !schema.contains_key(INT_OR_STRING) {
        return;
    }
    let both = json!([{"type": "integer"}, {"type": "string"}]);
    let first = schema.get("allOf").and_then(|all| all.get(0)).and_then(|first| first.get("anyOf"));
    match schema.get("anyOf") {
        Some(any) if *any == both => {}
        _ if first == Some(&both) => {}
        None => {
            schema.insert("anyOf".to_owned(), both);
        }
        Some(_) => {
            let mut all = vec![json!({"anyOf": both})];
            if let Some(Value::Array(more)) = schema.remove("allOf") {
                all.extend(more);
            }
            schema.insert("allOf".to_owned(), Value::Array(all));
        }
    }
}

/// Gives embedded resources what every resource has.
fn embedded(dialect: Dialect, schema: &mut Value) {
    if let Some(Value::Object(fields)) = schema.get_mut("properties") {
        fields.values_mut().for_each(|field| embedded(dialect, field));
    }
    for key in ["items", "additionalProperties"] {
        if let Some(inner @ Value::Object(_)) = schema.get_mut(key) {
            embedded(dialect, inner);
        }
    }
    if !is_true(schema, EMBEDDED) || (dialect == Dialect::V2 && is_true(schema, PRESERVE)) {
        return;
    }
    let texts = [
        (
            "apiVersion",
            "apiVersion defines the versioned schema of this representation of an object. More info: {}#resources",
        ),
        (
            "kind",
            "kind is a string value representing the type of this object. In CamelCase. More info: {}#types-kinds",
        ),
    ];
    for (field, text) in texts {
        let text = text.replace("{}", CONVENTIONS);
        properties(schema).insert(field.to_owned(), json!({"type": "string", "description": text}));
    }
    properties(schema).insert("metadata".to_owned(), described(dialect, "ObjectMeta", OBJECT_METADATA));
    if !schema.get("required").is_some_and(Value::is_array) {
        schema["required"] = json!([]);
    }
    if let Some(required) = schema["required"].as_array_mut() {
        for field in ["kind", "apiVersion"] {
            if !required.iter().any(|name| name == field) {
                required.push(json!(field));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v2(schema: Value) -> Value {
        published(Dialect::V2, schema)
    }

    #[test]
    fn swagger_says_less() {
        let cases = [
            (json!({"type": "string", "nullable": true}), json!({})),
            (
                json!({"type": "object", "required": ["a", "b"], "properties": {
                    "a": {"type": "string", "nullable": true}, "b": {"type": "string", "default": "x"},
                }}),
                json!({"type": "object", "required": ["b"], "properties": {"a": {}, "b": {"type": "string"}}}),
            ),
            (json!({"type": "object", PRESERVE: true, "properties": {"a": {}}}), json!({PRESERVE: true})),
            (json!({"type": "array", "nullable": true, "items": {"type": "string"}}), json!({})),
            (json!({"type": "string", "anyOf": [{"pattern": "a"}], "not": {"enum": ["x"]}}), json!({"type": "string"})),
            (
                json!({"type": "object", "additionalProperties": {"type": "integer", "format": "int32"}}),
                json!({"type": "object", "additionalProperties": {"type": "integer", "format": "int32"}}),
            ),
        ];
        for (schema, want) in cases {
            assert_eq!(v2(schema.clone()), want, "{schema}");
        }
    }

    #[test]
    fn int_or_string_is_spelled_out() {
        let v3 = |schema| published(Dialect::V3, schema);
        let both = json!([{"type": "integer"}, {"type": "string"}]);
        assert_eq!(v3(json!({INT_OR_STRING: true})), json!({INT_OR_STRING: true, "anyOf": both}));
        let own = json!({INT_OR_STRING: true, "anyOf": [{"minimum": 1}]});
        assert_eq!(v3(own), json!({INT_OR_STRING: true, "anyOf": [{"minimum": 1}], "allOf": [{"anyOf": both}]}));
        assert_eq!(
            v3(json!({"type": "string", "default": "x", "nullable": false})),
            json!({"type": "string", "default": "x"})
        );
    }

    #[test]
    fn embedded_resources_are_resources() {
        let mut schema = json!({"properties": {"template": {"type": "object", EMBEDDED: true, "required": ["spec"]}}});
        embedded(Dialect::V3, &mut schema);
        let template = &schema["properties"]["template"];
        assert_eq!(template["required"], json!(["spec", "kind", "apiVersion"]));
        assert!(template["properties"]["metadata"]["allOf"].is_array());
        let mut open = json!({"type": "object", EMBEDDED: true, PRESERVE: true});
        embedded(Dialect::V2, &mut open);
        assert!(open.get("properties").is_none(), "kubectl would refuse other fields");
    }
}
