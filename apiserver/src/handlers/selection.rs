//! Label and field selectors of lists, watches and collection deletes.

use std::collections::HashMap;
use std::sync::Arc;

use apimachinery::labels::Labels;
use apimachinery::status::Status;
use apimachinery::{fields, gotext, labels};
use serde_json::Value;

use crate::cache::{Entry, Scope, SelectableField};
use crate::registry::Served;
use crate::registry::fields::storage_label;
use crate::request::options::ListOptions;
use crate::response::encode::{FORM_JSON, form};

/// What a request wants out of a resource.
#[derive(Clone)]
pub struct Selection {
    /// Empty for all namespaces.
    pub namespace: String,
    labels: labels::Selector,
    fields: fields::Selector,
    /// Set when the selectors can only match one object.
    pub name: Option<String>,
    /// Field labels that the served version names differently.
    group: String,
    plural: String,
    /// Custom resources that a webhook converts are selected by what they are in the version served; this
    /// is the number under which entries keep that form.
    converted: Option<u32>,
}

struct EntryLabels<'a>(&'a Entry);

impl Labels for EntryLabels<'_> {
    fn label(&self, key: &str) -> Option<&str> {
        self.0.label(key)
    }
}

impl Selection {
    /// Reads the selectors and checks that the resource knows their fields. `name` is the name in
    /// the path, if any.
    ///
    /// # Errors
    /// 400 in upstream's words.
    pub fn new(served: &Served, options: &ListOptions, namespace: &str, name: &str) -> Result<Self, Status> {
        let bad = |error: String| Status::bad_request(error);
        let labels = labels::Selector::parse(&options.label_selector).map_err(|error| bad(error.to_string()))?;
        let fields = fields::Selector::parse(&options.field_selector).map_err(|error| bad(error.to_string()))?;
        for requirement in &fields.requirements {
            if !served.resource.selects(&requirement.field) {
                return Err(bad(unsupported(served, &requirement.field)));
            }
        }
        let exact = fields.requires_exact_match("metadata.name").map(str::to_string);
        if !name.is_empty() && !fields.is_empty() && exact.as_deref() != Some(name) {
            return Err(bad("fieldSelector metadata.name doesn't match requested name".to_string()));
        }
        let name = if name.is_empty() { exact } else { Some(name.to_string()) };
        let by_content = fields.requirements.iter().any(|requirement| !requirement.field.starts_with("metadata."));
        let converts = served.custom().is_some_and(|custom| custom.definition.has_webhook());
        Ok(Self {
            converted: (by_content && converts).then(|| form(served, FORM_JSON)),
            namespace: namespace.to_string(),
            labels,
            fields,
            name,
            group: served.resource.group.to_string(),
            plural: served.resource.plural.to_string(),
        })
    }

    /// Whether everything in the namespace is wanted.
    pub fn is_everything(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty() && self.name.is_none()
    }

    /// Whether an entry is wanted. Where [`Selection::needs_conversion`], it must be prepared.
    pub fn matches(&self, entry: &Entry) -> bool {
        self.could_match(entry)
            && match self.converted {
                None => self.fields.matches(|label| entry.field(storage_label(&self.group, &self.plural, label))),
                Some(form) => self.matches_converted(entry, form),
            }
    }

    /// Whether an entry is wanted, as far as can be told without its fields.
    pub fn could_match(&self, entry: &Entry) -> bool {
        (self.namespace.is_empty() || entry.namespace() == self.namespace)
            && self.name.as_ref().is_none_or(|name| entry.name() == name)
            && self.labels.matches(&EntryLabels(entry))
    }

    /// Whether entries must be prepared for the version served before they can be matched.
    pub fn needs_conversion(&self) -> bool {
        self.converted.is_some()
    }

    fn matches_converted(&self, entry: &Entry, form: u32) -> bool {
        let json = entry.encodings.get(form).unwrap_or_else(|| entry.json().clone());
        let Ok(tree) = serde_json::from_slice::<Value>(&json) else { return false };
        let value = |label: &str| match entry.field(label).filter(|_| label.starts_with("metadata.")) {
            Some(value) => value.to_string(),
            None => (SelectableField::at_path(label).extract)(&tree),
        };
        let values: HashMap<&str, String> =
            self.fields.requirements.iter().map(|r| (r.field.as_str(), value(&r.field))).collect();
        self.fields.matches(|label| values.get(label).map(String::as_str))
    }

    /// A field with an index that narrows the selection to one value.
    pub fn indexed(&self, served: &Served) -> Option<(String, String)> {
        let spec = served.cache.as_ref()?.spec();
        spec.fields.iter().filter(|field| field.indexed).find_map(|field| {
            let value = self.fields.requires_exact_match(&field.label)?;
            Some((field.label.clone(), value.to_string()))
        })
    }

    /// The narrowest scope that holds everything wanted.
    pub fn scope(&self, served: &Served) -> Scope {
        if let Some(name) = &self.name
            && (!served.resource.namespaced || !self.namespace.is_empty())
        {
            return Scope::Key(served.key(&self.namespace, name));
        }
        if let Some((label, value)) = self.indexed(served) {
            return Scope::Field { label, value };
        }
        if self.namespace.is_empty() { Scope::All } else { Scope::Namespace(self.namespace.clone()) }
    }

    /// The matcher of a watch; `None` when its scope says it all.
    pub fn matcher(&self, scope: &Scope) -> Option<Arc<dyn crate::cache::Matcher>> {
        // What must be converted first is matched by the watch itself.
        if self.needs_conversion() || self.is_everything() && matches!(scope, Scope::All | Scope::Namespace(_)) {
            return None;
        }
        let selection = self.clone();
        Some(Arc::new(move |entry: &Entry| selection.matches(entry)))
    }
}

/// What upstream says of a field that no selector may name: kinds that registered their own
/// conversion of labels say it differently from those that did not.
fn unsupported(served: &Served, label: &str) -> String {
    let resource = &served.resource;
    match &*resource.kind {
        _ if resource.custom => return format!("field label not supported: {label}"),
        "Job" => return format!("field label {} not supported for Job", gotext::quote(label)),
        "ResourceSlice" => {
            let version = served.api_version();
            return format!("field label not supported for {version}, Kind=ResourceSlice: {label}");
        }
        _ if !resource.selectable_fields.is_empty() => return format!("field label not supported: {label}"),
        _ => {}
    }
    format!("{} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"", gotext::quote(label))
}
