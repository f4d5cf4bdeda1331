//! Telling when files change: by notification of the kernel, not by looking again and again.
//!
//! What is watched are directories, so that a file that is replaced (renamed over), a symbolic link that is
//! turned (as in mounted Secrets), and a file that does not exist yet are all noticed.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::unix::AsyncFd;

/// Writers often write in several steps; what comes within this time is one change.
const SETTLE: Duration = Duration::from_millis(50);
/// Where the kernel has no watches left.
const LOOK: Duration = Duration::from_secs(60);

struct Fd(Inotify);

impl AsRawFd for Fd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

/// What a file has in it; of a folder, what all its files have, by name.
fn content(path: &Path) -> Option<Vec<u8>> {
    let Ok(entries) = std::fs::read_dir(path) else { return std::fs::read(path).ok() };
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file()).collect();
    files.sort();
    let mut all = Vec::new();
    for file in files {
        all.extend_from_slice(file.as_os_str().as_encoded_bytes());
        all.push(0);
        let bytes = std::fs::read(&file).unwrap_or_default();
        all.extend_from_slice(&bytes.len().to_le_bytes());
        all.extend(bytes);
    }
    Some(all)
}

/// Notices changes of some files, or of the files of some folders.
pub struct Watch {
    paths: Vec<PathBuf>,
    seen: Vec<Option<Vec<u8>>>,
    inotify: Option<AsyncFd<Fd>>,
}

/// The directory, or as much of the way to it as there is: the rest is noticed when it is made.
fn existing(directory: &Path) -> &Path {
    directory.ancestors().find(|directory| directory.is_dir()).unwrap_or(Path::new("/"))
}

/// The directories whose entries decide what a path leads to: its own, and those of every link on the way.
fn directories(path: &Path, into: &mut BTreeSet<PathBuf>) {
    if path.is_dir() {
        into.insert(path.to_path_buf());
    }
    let mut path = path.to_path_buf();
    // As many links as the kernel itself follows.
    for _ in 0..40 {
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
            _ => PathBuf::from("."),
        };
        into.insert(existing(&directory).to_path_buf());
        // A directory that is itself reached by a link (`..data`) is turned in its own parent.
        if let (Ok(real), Some(name)) = (directory.canonicalize(), path.file_name())
            && real != directory
        {
            into.insert(real.clone());
            if let Some(parent) = directory.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                into.insert(parent.to_path_buf());
            }
            path = real.join(name);
        }
        match std::fs::read_link(&path) {
            Ok(target) => path = path.parent().unwrap_or(Path::new(".")).join(target),
            Err(_) => return,
        }
    }
}

impl Watch {
    /// Watches these files, whether they exist or not. Must be called inside a tokio runtime.
    pub fn new(paths: &[impl AsRef<Path>]) -> Self {
        let paths: Vec<PathBuf> = paths.iter().map(|path| path.as_ref().to_path_buf()).collect();
        let inotify = Self::register(&paths);
        // Read after the watch stands, so that nothing falls between.
        let seen = paths.iter().map(|path| content(path)).collect();
        Self { paths, seen, inotify }
    }

    fn register(paths: &[PathBuf]) -> Option<AsyncFd<Fd>> {
        let watched = || -> std::io::Result<AsyncFd<Fd>> {
            let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
            let flags = AddWatchFlags::IN_CREATE
                | AddWatchFlags::IN_MOVED_TO
                | AddWatchFlags::IN_CLOSE_WRITE
                | AddWatchFlags::IN_DELETE
                | AddWatchFlags::IN_MOVED_FROM;
            let mut directories = BTreeSet::new();
            paths.iter().for_each(|path| self::directories(path, &mut directories));
            for directory in directories {
                match inotify.add_watch(&directory, flags) {
                    Ok(_) | Err(Errno::ENOENT | Errno::ENOTDIR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            // SAFETY: `Fd` owns the descriptor and hands out the same one until it is dropped, which happens
            // only after the `AsyncFd` that holds it has deregistered it.
            #[allow(unsafe_code)]
            let registered = unsafe { AsyncFd::register(Fd(inotify)) };
            Ok(registered?)
        };
        watched().inspect_err(|error| tracing::warn!(%error, "files are looked at once a minute, not watched")).ok()
    }

    async fn event(&self) {
        let Some(inotify) = &self.inotify else { return tokio::time::sleep(LOOK).await };
        loop {
            let Ok(mut guard) = inotify.readable().await else {
                // The descriptor is gone with the runtime: nothing will change any more.
                return std::future::pending().await;
            };
            match guard.get_inner().0.read_events() {
                Ok(_) => return,
                Err(Errno::EAGAIN) => guard.clear_ready(),
                Err(_) => return std::future::pending().await,
            }
        }
    }

    /// Completes when the content of a file is another than it was.
    pub async fn changed(&mut self) {
        loop {
            self.event().await;
            tokio::time::sleep(SETTLE).await;
            // Links may lead elsewhere now. What happens in between is seen by the comparison.
            self.inotify = Self::register(&self.paths);
            let now: Vec<_> = self.paths.iter().map(|path| content(path)).collect();
            if now != self.seen {
                self.seen = now;
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn soon(watch: &mut Watch) {
        tokio::time::timeout(Duration::from_secs(10), watch.changed()).await.expect("a change is noticed");
    }

    #[tokio::test]
    async fn writing_replacing_and_turning_links_are_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let (file, other) = (dir.path().join("a"), dir.path().join("b"));
        let mut watch = Watch::new(&[&file]);
        std::fs::write(&file, "1").unwrap();
        soon(&mut watch).await;
        std::fs::write(&file, "2").unwrap();
        soon(&mut watch).await;
        std::fs::write(&other, "3").unwrap();
        std::fs::rename(&other, &file).unwrap();
        soon(&mut watch).await;
        // The same content again is no change.
        std::fs::write(&file, "3").unwrap();
        assert!(tokio::time::timeout(Duration::from_millis(300), watch.changed()).await.is_err());
    }

    #[tokio::test]
    async fn files_of_a_folder_come_and_go() {
        let dir = tempfile::tempdir().unwrap();
        let mut watch = Watch::new(&[dir.path()]);
        std::fs::write(dir.path().join("a"), "1").unwrap();
        soon(&mut watch).await;
        std::fs::rename(dir.path().join("a"), dir.path().join("b")).unwrap();
        soon(&mut watch).await;
        std::fs::remove_file(dir.path().join("b")).unwrap();
        soon(&mut watch).await;
    }

    #[tokio::test]
    async fn folders_may_come_later() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a/b/c");
        let mut watch = Watch::new(&[&file]);
        std::fs::create_dir_all(dir.path().join("a/b")).unwrap();
        tokio::time::timeout(Duration::from_millis(300), watch.changed()).await.expect_err("nothing is there yet");
        std::fs::write(&file, "1").unwrap();
        soon(&mut watch).await;
    }

    #[tokio::test]
    async fn a_mounted_secret_is_a_turned_link() {
        use std::os::unix::fs::symlink;
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        for (version, content) in [("v1", "1"), ("v2", "2"), ("v3", "3")] {
            std::fs::create_dir(root.join(version)).unwrap();
            std::fs::write(root.join(version).join("key"), content).unwrap();
        }
        symlink("v1", root.join("..data")).unwrap();
        symlink("..data/key", root.join("key")).unwrap();
        let mut watch = Watch::new(&[root.join("key")]);
        for version in ["v2", "v3"] {
            symlink(version, root.join("..tmp")).unwrap();
            std::fs::rename(root.join("..tmp"), root.join("..data")).unwrap();
            soon(&mut watch).await;
        }
        assert_eq!(std::fs::read_to_string(root.join("key")).unwrap(), "3");
    }
}
