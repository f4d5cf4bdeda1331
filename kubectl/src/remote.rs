//! Streams into a container over a WebSocket: `exec`, `attach` (KEP-4006).
//!
//! Each message starts with a channel byte: 0 standard input, 1 output, 2 error, 3 the final Status,
//! 4 terminal size, 255 (v5) the end of a channel. The Status carries the exit code.

use std::io::Read;

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use kube::client::Body;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::codec;
use crate::error::{Error, Result};
use crate::rest::Rest;
use crate::streams::Streams;

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;

/// Which streams are wanted.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// Pass standard input on.
    pub stdin: bool,
    /// A terminal: raw input, one output.
    pub tty: bool,
}

type Socket = WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>;

/// Opens the WebSocket; an answer that is no upgrade is the API's error.
///
/// # Errors
/// What the API or the transport said.
pub async fn connect(rest: &Rest, uri: &str, protocols: &str) -> Result<(Socket, String)> {
    let request = Request::get(uri)
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", generate_key())
        .header("sec-websocket-protocol", protocols)
        .header("user-agent", crate::rest::user_agent())
        .body(Body::empty())
        .map_err(|error| Error::message(error.to_string()))?;
    let response = rest.client().send(request).await.map_err(|error| rest.failure(&error))?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let code = response.status();
        let body = response.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        let status = crate::rest::status(code, &body);
        // A refused upgrade is told by its message alone, as upstream does, except for who may not.
        if matches!(code.as_u16(), 401 | 403 | 404) {
            return Err(Error::api(status));
        }
        return Err(Error::message(format!("unable to upgrade connection: {}", codec::text(&status, &["message"]))));
    }
    let protocol = response
        .headers()
        .get("sec-websocket-protocol")
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
        .to_owned();
    let upgraded = hyper::upgrade::on(response).await.map_err(|error| rest.failure(&error))?;
    Ok((WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Client, None).await, protocol))
}

/// The terminal in raw mode, put back on every way out.
struct RawMode;

impl RawMode {
    fn enter() -> Result<Self> {
        crossterm::terminal::enable_raw_mode()?;
        Ok(RawMode)
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // Nothing better can be done than to try.
        let _ = crossterm::terminal::disable_raw_mode();
    }
}

fn frame(channel: u8, bytes: &[u8]) -> Message {
    let mut message = Vec::with_capacity(bytes.len() + 1);
    message.push(channel);
    message.extend_from_slice(bytes);
    Message::Binary(message.into())
}

/// Reads standard input on a thread of its own: a blocked read cannot be cancelled.
fn pump_stdin(streams: &Streams) -> mpsc::Receiver<Bytes> {
    let (sender, receiver) = mpsc::channel(16);
    let mut stdin = streams.stdin.replace(Box::new(std::io::empty()));
    std::thread::spawn(move || {
        let mut buffer = vec![0; 32 << 10];
        loop {
            match stdin.read(&mut buffer) {
                Ok(0) | Err(_) => return,
                Ok(read) => {
                    if sender.blocking_send(Bytes::copy_from_slice(&buffer[..read])).is_err() {
                        return;
                    }
                }
            }
        }
    });
    receiver
}

fn size_message() -> Option<Message> {
    let (width, height) = crossterm::terminal::size().ok()?;
    Some(frame(RESIZE, format!("{{\"Width\":{width},\"Height\":{height}}}\n").as_bytes()))
}

/// Streams until the command ends.
///
/// # Errors
/// What the API or the transport said. A failed command is an exit code, already told.
pub async fn stream(rest: &Rest, uri: &str, streams: &Streams, wanted: Wanted) -> Result<()> {
    let (socket, protocol) = connect(rest, uri, "v5.channel.k8s.io, v4.channel.k8s.io").await?;
    let closable = protocol == "v5.channel.k8s.io";
    let (mut sink, mut source) = socket.split();
    let lost = |text: String| Error::message(format!("error reading from error stream: {text}"));
    let raw = if wanted.tty && wanted.stdin && streams.in_is_terminal { Some(RawMode::enter()?) } else { None };
    let mut input = wanted.stdin.then(|| pump_stdin(streams));
    let mut resized = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::window_change())?;
    // Ended from outside, the terminal must be put back first.
    let mut terminated = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let mut interrupted = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())?;
    let mut hung_up = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup())?;
    let terminal = wanted.tty && streams.out_is_terminal;
    // Sending goes on beside receiving: a command that reads no more input must not keep its end from being seen.
    let send = async {
        if terminal
            && let Some(message) = size_message()
            && sink.send(message).await.is_err()
        {
            return;
        }
        loop {
            let message = tokio::select! {
                chunk = async { input.as_mut().expect("only polled when there is input").recv().await }, if input.is_some() => {
                    match chunk {
                        Some(chunk) => frame(STDIN, &chunk),
                        None => {
                            input = None;
                            if !closable {
                                continue;
                            }
                            frame(CLOSE, &[STDIN])
                        }
                    }
                }
                _ = resized.recv(), if terminal => match size_message() {
                    Some(message) => message,
                    None => continue,
                },
                else => return,
            };
            if sink.send(message).await.is_err() {
                return;
            }
        }
    };
    let receive = async {
        let mut status: Option<Value> = None;
        loop {
            match source.next().await {
                Some(Ok(Message::Binary(bytes))) => match bytes.first() {
                    Some(&STDOUT) => streams.out.bytes(&bytes[1..]),
                    Some(&STDERR) => streams.err.bytes(&bytes[1..]),
                    Some(&ERROR) => status = serde_json::from_slice(&bytes[1..]).ok(),
                    _ => {}
                },
                Some(Ok(Message::Close(_))) | None => return Ok(status),
                Some(Ok(_)) => {}
                // After the Status the way the connection ends does not matter.
                Some(Err(_)) if status.is_some() => return Ok(status),
                Some(Err(error)) => return Err(lost(error.to_string())),
            }
        }
    };
    let send = async {
        send.await;
        std::future::pending::<std::convert::Infallible>().await
    };
    let status = tokio::select! {
        status = receive => status?,
        never = send => match never {},
        _ = interrupted.recv() => return Err(Error::Exit(1)),
        _ = terminated.recv() => return Err(Error::Exit(143)),
        _ = hung_up.recv() => return Err(Error::Exit(129)),
    };
    drop(raw);
    finish(status)
}

/// The command's fate.
fn finish(status: Option<Value>) -> Result<()> {
    let Some(status) = status else { return Ok(()) };
    if status["status"] == "Success" {
        return Ok(());
    }
    if status["reason"] == "NonZeroExitCode" {
        let code = codec::list(&status, &["details", "causes"])
            .iter()
            .find(|cause| cause["reason"] == "ExitCode")
            .and_then(|cause| codec::text(cause, &["message"]).parse::<u8>().ok());
        if let Some(code) = code {
            return Err(Error::Terminated(code));
        }
    }
    Err(Error::message(codec::text(&status, &["message"]).to_owned()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::finish;

    #[test]
    fn exit_codes() {
        assert!(finish(Some(json!({"status": "Success"}))).is_ok());
        let failed = json!({"status": "Failure", "reason": "NonZeroExitCode", "message": "…",
            "details": {"causes": [{"reason": "ExitCode", "message": "3"}]}});
        let report = finish(Some(failed)).expect_err("it failed").report();
        assert_eq!(report, ("command terminated with exit code 3".to_owned(), 3));
        let other = json!({"status": "Failure", "reason": "InternalError", "message": "no such container"});
        assert_eq!(finish(Some(other)).expect_err("it failed").report().0, "error: no such container");
    }
}
