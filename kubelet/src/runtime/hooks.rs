//! Lifecycle hooks: `postStart` and `preStop` by command, HTTP, TCP or sleep.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, LifecycleHandler};

use crate::cri::Runtime;
use crate::probe::check::{self, Outcome};

/// How long an HTTP or TCP hook may take; commands have no limit but the grace period.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Runs a hook; the error is for the log and the container's message, not for events, which must not
/// show what a command printed.
pub async fn run(
    runtime: &Arc<dyn Runtime>,
    hook: &LifecycleHandler,
    container: &Container,
    id: &str,
    pod_ip: Option<&str>,
) -> Result<(), String> {
    let outcome = if let Some(exec) = &hook.exec {
        let command = exec.command.clone().unwrap_or_default();
        match runtime.exec_sync(id, &command, 0).await {
            Ok(response) if response.exit_code == 0 => return Ok(()),
            Ok(response) => {
                let output = String::from_utf8_lossy(&response.stderr).into_owned();
                Outcome::Failure(format!(
                    "command {:?} exited with {}: {output}",
                    command.join(" "),
                    response.exit_code
                ))
            }
            Err(error) => Outcome::Failure(error.message),
        }
    } else if let Some(http) = &hook.http_get {
        let host = pod_ip.ok_or("failed to find networking container")?;
        check::http(http, container, host, TIMEOUT, "kube-lifecycle/1.36").await
    } else if let Some(tcp) = &hook.tcp_socket {
        let port = check::port(&tcp.port, container)?;
        let host =
            tcp.host.as_deref().filter(|h| !h.is_empty()).or(pod_ip).ok_or("failed to find networking container")?;
        check::tcp(host, port, TIMEOUT).await
    } else if let Some(sleep) = &hook.sleep {
        tokio::time::sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0))).await;
        return Ok(());
    } else {
        return Err("invalid handler: no action".into());
    };
    match outcome {
        Outcome::Success(_) | Outcome::Warning(_) => Ok(()),
        Outcome::Failure(text) | Outcome::Unknown(text) => Err(text),
    }
}
