//! `kubectl debug`: a container with tools beside those of a pod, in a copy of it, or on a node.

use std::time::Duration;

use futures::FutureExt;
use http::Method;
use serde_json::{Value, json};

use crate::codec;
use crate::command::{Command, Context};
use crate::error::{Error, Result};
use crate::flags::Flag;
use crate::mapper;
use crate::resource::{Builder, Info};
use crate::rest::{self, Call};

const FLAGS: &[Flag] = &[
    Flag::bool(
        "arguments-only",
        "If specified, everything after -- will be passed to the new container as Args instead of Command.",
    ),
    Flag::bool(
        "attach",
        "If true, wait for the container to start running, and then attach as if 'kubectl attach ...' were called. Default false, unless '-i/--stdin' is set, in which case the default is true.",
    ),
    Flag::string("container", "Container name to use for debug container.").short('c'),
    Flag::string("copy-to", "Create a copy of the target Pod with this name."),
    Flag::slice("env", "Environment variables to set in the container."),
    Flag::string("image", "Container image to use for debug container."),
    Flag::string(
        "image-pull-policy",
        "The image pull policy for the container. If left empty, this value will not be specified by the client and defaulted by the server.",
    ),
    Flag::string(
        "profile",
        "Options are \"legacy\", \"general\", \"baseline\", \"netadmin\", \"restricted\" or \"sysadmin\".",
    )
    .default("general"),
    Flag::bool("quiet", "If true, suppress informational messages.").short('q'),
    Flag::bool("replace", "When used with '--copy-to', delete the original Pod."),
    Flag::bool("same-node", "When used with '--copy-to', schedule the copy of target Pod on the same node."),
    Flag::slice(
        "set-image",
        "When used with '--copy-to', a list of name=image pairs for changing container images, similar to how 'kubectl set image' works.",
    ),
    Flag::bool("share-processes", "When used with '--copy-to', enable process namespace sharing in the copy.")
        .default("true"),
    Flag::bool("stdin", "Keep stdin open on the container(s) in the pod, even if nothing is attached.").short('i'),
    Flag::string("target", "When using an ephemeral container, target processes in this container name."),
    Flag::bool("tty", "Allocate a TTY for the debugging container.").short('t'),
];

/// `kubectl debug`.
pub const COMMAND: Command = Command::new(
    "debug",
    "Create debugging sessions for troubleshooting workloads and nodes.",
    "(POD | TYPE[[.VERSION].GROUP]/NAME) [ -- COMMAND [args...] ]",
    &[FLAGS],
    |ctx| debug(ctx).boxed_local(),
);

/// How long a debugging container may take to start.
const PATIENCE: Duration = Duration::from_secs(60);
const PROFILES: [&str; 6] = ["legacy", "general", "baseline", "netadmin", "restricted", "sysadmin"];

async fn debug(ctx: &Context) -> Result<()> {
    let flags = &ctx.parsed;
    let split = flags.dash.unwrap_or(flags.args.len());
    let (names, command) = flags.args.split_at(split);
    let [name] = names else {
        return Err(ctx.usage_error(match names.len() {
            0 => "NAME or TYPE/NAME is required for debug",
            _ => "only one NAME or TYPE/NAME can be specified for debug",
        }));
    };
    let copy = !flags.str("copy-to").is_empty();
    if flags.str("image").is_empty() && !copy {
        return Err(ctx.usage_error("you must specify --image when not using --copy-to."));
    }
    if !PROFILES.contains(&flags.str("profile")) {
        return Err(Error::message(format!("unknown profile: {}", flags.str("profile"))));
    }
    if flags.bool("tty") && !flags.bool("stdin") {
        return Err(ctx.usage_error("-i/--stdin is required for containers with -t/--tty=true"));
    }
    if copy && !flags.str("target").is_empty() {
        return Err(ctx.usage_error("--target is incompatible with --copy-to. Use --share-processes instead."));
    }
    let mut builder = Builder::from_flags(&ctx.factory, flags)?;
    builder.args = if name.contains('/') { vec![name.clone()] } else { vec!["pods".into(), name.clone()] };
    let (mut infos, errors) = builder.objects(&ctx.factory, &ctx.streams).await?;
    Error::aggregate(errors)?;
    let target = infos.remove(0);
    let (mut pod, container) = match target.mapping.kind.as_str() {
        "Node" => on_node(ctx, &target, command).await?,
        "Pod" if copy => in_copy(ctx, &target, command).await?,
        "Pod" => beside(ctx, &target, command).await?,
        kind => return Err(Error::message(format!("{:?} not supported by debug", kind.to_lowercase()))),
    };
    let attach = if flags.changed("attach") { flags.bool("attach") } else { flags.bool("stdin") };
    if !attach || container.is_empty() {
        return Ok(());
    }
    let waiting = until_started(ctx, &mut pod, &container);
    tokio::time::timeout(PATIENCE, waiting)
        .await
        .unwrap_or_else(|_| Err(Error::message("timed out waiting for the condition")))?;
    if state(&pod.object, &container).is_some_and(|state| state.get("terminated").is_some()) {
        let log = Call::get(pod.path("log")).query("container", container).accept("*/*");
        ctx.streams.out.bytes(&ctx.factory.rest().await?.bytes(log).await?);
        return Ok(());
    }
    if !flags.bool("quiet") && flags.bool("tty") {
        ctx.streams.err.line("If you don't see a command prompt, try pressing enter.");
    }
    super::exec::stream_to(ctx, &pod, "attach", &container, &[]).await
}

/// `debugger-x7k2p`
fn generated(prefix: &str) -> String {
    format!("{prefix}-{}", apimachinery::random::suffix(5))
}

fn container(ctx: &Context, name: &str, command: &[String]) -> Result<Value> {
    let flags = &ctx.parsed;
    let mut container = json!({
        "name": name,
        "image": flags.str("image"),
        "resources": {},
        "terminationMessagePolicy": "File",
    });
    if !flags.str("image-pull-policy").is_empty() {
        container["imagePullPolicy"] = json!(flags.str("image-pull-policy"));
    }
    for flag in ["stdin", "tty"] {
        if flags.bool(flag) {
            container[flag] = json!(true);
        }
    }
    if !command.is_empty() {
        container[if flags.bool("arguments-only") { "args" } else { "command" }] = json!(command);
    }
    let mut env = Vec::new();
    for pair in flags.list("env") {
        let (key, value) = pair
            .split_once('=')
            .ok_or_else(|| Error::message(format!("expected value of the form K=V, got {pair:?}")))?;
        env.push(json!({"name": key, "value": value}));
    }
    if !env.is_empty() {
        container["env"] = Value::Array(env);
    }
    Ok(container)
}

/// What the profile adds to the container's rights.
fn profile(name: &str, container: &mut Value, node: bool) {
    let context = match (name, node) {
        ("general", false) => json!({"capabilities": {"add": ["SYS_PTRACE"]}}),
        ("netadmin", _) => json!({"capabilities": {"add": ["NET_ADMIN", "NET_RAW"]}}),
        ("restricted", _) => json!({
            "allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"]},
            "runAsNonRoot": true,
            "seccompProfile": {"type": "RuntimeDefault"},
        }),
        ("sysadmin", _) => json!({"privileged": true}),
        _ => return,
    };
    container["securityContext"] = context;
}

/// An ephemeral container in the pod itself.
async fn beside(ctx: &Context, target: &Info, command: &[String]) -> Result<(Info, String)> {
    let flags = &ctx.parsed;
    let name = match flags.str("container") {
        "" => generated("debugger"),
        name => name.to_owned(),
    };
    if !flags.bool("quiet") {
        if flags.str("container").is_empty() {
            ctx.streams.err.line(&format!("Defaulting debug container name to {name}."));
        }
        if !flags.str("target").is_empty() {
            ctx.streams.err.line(&format!(
                "Targeting container {:?}. If you don't see processes from this container it may be because the container runtime doesn't support this feature.",
                flags.str("target")
            ));
        }
    }
    let mut new = container(ctx, &name, command)?;
    profile(flags.str("profile"), &mut new, false);
    if !flags.str("target").is_empty() {
        new["targetContainerName"] = json!(flags.str("target"));
    }
    let patch = json!({"spec": {"ephemeralContainers": [new]}});
    let body = serde_json::to_vec(&patch).expect("a tree always encodes");
    let call = Call::new(Method::PATCH, target.path("ephemeralcontainers"))
        .body("application/strategic-merge-patch+json", body);
    let object = ctx.factory.rest().await?.value(call).await?;
    Ok((Info { object, ..target.clone() }, name))
}

/// A copy of the pod with another container, or other images.
async fn in_copy(ctx: &Context, target: &Info, command: &[String]) -> Result<(Info, String)> {
    let flags = &ctx.parsed;
    let (copy, name) = copied(ctx, &target.object, command)?;
    let rest = ctx.factory.rest().await?;
    if flags.bool("replace") {
        rest.value(Call::new(Method::DELETE, target.path(""))).await?;
    }
    let path = rest::path(&target.mapping, &target.namespace, "", "");
    let object = rest.value(Call::new(Method::POST, path).json(&copy)).await?;
    Ok((Info { object, name: flags.str("copy-to").to_owned(), ..target.clone() }, name))
}

fn copied(ctx: &Context, pod: &Value, command: &[String]) -> Result<(Value, String)> {
    let flags = &ctx.parsed;
    let mut spec = pod["spec"].clone();
    if let Some(fields) = spec.as_object_mut() {
        fields.remove("ephemeralContainers");
        if !flags.bool("same-node") {
            fields.remove("nodeName");
        }
        if flags.bool("share-processes") {
            fields.insert("shareProcessNamespace".into(), json!(true));
        }
    }
    for pair in flags.list("set-image") {
        let (name, image) =
            pair.split_once('=').ok_or_else(|| Error::message(format!("expected name=image, got {pair:?}")))?;
        for container in spec["containers"].as_array_mut().into_iter().flatten() {
            if name == "*" || container["name"] == name {
                container["image"] = json!(image);
            }
        }
    }
    let wanted = flags.str("container");
    let known = codec::list(&spec, &["containers"]).iter().any(|container| container["name"] == wanted);
    let mut name = String::new();
    if known {
        // The named container itself, changed.
        let new = container(ctx, wanted, command)?;
        for old in spec["containers"].as_array_mut().into_iter().flatten().filter(|c| c["name"] == wanted) {
            for field in ["image", "command", "args", "stdin", "tty", "env"] {
                if let Some(value) = new.get(field).filter(|value| **value != json!("")) {
                    old[field] = value.clone();
                }
            }
        }
        name = wanted.to_owned();
    } else if !flags.str("image").is_empty() {
        name = if wanted.is_empty() { generated("debugger") } else { wanted.to_owned() };
        if wanted.is_empty() && !flags.bool("quiet") {
            ctx.streams.err.line(&format!("Defaulting debug container name to {name}."));
        }
        let mut new = container(ctx, &name, command)?;
        profile(flags.str("profile"), &mut new, false);
        if let Some(list) = spec["containers"].as_array_mut() {
            list.push(new);
        }
    }
    let copy = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": flags.str("copy-to"),
            "namespace": pod["metadata"]["namespace"],
            "annotations": pod["metadata"].get("annotations").cloned().unwrap_or_else(|| json!({})),
        },
        "spec": spec,
    });
    Ok((copy, name))
}

/// A pod in the node's own namespaces, with its root at `/host`.
async fn on_node(ctx: &Context, node: &Info, command: &[String]) -> Result<(Info, String)> {
    let flags = &ctx.parsed;
    let container_name = match flags.str("container") {
        "" => "debugger",
        name => name,
    };
    let name = generated(&format!("node-debugger-{}", node.name));
    if !flags.bool("quiet") {
        ctx.streams
            .err
            .line(&format!("Creating debugging pod {name} with container {container_name} on node {}.", node.name));
    }
    let (namespace, _) = ctx.factory.namespace()?;
    let mut new = container(ctx, container_name, command)?;
    let chosen = flags.str("profile");
    profile(chosen, &mut new, true);
    let isolated = matches!(chosen, "baseline" | "restricted");
    let mut spec = json!({
        "nodeName": node.name,
        "restartPolicy": "Never",
        "tolerations": [{"operator": "Exists"}],
    });
    if !isolated {
        for field in ["hostNetwork", "hostPID", "hostIPC"] {
            // The network alone is what a network's administrator needs.
            if chosen != "netadmin" || field != "hostIPC" {
                spec[field] = json!(true);
            }
        }
        if chosen != "netadmin" {
            new["volumeMounts"] = json!([{"mountPath": "/host", "name": "host-root"}]);
            spec["volumes"] = json!([{"name": "host-root", "hostPath": {"path": "/"}}]);
        }
    }
    spec["containers"] = json!([new]);
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app.kubernetes.io/managed-by": "kubectl-debug"}},
        "spec": spec,
    });
    let mapping = mapper::resolve(&ctx.factory, "pods").await?;
    let path = rest::path(&mapping, &namespace, "", "");
    let object = ctx.factory.rest().await?.value(Call::new(Method::POST, path).json(&pod)).await?;
    Ok((Info { mapping, namespace, name, object, source: String::new() }, container_name.to_owned()))
}

fn state<'a>(pod: &'a Value, container: &str) -> Option<&'a Value> {
    ["ephemeralContainerStatuses", "containerStatuses"]
        .iter()
        .flat_map(|list| codec::list(pod, &["status", list]))
        .find(|status| status["name"] == container)?
        .get("state")
}

/// Follows the pod until the container runs, or has run.
async fn until_started(ctx: &Context, pod: &mut Info, container: &str) -> Result<()> {
    let rest = ctx.factory.rest().await?;
    let path = rest::path(&pod.mapping, &pod.namespace, "", "");
    let done = |pod: &Value| {
        state(pod, container).is_some_and(|s| s.get("running").is_some() || s.get("terminated").is_some())
    };
    loop {
        pod.object = pod.get(&ctx.factory).await?;
        if done(&pod.object) {
            return Ok(());
        }
        let version = codec::text(&pod.object, &["metadata", "resourceVersion"]).to_owned();
        let call = Call::get(&path).query("fieldSelector", format!("metadata.name={}", pod.name));
        let events = rest.watch(call.query("resourceVersion", version)).await?;
        let mut events = std::pin::pin!(events);
        while let Some(Ok(event)) = futures::StreamExt::next(&mut events).await {
            match codec::text(&event, &["type"]) {
                "ADDED" | "MODIFIED" => pod.object = event["object"].clone(),
                "DELETED" => return Err(Error::message(format!("pod {:?} was deleted", pod.name))),
                _ => break,
            }
            if done(&pod.object) {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{profile, state};

    #[test]
    fn profiles() {
        let of = |name: &str, node: bool| {
            let mut container = json!({});
            profile(name, &mut container, node);
            container
        };
        assert_eq!(of("general", false)["securityContext"]["capabilities"]["add"], json!(["SYS_PTRACE"]));
        assert_eq!(of("general", true), json!({}));
        assert_eq!(of("sysadmin", true)["securityContext"]["privileged"], true);
        assert_eq!(of("restricted", false)["securityContext"]["runAsNonRoot"], true);
    }

    #[test]
    fn states_are_found_in_either_list() {
        let pod = json!({"status": {"containerStatuses": [{"name": "a", "state": {"running": {}}}],
            "ephemeralContainerStatuses": [{"name": "d", "state": {"terminated": {}}}]}});
        assert!(state(&pod, "a").expect("there").get("running").is_some());
        assert!(state(&pod, "d").expect("there").get("terminated").is_some());
        assert!(state(&pod, "x").is_none());
    }
}
