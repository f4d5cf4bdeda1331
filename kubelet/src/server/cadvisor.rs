//! `/metrics/cadvisor`: usage of containers under cAdvisor's names, from the runtime's statistics.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use proto::cri;

use super::{Server, refuse};
use crate::runtime::labels;

/// What one container uses.
struct Sample {
    labels: String,
    stats: cri::ContainerStats,
    created: i64,
}

fn number(value: Option<cri::UInt64Value>) -> Option<f64> {
    value.map(|value| value.value as f64)
}

/// A metric: name, type, help, and its value for a container.
type Metric = (&'static str, &'static str, &'static str, fn(&Sample) -> Option<f64>);

const METRICS: &[Metric] = &[
    ("container_cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed in seconds.", |s| {
        number(s.stats.cpu.as_ref()?.usage_core_nano_seconds).map(|nanos| nanos / 1e9)
    }),
    (
        "container_fs_usage_bytes",
        "gauge",
        "Number of bytes that are consumed by the container on this filesystem.",
        |s| number(s.stats.writable_layer.as_ref()?.used_bytes),
    ),
    ("container_last_seen", "gauge", "Last time a container was seen by the exporter", |s| {
        Some((s.stats.cpu.as_ref()?.timestamp / 1_000_000_000) as f64)
    }),
    ("container_memory_rss", "gauge", "Size of RSS in bytes.", |s| number(s.stats.memory.as_ref()?.rss_bytes)),
    (
        "container_memory_usage_bytes",
        "gauge",
        "Current memory usage in bytes, including all memory regardless of when it was accessed",
        |s| {
            let memory = s.stats.memory.as_ref()?;
            number(memory.usage_bytes.or(memory.working_set_bytes))
        },
    ),
    ("container_memory_working_set_bytes", "gauge", "Current working set in bytes.", |s| {
        number(s.stats.memory.as_ref()?.working_set_bytes)
    }),
    ("container_start_time_seconds", "gauge", "Start time of the container since unix epoch in seconds.", |s| {
        (s.created > 0).then_some((s.created / 1_000_000_000) as f64)
    }),
];

pub(super) async fn metrics(State(server): State<Arc<Server>>) -> Response {
    let asked = futures::future::try_join(server.cri.list_container_stats(None), server.cri.list_containers(None));
    let (stats, containers) = match asked.await {
        Ok(answers) => answers,
        Err(error) => return refuse(StatusCode::INTERNAL_SERVER_ERROR, error.message),
    };
    let known: HashMap<&str, &cri::Container> = containers.iter().map(|c| (c.id.as_str(), c)).collect();
    let samples: Vec<Sample> = stats
        .into_iter()
        // Containers that have ended are listed with nothing in them.
        .filter(|stats| stats.cpu.as_ref().is_some_and(|cpu| cpu.timestamp > 0))
        .filter_map(|stats| {
            let attributes = stats.attributes.as_ref()?;
            let container = known.get(attributes.id.as_str());
            let image = container.and_then(|c| c.image.as_ref()).map_or("", |i| i.image.as_str());
            let label = |name: &str| attributes.labels.get(name).map_or("", String::as_str);
            let labels = format!(
                "{{container={:?},id={:?},image={image:?},name={:?},namespace={:?},pod={:?}}}",
                label(labels::CONTAINER_NAME),
                format!("/{}", attributes.id),
                attributes.id,
                label(labels::POD_NAMESPACE),
                label(labels::POD_NAME),
            );
            let created = container.map_or(0, |c| c.created_at);
            Some(Sample { labels, stats, created })
        })
        .collect();
    let mut out = render(&samples);
    for (name, help, value) in [
        ("machine_cpu_cores", "Number of logical CPU cores.", server.machine.cpus),
        ("machine_memory_bytes", "Amount of memory installed on the machine.", server.machine.memory),
    ] {
        let labels = format!(
            "{{boot_id={:?},machine_id={:?},system_uuid={:?}}}",
            server.machine.boot_id, server.machine.machine_id, server.machine.system_uuid
        );
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} gauge\n{name}{labels} {value}");
    }
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], out).into_response()
}

/// The samples as text; a metric that no container has is left out.
fn render(samples: &[Sample]) -> String {
    let mut out = String::new();
    for (name, kind, help, value) in METRICS {
        let mut values = samples.iter().filter_map(|s| Some((s, value(s)?))).peekable();
        if values.peek().is_none() {
            continue;
        }
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (sample, value) in values {
            let at = sample.stats.cpu.as_ref().map_or(0, |cpu| cpu.timestamp / 1_000_000);
            let _ = writeln!(out, "{name}{} {value} {at}", sample.labels);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_not_shown() {
        let value = |value| Some(cri::UInt64Value { value });
        let stats = cri::ContainerStats {
            cpu: Some(cri::CpuUsage {
                timestamp: 5_000_000_000,
                usage_core_nano_seconds: value(1_500_000_000),
                ..Default::default()
            }),
            memory: Some(cri::MemoryUsage { working_set_bytes: value(4096), ..Default::default() }),
            ..Default::default()
        };
        let text = render(&[Sample { labels: "{pod=\"p\"}".into(), stats, created: 0 }]);
        assert!(text.contains("container_cpu_usage_seconds_total{pod=\"p\"} 1.5 5000\n"), "{text}");
        assert!(text.contains("container_memory_usage_bytes{pod=\"p\"} 4096 5000\n"), "{text}");
        assert!(!text.contains("container_start_time_seconds") && !text.contains("container_memory_rss"));
    }
}
