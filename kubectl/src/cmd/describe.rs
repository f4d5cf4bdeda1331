//! `kubectl describe`: objects explained, with what belongs to them.

use futures::FutureExt;
use futures::future::LocalBoxFuture;
use serde_json::Value;

use crate::codec;
use crate::command::{Command, Context};
use crate::describe::{self, Related};
use crate::error::{Error, Result};
use crate::flags::Flag;
use crate::mapper;
use crate::pods;
use crate::resource::{Builder, FILE_FLAGS, Info};
use crate::rest::{self, Call};

const FLAGS: &[Flag] = &[
    Flag::bool("all-namespaces", "If present, list the requested object(s) across all namespaces.").short('A'),
    Flag::int("chunk-size", "500", "Return large lists in chunks rather than all at once. Pass 0 to disable."),
    Flag::string("selector", "Selector (label query) to filter on.").short('l'),
    Flag::bool("show-events", "If true, display events related to the described object.").default("true"),
];

/// `kubectl describe`.
pub const COMMAND: Command = Command::new(
    "describe",
    "Show details of a specific resource or group of resources.",
    "(-f FILENAME | TYPE [NAME_PREFIX | -l label] | TYPE/NAME)",
    &[FLAGS, FILE_FLAGS],
    run,
);

fn run(ctx: &Context) -> LocalBoxFuture<'_, Result<()>> {
    run_describe(ctx).boxed_local()
}

async fn run_describe(ctx: &Context) -> Result<()> {
    let flags = &ctx.parsed;
    let mut builder = Builder::from_flags(&ctx.factory, flags)?;
    builder.allow_empty_selector = true;
    builder.chunk = flags.int("chunk-size");
    if builder.args.is_empty() && !builder.has_files() {
        ctx.streams.err.line("You must specify the type of resource to describe. Use \"kubectl api-resources\" for a complete list of supported resources.\n");
        return Err(ctx.usage_error("Required resource not specified."));
    }
    let (infos, mut errors) = builder.objects(&ctx.factory, &ctx.streams).await?;
    let mut show_events = flags.bool("show-events");
    if (!errors.is_empty() || infos.len() > 1) && !flags.changed("show-events") {
        show_events = false;
    }
    // A name nobody has may be the beginning of names.
    if let ([error], [kind, prefix]) = (errors.as_slice(), builder.args.as_slice())
        && error.is_not_found()
    {
        let error = error.clone();
        return matching(ctx, &builder, kind, prefix, error, show_events).await;
    }
    let mut first = true;
    let found = !infos.is_empty();
    for mut info in infos {
        if !info.source.is_empty() {
            match info.get(&ctx.factory).await {
                Ok(object) => info.object = object,
                Err(error) => {
                    errors.push(error);
                    continue;
                }
            }
        }
        let text = text(ctx, &info, show_events).await?;
        if !std::mem::take(&mut first) {
            ctx.streams.out.text("\n\n");
        }
        ctx.streams.out.text(&text);
    }
    if !found && errors.is_empty() {
        if builder.all_namespaces {
            ctx.streams.err.line("No resources found");
        } else {
            ctx.streams.err.line(&format!("No resources found in {} namespace.", builder.namespace));
        }
    }
    Error::aggregate(errors)
}

async fn matching(
    ctx: &Context,
    builder: &Builder,
    kind: &str,
    prefix: &str,
    error: Error,
    events: bool,
) -> Result<()> {
    let mapping = mapper::resolve(&ctx.factory, kind).await?;
    let namespace = if mapping.namespaced { builder.namespace.clone() } else { String::new() };
    let mut found = false;
    for info in builder.list(&ctx.factory, &mapping, &namespace).await? {
        if info.name.starts_with(prefix) {
            found = true;
            ctx.streams.out.line(&text(ctx, &info, events).await?);
        }
    }
    if found { Ok(()) } else { Err(error) }
}

async fn text(ctx: &Context, info: &Info, show_events: bool) -> Result<String> {
    let related = related(ctx, info, show_events).await?;
    Ok(describe::describe(&info.mapping, &info.object, &related, jiff::Timestamp::now()))
}

/// Fetches what belongs to an object. What may not be seen is left out, as upstream does.
async fn related(ctx: &Context, info: &Info, show_events: bool) -> Result<Related> {
    let mut related = Related::default();
    let kind = info.mapping.kind.as_str();
    match (info.mapping.group.as_str(), kind) {
        ("", "Node") => {
            let selector = format!("spec.nodeName={},status.phase!=Failed,status.phase!=Succeeded", info.name);
            related.pods = match list(ctx, "pods", "", "", &selector).await {
                Ok(pods) => Some(pods),
                Err(error) if error.reason() == "Forbidden" => None,
                Err(error) => return Err(error),
            };
            let lease = mapper::resolve(&ctx.factory, "leases.coordination.k8s.io").await?;
            let path = rest::path(&lease, "kube-node-lease", &info.name, "");
            let found = ctx.factory.rest().await?.value(Call::get(path)).await;
            related.lease = Some(found.map_err(|error| error.to_string()));
        }
        ("", "Service") => {
            let selector = format!("kubernetes.io/service-name={}", info.name);
            related.slices =
                list(ctx, "endpointslices.discovery.k8s.io", &info.namespace, &selector, "").await.unwrap_or_default();
        }
        ("", "Namespace") => {
            related.quotas = list(ctx, "resourcequotas", &info.name, "", "").await.ok();
            related.limits = list(ctx, "limitranges", &info.name, "", "").await.ok();
        }
        ("apps", "Deployment") => {
            let selector = pods::selector(&info.mapping, &info.object)?;
            let sets = list(ctx, "replicasets.apps", &info.namespace, &selector, "").await.unwrap_or_default();
            related.replica_sets = sets.into_iter().filter(|set| owned(set, info)).collect();
        }
        ("apps", "ReplicaSet" | "DaemonSet" | "StatefulSet") | ("", "ReplicationController") => {
            let selector = pods::selector(&info.mapping, &info.object)?;
            let pods = list(ctx, "pods", &info.namespace, &selector, "").await.ok();
            related.pods = pods.map(|pods| pods.into_iter().filter(|pod| owned(pod, info)).collect());
        }
        _ => {}
    }
    if show_events {
        related.events = Some(events(ctx, info).await);
    }
    Ok(related)
}

fn owned(object: &Value, owner: &Info) -> bool {
    let uid = codec::text(&owner.object, &["metadata", "uid"]);
    codec::list(object, &["metadata", "ownerReferences"])
        .iter()
        .any(|reference| reference["controller"] == true && codec::text(reference, &["uid"]) == uid)
}

async fn list(ctx: &Context, resource: &str, namespace: &str, labels: &str, fields: &str) -> Result<Vec<Value>> {
    let mapping = mapper::resolve(&ctx.factory, resource).await?;
    let call = Call::get(rest::path(&mapping, namespace, "", ""))
        .query("labelSelector", labels)
        .query("fieldSelector", fields);
    Ok(codec::flatten(ctx.factory.rest().await?.value(call).await?))
}

/// Events about an object. A node's kubelet reports under the node's name instead of its uid.
async fn events(ctx: &Context, info: &Info) -> Vec<Value> {
    let (group, kind) = (info.mapping.group.as_str(), info.mapping.kind.as_str());
    let mut uid = codec::text(&info.object, &["metadata", "uid"]).to_owned();
    let mirror = codec::text(&info.object, &["metadata", "annotations", "kubernetes.io/config.mirror"]);
    let is_pod = group.is_empty() && kind == "Pod";
    if is_pod && !mirror.is_empty() {
        uid = mirror.to_owned();
    }
    let selector = |uid: &str| {
        let mut parts = vec![format!("involvedObject.name={}", info.name)];
        if !info.namespace.is_empty() {
            parts.push(format!("involvedObject.namespace={}", info.namespace));
        }
        if !is_pod {
            parts.push(format!("involvedObject.kind={kind}"));
        }
        parts.push(format!("involvedObject.uid={uid}"));
        parts.join(",")
    };
    let mut found = list(ctx, "events", &info.namespace, "", &selector(&uid)).await.unwrap_or_default();
    if group.is_empty() && kind == "Node" {
        found.extend(list(ctx, "events", &info.namespace, "", &selector(&info.name)).await.unwrap_or_default());
    }
    found
}
