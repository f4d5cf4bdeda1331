//! Removes everything the iptables backend writes (`--cleanup`).

use std::fmt::Write as _;

use super::chains::{self, JUMPS, chains_of, is_service_chain, words};
use super::command::Iptables;
use crate::backend::Error;

/// Deletes our jumps and chains of one family. A chain that the kubelet shares stays while the
/// kubelet's own chains show that it runs here.
pub fn cleanup(iptables: &impl Iptables) -> Result<(), Error> {
    let mangle = iptables.save("mangle")?;
    let kubelet_is_here =
        chains_of(&mangle).any(|chain| chain == "KUBE-IPTABLES-HINT" || chain == "KUBE-KUBELET-CANARY");
    let mut text = String::new();
    for table in ["filter", "nat", "mangle"] {
        let saved = if table == "mangle" { mangle.clone() } else { iptables.save(table)? };
        let ours: Vec<&str> = chains_of(&saved).filter(|chain| is_ours(chain, kubelet_is_here)).collect();
        if ours.is_empty() {
            continue;
        }
        let _ = writeln!(text, "*{table}");
        for chain in &ours {
            let _ = writeln!(text, ":{chain} - [0:0]");
        }
        for line in saved.lines() {
            let Some(rule) = line.strip_prefix("-A ") else {
                continue;
            };
            let words = words(rule);
            let from_ours = words.first().is_some_and(|from| ours.contains(&from.as_str()));
            let to_ours = words.windows(2).any(|pair| pair[0] == "-j" && ours.contains(&pair[1].as_str()));
            if to_ours && !from_ours {
                let _ = writeln!(text, "-D {rule}");
            }
        }
        for chain in &ours {
            let _ = writeln!(text, "-X {chain}");
        }
        text.push_str("COMMIT\n");
    }
    if text.is_empty() { Ok(()) } else { iptables.restore(&text) }
}

fn is_ours(chain: &str, kubelet_is_here: bool) -> bool {
    is_service_chain(chain)
        || chain == chains::KUBE_MARK_MASQ
        || chain == chains::KUBE_PROXY_CANARY
        || (JUMPS.iter().any(|jump| jump.to == chain) && !(kubelet_is_here && chain == chains::KUBE_FIREWALL))
}
