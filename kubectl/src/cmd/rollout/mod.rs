//! `kubectl rollout`: watching, looking back at, undoing and repeating rollouts.

mod history;
mod status;
mod undo;

use futures::FutureExt;
use futures::future::LocalBoxFuture;
use serde_json::{Value, json};

use super::ops::{self, DryRun, MERGE_PATCH, STRATEGIC_PATCH, Write};
use crate::codec;
use crate::command::{Command, Context};
use crate::error::{Error, Result};
use crate::flags::Flag;
use crate::printer::{PRINT_FLAGS, Printer};
use crate::resource::{Builder, FILE_FLAGS, Info};

const SELECTOR: &[Flag] = &[
    Flag::string("selector", "Selector (label query) to filter on.").short('l'),
    Flag::string("field-manager", "Name of the manager used to track field ownership.").default("kubectl-rollout"),
];

/// `kubectl rollout`.
pub const COMMAND: Command = Command::group(
    "rollout",
    "Manage the rollout of one or many resources.",
    &[
        history::COMMAND,
        Command::new(
            "pause",
            "Mark the provided resource as paused.",
            "RESOURCE",
            &[SELECTOR, FILE_FLAGS, PRINT_FLAGS],
            |ctx| change(ctx, Change::Pause),
        ),
        Command::new("restart", "Restart a resource.", "RESOURCE", &[SELECTOR, FILE_FLAGS, PRINT_FLAGS], |ctx| {
            change(ctx, Change::Restart)
        }),
        Command::new("resume", "Resume a paused resource.", "RESOURCE", &[SELECTOR, FILE_FLAGS, PRINT_FLAGS], |ctx| {
            change(ctx, Change::Resume)
        }),
        status::COMMAND,
        undo::COMMAND,
    ],
);

#[derive(Clone, Copy, PartialEq)]
enum Change {
    Pause,
    Restart,
    Resume,
}

impl Change {
    fn done(self) -> &'static str {
        match self {
            Change::Pause => "paused",
            Change::Restart => "restarted",
            Change::Resume => "resumed",
        }
    }

    /// Changes an object, or says why not.
    fn apply(self, info: &Info, object: &mut Value) -> std::result::Result<(), String> {
        let paused = codec::at(object, &["spec", "paused"]) == Some(&Value::Bool(true));
        let deployment = info.mapping.kind == "Deployment";
        match self {
            Change::Restart => {
                if !matches!(info.mapping.kind.as_str(), "Deployment" | "DaemonSet" | "StatefulSet") {
                    return Err("restarting is not supported".into());
                }
                if paused {
                    return Err("can't restart paused deployment (run rollout resume first)".into());
                }
                let now = apimachinery::time::format(jiff::Timestamp::now());
                codec::set(
                    object,
                    &["spec", "template", "metadata", "annotations", "kubectl.kubernetes.io/restartedAt"],
                    json!(now),
                );
            }
            Change::Pause if !deployment => return Err("pausing is not supported".into()),
            Change::Pause if paused => return Err("is already paused".into()),
            Change::Pause => codec::set(object, &["spec", "paused"], json!(true)),
            Change::Resume if !deployment => return Err("resuming is not supported".into()),
            Change::Resume if !paused => return Err("is not paused".into()),
            Change::Resume => codec::set(object, &["spec", "paused"], json!(false)),
        }
        Ok(())
    }
}

/// The workloads a rollout command names.
async fn workloads(ctx: &Context) -> Result<(Vec<Info>, Vec<Error>)> {
    let mut builder = Builder::from_flags(&ctx.factory, &ctx.parsed)?;
    builder.allow_empty_selector = true;
    if builder.args.is_empty() && !builder.has_files() {
        return Err(Error::message("required resource not specified"));
    }
    let (mut infos, mut errors) = builder.objects(&ctx.factory, &ctx.streams).await?;
    let mut kept = Vec::new();
    for mut info in infos.drain(..) {
        if !info.source.is_empty() {
            match info.get(&ctx.factory).await {
                Ok(object) => info.object = object,
                Err(error) => {
                    errors.push(error);
                    continue;
                }
            }
        }
        kept.push(info);
    }
    Ok((kept, errors))
}

fn change(ctx: &Context, change: Change) -> LocalBoxFuture<'_, Result<()>> {
    async move {
        let (infos, mut errors) = workloads(ctx).await?;
        if infos.is_empty() && errors.is_empty() {
            let (namespace, _) = ctx.factory.namespace()?;
            ctx.streams.err.line(&format!("No resources found in {namespace} namespace."));
            return Ok(());
        }
        let write =
            Write { field_manager: ctx.parsed.str("field-manager"), field_validation: "", dry_run: DryRun::None };
        let mut printer = crate::printer::from_flags(&ctx.parsed, crate::printer::FORMATS)?
            .unwrap_or(Printer::Name { operation: change.done().into() });
        for mut info in infos {
            let name = format!("{} {:?}", info.mapping.resource_name(), info.name);
            let mut object = info.object.clone();
            if let Err(why) = change.apply(&info, &mut object) {
                errors.push(Error::message(format!("{name} {why}")));
                continue;
            }
            let (kind, patch) = match ops::schema(&info) {
                Some(schema) => (
                    STRATEGIC_PATCH,
                    apimachinery::patch::strategic::two_way(&info.object, &object, schema)
                        .map_err(|error| Error::message(error.to_string()))?,
                ),
                None => (MERGE_PATCH, apimachinery::patch::merge::diff(&info.object, &object)),
            };
            match write.patch(&ctx.factory, &info, "", kind, &patch).await {
                Ok(object) => {
                    info.object = object;
                    ctx.streams.out.text(&printer.print(&info.object, Some(&info.mapping))?);
                }
                Err(error) => errors.push(Error::message(format!("failed to patch: {error}"))),
            }
        }
        Error::aggregate(errors)
    }
    .boxed_local()
}

/// The ReplicaSets a Deployment owns, with their revisions, sorted.
async fn replica_sets(ctx: &Context, deployment: &Info) -> Result<Vec<(i64, Value)>> {
    let mapping = crate::mapper::resolve(&ctx.factory, "replicasets.apps").await?;
    owned(ctx, deployment, &mapping, |set| {
        codec::text(set, &["metadata", "annotations", "deployment.kubernetes.io/revision"]).parse().ok()
    })
    .await
}

/// The ControllerRevisions a DaemonSet or StatefulSet owns, sorted.
async fn controller_revisions(ctx: &Context, owner: &Info) -> Result<Vec<(i64, Value)>> {
    let mapping = crate::mapper::resolve(&ctx.factory, "controllerrevisions.apps").await?;
    owned(ctx, owner, &mapping, |revision| codec::int(revision, &["revision"])).await
}

async fn owned(
    ctx: &Context,
    owner: &Info,
    mapping: &crate::mapper::Mapping,
    revision: impl Fn(&Value) -> Option<i64>,
) -> Result<Vec<(i64, Value)>> {
    let selector = crate::pods::selector(&owner.mapping, &owner.object)?;
    let call =
        crate::rest::Call::get(crate::rest::path(mapping, &owner.namespace, "", "")).query("labelSelector", selector);
    let list = ctx.factory.rest().await?.value(call).await?;
    let uid = codec::text(&owner.object, &["metadata", "uid"]);
    let mut found: Vec<(i64, Value)> = codec::flatten(list)
        .into_iter()
        .filter(|object| {
            codec::list(object, &["metadata", "ownerReferences"])
                .iter()
                .any(|reference| reference["controller"] == true && codec::text(reference, &["uid"]) == uid)
        })
        .filter_map(|object| revision(&object).map(|revision| (revision, object)))
        .collect();
    found.sort_by_key(|(revision, _)| *revision);
    Ok(found)
}
