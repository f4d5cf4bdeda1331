//! `kubectl logs`: what containers wrote, of one pod or many, once or followed.

use std::time::Duration;

use futures::future::LocalBoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};

use crate::codec;
use crate::command::{Command, Context};
use crate::error::{Error, Result};
use crate::flags::Flag;
use crate::pods;
use crate::resource::{Builder, FILE_FLAGS, Info};
use crate::rest::Call;

const FLAGS: &[Flag] = &[
    Flag::bool("all-containers", "Get all containers' logs in the pod(s)."),
    Flag::bool("all-pods", "Get logs from all pod(s). Sets prefix to true."),
    Flag::string("container", "Print the logs of this container").short('c'),
    Flag::bool("follow", "Specify if the logs should be streamed.").short('f'),
    Flag::bool("ignore-errors", "If watching / following pod logs, allow for any errors that occur to be non-fatal"),
    Flag::bool(
        "insecure-skip-tls-verify-backend",
        "Skip verifying the identity of the kubelet that logs are requested from.",
    ),
    Flag::int("limit-bytes", "0", "Maximum bytes of logs to return. Defaults to no limit."),
    Flag::int(
        "max-log-requests",
        "5",
        "Specify maximum number of concurrent logs to follow when using by a selector. Defaults to 5.",
    ),
    Flag::duration(
        "pod-running-timeout",
        "20s",
        "The length of time (like 5s, 2m, or 3h, higher than zero) to wait until at least one pod is running",
    ),
    Flag::bool("prefix", "Prefix each log line with the log source (pod name and container name)"),
    Flag::bool("previous", "If true, print the logs for the previous instance of the container in a pod if it exists.")
        .short('p'),
    Flag::string("selector", "Selector (label query) to filter on.").short('l'),
    Flag::duration("since", "0s", "Only return logs newer than a relative duration like 5s, 2m, or 3h."),
    Flag::string("since-time", "Only return logs after a specific date (RFC3339)."),
    Flag::string("stream", "").default("All"),
    Flag::int("tail", "-1", "Lines of recent log file to display."),
    Flag::bool("timestamps", "Include timestamps on each line in the log output"),
];

/// `kubectl logs`.
pub const COMMAND: Command = Command::new(
    "logs",
    "Print the logs for a container in a pod or specified resource.",
    "[-f] [-p] (POD | TYPE/NAME) [-c CONTAINER]",
    &[FLAGS, FILE_FLAGS],
    run,
);

fn run(ctx: &Context) -> LocalBoxFuture<'_, Result<()>> {
    logs(ctx).boxed_local()
}

/// One container's log.
struct Source {
    pod: Info,
    container: String,
    prefix: String,
}

async fn logs(ctx: &Context) -> Result<()> {
    let flags = &ctx.parsed;
    let selector = flags.str("selector");
    let mut container = flags.str("container").to_owned();
    let mut all_containers = flags.bool("all-containers");
    let name = match flags.args.as_slice() {
        [] if selector.is_empty() => {
            return Err(ctx.usage_error("expected 'logs [-f] [-p] (POD | TYPE/NAME) [-c CONTAINER]'.\nPOD or TYPE/NAME is a required argument for the logs command"));
        }
        [] => None,
        [name] if selector.is_empty() => Some(name),
        [_] => return Err(ctx.usage_error("only a selector (-l) or a POD name is allowed")),
        [name, given] => {
            if !container.is_empty() {
                return Err(ctx.usage_error("only one of -c or an inline [CONTAINER] arg is allowed"));
            }
            container.clone_from(given);
            Some(name)
        }
        _ => {
            return Err(ctx.usage_error("expected 'logs [-f] [-p] (POD | TYPE/NAME) [-c CONTAINER]'.\nPOD or TYPE/NAME is a required argument for the logs command"));
        }
    };
    if flags.changed("since") && flags.changed("since-time") {
        return Err(Error::message("at most one of `sinceTime` or `sinceSeconds` may be specified"));
    }
    if all_containers && !container.is_empty() {
        return Err(Error::message("--all-containers=true should not be specified with container name"));
    }
    if flags.int("tail") < -1 {
        return Err(Error::message("--tail must be greater than or equal to -1"));
    }
    let all_pods = flags.bool("all-pods");
    let pods = targets(ctx, name, selector, all_pods).await?;
    if pods.is_empty() {
        let (namespace, _) = ctx.factory.namespace()?;
        ctx.streams.err.line(&format!("No resources found in {namespace} namespace."));
        return Ok(());
    }
    if all_pods && container.is_empty() && !flags.changed("all-containers") {
        all_containers = true;
    }
    let mut sources = Vec::new();
    for pod in pods {
        let names: Vec<String> = if all_containers {
            let (init, ordinary, ephemeral) = pods::containers(&pod.object);
            init.into_iter().chain(ordinary).chain(ephemeral).map(str::to_owned).collect()
        } else if container.is_empty() {
            vec![pods::default_container(&ctx.streams, &pod.object, false)?]
        } else {
            let (init, ordinary, ephemeral) = pods::containers(&pod.object);
            let known: Vec<&str> = init.into_iter().chain(ordinary).chain(ephemeral).collect();
            if !known.contains(&container.as_str()) {
                return Err(Error::message(format!(
                    "container {container} is not valid for pod {} out of: {}",
                    pod.name,
                    known.join(", ")
                )));
            }
            vec![container.clone()]
        };
        for container in names {
            let prefix = if flags.bool("prefix") || all_pods {
                format!("[pod/{}/{container}] ", pod.name)
            } else {
                String::new()
            };
            sources.push(Source { pod: pod.clone(), container, prefix });
        }
    }
    let limit = flags.int("max-log-requests");
    if flags.bool("follow") && sources.len() > 1 {
        if i64::try_from(sources.len()).is_ok_and(|count| count > limit) {
            return Err(Error::message(format!(
                "you are attempting to follow {} log streams, but maximum allowed concurrency is {limit}, use --max-log-requests to increase the limit",
                sources.len()
            )));
        }
        let mut running: FuturesUnordered<_> = sources.iter().map(|source| copy(ctx, source)).collect();
        while let Some(outcome) = running.next().await {
            outcome?;
        }
        return Ok(());
    }
    for source in &sources {
        copy(ctx, source).await?;
    }
    Ok(())
}

async fn targets(ctx: &Context, name: Option<&String>, selector: &str, all_pods: bool) -> Result<Vec<Info>> {
    let mut builder = Builder::from_flags(&ctx.factory, &ctx.parsed)?;
    let Some(name) = name else {
        let mut found = pods::list(&ctx.factory, &builder.namespace, selector).await?;
        found.sort_by(|a, b| a.name.cmp(&b.name));
        return Ok(found);
    };
    builder.args = if name.contains('/') { vec![name.clone()] } else { vec!["pods".into(), name.clone()] };
    let (mut infos, errors) = builder.objects(&ctx.factory, &ctx.streams).await?;
    if let Some(error) = errors.into_iter().next() {
        return Err(match error.reason() {
            "NotFound" => {
                Error::message(format!("error from server (NotFound): {error} in namespace {:?}", builder.namespace))
            }
            _ => error,
        });
    }
    let info = infos.remove(0);
    if all_pods && info.mapping.kind != "Pod" {
        let selector = pods::selector(&info.mapping, &info.object)?;
        let mut found = pods::list(&ctx.factory, &info.namespace, &selector).await?;
        found.sort_by(|a, b| a.name.cmp(&b.name));
        return Ok(found);
    }
    let patience = ctx.parsed.duration("pod-running-timeout").positive().unwrap_or(Duration::ZERO);
    Ok(vec![pods::one(&ctx.factory, &ctx.streams, info, patience, true).await?])
}

/// Copies one log to standard output, line by line when it has a prefix or rivals.
async fn copy(ctx: &Context, source: &Source) -> Result<()> {
    match copy_once(ctx, source).await {
        Err(error) if ctx.parsed.bool("ignore-errors") => {
            ctx.streams.out.line(&format!("{}error: {error}", source.prefix));
            Ok(())
        }
        other => other,
    }
}

async fn copy_once(ctx: &Context, source: &Source) -> Result<()> {
    let flags = &ctx.parsed;
    let mut call = Call::get(source.pod.path("log")).query("container", source.container.clone());
    for (flag, parameter) in [
        ("follow", "follow"),
        ("insecure-skip-tls-verify-backend", "insecureSkipTLSVerifyBackend"),
        ("previous", "previous"),
        ("timestamps", "timestamps"),
    ] {
        if flags.bool(flag) {
            call = call.query(parameter, "true");
        }
    }
    if flags.int("limit-bytes") > 0 {
        call = call.query("limitBytes", flags.str("limit-bytes"));
    }
    if let Some(since) = flags.duration("since").positive() {
        // A part of a second counts as a whole one.
        call = call.query("sinceSeconds", since.as_secs_f64().ceil().to_string());
    }
    call = call.query("sinceTime", flags.str("since-time"));
    // Over several pods the ends of the logs are what is looked for.
    let tail = if !flags.str("selector").is_empty() && !flags.changed("tail") { 10 } else { flags.int("tail") };
    if tail != -1 {
        call = call.query("tailLines", tail.to_string());
    }
    let rest = ctx.factory.rest().await?;
    let stream = rest.stream(call.accept("*/*")).await.map_err(|error| clarify(error, source))?;
    let mut stream = std::pin::pin!(stream);
    let mut pending: Vec<u8> = Vec::new();
    while let Some(chunk) = stream.next().await {
        pending.extend_from_slice(&chunk?);
        // Whole lines only: other logs may be written between two chunks.
        if let Some(end) = pending.iter().rposition(|byte| *byte == b'\n') {
            let rest = pending.split_off(end + 1);
            ctx.streams.out.bytes(&prefixed(&pending, &source.prefix));
            pending = rest;
        }
    }
    if !pending.is_empty() {
        ctx.streams.out.bytes(&prefixed(&pending, &source.prefix));
    }
    Ok(())
}

fn prefixed(lines: &[u8], prefix: &str) -> Vec<u8> {
    if prefix.is_empty() {
        return lines.to_vec();
    }
    let mut out = Vec::with_capacity(lines.len() + prefix.len() * 8);
    for line in lines.split_inclusive(|byte| *byte == b'\n') {
        out.extend_from_slice(prefix.as_bytes());
        out.extend_from_slice(line);
    }
    out
}

/// The API's error as it is; the pod's name is in it already.
fn clarify(error: Error, source: &Source) -> Error {
    match error {
        Error::Api { status, context } if codec::text(&status, &["message"]).is_empty() => Error::Api {
            status,
            context: format!("{context}unable to retrieve container logs of {}/{}", source.pod.name, source.container),
        },
        other => other,
    }
}
