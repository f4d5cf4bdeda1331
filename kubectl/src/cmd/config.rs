//! `kubectl config`: reading and changing kubeconfig files, as trees, so that nothing in them is lost.

use std::path::{Path, PathBuf};

use futures::FutureExt;
use futures::future::LocalBoxFuture;
use serde_json::{Value, json};

use crate::codec;
use crate::command::{Command, Context};
use crate::error::{Error, Result};
use crate::flags::Flag;
use crate::printer::tabwriter::TabWriter;
use crate::printer::{self, PRINT_FLAGS};

const VIEW_FLAGS: &[Flag] = &[
    Flag::bool("flatten", "Flatten the resulting kubeconfig file into self-contained output"),
    Flag::bool("merge", "Merge the full hierarchy of kubeconfig files").default("true"),
    Flag::bool("minify", "Remove all information not used by current-context from the output"),
    Flag::bool("raw", "Display raw byte data and sensitive data"),
];

const LIST_FLAGS: &[Flag] = &[
    Flag::bool("no-headers", "When using the default or custom-column output format, don't print headers."),
    Flag::string("output", "Output format. One of: (name).").short('o'),
];

/// `kubectl config`.
pub const COMMAND: Command = Command::group(
    "config",
    "Modify kubeconfig files.",
    &[
        Command::new("current-context", "Display the current-context.", "", &[], |ctx| {
            current_context(ctx).boxed_local()
        }),
        Command::new("delete-cluster", "Delete the specified cluster from the kubeconfig.", "NAME", &[], |ctx| {
            delete(ctx, "cluster")
        }),
        Command::new("delete-context", "Delete the specified context from the kubeconfig.", "NAME", &[], |ctx| {
            delete(ctx, "context")
        }),
        Command::new("delete-user", "Delete the specified user from the kubeconfig.", "NAME", &[], |ctx| {
            delete(ctx, "user")
        }),
        Command::new("get-clusters", "Display clusters defined in the kubeconfig.", "", &[], |ctx| {
            names(ctx, "clusters")
        }),
        Command::new(
            "get-contexts",
            "Display one or many contexts from the kubeconfig file.",
            "[NAME]",
            &[LIST_FLAGS],
            |ctx| get_contexts(ctx).boxed_local(),
        ),
        Command::new("get-users", "Display users defined in the kubeconfig.", "", &[], |ctx| names(ctx, "users")),
        Command::new(
            "rename-context",
            "Rename a context from the kubeconfig file.",
            "CONTEXT_NAME NEW_NAME",
            &[],
            |ctx| rename_context(ctx).boxed_local(),
        ),
        Command::new(
            "set-context",
            "Set a context entry in kubeconfig.",
            "[NAME | --current] [--cluster=cluster_nickname] [--user=user_nickname] [--namespace=namespace]",
            &[&[Flag::bool("current", "Modify the current context")]],
            |ctx| set_context(ctx).boxed_local(),
        ),
        Command::new("use-context", "Set the current-context in a kubeconfig file.", "CONTEXT_NAME", &[], |ctx| {
            use_context(ctx).boxed_local()
        })
        .aliases(&["use"]),
        Command::new(
            "view",
            "Display merged kubeconfig settings or a specified kubeconfig file.",
            "",
            &[VIEW_FLAGS, PRINT_FLAGS],
            |ctx| view(ctx).boxed_local(),
        ),
    ],
);

/// One kubeconfig file.
struct File {
    path: PathBuf,
    tree: Value,
}

/// The files in precedence order; missing ones are empty.
fn files(ctx: &Context) -> Result<Vec<File>> {
    let mut files = Vec::new();
    for path in ctx.factory.kubeconfig_paths() {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let tree = if text.trim().is_empty() {
            json!({"apiVersion": "v1", "kind": "Config"})
        } else {
            apimachinery::yaml::parse(&text).map_err(|error| {
                Error::message(format!("error loading config file {:?}: {error}", path.display().to_string()))
            })?
        };
        files.push(File { path, tree });
    }
    if files.is_empty() {
        return Err(Error::message("no kubeconfig file: set KUBECONFIG or HOME"));
    }
    Ok(files)
}

fn save(path: &Path, tree: &Value) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let parent = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent)?;
    // Written beside and renamed: a crash leaves the old file whole.
    let file = tempfile::NamedTempFile::new_in(parent)?;
    std::fs::write(file.path(), codec::yaml_text(tree))?;
    std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o600))?;
    file.persist(path).map_err(|error| Error::message(error.to_string()))?;
    Ok(())
}

fn entries<'a>(tree: &'a Value, field: &str) -> &'a [Value] {
    codec::list(tree, &[field])
}

/// All files as one: the first to name something wins.
fn merged(files: &[File]) -> Value {
    let mut all = json!({"apiVersion": "v1", "kind": "Config", "current-context": ""});
    for field in ["clusters", "contexts", "users"] {
        let mut found: Vec<Value> = Vec::new();
        for entry in files.iter().flat_map(|file| entries(&file.tree, field)) {
            if !found.iter().any(|known| known["name"] == entry["name"]) {
                found.push(entry.clone());
            }
        }
        found.sort_by_key(|entry| codec::text(entry, &["name"]).to_owned());
        all[field] = if found.is_empty() { Value::Null } else { Value::Array(found) };
    }
    let current = files.iter().map(|file| codec::text(&file.tree, &["current-context"])).find(|name| !name.is_empty());
    all["current-context"] = json!(current.unwrap_or(""));
    if let Some(preferences) = files
        .iter()
        .find_map(|file| codec::at(&file.tree, &["preferences"]))
        .filter(|p| p.as_object().is_some_and(|m| !m.is_empty()))
    {
        all["preferences"] = preferences.clone();
    }
    all
}

fn current(ctx: &Context, all: &Value) -> String {
    let flag = ctx.parsed.str("context");
    if flag.is_empty() { codec::text(all, &["current-context"]).to_owned() } else { flag.to_owned() }
}

async fn current_context(ctx: &Context) -> Result<()> {
    let all = merged(&files(ctx)?);
    let name = codec::text(&all, &["current-context"]);
    if name.is_empty() {
        return Err(Error::message("current-context is not set"));
    }
    ctx.streams.out.line(name);
    Ok(())
}

fn names<'a>(ctx: &'a Context, field: &'static str) -> LocalBoxFuture<'a, Result<()>> {
    async move {
        ctx.streams.out.line("NAME");
        for entry in entries(&merged(&files(ctx)?), field) {
            ctx.streams.out.line(codec::text(entry, &["name"]));
        }
        Ok(())
    }
    .boxed_local()
}

async fn get_contexts(ctx: &Context) -> Result<()> {
    let all = merged(&files(ctx)?);
    let wanted = &ctx.parsed.args;
    let known = entries(&all, "contexts");
    let mut errors = Vec::new();
    for name in wanted {
        if !known.iter().any(|context| context["name"] == name.as_str()) {
            errors.push(Error::message(format!("context {name} not found")));
        }
    }
    let shown: Vec<&Value> = known
        .iter()
        .filter(|context| wanted.is_empty() || wanted.iter().any(|name| context["name"] == name.as_str()))
        .collect();
    if ctx.parsed.str("output") == "name" {
        shown.iter().for_each(|context| ctx.streams.out.line(codec::text(context, &["name"])));
        return Error::aggregate(errors);
    }
    let mut writer = TabWriter::table();
    if !ctx.parsed.bool("no-headers") {
        writer.push("CURRENT\tNAME\tCLUSTER\tAUTHINFO\tNAMESPACE\n");
    }
    let current = current(ctx, &all);
    for context in shown {
        let name = codec::text(context, &["name"]);
        let field = |field| codec::text(context, &["context", field]);
        let mark = if name == current { "*" } else { "" };
        writer.push(&format!("{mark}\t{name}\t{}\t{}\t{}\n", field("cluster"), field("user"), field("namespace")));
    }
    ctx.streams.out.text(&writer.flush());
    Error::aggregate(errors)
}

const SECRETS: &[&str] = &["client-key-data", "token", "password"];
const DATA: &[&str] = &["client-certificate-data", "certificate-authority-data"];

async fn view(ctx: &Context) -> Result<()> {
    ctx.no_arguments()?;
    let flags = &ctx.parsed;
    let mut all = merged(&files(ctx)?);
    if flags.bool("minify") {
        let name = current(ctx, &all);
        let context = entries(&all, "contexts").iter().find(|context| context["name"] == name.as_str()).cloned();
        let Some(context) = context else {
            return Err(Error::message(if name.is_empty() {
                "cannot locate context without a name".to_owned()
            } else {
                format!("cannot locate context {name}")
            }));
        };
        for (field, wanted) in [
            ("contexts", name.as_str()),
            ("clusters", codec::text(&context, &["context", "cluster"])),
            ("users", codec::text(&context, &["context", "user"])),
        ] {
            let kept: Vec<Value> =
                entries(&all, field).iter().filter(|entry| entry["name"] == wanted).cloned().collect();
            all[field] = Value::Array(kept);
        }
    }
    if !flags.bool("raw") && !flags.bool("flatten") {
        for (field, inner) in [("clusters", "cluster"), ("users", "user")] {
            let Some(Value::Array(list)) = all.get_mut(field) else { continue };
            for map in list.iter_mut().filter_map(|entry| entry.get_mut(inner)).filter_map(Value::as_object_mut) {
                for (key, value) in map {
                    if DATA.contains(&key.as_str()) || key == "client-key-data" {
                        *value = json!("DATA+OMITTED");
                    } else if SECRETS.contains(&key.as_str()) {
                        *value = json!("REDACTED");
                    }
                }
            }
        }
    }
    let text = match printer::from_flags(flags, printer::FORMATS)? {
        Some(mut printer) => printer.print(&all, None)?,
        None => codec::yaml_text(&all),
    };
    ctx.streams.out.text(&text);
    Ok(())
}

async fn use_context(ctx: &Context) -> Result<()> {
    let [name] = ctx.parsed.args.as_slice() else {
        return Err(ctx.usage_error(&format!("Unexpected args: [{}]", ctx.parsed.args.join(" "))));
    };
    let mut files = files(ctx)?;
    if !files.iter().any(|file| entries(&file.tree, "contexts").iter().any(|context| context["name"] == name.as_str()))
    {
        return Err(Error::message(format!("no context exists with the name: {name:?}")));
    }
    // Where it is set already, else where new settings go: the first file.
    let at = files.iter().position(|file| !codec::text(&file.tree, &["current-context"]).is_empty()).unwrap_or(0);
    files[at].tree["current-context"] = json!(name);
    save(&files[at].path, &files[at].tree)?;
    ctx.streams.out.line(&format!("Switched to context {name:?}."));
    Ok(())
}

async fn set_context(ctx: &Context) -> Result<()> {
    let mut files = files(ctx)?;
    let all = merged(&files);
    let name = match (ctx.parsed.args.as_slice(), ctx.parsed.bool("current")) {
        ([name], false) => name.clone(),
        ([], true) => {
            let name = codec::text(&all, &["current-context"]).to_owned();
            if name.is_empty() {
                return Err(Error::message("no current context is set"));
            }
            name
        }
        (args, _) => return Err(ctx.usage_error(&format!("Unexpected args: [{}]", args.join(" ")))),
    };
    let at = files
        .iter()
        .position(|file| entries(&file.tree, "contexts").iter().any(|context| context["name"] == name.as_str()));
    let existed = at.is_some();
    let file = &mut files[at.unwrap_or(0)];
    if !file.tree["contexts"].is_array() {
        file.tree["contexts"] = json!([]);
    }
    let list = file.tree["contexts"].as_array_mut().expect("made above");
    if !existed {
        list.push(json!({"context": {"cluster": "", "user": ""}, "name": name}));
    }
    let entry = list.iter_mut().find(|context| context["name"] == name.as_str()).expect("just found or made");
    for (flag, field) in [("cluster", "cluster"), ("user", "user"), ("namespace", "namespace")] {
        if ctx.parsed.changed(flag) {
            entry["context"][field] = json!(ctx.parsed.str(flag));
        }
    }
    save(&file.path, &file.tree)?;
    ctx.streams.out.line(&format!("Context {name:?} {}.", if existed { "modified" } else { "created" }));
    Ok(())
}

async fn rename_context(ctx: &Context) -> Result<()> {
    let [old, new] = ctx.parsed.args.as_slice() else {
        return Err(ctx.usage_error("two arguments are required: the old name and the new one"));
    };
    let mut files = files(ctx)?;
    let has = |file: &File, name: &str| entries(&file.tree, "contexts").iter().any(|context| context["name"] == name);
    if files.iter().any(|file| has(file, new)) {
        return Err(Error::message(format!(
            "cannot rename the context {old:?}, the context {new:?} already exists in {}",
            files[0].path.display()
        )));
    }
    let Some(file) = files.iter_mut().find(|file| has(file, old)) else {
        return Err(Error::message(format!(
            "cannot rename the context {old:?}, it's not in {}",
            ctx.factory.kubeconfig_paths()[0].display()
        )));
    };
    let list = file.tree["contexts"].as_array_mut().expect("the context is in it");
    for context in list.iter_mut().filter(|context| context["name"] == old.as_str()) {
        context["name"] = json!(new);
    }
    if file.tree["current-context"] == old.as_str() {
        file.tree["current-context"] = json!(new);
    }
    save(&file.path, &file.tree)?;
    ctx.streams.out.line(&format!("Context {old:?} renamed to {new:?}."));
    Ok(())
}

fn delete<'a>(ctx: &'a Context, what: &'static str) -> LocalBoxFuture<'a, Result<()>> {
    async move {
        let [name] = ctx.parsed.args.as_slice() else {
            return Err(ctx.usage_error(&format!("exactly one {what} name is required")));
        };
        let field = format!("{what}s");
        let mut files = files(ctx)?;
        let found = files.iter_mut().find(|file| entries(&file.tree, &field).iter().any(|entry| entry["name"] == name.as_str()));
        let Some(file) = found else {
            let path = ctx.factory.kubeconfig_paths()[0].display().to_string();
            return Err(Error::message(format!("cannot delete {what} {name}, not in {path}")));
        };
        if let Some(Value::Array(list)) = file.tree.get_mut(&field) {
            list.retain(|entry| entry["name"] != name.as_str());
        }
        if what == "context" && file.tree["current-context"] == name.as_str() {
            ctx.streams.err.line("warning: this removed your active context, use \"kubectl config use-context\" to select a different one");
        }
        save(&file.path, &file.tree)?;
        ctx.streams.out.line(&format!("deleted {what} {name} from {}", file.path.display()));
        Ok(())
    }
    .boxed_local()
}
