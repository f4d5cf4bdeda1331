//! Subcommands for roles and their bindings.

use futures::FutureExt;
use serde_json::{Map, Value, json};

use super::{MAKE_FLAGS, make, name_of};
use crate::command::{Command, Context};
use crate::error::{Error, Result};
use crate::flags::Flag;
use crate::mapper;
use crate::printer::PRINT_FLAGS;

const RULE_FLAGS: &[Flag] = &[
    Flag::slice("resource", "Resource that the rule applies to"),
    Flag::array(
        "resource-name",
        "Resource in the white list that the rule applies to, repeat this flag for multiple items",
    ),
    Flag::slice("verb", "Verb that applies to the resources contained in the rule"),
];

const SUBJECT_FLAGS: &[Flag] = &[
    Flag::array("group", "Groups to bind to the role. The flag can be repeated to add multiple groups."),
    Flag::array(
        "serviceaccount",
        "Service accounts to bind to the role, in the format <namespace>:<name>. The flag can be repeated to add multiple service accounts.",
    ),
    Flag::array("user", "Usernames to bind to the role. The flag can be repeated to add multiple users."),
];

/// `kubectl create role`.
pub const ROLE: Command = Command::new(
    "role",
    "Create a role with single rule.",
    "NAME --verb=verb --resource=resource.group/subresource [--resource-name=resourcename]",
    &[MAKE_FLAGS, RULE_FLAGS, PRINT_FLAGS],
    |ctx| role(ctx, "Role").boxed_local(),
);

/// `kubectl create clusterrole`.
pub const CLUSTER_ROLE: Command = Command::new(
    "clusterrole",
    "Create a cluster role.",
    "NAME --verb=verb --resource=resource.group [--resource-name=resourcename]",
    &[
        MAKE_FLAGS,
        RULE_FLAGS,
        &[
            Flag::string("aggregation-rule", "An aggregation label selector for combining ClusterRoles."),
            Flag::slice("non-resource-url", "A partial url that user should have access to."),
        ],
        PRINT_FLAGS,
    ],
    |ctx| role(ctx, "ClusterRole").boxed_local(),
);

/// `kubectl create rolebinding`.
pub const ROLE_BINDING: Command = Command::new(
    "rolebinding",
    "Create a role binding for a particular role or cluster role.",
    "NAME --clusterrole=NAME|--role=NAME [--user=username] [--group=groupname] [--serviceaccount=namespace:serviceaccountname]",
    &[
        MAKE_FLAGS,
        SUBJECT_FLAGS,
        &[
            Flag::string("clusterrole", "ClusterRole this RoleBinding should reference"),
            Flag::string("role", "Role this RoleBinding should reference"),
        ],
        PRINT_FLAGS,
    ],
    |ctx| binding(ctx, "RoleBinding").boxed_local(),
);

/// `kubectl create clusterrolebinding`.
pub const CLUSTER_ROLE_BINDING: Command = Command::new(
    "clusterrolebinding",
    "Create a cluster role binding for a particular cluster role.",
    "NAME --clusterrole=NAME [--user=username] [--group=groupname] [--serviceaccount=namespace:serviceaccountname]",
    &[
        MAKE_FLAGS,
        SUBJECT_FLAGS,
        &[Flag::string("clusterrole", "ClusterRole this ClusterRoleBinding should reference")],
        PRINT_FLAGS,
    ],
    |ctx| binding(ctx, "ClusterRoleBinding").boxed_local(),
);

async fn role(ctx: &Context, kind: &str) -> Result<()> {
    let name = name_of(ctx)?;
    let flags = &ctx.parsed;
    let mut object =
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": {"name": name}, "rules": null});
    let aggregation = flags.str("aggregation-rule");
    if !aggregation.is_empty() {
        let labels: Map<String, Value> = aggregation
            .split(',')
            .filter_map(|pair| pair.split_once('=').map(|(key, value)| (key.to_owned(), json!(value))))
            .collect();
        object["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": labels}]});
        return make(ctx, object).await;
    }
    let mut verbs: Vec<String> = Vec::new();
    for verb in flags.list("verb") {
        if verb == "*" {
            verbs = vec![verb];
            break;
        }
        if !verbs.contains(&verb) {
            verbs.push(verb);
        }
    }
    if verbs.is_empty() {
        return Err(Error::message("at least one verb must be specified"));
    }
    let urls = if kind == "ClusterRole" { flags.list("non-resource-url") } else { Vec::new() };
    let resources = flags.list("resource");
    if resources.is_empty() && urls.is_empty() {
        return Err(Error::message("at least one resource must be specified"));
    }
    let mut by_group: Vec<(String, Vec<String>)> = Vec::new();
    for resource in resources {
        let (plain, subresource) = match resource.split_once('/') {
            Some((plain, sub)) => (plain.to_owned(), Some(sub.to_owned())),
            None => (resource.clone(), None),
        };
        let (group, plural) = if plain == "*" {
            (String::new(), plain)
        } else {
            let mapping = mapper::resolve(&ctx.factory, &plain).await.map_err(|error| match error {
                Error::NoMatch { .. } => Error::Plain(error.to_string()),
                other => other,
            })?;
            (mapping.group, mapping.resource)
        };
        let entry = subresource.map_or(plural.clone(), |sub| format!("{plural}/{sub}"));
        match by_group.iter_mut().find(|(known, _)| *known == group) {
            Some((_, entries)) => entries.push(entry),
            None => by_group.push((group, vec![entry])),
        }
    }
    by_group.sort();
    let names = flags.list("resource-name");
    let mut rules: Vec<Value> = by_group
        .into_iter()
        .map(|(group, resources)| {
            let mut rule = json!({"apiGroups": [group], "resources": resources, "verbs": verbs});
            if !names.is_empty() {
                rule["resourceNames"] = json!(names);
            }
            rule
        })
        .collect();
    if !urls.is_empty() {
        rules.push(json!({"nonResourceURLs": urls, "verbs": verbs}));
    }
    object["rules"] = Value::Array(rules);
    make(ctx, object).await
}

async fn binding(ctx: &Context, kind: &str) -> Result<()> {
    let name = name_of(ctx)?;
    let flags = &ctx.parsed;
    let (cluster_role, role) = (flags.str("clusterrole"), flags.str("role"));
    let reference = match (cluster_role.is_empty(), role.is_empty()) {
        (false, true) => json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": cluster_role}),
        (true, false) => json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": role}),
        _ if kind == "ClusterRoleBinding" => return Err(Error::message("clusterrole must be specified")),
        _ => return Err(Error::message("exactly one of clusterrole or role must be specified")),
    };
    let mut subjects = Vec::new();
    for (flag, kind) in [("user", "User"), ("group", "Group")] {
        for name in flags.list(flag) {
            subjects.push(json!({"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name}));
        }
    }
    for account in flags.list("serviceaccount") {
        let Some((namespace, name)) = account.split_once(':').filter(|(a, b)| !a.is_empty() && !b.is_empty()) else {
            return Err(Error::message("serviceaccount must be <namespace>:<name>"));
        };
        subjects.push(json!({"kind": "ServiceAccount", "name": name, "namespace": namespace}));
    }
    let mut object = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": {"name": name}, "roleRef": reference});
    if !subjects.is_empty() {
        object["subjects"] = Value::Array(subjects);
    }
    make(ctx, object).await
}
