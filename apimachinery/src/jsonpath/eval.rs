//! Nodes over a tree of values.

use std::borrow::Cow;
use std::cmp::Ordering;

use serde_json::Value;

use super::{Error, JsonPath, Node, Slice};
use crate::gotext;

type Item<'a> = Cow<'a, Value>;

pub(super) fn find<'a>(path: &JsonPath, data: &'a Value) -> Result<Vec<Vec<Item<'a>>>, Error> {
    let run = Run { allow_missing_keys: path.allow_missing_keys };
    Ok(run.block(&path.nodes, vec![Cow::Borrowed(data)], 0)?.0)
}

struct Run {
    allow_missing_keys: bool,
}

impl Run {
    /// Runs nodes up to the `{end}` of the range they are in, or to the last. Returns the results
    /// and where that end was.
    #[allow(clippy::type_complexity)]
    fn block<'a>(
        &self,
        nodes: &[Node],
        current: Vec<Item<'a>>,
        ranges: usize,
    ) -> Result<(Vec<Vec<Item<'a>>>, Option<usize>), Error> {
        let mut found = Vec::new();
        let mut index = 0;
        while let Some(node) = nodes.get(index) {
            let keyword = keyword(node);
            if keyword == Some("end") && ranges == 0 {
                return Err(Error::new("not in range, nothing to end"));
            }
            let results = self.step(current.clone(), node)?;
            match keyword {
                Some("end") => return Ok((found, Some(index))),
                Some("range") => {
                    let body = &nodes[index + 1..];
                    let mut end = None;
                    if results.is_empty() {
                        // Walked once over nothing, only to learn where the range ends.
                        end = self.block(body, vec![Cow::Owned(Value::Null)], ranges + 1)?.1;
                    }
                    for element in results {
                        let (inner, at) = self.block(body, vec![element], ranges + 1)?;
                        found.extend(inner);
                        end = at;
                    }
                    index += end.map_or(0, |end| end + 1);
                }
                _ => found.push(results),
            }
            index += 1;
        }
        Ok((found, None))
    }

    fn list<'a>(&self, mut current: Vec<Item<'a>>, nodes: &[Node]) -> Result<Vec<Item<'a>>, Error> {
        for node in nodes {
            current = self.step(current, node)?;
        }
        Ok(current)
    }

    fn step<'a>(&self, input: Vec<Item<'a>>, node: &Node) -> Result<Vec<Item<'a>>, Error> {
        let literal = |value: Value| vec![Cow::Owned(value); input.len()];
        Ok(match node {
            Node::Text(text) => vec![Cow::Owned(Value::String(text.clone()))],
            Node::List(nodes) => self.list(input, nodes)?,
            Node::Int(int) => literal(Value::from(*int)),
            Node::Float(float) => literal(Value::from(*float)),
            Node::Bool(flag) => literal(Value::Bool(*flag)),
            Node::Identifier(name) => match name.as_str() {
                "range" => input,
                "end" => Vec::new(),
                other => return Err(Error::new(format!("unrecognized identifier {other}"))),
            },
            Node::Field(name) => self.field(input, name)?,
            Node::Wildcard => input.iter().flat_map(elements).collect(),
            Node::Recursive => {
                let mut found = Vec::new();
                input.into_iter().for_each(|item| descend(item, &mut found));
                found
            }
            Node::Union(members) => {
                let mut found = Vec::new();
                for member in members {
                    found.extend(self.list(input.clone(), member)?);
                }
                found
            }
            Node::Array(slice) => {
                let mut found = Vec::new();
                for item in &input {
                    match &**item {
                        Value::Null => {}
                        Value::Array(list) => {
                            let elements = children(item);
                            found.extend(indices(slice, list.len())?.map(|i| elements[i].clone()));
                        }
                        other => {
                            return Err(Error::new(format!("{} is not array or slice", gotext::type_of(other, "nil"))));
                        }
                    }
                }
                found
            }
            Node::Filter { left, right, operator } => {
                let mut found = Vec::new();
                for item in &input {
                    if !item.is_array() {
                        let shown = super::to_text(item);
                        return Err(Error::new(format!("{shown} is not array or slice and cannot be filtered")));
                    }
                    for element in children(item) {
                        if self.passes(&element, left, operator, right)? {
                            found.push(element);
                        }
                    }
                }
                found
            }
        })
    }

    fn field<'a>(&self, input: Vec<Item<'a>>, name: &str) -> Result<Vec<Item<'a>>, Error> {
        if input.is_empty() {
            return Ok(input);
        }
        let found: Vec<Item<'a>> = input.iter().filter_map(|item| get(item, name)).collect();
        if found.is_empty() && !self.allow_missing_keys {
            return Err(Error::new(format!("{name} is not found")));
        }
        Ok(found)
    }

    fn passes(&self, element: &Item<'_>, left: &[Node], operator: &str, right: &[Node]) -> Result<bool, Error> {
        let lefts = self.list(vec![element.clone()], left);
        if operator == "exists" {
            return Ok(lefts.is_ok_and(|lefts| !lefts.is_empty()));
        }
        let one = |mut values: Vec<Item<'_>>| match values.len() {
            0 => Ok(None),
            1 => Ok(values.pop().map(Cow::into_owned)),
            _ => Err(Error::new("can only compare one element at a time")),
        };
        let Some(left) = one(lefts?)? else { return Ok(false) };
        let Some(right) = one(self.list(vec![element.clone()], right)?)? else { return Ok(false) };
        match operator {
            "==" => equal(&left, &right),
            "!=" => equal(&left, &right).map(|same| !same),
            "<" => order(&left, &right).map(Ordering::is_lt),
            "<=" => order(&left, &right).map(Ordering::is_le),
            ">" => order(&left, &right).map(Ordering::is_gt),
            ">=" => order(&left, &right).map(Ordering::is_ge),
            other => Err(Error::new(format!("unrecognized filter operator {other}"))),
        }
    }
}

/// `range` or `end`, when an action holds that keyword.
fn keyword(node: &Node) -> Option<&str> {
    let Node::List(nodes) = node else { return None };
    nodes.iter().find_map(|node| match node {
        Node::Identifier(name) if name == "range" || name == "end" => Some(name.as_str()),
        _ => None,
    })
}

fn get<'a>(item: &Item<'a>, name: &str) -> Option<Item<'a>> {
    match item {
        Cow::Borrowed(value) => value.as_object()?.get(name).map(Cow::Borrowed),
        Cow::Owned(value) => value.as_object()?.get(name).cloned().map(Cow::Owned),
    }
}

fn children<'a>(item: &Item<'a>) -> Vec<Item<'a>> {
    match item {
        Cow::Borrowed(Value::Object(map)) => map.values().map(Cow::Borrowed).collect(),
        Cow::Borrowed(Value::Array(list)) => list.iter().map(Cow::Borrowed).collect(),
        Cow::Owned(Value::Object(map)) => map.values().cloned().map(Cow::Owned).collect(),
        Cow::Owned(Value::Array(list)) => list.iter().cloned().map(Cow::Owned).collect(),
        _ => Vec::new(),
    }
}

/// What a wildcard stands for: the children, and of a string its bytes, as Go has them.
fn elements<'a>(item: &Item<'a>) -> Vec<Item<'a>> {
    match item.as_ref() {
        Value::String(text) => text.bytes().map(|byte| Cow::Owned(Value::from(byte))).collect(),
        _ => children(item),
    }
}

/// Every value below and including `item` that has children, in depth-first order.
fn descend<'a>(item: Item<'a>, found: &mut Vec<Item<'a>>) {
    let below = children(&item);
    if below.is_empty() {
        return;
    }
    found.push(item);
    for child in below {
        descend(child, found);
    }
}

fn indices(slice: &Slice, length: usize) -> Result<std::iter::StepBy<std::ops::Range<usize>>, Error> {
    let length = i64::try_from(length).expect("a list fits in memory");
    let mut start = slice.start.unwrap_or(0);
    if start < 0 {
        start += length;
    }
    let mut end = slice.end.unwrap_or(length);
    if end < 0 || (end == 0 && slice.end_derived) {
        end += length;
    }
    if start == end {
        return Ok((0..0).step_by(1));
    }
    let out_of_bounds = |index| Err(Error::new(format!("array index out of bounds: index {index}, length {length}")));
    if start >= length || start < 0 {
        return out_of_bounds(start);
    }
    if end > length || end < 0 {
        return out_of_bounds(end - 1);
    }
    if start > end {
        return Err(Error::new(format!("starting index {start} is greater than ending index {end}")));
    }
    let step = match slice.step {
        Some(step) if step <= 0 => return Err(Error::new("step must be > 0")),
        Some(step) => usize::try_from(step).unwrap_or(usize::MAX),
        None => 1,
    };
    let bound = |index| usize::try_from(index).expect("checked to be within the list");
    Ok((bound(start)..bound(end)).step_by(step))
}

fn equal(left: &Value, right: &Value) -> Result<bool, Error> {
    match (left, right) {
        (Value::Bool(a), Value::Bool(b)) => Ok(a == b),
        _ => order(left, right).map(Ordering::is_eq),
    }
}

/// Values compare only with their own kind; an integer does not compare with a float.
fn order(left: &Value, right: &Value) -> Result<Ordering, Error> {
    let kind = |value: &Value| match value {
        Value::String(_) => Some(0),
        Value::Number(number) => Some(if number.is_f64() { 1 } else { 2 }),
        Value::Bool(_) => Some(3),
        _ => None,
    };
    let (Some(a), Some(b)) = (kind(left), kind(right)) else {
        return Err(Error::new("invalid type for comparison"));
    };
    if a != b {
        return Err(Error::new("incompatible types for comparison"));
    }
    match (left, right) {
        (Value::String(a), Value::String(b)) => Ok(a.cmp(b)),
        (Value::Number(a), Value::Number(b)) => match (a.as_i64(), b.as_i64()) {
            (Some(a), Some(b)) => Ok(a.cmp(&b)),
            _ => Ok(a.as_f64().partial_cmp(&b.as_f64()).unwrap_or(Ordering::Equal)),
        },
        _ => Err(Error::new("invalid type for comparison")),
    }
}
