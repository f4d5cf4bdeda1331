//! Who a server is, as Go's `crypto/x509` judges it.
//!
//! One thing differs from what webpki takes: a certificate that is itself among the trusted ones is believed, whether
//! or not it calls itself an authority. Self-signed certificates of webhooks and extension servers are made like that,
//! and name themselves as their own authority.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

/// Checks certificates against trusted ones.
#[derive(Debug)]
pub(crate) struct ServerVerifier {
    chains: Arc<WebPkiServerVerifier>,
    trusted: Vec<CertificateDer<'static>>,
}

impl ServerVerifier {
    /// Trusts these: the same certificates in both forms.
    pub(crate) fn new(
        roots: RootCertStore,
        trusted: Vec<CertificateDer<'static>>,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, Error> {
        let chains = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|error| Error::General(error.to_string()))?;
        Ok(Self { chains, trusted })
    }

    /// Judges a certificate that is trusted by itself: its name and its time still count.
    fn trusted(
        &self,
        cert: &CertificateDer<'_>,
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        rustls::client::verify_server_name(&ParsedCertificate::try_from(cert)?, name)?;
        let bad = |_| Error::InvalidCertificate(CertificateError::BadEncoding);
        let (_, parsed) = x509_parser::parse_x509_certificate(cert).map_err(bad)?;
        let at = |time: x509_parser::time::ASN1Time| {
            UnixTime::since_unix_epoch(std::time::Duration::from_secs(u64::try_from(time.timestamp()).unwrap_or(0)))
        };
        let (not_before, not_after) = (at(parsed.validity().not_before), at(parsed.validity().not_after));
        if now.as_secs() < not_before.as_secs() {
            return Err(CertificateError::NotValidYetContext { time: now, not_before }.into());
        }
        if now.as_secs() > not_after.as_secs() {
            return Err(CertificateError::ExpiredContext { time: now, not_after }.into());
        }
        Ok(ServerCertVerified::assertion())
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.trusted.iter().any(|trusted| trusted.as_ref() == end_entity.as_ref()) {
            return self.trusted(end_entity, name, now);
        }
        self.chains.verify_server_cert(end_entity, intermediates, name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chains.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chains.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chains.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustls::crypto::ring;

    use super::*;

    fn self_signed(name: &str, is_authority: bool) -> CertificateDer<'static> {
        let mut parameters = rcgen::CertificateParams::new(vec![name.to_string()]).unwrap();
        if is_authority {
            parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        }
        parameters.not_before = rcgen::date_time_ymd(2020, 1, 1);
        parameters.not_after = rcgen::date_time_ymd(2030, 1, 1);
        parameters.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    #[test]
    fn a_certificate_may_be_its_own_authority() {
        for is_authority in [true, false] {
            let (own, other) = (self_signed("hook.test", is_authority), self_signed("hook.test", is_authority));
            let mut roots = RootCertStore::empty();
            roots.add(own.clone()).unwrap();
            let verifier = ServerVerifier::new(roots, vec![own.clone()], Arc::new(ring::default_provider())).unwrap();
            let check = |cert: &CertificateDer<'_>, name: &'static str, year: u64| {
                let now = UnixTime::since_unix_epoch(Duration::from_secs((year - 1970) * 365 * 86_400));
                verifier.verify_server_cert(cert, &[], &ServerName::try_from(name).unwrap(), &[], now)
            };
            assert!(check(&own, "hook.test", 2026).is_ok(), "{is_authority}");
            assert!(check(&own, "other.test", 2026).is_err());
            assert!(check(&own, "hook.test", 2032).is_err(), "expired");
            assert!(check(&own, "hook.test", 2010).is_err(), "not yet valid");
            assert!(check(&other, "hook.test", 2026).is_err(), "another's of the same name");
        }
    }
}
