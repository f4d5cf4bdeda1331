//! `kubectl label` and `kubectl annotate`: setting, changing and removing metadata pairs.

use futures::FutureExt;
use futures::future::LocalBoxFuture;
use serde_json::{Value, json};

use super::ops::{DRY_RUN, Done, DryRun, MERGE_PATCH, Write};
use crate::codec;
use crate::command::{Command, Context};
use crate::error::{Error, Result};
use crate::flags::Flag;
use crate::printer::PRINT_FLAGS;
use crate::resource::{Builder, FILE_FLAGS, Info};

const FLAGS: &[Flag] = &[
    DRY_RUN,
    Flag::bool("all", "Select all resources, in the namespace of the specified resource types"),
    Flag::bool("all-namespaces", "If true, check the specified action in all namespaces.").short('A'),
    Flag::string("field-manager", "Name of the manager used to track field ownership."),
    Flag::string("field-selector", "Selector (field query) to filter on, supports '=', '==', and '!='."),
    Flag::bool("list", "If true, display the pairs for a given resource."),
    Flag::bool("local", "If true, the command will NOT contact api-server but run locally."),
    Flag::bool(
        "overwrite",
        "If true, allow pairs to be overwritten, otherwise reject updates that overwrite existing ones.",
    ),
    Flag::string(
        "resource-version",
        "If non-empty, the update will only succeed if this is the current resource-version for the object.",
    ),
    Flag::string("selector", "Selector (label query) to filter on.").short('l'),
];

/// `kubectl label`.
pub const COMMAND: Command = Command::new(
    "label",
    "Update the labels on a resource.",
    "[--overwrite] (-f FILENAME | TYPE NAME) KEY_1=VAL_1 ... KEY_N=VAL_N [--resource-version=version]",
    &[FLAGS, FILE_FLAGS, PRINT_FLAGS],
    |ctx| run(ctx, &LABELS),
);

/// `kubectl annotate`.
pub const ANNOTATE: Command = Command::new(
    "annotate",
    "Update the annotations on a resource.",
    "[--overwrite] (-f FILENAME | TYPE NAME) KEY_1=VAL_1 ... KEY_N=VAL_N [--resource-version=version]",
    &[FLAGS, FILE_FLAGS, PRINT_FLAGS],
    |ctx| run(ctx, &ANNOTATIONS),
);

/// What differs between the two verbs.
struct Pairs {
    field: &'static str,
    word: &'static str,
    manager: &'static str,
    done: &'static str,
}

static LABELS: Pairs = Pairs { field: "labels", word: "label", manager: "kubectl-label", done: "labeled" };
static ANNOTATIONS: Pairs =
    Pairs { field: "annotations", word: "annotation", manager: "kubectl-annotate", done: "annotated" };

fn run<'a>(ctx: &'a Context, pairs: &'static Pairs) -> LocalBoxFuture<'a, Result<()>> {
    update(ctx, pairs).boxed_local()
}

async fn update(ctx: &Context, pairs: &Pairs) -> Result<()> {
    let flags = &ctx.parsed;
    let dry_run = DryRun::from_flags(flags)?;
    let mut builder = Builder::from_flags(&ctx.factory, flags)?;
    let args = std::mem::take(&mut builder.args);
    // Resources come first; the first argument with `=` or a trailing `-` begins the pairs.
    let start =
        args.iter().position(|arg| arg.contains('=') || (arg.ends_with('-') && arg != "-")).unwrap_or(args.len());
    let (resources, changes) = args.split_at(start);
    if let Some(stray) = changes.iter().find(|arg| !(arg.contains('=') || arg.ends_with('-'))) {
        return Err(Error::message(format!("all resources must be specified before {} changes: {stray}", pairs.word)));
    }
    builder.args = resources.to_vec();
    if builder.args.is_empty() && !builder.has_files() {
        return Err(Error::message(
            "one or more resources must be specified as <resource> <name> or <resource>/<name>",
        ));
    }
    if changes.is_empty() && !flags.bool("list") {
        return Err(Error::message(format!("at least one {} update is required", pairs.word)));
    }
    let (set, removed) = parse(changes, pairs)?;
    let (infos, mut errors) = builder.objects(&ctx.factory, &ctx.streams).await?;
    if infos.len() > 1 && flags.changed("resource-version") {
        return Err(Error::message("--resource-version may only be used with a single resource"));
    }
    let manager = match flags.str("field-manager") {
        "" => pairs.manager,
        given => given,
    };
    let write = Write { field_manager: manager, field_validation: "", dry_run };
    let mut done = Done::from_flags(flags, dry_run)?;
    for mut info in infos {
        let local = flags.bool("local");
        if !info.source.is_empty() && !local {
            match info.get(&ctx.factory).await {
                Ok(object) => info.object = object,
                Err(error) => {
                    errors.push(error);
                    continue;
                }
            }
        }
        if flags.bool("list") {
            for (key, value) in codec::pairs(&info.object, &["metadata", pairs.field]) {
                ctx.streams.out.line(&format!("{key}={value}"));
            }
            continue;
        }
        match change(ctx, &mut info, pairs, &set, &removed, &write, local || dry_run == DryRun::Client).await {
            Ok(message) => done.print(&ctx.streams, &info, message)?,
            Err(error) => errors.push(error),
        }
    }
    Error::aggregate(errors)
}

type Changes = (Vec<(String, String)>, Vec<String>);

fn parse(changes: &[String], pairs: &Pairs) -> Result<Changes> {
    let (mut set, mut removed) = (Vec::new(), Vec::new());
    for change in changes {
        match change.split_once('=') {
            Some((key, value)) => {
                if pairs.field == "labels"
                    && let Some(message) = apimachinery::names::label_value(value).into_iter().next()
                {
                    return Err(Error::message(format!("invalid label value: {change:?}: {message}")));
                }
                set.push((key.to_owned(), value.to_owned()));
            }
            None => removed.push(change.trim_end_matches('-').to_owned()),
        }
    }
    let both: Vec<&str> =
        set.iter().map(|(key, _)| key.as_str()).filter(|key| removed.iter().any(|r| r == key)).collect();
    if !both.is_empty() {
        return Err(Error::message(match pairs.word {
            "label" => "can not both modify and remove a label in the same command".to_owned(),
            _ => format!(
                "can not both modify and remove the following annotation(s) in the same command: {}",
                both.join(", ")
            ),
        }));
    }
    Ok((set, removed))
}

async fn change(
    ctx: &Context,
    info: &mut Info,
    pairs: &Pairs,
    set: &[(String, String)],
    removed: &[String],
    write: &Write<'_>,
    local: bool,
) -> Result<&'static str> {
    let flags = &ctx.parsed;
    let current: Vec<(String, String)> = codec::pairs(&info.object, &["metadata", pairs.field])
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    let find = |key: &str| current.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_str());
    if !flags.bool("overwrite") {
        for (key, value) in set {
            if let Some(old) = find(key)
                && (pairs.field == "annotations" || old != value)
            {
                return Err(Error::message(match pairs.word {
                    "label" => format!("'{key}' already has a value ({old}), and --overwrite is false"),
                    _ => format!(
                        "--overwrite is false but found the following declared annotation(s): '{key}' already has a value ({old})"
                    ),
                }));
            }
        }
    }
    let mut patch = json!({"metadata": {}});
    let version = flags.str("resource-version");
    if !version.is_empty() {
        patch["metadata"]["resourceVersion"] = json!(version);
    }
    let mut message = "not labeled";
    for (key, value) in set {
        if find(key) != Some(value) {
            message = pairs.done;
        }
        codec::set(&mut patch, &["metadata", pairs.field, key], json!(value));
    }
    for key in removed {
        if find(key).is_some() {
            message = if pairs.word == "label" { "unlabeled" } else { pairs.done };
            codec::set(&mut patch, &["metadata", pairs.field, key], Value::Null);
        } else if pairs.word == "label" {
            ctx.streams.out.line(&format!("label {key:?} not found."));
        }
    }
    if set.iter().any(|(key, value)| find(key) != Some(value)) {
        message = pairs.done;
    }
    if pairs.word == "annotation" {
        message = pairs.done;
    }
    if local {
        apimachinery::patch::merge::apply(&mut info.object, patch);
        return Ok(message);
    }
    if message != "not labeled" || !version.is_empty() {
        info.object = write.patch(&ctx.factory, info, "", MERGE_PATCH, &patch).await?;
    }
    Ok(message)
}
