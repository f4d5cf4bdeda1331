//! How objects get from one version of a definition to another.

use apimachinery::field::{self, ErrorList, Path};
use apimachinery::names;
use serde_json::{Value, json};

use super::{Options, one_of};
use crate::read::Read;
use crate::validation::certificates::pem;
use crate::validation::webhook_configuration;

pub(super) fn validate(conversion: &Value, options: &Options, path: &Path, errors: &mut ErrorList) {
    if conversion.is_null() {
        return;
    }
    let strategy = conversion.text("strategy");
    one_of(strategy, &["None", "Webhook"], &path.child("strategy"), errors);
    let config = conversion.set("webhookClientConfig");
    let config_path = path.child("webhookClientConfig");
    let versions: Vec<&str> = conversion.texts("conversionReviewVersions").collect();
    let versions_path = path.child("conversionReviewVersions");
    if strategy != "Webhook" {
        const MUST_NOT: &str = "should not be set when strategy is not set to Webhook";
        if config.is_some() {
            errors.push(field::forbidden(&config_path, MUST_NOT));
        }
        if !versions.is_empty() {
            errors.push(field::forbidden(&versions_path, MUST_NOT));
        }
        return;
    }
    match config {
        None => errors.push(field::required(&config_path, "required when strategy is set to Webhook")),
        Some(config) => client(config, options, &config_path, errors),
    }
    if versions.is_empty() {
        errors.push(field::required(&versions_path, ""));
        return;
    }
    let mut accepted = false;
    for (i, version) in versions.iter().enumerate() {
        let path = versions_path.index(i);
        if versions[..i].contains(version) {
            errors.push(field::invalid(&path, *version, "duplicate version"));
            continue;
        }
        for why in names::dns1035_label(version) {
            errors.push(field::invalid(&path, *version, why.to_string()));
        }
        accepted |= matches!(*version, "v1" | "v1beta1");
    }
    if options.recognized_review_version && !accepted {
        errors.push(field::invalid(&versions_path, json!(versions), "must include at least one of v1, v1beta1"));
    }
}

fn client(config: &Value, options: &Options, path: &Path, errors: &mut ErrorList) {
    match (config.set("url").and_then(Value::as_str), config.set("service")) {
        (Some(url), None) => webhook_configuration::url(url, &path.child("url"), errors),
        (None, Some(service)) => webhook_configuration::service(service, &path.child("service"), errors),
        _ => errors.push(field::required(path, "exactly one of url or service is required")),
    }
    let bundle = config.text("caBundle");
    if !options.invalid_ca_bundle
        && let Some(why) = ca_bundle_problem(bundle)
    {
        errors.push(field::invalid(&path.child("caBundle"), bundle, why));
    }
}

/// Whether a conversion has authorities that cannot be read.
pub(super) fn has_invalid_ca_bundle(conversion: &Value) -> bool {
    ca_bundle_problem(conversion["webhookClientConfig"].text("caBundle")).is_some()
}

/// Why no authority comes of a bundle in Base64; an empty one asks for none.
fn ca_bundle_problem(bundle: &str) -> Option<String> {
    let bytes = apimachinery::go_base64::decode(bundle).unwrap_or_default();
    if bytes.is_empty() {
        return None;
    }
    let failed = |why: &str| Some(format!("unable to load root certificates: {why}"));
    let (mut blocks, mut certificate, mut broken) = (0, false, false);
    for block in pem::blocks(&String::from_utf8_lossy(&bytes)) {
        blocks += 1;
        if block.label != "CERTIFICATE" || block.headers {
            continue;
        }
        let whole = |(rest, _): &(&[u8], _)| rest.is_empty();
        match x509_parser::parse_x509_certificate(&block.bytes).ok().filter(whole) {
            Some(_) => certificate = true,
            None => broken = true,
        }
    }
    match (certificate, broken, blocks) {
        (true, ..) => None,
        (false, true, _) => failed("failed to parse certificate: x509: malformed certificate"),
        (false, false, 0) => failed("unable to parse bytes as PEM block"),
        (false, false, _) => failed("no valid certificate authority data seen"),
    }
}
