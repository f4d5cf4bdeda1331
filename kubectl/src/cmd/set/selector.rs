//! `kubectl set selector`: which pods a Service means.

use futures::FutureExt;
use serde_json::json;

use super::super::ops::{DRY_RUN, Done, DryRun};
use super::{builder, submit};
use crate::codec;
use crate::command::{Command, Context};
use crate::error::{Error, Result};
use crate::flags::Flag;
use crate::printer::PRINT_FLAGS;
use crate::resource::FILE_FLAGS;

const FLAGS: &[Flag] = &[
    DRY_RUN,
    Flag::bool("all", "Select all resources in the namespace of the specified resource types"),
    Flag::string("field-manager", "Name of the manager used to track field ownership.").default("kubectl-set"),
    Flag::bool("local", "If true, annotation will NOT contact api-server but run locally."),
    Flag::string(
        "resource-version",
        "If non-empty, the selectors update will only succeed if this is the current resource-version for the object. Only valid when specifying a single resource.",
    ),
];

/// `kubectl set selector`.
pub const COMMAND: Command = Command::new(
    "selector",
    "Set the selector on a resource.",
    "(-f FILENAME | TYPE NAME) EXPRESSIONS [--resource-version=version]",
    &[FLAGS, FILE_FLAGS, PRINT_FLAGS],
    |ctx| set(ctx).boxed_local(),
);

async fn set(ctx: &Context) -> Result<()> {
    let dry_run = DryRun::from_flags(&ctx.parsed)?;
    let mut builder = builder(ctx)?;
    let (resources, selector) = match builder.args.split_last() {
        Some((last, rest)) => (rest.to_vec(), last.clone()),
        None => return Err(Error::message("one selector is required")),
    };
    builder.args = resources;
    let parsed = apimachinery::labels::Selector::parse(&selector).map_err(|error| Error::message(error.to_string()))?;
    let mut labels = json!({});
    for requirement in parsed.requirements() {
        let key = requirement.key.as_str();
        let value = parsed
            .requires_exact_match(key)
            .ok_or_else(|| Error::message(format!("invalid label selector: {selector}")))?;
        labels[key] = json!(value);
    }
    let (infos, errors) = builder.objects(&ctx.factory, &ctx.streams).await?;
    Error::aggregate(errors)?;
    let mut done = Done::from_flags(&ctx.parsed, dry_run)?;
    for mut info in infos {
        if info.mapping.kind != "Service" {
            return Err(Error::message("setting a selector is only supported for Services"));
        }
        let mut object = info.object.clone();
        codec::set(&mut object, &["spec", "selector"], labels.clone());
        let version = ctx.parsed.str("resource-version");
        if !version.is_empty() {
            codec::set(&mut object, &["metadata", "resourceVersion"], json!(version));
        }
        submit(ctx, &mut info, object, &mut done, dry_run, ("selector", "selector:")).await?;
    }
    Ok(())
}
