//! From arguments, files and selectors to objects: what `TYPE NAME`, `TYPE/NAME`, `TYPE1,TYPE2`,
//! `-f`, `-l` and `--all` mean, the same for every verb.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::codec;
use crate::error::{Error, Result};
use crate::factory::Factory;
use crate::flags::{Flag, Parsed};
use crate::kustomize;
use crate::mapper::{self, Mapping};
use crate::removed;
use crate::rest::{self, Call};
use crate::streams::Streams;

/// Flags of verbs that read files.
pub const FILE_FLAGS: &[Flag] = &[
    Flag::slice("filename", "Filename, directory, or URL to files identifying the resource.").short('f'),
    Flag::string("kustomize", "Process the kustomization directory. This flag can't be used together with -f or -R.")
        .short('k'),
    Flag::bool("recursive", "Process the directory used in -f, --filename recursively.").short('R'),
];

/// One object a command acts on.
#[derive(Debug, Clone)]
pub struct Info {
    /// Its resource.
    pub mapping: Mapping,
    /// Its namespace, "" for cluster-scoped objects and lists over all namespaces.
    pub namespace: String,
    /// Its name, "" for a list.
    pub name: String,
    /// What was read, from a file or from the server.
    pub object: Value,
    /// The file it came from, "" when from the server.
    pub source: String,
}

impl Info {
    /// `pod/x`, `deployment.apps/x`.
    pub fn object_name(&self) -> String {
        format!("{}/{}", self.mapping.kind_name(), self.name)
    }

    /// The path of the object, or of one of its subresources.
    pub fn path(&self, subresource: &str) -> String {
        rest::path(&self.mapping, &self.namespace, &self.name, subresource)
    }

    /// Reads it from the server.
    ///
    /// # Errors
    /// What the API or the transport said.
    pub async fn get(&self, factory: &Factory) -> Result<Value> {
        factory.rest().await?.value(Call::get(self.path(""))).await
    }
}

/// What to act on, before anything is fetched.
#[derive(Debug, Clone)]
pub enum Target {
    /// An object out of a file.
    File(Info),
    /// An object named by an argument.
    Named {
        /// Its resource.
        mapping: Mapping,
        /// Where it lives.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// All objects that selectors admit.
    List {
        /// Their resource.
        mapping: Mapping,
        /// Where they live; "" for everywhere.
        namespace: String,
    },
}

/// What a command was told to act on.
#[derive(Debug, Clone, Default)]
pub struct Builder {
    /// Namespace for objects that name none.
    pub namespace: String,
    /// Whether `--namespace` was given: objects of other namespaces are then refused.
    pub enforce_namespace: bool,
    /// Look everywhere.
    pub all_namespaces: bool,
    /// `-f`.
    pub filenames: Vec<String>,
    /// `-k`.
    pub kustomize: String,
    /// `-R`.
    pub recursive: bool,
    /// `-l`; an empty selector admits all.
    pub label_selector: Option<String>,
    /// `--field-selector`.
    pub field_selector: String,
    /// `--all`.
    pub select_all: bool,
    /// A type without names means all its objects.
    pub allow_empty_selector: bool,
    /// Objects per page, 0 for no paging.
    pub chunk: i64,
    /// The arguments.
    pub args: Vec<String>,
    /// Documents without apiVersion or kind are told as what validation finds.
    pub validating: bool,
    /// Keep lists in files as they are.
    pub keep_lists: bool,
}

/// Targets, and what went wrong with some of them.
#[derive(Debug, Default)]
pub struct Targets {
    /// In order.
    pub items: Vec<Target>,
    /// Files and documents that could not be used.
    pub errors: Vec<Error>,
    /// One object was asked for by name (or one file holds one object).
    pub single: bool,
}

impl Builder {
    /// With the namespace flags, `-f`, `-R`, `-l`, `--field-selector`, `-A`, `--all` as far as the command has them.
    ///
    /// # Errors
    /// When the kubeconfig cannot be read.
    pub fn from_flags(factory: &Factory, parsed: &Parsed) -> Result<Self> {
        let (namespace, enforce_namespace) = factory.namespace()?;
        let all_namespaces = parsed.bool("all-namespaces");
        Ok(Builder {
            namespace,
            enforce_namespace: enforce_namespace && !all_namespaces,
            all_namespaces,
            filenames: parsed.list("filename"),
            kustomize: parsed.str("kustomize").to_owned(),
            recursive: parsed.bool("recursive"),
            validating: matches!(parsed.str("validate"), "strict" | "true" | "warn"),
            label_selector: parsed
                .changed("selector")
                .then(|| parsed.str("selector").to_owned())
                .filter(|s| !s.is_empty()),
            field_selector: parsed.str("field-selector").to_owned(),
            select_all: parsed.bool("all"),
            chunk: 500,
            args: parsed.args.clone(),
            ..Builder::default()
        })
    }

    /// What the arguments mean. Nothing is fetched but discovery.
    ///
    /// # Errors
    /// When they mean nothing.
    pub async fn targets(&self, factory: &Factory, streams: &Streams) -> Result<Targets> {
        if self.has_files() {
            if !self.args.is_empty() {
                return Err(Error::message(
                    "when paths, URLs, or stdin is provided as input, you may not specify resource arguments as well",
                ));
            }
            return self.files(factory, streams).await;
        }
        let args = spread(&self.args);
        let slashes = args.iter().filter(|arg| arg.contains('/')).count();
        if slashes > 0 && slashes != args.len() {
            return Err(Error::message(
                "there is no need to specify a resource type as a separate argument when passing arguments in resource/name form (e.g. 'kubectl get resource/<resource_name>' instead of 'kubectl get resource resource/<resource_name>'",
            ));
        }
        if slashes > 0 {
            let pairs = args.iter().map(|arg| split_name(arg)).collect::<Result<Vec<_>>>()?;
            if self.selecting() {
                return Err(Error::message(
                    "selectors and the all flag cannot be used when passing resource/name arguments",
                ));
            }
            let mut items = Vec::new();
            for (resource, name) in pairs {
                items.push(self.named(mapper::resolve(factory, &resource).await?, name)?);
            }
            let single = items.len() == 1;
            return Ok(Targets { items, single, errors: Vec::new() });
        }
        let Some((types, names)) = args.split_first() else {
            if self.selecting() {
                return Err(Error::message("at least one resource must be specified to use a selector"));
            }
            return Err(Error::message(MISSING));
        };
        let mappings = self.mappings(factory, types).await?;
        if names.is_empty() {
            if !self.selecting() && !self.allow_empty_selector {
                return Err(Error::message("resource(s) were provided, but no name was specified"));
            }
            let items = mappings
                .into_iter()
                .map(|mapping| {
                    let namespace = self.scope(&mapping);
                    Target::List { mapping, namespace }
                })
                .collect();
            return Ok(Targets { items, ..Targets::default() });
        }
        if self.selecting() {
            return Err(Error::message(if self.select_all {
                "setting 'all' parameter but found a non empty selector. "
            } else {
                "name cannot be provided when a selector is specified"
            }));
        }
        if mappings.len() > 1 {
            return Err(Error::message("you must specify only one resource"));
        }
        let mapping = mappings.into_iter().next().expect("one, checked above");
        let items = names.iter().map(|name| self.named(mapping.clone(), name.clone())).collect::<Result<Vec<_>>>()?;
        let single = items.len() == 1;
        Ok(Targets { items, single, errors: Vec::new() })
    }

    /// Whether objects come from files.
    pub fn has_files(&self) -> bool {
        !self.filenames.is_empty() || !self.kustomize.is_empty()
    }

    fn selecting(&self) -> bool {
        self.select_all || self.label_selector.is_some() || !self.field_selector.is_empty()
    }

    fn scope(&self, mapping: &Mapping) -> String {
        if mapping.namespaced && !self.all_namespaces { self.namespace.clone() } else { String::new() }
    }

    fn named(&self, mapping: Mapping, name: String) -> Result<Target> {
        if mapping.namespaced && self.all_namespaces {
            return Err(Error::message("a resource cannot be retrieved by name across all namespaces"));
        }
        let namespace = self.scope(&mapping);
        Ok(Target::Named { mapping, namespace, name })
    }

    /// The resources of a comma-separated list; a category stands for its members.
    async fn mappings(&self, factory: &Factory, types: &str) -> Result<Vec<Mapping>> {
        let mut found = Vec::new();
        for name in types.split(',') {
            if name.is_empty() {
                return Err(Error::message("you must specify the type of resource to get"));
            }
            let members = factory.mapper().await?.category(name);
            if members.is_empty() {
                found.push(mapper::resolve(factory, name).await?);
            } else {
                found.extend(members);
            }
        }
        let mut unique: Vec<Mapping> = Vec::new();
        for mapping in found {
            if !unique.contains(&mapping) {
                unique.push(mapping);
            }
        }
        Ok(unique)
    }

    /// The files that were named, and what standard input and kustomizations give: where each came from, and its text.
    ///
    /// # Errors
    /// The first that cannot be read.
    pub fn sources(&self, streams: &Streams) -> Result<Vec<(String, String)>> {
        let mut sources: Vec<(String, String)> = Vec::new();
        if !self.kustomize.is_empty() {
            sources.push((self.kustomize.clone(), self.built(streams)?));
        }
        for filename in &self.filenames {
            if filename == "-" {
                sources.push(("STDIN".into(), streams.read_stdin()?));
                continue;
            }
            if filename.starts_with("http://") || filename.starts_with("https://") {
                return Err(Error::message(format!(
                    "unable to read URL {filename:?}: reading manifests over HTTP is not supported"
                )));
            }
            let mut paths = expand(Path::new(filename), self.recursive)?;
            paths.sort();
            for path in paths {
                let text = std::fs::read_to_string(&path)
                    .map_err(|error| Error::message(format!("open {}: {error}", path.display())))?;
                sources.push((path.display().to_string(), text));
            }
        }
        Ok(sources)
    }

    async fn files(&self, factory: &Factory, streams: &Streams) -> Result<Targets> {
        let mut targets = Targets::default();
        let sources = self.sources(streams)?;
        let mut documents = 0;
        for (source, text) in &sources {
            let parsed = match codec::documents(text) {
                Ok(parsed) => parsed,
                Err(why) => {
                    targets.errors.push(Error::message(format!("error parsing {source}: {why}")));
                    continue;
                }
            };
            for document in parsed {
                documents += 1;
                let items = if self.keep_lists { vec![document] } else { codec::flatten(document) };
                for object in items {
                    match self.file_info(factory, object, source).await {
                        Ok(info) => targets.items.push(Target::File(info)),
                        Err(error) => targets.errors.push(error),
                    }
                }
            }
        }
        targets.single = documents == 1 && targets.items.len() == 1 && self.filenames.len() == 1;
        Ok(targets)
    }

    /// What the folder of `-k` builds.
    fn built(&self, streams: &Streams) -> Result<String> {
        if !self.filenames.is_empty() {
            return Err(Error::message("only one of -f or -k can be specified"));
        }
        if self.recursive {
            return Err(Error::message("the -k flag can't be used with -f or -R"));
        }
        let warn = &mut |line: &str| streams.err.line(line);
        kustomize::build(Path::new(&self.kustomize), kustomize::Options::default(), warn)
            .map(|objects| kustomize::yaml(&objects))
            .map_err(|error| Error::message(error.0))
    }

    async fn file_info(&self, factory: &Factory, mut object: Value, source: &str) -> Result<Info> {
        let text = |path: &[&str]| codec::text(&object, path).to_owned();
        let (api_version, kind) = (text(&["apiVersion"]), text(&["kind"]));
        let (name, mut namespace) = (text(&["metadata", "name"]), text(&["metadata", "namespace"]));
        if self.validating && (kind.is_empty() || api_version.is_empty()) {
            let missing: Vec<&str> = [("apiVersion not set", &api_version), ("kind not set", &kind)]
                .into_iter()
                .filter(|(_, text)| text.is_empty())
                .map(|(why, _)| why)
                .collect();
            let why = if missing.len() > 1 { format!("[{}]", missing.join(", ")) } else { missing.join("") };
            return Err(Error::message(format!(
                "error validating {source:?}: error validating data: {why}; if you choose to ignore these errors, turn validation off with --validate=false"
            )));
        }
        if kind.is_empty() {
            let shown = serde_json::to_string(&object).unwrap_or_default();
            return Err(Error::message(format!("unable to decode {source:?}: Object 'Kind' is missing in '{shown}'")));
        }
        let Some(mapping) = mapper::resolve_kind(factory, &api_version, &kind).await? else {
            let hint = removed::hint(&api_version, &kind).unwrap_or_else(|| "ensure CRDs are installed first".into());
            return Err(Error::message(format!(
                "resource mapping not found for name: {name:?} namespace: {namespace:?} from {source:?}: no matches for kind {kind:?} in version {api_version:?}\n{hint}"
            )));
        };
        if mapping.namespaced {
            if namespace.is_empty() {
                namespace.clone_from(&self.namespace);
                codec::set(&mut object, &["metadata", "namespace"], Value::String(namespace.clone()));
            } else if self.enforce_namespace && namespace != self.namespace {
                return Err(Error::message(format!(
                    "the namespace from the provided object {namespace:?} does not match the namespace {:?}. You must pass '--namespace={namespace}' to perform this operation.",
                    self.namespace
                )));
            }
        } else {
            namespace = String::new();
        }
        Ok(Info { mapping, namespace, name, object, source: source.to_owned() })
    }

    /// The call that lists a target's objects (one page).
    pub fn list_call(&self, mapping: &Mapping, namespace: &str, continue_token: &str) -> Call {
        let mut call = Call::get(rest::path(mapping, namespace, "", ""))
            .query("labelSelector", self.label_selector.clone().unwrap_or_default())
            .query("fieldSelector", self.field_selector.clone());
        if self.chunk > 0 {
            call = call.query("limit", self.chunk.to_string());
        }
        call.query("continue", continue_token)
    }

    /// Says which list failed, as upstream does for selectors the server refuses.
    pub fn list_error(&self, error: Error, mapping: &Mapping) -> Error {
        let selector = self.label_selector.clone().unwrap_or_default();
        if error.reason() != "BadRequest" || (selector.is_empty() && self.field_selector.is_empty()) {
            return error;
        }
        let Error::Api { mut status, context } = error else { return error };
        let message = codec::text(&status, &["message"]).to_owned();
        let group = if mapping.group.is_empty() { String::new() } else { mapping.group.clone() };
        status["message"] = Value::String(format!(
            "Unable to find \"{group}/{}, Resource={}\" that match label selector {selector:?}, field selector {:?}: {message}",
            mapping.version, mapping.resource, self.field_selector
        ));
        Error::Api { status, context }
    }

    /// Every object, fetched, lists taken apart. Errors of single objects do not stop the others.
    ///
    /// # Errors
    /// When the arguments mean nothing.
    pub async fn objects(&self, factory: &Factory, streams: &Streams) -> Result<(Vec<Info>, Vec<Error>)> {
        let targets = self.targets(factory, streams).await?;
        let mut infos = Vec::new();
        let mut errors = targets.errors;
        for target in targets.items {
            match target {
                Target::File(info) => infos.push(info),
                Target::Named { mapping, namespace, name } => {
                    let mut info = Info { mapping, namespace, name, object: Value::Null, source: String::new() };
                    match info.get(factory).await {
                        Ok(object) => {
                            info.object = object;
                            infos.push(info);
                        }
                        Err(error) => errors.push(error),
                    }
                }
                Target::List { mapping, namespace } => match self.list(factory, &mapping, &namespace).await {
                    Ok(found) => infos.extend(found),
                    Err(error) => errors.push(error),
                },
            }
        }
        Ok((infos, errors))
    }

    /// All objects of a list target, page by page.
    ///
    /// # Errors
    /// What the API or the transport said.
    pub async fn list(&self, factory: &Factory, mapping: &Mapping, namespace: &str) -> Result<Vec<Info>> {
        let rest = factory.rest().await?;
        let mut infos = Vec::new();
        let mut token = String::new();
        loop {
            let page = rest
                .value(self.list_call(mapping, namespace, &token))
                .await
                .map_err(|error| self.list_error(error, mapping))?;
            token = codec::text(&page, &["metadata", "continue"]).to_owned();
            for object in codec::flatten(page) {
                infos.push(info_of(mapping.clone(), object));
            }
            if token.is_empty() {
                return Ok(infos);
            }
        }
    }
}

/// The error for a command that was told nothing to act on.
pub const MISSING: &str = "You must provide one or more resources by argument or filename.
Example resource specifications include:
   '-f rsrc.yaml'
   '--filename=rsrc.json'
   '<resource> <name>'
   '<resource>'";

/// The info of an object the server sent.
pub fn info_of(mapping: Mapping, object: Value) -> Info {
    Info {
        namespace: codec::text(&object, &["metadata", "namespace"]).to_owned(),
        name: codec::text(&object, &["metadata", "name"]).to_owned(),
        mapping,
        object,
        source: String::new(),
    }
}

/// `pods,svc x y` means `pods/x pods/y svc/x svc/y`.
fn spread(args: &[String]) -> Vec<String> {
    let Some((types, names)) = args.split_first() else { return Vec::new() };
    if names.is_empty() || !types.contains(',') {
        return args.to_vec();
    }
    types.split(',').flat_map(|kind| names.iter().map(move |name| format!("{kind}/{name}"))).collect()
}

fn split_name(arg: &str) -> Result<(String, String)> {
    let parts: Vec<&str> = arg.split('/').collect();
    let [resource, name] = parts.as_slice() else {
        return Err(Error::message("arguments in resource/name form may not have more than one slash"));
    };
    if resource.is_empty() || name.is_empty() || resource.contains(',') || resource.is_empty() {
        return Err(Error::message("arguments in resource/name form must have a single resource and name"));
    }
    Ok(((*resource).to_owned(), (*name).to_owned()))
}

/// The files a `-f` argument names: itself, a directory's manifests, or a pattern's matches.
fn expand(path: &Path, recursive: bool) -> Result<Vec<PathBuf>> {
    if !path.exists() {
        let text = path.display().to_string();
        if text.contains(['*', '?', '[']) {
            let found = glob(path);
            if !found.is_empty() {
                return Ok(found);
            }
        }
        return Err(Error::message(format!("the path {text:?} does not exist")));
    }
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut found = Vec::new();
    walk(path, recursive, &mut found)?;
    if found.is_empty() {
        return Err(Error::message(format!(
            "error reading [{}]: recognized file extensions are [.json .yaml .yml]",
            path.display()
        )));
    }
    Ok(found)
}

fn walk(dir: &Path, recursive: bool, found: &mut Vec<PathBuf>) -> Result<()> {
    let mut entries: Vec<PathBuf> =
        std::fs::read_dir(dir)?.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            if recursive {
                walk(&path, recursive, found)?;
            }
        } else if path
            .extension()
            .is_some_and(|extension| extension == "json" || extension == "yaml" || extension == "yml")
        {
            found.push(path);
        }
    }
    Ok(())
}

/// Matches of a pattern in the last component of a path.
fn glob(path: &Path) -> Vec<PathBuf> {
    let (Some(parent), Some(pattern)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return Vec::new();
    };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    let expression = format!("^{}$", regex::escape(pattern).replace(r"\*", "[^/]*").replace(r"\?", "[^/]"));
    let Ok(expression) = regex::Regex::new(&expression) else { return Vec::new() };
    let Ok(entries) = std::fs::read_dir(parent) else { return Vec::new() };
    entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.file_name().and_then(|name| name.to_str()).is_some_and(|name| expression.is_match(name)))
        .collect()
}
