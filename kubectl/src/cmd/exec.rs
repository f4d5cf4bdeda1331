//! `kubectl exec` and `kubectl attach`: a command in a container, or the container's own process.

use std::time::Duration;

use futures::FutureExt;
use futures::future::LocalBoxFuture;

use crate::codec;
use crate::command::{Command, Context};
use crate::error::{Error, Result};
use crate::flags::Flag;
use crate::pods;
use crate::remote::{self, Wanted};
use crate::resource::{Builder, FILE_FLAGS, Info};

const FLAGS: &[Flag] = &[
    Flag::string("container", "Container name. If omitted, use the kubectl.kubernetes.io/default-container annotation for selecting the container to be attached or the first container in the pod will be chosen").short('c'),
    Flag::duration("pod-running-timeout", "1m0s", "The length of time (like 5s, 2m, or 3h, higher than zero) to wait until at least one pod is running"),
    Flag::bool("quiet", "Only print output from the remote session").short('q'),
    Flag::bool("stdin", "Pass stdin to the container").short('i'),
    Flag::bool("tty", "Stdin is a TTY").short('t'),
];

/// `kubectl exec`.
pub const COMMAND: Command = Command::new(
    "exec",
    "Execute a command in a container.",
    "(POD | TYPE/NAME) [-c CONTAINER] [flags] -- COMMAND [args...]",
    &[FLAGS, FILE_FLAGS],
    run,
);

/// `kubectl attach`.
pub const ATTACH: Command = Command::new(
    "attach",
    "Attach to a process that is already running inside an existing container.",
    "(POD | TYPE/NAME) -c CONTAINER",
    &[FLAGS],
    |ctx| attach(ctx).boxed_local(),
);

fn run(ctx: &Context) -> LocalBoxFuture<'_, Result<()>> {
    exec(ctx).boxed_local()
}

async fn exec(ctx: &Context) -> Result<()> {
    let flags = &ctx.parsed;
    let files = !flags.list("filename").is_empty();
    let args = &flags.args;
    if args.is_empty() && !files {
        return Err(Error::message("pod, type/name or --filename must be specified"));
    }
    let named = usize::from(!files);
    let Some(dash) = flags.dash else {
        if args.len() > named {
            return Err(Error::message(
                "exec [POD] [COMMAND] is not supported anymore. Use exec [POD] -- [COMMAND] instead\nSee 'kubectl exec -h' for help and examples",
            ));
        }
        return Err(Error::message("you must specify at least one command for the container"));
    };
    if dash > named {
        return Err(Error::message(
            "exec [POD] [COMMAND] is not supported anymore. Use exec [POD] -- [COMMAND] instead\nSee 'kubectl exec -h' for help and examples",
        ));
    }
    let command = &args[dash..];
    if command.is_empty() {
        return Err(Error::message("you must specify at least one command for the container"));
    }
    let pod = target(ctx, if files { None } else { args.first() }).await?;
    let phase = codec::text(&pod.object, &["status", "phase"]);
    if matches!(phase, "Succeeded" | "Failed") {
        return Err(Error::message(format!(
            "cannot exec into a container in a completed pod; current phase is {phase}"
        )));
    }
    stream(ctx, &pod, "exec", command).await
}

async fn attach(ctx: &Context) -> Result<()> {
    let [name] = ctx.parsed.args.as_slice() else {
        return Err(ctx.usage_error(match ctx.parsed.args.len() {
            0 => "at least 1 argument is required for attach",
            _ => "expected POD, TYPE/NAME, or TYPE NAME, (at most 2 arguments)",
        }));
    };
    let pod = target(ctx, Some(name)).await?;
    let phase = codec::text(&pod.object, &["status", "phase"]);
    if matches!(phase, "Succeeded" | "Failed") {
        return Err(Error::message(format!("cannot attach a container in a completed pod; current phase is {phase}")));
    }
    if ctx.parsed.bool("stdin") && !ctx.parsed.bool("quiet") && ctx.parsed.bool("tty") {
        ctx.streams.err.line("If you don't see a command prompt, try pressing enter.");
    }
    stream(ctx, &pod, "attach", &[]).await
}

/// The pod a `POD`, `TYPE/NAME` or `-f` means.
async fn target(ctx: &Context, name: Option<&String>) -> Result<Info> {
    let mut builder = Builder::from_flags(&ctx.factory, &ctx.parsed)?;
    builder.args = match name {
        Some(name) if name.contains('/') => vec![name.clone()],
        Some(name) => vec!["pods".into(), name.clone()],
        None => Vec::new(),
    };
    let (mut infos, errors) = builder.objects(&ctx.factory, &ctx.streams).await?;
    Error::aggregate(errors)?;
    if infos.is_empty() {
        return Err(Error::message("pod, type/name or --filename must be specified"));
    }
    let mut info = infos.remove(0);
    if !info.source.is_empty() {
        info.object = info.get(&ctx.factory).await?;
    }
    let patience = ctx.parsed.duration("pod-running-timeout").positive().unwrap_or(Duration::ZERO);
    pods::one(&ctx.factory, &ctx.streams, info, patience, false).await
}

pub(super) async fn stream(ctx: &Context, pod: &Info, subresource: &str, command: &[String]) -> Result<()> {
    let flags = &ctx.parsed;
    let container = match flags.str("container") {
        "" => pods::default_container(&ctx.streams, &pod.object, flags.bool("quiet"))?,
        name => {
            let (init, ordinary, ephemeral) = pods::containers(&pod.object);
            if !init.iter().chain(&ordinary).chain(&ephemeral).any(|known| *known == name) {
                return Err(Error::message(format!("container {name} not found in pod {}", pod.name)));
            }
            name.to_owned()
        }
    };
    stream_to(ctx, pod, subresource, &container, command).await
}

/// As [`stream`], to a container that is known to be there.
pub(super) async fn stream_to(
    ctx: &Context,
    pod: &Info,
    subresource: &str,
    container: &str,
    command: &[String],
) -> Result<()> {
    let flags = &ctx.parsed;
    let stdin = flags.bool("stdin");
    let mut tty = flags.bool("tty");
    if tty && !(stdin && ctx.streams.in_is_terminal) {
        if stdin {
            ctx.streams.err.line("Unable to use a TTY - input is not a terminal or the right kind of file");
        }
        tty = tty && !stdin;
    }
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    command.iter().for_each(|word| {
        query.append_pair("command", word);
    });
    query.append_pair("container", container);
    for (name, wanted) in [("stdin", stdin), ("stdout", true), ("stderr", !tty), ("tty", tty)] {
        if wanted {
            query.append_pair(name, "true");
        }
    }
    let uri = format!("{}?{}", pod.path(subresource), query.finish());
    let rest = ctx.factory.rest().await?;
    remote::stream(&rest, &uri, &ctx.streams, Wanted { stdin, tty }).await
}
