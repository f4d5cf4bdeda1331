//! The resolver configuration file (resolv.conf(5)): only who is asked. Searching is for whoever asks.

use std::net::{IpAddr, SocketAddr};

/// The name servers of a file, in its order, each once.
pub fn servers(text: &str) -> Vec<SocketAddr> {
    let mut servers = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        if words.next() != Some("nameserver") {
            continue;
        }
        let Some(word) = words.next() else { continue };
        // An address of a link names its interface, which is one of this machine: `fe80::1%eth0`.
        match scoped(word) {
            Some(server) if !servers.contains(&server) => servers.push(server),
            Some(_) => {}
            None => tracing::warn!(nameserver = word, "not an address"),
        }
    }
    servers
}

fn scoped(word: &str) -> Option<SocketAddr> {
    let Some((address, interface)) = word.split_once('%') else {
        return Some(SocketAddr::new(word.parse().ok()?, 53));
    };
    let IpAddr::V6(address) = address.parse().ok()? else { return None };
    let scope = interface.parse().ok().or_else(|| {
        let index = std::fs::read_to_string(format!("/sys/class/net/{interface}/ifindex")).ok()?;
        index.trim().parse().ok()
    })?;
    Some(std::net::SocketAddrV6::new(address, 53, 0, scope).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_read() {
        let text = "# nameserver 9.9.9.9\n; nameserver 9.9.9.9\nsearch a b\n  nameserver\t1.1.1.1 \nnameserver 1.1.1.1\n\
            nameserver fd00::1\nnameserver dns.example\nnameserver\nnameserver fe80::1%7\nnameserver 1.2.3.4%7\noptions edns0\n";
        let servers: Vec<String> = servers(text).iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["1.1.1.1:53", "[fd00::1]:53", "[fe80::1%7]:53"]);
    }
}
