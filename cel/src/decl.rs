//! Declared types: what a schema says of the values of an expression. They carry, beside CEL's type, how JSON values
//! are to be read and how large they can become.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use crate::escape::{KEYWORDS, escape};
use crate::types::Type;

/// No request is larger than this; it bounds every size that a schema leaves open.
pub const MAX_REQUEST_BYTES: u64 = 3 * 1024 * 1024;
/// The longest duration as JSON.
const MAX_DURATION: u64 = 32;
/// The longest date with time as JSON.
const MAX_DATETIME: u64 = 32;
/// A date as JSON, with its quotes.
const DATE: u64 = 12;
/// The shortest date with time as JSON.
const MIN_DATETIME: u64 = 21;
/// The shortest duration as JSON.
const MIN_DURATION: u64 = 3;
/// `""`
const MIN_STRING: u64 = 2;

/// A declared type.
#[derive(Clone, Debug)]
pub struct DeclType {
    /// What it is.
    pub kind: DeclKind,
    /// How many characters, items or entries it can have. 0 for what has no size.
    pub max_elements: u64,
    /// The fewest bytes of JSON it can take.
    pub min_serialized_size: u64,
    /// Whether `null` is a value of it.
    pub nullable: bool,
}

/// The kinds of declared types.
#[derive(Clone, Debug)]
pub enum DeclKind {
    /// Known only from the value itself.
    Dyn,
    /// `x-kubernetes-int-or-string`.
    IntOrString,
    /// `null`
    Null,
    /// `boolean`
    Bool,
    /// `integer`
    Int,
    /// `number`
    Double,
    /// `string`
    String,
    /// A string of format `byte`.
    Bytes,
    /// A string of format `date`.
    Date,
    /// A string of format `date-time`.
    DateTime,
    /// A string of format `duration`.
    Duration,
    /// A value that expressions see as a quantity.
    Quantity,
    /// `array`
    List(Arc<DeclType>, ListKind),
    /// `object` with `additionalProperties`.
    Map(Arc<DeclType>),
    /// `object` with `properties`.
    Object(Arc<ObjectDecl>),
    /// A type that is given by CEL alone.
    Cel(Type),
}

/// `x-kubernetes-list-type`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListKind {
    /// Order matters.
    Atomic,
    /// Scalars whose order does not matter.
    Set,
    /// Objects told apart by these keys; their order does not matter.
    Map(Arc<[String]>),
}

/// A type with fields.
#[derive(Debug)]
pub struct ObjectDecl {
    /// Its name; two types of one name are the same.
    pub name: String,
    /// The fields by the identifier that spells them.
    pub fields: BTreeMap<String, FieldDecl>,
    /// Whether it has any field one may name, of a type that is known only when evaluated.
    pub open: bool,
}

/// A field.
#[derive(Clone, Debug)]
pub struct FieldDecl {
    /// Its name in JSON.
    pub json_name: String,
    /// Its type.
    pub decl: Arc<DeclType>,
    /// Whether it must be there.
    pub required: bool,
}

impl ObjectDecl {
    /// A type with a name only.
    pub fn without_fields(name: &str) -> Arc<Self> {
        Arc::new(ObjectDecl { name: name.into(), fields: BTreeMap::new(), open: false })
    }

    /// A type that has any field.
    pub fn open(name: &str) -> Arc<Self> {
        Arc::new(ObjectDecl { name: name.into(), fields: BTreeMap::new(), open: true })
    }

    /// The field that an identifier spells. A keyword may stand for itself: `metadata.namespace`.
    pub(crate) fn field(&self, name: &str) -> Option<&FieldDecl> {
        match self.fields.get(name) {
            None if KEYWORDS.contains(&name) => self.fields.get(&format!("__{name}__")),
            found => found,
        }
    }

    /// The field that has this name in JSON.
    pub(crate) fn by_json_name(&self, name: &str) -> Option<&FieldDecl> {
        self.fields.get(&*escape(name)?)
    }
}

static DYN: LazyLock<Arc<DeclType>> = LazyLock::new(|| DeclType::new(DeclKind::Dyn, 1));
static STRING: LazyLock<Arc<DeclType>> = LazyLock::new(|| DeclType::new(DeclKind::String, MIN_STRING));

impl DeclType {
    fn new(kind: DeclKind, min_serialized_size: u64) -> Arc<DeclType> {
        Arc::new(DeclType { kind, max_elements: 0, min_serialized_size, nullable: false })
    }

    /// A type known only from its values.
    pub fn dynamic() -> Arc<DeclType> {
        DYN.clone()
    }

    /// A type given by CEL.
    pub fn cel(of: Type) -> Arc<DeclType> {
        DeclType::new(DeclKind::Cel(of), 1)
    }

    /// Text of unknown length.
    pub fn string() -> Arc<DeclType> {
        STRING.clone()
    }

    /// `boolean`
    pub fn bool() -> Arc<DeclType> {
        DeclType::new(DeclKind::Bool, 4)
    }

    /// `integer`
    pub fn int() -> Arc<DeclType> {
        DeclType::new(DeclKind::Int, 1)
    }

    /// A list of at most `max` items.
    pub fn list(of: Arc<DeclType>, max: u64) -> Arc<DeclType> {
        Arc::new(DeclType {
            kind: DeclKind::List(of, ListKind::Atomic),
            max_elements: max,
            min_serialized_size: 2,
            nullable: false,
        })
    }

    /// A map from text, of at most `max` entries.
    pub fn map(of: Arc<DeclType>, max: u64) -> Arc<DeclType> {
        Arc::new(DeclType { kind: DeclKind::Map(of), max_elements: max, min_serialized_size: 2, nullable: false })
    }

    /// An object with fields of these JSON names. A name that CEL cannot spell is left out.
    pub fn object<'n>(name: &str, fields: impl IntoIterator<Item = (&'n str, Arc<DeclType>)>) -> Arc<DeclType> {
        let fields = fields
            .into_iter()
            .filter_map(|(json_name, decl)| {
                let name = escape(json_name)?.into_owned();
                Some((name, FieldDecl { json_name: json_name.into(), decl, required: false }))
            })
            .collect();
        let object = ObjectDecl { name: name.into(), fields, open: false };
        DeclType::new(DeclKind::Object(Arc::new(object)), 2)
    }

    /// The type that expressions see.
    pub fn cel_type(&self) -> Type {
        match &self.kind {
            DeclKind::Dyn | DeclKind::IntOrString => Type::Dyn,
            DeclKind::Null => Type::Null,
            DeclKind::Bool => Type::Bool,
            DeclKind::Int => Type::Int,
            DeclKind::Double => Type::Double,
            DeclKind::String => Type::String,
            DeclKind::Bytes => Type::Bytes,
            DeclKind::Date | DeclKind::DateTime => Type::Timestamp,
            DeclKind::Duration => Type::Duration,
            DeclKind::Quantity => Type::named("kubernetes.Quantity"),
            DeclKind::List(of, _) => Type::list(of.cel_type()),
            DeclKind::Map(of) => Type::map(Type::String, of.cel_type()),
            DeclKind::Object(object) => Type::Object(object.clone()),
            DeclKind::Cel(of) => of.clone(),
        }
    }

    /// How often data of this type can stand in one request.
    pub fn max_cardinality(&self) -> u64 {
        MAX_REQUEST_BYTES / (self.min_serialized_size + 1)
    }

    /// The type at the end of a path of field names, `@items`, `@values` and `@keys`.
    pub(crate) fn at(self: &Arc<DeclType>, path: &[String]) -> Option<Arc<DeclType>> {
        let mut here = self.clone();
        for name in path {
            let next = match (&here.kind, name.as_str()) {
                (DeclKind::List(of, _) | DeclKind::Map(of), "@items" | "@values") => of.clone(),
                (DeclKind::Map(_), "@keys") => DeclType::string(),
                (DeclKind::Object(object), name) => object.field(name)?.decl.clone(),
                _ => return None,
            };
            here = next;
        }
        Some(here)
    }

    /// Declares what a schema describes, or `None` if expressions cannot see it: a schema without a type, an array
    /// without items, and what contains nothing else. `root` is set for a resource, whose `apiVersion`, `kind` and
    /// `metadata.name` and `.generateName` are always visible. Objects are named by their path under `name`.
    pub fn from_schema(schema: &dyn Schema, root: bool, name: &str) -> Option<Arc<DeclType>> {
        build(schema, root, name)
    }
}

/// What a declaration is made from: a structural schema, an OpenAPI schema, a row of a table.
pub trait Schema {
    /// `type`; empty if there is none.
    fn type_name(&self) -> &str;
    /// `format`; empty if there is none.
    fn format(&self) -> &str {
        ""
    }
    /// `x-kubernetes-int-or-string`.
    fn int_or_string(&self) -> bool {
        false
    }
    /// `x-kubernetes-embedded-resource`.
    fn embedded_resource(&self) -> bool {
        false
    }
    /// `nullable`.
    fn nullable(&self) -> bool {
        false
    }
    /// `items`.
    fn items(&self) -> Option<&dyn Schema> {
        None
    }
    /// The schema in `additionalProperties`.
    fn additional_properties(&self) -> Option<&dyn Schema> {
        None
    }
    /// Calls `each` with every property: name, schema, whether it is required, whether it has a default.
    fn properties(&self, each: &mut dyn FnMut(&str, &dyn Schema, bool, bool));
    /// `maxLength`.
    fn max_length(&self) -> Option<u64> {
        None
    }
    /// `maxItems`.
    fn max_items(&self) -> Option<u64> {
        None
    }
    /// `maxProperties`.
    fn max_properties(&self) -> Option<u64> {
        None
    }
    /// The length in bytes of the longest string in `enum`, if there is an `enum`.
    fn longest_enum(&self) -> Option<u64> {
        None
    }
    /// `x-kubernetes-list-type` with `x-kubernetes-list-map-keys`.
    fn list_kind(&self) -> ListKind {
        ListKind::Atomic
    }
}

fn build(schema: &dyn Schema, root: bool, name: &str) -> Option<Arc<DeclType>> {
    let largest_text = MAX_REQUEST_BYTES - 2;
    let decl = |kind, max_elements, min_serialized_size| {
        Arc::new(DeclType { kind, max_elements, min_serialized_size, nullable: schema.nullable() })
    };
    // A length is in characters, sizes are in bytes.
    let text_length = schema.max_length().map(|length| length.saturating_mul(4));
    if schema.int_or_string() {
        return Some(decl(DeclKind::IntOrString, text_length.unwrap_or(largest_text), 1));
    }
    match schema.type_name() {
        "array" => {
            let items = schema.items()?;
            let of = build(items, items.embedded_resource(), &format!("{name}.@idx"))?;
            let max = schema.max_items().unwrap_or((MAX_REQUEST_BYTES - 2) / (of.min_serialized_size + 1));
            Some(decl(DeclKind::List(of, schema.list_kind()), max, 2))
        }
        "object" => {
            if let Some(values) = schema.additional_properties() {
                let of = build(values, values.embedded_resource(), &format!("{name}.@elem"))?;
                let max = schema.max_properties().unwrap_or((MAX_REQUEST_BYTES - 2) / (of.min_serialized_size + 6));
                return Some(decl(DeclKind::Map(of), max, 2));
            }
            let mut fields = BTreeMap::new();
            let mut size = 2;
            schema.properties(&mut |json_name, property, required, defaulted| {
                let Some(spelled) = escape(json_name) else {
                    // It is invisible, but if it must be there it takes room.
                    if let Some(of) = build(property, property.embedded_resource(), name)
                        && required
                        && !defaulted
                    {
                        size += json_name.len() as u64 + of.min_serialized_size + 4;
                    }
                    return;
                };
                let path = format!("{name}.{spelled}");
                if let Some(of) = build(property, property.embedded_resource(), &path) {
                    if required && !defaulted {
                        size += json_name.len() as u64 + of.min_serialized_size + 4;
                    }
                    let field = FieldDecl { json_name: json_name.into(), decl: of, required };
                    fields.insert(spelled.into_owned(), field);
                }
            });
            if root {
                with_type_and_object_meta(&mut fields, name);
            }
            let object = ObjectDecl { name: name.into(), fields, open: false };
            Some(decl(DeclKind::Object(Arc::new(object)), 0, size))
        }
        "string" => Some(match schema.format() {
            "byte" => decl(DeclKind::Bytes, schema.max_length().unwrap_or(largest_text), MIN_STRING),
            "duration" => decl(DeclKind::Duration, MAX_DURATION, MIN_DURATION),
            "date" => decl(DeclKind::Date, DATE, DATE),
            "date-time" => decl(DeclKind::DateTime, MAX_DATETIME, MIN_DATETIME),
            _ => decl(DeclKind::String, text_length.or(schema.longest_enum()).unwrap_or(largest_text), MIN_STRING),
        }),
        "boolean" => Some(decl(DeclKind::Bool, 0, 4)),
        "number" => Some(decl(DeclKind::Double, 0, 1)),
        "integer" => Some(decl(DeclKind::Int, 0, 1)),
        _ => None,
    }
}

/// Makes `apiVersion`, `kind`, `metadata.name` and `metadata.generateName` visible, unless the schema says them all.
fn with_type_and_object_meta(fields: &mut BTreeMap<String, FieldDecl>, name: &str) {
    let is_text = |field: Option<&FieldDecl>| field.is_some_and(|f| matches!(f.decl.kind, DeclKind::String));
    let whole = is_text(fields.get("kind"))
        && is_text(fields.get("apiVersion"))
        && fields.get("metadata").is_some_and(|metadata| match &metadata.decl.kind {
            DeclKind::Object(object) => {
                is_text(object.fields.get("name")) && is_text(object.fields.get("generateName"))
            }
            _ => false,
        });
    if whole {
        return;
    }
    let text =
        |max| Arc::new(DeclType { kind: DeclKind::String, max_elements: max, min_serialized_size: 2, nullable: false });
    let text = text(MAX_REQUEST_BYTES - 2);
    let field = |json_name: &str, decl: Arc<DeclType>| FieldDecl { json_name: json_name.into(), decl, required: false };
    let metadata = ObjectDecl {
        name: format!("{name}.metadata"),
        fields: BTreeMap::from([
            ("name".to_owned(), field("name", text.clone())),
            ("generateName".to_owned(), field("generateName", text.clone())),
        ]),
        open: false,
    };
    fields.insert("kind".into(), field("kind", text.clone()));
    fields.insert("apiVersion".into(), field("apiVersion", text));
    fields.insert("metadata".into(), field("metadata", DeclType::new(DeclKind::Object(Arc::new(metadata)), 2)));
}
