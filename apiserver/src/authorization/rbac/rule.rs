//! A policy rule: what it allows, and whether it covers another one.
//!
//! Matching is `rbac/v1/evaluation_helpers.go`, covering is
//! `component-helpers/auth/rbac/validation/policy_comparator.go` of upstream.

use std::collections::{BTreeMap, BTreeSet};

use apimachinery::gotext;
use serde::{Deserialize, Deserializer};

use crate::authorization::Attributes;

/// A text of a rule, shared by nobody and never changed.
pub type Text = Box<str>;

/// One `PolicyRule`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Rule {
    #[serde(deserialize_with = "nullable")]
    pub verbs: Vec<Text>,
    #[serde(deserialize_with = "nullable")]
    pub api_groups: Vec<Text>,
    #[serde(deserialize_with = "nullable")]
    pub resources: Vec<Text>,
    #[serde(deserialize_with = "nullable")]
    pub resource_names: Vec<Text>,
    #[serde(rename = "nonResourceURLs", deserialize_with = "nullable")]
    pub non_resource_urls: Vec<Text>,
}

fn nullable<'de, D: Deserializer<'de>>(input: D) -> Result<Vec<Text>, D::Error> {
    Ok(Option::deserialize(input)?.unwrap_or_default())
}

fn has(list: &[Text], wanted: &str) -> bool {
    list.iter().any(|text| **text == *wanted)
}

fn has_or_all(list: &[Text], wanted: &str) -> bool {
    list.iter().any(|text| **text == *wanted || &**text == "*")
}

impl Rule {
    /// Two rules that together allow everything.
    pub fn everything() -> [Rule; 2] {
        let star = || vec!["*".into()];
        [
            Rule { verbs: star(), api_groups: star(), resources: star(), ..Rule::default() },
            Rule { verbs: star(), non_resource_urls: star(), ..Rule::default() },
        ]
    }

    /// Whether the rule allows the request, its resource aside: [`Rule::allows`] for those who found
    /// the rule by its resource.
    pub fn allows_found(&self, attributes: &Attributes) -> bool {
        has_or_all(&self.verbs, &attributes.verb)
            && has_or_all(&self.api_groups, &attributes.group)
            && (self.resource_names.is_empty() || has(&self.resource_names, &attributes.name))
    }

    /// Whether the rule allows the request.
    pub fn allows(&self, attributes: &Attributes) -> bool {
        if !attributes.is_resource {
            return has_or_all(&self.verbs, &attributes.verb)
                && self.non_resource_urls.iter().any(|url| &**url == "*" || url_covers(url, &attributes.path));
        }
        self.allows_found(attributes)
            && self.resources.iter().any(|text| match &**text {
                "*" => true,
                text if attributes.subresource.is_empty() => text == attributes.resource,
                text => match text.split_once('/') {
                    Some((resource, subresource)) => {
                        (resource == "*" || resource == attributes.resource) && subresource == attributes.subresource
                    }
                    None => false,
                },
            })
    }

    /// As upstream's messages show a rule.
    pub fn compact(&self) -> String {
        let parts = [
            ("APIGroups", &self.api_groups),
            ("Resources", &self.resources),
            ("NonResourceURLs", &self.non_resource_urls),
            ("ResourceNames", &self.resource_names),
            ("Verbs", &self.verbs),
        ];
        let shown: Vec<String> = parts
            .iter()
            .filter(|(_, list)| !list.is_empty())
            .map(|(name, list)| format!("{name}:{}", gotext::quoted_list(list.iter().map(|text| &**text))))
            .collect();
        format!("{{{}}}", shown.join(", "))
    }

    /// The rule as many that each have one verb, one resource and at most one name.
    pub fn breakdown(&self) -> Vec<Rule> {
        let one = |text: &Text| vec![text.clone()];
        let mut parts = Vec::new();
        for group in &self.api_groups {
            for resource in &self.resources {
                for verb in &self.verbs {
                    let part =
                        Rule { api_groups: one(group), resources: one(resource), verbs: one(verb), ..Rule::default() };
                    if self.resource_names.is_empty() {
                        parts.push(part);
                    } else {
                        let named = |name| Rule { resource_names: one(name), ..part.clone() };
                        parts.extend(self.resource_names.iter().map(named));
                    }
                }
            }
        }
        for url in &self.non_resource_urls {
            let part = |verb| Rule { non_resource_urls: one(url), verbs: one(verb), ..Rule::default() };
            parts.extend(self.verbs.iter().map(part));
        }
        parts
    }

    /// Whether everything that `part`, which is one of a breakdown, allows is allowed by this rule.
    fn covers(&self, part: &Rule) -> bool {
        let all = |have: &[Text], wanted: &[Text]| has(have, "*") || wanted.iter().all(|text| has(have, text));
        all(&self.verbs, &part.verbs)
            && all(&self.api_groups, &part.api_groups)
            && part.resources.iter().all(|resource| self.covers_resource(resource))
            && part
                .non_resource_urls
                .iter()
                .all(|wanted| self.non_resource_urls.iter().any(|url| url_covers(url, wanted)))
            && (self.resource_names.is_empty()
                || (!part.resource_names.is_empty()
                    && part.resource_names.iter().all(|name| has(&self.resource_names, name))))
    }

    fn covers_resource(&self, resource: &str) -> bool {
        has(&self.resources, "*")
            || has(&self.resources, resource)
            || resource.split_once('/').is_some_and(|(_, sub)| has(&self.resources, &format!("*/{sub}")))
    }
}

fn url_covers(owner: &str, path: &str) -> bool {
    owner == path || (owner.ends_with('*') && path.starts_with(owner.trim_end_matches('*')))
}

/// What of `wanted` the rules of `owner` do not cover, in single steps.
pub fn uncovered<'a>(owner: impl Iterator<Item = &'a Rule> + Clone, wanted: &[Rule]) -> Vec<Rule> {
    wanted.iter().flat_map(Rule::breakdown).filter(|part| !owner.clone().any(|rule| rule.covers(part))).collect()
}

/// Missing rights as upstream's message lists them: verbs of one resource together, sorted by text.
pub fn describe_missing(parts: Vec<Rule>) -> String {
    // A breakdown's rules differ by verb alone once group, resource and name are equal.
    let mut together = BTreeMap::<_, Rule>::new();
    let mut lines = BTreeSet::new();
    for part in parts {
        if !part.non_resource_urls.is_empty() {
            lines.insert(part.compact());
            continue;
        }
        let key = (part.api_groups.clone(), part.resources.clone(), part.resource_names.clone());
        match together.get_mut(&key) {
            Some(rule) => rule.verbs.extend(part.verbs),
            None => {
                together.insert(key, part);
            }
        }
    }
    lines.extend(together.values().map(Rule::compact));
    lines.into_iter().collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(verbs: &str, groups: &str, resources: &str) -> Rule {
        let list = |text: &str| text.split(' ').map(|word| if word == "core" { "" } else { word }.into()).collect();
        Rule { verbs: list(verbs), api_groups: list(groups), resources: list(resources), ..Rule::default() }
    }

    fn named(rule: Rule, names: &[&str]) -> Rule {
        Rule { resource_names: names.iter().map(|name| (*name).into()).collect(), ..rule }
    }

    fn urls(verbs: &str, urls: &[&str]) -> Rule {
        Rule {
            verbs: verbs.split(' ').map(Into::into).collect(),
            non_resource_urls: urls.iter().map(|url| (*url).into()).collect(),
            ..Rule::default()
        }
    }

    #[test]
    fn allows_what_it_says() {
        let asked = |verb: &str, group: &str, resource: &str, subresource: &str, name: &str| Attributes {
            verb: verb.into(),
            group: group.into(),
            resource: resource.into(),
            subresource: subresource.into(),
            name: name.into(),
            is_resource: true,
            ..Attributes::default()
        };
        for (rule, attributes, want) in [
            (rule("get", "core", "pods"), asked("get", "", "pods", "", "a"), true),
            (rule("get", "core", "pods"), asked("get", "", "pods", "log", "a"), false),
            (rule("get", "core", "pods"), asked("get", "apps", "pods", "", "a"), false),
            (rule("get", "core", "pods/log"), asked("get", "", "pods", "log", "a"), true),
            (rule("get", "core", "pods/log"), asked("get", "", "pods", "", "a"), false),
            (rule("get", "*", "*/scale"), asked("get", "apps", "deployments", "scale", "a"), true),
            (rule("get", "*", "*/scale"), asked("get", "apps", "deployments", "", "a"), false),
            (rule("get", "*", "*"), asked("get", "apps", "deployments", "scale", "a"), true),
            (rule("*", "core", "pods"), asked("hug", "", "pods", "", ""), true),
            (named(rule("get", "core", "pods"), &["a"]), asked("get", "", "pods", "", "a"), true),
            (named(rule("get", "core", "pods"), &["a"]), asked("get", "", "pods", "", "b"), false),
            (named(rule("list", "core", "pods"), &["a"]), asked("list", "", "pods", "", ""), false),
            (urls("get", &["*"]), asked("get", "", "pods", "", ""), false),
        ] {
            assert_eq!(rule.allows(&attributes), want, "{} {attributes:?}", rule.compact());
        }
        for (url, path, want) in [
            ("/healthz", "/healthz", true),
            ("/healthz", "/healthz/ping", false),
            ("/healthz/*", "/healthz/ping", true),
            ("/healthz/*", "/healthz", false),
            ("/healthz*", "/healthzy", true),
            ("*", "/", true),
        ] {
            let attributes = Attributes { verb: "get".into(), path: path.into(), ..Attributes::default() };
            assert_eq!(urls("get", &[url]).allows(&attributes), want, "{url} {path}");
        }
    }

    #[test]
    fn says_what_is_missing() {
        let owner = [rule("get list", "core", "pods"), rule("*", "*", "*/scale"), urls("get", &["/healthz/*"])];
        let missing = |wanted: &[Rule]| describe_missing(uncovered(owner.iter(), wanted));
        assert_eq!(missing(&[rule("get", "core", "pods")]), "");
        assert_eq!(missing(&[named(rule("get", "core", "pods"), &["a"])]), "");
        assert_eq!(missing(&[rule("update", "apps", "deployments/scale")]), "");
        assert_eq!(missing(&[urls("get", &["/healthz/ping"])]), "");
        assert_eq!(
            missing(&[rule("get create delete", "core apps", "pods"), urls("get put", &["/healthz/a"])]),
            "{APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"create\" \"delete\"]}\n\
             {APIGroups:[\"apps\"], Resources:[\"pods\"], Verbs:[\"get\" \"create\" \"delete\"]}\n\
             {NonResourceURLs:[\"/healthz/a\"], Verbs:[\"put\"]}"
        );
        let owner = [named(rule("get", "core", "pods"), &["a"])];
        assert!(!uncovered(owner.iter(), &[rule("get", "core", "pods")]).is_empty());
    }

    #[test]
    fn reads_nulls() {
        let rule: Rule =
            serde_json::from_str(r#"{"verbs":["get"],"apiGroups":null,"nonResourceURLs":["/x"]}"#).unwrap();
        assert_eq!(rule.compact(), "{NonResourceURLs:[\"/x\"], Verbs:[\"get\"]}");
    }
}
