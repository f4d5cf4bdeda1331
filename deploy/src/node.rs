//! A node of a local cluster: a mount, a host-name and a network namespace on this machine in which
//! containerd, kubelet and kube-proxy find everything at upstream's own paths.
//!
//! The mount namespace makes nodes tidy: `/var/lib/kubelet`, `/var/lib/containerd`, `/run/containerd`,
//! `/run/netns`, `/var/lib/cni`, `/etc/cni/net.d` and the logs of pods are folders of the node, and
//! every mount that a container runtime makes disappears with the namespace. The namespaces are pinned
//! as files, so that the death of any process, even all of them, leaves the node standing.

use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use crate::command::{self, Error as CommandError, undo};
use crate::state::{NodeName, State, private_dir};

/// The image of the pod sandbox; it is built here, like the others (see [`crate::image`]).
pub const PAUSE_IMAGE: &str = "docker.io/keelson/pause:1";
/// Where Debian's `containernetworking-plugins` puts its programs.
pub const CNI_PROGRAMS: &str = "/usr/lib/cni";
/// `CAP_SYS_RESOURCE`, as a bit of `/proc/self/status`' `CapEff` (capabilities(7)).
const CAP_SYS_RESOURCE: u32 = 24;

/// A node that could not be prepared.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Command(#[from] CommandError),
    #[error("cannot write {}", path.display())]
    Write { path: PathBuf, source: std::io::Error },
}

/// What stands where inside a node: (path in the node, folder of the node).
fn folders(state: &State, node: &NodeName) -> Vec<(&'static str, PathBuf)> {
    let disk = state.node(&node.name);
    vec![
        ("/var/lib/kubelet", disk.join("kubelet")),
        ("/var/lib/containerd", disk.join("containerd")),
        ("/var/lib/cni", disk.join("cni")),
        ("/var/log/pods", disk.join("log-pods")),
        ("/var/log/containers", disk.join("log-containers")),
        ("/etc/cni/net.d", disk.join("cni-conf")),
        ("/run/containerd", state.node_run(&node.name)),
    ]
}

/// Makes the folder on which namespaces are pinned.
pub async fn prepare_pins(state: &State) -> Result<(), Error> {
    let pins = state.namespaces();
    private_dir(&pins).map_err(|source| Error::Write { path: pins.clone(), source })?;
    if !is_mount_point(&pins) {
        let path = pins.display();
        command::words(&format!("mount -t tmpfs -o size=64k,mode=0700 keelson-namespaces {path}")).await?;
        command::words(&format!("mount --make-private {path}")).await?;
    }
    Ok(())
}

/// Unpins every namespace: what still runs in one keeps it, nothing else does.
pub async fn remove_pins(state: &State) {
    let pins = state.namespaces();
    if let Ok(entries) = std::fs::read_dir(&pins) {
        for entry in entries.flatten() {
            undo(&format!("umount {}", entry.path().display())).await;
        }
    }
    undo(&format!("umount {}", pins.display())).await;
}

/// Makes the node's mount and host-name namespaces. The network namespace is
/// [`crate::network::make_node`]'s.
pub async fn make_namespaces(state: &State, node: &NodeName) -> Result<(), Error> {
    let (mount, uts, made) = (pin(state, node, "mnt"), pin(state, node, "uts"), pin(state, node, "made"));
    if is_mount_point(&mount) && is_mount_point(&uts) && made.exists() {
        return Ok(());
    }
    // What was cut off in the middle of the script below lacks mounts that processes would miss.
    for path in [&mount, &uts].into_iter().filter(|path| is_mount_point(path)) {
        command::words(&format!("umount {}", path.display())).await?;
    }
    let mut script = String::from("set -e\nmount --make-rshared /\n");
    for (inside, outside) in folders(state, node) {
        // The mount point itself is seen by the host too: an empty folder, as the packages make them.
        for path in [Path::new(inside), &outside] {
            std::fs::create_dir_all(path).map_err(|source| Error::Write { path: path.into(), source })?;
        }
        script.push_str(&format!("mount --rbind '{}' {inside}\n", outside.display()));
    }
    std::fs::create_dir_all("/run/netns").map_err(|source| Error::Write { path: "/run/netns".into(), source })?;
    script.push_str("mount -t tmpfs -o mode=0755 pod-networks /run/netns\nmount --make-rshared /run/netns\n");
    script.push_str(&format!("hostname {}\n: >'{}'\n", node.name, made.display()));
    for path in [&mount, &uts] {
        std::fs::write(path, "").map_err(|source| Error::Write { path: path.clone(), source })?;
    }
    let (mount, uts) = (format!("--mount={}", mount.display()), format!("--uts={}", uts.display()));
    command::run("unshare", [&mount, &uts, "--propagation=slave", "--", "sh", "-c", &script]).await?;
    Ok(())
}

/// Ends helpers of `unshare`: one pins the namespaces, and waits for ever if `unshare` is ended before it says so.
pub fn end_helpers(state: &State) {
    let helper = format!("unshare\0--mount={}/", state.namespaces().display());
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // Processes come and go: one that has gone is no helper.
        let words = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if words.starts_with(helper.as_bytes()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

/// The words that put a program into the node.
pub fn enter(state: &State, node: &NodeName) -> Vec<String> {
    vec![
        "nsenter".to_owned(),
        format!("--net=/run/netns/{}", node.netns()),
        format!("--mount={}", pin(state, node, "mnt").display()),
        format!("--uts={}", pin(state, node, "uts").display()),
        "--".to_owned(),
    ]
}

fn pin(state: &State, node: &NodeName, kind: &str) -> PathBuf {
    state.namespaces().join(format!("{}.{kind}", node.name))
}

/// Writes containerd's configuration and gives its path.
pub fn write_containerd_config(state: &State, node: &NodeName) -> Result<PathBuf, Error> {
    let path = state.node(&node.name).join("containerd.toml");
    write(&path, &containerd_config(may_raise_priority()))?;
    Ok(path)
}

fn containerd_config(may_raise_priority: bool) -> String {
    // Without CAP_SYS_RESOURCE no process may get a lower oom_score_adj than its parent's; runc would
    // end with "can't get final child's PID from pipe: EOF". Containers and nested hosts are like that.
    let restrict = !may_raise_priority;
    format!(
        r#"version = 2
disabled_plugins = [
  "io.containerd.internal.v1.opt",
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
  "io.containerd.tracing.processor.v1.otlp",
]
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  restrict_oom_score_adj = {restrict}
  stream_server_address = "127.0.0.1"
[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "overlayfs"
  default_runtime_name = "runc"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
  SystemdCgroup = false
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "{CNI_PROGRAMS}"
  conf_dir = "/etc/cni/net.d"
"#
    )
}

/// Whether processes here may lower their `oom_score_adj`.
fn may_raise_priority() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    effective_capabilities(&status).is_some_and(|set| set >> CAP_SYS_RESOURCE & 1 == 1)
}

fn effective_capabilities(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

/// Writes the node's CNI configuration: a bridge with the node's pod range. containerd watches the
/// folder, and the node turns Ready once the file is there, so it appears in one piece.
pub fn write_cni_config(state: &State, node: &NodeName, pod_cidr: &str) -> Result<(), Error> {
    let path = state.node(&node.name).join("cni-conf").join("10-keelson.conflist");
    let config = json!({
        "cniVersion": "0.4.0",
        "name": "keelson",
        "plugins": [
            {
                "type": "bridge",
                "bridge": "cni0",
                "isGateway": true,
                "hairpinMode": true,
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{"subnet": pod_cidr}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    });
    let text = format!("{config:#}\n");
    if std::fs::read_to_string(&path).is_ok_and(|now| now == text) {
        return Ok(());
    }
    // Within the folder: containerd reads it anew for a file that is renamed away, not for one that arrives.
    let draft = path.with_extension("conflist.new");
    write(&draft, &text)?;
    std::fs::rename(&draft, &path).map_err(|source| Error::Write { path, source })
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    let failed = |source| Error::Write { path: path.into(), source };
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).map_err(failed)?;
    }
    std::fs::write(path, text).map_err(failed)
}

/// Whether something is mounted at `path`, files included.
pub fn is_mount_point(path: &Path) -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    mount_points(&mounts).any(|point| Path::new(point) == path)
}

/// The mount points of `/proc/PID/mountinfo` (proc(5): the fifth field).
pub fn mount_points(mountinfo: &str) -> impl Iterator<Item = &str> {
    mountinfo.lines().filter_map(|line| line.split(' ').nth(4))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_read() {
        let status = "Name:\tx\nCapEff:\t000001fffeffffff\n";
        let set = effective_capabilities(status).expect("the line is there");
        assert_eq!(set >> CAP_SYS_RESOURCE & 1, 0);
        assert_eq!(effective_capabilities("Name:\tx\n"), None);
    }

    #[test]
    fn only_a_restricted_host_restricts_scores() {
        assert!(containerd_config(true).contains("restrict_oom_score_adj = false"));
        assert!(containerd_config(false).contains("restrict_oom_score_adj = true"));
    }

    #[test]
    fn mount_points_are_the_fifth_field() {
        let info = "22 27 0:21 / /proc rw,relatime - proc proc rw\n31 27 0:4 mnt:[1] /run/k/n.mnt rw - nsfs nsfs rw\n";
        assert_eq!(mount_points(info).collect::<Vec<_>>(), ["/proc", "/run/k/n.mnt"]);
    }

    #[test]
    fn the_cni_configuration_is_only_written_when_it_changes() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let state = State { root: dir.path().into(), run: dir.path().into() };
        let node = NodeName::new(1);
        std::fs::create_dir_all(state.node("node-1").join("cni-conf")).expect("a folder");
        write_cni_config(&state, &node, "10.244.0.0/24").expect("written");
        let path = state.node("node-1").join("cni-conf/10-keelson.conflist");
        let before = std::fs::metadata(&path).expect("there").modified().expect("a time");
        write_cni_config(&state, &node, "10.244.0.0/24").expect("kept");
        assert_eq!(std::fs::metadata(&path).expect("there").modified().expect("a time"), before);
        let config: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).expect("there")).expect("JSON");
        assert_eq!(config["plugins"][0]["ipam"]["ranges"][0][0]["subnet"], "10.244.0.0/24");
    }
}
