//! `kubectl expose` and `kubectl autoscale`: an object made to fit another one.

use futures::FutureExt;
use serde_json::{Value, json};

use super::ops::{self, DRY_RUN, Done, DryRun, Write};
use crate::codec;
use crate::command::{Command, Context};
use crate::error::{Error, Result};
use crate::flags::Flag;
use crate::mapper;
use crate::printer::PRINT_FLAGS;
use crate::resource::{Builder, FILE_FLAGS, Info};

const FLAGS: &[Flag] = &[
    DRY_RUN,
    Flag::string(
        "cluster-ip",
        "ClusterIP to be assigned to the service. Leave empty to auto-allocate, or set to 'None' to create a headless service.",
    ),
    Flag::string(
        "external-ip",
        "Additional external IP address (not managed by Kubernetes) to accept for the service.",
    ),
    Flag::string("field-manager", "Name of the manager used to track field ownership.").default("kubectl-expose"),
    Flag::string("labels", "Labels to apply to the service created by this call.").short('l'),
    Flag::string("load-balancer-ip", "IP to assign to the LoadBalancer."),
    Flag::string("name", "The name for the newly created object."),
    Flag::string(
        "port",
        "The port that the service should serve on. Copied from the resource being exposed, if unspecified",
    ),
    Flag::string("protocol", "The network protocol for the service to be created. Default is 'TCP'."),
    Flag::bool("save-config", "If true, the configuration of current object will be saved in its annotation."),
    Flag::string(
        "selector",
        "A label selector to use for this service. Only equality-based selector requirements are supported.",
    ),
    Flag::string(
        "session-affinity",
        "If non-empty, set the session affinity for the service to this; legal values: 'None', 'ClientIP'",
    ),
    Flag::string(
        "target-port",
        "Name or number for the port on the container that the service should direct traffic to. Optional.",
    ),
    Flag::string(
        "type",
        "Type for this service: ClusterIP, NodePort, LoadBalancer, or ExternalName. Default is 'ClusterIP'.",
    ),
];

/// `kubectl expose`.
pub const COMMAND: Command = Command::new(
    "expose",
    "Take a replication controller, service, deployment or pod and expose it as a new Kubernetes service.",
    "(-f FILENAME | TYPE NAME) [--port=port] [--protocol=TCP|UDP|SCTP] [--target-port=number-or-name] [--name=name] [--external-ip=external-ip-of-service] [--type=type]",
    &[FLAGS, FILE_FLAGS, PRINT_FLAGS],
    |ctx| expose(ctx).boxed_local(),
);

/// Pairs of a `k=v,k=v` text.
fn pairs(text: &str) -> Result<Value> {
    let mut map = serde_json::Map::new();
    for pair in text.split(',').filter(|pair| !pair.is_empty()) {
        let (key, value) =
            pair.split_once('=').ok_or_else(|| Error::message(format!("unexpected label spec: {pair}")))?;
        map.insert(key.to_owned(), json!(value));
    }
    Ok(Value::Object(map))
}

/// The labels that select an object's pods.
fn selector_of(info: &Info) -> Result<Value> {
    let object = &info.object;
    let found = match info.mapping.kind.as_str() {
        "Pod" => {
            let labels = codec::at(object, &["metadata", "labels"]).cloned();
            return labels.ok_or_else(|| Error::message("couldn't retrieve selectors via --selector flag or introspection: the pod has no labels and cannot be exposed"));
        }
        "Service" | "ReplicationController" => codec::at(object, &["spec", "selector"]),
        "Deployment" | "ReplicaSet" => {
            if !codec::list(object, &["spec", "selector", "matchExpressions"]).is_empty() {
                return Err(Error::message(
                    "couldn't retrieve selectors via --selector flag or introspection: couldn't convert expressions to map-based selector format",
                ));
            }
            codec::at(object, &["spec", "selector", "matchLabels"])
        }
        _ => None,
    };
    found.cloned().ok_or_else(|| {
        Error::message("couldn't retrieve selectors via --selector flag or introspection: the object has no selector")
    })
}

/// Ports an object listens on: number and protocol.
fn ports_of(info: &Info) -> Vec<(i64, String)> {
    let port = |value: &Value, field: &str| {
        let protocol = codec::text(value, &["protocol"]);
        (codec::int(value, &[field]).unwrap_or(0), if protocol.is_empty() { "TCP" } else { protocol }.to_owned())
    };
    let spec: &[&str] = match info.mapping.kind.as_str() {
        "Service" => {
            return codec::list(&info.object, &["spec", "ports"]).iter().map(|value| port(value, "port")).collect();
        }
        "Pod" => &["spec"],
        _ => &["spec", "template", "spec"],
    };
    let spec = codec::at(&info.object, spec).unwrap_or(&Value::Null);
    codec::list(spec, &["containers"])
        .iter()
        .flat_map(|container| codec::list(container, &["ports"]))
        .map(|value| port(value, "containerPort"))
        .collect()
}

async fn expose(ctx: &Context) -> Result<()> {
    let flags = &ctx.parsed;
    let dry_run = DryRun::from_flags(flags)?;
    let mut builder = Builder::from_flags(&ctx.factory, flags)?;
    builder.label_selector = None;
    let (infos, errors) = builder.objects(&ctx.factory, &ctx.streams).await?;
    Error::aggregate(errors)?;
    let service = mapper::resolve(&ctx.factory, "services").await?;
    let mut done = Done::from_flags(flags, dry_run)?;
    for mut info in infos {
        if !info.source.is_empty() {
            info.object = info.get(&ctx.factory).await?;
        }
        if !matches!(
            info.mapping.kind.as_str(),
            "Pod" | "Service" | "ReplicationController" | "Deployment" | "ReplicaSet"
        ) {
            return Err(Error::message(format!("cannot expose a {}", crate::printer::qualified_kind(&info.mapping))));
        }
        let mut found = Info {
            mapping: service.clone(),
            namespace: info.namespace.clone(),
            name: String::new(),
            object: make(ctx, &info)?,
            source: String::new(),
        };
        found.name = codec::text(&found.object, &["metadata", "name"]).to_owned();
        if flags.bool("save-config") {
            ops::annotate(&mut found.object);
        }
        if dry_run != DryRun::Client {
            let write = Write { field_manager: flags.str("field-manager"), field_validation: "", dry_run };
            found.object = write.create(&ctx.factory, &found, &found.object).await?;
        }
        done.print(&ctx.streams, &found, "exposed")?;
    }
    Ok(())
}

fn make(ctx: &Context, info: &Info) -> Result<Value> {
    let flags = &ctx.parsed;
    let given = |name: &str| Some(flags.str(name)).filter(|value| !value.is_empty());
    let selector = match given("selector") {
        Some(text) => pairs(text)?,
        None => selector_of(info)?,
    };
    let mut ports: Vec<(i64, String)> = ports_of(info);
    let headless = given("cluster-ip") == Some("None");
    if let Some(text) = given("port") {
        ports = text
            .split(',')
            .map(|port| {
                let number = port
                    .parse()
                    .map_err(|_| Error::message(format!("strconv.Atoi: parsing {port:?}: invalid syntax")))?;
                let known = ports.iter().find(|(known, _)| *known == number).map(|(_, protocol)| protocol.clone());
                Ok((number, known.unwrap_or_else(|| "TCP".into())))
            })
            .collect::<Result<_>>()?;
    } else if ports.is_empty() && !headless {
        return Err(Error::message("couldn't find port via --port flag or introspection"));
    }
    let several = ports.len() > 1;
    let entries: Vec<Value> = ports
        .into_iter()
        .enumerate()
        .map(|(index, (number, protocol))| {
            let target = given("target-port")
                .map_or_else(|| json!(number), |text| text.parse::<i64>().map_or_else(|_| json!(text), Value::from));
            let mut entry =
                json!({"port": number, "protocol": given("protocol").unwrap_or(&protocol), "targetPort": target});
            if several {
                entry["name"] = json!(format!("port-{}", index + 1));
            }
            entry
        })
        .collect();
    let name = given("name").unwrap_or(&info.name);
    let mut object = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": info.namespace},
        "spec": {"selector": selector},
        "status": {"loadBalancer": {}},
    });
    if !entries.is_empty() {
        object["spec"]["ports"] = Value::Array(entries);
    }
    let labels = match given("labels") {
        Some(text) => Some(pairs(text)?),
        None => codec::at(&info.object, &["metadata", "labels"]).cloned(),
    };
    if let Some(labels) = labels {
        object["metadata"]["labels"] = labels;
    }
    for (flag, field) in [
        ("type", "type"),
        ("session-affinity", "sessionAffinity"),
        ("cluster-ip", "clusterIP"),
        ("load-balancer-ip", "loadBalancerIP"),
    ] {
        if let Some(value) = given(flag) {
            object["spec"][field] = json!(value);
        }
    }
    if let Some(address) = given("external-ip") {
        object["spec"]["externalIPs"] = json!([address]);
    }
    Ok(object)
}

const AUTOSCALE_FLAGS: &[Flag] = &[
    DRY_RUN,
    Flag::string("cpu", "Target CPU utilization over all the pods, as a percentage (70%) or a quantity (500m)."),
    Flag::int(
        "cpu-percent",
        "-1",
        "The target average CPU utilization (represented as a percent of requested CPU) over all the pods.",
    ),
    Flag::string("field-manager", "Name of the manager used to track field ownership.").default("kubectl-autoscale"),
    Flag::int("max", "-1", "The upper limit for the number of pods that can be set by the autoscaler. Required."),
    Flag::string("memory", "Target memory utilization over all the pods, as a percentage (60%) or a quantity (200Mi)."),
    Flag::int("min", "-1", "The lower limit for the number of pods that can be set by the autoscaler."),
    Flag::string("name", "The name for the newly created object."),
    Flag::bool("save-config", "If true, the configuration of current object will be saved in its annotation."),
];

/// `kubectl autoscale`.
pub const AUTOSCALE: Command = Command::new(
    "autoscale",
    "Creates an autoscaler that automatically chooses and sets the number of pods that run in a Kubernetes cluster.",
    "(-f FILENAME | TYPE NAME | TYPE/NAME) [--min=MINPODS] --max=MAXPODS [--cpu=CPU] [--memory=MEMORY]",
    &[AUTOSCALE_FLAGS, FILE_FLAGS, PRINT_FLAGS],
    |ctx| autoscale(ctx).boxed_local(),
);

async fn autoscale(ctx: &Context) -> Result<()> {
    let flags = &ctx.parsed;
    let dry_run = DryRun::from_flags(flags)?;
    let (minimum, maximum) = (flags.int("min"), flags.int("max"));
    if flags.changed("cpu-percent") {
        ctx.streams.err.line("Flag --cpu-percent has been deprecated, Use --cpu with percentage or resource quantity format (e.g., '70%' for utilization or '500m' for milliCPU).");
    }
    if !flags.changed("max") {
        return Err(Error::message("required flag(s) \"max\" not set"));
    }
    if maximum < 1 {
        return Err(Error::message(
            "--max=MAXPODS is required and must be at least 1, max: ".to_owned() + &maximum.to_string(),
        ));
    }
    if maximum < minimum {
        return Err(Error::message(format!(
            "--max=MAXPODS must be larger or equal to --min=MINPODS, max: {maximum}, min: {minimum}"
        )));
    }
    let builder = Builder::from_flags(&ctx.factory, flags)?;
    let (infos, errors) = builder.objects(&ctx.factory, &ctx.streams).await?;
    Error::aggregate(errors)?;
    let autoscalers = mapper::resolve(&ctx.factory, "horizontalpodautoscalers.v2.autoscaling").await?;
    let mut done = Done::from_flags(flags, dry_run)?;
    for info in infos {
        if !matches!(info.mapping.kind.as_str(), "Deployment" | "ReplicaSet" | "StatefulSet" | "ReplicationController")
        {
            return Err(Error::message(format!("cannot autoscale a {}: not supported", info.mapping.kind)));
        }
        let name = if flags.str("name").is_empty() { info.name.clone() } else { flags.str("name").to_owned() };
        let mut object = json!({
            "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": name, "namespace": info.namespace},
            "spec": {"maxReplicas": maximum, "scaleTargetRef": {"apiVersion": info.mapping.api_version(), "kind": info.mapping.kind, "name": info.name}},
            "status": {"currentMetrics": null, "desiredReplicas": 0},
        });
        if minimum > 0 {
            object["spec"]["minReplicas"] = json!(minimum);
        }
        let mut metrics = Vec::new();
        let percent = flags.int("cpu-percent");
        let cpu = if percent >= 0 { format!("{percent}%") } else { flags.str("cpu").to_owned() };
        for (resource, target) in [("cpu", cpu.as_str()), ("memory", flags.str("memory"))] {
            if target.is_empty() {
                continue;
            }
            let target = match target.strip_suffix('%').map(str::parse::<i64>) {
                Some(Ok(percent)) => json!({"type": "Utilization", "averageUtilization": percent}),
                Some(Err(_)) => return Err(Error::message(format!("invalid {resource} target {target:?}"))),
                None => json!({"type": "AverageValue", "averageValue": target}),
            };
            metrics.push(json!({"type": "Resource", "resource": {"name": resource, "target": target}}));
        }
        if !metrics.is_empty() {
            object["spec"]["metrics"] = Value::Array(metrics);
        }
        if flags.bool("save-config") {
            ops::annotate(&mut object);
        }
        let mut made = Info {
            mapping: autoscalers.clone(),
            namespace: info.namespace.clone(),
            name,
            object,
            source: String::new(),
        };
        if dry_run != DryRun::Client {
            codec::remove(&mut made.object, &["status"]);
            let write = Write { field_manager: flags.str("field-manager"), field_validation: "", dry_run };
            made.object = write.create(&ctx.factory, &made, &made.object).await?;
        }
        done.print(&ctx.streams, &made, "autoscaled")?;
    }
    Ok(())
}
