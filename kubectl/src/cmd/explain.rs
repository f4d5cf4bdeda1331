//! `kubectl explain`: what the fields of a resource mean, out of the server's OpenAPI v3.

use futures::FutureExt;
use futures::future::LocalBoxFuture;
use serde_json::Value;

use crate::codec;
use crate::command::{Command, Context};
use crate::error::{Error, Result};
use crate::flags::Flag;
use crate::mapper::{self, Mapping};
use crate::rest::Call;

const FLAGS: &[Flag] = &[
    Flag::string("api-version", "Use given api-version (group/version) of the resource."),
    Flag::string("output", "Format in which to render the schema. Valid values are: (plaintext, plaintext-openapiv2).")
        .short('o')
        .default("plaintext"),
    Flag::bool(
        "recursive",
        "When true, print the name of all the fields recursively. Otherwise, print the available fields with their description.",
    ),
];

/// `kubectl explain`.
pub const COMMAND: Command = Command::new(
    "explain",
    "Describe fields and structure of various resources.",
    "TYPE [--recursive=FALSE|TRUE] [--api-version=api-version-group] [-o|--output=plaintext|plaintext-openapiv2]",
    &[FLAGS],
    run,
);

/// Schemas refer to each other; following deeper than this is a cycle nobody noticed.
const MAX_DEPTH: usize = 64;

fn run(ctx: &Context) -> LocalBoxFuture<'_, Result<()>> {
    explain(ctx).boxed_local()
}

async fn explain(ctx: &Context) -> Result<()> {
    let [argument] = ctx.parsed.args.as_slice() else {
        return Err(Error::message(if ctx.parsed.args.is_empty() {
            "You must specify the type of resource to explain. Use \"kubectl api-resources\" for a complete list of supported resources.\n"
        } else {
            "We accept only this format: explain RESOURCE\n"
        }));
    };
    let format = ctx.parsed.str("output");
    if !matches!(format, "plaintext" | "plaintext-openapiv2") {
        return Err(Error::message(format!("unrecognized format: {format}")));
    }
    let (mut mapping, fields) = split(ctx, argument).await?;
    let version = ctx.parsed.str("api-version");
    if !version.is_empty() {
        let (group, version) = version.split_once('/').unwrap_or(("", version));
        mapping.group = group.to_owned();
        mapping.version = version.to_owned();
    }
    let rest = ctx.factory.rest().await?;
    let index = rest.value(Call::get("/openapi/v3")).await?;
    let key = if mapping.group.is_empty() {
        format!("api/{}", mapping.version)
    } else {
        format!("apis/{}/{}", mapping.group, mapping.version)
    };
    let Some(url) = index["paths"][&key]["serverRelativeURL"].as_str() else {
        return Err(Error::message(format!(
            "couldn't find resource for \"{}/{}, Resource={}\"",
            mapping.group, mapping.version, mapping.resource
        )));
    };
    let document = rest.value(Call::get(url)).await?;
    let view = View { document: &document, recursive: ctx.parsed.bool("recursive") };
    let (text, missing) = view.render(&mapping, &fields)?;
    ctx.streams.out.text(&text);
    if let Some(error) = missing {
        return Err(error);
    }
    Ok(())
}

/// The resource an argument begins with, and the path that follows it.
async fn split(ctx: &Context, argument: &str) -> Result<(Mapping, Vec<String>)> {
    let parts: Vec<&str> = argument.trim_end_matches('.').split('.').collect();
    let found = ctx.factory.mapper().await?;
    for length in (1..=parts.len()).rev() {
        if let Some(mapping) = found.resource(&parts[..length].join(".")) {
            return Ok((mapping, parts[length..].iter().map(|part| (*part).to_owned()).collect()));
        }
    }
    // Perhaps it is served since the cache was written.
    let mapping = mapper::resolve(&ctx.factory, parts[0]).await.map_err(|error| Error::Plain(error.to_string()))?;
    Ok((mapping, parts[1..].iter().map(|part| (*part).to_owned()).collect()))
}

struct View<'a> {
    document: &'a Value,
    recursive: bool,
}

impl<'a> View<'a> {
    /// The text, and what was not found after its beginning.
    fn render(&self, mapping: &Mapping, fields: &[String]) -> Result<(String, Option<Error>)> {
        let not_found = || {
            Error::Plain(format!(
                "error: GVR ({}/{}, Resource={}) not found in OpenAPI schema",
                mapping.group, mapping.version, mapping.resource
            ))
        };
        let wanted = |kind: &Value| {
            kind["group"].as_str() == Some(&mapping.group)
                && kind["version"].as_str() == Some(&mapping.version)
                && kind["kind"].as_str() == Some(&mapping.kind)
        };
        let schemas = self.document["components"]["schemas"].as_object().ok_or_else(not_found)?;
        let schema = schemas
            .values()
            .find(|schema| codec::list(schema, &["x-kubernetes-group-version-kind"]).iter().any(wanted))
            .ok_or_else(not_found)?;
        let mut out = String::new();
        if !mapping.group.is_empty() {
            out.push_str(&format!("GROUP:      {}\n", mapping.group));
        }
        out.push_str(&format!("KIND:       {}\nVERSION:    {}\n\n", mapping.kind, mapping.version));
        match self.output(schema, fields, 0) {
            Some(text) => out.push_str(&text),
            None => {
                let field = fields.last().map_or("", String::as_str);
                return Ok((out, Some(Error::message(format!("field {field:?} does not exist")))));
            }
        }
        out.push('\n');
        Ok((out, None))
    }

    fn resolve(&self, schema: &'a Value) -> &'a Value {
        let Some(reference) = schema["$ref"].as_str() else { return schema };
        let name = reference.rsplit('/').next().unwrap_or(reference);
        self.document["components"]["schemas"].get(name).unwrap_or(schema)
    }

    /// Follows a path, then shows where it led. None when the path leads nowhere.
    fn output(&self, schema: &'a Value, fields: &[String], depth: usize) -> Option<String> {
        if depth > MAX_DEPTH {
            return None;
        }
        let resolved = self.resolve(schema);
        let Some((first, rest)) = fields.split_first() else {
            let mut text = String::from("DESCRIPTION:\n");
            let description = self.description(schema, 0);
            let description = if description.is_empty() { "<empty>" } else { &description };
            text.push_str(&indent(4, &wrap(76, description)));
            text.push('\n');
            if let Some(docs) = codec::at(resolved, &["externalDocs"]) {
                text.push_str("\nEXTERNAL DOCS:\n");
                let about = codec::text(docs, &["description"]);
                if !about.is_empty() {
                    text.push_str(&format!("{}\n", indent(4, &wrap(76, about))));
                }
                text.push_str(&format!("    URL: {}\n", codec::text(docs, &["url"])));
            }
            let mut list = String::new();
            self.field_list(schema, 1, &mut Vec::new(), &mut list);
            if !list.is_empty() {
                text.push_str("FIELDS:\n");
                text.push_str(&list);
            }
            return Some(text);
        };
        if let Some(property) = resolved["properties"].get(first) {
            let mut text = String::new();
            if rest.is_empty() {
                text.push_str(&format!("FIELD: {first} <{}>\n", self.type_guess(property, 0)));
                text.push_str(&enumeration(property, None));
                text.push_str("\n\n");
            }
            text.push_str(&self.output(property, rest, depth + 1)?);
            return Some(text);
        }
        if let Some(items) = codec::at(resolved, &["items"]) {
            return self.output(items, fields, depth + 1);
        }
        if let Some(values) = resolved.get("additionalProperties").filter(|values| values.is_object()) {
            return self.output(values, fields, depth + 1);
        }
        codec::list(resolved, &["allOf"]).iter().find_map(|part| self.output(part, fields, depth + 1))
    }

    fn description(&self, schema: &'a Value, depth: usize) -> String {
        if depth > MAX_DEPTH {
            return String::new();
        }
        let resolved = self.resolve(schema);
        let mut text = String::new();
        let own = codec::text(resolved, &["description"]);
        if !own.is_empty() {
            text.push_str(own);
            text.push('\n');
        }
        for part in codec::list(resolved, &["allOf"]) {
            text.push_str(&self.description(part, depth + 1));
        }
        if let Some(items) = codec::at(resolved, &["items"]) {
            text.push_str(&self.description(items, depth + 1));
        }
        if let Some(values) = resolved.get("additionalProperties").filter(|values| values.is_object()) {
            text.push_str(&self.description(values, depth + 1));
        }
        text
    }

    /// The fields of a schema; with `--recursive` those below them too. `seen` breaks cycles.
    fn field_list(&self, schema: &'a Value, level: usize, seen: &mut Vec<&'a str>, out: &mut String) {
        let reference = schema["$ref"].as_str();
        if reference.is_some_and(|reference| seen.contains(&reference)) || level > MAX_DEPTH {
            return;
        }
        seen.extend(reference);
        let resolved = self.resolve(schema);
        if let Some(properties) = resolved["properties"].as_object() {
            for (name, property) in properties {
                self.field_detail(resolved, name, property, level, out);
                if self.recursive {
                    self.field_list(property, level + 1, seen, out);
                }
            }
        }
        for part in codec::list(resolved, &["allOf"]) {
            self.field_list(part, level, seen, out);
        }
        if let Some(items) = codec::at(resolved, &["items"]) {
            self.field_list(items, level, seen, out);
        }
        if let Some(values) = resolved.get("additionalProperties").filter(|values| values.is_object()) {
            self.field_list(values, level, seen, out);
        }
        if reference.is_some() {
            seen.pop();
        }
    }

    fn field_detail(&self, schema: &'a Value, name: &str, property: &'a Value, level: usize, out: &mut String) {
        let amount = level * 2;
        out.push_str(&format!("{}{name}\t<{}>", " ".repeat(amount), self.type_guess(property, 0)));
        if codec::list(schema, &["required"]).iter().any(|required| required == name) {
            out.push_str(" -required-");
        }
        out.push_str(&enumeration(property, Some(amount)));
        out.push('\n');
        if self.recursive {
            return;
        }
        let description = match codec::text(property, &["description"]) {
            "" => "<no description>",
            text => text,
        };
        out.push_str(&indent(amount + 2, &wrap(78 - amount, description)));
        out.push_str("\n\n");
    }

    /// A type as people call it: `string`, `[]Container`, `map[string]string`.
    fn type_guess(&self, schema: &'a Value, depth: usize) -> String {
        if depth > MAX_DEPTH {
            return "Object".into();
        }
        if let Some(items) = codec::at(schema, &["items"]) {
            return format!("[]{}", self.type_guess(items, depth + 1));
        }
        if let Some(values) = schema.get("additionalProperties").filter(|values| values.is_object()) {
            return format!("map[string]{}", self.type_guess(values, depth + 1));
        }
        if let ([only], None) = (codec::list(schema, &["allOf"]), codec::at(schema, &["properties"])) {
            return self.type_guess(only, depth + 1);
        }
        if let Some(reference) = schema["$ref"].as_str() {
            let kind = codec::text(self.resolve(schema), &["type"]);
            if kind.is_empty() || kind == "object" {
                let name = reference.rsplit('/').next().unwrap_or(reference);
                return name.rsplit('.').next().unwrap_or(name).to_owned();
            }
            return kind.to_owned();
        }
        match codec::text(schema, &["type"]) {
            "" | "object" => "Object".into(),
            kind => kind.to_owned(),
        }
    }
}

/// A field's allowed values: all of them on lines of their own, or the first four behind it.
fn enumeration(schema: &Value, short: Option<usize>) -> String {
    let values = codec::list(schema, &["enum"]);
    if values.is_empty() {
        return String::new();
    }
    let shown = |value: &Value| match value.as_str() {
        Some("") => "\"\"".to_owned(),
        Some(text) => text.to_owned(),
        None => value.to_string(),
    };
    match short {
        Some(amount) => {
            const MAX: usize = 4;
            let first: Vec<String> = values.iter().take(MAX).map(shown).collect();
            let more = if values.len() > MAX { ", ...." } else { "" };
            format!("\n{}enum: {}{more}", " ".repeat(amount), first.join(", "))
        }
        None => {
            let lines: String = values.iter().map(|value| format!("\n    {}", shown(value))).collect();
            format!("ENUM:{lines}")
        }
    }
}

fn indent(amount: usize, text: &str) -> String {
    let pad = " ".repeat(amount);
    format!("{pad}{}", text.replace('\n', &format!("\n{pad}")))
}

/// Breaks lines at spaces; a word longer than a line stays whole.
fn wrap(limit: usize, text: &str) -> String {
    let mut out = String::new();
    let (mut word, mut space) = (String::new(), String::new());
    let mut current = 0;
    let width = |text: &str| text.chars().count();
    for c in text.chars() {
        if c == '\n' {
            if word.is_empty() {
                if current + width(&space) <= limit {
                    out.push_str(&space);
                }
            } else {
                out.push_str(&space);
                out.push_str(&word);
            }
            space.clear();
            word.clear();
            out.push('\n');
            current = 0;
        } else if c.is_whitespace() && c != '\u{a0}' {
            if space.is_empty() || !word.is_empty() {
                current += width(&space) + width(&word);
                out.push_str(&std::mem::take(&mut space));
                out.push_str(&std::mem::take(&mut word));
            }
            space.push(c);
        } else {
            word.push(c);
            if current + width(&word) + width(&space) > limit && width(&word) < limit {
                out.push('\n');
                current = 0;
                space.clear();
            }
        }
    }
    if !word.is_empty() {
        out.push_str(&space);
        out.push_str(&word);
    } else if current + width(&space) <= limit {
        out.push_str(&space);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::wrap;

    #[test]
    fn wraps_at_spaces() {
        assert_eq!(wrap(10, "one two three four"), "one two\nthree four");
        assert_eq!(wrap(4, "incomprehensible x"), "incomprehensible\nx");
        assert_eq!(wrap(20, "a\n\nb\n"), "a\n\nb\n");
    }
}
