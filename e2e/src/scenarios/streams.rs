//! Streams into containers: kubectl on a terminal, in pipes, as a forwarder; and SPDY/3.1, which clients
//! before 1.30 speak.

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use http::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use kube::client::Body;
use proto::spdy::{Role, Session, Stream};
use serde_json::Value;
use tokio::process::Command;

use crate::cluster::{Cluster, finish};

/// Parts of `clients/streams.py`.
async fn parts(cluster: &Cluster, names: &[&str]) -> anyhow::Result<()> {
    let mut command = Command::new("python3");
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/clients/streams.py")).arg(&cluster.kubectl).args(names);
    let printed = finish(command.env("KUBECONFIG", &cluster.kubeconfig).kill_on_drop(true), None).await?;
    ensure!(printed.trim_end().ends_with("all as expected"), "{printed}");
    Ok(())
}

pub async fn terminal(cluster: &Cluster) -> anyhow::Result<()> {
    parts(cluster, &["terminal"]).await
}

pub async fn pipes(cluster: &Cluster) -> anyhow::Result<()> {
    parts(cluster, &["pipes"]).await
}

pub async fn attach_and_run(cluster: &Cluster) -> anyhow::Result<()> {
    parts(cluster, &["attach"]).await
}

pub async fn logs_and_copies(cluster: &Cluster) -> anyhow::Result<()> {
    parts(cluster, &["logs", "copies"]).await
}

pub async fn port_forward(cluster: &Cluster) -> anyhow::Result<()> {
    parts(cluster, &["forwards"]).await
}

pub async fn debug(cluster: &Cluster) -> anyhow::Result<()> {
    parts(cluster, &["debugging", "tear_down"]).await
}

/// `exec` as kubectl did it before WebSockets: the same input, output and exit code.
pub async fn spdy_exec(cluster: &Cluster) -> anyhow::Result<()> {
    let query =
        "container=hello-busybox&stdin=true&stdout=true&stderr=true&command=sh&command=-c&command=cat%3B+exit+3";
    let path = format!("/api/v1/namespaces/default/pods/hello-pod/exec?{query}");
    let session = upgrade(cluster, &path, "v4.channel.k8s.io").await?;
    let mut error = open(&session, &[("streamtype", "error")]).await?;
    let stdin = open(&session, &[("streamtype", "stdin")]).await?;
    let mut stdout = open(&session, &[("streamtype", "stdout")]).await?;
    let mut stderr = open(&session, &[("streamtype", "stderr")]).await?;
    let input: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
    let writer = stdin.writer();
    let sent = Bytes::from(input.clone());
    let sending = async {
        writer.send(sent).await.map_err(|_| anyhow::anyhow!("input is refused"))?;
        writer.close().await.map_err(|_| anyhow::anyhow!("the input cannot be closed"))
    };
    let (sent, output, complaint, status) = tokio::join!(sending, all(&mut stdout), all(&mut stderr), all(&mut error));
    sent?;
    ensure!(output == input, "{} of {} bytes came back", output.len(), input.len());
    ensure!(complaint.is_empty(), "{}", String::from_utf8_lossy(&complaint));
    let status: Value = serde_json::from_slice(&status)?;
    ensure!(status["reason"] == "NonZeroExitCode" && status["details"]["causes"][0]["message"] == "3", "{status}");
    Ok(())
}

/// `port-forward` as kubectl did it before WebSockets: a pair of streams for each connection.
pub async fn spdy_port_forward(cluster: &Cluster) -> anyhow::Result<()> {
    let pods = cluster.ready_pods("app=hostnames").await?;
    let name = pods.first().and_then(|pod| pod["metadata"]["name"].as_str()).context("no pod of hostnames")?;
    let path = format!("/api/v1/namespaces/default/pods/{name}/portforward");
    let session = upgrade(cluster, &path, "portforward.k8s.io").await?;
    for request in ["0", "1"] {
        let headers = |kind| [("streamtype", kind), ("port", "9376"), ("requestid", request)];
        let mut error = open(&session, &headers("error")).await?;
        error.writer().close().await.ok().context("the error stream cannot be closed")?;
        let mut data = open(&session, &headers("data")).await?;
        let get = Bytes::from_static(b"GET / HTTP/1.0\r\n\r\n");
        data.writer().send(get).await.ok().context("the request is refused")?;
        let answer = all(&mut data).await;
        ensure!(String::from_utf8_lossy(&answer).contains(name), "{}", String::from_utf8_lossy(&answer));
        let complaint = all(&mut error).await;
        ensure!(complaint.is_empty(), "{}", String::from_utf8_lossy(&complaint));
    }
    Ok(())
}

/// Turns a request into a SPDY session.
async fn upgrade(cluster: &Cluster, path: &str, protocol: &str) -> anyhow::Result<Session> {
    let request = Request::post(path)
        .header("connection", "Upgrade")
        .header("upgrade", "SPDY/3.1")
        .header("x-stream-protocol-version", protocol)
        .body(Body::empty())?;
    let response = cluster.client.send(request).await?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        bail!("{} instead of an upgrade", response.status());
    }
    let chosen = response.headers().get("x-stream-protocol-version");
    ensure!(chosen.is_some_and(|chosen| chosen == protocol), "{chosen:?} instead of {protocol}");
    let (session, _) = Session::start(TokioIo::new(hyper::upgrade::on(response).await?), Role::Client);
    Ok(session)
}

async fn open(session: &Session, headers: &[(&str, &str)]) -> anyhow::Result<Stream> {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), vec![(*value).to_owned()])).collect();
    session.open(headers).await.ok().context("the session is closed")
}

async fn all(stream: &mut Stream) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Some(part) = stream.recv().await {
        bytes.extend_from_slice(&part);
    }
    bytes
}
