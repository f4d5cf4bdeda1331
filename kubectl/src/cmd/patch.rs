//! `kubectl patch` and `kubectl replace`: changes as the user wrote them.

use futures::FutureExt;
use http::Method;
use serde_json::{Value, json};

use super::ops::{self, DRY_RUN, Done, DryRun, JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH, VALIDATE, Write};
use crate::codec;
use crate::command::{Command, Context};
use crate::error::{Error, Result};
use crate::flags::Flag;
use crate::printer::PRINT_FLAGS;
use crate::resource::{Builder, FILE_FLAGS, Info, Target};
use crate::rest::Call;

const FLAGS: &[Flag] = &[
    DRY_RUN,
    Flag::string("field-manager", "Name of the manager used to track field ownership.").default("kubectl-patch"),
    Flag::bool("local", "If true, patch will operate on the content of the file, not the server-side resource."),
    Flag::string("patch", "The patch to be applied to the resource JSON file.").short('p'),
    Flag::string("patch-file", "A file containing a patch to be applied to the resource."),
    Flag::string("subresource", "If specified, patch will operate on the subresource of the requested object."),
    Flag::string("type", "The type of patch being provided; one of [json merge strategic]").default("strategic"),
];

/// `kubectl patch`.
pub const COMMAND: Command = Command::new(
    "patch",
    "Update fields of a resource.",
    "(-f FILENAME | TYPE NAME) [-p PATCH|--patch-file FILE]",
    &[FLAGS, FILE_FLAGS, PRINT_FLAGS],
    |ctx| patch(ctx).boxed_local(),
);

async fn patch(ctx: &Context) -> Result<()> {
    let flags = &ctx.parsed;
    let dry_run = DryRun::from_flags(flags)?;
    if flags.changed("patch") && flags.changed("patch-file") {
        return Err(Error::message("cannot specify --patch and --patch-file together"));
    }
    if !flags.changed("patch") && !flags.changed("patch-file") {
        return Err(Error::message("must specify --patch or --patch-file containing the contents of the patch"));
    }
    let kind = match flags.str("type").to_lowercase().as_str() {
        "json" => JSON_PATCH,
        "merge" => MERGE_PATCH,
        "strategic" | "" => STRATEGIC_PATCH,
        other => return Err(Error::message(format!("--type must be one of [json merge strategic], not {other:?}"))),
    };
    let text = if flags.changed("patch-file") {
        std::fs::read_to_string(flags.str("patch-file"))
            .map_err(|error| Error::message(format!("unable to read patch file: {error}")))?
    } else {
        flags.str("patch").to_owned()
    };
    let change = Change::parse(text)?;
    let builder = Builder::from_flags(&ctx.factory, flags)?;
    if builder.args.is_empty() && !builder.has_files() {
        return Err(Error::message(
            "one or more resources must be specified as <resource> <name> or <resource>/<name>",
        ));
    }
    let local = flags.bool("local");
    let write = Write { field_manager: flags.str("field-manager"), field_validation: "", dry_run };
    let mut done = Done::from_flags(flags, dry_run)?;
    let targets = builder.targets(&ctx.factory, &ctx.streams).await?;
    let mut errors = targets.errors;
    for target in targets.items {
        let mut info = match target {
            Target::File(info) => info,
            Target::Named { mapping, namespace, name } => {
                Info { mapping, namespace, name, object: Value::Null, source: String::new() }
            }
            Target::List { .. } => return Err(Error::message("resource(s) were provided, but no name was specified")),
        };
        let outcome = one(ctx, &mut info, kind, &change, &write, local).await;
        match outcome {
            Ok(changed) => done.print(&ctx.streams, &info, if changed { "patched" } else { "patched (no change)" })?,
            Err(error) => errors.push(error),
        }
    }
    Error::aggregate(errors)
}

/// A patch as it was written: JSON goes to the server as it is, YAML as the JSON it means.
struct Change {
    text: String,
}

impl Change {
    fn parse(text: String) -> Result<Self> {
        if text.trim_start().starts_with('{') {
            return Ok(Change { text });
        }
        let tree = apimachinery::yaml::parse(&text)
            .map_err(|error| Error::message(format!("unable to parse {text:?}: {error}")))?;
        Ok(Change { text: tree.to_string() })
    }

    fn tree(&self) -> Result<Value> {
        serde_json::from_str(&self.text).map_err(|error| Error::message(error.to_string()))
    }
}

/// Names the kind that the server answered with.
fn as_answered(info: &mut Info) {
    let api_version = codec::text(&info.object, &["apiVersion"]);
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let kind = codec::text(&info.object, &["kind"]);
    if kind != info.mapping.kind && !kind.is_empty() {
        info.mapping.group = group.to_owned();
        info.mapping.version = version.to_owned();
        info.mapping.kind = kind.to_owned();
    }
}

async fn one(
    ctx: &Context,
    info: &mut Info,
    kind: &'static str,
    change: &Change,
    write: &Write<'_>,
    local: bool,
) -> Result<bool> {
    let subresource = ctx.parsed.str("subresource");
    if !local && write.dry_run != DryRun::Client {
        let before = ctx.factory.rest().await?.value(Call::get(info.path(subresource))).await?;
        info.object = write.patch_text(&ctx.factory, info, subresource, kind, change.text.clone()).await?;
        if !subresource.is_empty() {
            // What was patched may be of another kind than what was named: a Scale.
            as_answered(info);
        }
        return Ok(before != info.object);
    }
    if !local {
        info.object = info.get(&ctx.factory).await?;
    }
    let before = info.object.clone();
    let change = &change.tree()?;
    match kind {
        JSON_PATCH => apimachinery::patch::json::apply(&mut info.object, change)
            .map_err(|error| Error::message(error.to_string()))?,
        MERGE_PATCH => apimachinery::patch::merge::apply(&mut info.object, change.clone()),
        _ => {
            let schema = ops::schema(info).ok_or_else(|| {
                Error::message(format!(
                    "strategic merge patch is not supported for {}, locally, try --type merge",
                    info.mapping.kind
                ))
            })?;
            apimachinery::patch::strategic::apply(&mut info.object, change.clone(), schema)
                .map_err(|error| Error::message(error.to_string()))?;
        }
    }
    Ok(before != info.object)
}

const REPLACE_FLAGS: &[Flag] = &[
    DRY_RUN,
    VALIDATE,
    Flag::bool("force", "If true, immediately remove resources from API and bypass graceful deletion."),
    Flag::string("field-manager", "Name of the manager used to track field ownership.").default("kubectl-replace"),
    Flag::int("grace-period", "-1", "Period of time in seconds given to the resource to terminate gracefully."),
    Flag::bool("save-config", "If true, the configuration of current object will be saved in its annotation."),
    Flag::string("subresource", "If specified, replace will operate on the subresource of the requested object."),
    Flag::duration("timeout", "0s", "The length of time to wait before giving up on a delete."),
];

/// `kubectl replace`.
pub const REPLACE: Command = Command::new(
    "replace",
    "Replace a resource by file name or stdin.",
    "-f FILENAME",
    &[REPLACE_FLAGS, FILE_FLAGS, PRINT_FLAGS],
    |ctx| replace(ctx).boxed_local(),
);

async fn replace(ctx: &Context) -> Result<()> {
    let flags = &ctx.parsed;
    let dry_run = DryRun::from_flags(flags)?;
    let builder = Builder::from_flags(&ctx.factory, flags)?;
    if !builder.has_files() {
        return Err(Error::message("must specify one of -f and -k"));
    }
    let write =
        Write { field_manager: flags.str("field-manager"), field_validation: ops::field_validation(flags)?, dry_run };
    let mut done = Done::from_flags(flags, dry_run)?;
    let targets = builder.targets(&ctx.factory, &ctx.streams).await?;
    let mut errors = targets.errors;
    let mut count = 0;
    for target in targets.items {
        let Target::File(mut info) = target else { continue };
        count += 1;
        let annotated = codec::at(&info.object, &["metadata", "annotations", ops::LAST_APPLIED]).is_some();
        if flags.bool("save-config") || annotated {
            ops::annotate(&mut info.object);
        }
        if dry_run != DryRun::Client {
            let sent =
                if flags.bool("force") { recreate(ctx, &info, &write).await } else { put(ctx, &info, &write).await };
            match sent {
                Ok(object) => info.object = object,
                Err(error) => {
                    errors.push(error.when("replacing", &info.source));
                    continue;
                }
            }
        }
        done.print(&ctx.streams, &info, "replaced")?;
    }
    Error::aggregate(errors)?;
    if count == 0 {
        return Err(Error::message("no objects passed to replace"));
    }
    Ok(())
}

/// An object without a resourceVersion replaces whatever is there.
async fn put(ctx: &Context, info: &Info, write: &Write<'_>) -> Result<Value> {
    let mut object = info.object.clone();
    if codec::text(&object, &["metadata", "resourceVersion"]).is_empty() {
        let current = info.get(&ctx.factory).await?;
        codec::set(&mut object, &["metadata", "resourceVersion"], current["metadata"]["resourceVersion"].clone());
    }
    write.replace(&ctx.factory, info, ctx.parsed.str("subresource"), &object).await
}

async fn recreate(ctx: &Context, info: &Info, write: &Write<'_>) -> Result<Value> {
    let mut options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"});
    let grace = ctx.parsed.int("grace-period");
    options["gracePeriodSeconds"] = json!(grace.max(0));
    let deleted = ctx.factory.rest().await?.value(Call::new(Method::DELETE, info.path("")).json(&options)).await;
    match deleted {
        Err(error) if error.is_not_found() => {}
        other => {
            other?;
            let kind = match info.mapping.group.as_str() {
                "" => info.mapping.kind.to_lowercase(),
                group => format!("{}.{group}", info.mapping.kind.to_lowercase()),
            };
            let place =
                if info.namespace.is_empty() { String::new() } else { format!(" from {} namespace", info.namespace) };
            ctx.streams.out.line(&format!("{kind} {:?} deleted{place}", info.name));
            let deadline = ctx.parsed.duration("timeout").positive().map(|limit| tokio::time::Instant::now() + limit);
            super::delete::wait_gone(&ctx.factory, info, None, deadline).await?;
        }
    }
    write.create(&ctx.factory, info, &info.object).await
}
