//! `kubectl delete`, and waiting until things are gone.

use std::time::Duration;

use futures::future::LocalBoxFuture;
use futures::{FutureExt, StreamExt};
use http::Method;
use serde_json::{Value, json};

use super::ops::{DRY_RUN, DryRun};
use crate::codec;
use crate::command::{Command, Context};
use crate::error::{Error, Result};
use crate::factory::Factory;
use crate::flags::Flag;
use crate::resource::{Builder, FILE_FLAGS, Info, Target};
use crate::rest::{self, Call};

const FLAGS: &[Flag] = &[
    DRY_RUN,
    Flag::bool("all", "Delete all resources, in the namespace of the specified resource types."),
    Flag::bool("all-namespaces", "If present, list the requested object(s) across all namespaces.").short('A'),
    Flag::string("cascade", "Must be \"background\", \"orphan\", or \"foreground\".")
        .default("background")
        .bare("background"),
    Flag::string("field-selector", "Selector (field query) to filter on, supports '=', '==', and '!='."),
    Flag::bool("force", "If true, immediately remove resources from API and bypass graceful deletion."),
    Flag::int("grace-period", "-1", "Period of time in seconds given to the resource to terminate gracefully."),
    Flag::bool("ignore-not-found", "Treat \"resource not found\" as a successful delete."),
    Flag::bool("interactive", "If true, delete resource only when user confirms.").short('i'),
    Flag::bool("now", "If true, resources are signaled for immediate shutdown (same as --grace-period=1)."),
    Flag::string("output", "Output mode. Use \"-o name\" for shorter output (resource/name).").short('o'),
    Flag::string("raw", "Raw URI to DELETE to the server."),
    Flag::string("selector", "Selector (label query) to filter on.").short('l'),
    Flag::duration(
        "timeout",
        "0s",
        "The length of time to wait before giving up on a delete, zero means determine a timeout from the size of the object",
    ),
    Flag::bool("wait", "If true, wait for resources to be gone before returning. This waits for finalizers.")
        .default("true"),
];

/// `kubectl delete`.
pub const COMMAND: Command = Command::new(
    "delete",
    "Delete resources by file names, stdin, resources and names, or by resources and label selector.",
    "([-f FILENAME] | [-k DIRECTORY] | TYPE [(NAME | -l label | --all)])",
    &[FLAGS, FILE_FLAGS],
    run,
);

fn run(ctx: &Context) -> LocalBoxFuture<'_, Result<()>> {
    delete(ctx).boxed_local()
}

async fn delete(ctx: &Context) -> Result<()> {
    let flags = &ctx.parsed;
    let dry_run = DryRun::from_flags(flags)?;
    let propagation = match flags.str("cascade") {
        "true" | "background" => "Background",
        "false" | "orphan" => "Orphan",
        "foreground" => "Foreground",
        other => {
            return Err(Error::message(format!(
                "invalid cascade value ({other}). Must be \"background\", \"foreground\", or \"orphan\""
            )));
        }
    };
    let output = flags.str("output");
    if !matches!(output, "" | "name") {
        return Err(Error::message(format!("unexpected -o output mode: {output}. We only support '-o name'")));
    }
    let mut grace = flags.int("grace-period");
    let force = flags.bool("force");
    if flags.bool("now") {
        if grace != -1 {
            return Err(Error::message("--now and --grace-period cannot be specified together"));
        }
        grace = 1;
    }
    if grace == 0 && !force {
        // Losing data takes the explicit word.
        grace = 1;
    }
    if force && grace < 0 {
        grace = 0;
    }
    let mut builder = Builder::from_flags(&ctx.factory, flags)?;
    for (given, name) in
        [(builder.label_selector.is_some(), "selector"), (!builder.field_selector.is_empty(), "field-selector")]
    {
        if builder.select_all && given {
            return Err(Error::message(format!("cannot set --all and --{name} at the same time")));
        }
    }
    if grace == 0 && force {
        ctx.streams.err.line("Warning: Immediate deletion does not wait for confirmation that the running resource has been terminated. The resource may continue to run on the cluster indefinitely.");
    } else if grace > 0 && force {
        return Err(Error::message("--force and --grace-period greater than 0 cannot be specified together"));
    }
    if flags.changed("raw") {
        let bytes = ctx.factory.rest().await?.bytes(Call::new(Method::DELETE, flags.str("raw"))).await?;
        ctx.streams.out.bytes(&bytes);
        return Ok(());
    }
    let selecting = builder.select_all || builder.label_selector.is_some() || !builder.field_selector.is_empty();
    let ignore_not_found = flags.bool("ignore-not-found") || (selecting && !flags.changed("ignore-not-found"));
    if builder.args.is_empty() && !builder.has_files() {
        return Err(Error::message(crate::resource::MISSING));
    }
    builder.chunk = 500;
    let targets = builder.targets(&ctx.factory, &ctx.streams).await?;
    let mut errors = targets.errors;
    let mut infos = Vec::new();
    for target in targets.items {
        match target {
            Target::File(info) => infos.push(info),
            Target::Named { mapping, namespace, name } => {
                infos.push(Info { mapping, namespace, name, object: Value::Null, source: String::new() });
            }
            Target::List { mapping, namespace } => match builder.list(&ctx.factory, &mapping, &namespace).await {
                Ok(found) => infos.extend(found),
                Err(error) => errors.push(error),
            },
        }
    }
    if flags.bool("interactive") && !confirmed(ctx, &infos)? {
        ctx.streams.out.line("deletion is cancelled");
        return Ok(());
    }
    let mut options = json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": propagation});
    if grace >= 0 {
        options["gracePeriodSeconds"] = json!(grace);
    }
    let rest = ctx.factory.rest().await?;
    let mut scope_warning = flags.changed("namespace") && !builder.all_namespaces;
    let mut deleted = Vec::new();
    let mut found = 0;
    for info in infos {
        found += 1;
        if scope_warning && !info.mapping.namespaced {
            ctx.streams.err.line("Warning: deleting cluster-scoped resources, not scoped to the provided namespace");
            scope_warning = false;
        }
        let mut uid = None;
        if dry_run != DryRun::Client {
            let call = Call::new(Method::DELETE, info.path("")).query("dryRun", dry_run.query()).json(&options);
            match rest.value(call).await {
                Ok(answer) => {
                    let of_status = codec::text(&answer, &["details", "uid"]);
                    let of_object = codec::text(&answer, &["metadata", "uid"]);
                    uid = Some(if of_status.is_empty() { of_object } else { of_status }.to_owned())
                        .filter(|uid| !uid.is_empty());
                }
                Err(error) if error.is_not_found() && ignore_not_found => {
                    continue;
                }
                Err(error) => {
                    errors.push(error.when("deleting", &info.source));
                    continue;
                }
            }
        }
        let kind = info.mapping.kind_name();
        if output == "name" {
            ctx.streams.out.line(&format!("{kind}/{}", info.name));
        } else {
            let mut operation = if grace == 0 { "force deleted" } else { "deleted" }.to_owned();
            if info.mapping.namespaced {
                operation = format!("{operation} from {} namespace", info.namespace);
            }
            ctx.streams.out.line(&format!("{kind} {:?} {operation}{}", info.name, dry_run.suffix()));
        }
        deleted.push((info, uid));
    }
    Error::aggregate(errors)?;
    if found == 0 {
        ctx.streams.out.line("No resources found");
        return Ok(());
    }
    if !flags.bool("wait") || dry_run != DryRun::None {
        return Ok(());
    }
    let deadline = flags.duration("timeout").positive().map(|limit| tokio::time::Instant::now() + limit);
    for (info, uid) in deleted {
        match wait_gone(&ctx.factory, &info, uid.as_deref(), deadline).await {
            Err(error) if matches!(error.reason(), "Forbidden" | "MethodNotAllowed") => {}
            other => other?,
        }
    }
    Ok(())
}

fn confirmed(ctx: &Context, infos: &[Info]) -> Result<bool> {
    ctx.streams.out.line(&format!("You are about to delete the following {} resource(s):", infos.len()));
    for info in infos {
        ctx.streams.out.line(&info.object_name());
    }
    ctx.streams.out.text("Do you want to continue? (y/N): ");
    let mut line = Vec::new();
    let mut byte = [0];
    while ctx.streams.stdin.borrow_mut().read(&mut byte)? == 1 && byte[0] != b'\n' {
        line.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&line).trim().eq_ignore_ascii_case("y"))
}

/// Returns once an object is gone, or another one has its name.
///
/// # Errors
/// What the API said, or that `deadline` passed.
pub async fn wait_gone(
    factory: &Factory,
    info: &Info,
    uid: Option<&str>,
    deadline: Option<tokio::time::Instant>,
) -> Result<()> {
    let waiting = watch_gone(factory, info, uid);
    match deadline {
        None => waiting.await,
        Some(deadline) => tokio::time::timeout_at(deadline, waiting).await.unwrap_or_else(|_| {
            Err(Error::message(format!(
                "timed out waiting for the condition on {}/{}",
                info.mapping.resource_name(),
                info.name
            )))
        }),
    }
}

async fn watch_gone(factory: &Factory, info: &Info, uid: Option<&str>) -> Result<()> {
    let rest = factory.rest().await?;
    let selector = format!("metadata.name={}", info.name);
    let collection = rest::path(&info.mapping, &info.namespace, "", "");
    loop {
        let list = rest.value(Call::get(&collection).query("fieldSelector", &selector)).await?;
        let same = |object: &Value| uid.is_none_or(|uid| codec::text(object, &["metadata", "uid"]) == uid);
        if !codec::list(&list, &["items"]).iter().any(same) {
            return Ok(());
        }
        let call = Call::get(&collection)
            .query("fieldSelector", &selector)
            .query("resourceVersion", codec::text(&list, &["metadata", "resourceVersion"]));
        let events = rest.watch(call).await?;
        let mut events = std::pin::pin!(events);
        while let Some(Ok(event)) = events.next().await {
            if event["type"] == "DELETED" || (event["type"] == "ADDED" && !same(&event["object"])) {
                return Ok(());
            }
            if event["type"] == "ERROR" {
                break;
            }
        }
        // The watch ended without the news: look again, but never in a tight loop.
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
