//! Where a path leads in a schema.

use serde_json::Value;

use crate::custom::paths;

/// Follows a path through a schema: its steps, and the schema at its end.
///
/// # Errors
/// In upstream's words, when the path or the place is not there.
pub fn find<'a>(text: &str, schema: &'a Value, arrays: bool) -> Result<(Vec<String>, &'a Value), String> {
    let steps = paths::steps(text, arrays)?;
    let mut at = schema;
    for name in &steps {
        at = step(at, name).ok_or("does not refer to a valid field")?;
    }
    Ok((steps, at))
}

fn step<'a>(schema: &'a Value, name: &str) -> Option<&'a Value> {
    match schema.get("properties").and_then(Value::as_object) {
        Some(properties) => properties.get(name),
        None => schema.get("additionalProperties").filter(|additional| additional.is_object()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn follows_schemas() {
        let schema = json!({"properties": {
            "spec": {"properties": {"a.b": {"type": "string"}, "c": {"additionalProperties": {"type": "integer"}}}},
        }});
        assert_eq!(find(".spec['a.b']", &schema, true).map(|found| found.1["type"].clone()), Ok(json!("string")));
        assert_eq!(find(".spec.c.any", &schema, true).map(|found| found.1["type"].clone()), Ok(json!("integer")));
        assert_eq!(find(".spec.x", &schema, true).err().as_deref(), Some("does not refer to a valid field"));
    }
}
