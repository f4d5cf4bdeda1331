//! `kubectl top`: what nodes and pods use, from the metrics API.

use apimachinery::quantity::Quantity;
use futures::FutureExt;
use serde_json::Value;

use crate::codec;
use crate::command::{Command, Context};
use crate::error::{Error, Result};
use crate::flags::Flag;
use crate::printer::tabwriter::TabWriter;
use crate::rest::Call;

const SHARED: &[Flag] = &[
    Flag::bool("no-headers", "If present, print output without headers."),
    Flag::string("selector", "Selector (label query) to filter on, supports '=', '==', '!=', 'in', 'notin'.")
        .short('l'),
    Flag::string(
        "sort-by",
        "If non-empty, sort list using specified field. The field can be either 'cpu' or 'memory'.",
    ),
    Flag::bool("use-protocol-buffers", "Enables using protocol-buffers to access Metrics API.").default("true"),
];

/// `kubectl top`.
pub const COMMAND: Command = Command::group("top", "Display resource (CPU/memory) usage.", &[NODE, POD]);

const NODE: Command = Command::new(
    "node",
    "Display resource (CPU/memory) usage of nodes.",
    "[NAME | -l label]",
    &[
        SHARED,
        &[Flag::bool(
            "show-capacity",
            "Print node resources based on Capacity instead of Allocatable(default) of the nodes.",
        )],
    ],
    |ctx| nodes(ctx).boxed_local(),
)
.aliases(&["nodes", "no"]);

const POD: Command = Command::new(
    "pod",
    "Display resource (CPU/memory) usage of pods.",
    "[NAME | -l label]",
    &[
        SHARED,
        &[
            Flag::bool("all-namespaces", "If present, list the requested object(s) across all namespaces.").short('A'),
            Flag::bool("containers", "If present, print usage of containers within a pod."),
            Flag::string("field-selector", "Selector (field query) to filter on, supports '=', '==', and '!='."),
            Flag::bool("sum", "Print the sum of the resource usage"),
        ],
    ],
    |ctx| pods(ctx).boxed_local(),
)
.aliases(&["pods", "po"]);

/// CPU in milli-CPUs and memory in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Usage {
    cpu: i64,
    memory: i64,
}

impl Usage {
    fn of(object: &Value, path: &[&str]) -> Self {
        let amount = |name: &str| {
            let mut path = path.to_vec();
            path.push(name);
            Quantity::parse(codec::text(object, &path)).ok()
        };
        Usage {
            cpu: amount("cpu").map_or(0, |quantity| quantity.milli_value()),
            memory: amount("memory").map_or(0, |quantity| quantity.value()),
        }
    }

    fn add(&mut self, other: Usage) {
        self.cpu += other.cpu;
        self.memory += other.memory;
    }

    fn cpu_text(self) -> String {
        format!("{}m", self.cpu)
    }

    fn memory_text(self) -> String {
        format!("{}Mi", self.memory / (1 << 20))
    }
}

fn percent(used: i64, of: i64) -> String {
    if of == 0 { "<unknown>".into() } else { format!("{}%", (used as f64 / of as f64 * 100.0) as i64) }
}

fn check(ctx: &Context) -> Result<()> {
    match ctx.parsed.str("sort-by") {
        "" | "cpu" | "memory" => {}
        _ => return Err(Error::message("--sort-by accepts only cpu or memory")),
    }
    if ctx.parsed.args.len() > 1 {
        return Err(ctx.usage_error(&format!("unexpected arguments: [{}]", ctx.parsed.args[1..].join(" "))));
    }
    if !ctx.parsed.args.is_empty() && !ctx.parsed.str("selector").is_empty() {
        return Err(ctx.usage_error("only one of NAME or --selector can be provided"));
    }
    Ok(())
}

/// The metrics of a collection, or of one of its objects.
async fn metrics(ctx: &Context, path: &str) -> Result<Vec<Value>> {
    let rest = ctx.factory.rest().await?;
    let groups = rest.value(Call::get("/apis")).await?;
    if !codec::list(&groups, &["groups"]).iter().any(|group| group["name"] == "metrics.k8s.io") {
        return Err(Error::message("Metrics API not available"));
    }
    let base = format!("/apis/metrics.k8s.io/v1beta1{path}");
    let found = match ctx.parsed.args.first() {
        Some(name) => vec![rest.value(Call::get(format!("{base}/{name}"))).await?],
        None => {
            let call = Call::get(base).query("labelSelector", ctx.parsed.str("selector"));
            let field = if ctx.parsed.changed("field-selector") { ctx.parsed.str("field-selector") } else { "" };
            let list = rest.value(call.query("fieldSelector", field)).await?;
            codec::list(&list, &["items"]).to_vec()
        }
    };
    Ok(found)
}

/// Orders rows by name, or by what was asked for, the largest first.
fn sort<T>(rows: &mut [T], by: &str, name: impl Fn(&T) -> String, usage: impl Fn(&T) -> Usage) {
    rows.sort_by(|a, b| {
        let first = match by {
            "cpu" => usage(b).cpu.cmp(&usage(a).cpu),
            "memory" => usage(b).memory.cmp(&usage(a).memory),
            _ => std::cmp::Ordering::Equal,
        };
        first.then_with(|| name(a).cmp(&name(b)))
    });
}

fn print(ctx: &Context, header: &str, rows: &[String]) {
    let mut writer = TabWriter::table();
    if !ctx.parsed.bool("no-headers") {
        writer.push(&format!("{header}\n"));
    }
    rows.iter().for_each(|row| writer.push(&format!("{row}\n")));
    ctx.streams.out.text(&writer.flush());
}

async fn nodes(ctx: &Context) -> Result<()> {
    check(ctx)?;
    let found = metrics(ctx, "/nodes").await?;
    if found.is_empty() {
        return Err(Error::message("metrics not available yet"));
    }
    let rest = ctx.factory.rest().await?;
    let all = match ctx.parsed.args.first() {
        Some(name) => vec![rest.value(Call::get(format!("/api/v1/nodes/{name}"))).await?],
        None => {
            let list =
                rest.value(Call::get("/api/v1/nodes").query("labelSelector", ctx.parsed.str("selector"))).await?;
            codec::list(&list, &["items"]).to_vec()
        }
    };
    let total = if ctx.parsed.bool("show-capacity") { "capacity" } else { "allocatable" };
    let rows = node_rows(&found, &all, total, ctx.parsed.str("sort-by"));
    print(ctx, "NAME\tCPU(cores)\tCPU(%)\tMEMORY(bytes)\tMEMORY(%)\t", &rows);
    Ok(())
}

fn node_rows(metrics: &[Value], nodes: &[Value], total: &str, by: &str) -> Vec<String> {
    let name = |object: &Value| codec::text(object, &["metadata", "name"]).to_owned();
    let mut known: Vec<(String, Usage)> = metrics.iter().map(|m| (name(m), Usage::of(m, &["usage"]))).collect();
    sort(&mut known, by, |row| row.0.clone(), |row| row.1);
    let mut rows: Vec<String> = known
        .iter()
        .map(|(node, usage)| {
            let of = nodes.iter().find(|n| name(n) == *node);
            let all = of.map_or(Usage::default(), |node| Usage::of(node, &["status", total]));
            format!(
                "{node}\t{}\t{}\t{}\t{}\t",
                usage.cpu_text(),
                percent(usage.cpu, all.cpu),
                usage.memory_text(),
                percent(usage.memory, all.memory)
            )
        })
        .collect();
    let mut silent: Vec<String> = nodes.iter().map(name).filter(|n| !known.iter().any(|(k, _)| k == n)).collect();
    silent.sort();
    rows.extend(silent.iter().map(|n| format!("{n}\t<unknown>\t<unknown>\t<unknown>\t<unknown>\t")));
    rows
}

async fn pods(ctx: &Context) -> Result<()> {
    check(ctx)?;
    let (namespace, _) = ctx.factory.namespace()?;
    let everywhere = ctx.parsed.bool("all-namespaces");
    let path = if everywhere { "/pods".to_owned() } else { format!("/namespaces/{namespace}/pods") };
    let found = metrics(ctx, &path).await?;
    if found.is_empty() {
        let place = if everywhere { String::new() } else { format!(" in {namespace} namespace") };
        ctx.streams.err.line(&format!("No resources found{place}."));
        return Ok(());
    }
    let containers = ctx.parsed.bool("containers");
    let (rows, sum) = pod_rows(&found, everywhere, containers, ctx.parsed.str("sort-by"));
    let mut header = String::new();
    if everywhere {
        header.push_str("NAMESPACE\t");
    }
    header.push_str(if containers { "POD\tNAME\t" } else { "NAME\t" });
    header.push_str("CPU(cores)\tMEMORY(bytes)\t");
    let mut rows = rows;
    if ctx.parsed.bool("sum") {
        let columns = usize::from(everywhere) + usize::from(containers);
        rows.push(format!("{}________\t________\t", "\t".repeat(columns + 1)));
        rows.push(format!("{}\t{}\t{}\t", "\t".repeat(columns), sum.cpu_text(), sum.memory_text()));
    }
    print(ctx, &header, &rows);
    Ok(())
}

fn pod_rows(metrics: &[Value], everywhere: bool, containers: bool, by: &str) -> (Vec<String>, Usage) {
    let mut pods: Vec<(&Value, Usage)> = metrics
        .iter()
        .map(|pod| {
            let mut usage = Usage::default();
            codec::list(pod, &["containers"]).iter().for_each(|c| usage.add(Usage::of(c, &["usage"])));
            (pod, usage)
        })
        .collect();
    let key = |pod: &Value| {
        format!("{}/{}", codec::text(pod, &["metadata", "namespace"]), codec::text(pod, &["metadata", "name"]))
    };
    sort(&mut pods, by, |row| key(row.0), |row| row.1);
    let mut rows = Vec::new();
    let mut sum = Usage::default();
    for (pod, usage) in pods {
        sum.add(usage);
        let mut start = String::new();
        if everywhere {
            start.push_str(&format!("{}\t", codec::text(pod, &["metadata", "namespace"])));
        }
        start.push_str(&format!("{}\t", codec::text(pod, &["metadata", "name"])));
        if !containers {
            rows.push(format!("{start}{}\t{}\t", usage.cpu_text(), usage.memory_text()));
            continue;
        }
        for container in codec::list(pod, &["containers"]) {
            let usage = Usage::of(container, &["usage"]);
            let name = codec::text(container, &["name"]);
            rows.push(format!("{start}{name}\t{}\t{}\t", usage.cpu_text(), usage.memory_text()));
        }
    }
    (rows, sum)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Usage, node_rows, pod_rows};

    #[test]
    fn nodes_show_shares_of_what_they_have() {
        let metrics = [json!({"metadata": {"name": "b"}, "usage": {"cpu": "250m", "memory": "512Mi"}})];
        let nodes = [
            json!({"metadata": {"name": "b"}, "status": {"allocatable": {"cpu": "1", "memory": "1Gi"}}}),
            json!({"metadata": {"name": "a"}, "status": {}}),
        ];
        let rows = node_rows(&metrics, &nodes, "allocatable", "");
        assert_eq!(rows, ["b\t250m\t25%\t512Mi\t50%\t", "a\t<unknown>\t<unknown>\t<unknown>\t<unknown>\t"]);
    }

    #[test]
    fn pods_are_sums_of_their_containers() {
        let pod = |name: &str, cpu: &str| {
            json!({"metadata": {"name": name, "namespace": "n"}, "containers": [
                {"name": "x", "usage": {"cpu": cpu, "memory": "1Mi"}}, {"name": "y", "usage": {"cpu": "1m", "memory": "2Mi"}}]})
        };
        let metrics = [pod("a", "1m"), pod("b", "5m")];
        let (rows, sum) = pod_rows(&metrics, false, false, "cpu");
        assert_eq!(rows, ["b\t6m\t3Mi\t", "a\t2m\t3Mi\t"]);
        assert_eq!(sum, Usage { cpu: 8, memory: 6 << 20 });
        assert_eq!(pod_rows(&metrics[..1], true, true, "").0, ["n\ta\tx\t1m\t1Mi\t", "n\ta\ty\t1m\t2Mi\t"]);
    }
}
