//! `meta.k8s.io` Tables: what `kubectl get` shows, computed by the printers of `api`.

use api::printers;
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
        let meta = ListMeta {
            resource_version: object
                .pointer("/metadata/resourceVersion")
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_string(),
            ..ListMeta::default()
        };
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
        let printer = printers::find(&served.resource.group, &served.resource.plural);
        let custom = served.custom().map(|custom| custom.columns());
        let rows: Vec<Value> = objects.map(|object| self.row(served, object, version)).collect();
        let columns: Value = if let Some(columns) = custom.filter(|_| self.with_columns) {
            columns.definitions().into()
        } else if self.with_columns {
            printer.columns.iter().map(|column| column.to_value(api::openapi::field_description)).collect()
        } else {
            Value::Null
        };
        // A kind without columns of its own has no rows rather than an empty list of them.
        let none = rows.is_empty() && custom.is_none() && printer.resource.is_empty();
        Ok(json!({
            "kind": "Table",
            "apiVersion": format!("meta.k8s.io/{version}"),
            "metadata": meta.to_value(),
            "columnDefinitions": columns,
            "rows": if none { Value::Null } else { rows.into() },
        }))
    }

    /// One row.
    pub fn row(&self, served: &Served, mut object: Value, version: &str) -> Value {
        let printer = printers::find(&served.resource.group, &served.resource.plural);
        let custom = served.custom().map(|custom| custom.columns());
        let cells = match custom {
            Some(columns) => columns.cells(&object, self.now),
            None => (printer.row)(&object, self.now),
        };
        let mut row = json!({"cells": cells});
        let conditions = if custom.is_some() { Vec::new() } else { (printer.conditions)(&object) };
        if !conditions.is_empty() {
            row["conditions"] = conditions.into();
        }
        row["object"] = match self.include {
            IncludeObject::None => Value::Null,
            IncludeObject::Metadata => {
                let metadata = object.get_mut("metadata").map(Value::take).unwrap_or_else(|| json!({}));
                partial_metadata(served, metadata, version)
            }
            IncludeObject::Object => object,
        };
        row
    }
}
