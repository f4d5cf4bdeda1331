//! Trees of a served version as upstream's internal structs, in indented JSON.

use std::collections::HashMap;
use std::sync::OnceLock;

use apimachinery::gotext;
use serde_json::Value;

struct Field {
    /// Go's name, which is what is shown.
    name: &'static str,
    /// The name in the tree.
    json: String,
    ty: &'static str,
}

fn structs() -> &'static HashMap<&'static str, Vec<Field>> {
    static STRUCTS: OnceLock<HashMap<&str, Vec<Field>>> = OnceLock::new();
    STRUCTS.get_or_init(|| {
        let text = include_str!("internal.txt");
        text.lines().filter(|line| !line.starts_with('#')).filter_map(parse).collect()
    })
}

fn parse(line: &'static str) -> Option<(&'static str, Vec<Field>)> {
    let mut words = line.split(' ');
    let kind = words.next()?;
    let field = |word: &'static str| match word.split_once(':') {
        Some((names, ty)) => {
            let (name, json) = match names.split_once('=') {
                Some((name, json)) => (name, json.to_string()),
                None => {
                    let (first, rest) = names.split_at(1);
                    (names, first.to_ascii_lowercase() + rest)
                }
            };
            Field { name, json, ty }
        }
        None => Field { name: "", json: "metadata".to_string(), ty: word },
    };
    Some((kind, words.map(field).collect()))
}

/// Fields of a pod's spec that upstream keeps in its security context.
const OF_SECURITY_CONTEXT: [&str; 5] = ["hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace", "hostUsers"];

/// The fields of metadata, in Go's order.
const METADATA: [&str; 15] = [
    "name",
    "generateName",
    "namespace",
    "selfLink",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "labels",
    "annotations",
    "ownerReferences",
    "finalizers",
    "managedFields",
];

/// A value of this type as `json.MarshalIndent` with one blank writes it.
pub(super) fn show(ty: &str, value: &Value) -> String {
    let mut writer = Writer { out: String::new(), depth: 0 };
    writer.value(ty, value);
    writer.out
}

struct Writer {
    out: String,
    depth: usize,
}

impl Writer {
    fn value(&mut self, ty: &str, value: &Value) {
        if let Some(ty) = ty.strip_prefix('*') {
            return if value.is_null() { self.out.push_str("null") } else { self.value(ty, value) };
        }
        if let Some(ty) = ty.strip_prefix("[]") {
            return match value.as_array() {
                Some(items) => self.group('[', ']', items, |writer, item| writer.value(ty, item)),
                None => self.out.push_str("null"),
            };
        }
        if let Some(ty) = ty.strip_prefix("{}") {
            let Some(map) = value.as_object() else { return self.out.push_str("null") };
            return self.group('{', '}', map, |writer, (key, item)| {
                writer.name(key);
                writer.value(ty, item);
            });
        }
        match (ty, value) {
            ("LabelSelector", value) => self.selector(value),
            (_, value) if structs().contains_key(ty) => self.structure(ty, value),
            ("t", Value::Null) => self.out.push_str("null"),
            ("s", Value::Null) => self.out.push_str("\"\""),
            ("q", Value::Null) => self.out.push_str("\"0\""),
            ("i" | "x", Value::Null) => self.out.push('0'),
            ("b", Value::Null) => self.out.push_str("false"),
            (_, value) => self.out.push_str(&gotext::json(value)),
        }
    }

    fn structure(&mut self, kind: &str, value: &Value) {
        let fields = structs().get(kind).map(Vec::as_slice).unwrap_or_default();
        let mut members: Vec<(&str, &str, Value)> = Vec::new();
        for field in fields {
            if field.name.is_empty() {
                let metadata = &value[&field.json];
                let set = METADATA.iter().filter(|name| !metadata[**name].is_null());
                members.extend(set.map(|name| (*name, "", metadata[*name].clone())));
                continue;
            }
            let mut member = value[&field.json].clone();
            if kind == "PodSpec" && field.name == "SecurityContext" {
                // It is there in any case, for what it holds inside only.
                if !member.is_object() {
                    member = Value::Object(Default::default());
                }
                for name in OF_SECURITY_CONTEXT.iter().filter(|name| !value[**name].is_null()) {
                    member[*name] = value[*name].clone();
                }
            }
            members.push((field.name, field.ty, member));
        }
        self.group('{', '}', &members, |writer, (name, ty, member)| {
            writer.name(name);
            writer.value(ty, member);
        });
    }

    /// The one struct here with JSON names of its own.
    fn selector(&mut self, value: &Value) {
        let names = ["matchLabels", "matchExpressions"];
        let empty = |value: &Value| {
            value.as_array().is_none_or(Vec::is_empty) && value.as_object().is_none_or(serde_json::Map::is_empty)
        };
        let set: Vec<&str> = names.into_iter().filter(|name| !empty(&value[*name])).collect();
        self.group('{', '}', &set, |writer, name| {
            writer.name(name);
            if *name == "matchLabels" {
                return writer.value("{}s", &value[*name]);
            }
            let items = value[*name].as_array().map(Vec::as_slice).unwrap_or_default();
            writer.group('[', ']', items, |writer, item| {
                let names = ["key", "operator", "values"];
                let set: Vec<&str> =
                    names.into_iter().filter(|name| *name != "values" || !empty(&item[*name])).collect();
                writer.group('{', '}', &set, |writer, name| {
                    writer.name(name);
                    writer.value(if *name == "values" { "[]s" } else { "s" }, &item[*name]);
                });
            });
        });
    }

    fn name(&mut self, name: &str) {
        self.out.push_str(&gotext::json(&Value::from(name)));
        self.out.push_str(": ");
    }

    /// Something in brackets, an item a line; nothing stands between brackets without items.
    fn group<T>(
        &mut self,
        open: char,
        close: char,
        items: impl IntoIterator<Item = T>,
        mut write: impl FnMut(&mut Self, T),
    ) {
        self.out.push(open);
        self.depth += 1;
        let mut any = false;
        for item in items {
            if std::mem::replace(&mut any, true) {
                self.out.push(',');
            }
            self.line();
            write(self, item);
        }
        self.depth -= 1;
        if any {
            self.line();
        }
        self.out.push(close);
    }

    fn line(&mut self) {
        self.out.push('\n');
        self.out.extend(std::iter::repeat_n(' ', self.depth));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_type_is_known() {
        for (kind, fields) in structs() {
            for field in fields.iter().filter(|field| !field.name.is_empty()) {
                let base = field.ty.trim_start_matches(['*', '[', ']', '{', '}']);
                let known = structs().contains_key(base)
                    || matches!(base, "s" | "b" | "i" | "q" | "t" | "x" | "y" | "r" | "LabelSelector");
                assert!(known, "{kind}.{}: {}", field.name, field.ty);
            }
        }
    }

    #[test]
    fn shows_what_go_holds() {
        assert_eq!(
            show("[]Toleration", &json!([{"key": "a", "tolerationSeconds": 5}])),
            "[\n {\n  \"Key\": \"a\",\n  \"Operator\": \"\",\n  \"Value\": \"\",\n  \"Effect\": \"\",\n  \"TolerationSeconds\": 5\n }\n]"
        );
        let spec = show("PodSpec", &json!({"hostNetwork": true, "nodeSelector": {"b": "<", "a": ""}, "volumes": []}));
        assert!(spec.starts_with("{\n \"Volumes\": [],\n \"InitContainers\": null,\n \"Containers\": null,"), "{spec}");
        assert!(spec.contains("\n \"NodeSelector\": {\n  \"a\": \"\",\n  \"b\": \"\\u003c\"\n },"), "{spec}");
        assert!(spec.contains("\n \"SecurityContext\": {\n  \"HostNetwork\": true,\n  \"HostPID\": false,"), "{spec}");
        assert_eq!(
            show("LabelSelector", &json!({"matchExpressions": [{"key": "a", "operator": "Exists"}]})),
            "{\n \"matchExpressions\": [\n  {\n   \"key\": \"a\",\n   \"operator\": \"Exists\"\n  }\n ]\n}"
        );
    }
}
