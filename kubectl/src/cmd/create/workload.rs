//! Subcommands for workloads and the ways in to them.

use futures::FutureExt;
use futures::future::LocalBoxFuture;
use serde_json::{Value, json};

use super::{MAKE_FLAGS, make, name_of};
use crate::codec;
use crate::command::{Command, Context};
use crate::error::{Error, Result};
use crate::flags::Flag;
use crate::mapper;
use crate::printer::PRINT_FLAGS;
use crate::rest::{self, Call};

/// `kubectl create deployment`.
pub const DEPLOYMENT: Command = Command::new(
    "deployment",
    "Create a deployment with the specified name.",
    "NAME --image=image -- [COMMAND] [args...]",
    &[
        MAKE_FLAGS,
        &[
            Flag::slice(
                "image",
                "Image names to run. A deployment can have multiple images set for multi-container pod.",
            ),
            Flag::int("port", "-1", "The containerPort that this deployment exposes."),
            Flag::int("replicas", "1", "Number of replicas to create. Default is 1.").short('r'),
        ],
        PRINT_FLAGS,
    ],
    |ctx| deployment(ctx).boxed_local(),
)
.aliases(&["deploy"]);

/// The name before `--`, and the command after it.
fn name_and_command(ctx: &Context) -> Result<(&str, &[String])> {
    let split = ctx.parsed.dash.unwrap_or(ctx.parsed.args.len());
    let (names, command) = ctx.parsed.args.split_at(split);
    match names {
        [name] => Ok((name, command)),
        _ => Err(ctx.usage_error(&format!("exactly one NAME is required, got {}", names.len()))),
    }
}

/// A container's name, made from its image: the last part without tag and digest.
pub fn container_name(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    let last = last.split('@').next().unwrap_or(last);
    let last = last.split(':').next().unwrap_or(last);
    last.to_lowercase().chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '-' }).collect()
}

async fn deployment(ctx: &Context) -> Result<()> {
    let flags = &ctx.parsed;
    let images = flags.list("image");
    if images.is_empty() {
        return Err(Error::message("required flag(s) \"image\" not set"));
    }
    let (name, command) = name_and_command(ctx)?;
    if images.len() > 1 && !command.is_empty() {
        return Err(Error::message("cannot specify multiple --image options and command"));
    }
    let port = flags.int("port");
    let containers: Vec<Value> = images
        .iter()
        .map(|image| {
            let mut container = json!({"image": image, "name": container_name(image), "resources": {}});
            if !command.is_empty() {
                container["command"] = json!(command);
            }
            container
        })
        .collect();
    let mut object = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "replicas": flags.int("replicas"),
            "selector": {"matchLabels": {"app": name}},
            "strategy": {},
            "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": containers}},
        },
        "status": {},
    });
    if port >= 0 {
        object["spec"]["template"]["spec"]["containers"][0]["ports"] = json!([{"containerPort": port}]);
    }
    make(ctx, object).await
}

/// `kubectl create job`.
pub const JOB: Command = Command::new(
    "job",
    "Create a job with the specified name.",
    "NAME --image=image [--from=cronjob/name] -- [COMMAND] [args...]",
    &[
        MAKE_FLAGS,
        &[
            Flag::string("from", "The name of the resource to create a Job from (only cronjob is supported)."),
            Flag::string("image", "Image name to run."),
        ],
        PRINT_FLAGS,
    ],
    |ctx| job(ctx).boxed_local(),
);

async fn job(ctx: &Context) -> Result<()> {
    let (name, command) = name_and_command(ctx)?;
    let (image, from) = (ctx.parsed.str("image"), ctx.parsed.str("from"));
    if image.is_empty() == from.is_empty() {
        return Err(Error::message("either --image or --from must be specified"));
    }
    if !command.is_empty() && !from.is_empty() {
        return Err(Error::message("cannot specify --from and command"));
    }
    if !from.is_empty() {
        let (kind, cron_name) = from.split_once('/').unwrap_or(("cronjob", from));
        let mapping = mapper::resolve(&ctx.factory, kind).await?;
        if mapping.kind != "CronJob" {
            return Err(Error::message("from must be an existing cronjob"));
        }
        let (namespace, _) = ctx.factory.namespace()?;
        let cron = ctx.factory.rest().await?.value(Call::get(rest::path(&mapping, &namespace, cron_name, ""))).await?;
        let template = codec::at(&cron, &["spec", "jobTemplate"]).cloned().unwrap_or_default();
        let mut object = json!({
            "apiVersion": "batch/v1", "kind": "Job",
            "metadata": {"name": name, "annotations": {"cronjob.kubernetes.io/instantiate": "manual"},
                "ownerReferences": [{"apiVersion": "batch/v1", "kind": "CronJob", "name": cron_name, "uid": cron["metadata"]["uid"], "controller": true}]},
            "spec": template["spec"],
        });
        if let Some(labels) = codec::at(&template, &["metadata", "labels"]) {
            object["metadata"]["labels"] = labels.clone();
        }
        for (key, value) in codec::pairs(&template, &["metadata", "annotations"]) {
            codec::set(&mut object, &["metadata", "annotations", key], json!(value));
        }
        return make(ctx, object).await;
    }
    let object = json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name},
        "spec": {"template": {"metadata": {}, "spec": pod(name, image, command, "Never")}}, "status": {},
    });
    make(ctx, object).await
}

fn pod(name: &str, image: &str, command: &[String], restart_policy: &str) -> Value {
    let mut container = json!({"image": image, "name": name, "resources": {}});
    if !command.is_empty() {
        container["command"] = json!(command);
    }
    json!({"containers": [container], "restartPolicy": restart_policy})
}

/// `kubectl create cronjob`.
pub const CRON_JOB: Command = Command::new(
    "cronjob",
    "Create a cron job with the specified name.",
    "NAME --image=image --schedule='0/5 * * * ?' -- [COMMAND] [args...] [flags]",
    &[MAKE_FLAGS, &[
        Flag::string("image", "Image name to run."),
        Flag::string("restart", "job's restart policy. supported values: OnFailure, Never").default("OnFailure"),
        Flag::string("schedule", "A schedule in the Cron format the job should be run with."),
    ], PRINT_FLAGS],
    |ctx| {
        async move {
            let (name, command) = name_and_command(ctx)?;
            let flags = &ctx.parsed;
            for required in ["image", "schedule"] {
                if flags.str(required).is_empty() {
                    return Err(Error::message(format!("required flag(s) \"{required}\" not set")));
                }
            }
            make(ctx, json!({
                "apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": name},
                "spec": {
                    "schedule": flags.str("schedule"),
                    "jobTemplate": {"metadata": {"name": name}, "spec": {"template": {"metadata": {}, "spec": pod(name, flags.str("image"), command, flags.str("restart"))}}},
                },
                "status": {},
            }))
            .await
        }
        .boxed_local()
    },
)
.aliases(&["cj"]);

const SERVICE_FLAGS: &[Flag] = &[
    Flag::string(
        "clusterip",
        "Assign your own ClusterIP or set to 'None' for a 'headless' service (no loadbalancing).",
    ),
    Flag::string("external-name", "External name of service"),
    Flag::int("node-port", "0", "Port used to expose the service on each node in a cluster."),
    Flag::slice("tcp", "Port pairs can be specified as '<port>:<targetPort>'."),
];

/// `kubectl create service`.
pub const SERVICE: Command = Command::group(
    "service",
    "Create a service using a specified subcommand.",
    &[
        Command::new(
            "clusterip",
            "Create a ClusterIP service with the specified name.",
            "NAME [--tcp=<port>:<targetPort>]",
            &[MAKE_FLAGS, SERVICE_FLAGS, PRINT_FLAGS],
            |ctx| service(ctx, "ClusterIP"),
        ),
        Command::new(
            "externalname",
            "Create an ExternalName service with the specified name.",
            "NAME --external-name external.name",
            &[MAKE_FLAGS, SERVICE_FLAGS, PRINT_FLAGS],
            |ctx| service(ctx, "ExternalName"),
        ),
        Command::new(
            "loadbalancer",
            "Create a LoadBalancer service with the specified name.",
            "NAME [--tcp=port:targetPort]",
            &[MAKE_FLAGS, SERVICE_FLAGS, PRINT_FLAGS],
            |ctx| service(ctx, "LoadBalancer"),
        ),
        Command::new(
            "nodeport",
            "Create a NodePort service with the specified name.",
            "NAME [--tcp=port:targetPort]",
            &[MAKE_FLAGS, SERVICE_FLAGS, PRINT_FLAGS],
            |ctx| service(ctx, "NodePort"),
        ),
    ],
)
.aliases(&["svc"]);

fn service<'a>(ctx: &'a Context, r#type: &'static str) -> LocalBoxFuture<'a, Result<()>> {
    async move {
        let name = name_of(ctx)?;
        let flags = &ctx.parsed;
        let mut ports = Vec::new();
        for pair in flags.list("tcp") {
            let (port, target) = pair.split_once(':').unwrap_or((&pair, &pair));
            let number: i64 = port.parse().ok().filter(|port| (0..65536).contains(port)).ok_or_else(|| {
                Error::message(format!("the port {port:?} of {pair:?} must be a number from 0 to 65535"))
            })?;
            let target = target.parse::<i64>().map_or_else(|_| json!(target), Value::from);
            let mut entry =
                json!({"name": pair.replace(':', "-"), "port": number, "protocol": "TCP", "targetPort": target});
            if flags.int("node-port") > 0 {
                entry["nodePort"] = json!(flags.int("node-port"));
            }
            ports.push(entry);
        }
        let cluster_ip = flags.str("clusterip");
        if ports.is_empty() && cluster_ip != "None" && r#type != "ExternalName" {
            return Err(Error::message("at least one tcp port specifier must be provided"));
        }
        let mut object = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": name, "labels": {"app": name}},
            "spec": {"selector": {"app": name}, "type": r#type},
            "status": {"loadBalancer": {}},
        });
        if !ports.is_empty() {
            object["spec"]["ports"] = Value::Array(ports);
        }
        if !cluster_ip.is_empty() {
            object["spec"]["clusterIP"] = json!(cluster_ip);
        }
        if r#type == "ExternalName" {
            if flags.str("external-name").is_empty() {
                return Err(Error::message("required flag(s) \"external-name\" not set"));
            }
            object["spec"]["externalName"] = json!(flags.str("external-name"));
        }
        make(ctx, object).await
    }
    .boxed_local()
}

/// `kubectl create ingress`.
pub const INGRESS: Command = Command::new(
    "ingress",
    "Create an ingress with the specified name.",
    "NAME --rule=host/path=service:port[,tls[=secret]]",
    &[MAKE_FLAGS, &[
        Flag::array("annotation", "Annotation to insert in the ingress object, in the format annotation=value"),
        Flag::string("class", "Ingress Class to be used"),
        Flag::string("default-backend", "Default service for backend, in format of svcname:port"),
        Flag::array("rule", "Rule in format host/path=service:port[,tls=secretname]. Paths containing the leading character '*' are considered pathType=Prefix."),
    ], PRINT_FLAGS],
    |ctx| ingress(ctx).boxed_local(),
)
.aliases(&["ing"]);

async fn ingress(ctx: &Context) -> Result<()> {
    let name = name_of(ctx)?;
    let flags = &ctx.parsed;
    let (given, default) = (flags.list("rule"), flags.str("default-backend"));
    if given.is_empty() && default.is_empty() {
        return Err(Error::message(
            "not enough information provided: every ingress has to either specify a default-backend (which catches all traffic) or a list of rules (which catch specific paths)",
        ));
    }
    let backend = |text: &str| -> Result<Value> {
        let (service, port) = text
            .split_once(':')
            .ok_or_else(|| Error::message(format!("service {text:?} should be in format svcname:port")))?;
        let port = port.parse::<i64>().map_or_else(|_| json!({"name": port}), |number| json!({"number": number}));
        Ok(json!({"service": {"name": service, "port": port}}))
    };
    let mut rules: Vec<(String, Vec<Value>)> = Vec::new();
    let mut tls: Vec<Value> = Vec::new();
    for rule in &given {
        let malformed = || {
            Error::message(format!(
                "rule {rule} is invalid and should be in format host/path=svcname:svcport[,tls[=secret]]"
            ))
        };
        let (rule_part, tls_part) = match rule.split_once(',') {
            Some((rule, tls)) => (rule, Some(tls)),
            None => (rule.as_str(), None),
        };
        let (location, target) = rule_part.split_once('=').ok_or_else(malformed)?;
        let (host, path) = location.split_once('/').ok_or_else(malformed)?;
        let path = format!("/{path}");
        let (path, path_type) = match path.strip_suffix('*') {
            Some(prefix) => (prefix.to_owned(), "Prefix"),
            None => (path, "Exact"),
        };
        let entry = json!({"backend": backend(target)?, "path": path, "pathType": path_type});
        match rules.iter_mut().find(|(known, _)| known == host) {
            Some((_, paths)) => paths.push(entry),
            None => rules.push((host.to_owned(), vec![entry])),
        }
        if let Some(tls_part) = tls_part {
            let secret = tls_part.strip_prefix("tls").ok_or_else(malformed)?.trim_start_matches('=');
            let mut entry = json!({});
            if !host.is_empty() {
                entry["hosts"] = json!([host]);
            }
            if !secret.is_empty() {
                entry["secretName"] = json!(secret);
            }
            if !tls.contains(&entry) {
                tls.push(entry);
            }
        }
    }
    let rules: Vec<Value> = rules
        .into_iter()
        .map(|(host, paths)| {
            let mut rule = json!({"http": {"paths": paths}});
            if !host.is_empty() {
                rule["host"] = json!(host);
            }
            rule
        })
        .collect();
    let mut object = json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": name}, "spec": {}, "status": {"loadBalancer": {}}});
    if !rules.is_empty() {
        object["spec"]["rules"] = Value::Array(rules);
    }
    if !tls.is_empty() {
        object["spec"]["tls"] = Value::Array(tls);
    }
    if !default.is_empty() {
        object["spec"]["defaultBackend"] = backend(default)?;
    }
    if !flags.str("class").is_empty() {
        object["spec"]["ingressClassName"] = json!(flags.str("class"));
    }
    for annotation in flags.list("annotation") {
        let (key, value) = annotation.split_once('=').ok_or_else(|| {
            Error::message(format!("annotation {annotation} is invalid and should be in format key=[value]"))
        })?;
        codec::set(&mut object, &["metadata", "annotations", key], json!(value));
    }
    make(ctx, object).await
}
