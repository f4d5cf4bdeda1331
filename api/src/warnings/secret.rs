//! Secrets of type `kubernetes.io/tls`: what Go's `tls.X509KeyPair` says of the texts.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::read::Read;
use crate::validation::certificates::pem;

/// Whether there is a certificate and a key at all. That they belong together is not looked at.
pub(super) fn pair(secret: &Value, out: &mut Vec<String>) {
    if secret.text("type") != "kubernetes.io/tls" {
        return;
    }
    let part = |name: &str| {
        let bytes = STANDARD.decode(secret["data"].text(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let wrong = certificate(&part("tls.crt")).or_else(|| key(&part("tls.key")));
    out.extend(wrong.map(|wrong| format!("tls: {wrong}")));
}

/// The labels of blocks that come before the wanted one, or `None` if it is there.
fn without(text: &str, wanted: impl Fn(&str) -> bool) -> Option<Vec<String>> {
    let mut passed = Vec::new();
    for block in pem::blocks(text) {
        if wanted(&block.label) {
            return None;
        }
        passed.push(block.label);
    }
    Some(passed)
}

fn certificate(text: &str) -> Option<String> {
    const SWITCHED: &str = "failed to find certificate PEM data in certificate input, but did find a private key; PEM inputs may have been switched";
    let passed = without(text, |label| label == "CERTIFICATE")?;
    Some(match passed.as_slice() {
        [] => "failed to find any PEM data in certificate input".to_string(),
        [one] if one.ends_with("PRIVATE KEY") => SWITCHED.to_string(),
        _ => format!(
            "failed to find \"CERTIFICATE\" PEM block in certificate input after skipping PEM blocks of the following types: [{}]",
            passed.join(" ")
        ),
    })
}

fn key(text: &str) -> Option<String> {
    let passed = without(text, |label| label == "PRIVATE KEY" || label.ends_with(" PRIVATE KEY"))?;
    Some(match passed.as_slice() {
        [] => "failed to find any PEM data in key input".to_string(),
        [one] if one == "CERTIFICATE" => {
            "found a certificate rather than a key in the PEM for the private key".to_string()
        }
        _ => format!(
            "failed to find PEM block with type ending in \"PRIVATE KEY\" in key input after skipping PEM blocks of the following types: [{}]",
            passed.join(" ")
        ),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn says_what_go_says() {
        let block = |label: &str| format!("-----BEGIN {label}-----\nYWI=\n-----END {label}-----\n");
        let check = |certificate: &str, key: &str, want: Option<&str>| {
            let data = json!({"tls.crt": STANDARD.encode(certificate), "tls.key": STANDARD.encode(key)});
            let mut out = Vec::new();
            pair(&json!({"type": "kubernetes.io/tls", "data": data}), &mut out);
            let want: Vec<String> = want.iter().map(|want| format!("tls: {want}")).collect();
            assert_eq!(out, want);
        };
        let (cert, private) = (block("CERTIFICATE"), block("EC PRIVATE KEY"));
        check(&cert, &private, None);
        check("", "", Some("failed to find any PEM data in certificate input"));
        check(&cert, "x", Some("failed to find any PEM data in key input"));
        check(&cert, &cert, Some("found a certificate rather than a key in the PEM for the private key"));
        check(
            &private,
            &private,
            Some(
                "failed to find certificate PEM data in certificate input, but did find a private key; PEM inputs may have been switched",
            ),
        );
        check(
            &(block("A") + &block("B")),
            "",
            Some(
                "failed to find \"CERTIFICATE\" PEM block in certificate input after skipping PEM blocks of the following types: [A B]",
            ),
        );
    }
}
