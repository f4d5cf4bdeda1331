//! A type of the table as an OpenAPI schema, in either dialect.

use std::collections::{BTreeMap, BTreeSet};

use apimachinery::schema::{Field, ListKind, Type, TypeId, TypeRef};
use serde_json::{Map, Value, json};

use super::descriptions::descriptions;
use crate::{Table, table};

/// Which OpenAPI the document is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    /// Swagger 2.0: no defaults, `$ref` beside other keys, no `oneOf`.
    V2,
    /// OpenAPI 3.0.
    V3,
}

impl Dialect {
    /// A reference to a named schema.
    pub(super) fn reference(self, name: &str) -> String {
        match self {
            Dialect::V2 => format!("#/definitions/{name}"),
            Dialect::V3 => format!("#/components/schemas/{name}"),
        }
    }
}

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
pub(super) const PATCH: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch";
const EXTENSIONS: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1";

/// Collects the schemas that a document refers to.
pub(super) struct Schemas<'a> {
    dialect: Dialect,
    /// `x-kubernetes-group-version-kind` of the kinds that every group serves.
    everywhere: &'a [(&'a str, &'a str)],
    wanted: Vec<String>,
    seen: BTreeSet<String>,
}

impl<'a> Schemas<'a> {
    pub(super) fn new(dialect: Dialect, everywhere: &'a [(&'a str, &'a str)]) -> Self {
        Self { dialect, everywhere, wanted: Vec::new(), seen: BTreeSet::new() }
    }

    /// A `$ref` to the named schema, which will be part of the document.
    pub(super) fn reference(&mut self, name: &str) -> Value {
        if self.seen.insert(name.to_owned()) {
            self.wanted.push(name.to_owned());
        }
        json!({"$ref": self.dialect.reference(name)})
    }

    /// The named schema is made elsewhere.
    pub(super) fn given(&mut self, name: &str) {
        self.seen.insert(name.to_owned());
    }

    /// Every schema referred to so far, and what these refer to in turn, each as JSON: a tree of all
    /// of them at once would be ten times as large as the document.
    pub(super) fn finish(mut self) -> BTreeMap<String, Vec<u8>> {
        let mut out = BTreeMap::new();
        while let Some(name) = self.wanted.pop() {
            let schema = self.definition(&name);
            out.insert(name, serde_json::to_vec(&schema).expect("a tree is always JSON"));
        }
        out
    }

    fn definition(&mut self, name: &str) -> Value {
        if let Some(special) = self.special(name) {
            let mut special = special;
            if let (Value::Object(map), Some(text)) = (&mut special, descriptions().of_type(name)) {
                map.insert("description".to_owned(), Value::String(text));
            }
            return special;
        }
        let Some((go_name, ty)) = by_open_api_name(table(), name) else { return json!({"type": "object"}) };
        self.object(name, go_name, ty)
    }

    /// Types whose JSON is not an object with fields.
    fn special(&self, name: &str) -> Option<Value> {
        let v3 = self.dialect == Dialect::V3;
        let last = name.rsplit('.').next().unwrap_or_default();
        let schema = match name.strip_suffix(last)? {
            "io.k8s.apimachinery.pkg.apis.meta.v1." => match last {
                "Time" | "MicroTime" => json!({"type": "string", "format": "date-time"}),
                "Duration" => json!({"type": "string"}),
                "FieldsV1" | "Patch" => json!({"type": "object"}),
                _ => return None,
            },
            "io.k8s.apimachinery.pkg.api.resource." if v3 => json!({"oneOf": [{"type": "string"}, {"type": "number"}]}),
            "io.k8s.apimachinery.pkg.api.resource." => json!({"type": "string"}),
            "io.k8s.apimachinery.pkg.util.intstr." if v3 => {
                json!({"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]})
            }
            "io.k8s.apimachinery.pkg.util.intstr." => json!({"type": "string", "format": "int-or-string"}),
            "io.k8s.apimachinery.pkg.runtime." => json!({"type": "object"}),
            "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1."
                if last == "JSON" || last.starts_with("JSONSchemaPropsOr") =>
            {
                json!({})
            }
            _ => return None,
        };
        Some(schema)
    }

    fn object(&mut self, name: &str, go_name: &str, ty: TypeRef<'_>) -> Value {
        let Some(object) = ty.object() else { return json!({"type": "object"}) };
        let mut out = Map::new();
        out.insert("type".to_owned(), json!("object"));
        if let Some(text) = descriptions().of_type(name) {
            out.insert("description".to_owned(), Value::String(text));
        }
        let mut properties = Map::new();
        for field in &object.fields {
            let text = descriptions().of_field(name, &field.name).map(|text| match ty.at(field.ty).ty() {
                Type::String(string) if !string.values.is_empty() => with_values(&text, &string.values),
                _ => text,
            });
            let property = self.property(ty, field, text);
            properties.insert(field.name.to_string(), property);
        }
        if !properties.is_empty() {
            out.insert("properties".to_owned(), Value::Object(properties));
        }
        if !object.required.is_empty() {
            out.insert("required".to_owned(), json!(object.required));
        }
        if object.atomic {
            out.insert("x-kubernetes-map-type".to_owned(), json!("atomic"));
        }
        if !object.unions.is_empty() {
            let unions: Vec<Value> = object.unions.iter().map(union).collect();
            out.insert("x-kubernetes-unions".to_owned(), Value::Array(unions));
        }
        if let Some(kinds) = self.group_version_kinds(go_name) {
            out.insert("x-kubernetes-group-version-kind".to_owned(), kinds);
        }
        Value::Object(out)
    }

    fn group_version_kinds(&self, go_name: &str) -> Option<Value> {
        let (package, kind) = go_name.rsplit_once('.')?;
        let one = |group: &str, version: &str| json!({"group": group, "version": version, "kind": kind});
        if package == "meta/v1" {
            return match kind {
                "DeleteOptions" | "WatchEvent" => {
                    Some(self.everywhere.iter().map(|(group, version)| one(group, version)).collect())
                }
                "APIGroup" | "APIGroupList" | "APIResourceList" | "APIVersions" | "Status" => {
                    Some(json!([one("", "v1")]))
                }
                _ => None,
            };
        }
        let package = table().packages().iter().find(|known| known.name == package)?;
        let found = table().find_kind(package.group, package.version, kind)?;
        let same = found.object().is_some_and(|object| object.name == go_name);
        (same && found.field("kind").is_some()).then(|| json!([one(package.group, package.version)]))
    }

    /// The schema of a field.
    fn property(&mut self, owner: TypeRef<'_>, field: &Field, description: Option<String>) -> Value {
        let ty = owner.at(field.ty);
        let mut out = self.value(ty);
        let default = self.default(ty, field);
        let marked_granular = overridden(ty);
        let Value::Object(map) = &mut out else { return out };
        if let Some(kind) = marked_granular {
            map.insert("x-kubernetes-map-type".to_owned(), json!(kind));
        }
        if field.marked_atomic {
            map.insert("x-kubernetes-list-type".to_owned(), json!("atomic"));
        }
        if let Some(key) = field.patch_merge_key() {
            map.insert("x-kubernetes-patch-merge-key".to_owned(), json!(key));
        }
        let strategies: Vec<&str> =
            [(field.patch_merge, "merge"), (field.patch_replace, "replace"), (field.patch_retain_keys, "retainKeys")]
                .into_iter()
                .filter_map(|(on, name)| on.then_some(name))
                .collect();
        if !strategies.is_empty() {
            map.insert("x-kubernetes-patch-strategy".to_owned(), json!(strategies.join(",")));
        }
        if let Some(text) = description {
            map.insert("description".to_owned(), Value::String(text));
        }
        if self.dialect == Dialect::V3 {
            if let Some(default) = default {
                map.insert("default".to_owned(), default);
            }
            // Beside a `$ref` OpenAPI 3.0 allows nothing else.
            if map.len() > 1
                && let Some(reference) = map.remove("$ref")
            {
                map.insert("allOf".to_owned(), json!([{"$ref": reference}]));
            }
        }
        out
    }

    /// What Go's zero value, or a marker, makes of an absent field.
    fn default(&self, ty: TypeRef<'_>, field: &Field) -> Option<Value> {
        if let Some(default) = field.default() {
            return Some(default.clone());
        }
        if field.pointer {
            return None;
        }
        let scalar = |value: Value| (!field.omitempty).then_some(value);
        match ty.ty() {
            Type::String(_) => scalar(json!("")),
            Type::Int32 | Type::Int64 | Type::Double => scalar(json!(0)),
            Type::Bool => scalar(json!(false)),
            Type::Object(_) => Some(json!({})),
            Type::Duration => scalar(json!(0)),
            _ => None,
        }
    }

    /// The schema of a value where a description and a default do not belong: items, map values.
    fn value(&mut self, ty: TypeRef<'_>) -> Value {
        match ty.ty() {
            Type::Object(object) => match table().open_api_name(&object.name) {
                Some(name) => self.reference(&name),
                None => json!({"type": "object"}),
            },
            Type::Map(map) => {
                let values = self.value(ty.at(map.value));
                let mut out = json!({"type": "object", "additionalProperties": values});
                if map.marked {
                    out["x-kubernetes-map-type"] = json!(if map.atomic { "atomic" } else { "granular" });
                }
                out
            }
            Type::List(list) => {
                let items = self.value(ty.at(list.item));
                let mut out = json!({"type": "array", "items": items});
                if list.marked {
                    match &list.kind {
                        ListKind::Atomic => out["x-kubernetes-list-type"] = json!("atomic"),
                        ListKind::Set => out["x-kubernetes-list-type"] = json!("set"),
                        ListKind::Map(keys) => {
                            out["x-kubernetes-list-type"] = json!("map");
                            out["x-kubernetes-list-map-keys"] = json!(keys);
                        }
                    }
                }
                out
            }
            Type::String(string) if !string.values.is_empty() => json!({"type": "string", "enum": string.values}),
            Type::String(_) => json!({"type": "string"}),
            Type::Bytes => json!({"type": "string", "format": "byte"}),
            Type::Int32 => json!({"type": "integer", "format": "int32"}),
            Type::Int64 => json!({"type": "integer", "format": "int64"}),
            Type::Double => json!({"type": "number", "format": "double"}),
            Type::Bool => json!({"type": "boolean"}),
            Type::Time => self.reference(&format!("{META}.Time")),
            Type::MicroTime => self.reference(&format!("{META}.MicroTime")),
            Type::Duration => self.reference(&format!("{META}.Duration")),
            Type::FieldsV1 => self.reference(&format!("{META}.FieldsV1")),
            Type::Quantity => self.reference("io.k8s.apimachinery.pkg.api.resource.Quantity"),
            Type::IntOrString => self.reference("io.k8s.apimachinery.pkg.util.intstr.IntOrString"),
            Type::RawExtension | Type::Unknown => self.reference("io.k8s.apimachinery.pkg.runtime.RawExtension"),
            Type::Json => self.reference(&format!("{EXTENSIONS}.JSON")),
            Type::SchemaOrBool(_) => self.reference(&format!("{EXTENSIONS}.JSONSchemaPropsOrBool")),
            Type::SchemaOrArray(_) => self.reference(&format!("{EXTENSIONS}.JSONSchemaPropsOrArray")),
            Type::SchemaOrStringArray(_) => self.reference(&format!("{EXTENSIONS}.JSONSchemaPropsOrStringArray")),
        }
    }
}

/// The description of a field whose values are counted up.
fn with_values<T: std::fmt::Display>(text: &str, values: &[T]) -> String {
    let mut out = format!("{text}\n\nPossible enum values:");
    for value in values {
        out.push_str(&format!("\n - `\"{value}\"`"));
    }
    out
}

/// The way of merging that a field gives to its struct against what the struct says of itself.
fn overridden(ty: TypeRef<'_>) -> Option<&'static str> {
    let object = ty.object()?;
    let own: TypeId = table().named(&object.name)?.id();
    (own != ty.id()).then_some(if object.atomic { "atomic" } else { "granular" })
}

fn union(union: &apimachinery::schema::Union) -> Value {
    let members: Map<String, Value> =
        union.members.iter().map(|(field, value)| (field.to_string(), json!(value))).collect();
    let mut out = Map::new();
    if let Some(discriminator) = &union.discriminator {
        out.insert("discriminator".to_owned(), json!(discriminator));
    }
    out.insert("fields-to-discriminateBy".to_owned(), Value::Object(members));
    Value::Object(out)
}

/// Go name and type of an OpenAPI name.
pub(super) fn by_open_api_name<'t>(table: &'t Table, name: &str) -> Option<(&'t str, TypeRef<'t>)> {
    let (prefix, kind) = name.rsplit_once('.')?;
    let package = table.packages().iter().find(|known| known.open_api_prefix == prefix)?;
    let ty = table.named(&format!("{}.{kind}", package.name))?;
    Some((ty.object()?.name.as_ref(), ty))
}
