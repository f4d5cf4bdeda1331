//! JSON that is parsed only as far as a patch reaches into it: what no patch touches keeps its text, numbers and all,
//! and texts are what is compared.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::Value;
use serde_json::value::RawValue;

use crate::gotext;

/// A value that is not `null`.
#[derive(Clone, Debug)]
pub enum Node<'a> {
    Raw(Cow<'a, str>),
    Document(Document<'a>),
    List(Vec<Item<'a>>),
}

/// An object; `None` is `null`.
pub type Document<'a> = BTreeMap<String, Item<'a>>;

/// A value in a container; `None` is `null`.
pub type Item<'a> = Option<Node<'a>>;

/// The members of an object; `None` if the text is none.
pub fn document(text: Cow<'_, str>) -> Option<Document<'_>> {
    if !text.trim_start().starts_with('{') {
        return None;
    }
    let members = match text {
        Cow::Borrowed(text) => {
            let members: BTreeMap<Cow<'_, str>, &RawValue> = serde_json::from_str(text).ok()?;
            members.into_iter().map(|(key, raw)| (key.into_owned(), item(Cow::Borrowed(raw.get())))).collect()
        }
        Cow::Owned(text) => {
            let members: BTreeMap<String, Box<RawValue>> = serde_json::from_str(&text).ok()?;
            members.into_iter().map(|(key, raw)| (key, item(Cow::Owned(raw.get().to_owned())))).collect()
        }
    };
    Some(members)
}

fn list(text: Cow<'_, str>) -> Option<Vec<Item<'_>>> {
    if !text.trim_start().starts_with('[') {
        return None;
    }
    Some(match text {
        Cow::Borrowed(text) => {
            let items: Vec<&RawValue> = serde_json::from_str(text).ok()?;
            items.into_iter().map(|raw| item(Cow::Borrowed(raw.get()))).collect()
        }
        Cow::Owned(text) => {
            let items: Vec<Box<RawValue>> = serde_json::from_str(&text).ok()?;
            items.into_iter().map(|raw| item(Cow::Owned(raw.get().to_owned()))).collect()
        }
    })
}

/// A text as a value of a container.
pub fn item(text: Cow<'_, str>) -> Item<'_> {
    (text.trim() != "null").then_some(Node::Raw(text))
}

impl<'a> Node<'a> {
    /// Opens the node, if it is a container.
    pub fn open(&mut self) {
        let Node::Raw(text) = self else { return };
        if let Some(document) = document(text.clone()) {
            *self = Node::Document(document);
        } else if let Some(list) = list(text.clone()) {
            *self = Node::List(list);
        }
    }

    /// The members of an object.
    pub fn as_document(&mut self) -> Option<&mut Document<'a>> {
        self.open();
        match self {
            Node::Document(document) => Some(document),
            _ => None,
        }
    }

    /// Takes out every `null` in an object, and in objects within it.
    pub fn prune(&mut self) {
        self.open();
        match self {
            Node::Raw(_) => {}
            Node::Document(document) => prune(document),
            Node::List(items) => items.iter_mut().flatten().for_each(Node::prune),
        }
    }

    /// Whether two values say the same; scalars must say it in the same words.
    pub fn is_equal(&mut self, other: &mut Self) -> bool {
        self.open();
        other.open();
        match (self, other) {
            (Node::Raw(a), Node::Raw(b)) => compact(a) == compact(b),
            (Node::Document(a), Node::Document(b)) => {
                a.len() == b.len() && a.iter_mut().all(|(key, a)| b.get_mut(key).is_some_and(|b| same(a, b)))
            }
            (Node::List(a), Node::List(b)) => a.len() == b.len() && a.iter_mut().zip(b).all(|(a, b)| same(a, b)),
            _ => false,
        }
    }

    /// Appends the value as Go would.
    pub fn write(&self, out: &mut String) {
        match self {
            Node::Raw(text) => gotext::compact(text, true, out),
            Node::Document(document) => write(document, out),
            Node::List(items) => {
                out.push('[');
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    write_item(item, out);
                }
                out.push(']');
            }
        }
    }
}

/// See [`Node::prune`].
pub fn prune(document: &mut Document<'_>) {
    document.retain(|_, value| value.is_some());
    document.values_mut().flatten().for_each(Node::prune);
}

fn same<'a>(a: &mut Item<'a>, b: &mut Item<'a>) -> bool {
    match (a, b) {
        (None, None) => true,
        (Some(a), Some(b)) => a.is_equal(b),
        _ => false,
    }
}

/// Appends an object as Go would.
pub fn write(document: &Document<'_>, out: &mut String) {
    out.push('{');
    for (index, (key, value)) in document.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        out.push_str(&gotext::json(&Value::String(key.clone())));
        out.push(':');
        write_item(value, out);
    }
    out.push('}');
}

fn write_item(item: &Item<'_>, out: &mut String) {
    match item {
        None => out.push_str("null"),
        Some(node) => node.write(out),
    }
}

fn compact(text: &str) -> Cow<'_, str> {
    if !text.contains([' ', '\t', '\r', '\n']) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    gotext::compact(text, false, &mut out);
    Cow::Owned(out)
}
