//! A cluster with a real node and real containers: `keelson up` with one node.
//!
//! Upstream has no command that does the like on one machine, so its column stays empty here.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};
use tokio::process::Command;

use super::{POD_COLLECTION, SETTLED, median};
use crate::figures::{FIRST_POD, IDLE_KUBELET, IDLE_PROXY, NODE_READY, WARM_POD};
use crate::load::{Ask, Connection};
use crate::process::memory;
use crate::subject::{Endpoint, Kind, Subject};
use crate::table::Table;

/// Where `keelson up` keeps its certificates, what it runs, and where it listens.
const PKI: &str = "/var/lib/keelson/pki";
const PLAN: &str = "/var/lib/keelson/cluster.json";
const PIDS: &str = "/run/keelson/pids";
const PORT: u16 = 6443;
const KNOCK: Duration = Duration::from_millis(5);
const PATIENCE: Duration = Duration::from_secs(60);
const WARM_PODS: usize = 7;
/// Time between two pods of which one is to be the first that runs.
const ANOTHER: Duration = Duration::from_secs(1);

pub async fn run(subject: &Subject, table: &mut Table) -> anyhow::Result<()> {
    if subject.kind == Kind::Upstream {
        return Ok(());
    }
    ensure!(nix::unistd::geteuid().is_root(), "rows of a cluster with nodes need root");
    ensure!(!Path::new(PLAN).exists(), "a cluster is up on this machine; `keelson down` first");
    let program = subject.program("keelson").context("keelson was not built")?;
    let dir = tempfile::tempdir()?;
    let keelson = |arguments: &[&str]| {
        let mut command = Command::new(&program);
        // The kubeconfig of whoever runs this is left as it is.
        command.args(arguments).env("KUBECONFIG", dir.path().join("kubeconfig"));
        command
    };
    // Images are built once in a machine's life; what is timed is the start.
    ensure!(keelson(&["images"]).status().await?.success(), "the images could not be built");
    let log = dir.path().join("up.log");
    let file = std::fs::File::create(&log)?;
    let left_over = LeftOver(&program);
    let started = Instant::now();
    let mut up = keelson(&["up", "--nodes", "1"]).stdout(file.try_clone()?).stderr(file).spawn()?;
    let measured = measure(started, subject.kind, table).await;
    let failed = match tokio::time::timeout(PATIENCE, up.wait()).await {
        Ok(Ok(status)) if status.success() => None,
        _ => Some(std::fs::read_to_string(&log).unwrap_or_default()),
    };
    if failed.is_none() {
        tokio::time::sleep(SETTLED).await;
        for (what, process) in [(IDLE_KUBELET, "node-1-kubelet"), (IDLE_PROXY, "node-1-kube-proxy")] {
            let text = std::fs::read_to_string(Path::new(PIDS).join(process))?;
            let pid = text.split_whitespace().next().unwrap_or_default().parse()?;
            table.set_memory(subject.kind, what, memory(pid));
        }
    }
    // An `up` that hangs would start again what `down` ends.
    drop(up.start_kill());
    let down = keelson(&["down", "--keep-images"]).stdout(std::process::Stdio::null()).status().await?;
    std::mem::forget(left_over);
    if let Some(log) = failed {
        bail!("keelson up: {log}");
    }
    measured?;
    ensure!(down.success(), "keelson down failed");
    Ok(())
}

/// Takes the cluster down when the part ends early: by a failure, an interrupt, or because it took too long.
struct LeftOver<'a>(&'a Path);

impl Drop for LeftOver<'_> {
    fn drop(&mut self) {
        let mut down = std::process::Command::new(self.0);
        if let Err(error) = down.args(["down", "--keep-images"]).stdout(std::process::Stdio::null()).status() {
            eprintln!("the cluster is still up: {error}");
        }
    }
}

async fn measure(started: Instant, kind: Kind, table: &mut Table) -> anyhow::Result<()> {
    let endpoint = within("the API server", async {
        loop {
            // Certificates and server are only just being made.
            if let Ok(endpoint) = Endpoint::admin(PORT, Path::new(PKI))
                && endpoint.is_ready().await
            {
                return Ok(endpoint);
            }
            tokio::time::sleep(KNOCK).await;
        }
    })
    .await?;
    super::default_account(&endpoint).await?;
    let node = until(&endpoint, "/api/v1/nodes/node-1", |node| condition(node, "Ready"));
    let node = within("a node that is Ready", node).await?;
    table.set(kind, NODE_READY, (node - started).as_secs_f64());
    let pod = within("a first pod that runs", first_pod(&endpoint)).await?;
    table.set(kind, FIRST_POD, (pod - started).as_secs_f64());
    let mut connection = Connection::open(&endpoint).await?;
    let mut warm = Vec::new();
    for number in 0..WARM_PODS {
        let name = format!("warm-{number}");
        let created = Instant::now();
        connection.send(&Ask::post(POD_COLLECTION, &pause(&name))).await?;
        let path = format!("{POD_COLLECTION}/{name}");
        let running = within("a pod that runs", until(&endpoint, &path, running)).await?;
        warm.push((running - created).as_secs_f64());
    }
    table.set(kind, WARM_POD, median(warm));
    Ok(())
}

/// Bounds a wait, and says for what it was.
async fn within<T>(what: &str, wait: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::time::timeout(PATIENCE, wait).await.with_context(|| format!("there was no {what} after a minute"))?
}

/// When a first pod ran. The node may be Ready before its images are there, and who came too early is not tried
/// again for ten seconds: so another pod is created each second until one runs.
async fn first_pod(endpoint: &Endpoint) -> anyhow::Result<Instant> {
    let mut connection = Connection::open(endpoint).await?;
    let mut names: Vec<String> = Vec::new();
    let mut next = Instant::now();
    let ran = 'ran: loop {
        if Instant::now() >= next {
            next += ANOTHER;
            let name = format!("first-{}", names.len());
            connection.send(&Ask::post(POD_COLLECTION, &pause(&name))).await?;
            names.push(name);
        }
        for name in &names {
            if running(&connection.get_json(&format!("{POD_COLLECTION}/{name}")).await?) {
                break 'ran Instant::now();
            }
        }
        tokio::time::sleep(KNOCK).await;
    };
    for name in names {
        let ask = Ask { method: "DELETE", ..Ask::get(format!("{POD_COLLECTION}/{name}?gracePeriodSeconds=0")) };
        connection.count(&ask).await?;
    }
    Ok(ran)
}

fn pause(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "main", "image": "keelson/pause:1"}],
        },
    })
}

/// When an object first looked as wanted.
async fn until(endpoint: &Endpoint, path: &str, wanted: impl Fn(&Value) -> bool) -> anyhow::Result<Instant> {
    let mut connection = Connection::open(endpoint).await?;
    loop {
        if let Ok(object) = connection.get_json(path).await
            && wanted(&object)
        {
            return Ok(Instant::now());
        }
        tokio::time::sleep(KNOCK).await;
    }
}

fn condition(object: &Value, name: &str) -> bool {
    let conditions = object["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|condition| condition["type"] == name && condition["status"] == "True")
}

fn running(pod: &Value) -> bool {
    pod["status"]["phase"] == "Running"
}
