//! Exec, attach and port-forward. The runtime serves the streams; the kubelet asks it for an address and
//! stands between.
//!
//! Runtimes speak SPDY/3.1. A client that speaks it too gets bytes passed through. A WebSocket client
//! gets its channels translated to SPDY streams, in whichever protocol of channels it asked for; a
//! port-forward tunnel (`SPDY/3.1+portforward.k8s.io`) gets its messages unwrapped; plain port-forward
//! channels are `ports`' work.

mod command;
mod connect;

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use proto::cri;
use tokio_tungstenite::WebSocketStream;

pub(super) use command::{framed, hang_up};
use connect::connect;

use super::{Server, query, refuse};
use crate::pod::PodExt;
use crate::runtime::state::State as ContainerState;

type Params = Path<HashMap<String, String>>;
pub(super) type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// Which streams a client wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wanted {
    stdin: bool,
    stdout: bool,
    stderr: bool,
    tty: bool,
}

impl Wanted {
    /// From the query; a terminal has no separate error output.
    fn read(query: &[(String, String)]) -> Result<Self, &'static str> {
        let on = |names: [&str; 2]| {
            query.iter().any(|(k, v)| names.contains(&k.as_str()) && matches!(v.as_str(), "1" | "true"))
        };
        let tty = on(["tty", "tty"]);
        let wanted = Self {
            stdin: on(["input", "stdin"]),
            stdout: on(["output", "stdout"]),
            stderr: on(["error", "stderr"]) && !tty,
            tty,
        };
        if !wanted.stdin && !wanted.stdout && !wanted.stderr {
            return Err("you must specify at least 1 of stdin, stdout, stderr");
        }
        Ok(wanted)
    }
}

pub(super) async fn exec(State(server): State<Arc<Server>>, Path(params): Params, request: Request) -> Response {
    let query = query(&request);
    let wanted = match Wanted::read(&query) {
        Ok(wanted) => wanted,
        Err(text) => return refuse(StatusCode::BAD_REQUEST, text),
    };
    let id = match running_container(&server, &params).await {
        Ok(id) => id,
        Err(response) => return *response,
    };
    let address = server.cri.exec(cri::ExecRequest {
        container_id: id,
        cmd: query.into_iter().filter(|(k, _)| k == "command").map(|(_, v)| v).collect(),
        tty: wanted.tty,
        stdin: wanted.stdin,
        stdout: wanted.stdout,
        stderr: wanted.stderr,
    });
    match address.await {
        Ok(address) => connect(request, &address, Some(wanted)).await,
        Err(error) => refuse(StatusCode::INTERNAL_SERVER_ERROR, error.message),
    }
}

pub(super) async fn attach(State(server): State<Arc<Server>>, Path(params): Params, request: Request) -> Response {
    let wanted = match Wanted::read(&query(&request)) {
        Ok(wanted) => wanted,
        Err(text) => return refuse(StatusCode::BAD_REQUEST, text),
    };
    let id = match running_container(&server, &params).await {
        Ok(id) => id,
        Err(response) => return *response,
    };
    // Whether there is a terminal is the container's own property.
    let pod = server.workers.find(&params["namespace"], &params["pod"]);
    let tty = pod.and_then(|p| p.container(&params["container"])).and_then(|(_, c)| c.tty).unwrap_or(false);
    let wanted = Wanted { tty, stderr: wanted.stderr && !tty, ..wanted };
    let address = server.cri.attach(cri::AttachRequest {
        container_id: id,
        stdin: wanted.stdin,
        tty,
        stdout: wanted.stdout,
        stderr: wanted.stderr,
    });
    match address.await {
        Ok(address) => connect(request, &address, Some(wanted)).await,
        Err(error) => refuse(StatusCode::INTERNAL_SERVER_ERROR, error.message),
    }
}

pub(super) async fn port_forward(
    State(server): State<Arc<Server>>,
    Path(params): Params,
    request: Request,
) -> Response {
    let Some(pod) = server.workers.find(&params["namespace"], &params["pod"]) else {
        return refuse(StatusCode::NOT_FOUND, "pod does not exist");
    };
    if params.get("uid").is_some_and(|uid| uid != pod.uid()) {
        return refuse(StatusCode::NOT_FOUND, "pod does not exist");
    }
    let state = match crate::runtime::state::read(&server.cri, pod.uid()).await {
        Ok(state) => state,
        Err(error) => return refuse(StatusCode::INTERNAL_SERVER_ERROR, error.message),
    };
    let Some(sandbox) = state.ready_sandbox() else {
        return refuse(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("failed to find sandbox for pod {:?}", pod.described()),
        );
    };
    let ports = query(&request).into_iter().filter(|(k, _)| k == "port" || k == "ports");
    let port = ports.filter_map(|(_, v)| v.parse().ok()).collect();
    match server.cri.port_forward(cri::PortForwardRequest { pod_sandbox_id: sandbox.id.clone(), port }).await {
        Ok(address) => connect(request, &address, None).await,
        Err(error) => refuse(StatusCode::INTERNAL_SERVER_ERROR, error.message),
    }
}

/// `POST /run/…?cmd=…`: a command to its end, its output as the answer.
pub(super) async fn run(State(server): State<Arc<Server>>, Path(params): Params, request: Request) -> Response {
    let id = match running_container(&server, &params).await {
        Ok(id) => id,
        Err(response) => return *response,
    };
    let query = query(&request);
    let text = query.iter().find(|(k, _)| k == "cmd").map(|(_, v)| v.as_str()).unwrap_or_default();
    let command: Vec<String> = text.split(' ').map(str::to_owned).collect();
    match server.cri.exec_sync(&id, &command, 0).await {
        Ok(answer) => {
            let mut output = answer.stdout;
            output.extend(answer.stderr);
            let status = if answer.exit_code == 0 { StatusCode::OK } else { StatusCode::INTERNAL_SERVER_ERROR };
            (status, output).into_response()
        }
        Err(error) => refuse(StatusCode::INTERNAL_SERVER_ERROR, error.message),
    }
}

async fn running_container(server: &Server, params: &HashMap<String, String>) -> Result<String, Box<Response>> {
    let fail = |status, text: String| Err(Box::new(refuse(status, text)));
    let Some(pod) = server.workers.find(&params["namespace"], &params["pod"]) else {
        return fail(StatusCode::NOT_FOUND, "pod does not exist".into());
    };
    if params.get("uid").is_some_and(|uid| uid != pod.uid()) {
        return fail(StatusCode::NOT_FOUND, "pod does not exist".into());
    }
    let state = match crate::runtime::state::read(&server.cri, pod.uid()).await {
        Ok(state) => state,
        Err(error) => return fail(StatusCode::INTERNAL_SERVER_ERROR, error.message),
    };
    let name = &params["container"];
    match state.find(name).filter(|c| c.state == ContainerState::Running) {
        Some(found) => Ok(found.id.clone()),
        None => fail(StatusCode::INTERNAL_SERVER_ERROR, format!("container not found ({name:?})")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wanted_streams() {
        let read = |text: &str| {
            let query: Vec<(String, String)> = url::form_urlencoded::parse(text.as_bytes()).into_owned().collect();
            Wanted::read(&query)
        };
        assert_eq!(
            read("input=1&output=1&error=1"),
            Ok(Wanted { stdin: true, stdout: true, stderr: true, tty: false })
        );
        assert_eq!(
            read("stdout=true&stderr=true&tty=true"),
            Ok(Wanted { stdin: false, stdout: true, stderr: false, tty: true })
        );
        assert!(read("tty=1").is_err());
    }
}
