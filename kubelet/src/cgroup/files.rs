//! The cgroup file system: one tree per controller (version 1) or one for all (version 2).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::Error;
use crate::resources::{CgroupConfig, QUOTA_PERIOD};

/// Where cgroups are.
pub struct Hierarchies {
    /// Mount point and controllers; version 1 has several.
    roots: Vec<(PathBuf, Vec<String>)>,
    unified: bool,
}

impl Hierarchies {
    /// What is mounted below `/sys/fs/cgroup`. A version 2 tree beside version 1 ones has no controllers
    /// and is left alone.
    pub fn detect() -> Self {
        if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
            return Self::v2(Path::new("/sys/fs/cgroup"));
        }
        let table = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let roots = table
            .lines()
            .filter_map(|line| {
                let mut fields = line.split(' ');
                let (_, point, kind, options) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
                let controllers = options.split(',').map(str::to_owned).collect();
                (kind == "cgroup" && point.starts_with("/sys/fs/cgroup")).then(|| (PathBuf::from(point), controllers))
            })
            .collect();
        Self { roots, unified: false }
    }

    /// One tree for all controllers.
    pub fn v2(root: &Path) -> Self {
        Self { roots: vec![(root.to_owned(), Vec::new())], unified: true }
    }

    /// One tree per controller, each below `root` under its name.
    #[cfg(test)]
    pub fn v1(root: &Path, controllers: &[&str]) -> Self {
        let roots = controllers.iter().map(|c| (root.join(c), vec![(*c).to_owned()])).collect();
        Self { roots, unified: false }
    }

    /// Makes a cgroup in every tree and writes its settings.
    pub fn ensure(&self, name: &str, config: &CgroupConfig) -> Result<(), Error> {
        for (root, controllers) in &self.roots {
            let path = root.join(name.trim_start_matches('/'));
            let failed = |action, path: &Path| {
                let path = path.to_owned();
                move |source| Error { action, path, source }
            };
            if !path.is_dir() {
                if self.unified {
                    self.delegate(root, name);
                }
                fs::create_dir_all(&path).map_err(failed("create cgroup", &path))?;
                if controllers.iter().any(|c| c == "cpuset") {
                    // An empty cpuset takes no process: version 1 does not inherit.
                    inherit_cpuset(root, &path);
                }
            }
            let files = if self.unified { unified_files(config) } else { legacy_files(controllers, config) };
            for (file, value) in files {
                let file = path.join(file);
                fs::write(&file, value).map_err(failed("write", &file))?;
            }
        }
        Ok(())
    }

    /// Whether a cgroup is there in every tree.
    pub fn exists(&self, name: &str) -> bool {
        self.roots.iter().all(|(root, _)| root.join(name.trim_start_matches('/')).is_dir())
    }

    /// What a cgroup is set to; what has no limit is left out, apart from the CPU quota, which is -1 then.
    pub fn read(&self, name: &str) -> Result<CgroupConfig, Error> {
        let mut config = CgroupConfig::default();
        for (root, controllers) in &self.roots {
            let path = root.join(name.trim_start_matches('/'));
            let text = |file: &str| {
                let path = path.join(file);
                fs::read_to_string(&path).map_err(|source| Error { action: "read", path, source })
            };
            let has = |name: &str| self.unified || controllers.iter().any(|c| c == name);
            if self.unified {
                let weight: u64 = text("cpu.weight")?.trim().parse().unwrap_or(0);
                config.cpu_shares = (weight > 0).then(|| 2 + (weight - 1) * 262_142 / 9999);
                config.cpu_quota = Some(quota_of(&text("cpu.max").unwrap_or_default()));
                config.memory = text("memory.max").unwrap_or_default().trim().parse().ok();
                continue;
            }
            if has("cpu") {
                config.cpu_shares = text("cpu.shares")?.trim().parse().ok();
                config.cpu_quota = Some(text("cpu.cfs_quota_us").unwrap_or_default().trim().parse().unwrap_or(-1));
            }
            if has("memory") {
                let limit: Option<i64> = text("memory.limit_in_bytes").unwrap_or_default().trim().parse().ok();
                // Without a limit the kernel shows the largest number of whole pages.
                config.memory = limit.filter(|bytes| *bytes < i64::MAX - 0xffff);
            }
        }
        Ok(config)
    }

    /// Bytes charged to a cgroup.
    pub fn memory_usage(&self, name: &str) -> Option<i64> {
        let file = if self.unified { "memory.current" } else { "memory.usage_in_bytes" };
        let (root, _) = self.roots.iter().find(|(_, c)| self.unified || c.iter().any(|c| c == "memory"))?;
        let path = root.join(name.trim_start_matches('/')).join(file);
        fs::read_to_string(path).ok()?.trim().parse().ok()
    }

    /// Version 2 hands controllers down one level at a time.
    fn delegate(&self, root: &Path, name: &str) {
        let available = fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
        let wanted: Vec<String> = available
            .split_whitespace()
            .filter(|c| ["cpu", "cpuset", "memory", "pids", "io", "hugetlb"].contains(c))
            .map(|c| format!("+{c}"))
            .collect();
        if wanted.is_empty() {
            return;
        }
        let mut path = root.to_owned();
        let parts: Vec<&str> = name.trim_matches('/').split('/').collect();
        for part in parts {
            let _ = fs::create_dir(&path);
            let _ = fs::write(path.join("cgroup.subtree_control"), wanted.join(" "));
            path.push(part);
        }
    }

    /// Kills what is left in a cgroup and removes it with everything below.
    pub fn remove(&self, name: &str) -> Result<(), Error> {
        for (root, _) in &self.roots {
            let path = root.join(name.trim_start_matches('/'));
            if path.is_dir() {
                remove_tree(&path).map_err(|source| Error { action: "remove cgroup", path, source })?;
            }
        }
        Ok(())
    }
}

/// The quota in `cpu.max`: `200000 100000`, `max 100000`.
fn quota_of(text: &str) -> i64 {
    text.split_whitespace().next().and_then(|quota| quota.parse().ok()).unwrap_or(-1)
}

fn remove_tree(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    for pid in fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default().lines() {
        if let Ok(pid) = pid.parse() {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
    }
    match fs::remove_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn inherit_cpuset(root: &Path, path: &Path) {
    let Ok(relative) = path.strip_prefix(root) else { return };
    let mut at = root.to_owned();
    for part in relative.components() {
        let parent = at.clone();
        at.push(part);
        for file in ["cpuset.cpus", "cpuset.mems"] {
            let own = fs::read_to_string(at.join(file)).unwrap_or_default();
            if own.trim().is_empty()
                && let Ok(value) = fs::read_to_string(parent.join(file))
            {
                let _ = fs::write(at.join(file), value.trim());
            }
        }
    }
}

fn legacy_files(controllers: &[String], config: &CgroupConfig) -> Vec<(&'static str, String)> {
    let has = |name: &str| controllers.iter().any(|c| c == name);
    let mut out = Vec::new();
    if has("cpu") {
        if let Some(shares) = config.cpu_shares {
            out.push(("cpu.shares", shares.to_string()));
        }
        if let Some(quota) = config.cpu_quota {
            out.push(("cpu.cfs_period_us", QUOTA_PERIOD.to_string()));
            out.push(("cpu.cfs_quota_us", if quota == 0 { -1 } else { quota }.to_string()));
        }
    }
    if has("memory")
        && let Some(bytes) = config.memory.filter(|b| *b > 0)
    {
        out.push(("memory.limit_in_bytes", bytes.to_string()));
    }
    if has("pids")
        && let Some(pids) = config.pids.filter(|p| *p > 0)
    {
        out.push(("pids.max", pids.to_string()));
    }
    out
}

fn unified_files(config: &CgroupConfig) -> Vec<(&'static str, String)> {
    let mut out = Vec::new();
    if let Some(shares) = config.cpu_shares {
        // Shares of 2 to 262144 onto weights of 1 to 10000, as the runtimes convert them.
        let weight = 1 + (shares.saturating_sub(2) * 9999) / 262_142;
        out.push(("cpu.weight", weight.to_string()));
    }
    if let Some(quota) = config.cpu_quota {
        let quota = if quota <= 0 { "max".to_owned() } else { quota.to_string() };
        out.push(("cpu.max", format!("{quota} {QUOTA_PERIOD}")));
    }
    if let Some(bytes) = config.memory.filter(|b| *b > 0) {
        out.push(("memory.max", bytes.to_string()));
    }
    if let Some(pids) = config.pids.filter(|p| *p > 0) {
        out.push(("pids.max", pids.to_string()));
    }
    out
}
