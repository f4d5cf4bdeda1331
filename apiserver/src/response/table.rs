//! `meta.k8s.io` Tables: what `kubectl get` shows, computed by the printers of `api`.

use api::custom::columns::Columns;
use api::printers::{self, Printer};
use apimachinery::status::Status;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::encode::partial_metadata;
use super::list::ListMeta;
use crate::registry::Served;
use crate::request::Query;

/// What goes into each row besides its cells (`includeObject`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IncludeObject {
    None,
    #[default]
    Metadata,
    Object,
}

/// What knows the columns of a kind.
#[derive(Clone, Copy)]
enum By<'a> {
    Printer(&'static Printer),
    Columns(&'a Columns),
}

impl<'a> By<'a> {
    fn of(served: &'a Served) -> Self {
        match served.custom() {
            Some(custom) => By::Columns(custom.columns()),
            None => By::Printer(printers::find(&served.resource.group, &served.resource.plural)),
        }
    }
}

/// How rows are made.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub include: IncludeObject,
    /// Watches repeat the columns in their first event only.
    pub with_columns: bool,
    /// Ages are relative to this.
    pub now: Timestamp,
}

impl Options {
    /// Reads `includeObject`.
    ///
    /// # Errors
    /// 400 for a value upstream does not know.
    pub fn parse(query: &Query, now: Timestamp) -> Result<Self, Status> {
        let include = match query.get("includeObject").unwrap_or_default() {
            "" | "Metadata" => IncludeObject::Metadata,
            "None" => IncludeObject::None,
            "Object" => IncludeObject::Object,
            other => {
                let mut errors = apimachinery::field::ErrorList::new();
                errors.push(apimachinery::field::invalid(
                    &apimachinery::field::Path::new("includeObject"),
                    other,
                    "must be 'Metadata', 'Object', 'None', or empty",
                ));
                return Err(Status::bad_request(format!(
                    "Unable to convert to Table as requested: {}",
                    errors.to_aggregate()
                )));
            }
        };
        Ok(Self { include, with_columns: true, now })
    }

    /// A Table of one object.
    ///
    /// # Errors
    /// None today; kinds without a printer get the default columns.
    pub fn of_object(&self, served: &Served, object: &Value, version: &str) -> Result<Value, Status> {
        let meta = ListMeta::of_object(object);
        self.of_list(served, std::iter::once(object.clone()), &meta, version)
    }

    /// A Table of many objects.
    ///
    /// # Errors
    /// As [`Options::of_object`].
    pub fn of_list(
        &self,
        served: &Served,
        objects: impl Iterator<Item = Value>,
        meta: &ListMeta,
        version: &str,
    ) -> Result<Value, Status> {
        let by = By::of(served);
        let rows: Vec<Value> = objects.map(|object| self.row_by(by, served, object, version)).collect();
        Ok(self.whole(by, rows, meta, version))
    }

    /// A Table of the Scale of an object: it has a kind, and so columns, of its own.
    pub fn of_scale(&self, served: &Served, scale: &Value, version: &str) -> Value {
        let columns = served.custom().map(|_| Columns::of_scale());
        let by = columns.as_ref().map_or(By::Printer(&printers::SCALE), By::Columns);
        let row = self.row_by(by, served, scale.clone(), version);
        self.whole(by, vec![row], &ListMeta::of_object(scale), version)
    }

    fn whole(&self, by: By<'_>, rows: Vec<Value>, meta: &ListMeta, version: &str) -> Value {
        let columns = match by {
            _ if !self.with_columns => Value::Null,
            By::Columns(columns) => columns.definitions().into(),
            By::Printer(printer) => {
                printer.columns.iter().map(|column| column.to_value(api::openapi::field_description)).collect()
            }
        };
        // A kind without columns of its own has no rows rather than an empty list of them.
        let none = rows.is_empty() && matches!(by, By::Printer(printer) if printer.resource.is_empty());
        json!({
            "kind": "Table",
            "apiVersion": format!("meta.k8s.io/{version}"),
            "metadata": meta.to_value(),
            "columnDefinitions": columns,
            "rows": if none { Value::Null } else { rows.into() },
        })
    }

    /// One row of an object: of a built-in kind in the version that is stored.
    pub fn row(&self, served: &Served, object: Value, version: &str) -> Value {
        self.row_by(By::of(served), served, object, version)
    }

    fn row_by(&self, by: By<'_>, served: &Served, mut object: Value, version: &str) -> Value {
        let (cells, conditions) = match by {
            By::Columns(columns) => (columns.cells(&object, self.now), Vec::new()),
            By::Printer(printer) => ((printer.row)(&object, self.now), (printer.conditions)(&object)),
        };
        let mut row = json!({"cells": cells});
        if !conditions.is_empty() {
            row["conditions"] = conditions.into();
        }
        row["object"] = match self.include {
            IncludeObject::None => Value::Null,
            IncludeObject::Metadata => {
                let metadata = object.get_mut("metadata").map(Value::take).unwrap_or_else(|| json!({}));
                partial_metadata(served, metadata, version)
            }
            IncludeObject::Object => match by {
                By::Columns(_) => object,
                By::Printer(_) => served.from_storage(object),
            },
        };
        row
    }
}
