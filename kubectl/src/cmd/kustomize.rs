//! `kubectl kustomize`: prints what a folder with a kustomization file builds.

use std::path::Path;

use futures::FutureExt;
use futures::future::LocalBoxFuture;

use crate::command::{Command, Context};
use crate::error::{Error, Result};
use crate::flags::Flag;
use crate::kustomize::{self, Options, Order, Restriction};

const FLAGS: &[Flag] = &[
    Flag::bool("enable-managedby-label", "enable adding app.kubernetes.io/managed-by"),
    Flag::string("load-restrictor", "if set to 'LoadRestrictionsNone', local kustomizations may load files from outside their root. This does, however, break the relocatability of the kustomization.")
        .default("LoadRestrictionsRootOnly"),
    Flag::string("output", "If specified, write output to this path.").short('o'),
    Flag::string("reorder", "Reorder the resources just before output. Use 'legacy' to apply a legacy reordering (Namespaces first, Webhooks last, etc). Use 'none' to suppress a final reordering.")
        .default("legacy"),
];

/// `kubectl kustomize`.
pub const COMMAND: Command =
    Command::new("kustomize", "Build a kustomization target from a directory or URL.", "DIR", &[FLAGS], run);

fn run(ctx: &Context) -> LocalBoxFuture<'_, Result<()>> {
    std::future::ready(build(ctx)).boxed_local()
}

fn build(ctx: &Context) -> Result<()> {
    let flags = &ctx.parsed;
    let folder = match flags.args.as_slice() {
        [] => ".",
        [one] => one,
        _ => return Err(Error::message("specify one path to kustomization.yaml")),
    };
    let restriction = match flags.str("load-restrictor") {
        "" | "LoadRestrictionsRootOnly" => Restriction::RootOnly,
        "LoadRestrictionsNone" => Restriction::None,
        other => {
            return Err(Error::message(format!(
                "illegal flag value --load-restrictor {other}; legal values: [LoadRestrictionsRootOnly LoadRestrictionsNone]"
            )));
        }
    };
    let order = match flags.str("reorder") {
        "legacy" => Order::Legacy,
        "none" => Order::None,
        other => {
            return Err(Error::message(format!("illegal flag value --reorder {other}; legal values: [legacy none]")));
        }
    };
    let deprecated = [
        (
            "enable-managedby-label",
            "The flag `enable-managedby-label` has been deprecated. Use the `managedByLabel` option in the `buildMetadata` field instead.",
        ),
        ("reorder", "use the new 'sortOptions' field in kustomization.yaml instead."),
    ];
    for (flag, note) in deprecated.into_iter().filter(|(flag, _)| flags.changed(flag)) {
        ctx.streams.err.line(&format!("Flag --{flag} has been deprecated, {note}"));
    }
    let options = Options { restriction, order, managed_by: flags.bool("enable-managedby-label") };
    let objects = kustomize::build(Path::new(folder), options, &mut |line| ctx.streams.err.line(line))
        .map_err(|error| Error::message(error.0))?;
    let target = Path::new(flags.str("output"));
    if target.as_os_str().is_empty() {
        ctx.streams.out.text(&kustomize::yaml(&objects));
    } else if target.is_dir() {
        for (object, name) in objects.iter().zip(kustomize::file_names(&objects)) {
            std::fs::write(target.join(name), crate::codec::yaml_text(object))?;
        }
    } else {
        std::fs::write(target, kustomize::yaml(&objects))?;
    }
    Ok(())
}
