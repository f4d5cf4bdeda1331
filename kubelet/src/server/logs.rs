//! `/containerLogs/{namespace}/{pod}/{container}`.

use std::collections::HashMap;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use tokio_stream::wrappers::ReceiverStream;

use super::{Server, query, refuse};
use crate::pod::PodExt;
use crate::runtime::logs::{Options, Output, stream};

pub(super) async fn container_logs(
    State(server): State<Arc<Server>>,
    Path((namespace, name, container)): Path<(String, String, String)>,
    request: Request,
) -> Response {
    let (options, previous) = match options(&query(&request), server.clock.now()) {
        Ok(parsed) => parsed,
        Err(status) => return refuse(status, r#"{"message": "Invalid request."}"#),
    };
    let Some(pod) = server.workers.find(&namespace, &name) else {
        return refuse(StatusCode::NOT_FOUND, format!("pod {name:?} does not exist"));
    };
    if pod.container(&container).is_none() {
        return refuse(StatusCode::NOT_FOUND, format!("container {container:?} not found in pod {name:?}"));
    }
    let status = server.statuses.get(pod.uid()).or_else(|| pod.status.clone()).unwrap_or_default();
    let id = match container_id(&pod, &status, &container, previous) {
        Ok(id) => id,
        Err(text) => return refuse(StatusCode::BAD_REQUEST, text),
    };
    let log = match server.cri.container_status(&id).await {
        Ok(status) if !status.log_path.is_empty() => status.log_path,
        Ok(_) => return refuse(StatusCode::BAD_REQUEST, "the container does not write a log file"),
        Err(error) => {
            return refuse(
                StatusCode::BAD_REQUEST,
                format!("failed to try resolving symlinks in path {id:?}: {error}"),
            );
        }
    };
    if let Err(error) = std::fs::metadata(&log) {
        return refuse(StatusCode::BAD_REQUEST, format!("failed to open log file {log:?}: {error}"));
    }
    let cri = server.cri.clone();
    let chunks = stream(log.into(), options, move || {
        let (cri, id) = (cri.clone(), id.clone());
        async move {
            let status = cri.container_status(&id).await;
            status.is_ok_and(|s| s.state() == proto::cri::ContainerState::ContainerRunning)
        }
    });
    let body = Body::from_stream(ReceiverStream::new(chunks));
    ([(header::CONTENT_TYPE, "text/plain")], body).into_response()
}

/// Reads `PodLogOptions` from a query.
fn options(query: &[(String, String)], now: Timestamp) -> Result<(Options, bool), StatusCode> {
    let values: HashMap<&str, &str> = query.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    let truth = |name: &str| values.get(name).is_some_and(|v| !matches!(*v, "false" | "0"));
    let number = |name: &str| match values.get(name).filter(|v| !v.is_empty()) {
        None => Ok(None),
        Some(text) => text.parse::<i64>().map(Some).map_err(|_| StatusCode::BAD_REQUEST),
    };
    let positive = |value: Option<i64>, least: i64| match value {
        Some(n) if n < least => Err(StatusCode::UNPROCESSABLE_ENTITY),
        other => Ok(other),
    };
    let tail = match values.get("tail") {
        Some(&"all") => None,
        Some(_) => number("tail")?,
        None => number("tailLines")?,
    };
    let tail = positive(tail, 0)?.and_then(|n| u64::try_from(n).ok());
    let since = match (positive(number("sinceSeconds")?, 1)?, values.get("sinceTime")) {
        (Some(_), Some(_)) => return Err(StatusCode::UNPROCESSABLE_ENTITY),
        (Some(seconds), None) => now.checked_sub(SignedDuration::from_secs(seconds)).ok(),
        (None, Some(text)) => Some(text.parse::<Timestamp>().map_err(|_| StatusCode::BAD_REQUEST)?),
        (None, None) => None,
    };
    let output = match values.get("stream") {
        None | Some(&"All") => None,
        Some(&"Stdout") => Some(Output::Stdout),
        Some(&"Stderr") => Some(Output::Stderr),
        Some(_) => return Err(StatusCode::BAD_REQUEST),
    };
    let limit_bytes = positive(number("limitBytes")?, 1)?.and_then(|n| usize::try_from(n).ok());
    let options =
        Options { follow: truth("follow"), tail, since, timestamps: truth("timestamps"), limit_bytes, output };
    Ok((options, truth("previous")))
}

/// The runtime id of the instance whose log is meant; the error is upstream's text.
fn container_id(pod: &Pod, status: &PodStatus, container: &str, previous: bool) -> Result<String, String> {
    let name = pod.pod_name();
    let place = format!("container {container:?} in pod {name:?}");
    let lists = [&status.container_statuses, &status.init_container_statuses, &status.ephemeral_container_statuses];
    let found = lists.into_iter().flatten().flatten().find(|s| s.name == container);
    let found = found.ok_or_else(|| format!("{place} is not available"))?;
    let state = found.state.clone().unwrap_or_default();
    let nonempty = |id: Option<String>| id.filter(|id| !id.is_empty());
    let last = found.last_state.as_ref().and_then(|s| s.terminated.as_ref());
    let last_id = || nonempty(last.and_then(|t| t.container_id.clone()));
    let id = if previous {
        last_id().ok_or_else(|| format!("previous terminated {place} not found"))?
    } else if state.running.is_some() {
        found.container_id.clone().unwrap_or_default()
    } else if let Some(ended) = &state.terminated {
        nonempty(ended.container_id.clone()).or_else(last_id).ok_or_else(|| format!("{place} is terminated"))?
    } else if last.is_some() {
        last_id().ok_or_else(|| format!("{place} is terminated"))?
    } else {
        let reason = state.waiting.and_then(|w| w.reason);
        return Err(match reason.as_deref() {
            Some("ErrImagePull") => format!("{place} is waiting to start: image can't be pulled"),
            Some("ImagePullBackOff") => format!("{place} is waiting to start: trying and failing to pull image"),
            Some(reason) => format!("{place} is waiting to start: {reason}"),
            None => format!("{place} is waiting to start - no logs yet"),
        });
    };
    Ok(id.split_once("://").map_or(id.clone(), |(_, bare)| bare.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_right_instance_is_read() {
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c"}]}}))
                .unwrap();
        let id = |status: serde_json::Value, previous| {
            let list = json!({"containerStatuses": [status]});
            container_id(&pod, &serde_json::from_value(list).unwrap(), "c", previous)
        };
        let base = json!({"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0});
        let with = |more: serde_json::Value| {
            let mut status = base.clone();
            status.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            status
        };
        let running = with(json!({"containerID": "containerd://a", "state": {"running": {}},
            "lastState": {"terminated": {"exitCode": 1, "containerID": "containerd://b"}}}));
        assert_eq!(id(running.clone(), false), Ok("a".into()));
        assert_eq!(id(running, true), Ok("b".into()));
        let waiting = with(json!({"state": {"waiting": {"reason": "ImagePullBackOff"}}}));
        assert_eq!(
            id(waiting.clone(), false),
            Err("container \"c\" in pod \"p\" is waiting to start: trying and failing to pull image".into())
        );
        assert_eq!(id(waiting, true), Err("previous terminated container \"c\" in pod \"p\" not found".into()));
        let crashed = with(json!({"state": {"waiting": {"reason": "CrashLoopBackOff"}},
            "lastState": {"terminated": {"exitCode": 1, "containerID": "containerd://d"}}}));
        assert_eq!(id(crashed, false), Ok("d".into()));
    }

    #[test]
    fn queries() {
        let parse = |text: &str| {
            let query: Vec<(String, String)> = url::form_urlencoded::parse(text.as_bytes()).into_owned().collect();
            options(&query, Timestamp::from_second(1000).unwrap())
        };
        let (read, previous) = parse("follow=true&tailLines=5&sinceSeconds=10&timestamps=true&previous=true").unwrap();
        assert!(read.follow && read.timestamps && previous);
        assert_eq!((read.tail, read.since.map(|t| t.as_second())), (Some(5), Some(990)));
        assert_eq!(parse("tailLines=-1").unwrap_err(), StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(parse("tailLines=x").unwrap_err(), StatusCode::BAD_REQUEST);
        assert_eq!(
            parse("sinceSeconds=1&sinceTime=2026-01-01T00:00:00Z").unwrap_err(),
            StatusCode::UNPROCESSABLE_ENTITY
        );
        assert!(!parse("follow=false").unwrap().0.follow);
    }
}
