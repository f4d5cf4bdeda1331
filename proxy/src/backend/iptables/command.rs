//! Runs `iptables-save`, `iptables-restore` and `iptables`, of the flavour the node uses.
//!
//! Debian and others ship two iptables: one over nftables, one legacy. Rules written by one are
//! invisible to the other, so the proxy must use the one that the kubelet and the CNI plugins use.
//! The order of the checks follows the iptables wrapper of upstream's images.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::backend::Error;
use crate::types::IpFamily;

/// Seconds to wait for the lock that legacy iptables takes.
const WAIT_SECONDS: &str = "5";

/// The three calls the backend needs.
pub trait Iptables: Send {
    /// The text of one table.
    fn save(&self, table: &str) -> Result<String, Error>;
    /// Applies `text`, leaving chains it does not name alone; atomic per table.
    fn restore(&self, text: &str) -> Result<(), Error>;
    /// Whether a chain exists.
    fn chain_exists(&self, table: &str, chain: &str) -> Result<bool, Error>;
}

/// Which implementation of iptables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    /// Whatever `iptables` is.
    Default,
    /// `iptables-nft`.
    Nft,
    /// `iptables-legacy`.
    Legacy,
}

/// The programs of one family.
#[derive(Clone, Debug)]
pub struct Programs {
    family: IpFamily,
    flavour: Flavour,
}

impl Programs {
    /// The programs of `family` in `flavour`.
    pub fn new(family: IpFamily, flavour: Flavour) -> Self {
        Self { family, flavour }
    }

    fn program(&self, suffix: &str) -> String {
        let base = match self.family {
            IpFamily::V4 => "iptables",
            IpFamily::V6 => "ip6tables",
        };
        let flavour = match self.flavour {
            Flavour::Default => "",
            Flavour::Nft => "-nft",
            Flavour::Legacy => "-legacy",
        };
        format!("{base}{flavour}{suffix}")
    }

    /// Whether the programs exist and the kernel has the nat table for this family.
    pub fn present(&self) -> Result<(), Error> {
        run(&self.program(""), &["-w", WAIT_SECONDS, "-t", "nat", "-S", "POSTROUTING"], None).map(|_| ())
    }

    /// Whether `MASQUERADE --random-fully` is understood: since 1.6.2.
    pub fn has_random_fully(&self) -> bool {
        run(&self.program(""), &["--version"], None)
            .ok()
            .and_then(|text| parse_version(&text))
            .is_some_and(|version| version >= (1, 6, 2))
    }
}

impl Iptables for Programs {
    fn save(&self, table: &str) -> Result<String, Error> {
        run(&self.program("-save"), &["-t", table], None)
    }

    fn restore(&self, text: &str) -> Result<(), Error> {
        let program = self.program("-restore");
        let arguments = ["-w", WAIT_SECONDS, "--noflush", "--counters"];
        match run(&program, &arguments, Some(text)) {
            Ok(_) => Ok(()),
            Err(Error::Failed { program, message }) => Err(Error::Failed { program, message: explain(text, &message) }),
            Err(other) => Err(other),
        }
    }

    fn chain_exists(&self, table: &str, chain: &str) -> Result<bool, Error> {
        let arguments = ["-w", WAIT_SECONDS, "-t", table, "-S", chain];
        match run(&self.program(""), &arguments, None) {
            Ok(_) => Ok(true),
            // What is said of a missing chain differs by version, and 1.8.9 over nftables calls it
            // incompatible: the whole table knows better, and is asked only in this rare case.
            Err(Error::Failed { .. }) => Ok(super::chains::chains_of(&self.save(table)?).any(|known| known == chain)),
            Err(error) => Err(error),
        }
    }
}

/// Finds the flavour in use in this network namespace.
pub fn detect() -> Flavour {
    // The kubelet leaves a chain as a hint for exactly this purpose.
    const HINTS: [&str; 2] = ["KUBE-IPTABLES-HINT", "KUBE-KUBELET-CANARY"];
    let hinted = |text: &str| HINTS.iter().any(|hint| text.contains(hint));
    let save = |program: &str, table: &str| run(program, &["-t", table], None).unwrap_or_default();
    if hinted(&save("iptables-nft-save", "mangle")) {
        return Flavour::Nft;
    }
    // Asking iptables-legacy loads its kernel modules; do so only where it already is in use.
    let legacy_in_use =
        std::fs::read_to_string("/proc/net/ip_tables_names").is_ok_and(|names| !names.trim().is_empty());
    if legacy_in_use {
        if hinted(&save("iptables-legacy-save", "mangle")) {
            return Flavour::Legacy;
        }
        let rules = |program: &str| {
            run(program, &[], None).unwrap_or_default().lines().filter(|line| line.starts_with('-')).count()
        };
        if rules("iptables-legacy-save") > rules("iptables-nft-save") {
            return Flavour::Legacy;
        }
    }
    Flavour::Default
}

fn parse_version(text: &str) -> Option<(u32, u32, u32)> {
    let version = text.split_whitespace().find_map(|word| word.strip_prefix('v'))?;
    let mut parts = version.split('.').map(|part| part.parse::<u32>().ok());
    Some((parts.next()??, parts.next()??, parts.next().flatten().unwrap_or(0)))
}

/// Adds the offending line, which iptables-restore names only by its number.
fn explain(text: &str, message: &str) -> String {
    let number = message
        .split("line ")
        .nth(1)
        .or_else(|| message.split("line: ").nth(1))
        .and_then(|rest| rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse::<usize>().ok());
    match number.and_then(|n| text.lines().nth(n.checked_sub(1)?)) {
        Some(line) => format!("{} ({line})", message.trim()),
        None => message.trim().to_owned(),
    }
}

/// Runs a program to its end; standard output on success.
pub fn run(program: &str, arguments: &[&str], input: Option<&str>) -> Result<String, Error> {
    let start = |source| Error::Start { program: program.to_owned(), source };
    let mut child = Command::new(program)
        .args(arguments)
        .env("LC_ALL", "C")
        .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(start)?;
    let writer = child.stdin.take().zip(input).map(|(mut stdin, text)| {
        let text = text.to_owned();
        // On a thread of its own: a program that writes before it has read all would block us both.
        std::thread::spawn(move || stdin.write_all(text.as_bytes()))
    });
    let output = child.wait_with_output().map_err(start)?;
    if let Some(writer) = writer {
        // A broken pipe only repeats what the exit status says.
        let _ = writer.join();
    }
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(Error::Failed {
            program: program.to_owned(),
            message: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }
}

/// How long `damaged` may lag behind a flush.
pub const CANARY_PERIOD: Duration = Duration::from_secs(30);

#[cfg(test)]
mod command_tests {
    use super::*;

    #[test]
    fn reads_versions() {
        for (text, version) in [
            ("iptables v1.8.9 (nf_tables)\n", Some((1, 8, 9))),
            ("ip6tables v1.6.1", Some((1, 6, 1))),
            ("iptables v1.8 (legacy)", Some((1, 8, 0))),
            ("nonsense", None),
        ] {
            assert_eq!(parse_version(text), version, "{text}");
        }
    }

    #[test]
    fn names_the_bad_line() {
        let text = "*nat\n-A X -j Y\nCOMMIT\n";
        assert_eq!(
            explain(text, "iptables-restore v1.8.9 (nf_tables): line 2 failed\n"),
            "iptables-restore v1.8.9 (nf_tables): line 2 failed (-A X -j Y)"
        );
        assert_eq!(explain(text, "other\n"), "other");
    }
}
