//! TLS configurations on rustls with ring: servers, clients, client-certificate checks, hot reload.
//!
//! Servers ask for a client certificate without demanding or judging one during the handshake, as
//! kube-apiserver does: a bad certificate must become a 401, not a broken connection. The
//! certificate is judged afterwards with [`ClientAuthority`].

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme};

use crate::pki::Pair;

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

fn provider() -> Arc<CryptoProvider> {
    // One provider for the whole process, made once.
    static PROVIDER: std::sync::OnceLock<Arc<CryptoProvider>> = std::sync::OnceLock::new();
    PROVIDER.get_or_init(|| Arc::new(ring::default_provider())).clone()
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

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|source| Error::Io { path: path.display().to_string(), source })
}

/// A serving certificate that can be replaced while the server runs; new connections use the new one.
#[derive(Clone)]
pub struct ServingCert {
    current: Arc<ArcSwap<CertifiedKey>>,
    files: Option<Arc<(PathBuf, PathBuf)>>,
}

impl std::fmt::Debug for ServingCert {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServingCert").field("files", &self.files).finish_non_exhaustive()
    }
}

impl ServingCert {
    /// A fixed certificate, which [`ServingCert::replace`] may change.
    pub fn from_pair(pair: &Pair) -> Result<Self, Error> {
        let key = certified_key(pair.cert_pem.as_bytes(), pair.key_pem.as_bytes())?;
        Ok(Self { current: Arc::new(ArcSwap::from_pointee(key)), files: None })
    }

    /// A certificate in files, which [`ServingCert::watch`] follows.
    pub fn from_files(cert: &Path, key: &Path) -> Result<Self, Error> {
        let certified = certified_key(&read(cert)?, &read(key)?)?;
        Ok(Self {
            current: Arc::new(ArcSwap::from_pointee(certified)),
            files: Some(Arc::new((cert.to_path_buf(), key.to_path_buf()))),
        })
    }

    /// Serves another certificate from now on.
    pub fn replace(&self, pair: &Pair) -> Result<(), Error> {
        let key = certified_key(pair.cert_pem.as_bytes(), pair.key_pem.as_bytes())?;
        self.current.store(Arc::new(key));
        Ok(())
    }

    /// Reads the files again; a pair that does not fit together (half written) leaves the old one.
    pub fn reload(&self) -> Result<(), Error> {
        if let Some(files) = &self.files {
            let key = certified_key(&read(&files.0)?, &read(&files.1)?)?;
            self.current.store(Arc::new(key));
        }
        Ok(())
    }

    /// Follows the files until the returned future is dropped, looking once a minute as upstream
    /// does when it has no notification.
    pub async fn watch(self) {
        let mut seen = self.stamp();
        loop {
            tokio::time::sleep(Duration::from_secs(60)).await;
            let now = self.stamp();
            if now == seen {
                continue;
            }
            match self.reload() {
                Ok(()) => {
                    seen = now;
                    tracing::info!("reloaded the serving certificate");
                }
                Err(error) => {
                    tracing::error!(error = &error as &dyn std::error::Error, "cannot reload the serving certificate")
                }
            }
        }
    }

    fn stamp(&self) -> Vec<Option<SystemTime>> {
        let Some(files) = &self.files else {
            return Vec::new();
        };
        [&files.0, &files.1].iter().map(|path| std::fs::metadata(path).and_then(|meta| meta.modified()).ok()).collect()
    }
}

impl ResolvesServerCert for ServingCert {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
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
pub fn server_config(cert: ServingCert, client_auth: ClientAuth) -> Result<Arc<ServerConfig>, Error> {
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
    Ok(Arc::new(config))
}

/// A client's TLS configuration: trusts `ca_pem` only and shows `identity` when asked.
pub fn client_config(ca_pem: &[u8], identity: Option<&Pair>) -> Result<Arc<ClientConfig>, Error> {
    let mut roots = RootCertStore::empty();
    for cert in certificates(ca_pem)? {
        roots.add(cert)?;
    }
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_root_certificates(roots);
    let config = match identity {
        None => builder.with_no_client_auth(),
        Some(pair) => {
            let chain = certificates(pair.cert_pem.as_bytes())?;
            let key = PrivateKeyDer::from_pem_slice(pair.key_pem.as_bytes())
                .map_err(|error| Error::Pem(error.to_string()))?;
            builder.with_client_auth_cert(chain, key)?
        }
    };
    Ok(Arc::new(config))
}

/// A client configuration that encrypts and shows `identity` but does not check who the server is,
/// as upstream talks to kubelets when no authority for them is configured.
pub fn insecure_client_config(identity: Option<&Pair>) -> Result<Arc<ClientConfig>, Error> {
    let verifier = Arc::new(AnyServer(provider().signature_verification_algorithms));
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let config = match identity {
        None => builder.with_no_client_auth(),
        Some(pair) => {
            let chain = certificates(pair.cert_pem.as_bytes())?;
            let key = PrivateKeyDer::from_pem_slice(pair.key_pem.as_bytes())
                .map_err(|error| Error::Pem(error.to_string()))?;
            builder.with_client_auth_cert(chain, key)?
        }
    };
    Ok(Arc::new(config))
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

/// Who a client certificate says its holder is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The user.
    pub common_name: String,
    /// The groups.
    pub organizations: Vec<String>,
    /// `X509SHA256=…` as upstream puts it into the user's extra
    /// `authentication.kubernetes.io/credential-id`.
    pub credential_id: String,
}

/// Judges client certificates against a bundle of authorities, which may be replaced at run time.
#[derive(Clone)]
pub struct ClientAuthority {
    current: Arc<ArcSwap<Bundle>>,
}

struct Bundle {
    verifier: Arc<dyn ClientCertVerifier>,
}

impl ClientAuthority {
    /// Authorities in PEM.
    pub fn from_pem(pem: &[u8]) -> Result<Self, Error> {
        Ok(Self { current: Arc::new(ArcSwap::from_pointee(Bundle::new(pem)?)) })
    }

    /// Authorities in a file.
    pub fn from_file(path: &Path) -> Result<Self, Error> {
        Self::from_pem(&read(path)?)
    }

    /// Trusts another bundle from now on.
    pub fn replace(&self, pem: &[u8]) -> Result<(), Error> {
        self.current.store(Arc::new(Bundle::new(pem)?));
        Ok(())
    }

    /// The authorities' names, for [`ClientAuth::Request`].
    pub fn hints(&self) -> Vec<DistinguishedName> {
        self.current.load().verifier.root_hint_subjects().to_vec()
    }

    /// The identity in the first certificate of `chain`, when an authority vouches for it for client
    /// use and now is within its validity.
    pub fn verify(&self, chain: &[CertificateDer<'_>]) -> Result<Identity, Error> {
        let (leaf, intermediates) = chain.split_first().ok_or(Error::NoCertificate)?;
        self.current
            .load()
            .verifier
            .verify_client_cert(leaf, intermediates, UnixTime::now())
            .map_err(|error| Error::Refused(error.to_string()))?;
        identity(leaf)
    }
}

impl Bundle {
    fn new(pem: &[u8]) -> Result<Self, Error> {
        let mut roots = RootCertStore::empty();
        for cert in certificates(pem)? {
            roots.add(cert)?;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
            .build()
            .map_err(|error| Error::Refused(error.to_string()))?;
        Ok(Self { verifier })
    }
}

/// The identity a certificate states, without judging it.
pub fn identity(cert: &CertificateDer<'_>) -> Result<Identity, Error> {
    use sha2::{Digest as _, Sha256};
    let (_, parsed) = x509_parser::parse_x509_certificate(cert).map_err(|error| Error::Refused(error.to_string()))?;
    let subject = parsed.subject();
    let text = |attribute: &x509_parser::x509::AttributeTypeAndValue<'_>| attribute.as_str().map(String::from).ok();
    let digest = Sha256::digest(cert);
    Ok(Identity {
        common_name: subject.iter_common_name().filter_map(text).last().unwrap_or_default(),
        organizations: subject.iter_organization().filter_map(text).collect(),
        credential_id: format!("X509SHA256={}", digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>()),
    })
}
