//! `kubectl rollout undo`: back to an earlier revision.

use futures::FutureExt;
use futures::future::LocalBoxFuture;
use serde_json::{Map, Value, json};

use super::super::ops::{DRY_RUN, DryRun, JSON_PATCH, STRATEGIC_PATCH, Write};
use super::{history, workloads};
use crate::codec;
use crate::command::{Command, Context};
use crate::describe;
use crate::error::{Error, Result};
use crate::flags::Flag;
use crate::printer::PRINT_FLAGS;
use crate::resource::{FILE_FLAGS, Info};

const FLAGS: &[Flag] = &[
    DRY_RUN,
    Flag::string("selector", "Selector (label query) to filter on.").short('l'),
    Flag::int("to-revision", "0", "The revision to rollback to. Default to 0 (last revision)."),
];

/// `kubectl rollout undo`.
pub const COMMAND: Command = Command::new(
    "undo",
    "Roll back to a previous rollout.",
    "(TYPE NAME | TYPE/NAME) [flags]",
    &[FLAGS, FILE_FLAGS, PRINT_FLAGS],
    run,
);

/// Annotations that belong to the Deployment, not to a revision of it.
const OWN_ANNOTATIONS: &[&str] = &[
    "kubectl.kubernetes.io/last-applied-configuration",
    "deployment.kubernetes.io/revision",
    "deployment.kubernetes.io/revision-history",
    "deployment.kubernetes.io/desired-replicas",
    "deployment.kubernetes.io/max-replicas",
    "deprecated.deployment.rollback.to",
];

fn run(ctx: &Context) -> LocalBoxFuture<'_, Result<()>> {
    async {
        let dry_run = DryRun::from_flags(&ctx.parsed)?;
        let (infos, errors) = workloads(ctx).await?;
        for info in infos {
            let applied = codec::text(&info.object, &["metadata", "annotations", super::super::ops::LAST_APPLIED]);
            if !applied.is_empty() {
                ctx.streams.err.line(&format!(
                    "Warning: resource {}/{} was previously managed with 'kubectl apply'. Rolling back will not update the kubectl.kubernetes.io/last-applied-configuration annotation, which may cause unexpected behavior on future 'kubectl apply' operations. Consider using 'kubectl apply' with your previous configuration file instead.",
                    info.mapping.resource, info.name
                ));
            }
            let outcome = undo(ctx, &info, dry_run).await?;
            ctx.streams.out.line(&format!("{} {outcome}", info.object_name()));
        }
        Error::aggregate(errors)
    }
    .boxed_local()
}

async fn undo(ctx: &Context, info: &Info, dry_run: DryRun) -> Result<String> {
    let wanted = ctx.parsed.int("to-revision");
    if wanted < 0 {
        return Err(Error::message(format!("unable to find specified revision {wanted} in history")));
    }
    let found = history::revisions(ctx, info).await?;
    let kind = info.mapping.kind.to_lowercase();
    let chosen = if wanted > 0 {
        found
            .iter()
            .find(|(revision, ..)| *revision == wanted)
            .ok_or_else(|| Error::message(format!("unable to find specified revision {wanted} in history")))?
    } else if found.len() < 2 {
        let what = if kind == "deployment" {
            format!("deployment {:?}", info.name)
        } else {
            format!("{kind} {:?}", info.name)
        };
        return Err(Error::message(format!("no rollout history found for {what}")));
    } else {
        &found[found.len() - 2]
    };
    let (revision, object, template) = chosen;
    let mut template = template.clone();
    if dry_run == DryRun::Client {
        return Ok(format!("{}{}", describe::pod_template(&template), dry_run.suffix()));
    }
    codec::remove(&mut template, &["metadata", "labels", "pod-template-hash"]);
    if codec::at(&info.object, &["spec", "paused"]) == Some(&Value::Bool(true)) {
        return Err(Error::message(
            "you cannot rollback a paused deployment; resume it first with 'kubectl rollout resume' and try again",
        ));
    }
    if codec::at(&info.object, &["spec", "template"]) == Some(&template) {
        return Ok(format!("skipped rollback (current template already matches revision {revision})"));
    }
    let write = Write { field_manager: "", field_validation: "", dry_run };
    let failed = |error: Error| Error::message(format!("failed restoring revision {wanted}: {error}"));
    if kind == "deployment" {
        let mut annotations = Map::new();
        for (key, value) in codec::pairs(&info.object, &["metadata", "annotations"]) {
            if OWN_ANNOTATIONS.contains(&key) {
                annotations.insert(key.to_owned(), json!(value));
            }
        }
        for (key, value) in codec::pairs(object, &["metadata", "annotations"]) {
            if !OWN_ANNOTATIONS.contains(&key) {
                annotations.insert(key.to_owned(), json!(value));
            }
        }
        let patch = json!([
            {"op": "replace", "path": "/spec/template", "value": template},
            {"op": "replace", "path": "/metadata/annotations", "value": annotations},
        ]);
        write.patch(&ctx.factory, info, "", JSON_PATCH, &patch).await.map_err(failed)?;
    } else {
        let patch = codec::at(object, &["data"]).cloned().unwrap_or_default();
        write.patch(&ctx.factory, info, "", STRATEGIC_PATCH, &patch).await.map_err(failed)?;
    }
    Ok(format!("rolled back{}", dry_run.suffix()))
}
