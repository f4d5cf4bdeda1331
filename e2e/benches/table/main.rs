//! `make bench`: the performance table. Each load runs against Keelson and, where upstream's kube-apiserver
//! and etcd are on the machine (`KEELSON_UPSTREAM` names their folder), against upstream in the same run; the
//! ratios are what counts. Nothing here is a test: a figure is printed, never asserted.
//!
//! `KEELSON_BENCH=pods,watch` runs only those parts; `KEELSON_BENCH_NODES=1` includes the cluster with nodes.

mod load;
mod server;
mod table;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::json;

use load::{Connection, rate};
use server::{Kind, Server};
use table::Table;

const CLIENTS: [usize; 3] = [1, 16, 64];
/// Long enough for a steady state, short enough for the whole table to take minutes.
const WRITE_FOR: Duration = Duration::from_secs(4);
const PODS: usize = 10_000;
const WATCHERS: usize = 1_000;
const EVENTS_PER_SECOND: u32 = 100;
const WATCH_FOR: Duration = Duration::from_secs(5);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    // `cargo bench` hands over flags for the standard harness.
    let only = std::env::var("KEELSON_BENCH").unwrap_or_default();
    let wanted = |part: &str| only.is_empty() || only.split(',').any(|word| word == part);
    let mut table = Table::default();
    let mut kinds = vec![Kind::Keelson];
    match upstream() {
        Some(folder) => kinds.push(Kind::Upstream(folder)),
        None => println!("skipped: upstream's column needs KEELSON_UPSTREAM, a folder with kube-apiserver (and etcd)"),
    }
    for kind in kinds {
        println!("# {}", kind.name());
        let dir = tempfile::tempdir()?;
        let server = Server::start(&kind, dir.path()).await?;
        table.set("API ready on an empty store", "s", &kind, server.ready_after.as_secs_f64());
        tokio::time::sleep(Duration::from_secs(2)).await;
        table.set("memory, idle", "MiB", &kind, server.memory_mib());
        if wanted("writes") {
            writes(&server, &kind, &mut table).await?;
        }
        if wanted("pods") {
            pods(&server, &kind, &mut table).await?;
        }
        if wanted("watch") {
            watch(&server, &kind, &mut table).await?;
        }
        server.stop().await?;
    }
    table.print();
    Ok(())
}

/// The folder of upstream's binaries, if there is one.
fn upstream() -> Option<PathBuf> {
    let folder = PathBuf::from(std::env::var_os("KEELSON_UPSTREAM")?);
    folder.join("kube-apiserver").is_file().then_some(folder)
}

async fn writes(server: &Server, kind: &Kind, table: &mut Table) -> anyhow::Result<()> {
    for clients in CLIENTS {
        let per_second = rate(server, clients, WRITE_FOR, move |client, number| {
            let name = format!("w{clients}-{client}-{number}");
            let map =
                json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"key": "value"}});
            ("POST", "/api/v1/namespaces/default/configmaps".to_owned(), Some(map.to_string()))
        })
        .await?;
        table.set(&format!("create ConfigMap, {clients} clients, durable"), "/s", kind, per_second);
    }
    let per_second =
        rate(server, 64, WRITE_FOR, |_, _| ("GET", "/api/v1/namespaces/default/configmaps/w1-0-0".to_owned(), None))
            .await?;
    table.set("GET ConfigMap, 64 clients", "/s", kind, per_second);
    Ok(())
}

fn pod(name: &str) -> String {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": "bench", "tier": "web"}, "annotations": {"example.com/owner": "bench"}},
        "spec": {
            "containers": [{
                "name": "main", "image": "nginx:1.27", "ports": [{"containerPort": 80}],
                "env": [{"name": "A", "value": "1"}, {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
                "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "128Mi"}},
                "readinessProbe": {"httpGet": {"path": "/", "port": 80}},
            }],
        },
    })
    .to_string()
}

async fn pods(server: &Server, kind: &Kind, table: &mut Table) -> anyhow::Result<()> {
    for clients in [16, 64] {
        let per_second = rate(server, clients, WRITE_FOR, move |client, number| {
            ("POST", "/api/v1/namespaces/default/pods".to_owned(), Some(pod(&format!("p{clients}-{client}-{number}"))))
        })
        .await?;
        table.set(&format!("create Pod, {clients} clients"), "/s", kind, per_second);
    }
    let mut connection = Connection::open(server).await?;
    let have: usize = {
        let list = connection.get("/api/v1/namespaces/default/pods?limit=1", "application/json").await?;
        let list: serde_json::Value = serde_json::from_slice(&list)?;
        1 + list["metadata"]["remainingItemCount"].as_u64().unwrap_or(0) as usize
    };
    if have < PODS {
        load::each(server, 64, PODS - have, |number| {
            ("POST", "/api/v1/namespaces/default/pods".to_owned(), Some(pod(&format!("fill-{number}"))))
        })
        .await?;
    }
    let scale = PODS as f64 / have.max(PODS) as f64;
    for (what, path, accept) in [
        ("LIST 10,000 pods, JSON", "/api/v1/namespaces/default/pods?resourceVersion=0", "application/json"),
        (
            "LIST 10,000 pods, protobuf",
            "/api/v1/namespaces/default/pods?resourceVersion=0",
            "application/vnd.kubernetes.protobuf",
        ),
    ] {
        table.set(what, "ms", kind, median_ms(&mut connection, path, accept).await? * scale);
    }
    let page = median_ms(&mut connection, "/api/v1/namespaces/default/pods?limit=500", "application/json").await?;
    table.set("LIST a page of 500", "ms", kind, page);
    table.set("memory with 10,000 pods", "MiB", kind, server.memory_mib() * scale);
    let started = Instant::now();
    connection.send("DELETE", "/api/v1/namespaces/default/pods?gracePeriodSeconds=0", None, "application/json").await?;
    let per_pod = started.elapsed().as_secs_f64() / have.max(PODS) as f64;
    table.set("deletecollection of 5,000 pods", "s", kind, per_pod * 5_000.0);
    Ok(())
}

async fn median_ms(connection: &mut Connection, path: &str, accept: &str) -> anyhow::Result<f64> {
    let mut times = Vec::new();
    for _ in 0..7 {
        let started = Instant::now();
        connection.get(path, accept).await?;
        times.push(started.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

async fn watch(server: &Server, kind: &Kind, table: &mut Table) -> anyhow::Result<()> {
    let delays = load::fan_out(server, WATCHERS, EVENTS_PER_SECOND, WATCH_FOR).await?;
    let at = |share: f64| delays[((delays.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    table.set("watch, 1,000 watchers × 100 events/s: p50", "ms", kind, at(0.50));
    table.set("watch, 1,000 watchers × 100 events/s: p99", "ms", kind, at(0.99));
    Ok(())
}
