//! `kubectl edit`: objects in the user's editor, and what was changed sent back as a patch.
//!
//! An edit the server refuses opens the editor again on the edited text, with the reasons on top.

use std::path::{Path, PathBuf};
use std::process::Command as Process;

use futures::FutureExt;
use futures::future::LocalBoxFuture;
use serde_json::{Value, json};

use super::ops::{self, DryRun, MERGE_PATCH, STRATEGIC_PATCH, VALIDATE, Write};
use crate::codec;
use crate::command::{Command, Context};
use crate::error::{Error, Result};
use crate::flags::Flag;
use crate::printer::PRINT_FLAGS;
use crate::resource::{Builder, FILE_FLAGS, Info};

const FLAGS: &[Flag] = &[
    VALIDATE,
    Flag::string("field-manager", "Name of the manager used to track field ownership.").default("kubectl-edit"),
    Flag::bool("output-patch", "Output the patch if the resource is edited."),
    Flag::bool("save-config", "If true, the configuration of current object will be saved in its annotation."),
    Flag::string("subresource", "If specified, edit will operate on the subresource of the requested object."),
    Flag::bool("windows-line-endings", "Defaults to the line ending native to your platform."),
];

/// `kubectl edit`.
pub const COMMAND: Command = Command::new(
    "edit",
    "Edit a resource from the default editor.",
    "(RESOURCE/NAME | -f FILENAME)",
    &[FLAGS, FILE_FLAGS, PRINT_FLAGS],
    run,
);

const HEADER: &str = "# Please edit the object below. Lines beginning with a '#' will be ignored,
# and an empty file will abort the edit. If an error occurs while saving this file will be
# reopened with the relevant failures.
#
";

fn run(ctx: &Context) -> LocalBoxFuture<'_, Result<()>> {
    edit(ctx).boxed_local()
}

async fn edit(ctx: &Context) -> Result<()> {
    let builder = Builder::from_flags(&ctx.factory, &ctx.parsed)?;
    if builder.args.is_empty() && !builder.has_files() {
        return Err(Error::message(crate::resource::MISSING));
    }
    let json_format = match ctx.parsed.str("output") {
        "" | "yaml" => false,
        "json" => true,
        other => {
            return Err(Error::message(format!(
                "unable to match a printer suitable for the output format {other:?}, allowed formats are: json,yaml"
            )));
        }
    };
    let mut builder = builder;
    builder.allow_empty_selector = true;
    let (mut infos, errors) = builder.objects(&ctx.factory, &ctx.streams).await?;
    Error::aggregate(errors)?;
    for info in &mut infos {
        if !info.source.is_empty() || !ctx.parsed.str("subresource").is_empty() {
            let rest = ctx.factory.rest().await?;
            info.object = rest.value(crate::rest::Call::get(info.path(ctx.parsed.str("subresource")))).await?;
        }
        codec::remove(&mut info.object, &["metadata", "managedFields"]);
    }
    if infos.is_empty() {
        return Err(Error::message("edit cancelled, no objects found"));
    }
    Session { ctx, infos, json: json_format, reasons: Vec::new(), file: None }.run().await
}

/// One go at the editor after the other.
struct Session<'a> {
    ctx: &'a Context,
    infos: Vec<Info>,
    json: bool,
    /// Why the last go did not succeed, as comment lines.
    reasons: Vec<String>,
    /// Where the last go was saved.
    file: Option<PathBuf>,
}

/// What became of one object.
enum Fate {
    Skipped,
    Edited,
    /// Changed by somebody else meanwhile.
    Retry,
    Gone,
    Invalid,
}

impl Session<'_> {
    fn render(&self, object: &Value) -> String {
        if self.json { codec::json_text(object) } else { codec::yaml_text(object) }
    }

    fn header(&self) -> String {
        if self.json {
            return String::new();
        }
        let mut text = HEADER.to_owned();
        for reason in &self.reasons {
            text.push_str(reason);
        }
        if !self.reasons.is_empty() {
            text.push_str("#\n");
        }
        text
    }

    async fn run(mut self) -> Result<()> {
        let document = match self.infos.as_slice() {
            [one] => one.object.clone(),
            many => {
                let items: Vec<&Value> = many.iter().map(|info| &info.object).collect();
                json!({"apiVersion": "v1", "kind": "List", "metadata": {}, "items": items})
            }
        };
        let original = self.render(&document);
        let mut body = original.clone();
        let mut failed = false;
        loop {
            let text = format!("{}{body}", self.header());
            let (edited, file) = self.editor(&text)?;
            if failed && strip(&edited) == strip(&body) {
                return Err(self.preserved(&file, "Edit cancelled, no valid changes were saved."));
            }
            if let Some(old) = self.file.replace(file.clone()) {
                // Only the newest attempt is of use.
                let _ = std::fs::remove_file(old);
            }
            if strip(&edited) == strip(&original) {
                let _ = std::fs::remove_file(&file);
                self.ctx.streams.err.line("Edit cancelled, no changes made.");
                return Ok(());
            }
            if strip(&edited).trim().is_empty() {
                let _ = std::fs::remove_file(&file);
                self.ctx.streams.err.line("Edit cancelled, saved file was empty.");
                return Ok(());
            }
            self.reasons.clear();
            body = manual_strip(&edited);
            let documents = match codec::documents(&strip(&edited)) {
                Ok(documents) => documents,
                Err(why) => {
                    let first = &self.infos[0];
                    let (resource, name) = (first.mapping.resource_name(), &first.name);
                    let why = why.trim_start_matches("error converting YAML to JSON: ");
                    self.ctx.streams.err.line(&format!("error: {resource} {name:?} is invalid"));
                    self.reasons.push(comment(&format!(
                        "{resource} {name:?} was not valid:\n* <nil>: Invalid value: \"The edited file failed validation\": {why}"
                    )));
                    failed = true;
                    continue;
                }
            };
            let updated: Vec<Value> = documents.into_iter().flat_map(codec::flatten).collect();
            let (mut retry, mut gone, mut invalid) = (false, false, false);
            for object in updated {
                match self.submit(object).await? {
                    Fate::Skipped | Fate::Edited => {}
                    Fate::Retry => retry = true,
                    Fate::Gone => gone = true,
                    Fate::Invalid => invalid = true,
                }
            }
            let path = file.display();
            if retry {
                self.ctx
                    .streams
                    .err
                    .line(&format!("You can run `kubectl replace -f {path}` to try this update again."));
                return Err(Error::Exit(1));
            }
            if gone {
                self.ctx
                    .streams
                    .err
                    .line(&format!("The edits you made on deleted resources have been saved to \"{path}\""));
                return Err(Error::Exit(1));
            }
            if !invalid {
                let _ = std::fs::remove_file(&file);
                return Ok(());
            }
            failed = true;
        }
    }

    /// Sends one edited object back.
    async fn submit(&mut self, object: Value) -> Result<Fate> {
        let uid = codec::text(&object, &["metadata", "uid"]);
        let Some(info) = self.infos.iter().find(|info| codec::text(&info.object, &["metadata", "uid"]) == uid).cloned()
        else {
            return Err(self.preserved_now(&format!(
                "no original object found for {}",
                codec::text(&object, &["metadata", "name"])
            )));
        };
        let name = info.object_name();
        if object == info.object {
            self.ctx.streams.out.line(&format!("{name} skipped"));
            return Ok(Fate::Skipped);
        }
        for field in [&["apiVersion"][..], &["kind"], &["metadata", "name"]] {
            if codec::at(&object, field) != codec::at(&info.object, field) {
                return Err(self.preserved_now("At least one of apiVersion, kind and name was changed"));
            }
        }
        let mut object = object;
        let annotated = codec::at(&info.object, &["metadata", "annotations", ops::LAST_APPLIED]).is_some();
        if self.ctx.parsed.bool("save-config") {
            ops::annotate(&mut object);
        } else if !annotated {
            codec::remove(&mut object, &["metadata", "annotations", ops::LAST_APPLIED]);
        }
        let (kind, patch) = match ops::schema(&info) {
            Some(schema) => {
                let patch = apimachinery::patch::strategic::two_way(&info.object, &object, schema)
                    .map_err(|error| Error::message(error.to_string()))?;
                (STRATEGIC_PATCH, patch)
            }
            None => (MERGE_PATCH, apimachinery::patch::merge::diff(&info.object, &object)),
        };
        if self.ctx.parsed.bool("output-patch") {
            self.ctx.streams.out.line(&format!("Patch: {}", codec::compact(&patch)));
        }
        let flags = &self.ctx.parsed;
        let write = Write {
            field_manager: flags.str("field-manager"),
            field_validation: ops::field_validation(flags)?,
            dry_run: DryRun::None,
        };
        match write.patch(&self.ctx.factory, &info, flags.str("subresource"), kind, &patch).await {
            Ok(_) => {
                self.ctx.streams.out.line(&format!("{name} edited"));
                Ok(Fate::Edited)
            }
            Err(error) => Ok(self.refused(&info, &error)),
        }
    }

    /// Notes why the server refused, for the top of the next go.
    fn refused(&mut self, info: &Info, error: &Error) -> Fate {
        let resource = info.mapping.resource_name();
        let name = &info.name;
        let invalid = error.reason() == "Invalid";
        let head = format!("{resource} {name:?} was not valid:");
        if invalid {
            let mut lines = vec![head];
            let causes = match error {
                Error::Api { status, .. } => codec::list(status, &["details", "causes"]).to_vec(),
                _ => Vec::new(),
            };
            for cause in &causes {
                lines.push(format!("* {}: {}", codec::text(cause, &["field"]), codec::text(cause, &["message"])));
            }
            if causes.is_empty() {
                lines.push(format!("* {error}"));
            }
            self.ctx.streams.err.line(&format!("error: {} {name:?} is invalid", resource));
            self.reasons.push(lines.iter().map(|line| comment(line)).collect());
            return Fate::Invalid;
        }
        if error.is_not_found() {
            self.reasons.push(comment(&format!("{resource} {name:?} could not be found on the server")));
            self.ctx.streams.err.line(&format!("error: {resource} {name:?} could not be found on the server"));
            return Fate::Gone;
        }
        self.reasons.push(comment(&format!("{resource} {name:?} could not be patched: {error}")));
        self.ctx.streams.err.line(&format!("error: {resource} {name:?} could not be patched: {error}"));
        Fate::Retry
    }

    fn preserved(&self, file: &Path, message: &str) -> Error {
        self.ctx.streams.err.line(&format!("A copy of your changes has been stored to \"{}\"", file.display()));
        Error::message(message)
    }

    fn preserved_now(&self, message: &str) -> Error {
        match &self.file {
            Some(file) => self.preserved(file, message),
            None => Error::message(message),
        }
    }

    /// Runs the editor on a temporary file; returns the text it left and the file.
    fn editor(&self, text: &str) -> Result<(String, PathBuf)> {
        let suffix = if self.json { ".json" } else { ".yaml" };
        let file = tempfile::Builder::new().prefix("kubectl-edit-").suffix(suffix).tempfile()?;
        std::fs::write(file.path(), text)?;
        let (_, path) = file.keep().map_err(|error| Error::message(error.to_string()))?;
        launch(&path)?;
        Ok((std::fs::read_to_string(&path)?, path))
    }
}

/// The editor of `KUBE_EDITOR` or `EDITOR` on a file. A word with shell characters goes through a shell.
pub fn launch(path: &Path) -> Result<()> {
    let editor = ["KUBE_EDITOR", "EDITOR"]
        .into_iter()
        .find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
        .unwrap_or_else(|| "vi".into());
    let mut process = if editor.contains(['"', '\'', '\\', '$', '`', '|', '&', ';', '<', '>', '(', ')']) {
        let mut process = Process::new(
            std::env::var("SHELL").ok().filter(|shell| !shell.is_empty()).unwrap_or_else(|| "/bin/bash".into()),
        );
        process.arg("-c").arg(format!("{editor} {:?}", path.display().to_string()));
        process
    } else {
        let mut words = editor.split_whitespace();
        let mut process = Process::new(words.next().unwrap_or("vi"));
        process.args(words).arg(path);
        process
    };
    let status =
        process.status().map_err(|error| Error::message(format!("unable to launch the editor {editor:?}: {error}")))?;
    if status.success() {
        return Ok(());
    }
    Err(Error::message(format!("there was a problem with the editor {editor:?}")))
}

/// Without comment lines.
fn strip(text: &str) -> String {
    text.lines().filter(|line| !line.trim_start().starts_with('#')).map(|line| format!("{line}\n")).collect()
}

/// Without the comment lines we put on top.
fn manual_strip(text: &str) -> String {
    text.lines().filter(|line| !line.starts_with('#')).map(|line| format!("{line}\n")).collect()
}

fn comment(text: &str) -> String {
    text.lines().map(|line| format!("# {line}\n")).collect()
}
