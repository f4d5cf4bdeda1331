//! `kubectl apply`: what files say, made so. Client-side by a three-way merge over the
//! last-applied annotation, or on the server with `--server-side` (KEP-555).

mod last_applied;
mod prune;

use std::time::Duration;

use futures::FutureExt;
use futures::future::LocalBoxFuture;
use http::Method;
use serde_json::Value;

use super::ops::{self, APPLY_PATCH, DRY_RUN, Done, DryRun, MERGE_PATCH, STRATEGIC_PATCH, VALIDATE, Write};
use crate::codec;
use crate::command::{Command, Context};
use crate::error::{Error, Result};
use crate::flags::Flag;
use crate::printer::PRINT_FLAGS;
use crate::resource::{Builder, FILE_FLAGS, Info, Target};
use crate::rest::Call;

const FLAGS: &[Flag] = &[
    DRY_RUN,
    VALIDATE,
    Flag::bool("all", "Select all resources in the namespace of the specified resource types."),
    Flag::string("field-manager", "Name of the manager used to track field ownership."),
    Flag::bool("force", "If true, immediately remove resources from API and bypass graceful deletion."),
    Flag::bool("force-conflicts", "If true, server-side apply will force the changes against conflicts."),
    Flag::bool("overwrite", "Automatically resolve conflicts between the modified and live configuration by using values from the modified configuration").default("true"),
    Flag::bool("prune", "Automatically delete resource objects, that do not appear in the configs and are created by either apply or create --save-config. Should be used with either -l or --all."),
    Flag::array("prune-allowlist", "Overwrite the default allowlist with <group/version/kind> for --prune"),
    Flag::string("selector", "Selector (label query) to filter on.").short('l'),
    Flag::bool("server-side", "If true, apply runs in the server instead of the client."),
    Flag::string("subresource", "If specified, apply will operate on the subresource of the requested object."),
    Flag::bool("openapi-patch", "If true, use openapi to calculate diff when the openapi presents and the resource can be found in the openapi spec.").default("true"),
];

/// `kubectl apply`.
pub const COMMAND: Command = Command {
    children: &[last_applied::SET, last_applied::VIEW],
    ..Command::new(
        "apply",
        "Apply a configuration to a resource by file name or stdin.",
        "(-f FILENAME | -k DIRECTORY)",
        &[FLAGS, FILE_FLAGS, PRINT_FLAGS],
        run,
    )
};

/// How often a conflicting patch is computed again.
const RETRIES: u32 = 5;

fn run(ctx: &Context) -> LocalBoxFuture<'_, Result<()>> {
    apply(ctx).boxed_local()
}

struct Apply<'a> {
    ctx: &'a Context,
    write: Write<'a>,
    done: Done,
    server_side: bool,
    printed: Vec<Value>,
    visited: prune::Visited,
}

async fn apply(ctx: &Context) -> Result<()> {
    let flags = &ctx.parsed;
    let dry_run = DryRun::from_flags(flags)?;
    let server_side = flags.bool("server-side");
    if flags.bool("force-conflicts") && !server_side {
        return Err(Error::message("--force-conflicts only works with --server-side"));
    }
    if dry_run == DryRun::Client && server_side {
        return Err(Error::message(
            "--dry-run=client doesn't work with --server-side (did you mean --dry-run=server instead?)",
        ));
    }
    if flags.bool("force") && server_side {
        return Err(Error::message("--force cannot be used with --server-side"));
    }
    let mut builder = Builder::from_flags(&ctx.factory, flags)?;
    if !builder.args.is_empty() {
        return Err(ctx.usage_error(&format!("Unexpected args: [{}]", builder.args.join(" "))));
    }
    if !builder.has_files() {
        return Err(Error::message("must specify one of -f and -k"));
    }
    let selector = builder.label_selector.take();
    builder.select_all = false;
    prune::validate(ctx, selector.as_deref())?;
    let field_manager = match flags.str("field-manager") {
        "" if server_side => "kubectl",
        "" => "kubectl-client-side-apply",
        given => given,
    };
    let write = Write { field_manager, field_validation: ops::field_validation(flags)?, dry_run };
    let done = Done::from_flags(flags, dry_run)?;
    let targets = builder.targets(&ctx.factory, &ctx.streams).await?;
    let mut errors = targets.errors;
    let mut infos: Vec<Info> = Vec::new();
    for target in targets.items {
        if let Target::File(info) = target
            && selected(&info, selector.as_deref())?
        {
            infos.push(info);
        }
    }
    if infos.is_empty() && errors.is_empty() {
        return Err(Error::message("no objects passed to apply"));
    }
    let mut apply = Apply { ctx, write, done, server_side, printed: Vec::new(), visited: prune::Visited::default() };
    for info in infos {
        let outcome = if apply.server_side { apply.on_server(info).await } else { apply.on_client(info).await };
        errors.extend(outcome.err());
    }
    apply.finish()?;
    Error::aggregate(errors)?;
    if flags.bool("prune") {
        prune::prune(ctx, &apply.visited, selector.as_deref().unwrap_or_default(), dry_run).await?;
    }
    Ok(())
}

fn selected(info: &Info, selector: Option<&str>) -> Result<bool> {
    let Some(selector) = selector else { return Ok(true) };
    let selector =
        apimachinery::labels::Selector::parse(selector).map_err(|error| Error::message(error.to_string()))?;
    let none = serde_json::Map::new();
    let labels = codec::at(&info.object, &["metadata", "labels"]).and_then(Value::as_object);
    Ok(selector.matches(labels.unwrap_or(&none)))
}

impl Apply<'_> {
    /// Tells about one object now, or keeps it for the list that `-o yaml` prints.
    fn tell(&mut self, info: Info, operation: &str) -> Result<()> {
        self.visited.note(&info.object);
        if self.done.prints_objects() {
            self.printed.push(info.object);
            return Ok(());
        }
        self.done.print(&self.ctx.streams, &info, operation)
    }

    /// Prints what was kept: one object as itself, several as a list.
    fn finish(&mut self) -> Result<()> {
        if !self.done.prints_objects() || self.printed.is_empty() {
            return Ok(());
        }
        let object = if self.printed.len() == 1 {
            self.printed.remove(0)
        } else {
            serde_json::json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": self.printed})
        };
        let mut printer = crate::printer::from_flags(&self.ctx.parsed, crate::printer::FORMATS)?
            .ok_or_else(|| Error::message("no output format was given"))?;
        self.ctx.streams.out.text(&printer.print(&object, None)?);
        Ok(())
    }

    fn warn_if_deleting(&self, info: &Info) {
        if codec::at(&info.object, &["metadata", "deletionTimestamp"]).is_some() {
            self.ctx.streams.err.line(&format!(
                "Warning: Detected changes to resource {} which is currently being deleted.",
                info.name
            ));
        }
    }

    fn check_name(info: &Info) -> Result<()> {
        let generated = codec::text(&info.object, &["metadata", "generateName"]);
        if info.name.is_empty() && !generated.is_empty() {
            return Err(Error::message(format!("from {generated}: cannot use generate name with apply")));
        }
        Ok(())
    }

    async fn on_server(&mut self, mut info: Info) -> Result<()> {
        Self::check_name(&info)?;
        let force = if self.ctx.parsed.bool("force-conflicts") { "true" } else { "false" };
        let subresource = self.ctx.parsed.str("subresource");
        let sent = self
            .write
            .patch_query(&self.ctx.factory, &info, subresource, APPLY_PATCH, &info.object, &[("force", force)])
            .await;
        info.object = sent.map_err(|error| {
            if !error.is_conflict() {
                return error;
            }
            Error::message(format!("{error}\n{CONFLICT_ADVICE}"))
        })?;
        self.warn_if_deleting(&info);
        self.tell(info, "serverside-applied")
    }

    async fn on_client(&mut self, mut info: Info) -> Result<()> {
        Self::check_name(&info)?;
        let factory = &self.ctx.factory;
        let mut modified = info.object.clone();
        ops::annotate(&mut modified);
        let current = match info.get(factory).await {
            Ok(current) => current,
            Err(error) if error.is_not_found() => {
                ops::prune_nulls(&mut modified);
                info.object = modified;
                if self.write.dry_run != DryRun::Client {
                    info.object = self
                        .write
                        .create(factory, &info, &info.object)
                        .await
                        .map_err(|error| error.when("creating", &info.source))?;
                    info.name = codec::text(&info.object, &["metadata", "name"]).to_owned();
                }
                return self.tell(info, "created");
            }
            Err(error) => {
                let verb = format!("retrieving current configuration of:\n{}\nfrom server for:", describe(&info));
                return Err(error.when(&verb, &info.source));
            }
        };
        if codec::text(&current, &["metadata", "annotations", ops::LAST_APPLIED]).is_empty() {
            self.ctx.streams.err.line(&format!(
                "Warning: resource {}/{} is missing the {} annotation which is required by kubectl apply. kubectl apply should only be used on resources created declaratively by either kubectl create --save-config or kubectl apply. The missing annotation will be patched automatically.",
                info.mapping.resource, info.name, ops::LAST_APPLIED
            ));
        }
        let changed = self.patch(&mut info, &modified, current).await?;
        self.warn_if_deleting(&info);
        self.tell(info, if changed { "configured" } else { "unchanged" })
    }

    /// Patches until nobody else was faster. Leaves the result in `info`; says whether there was a change.
    async fn patch(&mut self, info: &mut Info, modified: &Value, mut current: Value) -> Result<bool> {
        let factory = &self.ctx.factory;
        let mut attempt = 0;
        loop {
            let (kind, patch) = self.difference(info, modified, &current)?;
            if patch.as_object().is_some_and(serde_json::Map::is_empty) {
                info.object = current;
                return Ok(false);
            }
            if self.write.dry_run == DryRun::Client {
                info.object = local(info, kind, patch, current)?;
                return Ok(true);
            }
            match self.write.patch(factory, info, "", kind, &patch).await {
                Ok(object) => {
                    info.object = object;
                    return Ok(true);
                }
                Err(error) if error.is_conflict() && attempt < RETRIES => {
                    attempt += 1;
                    // The first retry is immediate: the usual rival is a controller's status update.
                    if attempt > 1 {
                        tokio::time::sleep(Duration::from_secs(1)).await;
                    }
                    current = info.get(factory).await?;
                }
                Err(error) if self.ctx.parsed.bool("force") && (error.is_conflict() || error.reason() == "Invalid") => {
                    info.object = self.recreate(info, modified).await?;
                    return Ok(true);
                }
                Err(error) => {
                    let text = codec::compact(&patch);
                    let verb = format!("applying patch:\n{text}\nto:\n{}\nfor:", describe(info));
                    return Err(error.when("patching", &info.source).when(&verb, &info.source));
                }
            }
        }
    }

    fn difference(&self, info: &Info, modified: &Value, current: &Value) -> Result<(&'static str, Value)> {
        let original = match codec::text(current, &["metadata", "annotations", ops::LAST_APPLIED]) {
            "" => Value::Object(serde_json::Map::new()),
            text => serde_json::from_str(text).map_err(|error| {
                Error::message(format!(
                    "retrieving original configuration from the annotation of {}: {error}",
                    info.name
                ))
            })?,
        };
        match ops::schema(info) {
            Some(schema) => {
                let overwrite = self.ctx.parsed.bool("overwrite");
                let patch = apimachinery::patch::strategic::three_way(&original, modified, current, schema, overwrite)
                    .map_err(|error| Error::message(format!("creating patch: {error}")))?;
                Ok((STRATEGIC_PATCH, patch))
            }
            None => {
                let patch = apimachinery::patch::merge::three_way(&original, modified, current);
                for field in [&["apiVersion"][..], &["kind"], &["metadata", "name"]] {
                    if let Some(value) = codec::at(&patch, field) {
                        return Err(Error::message(format!(
                            "precondition failed for {{{:?}:{value}}}: at least one of apiVersion, kind and name was changed",
                            field.join(".")
                        )));
                    }
                }
                Ok((MERGE_PATCH, patch))
            }
        }
    }

    async fn recreate(&self, info: &Info, modified: &Value) -> Result<Value> {
        let rest = self.ctx.factory.rest().await?;
        let options =
            serde_json::json!({"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"});
        rest.value(Call::new(Method::DELETE, info.path("")).json(&options)).await?;
        super::delete::wait_gone(&self.ctx.factory, info, None, None).await?;
        self.write.create(&self.ctx.factory, info, modified).await
    }
}

fn local(info: &Info, kind: &str, patch: Value, mut current: Value) -> Result<Value> {
    match ops::schema(info).filter(|_| kind == STRATEGIC_PATCH) {
        Some(schema) => apimachinery::patch::strategic::apply(&mut current, patch, schema)
            .map_err(|error| Error::message(format!("applying patch locally: {error}")))?,
        None => apimachinery::patch::merge::apply(&mut current, patch),
    }
    Ok(current)
}

/// An object in upstream's words for messages about it.
fn describe(info: &Info) -> String {
    let mapping = &info.mapping;
    format!(
        "Resource: {:?}, GroupVersionKind: {:?}\nName: {:?}, Namespace: {:?}",
        format!("{}/{}, Resource={}", mapping.group, mapping.version, mapping.resource),
        format!("{}/{}, Kind={}", mapping.group, mapping.version, mapping.kind),
        info.name,
        info.namespace
    )
}

const CONFLICT_ADVICE: &str = "Please review the fields above--they currently have other managers. Here
are the ways you can resolve this warning:
* If you intend to manage all of these fields, please re-run the apply
  command with the `--force-conflicts` flag.
* If you do not intend to manage all of the fields, please edit your
  manifest to remove references to the fields that should keep their
  current managers.
* You may co-own fields by updating your manifest to match the existing
  value; in this case, you'll become the manager if the other manager(s)
  stop managing the field (remove it from their configuration).
See https://kubernetes.io/docs/reference/using-api/server-side-apply/#conflicts";
