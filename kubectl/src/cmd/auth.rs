//! `kubectl auth`, `kubectl certificate` and `kubectl cluster-info`: who one is, what one may do,
//! whose requests one signs, where things run.

use futures::FutureExt;
use futures::future::LocalBoxFuture;
use http::Method;
use serde_json::{Value, json};

use super::ops::{Done, DryRun};
use crate::codec;
use crate::command::{Command, Context};
use crate::error::{Error, Result};
use crate::flags::Flag;
use crate::mapper;
use crate::printer::PRINT_FLAGS;
use crate::printer::tabwriter::TabWriter;
use crate::resource::{Builder, FILE_FLAGS};
use crate::rest::{self, Call};

const CAN_I_FLAGS: &[Flag] = &[
    Flag::bool("all-namespaces", "If true, check the specified action in all namespaces.").short('A'),
    Flag::bool("list", "If true, prints all allowed actions."),
    Flag::bool("no-headers", "If true, prints allowed actions without headers"),
    Flag::bool("quiet", "If true, suppress output and just return the exit code.").short('q'),
    Flag::string("subresource", "SubResource such as pod/log or deployment/scale"),
];

/// `kubectl auth`.
pub const COMMAND: Command = Command::group(
    "auth",
    "Inspect authorization.",
    &[
        Command::new(
            "can-i",
            "Check whether an action is allowed.",
            "VERB [TYPE | TYPE/NAME | NONRESOURCEURL]",
            &[CAN_I_FLAGS],
            |ctx| can_i(ctx).boxed_local(),
        ),
        Command::new(
            "whoami",
            "Experimental: Check who you are and your attributes (groups, extra).",
            "",
            &[PRINT_FLAGS],
            |ctx| whoami(ctx).boxed_local(),
        ),
    ],
);

/// Verbs on resources that upstream knows.
const VERBS: &[&str] = &[
    "*",
    "get",
    "list",
    "watch",
    "create",
    "update",
    "patch",
    "delete",
    "deletecollection",
    "use",
    "bind",
    "impersonate",
    "escalate",
    "approve",
    "sign",
    "attest",
];

/// Verbs on paths.
const URL_VERBS: &[&str] = &["*", "get", "put", "post", "head", "options", "delete", "patch"];

async fn can_i(ctx: &Context) -> Result<()> {
    let flags = &ctx.parsed;
    let (namespace, _) = ctx.factory.namespace()?;
    let namespace = if flags.bool("all-namespaces") { String::new() } else { namespace };
    if flags.bool("list") {
        if !flags.args.is_empty() {
            return Err(Error::message("list option must be specified with no arguments"));
        }
        return list_rules(ctx, &namespace).await;
    }
    let attributes = match flags.args.as_slice() {
        [verb, url] if url.starts_with('/') => {
            if !URL_VERBS.contains(&verb.as_str()) {
                ctx.streams.err.line(&format!("Warning: verb '{verb}' is not a known verb\n"));
            }
            json!({"nonResourceAttributes": {"verb": verb, "path": url}})
        }
        [verb, rest @ ..] if (1..=2).contains(&rest.len()) => {
            let (resource, name) = match (rest[0].split_once('/'), rest.get(1)) {
                (Some((resource, name)), _) => (resource.to_owned(), name.to_owned()),
                (None, name) => (rest[0].clone(), name.cloned().unwrap_or_default()),
            };
            let (group, plural, namespaced) = match mapper::resolve(&ctx.factory, &resource).await {
                Ok(mapping) => (mapping.group, mapping.resource, mapping.namespaced),
                Err(error @ Error::NoMatch { .. }) if resource != "*" => {
                    ctx.streams.err.line(&format!("Warning: {}", error.to_string().replace('"', "'")));
                    ctx.streams.err.line("");
                    (String::new(), resource.clone(), true)
                }
                Err(Error::NoMatch { .. }) => ("*".into(), resource.clone(), true),
                Err(error) => return Err(error),
            };
            if !namespaced && !namespace.is_empty() {
                ctx.streams.err.line(&format!(
                    "Warning: resource '{plural}' is not namespace scoped{}\n",
                    if group.is_empty() { String::new() } else { format!(" in group '{group}'") }
                ));
            }
            if !VERBS.contains(&verb.as_str()) {
                ctx.streams.err.line(&format!("Warning: verb '{verb}' is not a known verb\n"));
            }
            json!({"resourceAttributes": {"namespace": namespace, "verb": verb, "group": group, "resource": plural, "name": name, "subresource": flags.str("subresource")}})
        }
        _ => {
            return Err(Error::message(
                "you must specify two arguments: verb resource or verb resource/resourceName.\nSee 'kubectl auth can-i -h' for help and examples.",
            ));
        }
    };
    let review =
        json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": attributes});
    let call = Call::new(Method::POST, "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews").json(&review);
    let answer = ctx.factory.rest().await?.value(call).await?;
    let allowed = answer["status"]["allowed"] == true;
    if !flags.bool("quiet") {
        let mut text = if allowed { "yes" } else { "no" }.to_owned();
        if !allowed {
            for field in ["reason", "evaluationError"] {
                let value = codec::text(&answer, &["status", field]);
                if !value.is_empty() {
                    text.push_str(&format!(" - {value}"));
                }
            }
        }
        ctx.streams.out.line(&text);
    }
    if allowed { Ok(()) } else { Err(Error::Exit(1)) }
}

async fn list_rules(ctx: &Context, namespace: &str) -> Result<()> {
    let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview", "spec": {"namespace": namespace}});
    let call = Call::new(Method::POST, "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews").json(&review);
    let answer = ctx.factory.rest().await?.value(call).await?;
    let mut writer = TabWriter::table();
    if !ctx.parsed.bool("no-headers") {
        writer.push("Resources\tNon-Resource URLs\tResource Names\tVerbs\n");
    }
    let texts = |rule: &Value, field: &str| {
        codec::list(rule, &[field]).iter().filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>()
    };
    let mut lines = Vec::new();
    for rule in codec::list(&answer, &["status", "resourceRules"]) {
        for group in texts(rule, "apiGroups") {
            for resource in texts(rule, "resources") {
                let name = if group.is_empty() { resource.clone() } else { format!("{resource}.{group}") };
                lines.push(format!(
                    "{name}\t[]\t[{}]\t[{}]\n",
                    texts(rule, "resourceNames").join(" "),
                    texts(rule, "verbs").join(" ")
                ));
            }
        }
    }
    for rule in codec::list(&answer, &["status", "nonResourceRules"]) {
        lines.push(format!(
            "\t[{}]\t[]\t[{}]\n",
            texts(rule, "nonResourceURLs").join(" "),
            texts(rule, "verbs").join(" ")
        ));
    }
    lines.iter().for_each(|line| writer.push(line));
    ctx.streams.out.text(&writer.flush());
    Ok(())
}

async fn whoami(ctx: &Context) -> Result<()> {
    ctx.no_arguments()?;
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let call = Call::new(Method::POST, "/apis/authentication.k8s.io/v1/selfsubjectreviews").json(&review);
    let answer = ctx.factory.rest().await?.value(call).await?;
    if let Some(mut printer) = crate::printer::from_flags(&ctx.parsed, crate::printer::FORMATS)? {
        ctx.streams.out.text(&printer.print(&answer, None)?);
        return Ok(());
    }
    let user = &answer["status"]["userInfo"];
    let mut writer = TabWriter::table();
    writer.push("ATTRIBUTE\tVALUE\n");
    for (title, field) in [("Username", "username"), ("UID", "uid")] {
        let value = codec::text(user, &[field]);
        if !value.is_empty() {
            writer.push(&format!("{title}\t{value}\n"));
        }
    }
    let joined = |value: &Value| {
        value.as_array().map_or(&[][..], Vec::as_slice).iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" ")
    };
    if !codec::list(user, &["groups"]).is_empty() {
        writer.push(&format!("Groups\t[{}]\n", joined(&user["groups"])));
    }
    if let Some(Value::Object(extra)) = codec::at(user, &["extra"]) {
        for (key, value) in extra {
            writer.push(&format!("Extra: {key}\t[{}]\n", joined(value)));
        }
    }
    ctx.streams.out.text(&writer.flush());
    Ok(())
}

const CERTIFICATE_FLAGS: &[Flag] = &[Flag::bool("force", "Update the CSR even if it is already approved.")];

/// `kubectl certificate`.
pub const CERTIFICATE: Command = Command::group(
    "certificate",
    "Modify certificate resources.",
    &[
        Command::new(
            "approve",
            "Approve a certificate signing request.",
            "(-f FILENAME | NAME)",
            &[CERTIFICATE_FLAGS, FILE_FLAGS, PRINT_FLAGS],
            |ctx| decide(ctx, "Approved"),
        ),
        Command::new(
            "deny",
            "Deny a certificate signing request.",
            "(-f FILENAME | NAME)",
            &[CERTIFICATE_FLAGS, FILE_FLAGS, PRINT_FLAGS],
            |ctx| decide(ctx, "Denied"),
        ),
    ],
);

fn decide<'a>(ctx: &'a Context, verdict: &'static str) -> LocalBoxFuture<'a, Result<()>> {
    async move {
        let mut builder = Builder::from_flags(&ctx.factory, &ctx.parsed)?;
        if builder.args.is_empty() && !builder.has_files() {
            return Err(Error::message("one or more CSRs must be specified as <name> or -f <filename>"));
        }
        if !builder.args.is_empty() {
            builder.args.insert(0, "certificatesigningrequests".into());
        }
        let (infos, errors) = builder.objects(&ctx.factory, &ctx.streams).await?;
        Error::aggregate(errors)?;
        let mut done = Done::from_flags(&ctx.parsed, DryRun::None)?;
        let (word, reason, message) = match verdict {
            "Approved" => ("approved", "KubectlApprove", "This CSR was approved by kubectl certificate approve."),
            _ => ("denied", "KubectlDeny", "This CSR was denied by kubectl certificate deny."),
        };
        for mut info in infos {
            info.object = info.get(&ctx.factory).await?;
            let mut conditions = codec::list(&info.object, &["status", "conditions"]).to_vec();
            let already = conditions.iter().any(|condition| condition["type"] == verdict);
            if !already || ctx.parsed.bool("force") {
                let now = apimachinery::time::format(jiff::Timestamp::now());
                conditions.retain(|condition| condition["type"] != verdict);
                conditions.push(json!({"type": verdict, "status": "True", "reason": reason, "message": message, "lastUpdateTime": now}));
                codec::set(&mut info.object, &["status", "conditions"], Value::Array(conditions));
                let call = Call::new(Method::PUT, info.path("approval")).json(&info.object);
                info.object = ctx.factory.rest().await?.value(call).await?;
            }
            done.print(&ctx.streams, &info, word)?;
        }
        Ok(())
    }
    .boxed_local()
}

/// `kubectl cluster-info`.
pub const CLUSTER_INFO: Command = Command::new(
    "cluster-info",
    "Display addresses of the control plane and services with label kubernetes.io/cluster-service=true.",
    "",
    &[],
    |ctx| cluster_info(ctx).boxed_local(),
);

async fn cluster_info(ctx: &Context) -> Result<()> {
    ctx.no_arguments()?;
    let rest = ctx.factory.rest().await?;
    let services = mapper::resolve(&ctx.factory, "services").await?;
    let call = Call::get(rest::path(&services, "kube-system", "", ""))
        .query("labelSelector", "kubernetes.io/cluster-service=true");
    let list = rest.value(call).await?;
    let out = &ctx.streams.out;
    out.line(&format!("Kubernetes control plane is running at {}", rest.server));
    for service in codec::flatten(list) {
        let name = codec::text(&service, &["metadata", "name"]);
        if name.is_empty() {
            continue;
        }
        let label = codec::text(&service, &["metadata", "labels", "kubernetes.io/name"]);
        let shown = if label.is_empty() { name } else { label };
        let ingress = codec::list(&service, &["status", "loadBalancer", "ingress"]).first();
        let port = codec::list(&service, &["spec", "ports"]).first();
        let link = match (ingress, port) {
            (Some(ingress), Some(port)) => {
                let host = match codec::text(ingress, &["ip"]) {
                    "" => codec::text(ingress, &["hostname"]),
                    ip => ip,
                };
                format!("http://{host}:{}", codec::int(port, &["port"]).unwrap_or(0))
            }
            _ => {
                let suffix = match port.map(|port| codec::text(port, &["name"])) {
                    Some("") | None => String::new(),
                    Some(name) => format!(":{name}"),
                };
                format!("{}/api/v1/namespaces/kube-system/services/{name}{suffix}/proxy", rest.server)
            }
        };
        out.line(&format!("{shown} is running at {link}"));
    }
    out.line("\nTo further debug and diagnose cluster problems, use 'kubectl cluster-info dump'.");
    Ok(())
}
