//! `additionalPrinterColumns`: the cells of Tables of custom resources.

use apimachinery::jsonpath::{self, JsonPath};
use apimachinery::time;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::printers::duration;

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// One column besides the name.
#[derive(Clone, Debug)]
struct Column {
    name: Box<str>,
    kind: Box<str>,
    format: Box<str>,
    description: Box<str>,
    priority: i64,
    path: JsonPath,
}

/// The columns of one version.
#[derive(Clone, Debug, Default)]
pub struct Columns(Box<[Column]>);

impl Columns {
    /// Reads the columns of a version (`spec.versions[*]`). Without any there is the age. If a path
    /// does not parse only the name is shown, as upstream falls back.
    pub fn of_version(version: &Value) -> Columns {
        let listed = version.get("additionalPrinterColumns").and_then(Value::as_array);
        let Some(listed) = listed.filter(|columns| !columns.is_empty()) else {
            return Columns(column(&age()).into_iter().collect());
        };
        Columns(listed.iter().map(column).collect::<Option<Vec<_>>>().unwrap_or_default().into())
    }

    /// The columns of a Scale of a custom object.
    pub fn of_scale() -> Columns {
        let replicas = |name: &str, description: &str, path: &str| json!({"name": name, "type": "integer", "description": description, "jsonPath": path});
        let listed = [
            replicas("Desired", "Number of desired replicas", ".spec.replicas"),
            replicas("Available", "Number of actual replicas", ".status.replicas"),
            age(),
        ];
        Columns(listed.iter().filter_map(column).collect())
    }

    /// `columnDefinitions` of a Table.
    pub fn definitions(&self) -> Vec<Value> {
        let name = json!({
            "name": "Name", "type": "string", "format": "name", "priority": 0,
            "description": crate::openapi::field_description(META, "name"),
        });
        let others = self.0.iter().map(|column| {
            json!({
                "name": column.name, "type": column.kind, "format": column.format,
                "description": column.description, "priority": column.priority,
            })
        });
        std::iter::once(name).chain(others).collect()
    }

    /// The cells of one object.
    pub fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
        std::iter::once(json!(name)).chain(self.0.iter().map(|column| column.cell(object, now))).collect()
    }
}

/// A float as Go writes it: without a fraction that says nothing.
fn float(float: f64) -> Value {
    if float.fract() == 0.0 && float.abs() < 9e18 { json!(float as i64) } else { json!(float) }
}

fn age() -> Value {
    json!({
        "name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp",
        "description": crate::openapi::field_description(META, "creationTimestamp"),
    })
}

fn column(definition: &Value) -> Option<Column> {
    let text = |name: &str| definition.get(name).and_then(Value::as_str).unwrap_or_default();
    let path = text("jsonPath");
    let description = match text("description") {
        "" => format!("Custom resource definition column (in JSONPath format): {path}"),
        given => given.to_string(),
    };
    Some(Column {
        name: text("name").into(),
        kind: text("type").into(),
        format: text("format").into(),
        description: description.into(),
        priority: definition.get("priority").and_then(Value::as_i64).unwrap_or_default(),
        path: JsonPath::parse(&format!("{{{path}}}")).ok()?.allow_missing_keys(true),
    })
}

impl Column {
    fn cell(&self, object: &Value, now: Timestamp) -> Value {
        let found = self.path.find(object).ok();
        let first = found.as_ref().and_then(|groups| groups.first()?.first());
        let Some(value) = first else { return Value::Null };
        let value = value.as_ref();
        match (&*self.kind, value) {
            // What Go's templates print for nothing.
            ("string", Value::Null) => json!("<no value>"),
            ("string", value) => json!(jsonpath::to_text(value)),
            ("integer", Value::Number(number)) => match (number.as_i64(), number.as_f64()) {
                (Some(integer), _) => json!(integer),
                // What Go makes of a float that does not fit.
                (None, Some(float)) if float.abs() >= 9_223_372_036_854_775_808.0 => json!(i64::MIN),
                (None, Some(float)) => json!(float as i64),
                _ => Value::Null,
            },
            ("number", Value::Number(number)) => number.as_f64().map_or(Value::Null, float),
            ("boolean", Value::Bool(flag)) => json!(flag),
            ("date", Value::String(text)) if text.is_empty() || text == "null" => json!("<unknown>"),
            ("date", Value::String(text)) => match time::parse(text) {
                Ok(at) => json!(duration::human(duration::between(at, now))),
                Err(_) => json!("<invalid>"),
            },
            _ => Value::Null,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_by_type() {
        let columns = Columns::of_version(&json!({"additionalPrinterColumns": [
            {"name": "S", "type": "string", "jsonPath": ".spec.s"},
            {"name": "Map", "type": "string", "jsonPath": ".spec.map"},
            {"name": "I", "type": "integer", "jsonPath": ".spec.i", "priority": 1},
            {"name": "N", "type": "number", "jsonPath": ".spec.n"},
            {"name": "B", "type": "boolean", "jsonPath": ".spec.b"},
            {"name": "D", "type": "date", "jsonPath": ".spec.d"},
            {"name": "Missing", "type": "string", "jsonPath": ".spec.missing.deep"},
            {"name": "Wrong", "type": "integer", "jsonPath": ".spec.s"},
            {"name": "Huge", "type": "integer", "jsonPath": ".spec.huge"},
        ]}));
        let now: Timestamp = "2026-01-02T00:00:00Z".parse().expect("a timestamp");
        let object = json!({"metadata": {"name": "x"}, "spec": {
            "s": "text", "map": {"a": 1}, "i": 2.5, "n": 1.5, "b": true, "d": "2026-01-01T23:59:00Z", "huge": 1e21}});
        assert_eq!(
            columns.cells(&object, now),
            [
                json!("x"),
                json!("text"),
                json!("{\"a\":1}"),
                json!(2),
                json!(1.5),
                json!(true),
                json!("60s"),
                json!(null),
                json!(null),
                json!(i64::MIN)
            ]
        );
        assert_eq!(columns.definitions()[3]["priority"], 1);
        assert_eq!(Columns::of_version(&json!({})).definitions()[1]["name"], "Age");
    }
}
