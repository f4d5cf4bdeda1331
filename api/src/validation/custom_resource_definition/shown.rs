//! Parts of a definition as upstream's messages show them: the JSON of Go's internal structs, which
//! have no names for JSON of their own.

use apimachinery::field::BadValue;
use apimachinery::gotext;
use serde_json::{Value, json};

use super::members;
use crate::read::Read;

/// How a field of a struct is written.
#[derive(Clone, Copy)]
enum Form {
    Text,
    Flag,
    /// A pointer, a list or any value: `null` when there is none.
    Value,
    Schema,
    Schemas,
    Named,
    SchemaOrBool,
    SchemaOrArray,
    Rules,
}

/// `JSONSchemaProps`, in the order of the struct.
const SCHEMA: [(&str, &str, Form); 44] = [
    ("ID", "id", Form::Text),
    ("Schema", "$schema", Form::Text),
    ("Ref", "$ref", Form::Value),
    ("Description", "description", Form::Text),
    ("Type", "type", Form::Text),
    ("Nullable", "nullable", Form::Flag),
    ("Format", "format", Form::Text),
    ("Title", "title", Form::Text),
    ("Default", "default", Form::Value),
    ("Maximum", "maximum", Form::Value),
    ("ExclusiveMaximum", "exclusiveMaximum", Form::Flag),
    ("Minimum", "minimum", Form::Value),
    ("ExclusiveMinimum", "exclusiveMinimum", Form::Flag),
    ("MaxLength", "maxLength", Form::Value),
    ("MinLength", "minLength", Form::Value),
    ("Pattern", "pattern", Form::Text),
    ("MaxItems", "maxItems", Form::Value),
    ("MinItems", "minItems", Form::Value),
    ("UniqueItems", "uniqueItems", Form::Flag),
    ("MultipleOf", "multipleOf", Form::Value),
    ("Enum", "enum", Form::Value),
    ("MaxProperties", "maxProperties", Form::Value),
    ("MinProperties", "minProperties", Form::Value),
    ("Required", "required", Form::Value),
    ("Items", "items", Form::SchemaOrArray),
    ("AllOf", "allOf", Form::Schemas),
    ("OneOf", "oneOf", Form::Schemas),
    ("AnyOf", "anyOf", Form::Schemas),
    ("Not", "not", Form::Schema),
    ("Properties", "properties", Form::Named),
    ("AdditionalProperties", "additionalProperties", Form::SchemaOrBool),
    ("PatternProperties", "patternProperties", Form::Named),
    ("Dependencies", "dependencies", Form::Value),
    ("AdditionalItems", "additionalItems", Form::SchemaOrBool),
    ("Definitions", "definitions", Form::Named),
    ("ExternalDocs", "externalDocs", Form::Value),
    ("Example", "example", Form::Value),
    ("XPreserveUnknownFields", "x-kubernetes-preserve-unknown-fields", Form::Value),
    ("XEmbeddedResource", "x-kubernetes-embedded-resource", Form::Flag),
    ("XIntOrString", "x-kubernetes-int-or-string", Form::Flag),
    ("XListMapKeys", "x-kubernetes-list-map-keys", Form::Value),
    ("XListType", "x-kubernetes-list-type", Form::Value),
    ("XMapType", "x-kubernetes-map-type", Form::Value),
    ("XValidations", "x-kubernetes-validations", Form::Rules),
];

fn text(value: &Value) -> String {
    gotext::json(value)
}

fn list(items: impl Iterator<Item = String>) -> String {
    let items: Vec<String> = items.collect();
    if items.is_empty() { "null".to_owned() } else { format!("[{}]", items.join(",")) }
}

fn schema_text(schema: &Value) -> String {
    let fields = SCHEMA.iter().map(|(go, name, form)| {
        let value = schema.get(*name).filter(|value| !value.is_null());
        let shown = match (form, value) {
            (Form::Text, value) => text(value.unwrap_or(&json!(""))),
            (Form::Flag, value) => text(value.unwrap_or(&json!(false))),
            (_, None) => "null".to_owned(),
            (Form::Value, Some(value)) => text(value),
            (Form::Schema, Some(value)) => schema_text(value),
            (Form::Schemas, Some(value)) => list(value.as_array().into_iter().flatten().map(schema_text)),
            (Form::Named, Some(_)) => {
                let members = members(schema, name);
                let shown = members.map(|(name, schema)| format!("{}:{}", text(&json!(name)), schema_text(schema)));
                format!("{{{}}}", shown.collect::<Vec<_>>().join(","))
            }
            (Form::SchemaOrBool, Some(Value::Bool(allows))) => format!("{{\"Allows\":{allows},\"Schema\":null}}"),
            (Form::SchemaOrBool, Some(value)) => format!("{{\"Allows\":true,\"Schema\":{}}}", schema_text(value)),
            (Form::SchemaOrArray, Some(Value::Array(items))) => {
                format!("{{\"Schema\":null,\"JSONSchemas\":{}}}", list(items.iter().map(schema_text)))
            }
            (Form::SchemaOrArray, Some(value)) => {
                format!("{{\"Schema\":{},\"JSONSchemas\":null}}", schema_text(value))
            }
            (Form::Rules, Some(value)) => list(value.as_array().into_iter().flatten().map(rule_text)),
        };
        format!("\"{go}\":{shown}")
    });
    format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
}

/// A rule.
pub(super) fn rule_text(rule: &Value) -> String {
    let plain = |name: &str| text(&json!(rule.text(name)));
    let or_null = |name: &str| rule.set(name).map_or("null".to_owned(), text);
    format!(
        "{{\"Rule\":{},\"Message\":{},\"MessageExpression\":{},\"Reason\":{},\"FieldPath\":{},\"OptionalOldSelf\":{}}}",
        plain("rule"),
        plain("message"),
        plain("messageExpression"),
        or_null("reason"),
        plain("fieldPath"),
        or_null("optionalOldSelf")
    )
}

/// A schema.
pub(super) fn schema(schema: &Value) -> BadValue {
    BadValue::Raw(schema_text(schema))
}

/// The versions of an internal spec.
pub(super) fn versions(versions: &[Value]) -> BadValue {
    let one = |version: &Value| {
        let or_null = |name: &str, shown: &dyn Fn(&Value) -> String| version.set(name).map_or("null".to_owned(), shown);
        let columns = |columns: &Value| {
            list(columns.as_array().into_iter().flatten().map(|column| {
                format!(
                    "{{\"Name\":{},\"Type\":{},\"Format\":{},\"Description\":{},\"Priority\":{},\"JSONPath\":{}}}",
                    text(&json!(column.text("name"))),
                    text(&json!(column.text("type"))),
                    text(&json!(column.text("format"))),
                    text(&json!(column.text("description"))),
                    column.num("priority"),
                    text(&json!(column.text("jsonPath")))
                )
            }))
        };
        let subresources = |subresources: &Value| {
            let scale = subresources.set("scale").map_or("null".to_owned(), |scale| {
                format!(
                    "{{\"SpecReplicasPath\":{},\"StatusReplicasPath\":{},\"LabelSelectorPath\":{}}}",
                    text(&json!(scale.text("specReplicasPath"))),
                    text(&json!(scale.text("statusReplicasPath"))),
                    scale.set("labelSelectorPath").map_or("null".to_owned(), text)
                )
            });
            let status = if subresources.set("status").is_some() { "{}" } else { "null" };
            format!("{{\"Status\":{status},\"Scale\":{scale}}}")
        };
        let selectable = |fields: &Value| {
            let path = |field: &Value| format!("{{\"JSONPath\":{}}}", text(&json!(field.text("jsonPath"))));
            list(fields.as_array().into_iter().flatten().map(path))
        };
        let validation = |validation: &Value| {
            let schema = validation.set("openAPIV3Schema").map_or("null".to_owned(), schema_text);
            format!("{{\"OpenAPIV3Schema\":{schema}}}")
        };
        format!(
            "{{\"Name\":{},\"Served\":{},\"Storage\":{},\"Deprecated\":{},\"DeprecationWarning\":{},\"Schema\":{},\"Subresources\":{},\"AdditionalPrinterColumns\":{},\"SelectableFields\":{}}}",
            text(&json!(version.text("name"))),
            version.flag("served"),
            version.flag("storage"),
            version.flag("deprecated"),
            or_null("deprecationWarning", &text),
            or_null("schema", &validation),
            or_null("subresources", &subresources),
            or_null("additionalPrinterColumns", &columns),
            or_null("selectableFields", &selectable)
        )
    };
    BadValue::Raw(format!("[{}]", versions.iter().map(one).collect::<Vec<_>>().join(",")))
}
