//! `kubectl set serviceaccount`: as whom pods run.

use futures::FutureExt;
use serde_json::json;

use super::super::ops::{Done, DryRun};
use super::{FLAGS, builder, pod_spec_path, submit};
use crate::codec;
use crate::command::{Command, Context};
use crate::error::{Error, Result};
use crate::printer::PRINT_FLAGS;
use crate::resource::{FILE_FLAGS, MISSING};

/// `kubectl set serviceaccount`.
pub const COMMAND: Command = Command::new(
    "serviceaccount",
    "Update the service account of pod template resources.",
    "(-f FILENAME | TYPE NAME) SERVICE_ACCOUNT",
    &[FLAGS, FILE_FLAGS, PRINT_FLAGS],
    |ctx| set(ctx).boxed_local(),
)
.aliases(&["sa"]);

async fn set(ctx: &Context) -> Result<()> {
    let dry_run = DryRun::from_flags(&ctx.parsed)?;
    let mut builder = builder(ctx)?;
    let (resources, account) = match builder.args.split_last() {
        Some((last, rest)) => (rest.to_vec(), last.clone()),
        None => return Err(Error::message("serviceaccount is required")),
    };
    builder.args = resources;
    if builder.args.is_empty() && !builder.has_files() {
        return Err(Error::message(MISSING));
    }
    let (infos, mut errors) = builder.objects(&ctx.factory, &ctx.streams).await?;
    let mut done = Done::from_flags(&ctx.parsed, dry_run)?;
    for mut info in infos {
        let Some(path) = pod_spec_path(&info.mapping.kind) else {
            errors.push(Error::message(format!(
                "error: {} the object is not a pod or does not have a pod template: {}\n",
                info.object_name(),
                info.mapping.kind
            )));
            continue;
        };
        let mut object = info.object.clone();
        let field: Vec<&str> = path.iter().copied().chain(["serviceAccountName"]).collect();
        codec::set(&mut object, &field, json!(account));
        submit(ctx, &mut info, object, &mut done, dry_run, ("serviceaccount", "ServiceAccountName")).await?;
    }
    Error::aggregate(errors)
}
