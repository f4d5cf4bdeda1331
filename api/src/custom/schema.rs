//! A schema of a CustomResourceDefinition, compiled for walking.

use serde_json::{Map, Value};

use super::Pattern;
use super::formats;

/// `type`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Not said.
    #[default]
    Any,
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
}

impl Kind {
    fn parse(text: &str) -> Kind {
        match text {
            "object" => Kind::Object,
            "array" => Kind::Array,
            "string" => Kind::String,
            "integer" => Kind::Integer,
            "number" => Kind::Number,
            "boolean" => Kind::Boolean,
            _ => Kind::Any,
        }
    }

    /// As the schema says it; empty for [`Kind::Any`].
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Any => "",
            Kind::Object => "object",
            Kind::Array => "array",
            Kind::String => "string",
            Kind::Integer => "integer",
            Kind::Number => "number",
            Kind::Boolean => "boolean",
        }
    }
}

/// `x-kubernetes-list-type`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ListType {
    #[default]
    Unset,
    Atomic,
    Set,
    Map,
}

/// `additionalProperties`.
#[derive(Clone, Debug, Default)]
pub enum Additional {
    #[default]
    Unset,
    /// `true` or `false`.
    Allowed(bool),
    Schema(Box<Node>),
}

/// One rule of `x-kubernetes-validations`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    pub rule: Box<str>,
    pub message: Box<str>,
    pub message_expression: Box<str>,
    /// Empty is `FieldValueInvalid`.
    pub reason: Box<str>,
    pub field_path: Box<str>,
    pub optional_old_self: Option<bool>,
}

/// What is said about the values of a node beyond their type.
#[derive(Clone, Debug, Default)]
pub struct Values {
    /// Known formats only: others say nothing.
    pub format: Box<str>,
    pub pattern: Option<Pattern>,
    pub max_length: Option<i64>,
    pub min_length: Option<i64>,
    pub max_items: Option<i64>,
    pub min_items: Option<i64>,
    pub max_properties: Option<i64>,
    pub min_properties: Option<i64>,
    pub unique_items: bool,
    pub multiple_of: Option<f64>,
    pub maximum: Option<f64>,
    pub exclusive_maximum: bool,
    pub minimum: Option<f64>,
    pub exclusive_minimum: bool,
    pub choices: Box<[Value]>,
    pub required: Box<[Box<str>]>,
    pub all_of: Box<[Node]>,
    pub any_of: Box<[Node]>,
    pub one_of: Box<[Node]>,
    pub not: Option<Box<Node>>,
}

/// A schema and everything below it.
#[derive(Clone, Debug, Default)]
pub struct Node {
    pub kind: Kind,
    pub nullable: bool,
    /// `x-kubernetes-preserve-unknown-fields`.
    pub preserve_unknown: bool,
    /// `x-kubernetes-embedded-resource`.
    pub embedded: bool,
    /// `x-kubernetes-int-or-string`.
    pub int_or_string: bool,
    /// `x-kubernetes-map-type: atomic`.
    pub atomic_map: bool,
    pub list_type: ListType,
    /// Whether `items` may carry objects keyed by these.
    pub list_map_keys: Box<[Box<str>]>,
    /// Sorted by name.
    pub properties: Box<[(Box<str>, Node)]>,
    pub additional: Additional,
    pub items: Option<Box<Node>>,
    pub default: Option<Box<Value>>,
    pub rules: Box<[Rule]>,
    pub values: Option<Box<Values>>,
    /// A default is here or below.
    pub has_defaults: bool,
    /// A rule is here or below.
    pub has_rules: bool,
}

impl Node {
    /// Compiles a schema (`JSONSchemaProps`). What is malformed is passed over: the definition was
    /// validated before it was stored.
    pub fn compile(schema: &Value) -> Node {
        let text = |name: &str| schema.get(name).and_then(Value::as_str).unwrap_or_default();
        let flag = |name: &str| schema.get(name).and_then(Value::as_bool).unwrap_or_default();
        let mut properties: Vec<(Box<str>, Node)> =
            members(schema, "properties").map(|(name, schema)| (name.as_str().into(), Node::compile(schema))).collect();
        properties.sort_by(|a, b| a.0.cmp(&b.0));
        let additional = match schema.get("additionalProperties") {
            Some(Value::Bool(allowed)) => Additional::Allowed(*allowed),
            Some(schema @ Value::Object(_)) => Additional::Schema(Box::new(Node::compile(schema))),
            _ => Additional::Unset,
        };
        let items = schema.get("items").filter(|items| items.is_object()).map(|items| Box::new(Node::compile(items)));
        let default = schema.get("default").filter(|value| !value.is_null()).cloned().map(Box::new);
        let rules: Box<[Rule]> = list(schema, "x-kubernetes-validations").map(rule).collect();
        let mut node = Node {
            kind: Kind::parse(text("type")),
            nullable: flag("nullable"),
            preserve_unknown: flag("x-kubernetes-preserve-unknown-fields"),
            embedded: flag("x-kubernetes-embedded-resource"),
            int_or_string: flag("x-kubernetes-int-or-string"),
            atomic_map: text("x-kubernetes-map-type") == "atomic",
            list_type: match text("x-kubernetes-list-type") {
                "atomic" => ListType::Atomic,
                "set" => ListType::Set,
                "map" => ListType::Map,
                _ => ListType::Unset,
            },
            list_map_keys: strings(schema, "x-kubernetes-list-map-keys"),
            has_defaults: default.is_some(),
            has_rules: !rules.is_empty(),
            properties: properties.into(),
            additional,
            items,
            default,
            rules,
            values: None,
        };
        node.values = values(schema, node.kind);
        let (defaults, rules) = node.children().fold((false, false), |(defaults, rules), child| {
            (defaults || child.has_defaults, rules || child.has_rules)
        });
        node.has_defaults |= defaults;
        node.has_rules |= rules;
        if let Some(values) = &node.values {
            node.has_rules |= values.all_of.iter().any(|node| node.has_rules);
        }
        node
    }

    /// The schema of a property, if it is listed.
    pub fn property(&self, name: &str) -> Option<&Node> {
        let at = self.properties.binary_search_by(|(key, _)| (**key).cmp(name)).ok()?;
        Some(&self.properties[at].1)
    }

    /// The schema of additional properties, if it is one.
    pub fn additional(&self) -> Option<&Node> {
        match &self.additional {
            Additional::Schema(node) => Some(node),
            _ => None,
        }
    }

    /// Whether `additionalProperties` is there at all.
    pub fn has_additional(&self) -> bool {
        !matches!(self.additional, Additional::Unset)
    }

    /// The schema of a member, listed or not.
    pub fn member(&self, name: &str) -> Option<&Node> {
        self.property(name).or_else(|| self.additional())
    }

    /// Properties, additional properties and items.
    pub fn children(&self) -> impl Iterator<Item = &Node> {
        self.properties.iter().map(|(_, node)| node).chain(self.additional()).chain(self.items.as_deref())
    }

    /// A schema that is an embedded resource whatever else it is: how the root of an object is seen.
    pub fn is_null_wrong(&self, value: &Value) -> bool {
        value.is_null() && !self.nullable
    }
}

fn members<'a>(schema: &'a Value, name: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    schema.get(name).and_then(Value::as_object).into_iter().flat_map(Map::iter)
}

fn list<'a>(schema: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    schema.get(name).and_then(Value::as_array).into_iter().flatten()
}

fn strings(schema: &Value, name: &str) -> Box<[Box<str>]> {
    list(schema, name).filter_map(Value::as_str).map(Box::from).collect()
}

fn rule(rule: &Value) -> Rule {
    let text = |name: &str| rule.get(name).and_then(Value::as_str).unwrap_or_default().into();
    Rule {
        rule: text("rule"),
        message: text("message"),
        message_expression: text("messageExpression"),
        reason: text("reason"),
        field_path: text("fieldPath"),
        optional_old_self: rule.get("optionalOldSelf").and_then(Value::as_bool),
    }
}

fn values(schema: &Value, kind: Kind) -> Option<Box<Values>> {
    const NAMES: [&str; 20] = [
        "allOf",
        "anyOf",
        "enum",
        "exclusiveMaximum",
        "exclusiveMinimum",
        "format",
        "maxItems",
        "maxLength",
        "maxProperties",
        "maximum",
        "minItems",
        "minLength",
        "minProperties",
        "minimum",
        "multipleOf",
        "not",
        "oneOf",
        "pattern",
        "required",
        "uniqueItems",
    ];
    if !NAMES.iter().any(|name| schema.get(*name).is_some_and(|value| !value.is_null())) {
        return None;
    }
    let integer = |name: &str| schema.get(name).and_then(Value::as_i64);
    let number = |name: &str| schema.get(name).and_then(Value::as_f64);
    let flag = |name: &str| schema.get(name).and_then(Value::as_bool).unwrap_or_default();
    let text = |name: &str| schema.get(name).and_then(Value::as_str).unwrap_or_default();
    let nodes = |name: &str| -> Box<[Node]> { list(schema, name).map(Node::compile).collect() };
    Some(Box::new(Values {
        format: formats::supported(text("format"), kind).into(),
        pattern: Some(text("pattern")).filter(|pattern| !pattern.is_empty()).map(Pattern::new),
        max_length: integer("maxLength"),
        min_length: integer("minLength"),
        max_items: integer("maxItems"),
        min_items: integer("minItems"),
        max_properties: integer("maxProperties"),
        min_properties: integer("minProperties"),
        unique_items: flag("uniqueItems"),
        multiple_of: number("multipleOf"),
        maximum: number("maximum"),
        exclusive_maximum: flag("exclusiveMaximum"),
        minimum: number("minimum"),
        exclusive_minimum: flag("exclusiveMinimum"),
        choices: list(schema, "enum").cloned().collect(),
        required: strings(schema, "required"),
        all_of: nodes("allOf"),
        any_of: nodes("anyOf"),
        one_of: nodes("oneOf"),
        not: schema.get("not").filter(|not| not.is_object()).map(|not| Box::new(Node::compile(not))),
    }))
}
