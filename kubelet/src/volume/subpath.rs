//! `subPath` mounts that cannot be led out of their volume.
//!
//! A container may swap a directory for a symbolic link while the kubelet looks, so the path is walked
//! by file descriptors that never follow links, and what was reached is bound to a place of the
//! kubelet's own before the runtime sees it.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::fcntl::{OFlag, open, openat};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, mkdirat};

/// Binds `volume/sub_path` to `binding` and returns `binding`; makes missing directories, with
/// `mode`, first.
pub fn bind(volume: &Path, sub_path: &str, binding: &Path, mode: u32) -> io::Result<PathBuf> {
    let relative = check(sub_path)?;
    if crate::sys::is_mount_point(binding) {
        // From an earlier start of the same container: the source may have been replaced since.
        umount2(binding, MntFlags::MNT_DETACH)?;
    }
    let reached = walk(volume, relative, mode)?;
    let source = PathBuf::from(format!("/proc/self/fd/{}", reached.as_raw_fd()));
    if let Some(parent) = binding.parent() {
        std::fs::create_dir_all(parent)?;
    }
    if std::fs::metadata(&source)?.is_dir() {
        if !binding.exists() {
            std::fs::create_dir(binding)?;
        }
    } else if !binding.exists() {
        std::fs::write(binding, "")?;
    }
    mount(Some(&source), binding, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)?;
    Ok(binding.to_owned())
}

/// Undoes every binding below `directory`, deepest last made first.
pub fn unbind_all(directory: &Path) -> io::Result<()> {
    let table = std::fs::read_to_string("/proc/self/mountinfo")?;
    let mut points: Vec<PathBuf> =
        crate::sys::mount_points(&table).map(PathBuf::from).filter(|p| p.starts_with(directory)).collect();
    points.sort();
    for point in points.into_iter().rev() {
        umount2(&point, MntFlags::MNT_DETACH)?;
    }
    match std::fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn check(sub_path: &str) -> io::Result<&Path> {
    let path = Path::new(sub_path);
    if path.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir)) {
        return Ok(path);
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, format!("subPath {sub_path:?} must be relative and without `..`")))
}

/// Opens `volume/relative` one component at a time. Links inside the volume are followed only where
/// they were resolved beforehand to a place that is inside it as well.
fn walk(volume: &Path, relative: &Path, mode: u32) -> io::Result<OwnedFd> {
    let root = volume.canonicalize()?;
    let resolved = match root.join(relative).canonicalize() {
        Ok(path) => path,
        Err(error) if error.kind() == io::ErrorKind::NotFound => root.join(relative),
        Err(error) => return Err(error),
    };
    let inside = resolved
        .strip_prefix(&root)
        .map_err(|_| io::Error::new(io::ErrorKind::PermissionDenied, "subpath leads outside of its volume"))?;
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut at = open(&root, flags | OFlag::O_DIRECTORY, Mode::empty())?;
    for component in inside.components() {
        let Component::Normal(name) = component else { continue };
        let next = match openat(&at, name, flags, Mode::empty()) {
            Err(nix::errno::Errno::ENOENT) => {
                mkdirat(&at, name, Mode::from_bits_truncate(mode))?;
                openat(&at, name, flags, Mode::empty())?
            }
            other => other?,
        };
        let link = std::fs::read_link(format!("/proc/self/fd/{}", next.as_raw_fd()))?;
        if !link.starts_with(&root) {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "subpath leads outside of its volume"));
        }
        at = next;
    }
    Ok(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_directories_are_made_and_escapes_refused() {
        let directory = tempfile::tempdir().unwrap();
        let volume = directory.path().join("volume");
        std::fs::create_dir(&volume).unwrap();
        walk(&volume, Path::new("a/b"), 0o755).unwrap();
        assert!(volume.join("a/b").is_dir());
        std::os::unix::fs::symlink("/etc", volume.join("out")).unwrap();
        let error = walk(&volume, Path::new("out/passwd"), 0o755).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        std::os::unix::fs::symlink("a", volume.join("in")).unwrap();
        walk(&volume, Path::new("in/b"), 0o755).unwrap();
        for bad in ["/etc", "a/../..", ".."] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
