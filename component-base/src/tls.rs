//! TLS configurations on rustls with ring: servers, clients, client-certificate checks, hot reload.
//!
//! Servers ask for a client certificate without demanding or judging one during the handshake, as
//! kube-apiserver does: a bad certificate must become a 401, not a broken connection. The
//! certificate is judged afterwards with [`ClientAuthority`].

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme};

pub use crate::client_authority::{ClientAuthority, Identity, identity, live_server_config};
use crate::pki::Pair;
use crate::server_verifier::ServerVerifier;

/// Why a TLS configuration could not be made or a certificate was refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read {path}")]
    Io { path: String, source: std::io::Error },
    #[error("not a PEM certificate or key: {0}")]
    Pem(String),
    #[error("no certificate in the PEM data")]
    NoCertificate,
    #[error("TLS")]
    Tls(#[from] rustls::Error),
    #[error("x509: {0}")]
    Refused(String),
}

pub(crate) fn provider() -> Arc<CryptoProvider> {
    // One provider for the whole process, made once.
    static PROVIDER: std::sync::OnceLock<Arc<CryptoProvider>> = std::sync::OnceLock::new();
    PROVIDER.get_or_init(|| Arc::new(ordered(ring::default_provider()))).clone()
}

/// With the suites in the order in which Go prefers them where the processor encrypts by itself: AES-128 first, which
/// is as safe here as the longer key and cheaper by a quarter.
fn ordered(mut provider: CryptoProvider) -> CryptoProvider {
    use rustls::CipherSuite::{
        TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, TLS13_AES_128_GCM_SHA256,
    };
    let preferred = |suite: rustls::CipherSuite| {
        matches!(
            suite,
            TLS13_AES_128_GCM_SHA256 | TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 | TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
        )
    };
    // A stable sort, newer versions of TLS before older ones.
    provider.cipher_suites.sort_by_key(|suite| (suite.tls13().is_none(), !preferred(suite.suite())));
    provider
}

/// Makes ring the process's default provider, which libraries that ask for one (kube, tonic) need.
/// Calling it again does nothing.
pub fn install_default_provider() {
    // An error means that one is installed already.
    let _ = ring::default_provider().install_default();
}

/// All certificates of PEM data; an error when there is none.
pub fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let chain: Vec<_> =
        CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|error| Error::Pem(error.to_string()))?;
    if chain.is_empty() {
        return Err(Error::NoCertificate);
    }
    Ok(chain)
}

fn certified_key(cert_pem: &[u8], key_pem: &[u8]) -> Result<CertifiedKey, Error> {
    let chain = certificates(cert_pem)?;
    let key = PrivateKeyDer::from_pem_slice(key_pem).map_err(|error| Error::Pem(error.to_string()))?;
    let key = ring::sign::any_supported_type(&key)?;
    let certified = CertifiedKey::new(chain, key);
    // A key that does not belong to the certificate would fail each handshake later.
    match certified.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => Ok(certified),
        Err(error) => Err(error.into()),
    }
}

pub(crate) fn read(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|source| Error::Io { path: path.display().to_string(), source })
}

/// A serving certificate that can be replaced while the server runs; new connections use the new one.
#[derive(Clone)]
pub struct ServingCert {
    current: Arc<ArcSwapOption<CertifiedKey>>,
    files: Option<Arc<(PathBuf, PathBuf)>>,
}

impl std::fmt::Debug for ServingCert {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServingCert").field("files", &self.files).finish_non_exhaustive()
    }
}

impl ServingCert {
    /// The DNS names in the certificate; its common name when there are none.
    fn names(&self) -> Result<Vec<String>, Error> {
        let current = self.current.load();
        let leaf = current.as_ref().and_then(|key| key.cert.first()).ok_or(Error::NoCertificate)?;
        let refused = |error: &dyn std::fmt::Display| Error::Refused(error.to_string());
        let (_, parsed) = x509_parser::parse_x509_certificate(leaf).map_err(|error| refused(&error))?;
        let alternative = parsed.subject_alternative_name().map_err(|error| refused(&error))?;
        let names: Vec<String> = alternative
            .iter()
            .flat_map(|extension| &extension.value.general_names)
            .filter_map(|name| match name {
                x509_parser::extensions::GeneralName::DNSName(name) => Some((*name).to_string()),
                _ => None,
            })
            .collect();
        if names.is_empty() { Ok(vec![identity(leaf)?.common_name]) } else { Ok(names) }
    }

    /// None yet: handshakes fail until [`ServingCert::replace`] brings one.
    pub fn later() -> Self {
        Self { current: Arc::default(), files: None }
    }

    /// A fixed certificate, which [`ServingCert::replace`] may change.
    pub fn from_pair(pair: &Pair) -> Result<Self, Error> {
        let key = certified_key(pair.cert_pem.as_bytes(), pair.key_pem.as_bytes())?;
        Ok(Self { current: Arc::new(ArcSwapOption::from_pointee(key)), files: None })
    }

    /// A certificate in files, which [`ServingCert::watch`] follows.
    pub fn from_files(cert: &Path, key: &Path) -> Result<Self, Error> {
        let certified = certified_key(&read(cert)?, &read(key)?)?;
        Ok(Self {
            current: Arc::new(ArcSwapOption::from_pointee(certified)),
            files: Some(Arc::new((cert.to_path_buf(), key.to_path_buf()))),
        })
    }

    /// Serves another certificate from now on.
    pub fn replace(&self, pair: &Pair) -> Result<(), Error> {
        let key = certified_key(pair.cert_pem.as_bytes(), pair.key_pem.as_bytes())?;
        self.current.store(Some(Arc::new(key)));
        Ok(())
    }

    /// Reads the files again; a pair that does not fit together (half written) leaves the old one.
    pub fn reload(&self) -> Result<(), Error> {
        if let Some(files) = &self.files {
            let key = certified_key(&read(&files.0)?, &read(&files.1)?)?;
            self.current.store(Some(Arc::new(key)));
        }
        Ok(())
    }

    /// Follows the files until the returned future is dropped.
    pub async fn watch(self) {
        let Some(files) = self.files.clone() else { return };
        let mut watch = crate::files::Watch::new(&[&files.0, &files.1]);
        loop {
            watch.changed().await;
            match self.reload() {
                Ok(()) => tracing::info!(path = %files.0.display(), "reloaded the serving certificate"),
                // Half written: the other half is a change of its own.
                Err(error) => {
                    tracing::error!(error = &error as &dyn std::error::Error, "cannot reload the serving certificate");
                }
            }
        }
    }
}

/// A serving certificate, and others for some names (`--tls-sni-cert-key`).
#[derive(Clone, Debug)]
pub struct SniCerts {
    default: ServingCert,
    named: Vec<(Vec<String>, ServingCert)>,
}

impl SniCerts {
    /// `named` has patterns, such as `*.example.com`; without any, the names in the certificate itself count.
    ///
    /// # Errors
    /// A certificate whose names cannot be read.
    pub fn new(default: ServingCert, named: Vec<(Vec<String>, ServingCert)>) -> Result<Self, Error> {
        let named = named
            .into_iter()
            .map(|(patterns, cert)| {
                let patterns = if patterns.is_empty() { cert.names()? } else { patterns };
                Ok((patterns.iter().map(|name| name.to_ascii_lowercase()).collect(), cert))
            })
            .collect::<Result<_, Error>>()?;
        Ok(Self { default, named })
    }

    /// All certificates.
    pub fn each(&self) -> impl Iterator<Item = &ServingCert> {
        std::iter::once(&self.default).chain(self.named.iter().map(|(_, cert)| cert))
    }

    fn find(&self, name: &str) -> &ServingCert {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let by = |wanted: &str| self.named.iter().find(|(names, _)| names.iter().any(|have| have == wanted));
        let wildcard = name.split_once('.').map(|(_, rest)| format!("*.{rest}"));
        by(&name).or_else(|| by(&wildcard?)).map_or(&self.default, |(_, cert)| cert)
    }
}

impl ResolvesServerCert for SniCerts {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let cert = hello.server_name().map_or(&self.default, |name| self.find(name));
        cert.current.load_full()
    }
}

/// A client's certificate that can be replaced while it is used; new connections show the new one.
#[derive(Clone, Debug)]
pub struct ClientCert(ServingCert);

impl ClientCert {
    /// A certificate in files, read again by [`ClientCert::reload`].
    ///
    /// # Errors
    /// When they cannot be read or do not fit together.
    pub fn from_files(cert: &Path, key: &Path) -> Result<Self, Error> {
        ServingCert::from_files(cert, key).map(Self)
    }

    /// A fixed certificate.
    ///
    /// # Errors
    /// When certificate and key do not fit together.
    pub fn from_pair(pair: &Pair) -> Result<Self, Error> {
        ServingCert::from_pair(pair).map(Self)
    }

    /// Reads the files again; what does not fit together leaves the old one.
    ///
    /// # Errors
    /// As [`ClientCert::from_files`].
    pub fn reload(&self) -> Result<(), Error> {
        self.0.reload()
    }
}

impl rustls::client::ResolvesClientCert for ClientCert {
    fn resolve(&self, _: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.current.load_full().filter(|current| current.key.choose_scheme(schemes).is_some())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl ResolvesServerCert for ServingCert {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.current.load_full()
    }
}

/// Asks for a client certificate, checks that the peer holds its key, and judges nothing else.
#[derive(Debug)]
struct RequestOnly {
    hints: Vec<DistinguishedName>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientCertVerifier for RequestOnly {
    fn offer_client_auth(&self) -> bool {
        true
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// How a server treats client certificates during the handshake.
#[derive(Debug, Clone, Default)]
pub enum ClientAuth {
    /// Asks for none.
    #[default]
    None,
    /// Asks for one and judges it later; the authorities' names go to the client as a hint.
    Request { hints: Vec<DistinguishedName> },
}

/// A server's TLS configuration: TLS 1.2 and 1.3, HTTP/2 and HTTP/1.1 by ALPN.
pub fn server_config(
    cert: impl ResolvesServerCert + 'static,
    client_auth: ClientAuth,
) -> Result<Arc<ServerConfig>, Error> {
    let provider = provider();
    let algorithms = provider.signature_verification_algorithms;
    let builder = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?;
    let builder = match client_auth {
        ClientAuth::None => builder.with_no_client_auth(),
        ClientAuth::Request { hints } => builder.with_client_cert_verifier(Arc::new(RequestOnly { hints, algorithms })),
    };
    let mut config = builder.with_cert_resolver(Arc::new(cert));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // The server chooses the suite, as Go's does.
    config.ignore_client_order = true;
    Ok(Arc::new(config))
}

/// A client's TLS configuration: trusts `ca_pem` only and shows `identity` when asked.
pub fn client_config(ca_pem: &[u8], identity: Option<&Pair>) -> Result<Arc<ClientConfig>, Error> {
    live_client_config(Some(ca_pem), identity.map(ClientCert::from_pair).transpose()?.as_ref())
}

/// A client configuration that encrypts and shows `identity` but does not check who the server is,
/// as upstream talks to kubelets when no authority for them is configured.
pub fn insecure_client_config(identity: Option<&Pair>) -> Result<Arc<ClientConfig>, Error> {
    live_client_config(None, identity.map(ClientCert::from_pair).transpose()?.as_ref())
}

/// As [`client_config`], or [`insecure_client_config`] without authorities, with a certificate that may change.
///
/// # Errors
/// Authorities that cannot be read.
pub fn live_client_config(ca_pem: Option<&[u8]>, identity: Option<&ClientCert>) -> Result<Arc<ClientConfig>, Error> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?;
    let builder = match ca_pem {
        Some(pem) => {
            let mut roots = RootCertStore::empty();
            let known = certificates(pem)?;
            for cert in &known {
                roots.add(cert.clone())?;
            }
            let verifier = ServerVerifier::new(roots, known, provider())?;
            builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
        }
        None => {
            let verifier = Arc::new(AnyServer(provider().signature_verification_algorithms));
            builder.dangerous().with_custom_certificate_verifier(verifier)
        }
    };
    Ok(Arc::new(match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => builder.with_client_cert_resolver(Arc::new(identity.clone())),
    }))
}

/// Believes any certificate, but still that its holder has the key.
#[derive(Debug)]
struct AnyServer(WebPkiSupportedAlgorithms);

impl rustls::client::danger::ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &rustls::pki_types::ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

/// Certificates (DER) as PEM, 64 characters a line.
pub fn certificates_to_pem<C: AsRef<[u8]>>(certificates: impl IntoIterator<Item = C>) -> String {
    use base64::Engine as _;
    let mut text = String::new();
    for certificate in certificates {
        let encoded = base64::engine::general_purpose::STANDARD.encode(certificate);
        text += "-----BEGIN CERTIFICATE-----\n";
        for line in encoded.as_bytes().chunks(64) {
            text += std::str::from_utf8(line).expect("base64 is ASCII");
            text.push('\n');
        }
        text += "-----END CERTIFICATE-----\n";
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::{self, Profile};

    #[test]
    fn certificates_go_by_name() {
        let cert =
            |names: &[&str]| ServingCert::from_pair(&pki::self_signed(&Profile::server("s", names)).unwrap()).unwrap();
        let named =
            vec![(vec!["*.Example.com".to_string()], cert(&["a"])), (Vec::new(), cert(&["b.example.com", "c.test"]))];
        let certs = SniCerts::new(cert(&["default"]), named).unwrap();
        let first = |name: &str| certs.find(name).names().unwrap()[0].clone();
        for (name, want) in [
            ("x.example.com", "a"),
            ("X.EXAMPLE.COM.", "a"),
            ("b.example.com", "b.example.com"),
            ("c.test", "b.example.com"),
            ("x.y.example.com", "default"),
            ("example.com", "default"),
        ] {
            assert_eq!(first(name), want, "{name}");
        }
        assert_eq!(certs.each().count(), 3);
    }

    #[test]
    fn the_cheaper_of_equal_suites_comes_first() {
        let names = |provider: &CryptoProvider| -> Vec<rustls::CipherSuite> {
            provider.cipher_suites.iter().map(|suite| suite.suite()).collect()
        };
        let (mut ours, mut all) = (names(&provider()), names(&ring::default_provider()));
        assert_eq!(ours[0], rustls::CipherSuite::TLS13_AES_128_GCM_SHA256);
        assert_eq!(ours[3], rustls::CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256);
        // None is left out.
        ours.sort_by_key(|suite| format!("{suite:?}"));
        all.sort_by_key(|suite| format!("{suite:?}"));
        assert_eq!(ours, all);
    }
}
