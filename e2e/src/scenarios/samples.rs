//! The samples of `deploy/samples`: applied, served, healed, scaled and rolled.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::cluster::{Cluster, eventually, finish, is_ready};

const SAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/samples");
const HOSTNAMES: &str = "app=hostnames";
/// Enough that the chance of one replica out of three getting none is below one in a thousand.
const REQUESTS: usize = 20;
/// A Service that does not take a connection within this time has no endpoint yet.
const SOON: Duration = Duration::from_secs(2);

pub async fn applied_and_running(cluster: &Cluster) -> anyhow::Result<()> {
    cluster.kubectl(&format!("apply -f {SAMPLES}")).await?;
    let again = cluster.kubectl(&format!("apply -f {SAMPLES}")).await?;
    // A pod whose volume mounts the server has extended is "configured" with an empty patch, upstream's too.
    let changed = again.lines().filter(|line| !line.ends_with(" unchanged") && !line.starts_with("pod/"));
    ensure!(changed.count() == 0, "applying again changes something: {again}");
    for deployment in ["sample-deployment-nginx", "hostnames"] {
        cluster.kubectl(&format!("rollout status deployment/{deployment} --timeout=90s")).await?;
        cluster.settled(&format!("app={deployment}"), 3).await?;
    }
    for pod in ["hello-pod", "sample-java"] {
        eventually(&format!("Ready {pod}"), async || {
            let pod = cluster.get(&format!("pod/{pod}")).await?;
            ensure!(is_ready(&pod), "{}", pod["status"]);
            Ok(())
        })
        .await?;
    }
    let page = cluster.kubectl("exec sample-java -c server -- cat /usr/share/nginx/html/index.html").await?;
    ensure!(page.contains("sample"), "the init container's page is not there: {page}");
    let seen = cluster.kubectl("exec hello-pod -c hello-busybox -- ps").await?;
    ensure!(seen.contains("nginx"), "the containers do not share processes: {seen}");
    Ok(())
}

/// Pod names and nodes of the three replicas, which must be on more than one node.
async fn replicas(cluster: &Cluster) -> anyhow::Result<BTreeSet<String>> {
    let pods = cluster.settled(HOSTNAMES, 3).await?;
    let nodes: BTreeSet<&str> = pods.iter().filter_map(|pod| pod["spec"]["nodeName"].as_str()).collect();
    ensure!(nodes.len() > 1, "all replicas are on {nodes:?}");
    Ok(pods.iter().filter_map(|pod| pod["metadata"]["name"].as_str().map(String::from)).collect())
}

async fn service_address(cluster: &Cluster) -> anyhow::Result<String> {
    let service = cluster.get("service/hostnames").await?;
    Ok(service["spec"]["clusterIP"].as_str().unwrap_or_default().to_owned())
}

pub async fn every_replica_answers_the_host(cluster: &Cluster) -> anyhow::Result<()> {
    let wanted = replicas(cluster).await?;
    let address = service_address(cluster).await?;
    eventually("answers of every replica", async || {
        let mut answers = BTreeSet::new();
        for _ in 0..REQUESTS {
            answers.insert(http_get(&address, 80).await?);
        }
        ensure!(answers == wanted, "{answers:?} answered of {wanted:?}");
        Ok(())
    })
    .await
}

/// One request on a connection of its own: kube-proxy balances connections.
async fn http_get(address: &str, port: u16) -> anyhow::Result<String> {
    let connect = TcpStream::connect((address, port));
    let mut stream = tokio::time::timeout(SOON, connect).await.context("no connection")??;
    let request = format!("GET / HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let Some((head, body)) = answer.split_once("\r\n\r\n") else { bail!("no HTTP answer: {answer:?}") };
    ensure!(head.starts_with("HTTP/1.1 200"), "{head}");
    Ok(body.to_owned())
}

pub async fn every_replica_answers_a_pod(cluster: &Cluster) -> anyhow::Result<()> {
    let wanted = replicas(cluster).await?;
    let address = service_address(cluster).await?;
    let script = format!("for i in $(seq {REQUESTS}); do wget -q -O - http://{address}/; echo; done");
    eventually("answers of every replica", async || {
        let mut exec = cluster.command("exec hello-pod -c hello-busybox -- sh -c");
        let printed = finish(exec.arg(&script), None).await?;
        let answers: BTreeSet<String> = printed.lines().filter(|line| !line.is_empty()).map(String::from).collect();
        ensure!(answers == wanted, "{answers:?} answered of {wanted:?}");
        Ok(())
    })
    .await
}

pub async fn a_deleted_replica_comes_back(cluster: &Cluster) -> anyhow::Result<()> {
    let before = replicas(cluster).await?;
    let victim = before.first().expect("there are three");
    cluster.kubectl(&format!("delete pod {victim} --wait=false")).await?;
    let after = eventually("another replica", async || {
        let pods = cluster.ready_pods(HOSTNAMES).await?;
        let names: BTreeSet<String> =
            pods.iter().filter_map(|pod| pod["metadata"]["name"].as_str().map(String::from)).collect();
        ensure!(names.len() == 3 && !names.contains(victim), "{names:?}");
        Ok(names)
    })
    .await?;
    ensure!(after.intersection(&before).count() == 2, "more than one replica was replaced: {before:?} {after:?}");
    cluster.settled(HOSTNAMES, 3).await?;
    Ok(())
}

pub async fn edit_replicas(cluster: &Cluster) -> anyhow::Result<()> {
    for (from, to) in [(3, 5), (5, 0), (0, 3)] {
        let mut edit = cluster.command("edit deployment/hostnames");
        // kubectl runs the editor through a shell and appends the file.
        edit.env("KUBE_EDITOR", format!("sed -i 's/^  replicas: {from}$/  replicas: {to}/'"));
        finish(&mut edit, None).await?;
        cluster.settled(HOSTNAMES, to).await?;
    }
    Ok(())
}

pub async fn a_new_image_rolls(cluster: &Cluster) -> anyhow::Result<()> {
    let sets = || async { images(&cluster.get("replicasets -l app=sample-deployment-nginx").await?) };
    for image in ["docker.io/library/nginx:1.27", "nginx:1.27"] {
        let patch = format!(
            r#"{{"spec":{{"template":{{"spec":{{"containers":[{{"name":"sample-nginx","image":"{image}"}}]}}}}}}}}"#
        );
        let mut command = cluster.command("patch deployment sample-deployment-nginx -p");
        finish(command.arg(patch), None).await?;
        cluster.kubectl("rollout status deployment/sample-deployment-nginx --timeout=90s").await?;
        let pods = cluster.settled("app=sample-deployment-nginx", 3).await?;
        for pod in &pods {
            ensure!(pod["spec"]["containers"][0]["image"] == image, "{}", pod["spec"]["containers"][0]["image"]);
        }
    }
    // Back at the first template, the first ReplicaSet is used again: there are two, not three.
    ensure!(sets().await?.len() == 2, "ReplicaSets: {:?}", sets().await?);
    Ok(())
}

const DAEMON: &str = r#"
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: history}
spec:
  selector: {matchLabels: {app: history}}
  template:
    metadata: {labels: {app: history}}
    spec:
      terminationGracePeriodSeconds: 0
      containers: [{name: shell, image: busybox:1.37, command: [sleep, "3600"]}]
"#;

/// Its templates are kept as ControllerRevisions, and its pods have the hash of theirs.
pub async fn a_daemon_set_goes_back(cluster: &Cluster) -> anyhow::Result<()> {
    cluster.kubectl_with("apply -f -", DAEMON).await?;
    let nodes = cluster.get("nodes").await?["items"].as_array().map_or(0, Vec::len);
    // The revisions' numbers by hash, and the hash that all pods have.
    let told = async |count: usize| {
        cluster.kubectl("rollout status daemonset/history --timeout=90s").await?;
        let pods = cluster.settled("app=history", nodes).await?;
        let hashes: BTreeSet<_> =
            pods.iter().map(|pod| pod["metadata"]["labels"]["controller-revision-hash"].clone().to_string()).collect();
        let list = cluster.get("controllerrevisions -l app=history").await?;
        let revisions = list["items"].as_array().cloned().unwrap_or_default();
        ensure!(revisions.len() == count, "{} revisions", revisions.len());
        let newest = revisions.iter().max_by_key(|revision| revision["revision"].as_i64()).context("no revision")?;
        let hash = newest["metadata"]["labels"]["controller-revision-hash"].to_string();
        ensure!(hashes == BTreeSet::from([hash.clone()]), "pods of {hashes:?}, the newest revision is {hash}");
        Ok::<_, anyhow::Error>((hash, newest["revision"].clone()))
    };
    let (first, _) = told(1).await?;
    cluster.kubectl("set env daemonset/history GREETING=hello").await?;
    let (second, _) = told(2).await?;
    ensure!(first != second, "both templates hash to {first}");
    cluster.kubectl("rollout undo daemonset/history").await?;
    let (third, number) = told(2).await?;
    ensure!(third == first && number == 3, "undone to {third}, revision {number}");
    cluster.kubectl("delete daemonset history --wait=true").await?;
    Ok(())
}

fn images(list: &Value) -> anyhow::Result<BTreeSet<String>> {
    let items = list["items"].as_array().into_iter().flatten();
    Ok(items
        .filter_map(|set| set["spec"]["template"]["spec"]["containers"][0]["image"].as_str().map(String::from))
        .collect())
}
