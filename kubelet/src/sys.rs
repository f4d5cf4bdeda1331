//! The few kernel facilities that have no better home: file watching and mount facts.

use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::Path;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::unix::AsyncFd;

/// Tells when something in a directory changed.
pub struct Watcher {
    inotify: AsyncFd<Fd>,
}

struct Fd(Inotify);

impl AsRawFd for Fd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Watcher {
    /// Watches the entries of `directory`, contents included.
    pub fn new(directory: &Path) -> std::io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        let flags = AddWatchFlags::IN_MODIFY
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_MOVED_FROM
            | AddWatchFlags::IN_CLOSE_WRITE;
        inotify.add_watch(directory, flags)?;
        // SAFETY: `Fd` owns the descriptor and hands out the same one until it is dropped, which happens
        // only after the `AsyncFd` that holds it has deregistered it.
        #[allow(unsafe_code)]
        let inotify = unsafe { AsyncFd::register(Fd(inotify)) }?;
        Ok(Self { inotify })
    }

    /// Completes after the next change; several changes may be one completion.
    pub async fn changed(&self) {
        loop {
            let Ok(mut guard) = self.inotify.readable().await else {
                // The descriptor is gone with the runtime: nothing will change any more.
                return std::future::pending().await;
            };
            match guard.get_inner().0.read_events() {
                Ok(_) => return,
                Err(nix::errno::Errno::EAGAIN) => guard.clear_ready(),
                Err(_) => return std::future::pending().await,
            }
        }
    }
}

/// Whether something is mounted exactly at `path`.
pub fn is_mount_point(path: &Path) -> bool {
    let Ok(table) = std::fs::read_to_string("/proc/self/mountinfo") else { return false };
    mount_points(&table).any(|point| Path::new(&point) == path)
}

/// The mount points in a `mountinfo` table, with its octal escapes undone.
pub fn mount_points(table: &str) -> impl Iterator<Item = String> + '_ {
    table.lines().filter_map(|line| line.split(' ').nth(4)).map(unescape)
}

fn unescape(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let bytes = text.as_bytes();
    let mut index = 0;
    while index < bytes.len() {
        let octal = bytes.get(index + 1..index + 4).and_then(|d| {
            let digits = std::str::from_utf8(d).ok()?;
            u8::from_str_radix(digits, 8).ok()
        });
        match (bytes[index], octal) {
            (b'\\', Some(byte)) => {
                out.push(byte);
                index += 4;
            }
            (byte, _) => {
                out.push(byte);
                index += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_tables_are_unescaped() {
        let table = "1 2 0:1 / /a\\040b rw - tmpfs tmpfs rw\n3 2 0:1 / /c rw - tmpfs tmpfs rw\n";
        assert_eq!(mount_points(table).collect::<Vec<_>>(), ["/a b", "/c"]);
    }

    #[tokio::test]
    async fn watcher_sees_a_new_file() {
        let directory = tempfile::tempdir().unwrap();
        let watcher = Watcher::new(directory.path()).unwrap();
        std::fs::write(directory.path().join("x"), "y").unwrap();
        watcher.changed().await;
    }
}
