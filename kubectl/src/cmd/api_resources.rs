//! `kubectl api-resources` and `kubectl api-versions`: what the server serves.

use futures::FutureExt;
use futures::future::LocalBoxFuture;
use serde_json::{Value, json};

use crate::codec;
use crate::command::{Command, Context};
use crate::discovery::Resource;
use crate::error::{Error, Result};
use crate::flags::Flag;
use crate::printer::tabwriter::TabWriter;

const FLAGS: &[Flag] = &[
    Flag::string("api-group", "Limit to resources in the specified API group."),
    Flag::bool("cached", "Use the cached list of resources if available."),
    Flag::slice("categories", "Limit to resources that belong to the specified categories."),
    Flag::bool(
        "namespaced",
        "If false, non-namespaced resources will be returned, otherwise returning namespaced resources by default.",
    )
    .default("true"),
    Flag::bool(
        "no-headers",
        "When using the default or custom-column output format, don't print headers (default print headers).",
    ),
    Flag::string("output", "Output format. One of: (json, yaml, name, wide).").short('o'),
    Flag::string(
        "sort-by",
        "If non-empty, sort list of resources using specified field. The field can be either 'name' or 'kind'.",
    ),
    Flag::slice("verbs", "Limit to resources that support the specified verbs."),
];

/// `kubectl api-resources`.
pub const COMMAND: Command =
    Command::new("api-resources", "Print the supported API resources on the server.", "", &[FLAGS], run);

/// `kubectl api-versions`.
pub const VERSIONS: Command = Command::new(
    "api-versions",
    "Print the supported API versions on the server, in the form of \"group/version\".",
    "",
    &[],
    versions,
);

fn run(ctx: &Context) -> LocalBoxFuture<'_, Result<()>> {
    resources(ctx).boxed_local()
}

fn versions(ctx: &Context) -> LocalBoxFuture<'_, Result<()>> {
    async {
        ctx.no_arguments()?;
        let mapper = ctx.factory.fresh_mapper().await?;
        let mut names: Vec<String> = mapper
            .discovery()
            .groups
            .iter()
            .flat_map(|group| group.versions.iter().map(|version| api_version(&group.name, &version.name)))
            .collect();
        names.sort();
        ctx.streams.out.text(&names.iter().map(|name| format!("{name}\n")).collect::<String>());
        Ok(())
    }
    .boxed_local()
}

fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

struct Row<'a> {
    group: &'a str,
    api_version: String,
    resource: &'a Resource,
}

async fn resources(ctx: &Context) -> Result<()> {
    ctx.no_arguments()?;
    let flags = &ctx.parsed;
    let output = flags.str("output");
    if !matches!(output, "" | "wide" | "name" | "json" | "yaml") {
        return Err(Error::message(format!("--output {output} is not available")));
    }
    let sort = flags.str("sort-by");
    if !matches!(sort, "" | "name" | "kind") {
        return Err(Error::message("--sort-by accepts only name or kind"));
    }
    let mapper = if flags.bool("cached") { ctx.factory.mapper().await? } else { ctx.factory.fresh_mapper().await? };
    let (verbs, categories) = (flags.list("verbs"), flags.list("categories"));
    let mut rows: Vec<Row<'_>> = Vec::new();
    for group in &mapper.discovery().groups {
        if flags.changed("api-group") && flags.str("api-group") != group.name {
            continue;
        }
        let Some(version) = group.versions.first() else { continue };
        for resource in &version.resources {
            let unwanted = resource.name.contains('/')
                || resource.verbs.is_empty()
                || (flags.changed("namespaced") && flags.bool("namespaced") != resource.namespaced)
                || !verbs.iter().all(|verb| resource.verbs.contains(verb))
                || !categories.iter().all(|category| resource.categories.contains(category));
            if !unwanted {
                rows.push(Row { group: &group.name, api_version: api_version(&group.name, &version.name), resource });
            }
        }
    }
    match sort {
        "name" => rows.sort_by(|a, b| a.resource.name.cmp(&b.resource.name)),
        "kind" => rows.sort_by(|a, b| a.resource.kind.cmp(&b.resource.kind)),
        _ => rows.sort_by(|a, b| (a.group, &a.resource.name).cmp(&(b.group, &b.resource.name))),
    }
    let text = match output {
        "json" => codec::json_text(&list(&rows)),
        "yaml" => codec::yaml_text(&list(&rows)),
        _ => lines(&rows, output, flags.bool("no-headers")),
    };
    ctx.streams.out.text(&text);
    let stale = &mapper.discovery().stale;
    if stale.is_empty() {
        return Ok(());
    }
    let all: Vec<String> =
        stale.iter().map(|group| format!("{group}: stale GroupVersion discovery: {group}")).collect();
    Err(Error::message(format!("unable to retrieve the complete list of server APIs: {}", all.join(", "))))
}

fn list(rows: &[Row<'_>]) -> Value {
    let items: Vec<Value> = rows
        .iter()
        .map(|row| {
            let resource = row.resource;
            let mut item = json!({
                "name": resource.name, "singularName": resource.singular, "namespaced": resource.namespaced,
                "kind": resource.kind, "verbs": resource.verbs, "version": row.api_version.rsplit('/').next(),
            });
            if !row.group.is_empty() {
                item["group"] = json!(row.group);
            }
            if !resource.short_names.is_empty() {
                item["shortNames"] = json!(resource.short_names);
            }
            if !resource.categories.is_empty() {
                item["categories"] = json!(resource.categories);
            }
            item
        })
        .collect();
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "", "resources": items})
}

fn lines(rows: &[Row<'_>], output: &str, no_headers: bool) -> String {
    let mut writer = TabWriter::table();
    if output == "name" {
        for row in rows {
            let suffix = if row.group.is_empty() { String::new() } else { format!(".{}", row.group) };
            writer.push(&format!("{}{suffix}\n", row.resource.name));
        }
        return writer.flush();
    }
    if !no_headers {
        writer.push("NAME\tSHORTNAMES\tAPIVERSION\tNAMESPACED\tKIND");
        writer.push(if output == "wide" { "\tVERBS\tCATEGORIES\n" } else { "\n" });
    }
    for row in rows {
        let resource = row.resource;
        let mut cells = vec![
            resource.name.clone(),
            resource.short_names.join(","),
            row.api_version.clone(),
            resource.namespaced.to_string(),
            resource.kind.clone(),
        ];
        if output == "wide" {
            cells.extend([resource.verbs.join(","), resource.categories.join(",")]);
        }
        writer.push(&(cells.join("\t") + "\n"));
    }
    writer.flush()
}
