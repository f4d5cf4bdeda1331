//! Acting as somebody else: `Impersonate-User` and its companions.
//!
//! Five ways are tried in turn, the narrow ones first; the first that allows it decides who the
//! request then belongs to. The narrow ways (KEP-5284) ask two things: may the requester do *this*
//! while being somebody else (`impersonate-on:<mode>:<verb>`), and may they be *that* somebody
//! (`impersonate:<mode>`). The last way is the old one: `impersonate` alone, for everything.

use std::collections::BTreeMap;
use std::sync::Arc;

use ahash::AHashMap;
use apimachinery::field::{ErrorList, Path};
use apimachinery::gotext;
use apimachinery::names;
use apimachinery::status::Status;
use component_base::clock::SharedClock;
use http::HeaderMap;
use parking_lot::Mutex;

use crate::authorization::node::NODES;
use crate::authorization::{Attributes, Decision, Union};
use crate::request::UserInfo;
use crate::request::user::{ANONYMOUS, AUTHENTICATED, MASTERS, UNAUTHENTICATED};
use crate::server::metrics::ImpersonationMetrics;

const AUTHENTICATION: &str = "authentication.k8s.io";
/// Where a service account's token says on which node it is used.
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";
const EXTRA: &str = "impersonate-extra-";
/// From this many on, a single check for all of them is tried first.
const MANY: usize = 4;
/// Requesters whose last way is remembered.
const REMEMBERED: usize = 10_000;

/// Whom the headers ask for, and takes those headers away; `None` when they ask for nobody.
///
/// # Errors
/// 400 when there are companions of a user, but no user.
pub fn wanted(headers: &mut HeaderMap) -> Result<Option<UserInfo>, Status> {
    let text = |name: &str| -> Vec<String> {
        headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect()
    };
    let first = |name: &str| text(name).into_iter().next().unwrap_or_default();
    let mut user = UserInfo {
        name: first("impersonate-user"),
        uid: first("impersonate-uid"),
        groups: text("impersonate-group"),
        extra: BTreeMap::new(),
    };
    let mut has_extra = false;
    for (name, value) in headers.iter() {
        let Some(key) = name.as_str().strip_prefix(EXTRA) else { continue };
        has_extra = true;
        let key = crate::request::query::unescape(key, false).unwrap_or_else(|| key.to_string());
        user.extra.entry(key).or_default().push(String::from_utf8_lossy(value.as_bytes()).into_owned());
    }
    if user.name.is_empty() {
        if user.uid.is_empty() && user.groups.is_empty() && !has_extra {
            return Ok(None);
        }
        return Err(Status::bad_request(format!("requested {} without impersonating a user name", go_syntax(&user))));
    }
    let ours: Vec<http::HeaderName> = headers
        .keys()
        .filter(|name| {
            matches!(name.as_str(), "impersonate-user" | "impersonate-uid" | "impersonate-group")
                || name.as_str().starts_with(EXTRA)
        })
        .cloned()
        .collect();
    for name in ours {
        headers.remove(name);
    }
    Ok(Some(user))
}

/// `%#v` of a `user.DefaultInfo`, which upstream's message contains.
fn go_syntax(user: &UserInfo) -> String {
    let list = |items: &[String]| {
        if items.is_empty() {
            return "[]string(nil)".to_string();
        }
        format!("[]string{{{}}}", items.iter().map(|item| gotext::quote(item)).collect::<Vec<_>>().join(", "))
    };
    let extra = if user.extra.is_empty() {
        "map[string][]string(nil)".to_string()
    } else {
        let pairs: Vec<String> =
            user.extra.iter().map(|(key, values)| format!("{}:{}", gotext::quote(key), list(values))).collect();
        format!("map[string][]string{{{}}}", pairs.join(", "))
    };
    format!(
        "&user.DefaultInfo{{Name:{}, UID:{}, Groups:{}, Extra:{extra}}}",
        gotext::quote(&user.name),
        gotext::quote(&user.uid),
        list(&user.groups)
    )
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// A service account becomes the node its pod runs on.
    AssociatedNode,
    ArbitraryNode,
    ServiceAccount,
    /// Anybody who is neither a node nor a service account.
    UserInfo,
    Legacy,
}

const MODES: [Mode; 5] =
    [Mode::AssociatedNode, Mode::ArbitraryNode, Mode::ServiceAccount, Mode::UserInfo, Mode::Legacy];

fn node_name(user: &str) -> Option<&str> {
    user.strip_prefix("system:node:").filter(|name| names::dns1123_subdomain(name).is_empty())
}

fn account(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user.strip_prefix("system:serviceaccount:")?.split_once(':')?;
    let valid = names::dns1123_label(namespace).is_empty() && names::dns1123_subdomain(name).is_empty();
    valid.then_some((namespace, name))
}

impl Mode {
    /// What metrics call it.
    fn label(self) -> &'static str {
        if self == Mode::Legacy { "legacy" } else { self.name() }
    }

    fn name(self) -> &'static str {
        match self {
            Mode::AssociatedNode => "associated-node",
            Mode::ArbitraryNode => "arbitrary-node",
            Mode::ServiceAccount => "serviceaccount",
            Mode::UserInfo => "user-info",
            Mode::Legacy => "",
        }
    }

    fn verb(self) -> String {
        match self {
            Mode::Legacy => "impersonate".to_string(),
            mode => format!("impersonate:{}", mode.name()),
        }
    }

    /// Whether this way is for such a user at all.
    fn applies(self, wanted: &UserInfo, requester: &UserInfo) -> bool {
        let only_name = wanted.uid.is_empty() && wanted.groups.is_empty() && wanted.extra.is_empty();
        match self {
            Mode::AssociatedNode => {
                let node = requester.extra.get(NODE_NAME).filter(|values| values.len() == 1).map(|values| &values[0]);
                only_name
                    && account(&requester.name).is_some()
                    && node_name(&wanted.name).is_some_and(|name| node.is_some_and(|node| node == name))
            }
            Mode::ArbitraryNode => only_name && node_name(&wanted.name).is_some(),
            Mode::ServiceAccount => only_name && account(&wanted.name).is_some(),
            Mode::UserInfo => node_name(&wanted.name).is_none() && account(&wanted.name).is_none(),
            Mode::Legacy => true,
        }
    }
}

/// One mode's questions to the authorizer.
struct Check<'a> {
    mode: Mode,
    authorizer: &'a Union,
    requester: Arc<UserInfo>,
    tracker: &'a Tracker,
}

impl Check<'_> {
    async fn ask(&self, attributes: &Attributes) -> Result<(), Status> {
        let begun = self.tracker.clock.monotonic();
        let decision = self.authorizer.decide(attributes).await;
        let took = self.tracker.clock.monotonic() - begun;
        self.tracker.metrics.asked(self.mode.label(), matches!(decision, Decision::Allow(_)), took);
        match decision {
            Decision::Allow(_) => Ok(()),
            Decision::Deny(reason) | Decision::NoOpinion(reason) => Err(attributes.forbidden(&reason)),
        }
    }

    fn attributes(&self, group: &str, resource: &str, name: &str) -> Attributes {
        Attributes {
            user: self.requester.clone(),
            verb: self.mode.verb(),
            group: group.to_string(),
            version: "v1".to_string(),
            resource: resource.to_string(),
            name: name.to_string(),
            is_resource: true,
            ..Attributes::default()
        }
    }

    /// Users and groups have moved to the group of authentication in the narrow ways.
    fn user_group(&self) -> &'static str {
        if self.mode == Mode::Legacy { "" } else { AUTHENTICATION }
    }

    /// The user that the request belongs to, once everything was asked.
    async fn run(&self, wanted: &UserInfo, request: &Attributes) -> Result<UserInfo, Status> {
        let narrow = self.mode != Mode::Legacy;
        if narrow {
            let verb = format!("impersonate-on:{}:{}", self.mode.name(), request.verb);
            self.ask(&Attributes { user: self.requester.clone(), verb, ..request.clone() }).await?;
        }
        let mut user = wanted.clone();
        let mut attributes = self.attributes(self.user_group(), "users", &wanted.name);
        if let Some(node) = node_name(&wanted.name).filter(|_| narrow) {
            attributes.resource = "nodes".to_string();
            // The node itself was compared already; the right is about all of them.
            attributes.name = if self.mode == Mode::AssociatedNode { "*".to_string() } else { node.to_string() };
            user.groups = vec![NODES.to_string()];
        }
        if let Some((namespace, name)) = account(&wanted.name) {
            attributes.resource = "serviceaccounts".to_string();
            attributes.namespace = namespace.to_string();
            attributes.name = name.to_string();
            if wanted.groups.is_empty() {
                user.groups = vec!["system:serviceaccounts".to_string(), format!("system:serviceaccounts:{namespace}")];
            }
        }
        self.ask(&attributes).await?;
        if !wanted.uid.is_empty() {
            self.ask(&self.attributes(AUTHENTICATION, "uids", &wanted.uid)).await?;
        }
        self.groups(&wanted.groups).await?;
        self.extra(&wanted.extra).await?;
        let member = |group: &str| if user.in_group(group) { None } else { Some(group.to_string()) };
        let more = if user.name == ANONYMOUS {
            member(UNAUTHENTICATED)
        } else if user.in_group(UNAUTHENTICATED) {
            None
        } else {
            member(AUTHENTICATED)
        };
        user.groups.extend(more);
        Ok(user)
    }

    async fn groups(&self, groups: &[String]) -> Result<(), Status> {
        let attributes = |name: &str| self.attributes(self.user_group(), "groups", name);
        if self.mode != Mode::Legacy {
            if groups.iter().any(String::is_empty) {
                return Err(attributes("").forbidden("impersonating the empty string group is not allowed"));
            }
            if groups.iter().any(|group| group == MASTERS) {
                return Err(attributes(MASTERS).forbidden("impersonating the system:masters group is not allowed"));
            }
            if groups.len() >= MANY && self.ask(&attributes("*")).await.is_ok() {
                return Ok(());
            }
        }
        for group in groups {
            self.ask(&attributes(group)).await?;
        }
        Ok(())
    }

    async fn extra(&self, extra: &BTreeMap<String, Vec<String>>) -> Result<(), Status> {
        let attributes = |key: &str, value: &str| Attributes {
            subresource: key.to_string(),
            ..self.attributes(AUTHENTICATION, "userextras", value)
        };
        if self.mode != Mode::Legacy && !extra.is_empty() {
            validate_extra(extra).map_err(|text| attributes("", "").forbidden(&text))?;
            let values: usize = extra.values().map(Vec::len).sum();
            if (extra.len() >= MANY || values >= MANY) && self.ask(&attributes("*", "*")).await.is_ok() {
                return Ok(());
            }
        }
        for (key, values) in extra {
            for value in values {
                self.ask(&attributes(key, value)).await?;
            }
        }
        Ok(())
    }
}

fn validate_extra(extra: &BTreeMap<String, Vec<String>>) -> Result<(), String> {
    for (key, values) in extra {
        if key.is_empty() {
            return Err("impersonating the empty string key in extra is not allowed".to_string());
        }
        let mut errors = ErrorList::new();
        api::validation::domain_prefixed_path(key, &Path::new("extra").child("key"), &mut errors);
        if !errors.is_empty() {
            return Err(format!("impersonating an invalid key in extra is not allowed: {}", errors.to_aggregate()));
        }
        if *key != key.to_lowercase() {
            return Err(format!("impersonating a non-lowercase key in extra is not allowed: {}", gotext::quote(key)));
        }
        if values.iter().any(String::is_empty) {
            return Err("impersonating the empty string value in extra is not allowed".to_string());
        }
    }
    Ok(())
}

/// Whom a request belongs to, and the verb that allowed it (empty for the old way).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Impersonated {
    pub user: UserInfo,
    pub constraint: String,
}

/// Tries the ways, and remembers which was the right one for whom: who impersonates does it again and again.
pub struct Tracker {
    /// Without the gate there is the old way only.
    constrained: bool,
    last: Mutex<AHashMap<String, Mode>>,
    metrics: ImpersonationMetrics,
    clock: SharedClock,
}

impl Tracker {
    /// One for a server.
    pub fn new(constrained: bool, metrics: ImpersonationMetrics, clock: SharedClock) -> Self {
        Self { constrained, last: Mutex::default(), metrics, clock }
    }

    /// The user that a request by `request.user` who wants to be `wanted` belongs to.
    ///
    /// # Errors
    /// The 403 of the first way that applies, when none allows it.
    pub async fn impersonate(
        &self,
        authorizer: &Union,
        request: &Attributes,
        wanted: &UserInfo,
    ) -> Result<Impersonated, Status> {
        let begun = self.clock.monotonic();
        let outcome = self.attempt(authorizer, request, wanted).await;
        let took = self.clock.monotonic() - begun;
        match outcome {
            Ok((mode, user)) => {
                self.metrics.attempted(mode.label(), true, took);
                let constraint = if mode == Mode::Legacy { String::new() } else { mode.verb() };
                Ok(Impersonated { user, constraint })
            }
            Err(status) => {
                self.metrics.attempted("", false, took);
                Err(status)
            }
        }
    }

    async fn attempt(
        &self,
        authorizer: &Union,
        request: &Attributes,
        wanted: &UserInfo,
    ) -> Result<(Mode, UserInfo), Status> {
        let last = self.last.lock().get(&request.user.name).copied();
        let others = MODES.into_iter().filter(|mode| Some(*mode) != last);
        let mut first = None;
        for mode in last.into_iter().chain(others) {
            if !mode.applies(wanted, &request.user) || !(self.constrained || mode == Mode::Legacy) {
                continue;
            }
            let mut requester = request.user.clone();
            if mode == Mode::AssociatedNode {
                // The association was checked here; what else the token says must not matter.
                let requester = Arc::make_mut(&mut requester);
                let keys = std::mem::take(&mut requester.extra).into_keys().collect();
                requester.extra = [("authentication.kubernetes.io/associated-node-keys".to_string(), keys)].into();
            }
            match (Check { mode, authorizer, requester, tracker: self }).run(wanted, request).await {
                Ok(user) => {
                    if last != Some(mode) {
                        self.remember(&request.user.name, mode);
                    }
                    return Ok((mode, user));
                }
                Err(status) => first = first.or(Some(status)),
            }
        }
        Err(first.unwrap_or_else(|| Status::internal("all impersonation modes failed")))
    }

    fn remember(&self, requester: &str, mode: Mode) {
        let mut last = self.last.lock();
        // Forgetting costs an extra question for each requester, no more.
        if last.len() >= REMEMBERED {
            last.clear();
        }
        last.insert(requester.to_string(), mode);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authorization::Authorizer;

    /// Allows what is listed as `verb group/resource/subresource name`.
    struct Listed(&'static [&'static str]);

    impl Authorizer for Listed {
        fn authorize(&self, a: &Attributes) -> Decision {
            let asked = format!("{} {}/{}/{} {}", a.verb, a.group, a.resource, a.subresource, a.name);
            match self.0.contains(&asked.trim_end()) {
                true => Decision::Allow(String::new()),
                false => Decision::NoOpinion(String::new()),
            }
        }
    }

    fn listed(rights: &'static [&'static str]) -> Union {
        Union::new(vec![Box::new(Listed(rights))])
    }

    fn tracker(constrained: bool) -> Tracker {
        let metrics = ImpersonationMetrics::new(&component_base::metrics::Registry::new());
        Tracker::new(constrained, metrics, component_base::clock::RealClock::shared())
    }

    async fn impersonate(authorizer: &Union, request: &Attributes, wanted: &UserInfo) -> Result<UserInfo, Status> {
        tracker(true).impersonate(authorizer, request, wanted).await.map(|found| found.user)
    }

    fn request(user: UserInfo) -> Attributes {
        let text = |text: &str| text.to_string();
        Attributes {
            user: Arc::new(user),
            verb: text("list"),
            resource: text("pods"),
            is_resource: true,
            ..Attributes::default()
        }
    }

    fn user(name: &str, groups: &[&str]) -> UserInfo {
        let groups = groups.iter().map(ToString::to_string).collect();
        UserInfo { name: name.to_string(), groups, ..UserInfo::default() }
    }

    #[tokio::test]
    async fn the_old_way_and_the_narrow_ones() {
        let old = listed(&["impersonate /users/ bob", "impersonate /groups/ dev"]);
        let got = impersonate(&old, &request(user("alice", &[])), &user("bob", &["dev"])).await.unwrap();
        assert_eq!(got.groups, ["dev", AUTHENTICATED]);
        let error = impersonate(&old, &request(user("alice", &[])), &user("bob", &["ops"])).await.unwrap_err();
        assert!(error.message.contains("cannot impersonate-on:user-info:list resource \"pods\""), "{}", error.message);
        let narrow =
            listed(&["impersonate-on:user-info:list /pods/", "impersonate:user-info authentication.k8s.io/users/ bob"]);
        let got = impersonate(&narrow, &request(user("alice", &[])), &user("bob", &[])).await.unwrap();
        assert_eq!(got.groups, [AUTHENTICATED]);
        let mut other = request(user("alice", &[]));
        other.verb = "delete".to_string();
        assert!(
            impersonate(&narrow, &other, &user("bob", &[])).await.is_err(),
            "only listing is allowed while being bob"
        );
        let error = impersonate(&narrow, &request(user("alice", &[])), &user("bob", &[MASTERS])).await.unwrap_err();
        assert!(error.message.ends_with("impersonating the system:masters group is not allowed"), "{}", error.message);
    }

    #[tokio::test]
    async fn a_pod_may_become_its_own_node_only() {
        let rights = listed(&[
            "impersonate-on:associated-node:list /pods/",
            "impersonate:associated-node authentication.k8s.io/nodes/ *",
        ]);
        let mut agent = user("system:serviceaccount:kube-system:agent", &[]);
        agent.extra.insert(NODE_NAME.to_string(), vec!["n1".to_string()]);
        let got = impersonate(&rights, &request(agent.clone()), &user("system:node:n1", &[])).await.unwrap();
        assert_eq!(got.groups, [NODES, AUTHENTICATED]);
        assert!(impersonate(&rights, &request(agent), &user("system:node:n2", &[])).await.is_err());
    }

    /// The way that was right last is tried first, so its refusal is the one that is told.
    #[tokio::test]
    async fn the_last_way_is_remembered() {
        let old = listed(&["impersonate /users/ bob"]);
        let (tracker, asked) = (tracker(true), request(user("alice", &[])));
        let found = tracker.impersonate(&old, &asked, &user("bob", &[])).await.unwrap();
        assert_eq!(found.constraint, "");
        let error = tracker.impersonate(&old, &asked, &user("eve", &[])).await.unwrap_err();
        assert!(error.message.contains("cannot impersonate resource \"users\""), "{}", error.message);
        let error = tracker.impersonate(&old, &request(user("bill", &[])), &user("eve", &[])).await.unwrap_err();
        assert!(error.message.contains("cannot impersonate-on:user-info:list"), "{}", error.message);
        let narrow =
            listed(&["impersonate-on:user-info:list /pods/", "impersonate:user-info authentication.k8s.io/users/ bob"]);
        let found = tracker.impersonate(&narrow, &asked, &user("bob", &[])).await.unwrap();
        assert_eq!(found.constraint, "impersonate:user-info");
    }

    #[tokio::test]
    async fn without_the_gate_there_is_the_old_way_only() {
        let narrow =
            listed(&["impersonate-on:user-info:list /pods/", "impersonate:user-info authentication.k8s.io/users/ bob"]);
        let error =
            tracker(false).impersonate(&narrow, &request(user("alice", &[])), &user("bob", &[])).await.unwrap_err();
        assert!(error.message.contains("cannot impersonate resource \"users\""), "{}", error.message);
    }

    #[test]
    fn extra_keys_are_domain_prefixed_paths() {
        let check = |key: &str, value: &str| {
            validate_extra(&[(key.to_string(), vec![value.to_string()])].into()).err().unwrap_or_default()
        };
        assert_eq!(check("acme.io/team", "a"), "");
        assert_eq!(check("acme.io/team", ""), "impersonating the empty string value in extra is not allowed");
        assert_eq!(
            check("team", "a"),
            "impersonating an invalid key in extra is not allowed: extra.key: Invalid value: \"team\": must be a domain-prefixed path (such as \"acme.io/foo\")"
        );
        assert_eq!(
            check("acme.io/Team", "a"),
            "impersonating a non-lowercase key in extra is not allowed: \"acme.io/Team\""
        );
        assert!(check("acme.io/a b", "a").contains("extra.key: Invalid value: \"a b\": Invalid path (regex used"));
    }

    #[test]
    fn companions_need_a_user() {
        let mut headers = HeaderMap::new();
        assert_eq!(wanted(&mut headers), Ok(None));
        headers.insert("impersonate-group", "dev".parse().unwrap());
        assert_eq!(
            wanted(&mut headers).unwrap_err().message,
            "requested &user.DefaultInfo{Name:\"\", UID:\"\", Groups:[]string{\"dev\"}, Extra:map[string][]string(nil)} without impersonating a user name"
        );
        headers.insert("impersonate-user", "bob".parse().unwrap());
        headers.insert("impersonate-extra-acme.com%2fteam", "x".parse().unwrap());
        let user = wanted(&mut headers).unwrap().unwrap();
        assert_eq!(user.extra["acme.com/team"], ["x"]);
        assert!(headers.is_empty());
    }
}
