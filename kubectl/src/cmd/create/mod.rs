//! `kubectl create`: objects out of files, or made from flags by a subcommand.

mod config;
mod rbac;
mod workload;

use futures::FutureExt;
use futures::future::LocalBoxFuture;
use http::Method;
use serde_json::{Value, json};

use super::ops::{self, DRY_RUN, Done, DryRun, VALIDATE, Write};
use crate::codec;
use crate::command::{Command, Context};
use crate::error::{Error, Result};
use crate::flags::Flag;
use crate::mapper;
use crate::printer::PRINT_FLAGS;
use crate::resource::{Builder, FILE_FLAGS, Info, Target};
use crate::rest::Call;

const FLAGS: &[Flag] = &[
    DRY_RUN,
    VALIDATE,
    Flag::string("field-manager", "Name of the manager used to track field ownership.").default("kubectl-create"),
    Flag::string("raw", "Raw URI to POST to the server."),
    Flag::bool("save-config", "If true, the configuration of current object will be saved in its annotation."),
    Flag::string("selector", "Selector (label query) to filter on.").short('l'),
];

/// Flags of every subcommand.
const MAKE_FLAGS: &[Flag] = &[
    DRY_RUN,
    VALIDATE,
    Flag::string("field-manager", "Name of the manager used to track field ownership.").default("kubectl-create"),
    Flag::bool("save-config", "If true, the configuration of current object will be saved in its annotation."),
];

/// `kubectl create`.
pub const COMMAND: Command = Command {
    children: &[
        rbac::CLUSTER_ROLE,
        rbac::CLUSTER_ROLE_BINDING,
        config::CONFIG_MAP,
        workload::CRON_JOB,
        workload::DEPLOYMENT,
        workload::INGRESS,
        workload::JOB,
        config::NAMESPACE,
        config::POD_DISRUPTION_BUDGET,
        config::PRIORITY_CLASS,
        config::QUOTA,
        rbac::ROLE,
        rbac::ROLE_BINDING,
        config::SECRET,
        workload::SERVICE,
        config::SERVICE_ACCOUNT,
        config::TOKEN,
    ],
    ..Command::new(
        "create",
        "Create a resource from a file or from stdin.",
        "-f FILENAME",
        &[FLAGS, FILE_FLAGS, PRINT_FLAGS],
        run,
    )
};

fn run(ctx: &Context) -> LocalBoxFuture<'_, Result<()>> {
    create(ctx).boxed_local()
}

async fn create(ctx: &Context) -> Result<()> {
    let flags = &ctx.parsed;
    let dry_run = DryRun::from_flags(flags)?;
    let mut builder = Builder::from_flags(&ctx.factory, flags)?;
    if let Some(word) = builder.args.first() {
        return Err(ctx.usage_error(&format!("Unexpected args: [{word}]")));
    }
    if !builder.has_files() {
        return Err(Error::message("must specify one of -f and -k"));
    }
    if flags.changed("raw") {
        let text = match builder.filenames.first().map_or("", String::as_str) {
            "" => return Err(Error::message("--raw can only use a single local file or stdin")),
            "-" => ctx.streams.read_stdin()?,
            path => std::fs::read_to_string(path)?,
        };
        let call = Call::new(Method::POST, flags.str("raw")).body("application/json", text.into_bytes());
        let bytes = ctx.factory.rest().await?.bytes(call).await?;
        ctx.streams.out.bytes(&bytes);
        return Ok(());
    }
    builder.label_selector = None;
    let write =
        Write { field_manager: flags.str("field-manager"), field_validation: ops::field_validation(flags)?, dry_run };
    let mut done = Done::from_flags(flags, dry_run)?;
    let targets = builder.targets(&ctx.factory, &ctx.streams).await?;
    let mut errors = targets.errors;
    let mut count = 0;
    for target in targets.items {
        let Target::File(mut info) = target else { continue };
        let already = codec::at(&info.object, &["metadata", "annotations", ops::LAST_APPLIED]).is_some();
        if flags.bool("save-config") || already {
            ops::annotate(&mut info.object);
        }
        if dry_run != DryRun::Client {
            match write.create(&ctx.factory, &info, &info.object).await {
                Ok(object) => info.object = object,
                Err(error) => {
                    errors.push(error.when("creating", &info.source));
                    continue;
                }
            }
        }
        count += 1;
        done.print(&ctx.streams, &info, "created")?;
    }
    Error::aggregate(errors)?;
    if count == 0 {
        return Err(Error::message("no objects passed to create"));
    }
    Ok(())
}

/// The one name a subcommand takes.
fn name_of(ctx: &Context) -> Result<&str> {
    match ctx.parsed.args.as_slice() {
        [name] => Ok(name),
        args => Err(ctx.usage_error(&format!("exactly one NAME is required, got {}", args.len()))),
    }
}

/// Creates an object that flags described, and says so.
async fn make(ctx: &Context, mut object: Value) -> Result<()> {
    let flags = &ctx.parsed;
    let dry_run = DryRun::from_flags(flags)?;
    let (api_version, kind) = (codec::text(&object, &["apiVersion"]), codec::text(&object, &["kind"]));
    let (namespace, explicit) = ctx.factory.namespace()?;
    // A dry run on this side needs no server, as long as the kind is a built-in one.
    let mapping = match built_in(api_version, kind).filter(|_| dry_run == DryRun::Client) {
        Some(mapping) => mapping,
        None => mapper::resolve_kind(&ctx.factory, api_version, kind)
            .await?
            .ok_or_else(|| Error::message(format!("no matches for kind {kind:?} in version {api_version:?}")))?,
    };
    let namespaced = mapping.namespaced;
    if namespaced && (dry_run != DryRun::Client || explicit) {
        codec::set(&mut object, &["metadata", "namespace"], json!(namespace));
    }
    if flags.bool("save-config") {
        ops::annotate(&mut object);
    }
    let mut info = Info {
        name: codec::text(&object, &["metadata", "name"]).to_owned(),
        namespace: if namespaced { namespace } else { String::new() },
        mapping,
        object,
        source: String::new(),
    };
    let mut done = Done::from_flags(flags, dry_run)?;
    if dry_run != DryRun::Client {
        let write = Write {
            field_manager: flags.str("field-manager"),
            field_validation: ops::field_validation(flags)?,
            dry_run,
        };
        info.object = write
            .create(&ctx.factory, &info, &info.object)
            .await
            .map_err(|error| failed(error, &info.mapping.singular, &info.object))?;
    }
    done.print(&ctx.streams, &info, "created")
}

/// Says what could not be created; what the server said follows. Upstream's words differ by kind.
fn failed(error: Error, singular: &str, object: &Value) -> Error {
    let Error::Api { status, .. } = &error else { return error };
    let what = match singular {
        "role" | "clusterrole" | "namespace" => return error,
        "resourcequota" => "quota:".to_owned(),
        "secret" => "secret".to_owned(),
        "poddisruptionbudget" => "poddisruptionbudgets:".to_owned(),
        "service" => format!("{} service:", codec::text(object, &["spec", "type"])),
        other => format!("{other}:"),
    };
    Error::message(format!("failed to create {what} {}", codec::text(status, &["message"])))
}

fn built_in(api_version: &str, kind: &str) -> Option<mapper::Mapping> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let resource = api::table().find_resource_by_kind(group, version, kind)?;
    Some(mapper::Mapping {
        group: resource.group.to_string(),
        version: resource.version.to_string(),
        resource: resource.plural.to_string(),
        kind: resource.kind.to_string(),
        singular: resource.singular.to_string(),
        namespaced: resource.namespaced,
        verbs: Vec::new(),
    })
}
