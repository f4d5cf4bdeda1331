//! Subcommands for namespaces, configuration, accounts, quotas, budgets and priorities.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::FutureExt;
use futures::future::LocalBoxFuture;
use http::Method;
use serde_json::{Map, Value, json};

use super::{MAKE_FLAGS, make, name_of};
use crate::codec;
use crate::command::{Command, Context};
use crate::error::{Error, Result};
use crate::flags::Flag;
use crate::mapper;
use crate::printer::PRINT_FLAGS;
use crate::rest::{self, Call};

const FROM_FLAGS: &[Flag] = &[
    Flag::bool("append-hash", "Append a hash of the configmap to its name."),
    Flag::slice("from-env-file", "Specify the path to a file to read lines of key=val pairs."),
    Flag::slice(
        "from-file",
        "Key file can be specified using its file path, in which case file basename will be used as key, or optionally with a key and file path.",
    ),
    Flag::array("from-literal", "Specify a key and literal value to insert (i.e. mykey=somevalue)"),
];

/// `kubectl create namespace`.
pub const NAMESPACE: Command = Command::new(
    "namespace",
    "Create a namespace with the specified name.",
    "NAME",
    &[MAKE_FLAGS, PRINT_FLAGS],
    |ctx| simple(ctx, "v1", "Namespace"),
)
.aliases(&["ns"]);

/// `kubectl create serviceaccount`.
pub const SERVICE_ACCOUNT: Command = Command::new(
    "serviceaccount",
    "Create a service account with the specified name.",
    "NAME",
    &[MAKE_FLAGS, PRINT_FLAGS],
    |ctx| simple(ctx, "v1", "ServiceAccount"),
)
.aliases(&["sa"]);

fn simple<'a>(ctx: &'a Context, api_version: &'static str, kind: &'static str) -> LocalBoxFuture<'a, Result<()>> {
    async move {
        let name = name_of(ctx)?;
        let mut object = json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": name}});
        if kind == "Namespace" {
            // Go writes these structs out even when nothing is in them.
            object["spec"] = json!({});
            object["status"] = json!({});
        }
        make(ctx, object).await
    }
    .boxed_local()
}

/// `kubectl create configmap`.
pub const CONFIG_MAP: Command = Command::new(
    "configmap",
    "Create a config map from a local file, directory or literal value.",
    "NAME [--from-file=[key=]source] [--from-literal=key1=value1]",
    &[MAKE_FLAGS, FROM_FLAGS, PRINT_FLAGS],
    |ctx| {
        async move {
            let name = name_of(ctx)?;
            let mut object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});
            for (key, bytes) in sources(ctx)? {
                let (field, value) = match String::from_utf8(bytes) {
                    Ok(text) => ("data", text),
                    Err(error) => ("binaryData", STANDARD.encode(error.as_bytes())),
                };
                codec::set(&mut object, &[field, &key], json!(value));
            }
            make(ctx, object).await
        }
        .boxed_local()
    },
)
.aliases(&["cm"]);

/// `kubectl create secret`.
pub const SECRET: Command = Command::group(
    "secret",
    "Create a secret with specified type.",
    &[
        Command::new(
            "docker-registry",
            "Create a new secret for use with Docker registries.",
            "NAME --docker-username=user --docker-password=password --docker-email=email [--docker-server=string]",
            &[MAKE_FLAGS, FROM_FLAGS, DOCKER_FLAGS, PRINT_FLAGS],
            |ctx| docker(ctx).boxed_local(),
        ),
        Command::new(
            "generic",
            "Create a secret based on a file, directory, or specified literal value.",
            "NAME [--type=string] [--from-file=[key=]source] [--from-literal=key1=value1]",
            &[MAKE_FLAGS, FROM_FLAGS, &[Flag::string("type", "The type of secret to create")], PRINT_FLAGS],
            |ctx| generic(ctx).boxed_local(),
        ),
        Command::new(
            "tls",
            "Create a TLS secret from the given public/private key pair.",
            "NAME --cert=path/to/cert/file --key=path/to/key/file",
            &[
                MAKE_FLAGS,
                &[
                    Flag::string("cert", "Path to PEM encoded public key certificate."),
                    Flag::string("key", "Path to private key associated with given certificate."),
                ],
                PRINT_FLAGS,
            ],
            |ctx| tls(ctx).boxed_local(),
        ),
    ],
);

const DOCKER_FLAGS: &[Flag] = &[
    Flag::string("docker-email", "Email for Docker registry"),
    Flag::string("docker-password", "Password for Docker registry authentication"),
    Flag::string("docker-server", "Server location for Docker registry").default("https://index.docker.io/v1/"),
    Flag::string("docker-username", "Username for Docker registry authentication"),
];

fn secret(name: &str, r#type: &str, data: Map<String, Value>) -> Value {
    let mut object = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}});
    if !r#type.is_empty() {
        object["type"] = json!(r#type);
    }
    if !data.is_empty() {
        object["data"] = Value::Object(data);
    }
    object
}

async fn generic(ctx: &Context) -> Result<()> {
    let name = name_of(ctx)?;
    let data = sources(ctx)?.into_iter().map(|(key, bytes)| (key, json!(STANDARD.encode(bytes)))).collect();
    make(ctx, secret(name, ctx.parsed.str("type"), data)).await
}

async fn tls(ctx: &Context) -> Result<()> {
    let name = name_of(ctx)?;
    let (cert, key) = (ctx.parsed.str("cert"), ctx.parsed.str("key"));
    if cert.is_empty() || key.is_empty() {
        return Err(Error::message("key and cert must be specified"));
    }
    let read = |path: &str| {
        std::fs::read(path).map_err(|error| {
            Error::message(format!("Cannot read file {path}, open {path}: {}", crate::error::os_reason(&error)))
        })
    };
    let mut data = Map::new();
    data.insert("tls.crt".into(), json!(STANDARD.encode(read(cert)?)));
    data.insert("tls.key".into(), json!(STANDARD.encode(read(key)?)));
    make(ctx, secret(name, "kubernetes.io/tls", data)).await
}

async fn docker(ctx: &Context) -> Result<()> {
    let name = name_of(ctx)?;
    let flag = |name: &str| ctx.parsed.str(name);
    let files = sources(ctx)?;
    let content = if let Some((_, bytes)) = files.into_iter().next() {
        bytes
    } else {
        let (user, password) = (flag("docker-username"), flag("docker-password"));
        if user.is_empty() || password.is_empty() {
            return Err(Error::message(
                "either --from-file or the combination of --docker-username, --docker-password and --docker-server is required",
            ));
        }
        // In upstream's order of fields, which the encoded text shows.
        let mut entry = vec![("username", json!(user)), ("password", json!(password))];
        if !flag("docker-email").is_empty() {
            entry.push(("email", json!(flag("docker-email"))));
        }
        entry.push(("auth", json!(STANDARD.encode(format!("{user}:{password}")))));
        let fields: Vec<String> = entry.iter().map(|(key, value)| format!("{key:?}:{value}")).collect();
        format!("{{\"auths\":{{{}:{{{}}}}}}}", json!(flag("docker-server")), fields.join(",")).into_bytes()
    };
    let mut data = Map::new();
    data.insert(".dockerconfigjson".into(), json!(STANDARD.encode(content)));
    make(ctx, secret(name, "kubernetes.io/dockerconfigjson", data)).await
}

/// What `--from-file`, `--from-literal` and `--from-env-file` name.
fn sources(ctx: &Context) -> Result<Vec<(String, Vec<u8>)>> {
    let flags = &ctx.parsed;
    let mut found: Vec<(String, Vec<u8>)> = Vec::new();
    let (files, literals, envs) = (flags.list("from-file"), flags.list("from-literal"), flags.list("from-env-file"));
    let others = !files.is_empty() || !literals.is_empty();
    if !envs.is_empty() && others {
        return Err(Error::message("from-env-file cannot be combined with from-file or from-literal"));
    }
    let mut add = |key: String, bytes: Vec<u8>| -> Result<()> {
        if let Some(message) = apimachinery::names::config_map_key(&key).into_iter().next() {
            return Err(Error::message(format!("{key:?} is not a valid key name for a ConfigMap: {message}")));
        }
        if found.iter().any(|(known, _)| *known == key) {
            return Err(Error::message(format!(
                "cannot add key {key:?}, another key by that name already exists in Data for ConfigMap {:?}",
                ctx.parsed.args.first().map_or("", String::as_str)
            )));
        }
        found.push((key, bytes));
        Ok(())
    };
    let read = |path: &Path| {
        std::fs::read(path).map_err(|error| {
            Error::message(format!("error reading {}: {}", path.display(), crate::error::os_reason(&error)))
        })
    };
    for source in files {
        let (key, path) = match source.split_once('=') {
            Some((key, path)) => (Some(key.to_owned()), path.to_owned()),
            None => (None, source.clone()),
        };
        let path = Path::new(&path);
        if path.is_dir() {
            if key.is_some() {
                return Err(Error::message("cannot give a key name for a directory path"));
            }
            let mut entries: Vec<_> =
                std::fs::read_dir(path)?.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect();
            entries.sort();
            for file in entries.into_iter().filter(|path| path.is_file()) {
                let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
                if apimachinery::names::config_map_key(&name).is_empty() {
                    add(name, read(&file)?)?;
                }
            }
            continue;
        }
        let key = key.or_else(|| path.file_name().map(|name| name.to_string_lossy().into_owned()));
        add(key.unwrap_or_default(), read(path)?)?;
    }
    for literal in literals {
        let Some((key, value)) = literal.split_once('=').filter(|(key, _)| !key.is_empty()) else {
            return Err(Error::message(format!("invalid literal source {literal}, expected key=value")));
        };
        add(key.to_owned(), unquoted(value).as_bytes().to_vec())?;
    }
    for path in envs {
        let text = String::from_utf8_lossy(&read(Path::new(&path))?).into_owned();
        for line in text.lines() {
            let line = line.trim_start();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (key, value) = match line.split_once('=') {
                Some((key, value)) => (key.to_owned(), value.to_owned()),
                None => (line.to_owned(), std::env::var(line).unwrap_or_default()),
            };
            add(key, value.into_bytes())?;
        }
    }
    Ok(found)
}

/// A value without the quotes a shell left around it.
fn unquoted(value: &str) -> &str {
    for quote in ['"', '\''] {
        if let Some(inner) = value.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote)) {
            return inner;
        }
    }
    value
}

/// `kubectl create quota`.
pub const QUOTA: Command = Command::new(
    "quota",
    "Create a quota with the specified name.",
    "NAME [--hard=key1=value1,key2=value2] [--scopes=Scope1,Scope2]",
    &[
        MAKE_FLAGS,
        &[
            Flag::string("hard", "A comma-delimited set of resource=quantity pairs that define a hard limit."),
            Flag::string(
                "scopes",
                "A comma-delimited set of quota scopes that must all match each object tracked by the quota.",
            ),
        ],
        PRINT_FLAGS,
    ],
    |ctx| {
        async move {
            let name = name_of(ctx)?;
            let mut object =
                json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": name}, "spec": {}, "status": {}});
            for pair in ctx.parsed.str("hard").split(',').filter(|pair| !pair.is_empty()) {
                let Some((key, value)) = pair.split_once('=') else {
                    return Err(Error::message(format!("Invalid argument syntax {pair}, expected <resource>=<value>")));
                };
                codec::set(&mut object, &["spec", "hard", key], json!(value));
            }
            let scopes: Vec<&str> = ctx.parsed.str("scopes").split(',').filter(|scope| !scope.is_empty()).collect();
            if !scopes.is_empty() {
                codec::set(&mut object, &["spec", "scopes"], json!(scopes));
            }
            make(ctx, object).await
        }
        .boxed_local()
    },
)
.aliases(&["resourcequota"]);

/// `kubectl create poddisruptionbudget`.
pub const POD_DISRUPTION_BUDGET: Command = Command::new(
    "poddisruptionbudget",
    "Create a pod disruption budget with the specified name.",
    "NAME --selector=SELECTOR --min-available=N",
    &[MAKE_FLAGS, &[
        Flag::string("max-unavailable", "The maximum number or percentage of unavailable pods this budget requires."),
        Flag::string("min-available", "The minimum number or percentage of available pods this budget requires."),
        Flag::string("selector", "A label selector to use for this budget. Only equality-based selector requirements are supported."),
    ], PRINT_FLAGS],
    |ctx| {
        async move {
            let name = name_of(ctx)?;
            let selector = ctx.parsed.str("selector");
            let (minimum, maximum) = (ctx.parsed.str("min-available"), ctx.parsed.str("max-unavailable"));
            if selector.is_empty() {
                return Err(Error::message("a selector must be specified"));
            }
            if minimum.is_empty() && maximum.is_empty() {
                return Err(Error::message("one of min-available or max-unavailable must be specified"));
            }
            if !minimum.is_empty() && !maximum.is_empty() {
                return Err(Error::message("min-available and max-unavailable cannot be both specified"));
            }
            let number = |text: &str| text.parse::<i64>().map_or_else(|_| json!(text), Value::from);
            let mut object = json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": name}, "spec": {}, "status": {"currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0}});
            if minimum.is_empty() {
                object["spec"]["maxUnavailable"] = number(maximum);
            } else {
                object["spec"]["minAvailable"] = number(minimum);
            }
            for pair in selector.split(',') {
                let (key, value) = pair.split_once('=').ok_or_else(|| Error::message(format!("invalid selector {pair:?}")))?;
                codec::set(&mut object, &["spec", "selector", "matchLabels", key.trim()], json!(value.trim_start_matches('=').trim()));
            }
            make(ctx, object).await
        }
        .boxed_local()
    },
)
.aliases(&["pdb"]);

/// `kubectl create priorityclass`.
pub const PRIORITY_CLASS: Command = Command::new(
    "priorityclass",
    "Create a priority class with the specified name, value, globalDefault and description.",
    "NAME --value=VALUE --global-default=BOOL",
    &[MAKE_FLAGS, &[
        Flag::string("description", "description is an arbitrary string that usually provides guidelines on when this priority class should be used."),
        Flag::bool("global-default", "global-default specifies whether this PriorityClass should be considered as the default priority."),
        Flag::string("preemption-policy", "preemption-policy is the policy for preempting pods with lower priority.").default("PreemptLowerPriority"),
        Flag::int("value", "0", "the value of this priority class."),
    ], PRINT_FLAGS],
    |ctx| {
        async move {
            let name = name_of(ctx)?;
            let flags = &ctx.parsed;
            let mut object = json!({
                "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name},
                "value": flags.int("value"), "preemptionPolicy": flags.str("preemption-policy"),
            });
            if flags.bool("global-default") {
                object["globalDefault"] = json!(true);
            }
            if !flags.str("description").is_empty() {
                object["description"] = json!(flags.str("description"));
            }
            make(ctx, object).await
        }
        .boxed_local()
    },
)
.aliases(&["pc"]);

/// `kubectl create token`.
pub const TOKEN: Command = Command::new(
    "token",
    "Request a service account token.",
    "SERVICE_ACCOUNT_NAME",
    &[
        &[
            Flag::array(
                "audience",
                "Audience of the requested token. If unset, defaults to requesting a token for use with the Kubernetes API server.",
            ),
            Flag::string("bound-object-kind", "Kind of an object to bind the token to."),
            Flag::string("bound-object-name", "Name of an object to bind the token to."),
            Flag::string("bound-object-uid", "UID of an object to bind the token to."),
            Flag::duration("duration", "0s", "Requested lifetime of the issued token."),
        ],
        PRINT_FLAGS,
    ],
    |ctx| token(ctx).boxed_local(),
);

async fn token(ctx: &Context) -> Result<()> {
    let flags = &ctx.parsed;
    let name = match flags.args.as_slice() {
        [name] => name,
        _ => return Err(ctx.usage_error(&format!("exactly one NAME is required, got {}", flags.args.len()))),
    };
    let (namespace, _) = ctx.factory.namespace()?;
    let mut request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
    let audiences = flags.list("audience");
    if !audiences.is_empty() {
        request["spec"]["audiences"] = json!(audiences);
    }
    if let Some(duration) = flags.duration("duration").positive() {
        request["spec"]["expirationSeconds"] = json!(duration.as_secs());
    }
    if flags.changed("bound-object-kind") {
        let kind = flags.str("bound-object-kind");
        request["spec"]["boundObjectRef"] =
            json!({"kind": kind, "apiVersion": "v1", "name": flags.str("bound-object-name")});
        if flags.changed("bound-object-uid") {
            request["spec"]["boundObjectRef"]["uid"] = json!(flags.str("bound-object-uid"));
        }
    }
    let mapping = mapper::resolve(&ctx.factory, "serviceaccounts").await?;
    let path = rest::path(&mapping, &namespace, name, "token");
    let answer = ctx
        .factory
        .rest()
        .await?
        .value(Call::new(Method::POST, path).json(&request))
        .await
        .map_err(|error| Error::message(format!("failed to create token: {error}")))?;
    match crate::printer::from_flags(flags, crate::printer::FORMATS)? {
        Some(mut printer) => ctx.streams.out.text(&printer.print(&answer, None)?),
        None => ctx.streams.out.line(codec::text(&answer, &["status", "token"])),
    }
    Ok(())
}
