//! References follow the objects they name: after prefixes, suffixes, hashes and namespaces have
//! changed names, the fields that hold old names get the new ones.

use serde_json::Value;

use super::config::Config;
use super::fieldspec::{FieldSpec, scalar_text};
use super::id::{Gvk, Id};
use super::resource::Resource;
use super::resources::Resources;
use super::{Error, Result};
use crate::codec;

/// What a reference may mean: an object as it is known while references are mended.
struct Candidate {
    now: Id,
    former: Vec<Id>,
    prefixes: Vec<String>,
    suffixes: Vec<String>,
}

impl Candidate {
    fn of(resource: &Resource) -> Self {
        Candidate {
            now: resource.id(),
            former: resource.former_ids(),
            prefixes: resource.prefixes.clone(),
            suffixes: resource.suffixes.clone(),
        }
    }

    fn was_selected(&self, gvk: &Gvk) -> bool {
        self.former.iter().any(|id| id.gvk.is_selected(gvk))
    }

    /// Whether both were named in the same folders; with `loosely`, an object without prefixes fits any.
    fn same_context(&self, other: &Candidate, loosely: bool) -> bool {
        let fits = |a: &[String], b: &[String]| (loosely && (a.is_empty() || b.is_empty())) || (same_end(a, b));
        fits(&self.prefixes, &other.prefixes) && fits(&self.suffixes, &other.suffixes)
    }
}

/// Whether the shorter list is the end of the longer one.
fn same_end(a: &[String], b: &[String]) -> bool {
    let shorter = a.len().min(b.len());
    a[a.len() - shorter..] == b[b.len() - shorter..]
}

/// Mends the references of every object.
///
/// # Errors
/// When a reference may mean several objects of different names.
pub fn mend(resources: &mut Resources, config: &Config) -> Result<()> {
    let candidates: Vec<Candidate> = resources.0.iter().map(Candidate::of).collect();
    for (at, resource) in resources.0.iter_mut().enumerate() {
        let original = resource.original_id();
        let reachable = reachable(&candidates, at, &resource.object)?;
        let role = role_of(&resource.object);
        for reference in &config.name_reference {
            for spec in reference.referrers.iter().filter(|spec| original.gvk.is_selected(&spec.gvk())) {
                let gvk = Gvk::of(&resource.object);
                let field = FieldSpec { group: gvk.group, version: gvk.version, kind: gvk.kind, ..spec.clone() };
                let search = Search {
                    referrer: &candidates[at],
                    target: &reference.target,
                    role: role.as_ref().filter(|_| spec.path.ends_with("roleRef/name")),
                    candidates: &reachable,
                };
                field.apply(&mut resource.object, None, &mut |value| search.mend(value)).map_err(|error| {
                    error.wrap(format!("updating name reference in '{}' field of '{}'", field.path, candidates[at].now))
                })?;
            }
        }
    }
    Ok(())
}

/// The role that a binding names.
fn role_of(object: &Value) -> Option<Gvk> {
    let group = codec::at(object, &["roleRef", "apiGroup"])?;
    let kind = codec::at(object, &["roleRef", "kind"])?;
    Some(Gvk::new(&scalar_text(group), "", &scalar_text(kind)))
}

/// The objects that one object can refer to at all.
fn reachable<'a>(candidates: &'a [Candidate], at: usize, object: &Value) -> Result<Vec<&'a Candidate>> {
    let me = &candidates[at];
    if me.now.gvk.is_cluster_scoped() {
        return Ok(candidates.iter().collect());
    }
    let namespaces = subject_namespaces(object, &me.now)?;
    Ok(candidates
        .iter()
        .filter(|other| {
            other.now.gvk.is_cluster_scoped()
                || other.now.same_namespace(&me.now)
                || namespaces.contains(&other.now.namespace)
        })
        .collect())
}

/// The namespaces of the service accounts that a RoleBinding binds.
fn subject_namespaces(object: &Value, id: &Id) -> Result<Vec<String>> {
    if id.gvk.kind != "RoleBinding" {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for subject in codec::list(object, &["subjects"]) {
        if codec::text(subject, &["kind"]) != "ServiceAccount" {
            continue;
        }
        match subject.get("namespace") {
            Some(Value::String(namespace)) => found.push(namespace.clone()),
            Some(_) => {
                return Err(Error::new(format!(
                    "Invalid Input: namespace is blank for resource {:?}\n",
                    id.to_string()
                )));
            }
            None => {}
        }
    }
    Ok(found)
}

struct Search<'a> {
    referrer: &'a Candidate,
    target: &'a Gvk,
    role: Option<&'a Gvk>,
    candidates: &'a [&'a Candidate],
}

impl Search<'_> {
    fn mend(&self, value: &mut Value) -> Result<()> {
        match value {
            Value::Null => Ok(()),
            Value::Object(_) => self.mend_map(value),
            Value::Array(items) => items.iter_mut().try_for_each(|item| match item {
                Value::Null => Ok(()),
                Value::Object(_) => self.mend_map(item),
                Value::Array(_) => Err(Error::new("expected to be either a string or a map of string")),
                _ => self.mend_scalar(item),
            }),
            _ => self.mend_scalar(value),
        }
    }

    fn mend_scalar(&self, value: &mut Value) -> Result<()> {
        let old = scalar_text(value);
        let same = |found: &[&Candidate]| found.iter().all(|other| other.now.name == found[0].now.name);
        if let Some(found) = self.select(&old, self.candidates.to_vec(), same)?
            && found.now.name != old
        {
            *value = Value::String(found.now.name.clone());
        }
        Ok(())
    }

    fn mend_map(&self, value: &mut Value) -> Result<()> {
        let Some(name) = value.get("name").filter(|name| !name.is_null()) else {
            return Err(Error::new("path config error; no 'name' field in node"));
        };
        let old = scalar_text(name);
        let among = match value.get("namespace").filter(|namespace| !namespace.is_null()) {
            None => self.candidates.to_vec(),
            Some(namespace) => self.of_namespace(&scalar_text(namespace)),
        };
        let same = |found: &[&Candidate]| {
            found
                .iter()
                .all(|other| other.now.name == found[0].now.name && other.now.namespace == found[0].now.namespace)
        };
        let Some(found) = self.select(&old, among, same)? else { return Ok(()) };
        if found.now.name == old && found.now.namespace.is_empty() {
            return Ok(());
        }
        value["name"] = Value::String(found.now.name.clone());
        if !found.now.namespace.is_empty() {
            value["namespace"] = Value::String(found.now.namespace.clone());
        }
        Ok(())
    }

    /// The candidates that were in a namespace at first, else those that are in it now.
    fn of_namespace(&self, namespace: &str) -> Vec<&Candidate> {
        let of = |first: bool| -> Vec<&Candidate> {
            let in_it = self.candidates.iter().filter(|candidate| {
                let id = if first { candidate.former.first().unwrap_or(&candidate.now) } else { &candidate.now };
                !id.gvk.is_cluster_scoped() && id.effective_namespace() == namespace
            });
            in_it.copied().collect()
        };
        let first = of(true);
        if first.is_empty() { of(false) } else { first }
    }

    fn select<'c>(
        &self,
        old: &str,
        mut found: Vec<&'c Candidate>,
        same: impl Fn(&[&'c Candidate]) -> bool,
    ) -> Result<Option<&'c Candidate>> {
        found.retain(|candidate| {
            candidate.former.iter().any(|id| id.name == old)
                && candidate.was_selected(self.target)
                && self.role.is_none_or(|role| candidate.was_selected(role))
                && self.near(candidate)
        });
        if let [one] = found.as_slice() {
            return Ok(Some(one));
        }
        found.retain(|candidate| candidate.same_context(self.referrer, true));
        if found.len() > 1 {
            found.retain(|candidate| candidate.same_context(self.referrer, false));
        }
        match found.as_slice() {
            [] => Ok(None),
            [one, ..] if same(&found) => Ok(Some(one)),
            _ => {
                let ids: Vec<String> = found.iter().map(|candidate| candidate.now.to_string()).collect();
                Err(Error::new(format!("found multiple possible referrals: {}", ids.join(", "))))
            }
        }
    }

    /// Whether the referrer's namespace lets it refer there: service accounts are bound across namespaces.
    fn near(&self, candidate: &Candidate) -> bool {
        self.referrer.now.gvk.is_cluster_scoped()
            || candidate.now.gvk.is_cluster_scoped()
            || candidate.now.gvk.kind == "ServiceAccount"
            || self.referrer.now.same_namespace(&candidate.now)
    }
}
