//! `kubectl set`: one thing about objects. Here: images, and what the others share.

mod env;
mod resources;
mod selector;
mod service_account;
mod subject;

use futures::FutureExt;
use serde_json::{Value, json};

use super::ops::{self, DRY_RUN, Done, DryRun, MERGE_PATCH, STRATEGIC_PATCH, Write};
use crate::command::{Command, Context};
use crate::error::{Error, Result};
use crate::flags::Flag;
use crate::printer::PRINT_FLAGS;
use crate::resource::{Builder, FILE_FLAGS, Info};

const FLAGS: &[Flag] = &[
    DRY_RUN,
    Flag::bool("all", "Select all resources, in the namespace of the specified resource types"),
    Flag::string("field-manager", "Name of the manager used to track field ownership.").default("kubectl-set"),
    Flag::bool("local", "If true, set will NOT contact api-server but run locally."),
    Flag::string("selector", "Selector (label query) to filter on.").short('l'),
];

/// `kubectl set`.
pub const COMMAND: Command = Command::group(
    "set",
    "Configure application resources.",
    &[
        env::COMMAND,
        Command::new(
            "image",
            "Update the image of a pod template.",
            "(-f FILENAME | TYPE NAME) CONTAINER_NAME_1=CONTAINER_IMAGE_1 ... CONTAINER_NAME_N=CONTAINER_IMAGE_N",
            &[FLAGS, FILE_FLAGS, PRINT_FLAGS],
            |ctx| image(ctx).boxed_local(),
        ),
        resources::COMMAND,
        selector::COMMAND,
        service_account::COMMAND,
        subject::COMMAND,
    ],
);

/// What a command line names, or upstream's advice to name something.
fn builder(ctx: &Context) -> Result<Builder> {
    let flags = &ctx.parsed;
    if flags.bool("local") && flags.str("dry-run") == "server" {
        return Err(Error::message("cannot specify --local and --dry-run=server - did you mean --dry-run=client?"));
    }
    if flags.bool("all") && !flags.str("selector").is_empty() {
        return Err(Error::message("cannot set --all and --selector at the same time"));
    }
    Builder::from_flags(&ctx.factory, flags)
}

/// Where a kind keeps its pod spec.
fn pod_spec_path(kind: &str) -> Option<&'static [&'static str]> {
    Some(match kind {
        "Pod" => &["spec"],
        "CronJob" => &["spec", "jobTemplate", "spec", "template", "spec"],
        "Deployment" | "ReplicaSet" | "DaemonSet" | "StatefulSet" | "Job" | "ReplicationController" => {
            &["spec", "template", "spec"]
        }
        _ => return None,
    })
}

fn containers<'a>(object: &'a mut Value, path: &[&str], field: &str) -> &'a mut [Value] {
    let mut current = object;
    for key in path.iter().chain(std::iter::once(&field)) {
        match current.get_mut(*key) {
            Some(next) => current = next,
            None => return &mut [],
        }
    }
    current.as_array_mut().map_or(&mut [], Vec::as_mut_slice)
}

/// The objects named before the `key=value` arguments, and those arguments.
async fn split(ctx: &Context) -> Result<(Vec<Info>, Vec<String>, Vec<Error>)> {
    let mut builder = builder(ctx)?;
    let args = std::mem::take(&mut builder.args);
    let (resources, pairs): (Vec<String>, Vec<String>) = args.into_iter().partition(|arg| {
        let removal = arg.ends_with('-') && arg != "-";
        !arg.contains('=') && !removal
    });
    builder.args = resources;
    if builder.args.is_empty() && !builder.has_files() {
        return Err(Error::message(
            "one or more resources must be specified as <resource> <name> or <resource>/<name>",
        ));
    }
    let (infos, errors) = builder.objects(&ctx.factory, &ctx.streams).await?;
    Ok((infos, pairs, errors))
}

/// Sends what changed.
async fn submit(
    ctx: &Context,
    info: &mut Info,
    object: Value,
    done: &mut Done,
    dry_run: DryRun,
    (operation, failed): (&str, &str),
) -> Result<()> {
    if object == info.object {
        return Ok(());
    }
    if dry_run == DryRun::Client || ctx.parsed.bool("local") {
        info.object = object;
    } else {
        let (kind, patch) = match ops::schema(info) {
            Some(schema) => (
                STRATEGIC_PATCH,
                apimachinery::patch::strategic::two_way(&info.object, &object, schema)
                    .map_err(|error| Error::message(error.to_string()))?,
            ),
            None => (MERGE_PATCH, apimachinery::patch::merge::diff(&info.object, &object)),
        };
        let write = Write { field_manager: ctx.parsed.str("field-manager"), field_validation: "", dry_run };
        info.object = write
            .patch(&ctx.factory, info, "", kind, &patch)
            .await
            .map_err(|error| Error::message(format!("failed to patch {failed} {error}")))?;
    }
    done.print(&ctx.streams, info, &format!("{operation} updated"))
}

async fn image(ctx: &Context) -> Result<()> {
    let dry_run = DryRun::from_flags(&ctx.parsed)?;
    let (infos, pairs, mut errors) = split(ctx).await?;
    if pairs.is_empty() {
        return Err(Error::message("at least one image update is required"));
    }
    let mut done = Done::from_flags(&ctx.parsed, dry_run)?;
    for mut info in infos {
        let Some(path) = pod_spec_path(&info.mapping.kind) else {
            errors
                .push(Error::message(format!("{}/{} does not have a pod template", info.mapping.resource, info.name)));
            continue;
        };
        let mut object = info.object.clone();
        let mut missing = Vec::new();
        for pair in &pairs {
            let Some((name, image)) = pair.split_once('=') else { continue };
            let mut found = false;
            for field in ["initContainers", "containers"] {
                for container in containers(&mut object, path, field) {
                    if name == "*" || container["name"] == name {
                        container["image"] = json!(image);
                        found = true;
                    }
                }
            }
            if !found {
                missing.push(Error::message(format!("unable to find container named {name:?}")));
            }
        }
        if missing.is_empty() {
            submit(ctx, &mut info, object, &mut done, dry_run, ("image", "image update to pod template:")).await?;
        }
        errors.extend(missing);
    }
    Error::aggregate(errors)
}
