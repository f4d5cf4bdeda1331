//! `kubectl apply view-last-applied` and `set-last-applied`: the input that client-side apply keeps.

use futures::FutureExt;
use futures::future::LocalBoxFuture;
use serde_json::{Value, json};

use super::super::ops::{self, DRY_RUN, Done, DryRun, MERGE_PATCH, Write};
use crate::codec;
use crate::command::{Command, Context};
use crate::error::{Error, Result};
use crate::flags::Flag;
use crate::printer::PRINT_FLAGS;
use crate::resource::{Builder, FILE_FLAGS, Target};

/// `kubectl apply view-last-applied`.
pub const VIEW: Command = Command::new(
    "view-last-applied",
    "View the latest last-applied-configuration annotations by type/name or file.",
    "(TYPE [NAME | -l label] | TYPE/NAME | -f FILENAME)",
    &[VIEW_FLAGS, FILE_FLAGS],
    view_last_applied,
);

const VIEW_FLAGS: &[Flag] = &[
    Flag::bool("all", "Select all resources in the namespace of the specified resource types"),
    Flag::string("output", "Output format. Must be one of (yaml, json)").short('o').default("yaml"),
    Flag::string("selector", "Selector (label query) to filter on.").short('l'),
];

/// `kubectl apply set-last-applied`.
pub const SET: Command = Command::new(
    "set-last-applied",
    "Set the last-applied-configuration annotation on a live object to match the contents of a file.",
    "-f FILENAME",
    &[SET_FLAGS, FILE_FLAGS, PRINT_FLAGS],
    |ctx| set_last_applied(ctx).boxed_local(),
);

const SET_FLAGS: &[Flag] = &[
    DRY_RUN,
    Flag::bool(
        "create-annotation",
        "Will create 'last-applied-configuration' annotations if current objects doesn't have one",
    ),
];

fn view_last_applied(ctx: &Context) -> LocalBoxFuture<'_, Result<()>> {
    async {
        let builder = Builder::from_flags(&ctx.factory, &ctx.parsed)?;
        let (infos, errors) = builder.objects(&ctx.factory, &ctx.streams).await?;
        for info in infos {
            let live = if info.source.is_empty() { info.object.clone() } else { info.get(&ctx.factory).await? };
            let text = codec::text(&live, &["metadata", "annotations", ops::LAST_APPLIED]);
            if text.is_empty() {
                ctx.streams
                    .err
                    .line(&format!("no last-applied-configuration annotation found on resource: {}", info.name));
                continue;
            }
            let value: Value = serde_json::from_str(text).map_err(|error| Error::message(error.to_string()))?;
            let shown = match ctx.parsed.str("output") {
                "json" => serde_json::to_string_pretty(&value).unwrap_or_default() + "\n",
                "yaml" => codec::yaml_text(&value),
                other => {
                    return Err(ctx.usage_error(&format!(
                        "Unexpected -o output mode: {other}, the flag 'output' must be one of yaml|json"
                    )));
                }
            };
            ctx.streams.out.text(&shown);
        }
        Error::aggregate(errors)
    }
    .boxed_local()
}

async fn set_last_applied(ctx: &Context) -> Result<()> {
    let flags = &ctx.parsed;
    let dry_run = DryRun::from_flags(flags)?;
    let builder = Builder::from_flags(&ctx.factory, flags)?;
    if !builder.has_files() {
        return Err(Error::message("must specify one of -f and -k"));
    }
    let targets = builder.targets(&ctx.factory, &ctx.streams).await?;
    Error::aggregate(targets.errors)?;
    let mut done = Done::from_flags(flags, dry_run)?;
    let write = Write { field_manager: "kubectl-set-last-applied", field_validation: "", dry_run };
    for target in targets.items {
        let Target::File(mut info) = target else { continue };
        let live = info.get(&ctx.factory).await?;
        let old = codec::text(&live, &["metadata", "annotations", ops::LAST_APPLIED]);
        if old.is_empty() && !flags.bool("create-annotation") {
            return Err(Error::message(format!(
                "no last-applied-configuration annotation found on resource: {}, to create the annotation, run the command with --create-annotation",
                info.name
            )));
        }
        let configuration = codec::compact(&info.object) + "\n";
        let patch = json!({"metadata": {"annotations": {ops::LAST_APPLIED: configuration}}});
        if dry_run != DryRun::Client && old != configuration {
            info.object = write.patch(&ctx.factory, &info, "", MERGE_PATCH, &patch).await?;
        }
        done.print(&ctx.streams, &info, "configured")?;
    }
    Ok(())
}
