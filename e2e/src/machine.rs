//! Reaching behind the API of a cluster that `keelson up` made on this machine.

use std::path::Path;

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cluster::eventually;

/// Where the supervisor notes its processes: a file each, named after the process.
const PIDS: &str = "/run/keelson/pids";

/// The processes that the supervisor keeps, by name.
pub fn processes() -> anyhow::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(PIDS)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// Kills a process of the cluster with SIGKILL and waits until the supervisor has started it again.
pub async fn kill_and_return(name: &str) -> anyhow::Result<()> {
    let before = pid(name)?;
    kill(before, Signal::SIGKILL).with_context(|| format!("kill {name}"))?;
    eventually(&format!("new {name}"), async || {
        let now = pid(name)?;
        if now == before || !Path::new(&format!("/proc/{now}")).exists() {
            bail!("still {now}");
        }
        Ok(())
    })
    .await
}

fn pid(name: &str) -> anyhow::Result<Pid> {
    let text = std::fs::read_to_string(Path::new(PIDS).join(name)).with_context(|| format!("no process {name}"))?;
    let id = text.split_whitespace().next().unwrap_or_default();
    Ok(Pid::from_raw(id.parse()?))
}
