//! The bind mounts of a container: volumes with their sub-paths, `/etc/hosts`, the termination message.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use k8s_openapi::api::core::v1::{Container, Pod};
use proto::cri;

use crate::env;
use crate::network;
use crate::pod::PodExt;
use crate::settings::Settings;
use crate::volume::{Mounts, subpath};

const ETC_HOSTS: &str = "/etc/hosts";

/// Makes what has to exist and lists it. The error is the container's message.
pub fn make(
    settings: &Settings,
    pod: &Pod,
    container: &Container,
    volumes: &Mounts,
    variables: &[(String, String)],
    pod_ips: &[String],
) -> Result<Vec<cri::Mount>, String> {
    let mut out = Vec::new();
    let mut hosts = pod.host_network() || !pod_ips.is_empty();
    for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
        hosts &= mount.mount_path != ETC_HOSTS;
        let volume = volumes.get(&mount.name).ok_or_else(|| {
            format!("cannot find volume {:?} to mount into container {:?}", mount.name, container.name)
        })?;
        let lookup = |name: &str| variables.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone());
        let sub_path = match mount.sub_path_expr.as_deref().filter(|e| !e.is_empty()) {
            Some(expression) => {
                let path = env::expand(expression, lookup);
                if path.contains("$(") {
                    return Err(format!("missing value for {expression:?}"));
                }
                path
            }
            None => mount.sub_path.clone().unwrap_or_default(),
        };
        let host_path = if sub_path.is_empty() {
            volume.path.clone()
        } else {
            let mode = std::fs::metadata(&volume.path).map(|m| m.permissions().mode() & 0o777).unwrap_or(0o750);
            let binding = settings
                .pod_dir(pod.uid())
                .join("volume-subpaths")
                .join(&mount.name)
                .join(&container.name)
                .join(index.to_string());
            subpath::bind(&volume.path, &sub_path, &binding, mode).map_err(|error| {
                format!(
                    "failed to prepare subPath for volumeMount {:?} of container {:?}: {error}",
                    mount.name, container.name
                )
            })?
        };
        let container_path = match mount.mount_path.starts_with('/') {
            true => mount.mount_path.clone(),
            false => format!("/{}", mount.mount_path),
        };
        let propagation = match mount.mount_propagation.as_deref() {
            Some("HostToContainer") => cri::MountPropagation::PropagationHostToContainer,
            Some("Bidirectional") => cri::MountPropagation::PropagationBidirectional,
            _ => cri::MountPropagation::PropagationPrivate,
        };
        out.push(cri::Mount {
            container_path,
            host_path: host_path.to_string_lossy().into_owned(),
            readonly: mount.read_only.unwrap_or(false) || volume.read_only,
            propagation: propagation.into(),
            ..Default::default()
        });
    }
    if hosts {
        let path = settings.pod_dir(pod.uid()).join("etc-hosts");
        write_hosts(settings, pod, pod_ips, &path).map_err(|e| e.to_string())?;
        out.push(bind(&path, ETC_HOSTS));
    }
    if let Some(target) = container.termination_message_path.as_deref().filter(|p| !p.is_empty()) {
        let directory = settings.container_dir(pod.uid(), &container.name);
        let make = || -> std::io::Result<cri::Mount> {
            std::fs::create_dir_all(&directory)?;
            // A name of its own for every start: the message of the last one must stay readable.
            let path = directory.join(format!("{:08x}", rand::random::<u32>()));
            std::fs::write(&path, "")?;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666))?;
            Ok(bind(&path, target))
        };
        out.push(make().map_err(|error| format!("error on creating termination-log file: {error}"))?);
    }
    Ok(out)
}

fn bind(host: &Path, container: &str) -> cri::Mount {
    cri::Mount {
        container_path: container.into(),
        host_path: host.to_string_lossy().into_owned(),
        ..Default::default()
    }
}

fn write_hosts(settings: &Settings, pod: &Pod, ips: &[String], path: &Path) -> std::io::Result<()> {
    let aliases = pod.pod_spec().host_aliases.as_deref().unwrap_or_default();
    let text = if pod.host_network() {
        network::host_network_hosts(&std::fs::read_to_string(ETC_HOSTS)?, aliases)
    } else {
        let (name, domain) = network::hostname_and_domain(pod, &settings.dns.cluster_domain);
        network::managed_hosts(ips, &name, &domain, aliases)
    };
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    // Written in place: containers that already run have this very file mounted.
    std::fs::write(path, text)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644))
}
