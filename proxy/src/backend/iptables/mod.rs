//! The iptables backend: one `iptables-restore --noflush` per sync.
//!
//! The chains are upstream's, name by name, because administrators, network policies and
//! troubleshooting guides know them; see `rules.rs` for what each does. A full sync reads the
//! tables once with `iptables-save`, so that the jumps from the built-in chains and the removal of
//! stale chains ride in the same atomic restore, instead of some twenty separate `iptables` calls.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt::Write as _;

use crate::types::NamespacedName;

use super::{Backend, Error, Scope, SyncReport, View};

pub mod chains;
pub mod cleanup;
pub mod command;
pub mod rules;
#[cfg(test)]
mod tests;

use chains::{JUMPS, is_service_chain, jump_is_present};
use command::Iptables;
pub use rules::Settings;

/// The iptables rules of one family.
#[derive(Debug)]
pub struct IptablesBackend<I> {
    iptables: I,
    settings: Settings,
    /// The nat chains every service has in the kernel, so that a partial sync knows what to delete
    /// without reading the table, which takes seconds on a large node.
    chains: BTreeMap<NamespacedName, BTreeSet<String>>,
    /// Rules in those chains, for the totals of partial syncs.
    rules: BTreeMap<NamespacedName, usize>,
}

impl<I: Iptables> IptablesBackend<I> {
    /// A backend that has synced nothing yet: its first sync must be full.
    pub fn new(iptables: I, settings: Settings) -> Self {
        Self { iptables, settings, chains: BTreeMap::new(), rules: BTreeMap::new() }
    }

    fn restore_text(&self, generated: &rules::Generated, scope: Scope<'_>) -> Result<String, Error> {
        let mut filter_new = String::new();
        let mut nat_new = String::new();
        let mut filter_extra = String::new();
        let mut nat_extra = String::new();
        let mut stale: BTreeSet<String> = BTreeSet::new();
        let mut text = String::new();
        match scope {
            Scope::Full => {
                // The canary: when it is gone from a table, somebody flushed that table.
                let _ = writeln!(text, "*mangle\n:{} - [0:0]\nCOMMIT", chains::KUBE_PROXY_CANARY);
                let filter = self.iptables.save("filter")?;
                let nat = self.iptables.save("nat")?;
                for jump in JUMPS {
                    let (saved, extra) = match jump.table {
                        "filter" => (&filter, &mut filter_extra),
                        _ => (&nat, &mut nat_extra),
                    };
                    if !jump_is_present(saved, jump) {
                        let _ = writeln!(extra, "-I {} {}", jump.from, jump.arguments());
                    }
                }
                // These are created but never emptied: the kubelet may share the last.
                let missing = |saved: &str, chain: &str| !chains::chains_of(saved).any(|c| c == chain);
                for chain in [chains::KUBE_PROXY_CANARY, chains::KUBE_FIREWALL] {
                    if missing(&filter, chain) {
                        let _ = writeln!(filter_new, ":{chain} - [0:0]");
                    }
                }
                if missing(&nat, chains::KUBE_PROXY_CANARY) {
                    let _ = writeln!(nat_new, ":{} - [0:0]", chains::KUBE_PROXY_CANARY);
                }
                let wanted: HashSet<&str> = generated.chains.values().flatten().map(String::as_str).collect();
                stale.extend(
                    chains::chains_of(&nat)
                        .filter(|chain| is_service_chain(chain) && !wanted.contains(chain))
                        .map(str::to_owned),
                );
            }
            Scope::Changed(services) => {
                for service in services {
                    if let Some(old) = self.chains.get(service) {
                        let new = generated.chains.get(service);
                        stale.extend(old.iter().filter(|c| !new.is_some_and(|n| n.contains(*c))).cloned());
                    }
                }
            }
        }
        let _ = write!(
            text,
            "*filter\n{filter_new}{}{}{filter_extra}COMMIT\n*nat\n{nat_new}{}",
            generated.filter_chains, generated.filter_rules, generated.nat_chains
        );
        // A chain line empties the chain; only then may it be deleted.
        for chain in &stale {
            let _ = writeln!(text, ":{chain} - [0:0]");
        }
        let _ = write!(text, "{}{nat_extra}", generated.nat_rules);
        for chain in &stale {
            let _ = writeln!(text, "-X {chain}");
        }
        text.push_str("COMMIT\n");
        Ok(text)
    }
}

impl<I: Iptables> Backend for IptablesBackend<I> {
    fn sync(&mut self, view: View<'_>, scope: Scope<'_>) -> Result<SyncReport, Error> {
        let generated = rules::generate(&self.settings, view, scope);
        let text = self.restore_text(&generated, scope)?;
        self.iptables.restore(&text)?;

        match scope {
            Scope::Full => {
                self.chains = generated.chains;
                self.rules = generated.rules_per_service;
            }
            Scope::Changed(services) => {
                for service in services {
                    self.chains.remove(service);
                    self.rules.remove(service);
                }
                self.chains.extend(generated.chains);
                self.rules.extend(generated.rules_per_service);
            }
        }
        Ok(SyncReport {
            filter_rules: generated.filter_rules.lines().count(),
            nat_rules: generated.shared_nat_rules + self.rules.values().sum::<usize>(),
            nat_rules_written: generated.nat_rules.lines().count(),
            no_local_endpoints_internal: generated.no_local_endpoints_internal,
            no_local_endpoints_external: generated.no_local_endpoints_external,
        })
    }

    fn damaged(&mut self) -> bool {
        ["mangle", "nat", "filter"]
            .iter()
            .any(|table| matches!(self.iptables.chain_exists(table, chains::KUBE_PROXY_CANARY), Ok(false)))
    }
}
