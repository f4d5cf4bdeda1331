//! `--sort-by`: rows and objects in the order of a field.

use std::cmp::Ordering;

use apimachinery::jsonpath::{self, JsonPath};
use apimachinery::quantity::Quantity;
use serde_json::Value;

use super::Fetched;
use crate::codec;
use crate::error::{Error, Result};

fn path(field: &str) -> Result<JsonPath> {
    let expression = jsonpath::relaxed(field).unwrap_or_else(|_| field.to_owned());
    JsonPath::parse(&expression)
        .map(|path| path.allow_missing_keys(true))
        .map_err(|error| Error::message(error.to_string()))
}

/// The first value a path finds.
fn key(path: &JsonPath, object: &Value) -> Result<Option<Value>> {
    let found = path.find(object).map_err(|error| Error::message(error.to_string()))?;
    Ok(found.into_iter().flatten().next().map(std::borrow::Cow::into_owned))
}

/// Sorts the rows of a table by a field of their objects.
pub(super) fn table(table: &mut Value, field: &str) -> Result<()> {
    let path = path(field)?;
    let Some(rows) = table.get_mut("rows").and_then(Value::as_array_mut) else { return Ok(()) };
    let mut keyed = Vec::new();
    for row in rows.drain(..) {
        keyed.push((key(&path, row.get("object").unwrap_or(&Value::Null))?, row));
    }
    found_somewhere(&keyed, field)?;
    keyed.sort_by(|a, b| compare(&a.0, &b.0));
    rows.extend(keyed.into_iter().map(|(_, row)| row));
    Ok(())
}

/// Sorts objects by a field.
pub(super) fn objects(items: &mut Vec<Value>, field: &str) -> Result<()> {
    let path = path(field)?;
    let mut keyed = Vec::new();
    for item in items.drain(..) {
        keyed.push((key(&path, &item)?, item));
    }
    found_somewhere(&keyed, field)?;
    keyed.sort_by(|a, b| compare(&a.0, &b.0));
    items.extend(keyed.into_iter().map(|(_, item)| item));
    Ok(())
}

fn found_somewhere(keyed: &[(Option<Value>, Value)], field: &str) -> Result<()> {
    if !keyed.is_empty() && keyed.iter().all(|(key, _)| key.is_none()) {
        let expression = jsonpath::relaxed(field).unwrap_or_else(|_| field.to_owned());
        return Err(Error::message(format!("couldn't find any field with path {expression:?} in the list of objects")));
    }
    Ok(())
}

/// Absent first; numbers by value; texts as quantities when both are, else in natural order.
fn compare(a: &Option<Value>, b: &Option<Value>) -> Ordering {
    match (a, b) {
        (None, None) => Ordering::Equal,
        (None, Some(_)) => Ordering::Less,
        (Some(_), None) => Ordering::Greater,
        (Some(Value::Number(a)), Some(Value::Number(b))) => {
            a.as_f64().partial_cmp(&b.as_f64()).unwrap_or(Ordering::Equal)
        }
        (Some(Value::String(a)), Some(Value::String(b))) => match (Quantity::parse(a), Quantity::parse(b)) {
            (Ok(a), Ok(b)) => a.as_f64().partial_cmp(&b.as_f64()).unwrap_or(Ordering::Equal),
            _ => natural(a, b),
        },
        (Some(Value::Bool(a)), Some(Value::Bool(b))) => a.cmp(b),
        (Some(a), Some(b)) => a.to_string().cmp(&b.to_string()),
    }
}

/// Digits within texts compare as numbers: `pod-9` before `pod-10`.
fn natural(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a, b);
    loop {
        match (a.chars().next(), b.chars().next()) {
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => return Ordering::Less,
            (Some(_), None) => return Ordering::Greater,
            (Some(x), Some(y)) if x.is_ascii_digit() && y.is_ascii_digit() => {
                let split = |text: &str| text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
                let ((na, ra), (nb, rb)) = (a.split_at(split(a)), b.split_at(split(b)));
                let (ta, tb) = (na.trim_start_matches('0'), nb.trim_start_matches('0'));
                let order = ta.len().cmp(&tb.len()).then_with(|| ta.cmp(tb)).then_with(|| na.len().cmp(&nb.len()));
                if order != Ordering::Equal {
                    return order;
                }
                (a, b) = (ra, rb);
            }
            (Some(x), Some(y)) if x != y => return x.cmp(&y),
            (Some(x), Some(y)) => (a, b) = (&a[x.len_utf8()..], &b[y.len_utf8()..]),
        }
    }
}

/// Puts the rows of tables of one type into one table.
pub(super) fn merge(found: Vec<Fetched>) -> Vec<Fetched> {
    let mut merged: Vec<Fetched> = Vec::new();
    for mut fetched in found {
        match merged.iter_mut().find(|known| known.info.mapping == fetched.info.mapping) {
            Some(known) => {
                let rows = codec::list(&fetched.info.object, &["rows"]).to_vec();
                if let Some(all) = known.info.object.get_mut("rows").and_then(Value::as_array_mut) {
                    all.extend(rows);
                }
            }
            None => {
                fetched.single = false;
                merged.push(fetched);
            }
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::natural;

    #[test]
    fn natural_order() {
        let mut names = vec!["pod-10", "pod-9", "pod-1", "a", "pod-09"];
        names.sort_by(|a, b| natural(a, b));
        assert_eq!(names, ["a", "pod-1", "pod-9", "pod-09", "pod-10"]);
    }
}
