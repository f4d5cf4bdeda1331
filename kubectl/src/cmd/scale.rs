//! `kubectl scale`: a new size through the scale subresource.

use std::time::Duration;

use futures::FutureExt;
use futures::future::LocalBoxFuture;
use http::Method;
use serde_json::{Value, json};

use super::ops::{DRY_RUN, Done, DryRun, MERGE_PATCH, Write};
use crate::codec;
use crate::command::{Command, Context};
use crate::error::{Error, Result};
use crate::flags::Flag;
use crate::printer::PRINT_FLAGS;
use crate::resource::{Builder, FILE_FLAGS, Info};
use crate::rest::Call;

const FLAGS: &[Flag] = &[
    DRY_RUN,
    Flag::bool("all", "Select all resources in the namespace of the specified resource types"),
    Flag::int(
        "current-replicas",
        "-1",
        "Precondition for current size. Requires that the current size of the resource match this value in order to scale.",
    ),
    Flag::int("replicas", "0", "The new desired number of replicas. Required."),
    Flag::string(
        "resource-version",
        "Precondition for resource version. Requires that the current resource version match this value in order to scale.",
    ),
    Flag::string("selector", "Selector (label query) to filter on.").short('l'),
    Flag::duration(
        "timeout",
        "0s",
        "The length of time to wait before giving up on a scale operation, zero means don't wait.",
    ),
];

/// `kubectl scale`.
pub const COMMAND: Command = Command::new(
    "scale",
    "Set a new size for a deployment, replica set, replication controller, or stateful set.",
    "[--resource-version=version] [--current-replicas=count] --replicas=COUNT (-f FILENAME | TYPE NAME)",
    &[FLAGS, FILE_FLAGS, PRINT_FLAGS],
    run,
);

fn run(ctx: &Context) -> LocalBoxFuture<'_, Result<()>> {
    scale(ctx).boxed_local()
}

async fn scale(ctx: &Context) -> Result<()> {
    let flags = &ctx.parsed;
    let dry_run = DryRun::from_flags(flags)?;
    let (replicas, current, version) =
        (flags.int("replicas"), flags.int("current-replicas"), flags.str("resource-version"));
    if !flags.changed("replicas") {
        return Err(Error::message("required flag(s) \"replicas\" not set"));
    }
    if replicas < 0 {
        return Err(Error::message(
            "The --replicas=COUNT flag is required, and COUNT must be greater than or equal to 0",
        ));
    }
    if current < -1 {
        return Err(Error::message("The --current-replicas must specify an integer of -1 or greater"));
    }
    let mut builder = Builder::from_flags(&ctx.factory, flags)?;
    builder.allow_empty_selector = builder.select_all;
    let (infos, mut errors) = builder.objects(&ctx.factory, &ctx.streams).await?;
    if !version.is_empty() && infos.len() > 1 {
        return Err(Error::message("cannot use --resource-version with multiple resources"));
    }
    if infos.is_empty() {
        Error::aggregate(errors)?;
        return Err(Error::message("no objects passed to scale"));
    }
    let mut done = Done::from_flags(flags, dry_run)?;
    let precondition = (current != -1 || !version.is_empty()).then_some((current, version));
    for mut info in infos {
        if dry_run != DryRun::Client {
            if let Err(error) = resize(ctx, &info, replicas, precondition, dry_run).await {
                errors.push(error);
                break;
            }
            if let Some(limit) = flags.duration("timeout").positive().filter(|_| dry_run == DryRun::None) {
                wait_for(ctx, &info, replicas, limit).await?;
            }
        }
        codec::set(&mut info.object, &["spec", "replicas"], json!(replicas));
        done.print(&ctx.streams, &info, "scaled")?;
    }
    Error::aggregate(errors)
}

async fn resize(
    ctx: &Context,
    info: &Info,
    replicas: i64,
    precondition: Option<(i64, &str)>,
    dry_run: DryRun,
) -> Result<()> {
    let Some((current, version)) = precondition else {
        let write = Write { field_manager: "", field_validation: "", dry_run };
        let patch = json!({"spec": {"replicas": replicas}});
        write.patch(&ctx.factory, info, "scale", MERGE_PATCH, &patch).await?;
        return Ok(());
    };
    let rest = ctx.factory.rest().await?;
    let mut scale = rest.value(Call::get(info.path("scale"))).await?;
    let found = codec::int(&scale, &["spec", "replicas"]).unwrap_or(0);
    let found_version = codec::text(&scale, &["metadata", "resourceVersion"]).to_owned();
    if current != -1 && found != current {
        return Err(Error::message(format!("Expected replicas to be {current}, was {found}")));
    }
    if !version.is_empty() && found_version != version {
        return Err(Error::message(format!("Expected resource version to be {version}, was {found_version}")));
    }
    codec::set(&mut scale, &["spec", "replicas"], json!(replicas));
    let call = Call::new(Method::PUT, info.path("scale")).query("dryRun", dry_run.query()).json(&scale);
    rest.value(call).await?;
    Ok(())
}

/// Waits until the scale's status has the new size.
async fn wait_for(ctx: &Context, info: &Info, replicas: i64, limit: Duration) -> Result<()> {
    let rest = ctx.factory.rest().await?;
    let deadline = tokio::time::Instant::now() + limit;
    loop {
        let scale: Value = rest.value(Call::get(info.path("scale"))).await?;
        let status = codec::int(&scale, &["status", "replicas"]).unwrap_or(0);
        if status == replicas && codec::int(&scale, &["spec", "replicas"]) == Some(replicas) {
            return Ok(());
        }
        let next = tokio::time::Instant::now() + Duration::from_secs(1);
        if next > deadline {
            return Err(Error::message(format!("timed out waiting for {:?} to be synced", info.name)));
        }
        tokio::time::sleep_until(next).await;
    }
}
