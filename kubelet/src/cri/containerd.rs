//! containerd's own event stream, for versions that answer CRI's with "unimplemented" (all before 1.7,
//! and Debian's): it is served on the same socket.
//!
//! Messages are declared here as far as they are read (`containerd.services.events.v1`).

use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use prost::Message;
use proto::cri;
use tonic::transport::Channel;

use super::{Error, Result, RuntimeService};
use crate::runtime::labels;

/// The namespace in which containerd keeps what CRI makes.
const NAMESPACE: &str = "k8s.io";
/// The CRI part of containerd hears of an exit at the same moment as we do, and shows it once it has
/// deleted the task: usually at once after that event, later on a busy machine. An end is therefore
/// passed on several times, after these pauses in all.
const SETTLES: [Duration; 4] =
    [Duration::ZERO, Duration::from_millis(30), Duration::from_millis(200), Duration::from_secs(1)];

#[derive(Clone, PartialEq, Message)]
struct SubscribeRequest {
    #[prost(string, repeated, tag = "1")]
    filters: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
struct Envelope {
    #[prost(string, tag = "2")]
    namespace: String,
    #[prost(string, tag = "3")]
    topic: String,
    #[prost(message, optional, tag = "4")]
    event: Option<Any>,
}

#[derive(Clone, PartialEq, Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct TaskStart {
    #[prost(string, tag = "1")]
    container_id: String,
}

#[derive(Clone, PartialEq, Message)]
struct TaskExit {
    #[prost(string, tag = "1")]
    container_id: String,
    #[prost(string, tag = "2")]
    id: String,
}

#[derive(Clone, PartialEq, Message)]
struct TaskDelete {
    #[prost(string, tag = "1")]
    container_id: String,
    #[prost(string, tag = "5")]
    id: String,
}

/// Starts and ends of main processes as they happen; ends when containerd goes away.
pub async fn events(
    channel: Channel,
    cri: super::Grpc,
) -> Result<BoxStream<'static, Result<cri::ContainerEventResponse>>> {
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.map_err(|e| Error { code: tonic::Code::Unavailable, message: e.to_string() })?;
    let filters = ["/tasks/start", "/tasks/exit", "/tasks/delete", "/tasks/oom"]
        .map(|topic| format!("namespace=={NAMESPACE},topic==\"{topic}\""))
        .to_vec();
    let path = http::uri::PathAndQuery::from_static("/containerd.services.events.v1.Events/Subscribe");
    let codec = tonic_prost::ProstCodec::<SubscribeRequest, Envelope>::default();
    let answer = client.server_streaming(tonic::Request::new(SubscribeRequest { filters }), path, codec).await?;
    let events = answer.into_inner().filter_map(move |envelope| {
        let cri = cri.clone();
        async move {
            match envelope {
                Ok(envelope) => about(&cri, &envelope).await.map(Ok),
                Err(status) => Some(Err(Error::from(status))),
            }
        }
    });
    let repeated = events.flat_map_unordered(None, |event| {
        let ended = event
            .as_ref()
            .is_ok_and(|event| event.container_event_type() == cri::ContainerEventType::ContainerStoppedEvent);
        let times = if ended { SETTLES.len() } else { 1 };
        futures::stream::iter(SETTLES.into_iter().take(times))
            .then(move |pause| {
                let event = event.clone();
                async move {
                    tokio::time::sleep(pause).await;
                    event
                }
            })
            .boxed()
    });
    Ok(repeated.boxed())
}

/// The pod that an event is about; `None` for those that are no main process's.
async fn about(cri: &super::Grpc, envelope: &Envelope) -> Option<cri::ContainerEventResponse> {
    let id = main_process(envelope)?;
    let kind = match envelope.topic.as_str() {
        "/tasks/start" => cri::ContainerEventType::ContainerStartedEvent,
        _ => cri::ContainerEventType::ContainerStoppedEvent,
    };
    let containers = cri.list_containers(Some(cri::ContainerFilter { id: id.clone(), ..Default::default() })).await;
    let mut of = containers.ok().and_then(|list| list.into_iter().next()).map(|container| container.labels);
    if of.is_none() {
        let sandboxes =
            cri.list_pod_sandbox(Some(cri::PodSandboxFilter { id: id.clone(), ..Default::default() })).await;
        of = sandboxes.ok().and_then(|list| list.into_iter().next()).map(|sandbox| sandbox.labels);
    }
    let uid = of?.remove(labels::POD_UID)?;
    let metadata = Some(cri::PodSandboxMetadata { uid, ..Default::default() });
    Some(cri::ContainerEventResponse {
        container_id: id,
        container_event_type: kind.into(),
        pod_sandbox_status: Some(cri::PodSandboxStatus { metadata, ..Default::default() }),
        ..Default::default()
    })
}

fn main_process(envelope: &Envelope) -> Option<String> {
    if envelope.namespace != NAMESPACE {
        return None;
    }
    let value = envelope.event.as_ref()?.value.as_slice();
    // An end names the process too: that of a command run inside is another one, and no news.
    let (container, process) = match envelope.topic.as_str() {
        "/tasks/exit" => TaskExit::decode(value).map(|task| (task.container_id, task.id)).ok()?,
        "/tasks/delete" => TaskDelete::decode(value).map(|task| (task.container_id, task.id)).ok()?,
        _ => TaskStart::decode(value).map(|task| (task.container_id, String::new())).ok()?,
    };
    (process.is_empty() || process == container).then_some(container)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope(namespace: &str, topic: &str, value: Vec<u8>) -> Envelope {
        let event = Some(Any { type_url: String::new(), value });
        Envelope { namespace: namespace.into(), topic: topic.into(), event }
    }

    #[test]
    fn only_main_processes_are_news() {
        let exit = |id: &str| TaskExit { container_id: "c".into(), id: id.into() }.encode_to_vec();
        let start = TaskStart { container_id: "c".into() }.encode_to_vec();
        let delete = |id: &str| TaskDelete { container_id: "c".into(), id: id.into() }.encode_to_vec();
        for (envelope, expected) in [
            (envelope("k8s.io", "/tasks/exit", exit("c")), Some("c")),
            (envelope("k8s.io", "/tasks/exit", exit("exec-1")), None),
            (envelope("k8s.io", "/tasks/delete", delete("")), Some("c")),
            (envelope("k8s.io", "/tasks/delete", delete("exec-1")), None),
            (envelope("moby", "/tasks/exit", exit("c")), None),
            (envelope("k8s.io", "/tasks/start", start), Some("c")),
            (envelope("k8s.io", "/tasks/exit", vec![0xff]), None),
        ] {
            assert_eq!(main_process(&envelope).as_deref(), expected, "{envelope:?}");
        }
    }
}
