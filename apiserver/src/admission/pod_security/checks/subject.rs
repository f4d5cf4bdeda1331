//! What a check looks at, and the words in which it says what it found.

use apimachinery::object::ObjectExt as _;
use serde_json::Value;

/// A pod, or the template of one.
pub struct Subject<'a> {
    pub annotations: Vec<(&'a str, &'a str)>,
    pub spec: &'a Value,
}

impl<'a> Subject<'a> {
    /// Of an object with `metadata` and `spec`.
    pub fn new(pod: &'a Value) -> Self {
        let annotations = pod.annotations().into_iter().flatten();
        let annotations = annotations.filter_map(|(key, value)| Some((key.as_str(), value.as_str()?))).collect();
        Self { annotations, spec: pod.get("spec").unwrap_or(&Value::Null) }
    }

    pub(super) fn containers(&self) -> impl Iterator<Item = &'a Value> {
        ["initContainers", "containers", "ephemeralContainers"]
            .into_iter()
            .flat_map(|field| self.spec.list_at(&[field]))
    }

    pub(super) fn windows(&self) -> bool {
        self.spec.str_at(&["os", "name"]) == Some("windows")
    }

    pub(super) fn has_user_namespace(&self) -> bool {
        self.spec.bool_at(&["hostUsers"]) == Some(false)
    }

    /// Names of the containers for which this holds.
    pub(super) fn named(&self, mut bad: impl FnMut(&Value) -> bool) -> Vec<String> {
        self.containers().filter(|container| bad(container)).map(name).collect()
    }
}

/// Reason and detail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub reason: String,
    pub detail: String,
}

pub(super) type Outcome = Option<Violation>;
pub(super) type Run = fn(&Subject<'_>) -> Outcome;

pub(super) fn violation(reason: &str, detail: String) -> Outcome {
    Some(Violation { reason: reason.to_string(), detail })
}

pub(super) fn name(container: &Value) -> String {
    container.str_at(&["name"]).unwrap_or_default().to_string()
}

pub(super) fn given(object: &Value, field: &str) -> bool {
    object.get(field).is_some_and(|value| !value.is_null())
}

pub(super) fn quoted<S: AsRef<str>>(items: impl IntoIterator<Item = S>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.as_ref().to_string()).collect();
    format!("\"{}\"", items.join("\", \""))
}

pub(super) fn plural<'a>(one: &'a str, many: &'a str, count: usize) -> &'a str {
    if count == 1 { one } else { many }
}

pub(super) fn containers(names: &[String]) -> String {
    format!("{} {}", plural("container", "containers", names.len()), quoted(names))
}

/// `pod and containers "a", "b"`: who set something.
pub(super) fn setters(pod: bool, names: &[String]) -> Vec<String> {
    let mut setters = Vec::new();
    if pod {
        setters.push("pod".to_string());
    }
    if !names.is_empty() {
        setters.push(containers(names));
    }
    setters
}

pub(super) const POD: [&str; 1] = ["securityContext"];

pub(super) fn context<'a>(holder: &'a Value, path: &[&str]) -> Option<&'a Value> {
    let context = holder.at(&POD)?;
    context.at(path).filter(|value| !value.is_null())
}

pub(super) fn strings<'a>(container: &'a Value, path: &[&str]) -> Vec<&'a str> {
    let list = context(container, path).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str).collect()
}
