//! Names that users type (`po`, `deploy`, `deployments.v1.apps`, `Pod`, `all`) and kinds in files
//! to served resources.

use crate::discovery::{Discovery, Resource};
use crate::error::{Error, Result};

/// One served resource of one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    /// "" for the core group.
    pub group: String,
    /// Version of the resource.
    pub version: String,
    /// Plural name.
    pub resource: String,
    /// Kind of its objects.
    pub kind: String,
    /// Singular name.
    pub singular: String,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// What may be done.
    pub verbs: Vec<String>,
}

impl Mapping {
    /// `deployment.apps`, `pod`: how lines about an object name its type.
    pub fn kind_name(&self) -> String {
        qualified(&self.kind.to_lowercase(), &self.group)
    }

    /// `deployments.apps`, `pods`.
    pub fn resource_name(&self) -> String {
        qualified(&self.resource, &self.group)
    }

    /// `apps/v1`, `v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }
}

fn qualified(name: &str, group: &str) -> String {
    if group.is_empty() { name.to_owned() } else { format!("{name}.{group}") }
}

/// Looks names up in a discovery.
#[derive(Debug)]
pub struct Mapper {
    discovery: Discovery,
    /// Whether the answers may be outdated.
    pub cached: bool,
}

impl Mapper {
    /// Over a discovery.
    pub fn new(discovery: Discovery, cached: bool) -> Self {
        Mapper { discovery, cached }
    }

    /// What it looks in.
    pub fn discovery(&self) -> &Discovery {
        &self.discovery
    }

    /// Every resource (no subresources), groups in order, preferred versions first.
    fn all(&self) -> impl Iterator<Item = Mapping> + '_ {
        self.discovery.groups.iter().flat_map(|group| {
            group.versions.iter().flat_map(|version| {
                version
                    .resources
                    .iter()
                    .filter(|resource| !resource.name.contains('/'))
                    .map(|resource| mapping(&group.name, &version.name, resource))
            })
        })
    }

    /// Plural names of everything that can be listed.
    pub fn plurals(&self) -> Vec<String> {
        self.all().filter(|m| m.verbs.iter().any(|verb| verb == "list")).map(|m| m.resource).collect()
    }

    /// The resource a name means. Accepts plural, singular, short and kind names, with
    /// `.group` or `.version.group` appended.
    pub fn resource(&self, name: &str) -> Option<Mapping> {
        let lower = name.to_lowercase();
        let parts: Vec<&str> = lower.splitn(3, '.').collect();
        if let [resource, version, group] = parts.as_slice()
            && let Some(found) = self.find(resource, Some(version), group, true)
        {
            return Some(found);
        }
        match lower.split_once('.') {
            // `deployments.v1` is no group: versions count only together with a group.
            Some((resource, group)) => {
                self.find(resource, None, group, true).or_else(|| self.find(resource, None, group, false))
            }
            None => self.find(&lower, None, "", false),
        }
    }

    fn find(&self, name: &str, version: Option<&str>, group: &str, exact_group: bool) -> Option<Mapping> {
        let fits = |mapping: &Mapping| {
            let group_fits = if exact_group { mapping.group == group } else { mapping.group.starts_with(group) };
            group_fits && version.is_none_or(|version| mapping.version == version)
        };
        let candidates = || self.all().filter(|mapping| fits(mapping));
        candidates()
            .find(|mapping| mapping.resource == name)
            .or_else(|| candidates().find(|mapping| mapping.singular == name || mapping.kind.to_lowercase() == name))
            .or_else(|| {
                let (group, resource) = self.short(name, &fits)?;
                candidates().find(|mapping| mapping.resource == resource && mapping.group == group)
            })
    }

    fn short(&self, name: &str, fits: &dyn Fn(&Mapping) -> bool) -> Option<(String, String)> {
        self.discovery.groups.iter().find_map(|group| {
            group.versions.iter().find_map(|version| {
                version
                    .resources
                    .iter()
                    .find(|resource| {
                        resource.short_names.iter().any(|short| short == name)
                            && fits(&mapping(&group.name, &version.name, resource))
                    })
                    .map(|resource| (group.name.clone(), resource.name.clone()))
            })
        })
    }

    /// The resources of a category, preferred versions only.
    pub fn category(&self, name: &str) -> Vec<Mapping> {
        let mut found = Vec::new();
        for group in &self.discovery.groups {
            let mut seen: Vec<&str> = Vec::new();
            for version in &group.versions {
                for resource in &version.resources {
                    let member = resource.categories.iter().any(|category| category == name);
                    if member && !seen.contains(&resource.name.as_str()) {
                        seen.push(&resource.name);
                        found.push(mapping(&group.name, &version.name, resource));
                    }
                }
            }
        }
        found
    }

    /// The resource of an object's apiVersion and kind.
    pub fn kind(&self, api_version: &str, kind: &str) -> Option<Mapping> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        self.all().find(|mapping| mapping.kind == kind && mapping.group == group && mapping.version == version)
    }

    /// The resource of a group's kind in its preferred version.
    pub fn group_kind(&self, group: &str, kind: &str) -> Option<Mapping> {
        self.all().find(|mapping| mapping.kind == kind && mapping.group == group)
    }

    /// The subresource of a resource, when it is served.
    pub fn subresource(&self, mapping: &Mapping, name: &str) -> Option<&Resource> {
        let wanted = format!("{}/{name}", mapping.resource);
        let group = self.discovery.groups.iter().find(|group| group.name == mapping.group)?;
        let version = group.versions.iter().find(|version| version.name == mapping.version)?;
        version.resources.iter().find(|resource| resource.name == wanted)
    }
}

fn mapping(group: &str, version: &str, resource: &Resource) -> Mapping {
    Mapping {
        group: group.to_owned(),
        version: version.to_owned(),
        resource: resource.name.clone(),
        kind: resource.kind.clone(),
        singular: if resource.singular.is_empty() { resource.kind.to_lowercase() } else { resource.singular.clone() },
        namespaced: resource.namespaced,
        verbs: resource.verbs.clone(),
    }
}

/// The error for a resource name nobody serves.
pub fn no_match(name: &str) -> Error {
    match name.split_once('.') {
        Some((resource, rest)) => {
            let (version, group) = match rest.split_once('.') {
                Some((version, group)) if is_version(version) => (version, group),
                _ => ("", rest),
            };
            Error::NoMatch { resource: resource.into(), group: group.into(), version: version.into() }
        }
        None => Error::NoMatch { resource: name.into(), group: String::new(), version: String::new() },
    }
}

fn is_version(text: &str) -> bool {
    text.strip_prefix('v').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// The resource a name means, asking the server again when a cached discovery does not know it.
///
/// # Errors
/// When nobody serves it.
pub async fn resolve(factory: &crate::factory::Factory, name: &str) -> Result<Mapping> {
    let mapper = factory.mapper().await?;
    if let Some(found) = mapper.resource(name) {
        return Ok(found);
    }
    if mapper.cached
        && let Some(found) = factory.fresh_mapper().await?.resource(name)
    {
        return Ok(found);
    }
    Err(no_match(name))
}

/// The resource of an object, asking the server again when a cached discovery does not know it.
///
/// # Errors
/// When it cannot be asked. An unknown kind is `None`.
pub async fn resolve_kind(factory: &crate::factory::Factory, api_version: &str, kind: &str) -> Result<Option<Mapping>> {
    let mapper = factory.mapper().await?;
    match mapper.kind(api_version, kind) {
        Some(found) => Ok(Some(found)),
        None if mapper.cached => Ok(factory.fresh_mapper().await?.kind(api_version, kind)),
        None => Ok(None),
    }
}
