//! `kubectl rollout history`: the revisions of a workload.

use futures::FutureExt;
use futures::future::LocalBoxFuture;
use serde_json::Value;

use super::{controller_revisions, replica_sets, workloads};
use crate::codec;
use crate::command::{Command, Context};
use crate::describe;
use crate::error::{Error, Result};
use crate::flags::Flag;
use crate::printer::PRINT_FLAGS;
use crate::printer::tabwriter::TabWriter;
use crate::resource::{FILE_FLAGS, Info};

const FLAGS: &[Flag] = &[
    Flag::int("revision", "0", "See the details, including podTemplate of the revision specified"),
    Flag::string("selector", "Selector (label query) to filter on.").short('l'),
];

const CHANGE_CAUSE: &str = "kubernetes.io/change-cause";

/// `kubectl rollout history`.
pub const COMMAND: Command = Command::new(
    "history",
    "View previous rollout revisions and configurations.",
    "(TYPE NAME | TYPE/NAME) [flags]",
    &[FLAGS, FILE_FLAGS, PRINT_FLAGS],
    run,
);

/// The revisions of a workload: number, object, pod template.
pub(super) async fn revisions(ctx: &Context, info: &Info) -> Result<Vec<(i64, Value, Value)>> {
    match info.mapping.kind.as_str() {
        "Deployment" => Ok(replica_sets(ctx, info)
            .await?
            .into_iter()
            .map(|(revision, set)| {
                let template = codec::at(&set, &["spec", "template"]).cloned().unwrap_or_default();
                (revision, set, template)
            })
            .collect()),
        "DaemonSet" | "StatefulSet" => Ok(controller_revisions(ctx, info)
            .await?
            .into_iter()
            .map(|(revision, object)| {
                let mut template = codec::at(&object, &["data", "spec", "template"]).cloned().unwrap_or_default();
                codec::remove(&mut template, &["$patch"]);
                (revision, object, template)
            })
            .collect()),
        other => Err(Error::message(format!("no history viewer has been implemented for {other:?}"))),
    }
}

fn run(ctx: &Context) -> LocalBoxFuture<'_, Result<()>> {
    async {
        let wanted = ctx.parsed.int("revision");
        if wanted < 0 {
            return Err(Error::message("revision must be a positive integer: ".to_owned() + &wanted.to_string()));
        }
        let (infos, errors) = workloads(ctx).await?;
        for info in infos {
            let found = revisions(ctx, &info).await?;
            if let Some(mut printer) = crate::printer::from_flags(&ctx.parsed, crate::printer::FORMATS)? {
                for (revision, object, _) in &found {
                    if wanted == 0 || wanted == *revision {
                        ctx.streams.out.text(&printer.print(object, None)?);
                    }
                }
                continue;
            }
            let text = if found.is_empty() {
                "No rollout history found.".to_owned()
            } else if wanted > 0 {
                let (_, object, template) = found
                    .iter()
                    .find(|(revision, ..)| *revision == wanted)
                    .ok_or_else(|| Error::message("unable to find the specified revision"))?;
                let mut template = template.clone();
                let cause = codec::text(object, &["metadata", "annotations", CHANGE_CAUSE]);
                if !cause.is_empty() {
                    codec::set(
                        &mut template,
                        &["metadata", "annotations", CHANGE_CAUSE],
                        Value::String(cause.to_owned()),
                    );
                }
                describe::pod_template(&template)
            } else {
                let mut writer = TabWriter::new(0, 2);
                writer.push("REVISION\tCHANGE-CAUSE\n");
                for (revision, object, _) in &found {
                    let cause = codec::text(object, &["metadata", "annotations", CHANGE_CAUSE]);
                    writer.push(&format!("{revision}\t{}\n", if cause.is_empty() { "<none>" } else { cause }));
                }
                writer.flush()
            };
            let with_revision = if wanted > 0 { format!(" with revision #{wanted}") } else { " ".to_owned() };
            ctx.streams.out.text(&format!("{}{with_revision}\n{text}\n", info.object_name()));
        }
        Error::aggregate(errors)
    }
    .boxed_local()
}
