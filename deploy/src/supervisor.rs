//! `keelson supervise`: starts the processes of a local cluster and starts again what has ended.
//!
//! It holds no state of its own. What should run stands in the plan; what does run is known by its
//! pid file (process id, start time and boot, so that a reused id is not mistaken). Killing the supervisor
//! therefore disturbs nothing, and the next one takes over what it finds.

use std::collections::HashSet;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use crate::state::{State, private_dir};
use crate::{cgroup, sys};

/// First wait before a process is started again; it doubles with every failure in a row.
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const LONGEST_BACKOFF: Duration = Duration::from_secs(10);
/// A process that has run for this long was well: its next failure counts as the first.
const WELL_AFTER: Duration = Duration::from_secs(10);

/// A process that should run.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Process {
    /// Unique; names the pid file and the log.
    pub name: String,
    /// Program and arguments.
    pub argv: Vec<String>,
}

/// Why the supervisor cannot work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot use {}", path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error("two processes are called {0:?}")]
    Duplicate(String),
    #[error("another supervisor works in {}", .0.display())]
    Running(PathBuf),
}

/// Keeps `processes` running until `shutdown`; it then leaves them running.
pub async fn run(state: &State, processes: Vec<Process>, shutdown: CancellationToken) -> Result<(), Error> {
    let mut names = HashSet::new();
    if let Some(twice) = processes.iter().find(|process| !names.insert(process.name.as_str())) {
        return Err(Error::Duplicate(twice.name.clone()));
    }
    for dir in [state.pids(), state.logs()] {
        private_dir(&dir).map_err(|source| Error::File { path: dir, source })?;
    }
    let _lock = lock(state)?;
    if let Err(error) = cgroup::join() {
        tracing::warn!(%error, "cannot enter the cluster's control group: `down` finds processes by it");
    }
    let watches = processes.into_iter().map(|process| {
        let (pid_file, log) = (pid_file(state, &process.name), state.logs().join(format!("{}.log", process.name)));
        let shutdown = shutdown.clone();
        tokio::spawn(async move { keep(process, &pid_file, &log, shutdown).await })
    });
    futures::future::join_all(watches).await;
    Ok(())
}

/// Whether a supervisor works for this cluster.
pub fn is_running(state: &State) -> bool {
    matches!(lock(state), Err(Error::Running(_)))
}

fn lock(state: &State) -> Result<nix::fcntl::Flock<std::fs::File>, Error> {
    let path = state.run.join("supervisor.lock");
    let file = private_dir(&state.run)
        .and_then(|()| OpenOptions::new().create(true).truncate(false).write(true).open(&path))
        .map_err(|source| Error::File { path: path.clone(), source })?;
    nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusiveNonblock).map_err(|_| Error::Running(path))
}

fn pid_file(state: &State, name: &str) -> PathBuf {
    state.pids().join(name)
}

async fn keep(process: Process, pid_file: &Path, log: &Path, shutdown: CancellationToken) {
    let mut backoff = FIRST_BACKOFF;
    if let Some(pid) = read_pid(pid_file) {
        tracing::info!(process = process.name, pid, "took over");
        tokio::select! {
            () = ended(pid) => {}
            () = shutdown.cancelled() => return,
        }
    }
    loop {
        let started = Instant::now();
        match start(&process, pid_file, log) {
            Ok(mut child) => {
                let pid = child.id();
                tracing::info!(process = process.name, pid, "started");
                tokio::select! {
                    status = child.wait() => match status {
                        Ok(status) => tracing::warn!(process = process.name, pid, %status, "ended"),
                        Err(error) => tracing::error!(process = process.name, pid, %error, "cannot wait"),
                    },
                    () = shutdown.cancelled() => return,
                }
            }
            Err(error) => tracing::error!(process = process.name, %error, "cannot start"),
        }
        if started.elapsed() > WELL_AFTER {
            backoff = FIRST_BACKOFF;
        }
        tokio::select! {
            () = tokio::time::sleep(backoff) => {}
            () = shutdown.cancelled() => return,
        }
        backoff = (backoff * 2).min(LONGEST_BACKOFF);
    }
}

fn start(process: &Process, pid_file: &Path, log: &Path) -> std::io::Result<tokio::process::Child> {
    let log = OpenOptions::new().create(true).append(true).open(log)?;
    let (program, args) = process.argv.split_first().ok_or(std::io::ErrorKind::InvalidInput)?;
    let child = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        // A group of its own: a Ctrl-C meant for somebody else does not reach it.
        .process_group(0)
        .spawn()?;
    if let Some(pid) = child.id() {
        let birth = start_time(pid).ok_or(std::io::ErrorKind::NotFound)?;
        std::fs::write(pid_file, format!("{pid} {birth} {}\n", boot()))?;
    }
    Ok(child)
}

/// The process of a pid file, if it still runs.
pub fn read_pid(pid_file: &Path) -> Option<u32> {
    let text = std::fs::read_to_string(pid_file).ok()?;
    let [pid, birth, booted] = text.split_whitespace().collect::<Vec<_>>().try_into().ok()?;
    let pid = pid.parse().ok()?;
    (booted == boot() && start_time(pid)? == birth.parse::<u64>().ok()?).then_some(pid)
}

/// Names this run of the kernel (random(4)): pid files outlive it where `/run` is on disk.
fn boot() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    // A kernel that does not say is one run like another.
    if id.is_empty() { "unknown".to_owned() } else { id.trim().to_owned() }
}

/// When a process started, in clock ticks since boot: with the id, its identity (proc(5), field 22).
fn start_time(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    parse_start_time(&stat)
}

fn parse_start_time(stat: &str) -> Option<u64> {
    // The second field is the program's name in brackets and may itself hold brackets and spaces.
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    if fields.next()? == "Z" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// Waits for the end of a process that is not our child.
async fn ended(pid: u32) {
    // No such process any more: it has ended.
    let Ok(fd) = sys::pidfd_open(pid) else { return };
    if let Err(error) = fd.readable().await {
        tracing::error!(pid, %error, "cannot watch a process");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_times_are_read_behind_any_name() {
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 777 1 1";
        assert_eq!(parse_start_time(stat), Some(777));
        assert_eq!(parse_start_time(&stat.replace(" S ", " Z ")), None);
        assert_eq!(parse_start_time("junk"), None);
    }

    #[test]
    fn a_pid_file_of_another_boot_names_nobody() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let (file, us) = (dir.path().join("us"), std::process::id());
        let birth = start_time(us).expect("we run");
        for (text, found) in [
            (format!("{us} {birth} {}\n", boot()), Some(us)),
            (format!("{us} {} {}\n", birth + 1, boot()), None),
            (format!("{us} {birth} 5f0c1f9e-0000-4000-8000-000000000000\n"), None),
            (format!("{us} {birth}\n"), None),
            ("junk".to_owned(), None),
        ] {
            std::fs::write(&file, &text).expect("written");
            assert_eq!(read_pid(&file), found, "{text}");
        }
    }

    fn state(dir: &Path) -> State {
        State { root: dir.join("root"), run: dir.join("run") }
    }

    fn sleeper() -> Process {
        Process { name: "sleeper".into(), argv: ["sleep", "1000"].map(String::from).to_vec() }
    }

    async fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
        loop {
            if let Some(found) = look() {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn end(pid: u32) {
        let pid = nix::unistd::Pid::from_raw(pid.try_into().expect("process ids are small"));
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("it runs");
    }

    #[tokio::test]
    async fn what_ends_is_started_again_and_what_runs_is_taken_over() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let state = state(dir.path());
        let file = pid_file(&state, "sleeper");

        let stop = CancellationToken::new();
        let first = tokio::spawn({
            let (state, stop) = (state.clone(), stop.clone());
            async move { keep_all(&state, vec![sleeper()], stop).await }
        });
        let one = until(|| read_pid(&file)).await;
        end(one);
        let two = until(|| read_pid(&file).filter(|pid| *pid != one)).await;

        // The supervisor goes, the process stays; the next one takes it over and restarts it too.
        stop.cancel();
        first.await.expect("no panic");
        assert_eq!(read_pid(&file), Some(two));
        let stop = CancellationToken::new();
        let second = tokio::spawn({
            let (state, stop) = (state.clone(), stop.clone());
            async move { keep_all(&state, vec![sleeper()], stop).await }
        });
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(read_pid(&file), Some(two));
        end(two);
        let three = until(|| read_pid(&file).filter(|pid| *pid != two)).await;
        stop.cancel();
        second.await.expect("no panic");
        end(three);
    }

    /// [`run`] without the control group, which belongs to the whole machine.
    async fn keep_all(state: &State, processes: Vec<Process>, stop: CancellationToken) {
        for dir in [state.pids(), state.logs()] {
            std::fs::create_dir_all(dir).expect("a folder");
        }
        for process in processes {
            let (pid_file, log) = (pid_file(state, &process.name), state.logs().join("log"));
            keep(process, &pid_file, &log, stop.clone()).await;
        }
    }

    #[tokio::test]
    async fn two_of_a_name_are_refused() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let twice = vec![sleeper(), sleeper()];
        let error = run(&state(dir.path()), twice, CancellationToken::new()).await.expect_err("a duplicate");
        assert!(matches!(error, Error::Duplicate(name) if name == "sleeper"));
    }
}
