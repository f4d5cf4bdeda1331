//! Certificate authorities, leaf certificates and signing keys, made with `rcgen` on ring.
//!
//! Every certificate gets an explicit distinguished name: rcgen's default subject is the same for
//! all, which would make a leaf look like its own issuer. Keys are ECDSA P-256 in PKCS#8 PEM.

mod inspect;
mod store;

use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};

pub use inspect::{Facts, facts};
pub use store::Store;

/// What went wrong while making or reading certificates.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot make a certificate")]
    Generate(#[from] rcgen::Error),
    /// A certificate that is none.
    #[error("not a certificate: {0}")]
    Certificate(String),
    /// A certificate request that is none.
    #[error("{0}")]
    Request(String),
    #[error("the certificate of {0:?} has more than two organizations")]
    TooManyOrganizations(String),
    /// A kind of key that cannot be made.
    #[error("{0}")]
    Key(String),
    #[error("cannot access {path}")]
    Io { path: String, source: std::io::Error },
}

/// A certificate and its private key, both PEM.
#[derive(Clone)]
pub struct Pair {
    pub cert_pem: String,
    pub key_pem: String,
}

impl std::fmt::Debug for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pair").field("cert_pem", &self.cert_pem).finish_non_exhaustive()
    }
}

impl Pair {
    /// Writes `<base>.crt` (0644) and `<base>.key` (0600).
    pub fn write(&self, dir: &Path, base: &str) -> Result<(), Error> {
        write_file(&dir.join(format!("{base}.crt")), &self.cert_pem, 0o644)?;
        write_file(&dir.join(format!("{base}.key")), &self.key_pem, 0o600)
    }

    /// Reads what [`Pair::write`] wrote; `None` when either file is absent.
    pub fn read(dir: &Path, base: &str) -> Result<Option<Self>, Error> {
        let cert = read_file(&dir.join(format!("{base}.crt")))?;
        let key = read_file(&dir.join(format!("{base}.key")))?;
        Ok(cert.zip(key).map(|(cert_pem, key_pem)| Self { cert_pem, key_pem }))
    }
}

fn read_file(path: &Path) -> Result<Option<String>, Error> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Io { path: path.display().to_string(), source }),
    }
}

/// Writes a file through a temporary one beside it, so that a reader never sees half of it.
pub fn write_file(path: &Path, text: &str, mode: u32) -> Result<(), Error> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let attempt = || -> std::io::Result<()> {
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir)?;
        }
        let mut name = path.as_os_str().to_os_string();
        name.push(format!(".{}.tmp", std::process::id()));
        let temporary = std::path::PathBuf::from(name);
        // A stale file of a crashed run may have another mode.
        match std::fs::remove_file(&temporary) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)
    };
    attempt().map_err(|source| Error::Io { path: path.display().to_string(), source })
}

/// What a leaf certificate may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    Server,
    Client,
    /// Both, as a kubelet's or an etcd peer's.
    Both,
}

/// A leaf certificate to issue.
#[derive(Debug, Clone)]
pub struct Profile {
    /// Common name: the user.
    pub cn: String,
    /// Organizations: the groups, at most two.
    pub orgs: Vec<String>,
    /// Subject alternative names; a text that is an IP address becomes an IP name.
    pub sans: Vec<String>,
    pub usage: Usage,
    /// How long it is valid.
    pub validity: Duration,
}

const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

impl Profile {
    /// A client certificate of this user and these groups, valid for a year.
    pub fn client(cn: &str, orgs: &[&str]) -> Self {
        Self {
            cn: cn.to_string(),
            orgs: orgs.iter().map(|org| org.to_string()).collect(),
            sans: Vec::new(),
            usage: Usage::Client,
            validity: YEAR,
        }
    }

    /// A serving certificate of these names and addresses, valid for a year.
    pub fn server(cn: &str, sans: &[&str]) -> Self {
        Self {
            cn: cn.to_string(),
            orgs: Vec::new(),
            sans: sans.iter().map(|san| san.to_string()).collect(),
            usage: Usage::Server,
            validity: YEAR,
        }
    }
}

fn name(cn: &str, orgs: &[String]) -> Result<DistinguishedName, Error> {
    let mut name = DistinguishedName::new();
    // rcgen keeps one value for each attribute type, so the second organization goes under the same
    // OID written as a custom type. No certificate of Kubernetes has more than two groups.
    let types = [DnType::OrganizationName, DnType::CustomDnType(vec![2, 5, 4, 10])];
    if orgs.len() > types.len() {
        return Err(Error::TooManyOrganizations(cn.to_string()));
    }
    for (kind, org) in types.into_iter().zip(orgs) {
        name.push(kind, org.as_str());
    }
    name.push(DnType::CommonName, cn);
    Ok(name)
}

fn validity(params: &mut CertificateParams, length: Duration) {
    let now = SystemTime::now();
    // A little in the past, so that a machine whose clock lags accepts it at once.
    params.not_before = (now - Duration::from_secs(300)).into();
    params.not_after = (now + length).into();
}

/// A certificate authority.
pub struct Ca {
    pair: Pair,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    /// A new self-signed authority, valid for ten years.
    pub fn new(cn: &str) -> Result<Self, Error> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(Vec::<String>::new())?;
        params.distinguished_name = name(cn, &[])?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        validity(&mut params, YEAR * 10);
        let cert = params.self_signed(&key)?;
        let pair = Pair { cert_pem: cert.pem(), key_pem: key.serialize_pem() };
        Ok(Self { pair, issuer: Issuer::new(params, key) })
    }

    /// An authority read from PEM.
    pub fn from_pem(pair: Pair) -> Result<Self, Error> {
        let key = KeyPair::from_pem(&pair.key_pem)?;
        let issuer = Issuer::from_ca_cert_pem(&pair.cert_pem, key)?;
        Ok(Self { pair, issuer })
    }

    /// Reads `<base>.crt` and `<base>.key`, or makes a new authority and writes them.
    pub fn load_or_create(dir: &Path, base: &str, cn: &str) -> Result<Self, Error> {
        if let Some(pair) = Pair::read(dir, base)? {
            return Self::from_pem(pair);
        }
        let ca = Self::new(cn)?;
        ca.pair.write(dir, base)?;
        Ok(ca)
    }

    /// The authority's own certificate and key.
    pub fn pair(&self) -> &Pair {
        &self.pair
    }

    /// The authority's certificate.
    pub fn cert_pem(&self) -> &str {
        &self.pair.cert_pem
    }

    /// Signs a PEM certificate request for these usages (the words of the certificates API). It is valid from
    /// `backdate` before `now` until `lifetime` after, but not beyond the authority itself.
    ///
    /// # Errors
    /// When the request is none, or its signature is wrong.
    pub fn sign_request(
        &self,
        request_pem: &str,
        usages: &[&str],
        now: jiff::Timestamp,
        backdate: Duration,
        lifetime: Duration,
    ) -> Result<String, Error> {
        let mut request = CertificateSigningRequestParams::from_pem(request_pem)?;
        let params = &mut request.params;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = usages.iter().filter_map(|usage| key_usage(usage)).collect();
        params.extended_key_usages = usages.iter().filter_map(|usage| extended_key_usage(usage)).collect();
        params.use_authority_key_identifier_extension = true;
        let now = SystemTime::from(now);
        let mut end = now + lifetime;
        if let Some(last) = not_after(self.pair.cert_pem.as_bytes()) {
            end = end.min(SystemTime::from(last));
        }
        params.not_before = (now - backdate).into();
        params.not_after = end.into();
        Ok(request.signed_by(&self.issuer)?.pem())
    }

    /// Issues a leaf certificate with a new key.
    pub fn issue(&self, profile: &Profile) -> Result<Pair, Error> {
        let key = KeyPair::generate()?;
        let params = leaf_params(profile)?;
        let cert = params.signed_by(&key, &self.issuer)?;
        Ok(Pair { cert_pem: cert.pem(), key_pem: key.serialize_pem() })
    }
}

fn key_usage(name: &str) -> Option<KeyUsagePurpose> {
    Some(match name {
        "signing" | "digital signature" => KeyUsagePurpose::DigitalSignature,
        "content commitment" => KeyUsagePurpose::ContentCommitment,
        "key encipherment" => KeyUsagePurpose::KeyEncipherment,
        "key agreement" => KeyUsagePurpose::KeyAgreement,
        "data encipherment" => KeyUsagePurpose::DataEncipherment,
        "cert sign" => KeyUsagePurpose::KeyCertSign,
        "crl sign" => KeyUsagePurpose::CrlSign,
        "encipher only" => KeyUsagePurpose::EncipherOnly,
        "decipher only" => KeyUsagePurpose::DecipherOnly,
        _ => return None,
    })
}

fn extended_key_usage(name: &str) -> Option<ExtendedKeyUsagePurpose> {
    Some(match name {
        "any" => ExtendedKeyUsagePurpose::Any,
        "server auth" => ExtendedKeyUsagePurpose::ServerAuth,
        "client auth" => ExtendedKeyUsagePurpose::ClientAuth,
        "code signing" => ExtendedKeyUsagePurpose::CodeSigning,
        "email protection" | "s/mime" => ExtendedKeyUsagePurpose::EmailProtection,
        "timestamping" => ExtendedKeyUsagePurpose::TimeStamping,
        "ocsp signing" => ExtendedKeyUsagePurpose::OcspSigning,
        _ => return None,
    })
}

/// What a certificate request asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestFacts {
    pub common_name: String,
    pub organizations: Vec<String>,
    /// How many alternative names of each kind there are.
    pub dns_names: usize,
    pub ip_addresses: usize,
    pub emails: usize,
    pub uris: usize,
    /// The names and addresses themselves.
    pub names: Vec<String>,
}

/// Reads a PEM certificate request.
///
/// # Errors
/// When it is none.
pub fn read_request(pem: &str) -> Result<RequestFacts, Error> {
    use x509_parser::extensions::{GeneralName, ParsedExtension};
    use x509_parser::prelude::FromDer as _;
    let malformed = || Error::Request("PEM block type must be CERTIFICATE REQUEST".to_string());
    let (_, block) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).map_err(|_| malformed())?;
    if block.label != "CERTIFICATE REQUEST" {
        return Err(malformed());
    }
    let (_, request) = x509_parser::certification_request::X509CertificationRequest::from_der(&block.contents)
        .map_err(|error| Error::Request(error.to_string()))?;
    let subject = &request.certification_request_info.subject;
    let text =
        |attribute: &x509_parser::x509::AttributeTypeAndValue<'_>| attribute.as_str().unwrap_or_default().to_string();
    let mut facts = RequestFacts {
        common_name: subject.iter_common_name().last().map(text).unwrap_or_default(),
        organizations: subject.iter_organization().map(text).collect(),
        ..RequestFacts::default()
    };
    for extension in request.requested_extensions().into_iter().flatten() {
        let ParsedExtension::SubjectAlternativeName(names) = extension else { continue };
        for name in &names.general_names {
            match name {
                GeneralName::DNSName(name) => {
                    facts.dns_names += 1;
                    facts.names.push((*name).to_string());
                }
                GeneralName::IPAddress(bytes) => {
                    facts.ip_addresses += 1;
                    facts.names.extend(inspect::address(bytes));
                }
                GeneralName::RFC822Name(_) => facts.emails += 1,
                GeneralName::URI(_) => facts.uris += 1,
                _ => {}
            }
        }
    }
    Ok(facts)
}

/// When the first certificate of PEM data expires.
pub fn not_after(pem: &[u8]) -> Option<jiff::Timestamp> {
    let (_, block) = x509_parser::pem::parse_x509_pem(pem).ok()?;
    let certificate = block.parse_x509().ok()?;
    jiff::Timestamp::from_second(certificate.validity().not_after.timestamp()).ok()
}

fn leaf_params(profile: &Profile) -> Result<CertificateParams, Error> {
    let mut params = CertificateParams::new(Vec::<String>::new())?;
    params.distinguished_name = name(&profile.cn, &profile.orgs)?;
    for san in &profile.sans {
        params.subject_alt_names.push(match san.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(san.as_str().try_into()?),
        });
    }
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    params.extended_key_usages = match profile.usage {
        Usage::Server => vec![ExtendedKeyUsagePurpose::ServerAuth],
        Usage::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
        Usage::Both => vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
    };
    params.use_authority_key_identifier_extension = true;
    validity(&mut params, profile.validity);
    Ok(params)
}

/// A certificate request for this subject and these names, and its key, both PEM.
///
/// # Errors
/// Names that are none.
pub fn request(profile: &Profile) -> Result<(String, String), Error> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(Vec::<String>::new())?;
    params.distinguished_name = name(&profile.cn, &profile.orgs)?;
    params.subject_alt_names = leaf_params(profile)?.subject_alt_names;
    Ok((params.serialize_request(&key)?.pem()?, key.serialize_pem()))
}

/// A new key of a type as `podCertificate` names them, PKCS#8 PEM, and a request that says nothing but that its sender
/// holds the key, DER.
///
/// # Errors
/// Types that are none, and those that ring makes no keys of: RSA and P-521.
pub fn stub_request(key_type: &str) -> Result<(String, Vec<u8>), Error> {
    let algorithm = match key_type {
        "ECDSAP256" => &rcgen::PKCS_ECDSA_P256_SHA256,
        "ECDSAP384" => &rcgen::PKCS_ECDSA_P384_SHA384,
        "ED25519" => &rcgen::PKCS_ED25519,
        "RSA3072" | "RSA4096" | "ECDSAP521" => {
            return Err(Error::Key(format!("keys of type {key_type:?} cannot be made by this kubelet")));
        }
        _ => return Err(Error::Key(format!("unknown key type {key_type:?}"))),
    };
    let key = KeyPair::generate_for(algorithm)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    Ok((key.serialize_pem(), params.serialize_request(&key)?.der().to_vec()))
}

/// A serving certificate that its own key signs, for a component that was given none.
pub fn self_signed(profile: &Profile) -> Result<Pair, Error> {
    let key = KeyPair::generate()?;
    let cert = leaf_params(profile)?.self_signed(&key)?;
    Ok(Pair { cert_pem: cert.pem(), key_pem: key.serialize_pem() })
}

/// A key pair to sign service-account tokens with: ECDSA P-256 (`ES256`), private PKCS#8 and public
/// SPKI, both PEM.
#[derive(Clone)]
pub struct SigningKey {
    pub private_pem: String,
    pub public_pem: String,
}

impl SigningKey {
    pub fn generate() -> Result<Self, Error> {
        let key = KeyPair::generate()?;
        Ok(Self { private_pem: key.serialize_pem(), public_pem: key.public_key_pem() })
    }

    /// Reads `<base>.key` and `<base>.pub`, or makes and writes them.
    pub fn load_or_create(dir: &Path, base: &str) -> Result<Self, Error> {
        let private_path = dir.join(format!("{base}.key"));
        let public_path = dir.join(format!("{base}.pub"));
        if let (Some(private_pem), Some(public_pem)) = (read_file(&private_path)?, read_file(&public_path)?) {
            return Ok(Self { private_pem, public_pem });
        }
        let key = Self::generate()?;
        write_file(&private_path, &key.private_pem, 0o600)?;
        write_file(&public_path, &key.public_pem, 0o644)?;
        Ok(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls;

    #[test]
    fn leaves_carry_user_and_groups_and_verify_against_their_authority() {
        let ca = Ca::new("kubernetes").unwrap();
        let pair = ca.issue(&Profile::client("admin", &["system:masters", "ops"])).unwrap();
        let authority = tls::ClientAuthority::from_pem(ca.cert_pem().as_bytes()).unwrap();
        let chain = tls::certificates(pair.cert_pem.as_bytes()).unwrap();
        let identity = authority.verify(&chain).unwrap();
        assert_eq!(identity.common_name, "admin");
        assert_eq!(identity.organizations, ["system:masters", "ops"]);

        let other = Ca::new("kubernetes").unwrap();
        let stranger = tls::ClientAuthority::from_pem(other.cert_pem().as_bytes()).unwrap();
        assert!(stranger.verify(&chain).is_err());

        let server = ca.issue(&Profile::server("kube-apiserver", &["localhost", "127.0.0.1"])).unwrap();
        let chain = tls::certificates(server.cert_pem.as_bytes()).unwrap();
        assert!(authority.verify(&chain).is_err(), "a serving certificate is no client's");
    }

    #[test]
    fn requests_say_what_was_asked_for() {
        let profile =
            Profile { orgs: vec!["system:nodes".into()], ..Profile::server("system:node:a", &["a", "10.0.0.1"]) };
        let (pem, _) = request(&profile).unwrap();
        let facts = read_request(&pem).unwrap();
        assert_eq!((facts.common_name.as_str(), facts.dns_names, facts.ip_addresses), ("system:node:a", 1, 1));
        assert_eq!(facts.organizations, ["system:nodes"]);
        assert_eq!(facts.names, ["a", "10.0.0.1"]);
    }

    #[test]
    fn authorities_survive_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let first = Ca::load_or_create(dir.path(), "ca", "kubernetes").unwrap();
        let second = Ca::load_or_create(dir.path(), "ca", "kubernetes").unwrap();
        assert_eq!(first.cert_pem(), second.cert_pem());
        let pair = second.issue(&Profile::client("u", &[])).unwrap();
        let authority = tls::ClientAuthority::from_pem(first.cert_pem().as_bytes()).unwrap();
        let chain = tls::certificates(pair.cert_pem.as_bytes()).unwrap();
        assert_eq!(authority.verify(&chain).unwrap().common_name, "u");
        let key = SigningKey::load_or_create(dir.path(), "sa").unwrap();
        assert_eq!(key.public_pem, SigningKey::load_or_create(dir.path(), "sa").unwrap().public_pem);
    }
}
