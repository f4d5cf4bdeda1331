//! Who may do what: authorizers, asked in order. The pipeline knows only [`Authorizer`].

pub mod configuration;
pub mod node;
pub mod rbac;
pub mod webhook;

use std::sync::Arc;

use crate::request::{Query, RequestInfo, UserInfo};
use apimachinery::gvk::GroupResource;
use apimachinery::status::Status;
use apimachinery::{fields, labels};
use arc_swap::ArcSwap;
use async_trait::async_trait;
use rbac::rule::Rule;

/// What somebody wants to do.
#[derive(Clone, Debug, Default)]
pub struct Attributes {
    pub user: Arc<UserInfo>,
    pub verb: String,
    pub namespace: String,
    pub group: String,
    pub version: String,
    pub resource: String,
    pub subresource: String,
    pub name: String,
    /// Otherwise `path` says what is wanted.
    pub is_resource: bool,
    pub path: String,
    /// What a list, watch or deletecollection is limited to; empty when the selector cannot be read.
    pub field_selector: Vec<fields::Requirement>,
    pub label_selector: Vec<labels::Requirement>,
}

impl Attributes {
    /// The attributes of a request.
    pub fn of(user: &Arc<UserInfo>, info: &RequestInfo, query: &Query) -> Self {
        let selects = info.is_resource && matches!(info.verb.as_str(), "list" | "watch" | "deletecollection");
        let selector = |name: &str| query.get(name).filter(|text| selects && !text.is_empty());
        let field_selector = selector("fieldSelector")
            .and_then(|text| fields::Selector::parse(text).ok())
            .map(|selector| selector.requirements)
            .unwrap_or_default();
        let label_selector = selector("labelSelector")
            .and_then(|text| labels::Selector::parse(text).ok())
            .map(|selector| selector.requirements().to_vec())
            .unwrap_or_default();
        Self {
            field_selector,
            label_selector,
            user: user.clone(),
            verb: info.verb.clone(),
            namespace: info.namespace.clone(),
            group: info.group.clone(),
            version: info.version.clone(),
            resource: info.resource.clone(),
            subresource: info.subresource.clone(),
            name: info.name.clone(),
            is_resource: info.is_resource,
            path: info.path.clone(),
        }
    }

    /// The 403 that upstream answers.
    pub fn forbidden(&self, reason: &str) -> Status {
        let user = &self.user.name;
        let text = if self.is_resource {
            let resource = if self.subresource.is_empty() {
                self.resource.clone()
            } else {
                format!("{}/{}", self.resource, self.subresource)
            };
            let place = if self.namespace.is_empty() {
                "at the cluster scope".to_string()
            } else {
                format!("in the namespace {:?}", self.namespace)
            };
            format!("User {user:?} cannot {} resource {resource:?} in API group {:?} {place}", self.verb, self.group)
        } else {
            format!("User {user:?} cannot {} path {:?}", self.verb, self.path)
        };
        let text = sanitize(&text);
        let text = if reason.is_empty() { text } else { format!("{text}: {reason}") };
        Status::forbidden(&GroupResource::new(self.group.clone(), self.resource.clone()), &self.name, text)
    }
}

/// Keeps error texts from being read as HTML, as upstream does.
pub(crate) fn sanitize(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// One authorizer's opinion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Yes; nobody else is asked. The reason is shown by access reviews.
    Allow(String),
    /// No; nobody else is asked.
    Deny(String),
    /// Somebody else may know.
    NoOpinion(String),
}

/// Says whether somebody may do something.
pub trait Authorizer: Send + Sync + 'static {
    /// Judges; must not block.
    fn authorize(&self, attributes: &Attributes) -> Decision;

    /// Its other half, when it has to ask somebody.
    fn asks(&self) -> Option<&dyn Asks> {
        None
    }

    /// What this authorizer allows a user in a namespace, as far as it can be listed.
    fn rules_for(&self, _user: &UserInfo, _namespace: &str) -> Found {
        Found::default()
    }
}

/// The half of an authorizer that has to ask somebody.
#[async_trait]
pub trait Asks: Send + Sync {
    /// Judges, and takes its time.
    async fn decide(&self, attributes: &Attributes) -> Decision;
}

/// Rules that were found for a user.
#[derive(Clone, Debug, Default)]
pub struct Found {
    pub rules: Vec<Rule>,
    /// There may be more that cannot be listed.
    pub incomplete: bool,
    pub errors: Vec<String>,
}

/// `--authorization-mode=AlwaysAllow`.
pub struct AlwaysAllow;

impl Authorizer for AlwaysAllow {
    fn authorize(&self, _: &Attributes) -> Decision {
        Decision::Allow(String::new())
    }

    fn rules_for(&self, _: &UserInfo, _: &str) -> Found {
        Found { rules: Rule::everything().into(), ..Found::default() }
    }
}

/// `--authorization-mode=AlwaysDeny`.
pub struct AlwaysDeny;

impl Authorizer for AlwaysDeny {
    fn authorize(&self, _: &Attributes) -> Decision {
        Decision::NoOpinion("Everything is forbidden.".to_string())
    }
}

/// Asks authorizers in order until one decides. The list may be replaced while it is asked.
pub struct Union(ArcSwap<Vec<Box<dyn Authorizer>>>);

impl Union {
    /// These authorizers, in this order.
    pub fn new(list: Vec<Box<dyn Authorizer>>) -> Self {
        Self(ArcSwap::from_pointee(list))
    }

    /// Others, from now on.
    pub fn replace(&self, list: Vec<Box<dyn Authorizer>>) {
        self.0.store(Arc::new(list));
    }

    /// As [`Authorizer::authorize`], and asks those who have to ask.
    pub async fn decide(&self, attributes: &Attributes) -> Decision {
        let mut reasons = Vec::new();
        // Kept whole: asking takes time, and the list may change meanwhile.
        for authorizer in self.0.load_full().iter() {
            let decision = match authorizer.asks() {
                Some(other) => other.decide(attributes).await,
                None => authorizer.authorize(attributes),
            };
            match decision {
                Decision::NoOpinion(reason) if reason.is_empty() => {}
                Decision::NoOpinion(reason) => reasons.push(reason),
                decided => return decided,
            }
        }
        Decision::NoOpinion(reasons.join("\n"))
    }
}

impl Authorizer for Union {
    fn authorize(&self, attributes: &Attributes) -> Decision {
        let mut reasons: Vec<String> = Vec::new();
        for authorizer in self.0.load().iter() {
            match authorizer.authorize(attributes) {
                Decision::NoOpinion(reason) => {
                    if !reason.is_empty() {
                        reasons.push(reason);
                    }
                }
                decided => return decided,
            }
        }
        Decision::NoOpinion(reasons.join("\n"))
    }

    fn rules_for(&self, user: &UserInfo, namespace: &str) -> Found {
        let mut all = Found::default();
        for found in self.0.load().iter().map(|authorizer| authorizer.rules_for(user, namespace)) {
            all.rules.extend(found.rules);
            all.incomplete |= found.incomplete;
            all.errors.extend(found.errors);
        }
        all
    }
}

/// Members of `system:masters` may do anything, whatever the mode.
pub struct Masters;

impl Authorizer for Masters {
    fn authorize(&self, attributes: &Attributes) -> Decision {
        if attributes.user.in_group(crate::request::user::MASTERS) {
            Decision::Allow(String::new())
        } else {
            Decision::NoOpinion(String::new())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_in_upstreams_words() {
        let mut attributes = Attributes {
            user: Arc::new(UserInfo::anonymous()),
            verb: "get".into(),
            path: "/".into(),
            ..Attributes::default()
        };
        assert_eq!(attributes.forbidden("").message, "forbidden: User \"system:anonymous\" cannot get path \"/\"");
        attributes.is_resource = true;
        attributes.resource = "pods".into();
        attributes.namespace = "default".into();
        attributes.verb = "list".into();
        assert_eq!(
            attributes.forbidden("").message,
            "pods is forbidden: User \"system:anonymous\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\""
        );
    }
}
