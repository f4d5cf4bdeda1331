//! Tells traffic of this cluster's (or node's) pods from other traffic, in rule arguments.

use ipnet::IpNet;

/// How pod traffic is recognised.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum LocalTrafficDetector {
    /// It is not: everything is treated alike.
    #[default]
    None,
    /// By its source range.
    Cidr(IpNet),
    /// By the bridge it comes in from.
    BridgeInterface(String),
    /// By how the name of its interface begins.
    InterfaceNamePrefix(String),
}

impl LocalTrafficDetector {
    /// Whether pod traffic can be told apart at all.
    pub fn is_implemented(&self) -> bool {
        *self != Self::None
    }

    /// iptables arguments matching pod traffic.
    pub fn if_local(&self) -> Option<String> {
        match self {
            Self::None => None,
            Self::Cidr(net) => Some(format!("-s {net}")),
            Self::BridgeInterface(name) => Some(format!("-i {name}")),
            Self::InterfaceNamePrefix(prefix) => Some(format!("-i {prefix}+")),
        }
    }

    /// iptables arguments matching all other traffic.
    pub fn if_not_local(&self) -> Option<String> {
        self.if_local().map(|matches| format!("! {matches}"))
    }
}
