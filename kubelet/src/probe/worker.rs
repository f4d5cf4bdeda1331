//! Probes one container for one purpose, again and again, and decides when what it finds counts.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, PodStatus, Probe};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::check::{self, Outcome};
use super::manager::{Kind, Shared, bare_id};
use crate::api::pod_reference;
use crate::pod::{Kind as ContainerKind, PodExt};

/// Attempts of one look before it is given up as unknown.
const RETRIES: usize = 3;
const AGENT: &str = "kube-probe/1.36";

/// What a worker carries from one look to the next.
#[derive(Debug, Default, PartialEq, Eq)]
struct Memory {
    id: String,
    /// A container that failed is not looked at again: it is about to be stopped.
    on_hold: bool,
    last: Option<bool>,
    run: i32,
}

/// Counts a result; returns it when the threshold is reached.
fn count(memory: &mut Memory, probe: &Probe, passes: bool) -> Option<bool> {
    if memory.last == Some(passes) {
        memory.run += 1;
    } else {
        memory.last = Some(passes);
        memory.run = 1;
    }
    let threshold = if passes { probe.success_threshold.unwrap_or(1) } else { probe.failure_threshold.unwrap_or(3) };
    (memory.run >= threshold.max(1)).then_some(passes)
}

/// Whether to look again later.
#[derive(PartialEq, Eq)]
enum Next {
    Again,
    Stop,
}

/// Runs until the pod's probes are stopped or the container is done.
pub(super) async fn run(
    shared: Arc<Shared>,
    pod: Arc<Pod>,
    container: Container,
    kind: Kind,
    wake: Arc<Notify>,
    stop: CancellationToken,
) {
    let Some(probe) = kind.of(&container).cloned() else { return };
    let period = Duration::from_secs(u64::try_from(probe.period_seconds.unwrap_or(10).max(1)).unwrap_or(10));
    let mut memory = Memory::default();
    loop {
        let look = look(&shared, &pod, &container, kind, &probe, &mut memory);
        let next = tokio::select! {
            next = look => next,
            () = stop.cancelled() => Next::Stop,
        };
        if next == Next::Stop {
            break;
        }
        let due = shared.clock.sleep(period);
        tokio::pin!(due);
        let again = loop {
            tokio::select! {
                () = &mut due => break true,
                () = wake.notified() => if may_hurry(&shared, &pod, &container, kind, &memory) { break true },
                () = stop.cancelled() => break false,
            }
        };
        if !again {
            break;
        }
    }
    shared.clear(kind, &memory.id);
}

/// Whether a look before its time is right. One that failed already counts towards the end of the container, which gets
/// its full number of periods: statuses change many times while a container starts.
fn may_hurry(shared: &Shared, pod: &Pod, container: &Container, kind: Kind, memory: &Memory) -> bool {
    if kind == Kind::Readiness || memory.last.is_none() {
        return true;
    }
    let status = shared.statuses.get(pod.uid());
    status.as_ref().and_then(|status| own_status(status, container)).is_some_and(|own| bare_id(own) != memory.id)
}

/// The container's part of a status, once it has been made.
fn own_status<'a>(status: &'a PodStatus, container: &Container) -> Option<&'a ContainerStatus> {
    let list = [&status.container_statuses, &status.init_container_statuses];
    let found = list.into_iter().flatten().flatten().find(|own| own.name == container.name);
    found.filter(|own| !bare_id(own).is_empty())
}

async fn look(
    shared: &Shared,
    pod: &Pod,
    container: &Container,
    kind: Kind,
    probe: &Probe,
    memory: &mut Memory,
) -> Next {
    let Some(status) = shared.statuses.get(pod.uid()) else { return Next::Again };
    if crate::status::is_terminal_phase(status.phase.as_deref().unwrap_or_default()) {
        return Next::Stop;
    }
    let Some(own) = own_status(&status, container) else { return Next::Again };
    let id = bare_id(own).to_owned();
    if memory.id != id {
        if !memory.id.is_empty() {
            shared.clear(kind, &memory.id);
        }
        *memory = Memory { id: id.clone(), ..Memory::default() };
        if kind == Kind::Liveness {
            // Alive until found otherwise; the other two start without an opinion.
            shared.set(pod.uid(), kind, &id, true);
        }
    }
    if memory.on_hold {
        return Next::Again;
    }
    let Some(running) = own.state.as_ref().and_then(|s| s.running.as_ref()) else {
        if kind == Kind::Readiness {
            shared.set(pod.uid(), kind, &id, false);
        }
        let ended = own.state.as_ref().is_some_and(|s| s.terminated.is_some());
        return if ended && pod.restart_policy() == "Never" && !is_init(pod, container) {
            Next::Stop
        } else {
            Next::Again
        };
    };
    let started_at = running.started_at.as_ref().map(|t| t.0);
    let delay = Duration::from_secs(u64::try_from(probe.initial_delay_seconds.unwrap_or(0)).unwrap_or(0));
    let age = started_at.map(|at| crate::runtime::backoff::since(at, shared.clock.now())).unwrap_or_default();
    if age < delay {
        return Next::Again;
    }
    // A startup probe has done its work once it passed; the others wait for that.
    if (own.started == Some(true)) == (kind == Kind::Startup) {
        return Next::Again;
    }
    let ip = status.pod_ip.clone().unwrap_or_default();
    let mut outcome = Outcome::Unknown(String::new());
    for _ in 0..RETRIES {
        outcome = ask(shared, container, probe, &id, &ip).await;
        if !matches!(outcome, Outcome::Unknown(_)) {
            break;
        }
    }
    let reference = pod_reference(pod, Some(field_path(pod, container)));
    let word = kind.as_str();
    let passes = match outcome {
        Outcome::Success(_) => true,
        Outcome::Warning(text) => {
            shared.events.event(&reference, "Warning", "ProbeWarning", &format!("{word} probe warning: {text}"));
            true
        }
        Outcome::Failure(text) => {
            shared.events.event(&reference, "Warning", "Unhealthy", &format!("{word} probe failed: {text}"));
            false
        }
        Outcome::Unknown(text) => {
            shared.events.event(
                &reference,
                "Warning",
                "Unhealthy",
                &format!("{word} probe errored and resulted in unknown state: {text}"),
            );
            return Next::Again;
        }
    };
    if let Some(result) = count(memory, probe, passes) {
        shared.set(pod.uid(), kind, &id, result);
        if !result && kind != Kind::Readiness {
            memory.on_hold = true;
            memory.run = 0;
        }
    }
    Next::Again
}

fn is_init(pod: &Pod, container: &Container) -> bool {
    pod.init_containers().iter().any(|c| c.name == container.name)
}

fn field_path(pod: &Pod, container: &Container) -> String {
    match pod.container(&container.name) {
        Some((ContainerKind::Init, _)) => format!("spec.initContainers{{{}}}", container.name),
        _ => format!("spec.containers{{{}}}", container.name),
    }
}

async fn ask(shared: &Shared, container: &Container, probe: &Probe, id: &str, ip: &str) -> Outcome {
    let timeout = Duration::from_secs(u64::try_from(probe.timeout_seconds.unwrap_or(1).max(1)).unwrap_or(1));
    if let Some(exec) = &probe.exec {
        let command: Vec<String> = exec
            .command
            .iter()
            .flatten()
            .map(|word| {
                crate::env::expand(word, |name| {
                    container.env.iter().flatten().find(|v| v.name == name).and_then(|v| v.value.clone())
                })
            })
            .collect();
        check::exec(&shared.runtime, id, &command, timeout).await
    } else if let Some(http) = &probe.http_get {
        check::http(http, container, ip, timeout, AGENT).await
    } else if let Some(tcp) = &probe.tcp_socket {
        let host = tcp.host.as_deref().filter(|h| !h.is_empty()).unwrap_or(ip);
        match check::port(&tcp.port, container) {
            Ok(port) => check::tcp(host, port, timeout).await,
            Err(text) => Outcome::Unknown(text),
        }
    } else if let Some(grpc) = &probe.grpc {
        let port = u16::try_from(grpc.port).unwrap_or(0);
        check::grpc(ip, port, grpc.service.as_deref().unwrap_or_default(), timeout).await
    } else {
        Outcome::Unknown(format!("missing probe handler for {}", container.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds() {
        let probe = Probe { success_threshold: Some(2), failure_threshold: Some(3), ..Default::default() };
        let mut memory = Memory::default();
        let looks = [true, true, false, false, true, false, false, false, false];
        let counted: Vec<Option<bool>> = looks.iter().map(|passes| count(&mut memory, &probe, *passes)).collect();
        let expected = [None, Some(true), None, None, None, None, None, Some(false), Some(false)];
        assert_eq!(counted, expected);
    }
}
