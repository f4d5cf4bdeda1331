//! Traces a virtual packet through generated rules (tests only).
//!
//! Comparing rules as text breaks with every harmless reordering and misses what matters: where a
//! packet ends. A [`Ruleset`] holds tables the way the kernel would after `iptables-restore
//! --noflush`, including its refusals, and [`Ruleset::trace`] follows every branch a packet can
//! take. Backends with other languages translate their rules into the same steps.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use crate::backend::Error;
use crate::backend::iptables::chains::words;
use crate::backend::iptables::command::Iptables;
use parking_lot::Mutex;

/// A packet that opens a connection.
#[derive(Clone, Debug)]
pub struct Packet {
    pub protocol: &'static str,
    pub source: IpAddr,
    pub destination: IpAddr,
    pub port: u16,
    /// Comes out of a process on this node rather than in through an interface.
    pub from_host: bool,
}

/// Where packets end, over all branches: rewritten destinations, or `DROP`, `REJECT`, `ACCEPT`
/// (delivered unchanged), followed by ` masq` when the source is masqueraded.
pub type Outcome = BTreeSet<String>;

type Rule = Vec<String>;

/// Tables → chains → rules.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ruleset {
    pub tables: BTreeMap<String, BTreeMap<String, Vec<Rule>>>,
    /// The node's own addresses, for `--dst-type LOCAL`.
    pub local_addresses: BTreeSet<IpAddr>,
}

impl Ruleset {
    /// Empty tables of a node with these addresses.
    pub fn new(local_addresses: &[&str]) -> Self {
        let mut tables = BTreeMap::new();
        for (table, chains) in [
            ("mangle", &["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"][..]),
            ("nat", &["PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"][..]),
            ("filter", &["INPUT", "FORWARD", "OUTPUT"][..]),
        ] {
            tables.insert(table.to_owned(), chains.iter().map(|c| ((*c).to_owned(), Vec::new())).collect());
        }
        Self { tables, local_addresses: local_addresses.iter().map(|ip| ip.parse().expect("an address")).collect() }
    }

    /// Applies text as `iptables-restore --noflush` would; an error leaves the table as it was.
    pub fn restore(&mut self, text: &str) -> Result<(), String> {
        let mut table: Option<(String, BTreeMap<String, Vec<Rule>>)> = None;
        for (number, line) in text.lines().enumerate() {
            let fail = |why: &str| format!("line {}: {why}: {line}", number + 1);
            if let Some(name) = line.strip_prefix('*') {
                let chains = self.tables.get(name).ok_or_else(|| fail("no such table"))?;
                table = Some((name.to_owned(), chains.clone()));
                continue;
            }
            if line == "COMMIT" {
                let (name, chains) = table.take().ok_or_else(|| fail("no table"))?;
                for rule in chains.values().flatten() {
                    if let Some(target) = jump_target(rule)
                        && !is_verdict(target)
                        && !chains.contains_key(target)
                    {
                        return Err(format!("jump to missing chain {target}: {rule:?}"));
                    }
                }
                self.tables.insert(name, chains);
                continue;
            }
            let (_, chains) = table.as_mut().ok_or_else(|| fail("no table"))?;
            if let Some(rest) = line.strip_prefix(':') {
                let name = rest.split_whitespace().next().ok_or_else(|| fail("no name"))?;
                chains.insert(name.to_owned(), Vec::new());
                continue;
            }
            let mut rule = words(line);
            if rule.len() < 2 {
                return Err(fail("not a rule"));
            }
            let verb = rule.remove(0);
            let chain = rule.remove(0);
            match verb.as_str() {
                "-A" => chains.get_mut(&chain).ok_or_else(|| fail("no chain"))?.push(rule),
                "-I" => chains.get_mut(&chain).ok_or_else(|| fail("no chain"))?.insert(0, rule),
                "-D" => {
                    let rules = chains.get_mut(&chain).ok_or_else(|| fail("no chain"))?;
                    let at = rules.iter().position(|r| *r == rule).ok_or_else(|| fail("no such rule"))?;
                    rules.remove(at);
                }
                "-X" => {
                    if !chains.get(&chain).ok_or_else(|| fail("no chain"))?.is_empty() {
                        return Err(fail("chain is not empty"));
                    }
                    if chains.values().flatten().any(|r| jump_target(r) == Some(&chain)) {
                        return Err(fail("chain is in use"));
                    }
                    chains.remove(&chain);
                }
                _ => return Err(fail("unknown command")),
            }
        }
        if table.is_some() { Err("no COMMIT".to_owned()) } else { Ok(()) }
    }

    /// As `iptables-save` prints a table.
    pub fn save(&self, table: &str) -> String {
        let mut text = format!("*{table}\n");
        let Some(chains) = self.tables.get(table) else {
            return String::new();
        };
        for chain in chains.keys() {
            text.push_str(&format!(":{chain} - [0:0]\n"));
        }
        for (chain, rules) in chains {
            for rule in rules {
                text.push_str(&format!("-A {chain}"));
                for word in rule {
                    let quoted = word.contains(' ');
                    text.push_str(&if quoted { format!(" \"{word}\"") } else { format!(" {word}") });
                }
                text.push('\n');
            }
        }
        text + "COMMIT\n"
    }

    /// Where a packet can end.
    pub fn trace(&self, packet: &Packet) -> Outcome {
        let mut outcome = Outcome::new();
        let entry = if packet.from_host { "OUTPUT" } else { "PREROUTING" };
        for state in self.walk("nat", entry, State::new(packet)) {
            let end = self.filter(packet, state.clone());
            if end == "DROP" || end == "REJECT" {
                outcome.insert(end);
                continue;
            }
            let mut text = state.translated.clone().unwrap_or_else(|| "ACCEPT".to_owned());
            let mut post = state;
            post.ended = None;
            if self.walk("nat", "POSTROUTING", post).iter().any(|s| s.ended.as_deref() == Some("MASQUERADE")) {
                text.push_str(" masq");
            }
            outcome.insert(text);
        }
        outcome
    }

    fn filter(&self, packet: &Packet, state: State) -> String {
        let to_host = self.local_addresses.contains(&state.destination);
        let chain = match (packet.from_host, to_host) {
            (true, _) => "OUTPUT",
            (false, true) => "INPUT",
            (false, false) => "FORWARD",
        };
        let mut state = state;
        state.ended = None;
        let states = self.walk("filter", chain, state);
        assert_eq!(states.len(), 1, "the filter table does not branch");
        states[0].ended.clone().unwrap_or_else(|| "ACCEPT".to_owned())
    }

    /// All states in which a packet can leave a built-in chain.
    fn walk(&self, table: &str, chain: &str, start: State) -> Vec<State> {
        let mut done = Vec::new();
        self.chain(table, chain, start, &mut done, 0).into_iter().for_each(|s| done.push(s));
        done
    }

    /// Runs a chain; returns the states that fall off its end, and puts ended ones in `done`.
    fn chain(&self, table: &str, chain: &str, start: State, done: &mut Vec<State>, depth: usize) -> Vec<State> {
        assert!(depth < 20, "chains form a loop at {chain}");
        let mut states = vec![start];
        for rule in &self.tables[table][chain] {
            let mut next = Vec::new();
            for state in states {
                let Some(chance) = self.matches(rule, &state) else {
                    next.push(state);
                    continue;
                };
                // A rule that matches by chance both matches and does not.
                if chance == Chance::Sometimes {
                    next.push(state.clone());
                }
                self.act(table, rule, state, done, &mut next, depth);
            }
            // RETURN is recorded as such and leaves this chain only.
            states = Vec::new();
            let mut returned = Vec::new();
            for mut state in next {
                if state.returning {
                    state.returning = false;
                    returned.push(state);
                } else {
                    states.push(state);
                }
            }
            if !returned.is_empty() {
                assert!(states.is_empty(), "RETURN does not branch");
                return returned;
            }
        }
        states
    }

    fn act(
        &self,
        table: &str,
        rule: &Rule,
        mut state: State,
        done: &mut Vec<State>,
        next: &mut Vec<State>,
        depth: usize,
    ) {
        let Some(target) = jump_target(rule) else {
            next.push(state);
            return;
        };
        match target {
            "MARK" => {
                if let Some(bits) = value_of(rule, "--or-mark") {
                    state.mark |= number(bits);
                } else if let Some(bits) = value_of(rule, "--xor-mark") {
                    state.mark ^= number(bits);
                } else {
                    panic!("unknown MARK {rule:?}");
                }
                next.push(state);
            }
            "RETURN" => {
                state.returning = true;
                next.push(state);
            }
            "DNAT" => {
                let to = value_of(rule, "--to-destination").expect("DNAT has a destination");
                let (ip, port) = to.rsplit_once(':').expect("with a port");
                state.destination = ip.trim_matches(['[', ']']).parse().expect("an address");
                state.port = port.parse().expect("a port");
                state.translated = Some(to.to_owned());
                state.ended = Some("DNAT".to_owned());
                done.push(state);
            }
            "ACCEPT" | "DROP" | "REJECT" | "MASQUERADE" => {
                state.ended = Some(target.to_owned());
                done.push(state);
            }
            chain => next.extend(self.chain(table, chain, state, done, depth + 1)),
        }
    }

    fn matches(&self, rule: &Rule, state: &State) -> Option<Chance> {
        let mut chance = Chance::Always;
        let mut negate = false;
        let mut words = rule.iter();
        while let Some(word) = words.next() {
            if word == "!" {
                negate = true;
                continue;
            }
            let mut value = || words.next().expect("a value").as_str();
            let fits = match word.as_str() {
                "-m" | "--comment" | "--mode" | "--name" | "--seconds" => {
                    value();
                    true
                }
                "-p" => value() == state.protocol,
                "-s" => net(value()).contains(&state.source),
                "-d" => net(value()).contains(&state.destination),
                "--dport" => value().parse::<u16>().expect("a port") == state.port,
                "--dst-type" => {
                    assert_eq!(value(), "LOCAL");
                    self.is_local(&state.destination)
                }
                "--src-type" => {
                    assert_eq!(value(), "LOCAL");
                    self.is_local(&state.source)
                }
                "--ctstate" => value().split(',').any(|s| s == "NEW" || (s == "DNAT" && state.translated.is_some())),
                "--mark" => {
                    let (value, mask) = value().split_once('/').expect("a mask");
                    state.mark & number(mask) == number(value)
                }
                "--probability" => {
                    value();
                    chance = Chance::Sometimes;
                    true
                }
                // A client not seen before.
                "--rcheck" => false,
                "--reap" | "--set" => true,
                // The target and its options come last.
                "-j" => break,
                other => panic!("unknown match {other} in {rule:?}"),
            };
            if fits == negate {
                return None;
            }
            negate = false;
        }
        Some(chance)
    }

    fn is_local(&self, ip: &IpAddr) -> bool {
        ip.is_loopback() || self.local_addresses.contains(ip)
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Chance {
    Always,
    Sometimes,
}

#[derive(Clone, Debug)]
struct State {
    protocol: &'static str,
    source: IpAddr,
    destination: IpAddr,
    port: u16,
    mark: u32,
    translated: Option<String>,
    ended: Option<String>,
    returning: bool,
}

impl State {
    fn new(packet: &Packet) -> Self {
        Self {
            protocol: packet.protocol,
            source: packet.source,
            destination: packet.destination,
            port: packet.port,
            mark: 0,
            translated: None,
            ended: None,
            returning: false,
        }
    }
}

fn jump_target(rule: &[String]) -> Option<&str> {
    value_of(rule, "-j")
}

fn value_of<'a>(rule: &'a [String], flag: &str) -> Option<&'a str> {
    rule.windows(2).find(|pair| pair[0] == flag).map(|pair| pair[1].as_str())
}

fn is_verdict(target: &str) -> bool {
    matches!(target, "ACCEPT" | "DROP" | "REJECT" | "RETURN" | "MARK" | "DNAT" | "MASQUERADE")
}

fn number(text: &str) -> u32 {
    u32::from_str_radix(text.trim_start_matches("0x"), 16).expect("a hexadecimal number")
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap_or_else(|_| IpNet::from(text.parse::<IpAddr>().expect("an address")))
}

/// An `iptables` whose kernel is a [`Ruleset`].
#[derive(Debug)]
pub struct FakeIptables(pub std::sync::Arc<Mutex<Ruleset>>);

impl Iptables for FakeIptables {
    fn save(&self, table: &str) -> Result<String, Error> {
        Ok(self.0.lock().save(table))
    }

    fn restore(&self, text: &str) -> Result<(), Error> {
        self.0.lock().restore(text).map_err(|message| Error::Failed { program: "fake".to_owned(), message })
    }

    fn chain_exists(&self, table: &str, chain: &str) -> Result<bool, Error> {
        Ok(self.0.lock().tables[table].contains_key(chain))
    }
}
