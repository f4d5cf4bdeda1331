//! Every path of a resource and what can be done there, before it is written in a dialect.

use apimachinery::schema::Type;

use super::descriptions::{descriptions, of_parameter};
use crate::{Resource, Subresource, table};

/// One HTTP method of one path.
pub(super) struct Operation {
    pub path: String,
    /// Lower case.
    pub method: &'static str,
    pub id: String,
    pub description: String,
    /// `x-kubernetes-action`.
    pub action: Option<&'static str>,
    /// `x-kubernetes-group-version-kind`.
    pub kind: Option<(String, String, String)>,
    pub tag: String,
    pub parameters: Vec<Parameter>,
    pub body: Option<Body>,
    /// Status, what it means, content.
    pub responses: Vec<(&'static str, &'static str, Content)>,
    pub produces: Produces,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Parameter {
    pub name: String,
    /// `path` or `query`.
    pub place: &'static str,
    pub ty: &'static str,
    pub description: Option<String>,
}

pub(super) enum Body {
    /// `*/*` with this schema.
    Whole { schema: String, required: bool },
    /// A patch, in any of its media types.
    Patch,
    /// A patch of a custom resource, which cannot be merged strategically.
    CustomPatch,
}

#[derive(Clone)]
pub(super) enum Content {
    None,
    Schema(String),
    Text,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Produces {
    /// JSON, YAML, protobuf.
    Object,
    /// JSON, YAML: custom resources.
    Custom,
    /// Those and their watch streams.
    Stream,
    /// Those and plain text.
    Log,
    /// Whatever the other end of a connection says.
    Any,
    /// JSON only.
    Json,
    /// A JSON web key set.
    KeySet,
}

const STATUS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";
const WATCH_EVENT: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.WatchEvent";
const DELETE_OPTIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";

/// Kinds whose delete answers with the object instead of a Status.
const RETURNED_WHEN_DELETED: &[&str] = &[
    "CSIDriver",
    "CSINode",
    "DeviceClass",
    "PersistentVolume",
    "PersistentVolumeClaim",
    "Pod",
    "PodTemplate",
    "ResourceClaim",
    "ResourceClaimTemplate",
    "ResourceQuota",
    "ResourceSlice",
    "Service",
    "ServiceAccount",
    "StorageClass",
    "VolumeAttachment",
    "VolumeAttributesClass",
];

const LIST: &[(&str, &str)] = &[
    ("allowWatchBookmarks", "boolean"),
    ("continue", "string"),
    ("fieldSelector", "string"),
    ("labelSelector", "string"),
    ("limit", "integer"),
    ("resourceVersion", "string"),
    ("resourceVersionMatch", "string"),
    ("sendInitialEvents", "boolean"),
    ("shardSelector", "string"),
    ("timeoutSeconds", "integer"),
    ("watch", "boolean"),
];
const DELETE: &[(&str, &str)] = &[
    ("dryRun", "string"),
    ("gracePeriodSeconds", "integer"),
    ("ignoreStoreReadErrorWithClusterBreakingPotential", "boolean"),
    ("orphanDependents", "boolean"),
    ("propagationPolicy", "string"),
];
const WRITE: &[(&str, &str)] = &[("dryRun", "string"), ("fieldManager", "string"), ("fieldValidation", "string")];

/// `rbac.authorization.k8s.io` → `rbacAuthorization`; core is `core`.
fn group_words(group: &str) -> String {
    if group.is_empty() {
        return "core".to_owned();
    }
    let parts: Vec<&str> = group.strip_suffix(".k8s.io").unwrap_or(group).split('.').collect();
    parts.iter().enumerate().map(|(index, part)| if index == 0 { (*part).to_owned() } else { capital(part) }).collect()
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

/// The first line of a group version's document: `/apis/apps/v1/`.
pub(super) fn base_path(group: &str, version: &str) -> String {
    if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") }
}

/// `GET` of a discovery document.
pub(super) fn discovery(path: &str, group: Option<&str>, version: Option<&str>) -> Operation {
    let meta = |kind: &str| format!("io.k8s.apimachinery.pkg.apis.meta.v1.{kind}");
    let words = |group: &str| capital(&group_words(group));
    let (id, description, tag, schema) = match (group, version) {
        (Some(group), Some(version)) => (
            format!("get{}{}APIResources", words(group), capital(version)),
            "get available resources",
            format!("{}_{version}", group_words(group)),
            meta("APIResourceList"),
        ),
        (Some(""), None) => {
            ("getCoreAPIVersions".to_owned(), "get available API versions", "core".to_owned(), meta("APIVersions"))
        }
        (Some(group), None) => {
            (format!("get{}APIGroup", words(group)), "get information of a group", group_words(group), meta("APIGroup"))
        }
        _ => ("getAPIVersions".to_owned(), "get available API versions", "apis".to_owned(), meta("APIGroupList")),
    };
    Operation {
        path: path.to_owned(),
        method: "get",
        id,
        description: description.to_owned(),
        action: None,
        kind: None,
        tag,
        parameters: Vec::new(),
        body: None,
        responses: vec![("200", "OK", Content::Schema(schema)), ("401", "Unauthorized", Content::None)],
        produces: Produces::Object,
    }
}

/// `/version/` and the OpenID documents.
pub(super) fn plain(path: &str) -> Option<Operation> {
    let (id, description, tag, content, produces) = match path {
        "/version/" => (
            "getCodeVersion",
            "get the version information for this server",
            "version",
            Content::Schema("io.k8s.apimachinery.pkg.version.Info".to_owned()),
            Produces::Json,
        ),
        "/openid/v1/jwks/" => (
            "getServiceAccountIssuerOpenIDKeyset",
            "get service account issuer OpenID JSON Web Key Set (contains public token verification keys)",
            "openid",
            Content::Text,
            Produces::KeySet,
        ),
        "/.well-known/openid-configuration/" => (
            "getServiceAccountIssuerOpenIDConfiguration",
            "get service account issuer OpenID configuration, also known as the 'OIDC discovery doc'",
            "WellKnown",
            Content::Text,
            Produces::Json,
        ),
        _ => return None,
    };
    Some(Operation {
        path: path.to_owned(),
        method: "get",
        id: id.to_owned(),
        description: description.to_owned(),
        action: None,
        kind: None,
        tag: tag.to_owned(),
        parameters: Vec::new(),
        body: None,
        responses: vec![("200", "OK", content), ("401", "Unauthorized", Content::None)],
        produces,
    })
}

/// Builds the operations of one resource.
pub(super) struct Builder<'r> {
    row: &'r Resource,
    /// `AppsV1`.
    prefix: String,
    tag: String,
    base: String,
    schema: String,
    list_schema: String,
    out: Vec<Operation>,
}

/// Everything that can be done with a resource and its subresources. `schema_of` names the schema of
/// a kind: (group, version, kind).
pub(super) fn operations(row: &Resource, schema_of: impl Fn(&str, &str, &str) -> String) -> Vec<Operation> {
    let words = group_words(&row.group);
    let mut builder = Builder {
        row,
        prefix: format!("{}{}", capital(&words), capital(&row.version)),
        tag: format!("{words}_{}", row.version),
        base: base_path(&row.group, &row.version),
        schema: schema_of(&row.group, &row.version, &row.kind),
        list_schema: schema_of(&row.group, &row.version, &row.list_kind),
        out: Vec::new(),
    };
    builder.collection();
    builder.item();
    builder.watches();
    for subresource in &row.subresources {
        let schema = schema_of(&subresource.group, &subresource.version, &subresource.kind);
        builder.subresource(subresource, &schema);
    }
    builder.out
}

impl Builder<'_> {
    fn namespaced(&self) -> &'static str {
        if self.row.namespaced { "Namespaced" } else { "" }
    }

    /// `a Pod`, `an Event`; `Endpoints` takes no article.
    fn article(&self) -> String {
        let kind = &self.row.kind;
        match kind.as_ref() {
            "Endpoints" => kind.to_string(),
            _ if kind.starts_with(['A', 'E', 'I', 'O', 'U']) => format!("an {kind}"),
            _ => format!("a {kind}"),
        }
    }

    fn collection_path(&self) -> String {
        let scope = if self.row.namespaced { "/namespaces/{namespace}" } else { "" };
        format!("{}{scope}/{}", self.base, self.row.plural)
    }

    fn push(&mut self, operation: Operation) {
        self.out.push(operation);
    }

    fn operation(&self, path: String, method: &'static str, action: &'static str, id: String) -> Operation {
        let mut parameters = Vec::new();
        if path.contains("{namespace}") {
            parameters.push(Parameter {
                name: "namespace".to_owned(),
                place: "path",
                ty: "string",
                description: Some("object name and auth scope, such as for teams and projects".to_owned()),
            });
        }
        if path.contains("{name}") {
            let kind = &self.row.kind;
            parameters.push(Parameter {
                name: "name".to_owned(),
                place: "path",
                ty: "string",
                description: Some(format!("name of the {kind}")),
            });
        }
        if action != "connect" {
            parameters.push(query("pretty", "string"));
        }
        Operation {
            path,
            method,
            id,
            description: String::new(),
            action: Some(action),
            kind: Some((self.row.group.to_string(), self.row.version.to_string(), self.row.kind.to_string())),
            tag: self.tag.clone(),
            parameters,
            body: None,
            responses: vec![("401", "Unauthorized", Content::None)],
            produces: if self.row.custom { Produces::Custom } else { Produces::Object },
        }
    }

    fn collection(&mut self) {
        let (row, path, scope) = (self.row, self.collection_path(), self.namespaced());
        let kind = row.kind.as_ref();
        if row.has_verb("list") {
            let mut list = self.operation(path.clone(), "get", "list", format!("list{}{scope}{kind}", self.prefix));
            self.list(&mut list);
            self.push(list);
            if row.namespaced {
                let id = format!("list{}{kind}ForAllNamespaces", self.prefix);
                let mut list = self.operation(format!("{}/{}", self.base, row.plural), "get", "list", id);
                self.list(&mut list);
                self.push(list);
            }
        }
        if row.has_verb("create") {
            let id = format!("create{}{scope}{kind}", self.prefix);
            let mut create = self.operation(path.clone(), "post", "post", id);
            create.description = format!("create {}", self.article());
            write(&mut create, &self.schema, &["200", "201", "202"]);
            self.push(create);
        }
        if row.has_verb("deletecollection") {
            let id = format!("delete{}Collection{scope}{kind}", self.prefix);
            let mut delete = self.operation(path, "delete", "deletecollection", id);
            delete.description = format!("delete collection of {kind}");
            if row.custom {
                delete.parameters.extend(LIST.iter().map(|(name, ty)| query(name, ty)));
            } else {
                let list = LIST.iter().filter(|(name, _)| !matches!(*name, "allowWatchBookmarks" | "watch"));
                delete.parameters.extend(list.chain(DELETE).map(|(name, ty)| query(name, ty)));
                delete.body = Some(Body::Whole { schema: DELETE_OPTIONS.to_owned(), required: false });
            }
            answer(&mut delete, STATUS, &["200"]);
            self.push(delete);
        }
    }

    fn list(&self, operation: &mut Operation) {
        operation.parameters.extend(LIST.iter().map(|(name, ty)| query(name, ty)));
        if self.row.custom || !self.row.has_verb("watch") {
            operation.description = format!("list objects of kind {}", self.row.kind);
        } else {
            operation.description = format!("list or watch objects of kind {}", self.row.kind);
        }
        if !self.row.custom {
            operation.produces = Produces::Stream;
        }
        answer(operation, &self.list_schema, &["200"]);
    }

    fn item(&mut self) {
        let (row, scope) = (self.row, self.namespaced());
        let kind = row.kind.as_ref();
        let path = format!("{}/{{name}}", self.collection_path());
        if row.has_verb("get") {
            let id = format!("read{}{scope}{kind}", self.prefix);
            let mut read = self.operation(path.clone(), "get", "get", id);
            read.description = format!("read the specified {kind}");
            if row.custom {
                read.parameters.push(query("resourceVersion", "string"));
            }
            answer(&mut read, &self.schema, &["200"]);
            self.push(read);
        }
        if row.has_verb("update") {
            let id = format!("replace{}{scope}{kind}", self.prefix);
            let mut replace = self.operation(path.clone(), "put", "put", id);
            replace.description = format!("replace the specified {kind}");
            write(&mut replace, &self.schema, &["200", "201"]);
            self.push(replace);
        }
        if row.has_verb("patch") {
            let id = format!("patch{}{scope}{kind}", self.prefix);
            let mut patch = self.operation(path.clone(), "patch", "patch", id);
            patch.description = format!("partially update the specified {kind}");
            patched(&mut patch, &self.schema);
            self.push(patch);
        }
        if row.has_verb("delete") {
            let id = format!("delete{}{scope}{kind}", self.prefix);
            let mut delete = self.operation(path, "delete", "delete", id);
            delete.description = format!("delete {}", self.article());
            delete.parameters.extend(DELETE.iter().map(|(name, ty)| query(name, ty)));
            delete.body = Some(Body::Whole { schema: DELETE_OPTIONS.to_owned(), required: false });
            let returned = !row.custom && RETURNED_WHEN_DELETED.contains(&kind);
            let schema = if returned { self.schema.clone() } else { STATUS.to_owned() };
            answer(&mut delete, &schema, &["200", "202"]);
            self.push(delete);
        }
    }

    /// The deprecated `/watch/` paths. Custom resources have none.
    fn watches(&mut self) {
        let (row, scope) = (self.row, self.namespaced());
        if !row.has_verb("watch") || row.custom {
            return;
        }
        let kind = row.kind.as_ref();
        let place = if row.namespaced { "/namespaces/{namespace}" } else { "" };
        let mut paths = vec![
            (format!("{}/watch{place}/{}", self.base, row.plural), "watchlist", format!("{scope}{kind}List")),
            (format!("{}/watch{place}/{}/{{name}}", self.base, row.plural), "watch", format!("{scope}{kind}")),
        ];
        if row.namespaced {
            let id = format!("{kind}ListForAllNamespaces");
            paths.push((format!("{}/watch/{}", self.base, row.plural), "watchlist", id));
        }
        for (path, action, id) in paths {
            let mut watch = self.operation(path, "get", action, format!("watch{}{id}", self.prefix));
            let deprecated = "deprecated: use the 'watch' parameter with a list operation instead";
            watch.description = if action == "watch" {
                format!(
                    "watch changes to an object of kind {kind}. {deprecated}, filtered to a single item with the 'fieldSelector' parameter."
                )
            } else {
                format!("watch individual changes to a list of {kind}. {deprecated}.")
            };
            watch.parameters.extend(LIST.iter().map(|(name, ty)| query(name, ty)));
            watch.produces = Produces::Stream;
            answer(&mut watch, WATCH_EVENT, &["200"]);
            self.push(watch);
        }
    }

    fn subresource(&mut self, subresource: &Subresource, schema: &str) {
        let path = format!("{}/{{name}}/{}", self.collection_path(), subresource.name);
        if subresource.kind.ends_with("Options") {
            self.connections(subresource, &path);
            return;
        }
        let (row, scope) = (self.row, self.namespaced());
        let (kind, name) = (row.kind.as_ref(), subresource.name.as_ref());
        let noun = format!("{}{scope}{kind}{}", self.prefix, capital(name));
        for verb in &subresource.verbs {
            let (method, action, id, description) = match verb.as_ref() {
                "get" => ("get", "get", format!("read{noun}"), format!("read {name} of the specified {kind}")),
                "update" => ("put", "put", format!("replace{noun}"), format!("replace {name} of the specified {kind}")),
                "patch" => (
                    "patch",
                    "patch",
                    format!("patch{noun}"),
                    format!("partially update {name} of the specified {kind}"),
                ),
                "create" => ("post", "post", format!("create{noun}"), format!("create {name} of {}", self.article())),
                _ => continue,
            };
            let mut operation = self.operation(path.clone(), method, action, id);
            operation.description = description;
            if !row.custom {
                named_after(&mut operation, subresource);
            } else if method == "get" {
                operation.parameters.push(query("resourceVersion", "string"));
            }
            match method {
                "get" if name == "log" => {
                    operation.parameters.extend(options("PodLogOptions"));
                    operation.produces = Produces::Log;
                    operation.responses.insert(0, ("200", "OK", Content::Text));
                }
                "get" => answer(&mut operation, schema, &["200"]),
                "put" => write(&mut operation, schema, &["200", "201"]),
                "post" => write(&mut operation, schema, &["200", "201", "202"]),
                _ => patched(&mut operation, schema),
            }
            self.push(operation);
        }
    }

    /// `exec`, `proxy` and their like: the methods pass through to something else.
    fn connections(&mut self, subresource: &Subresource, path: &str) {
        let (kind, scope) = (self.row.kind.as_ref(), self.namespaced());
        let name = subresource.name.as_ref();
        let proxy = name == "proxy";
        let methods: &[&'static str] =
            if proxy { &["delete", "get", "head", "options", "patch", "post", "put"] } else { &["get", "post"] };
        let mut paths = vec![(path.to_owned(), "")];
        if proxy {
            paths.push((format!("{path}/{{path}}"), "WithPath"));
        }
        for (path, suffix) in paths {
            for method in methods {
                let id = format!("connect{}{}{scope}{kind}{}{suffix}", self.prefix, capital(method), capital(name));
                let mut operation = self.operation(path.clone(), method, "connect", id);
                operation.description = format!("connect {} requests to {name} of {kind}", method.to_uppercase());
                named_after(&mut operation, subresource);
                operation.parameters.extend(options(&subresource.kind));
                if !suffix.is_empty() {
                    operation.parameters.push(Parameter {
                        name: "path".to_owned(),
                        place: "path",
                        ty: "string",
                        description: Some("path to the resource".to_owned()),
                    });
                }
                operation.produces = Produces::Any;
                operation.responses.insert(0, ("200", "OK", Content::Text));
                self.push(operation);
            }
        }
    }
}

/// An operation of a subresource is about the subresource's kind.
fn named_after(operation: &mut Operation, subresource: &Subresource) {
    let kind = subresource.kind.to_string();
    if let Some(name) = operation.parameters.iter_mut().find(|parameter| parameter.name == "name") {
        name.description = Some(format!("name of the {kind}"));
    }
    operation.kind = Some((subresource.group.to_string(), subresource.version.to_string(), kind));
}

/// The query parameters that a kind of `core/v1` stands for.
fn options(kind: &str) -> Vec<Parameter> {
    let Some(ty) = table().find_kind("", "v1", kind) else { return Vec::new() };
    ty.fields()
        .iter()
        .filter(|field| field.name != "apiVersion" && field.name != "kind")
        .map(|field| {
            // A list is given by repeating the parameter.
            let value = ty.at(field.ty);
            let parameter = match value.item().unwrap_or(value).ty() {
                Type::Bool => "boolean",
                Type::Int32 | Type::Int64 => "integer",
                _ => "string",
            };
            Parameter {
                name: field.name.to_string(),
                place: "query",
                ty: parameter,
                description: of_parameter(kind, &field.name),
            }
        })
        // Times have no place in a query of upstream's either.
        .filter(|parameter| parameter.name != "sinceTime")
        .collect()
}

fn query(name: &str, ty: &'static str) -> Parameter {
    let description = of_parameter("", name).or_else(|| descriptions().of_field(DELETE_OPTIONS, name));
    Parameter { name: name.to_owned(), place: "query", ty, description }
}

fn answer(operation: &mut Operation, schema: &str, statuses: &[&'static str]) {
    for (index, status) in statuses.iter().enumerate() {
        let meaning = match *status {
            "200" => "OK",
            "201" => "Created",
            _ => "Accepted",
        };
        operation.responses.insert(index, (status, meaning, Content::Schema(schema.to_owned())));
    }
}

fn write(operation: &mut Operation, schema: &str, statuses: &[&'static str]) {
    operation.parameters.extend(WRITE.iter().map(|(name, ty)| query(name, ty)));
    operation.body = Some(Body::Whole { schema: schema.to_owned(), required: true });
    answer(operation, schema, statuses);
}

fn patched(operation: &mut Operation, schema: &str) {
    let custom = operation.produces == Produces::Custom;
    operation.parameters.extend(WRITE.iter().map(|(name, ty)| {
        let mut parameter = query(name, ty);
        // Patches may be applied, and apply needs a manager.
        if let Some(text) = of_parameter("PatchOptions", name) {
            parameter.description = Some(text);
        }
        parameter
    }));
    operation.parameters.push(query("force", "boolean"));
    operation.body = Some(if custom { Body::CustomPatch } else { Body::Patch });
    answer(operation, schema, if custom { &["200"] } else { &["200", "201"] });
}
