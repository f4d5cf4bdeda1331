//! PodCertificateRequest.

use std::time::Duration;

use apimachinery::field::{self, BadValue, ErrorList, FieldError, Path};
use apimachinery::{go_base64, names};
use jiff::Timestamp;
use serde_json::{Value, json};
use x509_parser::certificate::X509Certificate;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::super::checks::{immutable, name_is_subdomain, semantically_equal};
use super::super::{conditions, object_meta};
use super::{pem, signer_name};
use crate::read::Read;

/// What may become of a request, once.
const ENDS: [&str; 3] = ["Issued", "Denied", "Failed"];
const LONGEST_UID: usize = 128;
const LARGEST_REQUEST: usize = 10 * 1024;
const LARGEST_CHAIN: usize = 100 * 1024;
const ANNOTATIONS: usize = 256 * 1024;
const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;
/// From the beginning of a certificate's life to its renewal, and from there to its end, at least.
const MARGIN: Duration = Duration::from_secs(600);

/// Whether a signer is one of Kubernetes' own.
pub(in super::super) fn is_of_kubernetes(signer: &str) -> bool {
    let host = signer.split('/').next().unwrap_or_default();
    host == "kubernetes.io" || host.ends_with(".kubernetes.io")
}

/// What a pod tells its signer: keys with a domain, and not too much.
pub(in super::super) fn user_annotations(annotations: &Value, path: &Path, errors: &mut ErrorList) {
    let mut size = 0;
    for (key, value) in annotations.as_object().into_iter().flatten() {
        size += key.len() + value.as_str().map_or(0, str::len);
        let key = key.to_lowercase();
        let wrong = names::qualified_name(&key);
        if key.is_empty() {
            errors.push(field::required(path, ""));
        } else if !wrong.is_empty() {
            errors.extend(wrong.into_iter().map(|message| field::invalid(path, &key, message)));
        } else if !key.contains('/') {
            errors.push(field::invalid(path, &key, "must be a domain-prefixed key (such as \"acme.io/foo\")"));
        }
    }
    if size > ANNOTATIONS {
        errors.push(field::too_long(path, ANNOTATIONS));
    }
}

pub(in super::super) fn create(request: &Value, errors: &mut ErrorList) {
    object_meta::create(request, true, name_is_subdomain, errors);
    let (spec, path) = (&request["spec"], Path::new("spec"));
    signer_name(spec.text("signerName"), &path.child("signerName"), errors);
    user_annotations(&spec["unverifiedUserAnnotations"], &path.child("unverifiedUserAnnotations"), errors);
    for (name, uid) in [("podName", "podUID"), ("serviceAccountName", "serviceAccountUID"), ("nodeName", "nodeUID")] {
        for message in names::dns1123_subdomain(spec.text(name)) {
            errors.push(field::invalid(&path.child(name), spec.text(name), message));
        }
        if spec.text(uid).is_empty() {
            errors.push(field::invalid(&path.child(uid), "", "must not be empty"));
        }
        if spec.text(uid).len() > LONGEST_UID {
            errors.push(field::too_long(&path.child(uid), LONGEST_UID));
        }
    }
    let at = path.child("maxExpirationSeconds");
    let Some(seconds) = spec.int("maxExpirationSeconds") else {
        errors.push(field::required(&at, "must be set"));
        return;
    };
    let most = if is_of_kubernetes(spec.text("signerName")) { DAY } else { 91 * DAY };
    if !(HOUR..=most).contains(&seconds) {
        errors.push(field::invalid(&at, seconds, format!("must be in the range [{HOUR}, {most}]")));
    }
    let given = |name: &str| !spec.text(name).is_empty();
    match (given("stubPKCS10Request"), given("pkixPublicKey"), given("proofOfPossession")) {
        (true, false, false) => stub(spec, &path, errors),
        (false, true, true) => key_and_proof(spec, &path, errors),
        _ => {
            let message = "exactly one of (stubPKCS10Request) or (pkixPublicKey, proofOfPossession) must be set";
            errors.push(field::invalid(&path, BadValue::Omitted, message));
        }
    }
}

fn bytes(encoded: &str) -> Vec<u8> {
    go_base64::decode(encoded).unwrap_or_default()
}

const P256: &str = "1.2.840.10045.3.1.7";
const P384: &str = "1.3.132.0.34";
const P521: &str = "1.3.132.0.35";

/// What is wrong with a key: the value to show, and why.
fn unfit(key: &SubjectPublicKeyInfo<'_>, curves: &str) -> Option<(BadValue, String)> {
    const ED25519: &str = "1.3.101.112";
    match key.parsed() {
        Ok(PublicKey::EC(_)) => {
            let curve = key.algorithm.parameters.as_ref().and_then(|of| of.as_oid().ok());
            let curve = curve.map(|oid| oid.to_id_string()).unwrap_or_default();
            let fits = [P256, P384, P521].contains(&curve.as_str());
            let name = if curve == "1.3.132.0.33" { "P-224" } else { curve.as_str() };
            (!fits).then(|| (format!("curve {name}").into(), format!("elliptic public keys must use curve {curves}")))
        }
        Ok(PublicKey::RSA(rsa)) => {
            let bits = rsa.key_size();
            let message = "RSA keys must have modulus size 3072 or 4096".to_owned();
            (!matches!(bits, 3072 | 4096)).then(|| (format!("{bits}-bit modulus").into(), message))
        }
        _ if key.algorithm.algorithm.to_id_string() == ED25519 => None,
        _ => {
            let message = "unknown public key type; supported types are Ed25519, ECDSA, and RSA".to_owned();
            Some((BadValue::Omitted, message))
        }
    }
}

fn stub(spec: &Value, path: &Path, errors: &mut ErrorList) {
    let (at, der) = (path.child("stubPKCS10Request"), bytes(spec.text("stubPKCS10Request")));
    if der.len() > LARGEST_REQUEST {
        errors.push(field::too_long(&at, LARGEST_REQUEST));
        return;
    }
    let Ok(([], request)) = X509CertificationRequest::from_der(&der) else {
        errors.push(field::invalid(&at, BadValue::Omitted, "must be a valid PKCS#10 CSR"));
        return;
    };
    if let Some((shown, message)) = unfit(&request.certification_request_info.subject_pki, "P256, P384, or P521") {
        errors.push(field::invalid(&at, shown, message));
    } else if request.verify_signature().is_err() {
        // Also what `ring` has no code for, which is the curve P-521.
        errors.push(field::invalid(&at, BadValue::Omitted, "invalid signature"));
    }
}

/// The form before stubs, in which the pod's uid is what is signed.
fn key_and_proof(spec: &Value, path: &Path, errors: &mut ErrorList) {
    let (key_at, proof_at) = (path.child("pkixPublicKey"), path.child("proofOfPossession"));
    let (key, proof) = (bytes(spec.text("pkixPublicKey")), bytes(spec.text("proofOfPossession")));
    for (at, length) in [(&key_at, key.len()), (&proof_at, proof.len())] {
        if length > LARGEST_REQUEST {
            errors.push(field::too_long(at, LARGEST_REQUEST));
            return;
        }
    }
    let Ok(([], parsed)) = SubjectPublicKeyInfo::from_der(&key) else {
        let message = "must be a valid PKIX-serialized public key";
        errors.push(field::invalid(&key_at, &spec["pkixPublicKey"], message));
        return;
    };
    if let Some((shown, message)) = unfit(&parsed, "P256 or P384") {
        errors.push(field::invalid(&key_at, shown, message));
        return;
    }
    if !is_proven(&parsed, spec.text("podUID").as_bytes(), &proof) {
        let message = "could not verify proof-of-possession signature";
        errors.push(field::invalid(&proof_at, BadValue::Omitted, message));
    }
}

fn is_proven(key: &SubjectPublicKeyInfo<'_>, message: &[u8], proof: &[u8]) -> bool {
    use ring::signature;
    let curve = key.algorithm.parameters.as_ref().and_then(|of| of.as_oid().ok()).map(|oid| oid.to_id_string());
    let algorithm: &dyn signature::VerificationAlgorithm = match (key.parsed(), curve.as_deref()) {
        (Ok(PublicKey::RSA(_)), _) => &signature::RSA_PSS_2048_8192_SHA256,
        (Ok(PublicKey::EC(_)), Some(P256)) => &signature::ECDSA_P256_SHA256_ASN1,
        (Ok(PublicKey::EC(_)), Some(P384)) => &signature::ECDSA_P384_SHA256_ASN1,
        (Ok(PublicKey::EC(_)), _) => return false,
        _ => &signature::ED25519,
    };
    signature::UnparsedPublicKey::new(algorithm, &*key.subject_public_key.data).verify(message, proof).is_ok()
}

pub(in super::super) fn update(new: &Value, old: &Value, errors: &mut ErrorList) {
    object_meta::update(new, old, errors);
    immutable(&new["spec"], &old["spec"], &Path::new("spec"), errors);
}

pub(in super::super) fn update_status(new: &Value, old: &Value, errors: &mut ErrorList) {
    let before = errors.len();
    object_meta::update(new, old, errors);
    let path = Path::new("status");
    if errors.len() == before {
        known(new["status"].list("conditions"), &path.child("conditions"), errors);
    }
    if errors.len() > before {
        return;
    }
    let is = |object: &Value, kind: &str| conditions::is_true(object["status"].list("conditions"), kind);
    let fixed = |other: &Value, message: &str, errors: &mut ErrorList| {
        if !semantically_equal(&new["status"], other) {
            errors.push(field::invalid(&path, BadValue::Omitted, message));
        }
    };
    if ENDS.iter().any(|end| is(old, end)) {
        fixed(&old["status"], "immutable after PodCertificateRequest is issued, denied, or failed", errors);
    } else if is(new, "Denied") || is(new, "Failed") {
        let bare = json!({"conditions": new["status"]["conditions"]});
        let message = "non-condition status fields must be empty when denying or failing the PodCertificateRequest";
        fixed(&bare, message, errors);
    } else if is(new, "Issued") {
        if let Err(error) = issued(&new["status"], &old["spec"], &path, errors) {
            errors.push(error);
        }
    } else {
        fixed(
            &old["status"],
            "status is immutable unless transitioning to \"Issued\", \"Denied\", or \"Failed\"",
            errors,
        );
    }
}

/// One end at most, and that is so.
fn known(list: &[Value], path: &Path, errors: &mut ErrorList) {
    let mut ended = false;
    for (i, condition) in list.iter().enumerate() {
        // Upstream has the index for a field's name.
        let at = path.child(format!("[{i}]"));
        if !ENDS.contains(&condition.text("type")) {
            errors.push(field::not_supported(&at.child("type"), condition.text("type"), &ENDS));
            continue;
        }
        if std::mem::replace(&mut ended, true) {
            let message = "There may be at most one condition with type \"Issued\", \"Denied\", or \"Failed\"";
            errors.push(field::invalid(&at.child("type"), condition.text("type"), message));
        }
        if condition.text("status") != "True" {
            errors.push(field::not_supported(&at.child("status"), condition.text("status"), &["True"]));
        }
    }
    conditions::check(list, path, errors);
}

/// A time as messages show it.
fn shown(time: Timestamp) -> BadValue {
    BadValue::Value(apimachinery::time::format(time).into())
}

/// Looks at what was issued. What is wrong with names is collected; the first of all else ends it.
fn issued(status: &Value, spec: &Value, path: &Path, errors: &mut ErrorList) -> Result<(), FieldError> {
    let (text, at) = (status.text("certificateChain"), path.child("certificateChain"));
    let wrong = |message: &str| field::invalid(&at, text, message);
    if text.len() > LARGEST_CHAIN {
        return Err(field::too_long(&at, LARGEST_CHAIN));
    }
    let mut blocks = pem::blocks(text);
    let leaf = blocks.next().ok_or_else(|| wrong("issued certificate chain must contain at least one certificate"))?;
    if leaf.label != "CERTIFICATE" {
        return Err(wrong("issued certificate chain must consist entirely of CERTIFICATE PEM blocks"));
    }
    let Ok(([], leaf)) = X509Certificate::from_der(&leaf.bytes) else {
        return Err(wrong("leaf certificate does not parse as valid X.509"));
    };
    subject_names(&leaf, &at, errors);
    let key = bytes(spec.text("pkixPublicKey"));
    let stub = bytes(spec.text("stubPKCS10Request"));
    let wanted = match X509CertificationRequest::from_der(&stub) {
        Ok((_, request)) => request.certification_request_info.subject_pki.raw.to_vec(),
        Err(_) => key,
    };
    if leaf.public_key().raw != wanted {
        return Err(wrong("leaf certificate was not issued to the requested public key"));
    }
    let time = |name: &str| status.text(name).parse::<Timestamp>().ok();
    let named = ["notBefore", "notAfter", "beginRefreshAt"];
    let [Some(start), Some(end), Some(refresh)] = named.map(time) else {
        for name in named.into_iter().filter(|name| time(name).is_none()) {
            let message = if name == "beginRefreshAt" {
                "must be present and in the range [notbefore+10min, notafter-10min]"
            } else {
                "must be present and consistent with the issued certificate"
            };
            errors.push(field::required(&path.child(name), message));
        }
        return Ok(());
    };
    let life = leaf.validity().not_after.timestamp() - leaf.validity().not_before.timestamp();
    let at_second = |time: Timestamp, second: i64| time.as_second() == second && time.subsec_nanosecond() == 0;
    if !at_second(start, leaf.validity().not_before.timestamp()) {
        let message = "must be set to the NotBefore time encoded in the leaf certificate";
        return Err(field::invalid(&path.child("notBefore"), shown(start), message));
    }
    if !at_second(end, leaf.validity().not_after.timestamp()) {
        let message = "must be set to the NotAfter time encoded in the leaf certificate";
        return Err(field::invalid(&path.child("notAfter"), shown(end), message));
    }
    // Durations are shown in nanoseconds.
    let nanos = life.saturating_mul(1_000_000_000);
    if life < HOUR {
        return Err(field::invalid(&at, nanos, "leaf certificate lifetime must be >= 1 hour"));
    }
    let most = spec.num("maxExpirationSeconds");
    if life > most {
        let message = format!("leaf certificate lifetime must be <= spec.maxExpirationSeconds ({most})");
        return Err(field::invalid(&at, nanos, message));
    }
    let refresh_at = path.child("beginRefreshAt");
    if refresh < start + MARGIN {
        return Err(field::invalid(&refresh_at, shown(refresh), "must be at least 10 minutes after status.notBefore"));
    }
    if refresh > end - MARGIN {
        return Err(field::invalid(&refresh_at, shown(refresh), "must be at least 10 minutes before status.notAfter"));
    }
    for block in blocks {
        if block.label != "CERTIFICATE" {
            return Err(wrong("issued certificate chain must consist entirely of CERTFICATE PEM blocks"));
        }
        if !matches!(X509Certificate::from_der(&block.bytes), Ok(([], _))) {
            return Err(wrong("intermediate certificate does not parse as valid X.509"));
        }
    }
    Ok(())
}

fn subject_names(leaf: &X509Certificate<'_>, at: &Path, errors: &mut ErrorList) {
    let Ok(Some(names)) = leaf.subject_alternative_name() else { return };
    for name in &names.value.general_names {
        match name {
            GeneralName::DNSName(name) => {
                for (wrong, message) in [
                    (name.is_empty(), "leaf certificate should not contain empty DNSName"),
                    (name.contains(".."), "leaf certificate's DNSName should not contain '..'"),
                    (
                        name.starts_with('.') || name.ends_with('.'),
                        "leaf certificate's DNSName should not start or end with '.'",
                    ),
                ] {
                    if wrong {
                        errors.push(field::invalid(at, *name, message));
                    }
                }
            }
            GeneralName::RFC822Name(name) => {
                let fits = name.rsplit_once('@').is_some_and(|(local, host)| !local.is_empty() && !host.is_empty());
                if !fits || name.contains(char::is_whitespace) {
                    errors.push(field::invalid(at, *name, "leaf certificate should not contain invalid EmailAddress"));
                }
            }
            _ => {}
        }
    }
}
