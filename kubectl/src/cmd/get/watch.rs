//! `kubectl get -w`: the objects as they are, then each change.

use futures::StreamExt;
use serde_json::{Value, json};

use super::{FORMATS, Options, TABLE};
use crate::codec;
use crate::error::{Error, Result};
use crate::mapper::Mapping;
use crate::printer::table::{self, TablePrinter};
use crate::printer::tabwriter::TabWriter;
use crate::printer::{self, Printer};
use crate::resource::Target;
use crate::rest::{self, Call};

enum Sink {
    Table(TablePrinter, TabWriter),
    Objects(Printer),
}

impl Sink {
    fn print(&mut self, object: &Value, event: Option<&str>, mapping: &Mapping) -> Result<String> {
        match self {
            Sink::Table(printer, writer) => {
                if object["kind"] == "Table" {
                    printer.print(object, event, writer);
                } else {
                    let objects = codec::flatten(object.clone());
                    printer.print(&table::from_objects(&objects, jiff::Timestamp::now()), event, writer);
                }
                Ok(writer.flush())
            }
            Sink::Objects(printer) => match event {
                Some(event) if !matches!(printer, Printer::Name { .. }) => {
                    printer.print(&json!({"type": event, "object": printer::shown(object, false)}), None)
                }
                _ => printer.print(object, Some(mapping)),
            },
        }
    }
}

pub(super) async fn watch(options: &Options<'_>) -> Result<()> {
    let ctx = options.ctx;
    let flags = &ctx.parsed;
    if !options.sort_by.is_empty() {
        ctx.streams.err.line(if flags.bool("watch-only") {
            "warning: --watch-only requested, --sort-by will be ignored"
        } else {
            "warning: --watch requested, --sort-by will be ignored for watch events received"
        });
    }
    let targets = options.builder.targets(&ctx.factory, &ctx.streams).await?;
    Error::aggregate(targets.errors)?;
    let mut items = targets.items.into_iter();
    let (Some(target), None) = (items.next(), items.next()) else {
        return Err(Error::message("you may only specify a single resource type"));
    };
    let (mapping, namespace, name) = match target {
        Target::File(info) => (info.mapping, info.namespace, info.name),
        Target::Named { mapping, namespace, name } => (mapping, namespace, name),
        Target::List { mapping, namespace } => (mapping, namespace, String::new()),
    };
    let rest = ctx.factory.rest().await?;
    let as_table = options.human && flags.bool("server-print");
    let dress = |call: Call| if as_table { call.accept(TABLE) } else { call };
    let mut sink = match printer::from_flags(flags, FORMATS) {
        _ if options.human => {
            Sink::Table(TablePrinter::new(options.table_options(&mapping, false)), TabWriter::table())
        }
        Ok(Some(printer)) => Sink::Objects(printer),
        Ok(None) => return Err(Error::message("no output format was given")),
        Err(error) => return Err(error),
    };
    let events = flags.bool("output-watch-events");
    let silent = flags.bool("watch-only");
    let is_list = name.is_empty();
    // What is there now.
    let mut version = "0".to_owned();
    let mut token = String::new();
    loop {
        let call = if is_list {
            options.builder.list_call(&mapping, &namespace, &token)
        } else {
            Call::get(rest::path(&mapping, &namespace, &name, ""))
        };
        let object = match rest.value(dress(call)).await {
            Ok(object) => object,
            Err(error) if error.is_not_found() && options.ignore_not_found => return Ok(()),
            Err(error) => return Err(options.builder.list_error(error, &mapping)),
        };
        if is_list {
            version = codec::text(&object, &["metadata", "resourceVersion"]).to_owned();
            token = codec::text(&object, &["metadata", "continue"]).to_owned();
        }
        if !silent {
            let whole = object["kind"] == "Table";
            let objects = if whole { vec![object] } else { codec::flatten(object) };
            for object in objects {
                ctx.streams.out.text(&sink.print(&object, events.then_some("ADDED"), &mapping)?);
            }
        }
        if token.is_empty() {
            break;
        }
    }
    // A watch of one object starts with an event for what was just printed.
    let mut skip = !is_list && !silent;
    let mut call = dress(Call::get(rest::path(&mapping, &namespace, "", "")))
        .query("labelSelector", options.builder.label_selector.clone().unwrap_or_default())
        .query("resourceVersion", version);
    call = if is_list {
        call.query("fieldSelector", options.builder.field_selector.clone())
    } else {
        call.query("fieldSelector", format!("metadata.name={name}"))
    };
    let stream = rest.watch(call).await?;
    let mut stream = std::pin::pin!(stream);
    while let Some(event) = stream.next().await {
        let event = event?;
        let kind = codec::text(&event, &["type"]).to_owned();
        let object = event.get("object").cloned().unwrap_or(Value::Null);
        if kind == "ERROR" {
            return Err(Error::api(object));
        }
        if kind == "BOOKMARK" || std::mem::take(&mut skip) {
            continue;
        }
        ctx.streams.out.text(&sink.print(&object, events.then_some(kind.as_str()), &mapping)?);
    }
    Ok(())
}
