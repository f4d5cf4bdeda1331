//! IPAddresses: the name is the address, so that none is made up.

use crate::registry::hooks::Hooks;

pub struct IpAddress;

impl Hooks for IpAddress {
    fn generate_name(&self, base: &str) -> String {
        base.to_owned()
    }
}
