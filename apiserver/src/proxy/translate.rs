//! WebSocket sessions for kubelets that speak SPDY alone (KEP-4006): `v5.channel.k8s.io` and port-forward
//! tunnels end here, and SPDY/3.1 goes on. Every other upgrade is passed on as it came.

use apimachinery::status::Status;
use axum::body::Body;
use http::header::{CONNECTION, HeaderName, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use hyper_util::rt::TokioIo;
use proto::remotecommand::{self as channels, Protocol, Streams};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::{kubelet_error, request, target};
use crate::response::{Response, websocket};
use crate::server::walk::Context;

const STREAM_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");

/// The protocol to translate, if the client's request offers one that kubelets need not know.
pub(super) fn wanted(headers: &HeaderMap, tunnel: bool) -> Option<Protocol> {
    let known = if tunnel { channels::SPDY_TUNNEL } else { channels::V5 };
    let found = websocket::is_requested(headers) && websocket::offered(headers).any(|name| name == known);
    found.then_some(Protocol { name: known })
}

/// Opens the SPDY session and joins the client's WebSocket with it.
///
/// # Errors
/// What the kubelet said instead of a tunnel; other sessions tell the client inside its WebSocket.
pub(super) async fn forward(
    cx: &mut Context,
    target: &target::Target,
    path: &str,
    protocol: Protocol,
    streams: Streams,
) -> Result<Response, Status> {
    let tunnel = protocol.name == channels::SPDY_TUNNEL;
    let spoken = if tunnel { channels::PORT_FORWARD_V1 } else { channels::SPDY_V4 };
    let headers = HeaderMap::from_iter([
        (CONNECTION, HeaderValue::from_static("Upgrade")),
        (UPGRADE, HeaderValue::from_static(proto::spdy::UPGRADE)),
        (STREAM_PROTOCOL, HeaderValue::from_static(spoken)),
    ]);
    let (reply, client) = websocket::accept(cx, protocol.name)?;
    let request = request(Method::POST, target, path, headers, Body::empty())?;
    let opened = match cx.server.kubelet.send(target, request).await {
        Ok(mut answer) if answer.status() == StatusCode::SWITCHING_PROTOCOLS => Ok(hyper::upgrade::on(&mut answer)),
        Ok(answer) => Err(kubelet_error(answer).await),
        Err(status) => Err(status),
    };
    let opened = match opened {
        Err(status) if tunnel => return Err(status),
        Err(status) => Err(Status::internal(format!("unable to upgrade connection: {}", status.message))),
        Ok(server) => Ok(server),
    };
    let shutdown = cx.server.shutdown.clone();
    tokio::spawn(async move {
        let work = async {
            let client = client.await?;
            let socket = WebSocketStream::from_raw_socket(TokioIo::new(client), Role::Server, None).await;
            match opened {
                Err(status) => {
                    let body = serde_json::to_vec(&status.to_value()).unwrap_or_default();
                    channels::refuse(socket, protocol, body.into()).await;
                }
                Ok(server) => {
                    let server = TokioIo::new(server.await?);
                    match tunnel {
                        true => channels::tunnel(socket, server).await,
                        false => channels::translate(socket, protocol, server, streams).await,
                    }
                }
            }
            Ok::<_, hyper::Error>(())
        };
        tokio::select! {
            done = work => if let Err(error) = done {
                tracing::debug!(%error, "an upgrade did not happen");
            },
            () = shutdown.cancelled() => {}
        }
    });
    Ok(reply)
}

#[cfg(test)]
mod tests {
    use http::header::SEC_WEBSOCKET_PROTOCOL;

    use super::*;

    #[test]
    fn only_what_kubelets_need_not_know_is_translated() {
        let of = |upgrade: &'static str, protocols: &'static str| {
            HeaderMap::from_iter([
                (CONNECTION, HeaderValue::from_static("Upgrade")),
                (UPGRADE, HeaderValue::from_static(upgrade)),
                (SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocols)),
            ])
        };
        for (headers, tunnel, expected) in [
            (of("websocket", "v5.channel.k8s.io"), false, Some(channels::V5)),
            (of("WebSocket", "v4.channel.k8s.io, v5.channel.k8s.io"), false, Some(channels::V5)),
            (of("websocket", "v4.channel.k8s.io"), false, None),
            (of("websocket", "channel.k8s.io"), false, None),
            (of("websocket", "SPDY/3.1+portforward.k8s.io"), true, Some(channels::SPDY_TUNNEL)),
            (of("websocket", "v4.channel.k8s.io"), true, None),
            (of("SPDY/3.1", ""), false, None),
        ] {
            assert_eq!(wanted(&headers, tunnel).map(|protocol| protocol.name), expected, "{headers:?}");
        }
    }
}
