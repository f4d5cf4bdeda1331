//! Kinds of `certificates.k8s.io`: CertificateSigningRequest here, the others in files of their own.

pub(crate) mod pem;
pub(super) mod pod;
pub(super) mod trust_bundle;

use std::collections::BTreeSet;

use apimachinery::field::{self, BadValue, ErrorList, Path};
use apimachinery::go_base64;
use apimachinery::gotext::quote;
use apimachinery::names::{self, Messages};
use serde_json::Value;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::error::X509Error;
use x509_parser::prelude::FromDer as _;

use super::checks::semantically_equal;
use super::{diff, object_meta};
use crate::read::Read;

const USAGES: [&str; 23] = [
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];
const LEGACY_SIGNER: &str = "kubernetes.io/legacy-unknown";
const EXCLUSIVE: &str = "Approved and Denied conditions are mutually exclusive";

/// Rules that an update need not follow if what was there did not, and what each way in may change.
#[derive(Clone, Copy, Default)]
struct Allowed {
    approval: bool,
    certificate: bool,
    both: bool,
    legacy_signer: bool,
    duplicate_types: bool,
    empty_type: bool,
    any_certificate: bool,
    unknown_usages: bool,
    duplicate_usages: bool,
}

impl Allowed {
    fn by(new: &Value, old: &Value) -> Self {
        let (spec, status) = (&old["spec"], &old["status"]);
        let has = |kind: &str| status.list("conditions").iter().any(|c| c.text("type") == kind);
        let certificate = |object: &Value| object["status"].text("certificate").to_owned();
        Self {
            both: has("Approved") && has("Denied"),
            legacy_signer: spec.text("signerName") == LEGACY_SIGNER,
            duplicate_types: repeats(status.list("conditions").iter().map(|c| c.text("type"))),
            empty_type: has(""),
            any_certificate: certificate(new) == certificate(old) || self::certificate(&certificate(old)).is_err(),
            unknown_usages: spec.texts("usages").any(|usage| !USAGES.contains(&usage)),
            duplicate_usages: repeats(spec.texts("usages")),
            ..Self::default()
        }
    }
}

fn repeats<'a>(mut items: impl Iterator<Item = &'a str>) -> bool {
    let mut seen = BTreeSet::new();
    !items.all(|item| seen.insert(item))
}

/// Any name that can be part of a URL.
fn any_name(_: &str, _: bool) -> Messages {
    Messages::new()
}

pub(super) fn create(csr: &Value, errors: &mut ErrorList) {
    check(csr, Allowed::default(), errors);
}

fn check(csr: &Value, allowed: Allowed, errors: &mut ErrorList) {
    object_meta::create(csr, false, any_name, errors);
    let (spec, path) = (&csr["spec"], Path::new("spec"));
    if let Err(message) = request(spec.text("request")) {
        let shown = BadValue::from(&spec["request"]);
        errors.push(field::invalid(&path.child("request"), shown, message));
    }
    let at = path.child("usages");
    if spec.list("usages").is_empty() {
        errors.push(field::required(&at, ""));
    }
    for (i, usage) in spec.texts("usages").enumerate().filter(|(_, usage)| !USAGES.contains(usage)) {
        if !allowed.unknown_usages {
            errors.push(field::not_supported(&at.index(i), usage, &USAGES));
        }
    }
    let mut seen = BTreeSet::new();
    for (i, usage) in spec.texts("usages").enumerate() {
        if !seen.insert(usage) && !allowed.duplicate_usages {
            errors.push(field::duplicate(&at.index(i), usage));
        }
    }
    let (signer, at) = (spec.text("signerName"), path.child("signerName"));
    if signer == LEGACY_SIGNER && !allowed.legacy_signer {
        errors.push(field::invalid(&at, signer, "the legacy signerName is not allowed via this API version"));
    } else {
        signer_name(signer, &at, errors);
    }
    if let Some(seconds) = spec.int("expirationSeconds").filter(|seconds| *seconds < 600) {
        let message = "may not specify a duration less than 600 seconds (10 minutes)";
        errors.push(field::invalid(&path.child("expirationSeconds"), seconds, message));
    }
    conditions(csr["status"].list("conditions"), allowed, &Path::new("status").child("conditions"), errors);
    if !allowed.any_certificate
        && let Err(message) = certificate(csr["status"].text("certificate"))
    {
        errors.push(field::invalid(&Path::new("status").child("certificate"), "<certificate data>", message));
    }
}

/// The text of base64, or nothing.
fn decoded(encoded: &str) -> String {
    let bytes = go_base64::decode(encoded).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

fn request(encoded: &str) -> Result<(), String> {
    let text = decoded(encoded);
    let block = pem::blocks(&text).next().filter(|block| block.label == "CERTIFICATE REQUEST");
    let block = block.ok_or("PEM block type must be CERTIFICATE REQUEST")?;
    let (rest, csr) = X509CertificationRequest::from_der(&block.bytes)
        .map_err(|_| "asn1: structure error: malformed certificate request".to_owned())?;
    if !rest.is_empty() {
        return Err("asn1: syntax error: trailing data".to_owned());
    }
    // What `ring` has no code for is not verified, so it is refused as what Go has no code for is.
    csr.verify_signature().map_err(|error| match error {
        X509Error::SignatureVerificationError => "x509: signature verification failure".to_owned(),
        _ => "x509: cannot verify signature: algorithm unimplemented".to_owned(),
    })
}

fn certificate(encoded: &str) -> Result<(), String> {
    if encoded.is_empty() {
        return Ok(());
    }
    let mut count = 0;
    for block in pem::blocks(&decoded(encoded)) {
        if block.label != "CERTIFICATE" {
            return Err(format!("only CERTIFICATE PEM blocks are allowed, found {}", quote(&block.label)));
        }
        if block.headers {
            return Err("no PEM block headers are permitted".to_owned());
        }
        count += 1;
        let mut rest = &*block.bytes;
        if rest.is_empty() {
            return Err("found CERTIFICATE PEM block containing 0 certificates".to_owned());
        }
        while !rest.is_empty() {
            (rest, _) = x509_parser::parse_x509_certificate(rest).map_err(|_| "x509: malformed certificate")?;
        }
    }
    if count == 0 { Err("must contain at least one CERTIFICATE PEM block".to_owned()) } else { Ok(()) }
}

fn conditions(conditions: &[Value], allowed: Allowed, path: &Path, errors: &mut ErrorList) {
    let (mut approved, mut denied) = (false, false);
    for (i, condition) in conditions.iter().enumerate() {
        let (kind, status) = (condition.text("type"), condition.text("status"));
        if kind.is_empty() && !allowed.empty_type {
            errors.push(field::required(&path.index(i).child("type"), ""));
        }
        let statuses: &[&str] =
            if matches!(kind, "Approved" | "Denied" | "Failed") { &["True"] } else { &["False", "True", "Unknown"] };
        super::checks::one_of(status, statuses, &path.index(i).child("status"), errors);
        approved |= kind == "Approved";
        denied |= kind == "Denied";
        if !allowed.both && approved && denied && matches!(kind, "Approved" | "Denied") {
            errors.push(field::invalid(path, kind, EXCLUSIVE));
        }
        if !allowed.duplicate_types && conditions[..i].iter().any(|other| other.text("type") == kind) {
            errors.push(field::duplicate(&path.index(i).child("type"), kind));
        }
    }
}

/// `subresource` is the way in: what may change differs.
pub(super) fn update(new: &Value, old: &Value, subresource: &str, errors: &mut ErrorList) {
    let allowed =
        Allowed { approval: subresource == "approval", certificate: subresource == "status", ..Allowed::by(new, old) };
    check(new, allowed, errors);
    let path = Path::new("status").child("conditions");
    let of_kind = |object: &Value, kind: &str| -> Vec<Value> {
        let conditions = object["status"].list("conditions").iter();
        conditions.filter(|c| c.text("type") == kind).cloned().collect()
    };
    for kind in ["Approved", "Denied", "Failed"] {
        if of_kind(new, kind).len() < of_kind(old, kind).len() {
            let message = format!("updates may not remove a condition of type {}", quote(kind));
            errors.push(field::forbidden(&path, message));
        }
    }
    if !allowed.approval {
        for kind in ["Approved", "Denied"] {
            let (now, before) = (of_kind(new, kind), of_kind(old, kind));
            if now.len() > before.len() {
                let message = format!("updates may not add a condition of type {}", quote(kind));
                errors.push(field::forbidden(&path, message));
            } else if now.len() == before.len() {
                let (now, before) = (Value::from(now), Value::from(before));
                if !semantically_equal(&now, &before) {
                    let diff = diff::of("[]CertificateSigningRequestCondition", &before, &now);
                    let message = format!("updates may not modify a condition of type {}\n{diff}", quote(kind));
                    errors.push(field::forbidden(&path, message));
                }
            }
        }
    }
    let (now, before) = (new["status"].text("certificate"), old["status"].text("certificate"));
    let path = Path::new("status").child("certificate");
    if now != before && !allowed.certificate {
        errors.push(field::forbidden(&path, "updates may not set certificate content"));
    } else if now != before && !before.is_empty() {
        errors.push(field::forbidden(&path, "updates may not modify existing certificate content"));
    }
    object_meta::update(new, old, errors);
}

/// `ValidateSignerName`: a domain and a path.
pub(in crate::validation) fn signer_name(name: &str, path: &Path, errors: &mut ErrorList) {
    const LONGEST_DOMAIN: usize = 253;
    const LONGEST: usize = LONGEST_DOMAIN + 1 + 253 + 63 + 1;
    if name.is_empty() {
        errors.push(field::required(path, ""));
        return;
    }
    let Some((domain, rest)) = name.split_once('/').filter(|(_, rest)| !rest.contains('/')) else {
        let message = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        errors.push(field::invalid(path, name, message));
        return;
    };
    if domain.len() > LONGEST_DOMAIN {
        errors.push(field::too_long(path, LONGEST_DOMAIN));
    }
    labels(domain, names::dns1123_label, path, errors);
    if !domain.contains('.') {
        let message = "should be a domain with at least two segments separated by dots";
        errors.push(field::invalid(path, domain, message));
    }
    labels(rest, names::dns1123_subdomain, path, errors);
    if name.len() > LONGEST {
        errors.push(field::too_long(path, LONGEST));
    }
}

/// Complains of the first bad label only.
fn labels(text: &str, check: fn(&str) -> Messages, path: &Path, errors: &mut ErrorList) {
    for label in text.split('.') {
        let wrong = check(label);
        if wrong.is_empty() {
            continue;
        }
        for message in wrong {
            errors.push(field::invalid(path, text, format!("validating label {}: {message}", quote(label))));
        }
        return;
    }
}
