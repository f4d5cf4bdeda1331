//! ClusterTrustBundle.

use std::collections::BTreeMap;

use apimachinery::field::{self, ErrorList, Path};
use serde_json::Value;

use super::super::checks::{immutable_text, name_is_subdomain};
use super::super::object_meta;
use super::{pem, signer_name};
use crate::read::Read;

const LARGEST: usize = 1024 * 1024;
const OMITTED: &str = "<value omitted>";

pub(in super::super) fn create(bundle: &Value, errors: &mut ErrorList) {
    check(bundle, true, errors);
}

pub(in super::super) fn update(new: &Value, old: &Value, errors: &mut ErrorList) {
    // A bundle that does not change is not read again: readers of certificates change, too.
    let changed = new["spec"].text("trustBundle") != old["spec"].text("trustBundle");
    check(new, changed, errors);
    object_meta::update(new, old, errors);
    let path = Path::new("spec").child("signerName");
    immutable_text(&new["spec"]["signerName"], &old["spec"]["signerName"], &path, errors);
}

fn check(bundle: &Value, parse: bool, errors: &mut ErrorList) {
    let signer = bundle["spec"].text("signerName");
    metadata(bundle, signer, errors);
    if !signer.is_empty() {
        signer_name(signer, &Path::new("spec").child("signerName"), errors);
    }
    if parse {
        anchors(bundle["spec"].text("trustBundle"), &Path::new("spec").child("trustBundle"), errors);
    }
}

/// Names begin with their signer's.
fn metadata(bundle: &Value, signer: &str, errors: &mut ErrorList) {
    let prefix = if signer.is_empty() { String::new() } else { format!("{}:", signer.replace('/', ":")) };
    let mut found = ErrorList::new();
    object_meta::create(bundle, false, super::any_name, &mut found);
    let at = found.iter().position(|e| !e.field.ends_with("ame")).unwrap_or(found.len());
    let after = found.0.split_off(at);
    for name in ["generateName", "name"] {
        let value = bundle["metadata"].text(name);
        if value.is_empty() {
            continue;
        }
        let path = Path::new("metadata").child(name);
        let messages = match value.strip_prefix(&*prefix) {
            None => {
                let text = format!("ClusterTrustBundle for signerName {signer} must be named with prefix {prefix}");
                [text].into_iter().collect()
            }
            Some(_) if signer.is_empty() && value.contains(':') => {
                let text = "ClusterTrustBundle without signer name must not have \":\" in its name".to_owned();
                [text].into_iter().collect()
            }
            Some(rest) => name_is_subdomain(rest, name == "generateName"),
        };
        found.extend(messages.into_iter().map(|message| field::invalid(&path, value, message)));
    }
    found.extend(after);
    errors.extend(found);
}

fn anchors(text: &str, path: &Path, errors: &mut ErrorList) {
    if text.len() > LARGEST {
        errors.push(field::too_long(path, LARGEST));
        return;
    }
    let before = errors.len();
    let mut known: BTreeMap<Vec<u8>, Vec<usize>> = BTreeMap::new();
    for (i, block) in pem::blocks(text).enumerate() {
        let why = if block.label == "CERTIFICATE" {
            problem(&block)
        } else {
            Some(format!("has bad block type: {}", block.label))
        };
        match why {
            Some(why) => errors.push(field::invalid(path, OMITTED, format!("entry {i} {why}"))),
            None => known.entry(block.bytes).or_default().push(i),
        }
    }
    if errors.len() > before {
        return;
    }
    if known.is_empty() {
        errors.push(field::invalid(path, OMITTED, "at least one trust anchor must be provided"));
    }
    for indices in known.values().filter(|indices| indices.len() > 1) {
        let indices: Vec<String> = indices.iter().map(ToString::to_string).collect();
        let message = format!("duplicate trust anchor (indices [{}])", indices.join(" "));
        errors.push(field::invalid(path, OMITTED, message));
    }
}

fn problem(block: &pem::Block) -> Option<String> {
    if block.headers {
        return Some("has PEM block headers".to_owned());
    }
    let parsed = x509_parser::parse_x509_certificate(&block.bytes).ok().filter(|(rest, _)| rest.is_empty());
    let Some((_, certificate)) = parsed else { return Some("does not parse as X.509".to_owned()) };
    (!certificate.is_ca()).then(|| "does not have the CA bit set".to_owned())
}
