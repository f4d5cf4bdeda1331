//! What certificates say, and making the same again.

use std::time::Duration;

use jiff::Timestamp;
use x509_parser::extensions::GeneralName;
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

use super::{Ca, Error, Pair, Profile, Usage};

/// What a certificate says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    pub common_name: String,
    pub organizations: Vec<String>,
    pub issuer: String,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
    pub is_authority: bool,
    /// Names and addresses it serves.
    pub names: Vec<String>,
    pub server: bool,
    pub client: bool,
}

fn text(attribute: &AttributeTypeAndValue<'_>) -> String {
    attribute.as_str().unwrap_or_default().to_string()
}

fn common_name(name: &X509Name<'_>) -> String {
    name.iter_common_name().last().map(text).unwrap_or_default()
}

pub(super) fn address(bytes: &[u8]) -> Option<String> {
    let v4: Option<[u8; 4]> = bytes.try_into().ok();
    let v6: Option<[u8; 16]> = bytes.try_into().ok();
    v4.map(|b| std::net::Ipv4Addr::from(b).to_string()).or_else(|| v6.map(|b| std::net::Ipv6Addr::from(b).to_string()))
}

/// Reads the first certificate of PEM data.
///
/// # Errors
/// When it holds none.
pub fn facts(pem: &str) -> Result<Facts, Error> {
    let bad = |error: &dyn std::fmt::Display| Error::Certificate(error.to_string());
    let (_, block) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).map_err(|error| bad(&error))?;
    let certificate = block.parse_x509().map_err(|error| bad(&error))?;
    let time =
        |time: x509_parser::time::ASN1Time| Timestamp::from_second(time.timestamp()).map_err(|error| bad(&error));
    let usage = certificate.extended_key_usage().map_err(|error| bad(&error))?.map(|usage| usage.value);
    let alternative = certificate.subject_alternative_name().map_err(|error| bad(&error))?;
    let names = alternative.iter().flat_map(|extension| &extension.value.general_names);
    Ok(Facts {
        common_name: common_name(certificate.subject()),
        organizations: certificate.subject().iter_organization().map(text).collect(),
        issuer: common_name(certificate.issuer()),
        not_before: time(certificate.validity().not_before)?,
        not_after: time(certificate.validity().not_after)?,
        is_authority: certificate.is_ca(),
        names: names
            .filter_map(|name| match name {
                GeneralName::DNSName(name) => Some((*name).to_string()),
                GeneralName::IPAddress(bytes) => address(bytes),
                _ => None,
            })
            .collect(),
        server: usage.is_some_and(|usage| usage.server_auth),
        client: usage.is_some_and(|usage| usage.client_auth),
    })
}

impl Ca {
    /// Whether this authority signed a certificate.
    pub fn signed(&self, pem: &str) -> bool {
        let verified = || {
            let (_, own) = x509_parser::pem::parse_x509_pem(self.pair().cert_pem.as_bytes()).ok()?;
            let (_, other) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).ok()?;
            let (own, other) = (own.parse_x509().ok()?, other.parse_x509().ok()?);
            other.verify_signature(Some(own.public_key())).ok()
        };
        verified().is_some()
    }

    /// A certificate that says the same for as long as the old one did, from now on, with a new key.
    ///
    /// # Errors
    /// When the old one is none.
    pub fn again(&self, pem: &str) -> Result<Pair, Error> {
        let facts = facts(pem)?;
        let lifetime = facts.not_after.duration_since(facts.not_before).unsigned_abs();
        self.issue(&Profile {
            cn: facts.common_name,
            orgs: facts.organizations,
            sans: facts.names,
            usage: match (facts.server, facts.client) {
                (true, true) => Usage::Both,
                (true, false) => Usage::Server,
                _ => Usage::Client,
            },
            // What was backdated is backdated again.
            validity: lifetime.saturating_sub(Duration::from_secs(300)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_again() {
        let ca = Ca::new("kubernetes").unwrap();
        let profile = Profile {
            sans: vec!["node-1".into(), "172.30.0.11".into(), "fd00::1".into()],
            usage: Usage::Both,
            ..Profile::client("system:node:node-1", &["system:nodes"])
        };
        let old = ca.issue(&profile).unwrap();
        let new = ca.again(&old.cert_pem).unwrap();
        assert_ne!(old.key_pem, new.key_pem);
        let (a, b) = (facts(&old.cert_pem).unwrap(), facts(&new.cert_pem).unwrap());
        assert_eq!(Facts { not_before: b.not_before, not_after: b.not_after, ..a.clone() }, b);
        assert!(b.not_after >= a.not_after && b.server && b.client && !b.is_authority);
        assert_eq!((a.issuer.as_str(), a.names.len()), ("kubernetes", 3));
        assert!(ca.signed(&new.cert_pem) && !Ca::new("kubernetes").unwrap().signed(&new.cert_pem));
        assert!(facts(ca.cert_pem()).unwrap().is_authority);
        assert!(facts("nonsense").is_err());
    }
}
