//! `kubectl get`: objects as tables the server computes, or in any output format; once or watched.

mod sort;
mod watch;

use futures::FutureExt;
use futures::future::LocalBoxFuture;
use serde_json::{Value, json};

use crate::codec;
use crate::command::{Command, Context};
use crate::error::{Error, Result};
use crate::flags::Flag;
use crate::mapper::Mapping;
use crate::printer::table::{self, TablePrinter};
use crate::printer::tabwriter::TabWriter;
use crate::printer::{self, PRINT_FLAGS, Printer};
use crate::resource::{Builder, FILE_FLAGS, Info, Target};
use crate::rest::{self, Call};

const FLAGS: &[Flag] = &[
    Flag::bool("all-namespaces", "If present, list the requested object(s) across all namespaces.").short('A'),
    Flag::int("chunk-size", "500", "Return large lists in chunks rather than all at once. Pass 0 to disable."),
    Flag::string("field-selector", "Selector (field query) to filter on, supports '=', '==', and '!='."),
    Flag::bool("ignore-not-found", "If set to true, suppresses NotFound error for specific objects that do not exist."),
    Flag::slice("label-columns", "Accepts a comma separated list of labels that are going to be presented as columns.")
        .short('L'),
    Flag::bool(
        "no-headers",
        "When using the default or custom-column output format, don't print headers (default print headers).",
    ),
    Flag::bool("output-watch-events", "Output watch event objects when --watch or --watch-only is used."),
    Flag::string("raw", "Raw URI to request from the server."),
    Flag::string("selector", "Selector (label query) to filter on.").short('l'),
    Flag::bool("server-print", "If true, have the server return the appropriate table output.").default("true"),
    Flag::bool("show-kind", "If present, list the resource type for the requested object(s)."),
    Flag::bool("show-labels", "When printing, show all labels as the last column (default hide labels column)"),
    Flag::string("sort-by", "If non-empty, sort list types using this field specification."),
    Flag::string("subresource", "If specified, gets the subresource of the requested object."),
    Flag::bool("watch", "After listing/getting the requested object, watch for changes.").short('w'),
    Flag::bool("watch-only", "Watch for changes to the requested object(s), without listing/getting first."),
];

/// `kubectl get`.
pub const COMMAND: Command = Command::new(
    "get",
    "Display one or many resources.",
    "[(-o|--output=)FORMAT] (TYPE[.VERSION][.GROUP] [NAME | -l label] | TYPE[.VERSION][.GROUP]/NAME ...)",
    &[FLAGS, PRINT_FLAGS, FILE_FLAGS],
    run,
);

const FORMATS: &str = "custom-columns,custom-columns-file,go-template,go-template-file,json,jsonpath,jsonpath-as-json,jsonpath-file,kyaml,name,template,templatefile,wide,yaml";

/// What the server is asked for: a table, or plain objects where it cannot make one.
const TABLE: &str =
    "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";

fn run(ctx: &Context) -> LocalBoxFuture<'_, Result<()>> {
    get(ctx).boxed_local()
}

/// Flags made into decisions.
struct Options<'a> {
    ctx: &'a Context,
    builder: Builder,
    /// A table for people, rather than whole objects.
    human: bool,
    wide: bool,
    sort_by: String,
    subresource: String,
    ignore_not_found: bool,
}

async fn get(ctx: &Context) -> Result<()> {
    let flags = &ctx.parsed;
    let output = flags.str("output");
    let watching = flags.bool("watch") || flags.bool("watch-only");
    if flags.changed("raw") {
        return raw(ctx, flags.str("raw"), watching).await;
    }
    if flags.bool("show-labels") && !matches!(output, "" | "wide") {
        return Err(Error::message(format!("--show-labels option cannot be used with {output} printer")));
    }
    if flags.bool("output-watch-events") && !watching {
        return Err(Error::message("--output-watch-events option can only be used with --watch or --watch-only"));
    }
    let mut builder = Builder::from_flags(&ctx.factory, flags)?;
    builder.allow_empty_selector = true;
    builder.chunk = if flags.str("sort-by").is_empty() { flags.int("chunk-size") } else { 0 };
    if builder.args.is_empty() && !builder.has_files() && !watching {
        ctx.streams.err.line("You must specify the type of resource to get. Use \"kubectl api-resources\" for a complete list of supported resources.\n");
        return Err(ctx.usage_error(
            "Required resource not specified.\nUse \"kubectl explain <resource>\" for a detailed description of that resource (e.g. kubectl explain pods).",
        ));
    }
    let options = Options {
        ctx,
        builder,
        human: matches!(output, "" | "wide") && flags.str("template").is_empty(),
        wide: output == "wide",
        sort_by: flags.str("sort-by").to_owned(),
        subresource: flags.str("subresource").to_owned(),
        ignore_not_found: flags.bool("ignore-not-found"),
    };
    if watching {
        return watch::watch(&options).await;
    }
    let from_files = options.builder.has_files();
    let outcome = if options.human { options.print_tables().await } else { options.print_objects().await };
    // What is wrong with files comes as one of a list here, and so without a prefix.
    outcome.map_err(|error| match error {
        Error::Message(text) if from_files => Error::Plain(text),
        other => other,
    })
}

async fn raw(ctx: &Context, path: &str, watching: bool) -> Result<()> {
    if watching || ctx.parsed.changed("selector") {
        return Err(Error::message(
            "--raw may not be specified with other flags that filter the server request or alter the output",
        ));
    }
    if !ctx.parsed.str("output").is_empty() {
        return Err(Error::message("--raw and --output are mutually exclusive"));
    }
    let bytes = ctx.factory.rest().await?.bytes(Call::get(path).accept("*/*")).await?;
    ctx.streams.out.bytes(&bytes);
    Ok(())
}

/// Something fetched: a table, an object, or a list.
struct Fetched {
    info: Info,
    /// Whether it was asked for by name.
    single: bool,
}

impl Options<'_> {
    /// Fetches all targets. Failures of single ones do not stop the others.
    async fn fetch(&self) -> Result<(Vec<Fetched>, Vec<Error>, bool)> {
        let factory = &self.ctx.factory;
        let targets = self.builder.targets(factory, &self.ctx.streams).await?;
        let rest = factory.rest().await?;
        let as_table = self.human && self.ctx.parsed.bool("server-print");
        let dress = |call: Call| {
            if !as_table {
                return call;
            }
            let include = if self.sort_by.is_empty() { "" } else { "Object" };
            call.accept(TABLE).query("includeObject", include)
        };
        let mut found = Vec::new();
        let mut errors = targets.errors;
        let mut items: Vec<Target> = Vec::new();
        for target in targets.items {
            // A file names objects; what is shown is what the server has.
            items.push(match target {
                Target::File(info) => {
                    Target::Named { mapping: info.mapping, namespace: info.namespace, name: info.name }
                }
                other => other,
            });
        }
        for target in items {
            match target {
                Target::Named { mapping, namespace, name } => {
                    let call = dress(Call::get(rest::path(&mapping, &namespace, &name, &self.subresource)));
                    match rest.value(call).await {
                        Ok(object) => {
                            let info = Info { mapping, namespace, name, object, source: String::new() };
                            found.push(Fetched { info, single: true });
                        }
                        Err(error) if self.ignore_not_found && error.is_not_found() => {}
                        Err(error) => errors.push(error),
                    }
                }
                Target::List { mapping, namespace } => {
                    if !self.subresource.is_empty() {
                        return Err(Error::message("subresource cannot be used when bulk resources are specified"));
                    }
                    let mut token = String::new();
                    loop {
                        let call = dress(self.builder.list_call(&mapping, &namespace, &token));
                        match rest.value(call).await {
                            Ok(object) => {
                                token = codec::text(&object, &["metadata", "continue"]).to_owned();
                                let info = Info {
                                    mapping: mapping.clone(),
                                    namespace: namespace.clone(),
                                    name: String::new(),
                                    object,
                                    source: String::new(),
                                };
                                found.push(Fetched { info, single: false });
                                if token.is_empty() {
                                    break;
                                }
                            }
                            Err(error) => {
                                errors.push(self.builder.list_error(error, &mapping));
                                break;
                            }
                        }
                    }
                }
                Target::File(_) => unreachable!("replaced above"),
            }
        }
        Ok((found, errors, targets.single))
    }

    fn table_options(&self, mapping: &Mapping, with_kind: bool) -> table::Options {
        let flags = &self.ctx.parsed;
        table::Options {
            no_headers: flags.bool("no-headers"),
            wide: self.wide,
            with_namespace: self.builder.all_namespaces && mapping.namespaced,
            kind: (with_kind || flags.bool("show-kind")).then(|| mapping.kind_name()),
            show_labels: flags.bool("show-labels"),
            label_columns: flags.list("label-columns"),
        }
    }

    async fn print_tables(&self) -> Result<()> {
        let (mut found, mut errors, _) = self.fetch().await?;
        for fetched in &mut found {
            if fetched.info.object["kind"] != "Table" {
                let objects = codec::flatten(fetched.info.object.take());
                fetched.info.object = table::from_objects(&objects, jiff::Timestamp::now());
            }
        }
        let with_kind = found.windows(2).any(|pair| {
            let (a, b) = (&pair[0].info.mapping, &pair[1].info.mapping);
            (&a.kind, &a.group) != (&b.kind, &b.group)
        });
        if !self.sort_by.is_empty() {
            // A sort spans everything of one type: single objects become rows of one table.
            found = sort::merge(found);
            for fetched in &mut found {
                sort::table(&mut fetched.info.object, &self.sort_by)?;
            }
        }
        let out = &self.ctx.streams.out;
        let mut writer = TabWriter::table();
        let mut current: Option<(Mapping, TablePrinter)> = None;
        let mut written = false;
        let mut separate = false;
        let mut namespaced = !self.builder.all_namespaces;
        let mut emit = |text: String, separate: &mut bool| {
            if text.is_empty() {
                return;
            }
            if std::mem::take(separate) {
                out.text("\n");
            }
            out.text(&text);
            written = true;
        };
        for fetched in &found {
            let mapping = &fetched.info.mapping;
            namespaced &= mapping.namespaced;
            if current.as_ref().is_none_or(|(last, _)| last != mapping) {
                emit(writer.flush(), &mut separate);
                writer.forget_widths();
                if current.is_some() && !self.ctx.parsed.bool("no-headers") {
                    separate = true;
                }
                current = Some((mapping.clone(), TablePrinter::new(self.table_options(mapping, with_kind))));
            }
            if let Some((_, printer)) = &mut current {
                printer.print(&fetched.info.object, None, &mut writer);
            }
        }
        emit(writer.flush(), &mut separate);
        if !written && !self.ignore_not_found && errors.is_empty() {
            let err = &self.ctx.streams.err;
            if namespaced {
                err.line(&format!("No resources found in {} namespace.", self.builder.namespace));
            } else {
                err.line("No resources found");
            }
        }
        errors.dedup_by(|a, b| a.line() == b.line());
        Error::aggregate(errors)
    }

    async fn print_objects(&self) -> Result<()> {
        let mut printer = printer::from_flags(&self.ctx.parsed, FORMATS)?
            .ok_or_else(|| Error::message("no output format was given"))?;
        let (found, errors, single) = self.fetch().await?;
        if single && !errors.is_empty() {
            return Error::aggregate(errors);
        }
        if found.is_empty() && self.ignore_not_found {
            return Error::aggregate(errors);
        }
        let single = single && found.len() == 1 && found[0].single;
        let mut items: Vec<Value> = Vec::new();
        for fetched in found {
            if single {
                items.push(fetched.info.object);
            } else {
                items.extend(codec::flatten(fetched.info.object));
            }
        }
        if !self.sort_by.is_empty() {
            sort::objects(&mut items, &self.sort_by)?;
        }
        let object = match items.pop() {
            Some(one) if single && items.is_empty() => one,
            last => {
                items.extend(last);
                json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": items})
            }
        };
        // Names print one by one; the other formats take a list as it is.
        let text = match &mut printer {
            Printer::Name { .. } if !single => {
                let mut text = String::new();
                for item in codec::list(&object, &["items"]) {
                    text.push_str(&printer.print(item, None)?);
                }
                text
            }
            _ => printer.print(&object, None)?,
        };
        self.ctx.streams.out.text(&text);
        Error::aggregate(errors)
    }
}
