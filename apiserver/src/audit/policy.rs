//! The audit policy: what is recorded of which request. Upstream: `apiserver/pkg/audit/policy`.

use apimachinery::field::{self, ErrorList, Path};
use apimachinery::object::ObjectExt as _;
use apimachinery::{names, yaml};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value, json};

use crate::authorization::Attributes;

/// How much of a request is recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    RequestReceived,
    /// The answer has begun and its body goes on: long-running requests only.
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

/// The levels and stages that a policy may name, in upstream's order.
const LEVELS: [Level; 4] = [Level::None, Level::Metadata, Level::Request, Level::RequestResponse];
const STAGES: [Stage; 4] = [Stage::RequestReceived, Stage::ResponseStarted, Stage::ResponseComplete, Stage::Panic];

impl Serialize for Level {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl Serialize for Stage {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

fn nullable<'de, D: Deserializer<'de>, T: Deserialize<'de>>(input: D) -> Result<Vec<T>, D::Error> {
    Ok(Option::deserialize(input)?.unwrap_or_default())
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Resources {
    group: String,
    #[serde(deserialize_with = "nullable")]
    resources: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    resource_names: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Rule {
    level: String,
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
    omit_stages: Vec<String>,
    omit_managed_fields: Option<bool>,
}

/// An audit policy.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Policy {
    api_version: String,
    kind: String,
    #[serde(deserialize_with = "nullable")]
    rules: Vec<Rule>,
    #[serde(deserialize_with = "nullable")]
    omit_stages: Vec<String>,
    omit_managed_fields: bool,
}

/// What the policy says of one request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    pub level: Level,
    pub omit_stages: Vec<Stage>,
    pub omit_managed_fields: bool,
}

fn level(text: &str) -> Option<Level> {
    LEVELS.into_iter().find(|level| level.as_str() == text)
}

fn stages(names: &[String]) -> impl Iterator<Item = Stage> {
    names.iter().filter_map(|name| STAGES.into_iter().find(|stage| stage.as_str() == name))
}

/// Fields that a policy does not have, as far as it can be told: upstream warns of them, no more.
fn unknown(policy: &Value) -> Vec<String> {
    const POLICY: &[&str] = &["apiVersion", "kind", "metadata", "rules", "omitStages", "omitManagedFields"];
    const RULE: &[&str] = &[
        "level",
        "users",
        "userGroups",
        "verbs",
        "resources",
        "namespaces",
        "nonResourceURLs",
        "omitStages",
        "omitManagedFields",
    ];
    const RESOURCES: &[&str] = &["group", "resources", "resourceNames"];
    fn check(path: &str, value: &Value, known: &[&str], found: &mut Vec<String>) {
        for key in value.as_object().into_iter().flat_map(|object| object.keys()) {
            if !known.contains(&key.as_str()) {
                found.push(format!("unknown field \"{path}{key}\""));
            }
        }
    }
    let mut found = Vec::new();
    check("", policy, POLICY, &mut found);
    for (at, rule) in policy["rules"].as_array().into_iter().flatten().enumerate() {
        check(&format!("rules[{at}]."), rule, RULE, &mut found);
        for (place, resources) in rule["resources"].as_array().into_iter().flatten().enumerate() {
            check(&format!("rules[{at}].resources[{place}]."), resources, RESOURCES, &mut found);
        }
    }
    found
}

fn validate_stages(names: &[String], path: &Path, errors: &mut ErrorList) {
    for (at, name) in names.iter().enumerate() {
        if !STAGES.iter().any(|stage| stage.as_str() == name) {
            let allowed = STAGES.map(Stage::as_str).join(",");
            errors.push(field::invalid(&path.index(at), name.as_str(), format!("allowed stages are {allowed}")));
        }
    }
}

impl Policy {
    /// Reads a policy file.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let value = yaml::parse(text).map_err(|error| format!("failed decoding: {error}"))?;
        let (version, kind) = (value.api_version(), value.kind());
        if version.is_empty() && kind.is_empty() {
            return Err("unknown group version field audit.k8s.io/__internal, Kind=Policy in policy".to_string());
        }
        if version != "audit.k8s.io/v1" || kind != "Policy" {
            return Err(format!(
                "failed decoding: no kind {kind:?} is registered for version {version:?} in scheme \"k8s.io/apiserver/pkg/audit/scheme.go:30\""
            ));
        }
        let unknown = unknown(&value);
        if !unknown.is_empty() {
            let error = format!("strict decoding error: {}", unknown.join(", "));
            tracing::warn!(error, "Audit policy contains errors, falling back to lenient decoding");
        }
        let policy: Policy =
            serde_json::from_value(value).map_err(|error| format!("failed lenient decoding: {error}"))?;
        let errors = policy.validate();
        if !errors.is_empty() {
            return Err(errors.to_aggregate());
        }
        if policy.rules.is_empty() {
            return Err("loaded illegal policy with 0 rules".to_string());
        }
        Ok(policy)
    }

    fn validate(&self) -> ErrorList {
        let mut errors = ErrorList::new();
        validate_stages(&self.omit_stages, &Path::new("omitStages"), &mut errors);
        let rules = Path::new("rules");
        for (at, rule) in self.rules.iter().enumerate() {
            rule.validate(&rules.index(at), &mut errors);
        }
        errors
    }

    /// The first rule that fits decides; a request that none fits is not recorded.
    pub fn evaluate(&self, attributes: &Attributes) -> Verdict {
        let Some(rule) = self.rules.iter().find(|rule| rule.fits(attributes)) else {
            let omit_stages = stages(&self.omit_stages).collect();
            return Verdict { level: Level::None, omit_stages, omit_managed_fields: self.omit_managed_fields };
        };
        Verdict {
            level: level(&rule.level).unwrap_or_default(),
            omit_stages: stages(&self.omit_stages).chain(stages(&rule.omit_stages)).collect(),
            omit_managed_fields: rule.omit_managed_fields.unwrap_or(self.omit_managed_fields),
        }
    }
}

impl Rule {
    fn validate(&self, path: &Path, errors: &mut ErrorList) {
        if self.level.is_empty() {
            errors.push(field::required(&path.child("level"), ""));
        } else if level(&self.level).is_none() {
            let levels = LEVELS.map(Level::as_str);
            errors.push(field::not_supported(&path.child("level"), self.level.as_str(), &levels));
        }
        let urls = path.child("nonResourceURLs");
        for (at, url) in self.paths.iter().enumerate().filter(|(_, url)| *url != "*") {
            if !url.starts_with('/') {
                let text = "non-resource URL rules must begin with a '/' character";
                errors.push(field::invalid(&urls.index(at), url.as_str(), text));
            }
            if url.find('*').is_some_and(|star| star + 1 < url.len()) {
                let text = "non-resource URL wildcards '*' must be the final character of the rule";
                errors.push(field::invalid(&urls.index(at), url.as_str(), text));
            }
        }
        let resources = path.child("resources");
        for wanted in &self.resources {
            let group = wanted.group.as_str();
            let bad = if matches!(group, "" | "*") { Vec::new() } else { names::dns1123_subdomain(group) };
            if !bad.is_empty() {
                errors.push(field::invalid(&resources.child("group"), group, bad.join(",")));
            }
            if !wanted.resource_names.is_empty() && wanted.resources.is_empty() {
                let text = "using resourceNames requires at least one resource";
                errors.push(field::invalid(&resources.child("resourceNames"), json!(wanted.resource_names), text));
            }
        }
        validate_stages(&self.omit_stages, &path.child("omitStages"), errors);
        let regular = !self.resources.is_empty() || !self.namespaces.is_empty();
        if regular && !self.paths.is_empty() {
            let text = "rules cannot apply to both regular resources and non-resource URLs";
            errors.push(field::invalid(&urls, json!(self.paths), text));
        }
    }

    fn fits(&self, attributes: &Attributes) -> bool {
        let user = &attributes.user;
        let among = |list: &[String], wanted: &str| list.is_empty() || list.iter().any(|have| have == wanted);
        // Nobody is no user of any name.
        if (user.name.is_empty() && !self.users.is_empty())
            || !among(&self.users, &user.name)
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
        let of_group = |rule: &&Resources| rule.group == attributes.group || rule.group == "*";
        self.resources.iter().filter(of_group).any(|rule| {
            let named = rule.resource_names.is_empty() || rule.resource_names.contains(&attributes.name);
            let matches = |pattern: &String| {
                *pattern == combined
                    || pattern == "*"
                    || (!subresource.is_empty() && pattern.strip_prefix("*/") == Some(subresource))
                    // With or without a subresource.
                    || pattern.strip_suffix("/*") == Some(resource)
            };
            rule.resources.is_empty() || (named && rule.resources.iter().any(matches))
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
- level: Metadata
  resources: [{group: "*", resources: [widgets]}]
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
                user: user.into(),
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
        assert_eq!(level(user("a", &[]), "get", "pods", "x", "p"), Level::Metadata, "as upstream reads it");
        assert_eq!(level(user("a", &[]), "get", "nodes", "", "n"), Level::None);
        assert_eq!(level(user("a", &[]), "get", "widgets", "x", "w"), Level::Metadata);
        assert_eq!(level(user("a", &[]), "get", "replicationcontrollers/scale", "x", "p"), Level::Metadata);
        assert_eq!(level(user("a", &["dev"]), "get", "nodes", "", "n"), Level::RequestResponse);
        let path = Attributes {
            user: user("a", &["dev"]).into(),
            verb: "get".into(),
            path: "/healthz/ping".into(),
            ..Attributes::default()
        };
        assert_eq!(policy.evaluate(&path).level, Level::None);
        let verdict = policy.evaluate(&Attributes { path: "/api".into(), ..path });
        assert_eq!(verdict.omit_stages, [Stage::RequestReceived, Stage::ResponseStarted]);
    }

    #[test]
    fn unknown_fields_are_passed_over() {
        let text = "kind: Policy\napiVersion: audit.k8s.io/v1\nrulez: []\nrules: [{level: None, user: a}]";
        assert!(Policy::parse(text).is_ok());
        assert_eq!(
            unknown(&yaml::parse(text).unwrap()),
            ["unknown field \"rulez\"", "unknown field \"rules[0].user\""]
        );
    }

    #[test]
    fn bad_policies_are_refused() {
        let rule = |rule: &str| format!("kind: Policy\napiVersion: audit.k8s.io/v1\nrules: [{{{rule}}}]");
        for (text, want) in [
            (
                "kind: Policy\napiVersion: v1\nrules: [{level: None}]".to_string(),
                "failed decoding: no kind \"Policy\" is registered for version \"v1\" in scheme \"k8s.io/apiserver/pkg/audit/scheme.go:30\"",
            ),
            ("kind: Policy\napiVersion: audit.k8s.io/v1".to_string(), "loaded illegal policy with 0 rules"),
            (
                rule("level: Nope"),
                "rules[0].level: Unsupported value: \"Nope\": supported values: \"None\", \"Metadata\", \"Request\", \"RequestResponse\"",
            ),
            (rule("levels: None"), "rules[0].level: Required value"),
            (
                rule("level: None, omitStages: [Never]"),
                "rules[0].omitStages[0]: Invalid value: \"Never\": allowed stages are RequestReceived,ResponseStarted,ResponseComplete,Panic",
            ),
            (
                rule("level: None, nonResourceURLs: [\"a*b\"]"),
                "[rules[0].nonResourceURLs[0]: Invalid value: \"a*b\": non-resource URL rules must begin with a '/' character, rules[0].nonResourceURLs[0]: Invalid value: \"a*b\": non-resource URL wildcards '*' must be the final character of the rule]",
            ),
            (
                rule("level: None, namespaces: [a], nonResourceURLs: [/x]"),
                "rules[0].nonResourceURLs: Invalid value: [\"/x\"]: rules cannot apply to both regular resources and non-resource URLs",
            ),
            (
                rule("level: None, resources: [{resourceNames: [a]}]"),
                "rules[0].resources.resourceNames: Invalid value: [\"a\"]: using resourceNames requires at least one resource",
            ),
            (
                rule("level: None, resources: [{group: a/v1}]"),
                "rules[0].resources.group: Invalid value: \"a/v1\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
            ),
        ] {
            assert_eq!(Policy::parse(&text).unwrap_err(), want);
        }
    }
}
