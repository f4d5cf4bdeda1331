//! Processes that are measured: started with a log of their own, their memory and processor time read.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use tokio::process::{Child, Command};

/// Memory of one process or of several together.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    /// Pages in memory, shared ones counted in full.
    pub resident_mib: f64,
    /// Pages in memory, shared ones counted by share.
    pub proportional_mib: f64,
}

impl std::ops::Add for Memory {
    type Output = Memory;

    fn add(self, other: Memory) -> Memory {
        Memory {
            resident_mib: self.resident_mib + other.resident_mib,
            proportional_mib: self.proportional_mib + other.proportional_mib,
        }
    }
}

/// Starts a program that ends with the benchmark at the latest.
pub fn spawn(program: &Path, args: &[String], log: &Path) -> anyhow::Result<Child> {
    let log = std::fs::File::create(log)?;
    Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot start {}", program.display()))
}

/// Lets this process, and those it starts, have as many open files as the system allows: a thousand watchers are as
/// many connections. Where that fails, the watch part says so.
pub fn raise_open_files() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    {
        eprintln!("no more than {soft} open files: {error}");
    }
}

/// A process's memory now; nothing for one that is gone.
pub fn memory(pid: u32) -> Memory {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let mib = |name: &str| {
        let line = rollup.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok());
        kib.unwrap_or_default() / 1024.0
    };
    Memory { resident_mib: mib("Rss:"), proportional_mib: mib("Pss:") }
}

/// Processor time a process has used so far, its system calls included.
pub fn cpu(pid: u32) -> Duration {
    // The kernel's USER_HZ, which is 100 on every architecture that Debian supports.
    const TICK: Duration = Duration::from_millis(10);
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The second field, the name, may hold blanks; it ends with the last bracket.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<u32>().ok()).unwrap_or_default();
    TICK * (ticks(11) + ticks(12))
}
