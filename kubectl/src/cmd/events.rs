//! `kubectl events`: what happened, oldest first, perhaps about one object, perhaps as it goes on.

use futures::{FutureExt, StreamExt};
use serde_json::{Value, json};

use crate::codec;
use crate::command::{Command, Context};
use crate::error::{Error, Result};
use crate::flags::Flag;
use crate::mapper;
use crate::printer::tabwriter::TabWriter;
use crate::printer::{self, PRINT_FLAGS};
use crate::rest::{self, Call};

const FLAGS: &[Flag] = &[
    Flag::bool("all-namespaces", "If present, list the requested object(s) across all namespaces.").short('A'),
    Flag::int("chunk-size", "500", "Return large lists in chunks rather than all at once. Pass 0 to disable."),
    Flag::string("for", "Filter events to only those pertaining to the specified resource."),
    Flag::bool("no-headers", "When using the default output format, don't print headers."),
    Flag::slice("types", "Output only events of given types."),
    Flag::bool("watch", "After listing the requested events, watch for more events.").short('w'),
];

/// `kubectl events`.
pub const COMMAND: Command = Command::new(
    "events",
    "Display events.",
    "[(-o|--output=)FORMAT] [--for TYPE/NAME] [--watch] [--types=Normal,Warning]",
    &[FLAGS, PRINT_FLAGS],
    |ctx| events(ctx).boxed_local(),
);

async fn events(ctx: &Context) -> Result<()> {
    ctx.no_arguments()?;
    let flags = &ctx.parsed;
    let types: Vec<String> = flags.list("types");
    if types.iter().any(|kind| !kind.eq_ignore_ascii_case("normal") && !kind.eq_ignore_ascii_case("warning")) {
        return Err(Error::message("valid --types are Normal or Warning"));
    }
    let (namespace, _) = ctx.factory.namespace()?;
    let all = flags.bool("all-namespaces");
    let scope = if all { String::new() } else { namespace.clone() };
    let mut selector = String::new();
    let target = flags.str("for");
    if !target.is_empty() {
        let (kind, name) =
            target.split_once('/').ok_or_else(|| Error::message("--for must be in resource/name form"))?;
        let mapping = mapper::resolve(&ctx.factory, kind).await?;
        selector = format!(
            "involvedObject.kind={},involvedObject.apiVersion={},involvedObject.name={name}",
            mapping.kind,
            mapping.api_version()
        );
    }
    let wanted = |event: &Value| {
        types.is_empty() || types.iter().any(|kind| kind.eq_ignore_ascii_case(codec::text(event, &["type"])))
    };
    let mapping = mapper::resolve(&ctx.factory, "events").await?;
    let rest = ctx.factory.rest().await?;
    let path = rest::path(&mapping, &scope, "", "");
    let mut found: Vec<Value> = Vec::new();
    let mut token = String::new();
    let version = loop {
        let call = Call::get(&path)
            .query("fieldSelector", &selector)
            .query("limit", flags.str("chunk-size"))
            .query("continue", &token);
        let page = rest.value(call).await?;
        token = codec::text(&page, &["metadata", "continue"]).to_owned();
        let version = codec::text(&page, &["metadata", "resourceVersion"]).to_owned();
        found.extend(codec::flatten(page).into_iter().filter(|event| wanted(event)));
        if token.is_empty() {
            break version;
        }
    };
    found.sort_by_key(last_seen);
    let mut printer = printer::from_flags(flags, printer::FORMATS)?;
    if found.is_empty() && !flags.bool("watch") {
        let err = &ctx.streams.err;
        if all {
            err.line("No events found.")
        } else {
            err.line(&format!("No events found in {namespace} namespace."))
        }
        return Ok(());
    }
    let now = jiff::Timestamp::now();
    let mut writer = TabWriter::table();
    match &mut printer {
        Some(printer) => {
            let list = json!({"apiVersion": "v1", "kind": "List", "metadata": {}, "items": found});
            ctx.streams.out.text(&printer.print(&list, None)?);
        }
        None => {
            if !flags.bool("no-headers") {
                writer.push(if all { "NAMESPACE\t" } else { "" });
                writer.push("LAST SEEN\tTYPE\tREASON\tOBJECT\tMESSAGE\n");
            }
            found.iter().for_each(|event| writer.push(&line(event, all, now)));
            ctx.streams.out.text(&writer.flush());
        }
    }
    if !flags.bool("watch") {
        return Ok(());
    }
    let stream =
        rest.watch(Call::get(&path).query("fieldSelector", &selector).query("resourceVersion", version)).await?;
    let mut stream = std::pin::pin!(stream);
    while let Some(event) = stream.next().await {
        let event = event?;
        let object = &event["object"];
        if event["type"] == "ERROR" {
            return Err(Error::api(object.clone()));
        }
        if event["type"] == "DELETED" || !wanted(object) {
            continue;
        }
        let text = match &mut printer {
            Some(printer) => printer.print(object, None)?,
            None => {
                writer.push(&line(object, all, jiff::Timestamp::now()));
                writer.flush()
            }
        };
        ctx.streams.out.text(&text);
    }
    Ok(())
}

/// When an event was last seen, as the text it carries.
fn last_seen(event: &Value) -> String {
    let first = |paths: &[&[&str]]| {
        paths.iter().map(|path| codec::text(event, path)).find(|text| !text.is_empty()).unwrap_or("").to_owned()
    };
    first(&[&["series", "lastObservedTime"], &["lastTimestamp"], &["eventTime"]])
}

fn line(event: &Value, with_namespace: bool, now: jiff::Timestamp) -> String {
    let since = |path: &[&str]| api::printers::cells::since(event, path, now);
    let first =
        if codec::at(event, &["eventTime"]).is_some() { since(&["eventTime"]) } else { since(&["firstTimestamp"]) };
    let count = codec::int(event, &["count"]).unwrap_or(0);
    let age = if codec::at(event, &["series"]).is_some() {
        let count = codec::int(event, &["series", "count"]).unwrap_or(0);
        format!("{} (x{count} over {first})", since(&["series", "lastObservedTime"]))
    } else if count > 1 {
        format!("{} (x{count} over {first})", since(&["lastTimestamp"]))
    } else {
        first
    };
    let namespace =
        if with_namespace { format!("{}\t", codec::text(event, &["metadata", "namespace"])) } else { String::new() };
    format!(
        "{namespace}{age}\t{}\t{}\t{}/{}\t{}\n",
        codec::text(event, &["type"]),
        codec::text(event, &["reason"]),
        codec::text(event, &["involvedObject", "kind"]),
        codec::text(event, &["involvedObject", "name"]),
        codec::text(event, &["message"]).trim()
    )
}
