//! One description of a type, for built-in kinds and for CustomResourceDefinitions alike.
//!
//! A [`Schema`] is an arena of [`Type`]s that refer to each other by [`TypeId`], so recursive types
//! (`JSONSchemaProps`) need no pointers and a whole schema is freed at once. [`TypeRef`] is a schema
//! and an id: two words, `Copy`, and what every walk (pruning, defaulting, strategic merge, apply,
//! protobuf, validation of unknown fields) takes. Built-in kinds live in one `&'static Schema` and
//! give `TypeRef<'static>`; a CRD's schema is held by [`SharedType`], which frees it with its last user.
//!
//! Facts only: names, numbers, list and map kinds, defaults, enums. Walks hardly allocate: a field is
//! found by its name's hash, in a table that a struct of many fields gets when it is first walked.
//!
//! Reads nothing and writes nothing. The words are those of structured-merge-diff (KEP-555) and of the
//! `+listType`, `+patchStrategy` markers of `types.go`.

use std::borrow::Cow;
use std::fmt;
use std::sync::{Arc, OnceLock};

use serde_json::Value;

/// Index of a [`Type`] in its [`Schema`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct TypeId(pub u32);

/// Text that is `'static` for built-in kinds and owned for CustomResourceDefinitions.
pub type Text = Cow<'static, str>;

/// What a value is, and how two values of it merge.
#[derive(Clone, Debug)]
pub enum Type {
    /// A struct: named fields.
    Object(ObjectType),
    /// A map with string keys and one type of value.
    Map(MapType),
    /// A list of one type of item.
    List(ListType),
    /// A string; `values` is the closed set of an enum, sorted, or empty.
    String(StringType),
    /// `[]byte`: standard base64 in JSON.
    Bytes,
    Int32,
    Int64,
    /// `float64`.
    Double,
    Bool,
    /// RFC 3339 with seconds.
    Time,
    /// RFC 3339 with microseconds.
    MicroTime,
    /// A Go duration string, `"1m0s"`.
    Duration,
    /// `resource.Quantity`: a string (or a number on input) in canonical form.
    Quantity,
    /// A number or a string.
    IntOrString,
    /// A whole other object, of any kind: `runtime.RawExtension`.
    RawExtension,
    /// Any JSON value: apiextensions' `JSON`, or a CRD node with `x-kubernetes-preserve-unknown-fields`.
    Json,
    /// `metav1.FieldsV1`.
    FieldsV1,
    /// `runtime.Unknown`: an object kept as bytes.
    Unknown,
    /// apiextensions' `JSONSchemaPropsOrBool`; the schema type is the id.
    SchemaOrBool(TypeId),
    /// apiextensions' `JSONSchemaPropsOrArray`.
    SchemaOrArray(TypeId),
    /// apiextensions' `JSONSchemaPropsOrStringArray`.
    SchemaOrStringArray(TypeId),
}

/// A struct.
#[derive(Clone, Debug, Default)]
pub struct ObjectType {
    /// Go's short qualified name (`core/v1.Pod`), or empty for a nested CRD object.
    pub name: Text,
    /// All JSON fields, those of inlined structs included, sorted by name.
    pub fields: Box<[Field]>,
    /// Where in `fields` those are that the source names first, second and so on: the order in which Go writes them.
    /// Empty for CRDs.
    pub order: Box<[u16]>,
    /// What the protobuf message holds, sorted by field number. Empty for CRDs and JSON-only types.
    pub proto: Box<[ProtoEntry]>,
    /// `+structType=atomic` (`x-kubernetes-map-type: atomic`): owned and replaced as a whole.
    pub atomic: bool,
    /// Unknown fields are kept (`x-kubernetes-preserve-unknown-fields`, CRDs only).
    pub preserve_unknown: bool,
    /// The type of fields that are not listed but kept (CRDs only).
    pub unknown: Option<TypeId>,
    /// `x-kubernetes-embedded-resource`: holds `apiVersion`, `kind` and `metadata` of its own.
    pub embedded_resource: bool,
    /// Names of the required fields, in the order of the source.
    pub required: Box<[Text]>,
    /// Unions among the fields, with and without a discriminator.
    pub unions: Box<[Union]>,
    /// Where names are found; made from `fields`, which must not change once names have been looked up.
    pub places: Places,
    /// What Go has before anything is set.
    pub zero: Zero,
}

/// A value that is made when it is first asked for.
#[derive(Clone, Debug, Default)]
pub struct Zero(OnceLock<Box<Value>>);

impl Zero {
    /// The value, made by `make` if there is none yet.
    pub fn get_or_make(&self, make: impl FnOnce() -> Value) -> &Value {
        self.0.get_or_init(|| Box::new(make()))
    }
}

/// A hash table over the names of a struct's fields, made when a name is first looked up.
#[derive(Clone, Debug, Default)]
pub struct Places(OnceLock<Box<[u16]>>);

/// Structs of fewer fields are searched: that is as quick.
const FEW: usize = 5;
/// No field is at this place.
const VACANT: u16 = u16::MAX;

impl Places {
    fn find(&self, fields: &[Field], name: &str) -> Option<usize> {
        let places = self.0.get_or_init(|| {
            // At most half full, so that a name is found, or missed, at once nearly always.
            let mut places = vec![VACANT; (fields.len() * 2).next_power_of_two()];
            for (index, field) in fields.iter().enumerate() {
                let mut at = hash(&field.name) & (places.len() - 1);
                while places[at] != VACANT {
                    at = (at + 1) & (places.len() - 1);
                }
                places[at] = u16::try_from(index).expect("a struct has fewer than 2^16 fields");
            }
            places.into()
        });
        let mut at = hash(name) & (places.len() - 1);
        loop {
            let index = usize::from(*places.get(at).filter(|index| **index != VACANT)?);
            if fields[index].name == name {
                return Some(index);
            }
            at = (at + 1) & (places.len() - 1);
        }
    }
}

/// A hash of a field's name: its length, its first and its last bytes, which tell the fields of a struct apart.
fn hash(name: &str) -> usize {
    let bytes = name.as_bytes();
    let word = |bytes: &[u8]| bytes.iter().fold(0u64, |word, byte| word << 8 | u64::from(*byte));
    let (first, last) = match (bytes.first_chunk::<8>(), bytes.last_chunk::<8>()) {
        (Some(first), Some(last)) => (u64::from_le_bytes(*first), u64::from_le_bytes(*last)),
        _ => (word(bytes), 0),
    };
    let mixed = (first ^ last.rotate_left(23) ^ bytes.len() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 40) as usize
}

/// Fields of which at most one is set.
#[derive(Clone, Debug, Default)]
pub struct Union {
    /// JSON name of the field that names the member set, if there is one.
    pub discriminator: Option<Text>,
    /// JSON field name → the discriminator's value for it.
    pub members: Box<[(Text, Text)]>,
}

/// One entry of a protobuf message.
#[derive(Clone, Copy, Debug)]
pub enum ProtoEntry {
    /// Index into [`ObjectType::fields`] of the type that owns the message.
    Field { number: u32, field: u16 },
    /// A struct inlined in JSON that is a message of its own in protobuf.
    Embed { number: u32, message: TypeId },
}

impl ProtoEntry {
    /// The protobuf field number.
    pub fn number(&self) -> u32 {
        match self {
            ProtoEntry::Field { number, .. } | ProtoEntry::Embed { number, .. } => *number,
        }
    }
}

/// One JSON field of a struct.
#[derive(Clone, Debug)]
pub struct Field {
    /// JSON name.
    pub name: Text,
    pub ty: TypeId,
    /// `omitempty`: Go leaves out the zero value.
    pub omitempty: bool,
    /// `omitzero`: Go leaves out the zero struct too.
    pub omitzero: bool,
    /// A Go pointer: `null` and absent differ from the zero value.
    pub pointer: bool,
    /// Listed as required in OpenAPI.
    pub required: bool,
    /// `nullable: true` of a CRD.
    pub nullable: bool,
    /// `patchStrategy: merge`.
    pub patch_merge: bool,
    /// `patchStrategy: replace`.
    pub patch_replace: bool,
    /// `patchStrategy: retainKeys`.
    pub patch_retain_keys: bool,
    /// `+listType=atomic` on bytes, which OpenAPI repeats.
    pub marked_atomic: bool,
    /// What few fields have, out of line to keep the others small.
    pub extra: Option<Box<FieldExtra>>,
}

/// The rarer facts of a field.
#[derive(Clone, Debug, Default)]
pub struct FieldExtra {
    /// `+default`, or a CRD's `default`.
    pub default: Option<Value>,
    /// `patchMergeKey`.
    pub patch_merge_key: Option<Text>,
}

impl Field {
    /// The default of the table or of the CRD.
    pub fn default(&self) -> Option<&Value> {
        self.extra.as_ref().and_then(|extra| extra.default.as_ref())
    }

    /// `patchMergeKey`, for lists merged by key under strategic merge patch.
    pub fn patch_merge_key(&self) -> Option<&str> {
        self.extra.as_ref().and_then(|extra| extra.patch_merge_key.as_deref())
    }
}

/// A map from strings.
#[derive(Clone, Debug)]
pub struct MapType {
    pub value: TypeId,
    /// `+mapType=atomic`: replaced as a whole under server-side apply.
    pub atomic: bool,
    /// The source says so, and OpenAPI repeats it.
    pub marked: bool,
}

/// A list.
#[derive(Clone, Debug)]
pub struct ListType {
    pub item: TypeId,
    pub kind: ListKind,
    /// Protobuf wraps the list in a message of its own with the items as field 1
    /// (`ExtraValue`, `Verbs`).
    pub wrapped: bool,
    /// The source names the kind, and OpenAPI repeats it; an unmarked list is atomic too.
    pub marked: bool,
}

/// `+listType`: how two lists merge under server-side apply.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ListKind {
    /// Replaced as a whole (also what an unmarked list is).
    Atomic,
    /// Items are their own keys.
    Set,
    /// Items are objects identified by these fields, in the order of the markers.
    Map(Box<[Text]>),
}

/// A string, perhaps of a closed set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct StringType {
    pub values: Box<[Text]>,
    /// Go's name of the type (`v1.RestartPolicy`) for error messages; empty for a plain string.
    pub go_name: Text,
}

/// An arena of types.
#[derive(Debug, Default)]
pub struct Schema {
    types: Vec<Type>,
}

impl Schema {
    /// An empty arena.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a type and returns its id.
    pub fn add(&mut self, ty: Type) -> TypeId {
        let id = TypeId(u32::try_from(self.types.len()).expect("a schema holds fewer than 2^32 types"));
        self.types.push(ty);
        id
    }

    /// Replaces a type, for recursive types whose id had to be known before their fields.
    pub fn set(&mut self, id: TypeId, ty: Type) {
        self.types[id.0 as usize] = ty;
    }

    /// The type with this id. Ids come from [`Schema::add`] of the same schema.
    pub fn get(&self, id: TypeId) -> &Type {
        &self.types[id.0 as usize]
    }

    /// A reference to walk from.
    pub fn type_ref(&self, id: TypeId) -> TypeRef<'_> {
        TypeRef { schema: self, id }
    }

    /// How many types there are.
    pub fn len(&self) -> usize {
        self.types.len()
    }

    /// True when no type was added.
    pub fn is_empty(&self) -> bool {
        self.types.is_empty()
    }
}

/// A type within its schema: what walks pass around.
#[derive(Clone, Copy)]
pub struct TypeRef<'a> {
    schema: &'a Schema,
    id: TypeId,
}

impl<'a> TypeRef<'a> {
    /// The type itself.
    pub fn ty(self) -> &'a Type {
        self.schema.get(self.id)
    }

    /// Its id within its schema.
    pub fn id(self) -> TypeId {
        self.id
    }

    /// The schema it belongs to.
    pub fn schema(self) -> &'a Schema {
        self.schema
    }

    /// Another type of the same schema.
    pub fn at(self, id: TypeId) -> TypeRef<'a> {
        TypeRef { schema: self.schema, id }
    }

    /// The struct, if it is one.
    pub fn object(self) -> Option<&'a ObjectType> {
        match self.ty() {
            Type::Object(object) => Some(object),
            _ => None,
        }
    }

    /// All JSON fields of a struct, sorted by name; empty for anything else.
    pub fn fields(self) -> &'a [Field] {
        self.object().map_or(&[], |object| &object.fields)
    }

    /// The named field of a struct and its type.
    pub fn field(self, name: &str) -> Option<FieldRef<'a>> {
        let object = self.object()?;
        let index = match object.fields.len() {
            0..FEW => object.fields.iter().position(|field| field.name == name)?,
            // More than that many no type of Kubernetes has; a definition may.
            0x8000.. => object.fields.binary_search_by(|field| field.name.as_ref().cmp(name)).ok()?,
            _ => object.places.find(&object.fields, name)?,
        };
        let field = &object.fields[index];
        Some(FieldRef { field, ty: self.at(field.ty) })
    }

    /// The type of a list's items.
    pub fn item(self) -> Option<TypeRef<'a>> {
        match self.ty() {
            Type::List(list) => Some(self.at(list.item)),
            _ => None,
        }
    }

    /// The type of a map's values.
    pub fn value(self) -> Option<TypeRef<'a>> {
        match self.ty() {
            Type::Map(map) => Some(self.at(map.value)),
            _ => None,
        }
    }

    /// How a list merges; `None` for anything but a list.
    pub fn list_kind(self) -> Option<&'a ListKind> {
        match self.ty() {
            Type::List(list) => Some(&list.kind),
            _ => None,
        }
    }

    /// The type of the child `key` of an object or map.
    pub fn child(self, key: &str) -> Option<TypeRef<'a>> {
        match self.ty() {
            Type::Object(object) => {
                self.field(key).map(|field| field.ty).or_else(|| object.unknown.map(|id| self.at(id)))
            }
            Type::Map(map) => Some(self.at(map.value)),
            _ => None,
        }
    }

    /// Follows field names, map keys, and (for lists) into the item type without consuming a step.
    pub fn walk(self, path: &[&str]) -> Option<TypeRef<'a>> {
        let mut at = self;
        for step in path {
            while let Some(item) = at.item() {
                at = item;
            }
            at = at.child(step)?;
        }
        Some(at)
    }

    /// True when server-side apply owns the value as one leaf.
    pub fn is_atomic(self) -> bool {
        match self.ty() {
            Type::Object(object) => object.atomic,
            Type::Map(map) => map.atomic,
            Type::List(list) => list.kind == ListKind::Atomic,
            _ => true,
        }
    }
}

impl PartialEq for TypeRef<'_> {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self.schema, other.schema) && self.id == other.id
    }
}

impl Eq for TypeRef<'_> {}

impl fmt::Debug for TypeRef<'_> {
    /// Only this type, never the arena behind it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ty() {
            Type::Object(object) => write!(f, "TypeRef({} #{})", object.name, self.id.0),
            other => write!(f, "TypeRef({other:?} #{})", self.id.0),
        }
    }
}

/// A field and its type.
#[derive(Clone, Copy, Debug)]
pub struct FieldRef<'a> {
    pub field: &'a Field,
    pub ty: TypeRef<'a>,
}

/// A type that keeps its schema alive: how a CustomResourceDefinition's schema is held, and a
/// built-in one where either may be.
#[derive(Clone, Debug)]
pub struct SharedType {
    schema: Held,
    id: TypeId,
}

#[derive(Clone, Debug)]
enum Held {
    BuiltIn(&'static Schema),
    Shared(Arc<Schema>),
}

impl SharedType {
    /// `id` must come from `schema`.
    pub fn new(schema: Arc<Schema>, id: TypeId) -> Self {
        Self { schema: Held::Shared(schema), id }
    }

    /// Borrow for a walk.
    pub fn type_ref(&self) -> TypeRef<'_> {
        match &self.schema {
            Held::BuiltIn(schema) => schema.type_ref(self.id),
            Held::Shared(schema) => schema.type_ref(self.id),
        }
    }
}

impl From<TypeRef<'static>> for SharedType {
    fn from(ty: TypeRef<'static>) -> Self {
        Self { schema: Held::BuiltIn(ty.schema), id: ty.id }
    }
}

/// Builds [`Field`]s one fact at a time; every fact not named is off.
impl Field {
    /// A field that Go would write even when empty, with no marker.
    pub fn new(name: impl Into<Text>, ty: TypeId) -> Self {
        Self {
            name: name.into(),
            ty,
            omitempty: false,
            omitzero: false,
            pointer: false,
            required: false,
            nullable: false,
            patch_merge: false,
            patch_replace: false,
            patch_retain_keys: false,
            marked_atomic: false,
            extra: None,
        }
    }
}

impl ObjectType {
    /// A struct of these fields, which it sorts by name.
    pub fn new(name: impl Into<Text>, mut fields: Vec<Field>) -> Self {
        fields.sort_by(|a, b| a.name.cmp(&b.name));
        Self { name: name.into(), fields: fields.into(), ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `{name, ports: [{port, protocol}] map-list, labels: {string}}`.
    fn sample() -> (Schema, TypeId) {
        let mut schema = Schema::new();
        let string = schema.add(Type::String(StringType::default()));
        let int = schema.add(Type::Int32);
        let port = schema.add(Type::Object(ObjectType::new(
            "t.Port",
            vec![Field::new("protocol", string), Field::new("port", int)],
        )));
        let ports = schema.add(Type::List(ListType {
            item: port,
            kind: ListKind::Map(["port".into(), "protocol".into()].into()),
            wrapped: false,
            marked: true,
        }));
        let labels = schema.add(Type::Map(MapType { value: string, atomic: false, marked: false }));
        let root = schema.add(Type::Object(ObjectType::new(
            "t.Root",
            vec![Field::new("ports", ports), Field::new("labels", labels), Field::new("name", string)],
        )));
        (schema, root)
    }

    #[test]
    fn fields_are_found_by_name() {
        let (schema, root) = sample();
        let root = schema.type_ref(root);
        for (name, found) in [("labels", true), ("name", true), ("ports", true), ("port", false), ("", false)] {
            assert_eq!(root.field(name).is_some(), found, "{name}");
        }
        assert!(matches!(root.walk(&["ports", "port"]).map(TypeRef::ty), Some(Type::Int32)));
        assert!(matches!(root.walk(&["labels", "anything"]).map(TypeRef::ty), Some(Type::String(_))));
        assert!(root.walk(&["name", "x"]).is_none());
    }

    #[test]
    fn every_field_of_a_large_struct_is_found() {
        let mut schema = Schema::new();
        let string = schema.add(Type::String(StringType::default()));
        // Names that hash alike (equal ends and lengths), and short ones.
        let mut names: Vec<String> = (0..400).map(|n| format!("beginning{n:06}theEndings")).collect();
        names.extend(["a", "b", "ab", "abcdefgh", "abcdefghi"].map(String::from));
        let fields = names.iter().map(|name| Field::new(name.clone(), string)).collect();
        let large = schema.add(Type::Object(ObjectType::new("t.Large", fields)));
        let large = schema.type_ref(large);
        for name in &names {
            assert_eq!(large.field(name).map(|found| found.field.name.as_ref()), Some(name.as_str()));
        }
        for name in ["", "c", "beginning000400theEndings", "abcdefg", "abcdefghij"] {
            assert!(large.field(name).is_none(), "{name}");
        }
    }

    #[test]
    fn lists_know_their_keys_and_atomicity() {
        let (schema, root) = sample();
        let root = schema.type_ref(root);
        let ports = root.field("ports").expect("declared above").ty;
        assert!(!ports.is_atomic());
        assert!(matches!(ports.list_kind(), Some(ListKind::Map(keys)) if keys.len() == 2));
        assert!(root.field("name").expect("declared above").ty.is_atomic());
        assert!(!root.is_atomic());
    }

    #[test]
    fn a_shared_type_outlives_its_maker() {
        let (schema, root) = sample();
        let shared = SharedType::new(Arc::new(schema), root);
        let copy = shared.clone();
        drop(shared);
        assert_eq!(copy.type_ref().fields().len(), 3);
    }
}
