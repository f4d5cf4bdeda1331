//! `kubectl port-forward`: local ports to a pod's ports.
//!
//! Every local connection gets a WebSocket of its own (`v4.channel.k8s.io`): channel 0 carries data,
//! channel 1 what went wrong, and the first message of each is the port's number.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures::{FutureExt, SinkExt, StreamExt};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;

use crate::codec;
use crate::command::{Command, Context};
use crate::error::{Error, Result};
use crate::flags::Flag;
use crate::pods;
use crate::remote;
use crate::resource::{Builder, Info};
use crate::rest::Rest;
use crate::streams::Output;

const FLAGS: &[Flag] = &[
    Flag::slice(
        "address",
        "Addresses to listen on (comma separated). Only accepts IP addresses or localhost as a value.",
    )
    .default("localhost"),
    Flag::duration(
        "pod-running-timeout",
        "1m0s",
        "The length of time (like 5s, 2m, or 3h, higher than zero) to wait until at least one pod is running",
    ),
];

/// `kubectl port-forward`.
pub const COMMAND: Command = Command::new(
    "port-forward",
    "Forward one or more local ports to a pod.",
    "TYPE/NAME [options] [LOCAL_PORT:]REMOTE_PORT [...[LOCAL_PORT_N:]REMOTE_PORT_N]",
    &[FLAGS],
    |ctx| port_forward(ctx).boxed_local(),
);

/// How long the other side may stay silent after the local side has finished.
const LINGER: Duration = Duration::from_secs(10);

async fn port_forward(ctx: &Context) -> Result<()> {
    let args = &ctx.parsed.args;
    let (target, ports) = match args.as_slice() {
        [] | [_] => return Err(ctx.usage_error("TYPE/NAME and list of ports are required for port-forward")),
        [target, ports @ ..] => (target, ports),
    };
    let mut builder = Builder::from_flags(&ctx.factory, &ctx.parsed)?;
    builder.args = if target.contains('/') { vec![target.clone()] } else { vec!["pods".into(), target.clone()] };
    let (mut infos, errors) = builder.objects(&ctx.factory, &ctx.streams).await?;
    Error::aggregate(errors)?;
    let info = infos.remove(0);
    let patience = ctx.parsed.duration("pod-running-timeout").positive().unwrap_or(Duration::ZERO);
    let pod = pods::one(&ctx.factory, &ctx.streams, info.clone(), patience, false).await?;
    let phase = codec::text(&pod.object, &["status", "phase"]);
    if phase != "Running" {
        return Err(Error::message(format!(
            "unable to forward port because pod is not running. Current status={phase}"
        )));
    }
    let rest = ctx.factory.rest().await?;
    let mut listeners = Vec::new();
    for spec in ports {
        let (local, remote) = parse(spec, &info, &pod.object)?;
        for address in addresses(&ctx.parsed.list("address"), local)? {
            match TcpListener::bind(address).await {
                Ok(listener) => {
                    let bound = listener.local_addr()?;
                    ctx.streams.out.line(&format!("Forwarding from {bound} -> {remote}"));
                    listeners.push((listener, remote));
                }
                // Where IPv6 is off, IPv4 alone will do.
                Err(_) if address.is_ipv6() && !listeners.is_empty() => {}
                Err(error) => {
                    return Err(Error::message(format!(
                        "unable to listen on port {local}: Listeners failed to create with the following errors: [unable to create listener: Error listen tcp {address}: {error}]"
                    )));
                }
            }
        }
    }
    let accepting = listeners.into_iter().map(|(listener, remote)| accept(ctx, rest.clone(), &pod, listener, remote));
    futures::future::try_join_all(accepting).await?;
    Ok(())
}

/// `LOCAL:REMOTE`, `PORT`, `:REMOTE`. Names and service ports become the container's numbers.
fn parse(spec: &str, target: &Info, pod: &Value) -> Result<(u16, u16)> {
    let (local, remote) = spec.split_once(':').unwrap_or((spec, spec));
    let number = if target.mapping.kind == "Service" {
        service_port(remote, &target.object, pod)?
    } else {
        container_port(remote, pod)?
    };
    let local = match local {
        "" => 0,
        text if text == remote && text.parse::<u16>().is_err() => number,
        text => text.parse().map_err(|_| Error::message(format!("error parsing local port {text:?}: invalid port")))?,
    };
    Ok((local, number))
}

fn container_port(text: &str, pod: &Value) -> Result<u16> {
    if let Ok(number) = text.parse::<u16>() {
        return if number > 0 { Ok(number) } else { Err(Error::message("remote port must be > 0")) };
    }
    codec::list(pod, &["spec", "containers"])
        .iter()
        .flat_map(|container| codec::list(container, &["ports"]))
        .find(|port| port["name"] == text)
        .and_then(|port| codec::int(port, &["containerPort"]))
        .and_then(|number| u16::try_from(number).ok())
        .ok_or_else(|| {
            let name = codec::text(pod, &["metadata", "name"]);
            Error::message(format!("Pod '{name}' does not have a named port '{text}'"))
        })
}

fn service_port(text: &str, service: &Value, pod: &Value) -> Result<u16> {
    let name = codec::text(service, &["metadata", "name"]);
    let port = codec::list(service, &["spec", "ports"])
        .iter()
        .find(|port| port["name"] == text || text.parse().ok() == codec::int(port, &["port"]))
        .ok_or_else(|| Error::message(format!("Service {name} does not have a service port {text}")))?;
    match codec::at(port, &["targetPort"]) {
        Some(Value::String(target)) => container_port(target, pod),
        Some(target) => container_port(&target.to_string(), pod),
        None => container_port(&port["port"].to_string(), pod),
    }
}

/// The addresses to listen on; `localhost` is both families.
fn addresses(names: &[String], port: u16) -> Result<Vec<SocketAddr>> {
    let mut found = Vec::new();
    for name in names {
        if name == "localhost" {
            found.push(SocketAddr::from(([127, 0, 0, 1], port)));
            found.push(SocketAddr::from(([0u16, 0, 0, 0, 0, 0, 0, 1], port)));
        } else {
            let address = name.parse().map_err(|_| Error::message(format!("{name} is not a valid IP")))?;
            found.push(SocketAddr::new(address, port));
        }
    }
    Ok(found)
}

async fn accept(ctx: &Context, rest: Rc<Rest>, pod: &Info, listener: TcpListener, remote: u16) -> Result<()> {
    let local = listener.local_addr()?.port();
    let uri = format!("{}?ports={remote}", pod.path("portforward"));
    let mut running = futures::stream::FuturesUnordered::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (socket, _) = accepted?;
                ctx.streams.out.line(&format!("Handling connection for {local}"));
                running.push(connection(rest.clone(), uri.clone(), socket, ctx.streams.err.clone(), (local, remote)));
            }
            Some(ended) = running.next(), if !running.is_empty() => ended?,
        }
    }
}

/// One connection. When the pod refuses it, forwarding ends: what comes next would fare no better.
async fn connection(
    rest: Rc<Rest>,
    uri: String,
    socket: TcpStream,
    err: Output,
    (local, remote): (u16, u16),
) -> Result<()> {
    let Err(error) = copy(&rest, &uri, socket, remote).await else { return Ok(()) };
    err.line(&format!("an error occurred forwarding {local} -> {remote}: {error}"));
    Err(Error::message("lost connection to pod"))
}

async fn copy(rest: &Rest, uri: &str, socket: TcpStream, remote: u16) -> Result<()> {
    let (tunnel, _) = remote::connect(rest, uri, "v4.channel.k8s.io").await?;
    let (mut sink, mut source) = tunnel.split();
    let (mut reader, mut writer) = socket.into_split();
    // Sending goes on beside receiving: each side may be waiting for the other to read.
    let send = async {
        let mut buffer = vec![0; 32 << 10];
        while let Ok(count @ 1..) = reader.read(&mut buffer).await {
            let mut message = Vec::with_capacity(count + 1);
            message.push(0);
            message.extend_from_slice(&buffer[..count]);
            if sink.send(Message::Binary(Bytes::from(message))).await.is_err() {
                return;
            }
        }
    };
    let mut send = std::pin::pin!(send);
    let mut sending = true;
    let mut greeted = [false; 2];
    loop {
        let silence = if sending { Duration::MAX } else { LINGER };
        tokio::select! {
            () = &mut send, if sending => sending = false,
            message = tokio::time::timeout(silence, source.next()) => match message {
                Ok(Some(Ok(Message::Binary(bytes)))) => {
                    let Some((&channel, data)) = bytes.split_first() else { continue };
                    let Some(greeted) = greeted.get_mut(usize::from(channel)) else { continue };
                    // The first message of a channel only names the port.
                    let data = if std::mem::replace(greeted, true) { data } else { data.get(2..).unwrap_or_default() };
                    if data.is_empty() {
                        continue;
                    }
                    if channel == 1 {
                        return Err(Error::message(format!("error forwarding port {remote}: {}", String::from_utf8_lossy(data))));
                    }
                    if writer.write_all(data).await.is_err() {
                        return Ok(());
                    }
                }
                Ok(Some(Ok(Message::Close(_)))) | Ok(None) | Ok(Some(Err(_))) | Err(_) => return Ok(()),
                Ok(Some(Ok(_))) => {}
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{container_port, service_port};

    #[test]
    fn ports() {
        let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"ports": [{"name": "web", "containerPort": 8080}]}]}});
        let service = json!({"metadata": {"name": "s"}, "spec": {"ports": [{"name": "http", "port": 80, "targetPort": "web"}, {"port": 90, "targetPort": 9090}]}});
        assert_eq!(container_port("web", &pod).expect("known"), 8080);
        assert_eq!(container_port("81", &pod).expect("a number"), 81);
        assert!(container_port("nope", &pod).is_err());
        assert_eq!(service_port("80", &service, &pod).expect("known"), 8080);
        assert_eq!(service_port("http", &service, &pod).expect("known"), 8080);
        assert_eq!(service_port("90", &service, &pod).expect("known"), 9090);
        assert!(service_port("91", &service, &pod).is_err());
    }
}
