//! The APIServices as requests need them: who serves a group version, and in which order the group
//! versions are told to clients.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use apimachinery::object::ObjectExt as _;
use base64::Engine as _;
use serde_json::Value;

use super::transport::Link;

/// The Service behind an APIService.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServiceReference {
    pub namespace: String,
    pub name: String,
    pub port: u16,
}

/// One APIService.
pub struct ApiService {
    /// `v1.apps`.
    pub name: String,
    pub group: String,
    pub version: String,
    pub group_priority: i64,
    pub version_priority: i64,
    /// `None`: this server answers itself.
    pub service: Option<ServiceReference>,
    /// Its condition Available is True.
    pub available: bool,
    /// How the Service is reached, or why it cannot be; `None` for a local one.
    pub link: Option<Result<Link, String>>,
    /// What the link was made of, to keep its connections while nothing of this changes.
    key: (bool, Vec<u8>),
}

impl ApiService {
    /// Reads an object; keeps the connections of `before` where it can.
    pub fn read(
        object: &Value,
        identity: Option<&component_base::tls::ClientCert>,
        before: Option<&ApiService>,
    ) -> Self {
        let text = |path: &[&str]| object.str_at(path).unwrap_or_default().to_string();
        let service = object.at(&["spec", "service"]).filter(|service| service.is_object()).map(|service| {
            let port = service.i64_at(&["port"]).and_then(|port| u16::try_from(port).ok());
            ServiceReference {
                namespace: service.str_at(&["namespace"]).unwrap_or_default().to_string(),
                name: service.str_at(&["name"]).unwrap_or_default().to_string(),
                port: port.unwrap_or(443),
            }
        });
        let insecure = object.bool_at(&["spec", "insecureSkipTLSVerify"]).unwrap_or(false);
        let bundle = base64::engine::general_purpose::STANDARD
            .decode(object.str_at(&["spec", "caBundle"]).unwrap_or_default())
            .unwrap_or_default();
        let key = (insecure, bundle);
        let kept = before
            .filter(|before| before.service == service && before.key == key)
            .and_then(|before| before.link.clone());
        let link = service.as_ref().map(|service| kept.unwrap_or_else(|| Link::new(service, key.0, &key.1, identity)));
        Self {
            name: object.name().to_string(),
            group: text(&["spec", "group"]),
            version: text(&["spec", "version"]),
            group_priority: object.i64_at(&["spec", "groupPriorityMinimum"]).unwrap_or_default(),
            version_priority: object.i64_at(&["spec", "versionPriority"]).unwrap_or_default(),
            service,
            available: condition(object).is_some_and(|condition| condition.str_at(&["status"]) == Some("True")),
            link,
            key,
        }
    }
}

/// The condition Available of an APIService.
pub fn condition(object: &Value) -> Option<&Value> {
    object.list_at(&["status", "conditions"]).iter().find(|condition| condition.str_at(&["type"]) == Some("Available"))
}

/// All APIServices at one moment, by name.
#[derive(Clone, Default)]
pub struct Routes {
    pub services: BTreeMap<String, Arc<ApiService>>,
    /// How many have a Service: most servers have none, and then nothing is looked up.
    pub remotes: usize,
    /// Counts every change.
    pub generation: u64,
}

impl Routes {
    /// The APIService with a Service behind it that a path belongs to: `/apis/<group>/<version>` and
    /// below, or `/api/<version>`.
    pub fn remote(&self, path: &str) -> Option<&Arc<ApiService>> {
        if self.remotes == 0 {
            return None;
        }
        let mut parts = path.strip_prefix('/')?.split('/');
        let name = match parts.next()? {
            "api" => format!("{}.", parts.next()?),
            "apis" => {
                let group = parts.next()?;
                format!("{}.{group}", parts.next()?)
            }
            _ => return None,
        };
        self.services.get(&name).filter(|service| service.service.is_some())
    }
}

/// A served group version and its place among the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub group: String,
    pub version: String,
    pub group_priority: i64,
    pub version_priority: i64,
}

/// Groups, each with its versions, in the order of `/apis`: by priority, where equal by the name of the
/// APIService; `apiregistration.k8s.io` comes before all others.
pub fn order_of_groups(mut places: Vec<Place>) -> Vec<(String, Vec<String>)> {
    let name = |place: &Place| format!("{}.{}", place.version, place.group);
    places.sort_by(|a, b| {
        first(&a.group, &b.group).then(b.group_priority.cmp(&a.group_priority)).then_with(|| name(a).cmp(&name(b)))
    });
    grouped(places)
}

/// As [`order_of_groups`], in the order of the aggregated form: equal priorities by the group's name.
pub fn aggregated_order_of_groups(mut places: Vec<Place>) -> Vec<(String, Vec<String>)> {
    let mut highest: BTreeMap<String, i64> = BTreeMap::new();
    for place in &places {
        let known = highest.entry(place.group.clone()).or_insert(place.group_priority);
        *known = (*known).max(place.group_priority);
    }
    places.sort_by(|a, b| {
        first(&a.group, &b.group)
            .then_with(|| highest[&b.group].cmp(&highest[&a.group]))
            .then_with(|| a.group.cmp(&b.group))
    });
    grouped(places)
}

fn first(a: &str, b: &str) -> Ordering {
    const OWN: &str = "apiregistration.k8s.io";
    (b == OWN).cmp(&(a == OWN))
}

fn grouped(places: Vec<Place>) -> Vec<(String, Vec<String>)> {
    let mut groups: Vec<(String, Vec<Place>)> = Vec::new();
    // Thousands of groups may come with custom resources.
    let mut at: std::collections::HashMap<String, usize> = std::collections::HashMap::new();
    for place in places {
        match at.get(&place.group) {
            Some(index) => groups[*index].1.push(place),
            None => {
                at.insert(place.group.clone(), groups.len());
                groups.push((place.group.clone(), vec![place]));
            }
        }
    }
    groups
        .into_iter()
        .map(|(group, mut versions)| {
            versions.sort_by(|a, b| {
                b.version_priority
                    .cmp(&a.version_priority)
                    .then_with(|| api::discovery::compare_versions(&a.version, &b.version))
            });
            versions.dedup_by(|a, b| a.version == b.version);
            (group, versions.into_iter().map(|place| place.version).collect())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn place(group: &str, version: &str, group_priority: i64, version_priority: i64) -> Place {
        Place { group: group.into(), version: version.into(), group_priority, version_priority }
    }

    #[test]
    fn groups_by_priority_and_name() {
        let places = vec![
            place("b.example.com", "v1alpha1", 1000, 100),
            place("a.example.com", "v2", 1000, 100),
            place("apps", "v1", 17800, 15),
            place("a.example.com", "v10", 1000, 100),
            place("apiregistration.k8s.io", "v1", 100, 100),
            place("b.example.com", "v1", 1000, 100),
        ];
        let names = |groups: Vec<(String, Vec<String>)>| -> Vec<String> {
            groups.into_iter().map(|(group, versions)| format!("{group}:{}", versions.join(","))).collect()
        };
        // The first APIService by name decides: v1.b.example.com comes before v10.a.example.com.
        assert_eq!(
            names(order_of_groups(places.clone())),
            ["apiregistration.k8s.io:v1", "apps:v1", "b.example.com:v1,v1alpha1", "a.example.com:v10,v2"]
        );
        assert_eq!(
            names(aggregated_order_of_groups(places)),
            ["apiregistration.k8s.io:v1", "apps:v1", "a.example.com:v10,v2", "b.example.com:v1,v1alpha1"]
        );
    }

    #[test]
    fn paths_find_their_server() {
        let object = json!({
            "metadata": {"name": "v1.wardle.example.com"},
            "spec": {
                "group": "wardle.example.com", "version": "v1", "groupPriorityMinimum": 2000, "versionPriority": 15,
                "insecureSkipTLSVerify": true, "service": {"namespace": "wardle", "name": "api"},
            },
            "status": {"conditions": [{"type": "Available", "status": "True"}]},
        });
        let service = ApiService::read(&object, None, None);
        assert!(service.available);
        assert_eq!(service.service.as_ref().map(|service| service.port), Some(443));
        let routes =
            Routes { services: BTreeMap::from([(service.name.clone(), Arc::new(service))]), remotes: 1, generation: 1 };
        for (path, found) in [
            ("/apis/wardle.example.com/v1", true),
            ("/apis/wardle.example.com/v1/namespaces/a/flunders/b", true),
            ("/apis/wardle.example.com/v1x", false),
            ("/apis/wardle.example.com", false),
            ("/api/v1", false),
            ("/openapi/v2", false),
        ] {
            assert_eq!(routes.remote(path).is_some(), found, "{path}");
        }
    }
}
