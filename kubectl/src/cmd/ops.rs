//! What several verbs share: dry run, field validation, creating and patching one object, printing
//! what was done.

use http::Method;
use serde_json::{Value, json};

use crate::codec;
use crate::error::{Error, Result};
use crate::factory::Factory;
use crate::flags::{Flag, Parsed};
use crate::printer::{self, FORMATS, Printer};
use crate::resource::Info;
use crate::rest::{self, Call};
use crate::streams::Streams;

/// `--dry-run`.
pub const DRY_RUN: Flag = Flag::string("dry-run", "Must be \"none\", \"server\", or \"client\". If client strategy, only print the object that would be sent, without sending it. If server strategy, submit server-side request without persisting the resource.")
    .default("none")
    .bare("unchanged");

/// `--validate`.
pub const VALIDATE: Flag = Flag::string("validate", "Must be one of: strict (or true), warn, ignore (or false). \"true\" or \"strict\" will use a schema to validate the input and fail the request if invalid.")
    .default("strict")
    .bare("strict");

/// How far a command goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DryRun {
    /// All the way.
    None,
    /// Only here.
    Client,
    /// To the server, which stores nothing.
    Server,
}

impl DryRun {
    /// From `--dry-run`.
    ///
    /// # Errors
    /// On an unknown value.
    pub fn from_flags(parsed: &Parsed) -> Result<Self> {
        match parsed.str("dry-run") {
            "" | "none" => Ok(DryRun::None),
            "client" => Ok(DryRun::Client),
            "server" => Ok(DryRun::Server),
            "unchanged" => Err(Error::message(
                "--dry-run flag without a value was specified. A value must be set: \"none\", \"server\", or \"client\"",
            )),
            other => Err(Error::message(format!(
                "Invalid dry-run value ({other}). Must be \"none\", \"server\", or \"client\"."
            ))),
        }
    }

    /// The words it adds to what was done.
    pub fn suffix(self) -> &'static str {
        match self {
            DryRun::None => "",
            DryRun::Client => " (dry run)",
            DryRun::Server => " (server dry run)",
        }
    }

    /// The query parameter's value.
    pub fn query(self) -> &'static str {
        if self == DryRun::Server { "All" } else { "" }
    }
}

/// The `fieldValidation` that `--validate` asks for.
///
/// # Errors
/// On an unknown value.
pub fn field_validation(parsed: &Parsed) -> Result<&'static str> {
    match parsed.str("validate") {
        "strict" | "true" => Ok("Strict"),
        "warn" => Ok("Warn"),
        "ignore" | "false" => Ok("Ignore"),
        "" => Ok(""),
        other => Err(Error::message(format!(
            "invalid - validate option {other:?}; must be one of: strict (or true), warn, ignore (or false)"
        ))),
    }
}

/// Options of a writing request.
#[derive(Debug, Clone, Copy)]
pub struct Write<'a> {
    /// Who says it changed fields.
    pub field_manager: &'a str,
    /// `Strict`, `Warn`, `Ignore` or "" for the server's default.
    pub field_validation: &'a str,
    /// Whether the server stores it.
    pub dry_run: DryRun,
}

impl Write<'_> {
    fn dress(&self, call: Call) -> Call {
        call.query("dryRun", self.dry_run.query())
            .query("fieldManager", self.field_manager)
            .query("fieldValidation", self.field_validation)
    }

    /// Creates an object.
    ///
    /// # Errors
    /// What the API or the transport said.
    pub async fn create(&self, factory: &Factory, info: &Info, object: &Value) -> Result<Value> {
        let mut object = object.clone();
        codec::remove(&mut object, &["metadata", "resourceVersion"]);
        let path = rest::path(&info.mapping, &info.namespace, "", "");
        factory.rest().await?.value(self.dress(Call::new(Method::POST, path).json(&object))).await
    }

    /// Patches an object or its subresource.
    ///
    /// # Errors
    /// What the API or the transport said.
    pub async fn patch(
        &self,
        factory: &Factory,
        info: &Info,
        subresource: &str,
        kind: &'static str,
        patch: &Value,
    ) -> Result<Value> {
        self.patch_query(factory, info, subresource, kind, patch, &[]).await
    }

    /// [`Write::patch`] with more query parameters.
    ///
    /// # Errors
    /// What the API or the transport said.
    pub async fn patch_query(
        &self,
        factory: &Factory,
        info: &Info,
        subresource: &str,
        kind: &'static str,
        patch: &Value,
        query: &[(&str, &str)],
    ) -> Result<Value> {
        let body = serde_json::to_vec(patch).expect("a tree always encodes");
        self.send_patch(factory, info, subresource, kind, body, query).await
    }

    /// [`Write::patch`] with a patch as it was written.
    ///
    /// # Errors
    /// What the API or the transport said.
    pub async fn patch_text(
        &self,
        factory: &Factory,
        info: &Info,
        subresource: &str,
        kind: &'static str,
        patch: String,
    ) -> Result<Value> {
        self.send_patch(factory, info, subresource, kind, patch.into_bytes(), &[]).await
    }

    async fn send_patch(
        &self,
        factory: &Factory,
        info: &Info,
        subresource: &str,
        kind: &'static str,
        body: Vec<u8>,
        query: &[(&str, &str)],
    ) -> Result<Value> {
        let mut call = Call::new(Method::PATCH, info.path(subresource)).body(kind, body);
        for (key, value) in query {
            call = call.query(key, *value);
        }
        factory.rest().await?.value(self.dress(call)).await
    }

    /// Replaces an object.
    ///
    /// # Errors
    /// What the API or the transport said.
    pub async fn replace(&self, factory: &Factory, info: &Info, subresource: &str, object: &Value) -> Result<Value> {
        let call = Call::new(Method::PUT, info.path(subresource)).json(object);
        factory.rest().await?.value(self.dress(call)).await
    }
}

/// RFC 7386.
pub const MERGE_PATCH: &str = "application/merge-patch+json";
/// RFC 6902.
pub const JSON_PATCH: &str = "application/json-patch+json";
/// Kubernetes' own.
pub const STRATEGIC_PATCH: &str = "application/strategic-merge-patch+json";
/// Server-side apply.
pub const APPLY_PATCH: &str = "application/apply-patch+yaml";

/// Prints what a verb did: a line, or the object in the format asked for.
pub struct Done {
    printer: Printer,
    named: bool,
    dry_run: DryRun,
}

impl Done {
    /// From `-o` and `--dry-run`.
    ///
    /// # Errors
    /// On unknown formats and malformed templates.
    pub fn from_flags(parsed: &Parsed, dry_run: DryRun) -> Result<Self> {
        let given = printer::from_flags(parsed, FORMATS)?;
        let named = given.is_none();
        let printer = given.unwrap_or(Printer::Name { operation: String::new() });
        Ok(Done { printer, named, dry_run })
    }

    /// Whether objects are printed whole.
    pub fn prints_objects(&self) -> bool {
        !self.named
    }

    /// Prints one object, of which `operation` was done.
    ///
    /// # Errors
    /// When a template fails.
    pub fn print(&mut self, streams: &Streams, info: &Info, operation: &str) -> Result<()> {
        if self.named {
            self.printer = Printer::Name { operation: format!("{operation}{}", self.dry_run.suffix()) };
        }
        streams.out.text(&self.printer.print(&info.object, Some(&info.mapping))?);
        Ok(())
    }
}

/// The annotation client-side apply keeps its last input in.
pub const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The object as JSON, as the last-applied annotation holds it.
pub fn configuration(object: &Value) -> String {
    let mut object = object.clone();
    codec::remove(&mut object, &["metadata", "annotations", LAST_APPLIED]);
    // Upstream's encoder always writes the map, and so compares it.
    if codec::at(&object, &["metadata", "annotations"]).is_none() {
        codec::set(&mut object, &["metadata", "annotations"], json!({}));
    }
    codec::compact(&object) + "\n"
}

/// Sets the last-applied annotation.
pub fn annotate(object: &mut Value) {
    let text = configuration(object);
    codec::set(object, &["metadata", "annotations", LAST_APPLIED], Value::String(text));
}

/// The built-in schema of a resource's kind, which strategic patches need.
pub fn schema(info: &Info) -> Option<apimachinery::schema::TypeRef<'static>> {
    let mapping = &info.mapping;
    api::table().find_resource_by_kind(&mapping.group, &mapping.version, &mapping.kind)?;
    api::table().find_kind(&mapping.group, &mapping.version, &mapping.kind)
}

/// Removes nulls from maps, as a patch applied to nothing would.
pub fn prune_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(prune_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(prune_nulls),
        _ => {}
    }
}
