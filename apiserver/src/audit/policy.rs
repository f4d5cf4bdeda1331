//! The audit policy: what is recorded of which request. Upstream: `apiserver/pkg/audit/policy`.

use apimachinery::yaml;
use serde::{Deserialize, Deserializer};

use crate::authorization::Attributes;

/// How much of a request is recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub enum Level {
    #[default]
    None,
    /// Who did what when, without bodies.
    Metadata,
    /// And the request's body.
    Request,
    /// And the answer's body.
    RequestResponse,
}

impl Level {
    pub fn as_str(self) -> &'static str {
        match self {
            Level::None => "None",
            Level::Metadata => "Metadata",
            Level::Request => "Request",
            Level::RequestResponse => "RequestResponse",
        }
    }
}

/// When in a request's life an event is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Stage {
    RequestReceived,
    /// The answer has begun and its body goes on: watches only.
    ResponseStarted,
    ResponseComplete,
    Panic,
}

impl Stage {
    pub fn as_str(self) -> &'static str {
        match self {
            Stage::RequestReceived => "RequestReceived",
            Stage::ResponseStarted => "ResponseStarted",
            Stage::ResponseComplete => "ResponseComplete",
            Stage::Panic => "Panic",
        }
    }
}

fn nullable<'de, D: Deserializer<'de>, T: Deserialize<'de>>(input: D) -> Result<Vec<T>, D::Error> {
    Ok(Option::deserialize(input)?.unwrap_or_default())
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
struct Resources {
    group: String,
    #[serde(deserialize_with = "nullable")]
    resources: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    resource_names: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
struct Rule {
    level: Option<Level>,
    #[serde(deserialize_with = "nullable")]
    users: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    user_groups: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    verbs: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    resources: Vec<Resources>,
    #[serde(deserialize_with = "nullable")]
    namespaces: Vec<String>,
    #[serde(rename = "nonResourceURLs", deserialize_with = "nullable")]
    paths: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    omit_stages: Vec<Stage>,
    omit_managed_fields: Option<bool>,
}

/// An audit policy.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Policy {
    api_version: String,
    kind: String,
    #[serde(rename = "metadata")]
    _metadata: serde_json::Value,
    #[serde(deserialize_with = "nullable")]
    rules: Vec<Rule>,
    #[serde(deserialize_with = "nullable")]
    omit_stages: Vec<Stage>,
    omit_managed_fields: bool,
}

/// What the policy says of one request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    pub level: Level,
    pub omit_stages: Vec<Stage>,
    pub omit_managed_fields: bool,
}

impl Policy {
    /// Reads a policy file.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let value = yaml::parse(text).map_err(|error| error.to_string())?;
        let policy: Policy = serde_json::from_value(value).map_err(|error| error.to_string())?;
        if policy.api_version != "audit.k8s.io/v1" || policy.kind != "Policy" {
            return Err(format!("unknown group version field {} in policy", policy.api_version));
        }
        if policy.rules.is_empty() {
            return Err("loaded illegal policy with 0 rules".to_string());
        }
        if policy.rules.iter().any(|rule| rule.level.is_none()) {
            return Err("rules: Required value: every rule needs a level".to_string());
        }
        let of_objects = |rule: &Rule| !rule.resources.is_empty() || !rule.namespaces.is_empty();
        if policy.rules.iter().any(|rule| !rule.paths.is_empty() && of_objects(rule)) {
            return Err("rules cannot apply to both regular resources and non-resource URLs".to_string());
        }
        Ok(policy)
    }

    /// The first rule that fits decides; a request that none fits is not recorded.
    pub fn evaluate(&self, attributes: &Attributes) -> Verdict {
        let Some(rule) = self.rules.iter().find(|rule| rule.fits(attributes)) else {
            return Verdict { omit_stages: self.omit_stages.clone(), ..Verdict::default() };
        };
        Verdict {
            level: rule.level.unwrap_or_default(),
            omit_stages: self.omit_stages.iter().chain(&rule.omit_stages).copied().collect(),
            omit_managed_fields: rule.omit_managed_fields.unwrap_or(self.omit_managed_fields),
        }
    }
}

impl Rule {
    fn fits(&self, attributes: &Attributes) -> bool {
        let user = &attributes.user;
        let among = |list: &[String], wanted: &str| list.is_empty() || list.iter().any(|have| have == wanted);
        if !among(&self.users, &user.name)
            || !(self.user_groups.is_empty() || self.user_groups.iter().any(|group| user.in_group(group)))
            || !among(&self.verbs, &attributes.verb)
        {
            return false;
        }
        if !self.namespaces.is_empty() || !self.resources.is_empty() {
            return attributes.is_resource && self.fits_resource(attributes);
        }
        if !self.paths.is_empty() {
            return !attributes.is_resource && self.paths.iter().any(|path| fits_path(path, &attributes.path));
        }
        true
    }

    fn fits_resource(&self, attributes: &Attributes) -> bool {
        if !self.namespaces.is_empty() && !self.namespaces.contains(&attributes.namespace) {
            return false;
        }
        if self.resources.is_empty() {
            return true;
        }
        let (resource, subresource) = (attributes.resource.as_str(), attributes.subresource.as_str());
        let combined = if subresource.is_empty() { resource.to_string() } else { format!("{resource}/{subresource}") };
        self.resources.iter().filter(|rule| rule.group == attributes.group).any(|rule| {
            let named = rule.resource_names.is_empty() || rule.resource_names.contains(&attributes.name);
            let matches = |pattern: &String| {
                *pattern == combined
                    || pattern == "*"
                    || (!subresource.is_empty()
                        && (pattern.strip_prefix("*/") == Some(subresource)
                            || pattern.strip_suffix("/*") == Some(resource)))
            };
            // Names say nothing about rules for every resource.
            (rule.resources.is_empty() && rule.resource_names.is_empty())
                || (named && rule.resources.iter().any(matches))
        })
    }
}

fn fits_path(pattern: &str, path: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix),
        None => pattern == path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::UserInfo;

    const POLICY: &str = r#"
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None
  users: ["system:kube-proxy"]
  verbs: [watch]
  resources: [{group: "", resources: [endpoints, services]}]
- level: None
  nonResourceURLs: ["/healthz*", /version]
- level: Request
  resources: [{group: "", resources: [configmaps], resourceNames: [one]}]
  namespaces: [kube-system]
- level: Metadata
  resources: [{group: "", resources: [secrets, "pods/*", "*/scale"]}]
- level: RequestResponse
  userGroups: [dev]
  omitStages: [ResponseStarted]
"#;

    #[test]
    fn the_first_rule_that_fits_decides() {
        let policy = Policy::parse(POLICY).unwrap();
        let level = |user: UserInfo, verb: &str, resource: &str, namespace: &str, name: &str| {
            let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
            let attributes = Attributes {
                user,
                verb: verb.into(),
                resource: resource.into(),
                subresource: subresource.into(),
                namespace: namespace.into(),
                name: name.into(),
                is_resource: true,
                ..Attributes::default()
            };
            policy.evaluate(&attributes).level
        };
        let user = UserInfo::new;
        assert_eq!(level(user("system:kube-proxy", &[]), "watch", "services", "", ""), Level::None);
        assert_eq!(level(user("a", &[]), "get", "configmaps", "kube-system", "one"), Level::Request);
        assert_eq!(level(user("a", &[]), "get", "configmaps", "kube-system", "two"), Level::None);
        assert_eq!(level(user("a", &[]), "get", "pods/log", "x", "p"), Level::Metadata);
        assert_eq!(level(user("a", &[]), "get", "pods", "x", "p"), Level::None);
        assert_eq!(level(user("a", &[]), "get", "replicationcontrollers/scale", "x", "p"), Level::Metadata);
        assert_eq!(level(user("a", &["dev"]), "get", "pods", "x", "p"), Level::RequestResponse);
        let path = Attributes {
            user: user("a", &["dev"]),
            verb: "get".into(),
            path: "/healthz/ping".into(),
            ..Attributes::default()
        };
        assert_eq!(policy.evaluate(&path).level, Level::None);
        let verdict = policy.evaluate(&Attributes { path: "/api".into(), ..path });
        assert_eq!(verdict.omit_stages, [Stage::RequestReceived, Stage::ResponseStarted]);
    }

    #[test]
    fn bad_policies_are_refused() {
        for (text, want) in [
            ("kind: Policy\napiVersion: v1\nrules: [{level: None}]", "unknown group version"),
            ("kind: Policy\napiVersion: audit.k8s.io/v1", "0 rules"),
            ("kind: Policy\napiVersion: audit.k8s.io/v1\nrules: [{level: Nope}]", "unknown variant"),
            ("kind: Policy\napiVersion: audit.k8s.io/v1\nrules: [{levels: None}]", "unknown field"),
        ] {
            let error = Policy::parse(text).unwrap_err();
            assert!(error.contains(want), "{error}");
        }
    }
}
