//! `kubectl diff`: what an apply would change, as a diff of the live objects and the result the
//! server computes without storing it. Exit code 1 says there are differences, more than 1 an error.

use std::process::Command as Process;

use futures::FutureExt;
use serde_json::{Value, json};

use super::ops::{self, APPLY_PATCH, DryRun, MERGE_PATCH, STRATEGIC_PATCH, Write};
use crate::codec;
use crate::command::{Command, Context};
use crate::error::{Error, Result};
use crate::flags::Flag;
use crate::resource::{Builder, FILE_FLAGS, Info, Target};

const FLAGS: &[Flag] = &[
    Flag::int("concurrency", "1", "Number of objects to process in parallel when diffing against the live version."),
    Flag::string("field-manager", "Name of the manager used to track field ownership."),
    Flag::bool("force-conflicts", "If true, server-side apply will force the changes against conflicts."),
    Flag::string("selector", "Selector (label query) to filter on.").short('l'),
    Flag::bool("server-side", "If true, apply runs in the server instead of the client."),
    Flag::bool("show-managed-fields", "If true, include managed fields in the diff."),
];

/// `kubectl diff`.
pub const COMMAND: Command = Command::new(
    "diff",
    "Diff the live version against a would-be applied version.",
    "-f FILENAME",
    &[FLAGS, FILE_FLAGS],
    |ctx| {
        async move {
            diff(ctx).await.map_err(|error| match error {
                Error::Exit(code) => Error::Exit(code),
                other => {
                    ctx.streams.err.line(&other.report().0);
                    Error::Exit(2)
                }
            })
        }
        .boxed_local()
    },
);

async fn diff(ctx: &Context) -> Result<()> {
    let flags = &ctx.parsed;
    let mut builder = Builder::from_flags(&ctx.factory, flags)?;
    if !builder.has_files() {
        return Err(Error::message("must specify one of -f and -k"));
    }
    builder.label_selector = None;
    let targets = builder.targets(&ctx.factory, &ctx.streams).await?;
    Error::aggregate(targets.errors)?;
    let (live, merged) = (directory("LIVE-")?, directory("MERGED-")?);
    for target in targets.items {
        let Target::File(info) = target else { continue };
        let current = match info.get(&ctx.factory).await {
            Ok(object) => Some(object),
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(error),
        };
        let result = result(ctx, &info, current.as_ref()).await?;
        let mapping = &info.mapping;
        let prefix = if mapping.group.is_empty() { String::new() } else { format!("{}.", mapping.group) };
        let name = format!("{prefix}{}.{}.{}.{}", mapping.version, mapping.kind, info.namespace, info.name);
        if let Some(current) = &current {
            std::fs::write(live.path().join(&name), shown(ctx, &info, current))?;
        }
        std::fs::write(merged.path().join(&name), shown(ctx, &info, &result))?;
    }
    let external = std::env::var("KUBECTL_EXTERNAL_DIFF").ok().filter(|value| !value.is_empty());
    let command = external.unwrap_or_else(|| "diff -u -N".into());
    let mut words = command.split_whitespace();
    let output = Process::new(words.next().unwrap_or("diff"))
        .args(words)
        .arg(live.path())
        .arg(merged.path())
        .output()
        .map_err(|error| Error::message(format!("failed to run {command:?}: {error}")))?;
    ctx.streams.out.bytes(&output.stdout);
    ctx.streams.err.bytes(&output.stderr);
    match output.status.code() {
        Some(0) => Ok(()),
        Some(code) => Err(Error::Exit(u8::try_from(code).unwrap_or(2))),
        None => Err(Error::message("the diff program was killed")),
    }
}

fn directory(prefix: &str) -> Result<tempfile::TempDir> {
    Ok(tempfile::Builder::new().prefix(prefix).tempdir()?)
}

/// What the server would store.
async fn result(ctx: &Context, info: &Info, current: Option<&Value>) -> Result<Value> {
    let flags = &ctx.parsed;
    let server_side = flags.bool("server-side");
    let manager = match flags.str("field-manager") {
        "" if server_side => "kubectl",
        "" => "kubectl-client-side-apply",
        given => given,
    };
    let write = Write { field_manager: manager, field_validation: "", dry_run: DryRun::Server };
    if server_side {
        let force = if flags.bool("force-conflicts") { "true" } else { "false" };
        return write.patch_query(&ctx.factory, info, "", APPLY_PATCH, &info.object, &[("force", force)]).await;
    }
    // The annotation of what was applied last stays out of it: nothing is applied here.
    let mut modified = info.object.clone();
    codec::remove(&mut modified, &["metadata", "annotations", ops::LAST_APPLIED]);
    // As in the annotation itself the map is always there, or its absence would look like a removal.
    if codec::at(&modified, &["metadata", "annotations"]).is_none() {
        codec::set(&mut modified, &["metadata", "annotations"], json!({}));
    }
    let Some(current) = current else { return write.create(&ctx.factory, info, &modified).await };
    let original = match codec::text(current, &["metadata", "annotations", ops::LAST_APPLIED]) {
        "" => json!({}),
        text => serde_json::from_str(text).map_err(|error| Error::message(error.to_string()))?,
    };
    let (kind, patch) = match ops::schema(info) {
        Some(schema) => (
            STRATEGIC_PATCH,
            apimachinery::patch::strategic::three_way(&original, &modified, current, schema, true)
                .map_err(|error| Error::message(error.to_string()))?,
        ),
        None => (MERGE_PATCH, apimachinery::patch::merge::three_way(&original, &modified, current)),
    };
    write.patch(&ctx.factory, info, "", kind, &patch).await
}

/// An object as the diff shows it: no managed fields, no secrets.
fn shown(ctx: &Context, info: &Info, object: &Value) -> String {
    let mut object = object.clone();
    if !ctx.parsed.bool("show-managed-fields") {
        codec::remove(&mut object, &["metadata", "managedFields"]);
    }
    if info.mapping.kind == "Secret"
        && let Some(Value::Object(data)) = object.get_mut("data")
    {
        data.values_mut().for_each(|value| *value = json!("***"));
    }
    codec::yaml_text(&object)
}
