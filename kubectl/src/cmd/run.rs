//! `kubectl run`: one pod from flags, and its terminal when asked for.

use std::time::Duration;

use futures::{FutureExt, StreamExt};
use http::Method;
use serde_json::{Value, json};

use super::ops::{self, DRY_RUN, Done, DryRun, Write};
use crate::codec;
use crate::command::{Command, Context};
use crate::error::{Error, Result};
use crate::flags::Flag;
use crate::mapper;
use crate::printer::PRINT_FLAGS;
use crate::resource::Info;
use crate::rest::{self, Call};

const FLAGS: &[Flag] = &[
    DRY_RUN,
    Flag::array("annotations", "Annotations to apply to the pod."),
    Flag::bool("attach", "If true, wait for the Pod to start running, and then attach to the Pod."),
    Flag::bool(
        "command",
        "If true and extra arguments are present, use them as the 'command' field in the container, rather than the 'args' field which is the default.",
    ),
    Flag::string("container", "Container name.").short('c'),
    Flag::array("env", "Environment variables to set in the container."),
    Flag::bool("expose", "If true, create a ClusterIP service associated with the pod. Requires `--port`."),
    Flag::string("field-manager", "Name of the manager used to track field ownership.").default("kubectl-run"),
    Flag::string("image", "The image for the container to run."),
    Flag::string("image-pull-policy", "The image pull policy for the container."),
    Flag::string("labels", "Comma separated labels to apply to the pod.").short('l'),
    Flag::string("overrides", "An inline JSON override for the generated object."),
    Flag::duration(
        "pod-running-timeout",
        "1m0s",
        "The length of time (like 5s, 2m, or 3h, higher than zero) to wait until at least one pod is running",
    ),
    Flag::string("port", "The port that this container exposes."),
    Flag::bool("privileged", "If true, run the container in privileged mode."),
    Flag::bool("quiet", "If true, suppress prompt messages.").short('q'),
    Flag::string("restart", "The restart policy for this Pod. Legal values [Always, OnFailure, Never].")
        .default("Always"),
    Flag::bool("rm", "If true, delete the pod after it exits."),
    Flag::bool("save-config", "If true, the configuration of current object will be saved in its annotation."),
    Flag::bool("stdin", "Keep stdin open on the container in the pod, even if nothing is attached.").short('i'),
    Flag::bool("tty", "Allocate a TTY for the container in the pod.").short('t'),
];

/// `kubectl run`.
pub const COMMAND: Command = Command::new(
    "run",
    "Run a particular image on the cluster.",
    "NAME --image=image [--env=\"key=value\"] [--port=port] [--dry-run=server|client] [--overrides=inline-json] [--command] -- [COMMAND] [args...]",
    &[FLAGS, PRINT_FLAGS],
    |ctx| run(ctx).boxed_local(),
);

fn pod(ctx: &Context, name: &str, command: &[String]) -> Result<Value> {
    let flags = &ctx.parsed;
    let restart = flags.str("restart");
    if !matches!(restart, "Always" | "OnFailure" | "Never") {
        return Err(ctx.usage_error(&format!("invalid restart policy: {restart}")));
    }
    let mut container = json!({"image": flags.str("image"), "name": name, "resources": {}});
    if !command.is_empty() {
        container[if flags.bool("command") { "command" } else { "args" }] = json!(command);
    }
    let mut env = Vec::new();
    for pair in flags.list("env") {
        let (key, value) = pair
            .split_once('=')
            .filter(|(key, _)| !key.is_empty())
            .ok_or_else(|| Error::message(format!("invalid env: {pair}")))?;
        env.push(json!({"name": key, "value": value}));
    }
    if !env.is_empty() {
        container["env"] = Value::Array(env);
    }
    if !flags.str("port").is_empty() {
        let port: i64 = flags
            .str("port")
            .parse()
            .map_err(|_| Error::message(format!("strconv.Atoi: parsing {:?}: invalid syntax", flags.str("port"))))?;
        container["ports"] = json!([{"containerPort": port}]);
    }
    if !flags.str("image-pull-policy").is_empty() {
        container["imagePullPolicy"] = json!(flags.str("image-pull-policy"));
    }
    if flags.bool("privileged") {
        container["securityContext"] = json!({"privileged": true});
    }
    if flags.bool("stdin") {
        container["stdin"] = json!(true);
        if restart != "Always" || flags.bool("rm") || flags.bool("attach") || !flags.changed("attach") {
            container["stdinOnce"] = json!(true);
        }
    }
    if flags.bool("tty") {
        container["tty"] = json!(true);
    }
    let mut labels = json!({"run": name});
    if !flags.str("labels").is_empty() {
        labels = json!({});
        for pair in flags.str("labels").split(',') {
            let (key, value) =
                pair.split_once('=').ok_or_else(|| Error::message(format!("unexpected label spec: {pair}")))?;
            labels[key] = json!(value);
        }
    }
    let mut object = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"labels": labels, "name": name},
        "spec": {"containers": [container], "dnsPolicy": "ClusterFirst", "restartPolicy": restart},
        "status": {},
    });
    for pair in flags.list("annotations") {
        let (key, value) = pair.split_once('=').ok_or_else(|| Error::message(format!("invalid annotation: {pair}")))?;
        codec::set(&mut object, &["metadata", "annotations", key], json!(value));
    }
    if !flags.str("overrides").is_empty() {
        let overrides: Value = serde_json::from_str(flags.str("overrides"))
            .map_err(|error| Error::message(format!("invalid --overrides: {error}")))?;
        apimachinery::patch::merge::apply(&mut object, overrides);
    }
    Ok(object)
}

async fn run(ctx: &Context) -> Result<()> {
    let flags = &ctx.parsed;
    let dry_run = DryRun::from_flags(flags)?;
    let split = flags.dash.filter(|dash| *dash <= 1).unwrap_or(1).min(flags.args.len());
    let (names, command) = flags.args.split_at(split);
    if flags.str("image").is_empty() {
        return Err(Error::message("required flag(s) \"image\" not set"));
    }
    let [name] = names else { return Err(ctx.usage_error("NAME is required for run")) };
    let interactive = flags.bool("stdin");
    let attach = if flags.changed("attach") { flags.bool("attach") } else { interactive };
    if flags.bool("tty") && !interactive {
        return Err(ctx.usage_error("-i/--stdin is required for containers with -t/--tty=true"));
    }
    if flags.bool("rm") && !attach {
        return Err(ctx.usage_error("--rm should only be used for attached containers"));
    }
    if attach && dry_run != DryRun::None {
        return Err(ctx.usage_error(
            "--dry-run=[server|client] can't be used with attached containers options (--attach, --stdin, or --tty)",
        ));
    }
    if flags.bool("expose") && flags.str("port").is_empty() {
        return Err(ctx.usage_error("--port must be set when exposing a service"));
    }
    let mut object = pod(ctx, name, command)?;
    let (namespace, explicit) = ctx.factory.namespace()?;
    if dry_run != DryRun::Client || explicit {
        codec::set(&mut object, &["metadata", "namespace"], json!(namespace));
    }
    if flags.bool("save-config") {
        ops::annotate(&mut object);
    }
    let mapping = mapper::resolve(&ctx.factory, "pods").await?;
    let mut info = Info { mapping, namespace, name: name.clone(), object, source: String::new() };
    if dry_run != DryRun::Client {
        let write = Write { field_manager: flags.str("field-manager"), field_validation: "", dry_run };
        info.object = write.create(&ctx.factory, &info, &info.object).await?;
    }
    let mut done = Done::from_flags(flags, dry_run)?;
    if flags.bool("expose") {
        let service = service(ctx, &info, dry_run, explicit).await?;
        done.print(&ctx.streams, &service, "created")?;
    }
    if !attach {
        return done.print(&ctx.streams, &info, "created");
    }
    let outcome = attached(ctx, &mut info).await;
    if flags.bool("rm") {
        let options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"});
        ctx.factory.rest().await?.value(Call::new(Method::DELETE, info.path("")).json(&options)).await?;
        if !flags.bool("quiet") {
            ctx.streams.out.line(&format!("pod {:?} deleted from {} namespace", info.name, info.namespace));
        }
    }
    outcome
}

/// The Service that `--expose` adds.
async fn service(ctx: &Context, pod: &Info, dry_run: DryRun, explicit: bool) -> Result<Info> {
    let port: i64 = ctx.parsed.str("port").parse().map_err(|_| Error::message("invalid port"))?;
    let mut object = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": pod.name},
        "spec": {
            "ports": [{"port": port, "protocol": "TCP", "targetPort": port}],
            "selector": codec::at(&pod.object, &["metadata", "labels"]),
        },
        "status": {"loadBalancer": {}},
    });
    if dry_run != DryRun::Client || explicit {
        codec::set(&mut object, &["metadata", "namespace"], json!(pod.namespace));
    }
    let mapping = mapper::resolve(&ctx.factory, "services").await?;
    let mut info = Info { mapping, object, ..pod.clone() };
    if dry_run != DryRun::Client {
        let write = Write { field_manager: ctx.parsed.str("field-manager"), field_validation: "", dry_run };
        info.object = write.create(&ctx.factory, &info, &info.object).await?;
    }
    Ok(info)
}

/// Waits for the pod to run and attaches; a pod that ended first shows its log instead.
async fn attached(ctx: &Context, info: &mut Info) -> Result<()> {
    let limit = ctx.parsed.duration("pod-running-timeout").positive().unwrap_or(Duration::from_secs(60));
    tokio::time::timeout(limit, started(ctx, info))
        .await
        .unwrap_or_else(|_| Err(Error::message("timed out waiting for the condition")))?;
    let phase = codec::text(&info.object, &["status", "phase"]).to_owned();
    if phase != "Running" {
        let log = ctx
            .factory
            .rest()
            .await?
            .bytes(Call::get(info.path("log")).query("container", info.name.clone()).accept("*/*"))
            .await?;
        ctx.streams.out.bytes(&log);
        return ended(&info.object, &info.name);
    }
    if !ctx.parsed.bool("quiet") && ctx.parsed.bool("tty") {
        ctx.streams.err.line("If you don't see a command prompt, try pressing enter.");
    }
    if let Err(error) = super::exec::stream(ctx, info, "attach", &[]).await {
        // A short command may be over before anybody attaches; its log has what it said.
        ctx.streams
            .err
            .line(&format!("warning: couldn't attach to pod/{}, falling back to streaming logs: {error}", info.name));
        let log = Call::get(info.path("log")).query("container", info.name.clone()).query("follow", "true");
        let bytes = ctx.factory.rest().await?.bytes(log.accept("*/*")).await?;
        ctx.streams.out.bytes(&bytes);
    }
    if ctx.parsed.str("restart") != "Never" {
        return Ok(());
    }
    tokio::time::timeout(
        limit,
        follow(ctx, info, |pod| matches!(codec::text(pod, &["status", "phase"]), "Succeeded" | "Failed")),
    )
    .await
    .unwrap_or(Ok(()))?;
    ended(&info.object, &info.name)
}

async fn started(ctx: &Context, info: &mut Info) -> Result<()> {
    follow(ctx, info, |pod| {
        let phase = codec::text(pod, &["status", "phase"]);
        let running = codec::list(pod, &["status", "containerStatuses"])
            .iter()
            .any(|status| codec::at(status, &["state", "running"]).is_some());
        matches!(phase, "Succeeded" | "Failed") || (phase == "Running" && running)
    })
    .await
}

/// Follows the pod until it looks as wanted.
async fn follow(ctx: &Context, info: &mut Info, wanted: impl Fn(&Value) -> bool) -> Result<()> {
    let rest = ctx.factory.rest().await?;
    let selector = format!("metadata.name={}", info.name);
    let path = rest::path(&info.mapping, &info.namespace, "", "");
    loop {
        info.object = info.get(&ctx.factory).await?;
        if wanted(&info.object) {
            return Ok(());
        }
        let version = codec::text(&info.object, &["metadata", "resourceVersion"]).to_owned();
        let events =
            rest.watch(Call::get(&path).query("fieldSelector", &selector).query("resourceVersion", version)).await?;
        let mut events = std::pin::pin!(events);
        while let Some(Ok(event)) = events.next().await {
            match codec::text(&event, &["type"]) {
                "ADDED" | "MODIFIED" => {
                    info.object = event["object"].clone();
                    if wanted(&info.object) {
                        return Ok(());
                    }
                }
                "DELETED" => return Err(Error::message(format!("pod {:?} was deleted", info.name))),
                _ => break,
            }
        }
    }
}

/// The exit code of a pod's container becomes ours.
fn ended(pod: &Value, name: &str) -> Result<()> {
    let status =
        codec::list(pod, &["status", "containerStatuses"]).iter().find(|status| codec::text(status, &["name"]) == name);
    let code = status.and_then(|status| codec::int(status, &["state", "terminated", "exitCode"])).unwrap_or(0);
    match u8::try_from(code) {
        Ok(0) | Err(_) => Ok(()),
        Ok(code) => Err(Error::Terminated(code)),
    }
}
