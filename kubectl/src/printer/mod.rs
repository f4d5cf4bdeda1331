//! Output formats: `-o yaml|json|name|jsonpath=…|go-template=…|custom-columns=…|wide`.

pub mod custom_columns;
pub mod go_value;
pub mod table;
pub mod tabwriter;

use apimachinery::jsonpath::JsonPath;
use serde_json::{Value, json};

use crate::codec;
use crate::error::{Error, Result};
use crate::flags::{Flag, Parsed};
use crate::mapper::Mapping;
use crate::template::Template;

/// Flags of verbs that can print what they made.
pub const PRINT_FLAGS: &[Flag] = &[
    Flag::string("output", "Output format.").short('o'),
    Flag::string("template", "Template string or path to template file to use when -o=go-template, -o=go-template-file."),
    Flag::bool("allow-missing-template-keys", "If true, ignore any errors in templates when a field or map key is missing in the template. Only applies to golang and jsonpath output formats.").default("true"),
    Flag::bool("show-managed-fields", "If true, keep the managedFields when printing objects in JSON or YAML format."),
];

/// A format that prints whole objects.
pub enum Printer {
    /// `-o json`.
    Json {
        /// Keep managedFields.
        managed_fields: bool,
    },
    /// `-o yaml`; documents are separated from the second on.
    Yaml {
        /// Keep managedFields.
        managed_fields: bool,
        /// How many were printed.
        printed: usize,
    },
    /// `-o name`, and the lines verbs say about objects: `pod/x created`.
    Name {
        /// What was done; "" prints the name alone.
        operation: String,
    },
    /// `-o jsonpath=…`.
    JsonPath {
        /// The parsed template.
        path: JsonPath,
        /// Its text.
        template: String,
        /// `-o jsonpath-as-json`: all results as one JSON list.
        as_json: bool,
    },
    /// `-o go-template=…`.
    GoTemplate {
        /// The parsed template.
        template: Box<Template>,
        /// Its text.
        text: String,
    },
    /// `-o custom-columns=…`.
    CustomColumns(custom_columns::CustomColumns),
}

/// The formats of most verbs, as the error for an unknown one lists them.
pub const FORMATS: &str =
    "go-template,go-template-file,json,jsonpath,jsonpath-as-json,jsonpath-file,kyaml,name,template,templatefile,yaml";

/// The printer `-o` asks for; None when it was not given.
///
/// # Errors
/// Unknown formats and malformed templates.
pub fn from_flags(parsed: &Parsed, formats: &str) -> Result<Option<Printer>> {
    let mut output = parsed.str("output").to_owned();
    let template_flag = parsed.str("template");
    if output.is_empty() && !template_flag.is_empty() {
        output = "go-template".into();
    }
    if output.is_empty() {
        return Ok(None);
    }
    from_format(&output, template_flag, parsed, formats).map(Some)
}

fn from_format(output: &str, template_flag: &str, parsed: &Parsed, formats: &str) -> Result<Printer> {
    let managed_fields = parsed.bool("show-managed-fields");
    let allow_missing = !parsed.changed("allow-missing-template-keys") || parsed.bool("allow-missing-template-keys");
    let (format, value) = match output.split_once('=') {
        Some((format, value)) => (format, value.to_owned()),
        None => (output, template_flag.to_owned()),
    };
    let given = |what: &str| -> Result<String> {
        if value.is_empty() {
            Err(Error::message(format!("template format specified but no {what} given")))
        } else {
            Ok(value.clone())
        }
    };
    let file = |what: &str| -> Result<String> {
        let path = given(what)?;
        std::fs::read_to_string(&path)
            .map_err(|error| Error::message(format!("error reading --template {path}, {error}")))
    };
    match format {
        "json" => Ok(Printer::Json { managed_fields }),
        "yaml" => Ok(Printer::Yaml { managed_fields, printed: 0 }),
        "name" => Ok(Printer::Name { operation: String::new() }),
        "jsonpath" | "jsonpath-as-json" | "jsonpath-file" => {
            let template = if format == "jsonpath-file" { file("template")? } else { given("template")? };
            let path = JsonPath::parse(&template)
                .map_err(|error| Error::message(format!("error parsing jsonpath {template}, {error}")))?
                .allow_missing_keys(allow_missing);
            Ok(Printer::JsonPath { path, template, as_json: format == "jsonpath-as-json" })
        }
        "go-template" | "template" | "go-template-file" | "templatefile" => {
            let text = if format.ends_with("file") { file("template")? } else { given("template")? };
            let template = Template::parse(&text)
                .map_err(|error| Error::message(format!("error parsing template {text}, {error}")))?
                .missing_key_is_error(!allow_missing);
            Ok(Printer::GoTemplate { template: Box::new(template), text })
        }
        "custom-columns" | "custom-columns-file" if formats.contains("custom-columns") => {
            if value.is_empty() {
                return Err(Error::message("custom-columns format specified but no custom columns given"));
            }
            let no_headers = parsed.bool("no-headers");
            let columns = if format == "custom-columns" {
                custom_columns::CustomColumns::parse(&value, no_headers)?
            } else {
                let text = std::fs::read_to_string(&value).map_err(|error| {
                    Error::message(format!("error reading template {value}, open {value}: {error}"))
                })?;
                custom_columns::CustomColumns::parse_file(&text, no_headers)?
            };
            Ok(Printer::CustomColumns(columns))
        }
        _ => Err(Error::message(format!(
            "unable to match a printer suitable for the output format {output:?}, allowed formats are: {formats}"
        ))),
    }
}

impl Printer {
    /// The text of one object (which may be a list).
    ///
    /// # Errors
    /// When a template fails on it.
    pub fn print(&mut self, object: &Value, mapping: Option<&Mapping>) -> Result<String> {
        match self {
            Printer::Json { managed_fields } => Ok(codec::json_text(&shown(object, *managed_fields))),
            Printer::Yaml { managed_fields, printed } => {
                *printed += 1;
                let separator = if *printed > 1 { "---\n" } else { "" };
                Ok(format!("{separator}{}", codec::yaml_text(&shown(object, *managed_fields))))
            }
            Printer::Name { operation } => Ok(name_lines(object, mapping, operation)),
            Printer::JsonPath { path, template, as_json } => {
                let rendered = if *as_json {
                    path.find(object).map(|groups| {
                        groups.into_iter().map(|group| codec::json_text(&json!(group))).collect::<String>()
                    })
                } else {
                    path.execute(object)
                };
                rendered.map_err(|error| {
                    Error::message(format!(
                        "error executing jsonpath {template:?}: Error executing template: {error}. Printing more information for debugging the template:\n\ttemplate was:\n\t\t{template}\n\tobject given to jsonpath engine was:\n\t\t{}\n\n",
                        go_value::syntax(object)
                    ))
                })
            }
            Printer::GoTemplate { template, text } => template
                .execute(object)
                .map_err(|error| Error::message(format!("error executing template {text:?}: {error}"))),
            Printer::CustomColumns(columns) => columns.print(object),
        }
    }
}

/// An object without its managedFields, unless they were asked for.
pub fn shown(object: &Value, managed_fields: bool) -> Value {
    let mut object = object.clone();
    if !managed_fields {
        codec::remove(&mut object, &["metadata", "managedFields"]);
        if let Some(Value::Array(items)) = object.get_mut("items") {
            for item in items {
                codec::remove(item, &["metadata", "managedFields"]);
            }
        }
    }
    object
}

fn name_lines(object: &Value, mapping: Option<&Mapping>, operation: &str) -> String {
    if codec::text(object, &["kind"]).ends_with("List") && object.get("items").is_some() {
        return codec::flatten(object.clone()).iter().map(|item| name_lines(item, None, operation)).collect();
    }
    let name = match codec::text(object, &["metadata", "name"]) {
        "" => "<unknown>",
        name => name,
    };
    let kind = match mapping {
        Some(mapping) => mapping.kind_name(),
        None => kind_name(object),
    };
    let suffix = if operation.is_empty() { String::new() } else { format!(" {operation}") };
    format!("{kind}/{name}{suffix}\n")
}

/// `Deployment.apps`, the kind as it is spelled.
pub fn qualified_kind(mapping: &Mapping) -> String {
    if mapping.group.is_empty() { mapping.kind.clone() } else { format!("{}.{}", mapping.kind, mapping.group) }
}

/// `deployment.apps` of an object's own apiVersion and kind.
pub fn kind_name(object: &Value) -> String {
    let kind = codec::text(object, &["kind"]).to_lowercase();
    match codec::text(object, &["apiVersion"]).split_once('/') {
        Some((group, _)) => format!("{kind}.{group}"),
        None => kind,
    }
}
