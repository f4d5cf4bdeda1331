//! Volumes of pods: made before the first container starts, kept current while the pod lives, torn down
//! from what the disk says when it ends.
//!
//! Each kind is one arm of [`Volumes::set_up`]; the ones that hold API data share the atomic writer.
//! Claims, CSI and network volumes are not here yet: pods that name them wait with a FailedMount event.

pub mod atomic;
mod certificate;
mod ownership;
mod payload;
pub mod subpath;
pub mod token;
mod trust;

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use component_base::clock::SharedClock;
use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, HostPathVolumeSource, Pod, Volume};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::api::{Api, Events};
use crate::pod::PodExt;
use crate::resources;
use crate::settings::Settings;
use atomic::Payload;
use certificate::Certificates;
use payload::Sources;
use token::Tokens;

const EMPTY_DIR: &str = "kubernetes.io/empty-dir";
const CONFIG_MAP: &str = "kubernetes.io/configmap";
const SECRET: &str = "kubernetes.io/secret";
const DOWNWARD: &str = "kubernetes.io/downward-api";
const PROJECTED: &str = "kubernetes.io/projected";

/// Why a volume is not there; the text goes into a FailedMount event. All are worth another try.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Contents could not be had.
    #[error("{0}")]
    SetUp(String),
    /// A kind of volume that this kubelet does not know.
    #[error("no volume plugin matched: {0}")]
    Unsupported(String),
    /// A `hostPath` is not what it should be.
    #[error("hostPath type check failed: {0}")]
    HostPath(String),
    /// The disk refused.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// A volume that containers can mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mounted {
    pub path: PathBuf,
    /// Whether every mount of it is read-only.
    pub read_only: bool,
}

/// A pod's volumes by name.
pub type Mounts = HashMap<String, Mounted>;

/// Makes and unmakes volumes.
pub struct Volumes {
    settings: Arc<Settings>,
    sources: Sources,
    clock: SharedClock,
}

impl Volumes {
    /// A manager with no memory but of tokens and certificates: the disk holds the rest.
    pub fn new(settings: Arc<Settings>, api: Arc<dyn Api>, events: Arc<dyn Events>, clock: SharedClock) -> Self {
        let sources = Sources {
            api,
            tokens: Tokens::new(clock.clone()),
            certificates: Certificates::new(clock.clone(), events),
            facts: settings.facts.clone(),
        };
        Self { settings, sources, clock }
    }

    /// Makes every volume that a container mounts, or brings it up to date. The error names the volume.
    pub async fn mount(&self, pod: &Pod) -> Result<Mounts, (String, Error)> {
        let used = used_names(pod);
        let mut out = Mounts::new();
        for volume in pod.pod_spec().volumes.iter().flatten().filter(|v| used.contains(v.name.as_str())) {
            let mounted = self.set_up(pod, volume).await.map_err(|error| (volume.name.clone(), error))?;
            out.insert(volume.name.clone(), mounted);
        }
        Ok(out)
    }

    /// How many projections of certificates of a signer are in which state.
    pub fn certificate_states<'a>(
        &self,
        pods: impl Iterator<Item = &'a Pod>,
    ) -> HashMap<(String, &'static str), usize> {
        self.sources.certificates.report(pods)
    }

    /// Whether the pod has volumes whose contents follow the API.
    pub fn needs_refresh(pod: &Pod) -> bool {
        pod.pod_spec()
            .volumes
            .iter()
            .flatten()
            .any(|v| v.config_map.is_some() || v.secret.is_some() || v.projected.is_some() || v.downward_api.is_some())
    }

    async fn set_up(&self, pod: &Pod, volume: &Volume) -> Result<Mounted, Error> {
        let directory = |plugin| self.settings.volume_dir(pod.uid(), plugin, &volume.name);
        let group = pod.pod_spec().security_context.as_ref().and_then(|c| c.fs_group);
        if let Some(source) = &volume.host_path {
            check_host_path(source)?;
            return Ok(Mounted { path: PathBuf::from(&source.path), read_only: false });
        }
        if let Some(source) = &volume.empty_dir {
            let path = directory(EMPTY_DIR);
            let fresh = empty_dir(&path, source, pod)?;
            if let Some(group) = group {
                let policy = pod.pod_spec().security_context.as_ref().and_then(|c| c.fs_group_change_policy.as_deref());
                if fresh || policy != Some("OnRootMismatch") || !ownership::root_matches(&path, group)? {
                    ownership::give(&path, group, false)?;
                }
            }
            return Ok(Mounted { path, read_only: false });
        }
        let (plugin, payload, memory) = if let Some(source) = &volume.config_map {
            (CONFIG_MAP, self.sources.config_map_volume(pod, source).await?, false)
        } else if let Some(source) = &volume.secret {
            (SECRET, self.sources.secret_volume(pod, source).await?, true)
        } else if let Some(source) = &volume.downward_api {
            (DOWNWARD, self.sources.downward(pod, source.items.as_ref(), source.default_mode)?, true)
        } else if let Some(source) = &volume.projected {
            (PROJECTED, self.sources.projected(pod, &volume.name, source).await?, true)
        } else {
            return Err(Error::Unsupported(kind_of(volume)));
        };
        let path = directory(plugin);
        self.write(&path, &payload, memory, group)?;
        Ok(Mounted { path, read_only: true })
    }

    fn write(&self, path: &Path, payload: &Payload, memory: bool, group: Option<i64>) -> Result<(), Error> {
        std::fs::create_dir_all(path)?;
        if memory && !crate::sys::is_mount_point(path) {
            tmpfs(path, None)?;
        }
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777 | 0o1000))?;
        let stamp = format!("{}.{}", self.clock.now().strftime("%Y_%m_%d_%H_%M_%S"), rand::random::<u32>());
        atomic::write(path, payload, &stamp, |fresh| match group {
            Some(group) => ownership::give(fresh, group, true),
            None => Ok(()),
        })?;
        Ok(())
    }

    /// Removes everything of a pod's volumes, found on disk: needs no spec, and may be repeated.
    pub fn unmount(&self, uid: &str) -> Result<(), Error> {
        self.sources.tokens.forget(uid);
        self.sources.certificates.forget(uid);
        let pod = self.settings.pod_dir(uid);
        subpath::unbind_all(&pod.join("volume-subpaths"))?;
        let table = std::fs::read_to_string("/proc/self/mountinfo")?;
        let volumes = self.settings.volumes_dir(uid);
        let mut points: Vec<PathBuf> =
            crate::sys::mount_points(&table).map(PathBuf::from).filter(|p| p.starts_with(&volumes)).collect();
        points.sort();
        for point in points.into_iter().rev() {
            umount2(&point, MntFlags::MNT_DETACH).map_err(io::Error::from)?;
        }
        match std::fs::remove_dir_all(&volumes) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }
}

/// Names of volumes that some container mounts.
fn used_names(pod: &Pod) -> BTreeSet<&str> {
    let spec = pod.pod_spec();
    let plain = spec.containers.iter().chain(pod.init_containers()).flat_map(|c| c.volume_mounts.iter().flatten());
    let ephemeral = pod.ephemeral_containers().iter().flat_map(|c| c.volume_mounts.iter().flatten());
    plain.chain(ephemeral).map(|m| m.name.as_str()).collect()
}

/// The field of the spec that says what kind of volume it is.
fn kind_of(volume: &Volume) -> String {
    let value = serde_json::to_value(volume).expect("an API type serializes");
    let fields = value.as_object().map(|map| map.keys().filter(|k| *k != "name").cloned().collect::<Vec<_>>());
    fields.unwrap_or_default().join(",")
}

/// Makes the directory; says whether it is new.
fn empty_dir(path: &Path, source: &EmptyDirVolumeSource, pod: &Pod) -> Result<bool, Error> {
    let fresh = !path.exists();
    std::fs::create_dir_all(path)?;
    let medium = source.medium.as_deref().unwrap_or_default();
    if medium == "Memory" && !crate::sys::is_mount_point(path) {
        let limit = source.size_limit.as_ref().map(resources::whole).filter(|size| *size > 0);
        let pod_limit = resources::pod_cgroup(pod, true, None).memory.filter(|size| *size > 0);
        tmpfs(path, limit.into_iter().chain(pod_limit).min())?;
    } else if medium.starts_with("HugePages") {
        return Err(Error::Unsupported(format!("emptyDir on {medium}")));
    }
    if fresh || medium == "Memory" {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777))?;
    }
    Ok(fresh)
}

fn tmpfs(path: &Path, size: Option<i64>) -> Result<(), Error> {
    let options = size.map(|bytes| format!("size={bytes}"));
    mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::empty(), options.as_deref()).map_err(io::Error::from)?;
    Ok(())
}

/// Checks, and for the `OrCreate` types makes, what a `hostPath` names.
fn check_host_path(source: &HostPathVolumeSource) -> Result<(), Error> {
    let path = Path::new(&source.path);
    let kind = source.type_.as_deref().unwrap_or_default();
    let metadata = std::fs::metadata(path);
    match (kind, &metadata) {
        ("", _) => return Ok(()),
        ("DirectoryOrCreate", Err(_)) => {
            std::fs::create_dir_all(path)?;
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))?;
            return Ok(());
        }
        ("FileOrCreate", Err(_)) => {
            std::fs::write(path, "")?;
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644))?;
            return Ok(());
        }
        _ => {}
    }
    let what = match kind {
        "Directory" | "DirectoryOrCreate" => "a directory",
        "File" | "FileOrCreate" => "a file",
        "Socket" => "a socket file",
        "CharDevice" => "a character device",
        "BlockDevice" => "a block device",
        _ => return Err(Error::HostPath(format!("{kind} is an invalid volume type"))),
    };
    let matches = metadata.is_ok_and(|m| {
        let file_type = m.file_type();
        match what {
            "a directory" => file_type.is_dir(),
            "a file" => file_type.is_file(),
            "a socket file" => file_type.is_socket(),
            "a character device" => file_type.is_char_device(),
            _ => file_type.is_block_device(),
        }
    });
    if matches { Ok(()) } else { Err(Error::HostPath(format!("{} is not {what}", source.path))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(path: &Path, kind: &str) -> HostPathVolumeSource {
        HostPathVolumeSource { path: path.to_str().unwrap().into(), type_: Some(kind.into()) }
    }

    #[test]
    fn host_path_types() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        std::fs::write(&file, "").unwrap();
        let missing = directory.path().join("missing/deep");
        let check = |path: &Path, kind| check_host_path(&host(path, kind)).map_err(|e| e.to_string());
        assert_eq!(check(&missing, ""), Ok(()));
        assert_eq!(
            check(&missing, "Directory"),
            Err(format!("hostPath type check failed: {} is not a directory", missing.display()))
        );
        assert_eq!(check(&missing, "DirectoryOrCreate"), Ok(()));
        assert!(missing.is_dir());
        assert_eq!(check(&file, "File"), Ok(()));
        assert!(check(&file, "Socket").unwrap_err().ends_with("is not a socket file"));
        assert_eq!(check(&directory.path().join("new"), "FileOrCreate"), Ok(()));
        assert_eq!(check(Path::new("/dev/null"), "CharDevice"), Ok(()));
    }

    #[test]
    fn only_mounted_volumes_are_made() {
        let pod: Pod = serde_json::from_value(serde_json::json!({"spec": {
            "volumes": [{"name": "a", "emptyDir": {}}, {"name": "b", "emptyDir": {}}],
            "containers": [{"name": "c", "volumeMounts": [{"name": "b", "mountPath": "/b"}]}]}}))
        .unwrap();
        assert_eq!(used_names(&pod).into_iter().collect::<Vec<_>>(), ["b"]);
    }
}
