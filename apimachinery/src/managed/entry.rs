//! Entries of managedFields, their identity and their wire form.

use crate::fieldset::{self, Comparison, Set};
use crate::gotext::quote;
use crate::time::{self, Timestamp};
use serde_json::{Map, Value, json};

/// How a manager came to own its fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    Apply,
    Update,
}

impl Operation {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Apply => "Apply",
            Self::Update => "Update",
        }
    }
}

/// One manager's fields.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub manager: String,
    pub operation: Operation,
    pub api_version: String,
    pub subresource: String,
    pub time: Option<Timestamp>,
    pub fields: Fields,
}

/// A set of fields, read as far as that was needed: most writes touch the fields of one manager of many.
#[derive(Clone, Debug, PartialEq)]
pub enum Fields {
    /// FieldsV1 that was checked when it was stored.
    Wire(Value),
    Set(Set),
}

impl Fields {
    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Wire(fields) => fields.as_object().is_none_or(Map::is_empty),
            Self::Set(set) => set.is_empty(),
        }
    }

    /// The set, for reading.
    pub fn set(&self) -> Set {
        match self {
            Self::Wire(fields) => Set::from_fields_v1(fields).unwrap_or_default(),
            Self::Set(set) => set.clone(),
        }
    }

    /// The set, leaving nothing.
    pub(super) fn take(&mut self) -> Set {
        match std::mem::replace(self, Self::Set(Set::new())) {
            Self::Wire(fields) => Set::from_fields_v1(&fields).unwrap_or_default(),
            Self::Set(set) => set,
        }
    }

    pub(super) fn intersects(&self, other: &Set) -> bool {
        match self {
            Self::Wire(fields) => fieldset::raw::intersects(fields, other),
            Self::Set(set) => !set.intersection(other).is_empty(),
        }
    }

    pub(super) fn contains(&self, other: &Set) -> bool {
        match self {
            Self::Wire(fields) => fieldset::raw::contains(fields, other),
            Self::Set(set) => set.contains(other),
        }
    }

    /// Takes away what changed or went.
    pub(super) fn lose(&mut self, changes: &Comparison) {
        let touched =
            self.intersects(&changes.modified) || self.intersects(&changes.added) || self.intersects(&changes.removed);
        if touched {
            let set = self.take();
            let set = set.difference(&changes.modified).difference(&changes.added).difference(&changes.removed);
            *self = Self::Set(set);
        }
    }
}

/// managedFields that cannot be read; the text is upstream's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("operation must be `Apply` or `Update`")]
    Operation,
    #[error("apiVersion must not be empty")]
    ApiVersion,
    #[error("missing fieldsType in managed fields entry {0}")]
    NoFieldsType(usize),
    #[error("invalid fieldsType {} in managed fields entry {index}", quote(.given))]
    FieldsType { given: String, index: usize },
    #[error("error decoding set: {0}")]
    Set(#[from] crate::fieldset::DecodeError),
    #[error("{0}")]
    Time(#[from] time::ParseError),
    #[error("managedFields must be a list of objects")]
    Shape,
}

impl Entry {
    /// What the manager owns.
    pub fn set(&self) -> Set {
        self.fields.set()
    }

    pub(super) fn seconds(&self) -> i64 {
        self.time.map_or(0, |t| t.as_nanosecond().div_euclid(1_000_000_000) as i64)
    }

    /// What upstream sorts managers by: the entry's JSON without fields and time, in Go's order.
    pub(super) fn identifier(&self) -> String {
        let mut out = String::from("{");
        let mut field = |name: &str, value: &str| {
            if !value.is_empty() {
                let comma = if out.len() > 1 { "," } else { "" };
                out.push_str(&format!("{comma}\"{name}\":{}", Value::from(value)));
            }
        };
        field("manager", &self.manager);
        field("operation", self.operation.as_str());
        if self.operation == Operation::Update {
            field("apiVersion", &self.api_version);
        }
        field("subresource", &self.subresource);
        out.push('}');
        out
    }

    fn into_value(self) -> Value {
        let mut map = Map::new();
        let time = self.time.map(time::format).unwrap_or_default();
        for (name, text) in [
            ("manager", self.manager),
            ("operation", self.operation.as_str().to_owned()),
            ("apiVersion", self.api_version),
            ("subresource", self.subresource),
            ("fieldsType", "FieldsV1".to_owned()),
            ("time", time),
        ] {
            if !text.is_empty() {
                map.insert(name.into(), text.into());
            }
        }
        let fields = match self.fields {
            Fields::Wire(fields) => fields,
            Fields::Set(set) => set.to_fields_v1(),
        };
        map.insert("fieldsV1".into(), fields);
        Value::Object(map)
    }
}

/// What makes two entries the same manager. An applier stays itself across versions.
pub(super) struct Identity {
    manager: String,
    operation: Operation,
    api_version: String,
    subresource: String,
}

impl Identity {
    pub(super) fn update(manager: &str, api_version: &str, subresource: &str) -> Self {
        Self {
            manager: if manager.is_empty() { "unknown" } else { manager }.to_owned(),
            operation: Operation::Update,
            api_version: api_version.to_owned(),
            subresource: subresource.to_owned(),
        }
    }

    pub(super) fn apply(manager: &str, subresource: &str) -> Self {
        Self { operation: Operation::Apply, ..Self::update(manager, "", subresource) }
    }

    pub(super) fn is(&self, entry: &Entry) -> bool {
        self.manager == entry.manager
            && self.operation == entry.operation
            && self.subresource == entry.subresource
            && (self.operation == Operation::Apply || self.api_version == entry.api_version)
    }

    pub(super) fn entry(&self, set: Set, time: Option<Timestamp>) -> Entry {
        Entry {
            manager: self.manager.clone(),
            operation: self.operation,
            api_version: self.api_version.clone(),
            subresource: self.subresource.clone(),
            time,
            fields: Fields::Set(set),
        }
    }
}

/// Reads managedFields that were stored here; absent ones are none. Sets stay in their wire form.
pub(super) fn stored(list: Option<&Value>) -> Result<Vec<Entry>, DecodeError> {
    read(list, |fields| Ok(Fields::Wire(fields.clone())))
}

/// Reads managedFields from anywhere; absent ones are none.
pub(super) fn decode(list: Option<&Value>) -> Result<Vec<Entry>, DecodeError> {
    read(list, |fields| Ok(Fields::Set(Set::from_fields_v1(fields)?)))
}

fn read(list: Option<&Value>, set: impl Fn(&Value) -> Result<Fields, DecodeError>) -> Result<Vec<Entry>, DecodeError> {
    let items = match list {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(items)) => items,
        Some(_) => return Err(DecodeError::Shape),
    };
    let mut entries: Vec<Entry> = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        let map = item.as_object().ok_or(DecodeError::Shape)?;
        let text = |name: &str| map.get(name).and_then(Value::as_str).unwrap_or_default();
        let operation = match text("operation") {
            "Apply" => Operation::Apply,
            "Update" => Operation::Update,
            _ => return Err(DecodeError::Operation),
        };
        if text("apiVersion").is_empty() {
            return Err(DecodeError::ApiVersion);
        }
        match text("fieldsType") {
            "FieldsV1" => {}
            "" => return Err(DecodeError::NoFieldsType(index)),
            given => return Err(DecodeError::FieldsType { given: given.to_owned(), index }),
        }
        let empty = json!({});
        let fields = map.get("fieldsV1").filter(|f| !f.is_null()).unwrap_or(&empty);
        let entry = Entry {
            manager: text("manager").to_owned(),
            operation,
            api_version: text("apiVersion").to_owned(),
            subresource: text("subresource").to_owned(),
            time: map.get("time").and_then(Value::as_str).map(time::parse).transpose()?,
            fields: set(fields)?,
        };
        // A manager named twice is one manager; the later entry counts.
        let known = entries.iter().position(|other| {
            other.manager == entry.manager
                && other.operation == entry.operation
                && other.subresource == entry.subresource
                && (entry.operation == Operation::Apply || other.api_version == entry.api_version)
        });
        match known {
            Some(at) => entries[at] = entry,
            None => entries.push(entry),
        }
    }
    Ok(entries)
}

/// The wire form, sorted: appliers first, then by time, manager, version and subresource.
pub(super) fn encode(mut entries: Vec<Entry>) -> Value {
    fn key(e: &Entry) -> (Operation, i64, &str, &str, &str) {
        (e.operation, e.seconds(), &e.manager, &e.api_version, &e.subresource)
    }
    entries.sort_by(|a, b| key(a).cmp(&key(b)));
    Value::Array(entries.into_iter().map(Entry::into_value).collect())
}
