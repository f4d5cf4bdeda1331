//! Who may vouch for clients: authorities that may change while a server runs.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ResolvesServerCert, WebPkiClientVerifier};
use rustls::{DistinguishedName, RootCertStore, ServerConfig};

use crate::files::Watch;
use crate::tls::{ClientAuth, Error, certificates, provider, read, server_config};

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
    file: Option<Arc<PathBuf>>,
}

struct Bundle {
    verifier: Arc<dyn ClientCertVerifier>,
}

impl ClientAuthority {
    /// Authorities in PEM.
    pub fn from_pem(pem: &[u8]) -> Result<Self, Error> {
        Ok(Self { current: Arc::new(ArcSwap::from_pointee(Bundle::new(pem)?)), file: None })
    }

    /// Authorities in a file, which [`ClientAuthority::reload`] reads again.
    pub fn from_file(path: &Path) -> Result<Self, Error> {
        Ok(Self { file: Some(Arc::new(path.to_path_buf())), ..Self::from_pem(&read(path)?)? })
    }

    /// Reads the file again; one that names no authority leaves the old ones.
    pub fn reload(&self) -> Result<(), Error> {
        self.file.as_ref().map_or(Ok(()), |path| self.replace(&read(path)?))
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

/// The TLS configuration of a server that asks clients for certificates. When the authorities are in a file, it is
/// followed for as long as somebody holds the configuration: what it says counts from the next handshake on, and for
/// the next request on any connection.
///
/// # Errors
/// As [`server_config`].
pub fn live_server_config(
    cert: impl ResolvesServerCert + Clone + 'static,
    authority: Option<&ClientAuthority>,
) -> Result<Arc<ArcSwap<ServerConfig>>, Error> {
    let hints = authority.map(ClientAuthority::hints).unwrap_or_default();
    let config = server_config(cert.clone(), ClientAuth::Request { hints })?;
    let live = Arc::new(ArcSwap::new(config));
    if let Some(authority) = authority
        && let Some(path) = &authority.file
    {
        // Watched from here on, so that nothing falls between reading and watching.
        let watch = Watch::new(&[path.as_path()]);
        tokio::spawn(follow(authority.clone(), watch, cert, Arc::downgrade(&live)));
    }
    Ok(live)
}

async fn follow(
    authority: ClientAuthority,
    mut watch: Watch,
    cert: impl ResolvesServerCert + Clone + 'static,
    live: Weak<ArcSwap<ServerConfig>>,
) {
    loop {
        watch.changed().await;
        let Some(live) = live.upgrade() else { return };
        let hints = || ClientAuth::Request { hints: authority.hints() };
        match authority.reload().and_then(|()| server_config(cert.clone(), hints())) {
            Ok(config) => {
                live.store(config);
                tracing::info!("reloaded the authorities of clients");
            }
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "cannot reload the authorities of clients");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::{self, Profile};
    use crate::tls::ServingCert;

    #[tokio::test]
    async fn authorities_are_taken_over_from_their_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ca.crt");
        let (one, other) = (pki::Ca::new("one").unwrap(), pki::Ca::new("other").unwrap());
        std::fs::write(&path, one.cert_pem()).unwrap();
        let authority = ClientAuthority::from_file(&path).unwrap();
        let cert = ServingCert::from_pair(&pki::self_signed(&Profile::server("s", &["s"])).unwrap()).unwrap();
        let live = live_server_config(cert, Some(&authority)).unwrap();
        let (before, hints) = (live.load_full(), authority.hints());
        let changed = async || {
            for _ in 0..500 {
                if !Arc::ptr_eq(&before, &live.load_full()) {
                    return true;
                }
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
            false
        };
        // What is no authority changes nothing, and the file is followed on.
        std::fs::write(&path, "nonsense").unwrap();
        std::fs::write(&path, other.cert_pem()).unwrap();
        assert!(changed().await);
        assert_ne!(format!("{:?}", authority.hints()), format!("{hints:?}"));
    }
}
