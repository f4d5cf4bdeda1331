//! A custom schema as a type of `apimachinery`: what server-side apply and managed fields merge by.

use std::sync::Arc;

use apimachinery::schema::{
    Field, ListKind, ListType as ListInfo, MapType, ObjectType, Schema, SharedType, StringType, Type, TypeId, TypeRef,
};

use super::{Additional, Kind, ListType, Node};

/// The type of whole objects of a schema; without one, everything is deduced from values.
/// `preserve` keeps what is not listed, everywhere (`spec.preserveUnknownFields`).
pub fn shared(node: Option<&Node>, preserve: bool) -> SharedType {
    let mut builder = Builder::default();
    let id = builder.root(node, preserve);
    SharedType::new(Arc::new(builder.schema), id)
}

#[derive(Default)]
struct Builder {
    schema: Schema,
    json: Option<TypeId>,
    string: Option<TypeId>,
    meta: Option<TypeId>,
}

impl Builder {
    fn json(&mut self) -> TypeId {
        *self.json.get_or_insert_with(|| self.schema.add(Type::Json))
    }

    fn string(&mut self) -> TypeId {
        *self.string.get_or_insert_with(|| self.schema.add(Type::String(StringType::default())))
    }

    fn meta(&mut self) -> TypeId {
        if let Some(id) = self.meta {
            return id;
        }
        let ty = crate::table().named("meta/v1.ObjectMeta").expect("the table has ObjectMeta");
        let id = self.copy(ty);
        self.meta = Some(id);
        id
    }

    /// A built-in type in this schema.
    fn copy(&mut self, ty: TypeRef<'_>) -> TypeId {
        let copied = match ty.ty() {
            Type::Object(object) => {
                let fields = object
                    .fields
                    .iter()
                    .map(|field| Field { ty: self.copy(ty.at(field.ty)), ..field.clone() })
                    .collect::<Vec<_>>();
                Type::Object(ObjectType {
                    name: object.name.clone(),
                    fields: fields.into(),
                    atomic: object.atomic,
                    required: object.required.clone(),
                    ..ObjectType::default()
                })
            }
            Type::Map(map) => Type::Map(MapType { value: self.copy(ty.at(map.value)), ..map.clone() }),
            Type::List(list) => Type::List(ListInfo { item: self.copy(ty.at(list.item)), ..list.clone() }),
            other => other.clone(),
        };
        self.schema.add(copied)
    }

    fn root(&mut self, node: Option<&Node>, preserve: bool) -> TypeId {
        let empty = Node { kind: Kind::Object, preserve_unknown: true, ..Node::default() };
        let node = node.unwrap_or(&empty);
        let mut object = self.object(node, preserve);
        self.with_meta(&mut object);
        self.schema.add(Type::Object(object))
    }

    /// `apiVersion`, `kind` and `metadata`, whatever the schema says of them.
    fn with_meta(&mut self, object: &mut ObjectType) {
        let (string, meta) = (self.string(), self.meta());
        let mut fields: Vec<Field> = object.fields.to_vec();
        fields.retain(|field| !matches!(field.name.as_ref(), "apiVersion" | "kind" | "metadata"));
        for (name, ty) in [("apiVersion", string), ("kind", string), ("metadata", meta)] {
            let mut field = Field::new(name, ty);
            field.omitempty = true;
            fields.push(field);
        }
        fields.sort_by(|a, b| a.name.cmp(&b.name));
        object.fields = fields.into();
    }

    /// `preserve`: a schema above keeps unknown fields, and with it all below.
    fn object(&mut self, node: &Node, preserve: bool) -> ObjectType {
        let preserve = preserve || node.preserve_unknown;
        let mut fields = Vec::with_capacity(node.properties.len());
        for (name, property) in &node.properties {
            let mut field = Field::new(name.to_string(), self.node(property, preserve));
            // Nothing of a custom object is there unless it was said.
            field.omitempty = true;
            field.pointer = true;
            field.nullable = property.nullable;
            if let Some(default) = &property.default {
                field.extra = Some(Box::new(apimachinery::schema::FieldExtra {
                    default: Some((**default).clone()),
                    patch_merge_key: None,
                }));
            }
            fields.push(field);
        }
        let mut object = ObjectType::new("", fields);
        object.preserve_unknown = preserve;
        // Additional properties beside listed ones are refused in structural schemas.
        object.unknown = match &node.additional {
            Additional::Schema(value) => Some(self.node(value, preserve)),
            _ if preserve => Some(self.json()),
            _ => None,
        };
        object.embedded_resource = node.embedded;
        object.atomic = node.atomic_map;
        object
    }

    fn node(&mut self, node: &Node, preserve: bool) -> TypeId {
        let preserve = preserve || node.preserve_unknown;
        if node.int_or_string {
            return self.schema.add(Type::IntOrString);
        }
        match node.kind {
            Kind::Object => match &node.additional {
                Additional::Schema(value) if node.properties.is_empty() => {
                    let value = self.node(value, preserve);
                    self.schema.add(Type::Map(MapType { value, atomic: node.atomic_map, marked: false }))
                }
                Additional::Allowed(true) if node.properties.is_empty() => {
                    let value = self.json();
                    self.schema.add(Type::Map(MapType { value, atomic: node.atomic_map, marked: false }))
                }
                // Anything may be in what lists nothing, but it is a map.
                Additional::Unset if node.properties.is_empty() && !node.embedded => {
                    let value = self.json();
                    self.schema.add(Type::Map(MapType { value, atomic: node.atomic_map, marked: false }))
                }
                _ => {
                    let mut object = self.object(node, preserve);
                    if node.embedded {
                        self.with_meta(&mut object);
                    }
                    self.schema.add(Type::Object(object))
                }
            },
            Kind::Array => {
                let item = match &node.items {
                    Some(item) => self.node(item, preserve),
                    None => self.json(),
                };
                let kind = match node.list_type {
                    ListType::Set => ListKind::Set,
                    ListType::Map => {
                        ListKind::Map(node.list_map_keys.iter().map(|key| key.to_string().into()).collect())
                    }
                    ListType::Unset | ListType::Atomic => ListKind::Atomic,
                };
                self.schema.add(Type::List(ListInfo { item, kind, wrapped: false, marked: false }))
            }
            Kind::String => self.string(),
            Kind::Integer => self.schema.add(Type::Int64),
            Kind::Number => self.schema.add(Type::Double),
            Kind::Boolean => self.schema.add(Type::Bool),
            Kind::Any => self.json(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lists_and_maps_keep_their_kinds() {
        let node = Node::compile(&json!({"type": "object", "properties": {
            "spec": {"type": "object", "properties": {
                "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["port"],
                          "items": {"type": "object", "properties": {"port": {"type": "integer"}}}},
                "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                "labels": {"type": "object", "additionalProperties": {"type": "string"}},
            }},
        }}));
        let shared = shared(Some(&node), false);
        let root = shared.type_ref();
        let kind = |path: &[&str]| root.walk(path).and_then(TypeRef::list_kind).cloned();
        assert_eq!(kind(&["spec", "tags"]), Some(ListKind::Set));
        assert_eq!(kind(&["spec", "ports"]), Some(ListKind::Map(["port".into()].into())));
        assert!(matches!(root.walk(&["spec", "free"]).map(TypeRef::ty), Some(Type::Map(_))));
        assert!(root.walk(&["spec", "labels", "x"]).is_some());
        assert!(root.walk(&["metadata", "ownerReferences", "uid"]).is_some());
    }

    #[test]
    fn what_is_unknown_is_kept_below_who_keeps_it_and_where_nothing_is_listed() {
        let node = Node::compile(&json!({"type": "object", "properties": {
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {
                "known": {"type": "object", "properties": {"x": {"type": "string"}}},
            }},
            "bare": {"type": "object"},
            "strict": {"type": "object", "properties": {"x": {"type": "string"}}},
        }}));
        let shared = shared(Some(&node), false);
        let fits = |value| apimachinery::fieldset::validate(&value, shared.type_ref(), false);
        assert_eq!(fits(json!({"free": {"known": {"x": "y", "more": 1}}, "bare": {"z": 1}})), Ok(()));
        assert_eq!(fits(json!({"strict": {"more": 1}})), Err(".strict.more: field not declared in schema".to_owned()));
    }
}
