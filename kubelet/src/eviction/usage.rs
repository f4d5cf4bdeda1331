//! What pods use: from the runtime's statistics, and from the disk where that has to be known.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use super::rank::{ContainerUsage, PodUsage};
use crate::cri::{Result, Runtime};
use crate::pod::PodExt;
use crate::runtime::labels;
use crate::settings::Settings;

/// What is asked for of one pod's part of the disk.
struct Places {
    uid: String,
    logs: Vec<(String, PathBuf)>,
    empty_dirs: Vec<(String, PathBuf)>,
}

/// The usage of each pod, by uid. Logs and emptyDirs are measured for those that `measure` picks: going
/// through them costs time.
pub async fn read(
    cri: &Arc<dyn Runtime>,
    settings: &Settings,
    pods: &[Arc<Pod>],
    measure: impl Fn(&Pod) -> bool,
) -> Result<HashMap<String, PodUsage>> {
    let stats = cri.list_container_stats(None).await?;
    let value = |v: Option<proto::cri::UInt64Value>| v.and_then(|v| i64::try_from(v.value).ok()).unwrap_or(0);
    let mut out: HashMap<String, PodUsage> = HashMap::new();
    for stat in stats {
        let Some(attributes) = stat.attributes else { continue };
        let label = |name: &str| attributes.labels.get(name).cloned().unwrap_or_default();
        let usage = out.entry(label(labels::POD_UID)).or_default();
        usage.inodes += value(stat.writable_layer.as_ref().and_then(|layer| layer.inodes_used));
        usage.containers.push(ContainerUsage {
            name: label(labels::CONTAINER_NAME),
            memory: value(stat.memory.and_then(|m| m.working_set_bytes)),
            disk: value(stat.writable_layer.and_then(|layer| layer.used_bytes)),
        });
    }
    let places: Vec<Places> = pods.iter().filter(|pod| measure(pod)).map(|pod| places(settings, pod)).collect();
    if places.is_empty() {
        return Ok(out);
    }
    let measured = tokio::task::spawn_blocking(move || {
        let of = |list: Vec<(String, PathBuf)>| -> Vec<(String, i64, i64)> {
            list.into_iter()
                .map(|(name, path)| (name, tree(&path)))
                .map(|(n, (bytes, inodes))| (n, bytes, inodes))
                .collect()
        };
        places.into_iter().map(|p| (p.uid, of(p.logs), of(p.empty_dirs))).collect::<Vec<_>>()
    });
    for (uid, logs, empty_dirs) in measured.await.unwrap_or_default() {
        let usage = out.entry(uid).or_default();
        for (name, bytes, inodes) in logs {
            usage.inodes += inodes;
            if let Some(container) = usage.containers.iter_mut().find(|c| c.name == name) {
                container.disk += bytes;
            }
        }
        for (name, bytes, inodes) in empty_dirs {
            usage.inodes += inodes;
            usage.empty_dirs.push((name, bytes));
        }
    }
    Ok(out)
}

fn places(settings: &Settings, pod: &Pod) -> Places {
    let logs = settings.pod_log_dir(pod.pod_namespace(), pod.pod_name(), pod.uid());
    let containers = pod.pod_spec().containers.iter().chain(pod.init_containers());
    let volumes = settings.pod_dir(pod.uid()).join("volumes/kubernetes.io~empty-dir");
    let on_disk =
        pod.pod_spec().volumes.iter().flatten().filter(|volume| {
            volume.empty_dir.as_ref().is_some_and(|e| e.medium.as_deref().unwrap_or_default().is_empty())
        });
    Places {
        uid: pod.uid().to_owned(),
        logs: containers.map(|c| (c.name.clone(), logs.join(&c.name))).collect(),
        empty_dirs: on_disk.map(|v| (v.name.clone(), volumes.join(&v.name))).collect(),
    }
}

/// Bytes on the disk and number of files below a folder, links not followed.
pub fn tree(path: &Path) -> (i64, i64) {
    let Ok(metadata) = std::fs::symlink_metadata(path) else { return (0, 0) };
    let mut total = (i64::try_from(metadata.blocks() * 512).unwrap_or(i64::MAX), 1);
    if metadata.is_dir() {
        for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
            let (bytes, inodes) = tree(&entry.path());
            total = (total.0 + bytes, total.1 + inodes);
        }
    }
    total
}
