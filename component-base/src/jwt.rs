//! JSON Web Tokens of RFC 7519, signed RS256 or ES256 with ring: just what tokens of this
//! cluster and of OpenID issuers need. The key id is upstream's: base64url of the SHA-256 of the public key's SPKI.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{
    self, ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, RsaKeyPair, UnparsedPublicKey,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, SubjectPublicKeyInfoDer};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// Why a key or token is no good.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("no usable key in the PEM data")]
    NoKey,
    #[error("key rejected: {0}")]
    Key(String),
    #[error("token is malformed")]
    Malformed,
    #[error("token is signed by an unknown key")]
    UnknownKey,
    #[error("token signature is wrong")]
    Signature,
    #[error("signing failed")]
    Signing,
}

/// The DER header of a P-256 SubjectPublicKeyInfo, before the 65 bytes of the point.
const P256_SPKI: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// AlgorithmIdentifier of rsaEncryption with NULL parameters.
const RSA_ALGORITHM: [u8; 15] =
    [0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Algorithm {
    Rs256,
    Es256,
}

impl Algorithm {
    fn name(self) -> &'static str {
        match self {
            Algorithm::Rs256 => "RS256",
            Algorithm::Es256 => "ES256",
        }
    }
}

/// A key that checks signatures.
#[derive(Clone, Debug)]
pub struct PublicKey {
    algorithm: Algorithm,
    /// PKCS#1 `RSAPublicKey`, or the uncompressed point.
    bytes: Vec<u8>,
    /// The key id.
    pub id: String,
}

fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    let length = content.len();
    if length < 0x80 {
        out.push(length as u8);
    } else {
        let bytes = length.to_be_bytes();
        let first = bytes.iter().position(|byte| *byte != 0).expect("the length is not zero");
        out.push(0x80 | (bytes.len() - first) as u8);
        out.extend_from_slice(&bytes[first..]);
    }
    out.extend_from_slice(content);
    out
}

impl PublicKey {
    fn new(algorithm: Algorithm, bytes: Vec<u8>) -> Self {
        let spki = match algorithm {
            Algorithm::Es256 => [P256_SPKI.as_slice(), &bytes].concat(),
            Algorithm::Rs256 => {
                let bits = der(0x03, &[&[0u8], bytes.as_slice()].concat());
                der(0x30, &[RSA_ALGORITHM.as_slice(), &bits].concat())
            }
        };
        let id = URL_SAFE_NO_PAD.encode(Sha256::digest(&spki));
        Self { algorithm, bytes, id }
    }

    fn from_spki(spki: &[u8]) -> Result<Self, Error> {
        use x509_parser::prelude::FromDer as _;
        let (_, info) =
            x509_parser::x509::SubjectPublicKeyInfo::from_der(spki).map_err(|error| Error::Key(error.to_string()))?;
        let bytes = info.subject_public_key.data.to_vec();
        match info.algorithm.algorithm.to_id_string().as_str() {
            "1.2.840.113549.1.1.1" => Ok(Self::new(Algorithm::Rs256, bytes)),
            "1.2.840.10045.2.1" if bytes.len() == 65 => Ok(Self::new(Algorithm::Es256, bytes)),
            other => Err(Error::Key(format!("unsupported algorithm {other}"))),
        }
    }

    /// Every key in PEM data: public keys, certificates, or private keys (their public half), as
    /// `--service-account-key-file` may hold.
    ///
    /// # Errors
    /// [`Error::NoKey`] when nothing usable is there.
    pub fn from_pem(pem: &[u8]) -> Result<Vec<Self>, Error> {
        let mut keys = Vec::new();
        for spki in SubjectPublicKeyInfoDer::pem_slice_iter(pem).flatten() {
            keys.push(Self::from_spki(&spki)?);
        }
        for certificate in CertificateDer::pem_slice_iter(pem).flatten() {
            let (_, parsed) =
                x509_parser::parse_x509_certificate(&certificate).map_err(|error| Error::Key(error.to_string()))?;
            keys.push(Self::from_spki(parsed.tbs_certificate.subject_pki.raw)?);
        }
        if keys.is_empty() {
            keys.push(PrivateKey::from_pem(pem)?.public());
        }
        Ok(keys)
    }

    /// As a JSON Web Key.
    pub fn to_jwk(&self) -> Value {
        let mut key = json!({"use": "sig", "kid": self.id, "alg": self.algorithm.name()});
        match self.algorithm {
            Algorithm::Es256 => {
                key["kty"] = "EC".into();
                key["crv"] = "P-256".into();
                key["x"] = URL_SAFE_NO_PAD.encode(&self.bytes[1..33]).into();
                key["y"] = URL_SAFE_NO_PAD.encode(&self.bytes[33..]).into();
            }
            Algorithm::Rs256 => {
                key["kty"] = "RSA".into();
                if let Some((modulus, exponent)) = rsa_integers(&self.bytes) {
                    key["n"] = URL_SAFE_NO_PAD.encode(modulus).into();
                    key["e"] = URL_SAFE_NO_PAD.encode(exponent).into();
                }
            }
        }
        key
    }

    /// From a JSON Web Key; `None` for keys of a kind or use that is not known here.
    pub fn from_jwk(key: &Value) -> Option<Self> {
        let text = |name: &str| key.get(name)?.as_str();
        let number = |name: &str| URL_SAFE_NO_PAD.decode(text(name)?.trim_end_matches('=')).ok();
        if text("use").is_some_and(|use_| use_ != "sig") {
            return None;
        }
        let mut public = match (text("kty")?, text("crv")) {
            ("EC", Some("P-256")) => {
                let (x, y) = (number("x")?, number("y")?);
                let point = [&[4], x.as_slice(), y.as_slice()].concat();
                (x.len() == 32 && y.len() == 32).then(|| Self::new(Algorithm::Es256, point))?
            }
            ("RSA", _) => {
                // The first bit of an INTEGER is its sign.
                let integer = |bytes: Vec<u8>| match bytes.first() {
                    Some(first) if *first >= 0x80 => der(0x02, &[&[0u8], bytes.as_slice()].concat()),
                    _ => der(0x02, &bytes),
                };
                let content = [integer(number("n")?), integer(number("e")?)].concat();
                Self::new(Algorithm::Rs256, der(0x30, &content))
            }
            _ => return None,
        };
        if let Some(id) = text("kid") {
            public.id = id.to_string();
        }
        Some(public)
    }

    /// `RS256` or `ES256`.
    pub fn algorithm(&self) -> &'static str {
        self.algorithm.name()
    }

    fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        let algorithm: &dyn signature::VerificationAlgorithm = match self.algorithm {
            Algorithm::Rs256 => &RSA_PKCS1_2048_8192_SHA256,
            Algorithm::Es256 => &ECDSA_P256_SHA256_FIXED,
        };
        UnparsedPublicKey::new(algorithm, &self.bytes).verify(message, signature).is_ok()
    }
}

/// Modulus and exponent of a PKCS#1 `RSAPublicKey`, without leading zeros.
fn rsa_integers(pkcs1: &[u8]) -> Option<(&[u8], &[u8])> {
    fn element<'a>(input: &mut &'a [u8], tag: u8) -> Option<&'a [u8]> {
        let (first, rest) = input.split_first()?;
        let (length, rest) = rest.split_first()?;
        (*first == tag).then_some(())?;
        let (length, rest) = if *length < 0x80 {
            (usize::from(*length), rest)
        } else {
            let count = usize::from(*length & 0x7f);
            let length = rest.get(..count)?.iter().fold(0usize, |sum, byte| (sum << 8) | usize::from(*byte));
            (length, &rest[count..])
        };
        *input = rest.get(length..)?;
        rest.get(..length)
    }
    let mut outer = pkcs1;
    let mut sequence = element(&mut outer, 0x30)?;
    let modulus = element(&mut sequence, 0x02)?;
    let exponent = element(&mut sequence, 0x02)?;
    let strip = |bytes: &[u8]| bytes.iter().take_while(|byte| **byte == 0).count();
    Some((&modulus[strip(modulus)..], &exponent[strip(exponent)..]))
}

enum Pair {
    Rsa(Box<RsaKeyPair>),
    Ec(Box<EcdsaKeyPair>),
}

/// A key that signs.
pub struct PrivateKey {
    pair: Pair,
    random: SystemRandom,
}

impl PrivateKey {
    /// The first private key of PEM data: PKCS#8, PKCS#1 or SEC1.
    ///
    /// # Errors
    /// When there is none, or it is neither RSA (2048 bits and more) nor P-256.
    pub fn from_pem(pem: &[u8]) -> Result<Self, Error> {
        let key = PrivateKeyDer::from_pem_slice(pem).map_err(|_| Error::NoKey)?;
        let random = SystemRandom::new();
        let rejected = |error: ring::error::KeyRejected| Error::Key(error.to_string());
        let pair = match &key {
            PrivateKeyDer::Pkcs1(der) => {
                Pair::Rsa(Box::new(RsaKeyPair::from_der(der.secret_pkcs1_der()).map_err(rejected)?))
            }
            PrivateKeyDer::Pkcs8(der) => {
                let der = der.secret_pkcs8_der();
                match EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der, &random) {
                    Ok(pair) => Pair::Ec(Box::new(pair)),
                    Err(_) => Pair::Rsa(Box::new(RsaKeyPair::from_pkcs8(der).map_err(rejected)?)),
                }
            }
            PrivateKeyDer::Sec1(der) => {
                let pkcs8 = sec1_to_pkcs8(der.secret_sec1_der());
                Pair::Ec(Box::new(
                    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &pkcs8, &random).map_err(rejected)?,
                ))
            }
            _ => return Err(Error::NoKey),
        };
        Ok(Self { pair, random })
    }

    /// The half that checks.
    pub fn public(&self) -> PublicKey {
        match &self.pair {
            Pair::Rsa(pair) => PublicKey::new(Algorithm::Rs256, pair.public_key().as_ref().to_vec()),
            Pair::Ec(pair) => PublicKey::new(Algorithm::Es256, pair.public_key().as_ref().to_vec()),
        }
    }

    /// A compact token of these claims.
    ///
    /// # Errors
    /// [`Error::Signing`] when the system's randomness fails.
    pub fn sign(&self, claims: &Value) -> Result<String, Error> {
        let public = self.public();
        let header = json!({"alg": public.algorithm.name(), "kid": public.id});
        let mut token = URL_SAFE_NO_PAD.encode(header.to_string());
        token.push('.');
        token.push_str(&URL_SAFE_NO_PAD.encode(claims.to_string()));
        let signature = match &self.pair {
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &self.random, token.as_bytes(), &mut signature)
                    .map_err(|_| Error::Signing)?;
                signature
            }
            Pair::Ec(pair) => pair.sign(&self.random, token.as_bytes()).map_err(|_| Error::Signing)?.as_ref().to_vec(),
        };
        token.push('.');
        token.push_str(&URL_SAFE_NO_PAD.encode(signature));
        Ok(token)
    }
}

/// Wraps an RFC 5915 `ECPrivateKey` on P-256 into PKCS#8, the only form ring reads.
fn sec1_to_pkcs8(sec1: &[u8]) -> Vec<u8> {
    let algorithm = &P256_SPKI[2..23];
    let content = [&[0x02, 0x01, 0x00], algorithm, der(0x04, sec1).as_slice()].concat();
    der(0x30, &content)
}

/// Checks a token's signature and returns its claims. Nothing else about it is checked.
///
/// # Errors
/// When it is no token, or none of the keys made it.
pub fn verify(token: &str, keys: &[PublicKey]) -> Result<Value, Error> {
    let (message, signature) = token.rsplit_once('.').ok_or(Error::Malformed)?;
    let (header, claims) = message.split_once('.').ok_or(Error::Malformed)?;
    let part = |text: &str| -> Result<Value, Error> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| Error::Malformed)?;
        serde_json::from_slice(&bytes).map_err(|_| Error::Malformed)
    };
    let header = part(header)?;
    let claims = part(claims)?;
    let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| Error::Malformed)?;
    let algorithm = header.get("alg").and_then(Value::as_str).unwrap_or_default();
    let id = header.get("kid").and_then(Value::as_str);
    let mut candidates =
        keys.iter().filter(|key| key.algorithm.name() == algorithm && id.is_none_or(|id| id == key.id)).peekable();
    if candidates.peek().is_none() {
        return Err(Error::UnknownKey);
    }
    if candidates.any(|key| key.verify(message.as_bytes(), &signature)) { Ok(claims) } else { Err(Error::Signature) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_and_verifies() {
        let pair = rcgen::KeyPair::generate().unwrap();
        let key = PrivateKey::from_pem(pair.serialize_pem().as_bytes()).unwrap();
        let token = key.sign(&json!({"sub": "x"})).unwrap();
        let keys = PublicKey::from_pem(pair.public_key_pem().as_bytes()).unwrap();
        assert_eq!(keys[0].id, key.public().id);
        assert_eq!(verify(&token, &keys).unwrap(), json!({"sub": "x"}));
        let mut forged = token.clone();
        forged.truncate(token.len() - 4);
        forged.push_str("AAAA");
        assert!(matches!(verify(&forged, &keys), Err(Error::Signature)));
        assert!(matches!(verify(&token, &[]), Err(Error::UnknownKey)));
        assert!(matches!(verify("a.b", &keys), Err(Error::Malformed)));
        let jwk = PublicKey::from_jwk(&keys[0].to_jwk()).unwrap();
        assert_eq!((&jwk.bytes, &jwk.id), (&keys[0].bytes, &keys[0].id));
    }
}
