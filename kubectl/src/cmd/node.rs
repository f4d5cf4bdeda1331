//! `kubectl cordon`, `uncordon`, `drain` and `taint`: nodes in and out of use.

use std::time::Duration;

use futures::FutureExt;
use futures::future::LocalBoxFuture;
use http::Method;
use serde_json::{Value, json};

use super::ops::{DRY_RUN, Done, DryRun, MERGE_PATCH, STRATEGIC_PATCH, Write};
use crate::codec;
use crate::command::{Command, Context};
use crate::error::{Error, Result};
use crate::flags::Flag;
use crate::mapper;
use crate::printer::PRINT_FLAGS;
use crate::resource::{Builder, Info, info_of};
use crate::rest::{self, Call};

const CORDON_FLAGS: &[Flag] = &[DRY_RUN, Flag::string("selector", "Selector (label query) to filter on.").short('l')];

/// `kubectl cordon`.
pub const CORDON: Command =
    Command::new("cordon", "Mark node as unschedulable.", "NODE", &[CORDON_FLAGS], |ctx| cordon_command(ctx, true));

/// `kubectl uncordon`.
pub const UNCORDON: Command =
    Command::new("uncordon", "Mark node as schedulable.", "NODE", &[CORDON_FLAGS], |ctx| cordon_command(ctx, false));

fn cordon_command(ctx: &Context, wanted: bool) -> LocalBoxFuture<'_, Result<()>> {
    async move {
        let dry_run = DryRun::from_flags(&ctx.parsed)?;
        let (nodes, mut errors) = nodes(ctx).await?;
        for node in nodes {
            errors.extend(cordon(ctx, &node, wanted, dry_run).await.err());
        }
        Error::aggregate(errors)
    }
    .boxed_local()
}

async fn nodes(ctx: &Context) -> Result<(Vec<Info>, Vec<Error>)> {
    let mut builder = Builder::from_flags(&ctx.factory, &ctx.parsed)?;
    if builder.args.is_empty() && builder.label_selector.is_none() {
        return Err(ctx.usage_error(&format!("USAGE: {} NODE [flags]", ctx.path.trim_start_matches("kubectl "))));
    }
    builder.args = std::iter::once("nodes".to_owned())
        .chain(builder.args.iter().map(|name| name.trim_start_matches("node/").trim_start_matches("nodes/").to_owned()))
        .collect();
    builder.objects(&ctx.factory, &ctx.streams).await
}

/// Marks a node and says so.
async fn cordon(ctx: &Context, node: &Info, wanted: bool, dry_run: DryRun) -> Result<()> {
    let already = (node.object["spec"]["unschedulable"] == true) == wanted;
    let word = if wanted { "cordoned" } else { "uncordoned" };
    let state = if already { format!("already {word}") } else { word.to_owned() };
    if !already && dry_run != DryRun::Client {
        let write = Write { field_manager: "", field_validation: "", dry_run };
        let value = if wanted { json!(true) } else { Value::Null };
        let patch = json!({"spec": {"unschedulable": value}});
        write.patch(&ctx.factory, node, "", STRATEGIC_PATCH, &patch).await.map_err(|error| {
            Error::message(format!(
                "unable to {} node {:?}: {error}",
                if wanted { "cordon" } else { "uncordon" },
                node.name
            ))
        })?;
    }
    ctx.streams.out.line(&format!("node/{} {state}{}", node.name, dry_run.suffix()));
    Ok(())
}

const DRAIN_FLAGS: &[Flag] = &[
    DRY_RUN,
    Flag::int("chunk-size", "500", "Return large lists in chunks rather than all at once. Pass 0 to disable."),
    Flag::bool(
        "delete-emptydir-data",
        "Continue even if there are pods using emptyDir (local data that will be deleted when the node is drained).",
    ),
    Flag::bool("disable-eviction", "Force drain to use delete, even if eviction is supported."),
    Flag::bool("force", "Continue even if there are pods that do not declare a controller."),
    Flag::int("grace-period", "-1", "Period of time in seconds given to each pod to terminate gracefully."),
    Flag::bool("ignore-daemonsets", "Ignore DaemonSet-managed pods."),
    Flag::string("pod-selector", "Label selector to filter pods on the node"),
    Flag::string("selector", "Selector (label query) to filter on.").short('l'),
    Flag::int(
        "skip-wait-for-delete-timeout",
        "0",
        "If pod DeletionTimestamp older than N seconds, skip waiting for the pod.",
    ),
    Flag::duration("timeout", "0s", "The length of time to wait before giving up, zero means infinite"),
];

/// `kubectl drain`.
pub const DRAIN: Command =
    Command::new("drain", "Drain node in preparation for maintenance.", "NODE", &[DRAIN_FLAGS], |ctx| {
        drain(ctx).boxed_local()
    });

/// How long a refused eviction rests before it is tried again.
const RETRY: Duration = Duration::from_secs(5);

async fn drain(ctx: &Context) -> Result<()> {
    let dry_run = DryRun::from_flags(&ctx.parsed)?;
    let (nodes, errors) = nodes(ctx).await?;
    Error::aggregate(errors)?;
    for node in &nodes {
        cordon(ctx, node, true, dry_run).await?;
    }
    let mut errors = Vec::new();
    for node in &nodes {
        match drain_node(ctx, node, dry_run).await {
            Ok(()) => ctx.streams.out.line(&format!("node/{} drained{}", node.name, dry_run.suffix())),
            Err(error) => {
                ctx.streams.err.line(&format!(
                    "error: unable to drain node {:?} due to error: {error}, continuing command...",
                    node.name
                ));
                errors.push((node.name.clone(), error));
            }
        }
    }
    if errors.is_empty() {
        return Ok(());
    }
    ctx.streams.err.line("There are pending nodes to be drained:");
    errors.iter().for_each(|(name, _)| ctx.streams.err.line(&format!(" {name}")));
    errors.iter().for_each(|(_, error)| ctx.streams.err.line(&error.to_string()));
    Err(Error::Exit(1))
}

/// What to do with a pod.
enum Verdict {
    Evict,
    Skip,
    Refuse(&'static str),
}

/// Whether a pod may be evicted, by who owns it and what it would lose; with a warning perhaps.
fn judge(ctx: &Context, pod: &Value) -> (Verdict, Option<&'static str>) {
    let flags = &ctx.parsed;
    let phase = codec::text(pod, &["status", "phase"]);
    let finished = matches!(phase, "Succeeded" | "Failed");
    if codec::at(pod, &["metadata", "annotations", "kubernetes.io/config.mirror"]).is_some() {
        return (Verdict::Skip, None);
    }
    let owner = codec::list(pod, &["metadata", "ownerReferences"]).iter().find(|owner| owner["controller"] == true);
    if owner.is_some_and(|owner| owner["kind"] == "DaemonSet") && !finished {
        return if flags.bool("ignore-daemonsets") {
            (Verdict::Skip, Some("ignoring DaemonSet-managed Pods"))
        } else {
            (Verdict::Refuse("cannot delete DaemonSet-managed Pods (use --ignore-daemonsets to ignore)"), None)
        };
    }
    let local = codec::list(pod, &["spec", "volumes"]).iter().any(|volume| codec::at(volume, &["emptyDir"]).is_some());
    if local && !finished && !flags.bool("delete-emptydir-data") {
        return (
            Verdict::Refuse("cannot delete Pods with local storage (use --delete-emptydir-data to override)"),
            None,
        );
    }
    if owner.is_none() && !finished {
        return if flags.bool("force") {
            (Verdict::Evict, Some("deleting Pods that declare no controller"))
        } else {
            (Verdict::Refuse("cannot delete Pods that declare no controller (use --force to override)"), None)
        };
    }
    (Verdict::Evict, None)
}

/// `text: ns/a, ns/b` for each text.
fn grouped(found: &[(&'static str, String)]) -> Vec<String> {
    let mut texts: Vec<&str> = Vec::new();
    for (text, _) in found {
        if !texts.contains(text) {
            texts.push(text);
        }
    }
    texts
        .into_iter()
        .map(|text| {
            let names: Vec<&str> =
                found.iter().filter(|(other, _)| *other == text).map(|(_, name)| name.as_str()).collect();
            format!("{text}: {}", names.join(", "))
        })
        .collect()
}

async fn drain_node(ctx: &Context, node: &Info, dry_run: DryRun) -> Result<()> {
    let mapping = mapper::resolve(&ctx.factory, "pods").await?;
    let rest = ctx.factory.rest().await?;
    let call = Call::get(rest::path(&mapping, "", "", ""))
        .query("fieldSelector", format!("spec.nodeName={}", node.name))
        .query("labelSelector", ctx.parsed.str("pod-selector"));
    let list = rest.value(call).await?;
    let (mut evict, mut refused, mut warned) = (Vec::new(), Vec::new(), Vec::new());
    for pod in codec::flatten(list) {
        let name =
            format!("{}/{}", codec::text(&pod, &["metadata", "namespace"]), codec::text(&pod, &["metadata", "name"]));
        let (verdict, warning) = judge(ctx, &pod);
        warned.extend(warning.map(|text| (text, name.clone())));
        match verdict {
            Verdict::Evict => evict.push(info_of(mapping.clone(), pod)),
            Verdict::Skip => {}
            Verdict::Refuse(why) => refused.push((why, name)),
        }
    }
    if !refused.is_empty() {
        let texts = grouped(&refused);
        return Err(Error::message(match texts.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        }));
    }
    if !warned.is_empty() {
        ctx.streams.err.line(&format!("Warning: {}", grouped(&warned).join("; ")));
    }
    let deadline = ctx.parsed.duration("timeout").positive().map(|limit| tokio::time::Instant::now() + limit);
    for pod in &evict {
        ctx.streams.out.line(&format!("evicting pod {}/{}{}", pod.namespace, pod.name, dry_run.suffix()));
        if dry_run == DryRun::Client {
            continue;
        }
        remove(ctx, pod, dry_run, deadline).await?;
    }
    if dry_run != DryRun::None {
        return Ok(());
    }
    for pod in &evict {
        let uid = codec::text(&pod.object, &["metadata", "uid"]);
        super::delete::wait_gone(&ctx.factory, pod, Some(uid), deadline).await?;
        ctx.streams.out.line(&format!("pod/{} evicted", pod.name));
    }
    Ok(())
}

/// Evicts a pod, trying again while a disruption budget forbids it.
async fn remove(ctx: &Context, pod: &Info, dry_run: DryRun, deadline: Option<tokio::time::Instant>) -> Result<()> {
    let rest = ctx.factory.rest().await?;
    let mut options = json!({});
    let grace = ctx.parsed.int("grace-period");
    if grace >= 0 {
        options["gracePeriodSeconds"] = json!(grace);
    }
    if dry_run == DryRun::Server {
        options["dryRun"] = json!(["All"]);
    }
    loop {
        let call = if ctx.parsed.bool("disable-eviction") {
            Call::new(Method::DELETE, pod.path("")).json(&options)
        } else {
            let eviction = json!({
                "apiVersion": "policy/v1", "kind": "Eviction",
                "metadata": {"name": pod.name, "namespace": pod.namespace}, "deleteOptions": options,
            });
            Call::new(Method::POST, pod.path("eviction")).json(&eviction)
        };
        match rest.value(call).await {
            Ok(_) => return Ok(()),
            Err(error) if error.is_not_found() => return Ok(()),
            Err(error) if error.reason() == "TooManyRequests" => {
                ctx.streams.err.line(&format!(
                    "error when evicting pods/{:?} -n {:?} (will retry after 5s): {error}",
                    pod.name, pod.namespace
                ));
                let next = tokio::time::Instant::now() + RETRY;
                if deadline.is_some_and(|deadline| next > deadline) {
                    return Err(Error::message("drain did not complete within the timeout"));
                }
                tokio::time::sleep_until(next).await;
            }
            Err(error) => {
                return Err(Error::message(format!(
                    "error when evicting pods/{:?} -n {:?}: {error}",
                    pod.name, pod.namespace
                )));
            }
        }
    }
}

const TAINT_FLAGS: &[Flag] = &[
    DRY_RUN,
    Flag::bool("all", "Select all nodes in the cluster"),
    Flag::string("field-manager", "Name of the manager used to track field ownership.").default("kubectl-taint"),
    Flag::bool(
        "overwrite",
        "If true, allow taints to be overwritten, otherwise reject taint updates that overwrite existing taints.",
    ),
    Flag::string("selector", "Selector (label query) to filter on.").short('l'),
];

/// `kubectl taint`.
pub const TAINT: Command = Command::new(
    "taint",
    "Update the taints on one or more nodes.",
    "NODE NAME KEY_1=VAL_1:TAINT_EFFECT_1 ... KEY_N=VAL_N:TAINT_EFFECT_N",
    &[TAINT_FLAGS, PRINT_FLAGS],
    |ctx| taint(ctx).boxed_local(),
);

/// Taints to set, and (key, effect) pairs to remove; an empty effect removes all of a key.
type TaintChanges = (Vec<Value>, Vec<(String, String)>);

fn parse_taints(specs: &[String]) -> Result<TaintChanges> {
    let (mut set, mut removed) = (Vec::new(), Vec::new());
    for spec in specs {
        if let Some(spec) = spec.strip_suffix('-') {
            let (key, effect) = spec.split_once(':').unwrap_or((spec, ""));
            let key = key.split('=').next().unwrap_or(key);
            removed.push((key.to_owned(), effect.to_owned()));
            continue;
        }
        let invalid = || Error::message(format!("invalid taint spec: {spec}"));
        let (pair, effect) = spec.rsplit_once(':').ok_or_else(invalid)?;
        if !matches!(effect, "NoSchedule" | "PreferNoSchedule" | "NoExecute") {
            return Err(Error::message(format!(
                "invalid taint effect: {effect}, unsupported taint effect\nSee 'kubectl taint -h' for help and examples"
            )));
        }
        let mut taint = json!({"effect": effect});
        match pair.split_once('=') {
            Some((key, value)) => {
                taint["key"] = json!(key);
                if !value.is_empty() {
                    taint["value"] = json!(value);
                }
            }
            None => taint["key"] = json!(pair),
        }
        set.push(taint);
    }
    Ok((set, removed))
}

async fn taint(ctx: &Context) -> Result<()> {
    let flags = &ctx.parsed;
    let dry_run = DryRun::from_flags(flags)?;
    let mut builder = Builder::from_flags(&ctx.factory, flags)?;
    let args = std::mem::take(&mut builder.args);
    let start =
        args.iter().position(|arg| arg.contains(':') || arg.contains('=') || arg.ends_with('-')).unwrap_or(args.len());
    let (resources, specs) = args.split_at(start);
    if specs.is_empty() {
        return Err(Error::message("at least one taint update is required"));
    }
    let kind = resources.first().map_or("", String::as_str);
    if !matches!(kind, "node" | "nodes" | "no") && !kind.starts_with("node/") && !kind.starts_with("nodes/") {
        return Err(Error::message(format!("invalid resource type {kind}, only node types are supported")));
    }
    builder.args = resources.to_vec();
    let (set, removed) = parse_taints(specs)?;
    let (infos, mut errors) = builder.objects(&ctx.factory, &ctx.streams).await?;
    let write = Write { field_manager: flags.str("field-manager"), field_validation: "", dry_run };
    let mut done = Done::from_flags(flags, dry_run)?;
    for mut info in infos {
        let current = codec::list(&info.object, &["spec", "taints"]).to_vec();
        let same = |a: &Value, b: &Value| a["key"] == b["key"] && a["effect"] == b["effect"];
        if !flags.bool("overwrite") {
            let clash: Vec<String> = set
                .iter()
                .filter(|new| current.iter().any(|old| same(old, new)))
                .map(|new| codec::text(new, &["key"]).to_owned())
                .collect();
            if !clash.is_empty() {
                errors.push(Error::message(format!(
                    "node {} already has {} taint(s) with same effect(s) and --overwrite is false",
                    info.name,
                    clash.join(",")
                )));
                continue;
            }
        }
        let matches = |old: &Value, (key, effect): &(String, String)| {
            old["key"] == key.as_str() && (effect.is_empty() || old["effect"] == effect.as_str())
        };
        let missing = removed.iter().find(|wanted| !current.iter().any(|old| matches(old, wanted)));
        if let Some((key, effect)) = missing {
            let what = if effect.is_empty() {
                format!("taint {key:?} not found")
            } else {
                format!("taint \"{key}:{effect}\" not found")
            };
            errors.push(Error::message(what));
            continue;
        }
        let mut taints = set.clone();
        taints.extend(
            current.into_iter().filter(|old| {
                !set.iter().any(|new| same(old, new)) && !removed.iter().any(|wanted| matches(old, wanted))
            }),
        );
        let value = if taints.is_empty() { Value::Null } else { Value::Array(taints) };
        if dry_run == DryRun::Client {
            codec::set(&mut info.object, &["spec", "taints"], value);
        } else {
            info.object =
                write.patch(&ctx.factory, &info, "", MERGE_PATCH, &json!({"spec": {"taints": value}})).await?;
        }
        let operation = match (set.is_empty(), removed.is_empty()) {
            _ if flags.bool("overwrite") => "modified",
            (false, false) => "modified",
            (false, true) => "tainted",
            (true, _) => "untainted",
        };
        done.print(&ctx.streams, &info, operation)?;
    }
    Error::aggregate(errors)
}
