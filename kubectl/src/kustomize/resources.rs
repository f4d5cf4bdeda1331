//! The objects of a build, in the order in which they came.

use regex::Regex;

use super::id::Id;
use super::kustomization::Selector;
use super::resource::{Behavior, Resource};
use super::{Error, Result};

/// A list of objects of which no two have one identity.
#[derive(Debug, Clone, Default)]
pub struct Resources(pub Vec<Resource>);

impl Resources {
    /// Adds an object.
    ///
    /// # Errors
    /// When there is one of its identity.
    pub fn append(&mut self, resource: Resource) -> Result<()> {
        let id = resource.id();
        if self.0.iter().any(|known| known.id().same(&id)) {
            return Err(Error::new(format!("may not add resource with an already registered id: {id}")));
        }
        self.0.push(resource);
        Ok(())
    }

    /// Adds objects.
    ///
    /// # Errors
    /// As [`Resources::append`].
    pub fn append_all(&mut self, resources: Vec<Resource>) -> Result<()> {
        resources.into_iter().try_for_each(|resource| self.append(resource))
    }

    /// Where the objects are that have or had an identity of which `matches` is true.
    pub fn by_any_id(&self, matches: impl Fn(&Id) -> bool) -> Vec<usize> {
        let candidates = self.0.iter().enumerate().filter(|(_, resource)| !resource.is_empty());
        candidates.filter(|(_, resource)| resource.all_ids().iter().any(&matches)).map(|(at, _)| at).collect()
    }

    /// The one object that has or had an identity.
    ///
    /// # Errors
    /// When there is none, or several.
    pub fn one_by_id(&self, id: &Id) -> Result<usize> {
        let found = self.by_any_id(|known| known.same(id));
        let why = match found.as_slice() {
            [one] => return Ok(*one),
            [] => "no matches for Id",
            _ => "multiple matches for Id",
        };
        Err(Error::new(format!("{why} {id}; failed to find unique target for patch {id}")))
    }

    /// Adds a generated object, or merges it with the one that is there.
    ///
    /// # Errors
    /// When its behaviour and what is there do not fit.
    pub fn absorb(&mut self, mut resource: Resource) -> Result<()> {
        let id = resource.id();
        let found = self.by_any_id(|known| known.same(&id));
        let at = match found.as_slice() {
            [] if matches!(resource.behavior, Behavior::Merge | Behavior::Replace) => {
                return Err(Error::new(format!("id {} does not exist; cannot merge or replace", id.go_syntax())));
            }
            [] => return self.append(resource),
            [one] => *one,
            _ => return Err(Error::new(format!("found multiple objects that could accept merge of {id}"))),
        };
        let old = &self.0[at];
        match resource.behavior {
            Behavior::Replace => resource.inherit(old),
            Behavior::Merge => {
                resource.inherit(old);
                resource.inherit_data(old);
                resource.origin.clone_from(&old.origin);
            }
            other => {
                return Err(Error::new(format!(
                    "id {} exists; can not use behavior: '{}', behavior must be merge or replace",
                    id.go_syntax(),
                    other.name()
                )));
            }
        }
        self.0[at] = resource;
        Ok(())
    }

    /// Where the objects are that a selector means.
    ///
    /// # Errors
    /// When it is malformed.
    pub fn select(&self, selector: &Selector) -> Result<Vec<usize>> {
        let matcher = Matcher::new(selector)?;
        let mut found = Vec::new();
        for (at, resource) in self.0.iter().enumerate() {
            let (now, first) = (resource.id(), resource.original_id());
            let namespaces = [first.effective_namespace(), now.effective_namespace()];
            if namespaces.iter().any(|namespace| matcher.namespace(namespace))
                && (matcher.name(&first.name) || matcher.name(&now.name))
                && matcher.gvk(&now)
                && matcher.metadata(resource)
            {
                found.push(at);
            }
        }
        Ok(found)
    }

    /// Forgets objects of which nothing is left.
    pub fn drop_empty(&mut self) {
        self.0.retain(|resource| !resource.is_empty());
    }
}

/// A selector with its regular expressions compiled.
pub struct Matcher {
    group: Option<Regex>,
    version: Option<Regex>,
    kind: Option<Regex>,
    name: Option<Regex>,
    namespace: Option<Regex>,
    labels: apimachinery::labels::Selector,
    annotations: apimachinery::labels::Selector,
}

impl Matcher {
    /// # Errors
    /// When an expression is malformed.
    pub fn new(selector: &Selector) -> Result<Self> {
        let labels =
            |text: &str| apimachinery::labels::Selector::parse(text).map_err(|error| Error::new(error.to_string()));
        Ok(Matcher {
            group: anchored(&selector.group)?,
            version: anchored(&selector.version)?,
            kind: anchored(&selector.kind)?,
            name: anchored(&selector.name)?,
            namespace: anchored(&selector.namespace)?,
            labels: labels(&selector.label_selector)?,
            annotations: labels(&selector.annotation_selector)?,
        })
    }

    pub fn gvk(&self, id: &Id) -> bool {
        admits(&self.group, &id.gvk.group) && admits(&self.version, &id.gvk.version) && admits(&self.kind, &id.gvk.kind)
    }

    pub fn name(&self, name: &str) -> bool {
        admits(&self.name, name)
    }

    pub fn namespace(&self, namespace: &str) -> bool {
        admits(&self.namespace, namespace)
    }

    /// Whether the object's labels and annotations are selected.
    pub fn metadata(&self, resource: &Resource) -> bool {
        self.labels.matches(&resource.texts(&["metadata", "labels"]))
            && self.annotations.matches(&resource.texts(&["metadata", "annotations"]))
    }
}

fn admits(expression: &Option<Regex>, text: &str) -> bool {
    expression.as_ref().is_none_or(|expression| expression.is_match(text))
}

fn anchored(pattern: &str) -> Result<Option<Regex>> {
    if pattern.is_empty() {
        return Ok(None);
    }
    let whole = format!("^(?:{pattern})$");
    Regex::new(&whole)
        .map(Some)
        .map_err(|_| Error::new(format!("error parsing regexp: invalid regular expression: `{whole}`")))
}
