//! What the machine is: processors, memory, disks, identity. Read once or as often as asked.

use std::path::Path;

/// Facts that do not change while the process lives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    pub cpus: i64,
    /// Bytes.
    pub memory: i64,
    pub machine_id: String,
    pub system_uuid: String,
    pub boot_id: String,
    pub kernel_version: String,
    pub os_image: String,
    /// As Go names it: `amd64`, `arm64`.
    pub architecture: String,
    /// Bytes set aside for huge pages, by size: `2Mi`.
    pub huge_pages: Vec<(String, i64)>,
}

impl Machine {
    /// Reads `/proc`, `/sys` and `/etc`.
    pub fn read() -> Self {
        let line = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        let machine_id = first_nonempty([line("/etc/machine-id"), line("/var/lib/dbus/machine-id")]);
        let boot_id = line("/proc/sys/kernel/random/boot_id");
        Self {
            cpus: i64::try_from(std::thread::available_parallelism().map_or(1, usize::from)).unwrap_or(1),
            memory: meminfo("MemTotal"),
            system_uuid: first_nonempty([line("/sys/class/dmi/id/product_uuid"), machine_id.clone(), boot_id.clone()]),
            machine_id,
            boot_id,
            kernel_version: line("/proc/sys/kernel/osrelease"),
            os_image: os_image(&std::fs::read_to_string("/etc/os-release").unwrap_or_default()),
            architecture: match std::env::consts::ARCH {
                "x86_64" => "amd64",
                "aarch64" => "arm64",
                other => other,
            }
            .to_owned(),
            huge_pages: huge_pages(Path::new("/sys/kernel/mm/hugepages")),
        }
    }
}

fn first_nonempty<const N: usize>(values: [String; N]) -> String {
    values.into_iter().find(|v| !v.is_empty()).unwrap_or_default()
}

/// The name in `os-release`.
fn os_image(text: &str) -> String {
    let value = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    value.unwrap_or("Linux").trim_matches('"').to_owned()
}

/// A field of `/proc/meminfo` in bytes; zero when absent.
fn meminfo(field: &str) -> i64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let kib = line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<i64>().ok());
    kib.unwrap_or(0) * 1024
}

fn huge_pages(directory: &Path) -> Vec<(String, i64)> {
    let mut out = Vec::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let size = name.to_str().and_then(|n| n.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse::<i64>().ok());
        let count = std::fs::read_to_string(entry.path().join("nr_hugepages")).unwrap_or_default();
        if let (Some(kib), Ok(count)) = (size, count.trim().parse::<i64>()) {
            let text = if kib >= 1 << 20 { format!("{}Gi", kib >> 20) } else { format!("{}Mi", kib >> 10) };
            out.push((text, kib * 1024 * count));
        }
    }
    out.sort();
    out
}

/// How full things are now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub memory_available: i64,
    pub disk_capacity: i64,
    pub disk_available: i64,
    pub inodes: i64,
    pub inodes_free: i64,
    pub max_pids: i64,
    pub pids: i64,
}

impl Usage {
    /// Reads the present values; `disk` is a path on the node's file system.
    pub fn read(disk: &Path) -> Self {
        let number = |path: &str| {
            let text = std::fs::read_to_string(path).unwrap_or_default();
            text.trim().parse::<i64>().unwrap_or(0)
        };
        let mut out = Self {
            memory_available: meminfo("MemAvailable"),
            max_pids: number("/proc/sys/kernel/pid_max"),
            pids: running_tasks(&std::fs::read_to_string("/proc/loadavg").unwrap_or_default()),
            ..Self::default()
        };
        if let Ok(stat) = nix::sys::statvfs::statvfs(disk) {
            let size = |blocks: u64| i64::try_from(blocks.saturating_mul(stat.fragment_size())).unwrap_or(i64::MAX);
            out.disk_capacity = size(stat.blocks());
            out.disk_available = size(stat.blocks_available());
            out.inodes = i64::try_from(stat.files()).unwrap_or(i64::MAX);
            out.inodes_free = i64::try_from(stat.files_available()).unwrap_or(i64::MAX);
        }
        out
    }
}

/// The number of tasks in `loadavg`: `0.1 0.2 0.3 1/234 5678`.
fn running_tasks(text: &str) -> i64 {
    text.split(' ').nth(3).and_then(|f| f.split_once('/')).and_then(|(_, n)| n.parse().ok()).unwrap_or(0)
}

/// The address to reach this node at: of the interface that has the default route, else the first that
/// is not the loopback's.
pub fn default_ip() -> Option<std::net::IpAddr> {
    // No packet is sent: connecting a datagram socket only asks the kernel for a route.
    let routed = std::net::UdpSocket::bind("0.0.0.0:0").ok().and_then(|socket| {
        socket.connect("192.0.2.1:9").ok()?;
        Some(socket.local_addr().ok()?.ip()).filter(|ip| !ip.is_unspecified() && !ip.is_loopback())
    });
    routed.or_else(|| {
        nix::ifaddrs::getifaddrs().ok()?.find_map(|interface| {
            let address = interface.address?;
            let ip = std::net::IpAddr::V4(address.as_sockaddr_in()?.ip());
            (!ip.is_loopback()).then_some(ip)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parsing() {
        assert_eq!(
            os_image("NAME=x\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n"),
            "Debian GNU/Linux 12 (bookworm)"
        );
        assert_eq!(running_tasks("0.10 0.20 0.30 1/234 5678\n"), 234);
    }

    #[test]
    fn this_machine_has_something() {
        let machine = Machine::read();
        assert!(machine.cpus > 0 && machine.memory > 0 && !machine.kernel_version.is_empty());
        assert!(Usage::read(Path::new("/")).disk_capacity > 0);
    }
}
